"""The thread between a tag port and the station, over a PLC that is a dictionary: what is written when, and what a break costs."""

import dataclasses
import math
import re
import threading
import time
from collections.abc import Callable, Mapping

import pytest

from edge_runtime.config.files import PlcInputs, PlcOutputs, PulseConfig
from edge_runtime.errors import ConfigError, SinkError, TriggerError
from edge_runtime.plc.line import PlcLine
from edge_runtime.plc.signals import INPUTS, OUTPUTS
from edge_runtime.protocols import StationLink
from edge_runtime.records import Cause, Stamps, Trigger, Verdict
from tests.unit.edge_runtime.plc.memory import Memory, announce, decision, running, settings, until


def link(
    prepare: Callable[[str], None] = lambda recipe: None,
    deadlines_ns: Mapping[str, int] | None = None,
    alive: Callable[[], bool] = lambda: True,
) -> StationLink:
    return StationLink(prepare, deadlines_ns or {}, alive)


def test_a_result_is_in_the_plc_when_put_returns_and_valid_rises_last() -> None:
    plc = Memory()
    with running(plc, first_seq=41) as line:
        trigger = announce(plc, line, 70_001)
        assert (trigger.seq, trigger.part_id, trigger.refused) == (41, "70001", "")
        plc.writes.clear()
        line.put(decision(41, Verdict.REJECT, "70001"), ())
        assert plc.tags["result_valid"] is True
        at = next(i for i, w in enumerate(plc.writes) if "result_valid" in w)
        assert list(plc.writes[at])[-1] == "result_valid"
        assert plc.writes[at]["reject"] is True
        before: dict[str, object] = {}
        for write in plc.writes[: at + 1]:
            before |= write
        assert (before["result_part_id"], before["severity"]) == ("70001", 0.5)
        plc.writes.clear()
        plc.tags["acknowledge"] = True
        until(lambda: not plc.tags["result_valid"])
        fallen = next(w for w in plc.writes if "result_valid" in w)
        assert next(iter(fallen)) == "result_valid", "it falls first: never high over half a result"


def test_the_part_id_is_read_after_the_trigger_was_seen() -> None:
    plc = Memory(trips=2)
    with running(plc) as line:
        announce(plc, line)
    rise = next(i for i, names in enumerate(plc.reads) if i > 1 and "part_id" in names)
    assert plc.reads[rise - 1][0] == "trigger"


def test_inputs_that_come_in_one_answer_are_read_together() -> None:
    plc = Memory(trips=1)
    with running(plc) as line:
        announce(plc, line)
    assert {len(names) for names in plc.reads[1:]} == {len(INPUTS)}
    assert plc.reads[-1][0] == "trigger"


@pytest.mark.parametrize("ordered", [True, False])
def test_a_plc_whose_reports_are_in_order_is_not_asked_again(ordered: bool) -> None:
    plc = Memory(pushes=True, ordered=ordered)
    with running(plc) as line:
        plc.reads.clear()
        plc.push({"part_id": 1}, {"trigger": True}, {"trigger": False, "part_id": 2})
        until(lambda: line.parts)  # type: ignore[attr-defined]
        assert line.parts[0].part_id == ("1" if ordered else "2")  # type: ignore[attr-defined]
        assert any("part_id" in names for names in plc.reads) is not ordered


def test_every_short_pulse_that_the_plc_reports_is_a_part() -> None:
    plc = Memory(pushes=True)
    with running(plc) as line:
        plc.push({"part_id": 1, "trigger": True}, {"trigger": False}, {"part_id": 2, "trigger": True}, {"trigger": False})
        until(lambda: len(line.parts) == 2)  # type: ignore[attr-defined]
        first, second = line.parts  # type: ignore[attr-defined]
    assert not first.refused
    assert "Overrun" in second.refused


