"""Odd ones among the good images, before a head is fitted: bad parts that were filed among good ones must not be learnt.

Looked for with a Gaussian a position, whatever the method: it knows best what is unusual at its place, its scores have a regular tail,
and it can leave images out in a second. Where the method judges all places alike, since parts lie anyhow, it is one Gaussian for all. Where
the odd ones are more than good parts explain (tail.find_odd), the head is fitted without them, and once more without those that are odd to
such a head: what was learnt as good looks good.

Why: deploy/decisions/0021.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.model.preprocess import Preprocessor
from training.calibrate.tail import LEAST, MOST, find_odd
from training.core.base import Features, LevelShape, Progress, silent
from training.fitting.heads import cross_fit, fit_head, score_features
from training.methods.padim import PRESETS

FOLDS = 5
ROUNDS = 2
FEW_ALIKE, SHARE_ALIKE = 4, 0.25
"""Images, and share of the odd ones, that make a group: two scratches may lie at one place."""
ALIKE = 0.3
"""Cosine of two images' differences from good ones from which on they are odd in the same way."""
BEYOND, AT_MOST = 3.0, 10.0
"""Standard deviations: smaller differences are what good parts show, and larger ones count as so many."""
LEAST_SPREAD = 0.1
"""Share of the median, added to each standard deviation: a channel that good parts leave dark has none."""
BATCH = 16
WIDER = 1.3
"""So many times as many images are left out while a head is sought that has not learnt the odd ones: some hide behind others."""


@dataclass(frozen=True, slots=True)
class Screen:
    """What may be learnt of N images."""

    scores: npt.NDArray[np.float64]
    """(N,) by heads that did not see the image, nor any that was set apart."""
    named: npt.NDArray[np.bool_]
    """(N,) odd ones."""
    apart: npt.NDArray[np.bool_]
    """(N,) not to be learnt; none, unless the odd ones are many."""
    alike: npt.NDArray[np.bool_]
    """(N,) odd ones that are odd in the same way, as a second variant of the product is; none where they are few."""

    @property
    def margins(self) -> npt.NDArray[np.float64]:
        """(N,) how unlike the others each image is, as a multiple of the most unlike one that is neither named nor set apart."""
        rest = self.scores[~self.named & ~self.apart]
        return self.scores / max(float(rest.max(initial=0.0)), 1e-12)


def screen(
    features: Features, level_shapes: Sequence[LevelShape], prepare: Preprocessor, seed: int, progress: Progress = silent, *,
    anyhow: bool = False,
) -> Screen:  # fmt: skip
    """Look through the features of good images. `anyhow`: parts lie anyhow, so all places share one Gaussian."""
    n = features.n_images
    kept = np.ones(n, dtype=bool)
    if n < 2 * LEAST:
        return Screen(np.zeros(n), ~kept, ~kept, ~kept)
    scores = _scores(features, level_shapes, prepare, kept, seed, anyhow)
    progress("looking for odd images", 1, 1 + ROUNDS)
    odd = find_odd(scores)
    if odd.many:
        share = min(MOST, WIDER * float(odd.named.mean()))
        for i in range(ROUNDS):
            kept = scores <= np.quantile(scores, 1 - share)
            scores = _scores(features, level_shapes, prepare, kept, seed, anyhow)
            progress("looking for odd images", 2 + i, 1 + ROUNDS)
        odd = find_odd(scores)
    progress("looking for odd images", 1 + ROUNDS, 1 + ROUNDS)
    return Screen(scores, odd.named, ~kept, same_way(features, np.flatnonzero(kept & ~odd.named), odd.named | ~kept))


def same_way(features: Features, good: npt.NDArray[np.intp], odd: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(N,) the largest group of `odd` images that differ from the `good` ones in the same way: at the same places, in the same direction.

    Differences in units of how good ones vary, those below BEYOND left out, are compared by their cosine. Two parts of another colour or
    print share theirs; two scratches don't, unless they lie at one place.
    """
    group, rows = np.zeros(len(odd), dtype=bool), np.flatnonzero(odd)
    if len(rows) < FEW_ALIKE or len(good) < 2:
        return group
    gram = np.zeros((len(rows), len(rows)))
    for level in features.levels:
        for view in range(features.views):
            usual, spread = _moments(level, _pictures(features, good, view))
            away = (level[_pictures(features, rows, view)] - usual) / spread
            away = np.sign(away) * np.clip(np.abs(away) - BEYOND, 0, AT_MOST)
            flat = away.reshape(len(rows), -1)
            gram += flat @ flat.T
    length = np.sqrt(np.diag(gram))
    cosine = gram / np.maximum(np.outer(length, length), 1e-12)
    np.fill_diagonal(cosine, 1.0)
    near = cosine > ALIKE
    largest = near[int(near.sum(axis=1).argmax())]
    # Each is like the whole group, not like one of it alone: two faults that both overlap a third are not each other's.
    largest &= (cosine[:, largest].sum(axis=1) - 1) / max(largest.sum() - 1, 1) > ALIKE
    if largest.sum() >= max(FEW_ALIKE, SHARE_ALIKE * len(rows)):
        group[rows[largest]] = True
    return group


def say_alike(alike: Sequence[str], apart: Sequence[str]) -> str:
    """For people: that odd images look like each other."""
    keep = "keep them with --keep-odd, or " if set(alike) & set(apart) else ""
    return (
        f"{len(alike)} images look unlike the others and like each other ({', '.join(alike[:2])}, …): a second variant of the product,"
        f" or one fault at one place? If they are good parts, {keep}teach more of them"
    )


def _pictures(features: Features, images: npt.NDArray[np.intp], view: int) -> npt.NDArray[np.intp]:
    return features.of_images(images, varied=False).rows[view :: features.views]


def _moments(level: npt.NDArray[np.float32], rows: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(mean, standard deviation), (C, h, w) each, of so many pictures of a level that may lie on disk."""
    total, squares = (np.zeros(level.shape[1:]) for _ in range(2))
    for start in range(0, len(rows), BATCH):
        some = level[rows[start : start + BATCH]].astype(np.float64)
        total += some.sum(axis=0)
        squares += (some**2).sum(axis=0)
    mean = total / len(rows)
    spread = np.sqrt(np.maximum(squares / len(rows) - mean**2, 0))
    return mean, spread + LEAST_SPREAD * max(float(np.median(spread)), 1e-12)


def _scores(
    features: Features, level_shapes: Sequence[LevelShape], prepare: Preprocessor, kept: npt.NDArray[np.bool_], seed: int, anyhow: bool
) -> npt.NDArray[np.float64]:
    """(N,) of all images, by heads fitted on `kept` ones: of these by heads without them."""
    params = asdict(PRESETS["shared" if anyhow else "fast"][1])
    inside, outside = np.flatnonzero(kept), np.flatnonzero(~kept)
    learnt = features.only(inside)
    head = fit_head("padim", params, level_shapes, learnt, prepare, seed)
    scores = np.empty(features.n_images)
    scores[inside] = cross_fit("padim", params, level_shapes, learnt, prepare, seed, FOLDS, whole=head)[0].score
    if len(outside):
        scores[outside] = score_features(head, features.of_images(outside, varied=False), prepare).score
    return scores
