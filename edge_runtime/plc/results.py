"""How results reach the PLC: one after the other until each is acknowledged, or as a pulse where the part is ejected."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_runtime.plc.settings import PlcConfig
from edge_runtime.plc.signals import StationFault
from edge_runtime.plc.tags import Tag, Value
from edge_runtime.plc.transitions import PULSE, RESULT, RESULT_ALONE, Do, Machine, PulseEvent, PulseState, ResultEvent, ResultState
from edge_runtime.records import Cause, Outcome, Verdict

_HOLD_NS = 50_000_000
"""Without acknowledge, a result that is followed by another at once stays for so long: some scans of any PLC."""
_FALLEN: Mapping[str, Value] = {"accept": False, "reject": False, "fault": False, "fault_code": 0, "result_valid": False}
_NOTHING: Mapping[str, Value] = {"result_part_id": "", "result_count": 0, "severity": 0.0, **_FALLEN}


@dataclass(frozen=True, slots=True)
class Result:
    """A decision as the PLC reads it."""

    part_id: str
    verdict: Verdict
    severity: float
    """score / threshold; 0 for a FAULT."""
    fault_code: int
    """0 unless the verdict is FAULT."""
    until_ns: int = 0
    """When it is no verdict any more, for its part may have gone; 0: never."""

    def at(self, now_ns: int) -> "Result":
        """As it may be told now: too late, it is a FAULT."""
        if self.verdict is Verdict.FAULT or not self.until_ns or now_ns <= self.until_ns:
            return self
        return Result(self.part_id, Verdict.FAULT, 0.0, int(Cause.LATE))


@dataclass(frozen=True, slots=True)
class Edge:
    """When and where a trigger rose: after one look at the PLC, and before the next showed it."""

    since_ns: int
    seen_ns: int
    encoder_since: int = 0
    encoder: int = 0


class Results(Protocol):
    """What the handshake needs of a way to show results, be it with an acknowledge or by pulses."""

    outputs: Mapping[str, Value]
    """The eight that speak of a result."""
    fault: StationFault | None
    """While it stands."""
    parts_at_once: int
    """Parts that may be in the station; with so many it is not ready."""
    acknowledged: bool
    """The PLC says when it has taken a result."""
    news: list[tuple[int, Outcome]]
    """What became of which part's result since whoever steps it has taken this list away; TOLD once `outputs` are written."""

    @property
    def until_ns(self) -> int:
        """What is shown must not reach the PLC later than that; 0: it may."""

    @property
    def full(self) -> bool:
        """No further result can be kept."""

    def expect(self, seq: int, part_id: str, edge: Edge) -> None:
        """This part was announced."""

    def add(self, seq: int, result: Result, *, refused: bool) -> None:
        """This part is decided; `refused`: its trigger came while the station was not ready."""

    def step(self, acknowledge: bool, encoder: int, now_ns: int, looked_ns: int) -> None:
        """Look at the PLC and the clock; changes `outputs`. `looked_ns`: when the PLC was asked before."""

    def expire(self, now_ns: int) -> bool:
        """Before `result_valid` is written: whether what is about to be shown has become too late, and is a FAULT now."""

    def next_trigger(self) -> None:
        """A part's edge."""

    def forgive(self) -> None:
        """The PLC has reset the fault."""

    @property
    def idle(self) -> bool:
        """No result is shown, and none waits."""

    def clear(self, *, passing: bool = False) -> None:
        """Forget what waits; `result_valid` falls. `passing`: a part that nobody knows of is on its way."""


