"""THE handshake with a PLC: a state machine with no I/O and no clock of its own. Inputs and the time go in, outputs and parts come out.

The words are those of `signals.py`. Three machines run side by side, each a table of `transitions`, drawn in deploy/plc/README.md: of the
trigger, of the result that is shown (`results.py`), of the recipe. What ties them together:

    READY = trigger seen low and enable and not busy and fewer than `results` results waiting and no latched fault and the recipe
            prepared and the station alive

One result a part, in the order of the triggers. A signal that is not mapped is as if the PLC never used it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edge_runtime.plc.pulses import Pulsed
from edge_runtime.plc.results import Edge, Result, Results
from edge_runtime.plc.signals import StationFault
from edge_runtime.plc.tags import Value
from edge_runtime.plc.transitions import RECIPE, TRIGGER, Do, Machine, RecipeEvent, RecipeState, TriggerEvent, TriggerState

_STANDS_NS = 1_000_000_000
"""A fault that has no end of its own, where the PLC cannot reset it."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the PLC says, as read at one moment."""

    trigger: bool = False
    acknowledge: bool = False
    reset_fault: bool = False
    enable: bool = True
    part_id: str = ""
    recipe: str = ""
    """As the station file's [recipes] names it; empty for the station's own."""
    encoder: int = 0

    @classmethod
    def of(cls, values: Mapping[str, Value]) -> "Inputs":
        """From the tags' values by name; what a PLC does not have is as if it never used it."""
        return cls(
            trigger=bool(values.get("trigger")), acknowledge=bool(values.get("acknowledge")),
            reset_fault=bool(values.get("reset_fault")), enable=bool(values.get("enable", True)),
            part_id=_text(values.get("part_id", "")), recipe=_recipe_key(values.get("recipe", "")), encoder=int(values.get("encoder", 0)),
        )  # fmt: skip


def _text(value: Value) -> str:
    """A part's name: numbers as they are written."""
    if isinstance(value, str):
        return value
    return str(int(value)) if math.isfinite(value) else ""


def _recipe_key(value: Value) -> str:
    """0 is what a register holds that nobody has written: the station's own recipe."""
    return "" if value == 0 else _text(value)


@dataclass(frozen=True, slots=True)
class Announced:
    """A trigger's edge."""

    part_id: str
    recipe: str
    refused: str
    """Why the part cannot be judged; empty when it can."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one step brought."""

    announced: Announced | None = None
    recipe: str | None = None
    """The station shall prepare this one, and say `prepared`."""


@dataclass(frozen=True, slots=True)
class _Owed:
    part_id: str
    since_ns: int


