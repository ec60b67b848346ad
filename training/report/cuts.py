"""What thresholds do to the images: the one that is stated, the moved one, and those worth knowing of."""

from dataclasses import dataclass

import numpy as np

from training.calibrate.bounds import clopper_pearson
from training.judging.evaluate import Scored

_GOOD_SHARES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1)
_BAD_SHARES = (0.0, 0.01, 0.05, 0.1)


@dataclass(frozen=True, slots=True)
class Count:
    """k of n, with what that says of the whole line."""

    k: int
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """Exact 95 % confidence interval (Clopper and Pearson 1934)."""
        return clopper_pearson(self.k, self.n, 0.975)


@dataclass(frozen=True, slots=True)
class Cut:
    """What a threshold does to the images."""

    value: float
    good: Count | None
    """Good images that it rejects."""
    bad: Count | None
    """Bad images that it accepts."""
    tag: str = ""


def cut(scored: Scored, value: float, tag: str = "") -> Cut:
    """What the threshold `value` does."""
    m = measure_counts(scored, value)
    good, bad = (Count(k, n) if n else None for k, n in m)
    return Cut(value, good, bad, tag)


def measure_counts(scored: Scored, value: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """(good rejected, good), (bad accepted, bad)."""
    good, rejected = scored.is_good, scored.scores.score > value
    return (int((rejected & good).sum()), int(good.sum())), (int((~rejected & ~good).sum()), int((~good).sum()))


def threshold_table(scored: Scored, stated: float, line: float, better: float | None = None) -> list[Cut]:
    """Thresholds worth knowing of, from low to high: the stated one, the moved one, the better one that is named, and those of round shares
    of good and bad images."""
    score = scored.scores.score
    good, bad = np.sort(score[scored.is_good]), np.sort(score[~scored.is_good])
    rows = [cut(scored, stated, "stated")] + ([cut(scored, line, "moved")] if line != stated else [])
    values = [] if better is None else [better]
    values += [good[-1 - int(share * len(good))] for share in _GOOD_SHARES if len(good)]
    # Just below the weakest bad image that is still rejected.
    values += [np.nextafter(bad[int(share * len(bad))], -np.inf) for share in _BAD_SHARES if len(bad)]
    for value in values:
        row = cut(scored, float(value))
        if (row.good, row.bad) not in {(r.good, r.bad) for r in rows}:
            rows.append(row)
    return sorted(rows, key=lambda r: r.value)
