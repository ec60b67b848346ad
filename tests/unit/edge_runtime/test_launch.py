"""What a station's process says to the system that runs it."""

import logging

import pytest

from edge_runtime.launch import _Prefixed


@pytest.mark.parametrize(("level", "priority"), [(logging.INFO, "<6>"), (logging.WARNING, "<4>"), (logging.ERROR, "<3>")])
def test_every_line_of_the_log_carries_its_priority(level: int, priority: str) -> None:
    """`journalctl -p warning` must find what somebody should look at."""
    lines = _Prefixed().format(logging.LogRecord("x", level, __file__, 1, "first\nsecond", None, None)).split("\n")
    assert [line.removeprefix(priority) for line in lines] == ["first", "second"]
