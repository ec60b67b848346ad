"""Where good ends: thresholds from held-out scores of good parts, or from good and bad ones, each with what it is worth.

Five rules (`Rule.kind`):

false_reject_rate   The score that a good part exceeds with the stated probability, read off the whole upper tail (calibrate.tail).
                    Its promise rests on no model: `band_bound` holds for every threshold that these scores could have led to.
conformal           The k-th smallest of n held-out good scores, k = ceil((n + 1)(1 - rate)), as in split conformal prediction: a new good
                    part is rejected with at most the stated probability, whatever the scores' distribution. The true rate of that very
                    threshold is below the Beta(n + 1 - k, k) quantile with the stated confidence (tolerance limits: Wilks 1941,
                    "Determination of sample sizes for setting tolerance limits", section 3).
gap                 In the gap between good and bad images, near the good ones, within the stated false-reject rate; where there is no gap
                    that rate decides, and the sentence says how many bad images are missed (training.calibrate.gap).
max_f1              The threshold with the largest F1 over good and bad images, in the middle of its gap; of equals, the lowest.
recall              The highest threshold that still rejects the stated share of the bad images, in the middle of its gap: the lowest
                    false-reject rate at that recall. It lies below an order statistic of the bad scores, so the true recall has a lower
                    bound for any distribution: Wilks again, and the same number as Clopper and Pearson's ("The use of confidence or
                    fiducial limits illustrated in the case of the binomial", Biometrika 1934).
cost                The threshold with the lowest expected cost of a part, (1 - d) R + d C M: d the stated share of bad parts, C false
                    rejects' worth of a false accept, R and M the shares of good images rejected and of bad ones missed. In the middle of
                    its gap; of equals, the lowest. The Bayes rule with empirical rates (Elkan 2001, "The foundations of cost-sensitive
                    learning", section 2).

Each rule is applied twice: to the images' scores for `Threshold.value` and to the maxima of their maps for `Threshold.map_value`. So the
promise holds for a whole picture there, too: with `false_reject_rate`, at most that share of good parts shows a region at all.

Held-out scores come from heads that did not see the image (see fit.cross_fit), but 95 % of the others: in the median they lie within 2 %
of those of new good images from 160 images up (solar cells, magnetic tiles, circuit boards; padim and patchcore), and within 4 % at 40.

Why: deploy/decisions/0006.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from edge_runtime.errors import CalibrationError
from edge_runtime.model.manifest import DisplayScale, Threshold
from training.calibrate.bounds import band_bound, clopper_pearson, order_bound, percent
from training.calibrate.gap import LEAST_BAD, Placed, place
from training.calibrate.tail import tail_quantile

DEFAULT_RATE = 0.01
DEFECT_RATE = 0.01
"""Assumed where nobody says how many parts are bad."""
OF_GOOD = ("false_reject_rate", "conformal")
"""Rules that need good images alone."""
COST_RATIO_MAX = 1_000_000
"""More than that is reject-everything, or a slip of the hand."""
BEYOND = 4
"""A tail is followed to rates so many times lower than an order statistic could tell of: to one part in four times as many images."""
CHANCE = 0.05
"""Probability below which so many good images are not seen beyond a threshold that rejects the stated share."""
_EPS = 1e-9  # keeps (n + 1)(1 - rate) from being rounded past a whole number


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a threshold is found; stored with the run, so that export can find the INT8 detector's threshold in the same way."""

    kind: Literal["false_reject_rate", "conformal", "gap", "max_f1", "recall", "cost"]
    target: float | None = None
    """The stated rate or recall, 0..1; None for max_f1 and cost, and for a gap within the rate that `default_rule` has."""
    cost_ratio: float | None = None
    """For cost: how many false rejects a false accept costs."""
    defect_rate: float | None = None
    """For cost: share of the line's parts that are bad, 0..1; None assumes DEFECT_RATE, and the sentence says so."""
    confidence: float = 0.95
    bad: str | None = None
    """Folder of the bad images (absolute path, as it was given); None where none count or they are the test split's."""
    masks: str | None = None
    """Folder of their masks (absolute path), which count when an export compares precisions."""
    from_test_split: bool = False
    """True: good and bad images are those of the data's test split, because the user asked for it by name."""
    synthetic: int = 0
    """Number of painted defects among the bad images; what rests on them says so."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What a detector says of N images."""

    score: npt.NDArray[np.float64]
    """(N,) raw image scores."""
    map_peak: npt.NDArray[np.float64]
    """(N,) largest value of each raw map."""
    map_median: npt.NDArray[np.float64]
    """(N,) median of each raw map, ignored places aside."""

    def __len__(self) -> int:
        return len(self.score)


class HeldOutImage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One good image, scored by a head that was fitted without it."""

    name: str
    """Relative to the data's folder."""
    sha256: str
    """sha256 of the file."""
    score: float
    map_peak: float
    map_median: float


