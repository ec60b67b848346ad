"""How results reach the PLC: one after the other until each is acknowledged, or as a pulse where the part is ejected."""

import enum
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_runtime.plc.settings import PlcConfig
from edge_runtime.plc.signals import StationFault
from edge_runtime.plc.tags import Tag, Value
from edge_runtime.records import Verdict

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


class Results(Protocol):
    """What the handshake needs of either way."""

    outputs: Mapping[str, Value]
    """The eight that speak of a result."""
    fault: StationFault | None
    """While it stands."""
    parts_at_once: int
    """Parts that may be in the station; with so many it is not ready."""

    @property
    def full(self) -> bool:
        """No further result can be kept."""

    def expect(self, seq: int, part_id: str, fired_ns: int, encoder: int) -> None:
        """This part was announced."""

    def add(self, seq: int, result: Result, *, refused: bool) -> None:
        """This part is decided; `refused`: its trigger came while the station was not ready."""

    def step(self, acknowledge: bool, encoder: int, now_ns: int) -> None:
        """Look at the PLC and the clock; changes `outputs`."""

    def next_trigger(self) -> None:
        """A part's edge."""

    def forgive(self) -> None:
        """The PLC has reset the fault."""

    def clear(self) -> None:
        """Forget what waits; `result_valid` falls."""


class _Shown(enum.Enum):
    EMPTY = enum.auto()
    VALID = enum.auto()
    TAKEN = enum.auto()


class Presented:
    """One result at a time: valid until acknowledged, or without acknowledge until the next trigger."""

    parts_at_once = 1

    def __init__(self, *, acknowledged: bool, timeout_ms: float, limit: int) -> None:
        """`acknowledged`: the PLC acknowledges, and each result waits for it, up to `limit` of them."""
        self.outputs = _NOTHING
        self.fault: StationFault | None = None
        self._acknowledged, self._timeout_ns, self._limit = acknowledged, round(timeout_ms * 1e6), limit
        self._waiting: deque[tuple[int, Result]] = deque()
        self._state = _Shown.EMPTY
        self._since_ns = 0
        self._blocked_ns = 0
        self._count = 0

    @property
    def full(self) -> bool:
        """True with as many results waiting, the one that is shown among them, as the station keeps."""
        return len(self._waiting) + (self._state is _Shown.VALID and self._acknowledged) >= self._limit

    def expect(self, seq: int, part_id: str, fired_ns: int, encoder: int) -> None:
        """Results come in the order of the triggers anyway."""

    def add(self, seq: int, result: Result, *, refused: bool) -> None:
        """Behind those that wait. A refused part's may find no room: the journal has it, and the PLC a gap in `result_count`."""
        self._count = (self._count + 1) % 65_536
        if not (refused and self.full):
            self._waiting.append((self._count, result))

    def step(self, acknowledge: bool, encoder: int, now_ns: int) -> None:
        """At most one move of the machine in `handshake`, so that the PLC sees every state."""
        if self._state is _Shown.VALID:
            self._since_ns = self._since_ns or now_ns
            if acknowledge:
                self._fall(_Shown.TAKEN)
                self.fault = None
            elif self._acknowledged and now_ns - self._since_ns > self._timeout_ns:
                self.fault = StationFault.ACKNOWLEDGE_TIMEOUT
            elif not self._acknowledged and self._waiting and now_ns - self._since_ns > _HOLD_NS:
                self._fall(_Shown.EMPTY)
        elif acknowledge and self._waiting:
            self._blocked_ns = self._blocked_ns or now_ns
            if now_ns - self._blocked_ns > self._timeout_ns:  # it never fell: the PLC cannot tell this result from the last
                self.fault = StationFault.ACKNOWLEDGE_TIMEOUT
        elif self._waiting:
            count, result = self._waiting.popleft()
            self.outputs = shown(result, count)
            self._state, self._since_ns, self._blocked_ns, self.fault = _Shown.VALID, now_ns, 0, None
        elif not acknowledge:
            self._state = _Shown.EMPTY

    def next_trigger(self) -> None:
        """Without acknowledge, the part's edge says that the result before was read."""
        if not self._acknowledged and self._state is _Shown.VALID:
            self._fall(_Shown.EMPTY)

    def forgive(self) -> None:
        """The result stays, and the PLC has as long again to acknowledge it: a reset takes no verdict away."""
        self.fault, self._blocked_ns, self._since_ns = None, 0, 0

    def clear(self) -> None:
        """Nothing is shown again after that: what was, is in the journal."""
        self._waiting.clear()
        self._fall(_Shown.EMPTY)
        self.fault, self._blocked_ns = None, 0

    def _fall(self, state: _Shown) -> None:
        self._state = state
        self.outputs = {**self.outputs, **_FALLEN}


