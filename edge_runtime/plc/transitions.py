"""The handshake as data: its machines' states, the events that each poll of the PLC brings, and what each event does in each state.

`handshake` and `results` walk these tables; the drawing in deploy/plc/README.md is made of them. The words are those of `signals.py`.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar


class Do(enum.Enum):
    """What a move does beside changing the state."""

    ANNOUNCE = "the part is announced; busy, trigger_acknowledge rise"
    REFUSE = "the part is announced as refused: its FAULT comes in its turn; overrun, trigger_acknowledge rise"
    SEE = "trigger_acknowledge rises"
    UNSEE = "trigger_acknowledge falls"
    SHOW = "result and numbers are written; then result_valid rises"
    FALL = "result_valid, accept, reject, fault fall"
    ACCUSE = "fault rises, fault_code 101"
    FORGIVE = "fault falls; the PLC has as long again"
    DROP = "what waits is dropped: it is in the journal"
    FORGET = "parts on their way are forgotten; if there were any, or trigger is high again, fault rises, fault_code 104"
    ASK = "the station is asked to prepare it; ready falls"
    ASK_ANEW = "fault falls; the station is asked to prepare it"
    READY = "ready rises"
    RECOVER = "fault falls; ready rises"
    UNKNOWN = "fault rises, fault_code 102; ready falls"


class TriggerState(enum.Enum):
    """Where the trigger stands."""

    LOW = "a rise is a part"
    SEEN = "trigger_acknowledge is high"
    HELD = "high, but no part"


class TriggerEvent(enum.Enum):
    """What a poll of the PLC shows of the trigger."""

    LOW = "trigger low"
    HIGH = "trigger high while ready is high"
    NOT_READY = "trigger high while ready is low"
    DISABLED = "trigger high while enable is low"
    """The PLC itself has switched triggers off."""
    BACK_LOW = "connected with trigger low"
    BACK_HIGH = "connected with trigger high"
    """When that was an edge, nobody can tell: the poll after it announces the part."""
    BACK_SAME = "connected with trigger high over the part that was announced before"
    BACK_PASSING = "connected with trigger high where pulses eject"
    """Where the part is by now, nobody can tell."""


class ResultState(enum.Enum):
    """Where the result stands that the PLC reads."""

    EMPTY = "none is shown"
    VALID = "result_valid is high"
    TAKEN = "acknowledge is still high"


class ResultEvent(enum.Enum):
    """What a poll of the PLC and the clock brings to the result that is shown."""

    ACKNOWLEDGE = "acknowledge high"
    WAITS = "acknowledge low and a result waits"
    NOTHING = "acknowledge low and none waits"
    LATE = "acknowledge has not moved within acknowledge_timeout_ms"
    """Its rise over a result, or its fall where the next one waits for it."""
    FOLLOWED = "the next trigger or, after 50 ms, the next result"
    """Without acknowledge: the PLC has read what stands there."""
    RESET = "reset_fault rises"
    BACK = "connected"


class PulseState(enum.Enum):
    """Where the ejector's pulse stands."""

    NONE = "no pulse"
    GOOD = "accept is high"
    BAD = "reject is high"


class PulseEvent(enum.Enum):
    """Who passes the ejector at a poll of the clock or the encoder, and whether the last pulse has had its width by then."""

    RUNS = "nobody passes within width_ms"
    OVER = "width_ms are over"
    GOOD_WITHIN = "a good part passes within width_ms"
    GOOD_AFTER = "a good part passes after width_ms"
    BAD = "a part passes that is not known to be good"
    BACK = "connected"


class RecipeState(enum.Enum):
    """Where the recipe stands that the PLC asks for."""

    KNOWN = "prepared"
    ASKED = "being prepared"
    UNKNOWN = "cannot be run"


class RecipeEvent(enum.Enum):
    """What becomes of the recipe."""

    CHANGES = "recipe changes"
    BACK = "connected with the same recipe"
    PREPARED = "prepared"
    FAILS = "there is none of that number"


S = TypeVar("S", bound=enum.Enum)
E = TypeVar("E", bound=enum.Enum)


