"""The handshake's table, row by row: what the PLC does, and what it sees then."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.plc.handshake import Announced, Handshake, Inputs
from edge_runtime.plc.pulses import Pulsed
from edge_runtime.plc.results import Presented, Result
from edge_runtime.plc.signals import OUTPUTS, StationFault
from edge_runtime.records import Cause, Verdict
from tests.unit.edge_runtime.plc.stepped import ACCEPT, FAULT, MS, REJECT, Plc


def test_one_part_goes_through_the_states_that_a_plc_programmer_knows() -> None:
    plc = Plc()
    assert plc.high() == {"ready"}
    plc.poll(trigger=True, part_id="17")
    assert plc.high() == {"trigger_acknowledge", "busy"}
    assert plc.announced == [Announced("17", "", "")]
    plc.poll(trigger=False)
    assert plc.high() == {"busy"}
    assert plc.decide(ACCEPT), "taken"
    out = plc.poll()
    assert plc.high() == {"ready", "result_valid", "accept"}
    assert (out["result_part_id"], out["result_count"], out["severity"], out["fault_code"]) == ("17", 1, 0.4, 0)
    plc.poll(acknowledge=True)
    assert plc.high() == {"ready"}
    plc.poll(acknowledge=False)
    assert plc.high() == {"ready"}


def test_outputs_come_in_the_order_in_which_they_are_written() -> None:
    assert list(Plc().handshake.outputs()) == list(OUTPUTS)


@pytest.mark.parametrize(
    ("result", "high", "code"), [(ACCEPT, {"accept"}, 0), (REJECT, {"reject"}, 0), (FAULT, {"fault"}, 1)], ids=["accept", "reject", "fault"]
)
def test_exactly_one_of_accept_reject_and_fault_stands_with_result_valid(result: Result, high: set[str], code: int) -> None:
    plc = Plc()
    plc.poll(trigger=True)
    plc.decide(result)
    out = plc.poll()
    assert plc.high() & {"accept", "reject", "fault", "result_valid"} == high | {"result_valid"}
    assert out["fault_code"] == code


def test_a_trigger_may_be_held_as_long_as_the_plc_likes_and_is_one_part() -> None:
    plc = Plc()
    for _ in range(50):
        plc.poll(trigger=True)
    plc.decide(ACCEPT)
    plc.poll()
    assert "trigger_acknowledge" in plc.high()
    assert len(plc.announced) == 1


def test_a_trigger_while_busy_is_an_overrun_with_its_own_fault_in_its_turn() -> None:
    plc = Plc()
    plc.poll(trigger=True, part_id="17")
    plc.poll(trigger=False)
    plc.poll(trigger=True, part_id="18")
    assert plc.high() == {"trigger_acknowledge", "busy", "overrun"}
    assert [a.part_id for a in plc.announced] == ["17", "18"]
    assert not plc.announced[0].refused
    assert plc.announced[1].refused == "Overrun: triggered while the part before it was being judged."
    plc.decide(ACCEPT, 1)
    plc.decide(FAULT, 2)
    assert plc.poll()["result_part_id"] == "17"
    plc.poll(acknowledge=True)
    assert plc.poll(acknowledge=False)["result_part_id"] == "19"
    assert {"fault", "result_valid", "overrun"} <= plc.high()
    plc.poll(reset_fault=True)
    assert "overrun" not in plc.high()
    assert "result_valid" in plc.high(), "reset_fault takes no result away that may still be acknowledged"


def test_results_wait_for_their_acknowledge_and_the_eighth_makes_the_station_not_ready() -> None:
    plc = Plc()
    for n in range(8):
        assert plc.handshake.ready, n
        plc.poll(trigger=True, part_id=str(n))
        plc.decide(replace(ACCEPT, part_id=str(n)))
        plc.poll(trigger=False)
    assert "ready" not in plc.high()
    plc.poll(trigger=True, part_id="8")
    full = "Triggered while as many results as the station keeps were waiting for their acknowledge."
    assert plc.announced[-1].refused == full
    plc.decide(FAULT)
    plc.poll(trigger=False)
    seen = []
    for _ in range(10):
        if plc.handshake.outputs()["result_valid"]:
            seen.append((plc.handshake.outputs()["result_part_id"], plc.handshake.outputs()["result_count"]))
        plc.poll(acknowledge=True)
        plc.poll(acknowledge=False)
    assert seen == [(str(n), n + 1) for n in range(8)], "in order, each once; the ninth found no room and is in the journal alone"
    assert "ready" in plc.high()


def test_without_acknowledge_in_time_the_station_has_a_fault_until_it_is_reset() -> None:
    plc = Plc()
    plc.poll(trigger=True)
    plc.decide(ACCEPT)
    plc.poll(trigger=False)
    assert plc.poll(ms=990)["fault"] is False
    out = plc.poll(ms=20)
    assert (out["fault"], out["fault_code"]) == (True, StationFault.ACKNOWLEDGE_TIMEOUT)
    assert "ready" not in plc.high()
    assert {"result_valid", "accept"} <= plc.high()
    plc.poll(trigger=True)
    assert "had a fault (101)" in plc.announced[-1].refused
    plc.decide(FAULT)
    plc.poll(trigger=False, reset_fault=True)
    assert {"ready", "result_valid", "accept"} <= plc.high(), "a reset takes no result away"
    plc.poll(ms=990, reset_fault=False)
    assert "fault" not in plc.high(), "the PLC has as long again"
    plc.poll(ms=20)
    assert "fault" in plc.high()
    plc.poll(acknowledge=True)
    assert "fault" in plc.high(), "a late acknowledge takes the result, not the fault"
    plc.poll(acknowledge=False, reset_fault=True)
    assert plc.handshake.outputs()["fault_code"] == 1, "the refused part's own"


def test_without_reset_fault_the_fault_ends_with_the_acknowledge() -> None:
    plc = Plc(has_reset=False)
    plc.poll(trigger=True)
    plc.decide(ACCEPT)
    plc.poll()
    assert plc.poll(ms=1010)["fault_code"] == StationFault.ACKNOWLEDGE_TIMEOUT
    plc.poll(acknowledge=True)
    assert plc.poll(acknowledge=False, trigger=False)["fault_code"] == 0
    assert plc.high() == {"ready"}


def test_an_acknowledge_that_never_falls_is_a_fault_when_the_next_result_waits() -> None:
    plc = Plc(inputs=Inputs(acknowledge=True))
    plc.poll(trigger=True)
    plc.decide(ACCEPT)
    plc.poll()
    assert "result_valid" not in plc.high()
    assert plc.poll(ms=1010)["fault_code"] == StationFault.ACKNOWLEDGE_TIMEOUT


def test_without_acknowledge_result_valid_falls_at_the_next_trigger() -> None:
    plc = Plc(results=Presented(acknowledged=False, timeout_ms=1000, limit=8))
    plc.poll(trigger=True)
    plc.decide(ACCEPT)
    plc.poll(trigger=False)
    assert "result_valid" in plc.high()
    plc.poll(ms=60_000)
    assert "result_valid" in plc.high()
    plc.poll(trigger=True)
    assert plc.high() == {"trigger_acknowledge", "busy"}
    plc.decide(REJECT)
    plc.poll(trigger=False)
    assert {"result_valid", "reject"} <= plc.high()


def test_without_acknowledge_two_results_at_once_are_both_to_be_seen() -> None:
    plc = Plc(results=Presented(acknowledged=False, timeout_ms=1000, limit=8))
    plc.poll(trigger=True)
    plc.poll(trigger=False)
    plc.poll(trigger=True)
    plc.decide(ACCEPT, 1)
    plc.decide(FAULT, 2)
    seen = [(plc.poll()["result_count"], "result_valid" in plc.high()) for _ in range(40)]
    assert seen.count((1, True)) >= 25
    assert (1, False) in seen, "result_valid falls between two results"
    assert seen[-1] == (2, True)


def test_with_enable_low_the_station_is_not_ready_and_a_trigger_means_nothing() -> None:
    plc = Plc()
    plc.poll(enable=False)
    assert plc.high() == set()
    plc.poll(trigger=True)
    plc.poll(enable=True)
    assert plc.announced == []
    assert plc.high() == set(), "the trigger was raised while it meant nothing: it has to fall first"
    plc.poll(trigger=False)
    assert plc.high() == {"ready"}
    plc.poll(trigger=True)
    assert len(plc.announced) == 1


def test_a_trigger_that_is_high_when_the_connection_comes_back_is_a_part_and_old_results_are_gone() -> None:
    plc = Plc()
    plc.poll(trigger=True)
    plc.poll(trigger=False)
    plc.inputs = replace(plc.inputs, trigger=True, reset_fault=True)
    plc.handshake.resume(plc.inputs)
    plc.poll()
    assert len(plc.announced) == 2, "never silence"
    assert plc.decide(ACCEPT, 1) is False, "announced before the break: no result of it is written as new"
    plc.poll()
    assert plc.high() == {"busy", "trigger_acknowledge"}
    plc.decide(FAULT, 2)
    plc.poll()
    plc.poll(trigger=False)
    assert plc.high() == {"ready", "fault", "result_valid"}


def test_a_part_over_which_the_trigger_is_still_high_goes_on_when_the_connection_comes_back() -> None:
    plc = Plc()
    plc.poll(trigger=True)
    plc.handshake.resume(plc.inputs, same=True)
    plc.poll()
    assert (len(plc.announced), plc.high()) == (1, {"busy", "trigger_acknowledge"})
    plc.decide(ACCEPT)
    plc.poll()
    plc.handshake.resume(plc.inputs, same=True)
    assert plc.high() == {"trigger_acknowledge", "accept", "result_valid"}, "it was not acknowledged yet"
    plc.poll(acknowledge=True)
    plc.poll(acknowledge=False, trigger=False)
    assert (len(plc.announced), plc.high()) == (1, {"ready"})


def test_a_part_that_is_passing_when_the_connection_comes_back_is_told_where_pulses_eject() -> None:
    plc = Plc(Pulsed(width_ms=50, delay_ms=100, encoder_counts=None, modulus=65_536, limit=8))
    plc.inputs = replace(plc.inputs, trigger=True)
    plc.handshake.resume(plc.inputs)
    plc.poll()
    assert (plc.announced, plc.handshake.outputs()["fault_code"]) == ([], StationFault.PASSED_UNTOLD)


OWED = Result("17", Verdict.FAULT, 0.0, int(Cause.ENDED))


def test_a_result_that_is_owed_since_before_the_start_is_shown_while_ready_is_low() -> None:
    plc = Plc(inputs=Inputs(part_id="17"))
    plc.handshake.owe(3, OWED, plc.now)
    out = plc.poll()
    assert (out["result_part_id"], out["fault_code"], plc.high()) == ("17", Cause.ENDED, {"fault", "result_valid"})
    assert plc.poll(acknowledge=True)["result_valid"] is False
    plc.poll(acknowledge=False)
    assert plc.high() == {"ready"}


@pytest.mark.parametrize("turns", [{"part_id": "18"}, {"trigger": True}, {}], ids=["another part", "a trigger", "too late"])
def test_a_result_that_is_owed_is_taken_back_when_the_plc_turns_to_another_part_or_does_not_take_it(turns: dict[str, object]) -> None:
    """It could be taken for the next one's; and a PLC that has given the part up must not be stopped by code 101."""
    plc = Plc(inputs=Inputs(part_id="17"))
    plc.handshake.owe(3, OWED, plc.now)
    plc.poll()
    assert plc.high() == {"fault", "result_valid"}
    plc.poll(0 if turns else 1100, **turns)
    plc.poll()
    assert not plc.handshake.outputs()["result_valid"]
    assert (plc.handshake.problem, plc.handshake.outputs()["fault_code"]) == (None, 0)
    assert len(plc.announced) == ("trigger" in turns)
    assert plc.high() >= ({"busy"} if "trigger" in turns else {"ready"})


