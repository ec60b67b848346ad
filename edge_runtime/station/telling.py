"""Whom a decision is told: journal, line, publisher, in this order; then who looks on. Law 1 ends here.

Where the journal syncs the disk at each commit, that takes longer than many a part's inspection. Such a station tells in a thread of its
own, in the parts' order: while one part waits for its row, the next is inspected, and the rows that came meanwhile share the next sync.

Why: deploy/decisions/0001 and deploy/decisions/0054.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edge_runtime.errors import SinkError
from edge_runtime.handoff import Lane
from edge_runtime.protocols import ActuatorLine, Sink
from edge_runtime.records import Cause, Decision, Delivery, Outcome, Picture, Verdict
from edge_runtime.sinks.journal import Journal
from edge_runtime.sinks.journal_rows import Entry
from edge_runtime.station.health import HealthMonitor
from edge_runtime.station.observers import Observers

log = logging.getLogger(__name__)

_AHEAD = 8
"""Decisions that may wait to be told, with their pictures; then the loop waits as well."""
_ROUND_S = 0.05
_NO_ROW = "Its row could not be written to the journal in time, and this station accepts no part without one."


@dataclass(slots=True)
class Told:
    """A decision on its way to all who are told."""

    decision: Decision
    pictures: tuple[Picture, ...]
    camera_and_model_ns: tuple[int, int]
    row: Entry | None = None
    """Begun already."""


class Telling:
    """`tell` belongs to the loop's thread."""

    def __init__(
        self,
        tellers: Sequence[Sink],
        observers: Observers,
        monitor: HealthMonitor,
        delivered: Callable[[Delivery], None] = lambda delivery: None,
        required: Journal | None = None,
        ahead: Journal | None = None,
        unwritten: Callable[[Decision], None] = lambda decision: None,
    ) -> None:
        """As in `Station`."""
        self._tellers, self._observers, self._monitor = tuple(tellers), observers, monitor
        self._delivered, self._required, self._ahead, self._unwritten = delivered, required, ahead, unwritten
        self._lane: Lane[Told] = Lane(_AHEAD)
        self._room = threading.Semaphore(_AHEAD)
        self._closing = False
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None
        if ahead is not None:
            self._thread = threading.Thread(target=self._run, name="telling", daemon=True)
            self._thread.start()

    def tell(self, told: Told) -> None:
        """Tell all of one decision, or have it told after those before it.

        Raises what a teller raised that is no SinkError, when the others were told.
        """
        if self._thread is None:
            return self._tell(told)
        assert self._ahead is not None
        try:
            told.row = self._ahead.begin(told.decision)
        except SinkError:
            told.row = None  # its teller says it in its turn
        self._room.acquire()  # each that is told takes bounded time, and `_run` gives room whatever becomes of it
        self._lane.note(told)
        return None

    def raise_failure(self) -> None:
        """Raises what a teller raised meanwhile that is no SinkError."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Have all told that wait; from now on `tell` tells at once. Raises as `raise_failure`."""
        if self._thread is not None:
            self._closing = True
            self._thread.join()
            self._thread = None
            self.raise_failure()

    def _run(self) -> None:
        while not (self._closing and not len(self._lane)):
            self._monitor.beat("telling")
            told = self._lane.get(_ROUND_S)
            if told is None:
                continue
            try:
                self._tell(told)
            except Exception as e:  # raised again in the loop's thread; those that wait are told all the same
                self._failure = self._failure or e
            finally:
                self._room.release()
            del told

    def _tell(self, told: Told) -> None:
        decision, failure = told.decision, None
        for teller in self._tellers:
            try:
                if isinstance(teller, Journal):
                    decision = self._with_its_row(teller, decision, told.row if teller is self._ahead else None)
                else:
                    teller.put(decision, told.pictures)
            except SinkError as e:
                decision = self._untold(teller, decision, str(e))
            except Exception as e:  # the others must still be told; raised again below
                failure = failure or e
                decision = self._untold(teller, decision, f"{type(e).__name__}: {e}", shown=False)
            else:
                self._monitor.trouble(_called(teller), None)
        self._monitor.decided(decision, *told.camera_and_model_ns, time.monotonic_ns())
        self._observers.show(decision, told.pictures)
        if decision.verdict is Verdict.FAULT:
            named = f" ({decision.part_id})" if decision.part_id else ""
            log.warning("part %d%s: FAULT: %s", decision.seq, named, decision.reason)
        if failure is not None:
            raise failure

    def _with_its_row(self, journal: Journal, decision: Decision, begun: Entry | None) -> Decision:
        """What may be told: the decision, or of an ACCEPT whose row is not there in time the FAULT that takes its place."""
        if journal.commit(decision, begun):
            return decision
        if journal is self._required and decision.verdict is Verdict.ACCEPT:
            decision = _without_row(decision)
            journal.amend(decision)
        self._unwritten(decision)
        return decision

    def _untold(self, teller: Sink, decision: Decision, why: str, shown: bool = True) -> Decision:
        """A teller failed; what the others may be told."""
        if shown:
            self._monitor.trouble(_called(teller), why)
        if teller is self._required and decision.verdict is Verdict.ACCEPT:
            return _without_row(decision)
        if not isinstance(teller, Journal):
            self._delivered(Delivery(decision.seq, _called(teller), Outcome.FAILED, time.monotonic_ns(), why))
        return decision


def _called(teller: Sink) -> str:
    return "plc" if isinstance(teller, ActuatorLine) else type(teller).__name__.lower()


def _without_row(decision: Decision) -> Decision:
    """Law 2, over the journal."""
    return replace(decision, verdict=Verdict.FAULT, reason=_NO_ROW, score=None, severity=None, regions=(), cause=Cause.JOURNAL)
