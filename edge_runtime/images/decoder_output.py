"""What image libraries write to the process's error output by themselves: kept from the terminal while they decode, and only then.

Why: deploy/decisions/0032.
"""

import contextlib
import ctypes
import functools
import os
import platform
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import cv2

_FREE = threading.Condition()
_inside = 0
_before: tuple[int | None, int] = (None, 0)
_nowhere: int | None = None
_streams_silent = False
_FFMPEG = re.compile(r"^\[[^\]]* @ 0x[0-9a-f]+\] *(.+)$", re.MULTILINE)
_BESIDE = "unable to decode APP fields"
"""About what cameras write beside the picture, not the picture."""


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

    OpenCV's log, which goes elsewhere, is off so long; FFmpeg is heard in spite of `silence_streams`.
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
        if _streams_silent:
            _let_ffmpeg("av_log_default_callback")
        try:
            yield said
        finally:
            if _streams_silent:
                _let_ffmpeg("avutil_version")
            cv2.utils.logging.setLogLevel(level)
            stderr.value = before
            libc.fclose(ctypes.c_void_p(stream))
            said.append(ctypes.string_at(text.value or 0, size.value).decode(errors="replace") if text.value else "")
            libc.free(text)


def silence_streams() -> None:
    """From now on FFmpeg writes nothing in this process: a live stream is decoded as long as it lasts, and no longer call may be silenced.

    Nothing happens where OpenCV has no FFmpeg, or one of its own that is not a shared library.
    """
    global _streams_silent
    _streams_silent = True
    _let_ffmpeg("avutil_version")  # as its logger: takes no argument and does nothing


def first_of_ffmpeg(said: list[str]) -> str:
    """The first thing that FFmpeg said of the picture, without the decoder's address; empty for nothing."""
    return next((text.strip() for text in _FFMPEG.findall("".join(said)) if not text.startswith(_BESIDE)), "")


def _let_ffmpeg(logger: str) -> None:
    if (library := _libavutil()) is not None:
        library.av_log_set_callback(ctypes.cast(getattr(library, logger), ctypes.c_void_p))


@functools.cache
def _libavutil() -> ctypes.CDLL | None:
    """The one that this process's OpenCV has loaded."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            path = Path("/" + line.partition("/")[2])
            if path.name.startswith("libavutil"):
                return ctypes.CDLL(str(path))
    return None


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