class HeldOut(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """held_out.json: every good image of the training set."""

    images: list[HeldOutImage]

    @classmethod
    def of(cls, names: Sequence[str], sha256: Sequence[str], scores: Scores) -> "HeldOut":
        """Names, hashes and scores in the same order."""
        rows = zip(names, sha256, scores.score, scores.map_peak, scores.map_median, strict=True)
        return cls(
            images=[HeldOutImage(name=n, sha256=h, score=float(s), map_peak=float(p), map_median=float(m)) for n, h, s, p, m in rows]
        )

    @property
    def scores(self) -> Scores:
        """As arrays."""
        rows = np.array([(i.score, i.map_peak, i.map_median) for i in self.images], dtype=np.float64).reshape(-1, 3)
        return Scores(rows[:, 0], rows[:, 1], rows[:, 2])


def default_rule(n_good: int) -> Rule:
    """A false-reject rate of 1 %, or, of fewer than 50 images, one part in twice as many: as far as nobody need ask for more.

    >>> default_rule(200).target, round(default_rule(24).target, 4)
    (0.01, 0.02)
    """
    return Rule(kind="false_reject_rate", target=max(DEFAULT_RATE, 0.5 / (n_good + 1)))


def lowest_rate(kind: str, n_good: int) -> float:
    """The lowest false-reject rate that a rule can aim at from so many held-out good images.

    >>> lowest_rate("conformal", 99), lowest_rate("false_reject_rate", 99)
    (0.01, 0.0025)
    """
    return (1.0 if kind == "conformal" else 1 / BEYOND) / (n_good + 1)


def stated_rate(rule: Rule, n_good: int) -> Rule:
    """The false-reject rate that a gap must lie within, as a rule of its own."""
    return Rule(kind="false_reject_rate", target=rule.target or default_rule(n_good).target, confidence=rule.confidence)


def check_bad(rule: Rule, n_bad: int) -> None:
    """Refuse too few bad images to find a gap by. Raises CalibrationError."""
    if rule.kind == "gap" and n_bad < LEAST_BAD:
        raise CalibrationError(
            f"calibration: expected at least {LEAST_BAD} bad images to place the threshold by, found {n_bad}: with so few, half of all bad"
            " parts may score lower than those seen; add some to --bad FOLDER, or leave it out"
        )


def check_rule(rule: Rule, n_good: int) -> None:
    """Refuse what cannot work, before hours of work. Raises CalibrationError."""
    if rule.kind == "max_f1":
        return
    rule = stated_rate(rule, n_good) if rule.kind == "gap" else rule
    target = rule.target
    if rule.kind == "cost":
        if rule.cost_ratio is None or not (0 < rule.cost_ratio <= COST_RATIO_MAX):
            raise CalibrationError(
                f"cost ratio: expected a number above 0 and up to {COST_RATIO_MAX:,} (50: a false accept costs 50 false rejects), found"
                f" {rule.cost_ratio}"
            )
        if rule.defect_rate is not None and not 0 < rule.defect_rate < 1:
            raise CalibrationError(
                f"defect rate: expected a share between 0 and 1 (0.01: one part in a hundred is bad), found {rule.defect_rate}"
            )
        return
    of_good = rule.kind in OF_GOOD
    what = "false-reject rate" if of_good else "recall"
    if target is None or not 0 < target <= (0.5 if of_good else 1):
        top = "up to 0.5" if of_good else "up to 1"
        raise CalibrationError(f"{what}: expected a share above 0 and {top} (0.01 is 1 %), found {target}")
    if of_good and target < (lowest := lowest_rate(rule.kind, n_good)) - _EPS:
        needed = math.ceil(lowest_rate(rule.kind, 0) / target - _EPS) - 1
        raise CalibrationError(
            f"false-reject rate: {n_good} good images support {percent(lowest, up=True)} at the lowest,"
            f" {target * 100:g} % was asked for; that needs {needed} good images"
        )


def apply_rule(rule: Rule, good: Scores, bad: Scores | None = None, apart: int = 0, odd: int = 0) -> tuple[Threshold, DisplayScale]:
    """Threshold and colour scale.

    Args:
        rule: see the module's text.
        good: held-out scores of good images (or the test split's, where the rule says so).
        bad: scores of bad images; needed by all rules but false_reject_rate and conformal.
        apart: images that were set apart as odd (fitting.odd): neither learnt nor among `good`.
        odd: images that look unlike the others, set apart or not; for the record.

    Raises:
        CalibrationError: too few images for the stated rate, no bad images, or scores that cannot carry a threshold.
    """
    n_bad = 0 if bad is None else len(bad)
    if len(good) == 0:
        raise CalibrationError("calibration: expected scores of good images, found none")
    everything = [good.score, good.map_peak, *(() if bad is None else (bad.score, bad.map_peak))]
    if not all(np.isfinite(a).all() for a in everything):
        raise CalibrationError("calibration: some scores are not finite: the detector is broken; fit again")
    check_rule(rule, len(good))
    upper: float | None = None
    recall_lower: float | None = None
    if rule.kind in OF_GOOD:
        assert rule.target is not None
        if rule.kind == "conformal":
            value, map_value = (_order_statistic(a, rule.target) for a in (good.score, good.map_peak))
        else:
            value, map_value = (tail_quantile(a, rule.target, apart) for a in (good.score, good.map_peak))
        bound = order_bound if rule.kind == "conformal" else band_bound
        above = int((good.score > value).sum())
        upper = bound(len(good), above, rule.confidence)
        sentence = (
            f"false-reject rate {percent(rule.target)}: at most {percent(upper, up=True)} at {percent(rule.confidence)} confidence"
            f" from {len(good)} good images, {_say_seen(above, len(good), rule.target)}"
        )
        if apart:
            sentence += f"; {apart} odd ones were set apart"
        n_bad = 0
    elif bad is None or n_bad == 0:
        raise CalibrationError(f"calibration: the rule {rule.kind} needs bad images, found none: give them with --bad FOLDER")
    elif rule.kind == "gap":
        check_bad(rule, n_bad)
        within = stated_rate(rule, len(good))
        base, _ = apply_rule(within, good, None, apart, odd)
        assert within.target is not None and base.false_reject_upper is not None
        placed = place(good.score, bad.score, base.value, within.target)
        value, map_value = placed.value, place(good.map_peak, bad.map_peak, base.map_value, within.target).value
        upper = base.false_reject_upper if value >= base.value else band_bound(len(good), placed.rejected, rule.confidence)
        recall_lower = 1 - clopper_pearson(placed.missed, n_bad, rule.confidence)[1]
        sentence = _gap_sentence(placed, rule, within.target, upper, recall_lower, len(good), n_bad)
    else:
        pick = _picker(rule)
        value, map_value = pick(good.score, bad.score), pick(good.map_peak, bad.map_peak)
        rejected, missed = int((good.score > value).sum()), int((bad.score <= value).sum())
        if rejected * 2 > len(good) and (rule.kind == "max_f1" or rejected == len(good)):
            raise CalibrationError(
                f"calibration: these scores do not tell good from bad: {_name(rule)} would reject {rejected} of {len(good)} good images;"
                " teach on more images or another method, or give real bad images with --bad FOLDER"
            )
        sentence = f"{_name(rule)}: rejects {rejected} of {len(good)} good and misses {missed} of {n_bad} bad images"
        if rule.kind == "recall":
            recall_lower = 1 - clopper_pearson(missed, n_bad, rule.confidence)[1]
            sentence += f"; recall at least {percent(recall_lower, down=True)} at {percent(rule.confidence)} confidence"
            # The threshold follows from the bad images alone, so the good ones may bound its rate (the same Beta quantile).
            upper = order_bound(len(good), rejected, rule.confidence)
            sentence += f", false-reject rate at most {percent(upper, up=True)}"
        if rule.kind == "cost":
            sentence += f"; {_cost_sentence(rule, rejected / len(good), missed / n_bad)}"
    if rule.synthetic and n_bad:
        some = "all" if rule.synthetic >= n_bad else f"{rule.synthetic}"
        sentence += f"; {some} of the bad images are synthetic, real defects may score lower"
    if rule.from_test_split:
        sentence += "; calibrated on the test split, so figures measured on it flatter"
    if value <= 0 or map_value <= 0 or (len(good) > 1 and rule.kind in OF_GOOD and np.ptp(good.score) == 0):
        raise CalibrationError(
            f"calibration: expected a threshold above 0, found {value:.3g} for scores and {map_value:.3g} for maps:"
            " these images are all the same"
        )
    threshold = Threshold(
        value=value,
        map_value=map_value,
        rule=sentence,
        false_reject_rate=within.target if rule.kind == "gap" else rule.target if rule.kind in OF_GOOD else None,
        false_reject_upper=upper,
        confidence=rule.confidence,
        n_good=len(good),
        n_bad=n_bad,
        n_odd=odd,
        n_synthetic=min(rule.synthetic, n_bad),
        recall_lower=recall_lower,
        from_test_split=rule.from_test_split,
    )
    # The median map of a good part is cold; twice the threshold is hot, so that the threshold lies in the warm half.
    return threshold, DisplayScale(low=min(float(np.median(good.map_median)), map_value), high=2 * map_value)


def _say_seen(rejected: int, n: int, rate: float) -> str:
    """What the threshold does to the images that it was set by, beside the rate that was aimed at."""
    if not rejected:
        return "none of which it would reject"
    seen = f"of which it would reject {rejected} ({percent(rejected / n)}"
    if rejected <= rate * n:
        return f"{seen})"
    if binom.sf(rejected - 1, n, rate) >= CHANCE:
        return f"{seen}: so few images may show that where {percent(rate)} is true)"
    return f"{seen}: more than {percent(rate)} makes likely: look at them, or be ready for as many)"


def _picker(rule: Rule) -> Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64]], float]:
    """(good, bad) scores -> threshold, for the rules that need both."""
    if rule.kind == "max_f1":
        return _max_f1
    if rule.kind == "recall":
        return partial(_at_recall, rule.target or 1.0)
    return partial(_least_cost, *_weights(rule))


