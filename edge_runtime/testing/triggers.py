"""What every trigger line must keep."""

import time
from collections.abc import Callable

from edge_runtime.protocols import TriggerLine
from edge_runtime.records import Trigger

FIRST_SEQ = 41
"""What the lines under test count from."""
_WITHIN_S = 2.0
_LEAVE_S = 5.0


class TriggerContract:
    """Derive a test class and give it two fixtures: `line`, not entered yet, whose triggers count from FIRST_SEQ, and `announce`, which is
    called as `announce(70001)` and lets the other side announce a part of that number, in its own time."""

    tells_part_ids = True
    """Set it to False for a line that says no part's number."""

    def test_triggers_count_from_the_given_number_and_carry_when_they_fired(
        self, line: TriggerLine, announce: Callable[[int], object]
    ) -> None:
        """`seq` counts up by one; `fired_ns` is CLOCK_MONOTONIC, of the edge."""
        with line:
            triggers = []
            before = time.monotonic_ns()
            for part in (70_001, 70_002, 70_003):
                announce(part)
                triggers.append(_next(line))
            assert line.problem is None and not line.exhausted
        assert [t.seq for t in triggers] == [FIRST_SEQ, FIRST_SEQ + 1, FIRST_SEQ + 2]
        assert before < triggers[0].fired_ns < triggers[1].fired_ns < triggers[2].fired_ns <= time.monotonic_ns()
        assert [t.part_id for t in triggers] == (["70001", "70002", "70003"] if self.tells_part_ids else [""] * 3)

    def test_waiting_ends_in_time_when_nothing_comes(self, line: TriggerLine) -> None:
        """The station's thread looks in between whether it shall stop. For a line that fires by itself, give another `line` here."""
        with line:
            began = time.monotonic()
            assert line.wait(0.1) is None
            assert 0.09 < time.monotonic() - began < 0.3

    def test_a_line_can_be_opened_again(self, line: TriggerLine, announce: Callable[[int], object]) -> None:
        """As `lineside check` does before the station."""
        for part in (1, 2):
            with line:
                announce(part)
                assert _next(line).fired_ns > 0

    def test_what_a_station_asks_is_answered(self, line: TriggerLine) -> None:
        """All that a base class has a default for, once entered; leaving takes a moment only."""
        with line:
            line.begin()
            assert line.exhausted is False
            assert line.problem is None or isinstance(line.problem, str)
            assert line.answer_timeout_ms >= 0
            assert all(isinstance(name, str) and count >= 0 for name, count in line.tallies.items())
            assert isinstance(line.end(), bool)
            began = time.perf_counter()
        assert time.perf_counter() - began < _LEAVE_S


def _next(line: TriggerLine) -> Trigger:
    until = time.monotonic() + _WITHIN_S
    while time.monotonic() < until:
        trigger = line.wait(0.1)
        if trigger is not None:
            return trigger
    raise AssertionError(f"no trigger: {line.problem}")
