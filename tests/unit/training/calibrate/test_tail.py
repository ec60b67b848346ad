"""Where good ends, when few images say so, one of them lies oddly, or a tenth of them is bad."""

import numpy as np
import pytest

from training.calibrate.rules import Rule, Scores, apply_rule
from training.calibrate.tail import find_odd, tail_quantile

POPULATIONS = {
    "gamma": lambda rng, n: rng.gamma(20, 0.9, n),
    "normal": lambda rng, n: rng.normal(20, 3, n),
    "lognormal": lambda rng, n: rng.lognormal(3, 0.3, n),
    "exponential": lambda rng, n: 10 + rng.exponential(3, n),
}


def rejected(population: str, n: int, rate: float) -> float:
    """Share of new good parts beyond the threshold, on the average of 200 draws of n."""
    rng, draw = np.random.default_rng(1), POPULATIONS[population]
    fresh = np.sort(draw(rng, 200_000))
    return float(np.mean([1 - np.searchsorted(fresh, tail_quantile(draw(rng, n), rate)) / len(fresh) for _ in range(200)]))


@pytest.mark.parametrize("n", [40, 160, 600])
@pytest.mark.parametrize("rate", [0.01, 0.03])
def test_over_products_of_all_kinds_good_parts_are_rejected_about_as_often_as_stated(n: int, rate: float) -> None:
    assert 0.7 * rate < np.mean([rejected(population, n, rate) for population in POPULATIONS]) < 1.5 * rate


@pytest.mark.parametrize("population", POPULATIONS)
def test_many_images_say_what_the_tail_is_like(population: str) -> None:
    assert 0.6 * 0.01 < rejected(population, 2000, 0.01) < 1.3 * 0.01


def test_one_part_that_lies_oddly_does_not_set_the_threshold() -> None:
    good = np.random.default_rng(0).gamma(20, 0.9, 157).clip(max=28.5)
    odd = np.concatenate([good, [33.3, 34.7, 40.8]])
    tame = np.concatenate([good, [28.6, 28.7, 28.8]])
    assert tail_quantile(odd, 0.01) < 1.05 * tail_quantile(tame, 0.01) < 33
    assert np.sort(odd)[-2] > 34  # what the order statistic would take lies far beyond


def test_a_score_behind_a_gap_is_named_and_still_counts() -> None:
    scores = np.append(np.random.default_rng(2).normal(20, 2, 159), 60.0)
    found = find_odd(scores)
    assert found.named.tolist() == [False] * 159 + [True] and not found.many


def test_usual_tails_are_seldom_called_odd() -> None:
    rng = np.random.default_rng(3)
    shares = [find_odd(draw(rng, n)).named.mean() for draw in list(POPULATIONS.values())[:2] for n in (40, 160, 400) for _ in range(50)]
    assert np.mean(shares) < 0.01


def test_a_tenth_of_bad_images_is_seen_and_moves_the_threshold_little() -> None:
    rng = np.random.default_rng(4)
    good, bad = rng.gamma(20, 0.9, 270), rng.gamma(20, 2.2, 30)
    mixed = np.concatenate([good, bad])
    found = find_odd(mixed)
    assert found.many and found.named[270:].mean() >= 0.7
    left = mixed[~found.named]
    assert tail_quantile(left, 0.01, int(found.named.sum())) < 1.15 * tail_quantile(good, 0.01)


def test_the_bound_rests_on_no_model_of_the_tail() -> None:
    rng = np.random.default_rng(5)
    held, rates = 0, []
    for _ in range(300):
        scores = rng.lognormal(size=150)  # a far heavier tail than an exponential one
        threshold, _ = apply_rule(Rule(kind="false_reject_rate", target=0.02), Scores(scores, scores, scores))
        true = float((rng.lognormal(size=4000) > threshold.value).mean())
        rates.append(true)
        assert threshold.false_reject_upper is not None
        held += true <= threshold.false_reject_upper
    assert np.mean(rates) > 0.022  # the model is wrong here, and the bound says so
    assert held / 300 > 0.92
