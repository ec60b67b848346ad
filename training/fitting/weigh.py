"""Whether learning variations pays on this product: its price is measured on painted defects, its gain on varied good parts.

Half of some good images teaches two heads, with the variations and without; the other half is scored as it is, varied, and with a defect
painted into each. Variations are what is right for most products (deploy/decisions/0022), so they go only where they cost what is more than
noise, or where they gain nothing: varied parts pass no more often with them than without, and painted defects are told no better.

What is painted are places. Where all of a part being too dark is the defect, they show no price of learning it (brightness varied by 60 %
cost them nothing, on a plate and on a ring); `remedies.with_brightness` asks known bad parts that question, and nothing varies brightness
unasked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from edge_runtime.model.preprocess import Preprocessor
from training.calibrate.bounds import percent
from training.core.base import Features, LevelShape, Progress, silent
from training.core.learn import TrainedHead
from training.core.memory import IN_MEMORY_BYTES, room
from training.data.layout import Sample
from training.fitting.heads import BackboneFn, extract_features, fit_head, score_features
from training.methods.padim import PRESETS
from training.methods.table import METHODS
from training.pictures.material import painted_pictures

MOST = 120
"""Images that are looked at, spread over all."""
LEAST = 24
"""Fewer say nothing about a price."""
DEAR = 0.02
"""Image AUROC that variations must cost on painted defects before they are left out,"""
SIGMAS = 2.5
"""and so many standard errors of that difference (bootstrap over both kinds of images): one product in a hundred loses them by chance."""
ROUNDS = 200
LITTLE = 0.75
"""AUROC of painted defects below which a detector is doubted."""
PLACED = 0.95
"""Share of the parts that lie as they were taught which the gain is told beside."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Seen:
    """What one head says of images that it did not learn from."""

    good: Array
    """(n,)"""
    varied: Array
    """(n,) a variation of each."""
    painted: Array
    """(m,)"""

    @property
    def auroc(self) -> float:
        """AUROC of painted defects against good parts."""
        return _auroc(self.good, self.painted)

    @property
    def astray(self) -> float:
        """Share of the varied ones beyond what PLACED of the others stay below."""
        return float((self.varied > np.quantile(self.good, PLACED)).mean())

    @property
    def strangeness(self) -> float:
        """AUROC of the varied ones against the others, 0.5 where nothing tells them apart: decides where few images give equal shares."""
        return _auroc(self.good, self.varied)


@dataclass(frozen=True, slots=True)
class Weighed:
    """Both sides."""

    taught: Seen
    """With variations."""
    plain: Seen
    kept: bool

    @property
    def sentence(self) -> str:
        """For the user."""
        gain = (
            f"shifted, blurred or dimmed good parts beyond what {percent(PLACED)} of the others score: {percent(self.taught.astray)}"
            f" (not learnt: {percent(self.plain.astray)})"
        )
        price = f"painted defects told from good parts at an AUROC of {self.taught.auroc:.3f} (not learnt: {self.plain.auroc:.3f})"
        best = max(self.taught.auroc, self.plain.auroc)
        doubt = (
            ""
            if best >= LITTLE
            else (
                ". That is little: it may see less than you hope; photograph bad parts, and try another --method, a larger --image-size"
                " or --tiles"
            )
        )
        if self.kept:
            return f"learning these variations pays, measured on good images that were kept apart for it: {gain}; {price}{doubt}"
        why = "that costs too much here" if gains(self.taught, self.plain) else "nothing is gained by it here"
        return (
            f"variations are not learnt from after all, since {why}: {price}; {gain}. Keep parts, lens and lamp as they are, or learn"
            f" them all the same: --augment shift=PIXELS,lamp=0.4,blur=0.6 (rotate=DEGREES where parts turn){doubt}"
        )


def weigh(
    method: str, params: Mapping[str, Any], shapes: Sequence[LevelShape], features: Features, samples: Sequence[Sample],
    prepare: Preprocessor, run_backbone: BackboneFn, seed: int, progress: Progress = silent,
) -> Weighed | None:  # fmt: skip
    """Gain and price of a variation for `samples`, whose pictures and variations `features` holds; None for fewer than LEAST.

    A method that learns by steps is stood in for by a Gaussian a position. Raises DataError.
    """
    if len(samples) < LEAST:
        return None
    if issubclass(METHODS[method].head, TrainedHead):
        method, params = "padim", asdict(PRESETS["fast"][1])
    picks = np.unique(np.linspace(0, len(samples) - 1, min(MOST, len(samples))).astype(int))
    learnt, held = picks[::2], picks[1::2]
    progress("weighing variations", 0, 3)
    pictures, _ = painted_pictures([samples[int(i)] for i in held], prepare, len(held), seed)
    painted = extract_features(
        run_backbone, (view for frame in pictures for view in frame), len(held), shapes, views=prepare.views
    )  # fmt: skip
    own, variations = features.of_images(held, varied=False), features.first_copies(held)
    seen: list[Seen] = []
    for varied in (True, False):
        progress("weighing variations", 1 + len(seen), 3)
        head = fit_head(method, params, shapes, features.of_images(learnt, varied=varied), prepare, seed)
        seen.append(Seen(*(score_features(head, some, prepare).score for some in (own, variations, painted))))
    progress("weighing variations", 3, 3)
    return Weighed(seen[0], seen[1], worth(seen[0], seen[1], seed))


def gains(taught: Seen, plain: Seen) -> bool:
    """Whether anything is better with variations: fewer varied parts beyond the level (of equally many, less told from the others), or
    painted defects told better."""
    return (taught.astray, taught.strangeness) < (plain.astray, plain.strangeness) or taught.auroc > plain.auroc


def worth(taught: Seen, plain: Seen, seed: int) -> bool:
    """Whether variations gain anything, and cost no more than noise and DEAR; the two heads scored the same images."""
    if not gains(taught, plain):
        return False
    price = plain.auroc - taught.auroc
    if price <= DEAR:
        return True
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(ROUNDS):
        g, b = rng.integers(0, len(taught.good), len(taught.good)), rng.integers(0, len(taught.painted), len(taught.painted))
        drawn.append(_auroc(plain.good[g], plain.painted[b]) - _auroc(taught.good[g], taught.painted[b]))
    return price <= SIGMAS * float(np.std(drawn))


def without_variations(features: Features, scratch: Path | None = None) -> Features:
    """The features of the images' own pictures alone; `scratch` as of `extract_features`."""
    rows = features.of_images(np.arange(features.n_images), varied=False).rows
    levels = []
    for level in features.levels:
        own = room((len(rows), *level.shape[1:]), np.float32, scratch, budget=IN_MEMORY_BYTES // len(features.levels))
        for at, row in enumerate(rows):
            own[at] = level[row]
        levels.append(own)
    return Features.of(levels, features.views)


def _auroc(good: Array, bad: Array) -> float:
    return float(roc_auc_score(np.arange(len(good) + len(bad)) >= len(good), np.concatenate([good, bad])))
