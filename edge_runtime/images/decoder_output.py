"""What image libraries write to the process's error output by themselves: kept from the terminal while they decode, and only then.

Why: deploy/decisions/0032.
"""

import contextlib
import ctypes
import os
import platform
import threading
from collections.abc import Iterator
from typing import Any, cast

import cv2

_FREE = threading.Condition()
_inside = 0
_before: tuple[int | None, int] = (None, 0)
_nowhere: int | None = None


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """libpng's and libjpeg's own lines, and OpenCV's log, go nowhere inside; several threads may be inside at once.

    What is wrong with a file is told by whoever decodes it, with its path; these lines name none. The C variable `stderr` is pointed
    elsewhere rather than descriptor 2: what Python writes, and what a crash leaves behind, still reaches the terminal.
    """
    global _inside, _before
    stderr = _c_stderr()
    with _FREE:
        if _inside == 0:
            _before = (stderr.value if stderr is not None else None, cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT))
            if stderr is not None:
                stderr.value = _sink() or stderr.value
        _inside += 1
    try:
        yield
    finally:
        with _FREE:
            _inside -= 1
            if _inside == 0:
                _FREE.notify_all()
                if stderr is not None:
                    stderr.value = _before[0]
                cv2.utils.logging.setLogLevel(_before[1])


@contextlib.contextmanager
def decoder_messages() -> Iterator[list[str]]:
    """What C libraries write to `stderr` inside; in the list afterwards, and nothing where it cannot be heard. Others wait.

    OpenCV's log, which goes elsewhere, is off so long.
    """
    said: list[str] = []
    stderr = _c_stderr()
    with _FREE:
        while _inside:
            _FREE.wait()
        libc, text, size = ctypes.CDLL(None), ctypes.c_void_p(), ctypes.c_size_t()
        stream = _stream(libc.open_memstream, ctypes.byref(text), ctypes.byref(size)) if stderr is not None else None
        if stderr is None or stream is None:
            yield said
            return
        before, stderr.value = stderr.value, stream
        level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            yield said
        finally:
            cv2.utils.logging.setLogLevel(level)
            stderr.value = before
            libc.fclose(ctypes.c_void_p(stream))
            said.append(ctypes.string_at(text.value or 0, size.value).decode(errors="replace") if text.value else "")
            libc.free(text)


def _stream(opens: Any, *arguments: Any) -> int | None:
    opens.restype = ctypes.c_void_p
    return cast(int | None, opens(*arguments))


def _c_stderr() -> ctypes.c_void_p | None:
    """The variable itself; None where it cannot be written, as with musl."""
    return ctypes.c_void_p.in_dll(ctypes.CDLL(None), "stderr") if platform.libc_ver()[0] == "glibc" else None


def _sink() -> int | None:
    global _nowhere
    if _nowhere is None:
        _nowhere = _stream(ctypes.CDLL(None).fopen, os.devnull.encode(), b"w")
    return _nowhere
