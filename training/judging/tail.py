"""Where the scores of good parts end: an exponential tail over the upper scores, with the odd ones set apart.

The stated false-reject rate asks for a quantile that so few images hold one part, or none, beyond it: its order statistic is whatever that
one part happens to be. Scores beyond a high level of any usual distribution fall off exponentially to first order (Pickands 1975,
"Statistical inference using extreme order statistics": the generalised Pareto law; shape 0 is taken, since few exceedances say next to
nothing of a shape). So the quantile is read off all of the upper scores instead:

    t(rate) = u + mean excess over u x ln(share above u / rate)

Inside of the sample the same line is used, so that one part more or less moves it little. The largest CENSORED of the exceedances count as
parts beyond the others, but not by how far (the maximum-likelihood mean of a censored exponential sample): where the tail is exponential
this changes nothing but the noise, and one oddly lying part moves the threshold by its rank alone.

Odd ones, two ways in which a score is unlike the others:

gap     The spacings of an exponential sample, times the rank from the top, are independent and exponential themselves (Rényi 1953). One
        that is GAP times their mean or more sets everything above it apart.
many    Where bad parts were mixed in there is no gap, but the upper scores are more than the lower ones let expect. The logarithm of the
        lower BODY of the scores, taken as that part of a normal sample, gives each score a tail probability; those that the procedure of
        Benjamini and Hochberg (1995) finds at a false-discovery rate of FDR are odd. Up to MANY of all images they are the tail that good
        parts have: named, and counted like all others. Beyond it they are held for bad ones, but for a share of FDR.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

TOP = 0.2
"""Share of the scores that make the tail, at most: of many, fewer do, FEWER n^0.6, since the model is the better the farther out."""
FEWER = 1.5
LEAST_TOP = 16
"""Scores that make it at the least, where so many are there."""
MOST_TOP = 0.4
"""The lower part is no tail, however few the scores are."""
CENSORED = 0.2
"""Share of these whose distance does not count."""
GAP = 7.0
"""Chance of a gap of that size at a given place: e^-7, 0.0009."""
BODY = 0.8
FDR = 0.2
MANY = 0.065
"""Clean sets were named up to 0.06 (magnetic tiles, whose good ones have a long tail), sets with a tenth of bad images 0.07 to 0.12."""
LEAST_MANY = 5
MOST = 0.3
"""More than this share of the images is never odd: it is what the product looks like."""
LEAST = 8
"""Scores below which nothing is called odd."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Odd:
    """Which of N scores are unlike the others."""

    named: npt.NDArray[np.bool_]
    """(N,) worth a look."""
    many: bool = False
    """They are more than good parts explain: most of `named` are held for bad, and do not say where good ends."""


def find_odd(scores: Array) -> Odd:
    """`scores`: (N,) held-out scores of images that are said to be good, finite."""
    n = len(scores)
    if n < LEAST or scores.min() <= 0 or np.ptp(scores) == 0:
        return Odd(np.zeros(n, dtype=bool))
    many = _many(scores)
    return Odd(many | _gap(scores), bool(many.sum() > max(MANY * n, LEAST_MANY)))


def tail_quantile(scores: Array, rate: float, apart: int = 0) -> float:
    """The score that a good part exceeds with probability `rate`, 0 < rate <= 0.5.

    Args:
        scores: (N,) of images that are held for good, finite, at least 2.
        rate: stated false-reject rate.
        apart: further images that were set apart as odd; a share of FDR of them is held for good all the same, beyond the others.
    """
    inside = np.sort(scores)
    beyond = FDR * apart
    total = len(inside) + beyond
    k = max(LEAST_TOP, round(min(TOP * total, FEWER * total**0.6)))
    k = max(1, min(k, round(MOST_TOP * len(inside)), len(inside) - 1))
    level, excess = float(inside[-k - 1]), inside[-k:] - inside[-k - 1]
    share = (k + beyond) / total
    if rate >= share:  # not in the tail at all
        return float(np.quantile(inside, max(0.0, 1 - (rate * total - beyond) / len(inside)), method="median_unbiased"))
    seen = max(1, k - math.ceil(CENSORED * k))
    mean = (float(excess[:seen].sum()) + (k - seen + beyond) * float(excess[seen - 1])) / seen
    return level + mean * math.log(share / rate)


def _gap(scores: Array) -> npt.NDArray[np.bool_]:
    """What lies above the lowest gap in the upper tail that is no chance."""
    n = len(scores)
    order = np.argsort(scores)
    k = min(max(LEAST_TOP, round(TOP * n)), n - 1)
    rank = np.arange(k, 0, -1)  # of each spacing's upper score, from the top
    spacing = rank * np.diff(scores[order[-k - 1 :]])
    found = np.zeros(n, dtype=bool)
    # An exponential's mean from its median: the gap itself must not widen what is usual.
    usual = float(np.median(spacing)) / math.log(2)
    for i in range(k):
        if rank[i] <= TOP / 2 * n and spacing[i] > GAP * max(usual, 1e-12 * scores.max()):
            found[order[-rank[i] :]] = True
            break
    return found


def _many(scores: Array) -> npt.NDArray[np.bool_]:
    """Benjamini and Hochberg's discoveries against a log-normal fitted to the lower BODY of the scores."""
    n = len(scores)
    y = np.log(scores)
    ordered = np.sort(y)
    body = ordered[: max(4, int(BODY * n))]
    # Least squares through the normal scores of the lower part: right whatever lies above it.
    z = norm.ppf((np.arange(1, len(body) + 1) - 0.375) / (n + 0.25))
    slope, middle = np.polyfit(z, body, 1)
    p = norm.sf((y - middle) / max(slope, 1e-12))
    rank = np.argsort(p)
    passed = np.flatnonzero(p[rank] <= FDR * np.arange(1, n + 1) / n)
    found = np.zeros(n, dtype=bool)
    if len(passed) and passed[-1] + 1 <= MOST * n:
        found[rank[: passed[-1] + 1]] = True
    return found
