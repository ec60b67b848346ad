"""Single labels of known parts that their scores speak against: good ones that score as bad ones do, and the other way round."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from training.data.layout import Sample, first_of

LEAST = 8
"""Good ones, and bad ones, from which on it is said."""
UNSEEN = 0.5
"""Share of a kind of defect on the good side from which on none of it is doubted."""
MOST = 0.15
"""Share of a side from which on it is the score that does not tell, and no label is doubted."""
FENCE = 1.5
"""Interquartile ranges beyond the upper quartile from which on a good part lies outside of its like (Tukey 1977)."""
GAP = 3.0
"""Interquartile ranges of good ones that lie between those of them that the middle bad one does not exceed and all others: such are doubted
whatever lies at the border."""
TELLS = 0.8
"""Balanced accuracy of the best threshold from which on scores may know better than a label: below, good and bad are too much alike."""
DEEP = 0.25
"""A good part is doubted that lies among the bad ones' farther three quarters. Where more of its side lie at the border, good and bad run
into each other there, and nothing is doubted."""
LIKE_GOOD = 0.9
"""Share of the good ones within which a bad one is doubted."""

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def suspects(score: Array, is_good: Mask, kinds: Sequence[str] = ()) -> Mask:
    """(N,) which of N labels are doubtful. `kinds`: (N,) of defects; one that mostly scores as good ones do is not seen, not mislabelled.

    The threshold is the best one for these very labels (Youden 1950): a tenth of them may be wrong, on either side, and it stays where good
    and bad part. Where even that tells less than TELLS of both sides nothing is doubted.
    """
    found = np.zeros(len(score), dtype=bool)
    good, bad = np.sort(score[is_good]), np.sort(score[~is_good])
    if min(len(good), len(bad)) < LEAST:
        return found
    cuts = np.unique(score)
    right = np.searchsorted(good, cuts, side="right") / len(good) + 1 - np.searchsorted(bad, cuts, side="right") / len(bad)
    if right.max() / 2 < TELLS:
        return found
    cut = cuts[int(right.argmax())]
    above, below = np.quantile(bad[bad > cut], DEEP), np.quantile(good[good <= cut], LIKE_GOOD)
    quarter, three = np.quantile(good, (0.25, 0.75))
    above = max(above, three + FENCE * (three - quarter))
    for side, deep, wrong in ((is_good, score > max(cut, above), score > cut), (~is_good, score <= min(cut, below), score <= cut)):
        if (side & wrong & ~deep).sum() < (side & deep).sum() <= MOST * side.sum():
            found |= side & deep
    far = is_good & (score > max(cut, np.median(bad)))
    if 0 < far.sum() <= MOST * len(good) and score[far].min() - score[is_good & ~far].max() >= GAP * (three - quarter):
        found |= far
    for kind in set(kinds):
        rows = ~is_good & (np.array(kinds) == kind)
        if rows.any() and (score[rows] <= cut).mean() >= UNSEEN:
            found &= ~rows
    return found


def say_suspects(samples: Sequence[Sample], doubtful: Mask, what: str = "score", times: Sequence[float] | None = None) -> str | None:
    """A sentence that names them and says what to do; None where there are none.

    Args:
        samples: (N,) images.
        doubtful: (N,) which of them.
        what: they do as the other side does.
        times: (N,) their scores as multiples of the threshold, by which they are then sorted, the surest first.
    """
    parts = []
    for side, other, good in (("good", "bad", True), ("bad", "good", False)):
        rows = [i for i, s in enumerate(samples) if doubtful[i] and s.is_good == good]
        if times is not None:
            rows.sort(key=lambda i: -times[i] if good else times[i])
        factors = ["" if times is None else f" ({times[i]:.2f}x)" for i in rows]
        names = [f"{samples[i].path.parent.name}/{samples[i].path.name}{factor}" for i, factor in zip(rows, factors, strict=True)]
        if names:
            more = f" and {len(names) - len(first_of(names))} more" if len(names) > len(first_of(names)) else ""
            parts.append(f"called {side}, and {what} as {other} ones do: {', '.join(first_of(names))}{more}")
    if not parts:
        return None
    of_bad = any(d and not s.is_good for s, d in zip(samples, doubtful, strict=True))
    faint = "; a bad part whose defect hardly shows does so, too" if of_bad else ""
    return (
        f"look at these pictures, are they labelled right? {'; '.join(parts)}{faint}. Where a label is wrong, move the file to the other"
        " folder, or correct its row in the table, and teach again"
    )
