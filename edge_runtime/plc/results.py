"""How results reach the PLC: what every way of showing them offers, and the one that shows each until it is acknowledged."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from edge_runtime.plc.signals import StationFault
from edge_runtime.plc.tags import Value
from edge_runtime.plc.transitions import RESULT, RESULT_ALONE, Do, Machine, ResultEvent, ResultState
from edge_runtime.records import Cause, Outcome, Verdict

_HOLD_NS = 50_000_000
"""Without acknowledge, a result that is followed by another at once stays for so long: some scans of any PLC."""
FALLEN: Mapping[str, Value] = {"accept": False, "reject": False, "fault": False, "fault_code": 0, "result_valid": False}
NOTHING: Mapping[str, Value] = {"result_part_id": "", "result_count": 0, "severity": 0.0, **FALLEN}


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
    """When and where a trigger rose: after one poll of the PLC, and before the next showed it."""

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

    def step(self, acknowledge: bool, encoder: int, now_ns: int, polled_ns: int) -> None:
        """Look at the PLC and the clock; changes `outputs`. `polled_ns`: when the PLC was asked before."""

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
        self.outputs = NOTHING
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

    def step(self, acknowledge: bool, encoder: int, now_ns: int, polled_ns: int) -> None:
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
                self.outputs = {**self.outputs, **FALLEN}
                self._since_ns, self.fault = 0, None
                if event is ResultEvent.ACKNOWLEDGE:
                    self.news.append((self._seq, Outcome.ACKNOWLEDGED))
            case Do.FORGIVE:
                self._since_ns, self.fault = 0, None
            case Do.DROP:
                self.news += [(seq, Outcome.FAILED) for seq, *_ in self._waiting]
                self._waiting.clear()
                self.outputs = {**self.outputs, **FALLEN}
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


def shown(result: Result, count: int) -> dict[str, Value]:
    """The eight outputs of a result."""
    return {
        "result_part_id": result.part_id, "result_count": count, "severity": result.severity, "fault_code": result.fault_code,
        "accept": result.verdict is Verdict.ACCEPT, "reject": result.verdict is Verdict.REJECT, "fault": result.verdict is Verdict.FAULT,
        "result_valid": True,
    }  # fmt: skip