def _gap_sentence(placed: Placed, rule: Rule, rate: float, upper: float, recall: float, n_good: int, n_bad: int) -> str:
    """What the threshold rests on."""
    seen = f"rejects {placed.rejected} of {n_good} good and misses {placed.missed} of {n_bad} bad images"
    if placed.gap:
        sentence = f"in the gap between good and bad images, within a false-reject rate of {percent(rate)}: {seen}"
    else:
        sentence = f"no gap between good and bad images, so a false-reject rate of {percent(rate)} decides: {seen}"
    promise = f"false-reject rate at most {percent(upper, up=True)}, recall at least {percent(recall, down=True)}"
    return f"{sentence}; {promise} at {percent(rule.confidence)} confidence"


def _name(rule: Rule) -> str:
    if rule.kind == "max_f1":
        return "maximum F1"
    if rule.kind == "recall":
        return f"lowest false-reject rate at a recall of {percent(rule.target or 1.0)}"
    share = percent(rule.defect_rate or DEFECT_RATE) + (" (assumed)" if rule.defect_rate is None else "")
    return f"lowest cost where a false accept costs {rule.cost_ratio:g} false rejects and {share} of the parts are bad"


def _weights(rule: Rule) -> tuple[float, float]:
    """Cost of rejecting all good and of missing all bad parts, per part, in false rejects."""
    share = rule.defect_rate or DEFECT_RATE
    return 1 - share, share * (rule.cost_ratio or 1.0)


