"""What a station's process says to the system that runs it."""

import logging
import subprocess
import sys

import pytest

from edge_runtime.station.process import _Prefixed
from tests.support.waiting import BUSY_S


@pytest.mark.parametrize(("level", "priority"), [(logging.INFO, "<6>"), (logging.WARNING, "<4>"), (logging.ERROR, "<3>")])
def test_every_line_of_the_log_carries_its_priority(level: int, priority: str) -> None:
    """`journalctl -p warning` must find what somebody should look at."""
    lines = _Prefixed().format(logging.LogRecord("x", level, __file__, 1, "first\nsecond", None, None)).split("\n")
    assert [line.removeprefix(priority) for line in lines] == ["first", "second"]


@pytest.mark.slow
def test_a_log_that_nobody_reads_keeps_no_process_from_its_end() -> None:
    code = (
        "import logging\nfrom edge_runtime.station.process import logging_aside\n"
        "with logging_aside():\n    for i in range(3000): logging.info('x' * 200)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process:
        try:
            assert process.wait(BUSY_S) == 0
        finally:
            process.kill()
            said = process.stderr.read() if process.stderr else b""
    assert said.startswith(b"INFO xxx")
    assert b"Traceback" not in said


@pytest.mark.slow
def test_a_station_may_have_more_connections_than_the_usual_soft_limit() -> None:
    code = (
        "from resource import *\nfrom edge_runtime.station.process import allow_descriptors\n"
        "setrlimit(RLIMIT_NOFILE, (64, 128))\nallow_descriptors()\nprint(getrlimit(RLIMIT_NOFILE)[0])\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "128\n"
