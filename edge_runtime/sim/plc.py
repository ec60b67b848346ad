"""A PLC that plays a line over any protocol: announces parts, reads and acknowledges results, keeps the score."""

import importlib
import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from edge_runtime.config import files as c
from edge_runtime.errors import ConfigError
from edge_runtime.plc.kinds import kind_of
from edge_runtime.plc.port import TagServer
from edge_runtime.plc.signals import StationFault, tags_of
from edge_runtime.plc.tags import Tag, Value
from edge_runtime.sim.score import PartResult, Pulse, Score

_REQUESTS_BEFORE_START = 5
"""Without `ready`, the line starts when a station polls: what was announced to nobody would be a part without a verdict."""
_RECIPE_SEEN_S = 0.2
"""The station looks at the recipe less often than at the trigger: `ready` may stay high that long after a change."""
_RESET_S = 0.1
_SCAN_S = 1e-3
"""From the end of one scan to the next."""
_ENCODER_HZ = 1000.0


def server_of(settings: c.PlcTrigger, tags: Sequence[Tag]) -> TagServer:
    """The PLC's side of the protocol, not listening yet. Raises ConfigError for one that nothing plays; what the server raises."""
    named = kind_of(settings).server
    if named is None:
        raise ConfigError(f'trigger.kind: expected a PLC that can be played, found "{settings.__struct_config__.tag}"')
    module, _, name = named.partition(":")
    new: Callable[[Any, Sequence[Tag]], TagServer] = getattr(importlib.import_module(module), name)
    return new(settings, tags)


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
        result_timeout_ms: float = 1000.0,
        hold_ms: float = 20.0,
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
            result_timeout_ms: after that the part counts as unanswered and the line goes on.
            hold_ms: without trigger_acknowledge, the trigger is high, and low again, for that long.
            recipe_of: the recipe of a part, where the signal is mapped; None leaves it at 0, the station's own.
            busy_parts: these are announced at once after the part before them, which the station is still judging.
            acknowledges: "never" leaves results standing, "stuck" leaves acknowledge high for ever; may be set while it runs.
            told: called in the PLC's thread with each result, and with each part that got none in time.

        Raises:
            ConfigError: an address that the protocol does not have.
            MissingExtra: without the protocol's package.
        """
        inputs, outputs = tags_of(settings)
        self.server = server_of(settings, [*inputs, *outputs])
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
        self._hold_s = hold_ms / 1e3
        self._recipe_of = recipe_of or (lambda part: 0)
        self._busy_parts = busy_parts
        self.acknowledges = acknowledges
        self._timeout_s = result_timeout_ms / 1e3 + _way_s(settings.pulse)
        self._score = Score(settings, self._timeout_s, told or (lambda result: None))
        self._now = 0.0
        self._told: Mapping[str, Value] = {}
        self._reset_until = 0.0
        self._off_s: float | None = None
        self._up = False
        self._program = self._line()
        self._finished, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._bug: Exception | None = None

    @property
    def results(self) -> dict[int, PartResult]:
        """Part -> result, in the order announced; a part stands here from the moment of its trigger."""
        return self._score.results

    @property
    def pulses(self) -> list[Pulse]:
        """The ejector's pulses at a line with [trigger.pulse], each when it has ended."""
        return self._score.pulses

    @property
    def violations(self) -> list[str]:
        """What the station did that the handshake does not allow, a sentence each, in the order in which it was seen."""
        return self._score.violations

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
        return self._score.raised[part]

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
                self._stop.wait(_SCAN_S)
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
        self._score.power_was_off()

    def _scan(self) -> None:
        """Inputs, program, outputs."""
        memory = self.server.get(self._names)
        self._now, self._told = time.monotonic(), {n: v for n, v in memory.items() if n in self._outputs}
        self._score.read(self._told, memory, self._now)
        if "acknowledge" in self._wanted:
            stuck = self.acknowledges == "stuck" and bool(self._wanted["acknowledge"])
            self._wanted["acknowledge"] = (self._score.valid or stuck) and self.acknowledges != "never"
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
            self._score.announce(part, self._now)
            self._wanted["trigger"] = True
            yield from self._until_acknowledged(True)
            self._wanted["trigger"] = False
            yield from self._until_acknowledged(False)
            while self._wait_for_result and self._score.awaits(part) and part + 1 not in self._busy_parts:
                yield
        while self._score.awaits():
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
        while part not in self._busy_parts and not self._may_announce():
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


def _way_s(pulse: c.PulseConfig | None) -> float:
    """From the trigger to the pulse."""
    if pulse is None:
        return 0.0
    return (pulse.encoder_counts or 0) / _ENCODER_HZ + (pulse.delay_ms or 0.0) / 1e3


def run_sim_plc(
    settings: c.PlcTrigger,
    *,
    parts_per_minute: float = 30.0,
    count: int | None = None,
    told: Callable[[PartResult], None] | None = None,
    started: Callable[[str], None] = lambda where: None,
) -> tuple[dict[int, PartResult], list[str]]:
    """Play a line until `count` parts are through, or until Ctrl-C. Returns part -> result, and the violations.

    `started` is called with what it listens on, once the station can connect.

    Raises TriggerError, ConfigError, MissingExtra.
    """
    with SimulatedPlc(settings, parts_per_minute=parts_per_minute, count=count, told=told) as plc:
        started(plc.server.where)
        try:
            while not plc.wait_finished(0.2):
                pass
        except KeyboardInterrupt:
            pass
    return plc.results, plc.violations


__all__ = ["PartResult", "Pulse", "SimulatedPlc", "run_sim_plc"]
