"""A Modbus device of its own over a raw socket, after the specification: what it lacks and how it behaves is set, what it saw is kept."""

import contextlib
import socket
import struct
import threading
from types import TracebackType
from typing import Self

_SIZE = 600


class RawModbus:
    """One client at a time. `coils` and `registers` are its memory, shared by inputs and outputs."""

    def __init__(self, *, unit: int = 1, most_read: int = 125, most_write: int = 123, functions: str = "all", too_much: int = 3) -> None:
        """`most_read`, `most_write`: registers or coils a request, beyond which it says exception `too_much`; `functions`: "all", or
        "single" for a device without 15 and 16."""
        self._unit, self._most_read, self._most_write, self._too_much = unit, most_read, most_write, too_much
        self._functions = (1, 2, 3, 4, 5, 6) if functions == "single" else (1, 2, 3, 4, 5, 6, 15, 16)
        self.coils, self.registers = [0] * _SIZE, [0] * _SIZE
        self.writes: list[tuple[str, int, list[int]]] = []
        """("coil" or "holding", address, values), as they came."""
        self.connections = self.requests = 0
        self.busy: dict[int, int] = {}
        """How many of the next requests of a function it answers with exception 6."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._client: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="raw-modbus")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        for s in (self._listener, self._client):
            if s is not None:
                with contextlib.suppress(OSError):
                    s.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def cut(self) -> None:
        """Like a cable that is pulled out and put back."""
        if self._client is not None:
            with contextlib.suppress(OSError):
                self._client.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._client = client
            with client, contextlib.suppress(OSError, struct.error):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while head := client.recv(7, socket.MSG_WAITALL):
                    number, _, length, _ = struct.unpack(">HHHB", head)
                    answer = self._answer(client.recv(length - 1, socket.MSG_WAITALL))
                    client.sendall(struct.pack(">HHHB", number, 0, len(answer) + 1, self._unit) + answer)

    def _answer(self, asked: bytes) -> bytes:
        self.requests += 1
        function = asked[0]
        if function not in self._functions:
            return bytes([function | 0x80, 1])
        if self.busy.get(function, 0) > 0:
            self.busy[function] -= 1
            return bytes([function | 0x80, 6])
        at, n = struct.unpack(">HH", asked[1:5])
        memory, area = (self.coils, "coil") if function in (1, 2, 5, 15) else (self.registers, "holding")
        if function in (5, 6):
            values = [int(n == 0xFF00) if function == 5 else n]
        else:
            if n > (self._most_write if function in (15, 16) else self._most_read):
                return bytes([function | 0x80, self._too_much])
            if at + n > _SIZE:
                return bytes([function | 0x80, 2])
            if function in (3, 4):
                return bytes([function, 2 * n]) + struct.pack(f">{n}H", *memory[at : at + n])
            if function in (1, 2):
                bits = sum(bit << i for i, bit in enumerate(memory[at : at + n]))
                return bytes([function, -(-n // 8)]) + bits.to_bytes(-(-n // 8), "little")
            data = asked[6:]
            values = list(struct.unpack(f">{n}H", data)) if function == 16 else [data[i // 8] >> i % 8 & 1 for i in range(n)]
        memory[at : at + len(values)] = values
        self.writes.append((area, at, values))
        return asked[:5]