def _cost_sentence(rule: Rule, rejected: float, missed: float) -> str:
    of_good, of_bad = _weights(rule)
    cost, without = (f"{v:,.0f}" if v >= 100 else f"{v:.3g}" for v in (1000 * (of_good * rejected + of_bad * missed), 1000 * of_bad))
    return f"per 1,000 parts that costs {cost} false rejects, {without} without an inspection"


def _order_statistic(values: npt.NDArray[np.float64], rate: float) -> float:
    k = max(1, math.ceil((len(values) + 1) * (1 - rate) - _EPS))
    return float(np.partition(values, k - 1)[k - 1])


def _max_f1(good: npt.NDArray[np.float64], bad: npt.NDArray[np.float64]) -> float:
    levels = np.unique(np.concatenate([good, bad]))
    if len(levels) < 2:
        raise CalibrationError("calibration: all good and bad images have the same score; no threshold can part them")
    below = levels[:-1]
    caught = len(bad) - np.searchsorted(np.sort(bad), below, side="right")
    rejected = len(good) - np.searchsorted(np.sort(good), below, side="right")
    best = int(np.argmax(2 * caught / (caught + rejected + len(bad))))
    return float((levels[best] + levels[best + 1]) / 2)


def _least_cost(of_good: float, of_bad: float, good: npt.NDArray[np.float64], bad: npt.NDArray[np.float64]) -> float:
    """Weights as `_weights`. Raises CalibrationError where it is cheapest to inspect nothing, or to reject everything."""
    levels = np.unique(np.concatenate([good, bad]))
    missed = np.searchsorted(np.sort(bad), levels, side="right") / len(bad)
    rejected = 1 - np.searchsorted(np.sort(good), levels, side="right") / len(good)
    cost = of_good * rejected + of_bad * missed
    best = int(np.argmin(cost))
    if cost[best] >= min(of_bad, of_good):
        what = "accept every part" if of_bad <= of_good else "reject every part"
        raise CalibrationError(
            f"calibration: at this cost ratio and defect rate it is cheapest to {what}: no threshold of this detector does better."
            " Check the two numbers, or use --recall or --false-reject-rate"
        )
    return float((levels[best] + levels[best + 1]) / 2)


def _at_recall(recall: float, good: npt.NDArray[np.float64], bad: npt.NDArray[np.float64]) -> float:
    weakest = np.sort(bad)[::-1][max(1, math.ceil(recall * len(bad) - _EPS)) - 1]
    everything = np.concatenate([good, bad])
    lower = everything[everything < weakest]
    return float((lower.max() + weakest) / 2 if len(lower) else np.nextafter(weakest, -np.inf))
