"""Frames of a video file, one a trigger."""

import time
from types import TracebackType
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.config.files import VideoSourceConfig
from edge_runtime.errors import SourceError, SourceExhausted
from edge_runtime.protocols import Source
from edge_runtime.records import Frame


class Video(Source):
    """Decodes one frame ahead, so that the end is known before a trigger is spent on it."""

    live = False

    def __init__(self, settings: VideoSourceConfig) -> None:
        self._settings = settings
        self._capture: cv2.VideoCapture | None = None
        self._ahead: npt.NDArray[np.uint8] | None = None
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
        """The next frame."""
        began = time.monotonic_ns()
        image = self._ahead
        if image is None:
            cut = f"; the container states {self._stated}: the file is damaged or cut short" if self._position < self._stated - 1 else ""
            raise SourceExhausted(f"{self._settings.path}: no more images after frame {self._position}{cut}")
        self._seq += 1
        self._position += 1
        self._ahead = self._decode()
        if self._ahead is None and self._settings.loop:
            self._rewind()
        image.flags.writeable = False
        return Frame(seq=self._seq, captured_ns=began, source=f"{self._settings.path}#{self._position}", image=image)

    def _rewind(self) -> None:
        """Opened anew, not sought: seeking to the first frame is not exact in every container."""
        path = self._settings.path
        if not path.is_file():
            raise SourceError(f"{path}: expected a video file, found none. Check source.path")
        if self._capture is not None:
            self._capture.release()
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        self._position = 0
        self._stated = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0) if self._capture.isOpened() else 0
        self._ahead = self._decode()
        if self._ahead is None:
            raise SourceError(f"{path}: expected a video that FFmpeg can decode, could not read its first frame")

    def _decode(self) -> npt.NDArray[np.uint8] | None:
        assert self._capture is not None
        got, image = self._capture.read()
        if not got:
            return None
        if self._settings.mono and image.ndim == 3:
            image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        return np.ascontiguousarray(image, dtype=np.uint8)
