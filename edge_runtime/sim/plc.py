"""A PLC that plays a line over any of the four protocols: announces parts, reads and acknowledges results, keeps the score."""

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal, Self

from edge_runtime import config as c
from edge_runtime.plc.port import TagServer
from edge_runtime.plc.signals import StationFault, tags_of
from edge_runtime.plc.tags import Tag, Value
from edge_runtime.records import Verdict
from edge_runtime.sim.ethernetip_server import EthernetipServer
from edge_runtime.sim.modbus_server import ModbusServer
from edge_runtime.sim.opcua_server import OpcuaServer
from edge_runtime.sim.s7_server import S7Server
from edge_runtime.sim.watch import Watch

_REQUESTS_BEFORE_START = 5
"""Without `ready`, the line starts when a station polls: what was announced to nobody would be a part without a verdict."""
_RECIPE_SEEN_S = 0.2
"""The station looks at the recipe less often than at the trigger: `ready` may stay high that long after a change."""
_RESET_S = 0.1
_ENCODER_HZ = 1000.0

_SERVERS: dict[type, Callable[[Any, Sequence[Tag]], TagServer]] = {
    c.ModbusTrigger: ModbusServer,
    c.OpcuaTrigger: OpcuaServer,
    c.S7Trigger: S7Server,
    c.EthernetipTrigger: EthernetipServer,
}


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
    """Of the parts on the way, the first."""
    began_ms: float | None
    """After the part's trigger was raised."""
    width_ms: float