def test_a_result_that_is_owed_where_nobody_acknowledges_stands_until_the_next_trigger() -> None:
    plc = Plc(Presented(acknowledged=False, timeout_ms=1000, limit=8), inputs=Inputs(part_id="17"))
    plc.handshake.owe(3, OWED, plc.now)
    plc.poll()
    assert plc.high() == {"fault", "result_valid"}
    plc.poll(1100)
    assert plc.high() == {"fault", "result_valid", "ready"}
    plc.poll(trigger=True, part_id="18")
    assert plc.high() == {"busy", "trigger_acknowledge"}


def test_ready_does_not_rise_before_the_trigger_was_seen_low() -> None:
    plc = Plc()
    plc.poll(trigger=True, part_id="1")
    plc.decide(ACCEPT)
    assert plc.poll()["ready"] is False, "what falls and rises before the next look would be no edge, and no part"
    assert plc.poll(trigger=False)["ready"] is True


def test_a_result_that_waited_when_the_connection_broke_is_not_shown_afterwards() -> None:
    plc = Plc()
    for n in range(2):
        plc.poll(trigger=True, part_id=str(n))
        plc.decide(ACCEPT)
        plc.poll(trigger=False)
    plc.handshake.resume(plc.inputs)
    for _ in range(5):
        assert plc.poll()["result_valid"] is False


