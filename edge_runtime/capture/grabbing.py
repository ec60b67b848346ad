"""Three ways to a picture for each trigger: made on demand, the first of a free run, or paired with the wire that triggers the camera.

Each has `order` (never waits), `busy_s` (how long the source's `grab` has not returned), `pending`, `problem`, `check` and `close`.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edge_runtime.capture.pairing import Pairing
from edge_runtime.errors import FrameError, LostFrame, SourceError, SourceExhausted
from edge_runtime.handoff import Helper, Reply, take
from edge_runtime.records import Frame, Trigger

_FREE_RUN_TIMEOUT_S = 1.0
_PAUSE_AFTER_ERROR_S = 0.05
_CLOSE_TIMEOUT_S = 1.0
_KEPT_FRAMES = 3
"""A free-running camera may be faster than the trigger line is polled: the first frame after the edge may then be here already."""


@dataclass(frozen=True, slots=True)
class Shot:
    """The frame of one trigger, and what waiting for it took."""

    frame: Frame
    waited_ns: int
    """What it took that no software can save: the `grab` call, or in free run the time from the edge to the frame's arrival."""


class OnDemand:
    """Makes a picture on demand: one grab for each trigger."""

    problem: str | None = None

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
        """Nothing to raise: what a grab raises reaches whoever collects the frame."""

    def close(self) -> bool:
        return self._helper.close(_CLOSE_TIMEOUT_S)

    def _shoot(self, trigger: Trigger) -> Shot:
        began = time.monotonic_ns()
        frame = self._grab(max(self._timeout_s - (began - trigger.fired_ns) / 1e9, 0.001))
        return Shot(frame, time.monotonic_ns() - began)


class FreeRun:
    """Takes pictures of a free-running camera.

    Grabs all the time; each order gets the first frame captured at or after its edge, and each frame goes to one order: the last whose
    edge it follows. Which parts it shows beside that one's, nobody can tell.
    """

    pending = 0
    problem: str | None = None

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
            self._recent = deque((shot for shot in self._recent if not self._serve(*shot)), maxlen=_KEPT_FRAMES)
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
                if not self._serve(frame, arrived_ns):
                    self._recent.append((frame, arrived_ns))
        return None

    def _serve(self, frame: Frame, arrived_ns: int) -> bool:
        """True when the frame was somebody's."""
        served = [(t, r) for t, r in self._orders if t.fired_ns <= frame.captured_ns and not r.unwanted]
        if not served:
            return False
        self._orders = [(t, r) for t, r in self._orders if t.fired_ns > frame.captured_ns]
        for _, reply in served[:-1]:
            reply.fail(
                FrameError("The camera took no picture between this part's trigger and the next one's: it is too slow for this line.")
            )
        trigger, reply = served[-1]
        reply.give(Shot(frame, max(arrived_ns - trigger.fired_ns, 0)))
        return True

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


class Paired:
    """Takes pictures that the PLC's wire triggers.

    Grabs all the time; a second thread pairs what comes with the orders, each as its window is over.
    """

    pending = 0
    busy_s = 0.0  # whoever offers hardware triggers guards its driver itself

    def __init__(self, grab: Callable[[float], Frame], window_ns: tuple[int, int], is_lost: Callable[[], bool]) -> None:
        self._grab, self._is_lost = grab, is_lost
        self._pairing = Pairing(window_ns)
        self._orders: dict[int, tuple[Trigger, Reply[Shot]]] = {}
        self._events: queue.SimpleQueue[tuple[Frame, int] | tuple[Trigger, Reply[Shot]] | Trigger | LostFrame | None] = queue.SimpleQueue()
        self._ended: Exception | None = None
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=run, name=name, daemon=True) for run, name in ((self._run, "capture"), (self._pair, "pairing"))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def problem(self) -> str | None:
        return self._pairing.problem

    def order(self, trigger: Trigger) -> Reply[Shot]:
        reply: Reply[Shot] = Reply()
        self._events.put((trigger, reply))
        return reply

    def dismiss(self, trigger: Trigger) -> None:
        """Give the trigger's picture, should one come, to nobody."""
        self._events.put(trigger)

    def check(self) -> None:
        if self._ended is not None:
            raise self._ended

    def close(self) -> bool:
        self._closing.set()
        self._events.put(None)
        for thread in self._threads:
            thread.join(_CLOSE_TIMEOUT_S)
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                frame = self._grab(_FREE_RUN_TIMEOUT_S / 4)
            except LostFrame as e:
                self._events.put(e)
            except SourceError:  # no part came, or the camera is lost: its guard is at it
                if self._is_lost():
                    self._events.put(None)
                    self._closing.wait(_PAUSE_AFTER_ERROR_S)
            except Exception as e:
                self._ended = e
                return
            else:
                self._events.put((frame, time.monotonic_ns()))

    def _pair(self) -> None:
        try:
            while not self._closing.is_set():
                self._pair_next()
        except Exception as e:
            self._ended = e

    def _pair_next(self) -> None:
        pairing = self._pairing
        answers = []
        try:
            event = take(self._events, pairing.due_s(time.monotonic_ns()))
        except queue.Empty:
            pass
        else:
            if event is None:
                pairing.begin_anew()
            elif isinstance(event, Trigger):
                pairing.dismiss(event)
            elif isinstance(event, LostFrame):
                answers = pairing.lost(event)
            elif isinstance(event[0], Trigger):
                self._orders[event[0].seq] = event
                pairing.trigger(event[0])
            else:
                pairing.frame(*event)
        for trigger, reply in tuple(self._orders.values()):
            if reply.unwanted:
                pairing.forget(trigger)
                del self._orders[trigger.seq]
        for answer in (*answers, *pairing.settle(time.monotonic_ns())):
            ordered = self._orders.pop(answer.trigger.seq, None)
            if ordered is None:
                continue  # whoever ordered it has given up a moment ago
            trigger, reply = ordered
            if isinstance(answer.picture, Frame):
                reply.give(Shot(answer.picture, max(answer.arrived_ns - trigger.fired_ns, 0)))
            else:
                reply.fail(answer.picture)