def test_results_follow_each_other_with_result_valid_low_between_them_however_fast_the_acknowledge_was() -> None:
    plc = Memory(pushes=True)
    with running(plc) as line:
        for part in (1, 2):
            plc.push({"part_id": part, "trigger": True})
            until(lambda part=part: len(line.parts) == part)  # type: ignore[attr-defined,misc]
            line.put(decision(part, part_id=str(part)), ())
            plc.push({"trigger": False})
        plc.writes.clear()
        plc.push({"acknowledge": True}, {"acknowledge": False})  # both in one report
        until(lambda: plc.tags["result_part_id"] == "2")
        assert [w["result_valid"] for w in plc.writes if "result_valid" in w] == [False, True]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("pushes", [True, False])
def test_a_part_whose_number_the_plc_has_no_value_for_at_first_is_announced_with_it(pushes: bool, ordered: bool) -> None:
    """Whether it is read with the trigger or after it."""
    plc = Memory(pushes=pushes, ordered=ordered, trips=1 if ordered else 2)
    with running(plc) as line:
        plc.missing = {"part_id": "busy"}
        plc.push({"part_id": 18, "trigger": True})
        time.sleep(0.1)
        assert (line.parts, line.lost, plc.tags["trigger_acknowledge"]) == ([], None, False)  # type: ignore[attr-defined]
        plc.missing = {}
        plc.push({"part_id": 19})
        until(lambda: line.parts)  # type: ignore[attr-defined]
        assert (line.parts[0].part_id, line.parts[0].refused) == ("19", "")  # type: ignore[attr-defined]
        assert line.tallies["reconnects"] == 0


