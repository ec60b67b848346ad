"""Video through FFmpeg's libraries (PyAV), for files and networks alike: each picture comes with what is wrong with it.

FFmpeg fills what it could not decode with what the picture before had there, which is another part. Whatever builds on such a picture, or
on one that never came, is damaged too. Why: deploy/decisions/0049.
"""

import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import MissingExtra, SourceError
from edge_runtime.sources.clock import Arrivals

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.video.stream import VideoStream

_ERROR, _WARNING = 16, 24
_LOST = "RTP: missed"
_BESIDE = "unable to decode APP fields"
"""About what cameras write beside the picture."""
_INTRA = 1
"""The one of FFmpeg's picture types that is coded without any other."""
_SOS, _EOI = b"\xff\xda", b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a video."""

    image: npt.NDArray[np.uint8] | None
    """(H, W, 3) BGR uint8, of the size that was sent; None where nothing could be decoded."""
    damage: str
    """What is wrong with it, or with one that it builds upon, in FFmpeg's words; empty for a whole one."""
    arrived_ns: int
    """CLOCK_MONOTONIC, by which its first byte was here at the latest, and before which it may have waited in no buffer."""


class Decoder:
    """One video stream, opened. Not for two threads at once."""

    stated = 0
    """How many pictures the container says it has; 0 where it does not."""

    def __init__(
        self,
        url: str,
        options: Mapping[str, str] | None = None,
        timeouts_s: tuple[float, float] | None = None,
        *,
        what: str,
        live: bool = False,
        ends_late: bool = False,
    ) -> None:
        """Open a file or an address.

        Args:
            url: of a file or a stream.
            options: of FFmpeg's demuxers.
            timeouts_s: how long opening and each read may take.
            what: needs it, for MissingExtra.
            live: a picture that lay in a buffer need not be decoded where the next one does not build on it.
            ends_late: nothing but the next picture's begin shows where one ends, as in RTSP: it is as old as the one before came.

        Raises:
            MissingExtra: PyAV is not installed.
            SourceError: with FFmpeg's words: nothing there, no video in it, or it did not answer.
        """
        self._av = library(what)
        self._arrivals = Arrivals(time.monotonic_ns())
        with self._hearing() as said:
            try:
                container = self._av.open(url, options=dict(options or {}), timeout=timeouts_s)
            except (self._av.FFmpegError, ValueError) as e:
                raise SourceError(_first(said, _ERROR) or _words(e)) from e
            self._container = container
            if not container.streams.video:
                container.close()
                raise SourceError("it holds no video")
            stream = container.streams.video[0]
        codec = stream.codec_context
        codec.thread_count = 1  # each thread would hold one more picture back
        codec.options = {"err_detect": "explode"}
        codec.copy_opaque = True
        self._codec = codec
        self._reformatter = self._av.video.reformatter.VideoReformatter()
        self._is_jpeg = codec.name == "mjpeg"
        self._skips = live and self._is_jpeg
        self._is_parsed = ends_late or ("rtsp" in container.format.name and not self._is_jpeg)
        """FFmpeg then knows a picture's end by the next one's begin: when it hands one out, the next has begun to arrive."""
        self.stated = stream.frames or round(max(container.duration or 0, 0) / 1e6 * float(stream.average_rate or 0))
        self._packets = cast("Iterator[Packet[VideoStream]]", container.demux(stream))
        self._ready: deque[Picture] = deque()
        self._ended = False
        self._read = 0
        self._last_arrived_ns = time.monotonic_ns()
        self._broken, self._broken_at = "", 0

    def close(self) -> None:
        """Let go of it. Never raises."""
        with self._hearing(), contextlib.suppress(self._av.FFmpegError):
            self._container.close()

    def read(self) -> Picture | None:
        """The next picture, whole or not; None at the end. Raises SourceError with FFmpeg's words when there is no more to be had."""
        while not self._ready:
            if self._ended:
                return None
            try:
                packet, arrived_ns = self._next()
            except StopIteration:
                self._ended = True
            else:
                if not (self._skips and self._arrivals.lay):  # a machine that falls behind would never catch up
                    self._decode(packet, arrived_ns)
        return self._ready.popleft()

    def _next(self) -> tuple["Packet[VideoStream]", int]:
        asked_ns = time.monotonic_ns()
        with self._hearing() as said:
            try:
                packet = next(self._packets)
            except self._av.FFmpegError as e:
                raise SourceError(_first(said, _ERROR) or _words(e)) from e
        self._read += 1
        arrived_ns = self._arrivals.of(asked_ns, time.monotonic_ns())
        if self._is_parsed:
            arrived_ns, self._last_arrived_ns = self._last_arrived_ns, arrived_ns
        lost = _first(said, _ERROR) or next((text for _, _, text in said if text.startswith(_LOST)), "")
        if packet.is_corrupt:
            self._break(lost or "its container says that it is corrupt", self._read)
        elif lost and not self._is_jpeg:  # a JPEG builds on no other
            self._break(lost, self._read + self._is_parsed)
        return packet, arrived_ns

    def _decode(self, packet: "Packet[VideoStream]", arrived_ns: int) -> None:
        read = self._read
        packet.opaque = (read, arrived_ns)
        if self._is_jpeg and packet.size:
            data = bytes(packet)
            if data.rfind(_EOI) < data.rfind(_SOS):
                self._break("its end is missing", read)  # the decoder would not say so where no more than the last block is
        with self._hearing() as said:
            try:
                frames = cast("list[VideoFrame]", self._codec.decode(packet))
            except self._av.FFmpegError as e:
                self._break(_first(said, _ERROR) or _words(e), read)
                self._ready.append(Picture(None, self._broken, arrived_ns))
                return
            wrong = _first(said, _ERROR)
            for frame in frames:
                of, frame_arrived_ns = cast("tuple[int, int]", frame.opaque or (read, arrived_ns))
                if wrong or frame.is_corrupt:
                    self._break(wrong or "it is corrupt", read)
                elif frame.key_frame and frame.pict_type == _INTRA and of > self._broken_at:
                    self._broken = ""
                self._ready.append(Picture(self._image_of(frame), self._broken, frame_arrived_ns))

    def _image_of(self, frame: "VideoFrame") -> npt.NDArray[np.uint8]:
        image = np.asarray(self._reformatter.reformat(frame, format="bgr24").to_ndarray(), dtype=np.uint8)
        if frame.rotation % 360:  # a phone held upright says so beside the picture
            image = np.rot90(image, frame.rotation // 90)
        return np.ascontiguousarray(image)

    def _break(self, why: str, at: int) -> None:
        """Nothing is whole from here on, up to a picture after packet `at` that builds on no other."""
        self._broken, self._broken_at = why, at

    @contextlib.contextmanager
    def _hearing(self) -> Iterator[list[tuple[int, str, str]]]:
        """What FFmpeg says in this thread: (level, who, text)."""
        with self._av.logging.Capture() as said:
            yield said


def gray(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(H, W) of (H, W, 3) BGR."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), dtype=np.uint8)


def _first(said: list[tuple[int, str, str]], level: int) -> str:
    """The first thing that FFmpeg said of the picture, at least as grave as `level`; empty for nothing."""
    return next((text.strip() for grave, _, text in said if grave <= level and not text.startswith(_BESIDE)), "")


def _words(e: Exception) -> str:
    """FFmpeg's own, without PyAV's number and the function's name."""
    return str(getattr(e, "strerror", None) or e)


def library(what: str) -> ModuleType:
    """PyAV, heard and quiet; `what` needs it. Raises MissingExtra."""
    try:
        import av
        import av.logging
    except ImportError as e:
        raise MissingExtra(what, "stream") from e
    av.logging.set_level(_WARNING)
    av.logging.set_skip_repeated(False)  # of two losses in a row the second would go unheard
    logging.getLogger("libav").setLevel(logging.CRITICAL + 1)  # whatever concerns a picture is heard with it
    return av