class Presented:
    """One result at a time: valid until acknowledged, or without acknowledge until the next trigger."""

    parts_at_once = 1

    def __init__(self, *, acknowledged: bool, timeout_ms: float, limit: int) -> None:
        """`acknowledged`: the PLC acknowledges, and each result waits for it, up to `limit` of them."""
        self.outputs = _NOTHING
        self.fault: StationFault | None = None
        self.acknowledged, self._timeout_ns, self._limit = acknowledged, round(timeout_ms * 1e6), limit
        self.news: list[tuple[int, Outcome]] = []
        self._waiting: deque[tuple[int, int, Result]] = deque()
        """(seq, count, result)"""
        self._seq = 0
        """The part whose result is shown."""
        self._machine = Machine(RESULT if acknowledged else RESULT_ALONE, ResultState.EMPTY)
        self._since_ns = 0
        """Since when the PLC's move is awaited, or without acknowledge the result is shown; 0: it is not."""
        self._count = 0
        self._shown: tuple[Result, int] | None = None

    @property
    def until_ns(self) -> int:
        """As in Results: a part that was accepted may have gone by then, and what else is shown lets none pass."""
        return self._shown[0].until_ns if self._shown is not None and self._shown[0].verdict is Verdict.ACCEPT else 0

    @property
    def full(self) -> bool:
        """True with as many results waiting, the one that is shown among them, as the station keeps."""
        return len(self._waiting) + (self._machine.state is ResultState.VALID and self.acknowledged) >= self._limit

    def expect(self, seq: int, part_id: str, edge: Edge) -> None:
        """Results come in the order of the triggers anyway."""

    def add(self, seq: int, result: Result, *, refused: bool) -> None:
        """Behind those that wait. A refused part's may find no room: the journal has it, and the PLC a gap in `result_count`."""
        self._count = (self._count + 1) % 65_536
        if refused and self.full:
            self.news.append((seq, Outcome.FAILED))
        else:
            self._waiting.append((seq, self._count, result))

    def step(self, acknowledge: bool, encoder: int, now_ns: int, looked_ns: int) -> None:
        """Make one move at most, so that the PLC sees every state."""
        self._move(self._with_acknowledge(acknowledge, now_ns) if self.acknowledged else self._without(now_ns), now_ns)

    def _with_acknowledge(self, acknowledge: bool, now_ns: int) -> ResultEvent:
        shows = self._machine.state is ResultState.VALID
        if not acknowledge if shows else acknowledge and self._waiting:  # it shall rise, or fall before the next one is shown
            self._since_ns = self._since_ns or now_ns
            if now_ns - self._since_ns > self._timeout_ns:
                return ResultEvent.LATE
        if acknowledge:
            return ResultEvent.ACKNOWLEDGE
        return ResultEvent.WAITS if self._waiting else ResultEvent.NOTHING

    def _without(self, now_ns: int) -> ResultEvent:
        if self._machine.state is ResultState.VALID:
            self._since_ns = self._since_ns or now_ns
            if self._waiting and now_ns - self._since_ns > _HOLD_NS:
                return ResultEvent.FOLLOWED
        return ResultEvent.WAITS if self._waiting else ResultEvent.NOTHING

    def _move(self, event: ResultEvent, now_ns: int = 0) -> None:
        match self._machine.on(event):
            case Do.SHOW:
                self._seq, count, result = self._waiting.popleft()
                result = result.at(now_ns)
                self.news.append((self._seq, Outcome.TOLD))
                self.outputs, self._shown = shown(result, count), (result, count)
                self._since_ns, self.fault = now_ns, None
            case Do.ACCUSE:
                if self.fault is None and self._machine.state is ResultState.VALID:
                    self.news.append((self._seq, Outcome.UNACKNOWLEDGED))
                self.fault = StationFault.ACKNOWLEDGE_TIMEOUT
            case Do.FALL:
                self.outputs = {**self.outputs, **_FALLEN}
                self._since_ns, self.fault = 0, None
                if event is ResultEvent.ACKNOWLEDGE:
                    self.news.append((self._seq, Outcome.ACKNOWLEDGED))
            case Do.FORGIVE:
                self._since_ns, self.fault = 0, None
            case Do.DROP:
                self.news += [(seq, Outcome.FAILED) for seq, *_ in self._waiting]
                self._waiting.clear()
                self.outputs = {**self.outputs, **_FALLEN}
                self._since_ns, self.fault = 0, None

    def expire(self, now_ns: int) -> bool:
        """A write may have taken long, or the whole machine may have stood still, since it was looked at."""
        if self._shown is None or not self.outputs["result_valid"]:
            return False
        result, count = self._shown
        late = result.at(now_ns)
        if late is result:
            return False
        self.outputs, self._shown = shown(late, count), (late, count)
        return True

    def next_trigger(self) -> None:
        """Without acknowledge, the part's edge says that the result before was read."""
        if not self.acknowledged:
            self._move(ResultEvent.FOLLOWED)

    def forgive(self) -> None:
        """The result stays, and the PLC has as long again to acknowledge it: a reset takes no verdict away."""
        self._move(ResultEvent.RESET)

    @property
    def idle(self) -> bool:
        """No result is shown, and none waits."""
        return not self._waiting and not self.outputs["result_valid"]

    def clear(self, *, passing: bool = False) -> None:
        """Forget what is shown and what waits: no result of before is shown after that; the journal has it."""
        self._move(ResultEvent.BACK)


