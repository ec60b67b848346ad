"""A camera that OpenCV opens: V4L2 by index or device file, RTSP or HTTP by URL. Runs free, reconnects by itself."""

import logging
import socket
import threading
import time
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.config.files import OpenCvSourceConfig
from edge_runtime.errors import ConfigError, SourceError
from edge_runtime.images.decoder_output import silence_streams
from edge_runtime.protocols import Source
from edge_runtime.records import Frame

_log = logging.getLogger(__name__)
_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_BACKOFF_S = (0.2, 5.0)
_NO_WAIT_S = 0.002
_DRAIN_S = 1.0


class OpenCvCamera(Source):
    """Reads all the time in its own thread and keeps the newest frame, so that nothing old waits in a buffer.

    The thread is also what keeps `grab`'s timeout: no call into a camera driver can be interrupted, only left behind.
    """

    on_demand = False
    problem: str | None = None
    tallies: dict[str, int]
    latency_ms: float
    open_timeout_ms: float
    read_timeout_ms: float

    def __init__(self, settings: OpenCvSourceConfig) -> None:
        """Raises ConfigError for a device that is neither an index, a device file nor a URL, or for settings that a URL cannot have."""
        device = settings.device
        self._is_url = isinstance(device, str) and "://" in device
        if isinstance(device, str):
            if self._is_url and urlsplit(device).scheme not in _PORTS:
                raise ConfigError(f"source.device: expected a URL with {', '.join(_PORTS)}, found {_public(device)!r}")
            if not self._is_url and not device.startswith("/dev/"):
                raise ConfigError(f'source.device: expected an index such as 0, "/dev/video0" or "rtsp://…", found {device!r}')
        if self._is_url and (settings.fps is not None or settings.exposure is not None):
            raise ConfigError("source.fps, source.exposure: a network stream does not take these; set them in the camera's own pages")
        self._settings = settings
        self._name = _public(device) if isinstance(device, str) else f"/dev/video{device}"
        self._fresh = threading.Condition()
        self._latest: Frame | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._seq = 0
        self.problem = None
        self.tallies = {"reconnects": 0}
        self.latency_ms = settings.latency_ms
        self.open_timeout_ms, self.read_timeout_ms = settings.open_timeout_ms, settings.read_timeout_ms

    def __enter__(self) -> Self:
        # They repeat, without a time and on stderr, what SourceError and `problem` say.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        silence_streams()
        capture = self._open()
        self._stop = threading.Event()  # a new one: a thread left behind in a driver must not start again
        self._thread = threading.Thread(target=self._run, args=(capture, self._stop), name="camera", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)  # a driver that hangs is left behind, not waited for
        self._thread = None

    def grab(self, timeout_s: float) -> Frame:
        """The newest frame not yet given. Raises SourceError when none came in time; the camera is reconnected to meanwhile."""
        with self._fresh:
            if not self._fresh.wait_for(lambda: self._latest is not None, timeout_s):
                raise SourceError(self.problem or f"camera {self._name}: expected a frame within {timeout_s:g} s, none came")
            frame, self._latest = self._latest, None
        assert frame is not None
        return frame

    def _run(self, capture: cv2.VideoCapture, stop: threading.Event) -> None:
        while not stop.is_set():
            image = _read(capture)
            if stop.is_set():
                break
            if image is None:
                self.problem = f"camera {self._name}: stopped delivering, reconnecting"
                _log.warning("%s", self.problem)
                capture.release()
                reopened = self._reopen(stop)
                if reopened is None:
                    return
                capture = reopened
                self.tallies["reconnects"] += 1
                _log.warning("camera %s: delivers again", self._name)
                continue
            self._keep(image, capture)
        capture.release()

    def _keep(self, image: npt.NDArray[np.uint8], capture: cv2.VideoCapture) -> None:
        arrival = time.monotonic_ns()
        driver_ms = 0.0 if self._is_url else capture.get(cv2.CAP_PROP_POS_MSEC)
        captured = captured_ns(arrival, driver_ms) - round(self._settings.latency_ms * 1e6)
        if self._settings.mono and image.ndim == 3:
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), dtype=np.uint8)
        image.flags.writeable = False
        self._seq += 1
        frame = Frame(seq=self._seq, captured_ns=captured, source="", image=image)
        with self._fresh:
            self.problem = None
            self._latest = frame
            self._fresh.notify_all()

    def _reopen(self, stop: threading.Event) -> cv2.VideoCapture | None:
        """Tries until it works; None when the camera is being closed."""
        pause, longest = _BACKOFF_S
        while not stop.wait(pause):
            try:
                return self._open()
            except SourceError as e:
                self.problem = str(e)
                pause = min(pause * 2, longest)
        return None

    def _open(self) -> cv2.VideoCapture:
        """An opened camera that has delivered, with nothing old left in its buffers. Raises SourceError."""
        s = self._settings
        began = time.monotonic()
        if self._is_url:
            _reach(str(s.device), s.open_timeout_ms / 1e3)
            # Each decoder thread would hold one more frame back.
            params = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(s.open_timeout_ms), cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(s.read_timeout_ms)]
            capture = cv2.VideoCapture(str(s.device), cv2.CAP_FFMPEG, [*params, cv2.CAP_PROP_N_THREADS, 1])
        else:
            capture = cv2.VideoCapture(s.device, cv2.CAP_V4L2)
        try:
            if not capture.isOpened():
                hint = "is there a stream at this address?" if self._is_url else "is it plugged in, free, and is this user in group video?"
                raise SourceError(f"camera {self._name}: could not be opened: {hint}")
            if not self._is_url:
                self._configure(capture)
            image = _drain(capture, time.monotonic() - began) if self._is_url else _read(capture)
            if image is None:
                raise SourceError(f"camera {self._name}: opened, but delivers no picture within {s.read_timeout_ms:g} ms")
            found = (image.shape[1], image.shape[0])
            wanted = (s.width or found[0], s.height or found[1])
            if found != wanted:
                sizes = f"expected {wanted[0]}x{wanted[1]} (source.width, source.height), it delivers {found[0]}x{found[1]}"
                raise SourceError(f"camera {self._name}: {sizes}")
        except SourceError:
            capture.release()
            raise
        return capture

    def _configure(self, capture: cv2.VideoCapture) -> None:
        s = self._settings
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


