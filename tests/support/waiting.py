"""Waiting for what a test is about, instead of for a time that was long enough once."""

import socket
import time
from collections.abc import Callable

BUSY_S = 120.0
"""For what takes a moment: wide enough for a machine that does much else, for only what is broken waits so long."""


def until(true: Callable[[], object], within_s: float = BUSY_S) -> None:
    """Returns once `true()` holds, asked every 2 ms; AssertionError where it does not come to hold within `within_s`."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, f"did not come true within {within_s:g} s"
        time.sleep(0.002)


def listens(port: int) -> bool:
    """Whether anybody takes connections there, on loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