class SimulatedPlc:
    """A PLC program, scanned in a thread of its own, over a server of the protocol that `settings` name.

    It announces a part when `ready` is high: part_id (and recipe) first, a scan later the trigger, which it holds until
    trigger_acknowledge; it reads each result when result_valid rises, and holds acknowledge until that falls. Signals that are not mapped
    it does without.
    """

    def __init__(
        self,
        settings: c.PlcTrigger,
        *,
        parts_per_minute: float = 60.0,
        count: int | None = None,
        first_part: int = 1,
        wait_for_result: bool = True,
        heed_ready: bool = True,
        result_timeout_ms: float = 1000.0,
        hold_ms: float = 20.0,
        scan_ms: float = 1.0,
        recipe_of: Callable[[int], int] | None = None,
        busy_parts: Collection[int] = (),
        acknowledges: Literal["always", "never", "stuck"] = "always",
        told: Callable[[PartResult], None] | None = None,
    ) -> None:
        """Prepare a line.

        Args:
            settings: the station's [trigger]: where to listen, and which address means what.
            parts_per_minute: the pace; a slow station slows the line down.
            count: parts to announce; None goes on for ever, 0 announces none (write the trigger through `server` then).
            first_part: number of the first part.
            wait_for_result: announce no part before the one before it has its result or is late.
            heed_ready: announce no part while `ready` is low; False keeps the pace, come what may.
            result_timeout_ms: after that the part counts as unanswered and the line goes on.
            hold_ms: without trigger_acknowledge, the trigger is high, and low again, for that long.
            scan_ms: from the end of one scan to the next.
            recipe_of: the recipe of a part, where the signal is mapped; None leaves it at 0, the station's own.
            busy_parts: these are announced at once after the part before them, which the station is still judging.
            acknowledges: "never" leaves results standing, "stuck" leaves acknowledge high for ever; may be set while it runs.
            told: called in the PLC's thread with each result, and with each part that got none in time.

        Raises:
            ConfigError: an address that the protocol does not have.
            MissingExtra: without the protocol's package.
        """
        inputs, outputs = tags_of(settings)
        self.server: TagServer = _SERVERS[type(settings)](settings, [*inputs, *outputs])
        """The PLC's memory."""
        self._settings = settings
        self._outputs = {t.name for t in outputs}
        self._names = [t.name for t in (*inputs, *outputs)]
        empty: dict[str, Value] = {t.name: "" if t.type == "text" else False if t.type == "bool" else 0 for t in inputs}
        self._written = empty
        self._wanted = empty | ({"enable": True} if "enable" in empty else {})
        self._pace_s = 60.0 / parts_per_minute
        self._parts = itertools.count(first_part) if count is None else iter(range(first_part, first_part + count))
        self._wait_for_result = wait_for_result and settings.pulse is None
        self._heed_ready = heed_ready
        self._timeout_s = result_timeout_ms / 1e3 + _way_s(settings.pulse)
        self._hold_s, self._scan_s = hold_ms / 1e3, scan_ms / 1e3
        self._recipe_of = recipe_of or (lambda part: 0)
        self._busy_parts = busy_parts
        self.acknowledges = acknowledges
        self._told_to = told or (lambda result: None)
        self.results: dict[int, PartResult] = {}
        """Part -> result, in the order announced; a part stands here from the moment of its trigger."""
        self.pulses: list[Pulse] = []
        """Of a line with [trigger.pulse], each when it has ended."""
        self._watch = Watch(settings)
        self._raised: dict[int, float] = {}
        self._open: dict[int, None] = {}
        """Parts without a result that may still come, in order."""
        self._awaited: deque[int] = deque()
        """Parts without a result that are not late."""
        self._now = 0.0
        self._told: Mapping[str, Value] = {}
        self._valid = False
        self._count: Value | None = None
        self._high: dict[str, tuple[float, int | None]] = {}
        self._reset_until = 0.0
        self._off_s: float | None = None
        self._up = False
        self._program = self._line()
        self._finished, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._bug: Exception | None = None

    @property
    def violations(self) -> list[str]:
        """What the station did that the handshake does not allow, a sentence each, in the order in which it was seen."""
        return self._watch.violations

    def __enter__(self) -> Self:
        """Listens when it returns. Raises TriggerError when it cannot."""
        self.server.__enter__()
        self._up = True
        self._thread = threading.Thread(target=self._run, name="simulated-plc", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Stops like a PLC that loses power: connections are cut."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._up:
            self._up = False
            self.server.__exit__(None, None, None)
        if self._bug is not None and exc is None:
            raise self._bug

    def wait_finished(self, timeout_s: float | None = None) -> bool:
        """True when all of `count` parts were announced and answered, or are late."""
        finished = self._finished.wait(timeout_s)
        if self._bug is not None:
            raise self._bug
        return finished

    def raised_at(self, part: int) -> float:
        """CLOCK_MONOTONIC seconds at which an announced part's trigger rose."""
        return self._raised[part]

    def power_off(self, seconds: float) -> None:
        """Soon: connections are cut and nobody answers; then it goes on where it was, its memory as it was, as with a battery."""
        self._off_s = seconds

    def reset_fault(self) -> None:
        """The operator's button: reset_fault is high for a while."""
        self._reset_until = time.monotonic() + _RESET_S

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                if self._off_s is not None:
                    self._power_cycle(self._off_s)
                else:
                    self._scan()
                self._stop.wait(self._scan_s)
        except Exception as e:  # raised again in `wait_finished` and `__exit__`
            self._bug = e
            self._finished.set()

    def _power_cycle(self, seconds: float) -> None:
        self._up = False
        self.server.__exit__(None, None, None)
        self._off_s = None
        if self._stop.wait(seconds):
            return
        self.server.__enter__()  # its memory is what it was
        self._up = True
        self._watch.forget()
        self._open.clear()  # the station drops what it had to say

    def _scan(self) -> None:
        """Inputs, program, outputs."""
        memory = self.server.get(self._names)
        self._now, self._told = time.monotonic(), {n: v for n, v in memory.items() if n in self._outputs}
        self._watch.scan(self._told, memory, self._now)
        self._read_result()
        if self._settings.pulse is not None:
            self._read_pulses()
        while self._awaited and (self._awaited[0] not in self._open or self._is_late(self._awaited[0])):
            part = self._awaited.popleft()
            if self.results[part].verdict is None:
                self._told_to(self.results[part])
        next(self._program, None)
        if "reset_fault" in self._wanted:
            self._wanted["reset_fault"] = self._now < self._reset_until
        if "encoder" in self._wanted:
            self._wanted["encoder"] = int(self._now * _ENCODER_HZ) % 2**31
        changed = {n: v for n, v in self._wanted.items() if v != self._written[n]}
        if changed:
            self.server.set(changed)
            self._written = dict(self._wanted)

    def _line(self) -> Iterator[None]:
        """The half of the program that announces parts; each `yield` ends a scan."""
        while not self._station_is_there():
            yield
        due = self._now
        for part in self._parts:
            if part not in self._busy_parts:
                while self._now < due:
                    yield
                due = max(due, self._now - self._pace_s) + self._pace_s
            yield from self._show(part)
            self.results[part] = PartResult(part)
            self._raised[part] = self._now
            self._open[part] = None
            self._awaited.append(part)
            self._wanted["trigger"] = True
            yield from self._until_acknowledged(True)
            self._wanted["trigger"] = False
            yield from self._until_acknowledged(False)
            while self._wait_for_result and part in self._awaited and part + 1 not in self._busy_parts:
                yield
        while self._awaited:
            yield
        self._finished.set()

    def _show(self, part: int) -> Iterator[None]:
        """part_id and recipe are written a scan before the trigger; a recipe that changes makes ready fall first."""
        if "part_id" in self._wanted:
            self._wanted["part_id"] = str(part) if isinstance(self._wanted["part_id"], str) else part
        recipe = self._recipe_of(part)
        if "recipe" in self._wanted and recipe != self._wanted["recipe"]:
            self._wanted["recipe"] = str(recipe) if isinstance(self._wanted["recipe"], str) else recipe
            changed, was_ready = self._now, bool(self._told.get("ready", False))
            while (self._told.get("ready") if was_ready else self._unknown_recipe) and self._now - changed < _RECIPE_SEEN_S:
                yield
        yield
        while self._heed_ready and part not in self._busy_parts and not self._may_announce():
            yield

    def _may_announce(self) -> bool:
        """The station is ready, or has no such recipe: that part gets its FAULT."""
        return bool(self._told.get("ready", True)) or self._unknown_recipe

    @property
    def _unknown_recipe(self) -> bool:
        return self._told.get("fault_code") == StationFault.UNKNOWN_RECIPE

    def _until_acknowledged(self, high: bool) -> Iterator[None]:
        """Hold the trigger as it is."""
        began = self._now
        yield
        if "trigger_acknowledge" in self._told:
            while bool(self._told["trigger_acknowledge"]) is not high and self._now - began < self._timeout_s:
                yield
        else:
            while self._now - began < self._hold_s:
                yield

    def _station_is_there(self) -> bool:
        return bool(self._told["ready"]) if "ready" in self._told else self.server.requests >= _REQUESTS_BEFORE_START

    def _read_result(self) -> None:
        told = self._told
        signals = ("result_valid",) if "result_valid" in told else ("accept", "reject", "fault")
        valid, count = any(told.get(n) for n in signals), told.get("result_count")
        if valid and (not self._valid or count != self._count):
            self._take(told)
        self._valid, self._count = valid, count
        if "acknowledge" in self._wanted:
            stuck = self.acknowledges == "stuck" and bool(self._wanted["acknowledge"])
            self._wanted["acknowledge"] = (valid or stuck) and self.acknowledges != "never"

    def _take(self, told: Mapping[str, Value]) -> None:
        named = told.get("result_part_id")
        first = next(iter(self._open), None)
        in_turn = named is None or self._settings.pulse is not None
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
            self._record(part, told)

    def _record(self, part: int, told: Mapping[str, Value]) -> None:
        verdict = _verdict(told)
        severity, count, code = told.get("severity"), told.get("result_count"), told.get("fault_code", 0)
        self.results[part] = replace(
            self.results[part], verdict=verdict, severity=None if severity is None or verdict is Verdict.FAULT else float(severity),
            latency_ms=(self._now - self._raised[part]) * 1e3, fault_code=int(code), count=None if count is None else int(count),
        )  # fmt: skip
        self._open.pop(part, None)
        self._told_to(self.results[part])

    def _read_pulses(self) -> None:
        names: tuple[Literal["accept", "reject"], ...] = ("accept", "reject")
        for name in names:
            high = bool(self._told.get(name))
            if high and name not in self._high:
                last = next((p for p in reversed(self.results) if self.results[p].verdict is not None), None)
                self._high[name] = (self._now, last)
            elif not high and name in self._high:
                began, part = self._high.pop(name)
                after = None if part is None else (began - self._raised[part]) * 1e3
                self.pulses.append(Pulse(name, part, after, (self._now - began) * 1e3))

    def _is_late(self, part: int) -> bool:
        return self._now - self._raised[part] > self._timeout_s


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


def _way_s(pulse: c.PulseSettings | None) -> float:
    """From the trigger to the pulse."""
    if pulse is None:
        return 0.0
    return (pulse.encoder_counts or 0) / _ENCODER_HZ + (pulse.delay_ms or 0.0) / 1e3


def run_sim_plc(
    settings: c.PlcTrigger,
    *,
    parts_per_minute: float = 30.0,
    count: int | None = None,
    wait_for_result: bool = True,
    result_timeout_ms: float = 1000.0,
    told: Callable[[PartResult], None] | None = None,
) -> tuple[dict[int, PartResult], list[str]]:
    """Play a line until `count` parts are through, or until Ctrl-C. Returns part -> result, and the violations.

    Raises TriggerError, ConfigError, MissingExtra.
    """
    plc = SimulatedPlc(
        settings, parts_per_minute=parts_per_minute, count=count, wait_for_result=wait_for_result,
        result_timeout_ms=result_timeout_ms, told=told,
    )  # fmt: skip
    with plc:
        try:
            while not plc.wait_finished(0.2):
                pass
        except KeyboardInterrupt:
            pass
    return plc.results, plc.violations
