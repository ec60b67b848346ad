import pytest

from edge_runtime.plc.part_age import PartAges
from edge_runtime.records import Cause, Verdict
from tests.support.decisions import decision_with

MS = 1_000_000


def test_an_edge_of_a_polled_plc_may_have_risen_just_after_the_last_look() -> None:
    ages = PartAges()
    ages.connected(1000 * MS)
    ages.polled(1010 * MS)
    assert ages.not_before(1030 * MS, pushes=False) == 1010 * MS


@pytest.mark.parametrize(("seen_ms", "since_ms"), [(1099, 1099), (1100, 1000)])
def test_a_push_tells_the_edge_itself_unless_the_thread_stood_still(seen_ms: int, since_ms: int) -> None:
    ages = PartAges()
    ages.connected(1000 * MS)
    assert ages.not_before(seen_ms * MS, pushes=True) == since_ms * MS


def test_a_part_that_half_the_shortest_deadline_may_hide_is_not_judged() -> None:
    ages = PartAges()
    ages.deadlines_ns = {"slow": 400 * MS, "fast": 200 * MS}
    assert ages.too_old(100 * MS) == ""
    assert "up to 101 ms late" in ages.too_old(101 * MS)


def test_without_a_deadline_no_part_is_too_old() -> None:
    assert PartAges().too_old(10**12) == ""


def test_a_verdict_counts_until_its_deadline_from_the_edge_and_a_fault_for_ever() -> None:
    ages = PartAges()
    ages.deadlines_ns = {"disc": 200 * MS}
    part = decision_with(seq=7, recipe="disc")
    ages.announced(7, part.stamps.fired_ns - 50 * MS)
    since_ns = ages.decided(part)
    assert since_ns == part.stamps.fired_ns - 50 * MS
    result = ages.result(part, since_ns)
    assert result.at(since_ns + 200 * MS).verdict is part.verdict
    assert result.at(since_ns + 200 * MS + 1).verdict is Verdict.FAULT
    fault = decision_with(seq=8, verdict=Verdict.FAULT, cause=Cause.LATE, recipe="disc")
    assert ages.result(fault, 0).until_ns == 0
    assert ages.result(fault, 0).fault_code == int(Cause.LATE)


def test_after_a_lost_connection_a_part_counts_from_its_own_stamp() -> None:
    ages = PartAges()
    part = decision_with(seq=7)
    ages.announced(7, part.stamps.fired_ns - 50 * MS)
    ages.connected(part.stamps.fired_ns + MS)
    assert ages.decided(part) == part.stamps.fired_ns