@dataclass(frozen=True, slots=True)
class Row(Generic[S, E]):
    """A row of a state machine: in `state`, each of `events` leads to the state `to`, and has `do` done."""

    state: S
    events: tuple[E, ...]
    to: S
    do: Do | None = None


class Table(Generic[S, E]):
    """A state machine: what each event does in each state, each pair once."""

    def __init__(self, title: str, states: type[S], rows: Sequence[Row[S, E]]) -> None:
        """Raises ValueError for an event that a state has twice or not at all."""
        self.title, self.rows = title, tuple(rows)
        self.events = tuple(dict.fromkeys(event for row in rows for event in row.events))
        self.states = tuple(s for s in states if any(s in (row.state, row.to) for row in rows))
        self.moves = {(row.state, event): row for row in rows for event in row.events}
        said = [(row.state, event) for row in rows for event in row.events]
        for state in self.states:
            for event in self.events:
                if said.count((state, event)) != 1:
                    raise ValueError(f"{title}: expected {event} in {state} once, found it {said.count((state, event))} times")


class Machine(Generic[S, E]):
    """Where one stands in a table."""

    def __init__(self, table: Table[S, E], state: S) -> None:
        self.table, self.state = table, state

    def on(self, event: E) -> Do | None:
        """Take the event; what is to be done."""
        row = self.table.moves[self.state, event]
        self.state = row.to
        return row.do


def _trigger() -> Table[TriggerState, TriggerEvent]:
    s, e = TriggerState, TriggerEvent
    return Table(
        "Trigger", s,
        [
            Row(s.LOW, (e.HIGH,), s.SEEN, Do.ANNOUNCE),
            Row(s.LOW, (e.NOT_READY,), s.SEEN, Do.REFUSE),
            Row(s.LOW, (e.DISABLED, e.BACK_PASSING), s.HELD),
            Row(s.LOW, (e.LOW, e.BACK_LOW, e.BACK_HIGH), s.LOW),
            Row(s.LOW, (e.BACK_SAME,), s.SEEN, Do.SEE),
            Row(s.SEEN, (e.LOW, e.BACK_LOW, e.BACK_HIGH), s.LOW, Do.UNSEE),
            Row(s.SEEN, (e.BACK_PASSING,), s.HELD, Do.UNSEE),
            Row(s.SEEN, (e.HIGH, e.NOT_READY, e.DISABLED, e.BACK_SAME), s.SEEN),
            Row(s.HELD, (e.LOW, e.BACK_LOW, e.BACK_HIGH), s.LOW),
            Row(s.HELD, (e.BACK_SAME,), s.SEEN, Do.SEE),
            Row(s.HELD, (e.HIGH, e.NOT_READY, e.DISABLED, e.BACK_PASSING), s.HELD),
        ],
    )  # fmt: skip


def _result() -> Table[ResultState, ResultEvent]:
    s, e = ResultState, ResultEvent
    return Table(
        "Result, with acknowledge", s,
        [
            Row(s.EMPTY, (e.WAITS,), s.VALID, Do.SHOW),
            Row(s.EMPTY, (e.ACKNOWLEDGE, e.NOTHING), s.EMPTY),
            Row(s.EMPTY, (e.LATE,), s.EMPTY, Do.ACCUSE),
            Row(s.EMPTY, (e.RESET,), s.EMPTY, Do.FORGIVE),
            Row(s.EMPTY, (e.BACK,), s.EMPTY, Do.DROP),
            Row(s.VALID, (e.ACKNOWLEDGE,), s.TAKEN, Do.FALL),
            Row(s.VALID, (e.WAITS, e.NOTHING), s.VALID),
            Row(s.VALID, (e.LATE,), s.VALID, Do.ACCUSE),
            Row(s.VALID, (e.RESET,), s.VALID, Do.FORGIVE),
            Row(s.VALID, (e.BACK,), s.EMPTY, Do.DROP),
            Row(s.TAKEN, (e.NOTHING,), s.EMPTY),
            Row(s.TAKEN, (e.WAITS,), s.VALID, Do.SHOW),
            Row(s.TAKEN, (e.ACKNOWLEDGE,), s.TAKEN),
            Row(s.TAKEN, (e.LATE,), s.TAKEN, Do.ACCUSE),
            Row(s.TAKEN, (e.RESET,), s.TAKEN, Do.FORGIVE),
            Row(s.TAKEN, (e.BACK,), s.EMPTY, Do.DROP),
        ],
    )  # fmt: skip


