"""A TCP connection to a PLC that takes with it what it has not delivered. Why: deploy/decisions/0059."""

import contextlib
import errno
import fcntl
import socket
import struct
import termios

from edge_runtime.dial import connect

_DROPS, _DELIVERS = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)


def tune(sock: socket.socket, timeout_s: float) -> None:
    """Have requests go out at once, and none after the connection was given up: by `close`, by the end of this process however it ends, or
    because the PLC's side has confirmed nothing for `timeout_s`. Raises OSError.

    Else the system goes on sending for a minute and more what was written into a cable that was out, and the PLC reads the result of a part
    that has long gone, or the acknowledge of its next trigger.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROPS)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(round(timeout_s * 1e3), 1))


def delivered(sock: socket.socket) -> bool:
    """Whether the PLC's side has confirmed all that was written. Raises OSError."""
    return fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)) == bytes(4)


def before_close(sock: socket.socket) -> None:
    """Have it closed in good order where the PLC's side has confirmed all that was written, else so that the rest is dropped."""
    with contextlib.suppress(OSError):  # it may have ended by itself
        if sock.fileno() >= 0 and delivered(sock):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DELIVERS)


def hang_up(sock: socket.socket) -> None:
    """Close it, as `before_close` says."""
    before_close(sock)
    sock.close()


class Dialler:
    """Connects to one PLC, each time from the local port of the time before, and to the address that its name had then.

    A PLC that was not reached by the end of a connection, for the cable was out, keeps it; many serve one alone. A new one from the same
    port makes it let go of the old one at once. The name is looked up anew where that address does not answer: name servers fail, too.
    """

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self._name, self._timeout_s = (host, port), timeout_s
        self._from = 0
        self._known: tuple[str, int] | None = None
        self._by_name = True

    def dial(self) -> socket.socket:
        """Raises OSError, of which TimeoutError after `timeout_s`."""
        address = self._name if self._known is None or self._by_name else self._known
        self._by_name = not self._by_name  # unless it succeeds, the other way is next
        sock = self._again(address) or connect(address, self._timeout_s)
        try:
            tune(sock, self._timeout_s)
            self._from, self._known = int(sock.getsockname()[1]), sock.getpeername()[:2]
        except OSError:
            sock.close()
            raise
        self._by_name = False
        return sock

    def _again(self, address: tuple[str, int]) -> socket.socket | None:
        """None where there was none, or somebody else has its port now."""
        if not self._from:
            return None
        try:
            return connect(address, self._timeout_s, ("", self._from))
        except OSError as e:
            if e.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                self._from = 0
                return None
            raise
