"""Where good ends, when few images say so, one of them lies oddly, or a tenth of them is bad."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from training.calibrate import tail
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


def alike(n: int, *others: float) -> np.ndarray:
    """Scores of a product whose parts are all alike, as they were on a drawn one: a standard deviation of 5 %, and a few a fifth above."""
    body = 11.3 * np.exp(0.053 * norm.ppf((np.arange(1, n - 3) - 0.5) / n))
    return np.concatenate([body, [13.78, 13.91, 13.92, 15.72], others])


def test_where_parts_are_alike_one_bad_one_makes_not_many_odd_ones_and_a_tenth_of_bad_ones_does() -> None:
    found = find_odd(alike(90, 82.3))
    assert not found.many and found.named[-1] and found.named.sum() <= 5
    assert not find_odd(alike(90)).many
    found = find_odd(alike(81, *np.linspace(25, 80, 9)))
    assert found.many and found.named[-9:].all() and found.named[:-9].sum() <= 5


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


def normal_scores(n: int, total: float) -> np.ndarray:
    """Where the lowest n of a perfect normal sample of `total` lie (Blom 1958)."""
    return norm.ppf((np.arange(1, n + 1) - 0.375) / (total + 0.25))


@pytest.mark.parametrize(
    ("n", "apart", "rate", "expected"),
    [
        # The highest 16 of 40, of which 11 count by their excess, 1 + ... + 11, and 5 by the eleventh's: mean 11 above 23.
        (40, 0, 0.01, 23 + 11 * math.log(16 / 40 / 0.01)),
        # A fifth of those set apart lies beyond them: 2 more by the eleventh's, mean 13, of 42 in all.
        (40, 10, 0.01, 23 + 13 * math.log(18 / 42 / 0.01)),
        # Of few, four tenths: 4 of 10, the first two of which count, 1 + 2, and two more by the second's.
        (10, 0, 0.05, 5 + 3.5 * math.log(4 / 10 / 0.05)),
        # Of many, 1.5 n^0.6: 62 of 500, the first 43 of which count.
        (500, 0, 0.001, 437 + (43 * 44 / 2 + 19 * 43) / 43 * math.log(62 / 500 / 0.001)),
        # A rate that is not in the tail: an ordinary quantile, at 40 1/3 x 0.55 + 1/3 from below.
        (40, 0, 0.45, (40 + 1 / 3) * 0.55 + 1 / 3 - 1),
        (40, 10, 0.5, (40 + 1 / 3) * (1 - (0.5 * 42 - 2) / 40) + 1 / 3 - 1),
        (2, 0, 0.01, 0 + 1 * math.log(1 / 2 / 0.01)),
    ],
)
def test_an_exponential_tail_is_worked_out_as_by_hand(n: int, apart: int, rate: float, expected: float) -> None:
    """Scores 0, 1, 2 …: with one that is not above 0 there is no logarithm, and the exponential stands alone."""
    scores = np.random.default_rng(6).permutation(np.arange(n, dtype=float))
    assert tail_quantile(scores, rate, apart) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "beyond"), [(3, 0.0), (8, 0.0), (40, 0.0), (40, 2.0), (500, 10.0)])
def test_the_log_normal_model_is_exact_for_the_lower_part_of_such_a_sample_whatever_lies_above(n: int, beyond: float) -> None:
    inside = np.exp(3 + 0.3 * normal_scores(n, n + beyond))
    left = max(1, round(0.05 * n)) if n > 4 else 0
    for lifted in (1.0, 2.0):  # the topmost twentieth does not count
        inside[n - left :] *= lifted
        assert tail._log_normal(inside, beyond, 0.01) == pytest.approx(math.exp(3 + 0.3 * norm.isf(0.01)), rel=1e-9)


@pytest.mark.parametrize(("n", "weight"), [(40, 0.5), (300, 0.5), (900, 0.25)])
def test_up_to_300_images_both_models_weigh_the_same_and_beyond_the_second_as_much_as_so_many_would(n: int, weight: float) -> None:
    scores = np.random.default_rng(7).gamma(20, 0.9, n)
    inside = np.sort(scores)
    first, second = tail._exponential(inside, 1.0, 0.01), tail._log_normal(inside, 1.0, 0.01)
    assert abs(second / first - 1) > 1e-4
    assert tail_quantile(scores, 0.01, 5) == pytest.approx((1 - weight) * first + weight * second, rel=1e-12)


@pytest.mark.parametrize(("beyond", "jump", "named"), [(1, 94, 0), (1, 97, 1), (4, 40, 4), (5, 40, 0)])
def test_a_gap_is_seven_times_what_is_usual_with_a_tenth_of_the_scores_above_it_at_the_most(beyond: int, jump: float, named: int) -> None:
    """Spacings of 1 times 16, 15 … 2 have a median of 9.5, that of an exponential with mean 13.7: seven times that is 95.9."""
    scores = np.arange(1.0, 41.0)
    scores[40 - beyond :] += jump - 1
    order = np.random.default_rng(8).permutation(40)
    assert tail._gap(scores[order]).tolist() == (order >= 40 - named).tolist()
    if named:
        assert find_odd(scores[order]).named.tolist() == (order >= 40 - named).tolist()


def test_distances_are_those_of_the_normal_sample_that_the_lower_part_belongs_to() -> None:
    z = normal_scores(50, 50)
    scores = np.exp(2 + 0.1 * z)
    scores[-8:] *= 3  # the highest fifth does not count
    order = np.random.default_rng(9).permutation(50)
    found = tail._distances(scores[order])
    assert found == pytest.approx((z + np.where(np.arange(50) >= 42, math.log(3) / 0.1, 0))[order])


@pytest.mark.parametrize(
    ("tails", "n", "named"),
    [
        ([0.001, 0.0035, 0.0065, 0.0075], 100, 4),  # 0.2 x rank / n: the third is above its own, the fourth below
        ([0.001, 0.0035, 0.0065, 0.0085], 100, 2),
        ([0.0021], 100, 0),
        ([1e-6] * 3, 10, 3),
        ([1e-6] * 4, 10, 0),  # that many are what the product looks like
    ],
)
def test_discoveries_are_benjamini_and_hochbergs(tails: list[float], n: int, named: int) -> None:
    p = np.array(tails + [0.9] * (n - len(tails)))
    order = np.random.default_rng(10).permutation(n)
    assert tail._discoveries(norm.isf(p)[order]).tolist() == (order < named).tolist()


def test_of_seven_nothing_is_odd_and_of_eight_what_is_far_off() -> None:
    few = np.array([10.0, 11, 12, 13, 14, 15, 60])
    assert find_odd(few).named.tolist() == [False] * 7
    assert find_odd(np.array([*few[:6], 16, 60])).named.tolist() == [False] * 7 + [True]
    small = np.array([1.0, 1.001, 1.002, 1.003, 1.004, 1.005, 1.006, 2.0])
    for scores in (small, small / 10):
        assert find_odd(scores).named.tolist() == [False] * 7 + [True], "whatever the scores' unit"


@pytest.mark.parametrize("scores", [np.append(np.arange(20.0), 400), np.full(20, 3.0), np.append(np.full(20, -1.0), 400)])
def test_scores_that_have_no_logarithm_or_no_spread_name_nobody(scores: np.ndarray) -> None:
    found = find_odd(scores)
    assert found.named.dtype == bool and found.named.tolist() == [False] * len(scores) and not found.many


def test_what_more_than_a_third_of_the_images_looks_like_is_not_odd() -> None:
    rng = np.random.default_rng(0)
    assert not find_odd(np.concatenate([rng.lognormal(3, 0.05, 60), rng.lognormal(4, 0.05, 40)])).named.any()


def test_of_many_scores_a_tenth_may_lie_above_the_gap() -> None:
    scores = np.concatenate([np.linspace(1, 2, 370), np.linspace(3, 3.2, 30)])
    assert tail._gap(scores).tolist() == [False] * 370 + [True] * 30


def test_the_end_of_the_good_scores_moves_with_their_scale_and_with_those_set_apart() -> None:
    scores = np.random.default_rng(0).lognormal(3, 0.2, 100)
    end = tail_quantile(scores, 0.01)
    assert tail_quantile(scores / 1000, 0.01) == pytest.approx(end / 1000)
    assert tail_quantile(scores, 0.01, 0) == end < tail_quantile(scores, 0.01, 1)
