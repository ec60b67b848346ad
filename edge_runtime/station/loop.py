"""THE loop: wait, grab, predict, judge, tell. One trigger, one decision, in order, by its deadline.

Why: deploy/decisions/0001.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from edge_runtime.errors import EXIT_BUG, EXIT_OK, ConfigError, DeviceError, LinesideError
from edge_runtime.handoff import Lane, Reply
from edge_runtime.protocols import ActuatorLine, Sink, TriggerLine
from edge_runtime.records import Cause, Decision, Delivery, Trigger, Verdict
from edge_runtime.sinks.journal import Journal
from edge_runtime.station.decide import camera_and_model_ns, decision_of, judgement_of, pictures_of, unseen
from edge_runtime.station.health import HealthMonitor
from edge_runtime.station.judge import Judgement, fault
from edge_runtime.station.model_thread import Answer, KeepWarm
from edge_runtime.station.observers import Observers
from edge_runtime.station.products import Product, find
from edge_runtime.station.telling import Telling, Told
from edge_runtime.station.views import Inspection, Viewpoints

log = logging.getLogger(__name__)

_ROUND_S = 0.05
"""How long a thread waits at most before it looks whether it shall stop."""
_TELL_RESERVE_MS = 20.0
"""At most a tenth of the deadline, kept back for telling, also when several parts run out of time at once."""
_PAUSE_S = 0.001
_LINE_TIMEOUT_S = 2.0
_HANGS_AFTER_S = 3.0
_PREPARE_S = 2.0
_INTERNAL_ERROR = "Internal error in the station; the part was not judged."


@dataclass(frozen=True, slots=True)
class _Part:
    trigger: Trigger
    product: Product | None
    """None when nobody knows the recipe that was asked for."""
    refused: str = ""
    """Why it is a FAULT without any picture; empty where it is to be judged."""
    cause: Cause = Cause.REFUSED


@dataclass(frozen=True, slots=True)
class _Change:
    """The wish to have a product's models warm."""

    product: Product
    begun: Reply[list[Reply[Answer]]]


@dataclass(frozen=True, slots=True)
class _Between:
    """The wish to have something changed between two parts."""

    change: Callable[[], None]
    done: Reply[None]


