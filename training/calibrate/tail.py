"""Where the scores of good parts end: a mean of two models of the upper tail, with the odd ones set apart.

The stated false-reject rate asks for a quantile that so few images hold one part, or none, beyond it: its order statistic is whatever that
one part happens to be. So it is read off many scores, by two models that err in different ways, and their mean is taken:

exponential  Scores beyond a high level of any usual distribution fall off exponentially to first order (Pickands 1975, "Statistical
             inference using extreme order statistics": the generalised Pareto law; shape 0 is taken, since few exceedances say next to
             nothing of a shape): t(rate) = u + mean excess over u x ln(share above u / rate). The largest CENSORED of them count as parts
             beyond the others, but not by how far (the maximum-likelihood mean of a censored exponential sample): one oddly lying part
             moves the threshold by its rank alone.
log-normal   All scores but the topmost BEYOND_BODY, as the lower part of a log-normal sample: least squares through the normal scores.

The first is right in the long run and noisy, the second is steady and takes all tails for alike: up to STEADY images both weigh the same,
beyond, the second as much as so many images would. On the sets of training/README.md the mean has less excess miss than either at equal
false rejects.

Odd ones, two ways in which a score is unlike the others:

gap     The spacings of an exponential sample, times the rank from the top, are independent and exponential themselves (Rényi 1953). One
        that is GAP times their mean or more sets everything above it apart.
many    Where bad parts were mixed in there is no gap, but the upper scores are more than the lower ones let expect. The logarithm of the
        lower BODY of the scores, taken as that part of a normal sample, gives each score its distance in standard deviations (of
        LEAST_SPREAD at the least). How many lie more than FAR of them off, and by how much (one at the most), on the average of all images:
        up to LIKELY + LIKELY_NOISE / sqrt(n) that is the tail that good parts have, and those beyond FAR are named and counted like all
        others. Above it, those that the procedure of Benjamini and Hochberg (1995) finds at a false-discovery rate of FDR are held for bad,
        but for a share of FDR.
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
CENSORED = 0.3
"""Share of these whose distance does not count."""
STEADY = 300
BEYOND_BODY = 0.05
"""Share of the scores, one at the least, that the log-normal does not follow."""
LEAST_BODY = 4
GAP = 7.0
"""Chance of a gap of that size at a given place: e^-7, 0.0009."""
BODY = 0.8
FDR = 0.2
FAR = 3.0
LEAST_SPREAD = 0.08
"""Standard deviation of the scores' logarithm that good parts are granted. Where all are alike (0.05 on a drawn product; 0.23 to 0.32 on
solar cells and magnetic tiles) a fifth more than the middle is no sign of a bad part, and a single bad one does not make many odd ones."""
LIKELY, LIKELY_NOISE = 0.02, 0.2
"""Clean sets came to 0.016 of 666, 0.035 of 160 and 0.041 of 80 images at the most; with a tenth of bad ones to 0.037 of 666, to 0.024 to
0.048 of 200 to 411, and up to 0.1 where bad parts are told from good ones easily."""
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
    z = _distances(scores)
    if np.clip(z - FAR, 0, 1).mean() > LIKELY + LIKELY_NOISE / math.sqrt(n) and (found := _discoveries(z)).any():
        return Odd(found | _gap(scores), many=True)
    return Odd(_gap(scores) | (_discoveries(z) & (z > FAR)))


def tail_quantile(scores: Array, rate: float, apart: int = 0) -> float:
    """The score that a good part exceeds with probability `rate`, 0 < rate <= 0.5.

    Args:
        scores: (N,) of images that are held for good, finite, at least 2.
        rate: stated false-reject rate.
        apart: further images that were set apart as odd; a share of FDR of them is held for good all the same, beyond the others.
    """
    inside = np.sort(scores)
    beyond = FDR * apart
    found = _exponential(inside, beyond, rate)
    if inside[0] <= 0:
        return found
    weight = min(0.5, STEADY / (STEADY + len(inside)))
    return (1 - weight) * found + weight * _log_normal(inside, beyond, rate)


def _exponential(inside: Array, beyond: float, rate: float) -> float:
    """`inside`: ascending; `beyond`: so many more lie above them."""
    total = len(inside) + beyond
    k: int = max(LEAST_TOP, round(min(TOP * total, FEWER * total**0.6)))
    k = max(1, min(k, round(MOST_TOP * len(inside)), len(inside) - 1))
    level, excess = float(inside[-k - 1]), inside[-k:] - inside[-k - 1]
    share = (k + beyond) / total
    if rate >= share:  # not in the tail at all
        return float(np.quantile(inside, max(0.0, 1 - (rate * total - beyond) / len(inside)), method="median_unbiased"))
    seen = max(1, k - math.ceil(CENSORED * k))
    mean = (float(excess[:seen].sum()) + (k - seen + beyond) * float(excess[seen - 1])) / seen
    return level + mean * math.log(share / rate)


def _log_normal(inside: Array, beyond: float, rate: float) -> float:
    """`inside`: ascending, above 0; `beyond`: so many more lie above them."""
    y, total = np.log(inside), len(inside) + beyond
    body = min(len(y), max(LEAST_BODY, len(y) - max(1, round(BEYOND_BODY * len(y)))))
    slope, middle = _through_normal_scores(y[:body], total)
    return float(np.exp(middle + slope * norm.isf(rate)))


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


def _distances(scores: Array) -> Array:
    """(N,) standard deviations from the middle of a log-normal fitted to the lower BODY of the scores."""
    y = np.log(scores)
    slope, middle = _through_normal_scores(np.sort(y)[: max(LEAST_BODY, int(BODY * len(y)))], len(y))
    return (y - middle) / max(slope, LEAST_SPREAD)


def _discoveries(z: Array) -> npt.NDArray[np.bool_]:
    """Benjamini and Hochberg's, of standard deviations from the middle; none where they would be more than MOST."""
    n, p = len(z), norm.sf(z)
    rank = np.argsort(p)
    passed = np.flatnonzero(p[rank] <= FDR * np.arange(1, n + 1) / n)
    found = np.zeros(n, dtype=bool)
    if len(passed) and passed[-1] + 1 <= MOST * n:
        found[rank[: passed[-1] + 1]] = True
    return found


def _through_normal_scores(lowest: Array, total: float) -> tuple[float, float]:
    """(standard deviation, mean) of a normal sample of `total` whose lowest values are these, ascending: least squares, right whatever lies
    above them."""
    z = norm.ppf((np.arange(1, len(lowest) + 1) - 0.375) / (total + 0.25))  # Blom 1958
    slope, middle = np.polyfit(z, lowest, 1) if len(lowest) > 1 else (0.0, lowest[0])
    return float(slope), float(middle)
