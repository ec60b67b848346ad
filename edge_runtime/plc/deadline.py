"""One end for a whole exchange with a PLC, in however many pieces its answers come. Why: deploy/decisions/0048."""

import math
import select
import socket
import time

from edge_runtime.plc.link import delivered

_MOST = 4096
"""Bytes at once: more than most answers have."""
ASK_AGAIN_S = 0.005
"""How soon a PLC that said "not now" is asked again."""
_ENOUGH_S = 0.02
"""What an answer may take."""


class Deadline:
    """From its making on, `timeout_s` for all that is sent and received under it; nothing is sent, nor sent again by the system, after
    `within_s`, if that is given: a request that was not delivered by then ends the connection, which drops it (link.py)."""

    __slots__ = ("_sent_by", "_until")

    def __init__(self, timeout_s: float, within_s: float | None = None) -> None:
        now = time.monotonic()
        self._until = now + timeout_s
        self._sent_by = math.inf if within_s is None else now + within_s

    @property
    def left_s(self) -> float:
        """Not below 0."""
        return max(self._until - time.monotonic(), 0.0)

    @property
    def forbids_sending(self) -> bool:
        """`within_s` is over."""
        return time.monotonic() >= self._sent_by

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
        if self._sent_by < self._until:
            self._wait_for_delivery(sock)
        self._limit(sock)
        data = sock.recv(_MOST)
        if not data:
            raise ConnectionResetError("closed by the PLC")
        return data

    def _wait_for_delivery(self, sock: socket.socket) -> None:
        """The answer tells, or the system. Raises TimeoutError."""
        answered = select.select([sock], [], [], max(self._sent_by - time.monotonic(), 0.0))[0]
        if not answered and not delivered(sock):
            raise TimeoutError

    def _limit(self, sock: socket.socket) -> None:
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        sock.settimeout(left_s)
