"""THE loop: wait, grab, predict, judge, tell. One trigger, one decision, in order, by its deadline."""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from edge_runtime.capture import Capture
from edge_runtime.errors import EXIT_BUG, EXIT_OK, DeviceError, FrameError, HandoffFull, LinesideError, SinkError, SourceError
from edge_runtime.handoff import Helper, Lane, Reply
from edge_runtime.health import Monitor
from edge_runtime.judge import Judgement, Limits, judge
from edge_runtime.observers import Observers
from edge_runtime.protocols import Predictor, Sink, TriggerLine
from edge_runtime.records import Decision, Frame, Prediction, Stamps, Trigger, Verdict

log = logging.getLogger(__name__)

_ROUND_S = 0.05
"""How long a thread waits at most before it looks whether it shall stop."""
_TELL_RESERVE_MS = 20.0
"""Of the deadline, at most a tenth: kept back for telling, also when several parts run out of time at once."""
_PAUSE_S = 0.001
_LINE_TIMEOUT_S = 2.0
_HANGS_AFTER_S = 3.0
_INTERNAL_ERROR = "Internal error in the station; the part was not judged."


@dataclass(frozen=True, slots=True)
class Identity:
    """What every decision of this station repeats."""

    station: str
    recipe: str
    bundle_id: str
    limits: Limits
    deadline_ms: float


