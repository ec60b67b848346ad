"""The threshold between good and bad: how far into the gap the known bad parts allow it to go, within a stated false-reject rate. Pure.

Good scores state the threshold at which the promised share of good parts is rejected, the base; or, where more than that share of the good
images seen lies above it, the score that no more do. Where every bad score lies above that there is a gap, and the threshold goes into it:
a share w of the way from the base to the lowest bad score b, on a scale of ratios, as severities are,

    t = base (b / base)^w,    w = min(1/2, r / (r + 1 / (m + 1))).

The next good part lies beyond the base with the stated probability r; the next bad part lies below the lowest of m with probability
1 / (m + 1) (they are exchangeable). So either side gets room in proportion to what may still come of it. With three bad images that is next
to the base, for a quarter of all bad parts may score lower than these three; with a hundred and a rate of 1 % it is the middle; and never
nearer to the bad side than to the good one, because a bad part that passes is dearer than a good one that is looked at again.

Where a bad score lies below the base, the stated rate decides. It still leaves some room: the base may lie higher than the rate asks for
(an order statistic that one odd part has drawn up), so the threshold goes down to catch bad images, as long as no more than the stated
share of the good images seen is rejected.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEAST_BAD = 3
"""With fewer, half of all bad parts or more may score lower than those seen."""
_EPS = 1e-9

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Placed:
    """A threshold, and what it does to the images that it was placed by."""

    value: float
    gap: bool
    """Whether all bad scores lie above the base, and above all good ones but the stated share."""
    rejected: int
    missed: int
    lowest_bad: float


def place(good: Array, bad: Array, base: float, rate: float) -> Placed:
    """The threshold by the rule above.

    Args:
        good: (n,) held-out scores of good images.
        bad: (m,) scores of bad images, m >= 1.
        base: threshold whose false-reject rate is `rate` by the good scores.
        rate: stated share of good parts rejected, 0..1.

    >>> placed = place(np.array([1.0, 1.2, 1.5]), np.array([3.0, 4.0, 5.0]), base=1.6, rate=0.01)
    >>> round(placed.value, 3), placed.gap, placed.missed
    (1.639, True, 0)
    """
    lowest = float(bad.min())
    # Of the good images seen, no more than the stated share may lie on the bad side of a gap, wherever the base was put.
    start = max(base, _allowed(good, rate))
    gap = lowest > start
    if gap:
        share = min(0.5, rate / (rate + 1 / (len(bad) + 1)))
        value = _between(start, lowest, share)
    else:
        value = _lowered(good, bad, base, rate)
    return Placed(value, gap, int((good > value).sum()), int((bad <= value).sum()), lowest)


def left_out(good: Array, bad: Array, base: float, rate: float) -> npt.NDArray[np.bool_]:
    """(m,) whether each bad image is missed by the threshold that the others alone would set: what its own part in the choice hides.

    Needs m >= 2; other arguments as for `place`.
    """
    return np.array([bad[i] <= place(good, np.delete(bad, i), base, rate).value for i in range(len(bad))], dtype=bool)


def _lowered(good: Array, bad: Array, base: float, rate: float) -> float:
    """The base, or a lower threshold that catches more bad images and still rejects no more than the stated share of the good images."""
    floor = min(base, _allowed(good, rate))
    within = bad[(bad > floor) & (bad <= base)]
    if not len(within):
        return base
    lowest = float(within.min())
    return _between(float(good[good < lowest].max()), lowest, 0.5)  # one of them is the floor


def _allowed(good: Array, rate: float) -> float:
    """The score above which no more than the stated share of the good images lies."""
    return float(np.sort(good)[::-1][min(math.floor(rate * len(good) + _EPS), len(good) - 1)])


def _between(low: float, high: float, share: float) -> float:
    """low < result < high, on a scale of ratios where both are positive."""
    value = low * (high / low) ** share if low > 0 else low + (high - low) * share
    return min(max(value, low), float(np.nextafter(high, -np.inf)))