def test_another_recipe_is_prepared_while_ready_is_low_and_parts_carry_it() -> None:
    plc = Plc()
    plc.poll(recipe="7")
    assert plc.recipes == ["7"]
    assert plc.high() == set()
    plc.poll(trigger=True)
    assert "recipe 7 was being prepared" in plc.announced[-1].refused
    plc.decide(FAULT)
    plc.poll(trigger=False)
    plc.poll(acknowledge=True)
    plc.poll(acknowledge=False)
    plc.handshake.prepared("7", True)
    plc.poll(trigger=True)
    assert plc.announced[-1] == Announced("", "7", "")
    assert plc.recipes == ["7"]


def test_a_recipe_that_changes_with_the_trigger_does_not_judge_the_part_by_the_old_one() -> None:
    plc = Plc()
    plc.poll(recipe="7", trigger=True)
    assert plc.announced[-1].refused


def test_an_unknown_recipe_is_a_fault_until_a_known_one_is_asked_for() -> None:
    plc = Plc()
    plc.poll(recipe="9")
    plc.handshake.prepared("9", False)
    out = plc.poll()
    assert (out["fault"], out["fault_code"], out["ready"]) == (True, StationFault.UNKNOWN_RECIPE, False)
    plc.poll(reset_fault=True)
    assert plc.handshake.outputs()["fault_code"] == StationFault.UNKNOWN_RECIPE, "a reset does not make the recipe known"
    plc.poll(recipe="7")
    plc.handshake.prepared("9", False)  # an answer that comes late is of no interest
    plc.handshake.prepared("7", True)
    plc.poll()
    assert plc.high() == {"ready"}


