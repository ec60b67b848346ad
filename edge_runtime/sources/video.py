"""Frames of a video file, one a trigger."""

import logging
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.config.files import VideoSourceConfig
from edge_runtime.errors import SourceError, SourceExhausted
from edge_runtime.images.decoder_output import decoder_messages, first_of_ffmpeg
from edge_runtime.protocols import Source
from edge_runtime.records import Frame

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Decoded:
    image: npt.NDArray[np.uint8]
    damage: str
    """What FFmpeg said of it, or of a picture that it builds upon; empty for a sound one."""


class Video(Source):
    """Decodes one frame ahead, so that the end is known before a trigger is spent on it.

    FFmpeg fills what is broken with what the picture before had there, and says so on stderr alone: such a frame is never judged.
    """

    live = False

    def __init__(self, settings: VideoSourceConfig) -> None:
        self._settings = settings
        self._capture: cv2.VideoCapture | None = None
        self._ahead: _Decoded | None = None
        self._damage = ""
        self._seq = 0
        self._position = 0
        self._stated = 0

    def __enter__(self) -> Self:
        self._seq = 0
        self._rewind()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._capture is not None:
            self._capture.release()
        self._capture, self._ahead = None, None

    @property
    def remaining(self) -> int | None:
        """0 exactly when no frame is left; before that, what the container states. None when it loops or the container does not know."""
        if self._ahead is None:
            return 0
        return None if self._settings.loop or not self._stated else max(self._stated - self._position, 1)

    def grab(self, timeout_s: float) -> Frame:
        """The next frame. A damaged one raises SourceError with what FFmpeg says of it, and costs its own trigger only."""
        began = time.monotonic_ns()
        now = self._ahead
        if now is None:
            raise SourceExhausted(f"{self._settings.path}: no more images after frame {self._position}{self._cut()}")
        self._seq += 1
        self._position += 1
        name = f"{self._settings.path}#{self._position}"
        self._ahead = self._decode()
        if self._ahead is None:
            if cut := self._cut():  # a station ends when none is left: nobody asks for one more
                _log.warning("%s: ends after frame %d%s", self._settings.path, self._position, cut)
            if self._settings.loop:
                self._rewind()
        if now.damage:
            raise SourceError(f"{name}: is damaged, or builds on a picture that is ({now.damage})")
        now.image.flags.writeable = False
        return Frame(seq=self._seq, captured_ns=began, source=name, image=now.image)

    def _cut(self) -> str:
        said = f" (FFmpeg: {self._damage})" if self._damage else ""
        if self._position < self._stated - 1:
            return f"; the container states {self._stated}: the file is damaged or cut short{said}"
        return f"; the file is damaged or cut short{said}" if said else ""

    def _rewind(self) -> None:
        """Opened anew, not sought: seeking to the first frame is not exact in every container."""
        path = self._settings.path
        if not path.is_file():
            raise SourceError(f"{path}: expected a video file, found none. Check source.path")
        if self._capture is not None:
            self._capture.release()
        with decoder_messages() as said:
            # One thread: what is said while a frame is read is then said of that frame.
            self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        self._position, self._damage = 0, ""
        self._stated = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0) if self._capture.isOpened() else 0
        self._ahead = self._decode()
        if self._ahead is None:
            why = self._damage or first_of_ffmpeg(said)
            because = f" (FFmpeg: {why}): cut short, or of another format" if why else ""
            raise SourceError(f"{path}: expected a video that FFmpeg can decode, could not read its first frame{because}")

    def _decode(self) -> _Decoded | None:
        assert self._capture is not None
        with decoder_messages() as said:
            got, image = self._capture.read()
        now = first_of_ffmpeg(said)
        if not got:
            self._damage = now
            return None
        whole = int(self._capture.get(cv2.CAP_PROP_FRAME_TYPE)) == ord("I")  # builds on no other picture
        self._damage = now or ("" if whole else self._damage)
        if self._settings.mono and image.ndim == 3:
            image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        return _Decoded(np.ascontiguousarray(image, dtype=np.uint8), self._damage)
