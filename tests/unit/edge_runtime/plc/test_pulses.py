"""Pulses instead of an acknowledge: each at its part's own time or place, and never too late."""

import pytest

from edge_runtime.plc.pulses import Pulsed
from edge_runtime.plc.results import Result
from edge_runtime.plc.signals import StationFault
from tests.unit.edge_runtime.plc.stepped import ACCEPT, FAULT, MS, REJECT, Plc


def pulsed(**more: object) -> Pulsed:
    return Pulsed(**{"width_ms": 20, "delay_ms": 100, "encoder_counts": None, "modulus": 2**16, "limit": 8} | more)  # type: ignore[arg-type]


def test_a_pulse_ejects_a_rejected_part_at_its_time_and_for_its_width() -> None:
    plc = Plc(results=pulsed())
    plc.poll(trigger=True)
    plc.decide(REJECT)
    high = [("reject" in plc.high(), plc.poll(trigger=False) and plc.now) for _ in range(100)]
    ms = [(now - high[0][1]) / MS for rejects, now in high if rejects]
    assert 98 <= ms[0] <= 104
    assert 16 <= ms[-1] - ms[0] <= 24


def test_parts_on_the_belt_follow_each_other_and_each_has_its_own_pulse() -> None:
    plc = Plc(results=pulsed())
    for n, result in enumerate([REJECT, ACCEPT, FAULT]):
        plc.poll(ms=28, trigger=True)
        plc.decide(result, n + 1)
        plc.poll(trigger=False)
        assert plc.handshake.ready
    pulses = []
    was: set[str] = set()
    for _ in range(100):
        plc.poll()
        pulses += [plc.high() & {"accept", "reject", "fault"}] if "result_valid" in plc.high() - was else []
        was = plc.high()
    assert pulses == [{"reject"}, {"accept"}, {"reject", "fault"}], "a part that could not be judged is ejected"


def test_a_part_without_a_verdict_when_it_passes_is_ejected_and_the_station_says_so() -> None:
    plc = Plc(results=pulsed())
    plc.poll(trigger=True, part_id="17")
    plc.poll(ms=101, trigger=False)
    assert "reject" in plc.high()
    assert plc.handshake.outputs()["fault_code"] == StationFault.LATE_FOR_PULSE
    assert plc.handshake.outputs()["result_part_id"] == "17"
    plc.decide(ACCEPT)
    plc.poll(ms=30)
    assert not plc.high() & {"accept", "reject"}, "the verdict came too late to let the next part through"
    plc.poll(reset_fault=True)
    assert plc.high() == {"ready"}


def test_the_encoder_says_when_a_part_passes_also_when_it_wraps_round_or_jerks_back() -> None:
    plc = Plc(results=pulsed(delay_ms=None, encoder_counts=300))
    plc.poll(encoder=65_400)
    plc.poll(trigger=True)
    plc.decide(REJECT)
    for count, due in [(65_398, False), (65_500, False), (100, False), (163, False), (164, True)]:
        plc.poll(encoder=count)
        assert ("reject" in plc.high()) is due, count


def test_after_a_break_nobody_knows_where_the_parts_are_and_no_pulse_comes() -> None:
    plc = Plc(results=pulsed())
    plc.poll(trigger=True)
    plc.decide(REJECT)
    plc.handshake.resume(plc.inputs)
    assert not any("reject" in plc.high() for _ in range(100) if plc.poll())


@pytest.mark.parametrize("has_reset", [True, False])
def test_parts_that_passed_the_ejector_without_their_pulse_are_a_fault_and_a_gap_in_the_count(has_reset: bool) -> None:
    plc = Plc(results=pulsed(), has_reset=has_reset)
    for seq in (1, 2):
        plc.poll(ms=30, trigger=True)
        plc.decide(REJECT, seq)
        plc.poll(trigger=False)
    plc.handshake.resume(plc.inputs)
    found = plc.poll()
    assert (found["fault"], found["fault_code"], found["ready"]) == (True, StationFault.PASSED_UNTOLD, False)
    assert "without their pulse" in (plc.handshake.problem or "")
    plc.poll(ms=500)
    assert plc.handshake.outputs()["fault"]
    plc.poll(ms=0 if has_reset else 600, reset_fault=has_reset)
    plc.poll()
    assert plc.high() == {"ready"}
    plc.poll(trigger=True)
    plc.decide(REJECT)
    found = plc.poll(ms=101, trigger=False)
    assert (found["reject"], found["result_count"]) == (True, 3)


