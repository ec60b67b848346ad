"""How commands show that they live where nobody watches bars."""

import time

import pytest

from training.commands.console import lines


def test_a_pipe_gets_a_line_now_and_then_also_during_a_silent_step(capsys: pytest.CaptureFixture[str]) -> None:
    with lines(every_s=0.05) as progress:
        time.sleep(0.12)
        assert capsys.readouterr().err == ""  # nothing has begun
        progress("features", 3, 20)
        time.sleep(0.3)
    said = capsys.readouterr().err.splitlines()
    assert 2 <= len(said) <= 7 and all("features 3/20" in line for line in said)
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_a_step_that_is_over_is_not_told_as_what_runs_now(capsys: pytest.CaptureFixture[str]) -> None:
    with lines(every_s=0.05) as progress:
        progress("features", 20, 20)
        time.sleep(0.2)
    said = capsys.readouterr().err.splitlines()
    assert said and all(line.endswith("features: done, the next step runs") for line in said)
