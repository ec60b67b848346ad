"""Fit for release, or not: what was asked of a detector, and whether its scores at the shipped threshold meet it. Pure.

What is asked where nobody asks: at most 5 % of the bad parts missed, and at most 2 % of the good ones rejected, or twice the stated
false-reject rate where that is more. A line engineer who states 1 % expects about 1 % and is at peace with 2; and an inspection that lets
more than one bad part in twenty through is not what he thinks he has bought. Whoever knows his line says otherwise (`--accept`).
Painted defects are of all strengths down to what hardly shows: on magnetic_tile (padim, 160 good images), at thresholds that reject 0 to
30 % of the good parts, 11 to 32 in a hundred more of them are missed than of photographed ones. So only half of them must be found, which
tells a detector that sees next to nothing from one that sees, and no more.

Shares that were seen are compared, unless a confidence is asked for: then it is their upper bounds (Clopper and Pearson 1934), and what too
few images can't show is not met. Where nobody asks, one good part more than that may be rejected while the limit is of fewer than three: a
threshold that rejects one part in a hundred rejects three of 140 in every sixth set of images, and is no worse for it.

Why: deploy/decisions/0027.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from edge_runtime.model.manifest import Acceptance
from training.calibrate.bounds import clopper_pearson, percent

MAX_MISSED = 0.05
MAX_MISSED_PAINTED = 0.5
MAX_REJECTED = 0.02
FEW_PARTS = 3
"""A limit of fewer parts than this is kept or broken by one of them."""
LEAST_REAL = 3
"""Bad parts; fewer say nothing about a share."""

Array = npt.NDArray[np.float64]
Basis = Literal["real", "painted", "none"]


@dataclass(frozen=True, slots=True)
class Criteria:
    """What is asked of a detector."""

    max_missed: float = 1.0
    """Share of the bad parts that may be accepted; 1: it does not matter."""
    max_rejected: float = 1.0
    """Share of the good parts that may be rejected; 1: it does not matter."""
    confidence: float | None = None
    """None: shares that were seen are compared; else their upper bounds at this confidence."""
    granted: int = 0
    """So many good parts more may be rejected where the limit is of fewer than FEW_PARTS."""
    stated: float | None = field(default=None, repr=False, compare=False)
    """The false-reject rate of which max_rejected is twice; None: it is not."""

    @property
    def words(self) -> str:
        """As training.judging.asked reads it."""
        parts = [
            f"{name} <= {percent(limit)}" for name, limit in (("misses", self.max_missed), ("rejects", self.max_rejected)) if limit < 1
        ]
        return ", ".join([*parts, *([f"confidence {percent(self.confidence)}"] if self.confidence is not None else [])])


def default_criteria(stated_rate: float | None, basis: Basis = "real") -> Criteria:
    """What is asked where nobody asks; `stated_rate`: the threshold's false-reject rate, where it has one; `basis`: of the bad parts."""
    twice = 2 * float(f"{stated_rate or 0.0:.2g}")  # as it is said: twice 1 % is 2 %, and not 2.1 %
    stated = stated_rate if twice > MAX_REJECTED else None
    return Criteria(MAX_MISSED_PAINTED if basis == "painted" else MAX_MISSED, max(MAX_REJECTED, twice), granted=1, stated=stated)


def promised(asked: Criteria | None, stated_rate: float | None) -> Criteria:
    """What the verdicts of a detector promise, both limits: what was asked, and of what nobody asked the default."""
    usual = default_criteria(stated_rate)
    if asked is None:
        return usual
    return Criteria(
        asked.max_missed if asked.max_missed < 1 else usual.max_missed, asked.max_rejected if asked.max_rejected < 1 else usual.max_rejected
    )


def rejects_evidence(test: Array, held_out: Array, limit: float, threshold: float) -> tuple[Array, str]:
    """Scores of good parts that false rejects are judged on, and what they are.

    All that are known, so that the same images count however they are laid out: the test split's, and the held-out ones of the training
    images, by which the threshold was set. Where so many of the test split's are rejected that one fewer would still be too many, they
    stand alone: they may be of another day than what was taught, and what was taught must not hide that.
    """
    if not len(test):
        return held_out, "held out of the training images"
    if int((test > threshold).sum()) - 1 > limit * len(test) or not len(held_out):
        return test, "of the test split"
    return np.concatenate([test, held_out]), f"{len(test)} of the test split, {len(held_out)} held out"


