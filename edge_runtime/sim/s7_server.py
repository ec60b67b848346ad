"""The memory of an S7 PLC with python-snap7's server in front of it: what simulated PLCs and tests write to and read from."""

import logging
import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from edge_runtime.errors import MissingExtra, TriggerError
from edge_runtime.plc.cells import decode, encode
from edge_runtime.plc.s7 import S7TriggerConfig, parse
from edge_runtime.plc.tags import Tag, Value


class S7Server:
    """A TagServer. Each block and area reaches from byte 0 to the last tag in it. It takes any rack and slot."""

    def __init__(self, settings: S7TriggerConfig, tags: Sequence[Tag]) -> None:
        """Raises ConfigError for a tag's address, MissingExtra without python-snap7."""
        try:
            from snap7.server import Server
        except ImportError as e:
            raise MissingExtra("the simulated PLC", "plc") from e
        logging.getLogger("snap7").setLevel(logging.CRITICAL)
        self._settings = settings
        self.where = f"{settings.host}:{settings.port}"
        self._tags = {tag.name: tag for tag in tags}
        self._places = {tag.name: parse(tag) for tag in tags}
        places = self._places.values()
        self._memory = {area: bytearray(max(p.end for p in places if p.area == area)) for area in sorted({p.area for p in places})}
        self._requests = 0
        self._lock = threading.Lock()
        """One request, or one get or set, at a time."""
        self._clients: set[socket.socket] = set()
        self._server: Any = None
        outer = self

        class Counting(Server):
            """snap7's server has no way to ask for its requests, nor to cut its connections: it would wait 5 s for each."""

            def _handle_client(self, client_socket: socket.socket, address: tuple[str, int]) -> None:
                outer._clients.add(client_socket)
                try:
                    super()._handle_client(client_socket, address)
                finally:
                    outer._clients.discard(client_socket)

            def _process_request(self, request_data: bytes, client_address: tuple[str, int]) -> bytes | None:
                with outer._lock:
                    outer._requests += 1
                    return super()._process_request(request_data, client_address)

        self._new_server = Counting

    def __enter__(self) -> Self:
        """Listens when it returns. Raises TriggerError when it cannot."""
        from snap7.error import S7Error

        s = self._settings
        self._server = self._new_server(log=False)
        for area, memory in self._memory.items():
            self._server.register_area(*_area(area), memory)
        try:
            self._server.host = socket.gethostbyname(s.host)
            socket.create_server((self._server.host, s.port)).close()  # snap7 would share a port with whoever has it
            self._server.start(s.port)
        except (S7Error, OSError) as e:
            raise TriggerError(f"simulated PLC: cannot listen on {self.where}: is the port in use, or below 1024? Choose another") from e
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Connections are cut, like those of a PLC that loses power."""
        server = self._server
        listening = server.server_socket
        server.running = False
        if listening is not None:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        server.server_thread.join()
        with server.client_lock:
            threads: list[threading.Thread] = list(server.clients)
        while any(thread.is_alive() for thread in threads):
            for client in list(self._clients):
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
            threads[0].join(0.01)
            threads = [thread for thread in threads if thread.is_alive()]
        if listening is not None:
            listening.close()

    @property
    def requests(self) -> int:
        """Requests of clients so far."""
        return self._requests

    def get(self, names: Sequence[str]) -> dict[str, Value]:
        """These tags at one moment."""
        with self._lock:
            result = {}
            for name in names:
                place = self._places[name]
                result[name] = decode(self._tags[name], place, self._memory[place.area][place.start : place.end], 1)
            return result

    def set(self, values: Mapping[str, Value]) -> None:
        """Write these tags at one moment."""
        with self._lock:
            for name, value in values.items():
                place = self._places[name]
                memory = self._memory[place.area]
                memory[place.start : place.end] = bytes(encode(self._tags[name], place, value, memory[place.start : place.end], 1))


def _area(name: str) -> tuple[Any, int]:
    from snap7.type import SrvArea

    return (SrvArea.DB, int(name[2:])) if name.startswith("DB") else ({"I": SrvArea.PE, "Q": SrvArea.PA, "M": SrvArea.MK}[name], 0)