@dataclass(slots=True)
class _Passing:
    part_id: str
    fired_ns: int
    encoder: int
    result: Result | None = None


class Pulsed:
    """Each part's verdict is a pulse when it passes the ejector: `reject` for whatever is not known to be good by then."""

    def __init__(self, *, width_ms: float, delay_ms: float | None, encoder_counts: int | None, modulus: int, limit: int) -> None:
        """Exactly one of `delay_ms` and `encoder_counts`; the encoder's count wraps round at `modulus`. Up to `limit` parts on the way."""
        self.outputs = _NOTHING
        self.fault: StationFault | None = None
        self.parts_at_once = limit
        self._width_ns = round(width_ms * 1e6)
        self._delay_ns = None if delay_ms is None else round(delay_ms * 1e6)
        self._counts, self._modulus = encoder_counts or 0, modulus
        self._way: dict[int, _Passing] = {}
        self._until_ns = 0
        self._count = 0

    @property
    def full(self) -> bool:
        """True with as many parts between trigger and ejector as the station keeps."""
        return len(self._way) >= self.parts_at_once

    def expect(self, seq: int, part_id: str, fired_ns: int, encoder: int) -> None:
        """The part is on its way."""
        self._way[seq] = _Passing(part_id, fired_ns, encoder)

    def add(self, seq: int, result: Result, *, refused: bool) -> None:
        """In time, or its part has been ejected already."""
        if seq in self._way:
            self._way[seq].result = result

    def next_due_ns(self, now_ns: int) -> int | None:
        """When, from `now_ns` on, the next pulse begins or the one that is shown ends; None when nothing will, or the encoder tells.

        What was due before is shown already, or waits for the end of what is.
        """
        due = [self._until_ns] if self.outputs["result_valid"] else []
        if self._delay_ns is not None:
            due += [p.fired_ns + self._delay_ns for p in self._way.values()]
        return min((ns for ns in due if ns >= now_ns), default=None)

    def step(self, acknowledge: bool, encoder: int, now_ns: int) -> None:
        """Ends the pulse that is over, or begins the one that is due: never both, so that the PLC sees `result_valid` low between two.

        Of two parts nearer than a pulse is wide, a bad one cuts the pulse before it short, a good one waits for a reject's end.
        """
        due = next((seq for seq, part in self._way.items() if self._passes(part, encoder, now_ns)), None)
        if self.outputs["result_valid"]:
            if now_ns >= self._until_ns or (due is not None and not (self.outputs["reject"] and self._is_good(due))):
                self.outputs = {**self.outputs, **_FALLEN}
            return
        if due is None:
            return
        part = self._way.pop(due)
        result = part.result
        if result is None:  # fail closed: whoever is not known to be good is ejected
            self.fault = StationFault.LATE_FOR_PULSE
            result = Result(part.part_id, Verdict.FAULT, 0.0, StationFault.LATE_FOR_PULSE)
        self._count = (self._count + 1) % 65_536
        out = shown(result, self._count)
        self.outputs = {**out, "reject": result.verdict is not Verdict.ACCEPT}
        self._until_ns = now_ns + self._width_ns

    def next_trigger(self) -> None:
        """Parts follow each other."""

    def forgive(self) -> None:
        """The late part is gone."""
        self.fault = None

    def clear(self) -> None:
        """The connection was lost: where the parts are by now, nobody can tell; that there were some, the PLC must hear."""
        self.fault = StationFault.PASSED_UNTOLD if self._way else None
        self._count = (self._count + len(self._way)) % 65_536
        self._way.clear()
        self.outputs = {**self.outputs, **_FALLEN}

    def _is_good(self, seq: int) -> bool:
        result = self._way[seq].result
        return result is not None and result.verdict is Verdict.ACCEPT

    def _passes(self, part: _Passing, encoder: int, now_ns: int) -> bool:
        if self._delay_ns is not None:
            return now_ns >= part.fired_ns + self._delay_ns
        moved = (encoder - part.encoder) % self._modulus
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
        width_ms=pulse.width_ms, delay_ms=pulse.delay_ms, encoder_counts=pulse.encoder_counts, modulus=modulus, limit=settings.results
    )