class Handshake:
    """Walks the tables. Not thread-safe: one thread steps it."""

    def __init__(self, results: Results, *, heartbeat_ms: float, has_reset: bool) -> None:
        """`results`: how results are shown to the PLC. `has_reset`: reset_fault is mapped; without it a fault ends with its cause."""
        self._results = results
        self._heartbeat_ns = round(heartbeat_ms * 1e6)
        self._has_reset = has_reset
        self._trigger = Machine(TRIGGER, TriggerState.HELD)  # until the first poll shows it low
        self._reset_high = True
        self._pulsed = isinstance(results, Pulsed)
        self._resumed = False
        self._owed: _Owed | None = None
        self._in_flight: dict[int, bool] = {}
        self._recipe = ""
        self._recipes = Machine(RECIPE, RecipeState.KNOWN)
        self._latched: StationFault | None = None
        self._stands_until_ns = 0
        self._overrun = False
        self._heartbeat = False
        self._beat_ns = 0
        self._enabled = True
        self._alive = False

    @property
    def problem(self) -> str | None:
        """A sentence for the operator while the station's own fault stands."""
        match self._latched:
            case StationFault.ACKNOWLEDGE_TIMEOUT:
                return "The PLC did not acknowledge a result in time; the line waits for its reset_fault."
            case StationFault.UNKNOWN_RECIPE:
                return f"The PLC asks for recipe {self._recipe}, which this station cannot run."
            case StationFault.LATE_FOR_PULSE:
                return "A verdict came after its part had passed the ejector; the part was ejected."
            case StationFault.PASSED_UNTOLD:
                return "Parts passed the ejector without their pulse: the PLC was lost meanwhile, or the station stood still."
        return None

    @property
    def ready(self) -> bool:
        """A trigger now will be judged."""
        return self._trigger.state is TriggerState.LOW and self._may_judge  # before it was seen low, its next rise is no edge

    @property
    def _may_judge(self) -> bool:
        busy = sum(self._in_flight.values()) >= self._results.parts_at_once
        free = not busy and not self._results.full and self._owed is None
        return self._alive and self._enabled and free and self._prepared and self._latched is None

    @property
    def _prepared(self) -> bool:
        return self._recipes.state is RecipeState.KNOWN

    def resume(self, inputs: Inputs, *, same: bool = False) -> str | None:
        """After connecting; the recipe to prepare, if any.

        `same`: trigger is high over the part that was announced last, which goes on as if nothing had been. Else what was in flight has no
        receiver any more, and a trigger that is high is a part of its own, which the next step announces.
        """
        self._reset_high, self._enabled = True, inputs.enable
        high = inputs.trigger and inputs.enable
        if inputs.trigger and not inputs.enable:
            self._trigger.on(TriggerEvent.DISABLED)
        elif not high:
            self._trigger.on(TriggerEvent.BACK_LOW)
        elif self._pulsed:
            self._trigger.on(TriggerEvent.BACK_PASSING)
        else:
            self._trigger.on(TriggerEvent.BACK_SAME if same else TriggerEvent.BACK_HIGH)
        if not same:
            self._in_flight.clear()
            self._owed = None
            self._results.clear(passing=high and self._pulsed and self._resumed)
        self._resumed = True
        return self._asked(inputs.recipe, RecipeEvent.BACK)

    @property
    def seen(self) -> bool:
        """The trigger that is high was announced, and is acknowledged."""
        return self._trigger.state is TriggerState.SEEN

    def owe(self, seq: int, result: Result, now_ns: int) -> None:
        """Show the result of a part that the PLC has waited for since before this process began; ready is low until it is acknowledged. It
        is taken back when the PLC turns to another part, or does not take it in time."""
        self._owed = _Owed(result.part_id, now_ns)
        self._results.add(seq, result, refused=False)

    def announce(self, seq: int, part: Announced, edge: Edge) -> None:
        """The part that the last step announced is `seq`."""
        self._in_flight[seq] = not part.refused
        self._results.expect(seq, part.part_id, edge)

    def result(self, seq: int, result: Result) -> bool:
        """A part is decided: it is shown in one of the next steps. False when it was announced before the connection was lost."""
        taken = self._in_flight.pop(seq, None)
        if taken is None:
            return False
        self._results.add(seq, result, refused=not taken)
        return True

    def prepared(self, recipe: str, works: bool) -> None:
        """The station has prepared the recipe, or cannot."""
        if recipe != self._recipe:
            return  # another was asked for meanwhile
        match self._recipes.on(RecipeEvent.PREPARED if works else RecipeEvent.FAILS):
            case Do.UNKNOWN:
                self._latched = StationFault.UNKNOWN_RECIPE
            case Do.RECOVER:
                self._latched = None

    def step(self, inputs: Inputs, now_ns: int, alive: bool, polled_ns: int = 0) -> Step:
        """One poll of the PLC. `alive`: somebody waits for triggers and the station's threads come round."""
        self._alive, self._enabled = alive, inputs.enable
        if inputs.reset_fault and not self._reset_high:
            self._reset()
        self._reset_high = inputs.reset_fault
        asked = self._asked(inputs.recipe)
        self._results.step(inputs.acknowledge, inputs.encoder, now_ns, polled_ns or now_ns)
        self._look_at_owed(inputs, now_ns)
        if self._results.fault is not None:
            self._latched = self._latched or self._results.fault
        elif not self._has_reset and self._latched is not StationFault.UNKNOWN_RECIPE:
            self._latched = None
        if not self._has_reset and self._latched is StationFault.LATE_FOR_PULSE and not self._results.outputs["result_valid"]:
            self._results.forgive()
        if not self._has_reset and self._latched is StationFault.PASSED_UNTOLD:
            self._stands_until_ns = self._stands_until_ns or now_ns + _STANDS_NS
            if now_ns >= self._stands_until_ns:
                self._results.forgive()
                self._stands_until_ns = 0
        announced = self._look_at_trigger(inputs)
        if alive and now_ns - self._beat_ns >= self._heartbeat_ns:
            self._heartbeat, self._beat_ns = not self._heartbeat, now_ns
        return Step(announced, asked)

    def expire(self, now_ns: int) -> bool:
        """Whether the result that is about to be shown is too late by now: `outputs` says FAULT then."""
        return self._results.expire(now_ns)

    def outputs(self) -> dict[str, Value]:
        """What the PLC should read now: all of them, by name, in the order of `signals.OUTPUTS`."""
        shown: Mapping[str, Value] = self._results.outputs
        fault_code = int(self._latched) if self._latched is not None else shown["fault_code"]
        return {
            "result_part_id": shown["result_part_id"], "result_count": shown["result_count"], "severity": shown["severity"],
            "fault_code": fault_code, "accept": shown["accept"], "reject": shown["reject"],
            "fault": bool(shown["fault"]) or self._latched is not None, "trigger_acknowledge": self._trigger.state is TriggerState.SEEN,
            "busy": any(self._in_flight.values()), "ready": self.ready, "overrun": self._overrun, "heartbeat": self._heartbeat,
            "result_valid": shown["result_valid"],
        }  # fmt: skip

    def _look_at_trigger(self, inputs: Inputs) -> Announced | None:
        if not inputs.trigger:
            event = TriggerEvent.LOW
        elif not inputs.enable:
            event = TriggerEvent.DISABLED
        else:
            event = TriggerEvent.HIGH if self._may_judge else TriggerEvent.NOT_READY
        do = self._trigger.on(event)
        if do not in (Do.ANNOUNCE, Do.REFUSE):
            return None
        refused = self._why_not() if do is Do.REFUSE else ""
        self._overrun = self._overrun or do is Do.REFUSE
        self._results.next_trigger()
        return Announced(inputs.part_id, self._recipe, refused)

    def _look_at_owed(self, inputs: Inputs, now_ns: int) -> None:
        if self._owed is None:
            return
        turned_away = inputs.part_id not in ("", self._owed.part_id) or (inputs.trigger and self._trigger.state is TriggerState.LOW)
        if turned_away or self._results.fault is not None:
            self._results.clear()
        if self._results.idle or (not self._results.acknowledged and now_ns - self._owed.since_ns >= _STANDS_NS):
            self._owed = None

    def _why_not(self) -> str:
        if self._latched is not None:
            return f"Triggered while the station had a fault ({int(self._latched)}) that the PLC has not reset."
        if not self._prepared:
            return f"Triggered while recipe {self._recipe or '(the own one)'} was being prepared."
        if self._results.full:
            return "Triggered while as many results as the station keeps were waiting for their acknowledge."
        if not self._alive or self._owed is not None:
            return "Triggered while the station was not ready."
        return "Overrun: triggered while the part before it was being judged."

    def _asked(self, recipe: str, otherwise: RecipeEvent | None = None) -> str | None:
        """The recipe to prepare, if any. `otherwise`: what has happened if it is the same as before."""
        event = RecipeEvent.CHANGES if recipe != self._recipe else otherwise
        if event is None:
            return None
        self._recipe = recipe
        do = self._recipes.on(event)
        if do is Do.ASK_ANEW:
            self._latched = None
        return None if do is None else recipe

    def _reset(self) -> None:
        self._results.forgive()
        self._overrun = False
        if self._latched is not StationFault.UNKNOWN_RECIPE:
            self._latched = None
