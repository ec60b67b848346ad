"""The watchdog round every camera driver: hangs, deaths, lost packets and changed formats become errors for the parts they concern."""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from edge_runtime.config.files import IndustrialSourceConfig
from edge_runtime.errors import LinesideError, LostFrame, SourceError
from edge_runtime.handoff import Reply, take
from edge_runtime.protocols import Source
from edge_runtime.records import Frame
from edge_runtime.sources.clock import CameraClock
from edge_runtime.sources.connection import Connection
from edge_runtime.sources.driver import Driver, RawFrame
from edge_runtime.sources.pixels import format_of, name_of, to_image

_log = logging.getLogger(__name__)
_BACKOFF_S = (0.2, 5.0)
_HANGS_AFTER_S = 1.0
"""Beyond the time that a call was given."""
_SLICE_S = 0.2
"""How long one fetch lasts at most: so soon is closing noticed."""
_CHECK_S = 1.0
_CLOSE_S = 2.0
_MOST_HUNG = 3
"""Each hung call holds a thread for ever; with so many, no further one is risked until one returns."""
_WAITING_FRAMES = 32
_LOSSES_TOLD_S = 10.0
_MISSES = 2
"""Software triggers in a row without a frame, after which the camera is opened anew."""


class _Missed(SourceError):
    """A software trigger got no frame."""


