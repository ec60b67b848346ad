"""Which part the PLC still waits for: by the part's name and the outputs as they were left, or not at all."""

import pytest

from edge_runtime.plc.comeback import Comeback
from edge_runtime.plc.handshake import Inputs


@pytest.mark.parametrize("part", ["", "0"])
def test_a_part_without_a_name_is_never_the_last_one(part: str) -> None:
    comeback = Comeback()
    comeback.last, comeback.left = part, {part: (3, False)}
    high = Inputs(trigger=True, part_id=part)
    assert not comeback.goes_on(high, seen=True)
    assert comeback.waits_since_a_kill(high, lambda: True) is None


def test_the_part_under_a_trigger_that_was_acknowledged_goes_on() -> None:
    comeback = Comeback()
    comeback.last = "17"
    assert comeback.goes_on(Inputs(trigger=True, part_id="17"), seen=True)
    assert not comeback.goes_on(Inputs(trigger=True, part_id="17"), seen=False), "it fell in between"
    assert not comeback.goes_on(Inputs(trigger=False, part_id="17"), seen=True)
    assert not comeback.goes_on(Inputs(trigger=True, part_id="18"), seen=True)


@pytest.mark.parametrize(
    ("trigger", "acknowledge", "decided", "busy", "waits"),
    [
        (True, False, False, False, True), (True, False, True, True, True), (True, False, True, False, False),
        (False, False, False, True, True), (False, False, True, True, True), (False, False, False, False, False),
        (False, True, False, True, False),
    ],
)  # fmt: skip
def test_who_waits_since_a_kill_is_told_by_trigger_and_busy(
    trigger: bool, acknowledge: bool, decided: bool, busy: bool, waits: bool
) -> None:
    comeback = Comeback()
    comeback.left = {"17": (3, decided)}
    assert comeback.waits_since_a_kill(Inputs(trigger, acknowledge, part_id="17"), lambda: busy) == (3 if waits else None)
    assert comeback.waits_since_a_kill(Inputs(trigger, acknowledge, part_id="18"), lambda: busy) is None, "it has turned to another part"
