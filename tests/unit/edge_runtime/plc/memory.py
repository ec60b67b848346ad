"""A PLC that is a dictionary behind a tag port, and a line that runs on it."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from edge_runtime.config.files import PlcInputs, PlcOutputs
from edge_runtime.plc.line import PlcLine
from edge_runtime.plc.modbus import ModbusTriggerConfig
from edge_runtime.plc.port import PlcLost, TooLate
from edge_runtime.plc.signals import INPUTS, OUTPUTS, Signal
from edge_runtime.plc.tags import Value
from edge_runtime.records import Cause, Decision, Trigger, Verdict
from tests.support.decisions import decision_with
from tests.support.waiting import until


def _map(signals: Mapping[str, Signal], at: int) -> dict[str, str]:
    return {name: f"{'coil' if s.type == 'bool' else 'holding'}:{at + 10 * n}" for n, (name, s) in enumerate(signals.items())}


WHOLE = PlcInputs(**_map(INPUTS, 0))
ALL = PlcOutputs(**_map(OUTPUTS, 500))


class Memory:
    """A tag port whose PLC is `tags`: `writes` remembers what arrived together, `off` and `hangs_s` make it fail."""

    where = "PLC in memory"

    def __init__(self, pushes: bool = False, trips: int = 2, ordered: bool = False) -> None:
        self.pushes, self.ordered = pushes, ordered
        self._trips = trips
        self.tags: dict[str, Value] = {name: False if s.type == "bool" else 0 for name, s in (INPUTS | OUTPUTS).items()} | {"enable": True}
        self.writes: list[dict[str, Value]] = []
        self.written_ns: list[int] = []
        """When each of them came."""
        self.reads: list[list[str]] = []
        self.off = False
        self.missing: dict[str, str] = {}
        """Names that it has no value for, and why."""
        self.goes_off_at = ""
        """Reading this tag is the first thing that it does not answer any more."""
        self.busy = False
        """It takes nothing that must be there in time."""
        self.hangs_s = self.slow_numbers_s = 0.0
        self.breaks: Exception | None = None
        self.pushed: list[dict[str, Value]] = []
        self.happened_s: list[float] = []
        self._changed: Callable[[], None] = lambda: None

    def _answer(self) -> None:
        time.sleep(self.hangs_s)
        if self.breaks is not None:
            raise self.breaks
        if self.off:
            raise PlcLost("does not answer")

    def connect(self, changed: Callable[[], None]) -> None:
        self._answer()
        self._changed = changed

    def close(self) -> None:
        pass

    def read(self, names: Sequence[str]) -> dict[str, Value]:
        self.off = self.off or self.goes_off_at in names
        self._answer()
        self.reads.append(list(names))
        return {n: self.tags[n] for n in names if n not in self.missing}

    def poll(self, names: Sequence[str]) -> Sequence[dict[str, Value]]:
        if not self.pushes:
            return [self.read(names)]
        self._answer()
        snapshots, self.pushed = self.pushed, []
        self.happened_s = self.happened_s[: len(snapshots)]
        return [{n: snapshot[n] for n in names if n in snapshot} for snapshot in snapshots]

    def write(self, values: Mapping[str, Value], within_s: float | None = None) -> None:
        self._answer()
        if self.busy and within_s is not None:
            time.sleep(within_s)
            raise TooLate
        if any(not isinstance(v, bool) for v in values.values()):
            time.sleep(self.slow_numbers_s)
        self.written_ns.append(time.monotonic_ns())
        self.writes.append(dict(values))
        self.tags |= values

    def came_ms(self, since_ns: int, **values: Value) -> float:
        """How long after `since_ns` the first write came that had all of these: by the PLC's clock, whoever looks late."""
        return next(
            (ns - since_ns) / 1e6
            for ns, w in zip(self.written_ns, self.writes, strict=True)
            if ns > since_ns and w.items() >= values.items()
        )

    def trips(self, names: Sequence[str]) -> int:
        return 1 if all(INPUTS[n].type == "bool" for n in names) else self._trips

    def push(self, *changes: dict[str, Value]) -> None:
        for change in changes:
            self.tags |= change
            self.pushed.append({n: v for n, v in self.tags.items() if n not in self.missing})
        self._changed()


def settings(**more: object) -> ModbusTriggerConfig:
    return ModbusTriggerConfig(**{"inputs": WHOLE, "outputs": ALL, "timeout_ms": 3000, "heartbeat_ms": 20} | more)  # type: ignore[arg-type]


@contextmanager
def running(plc: Memory, first_seq: int = 1, **more: object) -> Iterator[PlcLine]:
    """A line whose station waits for triggers all the time; `line.parts` collects them."""
    line = PlcLine(settings(**more), first_seq, plc)
    parts: list[Trigger] = []
    line.parts = parts  # type: ignore[attr-defined]
    over = threading.Event()

    def take() -> None:
        while not over.is_set():
            if (trigger := line.wait(0.01)) is not None:
                parts.append(trigger)

    with line:
        thread = threading.Thread(target=take)
        thread.start()
        try:
            until(lambda: plc.tags["ready"] or plc.tags["fault"] or not plc.tags["enable"])
            yield line
        finally:
            over.set()
            thread.join()


def decision(seq: int, verdict: Verdict = Verdict.ACCEPT, part_id: str = "17", cause: Cause = Cause.NONE) -> Decision:
    return decision_with(
        station="s",
        recipe="r",
        bundle_id="b",
        seq=seq,
        part_id=part_id,
        verdict=verdict,
        reason="",
        score=1.0,
        threshold=2.0,
        severity=0.5,
        cause=cause,
    )


def announce(plc: Memory, line: PlcLine, part: int = 17) -> Trigger:
    """Raise the trigger until it is acknowledged, as a PLC does."""
    before = len(line.parts)  # type: ignore[attr-defined]
    plc.tags["part_id"] = part
    plc.tags["trigger"] = True
    until(lambda: plc.tags["trigger_acknowledge"])
    plc.tags["trigger"] = False
    until(lambda: not plc.tags["trigger_acknowledge"])
    until(lambda: len(line.parts) > before)  # type: ignore[attr-defined]
    return line.parts[-1]  # type: ignore[attr-defined,no-any-return]
