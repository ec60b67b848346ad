"""One end for a whole exchange with a PLC, in however many pieces its answers come. Why: deploy/decisions/0048."""

import socket
import time

_MOST = 4096
"""Bytes at once: more than most answers have."""
ASK_AGAIN_S = 0.005
"""How soon a PLC that said "not now" is asked again."""
_ENOUGH_S = 0.02
"""What an answer may take."""


class Deadline:
    """From its making on, `timeout_s` for all that is sent and received under it."""

    __slots__ = ("_until",)

    def __init__(self, timeout_s: float) -> None:
        self._until = time.monotonic() + timeout_s

    @property
    def left_s(self) -> float:
        """Not below 0."""
        return max(self._until - time.monotonic(), 0.0)

    @property
    def allows_another(self) -> bool:
        """There is time to ask again in a moment, and to be answered."""
        return self.left_s > ASK_AGAIN_S + _ENOUGH_S

    def send(self, sock: socket.socket, data: bytes) -> None:
        """Send all of `data` within what is left. Raises TimeoutError, OSError."""
        self._limit(sock)
        sock.sendall(data)

    def receive(self, sock: socket.socket) -> bytes:
        """What comes next, one byte at least. Raises TimeoutError when the time is over, whatever waits to be read; OSError."""
        self._limit(sock)
        data = sock.recv(_MOST)
        if not data:
            raise ConnectionResetError("closed by the PLC")
        return data

    def _limit(self, sock: socket.socket) -> None:
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        sock.settimeout(left_s)
