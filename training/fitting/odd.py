"""Odd ones among the good images, before a head is fitted: bad parts that were filed among good ones must not be learnt.

Looked for with a Gaussian a position, whatever the method: it knows best what is unusual at its place, its scores have a regular tail,
and it can leave images out in a second. Where the odd ones are more than good parts explain (tail.find_odd), the head is fitted without
them, and once more without those that are odd to such a head: what was learnt as good looks good.

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


def screen(features: Features, level_shapes: Sequence[LevelShape], prepare: Preprocessor, seed: int, progress: Progress = silent) -> Screen:
    """Look through the features of good images."""
    n = features.n_images
    kept = np.ones(n, dtype=bool)
    if n < 2 * LEAST:
        return Screen(np.zeros(n), ~kept, ~kept)
    scores = _scores(features, level_shapes, prepare, kept, seed)
    progress("looking for odd images", 1, 1 + ROUNDS)
    odd = find_odd(scores)
    if odd.many:
        share = min(MOST, WIDER * float(odd.named.mean()))
        for i in range(ROUNDS):
            kept = scores <= np.quantile(scores, 1 - share)
            scores = _scores(features, level_shapes, prepare, kept, seed)
            progress("looking for odd images", 2 + i, 1 + ROUNDS)
        odd = find_odd(scores)
    progress("looking for odd images", 1 + ROUNDS, 1 + ROUNDS)
    return Screen(scores, odd.named, ~kept)


def _scores(
    features: Features, level_shapes: Sequence[LevelShape], prepare: Preprocessor, kept: npt.NDArray[np.bool_], seed: int
) -> npt.NDArray[np.float64]:
    """(N,) of all images, by heads fitted on `kept` ones: of these by heads without them."""
    params = asdict(PRESETS["fast"][1])
    inside, outside = np.flatnonzero(kept), np.flatnonzero(~kept)
    learnt = features.only(inside)
    head = fit_head("padim", params, level_shapes, learnt, prepare, seed)
    scores = np.empty(features.n_images)
    scores[inside] = cross_fit("padim", params, level_shapes, learnt, prepare, seed, FOLDS, whole=head)[0].score
    if len(outside):
        scores[outside] = score_features(head, features.of_images(outside, varied=False), prepare).score
    return scores
