"""Binds each trigger to its own frame, in a thread that may hang without stopping the line."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edge_runtime.errors import FrameError, SourceError, SourceExhausted
from edge_runtime.handoff import Helper, Reply
from edge_runtime.protocols import Source
from edge_runtime.records import Frame, Trigger

_FREE_RUN_TIMEOUT_S = 1.0
_PAUSE_AFTER_ERROR_S = 0.05
_HANGS_AFTER_S = 3.0
_CLOSE_TIMEOUT_S = 1.0
_KEPT_FRAMES = 3
"""A free-running camera may be faster than the trigger line is polled: the first frame after the edge may then be here already."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A frame for one trigger."""

    frame: Frame
    waited_ns: int
    """What it took that no software can save: the `grab` call, or in free run the time from the edge to the frame's arrival."""


class Capture:
    """Frames for triggers, by the trigger's identity.

    On demand, `grab` is called once an ordered trigger, in order. In free run `grab` is called all the time and a trigger gets
    the first frame captured at or after its edge. What comes too late for its trigger is dropped, never given to another.
    """

    def __init__(self, source: Source, timeout_s: float) -> None:
        """`source` is entered already; a picture that takes longer than `timeout_s` (the recipe's deadline) is of no use."""
        self._source = source
        self._timeout_s = timeout_s
        self._shots: dict[int, Reply[Shot]] = {}
        self._ended = False
        self._lost: str | None = None
        self._eyes: _OnDemand | _FreeRun = _OnDemand(self._grab, timeout_s) if source.on_demand else _FreeRun(self._grab)

    @property
    def exhausted(self) -> bool:
        """True when no later trigger can be served: the source came to its end."""
        return self._ended or (self._eyes.pending == 0 and self._remaining == 0)

    @property
    def can_serve(self) -> bool:
        """False when every image that the source has left is ordered already: wait whether that was the end of it."""
        pending = self._eyes.pending  # read first: in between, a grab may end, which then counts as one too few, never one too many
        remaining = self._remaining
        return remaining is None or remaining > pending

    @property
    def _remaining(self) -> int | None:
        """Not every source that can be plugged in knows its end."""
        return getattr(self._source, "remaining", None)

    @property
    def problem(self) -> str | None:
        """A sentence for the operator while the source is lost or its driver hangs."""
        if self._eyes.busy_s > self._timeout_s + _HANGS_AFTER_S:
            return f"The camera's driver has not answered for {self._eyes.busy_s:.0f} s."
        return self._lost or getattr(self._source, "problem", None)

    def check(self) -> None:
        """Raises what ended the capture thread, should it have ended: nobody may be waiting for a frame to hear of it."""
        self._eyes.check()

    def order(self, trigger: Trigger) -> None:
        """Ask for the trigger's frame; never waits."""
        self._shots[trigger.seq] = self._eyes.order(trigger)

    def collect(self, trigger: Trigger, until_ns: int) -> Shot:
        """The frame of an ordered trigger, waiting until `until_ns` (CLOCK_MONOTONIC) at most.

        Raises:
            SourceError: there is none, with the reason for the operator.
            FrameError: the source gave one that is older than the trigger.
        """
        reply = self._shots.pop(trigger.seq)
        try:
            shot = reply.result((until_ns - time.monotonic_ns()) / 1e9)
        except TimeoutError:
            reply.unwanted = True
            waited_ms = (time.monotonic_ns() - trigger.fired_ns) / 1e6
            raise SourceError(f"No picture within {waited_ms:.0f} ms: {self.problem or 'the camera did not answer.'}") from None
        if shot.frame.captured_ns < trigger.fired_ns:
            age_ms = (trigger.fired_ns - shot.frame.captured_ns) / 1e6
            raise FrameError(f"The picture is {age_ms:.1f} ms older than its trigger: it may show another part.")
        return shot

    def close(self) -> bool:
        """End the thread. False when the driver hangs in it: the source must then be left alone."""
        return self._eyes.close()

    def _grab(self, timeout_s: float) -> Frame:
        try:
            frame = self._source.grab(timeout_s)
        except SourceExhausted:
            self._ended = True
            raise
        except SourceError as e:
            self._lost = str(e)
            raise
        self._lost = None
        return frame


class _OnDemand:
    """One grab an order."""

    def __init__(self, grab: Callable[[float], Frame], timeout_s: float) -> None:
        self._grab = grab
        self._timeout_s = timeout_s
        self._helper: Helper[Trigger, Shot] = Helper(self._shoot, "capture")

    @property
    def busy_s(self) -> float:
        return self._helper.busy_s

    @property
    def pending(self) -> int:
        return self._helper.pending

    def order(self, trigger: Trigger) -> Reply[Shot]:
        return self._helper.call(trigger)

    def check(self) -> None:
        """What a grab raises reaches whoever collects it."""

    def close(self) -> bool:
        return self._helper.close(_CLOSE_TIMEOUT_S)

    def _shoot(self, trigger: Trigger) -> Shot:
        began = time.monotonic_ns()
        frame = self._grab(max(self._timeout_s - (began - trigger.fired_ns) / 1e9, 0.001))
        return Shot(frame, time.monotonic_ns() - began)


class _FreeRun:
    """Grabs all the time; each order gets the first frame captured at or after its edge."""

    pending = 0

    def __init__(self, grab: Callable[[float], Frame]) -> None:
        self._grab = grab
        self._lock = threading.Lock()
        self._orders: list[tuple[Trigger, Reply[Shot]]] = []
        self._recent: deque[tuple[Frame, int]] = deque(maxlen=_KEPT_FRAMES)
        self._ended: Exception | None = None
        self._closing = threading.Event()
        self._call_began_ns = 0
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    @property
    def busy_s(self) -> float:
        began = self._call_began_ns
        return (time.monotonic_ns() - began) / 1e9 if began else 0.0

    def order(self, trigger: Trigger) -> Reply[Shot]:
        reply: Reply[Shot] = Reply()
        with self._lock:
            self._orders = [(t, r) for t, r in self._orders if not r.unwanted]
            self._orders.append((trigger, reply))
            for frame, arrived_ns in self._recent:
                self._serve(frame, arrived_ns)
            self._refuse()
        return reply

    def check(self) -> None:
        if self._ended is not None and not isinstance(self._ended, SourceError):
            raise self._ended

    def close(self) -> bool:
        self._closing.set()
        self._thread.join(_CLOSE_TIMEOUT_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._call_began_ns = time.monotonic_ns()
            try:
                frame = self._grab(_FREE_RUN_TIMEOUT_S)
            except SourceExhausted as e:
                return self._end(e)
            except SourceError:
                # It may come back: whoever waits goes on waiting until the deadline.
                self._closing.wait(_PAUSE_AFTER_ERROR_S)
                continue
            except Exception as e:
                return self._end(e)
            finally:
                self._call_began_ns = 0
            with self._lock:
                arrived_ns = time.monotonic_ns()
                self._recent.append((frame, arrived_ns))
                self._serve(frame, arrived_ns)
        return None

    def _serve(self, frame: Frame, arrived_ns: int) -> None:
        left = []
        for trigger, reply in self._orders:
            if frame.captured_ns < trigger.fired_ns:
                left.append((trigger, reply))
            else:
                reply.give(Shot(frame, max(arrived_ns - trigger.fired_ns, 0)))
        self._orders = left

    def _end(self, why: Exception) -> None:
        with self._lock:
            self._ended = why
            self._refuse()

    def _refuse(self) -> None:
        """After the end, nothing that still waits can be served."""
        if self._ended is None:
            return
        for _, reply in self._orders:
            reply.fail(self._ended)
        self._orders = []