def captured_ns(arrival_ns: int, driver_ms: float) -> int:
    """The driver's own stamp of a frame where it has one on our clock (V4L2: CLOCK_MONOTONIC), else the arrival.

    A frame that waited in the driver's queue is thereby as old as it is. A stamp in the future or over a minute old is of another clock.
    """
    stamp = round(driver_ms * 1e6)
    return stamp if 0 <= arrival_ns - stamp < 60_000_000_000 else arrival_ns


def _read(capture: cv2.VideoCapture) -> npt.NDArray[np.uint8] | None:
    try:
        got, image = capture.read()
    except cv2.error as e:
        _log.warning("camera: OpenCV raised %s", e)
        return None
    return np.asarray(image, dtype=np.uint8) if got else None


def _drain(capture: cv2.VideoCapture, opening_s: float) -> npt.NDArray[np.uint8] | None:
    """The first frame of a stream that did not wait in a buffer; None when it stops.

    FFmpeg collects frames while it opens a stream and then hands them out at once, older than they look. So: throw away for as long as
    the opening took, and on while frames come without any waiting (but not for ever: a camera may be that fast).
    """
    opened = time.monotonic()
    while True:
        asked = time.monotonic()
        image = _read(capture)
        now = time.monotonic()
        waited = now - asked > _NO_WAIT_S
        if image is None or (now - opened > opening_s and (waited or now - opened > opening_s + _DRAIN_S)):
            return image


def _reach(url: str, timeout_s: float) -> None:
    """A plain TCP connection first: it says *why* nobody answers, which OpenCV does not. Raises SourceError."""
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or _PORTS[parts.scheme])
    try:
        socket.create_connection(address, timeout=timeout_s).close()
    except OSError as e:
        raise SourceError(f"camera {_public(url)}: {address[0]}:{address[1]} does not answer: {e.strerror or e}") from e


def _public(url: str) -> str:
    """The URL without user and password: messages go to logs, sockets and screens."""
    parts = urlsplit(url)
    return url.replace(parts.netloc, parts.netloc.rpartition("@")[2], 1) if "@" in parts.netloc else url
