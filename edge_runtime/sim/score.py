"""What a simulated PLC makes of the station's outputs: each part's result, the ejector's pulses, and what it has to complain of."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from edge_runtime.config.files import PlcTrigger
from edge_runtime.plc.tags import Value
from edge_runtime.records import Verdict
from edge_runtime.sim.watch import Watch


@dataclass(frozen=True, slots=True)
class PartResult:
    """What the PLC knows of one part."""

    part: int
    verdict: Verdict | None = None
    """None: no result came (yet)."""
    severity: float | None = None
    """None without a verdict and for a FAULT, and where the signal is not mapped."""
    latency_ms: float | None = None
    """From raising the trigger to seeing result_valid."""
    fault_code: int = 0
    count: int | None = None
    """The result_count that came with it."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """`accept` or `reject` was high for a while, on a line with [trigger.pulse]."""

    signal: Literal["accept", "reject"]
    part: int | None
    """The first of the parts on the way."""
    began_ms: float | None
    """After the part's trigger was raised."""
    width_ms: float


class Score:
    """Reads one scan after the other. For the PLC's thread; `results` and `pulses` may be looked at from others."""

    def __init__(self, settings: PlcTrigger, timeout_s: float, told: Callable[[PartResult], None]) -> None:
        """`timeout_s`: without a result for so long a part is late; `told` is called with each result and each part that is late."""
        self._pulsed = settings.pulse is not None
        self._timeout_s, self._told_to = timeout_s, told
        self._watch = Watch(settings)
        self.results: dict[int, PartResult] = {}
        self.pulses: list[Pulse] = []
        self.raised: dict[int, float] = {}
        """CLOCK_MONOTONIC seconds at which each part's trigger rose."""
        self.valid = False
        """A result stands there."""
        self._open: dict[int, None] = {}
        """Parts without a result that may still come, in order."""
        self._awaited: deque[int] = deque()
        """Parts without a result that are not late."""
        self._count: Value | None = None
        self._high: dict[str, tuple[float, int | None]] = {}

    @property
    def violations(self) -> list[str]:
        """A sentence each, in the order in which they were seen."""
        return self._watch.violations

    def announce(self, part: int, now: float) -> None:
        """Its trigger rises with this scan."""
        self.results[part], self.raised[part] = PartResult(part), now
        self._open[part] = None
        self._awaited.append(part)

    def awaits(self, part: int | None = None) -> bool:
        """This part, or any, may still get its result in time."""
        return bool(self._awaited) if part is None else part in self._awaited

    def power_was_off(self) -> None:
        """The station drops what it had to say to a PLC that is gone."""
        self._watch.forget()
        self._open.clear()

    def read(self, told: Mapping[str, Value], memory: Mapping[str, Value], now: float) -> None:
        """One scan: the station's outputs, and the whole memory."""
        self._watch.scan(told, memory, now)
        signals = ("result_valid",) if "result_valid" in told else ("accept", "reject", "fault")
        valid, count = any(told.get(n) for n in signals), told.get("result_count")
        if valid and (not self.valid or count != self._count):
            self._take(told, now)
        self.valid, self._count = valid, count
        if self._pulsed:
            self._read_pulses(told, now)
        while self._awaited and (self._awaited[0] not in self._open or now - self.raised[self._awaited[0]] > self._timeout_s):
            part = self._awaited.popleft()
            if self.results[part].verdict is None:
                self._told_to(self.results[part])

    def _take(self, told: Mapping[str, Value], now: float) -> None:
        named = told.get("result_part_id")
        first = next(iter(self._open), None)
        in_turn = named is None or self._pulsed
        part = first if in_turn else _number(named)
        shown = f"part {named if part is None else part}"
        self._watch.result(told, shown)
        if part is None or part not in self.results:
            self.violations.append(f"a result came for {shown}, which was not announced")
        elif self.results[part].verdict is not None:
            self.violations.append(f"a result came twice for {shown}")
        else:
            if in_turn and named and _number(named) != part:
                self.violations.append(f"a result came for part {named}, expected one for {shown}")
            self._record(part, told, now)

    def _record(self, part: int, told: Mapping[str, Value], now: float) -> None:
        verdict = _verdict(told)
        severity, count, code = told.get("severity"), told.get("result_count"), told.get("fault_code", 0)
        self.results[part] = replace(
            self.results[part], verdict=verdict, severity=None if severity is None or verdict is Verdict.FAULT else float(severity),
            latency_ms=(now - self.raised[part]) * 1e3, fault_code=int(code), count=None if count is None else int(count),
        )  # fmt: skip
        self._open.pop(part, None)
        self._told_to(self.results[part])

    def _read_pulses(self, told: Mapping[str, Value], now: float) -> None:
        names: tuple[Literal["accept", "reject"], ...] = ("accept", "reject")
        for name in names:
            high = bool(told.get(name))
            if high and name not in self._high:
                last = next((p for p in reversed(self.results) if self.results[p].verdict is not None), None)
                self._high[name] = (now, last)
            elif not high and name in self._high:
                began, part = self._high.pop(name)
                after = None if part is None else (began - self.raised[part]) * 1e3
                self.pulses.append(Pulse(name, part, after, (now - began) * 1e3))


def _verdict(told: Mapping[str, Value]) -> Verdict:
    """FAULT unless one of the other two is clear; `fault` beside them may be the station's own, which `fault_code` tells."""
    accept, reject, fault = (bool(told.get(n)) for n in ("accept", "reject", "fault"))
    if fault and int(told.get("fault_code", 0)) <= 100:
        return Verdict.FAULT
    if accept is not reject:
        return Verdict.ACCEPT if accept else Verdict.REJECT
    return Verdict.REJECT if not accept and not fault and "accept" in told and "reject" not in told else Verdict.FAULT


def _number(value: Value | None) -> int | None:
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdigit() else None
