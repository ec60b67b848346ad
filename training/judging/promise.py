"""What may become of the verdicts when a line strays, and the strength of straying up to which that held. Pure.

The promise is what was asked of the release (training.judging.acceptance): so many of the good parts rejected, and so many of the bad ones
missed. Where the clean pictures show more, it counts from what they show; what was missed of painted defects, which are of all strengths
down to what hardly shows, may grow by ten in a hundred. One image more than of the clean pictures never breaks it: 48 images cannot tell
1 % from 2 %. Good images are shifted and turned every way, and the worst way counts: a fixture that wears moves all parts alike. The worst
of several ways is granted one image more, as that of four draws is further out than one by chance alone.

A limit is a strength that was tried and at which the promise held. Which one to try between two that were, linear interpolation of each
image's score says: scores rise ever more steeply with a distortion, so a straight line between two points lies above them, and what it
proposes mostly holds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from training.judging.acceptance import Criteria
from training.judging.distort import CLEAN, Condition, origin_of

Array = npt.NDArray[np.float64]
Breaks = Literal["", "rejects", "misses", "both"]

_MORE_MISSED = 0.10
"""Painted defects, beyond those of clean pictures."""
_STEPS = 50
"""Between two tried amounts."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What a detector says of the same images under each condition."""

    good: Mapping[Condition, Array]
    """(n, ways) of the good ones, in each way that they were moved."""
    bad: Mapping[Condition, Array]
    """(m,) of the bad ones."""

    def __or__(self, more: "Scores") -> "Scores":
        return Scores({**self.good, **more.good}, {**self.bad, **more.bad})


@dataclass(frozen=True, slots=True)
class Limit:
    """How far one way of straying goes."""

    held: Condition
    """The furthest tried up to which the promise held; CLEAN where it held at none."""
    breaks: Breaks = ""
    """What breaks at the next that was tried; "" where it held to the end."""
    between: Condition | None = None
    """Further than `held`, where the promise is likely to hold yet: to be tried."""
    chance: tuple[Condition, ...] = ()
    """Tried, and more good parts rejected there than promised by chance alone."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What may become of the verdicts."""

    threshold: float
    max_rejected: float
    """Share of good parts."""
    max_missed: float
    """Share of bad parts."""

    @classmethod
    def of(cls, threshold: float, asked: Criteria, scores: Scores, painted: bool) -> "Promise":
        """The promise that these scores must keep: see the module's text. `asked`: both limits; `painted`: the bad parts' defects are."""
        rejected, missed = float((scores.good[CLEAN] > threshold).mean()), _mean(scores.bad[CLEAN] <= threshold)
        most = missed + _MORE_MISSED if painted else max(asked.max_missed, missed)
        return cls(threshold, max(asked.max_rejected, rejected), min(most, 1.0))

    def worst(self, scores: Array) -> Array:
        """(n,) of the way that costs most."""
        return max(scores.T, key=lambda way: (int((way > self.threshold).sum()), float(way.mean())))

    def breaks(self, good: Array, bad: Array, clean_good: Array, clean_bad: Array, ways: int = 1) -> Breaks:
        """What of it (n,) and (m,) scores of good and bad images break, "" where it holds; `ways`: of so many, `good` are the worst."""
        rejects = _over(good > self.threshold, clean_good > self.threshold, self.max_rejected, 1 if ways == 1 else 2)
        misses = len(bad) > 0 and _over(bad <= self.threshold, clean_bad <= self.threshold, self.max_missed)
        return "both" if rejects and misses else "rejects" if rejects else "misses" if misses else ""

    def broken(self, scores: Scores, condition: Condition) -> Breaks:
        """What breaks under a condition."""
        good = scores.good[condition]
        return self.breaks(self.worst(good), scores.bad[condition], scores.good[CLEAN][:, 0], scores.bad[CLEAN], good.shape[1])

    def limit(self, scores: Scores, path: Sequence[Condition]) -> Limit:
        """How far the promise holds along `path`, what was tried of one way of straying from the least on.

        Where too many good parts are rejected at one amount, and at all further ones, two or more, they are not, that was chance: the
        amount is passed over.
        """
        found = [self.broken(scores, c) for c in path]
        chance = [n for n, b in enumerate(found) if b == "rejects" and len(found) - n > 2 and not any(found[n + 1 :])]
        passed = tuple(path[n] for n in chance)
        steps = [CLEAN, *(c for c in path if c not in passed)]
        for a, b in pairwise(steps):
            if breaks := self.broken(scores, b):
                return Limit(a, breaks, self._between(scores, a, b), passed)
        return Limit(steps[-1], chance=passed)

    def _between(self, scores: Scores, a: Condition, b: Condition) -> Condition | None:
        """The furthest condition on the way from one that holds to one that breaks where, by straight lines, it holds; None: at none."""
        near, far, (bad_a, bad_b) = scores.good[a], scores.good[b], (scores.bad[a], scores.bad[b])
        ways, clean = far.shape[1], (scores.good[CLEAN][:, 0], scores.bad[CLEAN])
        origin = origin_of(b.what)
        start = origin if a == CLEAN else a.amount

        def breaks(t: float) -> bool:
            goods = near + t * (far - near)  # (n, 1) of the clean pictures stands for all ways
            return any(self.breaks(way, bad_a + t * (bad_b - bad_a), *clean, ways) for way in goods.T)

        first = next((n for n in range(1, _STEPS + 1) if breaks(n / _STEPS)), _STEPS)
        away = _rounded_down(abs(start - origin) + (first - 1) / _STEPS * abs(b.amount - start))
        away = math.floor(away) if b.what == "jpeg" else away
        return Condition(b.what, round(math.copysign(away, b.amount - origin) + origin, 6)) if away > abs(start - origin) else None


def _rounded_down(value: float) -> float:
    """To two figures."""
    if value <= 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.floor(value / step + 1e-9) * step


def _mean(values: npt.NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else 0.0


def _over(now: npt.NDArray[np.bool_], clean: npt.NDArray[np.bool_], most: float, granted: int = 1) -> bool:
    count = int(now.sum())
    return count > most * len(now) + 1e-9 and count > int(clean.sum()) + granted