def test_the_heartbeat_toggles_while_the_station_works_and_stands_still_when_it_does_not() -> None:
    plc = Plc()
    beats = [plc.poll(ms=100)["heartbeat"] for _ in range(20)]
    assert sum(a != b for a, b in itertools.pairwise(beats)) in (3, 4)
    plc.alive = False
    assert len({plc.poll(ms=100)["heartbeat"] for _ in range(20)}) == 1
    assert plc.high() == set(), "and ready is low"


def test_a_trigger_before_the_station_works_is_refused_and_not_lost() -> None:
    plc = Plc()
    plc.alive = False
    plc.poll(trigger=True)
    assert plc.announced[0].refused == "Triggered while the station was not ready."


MOVES = st.lists(
    st.tuples(
        st.fixed_dictionaries({}, optional={n: st.booleans() for n in ("trigger", "acknowledge", "reset_fault", "enable")}),
        st.booleans(), st.sampled_from([2.0, 2.0, 2.0, 400.0]),
    ),
    max_size=80,
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=300)
@given(MOVES)
def test_whatever_the_plc_does_no_part_is_shown_twice_or_out_of_order_and_never_two_verdicts(moves: list[tuple[dict, bool, float]]) -> None:
    plc = Plc(results=Presented(acknowledged=True, timeout_ms=1000, limit=3))
    decided, shown, was_valid = 0, [], False
    for inputs, decide, ms in moves:
        plc.poll(ms, **inputs)
        out = plc.handshake.outputs()
        if out["result_valid"] and not was_valid:
            shown.append(int(str(out["result_part_id"])))
        was_valid = bool(out["result_valid"])
        assert (out["accept"], out["reject"]).count(True) <= 1
        assert not (out["accept"] and not out["result_valid"])
        assert len(plc.results._waiting) <= 3  # type: ignore[attr-defined]
        assert not (out["ready"] and out["busy"])
        if decide and decided < plc.seq:
            decided += 1
            refused = plc.announced[decided - 1].refused
            plc.decide(Result(str(decided), Verdict.FAULT if refused else Verdict.ACCEPT, 0.0, 1 if refused else 0), decided)
    assert shown == sorted(set(shown))
    assert len(plc.announced) == plc.seq