@dataclass(slots=True)
class _Passing:
    part_id: str
    edge: Edge
    result: Result | None = None
    due: bool = False
    """It was at the ejector in time for its pulse, which may wait for the end of another."""

    @property
    def is_bad(self) -> bool:
        """Known not to be good."""
        return self.result is not None and self.result.verdict is not Verdict.ACCEPT


class Pulsed:
    """Each part's verdict is a pulse when it passes the ejector: `reject` for whatever is not known to be good by then."""

    def __init__(
        self, *, width_ms: float, delay_ms: float | None, encoder_counts: int | None, modulus: int, limit: int, poll_ms: float = 0.0
    ) -> None:
        """Exactly one of `delay_ms` and `encoder_counts`; the encoder's count wraps round at `modulus`. Up to `limit` parts on the way.
        `poll_ms`: jitter that whoever set it counts with."""
        self.outputs = _NOTHING
        self.fault: StationFault | None = None
        self.parts_at_once = limit
        self.acknowledged = False
        self._width_ns, self._off_ns = round(width_ms * 1e6), round((width_ms + poll_ms) * 1e6)
        self._delay_ns = None if delay_ms is None else round(delay_ms * 1e6)
        self._counts, self._modulus = encoder_counts or 0, modulus
        self.news: list[tuple[int, Outcome]] = []
        self._machine = Machine(PULSE, PulseState.NONE)
        self._way: dict[int, _Passing] = {}
        self._unsure: list[_Passing] = []
        """Being ejected, for as long as they may be at the ejector."""
        self._until_ns = 0
        self._count = 0

    @property
    def until_ns(self) -> int:
        """As in Results: a pulse that comes later than it ends meets the next part."""
        return self._until_ns

    @property
    def full(self) -> bool:
        """True with as many parts between trigger and ejector as the station keeps."""
        return len(self._way) >= self.parts_at_once

    def expect(self, seq: int, part_id: str, edge: Edge) -> None:
        """The part is on its way."""
        self._way[seq] = _Passing(part_id, edge)

    def add(self, seq: int, result: Result, *, refused: bool) -> None:
        """The result of a part that is on its way; of one that has been ejected already it comes too late."""
        if seq in self._way:
            self._way[seq].result = result

    def next_due_ns(self, now_ns: int) -> int | None:
        """When, from `now_ns` on, the next pulse begins or the one that is shown ends; None when nothing will, or the encoder tells.

        What was due before is shown already, or waits for the end of what is.
        """
        due = [self._until_ns] if self.outputs["result_valid"] else []
        if self._delay_ns is not None:
            due += [ns + self._delay_ns for p in self._way.values() for ns in (p.edge.since_ns, p.edge.seen_ns)]
        return min((ns for ns in due if ns >= now_ns), default=None)

    def step(self, acknowledge: bool, encoder: int, now_ns: int, looked_ns: int) -> None:
        """Ends the pulse that is over, or begins the one that is due: never both, so that the PLC sees `result_valid` low between two.

        Of two parts nearer than a pulse is wide, a bad one cuts the pulse before it short, a good one waits for a reject's end.
        """
        self._see_who_passes(encoder, now_ns, looked_ns)
        due = next((seq for seq, part in self._way.items() if part.due), None)
        over = now_ns >= self._until_ns
        if due is None:
            event = PulseEvent.OVER if over else PulseEvent.RUNS
        elif self._is_good(due):
            event = PulseEvent.GOOD_AFTER if over else PulseEvent.GOOD_WITHIN
        else:
            event = PulseEvent.BAD
        match self._machine.on(event):
            case Do.FALL:
                self.outputs = {**self.outputs, **_FALLEN}
            case Do.SHOW if due is not None:
                self._eject(self._way.pop(due), now_ns)
                self.news.append((due, Outcome.TOLD))

    def _see_who_passes(self, encoder: int, now_ns: int, looked_ns: int) -> None:
        """Whoever passed longer ago than a pulse is wide, while the station stood still or the PLC did not answer, gets none: it would meet
        the next part. By the encoder that is known from one look to the next.

        A bad part whose edge nobody saw to within a pulse's width is ejected from when it may be there until it must have gone.
        """
        for seq, part in list(self._way.items()):
            if part.due:
                continue
            must_be_there = self._passes(part.edge.seen_ns, part.edge.encoder, encoder, now_ns)
            unsure = part.is_bad and part.edge.seen_ns - part.edge.since_ns > self._off_ns
            if must_be_there:
                since_ns = looked_ns if self._delay_ns is None else part.edge.seen_ns + self._delay_ns
                if now_ns - since_ns > self._off_ns:
                    self.fault = StationFault.PASSED_UNTOLD
                    self._count = (self._count + 1) % 65_536
                    self.news += [(seq, Outcome.FAILED)] if part.result is not None else []
                    del self._way[seq]
                    continue
            elif unsure and self._passes(part.edge.since_ns, part.edge.encoder_since, encoder, now_ns):
                self._unsure.append(part)
            else:
                continue
            part.due = True
        self._unsure = [p for p in self._unsure if not self._passes(p.edge.seen_ns, p.edge.encoder, encoder, now_ns)]
        if any(part not in self._way.values() for part in self._unsure):
            self._until_ns = now_ns + self._width_ns

    def _eject(self, part: _Passing, now_ns: int) -> None:
        result = part.result
        if result is None:  # fail closed: whoever is not known to be good is ejected
            self.fault = StationFault.LATE_FOR_PULSE
            result = Result(part.part_id, Verdict.FAULT, 0.0, StationFault.LATE_FOR_PULSE)
        self._count = (self._count + 1) % 65_536
        out = shown(result, self._count)
        self.outputs = {**out, "reject": result.verdict is not Verdict.ACCEPT}
        self._until_ns = now_ns + self._width_ns

    def expire(self, now_ns: int) -> bool:
        """A pulse comes when its part is at the ejector, not sooner."""
        return False

    def next_trigger(self) -> None:
        """Parts follow each other."""

    def forgive(self) -> None:
        """The late part is gone."""
        self.fault = None

    @property
    def idle(self) -> bool:
        """No part is on its way, and no result is shown."""
        return not self._way and not self.outputs["result_valid"]

    def clear(self, *, passing: bool = False) -> None:
        """The connection was lost: where the parts are by now, nobody can tell; that there were some, the PLC must hear."""
        self.fault = StationFault.PASSED_UNTOLD if self._way or passing else None
        self._count = (self._count + len(self._way)) % 65_536
        self.news += [(seq, Outcome.FAILED) for seq, part in self._way.items() if part.result is not None]
        self._way.clear()
        self._unsure.clear()
        self._machine.on(PulseEvent.BACK)
        self.outputs = {**self.outputs, **_FALLEN}

    def _is_good(self, seq: int) -> bool:
        result = self._way[seq].result
        return result is not None and result.verdict is Verdict.ACCEPT

    def _passes(self, from_ns: int, from_encoder: int, encoder: int, now_ns: int) -> bool:
        """It is at the ejector, or beyond, if its trigger rose then and there."""
        if self._delay_ns is not None:
            return now_ns >= from_ns + self._delay_ns
        moved = (encoder - from_encoder) % self._modulus
        return self._counts <= moved < self._modulus // 2  # beyond that, the belt has moved back a little


def shown(result: Result, count: int) -> dict[str, Value]:
    """The eight outputs of a result."""
    return {
        "result_part_id": result.part_id, "result_count": count, "severity": result.severity, "fault_code": result.fault_code,
        "accept": result.verdict is Verdict.ACCEPT, "reject": result.verdict is Verdict.REJECT, "fault": result.verdict is Verdict.FAULT,
        "result_valid": True,
    }  # fmt: skip


def results_of(settings: PlcConfig, inputs: Sequence[Tag]) -> Presented | Pulsed:
    """The way that the station file asks for."""
    pulse = settings.pulse
    if pulse is None:
        return Presented(
            acknowledged=settings.inputs.acknowledge is not None, timeout_ms=settings.acknowledge_timeout_ms, limit=settings.results
        )
    encoder = next((t for t in inputs if t.name == "encoder"), None)
    modulus = 2 ** (16 if encoder is not None and encoder.type.endswith("16") else 32)
    return Pulsed(
        width_ms=pulse.width_ms,
        delay_ms=pulse.delay_ms,
        encoder_counts=pulse.encoder_counts,
        modulus=modulus,
        limit=settings.results,
        poll_ms=settings.poll_ms,
    )
