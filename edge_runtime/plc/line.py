"""A PLC as a trigger line and a receiver of results: one thread that polls, steps the handshake and writes, over any tag port."""

import contextlib
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from edge_runtime.errors import ConfigError, SinkError, TriggerError
from edge_runtime.handoff import Reply, take
from edge_runtime.plc.comeback import Comeback
from edge_runtime.plc.handshake import Announced, Handshake, Inputs
from edge_runtime.plc.kinds import open_port
from edge_runtime.plc.outputs import Outputs
from edge_runtime.plc.part_age import PartAges
from edge_runtime.plc.polls import Polls
from edge_runtime.plc.port import PlcLost, TagPort
from edge_runtime.plc.pulses import Pulsed, results_of
from edge_runtime.plc.recipe_change import Prepared, RecipeChange
from edge_runtime.plc.results import Edge, Result
from edge_runtime.plc.settings import PlcConfig
from edge_runtime.plc.signals import tags_of
from edge_runtime.plc.tags import Value
from edge_runtime.protocols import ActuatorLine, StationLink
from edge_runtime.records import Cause, Decision, Picture, Trigger, Verdict

_log = logging.getLogger(__name__)
_BACKOFF_S = (0.1, 5.0)
_RECIPE_S = 0.05
"""How often a recipe that is not read with the trigger is looked at."""
_STEP_S = 0.01
"""How often the handshake looks at the clock while the PLC shows nothing new."""
_WAITED_WITHIN_S = 1.0
"""Nobody has asked for a trigger for so long: the station does not work."""
_CLOSE_TIMEOUT_S = 2.0
_UNKNOWN = "The PLC's trigger was high when the station connected: when the part was announced is not known, and it may have gone."
_HELD_S = 1.0
"""A connection that did not hold for so long is no reason to try the next one at once."""


@dataclass(slots=True)
class _Told:
    """A decision on its way to the PLC."""

    decision: Decision
    written: Reply[None] = field(default_factory=Reply)


@dataclass(frozen=True, slots=True)
class _Rise:
    """A trigger's edge whose part is not announced yet: the PLC has not told all that belongs to it."""

    seen_ns: int
    since_ns: int
    """When it was not there yet."""
    until_ns: int
    """For so long the rest is waited for."""
    refused: str = ""
    """Why the part cannot be judged, if that is known already."""
    encoder_since: int = 0
    encoder: int = 0
    """Before it was there, and when it was seen."""


