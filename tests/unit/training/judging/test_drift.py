"""What the drift limits promise, by simulation: healthy lines keep still whatever their scores look like, others do not."""

import numpy as np
import pytest

from edge_runtime.errors import CalibrationError
from edge_runtime.records import Trend
from edge_runtime.station.drift import DriftWatch
from training.judging.drift import drift_limits


def over_limit(limits: object, parts: np.ndarray, accepted: np.ndarray) -> tuple[float, float]:
    """Shares of parts at which the last window of accepted (of all) parts is over its limit, in numpy, apart from DriftWatch."""
    kernel = np.ones(limits.window)  # type: ignore[attr-defined]
    above = np.convolve(parts[accepted] > limits.high, kernel)[: accepted.sum()] > limits.max_above + 0.5  # type: ignore[attr-defined]
    below = np.convolve(parts < limits.low, kernel)[: len(parts)] > limits.max_below + 0.5  # type: ignore[attr-defined]
    return float(above.mean()), float(below.mean())


@pytest.mark.parametrize("n", [12, 60, 400])
def test_a_healthy_line_is_over_its_limits_no_more_often_than_stated(n: int) -> None:
    """Over many calibrations, each with a line of its own; the stated probability is raised so that it can be measured."""
    rng = np.random.default_rng(n)
    up, down = [], []
    for _ in range(400):
        limits = drift_limits(rng.lognormal(size=n), window=50, false_alarm=0.02)
        assert limits is not None
        line = rng.lognormal(size=1000)
        a, b = over_limit(limits, line, line < np.exp(2.33))
        up.append(a)
        down.append(b)
    deviation = 3 * float(np.std(up)) / np.sqrt(len(up))
    assert np.mean(up) <= 0.02 + deviation
    assert np.mean(down) <= 0.02


@pytest.mark.slow
def test_the_limit_is_not_wider_than_it_must_be() -> None:
    """All parts counted, one count less as the limit: more false alarms than stated."""
    rng = np.random.default_rng(5)
    rates = np.zeros(2)
    for _ in range(3000):
        limits = drift_limits(rng.normal(10, 1, 80), window=50, false_alarm=0.02)
        assert limits is not None
        count = int((rng.normal(10, 1, 50) > limits.high).sum())
        rates += [count > limits.max_above, count > limits.max_above - 1]
    stated, tighter = rates / 3000
    assert stated <= 0.02 < tighter


def test_a_line_that_moves_by_one_deviation_is_noticed_within_a_window() -> None:
    rng = np.random.default_rng(1)
    limits = drift_limits(rng.normal(10, 1, 400))
    assert limits is not None
    assert (limits.window, limits.n_good, limits.false_alarm) == (200, 400, 1e-5)
    assert limits.max_above < 60 and limits.max_below == 100  # down: the window's median
    watch = DriftWatch(limits)
    for score in rng.normal(10, 1, 2000):
        watch.add(float(score), accepted=True)
        assert watch.state.trend is Trend.OK
    for score in rng.normal(11, 1, 200):
        watch.add(float(score), accepted=score < 12.3)
    assert watch.state.trend is Trend.UP
    blind = DriftWatch(limits)
    for _ in range(limits.max_below + 1):
        blind.add(3.0, accepted=True)
    assert blind.state.trend is Trend.DOWN


def test_fewer_held_out_images_give_wider_limits_and_too_few_none() -> None:
    widths = [limits.max_above for n in (3, 10, 40, 200, 1000) if (limits := drift_limits(np.linspace(1, 2, n))) is not None]
    assert len(widths) == 5 and widths == sorted(widths, reverse=True)
    assert drift_limits(np.array([1.0, 2.0])) is None and drift_limits(np.zeros(0)) is None


def test_equal_scores_and_broken_ones() -> None:
    limits = drift_limits(np.full(50, 4.0))
    assert limits is not None and (limits.low, limits.median, limits.high) == (4.0, 4.0, 4.0)
    with pytest.raises(CalibrationError, match="not finite"):
        drift_limits(np.array([1.0, np.nan, 2.0]))
