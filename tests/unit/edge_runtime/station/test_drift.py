"""A line that strays from what it was calibrated on is noticed; bad parts, and healthy lines, are not taken for that."""

import json
import logging
import time
from dataclasses import asdict

import msgspec
import numpy as np
import pytest

from edge_runtime import wire
from edge_runtime.model.manifest import Drift
from edge_runtime.records import Decision, DriftState, Health, State, Trend, Verdict
from edge_runtime.station.drift import DriftWatch
from edge_runtime.station.health import HealthMonitor
from tests.support.decisions import decision_with

LIMITS = Drift(low=1.0, median=2.0, high=3.0, share=0.1, window=20, max_above=8, max_below=10, false_alarm=1e-5, n_good=500)


def monitor(drift: DriftWatch | None) -> HealthMonitor:
    return HealthMonitor(station="s", recipes=("r",), bundle_ids=("b",), device="CPU", drifts={("", "b"): drift} if drift else None)


def decision(seq: int, verdict: Verdict, score: float | None) -> Decision:
    return decision_with(recipe="r", bundle_id="b", seq=seq, verdict=verdict, score=score)


def test_a_line_that_drifts_up_is_told_once_and_once_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    watch = DriftWatch(LIMITS)
    with caplog.at_level(logging.WARNING):
        for _ in range(8):
            watch.add(3.5, accepted=True)
        assert watch.state.trend is Trend.OK and watch.problem is None and not caplog.records
        for _ in range(12):
            watch.add(3.5, accepted=True)
        assert watch.state.trend is Trend.UP
        assert watch.problem is not None
        assert "20 of the last 20 accepted parts score above 3" in watch.problem and "at most 8" in watch.problem
        for _ in range(14):  # back to 6 of 20: below the limit, not yet half-way to the 2 that are usual
            watch.add(2.0, accepted=True)
        assert watch.state.trend is Trend.UP
        watch.add(2.0, accepted=True)
        assert watch.state.trend is Trend.OK and watch.problem is None
    assert len(caplog.records) == 2
    assert "drift up" in caplog.records[0].message and "again" in caplog.records[1].message


def test_a_blind_camera_is_a_drift_down() -> None:
    watch = DriftWatch(LIMITS)
    for _ in range(11):
        watch.add(0.1, accepted=True)
    assert watch.state.trend is Trend.DOWN
    assert watch.problem is not None and "below 1" in watch.problem and "camera" in watch.problem
    for _ in range(15):
        watch.add(2.0, accepted=True)
    assert watch.state.trend is Trend.OK


def test_a_run_of_bad_parts_is_no_drift() -> None:
    watch = DriftWatch(LIMITS)
    for _ in range(50):
        watch.add(50.0, accepted=False)
    assert watch.state == DriftState(Trend.OK, above=0, below=0, accepted=0, judged=20, median=None, usual_median=2.0)


def test_the_window_forgets() -> None:
    watch = DriftWatch(LIMITS)
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.5, 3.5, 500)
    for score in scores:
        watch.add(float(score), accepted=True)
    last = scores[-20:]
    state = watch.state
    assert (state.above, state.below, state.accepted, state.judged) == (int((last > 3).sum()), int((last < 1).sum()), 20, 20)
    assert state.median == pytest.approx(float(np.median(last)), abs=1e-6)


def test_health_says_it_and_faults_do_not_count() -> None:
    m = monitor(DriftWatch(LIMITS))
    m.ready()
    for seq in range(1, 10):
        m.decided(decision(seq, Verdict.FAULT, None), 0, 0, 0)
    health = m.snapshot()
    assert health.state is State.READY and health.drift is not None and health.drift.judged == 0
    for seq in range(10, 19):
        m.decided(decision(seq, Verdict.ACCEPT, 3.5), 0, 0, 0)
    health = m.snapshot()
    assert health.state is State.DEGRADED and health.drift is not None and health.drift.trend is Trend.UP
    assert any("drift up" in p for p in health.problems)
    assert wire.decode_health(wire.encode_health(health)) == health
    assert monitor(None).snapshot().drift is None


def test_a_listener_understands_a_station_that_says_nothing_of_drift() -> None:
    """And one that knows no such field is not disturbed by it."""
    old = asdict(Health("s", State.READY, (), ("b",), ("r",), "CPU", 1.0, {}, {}, 9, "2026"))
    del old["drift"]
    payload = msgspec.msgpack.encode({"schema": wire.SCHEMA, "run": "", "first_seq": 1, "health": old})
    assert wire.decode_health([wire.HEALTH, b"s", payload]).drift is None
    old["a field of a later version"] = {"x": 1}
    payload = msgspec.msgpack.encode({"schema": wire.SCHEMA, "run": "", "first_seq": 1, "health": old})
    assert wire.decode_health([wire.HEALTH, b"s", payload]).last_seq == 9


def test_limits_survive_the_manifest() -> None:
    assert msgspec.json.decode(json.dumps(json.loads(msgspec.json.encode(LIMITS))), type=Drift) == LIMITS


def test_watching_costs_next_to_nothing() -> None:
    watch = DriftWatch(msgspec.structs.replace(LIMITS, window=200))
    scores = np.random.default_rng(0).uniform(1, 3, 20_000).tolist()
    best = np.inf
    for chunk in range(0, len(scores), 2000):
        began = time.perf_counter()
        for score in scores[chunk : chunk + 2000]:
            watch.add(score, True)
        best = min(best, (time.perf_counter() - began) / 2000)
    assert best < 20e-6
