"""The handshake's tables are whole, each of their moves is made by some walk, and the PLC sees what a state's name says."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime.plc.pulses import Pulsed
from edge_runtime.plc.results import Presented, Results
from edge_runtime.plc.transitions import TABLES, Machine, PulseState, ResultState, Table, TriggerState
from tests.unit.edge_runtime.plc.stepped import ACCEPT, FAULT, REJECT, Plc

WAYS: dict[str, Any] = {
    "acknowledge": lambda: Presented(acknowledged=True, timeout_ms=100, limit=3),
    "none": lambda: Presented(acknowledged=False, timeout_ms=100, limit=3),
    "pulse": lambda: Pulsed(width_ms=100, delay_ms=400, encoder_counts=None, modulus=65536, limit=8),
}
WHAT = [
    *["trigger"] * 6,
    *["decide"] * 6,
    *["acknowledge"] * 3,
    "look",
    "recipe",
    "prepared",
    "prepared",
    "fails",
    "enable",
    "reset_fault",
    "back",
]
STEPS = 300


@pytest.mark.parametrize("table", TABLES, ids=lambda t: t.title)
def test_a_table_that_leaves_an_event_out_or_says_it_twice_is_refused(table: Table[Any, Any]) -> None:
    states = type(table.states[0])
    assert set(Table(table.title, states, table.rows).moves) == set(itertools.product(table.states, table.events))
    for i, row in enumerate(table.rows):
        others = (*table.rows[:i], *table.rows[i + 1 :])
        if {e for r in others for e in r.events} == set(table.events):  # else the event is gone from all states
            with pytest.raises(ValueError, match="found it 0 times"):
                Table(table.title, states, others)
        with pytest.raises(ValueError, match="found it 2 times"):
            Table(table.title, states, (*table.rows, row))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[tuple[str, Any, Any]]]:
    """The moves that were made: table, state, event."""
    moves: set[tuple[str, Any, Any]] = set()
    on = Machine.on

    def noted(machine: Machine[Any, Any], event: Any) -> Any:
        moves.add((machine.table.title, machine.state, event))
        return on(machine, event)

    monkeypatch.setattr(Machine, "on", noted)
    return moves


def walk(results: Results, chance: random.Random) -> None:
    """Whatever a PLC and a station may do, in any order."""
    plc = Plc(results)
    waiting: list[int] = []
    for _ in range(STEPS):
        what, ms, seq = chance.choice(WHAT), chance.choice((2, 2, 2, 20, 40, 120)), plc.seq
        if what in ("trigger", "acknowledge", "enable", "reset_fault"):
            plc.poll(ms, **{what: not getattr(plc.inputs, what)})
        elif what == "recipe":
            plc.poll(ms, recipe=chance.choice(("", "1", "2")))
        elif what in ("prepared", "fails"):
            plc.handshake.prepared((plc.recipes or [""])[-1], what == "prepared")
        elif what == "back":
            plc.inputs = replace(plc.inputs, trigger=chance.random() < 0.5, recipe=chance.choice((plc.inputs.recipe, "2")))
            asked = plc.handshake.resume(plc.inputs, same=plc.inputs.trigger and chance.random() < 0.5)
            plc.recipes += [] if asked is None else [asked]
        elif what == "decide" and waiting:
            plc.decide(chance.choice((ACCEPT, ACCEPT, REJECT, FAULT)), waiting.pop(0))
        plc.poll(ms)
        waiting += range(seq + 1, plc.seq + 1)
        out, result, trigger = plc.handshake.outputs(), results._machine.state, plc.handshake._trigger.state  # type: ignore[attr-defined]
        assert out["result_valid"] is (result in (ResultState.VALID, PulseState.GOOD, PulseState.BAD))
        if isinstance(results, Pulsed):
            assert (out["accept"], out["reject"]) == (result is PulseState.GOOD, result is PulseState.BAD)
        assert out["trigger_acknowledge"] is (trigger is TriggerState.SEEN)
        assert plc.inputs.trigger is (trigger is not TriggerState.LOW)


@pytest.mark.slow
def test_every_move_of_every_table_is_made_and_outputs_are_as_the_state_says(made: set[tuple[str, Any, Any]]) -> None:
    @settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(sorted(WAYS)), st.integers(0, 2**32))
    def walks(way: str, seed: int) -> None:
        walk(WAYS[way](), random.Random(seed))

    walks()
    every = {(table.title, *move) for table in TABLES for move in table.moves}
    assert made - every == set()
    assert sorted(map(str, every - made)) == []
