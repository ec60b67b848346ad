"""What a threshold promises, and when it must not be given."""

import numpy as np
import pytest

from edge_runtime.errors import CalibrationError
from training.calibrate import Rule, Scores, apply_rule, default_rule, upper_bound


def scores(values: object) -> Scores:
    s = np.asarray(values, dtype=np.float64)
    return Scores(s, s * 2, s / 4)


def rate(target: float) -> Rule:
    return Rule(kind="false_reject_rate", target=target)


def test_the_threshold_is_the_conformal_order_statistic() -> None:
    good = np.arange(1, 200, dtype=float)  # n = 199: k = ceil(200 * 0.95) = 190
    threshold, display = apply_rule(rate(0.05), scores(np.random.default_rng(0).permutation(good)))
    assert (threshold.value, threshold.map_value) == (190.0, 380.0)
    assert threshold.n_good == 199 and threshold.false_reject_rate == 0.05
    assert display.high == 760.0 and display.low == 25.0


def test_new_good_parts_are_rejected_no_more_often_than_stated() -> None:
    rng = np.random.default_rng(1)
    true_rates = []
    bound_held = 0
    for _ in range(400):
        threshold, _ = apply_rule(rate(0.02), scores(rng.lognormal(size=150)))
        fresh = rng.lognormal(size=4000)
        true_rates.append(float((fresh > threshold.value).mean()))
        assert threshold.false_reject_upper is not None
        bound_held += true_rates[-1] <= threshold.false_reject_upper
    assert np.mean(true_rates) <= 0.022
    assert bound_held / 400 > 0.92


def test_the_upper_bound_is_the_rule_of_three_for_the_maximum() -> None:
    assert upper_bound(100, 100, 0.95) == pytest.approx(1 - 0.05 ** (1 / 100))
    threshold, _ = apply_rule(rate(0.01), scores(np.linspace(1, 2, 176)))
    assert "at most 1.7 % at 95 % confidence from 176 good images" in threshold.rule


def test_a_rate_that_the_images_cannot_support_is_refused_with_both_ways_out() -> None:
    with pytest.raises(CalibrationError, match=r"98 good images support 1\.1 %.*1 %.*needs 99 good images"):
        apply_rule(rate(0.01), scores(np.linspace(1, 2, 98)))
    threshold, _ = apply_rule(rate(0.01), scores(np.linspace(1, 2, 99)))
    assert threshold.value == 2.0


@pytest.mark.parametrize("n", [2, 7, 40, 98, 99, 176, 2000])
def test_the_default_rule_is_always_supported(n: int) -> None:
    threshold, _ = apply_rule(default_rule(n), scores(np.linspace(1, 2, n)))
    assert threshold.false_reject_rate == max(0.01, 1 / (n + 1))


@pytest.mark.parametrize("target", [0.0, -0.1, 0.7, float("nan"), None])
def test_an_impossible_rate_is_refused(target: float | None) -> None:
    with pytest.raises(CalibrationError, match="false-reject rate"):
        apply_rule(Rule(kind="false_reject_rate", target=target), scores(np.ones(500)))


def test_maximum_f1_equals_trying_every_threshold() -> None:
    rng = np.random.default_rng(3)
    good, bad = rng.normal(5, 1, 80), rng.normal(7, 1, 30)
    threshold, _ = apply_rule(Rule(kind="max_f1"), scores(good), scores(bad))

    def f1(t: float) -> float:
        caught, false = (bad > t).sum(), (good > t).sum()
        return 2 * caught / (2 * caught + false + (len(bad) - caught))

    assert f1(threshold.value) == max(f1(t) for t in np.concatenate([good, bad]))
    assert threshold.map_value == pytest.approx(2 * threshold.value)
    assert threshold.value not in good and threshold.value not in bad
    assert threshold.n_bad == 30 and threshold.false_reject_rate is None


def test_of_equal_f1_the_middle_of_the_gap_is_taken() -> None:
    threshold, _ = apply_rule(Rule(kind="max_f1"), scores([1, 2, 3]), scores([7, 8]))
    assert threshold.value == 5.0


@pytest.mark.parametrize("recall", [0.5, 0.9, 0.95, 1.0])
def test_recall_is_reached_with_the_fewest_false_rejects(recall: float) -> None:
    rng = np.random.default_rng(4)
    good, bad = rng.normal(5, 1, 200), rng.normal(6.5, 1, 60)
    threshold, _ = apply_rule(Rule(kind="recall", target=recall), scores(good), scores(bad))
    assert (bad > threshold.value).mean() >= recall
    higher = [t for t in np.concatenate([good, bad]) if t > threshold.value and (bad > t).mean() >= recall]
    assert all((good > t).sum() == (good > threshold.value).sum() for t in higher)
    observed = float((good > threshold.value).mean())
    assert threshold.false_reject_upper is not None and threshold.false_reject_upper > observed


def test_rules_on_bad_images_need_some() -> None:
    with pytest.raises(CalibrationError, match="--bad"):
        apply_rule(Rule(kind="max_f1"), scores([1, 2]))


def test_a_threshold_from_the_test_split_says_so() -> None:
    threshold, _ = apply_rule(Rule(kind="max_f1", from_test_split=True), scores([1, 2]), scores([5, 6]))
    assert threshold.from_test_split and "test split" in threshold.rule


def test_scores_that_are_no_numbers_or_all_zero_are_refused() -> None:
    with pytest.raises(CalibrationError, match="not finite"):
        apply_rule(rate(0.1), scores([1.0] * 50 + [np.nan]))
    with pytest.raises(CalibrationError, match="above 0"):
        apply_rule(rate(0.1), scores(np.zeros(50)))