class PlcLine(ActuatorLine):
    """The port belongs to the thread `plc`; `wait` and `put` only hand over."""

    answer_timeout_ms: float
    tallies: dict[str, int]

    def __init__(self, settings: PlcConfig, first_seq: int, port: TagPort | None = None) -> None:
        """Triggers count from `first_seq`. Raises ConfigError for tags that cannot be, MissingExtra without the protocol's package."""
        self._settings = settings
        self._seq = first_seq
        inputs, outputs = tags_of(settings)
        self._port = port or open_port(settings, [*inputs, *outputs])
        self._polls = Polls(self._port, settings, inputs)
        self._known = self._polls.known
        self._has_busy = any(t.name == "busy" for t in outputs)
        self._results = results_of(settings, inputs)
        self._handshake = Handshake(self._results, heartbeat_ms=settings.heartbeat_ms, has_reset=settings.inputs.reset_fault is not None)
        self._out = Outputs(self._port, [t.name for t in outputs], self._handshake, self._results)
        self.answer_timeout_ms = settings.timeout_ms
        self._timeout_s = settings.timeout_ms / 1e3
        self._poll_s = settings.poll_ms / 1e3
        self._rise: _Rise | None = None
        self._encoders = 0, 0
        """As they were known before the last poll and before this one: a poll may read the encoder long after it has read the trigger."""
        self._comeback = Comeback()
        self._owed: tuple[int, Result] | None = None
        """What the PLC has waited for since a kill: told when the station works, which writes it down."""
        self._untold: list[Decision] = []
        """Made while the PLC was lost."""
        self._inbox: queue.SimpleQueue[_Told | Prepared | Reply[None] | None] = queue.SimpleQueue()
        self._triggers: queue.SimpleQueue[Trigger] = queue.SimpleQueue()
        self._alive: Callable[[], bool] = lambda: True
        self._announced: Callable[[Trigger], None] = lambda trigger: None
        self._recipes = RecipeChange(self._inbox.put)
        self._ages = PartAges()
        self._recipe_due = self._poll_due = self._step_due = self._retry_at = 0.0
        self._pulse_due = math.inf
        self._retry_pause = _BACKOFF_S[0]
        self._connected_at = 0.0
        self._waited_at = 0.0
        self._receives_from = first_seq
        """The PLC knows nothing of the parts before this one: their results are not written."""
        self._ending = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._bug: Exception | None = None
        self.lost: str | None = None
        """A sentence while the PLC does not answer: what is decided meanwhile reaches nobody who acts on it."""
        self.tallies = {"reconnects": 0}

    @property
    def problem(self) -> str | None:
        """A sentence for the operator while the PLC is lost, has no value for an input, or the handshake stands in a fault."""
        return self.lost or self._handshake.problem or self._known.problem

    def attach(self, station: StationLink) -> None:
        """A recipe that the PLC asks for is prepared in a thread of its own; what comes after its deadline is told as a FAULT; while the
        station's threads do not come round, the heartbeat stands still and ready is low."""
        self._recipes.prepare, self._ages.deadlines_ns, self._alive = station.prepare, station.deadlines_ns, station.alive
        self._announced, self._out.delivered = station.announced, station.delivered

    def left(self, parts: Mapping[str, tuple[int, bool]]) -> None:
        """As in ActuatorLine: one that the PLC shows by its name, and waits for, is told FAULT (cause 8). Why: deploy/decisions/0044."""
        self._comeback.left = parts

    def __enter__(self) -> Self:
        """Connect, see every tag, clear the outputs. Raises TriggerError, TagError or ConfigError: a wrong one is found here."""
        self._stop.clear()
        self._ending = False
        try:
            self._connect()
        except PlcLost as e:
            self._port.close()
            raise TriggerError(f"{self._port.where}: {e}. Check [trigger] and whether the PLC is on and reachable") from e
        except BaseException:
            self._port.close()
            raise
        self._recipes.open()
        self._thread = threading.Thread(target=self._run, name="plc", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """The PLC sees ready, busy and result_valid fall."""
        self._stop.set()
        self._inbox.put(None)
        if self._thread is not None:
            self._thread.join(_CLOSE_TIMEOUT_S + self._timeout_s)  # a driver that hangs is left behind
        self._thread = None
        self._recipes.close()

    def wait(self, timeout_s: float) -> Trigger | None:
        """The next part. What stands high when the station starts, or the PLC comes back, is one, unless it is the last one still."""
        self._waited_at = time.monotonic()
        if self._bug is not None:
            raise self._bug
        try:
            return take(self._triggers, timeout_s)
        except queue.Empty:
            return None

    def end(self) -> bool:
        """From now on a trigger means nothing. Returns when the PLC sees `ready` low, or cannot; `wait` still gives what came before."""
        ended: Reply[None] = Reply()
        self._inbox.put(ended)
        with contextlib.suppress(TimeoutError, PlcLost):
            ended.result(self._timeout_s)
        return True

    def unreachable(self, trigger: Trigger) -> str | None:
        """Why the PLC will get no result for this part; None when it should."""
        if self.lost is None and trigger.seq < self._receives_from:
            return f"{self._port.where}: was lost since the part was announced"
        return self.lost

    def put(self, decision: Decision, pictures: tuple[Picture, ...]) -> None:
        """Returns when the result is in the PLC, or in the queue behind one that is not acknowledged; waits `timeout_ms` at most.

        Raises SinkError: the PLC gets no result for this part.
        """
        part = _named(decision)
        told = _Told(decision)
        if self.lost is not None:  # do not wait for the thread that tries to reconnect
            self._inbox.put(told)
            raise SinkError(f"{self.lost}; {part}, was not written")
        self._inbox.put(told)
        try:
            told.written.result(self._timeout_s)
        except TimeoutError:
            raise SinkError(f"{self._port.where}: does not answer; {part}, may not have been written") from None
        except PlcLost as e:
            raise SinkError(f"{self._port.where}: {e}; {part}, may not have been written") from e

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    self._cycle()
                except PlcLost as e:
                    self._lose(e)
            self._clear_outputs()
        except Exception as e:  # raised again in `wait`: the station ends, and says so
            self._bug = e
            self.lost = f"{self._port.where}: internal error"
        finally:
            self._refuse_waiting()
            self._port.close()

    def _cycle(self) -> None:
        """Wait for whatever comes first: a decision, the next poll of the PLC, the next try to reach it."""
        due = self._retry_at if self.lost is not None else self._next_look()
        wait_s = due - time.monotonic()
        try:
            message = take(self._inbox, wait_s)
        except queue.Empty:
            message = None
        if isinstance(message, _Told):
            self._tell(message)
        elif isinstance(message, Reply):
            self._ending = True
            if self.lost is None:
                self._step(time.monotonic_ns())
                self._out.write()
            message.give(None)
        elif isinstance(message, Prepared):
            self._handshake.prepared(message.recipe, message.problem is None)
            self._unless_lost(self._out.write)
        elif self.lost is not None:
            if time.monotonic() >= self._retry_at and not self._stop.is_set():
                self._connect()
        else:
            self._look()

    def _next_look(self) -> float:
        return min(self._poll_due, self._pulse_due)

    def _look(self) -> None:
        began_ns = time.monotonic_ns()
        often = not self._port.pushes or self._rise is not None
        self._poll_due = began_ns / 1e9 + (self._poll_s if often else _RECIPE_S)
        self._encoders = self._encoders[1], int(self._known.values.get("encoder", 0))
        snapshots = self._port.poll(self._polls.polled)
        happened_s = self._port.happened_s or [math.inf] * len(snapshots)
        for snapshot, at_s in zip(snapshots, happened_s, strict=True):
            self._see(snapshot, self._polls.polled, at_s)
        if not snapshots:
            self._see({}, ())
        if (why := self._known.lost(time.monotonic())) is not None:
            raise PlcLost(why)
        if not self._known.absent("trigger"):
            self._ages.polled(began_ns)

    def _see(self, snapshot: Mapping[str, Value], asked: Sequence[str], happened_s: float = math.inf) -> None:
        """Read the rest, step, announce, write: so that the PLC sees each state that its own changes lead to.

        An edge that was seen is a part, also where the PLC is lost before it has told the part's name, or has none to tell.
        """
        now_ns, known = time.monotonic_ns(), self._known
        if not (self._out.moves or self._rise) and now_ns / 1e9 < self._step_due and known.brings_nothing(snapshot, asked):
            return
        rises = bool(snapshot.get("trigger")) and not known.values["trigger"]
        known.take(snapshot, asked, self._port.missing, now_ns / 1e9)
        if rises:
            if self._rise is not None:
                self._announce_risen()
            since_ns = round(min(self._ages.not_before(now_ns, self._port.pushes), happened_s * 1e9))
            until_ns = now_ns + self._ages.patience_ns(self._timeout_s)
            self._rise = _Rise(now_ns, since_ns, until_ns, "", self._encoders[0], int(known.values.get("encoder", 0)))
            if "part_id" in self._polls.late:
                known.values["part_id"] = ""  # what stands there is the last part's
        if self._rise is not None or ("recipe" in self._polls.late and now_ns / 1e9 >= self._recipe_due):
            self._recipe_due = now_ns / 1e9 + _RECIPE_S
            self._unless_lost(self._polls.read_late)
        if self._rise is not None and not self._lacks_something(self._rise):
            self._announce_risen()
            self._unless_lost(self._out.write)
        self._step(now_ns)
        self._unless_lost(self._out.write)

    def _lacks_something(self, rise: _Rise) -> bool:
        """Something that belongs to the part is not known yet, which the PLC may tell at the next poll; or nobody takes parts yet."""
        if not self._waited_at:
            return True
        late = not self._known.values["trigger"] or self.lost is not None or time.monotonic_ns() >= rise.until_ns
        return not late and bool(self._known.absent("part_id", "recipe"))

    def _unless_lost(self, talk: Callable[[], None]) -> None:
        if self.lost is None:
            try:
                talk()
            except PlcLost as e:
                self._lose(e)

    def _announce_risen(self) -> None:
        rise, self._rise = self._rise, None
        self._step(time.monotonic_ns(), rise)

    def _step(self, now_ns: int, rise: _Rise | None = None) -> None:
        inputs = self._inputs() if rise is None else replace(self._inputs(), trigger=True)
        if self._owed is not None and self._waited_at:
            self._handshake.owe(*self._owed, now_ns)
            self._owed = None
        step = self._handshake.step(inputs, now_ns, self._works, self._ages.polled_ns)
        self._recipes.ask(step.recipe)
        if self._waited_at:
            self._recipes.begin()
        if (part := step.announced) is not None:
            self._announce(part, rise or _Rise(now_ns, now_ns, now_ns, "", inputs.encoder, inputs.encoder), now_ns)
        pulse_ns = self._results.next_due_ns(now_ns) if isinstance(self._results, Pulsed) else None
        self._pulse_due = math.inf if pulse_ns is None else pulse_ns / 1e9  # of the part that was announced just now, too
        self._step_due = min(now_ns / 1e9 + _STEP_S, self._pulse_due)

    def _announce(self, part: Announced, rise: _Rise, now_ns: int) -> None:
        refused = rise.refused or part.refused or self._ages.too_old(now_ns - rise.since_ns)
        if not refused and (lacking := self._known.absent("recipe")):
            refused = f"The PLC had no value for {lacking[0]}: by which recipe the part is to be judged is not known."
        if lacking := self._known.absent("part_id"):
            _log.warning("%s: had no value for %s when part seq %d was announced", self._port.where, lacking[0], self._seq)
        edge = Edge(rise.since_ns, rise.seen_ns, rise.encoder_since, rise.encoder)
        self._handshake.announce(self._seq, replace(part, refused=refused), edge)
        self._ages.announced(self._seq, rise.since_ns)
        trigger = Trigger(self._seq, rise.seen_ns, part.part_id, part.recipe, refused, rise.since_ns)
        self._announced(trigger)
        self._comeback.last = part.part_id
        self._triggers.put(trigger)
        self._seq += 1

    def _tell(self, told: _Told) -> None:
        if self.lost is not None:
            self._untold.append(told.decision)
            return told.written.fail(PlcLost("was lost"))
        d, now_ns = told.decision, time.monotonic_ns()
        since_ns = self._ages.decided(d)
        result = self._ages.result(d, since_ns).at(now_ns)
        if not self._handshake.result(d.seq, result):
            return told.written.fail(PlcLost("was lost since the part was announced"))
        self._out.expired = False
        try:
            self._step(now_ns)
            self._out.write()
        except PlcLost as e:
            told.written.fail(e)
            raise
        if self._out.expired or result.verdict is not d.verdict:
            age_ms = (now_ns - since_ns) / 1e6
            return told.written.fail(SinkError(f"{self._port.where}: {_named(d)}, was {age_ms:.0f} ms old: the PLC was told FAULT"))
        return told.written.give(None)

    def _connect(self) -> None:
        try:
            self._port.connect(lambda: self._inbox.put(None))
            connected_ns = time.monotonic_ns()
            self._polls.begin()
            asked = self._resume(connected_ns)
            self._out.forget()
            self._out.write()
        except (TriggerError, ConfigError) as e:
            if self._thread is None:
                raise
            raise PlcLost(str(e)) from e  # it came back as another one: say so, go on trying
        self._recipes.ask(asked)
        if self.lost is not None:
            self.tallies["reconnects"] += 1
            _log.warning("%s: connected again", self._port.where)
        self.lost, self._connected_at = None, time.monotonic()
        self._poll_due = self._recipe_due = 0.0

    def _resume(self, now_ns: int) -> str | None:
        """Go on with the part over which the trigger is still high, where its name says so; else what is high is another part, of which
        nobody knows more than when the trigger was last seen low. The recipe that the PLC asks for, if it is to be prepared."""
        inputs = Inputs.of(self._known.values) if self._rise is None else self._inputs()
        pulsed = isinstance(self._results, Pulsed)
        same = not pulsed and self._comeback.goes_on(inputs, seen=self._handshake.seen)
        if not pulsed and (seq := self._comeback.waits_since_a_kill(inputs, self._left_busy)) is not None:
            self._owed = seq, Result(inputs.part_id, Verdict.FAULT, 0.0, int(Cause.ENDED))
        asked = self._handshake.resume(inputs, same=same)
        if same:
            for decision in self._untold:
                self._handshake.result(decision.seq, self._ages.result(decision, self._ages.decided(decision)).at(now_ns))
        else:
            self._receives_from = self._seq  # before `lost` says that all is well
            if inputs.trigger and not pulsed:
                since_ns = self._ages.polled_ns
                until_ns = now_ns + self._ages.patience_ns(self._timeout_s)
                self._rise = _Rise(now_ns, since_ns or now_ns, until_ns, "" if since_ns else _UNKNOWN)
        self._untold.clear()
        self._comeback.left = {}
        self._ages.connected(now_ns, goes_on=same)
        return asked

    def _left_busy(self) -> bool:
        return self._has_busy and bool(self._port.read(["busy"]).get("busy"))

    def _lose(self, why: PlcLost) -> None:
        self._port.close()
        self._out.report(f"{why}: what was written may not have arrived")
        message = f"{self._port.where}: {why}; reconnecting"
        if self.lost != message:  # also when it fails for another reason than before
            _log.warning("%s", message)
        if self.lost is None and time.monotonic() - self._connected_at >= _HELD_S:
            self._retry_pause = _BACKOFF_S[0]
        self.lost = message
        if self._rise is not None and time.monotonic_ns() >= self._rise.until_ns:
            self._announce_risen()
        self._retry_at = time.monotonic() + self._retry_pause
        self._retry_pause = min(self._retry_pause * 2, _BACKOFF_S[1])

    def _clear_outputs(self) -> None:
        """What the PLC reads when the station has ended: everything low."""
        if self.lost is None:
            try:
                self._handshake.resume(Inputs(enable=False))
                self._handshake.step(Inputs(enable=False), time.monotonic_ns(), alive=False)
                last = self._handshake.outputs()
                self._out.write({n: False if isinstance(v, bool) else v for n, v in last.items()} | {"fault_code": 0})
            except PlcLost:
                pass  # it ends anyway

    def _refuse_waiting(self) -> None:
        while True:
            try:
                message = self._inbox.get_nowait()
            except queue.Empty:
                return
            if isinstance(message, _Told):
                message.written.fail(PlcLost("the station ends"))

    @property
    def _works(self) -> bool:
        return time.monotonic() - self._waited_at < _WAITED_WITHIN_S and self._alive()

    def _inputs(self) -> Inputs:
        inputs = Inputs.of(self._known.values)
        if self._known.absent("part_id"):
            inputs = replace(inputs, part_id="")  # what is known is an earlier part's
        if self._rise is not None:
            inputs = replace(inputs, trigger=False)
        return replace(inputs, enable=False) if self._ending else inputs


def _named(decision: Decision) -> str:
    return f"the result of part {decision.part_id or '(no id)'}, seq {decision.seq}"
