"""A TCP proxy before a real server that turns hostile: its answers drip, or the last one comes again and again."""

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Literal, Self

Manner = Literal["honest", "drips", "repeats"]


class HostileProxy:
    """Listens on `port` of 127.0.0.1 and forwards to `target`. `manner` may be set at any time and holds for what comes from then on:
    "drips" forwards the server's answers byte by byte, `pause_s` apart; "repeats" answers whatever is asked with the last honest answer,
    over and over, until the client hangs up."""

    pause_s = 0.1

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.manner: Manner = "honest"
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = [self._listener]
        self._ended = False

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._ended = True
        for s in self._sockets:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for s in self._sockets:
            s.close()

    def _start(self, work: object, *args: object) -> None:
        def quietly() -> None:
            with contextlib.suppress(OSError):
                work(*args)  # type: ignore[operator]

        self._threads.append(threading.Thread(target=quietly, name="hostile-proxy"))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [client, server]
            for a in (client, server):
                a.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            last = bytearray()
            self._start(self._ask, client, server, last)
            self._start(self._answer, server, client, last)

    def _ask(self, client: socket.socket, server: socket.socket, last: bytearray) -> None:
        try:
            while data := client.recv(65_536):
                if self.manner != "repeats":
                    server.sendall(data)
                    continue
                while not self._ended:
                    client.sendall(last)
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)

    def _answer(self, server: socket.socket, client: socket.socket, last: bytearray) -> None:
        try:
            while data := server.recv(65_536):
                if self.manner == "drips":
                    for byte in data:
                        client.sendall(bytes([byte]))
                        if self.manner == "drips":
                            time.sleep(self.pause_s)
                elif self.manner == "honest":
                    last[:] = data
                    client.sendall(data)
        finally:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
