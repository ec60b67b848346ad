"""Frames of a video file, one a trigger."""

import logging
import time
from types import TracebackType
from typing import Self

from edge_runtime.config.files import VideoSourceConfig
from edge_runtime.errors import SourceError, SourceExhausted
from edge_runtime.protocols import Source
from edge_runtime.records import Frame
from edge_runtime.sources.decoding import Decoder, Picture, gray

_log = logging.getLogger(__name__)


class Video(Source):
    """Decodes one frame ahead, so that the end is known before a trigger is spent on it. A damaged frame is never judged."""

    live = False
    lossy = True

    def __init__(self, settings: VideoSourceConfig) -> None:
        self._settings = settings
        self._decoder: Decoder | None = None
        self._ahead: Picture | None = None
        self._damage = ""
        self._seq = 0
        self._position = 0

    def __enter__(self) -> Self:
        self._seq = 0
        self._rewind()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._decoder is not None:
            self._decoder.close()
        self._decoder, self._ahead = None, None

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
        if now.damage or now.image is None:
            raise SourceError(f"{name}: is damaged, or builds on a picture that is ({now.damage})")
        image = gray(now.image) if self._settings.mono else now.image
        image.flags.writeable = False
        return Frame(seq=self._seq, captured_ns=began, source=name, image=image)

    @property
    def _stated(self) -> int:
        return self._decoder.stated if self._decoder is not None else 0

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
        if self._decoder is not None:
            self._decoder.close()
        self._position, self._damage = 0, ""
        try:
            self._decoder = Decoder(str(path), what='kind = "video"')
        except SourceError as e:
            self._damage = str(e)
        else:
            self._ahead = self._decode()
        if self._ahead is None or self._ahead.image is None:
            why = self._damage or (self._ahead.damage if self._ahead is not None else "")
            because = f" (FFmpeg: {why}): cut short, or of another format" if why else ""
            raise SourceError(f"{path}: expected a video that FFmpeg can decode, could not read its first frame{because}")

    def _decode(self) -> Picture | None:
        assert self._decoder is not None
        self._damage = ""
        try:
            return self._decoder.read()
        except SourceError as e:
            self._damage = str(e)
            return None