def judge_acceptance(
    criteria: Criteria, good: Array, bad: Array, threshold: float, basis: Basis, *, of_good: str = "", remark: str = "", of_bad: str = "",
    missed: npt.NDArray[np.bool_] | None = None,
) -> Acceptance:  # fmt: skip
    """Whether the criteria are met at `threshold`.

    Args:
        criteria: what is asked.
        good: (n,) scores of good parts; may be empty.
        bad: (m,) scores of bad ones; empty where there is none (basis "none").
        threshold: a part is rejected when its score is larger.
        basis: what the bad ones are.
        of_good: what the good ones are, for the sentence.
        remark: what a reader must know of the evidence.
        of_bad: what a reader must know of the bad ones, where the sentence is of misses.
        missed: (m,) which bad ones count as missed, where it is not those at or below the threshold.
    """
    k_bad, n_bad = int((bad <= threshold).sum() if missed is None else missed.sum()), len(bad)
    k_good, n_good = int((good > threshold).sum()), len(good)
    asked = [
        _Asked("misses", "bad" if basis != "painted" else "painted bad", k_bad, n_bad, criteria.max_missed, criteria.confidence),
        _Asked("rejects", "good", k_good, n_good, criteria.max_rejected, criteria.confidence, of_good, criteria.granted, criteria.stated),
    ]
    asked = [a for a in asked if a.limit < 1]
    wrong = [a for a in asked if a.known and not a.met]
    unknown = [a for a in asked if not a.known]
    found = " and ".join(a.words for a in (wrong or asked) if a.known)
    of_bad = of_bad if any(a.what == "misses" for a in wrong or asked) else ""
    more = "; ".join(filter(None, (found, *(f"{a.what} not known, for there are no {a.parts} parts" for a in unknown), of_bad, remark)))
    state: Literal["passed", "failed", "not assessed"] = "failed" if wrong else "not assessed" if unknown else "passed"
    word = {"passed": "fit for release", "failed": "not fit for release", "not assessed": "not assessed"}[state]
    return Acceptance(
        state=state, sentence=f"{word}: {more}", basis=basis if n_bad else "none", max_missed=criteria.max_missed,
        max_rejected=criteria.max_rejected, confidence=criteria.confidence, missed=k_bad, n_bad=n_bad, rejected=k_good, n_good=n_good,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Asked:
    what: str
    parts: str
    k: int
    n: int
    limit: float
    confidence: float | None
    of: str = ""
    granted: int = 0
    stated: float | None = None

    @property
    def known(self) -> bool:
        return self.n > 0

    @property
    def upper(self) -> float:
        return self.k / self.n if self.confidence is None else clopper_pearson(self.k, self.n, self.confidence)[1]

    @property
    def met(self) -> bool:
        return self.upper <= self.limit + 1e-12 or (self.one_decides and self.granted > 0)

    @property
    def one_decides(self) -> bool:
        """With one part fewer the limit would be kept, and it is of few parts."""
        return self.confidence is None and self.k > self.limit * self.n and self.k - 1 <= self.limit * self.n < FEW_PARTS

    @property
    def words(self) -> str:
        seen = percent(self.k / self.n)
        asked = f"at most {percent(self.limit)} asked for" + ("" if self.stated is None else f", twice the stated {percent(self.stated)}")
        if self.confidence is not None:
            seen += f", at most {percent(self.upper, up=True)} at {percent(self.confidence)} confidence"
            if not self.met and self.limit > 0 and clopper_pearson(0, self.n, self.confidence)[1] > self.limit:
                needed = math.ceil(math.log(1 - self.confidence) / math.log(1 - self.limit))
                asked += f", which takes {needed:,} {self.parts} parts without one"
        if self.one_decides:
            asked += "; one part decides that, so more test images would tell"
        return f"{self.what} {self.k} of {self.n} {self.parts} parts{f' ({self.of})' if self.of else ''} ({seen}; {asked})"


def forced(acceptance: Acceptance) -> Acceptance:
    """As it is built all the same."""
    return msgspec.structs.replace(acceptance, forced=True)