def test_refused_parts_take_no_result_away_from_one_that_was_judged() -> None:
    plc = Plc(results=Presented(acknowledged=True, timeout_ms=5000, limit=1))
    plc.poll(trigger=True, part_id="17")
    plc.poll(trigger=False)
    plc.poll(trigger=True, part_id="18")  # an overrun, whose FAULT is slow to come
    plc.poll(trigger=False)
    plc.decide(ACCEPT, 1)
    plc.poll()
    plc.poll(acknowledge=True)
    plc.poll(acknowledge=False)
    assert plc.handshake.ready
    plc.poll(trigger=True, part_id="19")
    plc.poll(trigger=False)
    assert [bool(a.refused) for a in plc.announced] == [False, True, False]
    plc.decide(FAULT, 2)
    plc.poll()
    plc.decide(REJECT, 3)
    plc.poll(acknowledge=True)
    plc.poll(acknowledge=False)
    plc.poll()
    assert {"reject", "result_valid"} <= plc.high()


def test_a_trigger_that_rises_right_after_a_reconnect_is_a_part() -> None:
    plc = Plc()
    assert plc.handshake.resume(plc.inputs) is None
    plc.poll(trigger=True, part_id="17")
    assert [a.part_id for a in plc.announced] == ["17"]


def test_a_refused_part_for_whose_result_there_is_no_room_is_a_gap_in_the_count() -> None:
    plc = Plc(results=Presented(acknowledged=True, timeout_ms=5000, limit=1))
    for n, result in enumerate((ACCEPT, FAULT), 1):
        plc.poll(trigger=True)
        plc.poll(trigger=False)
        plc.decide(result, n)
        plc.poll()
    assert plc.poll(acknowledge=True)["result_count"] == 1
    plc.poll(acknowledge=False)
    plc.poll(trigger=True)
    plc.poll(trigger=False)
    plc.decide(REJECT, 3)
    assert plc.poll()["result_count"] == 3


def test_inputs_are_read_by_name_and_what_a_plc_does_not_have_is_as_if_it_never_used_it() -> None:
    assert Inputs.of({}) == Inputs(False, False, False, True, "", "", 0)
    values = {"trigger": 1, "acknowledge": 1, "reset_fault": 1, "enable": 0, "part_id": 17, "recipe": 7, "encoder": 5}
    assert Inputs.of(values) == Inputs(True, True, True, False, "17", "7", 5)
    for name in ("trigger", "acknowledge", "reset_fault"):
        assert Inputs.of({name: True}) == replace(Inputs(), **{name: True}), "each by itself"


@pytest.mark.parametrize(
    ("value", "part", "recipe"), [("A-1", "A-1", "A-1"), ("", "", ""), (0, "0", ""), (17.0, "17", "17"), (float("nan"), "", "")]
)
def test_a_part_s_number_is_written_as_it_is_and_recipe_0_is_the_station_s_own(value: str | float, part: str, recipe: str) -> None:
    inputs = Inputs.of({"part_id": value, "recipe": value})
    assert (inputs.part_id, inputs.recipe) == (part, recipe)