class Station:
    """The loop, with the pieces that it is composed of.

    Triggers are taken in one thread, frames in another, the model runs in a third, verdicts are made here.
    """

    def __init__(
        self,
        name: str,
        line: TriggerLine,
        cameras: Viewpoints,
        products: Mapping[str, Product],
        tellers: Sequence[Sink],
        observers: Observers,
        monitor: HealthMonitor,
        *,
        queue: int = 8,
        keep_warm_ms: float = 0.0,
        announced: Callable[[Trigger], None] = lambda trigger: None,
        delivered: Callable[[Delivery], None] = lambda delivery: None,
        required: Journal | None = None,
        ahead: Journal | None = None,
        unwritten: Callable[[Decision], None] = lambda decision: None,
    ) -> None:
        """All pieces are open already and are closed by whoever opened them.

        Args:
            name: the station's, in every decision.
            line: where triggers come from.
            cameras: where their frames come from, and who judges them.
            products: what may be asked for, by the recipe's key; "" is what a trigger without one gets.
            tellers: told in this order, each bounded in time by itself: the journal first.
            observers: told afterwards.
            monitor: counts and the sign of life.
            queue: parts that may wait for their turn.
            keep_warm_ms: run the model when it was idle for so long; 0 never.
            announced: writes down what was announced, in the trigger line's thread.
            delivered: writes down whom a decision could not be told; never waits.
            required: the one of `tellers` without whose row no part is accepted.
            ahead: the one of `tellers` whose rows are synced to the disk: parts are inspected while it does that.
            unwritten: writes down what is told of a part before its row is there; never waits.
        """
        self._name, self._line, self._cameras, self._products = name, line, cameras, dict(products)
        self._monitor = monitor
        self._telling = Telling(tellers, observers, monitor, delivered, required, ahead, unwritten)
        self._actuator = line if isinstance(line, ActuatorLine) else None
        self._current = self._products[""]
        self._slowest_s = max(p.deadline_ms for p in self._products.values()) / 1e3
        self._queue = queue
        self._announced = announced
        self._lane: Lane[_Part | _Change | _Between] = Lane(queue)
        self._keep_warm = KeepWarm(keep_warm_ms, monitor)
        self._in_flight: _Part | None = None
        self._stopped_ns = 0
        self._line_over = threading.Event()
        self._line_failure: Exception | None = None
        self._taking: Trigger | None = None

    @property
    def waiting(self) -> int:
        """Parts that wait for their turn."""
        return len(self._lane)

    @property
    def problem(self) -> str | None:
        """A sentence for the operator while a model hangs."""
        busy = max(model.thread.busy_s for product in self._products.values() for model in product.models)
        return f"The model has not answered for {busy:.0f} s." if busy > self._slowest_s + _HANGS_AFTER_S else None

    def prepare(self, recipe: str) -> None:
        """Have the models of a recipe run once, after all parts that were taken before, and make it the current one.

        From any thread but the loop's own, which calls `put`: it would wait for itself. Returns when they have. Raises ConfigError for an
        unknown recipe; DeviceError when a model fails or does not answer in time.
        """
        self.warm(find(self._products, recipe))
        self._use(find(self._products, recipe))  # as it is by now

    def warm(self, product: Product) -> None:
        """Have a product's models run once, after all parts that were taken before; it may be one that is not judged by yet.

        From any thread but the loop's own. Returns when they have. Raises DeviceError when a model fails or does not answer in time.
        """
        change = _Change(product, Reply())
        until = time.monotonic() + self._slowest_s + _PREPARE_S
        self._lane.note(change)
        try:
            for warming in change.begun.result(until - time.monotonic()):
                warming.result(until - time.monotonic())
        except TimeoutError:
            raise DeviceError(f"Recipe {product.key!r}: its model is not warm after {self._slowest_s + _PREPARE_S:.0f} s.") from None

    @property
    def slowest_s(self) -> float:
        """The longest deadline of its recipes."""
        return self._slowest_s

    @property
    def products(self) -> Mapping[str, Product]:
        """What is judged by now, by the recipe's key."""
        return self._products

    def switch(self, product: Product) -> None:
        """Judge by `product` in place of the one of the same key: after the parts that were taken before, between two parts.

        From any thread but the loop's own. Returns when it is so; else nothing has changed and never will: raises DeviceError.
        """
        claim = threading.Lock()  # taken once: by the loop, which then does it, or by whoever does not wait any longer

        def change() -> None:
            if claim.acquire(blocking=False):
                self._products = {**self._products, product.key: product}  # never changed in place: other threads read it
                if self._current.key == product.key:
                    self._use(product)

        patience_s = (self._queue + 1) * self._slowest_s + _PREPARE_S
        try:
            self.between_parts(change, patience_s)
        except TimeoutError:
            if claim.acquire(blocking=False):
                raise DeviceError(f"The station's loop did not come round within {patience_s:.0f} s; nothing was changed.") from None

    def between_parts(self, change: Callable[[], None], timeout_s: float) -> None:
        """Have `change` made in the loop's thread, after all parts that were taken before and before any later one; returns when it is.

        From any thread but the loop's own. `change` assigns what was made ready elsewhere and nothing more: the next part waits for it.
        Raises what it raised, and TimeoutError where the loop did not come to it in time; then it may still come.
        """
        wish = _Between(change, Reply())
        self._lane.note(wish)
        wish.done.result(timeout_s)

    @staticmethod
    def _change(wish: _Between) -> None:
        try:
            wish.change()
        except Exception as e:
            wish.done.fail(e)
        else:
            wish.done.give(None)

    def stop(self) -> None:
        """Take no further trigger, answer those taken, then let `run` return. Safe in a signal handler."""
        self._stopped_ns = self._stopped_ns or time.monotonic_ns()

    def begin(self) -> None:
        """Take triggers from now on. Call it before anybody is told that the station is ready."""
        self._line.begin()

    def run(self) -> int:
        """Answer triggers until `stop`, or the end of the line or the source. 0, or 70 after an exception that is a bug.

        Raises LinesideError when the trigger line is lost for good. In every case each trigger that was taken has been answered.
        """
        threading.Thread(target=self._take_triggers, name="trigger", daemon=True).start()
        try:
            while not self._is_over():
                self._monitor.beat("loop")
                self._telling.raise_failure()
                item = self._lane.get(_ROUND_S)
                if isinstance(item, _Part):
                    self._answer(item)
                elif isinstance(item, _Between):
                    self._change(item)
                elif item is not None:
                    item.begun.give([warming for model in item.product.models if (warming := model.warm()) is not None])
                else:
                    self._cameras.check()
                    self._keep_warm.idle(self._current.models)
            self._telling.close()
            self._monitor.stopping()
            if self._line_failure is not None:
                raise self._line_failure
        except Exception as e:
            self._give_up(e)
            if isinstance(e, LinesideError):
                raise
            return EXIT_BUG
        return EXIT_OK

    def _is_over(self) -> bool:
        stopped_s = (time.monotonic_ns() - self._stopped_ns) / 1e9 if self._stopped_ns else 0.0
        if stopped_s > _LINE_TIMEOUT_S + self._slowest_s:
            return True  # a flood of triggers does not keep it either: what waits is a FAULT at the next start (deploy/decisions/0044)
        if stopped_s > _LINE_TIMEOUT_S:
            return len(self._lane) == 0  # a trigger line that hangs does not keep the process from ending
        return self._line_over.is_set() and len(self._lane) == 0

    def _take_triggers(self) -> None:
        try:
            while not (self._stopped_ns or self._cameras.exhausted or self._line.exhausted):
                self._monitor.beat("trigger line")
                if self._cameras.can_serve:
                    self._take(self._line.wait(_ROUND_S))
                else:
                    time.sleep(_PAUSE_S)
            self._take_the_last()
        except Exception as e:  # ends the station, in the loop's thread
            self._line_failure = e
            if (trigger := self._taking) is not None:
                self._lane.note(_Part(trigger, self._products.get(trigger.recipe), _INTERNAL_ERROR, Cause.INTERNAL))
        finally:
            self._line_over.set()

    def _take(self, trigger: Trigger | None) -> None:
        self._taking = trigger
        if trigger is None:
            return
        self._announced(trigger)
        part = self._part_of(trigger)
        if part.refused:
            self._cameras.dismiss(trigger)
            self._lane.note(part)
        else:
            self._cameras.order(trigger)
            self._lane.put(part)
        self._taking = None

    def _take_the_last(self) -> None:
        """Parts that the line announces until it has told its other side that no more are taken."""
        if not self._line.end():
            return
        until = time.monotonic() + _LINE_TIMEOUT_S
        while time.monotonic() < until and (trigger := self._line.wait(0.0)) is not None:
            self._take(trigger)

    def _part_of(self, trigger: Trigger) -> _Part:
        try:
            product = find(self._products, trigger.recipe)
        except ConfigError as e:
            return _Part(trigger, None, trigger.refused or str(e), Cause.RECIPE)
        refused = trigger.refused
        if not refused and self._lane.full:
            refused = f"Overrun: {self._queue} parts were waiting already; this one was not judged."
        if refused:
            self._monitor.count("overruns")
        return _Part(trigger, product, refused)

    def _answer(self, part: _Part) -> None:
        self._in_flight = part
        self._keep_warm.part_came()
        if part.product is not None and part.product is not self._products[part.product.key]:
            part = replace(part, product=self._products[part.product.key])  # a switch lay between its trigger and its turn
        trigger, product = part.trigger, part.product
        if part.refused or product is None:
            return self._tell(part, fault(part.refused, part.cause), (), time.monotonic_ns())
        self._use(product)
        deadline_ns = (trigger.since_ns or trigger.fired_ns) + product.deadline_ns
        reserve_ns = min(round(_TELL_RESERVE_MS * 1e6), product.deadline_ns // 10)
        inspections = self._cameras.inspect(trigger, product, deadline_ns - reserve_ns, deadline_ns - reserve_ns // 2)
        judgement, decided_ns = judgement_of(inspections), time.monotonic_ns()
        if judgement.verdict is not Verdict.FAULT:
            if decided_ns > deadline_ns:
                judgement = fault(f"Judged {(decided_ns - trigger.fired_ns) / 1e6:.0f} ms after the trigger: too late.", Cause.LATE)
            elif self._actuator is not None and (lost := self._actuator.unreachable(trigger)) is not None:
                judgement = fault(f"The PLC is lost, or was, so the part's result cannot be acted upon: {lost}", Cause.PLC)
        return self._tell(part, judgement, inspections, decided_ns)

    def _use(self, product: Product) -> None:
        if product is not self._current:
            self._current = product
            self._monitor.judging(product.recipes, product.bundle_ids, product.origins)

    def _tell(self, part: _Part, judgement: Judgement, inspections: tuple[Inspection, ...], decided_ns: int) -> None:
        views = tuple(one.view for one in inspections) or unseen(self._cameras.names, part.product, judgement, part.trigger.recipe)
        decision = decision_of(self._name, part.trigger, judgement, views, decided_ns)
        self._in_flight = None
        self._telling.tell(Told(decision, pictures_of(views, inspections), camera_and_model_ns(inspections)))

    def _give_up(self, why: Exception) -> None:
        """Law 1 holds to the end: whoever waits is told FAULT, then the process ends."""
        if isinstance(why, LinesideError):
            log.critical("the station ends: %s", why)
        else:
            log.critical("the station ends: a bug in Lineside", exc_info=why)
        self.stop()
        self._monitor.stopping()
        with contextlib.suppress(Exception):  # it is why, or was logged
            self._telling.close()
        waiting = [self._in_flight] if self._in_flight else []
        # Those that wait are told at once, then whoever a slow line still announces.
        for patience_s in (0.0, _LINE_TIMEOUT_S):
            self._line_over.wait(patience_s)
            while (item := self._lane.get(0)) is not None:
                waiting += [item] if isinstance(item, _Part) else []
            for part in waiting:
                try:
                    self._tell(part, fault(_INTERNAL_ERROR, Cause.INTERNAL), (), time.monotonic_ns())
                except Exception:
                    log.exception("part %d: not everybody could be told", part.trigger.seq)
            waiting.clear()
