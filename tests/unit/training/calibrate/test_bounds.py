"""What so few images prove of a share, and how a share is said."""

import numpy as np
import pytest
from scipy.stats import binomtest

from training.calibrate.bounds import band_bound, clopper_pearson, order_bound, percent


@pytest.mark.parametrize("n", [40, 160, 400])
def test_a_bound_holds_for_the_threshold_that_looks_best_of_all(n: int) -> None:
    rng = np.random.default_rng(2)
    held = [all(1 - u < band_bound(n, above, 0.95) for above, u in enumerate(np.sort(rng.random(n))[::-1][: n // 8])) for _ in range(400)]
    assert 0.92 < np.mean(held) < 0.99
    assert all(band_bound(n, k, 0.95) > order_bound(n, k, 0.95) for k in range(5))


def test_bounds_are_clopper_pearsons() -> None:
    for k, n in ((0, 20), (3, 50), (20, 20)):
        assert clopper_pearson(k, n, 0.975) == pytest.approx(
            (binomtest(k, n).proportion_ci(0.95, "exact").low, binomtest(k, n).proportion_ci(0.95, "exact").high)
        )


def test_bounds_are_of_95_percent_where_nothing_else_is_said_and_whole_where_all_lie_above() -> None:
    assert clopper_pearson(3, 50) == clopper_pearson(3, 50, 0.95) != clopper_pearson(3, 50, 0.9)
    assert (order_bound(20, 20, 0.95), band_bound(20, 20, 0.95)) == (1.0, 1.0)
    assert order_bound(20, 19, 0.95) == pytest.approx(0.95 ** (1 / 20))


@pytest.mark.parametrize(
    ("share", "plain", "up", "down"),
    [
        (0.0, "0 %", "0 %", "0 %"), (1.0, "100 %", "100 %", "100 %"), (0.01, "1 %", "1 %", "1 %"), (0.0123, "1.2 %", "1.3 %", "1.2 %"),
        (0.0999, "10 %", "10 %", "9.9 %"), (0.991, "99.1 %", "100 %", "99 %"), (0.9999, "99.99 %", "100 %", "99 %"),
        (0.000456, "0.046 %", "0.046 %", "0.045 %"),
        (0.125, "12 %", "13 %", "12 %"),
    ],
)  # fmt: skip
def test_a_share_in_words_is_never_rounded_to_the_better(share: float, plain: str, up: str, down: str) -> None:
    assert (percent(share), percent(share, up=True), percent(share, down=True)) == (plain, up, down)
