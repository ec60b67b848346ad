"""Confidence bounds of rates that were seen, whatever the scores' distribution."""

import math
from functools import cache

import numpy as np
from scipy.special import betainc, betaincinv

BAND = 0.2
BAND_MOST = 100
BAND_DRAWS = 2_000
_EPS = 1e-9


def order_bound(n: int, above: int, confidence: float) -> float:
    """Upper confidence bound of the rate at which new scores exceed a threshold that `above` of n scores lie beyond, where it was settled
    beforehand how many that would be: Beta(above + 1, n - above) quantile (Wilks 1941).

    >>> round(order_bound(n=100, above=0, confidence=0.95), 4)  # none of 100 rejected: with 95 % confidence at most 3 % are
    0.0295
    """
    return float(betaincinv(above + 1, n - above, confidence)) if above < n else 1.0


def band_bound(n: int, above: int, confidence: float) -> float:
    """The same where the scores themselves had a say in it: it holds for all thresholds at once that leave BAND of the scores above,
    BAND_MOST at the most (or `above`, where that is more), or fewer.

    `order_bound` at a higher confidence, the same for each number above (Berk and Jones 1979, "Goodness-of-fit test statistics that
    dominate the Kolmogorov statistics": equal tails of the order statistics), such that the whole band is left with 1 - `confidence`.
    """
    return order_bound(n, above, _each_confidence(n, max(above + 1, min(BAND_MOST, math.ceil(BAND * n))), confidence))


@cache
def _each_confidence(n: int, highest: int, confidence: float) -> float:
    """The confidence that each of the `highest` largest of n uniform scores needs, so that all their bounds hold together: simulated."""
    highest = min(highest, n)
    below = np.arange(n, n - highest, -1)
    # Order statistics from the top: the logarithms' spacings are independent exponentials (Rényi 1953).
    logs = np.cumsum(np.random.default_rng(0).exponential(size=(BAND_DRAWS, highest)) / below, axis=1)
    rank = np.arange(highest)
    return float(np.quantile(betainc(rank + 1, n - rank, -np.expm1(-logs)).max(axis=1), confidence))


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """(lower, upper) one-sided bounds of a probability seen k times of n, each at `confidence` (Clopper and Pearson 1934).

    >>> [round(bound, 3) for bound in clopper_pearson(2, 50)]
    [0.007, 0.121]
    """
    lower = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, 1 - confidence))
    return lower, 1.0 if k == n else float(betaincinv(k + 1, n - k, confidence))


def percent(share: float, *, up: bool = False, down: bool = False) -> str:
    """A share in words, everywhere: two figures; never nothing for something, nor all for nearly all. An upper bound is never rounded down
    (`up`), a lower one never up (`down`).

    >>> percent(0.833), percent(0.0167), percent(0.9996), percent(0.0723), percent(0.0723, up=True)
    ('83 %', '1.7 %', '99.96 %', '7.2 %', '7.3 %')
    """
    value = share * 100
    if (up or down) and value > 0:
        digits = 1 - math.floor(math.log10(value))
        scaled = value * 10**digits
        value = (math.ceil(scaled - _EPS) if up else math.floor(scaled + _EPS)) / 10**digits
    elif 99 < value < 100:
        return f"{math.floor(value * 100 + _EPS) / 100:g} %"
    return f"{float(f'{value:.2g}'):g} %"
