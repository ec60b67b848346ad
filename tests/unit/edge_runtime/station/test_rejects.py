"""A station that rejects most parts says so, and is quiet on a line that makes some bad ones."""

import logging

import numpy as np
import pytest

from edge_runtime.records import Verdict
from edge_runtime.station.rejects import WINDOW, RejectWatch

A, R, F = Verdict.ACCEPT, Verdict.REJECT, Verdict.FAULT


def told(watch: RejectWatch, *verdicts: Verdict) -> str | None:
    for verdict in verdicts:
        watch.add(verdict)
    return watch.problem


def test_most_parts_rejected_is_a_problem_before_the_window_is_full() -> None:
    watch = RejectWatch(20)
    assert told(watch, *[R] * 19) is None
    assert "20 of the last 20 parts are rejected" in str(told(watch, R))


def test_it_ends_when_half_as_many_are_rejected_and_is_logged_once_each_way(caplog: pytest.LogCaptureFixture) -> None:
    watch = RejectWatch(20)
    with caplog.at_level(logging.WARNING):
        told(watch, *[R] * WINDOW)
        assert told(watch, *[A] * 19) is not None  # 11 of 30
        assert told(watch, A) is None
    assert len(caplog.messages) == 2 and "accepted again" in caplog.messages[1]


def test_faults_are_no_rejects_and_end_nothing() -> None:
    watch = RejectWatch(20)
    assert told(watch, *[F] * 100) is None
    told(watch, *[R] * 20)
    assert told(watch, *[F] * 100) is not None


def test_other_models_begin_anew() -> None:
    watch = RejectWatch(20)
    told(watch, *[R] * 20)
    watch.forget()
    assert watch.problem is None and told(watch, *[R] * 19) is None


def test_a_line_that_makes_two_bad_parts_in_ten_is_left_alone() -> None:
    watch, rng = RejectWatch(20), np.random.default_rng(0)
    assert all(told(watch, R if bad else A) is None for bad in rng.random(100_000) < 0.2)


def test_nothing_is_said_where_nobody_wants_it() -> None:
    assert told(RejectWatch(0), *[R] * 100) is None
