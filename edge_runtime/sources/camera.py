"""A camera that runs free: read all the time in a thread of its own, the newest picture kept, reconnected to by itself."""

import abc
import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from edge_runtime.config.files import LiveSourceConfig
from edge_runtime.errors import FrameError, SourceError
from edge_runtime.protocols import Source
from edge_runtime.records import Frame, Image

_log = logging.getLogger(__name__)
_BACKOFF_S = (0.2, 5.0)
_CLOSE_S = 1.0
_DAMAGE_TOLD_S = 10.0


class Feed(abc.ABC):
    """A camera that is open and has nothing old in its buffers. One thread reads it; any call may hang."""

    lossy: bool | None = None
    """Whether its pictures are compressed with loss on their way; None: not known."""

    @abc.abstractmethod
    def read(self) -> tuple[Image, int]:
        """The next picture, and when it came (CLOCK_MONOTONIC ns, or when it was taken, where that is known).

        Raises FrameError for one that is damaged, SourceError when the camera stopped.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the camera. Never raises."""


class LiveCamera(Source):
    """Keeps the newest frame, so that nothing old waits in a buffer.

    The thread is also what keeps `grab`'s timeout: where a call into a camera's driver cannot be interrupted, it is left behind.
    """

    on_demand = False
    guarded = True
    tallies: dict[str, int]
    latency_ms: float
    open_timeout_ms: float
    read_timeout_ms: float
    lossy: bool | None = None

    def __init__(self, settings: LiveSourceConfig, name: str, connect: Callable[[], Feed]) -> None:
        """`name`: for messages; `connect` opens the camera, or raises SourceError."""
        self._settings, self._name, self._connect = settings, name, connect
        self._fresh = threading.Condition()
        self._latest: Frame | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._seq = 0
        self._size: tuple[int, int] | None = None
        self._trouble: str | None = None
        self._damage = ""
        self._damaged_at_ns = 0
        self._kept_at_ns = 0
        self.tallies = {"reconnects": 0, "incomplete_frames": 0}
        self.latency_ms = settings.latency_ms
        self.open_timeout_ms, self.read_timeout_ms = settings.open_timeout_ms, settings.read_timeout_ms

    @property
    def problem(self) -> str | None:
        """A sentence for the operator while the camera is lost, or pictures came damaged a moment ago."""
        if self._trouble is None and self._damaged_at_ns and time.monotonic_ns() - self._damaged_at_ns < _DAMAGE_TOLD_S * 1e9:
            count = self.tallies["incomplete_frames"]
            return f"camera {self._name}: {count} pictures came damaged so far and were not judged ({self._damage}); check its network"
        return self._trouble

    def __enter__(self) -> Self:
        """Raises SourceError, MissingExtra."""
        self._size, self._trouble, self._latest, self._damaged_at_ns = None, None, None, 0
        feed = self._open()
        self._stop = threading.Event()  # a new one: a thread left behind in a driver must not start again
        self._thread = threading.Thread(target=self._run, args=(feed, self._stop), name="camera", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=_CLOSE_S)  # a driver that hangs is left behind, not waited for
        self._thread = None

    def grab(self, timeout_s: float) -> Frame:
        """The newest frame not yet given. Raises SourceError when none came in time; the camera is reconnected to meanwhile."""
        with self._fresh:
            if not self._fresh.wait_for(lambda: self._latest is not None, timeout_s):
                raise SourceError(self.problem or f"camera {self._name}: expected a frame within {timeout_s:g} s, none came")
            frame, self._latest = self._latest, None
        assert frame is not None
        return frame

    # --- the thread "camera" -----------------------------------------------------------------------------------------

    def _run(self, feed: Feed, stop: threading.Event) -> None:
        pause, longest = _BACKOFF_S
        while True:
            seen = self._seq
            try:
                self._serve(feed, stop)
            except SourceError as e:
                if not stop.is_set():
                    self._lose(str(e))
            finally:
                feed.close()
            pause = _BACKOFF_S[0] if self._seq > seen else pause
            while True:
                if stop.wait(pause):
                    return
                pause = min(pause * 2, longest)
                try:
                    feed = self._open()
                except SourceError as e:
                    self._lose(str(e))
                else:
                    break
            self.tallies["reconnects"] += 1

    def _serve(self, feed: Feed, stop: threading.Event) -> None:
        """Serve the opened camera until `stop`; raises what ends the connection."""
        self._kept_at_ns = time.monotonic_ns()
        while not stop.is_set():
            try:
                self._keep(*feed.read())
            except FrameError as e:
                self._note_damage(str(e))

    def _keep(self, image: Image, came_ns: int) -> None:
        self._expect_size(image)
        image.flags.writeable = False
        self._seq += 1
        frame = Frame(seq=self._seq, captured_ns=came_ns - round(self._settings.latency_ms * 1e6), source="", image=image)
        self._kept_at_ns = time.monotonic_ns()
        with self._fresh:
            if self._trouble is not None:
                _log.warning("camera %s: delivers again", self._name)
            self._trouble = None
            self._latest = frame
            self._fresh.notify_all()

    def _note_damage(self, why: str) -> None:
        """In free run simply the next picture serves, where one comes that is whole."""
        now_ns = time.monotonic_ns()
        self._damage, self._damaged_at_ns = why, now_ns
        self.tallies["incomplete_frames"] += 1
        if (waited_s := (now_ns - self._kept_at_ns) / 1e9) > self._settings.read_timeout_ms / 1e3:
            raise SourceError(f"camera {self._name}: no whole picture for {waited_s:.1f} s ({why}), reconnecting")

    def _expect_size(self, image: Image) -> None:
        """All pictures are as large as the first one was: what a model was taught on is not what another size shows."""
        s, found = self._settings, (image.shape[1], image.shape[0])
        wanted = (s.width or found[0], s.height or found[1])
        if found != wanted:
            sizes = f"expected {wanted[0]}x{wanted[1]} (source.width, source.height), it delivers {found[0]}x{found[1]}"
            raise SourceError(f"camera {self._name}: {sizes}")
        if self._size is None:
            self._size = found
        if found != self._size:
            was, now = (f"{w}x{h}" for w, h in (self._size, found))
            hint = "set the camera back, or teach on pictures of the new size and restart the station"
            raise SourceError(f"camera {self._name}: expected {was} as its first picture was, it now delivers {now}; {hint}")

    def _lose(self, why: str) -> None:
        if self._trouble != why:
            _log.warning("%s", why)
        with self._fresh:
            self._trouble = why
            self._latest = None  # what is old now is not what the next trigger shall get
            self._fresh.notify_all()

    def _open(self) -> Feed:
        """A camera that delivers pictures of the right size. Raises SourceError, MissingExtra."""
        feed = self._connect()
        try:
            self._expect_size(_first_of(feed, self._name, self._settings.read_timeout_ms / 1e3))
        except BaseException:
            feed.close()
            raise
        self.lossy = feed.lossy
        return feed


def _first_of(feed: Feed, name: str, within_s: float) -> Image:
    """The first picture that is whole; it is for looking at only. Raises SourceError."""
    until = time.monotonic() + within_s
    while True:
        try:
            return feed.read()[0]
        except FrameError as e:
            if time.monotonic() > until:
                raise SourceError(f"camera {name}: opened, but no whole picture came within {within_s:g} s ({e})") from e
