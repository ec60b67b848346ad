"""What chance alone explains: standard errors of a threshold, and of the difference of two detectors' figures on the same images.

Two detectors are compared on one set of images, so their figures err together; what counts is the error of the *difference*, in which
most of that cancels. All errors are by image: the pixels of one image are one piece of evidence, not 65,536.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from edge_runtime.errors import CalibrationError
from training.calibrate.rules import Rule, Scores, apply_rule
from training.judging.pixels import FPR_LIMIT, PixelCounts, bins_of

ERRORS = 2.0
"""Standard errors that chance is granted: a sound build is refused by it once in 40 times."""
MOST_FALL = 0.05
"""No figure may fall further by chance than this, however few images there are: such a fall is to be looked at in any case."""
MOST_BAND = 0.3
"""Nor may the threshold's uncertainty widen the band further than this."""
DRAWS = 100

Values = npt.NDArray[np.float64]
PixelImage = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], npt.NDArray[np.bool_]]
"""(H, W) raw scores, regions and what counts, as PixelCounts.add takes them."""


def threshold_error(rule: Rule, good: Scores, bad: Scores | None, seed: int = 0) -> float:
    """Relative standard error of the threshold that `rule` makes of these images: the standard deviation of its logarithm over DRAWS
    sets that are drawn from them with replacement (Efron 1979). inf where hardly any such set gives a threshold.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(DRAWS):
        sets = [_draw(s, rng) if s is not None and len(s) else s for s in (good, bad)]
        try:
            found.append(math.log(apply_rule(rule, sets[0] or good, sets[1])[0].value))
        except CalibrationError:
            continue
    return float(np.std(found, ddof=1)) if len(found) > DRAWS // 2 else math.inf


def widen(band: float, error: float) -> float:
    """The band within which a verdict may flip, where the threshold itself is known to a relative standard error of `error`.

    What moves a score by quantization and what moves a threshold by another set of good parts have nothing to do with each other, so their
    squares add.
    """
    return max(band, min(math.hypot(band, ERRORS * error), MOST_BAND))


def allowance(error: float) -> float:
    """How far a figure may fall by chance alone. `error`: of the paired difference."""
    return min(ERRORS * error, MOST_FALL)


def auroc_error(good: npt.NDArray[np.bool_], before: Values, after: Values) -> float:
    """Standard error of the difference of two AUROCs of the same images; `good`, `before`, `after`: (N,). inf for one image of a kind.

    DeLong, DeLong and Clarke-Pearson 1988, "Comparing the areas under two or more correlated ROC curves"; the placements by ranks as in
    Sun and Xu 2014.
    """
    n_good, n_bad = int(good.sum()), int((~good).sum())
    if min(n_good, n_bad) < 2:
        return math.inf
    (bad_a, good_a), (bad_b, good_b) = _placements(good, before), _placements(good, after)
    return math.sqrt(float(np.var(bad_a - bad_b, ddof=1)) / n_bad + float(np.var(good_a - good_b, ddof=1)) / n_good)


def _draw(scores: Scores, rng: np.random.Generator) -> Scores:
    picks = rng.integers(len(scores), size=len(scores))
    return Scores(scores.score[picks], scores.map_peak[picks], scores.map_median[picks])


def _placements(good: npt.NDArray[np.bool_], scores: Values) -> tuple[Values, Values]:
    """For each bad image the share of good ones below it, for each good one the share of bad ones above it; a tie is half."""
    ranks = rankdata(scores)
    n_good, n_bad = int(good.sum()), int((~good).sum())
    below = (ranks[~good] - rankdata(scores[~good])) / n_good
    above = 1 - (ranks[good] - rankdata(scores[good])) / n_bad
    return below, above


@dataclass(frozen=True, slots=True)
class Influences:
    """How much each image moves a detector's pixel figures: the derivative by its weight, (N,) each, which sum to 0."""

    auroc: Values
    aupro: Values


def pixel_influences(images: Iterable[PixelImage], counts: PixelCounts, limit: float = FPR_LIMIT) -> Influences:
    """Standard error over `images`, which are all that `counts` has counted, and show good and defective pixels.

    Pixels of one image depend on each other, so an image is a cluster and its influence the sum of its pixels': for the AUROC as in
    Obuchowski 1997, "Nonparametric analysis of clustered ROC curve data". AUPRO is the mean over regions of max(0, 1 - f / limit), f the
    false-positive rate at each defective pixel's score; an image moves it by its regions, and by its good pixels through f.
    """
    good, bad, share = counts.histograms()
    n_good, n_bad, n_regions = float(good.sum()), float(bad.sum()), float(share.sum())
    below = (np.cumsum(good) - good / 2) / n_good  # of a defective pixel in that bin: good ones below it
    above = 1 - (np.cumsum(bad) - bad / 2) / n_bad
    auroc = float(bad @ below) / n_bad
    fpr = 1 - below
    overlap = np.maximum(0.0, 1 - fpr / limit)
    aupro = float(share @ overlap) / n_regions
    counted = np.where(fpr < limit, share, 0.0)
    under = np.cumsum(counted) - counted / 2  # weight of those defective pixels whose rate a good pixel in that bin raises
    mean = float(counted @ fpr)
    rows = []
    for scores, regions, valid in images:
        bins = bins_of(scores)
        marked = regions > 0
        of_good = bins[valid & ~marked]
        of_bad, labels = bins[marked], regions[marked]
        sizes = np.bincount(labels) if labels.size else np.zeros(1, np.intp)
        by_pixels = (below[of_bad].sum() - auroc * of_bad.size) / n_bad + (above[of_good].sum() - auroc * of_good.size) / n_good
        by_regions = ((overlap[of_bad] / sizes[labels]).sum() if labels.size else 0.0) - aupro * float((sizes > 0).sum())
        by_rate = (under[of_good].sum() - mean * of_good.size) / (limit * n_good)
        rows.append((by_pixels, (by_regions - by_rate) / n_regions))
    table = np.array(rows, dtype=np.float64).reshape(-1, 2)
    return Influences(table[:, 0], table[:, 1])


def paired_error(before: Values, after: Values) -> float:
    """Standard error of the difference of two figures, from the influences (N,) that the same images have on each; inf for one image."""
    n = len(before)
    return math.inf if n < 2 else math.sqrt(float(np.sum((after - before) ** 2)) * n / (n - 1))