@pytest.mark.parametrize(("name", "part_id", "refused"), [("part_id", "", ""), ("recipe", "18", "The PLC had no value for")])
def test_a_part_gets_its_decision_whatever_the_plc_does_not_tell_of_it(
    name: str, part_id: str, refused: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Law 1: without its name it is judged, without its recipe it cannot be."""
    plc = Memory()
    with running(plc, timeout_ms=300) as line:
        announce(plc, line, 17)
        line.put(decision(1), ())
        plc.missing = {name: "busy"}
        plc.tags |= {"acknowledge": True, "part_id": 18, "trigger": True}
        until(lambda: len(line.parts) == 2)  # type: ignore[attr-defined]
        trigger = line.parts[1]  # type: ignore[attr-defined]
        assert trigger.part_id == part_id, "not the last part's"
        assert trigger.refused.startswith(refused) and bool(trigger.refused) is bool(refused)
        assert "trigger.inputs." + name in (trigger.refused or caplog.text)
        plc.tags["acknowledge"] = False
        line.put(decision(2, Verdict.REJECT if not refused else Verdict.FAULT, part_id), ())
        until(lambda: plc.tags["result_valid"])
        assert (plc.tags["reject"], plc.tags["fault"]) == (not refused, bool(refused))
        until(lambda: f"no value for trigger.inputs.{name} (busy)" in (line.problem or ""))
        plc.missing = {}
        until(lambda: line.problem is None)
        assert (line.lost, line.tallies["reconnects"]) == (None, 0)


def test_an_edge_that_falls_before_the_plc_has_told_the_part_s_number_is_a_part() -> None:
    plc = Memory()
    with running(plc) as line:
        plc.missing = {"part_id": "busy"}
        plc.tags["trigger"] = True
        time.sleep(0.05)
        plc.tags["trigger"] = False
        until(lambda: line.parts)  # type: ignore[attr-defined]
        until(lambda: not plc.tags["trigger_acknowledge"])
        assert len(line.parts) == 1  # type: ignore[attr-defined]
        plc.missing = {}


def test_a_moment_without_the_trigger_costs_nothing_and_a_long_one_the_connection() -> None:
    plc = Memory()
    with running(plc, timeout_ms=300) as line:
        trigger = announce(plc, line)
        plc.missing = {"trigger": "BadNoCommunication"}
        time.sleep(0.1)
        plc.missing = {}
        line.put(decision(trigger.seq), ())
        assert line.tallies["reconnects"] == 0
        plc.missing = {"trigger": "BadNoCommunication"}
        until(lambda: line.lost)
        assert "has no value for trigger.inputs.trigger (BadNoCommunication); reconnecting" in str(line.lost)
        plc.missing = {}
        until(lambda: line.lost is None)


def test_an_edge_behind_a_moment_without_the_trigger_is_as_old_as_that() -> None:
    """It may have risen any time since."""
    plc = Memory(pushes=True, ordered=True)
    with running(plc) as line:
        line.attach(link(deadlines_ns={"r": 400_000_000}))
        plc.missing = {"trigger": "BadNoCommunication"}
        plc.push({"part_id": 18})
        time.sleep(0.3)
        plc.missing = {}
        plc.push({"trigger": True})
        until(lambda: line.parts)  # type: ignore[attr-defined]
        assert "saw the trigger up to" in line.parts[0].refused  # type: ignore[attr-defined]


def test_an_edge_that_was_seen_is_a_part_also_when_the_plc_is_lost_before_its_name_is_read() -> None:
    """Law 1."""
    plc = Memory(trips=2)
    with running(plc) as line:
        announce(plc, line, 17)
        line.put(decision(1), ())
        plc.tags["acknowledge"] = True
        until(lambda: not plc.tags["result_valid"])
        plc.goes_off_at = "part_id"
        plc.tags |= {"part_id": 18, "trigger": True}
        until(lambda: len(line.parts) == 2)  # type: ignore[attr-defined]
        assert line.parts[1].part_id == "", "not the last part's"  # type: ignore[attr-defined]
        assert line.lost, "so that its verdict is a FAULT"
        plc.goes_off_at = ""


def test_a_plc_that_goes_away_is_told_of_at_once_and_its_parts_get_no_result_when_it_is_back() -> None:
    plc = Memory()
    with running(plc) as line:
        trigger = announce(plc, line)
        plc.off = True
        until(lambda: line.lost)
        began = time.monotonic()
        with pytest.raises(SinkError, match=r"does not answer.*part 17, seq 1, was not written"):
            line.put(decision(trigger.seq), ())
        assert time.monotonic() - began < 0.1
        assert "reconnecting" in (line.unreachable(trigger) or "")
        plc.off = False
        until(lambda: line.problem is None)
        assert "lost since the part was announced" in (line.unreachable(trigger) or ""), "so that its verdict is a FAULT"
        with pytest.raises(SinkError, match="lost since the part was announced"):
            line.put(decision(trigger.seq), ())
        until(lambda: plc.tags["ready"])
        assert plc.tags["result_valid"] is False
        after = announce(plc, line, 19)
        assert after.part_id == "19"
        assert line.unreachable(after) is None


def broken(plc: Memory, line: PlcLine, meanwhile: Callable[[], None] = lambda: None) -> None:
    """The connection is lost, and comes back."""
    before = line.tallies["reconnects"]
    plc.off = True
    until(lambda: line.lost)
    meanwhile()
    plc.off = False
    until(lambda: line.tallies["reconnects"] > before and line.lost is None)


@pytest.mark.parametrize("deadline_s", [0.02, 5.0])
def test_a_trigger_that_rose_while_the_plc_was_lost_is_one_part(deadline_s: float) -> None:
    """Law 1. It is as old as the last look that showed it low: refused where that is too long ago."""
    plc = Memory()
    with running(plc) as line:
        line.attach(link(deadlines_ns={"r": round(deadline_s * 1e9)}))
        broken(plc, line, lambda: plc.tags.update(trigger=True, part_id=18))
        until(lambda: plc.tags["trigger_acknowledge"])
        until(lambda: line.parts)  # type: ignore[attr-defined]
        (trigger,) = line.parts  # type: ignore[attr-defined]
        assert trigger.part_id == "18"
        assert ("saw the trigger up to" in trigger.refused) is (deadline_s < 1)
        line.put(decision(1, Verdict.FAULT, "18", Cause.REFUSED), ())
        assert (plc.tags["fault"], plc.tags["result_part_id"]) == (True, "18")
        plc.tags |= {"trigger": False, "acknowledge": True}
        until(lambda: not plc.tags["result_valid"])
        assert len(line.parts) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("decided", ["before", "meanwhile", "after"])
def test_a_part_over_which_the_trigger_stays_high_through_a_break_is_told_once(decided: str) -> None:
    """Law 1: its name says that it is the same. PLC and station would wait for each other for ever."""
    plc = Memory()
    with running(plc) as line:
        plc.tags |= {"trigger": True, "part_id": 17}
        until(lambda: plc.tags["trigger_acknowledge"])
        until(lambda: line.parts)  # type: ignore[attr-defined]
        (trigger,) = line.parts  # type: ignore[attr-defined]

        def decide() -> None:
            line.put(decision(1, Verdict.REJECT), ())

        def decide_in_vain() -> None:
            with pytest.raises(SinkError):
                decide()

        if decided == "before":
            decide()
        broken(plc, line, decide_in_vain if decided == "meanwhile" else lambda: None)
        if decided == "after":
            assert line.unreachable(trigger) is None
            decide()
        until(lambda: plc.tags["result_valid"])
        assert (plc.tags["reject"], plc.tags["result_part_id"], plc.tags["result_count"]) == (True, "17", 1)
        plc.tags |= {"trigger": False, "acknowledge": True}
        until(lambda: not plc.tags["result_valid"])
        plc.tags["acknowledge"] = False
        until(lambda: plc.tags["ready"])
        assert len(line.parts) == 1  # type: ignore[attr-defined]


def test_another_part_under_the_trigger_after_a_break_is_another_part() -> None:
    plc = Memory()
    with running(plc) as line:
        plc.tags |= {"trigger": True, "part_id": 17}
        until(lambda: plc.tags["trigger_acknowledge"])
        broken(plc, line, lambda: plc.tags.update(part_id=18))
        until(lambda: len(line.parts) == 2)  # type: ignore[attr-defined]
        assert [t.part_id for t in line.parts] == ["17", "18"]  # type: ignore[attr-defined]
        assert line.unreachable(line.parts[0]), "so that its verdict is a FAULT"  # type: ignore[attr-defined]


def test_a_trigger_that_is_high_at_the_start_is_a_part_that_is_refused() -> None:
    """Law 1: it was raised while no station was there, and waits."""
    plc = Memory()
    plc.tags |= {"trigger": True, "part_id": 18}
    line = PlcLine(settings(), 1, plc)
    noted: list[int] = []
    parts: list[Trigger] = []
    with line:
        time.sleep(0.1)
        assert plc.tags["trigger_acknowledge"] is False, "nobody takes it yet"
        line.attach(dataclasses.replace(link(), announced=lambda t: noted.append(t.seq)))
        until(lambda: (trigger := line.wait(0.01)) is not None and parts.append(trigger) is None)
        assert parts[0].part_id == "18"
        assert parts[0].refused.startswith("The PLC's trigger was high when the station connected")
        assert noted == [1]
        assert line.wait(0.1) is None


@pytest.mark.alone
def test_a_plc_that_hangs_holds_a_decision_up_no_longer_than_its_timeout() -> None:
    plc = Memory()
    with running(plc, timeout_ms=100) as line:
        trigger = announce(plc, line)
        plc.hangs_s = 0.5
        time.sleep(0.01)
        began = time.monotonic()
        with pytest.raises(SinkError):
            line.put(decision(trigger.seq), ())
        assert time.monotonic() - began < 0.3
        plc.hangs_s = 0.0


def test_after_a_break_every_output_is_written_again() -> None:
    plc = Memory()
    with running(plc) as line:
        plc.off = True
        until(lambda: line.lost)
        plc.tags |= {"ready": False, "accept": True, "result_valid": True}  # the PLC was replaced by another
        plc.writes.clear()
        plc.off = False
        until(lambda: plc.tags["ready"])
        assert set(plc.writes[0]) == set(OUTPUTS)
        assert not plc.tags["accept"]
        assert not plc.tags["result_valid"]


def test_a_fault_tells_its_cause() -> None:
    plc = Memory()
    with running(plc) as line:
        trigger = announce(plc, line)
        line.put(decision(trigger.seq, Verdict.FAULT, cause=Cause.CAMERA), ())
        assert (plc.tags["fault"], plc.tags["fault_code"], plc.tags["severity"]) == (True, int(Cause.CAMERA), 0.0)


def test_an_accept_that_comes_to_the_plc_after_its_deadline_is_a_fault_there_and_said_so() -> None:
    """Law 2: the whole machine may have stood still between the verdict and its telling, and the part is gone."""
    plc = Memory()
    with running(plc) as line:
        line.attach(link(deadlines_ns={"r": 200_000_000}))
        trigger = announce(plc, line)
        late = dataclasses.replace(decision(trigger.seq), stamps=Stamps(time.monotonic_ns() - 300_000_000))
        with pytest.raises(SinkError, match=r"the result of part 17, seq 1, was \d{3,} ms old: the PLC was told FAULT"):
            line.put(late, ())
        assert (plc.tags["accept"], plc.tags["fault_code"], plc.tags["result_valid"]) == (False, int(Cause.LATE), True)


@pytest.mark.parametrize("pushes", [False, True])
def test_a_part_that_was_announced_nobody_knows_when_is_refused(pushes: bool) -> None:
    """The process stood still, or the PLC's answer was long on its way: the camera may show the next part by now."""
    plc = Memory(pushes=pushes, ordered=True)
    with running(plc) as line:
        line.attach(link(deadlines_ns={"r": 400_000_000}))
        plc.hangs_s = 0.5
        time.sleep(0.05)  # a look has begun, and shows nothing yet
        plc.push({"part_id": 18, "trigger": True})
        time.sleep(0.5)
        plc.hangs_s = 0.0
        until(lambda: line.parts)  # type: ignore[attr-defined]
        (trigger,) = line.parts  # type: ignore[attr-defined]
        assert re.match(r"The station saw the trigger up to \d{3,4} ms late: when the part was announced is not known", trigger.refused)
        until(lambda: plc.tags["trigger_acknowledge"])  # it answers again
        line.put(decision(trigger.seq, Verdict.FAULT, "18", cause=Cause.REFUSED), ())
        assert (plc.tags["fault"], plc.tags["result_part_id"]) == (True, "18")


@pytest.mark.parametrize(("late_s", "refused"), [(0.1, False), (0.3, True)])
def test_an_edge_that_the_plc_reports_late_is_as_old_as_that(late_s: float, refused: bool) -> None:
    """By its own stamps; the thread was woken at once."""
    plc = Memory(pushes=True, ordered=True)
    with running(plc) as line:
        line.attach(link(deadlines_ns={"r": 400_000_000}))
        until(lambda: plc.tags["ready"])
        plc.happened_s = [time.monotonic() - late_s]
        plc.push({"part_id": 18, "trigger": True})
        until(lambda: line.parts)  # type: ignore[attr-defined]
        (trigger,) = line.parts  # type: ignore[attr-defined]
        assert ("saw the trigger up to" in trigger.refused) is refused
        assert late_s * 1e9 <= trigger.fired_ns - trigger.since_ns < (late_s + 0.15) * 1e9


def test_a_deadline_counts_from_when_the_trigger_was_last_seen_low() -> None:
    """An accept in time after the edge was seen may be late after the edge."""
    plc = Memory()
    with running(plc) as line:
        line.attach(link(deadlines_ns={"r": 1_000_000_000}))
        plc.hangs_s = 0.2
        time.sleep(0.05)
        plc.tags |= {"part_id": 19, "trigger": True}
        until(lambda: line.parts)  # type: ignore[attr-defined]
        plc.hangs_s = 0.0
        (trigger,) = line.parts  # type: ignore[attr-defined]
        assert trigger.refused == ""
        assert 0.1e9 < trigger.fired_ns - trigger.since_ns < 1e9
        at_its_end = dataclasses.replace(decision(trigger.seq, part_id="19"), stamps=Stamps(trigger.fired_ns))
        time.sleep((trigger.since_ns + 1_000_000_000 - time.monotonic_ns()) / 1e9 + 0.01)
        with pytest.raises(SinkError, match="the PLC was told FAULT"):
            line.put(at_its_end, ())


def test_a_verdict_that_becomes_too_late_while_its_numbers_are_written_is_told_as_a_fault() -> None:
    """Law 1: the PLC answers slowly, or the whole machine stands still, between the numbers and the bits."""
    plc = Memory()
    with running(plc, timeout_ms=3000) as line:
        line.attach(link(deadlines_ns={"r": 400_000_000}))
        trigger = announce(plc, line)
        plc.slow_numbers_s = 0.5
        with pytest.raises(SinkError, match="the PLC was told FAULT"):
            line.put(dataclasses.replace(decision(trigger.seq), stamps=Stamps(trigger.fired_ns)), ())
        assert (plc.tags["accept"], plc.tags["fault"], plc.tags["fault_code"]) == (False, True, int(Cause.LATE))
        assert not any(w.get("accept") for w in plc.writes), "not for a moment"


def test_an_accept_that_a_busy_plc_does_not_take_in_time_is_a_fault_there() -> None:
    plc = Memory()
    with running(plc, timeout_ms=3000) as line:
        line.attach(link(deadlines_ns={"r": 400_000_000}))
        trigger = announce(plc, line)
        plc.busy = True
        with pytest.raises(SinkError, match="the PLC was told FAULT"):
            line.put(dataclasses.replace(decision(trigger.seq), stamps=Stamps(trigger.fired_ns)), ())
        assert (plc.tags["accept"], plc.tags["fault_code"], plc.tags["result_valid"]) == (False, int(Cause.LATE), True)
        told = next(w for w in plc.writes if w.get("fault"))
        assert {"accept", "result_valid"} <= told.keys(), "whatever of it the PLC had taken"
        assert line.lost is None


def test_a_verdict_that_waited_too_long_behind_another_result_is_shown_as_a_fault() -> None:
    plc = Memory()
    with running(plc) as line:
        line.attach(link(deadlines_ns={"r": 400_000_000}))
        first = announce(plc, line, 1)
        line.put(dataclasses.replace(decision(first.seq, part_id="1"), stamps=Stamps(first.fired_ns)), ())
        plc.tags["acknowledge"] = True
        until(lambda: not plc.tags["result_valid"])
        second = announce(plc, line, 2)  # while acknowledge is still high
        line.put(dataclasses.replace(decision(second.seq, part_id="2"), stamps=Stamps(second.fired_ns)), ())
        time.sleep(0.5)
        plc.tags["acknowledge"] = False
        until(lambda: plc.tags["result_valid"])
        assert (plc.tags["result_part_id"], plc.tags["accept"], plc.tags["fault_code"]) == ("2", False, int(Cause.LATE))


def test_a_part_is_written_down_before_the_plc_sees_its_acknowledge() -> None:
    """Law 1: whoever is killed then finds it at the next start."""
    plc = Memory()
    noted: list[tuple[int, str, object]] = []
    with running(plc, first_seq=7) as line:
        line.attach(dataclasses.replace(link(), announced=lambda t: noted.append((t.seq, t.part_id, plc.tags["trigger_acknowledge"]))))
        announce(plc, line, 17)
        assert noted == [(7, "17", False)]


def test_the_plc_changes_the_recipe_and_parts_carry_it() -> None:
    plc = Memory()
    asked: list[str] = []
    with running(plc) as line:
        line.attach(link(asked.append))
        plc.tags["recipe"] = 7
        until(lambda: asked == ["7"])
        until(lambda: plc.tags["ready"])
        assert announce(plc, line).recipe == "7"


def test_a_recipe_that_stands_there_at_the_start_is_prepared_when_the_station_runs() -> None:
    plc = Memory()
    plc.tags["recipe"] = 7
    asked: list[str] = []
    line = PlcLine(settings(), 1, plc)
    with line:
        time.sleep(0.1)
        assert asked == []
        line.attach(link(asked.append))  # the station is being put together meanwhile
        until(lambda: line.wait(0.01) is None and plc.tags["ready"])
        assert asked == ["7"]


def test_a_recipe_that_the_station_does_not_have_is_a_fault_code() -> None:
    plc = Memory()
    with running(plc) as line:

        def refuse(recipe: str) -> None:
            raise ConfigError(f"no recipe {recipe}")

        line.attach(link(refuse))
        plc.tags["recipe"] = 9
        until(lambda: plc.tags["fault_code"] == 102)
        assert not plc.tags["ready"]
        assert "recipe 9" in str(line.problem)
        assert line.lost is None
        line.attach(link())
        plc.tags["recipe"] = 0  # its own
        until(lambda: plc.tags["ready"])
        assert plc.tags["fault_code"] == 0


def test_heartbeat_and_ready_end_when_nobody_waits_for_parts_any_more() -> None:
    plc = Memory()
    with running(plc) as line:
        beat = plc.tags["heartbeat"]
        until(lambda: plc.tags["heartbeat"] != beat)
        line.attach(link(alive=lambda: False))
        until(lambda: not plc.tags["ready"])
        beat = plc.tags["heartbeat"]
        time.sleep(0.1)
        assert plc.tags["heartbeat"] == beat


def test_at_the_end_the_plc_reads_that_the_station_is_gone() -> None:
    before = set(threading.enumerate())
    plc = Memory()
    with running(plc) as line:
        announce(plc, line)
        line.put(decision(1), ())
        assert plc.tags["result_valid"]
    assert not any(plc.tags[n] for n in ("ready", "busy", "result_valid", "accept", "trigger_acknowledge"))
    assert set(threading.enumerate()) <= before


def test_a_line_can_be_opened_again() -> None:
    plc = Memory()
    line = PlcLine(settings(), 1, plc)
    for _ in range(2):
        with line:
            until(lambda: line.wait(0.01) is None and plc.tags["ready"])
        assert not plc.tags["ready"]


def test_a_bug_in_a_driver_ends_the_station_and_not_only_the_thread() -> None:
    plc = Memory()
    line = PlcLine(settings(), 1, plc)
    with line:
        plc.breaks = ZeroDivisionError("in a driver")
        until(lambda: line.lost)
        with pytest.raises(ZeroDivisionError):
            line.wait(0.1)
        with pytest.raises(SinkError):
            line.put(decision(1), ())


def test_a_plc_that_is_off_at_the_start_is_an_error_and_leaves_nothing_behind() -> None:
    before = set(threading.enumerate())
    plc = Memory()
    plc.off = True
    with pytest.raises(TriggerError, match=r"PLC in memory: does not answer.*Check \[trigger\]"), PlcLine(settings(), 1, plc):
        pass
    assert set(threading.enumerate()) <= before


@pytest.mark.alone
def test_a_pulse_comes_at_its_time_although_the_plc_is_polled_seldom() -> None:
    plc = Memory()
    with running(plc, poll_ms=40, inputs=PlcInputs(trigger="coil:0"), pulse=PulseConfig(delay_ms=100, width_ms=30)) as line:
        plc.tags["trigger"] = True
        until(lambda: line.parts)  # type: ignore[attr-defined]
        fired = line.parts[0].fired_ns  # type: ignore[attr-defined]
        line.put(decision(1, Verdict.REJECT), ())
        assert not plc.tags["reject"]
        until(lambda: plc.tags["reject"])
        until(lambda: not plc.tags["reject"])
        rose = plc.came_ms(fired, reject=True)
        assert 100 <= rose < 130
        assert 130 <= rose + plc.came_ms(fired + round(rose * 1e6), reject=False) < 160


@pytest.mark.alone
def test_a_pulse_comes_at_its_time_also_where_the_plc_is_told_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    plc = Memory()
    inputs, outputs = PlcInputs(trigger="coil:0"), PlcOutputs(reject="coil:500", ready="coil:501")
    pulse = PulseConfig(delay_ms=20, width_ms=30)
    with running(plc, poll_ms=2, inputs=inputs, outputs=outputs, pulse=pulse) as line:
        monkeypatch.setattr("edge_runtime.plc.line._STEP_S", 5.0)  # no other look at the clock
        time.sleep(0.05)  # the last one by the old interval
        plc.tags["trigger"] = True
        until(lambda: line.parts)  # type: ignore[attr-defined]
        until(lambda: plc.tags["reject"])
        until(lambda: not plc.tags["reject"])
        assert time.monotonic() - line.parts[0].fired_ns / 1e9 < 2.0, "it waited for the next look at the clock"  # type: ignore[attr-defined]


def test_when_the_station_ends_ready_falls_and_a_trigger_means_nothing_but_what_came_before_is_given() -> None:
    plc = Memory()
    with PlcLine(settings(), 1, plc) as line:  # type: ignore[arg-type]
        until(lambda: line.wait(0.01) or plc.tags["ready"])
        plc.tags |= {"trigger": True, "part_id": 17}
        until(lambda: plc.tags["trigger_acknowledge"])
        plc.tags["trigger"] = False
        until(lambda: not plc.tags["trigger_acknowledge"])
        line.end()
        assert plc.tags["ready"] is False
        plc.tags |= {"trigger": True, "part_id": 18}
        time.sleep(0.05)
        assert plc.tags["trigger_acknowledge"] is False
        trigger = line.wait(0.0)
        assert trigger is not None
        assert (trigger.part_id, trigger.refused) == ("17", "")
        assert line.wait(0.0) is None
        line.put(decision(trigger.seq), ())
        assert plc.tags["accept"] is True
    plc.tags["trigger"] = False
    with line:  # and it can be opened again
        until(lambda: line.wait(0.01) or plc.tags["ready"])


def test_a_recipe_that_fails_by_a_bug_is_a_fault_and_not_a_wait_for_ever() -> None:
    plc = Memory()

    def prepare(recipe: str) -> None:
        raise RuntimeError("a bug")

    with running(plc) as line:
        line.attach(link(prepare))
        plc.tags["recipe"] = 7
        until(lambda: plc.tags["fault"])
        assert plc.tags["fault_code"] == 102
        assert "recipe 7" in str(line.problem)


def test_a_station_that_ends_leaves_nothing_high_whatever_stood() -> None:
    plc = Memory()
    with running(plc, acknowledge_timeout_ms=20.0) as line:
        trigger = announce(plc, line)
        plc.tags |= {"trigger": True, "part_id": 18}  # an overrun
        until(lambda: plc.tags["overrun"])
        line.put(decision(trigger.seq), ())
        until(lambda: plc.tags["fault_code"] == 101)
    assert not [name for name in OUTPUTS if plc.tags[name] is True]
    assert plc.tags["fault_code"] == 0


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_part_number_that_is_none_is_a_part_without_a_name(number: float) -> None:
    plc = Memory()
    with running(plc) as line:
        assert announce(plc, line, number).part_id == ""  # type: ignore[arg-type]


@pytest.mark.alone
def test_a_good_part_that_waits_for_a_reject_s_end_costs_no_more_polls() -> None:
    plc = Memory(trips=1)
    with running(plc, pulse=PulseConfig(delay_ms=20, width_ms=300), inputs=PlcInputs(trigger="coil:0", part_id="holding:0")) as line:
        for part, verdict in ((17, Verdict.REJECT), (18, Verdict.ACCEPT)):
            line.put(decision(announce(plc, line, part).seq, verdict, str(part)), ())
        until(lambda: plc.tags["reject"])
        time.sleep(0.05)
        before, began = len(plc.reads), time.monotonic()
        time.sleep(0.1)
        polls = (len(plc.reads) - before) / (time.monotonic() - began)
        assert plc.tags["reject"] is True
        until(lambda: plc.tags["accept"])
    assert polls < 600, "every 2 ms"