@dataclass(frozen=True, slots=True)
class _Part:
    trigger: Trigger
    refused: str = ""
    """Why it is not even looked at."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """How far a part got."""

    frame: Frame | None = None
    prediction: Prediction | None = None
    grabbed_ns: int = 0
    predicted_ns: int = 0
    grab_ns: int = 0
    predict_ns: int = 0


class Station:
    """Composes opened pieces. Triggers are taken in one thread, frames in another, the model runs in a third, verdicts are made here."""

    def __init__(
        self,
        identity: Identity,
        line: TriggerLine,
        capture: Capture,
        predictor: Predictor,
        tellers: Sequence[Sink],
        observers: Observers,
        monitor: Monitor,
        *,
        queue: int = 8,
        keep_warm_ms: float = 0.0,
        warm_frame: Frame | None = None,
    ) -> None:
        """All pieces are open already and are closed by whoever opened them.

        Args:
            identity: names, limits, deadline.
            line: where triggers come from.
            capture: where their frames come from.
            predictor: the model.
            tellers: told in this order, each bounded in time by itself: the journal first.
            observers: told afterwards.
            monitor: counts and the sign of life.
            queue: parts that may wait for their turn.
            keep_warm_ms: run the model when it was idle for so long; 0 never.
            warm_frame: what to run it on until a part was judged.
        """
        self._identity, self._line, self._capture = identity, line, capture
        self._tellers, self._observers, self._monitor = tuple(tellers), observers, monitor
        self._deadline_ns = round(identity.deadline_ms * 1e6)
        self._reserve_ns = round(min(_TELL_RESERVE_MS, identity.deadline_ms / 10) * 1e6)
        self._queue = queue
        self._lane: Lane[_Part] = Lane(queue)
        self._predictor = predictor
        self._model: Helper[Frame, tuple[Prediction, int]] = Helper(self._timed_predict, "model")
        self._keep_warm_ns = round(keep_warm_ms * 1e6)
        self._warm_frame = warm_frame
        self._warming: Reply[tuple[Prediction, int]] | None = None
        self._model_used_ns = time.monotonic_ns()
        self._predict_times: deque[int] = deque(maxlen=8)
        self._in_flight: _Part | None = None
        self._stopped_ns = 0
        self._line_over = threading.Event()
        self._line_failure: Exception | None = None

    @property
    def problem(self) -> str | None:
        """A sentence for the operator while the model hangs."""
        busy = self._model.busy_s
        return f"The model has not answered for {busy:.0f} s." if busy > self._deadline_ns / 1e9 + _HANGS_AFTER_S else None

    def stop(self) -> None:
        """Take no further trigger, answer those taken, then let `run` return. Safe in a signal handler."""
        self._stopped_ns = self._stopped_ns or time.monotonic_ns()

    def run(self) -> int:
        """Answer triggers until `stop`, or the end of the line or the source. 0, or 70 after an exception that is a bug.

        Raises LinesideError when the trigger line is lost for good. In every case each trigger that was taken has been answered.
        """
        threading.Thread(target=self._take_triggers, name="trigger", daemon=True).start()
        try:
            while not self._is_over():
                self._monitor.beat("loop")
                part = self._lane.get(_ROUND_S)
                if part is None:
                    self._idle()
                else:
                    self._answer(part)
            self._monitor.stopping()
            if self._line_failure is not None:
                raise self._line_failure
        except Exception as e:
            self._give_up(e)
            if isinstance(e, LinesideError):
                raise
            return EXIT_BUG
        finally:
            self._model.close(timeout_s=_ROUND_S)
        return EXIT_OK

    def _is_over(self) -> bool:
        if self._stopped_ns and time.monotonic_ns() - self._stopped_ns > _LINE_TIMEOUT_S * 1e9:
            return len(self._lane) == 0  # a trigger line that hangs does not keep the process from ending
        return self._line_over.is_set() and len(self._lane) == 0

    def _take_triggers(self) -> None:
        trigger: Trigger | None = None
        try:
            while not self._stopped_ns and not self._capture.exhausted and not getattr(self._line, "exhausted", False):
                self._monitor.beat("trigger line")
                if not self._capture.can_serve:
                    time.sleep(_PAUSE_S)
                    continue
                trigger = self._line.wait(_ROUND_S)
                if trigger is None:
                    continue
                if self._lane.full:
                    self._monitor.count("overruns")
                    self._lane.note(_Part(trigger, f"Overrun: {self._queue} parts were waiting already; this one was not judged."))
                else:
                    self._capture.order(trigger)
                    self._lane.put(_Part(trigger))
                trigger = None
        except Exception as e:  # ends the station, in the loop's thread
            self._line_failure = e
            if trigger is not None:
                self._lane.note(_Part(trigger, _INTERNAL_ERROR))
        finally:
            self._line_over.set()

    def _answer(self, part: _Part) -> None:
        self._in_flight = part
        judgement, seen = self._judge(part)
        decided_ns = time.monotonic_ns()
        if judgement.verdict is not Verdict.FAULT and decided_ns > part.trigger.fired_ns + self._deadline_ns:
            judgement = _fault(f"Judged {_ms_since(part.trigger):.0f} ms after the trigger: too late.")
        self._tell(part.trigger, judgement, seen, decided_ns)

    def _judge(self, part: _Part) -> tuple[Judgement, _Seen]:
        trigger, seen = part.trigger, _Seen()
        until_ns = trigger.fired_ns + self._deadline_ns - self._reserve_ns
        try:
            if part.refused:
                raise HandoffFull(part.refused)
            shot = self._capture.collect(trigger, until_ns)
            seen = _Seen(shot.frame, grabbed_ns=time.monotonic_ns(), grab_ns=shot.waited_ns)
            prediction, predict_ns = self._predict(shot.frame, trigger, until_ns)
            seen = _Seen(shot.frame, prediction, seen.grabbed_ns, time.monotonic_ns(), shot.waited_ns, predict_ns)
            self._warm_frame = shot.frame
            return judge(prediction, self._identity.limits, _size(shot.frame)), seen
        except (FrameError, SourceError, DeviceError, HandoffFull) as e:
            return _fault(str(e)), seen

    def _predict(self, frame: Frame, trigger: Trigger, until_ns: int) -> tuple[Prediction, int]:
        # An inference that cannot end in time is not begun: it would only make the next part late as well, and that one the next.
        if until_ns - time.monotonic_ns() < min(self._predict_times, default=0):
            raise DeviceError(f"No verdict within {_ms_since(trigger):.0f} ms: parts come faster than they are judged.")
        if self._warming is not None:
            self._warming.unwanted = True
        reply = self._model.call(frame)
        try:
            prediction, took_ns = reply.result((until_ns - time.monotonic_ns()) / 1e9)
        except TimeoutError:
            reply.unwanted = True
            raise DeviceError(f"No verdict within {_ms_since(trigger):.0f} ms: the model did not answer in time.") from None
        finally:
            self._model_used_ns = time.monotonic_ns()
        # At most half the deadline is believed, so that a part that just came is always tried.
        self._predict_times.append(min(took_ns, self._deadline_ns // 2))
        return prediction, took_ns

    def _timed_predict(self, frame: Frame) -> tuple[Prediction, int]:
        began = time.monotonic_ns()
        return self._predictor.predict(frame), time.monotonic_ns() - began

    def _tell(self, trigger: Trigger, judgement: Judgement, seen: _Seen, decided_ns: int) -> None:
        i, frame = self._identity, seen.frame
        judged = judgement.verdict is not Verdict.FAULT and seen.prediction is not None
        decision = Decision(
            station=i.station, seq=trigger.seq, part_id=trigger.part_id, verdict=judgement.verdict, reason=judgement.reason,
            score=seen.prediction.score if judged and seen.prediction else None, threshold=i.limits.threshold,
            severity=judgement.severity, regions=judgement.regions, frame_wh=_size(frame) if frame else (0, 0),
            bundle_id=i.bundle_id, recipe=i.recipe, wall_time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            stamps=Stamps(
                trigger.fired_ns, frame.captured_ns if frame else 0, seen.grabbed_ns, seen.predicted_ns, decided_ns, time.monotonic_ns()
            ),
        )  # fmt: skip
        self._in_flight = None
        failure: Exception | None = None
        for teller in self._tellers:
            name = type(teller).__name__.lower()
            try:
                teller.put(decision, frame, seen.prediction)
            except SinkError as e:
                self._monitor.trouble(name, str(e))
            except Exception as e:  # the others must still be told; raised again below
                failure = failure or e
            else:
                self._monitor.trouble(name, None)
        self._monitor.decided(decision, seen.grab_ns, seen.predict_ns, time.monotonic_ns())
        self._observers.show(decision, frame, seen.prediction)
        if decision.verdict is Verdict.FAULT:
            log.warning("part %d %s: FAULT: %s", decision.seq, decision.part_id, decision.reason)
        if failure is not None:
            raise failure

    def _idle(self) -> None:
        self._capture.check()
        if self._warming is not None and self._warming.unwanted:
            self._warming = None  # a part came in between
        elif self._warming is not None and self._warming.done:
            warming, self._warming = self._warming, None
            try:
                warming.result(0)
            except LinesideError as e:
                self._monitor.trouble("keep-warm run", str(e))
            else:
                self._monitor.trouble("keep-warm run", None)
        now = time.monotonic_ns()
        if self._keep_warm_ns and self._warm_frame and self._warming is None and now - self._model_used_ns >= self._keep_warm_ns:
            self._model_used_ns = now
            self._warming = self._model.call(self._warm_frame)

    def _give_up(self, why: Exception) -> None:
        """Law 1 holds to the end: whoever waits is told FAULT, then the process ends."""
        if isinstance(why, LinesideError):
            log.critical("the station ends: %s", why)
        else:
            log.critical("the station ends: a bug in Lineside", exc_info=why)
        self.stop()
        self._monitor.stopping()
        waiting = [self._in_flight] if self._in_flight else []
        # Those that wait are told at once, then whoever a slow line still announces.
        for patience_s in (0.0, _LINE_TIMEOUT_S):
            self._line_over.wait(patience_s)
            while (part := self._lane.get(0)) is not None:
                waiting.append(part)
            for part in waiting:
                try:
                    self._tell(part.trigger, _fault(_INTERNAL_ERROR), _Seen(), time.monotonic_ns())
                except Exception:
                    log.exception("part %d: not everybody could be told", part.trigger.seq)
            waiting.clear()


def _fault(reason: str) -> Judgement:
    return Judgement(Verdict.FAULT, reason, (), None)


def _ms_since(trigger: Trigger) -> float:
    return (time.monotonic_ns() - trigger.fired_ns) / 1e6


def _size(frame: Frame) -> tuple[int, int]:
    return frame.image.shape[1], frame.image.shape[0]