class GuardedSource(Source):
    """A camera as a Source, whatever its driver does.

    One thread of ours ("camera") speaks to the driver through another ("camera-driver"), which is left behind when a call hangs. In free
    run the newest frame is kept; with a hardware trigger all are, in order; with a software trigger each `grab` fires one.
    """

    on_demand: bool
    trigger_window_ns: tuple[int, int] | None
    latency_ms: float
    open_timeout_ms: float
    read_timeout_ms: float
    guarded = True
    bits: int | None = None
    lossy = False

    def __init__(self, settings: IndustrialSourceConfig, make: Callable[[], Driver]) -> None:
        """`make` builds a fresh driver, which is opened in its own thread."""
        self._settings, self._make = settings, make
        self.on_demand = settings.trigger == "software"
        before, after = settings.trigger_window_ms
        self.trigger_window_ns = (round(before * 1e6), round(after * 1e6)) if settings.trigger == "hardware" else None
        """Before and after the edge: set, the frames are to be paired with triggers."""
        self.incomplete = 0
        """Frames that lost packets, since the source was entered."""
        self.reconnects = 0
        self.latency_ms = settings.latency_ms
        self.open_timeout_ms, self.read_timeout_ms = settings.open_timeout_ms, settings.read_timeout_ms
        self.bits = None
        """Significant bits of a pixel, once the camera is open."""
        self._trouble: str | None = None
        self._name = ""
        self._kind: tuple[int, int, int] | None = None
        self._lost_at_ns = 0
        self._seq = 0
        self._owed = False
        self._misses = 0
        self._hung: list[Connection] = []
        self._fresh = threading.Condition()
        self._frames: deque[Frame | SourceError] = deque(maxlen=_WAITING_FRAMES if self.trigger_window_ns else 1)
        self._shots: queue.SimpleQueue[tuple[int, Reply[Frame]] | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def problem(self) -> str | None:
        """A sentence for the operator while the camera is lost, or pictures lost packets a moment ago."""
        if self._trouble is None and self._lost_at_ns and time.monotonic_ns() - self._lost_at_ns < _LOSSES_TOLD_S * 1e9:
            advice = "check cable, switch and source.packet_bytes"
            return f"camera {self._name}: {self.incomplete} pictures lost packets so far and were not judged; {advice}"
        return self._trouble

    @property
    def lost(self) -> bool:
        """Whether the camera is: what it counts begins anew."""
        return self._trouble is not None

    @property
    def tallies(self) -> dict[str, int]:
        """Since the source was entered."""
        return {"reconnects": self.reconnects, "incomplete_frames": self.incomplete}

    def __enter__(self) -> Self:
        """Open and set up the camera. Raises ConfigError naming the key, MissingExtra, SourceError."""
        self._frames.clear()
        self._kind, self._trouble, self._lost_at_ns, self._seq, self.incomplete, self.reconnects = None, None, 0, 0, 0, 0
        self._stop, self._shots = threading.Event(), queue.SimpleQueue()
        camera = self._connect()
        self._thread = threading.Thread(target=self._run, args=(camera, self._stop), name="camera", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        self._shots.put(None)
        if self._thread is not None:
            self._thread.join(timeout=_CLOSE_S + 0.5)  # a driver that hangs is left behind, not waited for
        self._thread = None

    def grab(self, timeout_s: float) -> Frame:
        """The next frame, as the trigger mode says. Raises SourceError when there is none, LostFrame for one that must not be judged."""
        if self.on_demand:
            return self._shoot(timeout_s)
        with self._fresh:
            if not self._fresh.wait_for(lambda: self._frames, timeout_s):
                raise SourceError(self.problem or f"camera {self._name}: expected a frame within {timeout_s:g} s, none came")
            frame = self._frames.popleft()
        if isinstance(frame, SourceError):
            raise frame
        return frame

    def _shoot(self, timeout_s: float) -> Frame:
        if self._trouble is not None:
            raise SourceError(self._trouble)
        reply: Reply[Frame] = Reply()
        self._shots.put((time.monotonic_ns() + round(timeout_s * 1e9), reply))
        try:
            return reply.result(timeout_s)
        except TimeoutError:
            reply.unwanted = True
            why = self._trouble or f"camera {self._name}: expected a frame within {timeout_s:g} s of its software trigger, none came"
            raise SourceError(why) from None

    # --- the thread "camera" -----------------------------------------------------------------------------------------

    def _run(self, camera: Connection | None, stop: threading.Event) -> None:
        pause, longest = _BACKOFF_S
        while not stop.is_set():
            seen = self._seq
            try:
                if camera is None:
                    camera = self._connect()
                    self.reconnects += 1
                    if self.on_demand or self.trigger_window_ns:  # in free run the first frame shows that all is well
                        self._well()
                self._serve(camera, stop)
            except LinesideError as e:
                self._lose(str(e))
            except Exception as e:  # a driver may raise anything; the camera is then opened anew, and its parts are told why
                _log.exception("camera %s", self._name)
                self._lose(self._raised(e))
            finally:
                if camera is not None:
                    self._let_go(camera)
                camera = None
            pause = _BACKOFF_S[0] if self._seq > seen else pause
            if stop.wait(pause):
                return
            pause = min(pause * 2, longest)

    def _connect(self) -> Connection:
        """An opened, set up and started camera."""
        self._hung = [c for c in self._hung if c.left_behind]
        if len(self._hung) >= _MOST_HUNG:
            raise SourceError(
                f"camera {self._name}: {len(self._hung)} calls into its driver hang; unplug the camera, or restart the station"
            )
        camera = Connection(self._make())
        try:
            camera.open(self._settings, self._open_limit_s)
        except BaseException:
            self._let_go(camera)
            raise
        self._name, self.bits = camera.driver.name, camera.bits
        self._owed, self._misses = False, 0
        return camera

    def _let_go(self, camera: Connection) -> None:
        camera.end()
        if camera.left_behind:
            self._hung.append(camera)

    def _serve(self, camera: Connection, stop: threading.Event) -> None:
        """Serve the opened camera until `stop`; raises what ends the connection."""
        heard = checked = time.monotonic()
        while not stop.is_set():
            if self.on_demand:
                came = self._serve_shot(camera)
            else:
                raw = camera.ask(lambda: camera.driver.fetch(_SLICE_S), self._limit_s)
                came = raw is not None
                if raw is not None:
                    self._take(camera, raw)
            now = time.monotonic()
            if came:
                heard = checked = now
            elif self._settings.trigger == "free" and now - heard > self._settings.read_timeout_ms / 1e3:
                raise SourceError(f"camera {self._name}: stopped delivering, no picture for {now - heard:.1f} s, reconnecting")
            elif now - checked > _CHECK_S:
                camera.ask(camera.driver.check, self._open_limit_s)
                checked = time.monotonic()

    @property
    def _limit_s(self) -> float:
        return self._settings.read_timeout_ms / 1e3 + _HANGS_AFTER_S

    @property
    def _open_limit_s(self) -> float:
        return self._settings.open_timeout_ms / 1e3 + _HANGS_AFTER_S

    def _serve_shot(self, camera: Connection) -> bool:
        try:
            shot = take(self._shots, _SLICE_S)
        except queue.Empty:
            return False
        if shot is None or shot[1].unwanted:
            return False
        until_ns, reply = shot
        try:
            reply.give(self._fire(camera, until_ns))
        except Exception as e:
            told = e if isinstance(e, SourceError) else SourceError(self._raised(e))
            one_part_only = isinstance(e, LostFrame | _Missed) and self._misses < _MISSES
            if not one_part_only:
                self._lose(str(told))  # before anybody hears of it: the next part must not be tried
            reply.fail(told)
            if not one_part_only:
                raise
        return True

    def _fire(self, camera: Connection, until_ns: int) -> Frame:
        """One software trigger and its own frame."""
        driver = camera.driver
        left_s = max((until_ns - time.monotonic_ns()) / 1e9, 0.001)
        owed, self._owed = self._owed, True

        def shoot() -> tuple[int, RawFrame | None]:
            if owed:  # an earlier trigger's frame may still come: nothing of before this restart can
                driver.stop()
                driver.start()
            while driver.fetch(0) is not None:
                pass
            fired_ns = time.monotonic_ns()
            driver.fire(max((until_ns - fired_ns) / 1e9, 0.001))
            return fired_ns, driver.fetch(max((until_ns - time.monotonic_ns()) / 1e9, 0.001))

        fired_ns, raw = camera.ask(shoot, left_s + self._limit_s)
        if raw is None:
            self._misses += 1
            raise _Missed(f"camera {self._name}: no picture within {left_s * 1e3:.0f} ms of its software trigger")
        self._misses = 0
        frame = self._judged(camera, raw, fired_ns)
        self._owed = False
        return frame

    def _take(self, camera: Connection, raw: RawFrame) -> None:
        try:
            frame: Frame | SourceError = self._judged(camera, raw, 0)
        except LostFrame as e:
            if self.trigger_window_ns is None:
                return  # in free run simply the next one serves
            frame = e
        with self._fresh:
            self._frames.append(frame)
            self._fresh.notify_all()

    def _judged(self, camera: Connection, raw: RawFrame, not_before_ns: int) -> Frame:
        """A frame that may be judged. Raises LostFrame, or SourceError when the camera changed its format or delivered an old frame."""
        captured_ns = self._captured_ns(camera, raw, not_before_ns)
        self._seq += self._counted(camera, raw)
        if not raw.complete:
            self.incomplete += 1
            self._lost_at_ns = time.monotonic_ns()
            self._owed = False
            raise LostFrame(f"camera {self._name}: the picture is not complete, it lost packets ({raw.why})", self._seq, captured_ns)
        kind = (raw.pixel_format, raw.width, raw.height)
        if self._kind is None:
            self._kind = kind
        if kind != self._kind:
            was, found = (f"{name_of(k[0])} {k[1]}x{k[2]}" for k in (self._kind, kind))
            hint = "state source.pixel_format and source.roi, so that a power cycle cannot change them"
            raise SourceError(f"camera {self._name}: expected {was} as its first frame was, it now delivers {found}; {hint}")
        fmt = format_of(raw.pixel_format)
        image = to_image(raw.data, fmt, raw.width, raw.height, raw.padding_x, self._settings.demosaic)
        image.flags.writeable = False
        self._well()
        return Frame(seq=self._seq, captured_ns=captured_ns, source="", image=image)

    def _captured_ns(self, camera: Connection, raw: RawFrame, not_before_ns: int) -> int:
        """When the exposure began: the camera's clock (else the arrival), less what even the fastest frame takes."""
        told_ns = raw.arrived_ns
        if raw.ticks is not None and raw.complete:  # what lost packets may have lost its time as well
            if camera.clock is None:
                camera.clock = CameraClock(camera.driver.tick_ns)
            clock, resets = camera.clock, camera.clock.resets
            told_ns = clock.captured_ns(raw.ticks, raw.arrived_ns)
            if clock.resets > resets:
                _log.warning("camera %s: its clock jumped or began anew", self._name)
            if told_ns + clock.error_ns < not_before_ns:
                raise SourceError(f"camera {self._name}: the picture is older than its software trigger; not judged")
        return max(told_ns - camera.exposure_ns - round(self._settings.latency_ms * 1e6), not_before_ns)

    def _counted(self, camera: Connection, raw: RawFrame) -> int:
        """Frames since the last one by the camera's own count, so that one that never came leaves a gap."""
        last, camera.last_block = camera.last_block, raw.block_id
        if last is None or raw.block_id is None or not self.trigger_window_ns:
            return 1
        steps = raw.block_id - last
        if steps < 0 and last <= 0xFFFF:
            steps += 0xFFFF  # GigE Vision 1 counts 1 to 65535 and over again
        return max(steps, 1)

    def _well(self) -> None:
        if self._trouble is not None:
            _log.warning("camera %s: delivers again", self._name)
        self._trouble = None

    def _raised(self, e: Exception) -> str:
        return f"camera {self._name}: its driver raised {type(e).__name__}: {e}"

    def _lose(self, why: str) -> None:
        if self._trouble != why:
            _log.warning("%s", why)
        self._trouble = why
        while not self._shots.empty():
            shot = self._shots.get()
            if shot is not None:
                shot[1].fail(SourceError(why))
        with self._fresh:
            if self.trigger_window_ns is None:
                self._frames.clear()  # what is old now is not what the next trigger shall get
            self._fresh.notify_all()