def test_a_part_that_comes_while_the_own_recipe_is_prepared_is_told_so() -> None:
    plc = Plc()
    plc.poll(recipe="7")
    plc.handshake.prepared("7", True)
    plc.poll(recipe="")
    plc.poll(trigger=True)
    assert plc.announced[-1].refused == "Triggered while recipe (the own one) was being prepared."


def test_a_recipe_that_works_after_all_ends_its_fault() -> None:
    plc = Plc()
    plc.poll(recipe="7")
    plc.handshake.prepared("7", False)
    assert plc.poll()["fault_code"] == StationFault.UNKNOWN_RECIPE and "ready" not in plc.high()
    plc.handshake.prepared("7", True)
    assert plc.poll()["fault_code"] == 0 and plc.high() == {"ready"}


def test_a_reset_ends_the_overrun() -> None:
    plc = Plc()
    for high in (True, False, True):
        plc.poll(trigger=high)
    assert plc.poll()["overrun"] is True
    assert plc.poll(reset_fault=True)["overrun"] is False


def unacknowledged(plc: Plc) -> None:
    """Into the fault that a result without its acknowledge is."""
    plc.poll(trigger=True)
    plc.decide(ACCEPT)
    plc.poll(trigger=False)
    assert plc.poll(ms=1010)["fault_code"] == StationFault.ACKNOWLEDGE_TIMEOUT


def test_a_reset_that_stands_high_ends_no_fault_that_comes_after_it() -> None:
    plc = Plc()
    plc.poll(reset_fault=True)
    unacknowledged(plc)
    assert plc.poll()["fault_code"] == plc.poll()["fault_code"] == StationFault.ACKNOWLEDGE_TIMEOUT
    plc.poll(reset_fault=False)
    assert plc.poll(reset_fault=True)["fault_code"] == 0


def test_a_reset_that_stands_high_when_the_connection_comes_back_is_no_edge() -> None:
    plc = Plc()
    unacknowledged(plc)
    plc.inputs = replace(plc.inputs, reset_fault=True)
    plc.handshake.resume(plc.inputs)
    assert plc.poll()["fault_code"] == StationFault.ACKNOWLEDGE_TIMEOUT


def test_without_reset_fault_an_acknowledge_that_stays_away_is_a_fault_for_as_long_as_it_does() -> None:
    plc = Plc(has_reset=False)
    unacknowledged(plc)
    assert {plc.poll(ms=200)["fault_code"] for _ in range(20)} == {StationFault.ACKNOWLEDGE_TIMEOUT}


def test_before_the_first_look_no_bit_is_high() -> None:
    handshake = Handshake(Presented(acknowledged=True, timeout_ms=1000, limit=8), heartbeat_ms=500, has_reset=True)
    handshake.resume(Inputs())
    numbers = {"result_part_id", "result_count", "severity", "fault_code"}
    assert {name for name, value in handshake.outputs().items() if value is not False} == numbers


def test_the_heartbeat_toggles_when_its_time_has_come_and_not_before() -> None:
    plc = Plc()
    before = plc.poll()["heartbeat"]
    plc.poll(ms=498 - 1e-6)
    assert plc.handshake.outputs()["heartbeat"] is before
    assert plc.poll(ms=1e-6)["heartbeat"] is not before


def test_the_recipe_of_a_plc_that_was_gone_is_prepared_anew_where_it_was_not_ready() -> None:
    plc = Plc()
    plc.poll(recipe="7")
    assert plc.handshake.resume(plc.inputs) == "7", "its answer may have been lost"
    plc.handshake.prepared("7", True)
    assert plc.handshake.resume(plc.inputs) is None


def test_a_result_that_is_too_late_just_before_it_is_written_is_a_fault() -> None:
    plc = Plc()
    plc.poll(trigger=True)
    plc.decide(replace(ACCEPT, until_ns=plc.now + 10 * MS))
    assert plc.poll()["accept"]
    assert not plc.handshake.expire(plc.now + 8 * MS)
    assert plc.handshake.outputs()["accept"]
    assert plc.handshake.expire(plc.now + 9 * MS)
    found = plc.handshake.outputs()
    assert (found["accept"], found["fault"], found["fault_code"]) == (False, True, Cause.LATE)