@pytest.mark.parametrize("encoder", [False, True])
@pytest.mark.parametrize("result", [ACCEPT, REJECT])
@pytest.mark.parametrize("late", [False, True])
def test_a_part_that_passed_while_the_station_stood_still_has_no_pulse_for_it_would_meet_the_next(
    encoder: bool, result: Result, late: bool
) -> None:
    """20 ms wide: what begins after that is no pulse of its part."""
    plc = Plc(results=pulsed(delay_ms=None, encoder_counts=300) if encoder else pulsed(), has_reset=True)
    plc.poll(trigger=True)
    plc.decide(result)
    plc.poll(ms=98, trigger=False, encoder=299)
    found = plc.poll(ms=24 if late else 18, encoder=330)
    assert (found["accept"], found["reject"]) == ((False, False) if late else (result is ACCEPT, result is REJECT))
    assert plc.poll()["fault_code"] == (StationFault.PASSED_UNTOLD if late else 0)
    assert "without their pulse" in (plc.handshake.problem or "without their pulse")


@pytest.mark.parametrize("encoder", [False, True])
@pytest.mark.parametrize("result", [ACCEPT, REJECT, FAULT])
def test_a_bad_part_whose_edge_was_seen_late_is_ejected_for_as_long_as_it_may_be_there(encoder: bool, result: Result) -> None:
    """Seen 50 ms late, by 50 counts: it comes to the ejector 50 to 100 ms later. A good one must not let a neighbour through."""
    plc = Plc(results=pulsed(delay_ms=None, encoder_counts=100) if encoder else pulsed())
    plc.poll(encoder=0)
    plc.poll(ms=50, trigger=True, encoder=50)
    plc.decide(result)
    high = []
    for ms in range(1, 150):
        found = plc.poll(ms=1, trigger=False, encoder=50 + ms)
        high += [(ms, name) for name in ("accept", "reject") if found[name]]
    first, last = high[0][0], high[-1][0]
    assert {name for _, name in high} == {"accept" if result is ACCEPT else "reject"}
    assert (first, last) == pytest.approx((100, 119) if result is ACCEPT else (50, 119), abs=2)


def test_a_break_with_no_part_on_the_belt_is_no_fault() -> None:
    plc = Plc(results=pulsed())
    plc.handshake.resume(plc.inputs)
    plc.poll()
    assert plc.high() == {"ready"}


def _shown(plc: Plc, looks: int) -> list[tuple[float, set[str]]]:
    """What the PLC sees, and since when: milliseconds after the first poll."""
    began, seen = plc.now, []
    for _ in range(looks):
        plc.poll()
        high = plc.high() & {"accept", "reject", "result_valid"}
        if not seen or seen[-1][1] != high:
            seen.append(((plc.now - began) / MS, high))
    return seen


def _two_parts(first: Result, second: Result, apart_ms: float) -> Plc:
    plc = Plc(results=pulsed(width_ms=50))
    plc.poll(trigger=True)
    plc.decide(first)
    plc.poll(trigger=False)
    plc.poll(ms=apart_ms - 2, trigger=True)
    plc.decide(second)
    plc.poll(trigger=False)
    return plc


def test_result_valid_falls_between_two_pulses_that_touch() -> None:
    """What is written in several requests must not show the next part's number with the last one's verdict."""
    seen = [high for _, high in _shown(_two_parts(ACCEPT, REJECT, 20), 100)]
    assert seen == [set(), {"accept", "result_valid"}, set(), {"reject", "result_valid"}, set()]


def test_a_reject_keeps_its_width_against_a_good_part_and_not_against_a_bad_one() -> None:
    for second, width_ms in ((ACCEPT, 50.0), (REJECT, 20.0)):
        seen = _shown(_two_parts(REJECT, second, 20), 120)
        (began, first), (ended, low) = seen[1], seen[2]
        assert (first, low) == ({"reject", "result_valid"}, set())
        assert abs(ended - began - width_ms) <= 4.0
        assert seen[3][1] == {"accept" if second is ACCEPT else "reject", "result_valid"}


def test_without_reset_fault_a_late_verdict_s_fault_ends_with_its_pulse() -> None:
    plc = Plc(results=pulsed(), has_reset=False)
    plc.poll(trigger=True)
    plc.poll(ms=101, trigger=False)
    assert {plc.poll()["fault_code"] for _ in range(5)} == {StationFault.LATE_FOR_PULSE}
    assert plc.handshake.problem is not None, "while the pulse stands"
    plc.poll(ms=20)
    plc.poll()
    assert plc.handshake.problem is None and plc.handshake.ready


def test_without_reset_fault_each_break_is_a_fault_of_a_second() -> None:
    plc = Plc(results=pulsed(), has_reset=False)
    for _ in range(2):
        plc.poll(trigger=True)
        plc.decide(REJECT)
        plc.poll(trigger=False)
        plc.handshake.resume(plc.inputs)
        assert plc.poll()["fault_code"] == StationFault.PASSED_UNTOLD
        assert plc.poll(ms=990)["fault_code"] == StationFault.PASSED_UNTOLD
        plc.poll(ms=20)
        assert plc.poll()["fault_code"] == 0