def _result_alone() -> Table[ResultState, ResultEvent]:
    s, e = ResultState, ResultEvent
    return Table(
        "Result, without acknowledge", s,
        [
            Row(s.EMPTY, (e.WAITS,), s.VALID, Do.SHOW),
            Row(s.EMPTY, (e.NOTHING, e.FOLLOWED), s.EMPTY),
            Row(s.EMPTY, (e.RESET,), s.EMPTY, Do.FORGIVE),
            Row(s.EMPTY, (e.BACK,), s.EMPTY, Do.DROP),
            Row(s.VALID, (e.FOLLOWED,), s.EMPTY, Do.FALL),
            Row(s.VALID, (e.WAITS, e.NOTHING), s.VALID),
            Row(s.VALID, (e.RESET,), s.VALID, Do.FORGIVE),
            Row(s.VALID, (e.BACK,), s.EMPTY, Do.DROP),
        ],
    )  # fmt: skip


def _pulse() -> Table[PulseState, PulseEvent]:
    s, e = PulseState, PulseEvent
    return Table(
        "Pulse", s,
        [
            Row(s.NONE, (e.GOOD_WITHIN, e.GOOD_AFTER), s.GOOD, Do.SHOW),
            Row(s.NONE, (e.BAD,), s.BAD, Do.SHOW),
            Row(s.NONE, (e.RUNS, e.OVER), s.NONE),
            Row(s.NONE, (e.BACK,), s.NONE, Do.FORGET),
            Row(s.GOOD, (e.OVER, e.GOOD_WITHIN, e.GOOD_AFTER, e.BAD), s.NONE, Do.FALL),
            Row(s.GOOD, (e.RUNS,), s.GOOD),
            Row(s.GOOD, (e.BACK,), s.NONE, Do.FORGET),
            Row(s.BAD, (e.OVER, e.GOOD_AFTER, e.BAD), s.NONE, Do.FALL),
            Row(s.BAD, (e.RUNS, e.GOOD_WITHIN), s.BAD),  # a good part waits for a reject's end
            Row(s.BAD, (e.BACK,), s.NONE, Do.FORGET),
        ],
    )  # fmt: skip


def _recipe() -> Table[RecipeState, RecipeEvent]:
    s, e = RecipeState, RecipeEvent
    return Table(
        "Recipe", s,
        [
            Row(s.KNOWN, (e.CHANGES,), s.ASKED, Do.ASK),
            Row(s.KNOWN, (e.FAILS,), s.UNKNOWN, Do.UNKNOWN),
            Row(s.KNOWN, (e.BACK, e.PREPARED), s.KNOWN),
            Row(s.ASKED, (e.PREPARED,), s.KNOWN, Do.READY),
            Row(s.ASKED, (e.FAILS,), s.UNKNOWN, Do.UNKNOWN),
            Row(s.ASKED, (e.CHANGES, e.BACK), s.ASKED, Do.ASK),
            Row(s.UNKNOWN, (e.CHANGES, e.BACK), s.ASKED, Do.ASK_ANEW),
            Row(s.UNKNOWN, (e.PREPARED,), s.KNOWN, Do.RECOVER),
            Row(s.UNKNOWN, (e.FAILS,), s.UNKNOWN),
        ],
    )  # fmt: skip


TRIGGER = _trigger()
RESULT = _result()
"""Each result waits for its acknowledge."""
RESULT_ALONE = _result_alone()
"""No acknowledge is mapped: a result stands until the next one."""
PULSE = _pulse()
"""For lines that eject by time or way."""
RECIPE = _recipe()
TABLES = (TRIGGER, RESULT, RESULT_ALONE, PULSE, RECIPE)
