"""Runs models in threads that may hang without stopping the line, and keeps those in use warm between parts."""

import logging
import statistics
import time
from collections import deque
from collections.abc import Sequence

from edge_runtime.errors import DeviceError, LinesideError
from edge_runtime.handoff import Helper, Reply
from edge_runtime.protocols import Predictor
from edge_runtime.records import Frame, Prediction, Trigger
from edge_runtime.station.health import HealthMonitor

log = logging.getLogger(__name__)

_TRIES = 7
_TRY_TIMEOUT_S = 60.0
_CLEARLY = 0.95

Answer = tuple[Prediction, int]
"""What the model said, and how many nanoseconds it took for that."""
ModelThread = Helper[tuple[Predictor, Frame], Answer]
"""Runs one model at a time, in the order of the calls."""


def model_thread() -> ModelThread:
    """Start a thread for models; end it with `close`."""
    return Helper(_predict, "model")


def together_is_faster(calls: Sequence[tuple[Predictor, Frame]], threads: Sequence[ModelThread]) -> bool:
    """Run one call a camera, in turn and together in as many threads, a few times each, and compare. Raises DeviceError.

    Together only where it gains clearly: in turn, the first view is there earlier, and a model that hangs is one fewer.
    """
    rounds: dict[bool, list[float]] = {False: [], True: []}
    for together in (False, True) * _TRIES:
        began = time.perf_counter()
        for reply in [threads[i if together else 0].call(call) for i, call in enumerate(calls)]:
            try:
                reply.result(_TRY_TIMEOUT_S)
            except TimeoutError:
                raise DeviceError(f"a model that answered its golden samples does not answer within {_TRY_TIMEOUT_S:.0f} s") from None
        rounds[together].append(time.perf_counter() - began)
    in_turn_s, together_s = statistics.median(rounds[False]), statistics.median(rounds[True])
    log.info("%d models take %.1f ms in turn, %.1f ms together", len(calls), in_turn_s * 1e3, together_s * 1e3)
    return together_s < _CLEARLY * in_turn_s


def _predict(call: tuple[Predictor, Frame]) -> Answer:
    predictor, frame = call
    began = time.monotonic_ns()
    return predictor.predict(frame), time.monotonic_ns() - began


class Model:
    """An opened predictor with the thread that runs it: answers in time or not at all."""

    def __init__(self, predictor: Predictor, thread: ModelThread, warm_frame: Frame | None = None) -> None:
        """`warm_frame`: what to keep it warm with until a part was judged."""
        self._predictor = predictor
        self.thread = thread
        self._warm_frame = warm_frame
        self._times: deque[int] = deque(maxlen=8)
        self.used_ns = time.monotonic_ns()
        """When it ran last."""

    @property
    def last_frame(self) -> Frame | None:
        """What it judged last, or is kept warm with until then."""
        return self._warm_frame

    def predict(self, frame: Frame, trigger: Trigger, until_ns: int) -> Answer:
        """What the model says of a frame, and how long that took. Raises DeviceError when there is no answer by `until_ns`, and what the
        predictor raises."""
        # An inference that cannot end in time is not begun: it would only make the next part late as well, and that one the next.
        if until_ns - time.monotonic_ns() < min(self._times, default=0):
            raise DeviceError(f"{_no_verdict(trigger, until_ns)}: parts come faster than they are judged.")
        reply = self.thread.call((self._predictor, frame))
        try:
            prediction, took_ns = reply.result((until_ns - time.monotonic_ns()) / 1e9)
        except TimeoutError:
            reply.unwanted = True
            raise DeviceError(f"{_no_verdict(trigger, until_ns)}: the model did not answer in time.") from None
        finally:
            self.used_ns = time.monotonic_ns()
        # At most half of the time that a part has is believed, so that one that just came is always tried.
        self._times.append(min(took_ns, (until_ns - trigger.fired_ns) // 2))
        self._warm_frame = frame
        return prediction, took_ns

    def warm(self) -> Reply[Answer] | None:
        """Begin a run that no part waits for; None when there is nothing to run it on."""
        self.used_ns = time.monotonic_ns()
        return None if self._warm_frame is None else self.thread.call((self._predictor, self._warm_frame))


class KeepWarm:
    """Runs models that were idle for long, so that gaps between parts do not slow the next verdict. For the loop's thread."""

    def __init__(self, after_ms: float, monitor: HealthMonitor) -> None:
        """`after_ms`: 0 never warms. `monitor` is told when a run fails."""
        self._after_ns = round(after_ms * 1e6)
        self._monitor = monitor
        self._running: list[Reply[Answer]] = []

    def part_came(self) -> None:
        """Skip runs that have not begun, as a part came: it is delayed by one inference at most."""
        for reply in self._running:
            reply.unwanted = True
        self._running = []

    def idle(self, models: Sequence[Model]) -> None:
        """Run the models that were idle for long; called while no part waits."""
        if self._running:
            if all(reply.done for reply in self._running):
                self._note()
        elif self._after_ns and time.monotonic_ns() - max((m.used_ns for m in models), default=0) >= self._after_ns:
            self._running = [reply for model in models if (reply := model.warm()) is not None]

    def _note(self) -> None:
        trouble = None
        for reply in self._running:
            try:
                reply.result(0)
            except LinesideError as e:
                trouble = str(e)
        self._running = []
        self._monitor.trouble("keep-warm run", trouble)


def _no_verdict(trigger: Trigger, until_ns: int) -> str:
    """What a FAULT begins with: how late it is, and how late it might have been."""
    since, allowed = ((ns - (trigger.since_ns or trigger.fired_ns)) / 1e6 for ns in (time.monotonic_ns(), until_ns))
    return f"No verdict {since:.0f} ms after the trigger, and the deadline leaves it {allowed:.0f} ms"
