"""A camera at this machine (USB, CSI) through V4L2 and OpenCV.

JPEGs, as most USB cameras send them, are decoded here: OpenCV fills what was not received with gray, and does not say so.

Why: deploy/decisions/0049.
"""

import logging
import time

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.config.files import LiveSourceConfig
from edge_runtime.errors import FrameError, SourceError
from edge_runtime.images.damage import damage
from edge_runtime.records import Image
from edge_runtime.sources.camera import Feed

_MJPG = cv2.VideoWriter.fourcc(*"MJPG")
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"

_log = logging.getLogger(__name__)


class V4l2Feed(Feed):
    """One opened device."""

    def __init__(self, settings: LiveSourceConfig, name: str) -> None:
        """Open the device and write its settings. Raises SourceError."""
        self._name, self._mono = name, settings.mono
        self._read_timeout_ms = settings.read_timeout_ms
        # It repeats, without a time and on stderr, what SourceError says.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        self._capture = cv2.VideoCapture(settings.device, cv2.CAP_V4L2)
        try:
            if not self._capture.isOpened():
                raise SourceError(f"camera {name}: could not be opened: is it plugged in, free, and is this user in group video?")
            self._configure(settings)
            is_jpeg = int(self._capture.get(cv2.CAP_PROP_FOURCC)) == _MJPG
            self.lossy = is_jpeg
            self._as_sent = is_jpeg and self._capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
        except SourceError:
            self.close()
            raise

    def read(self) -> tuple[Image, int]:
        image = self._image()
        if image is None:
            raise SourceError(f"camera {self._name}: delivers no picture within {self._read_timeout_ms:g} ms, reconnecting")
        came_ns = captured_ns(time.monotonic_ns(), self._capture.get(cv2.CAP_PROP_POS_MSEC))
        if self._as_sent and image.shape[0] == 1:  # a driver that cannot hand it out so gives a picture all the same
            image = decoded(image.tobytes())
        if self._mono and image.ndim == 3:
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), dtype=np.uint8)
        return image, came_ns

    def close(self) -> None:
        self._capture.release()

    def _image(self) -> npt.NDArray[np.uint8] | None:
        try:
            got, image = self._capture.read()
        except cv2.error as e:
            _log.warning("camera: OpenCV raised %s", e)
            return None
        return np.asarray(image, dtype=np.uint8) if got else None

    def _configure(self, s: LiveSourceConfig) -> None:
        capture = self._capture
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # not every driver can; the reader drains what is left
        if s.width is not None:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, s.width)
        if s.height is not None:
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, s.height)
        if s.fps is not None:
            capture.set(cv2.CAP_PROP_FPS, s.fps)
            found = capture.get(cv2.CAP_PROP_FPS)
            if abs(found / s.fps - 1) > 0.05:
                raise SourceError(f"camera {self._name}: expected {s.fps:g} frames a second (source.fps), the driver runs at {found:g}")
        if s.exposure is not None:
            capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, 1)  # V4L2_EXPOSURE_MANUAL: else the driver overrules the next line
            if not capture.set(cv2.CAP_PROP_EXPOSURE, s.exposure):
                raise SourceError(f"camera {self._name}: the driver refused source.exposure = {s.exposure:g}; see v4l2-ctl --list-ctrls")


def decoded(raw: bytes) -> npt.NDArray[np.uint8]:
    """A JPEG as a USB camera sends it, zeros behind it included -> (H, W) or (H, W, 3) BGR uint8. FrameError where any is missing."""
    raw = raw.rstrip(b"\0")
    if not raw.startswith(_SOI) or not raw.endswith(_EOI):
        raise FrameError("a JPEG without its end: a part of it was not received")
    image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise FrameError("a JPEG that does not decode")
    if why := damage(raw, image):
        raise FrameError(f"a damaged JPEG: {why.removesuffix('; copy it again')}")
    return np.asarray(image, dtype=np.uint8)


def captured_ns(arrival_ns: int, driver_ms: float) -> int:
    """The driver's own stamp of a frame where it has one on our clock (V4L2: CLOCK_MONOTONIC), else the arrival.

    A frame that waited in the driver's queue is thereby as old as it is. A stamp in the future or over a minute old is of another clock.
    """
    stamp = round(driver_ms * 1e6)
    return stamp if 0 <= arrival_ns - stamp < 60_000_000_000 else arrival_ns
