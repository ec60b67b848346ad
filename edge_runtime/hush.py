"""What image libraries write to the process's error output by themselves: kept from the terminal while they decode, and only then."""

import contextlib
import ctypes
import os
import platform
import threading
from collections.abc import Iterator

import cv2

_LOCK = threading.Lock()
_inside = 0
_before: tuple[int | None, int] = (None, 0)
_nowhere: int | None = None


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """libpng's and libjpeg's own lines, and OpenCV's log, go nowhere inside; several threads may be inside at once.

    What is wrong with a file is told by whoever decodes it, with its path; these lines name none. The C variable `stderr` is pointed
    elsewhere rather than descriptor 2: what Python writes, and what a crash leaves behind, still reaches the terminal.
    """
    global _inside, _before
    stderr = _c_stderr()
    with _LOCK:
        if _inside == 0:
            _before = (stderr.value if stderr is not None else None, cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT))
            if stderr is not None:
                stderr.value = _sink() or stderr.value
        _inside += 1
    try:
        yield
    finally:
        with _LOCK:
            _inside -= 1
            if _inside == 0:
                if stderr is not None:
                    stderr.value = _before[0]
                cv2.utils.logging.setLogLevel(_before[1])


def _c_stderr() -> ctypes.c_void_p | None:
    """The variable itself; None where it cannot be written, as with musl."""
    return ctypes.c_void_p.in_dll(ctypes.CDLL(None), "stderr") if platform.libc_ver()[0] == "glibc" else None


def _sink() -> int | None:
    global _nowhere
    if _nowhere is None:
        fopen = ctypes.CDLL(None).fopen
        fopen.restype, fopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_char_p)
        _nowhere = fopen(os.devnull.encode(), b"w")
    return _nowhere
