"""Images -> features -> held-out scores and a fitted head. Export calls the same functions with the INT8 graph as backbone."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edge_runtime.errors import DataError
from edge_runtime.model.preprocess import Preprocessor
from training.calibrate.rules import Scores
from training.core.backbones import Backbone
from training.core.base import Features, Head, LevelShape, Outliers, Progress, silent
from training.core.checkpoint import Checkpoint
from training.core.learn import HELD_OUT_SHARE, LearningResult, Network, Schedule, TrainedHead, hold_out, learn
from training.core.memory import IN_MEMORY_BYTES, room
from training.methods.table import METHODS, make_head

BackboneFn = Callable[[npt.NDArray[np.uint8]], Sequence[npt.NDArray[np.float32]]]
"""(N, H, W, 3) uint8 BGR -> one (N, C, h, w) float32 array a level, finest first."""

QUICK_FOLDS = 20
"""Folds of a cross-fit where a method can leave images out without being fitted anew (`Head.without`), and DEAR_FOLDS where it cannot:
each image is then scored by a head that knows 95 %, or 80 %, of the others."""
DEAR_FOLDS = 5
AGAIN = 4
"""Further heads that a method which learns by steps learns, each without another fifth of the images,"""
ENOUGH_HELD = 40
"""where it holds out fewer images than this: a threshold that rests on eight scores is none."""


def torch_backbone_fn(backbone: Backbone | Network) -> BackboneFn:
    """The torch trunk as a BackboneFn."""

    def run(batch: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
        with torch.inference_mode():
            return [level.numpy() for level in backbone(torch.from_numpy(batch))]

    return run


def extract_features(
    backbone_fn: BackboneFn,
    pictures: Iterable[npt.NDArray[np.uint8]],
    n_images: int,
    level_shapes: Sequence[LevelShape],
    *,
    views: int = 1,
    copies: int = 0,
    batch: int = 1,
    scratch: Path | None = None,
    progress: Progress = silent,
) -> Features:
    """Features of the model inputs of `n_images` images, in their order; one batch of pictures in memory at a time.

    Args:
        backbone_fn: see BackboneFn.
        pictures: (H, W, 3) uint8 BGR each, as material.good_pictures yields them: views x (1 + copies) an image.
        n_images: how many images they come from.
        level_shapes: (C, h, w) a level.
        views: tiles of an image.
        copies: variations of each image beside its own pictures.
        batch: pictures a call. One is what a graph of static shape takes, and fastest on a CPU, whose caches then hold the activations.
        scratch: folder for features that do not fit into IN_MEMORY_BYTES (default: the system's); their file has no name, so nothing
            stays behind whatever happens.
        progress: told of each batch.
    """
    count = n_images * views * (1 + copies)
    levels = [room((count, *shape), np.float32, scratch, budget=IN_MEMORY_BYTES // len(level_shapes)) for shape in level_shapes]
    pending: list[npt.NDArray[np.uint8]] = []
    done = 0

    def flush() -> None:
        nonlocal done
        if not pending:
            return
        for level, found in zip(levels, backbone_fn(np.stack(pending)), strict=True):
            level[done : done + len(pending)] = found
        done += len(pending)
        pending.clear()
        progress("features", done, count)

    for picture in pictures:
        pending.append(picture)
        if len(pending) == batch:
            flush()
    flush()
    if done != count:
        raise ValueError(f"extract_features: {count} pictures were announced, {done} came")
    return Features.of(levels, views, copies)


@dataclass(frozen=True, slots=True)
class Painted:
    """Good images with a defect painted into each: they look much like those they were painted into, also to a head that knows these."""

    features: Features
    sources: npt.NDArray[np.intp]
    """Which of the good images each was; where these are in part learnt from, which of the others."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A head, and what it says of good images that it did not learn from."""

    head: Head
    held_out: Scores
    images: npt.NDArray[np.intp]
    """Which of the features' images `held_out` is of: all where heads were cross-fitted, else those that were never learnt from."""
    outcome: LearningResult | None
    """What became of a head that learns by gradient steps."""
    painted: Scores | None = None
    """Scores of painted defects, each by a head that did not see its image without."""


@dataclass(frozen=True, slots=True)
class LearningOptions:
    """How a head that learns by gradient steps is to learn; one that is computed needs none of it."""

    outliers: Outliers | None = None
    schedule: Schedule = field(default_factory=Schedule)
    checkpoint: Checkpoint | None = None
    learnt: Head | None = None
    """Learn nothing; take this one's weights, and compute anew what is computed: for features that differ a little."""
    alone: bool = False
    """Never learn further heads to score the images that are learnt from: for figures that need no fine threshold."""
    known: Scores | None = None
    """With `learnt`: held-out scores of all images on the features that it was learnt on, where there are such."""


def fit_held_out(
    method: str,
    params: Mapping[str, Any],
    level_shapes: Sequence[LevelShape],
    features: Features,
    prepare: Preprocessor,
    seed: int,
    *,
    folds: int | None = None,
    learning: LearningOptions | None = None,
    painted: Painted | None = None,
    progress: Progress = silent,
) -> Fitted:
    """Fit the method's head to the features of good images, and score good images by heads that did not see them.

    A head that is computed is fitted on all, and each fold is scored by one that was fitted on the others. One that learns by gradient
    steps never learns from a fifth of the images, which end its learning and are then scored. Where these are fewer than ENOUGH_HELD, and
    no time was stated, the other fifths are scored too, each by a head that learns without it in the same way and is then thrown away.

    Raises ConfigError, DataError.
    """
    head = make_head(method, params, list(level_shapes))
    if not isinstance(head, TrainedHead):
        fitted = fit_head(method, params, level_shapes, features, prepare, seed, progress)
        held_out, found = cross_fit(method, params, level_shapes, features, prepare, seed, folds, progress, painted, fitted)
        return Fitted(fitted, held_out, np.arange(features.n_images), None, found)
    learning = learning or LearningOptions()
    learnt, held = hold_out(features.n_images, seed)
    valid = valid_views(prepare, head.grid_hw)
    seen, unseen = features.of_images(learnt, varied=True), features.of_images(held, varied=False)
    outcome: LearningResult | None = None
    if learning.learnt is not None:
        head.load_state_dict(learning.learnt.state_dict())
        head.prepare(seen, unseen, valid)
    else:
        task = head.task(seen, unseen, valid, learning.outliers, seed)
        outcome = learn(task, learning.schedule, seed, checkpoint=learning.checkpoint, progress=progress, what=f"learning {method}")
    head = head.cpu().eval().requires_grad_(False)
    found = None if painted is None else score_features(head, painted.features, prepare)
    scores = score_features(head, unseen, prepare)
    if learning.learnt is not None or learning.alone or not learns_again(features.n_images, learning.schedule.minutes):
        if learning.known is not None and len(learning.known) == features.n_images:
            scores, held = _scaled(learning.known, scores, held), np.arange(features.n_images)
        return Fitted(head, scores, held, outcome, found)
    everything = np.empty((features.n_images, 3))
    everything[held] = np.stack(astuple(scores), axis=1)
    for i, other in enumerate(np.array_split(np.random.default_rng(seed).permutation(learnt), AGAIN), 1):
        other = np.sort(other)
        rest = np.setdiff1d(np.arange(features.n_images), other)
        again = make_head(method, params, list(level_shapes))
        assert isinstance(again, TrainedHead)
        theirs = features.of_images(other, varied=False)
        task = again.task(features.of_images(rest, varied=True), theirs, valid, learning.outliers, seed + i)
        learn(task, learning.schedule, seed + i, progress=progress, what=f"learning {method} without a fifth, {i} of {AGAIN}")
        everything[other] = np.stack(astuple(score_features(again.cpu().eval().requires_grad_(False), theirs, prepare)), axis=1)
    return Fitted(head, Scores(*everything.T), np.arange(features.n_images), outcome, found)


def learns_again(n_images: int, minutes: float | None) -> bool:
    """Whether a method that learns by steps has so few held-out images that it learns further heads to score the others by."""
    return minutes is None and n_images >= AGAIN + 1 and round(HELD_OUT_SHARE * n_images) < ENOUGH_HELD


def _scaled(known: Scores, found: Scores, at: npt.NDArray[np.intp]) -> Scores:
    """Scores of all images by heads on other features of the same pictures, brought to those that are found at some of them: by the median
    ratio, since the heads that scored the others are gone."""
    parts = []
    for before, after in zip(astuple(known), astuple(found), strict=True):
        scaled = before * float(np.median(after / np.maximum(before[at], 1e-12)))
        scaled[at] = after
        parts.append(scaled)
    return Scores(*parts)


def valid_views(prepare: Preprocessor, grid_hw: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """(gh, gw): what counts of one picture's map."""
    return prepare.valid_cells(grid_hw) if prepare.views == 1 else np.ones(grid_hw, dtype=bool)


def fit_head(
    method: str,
    params: Mapping[str, Any],
    level_shapes: Sequence[LevelShape],
    features: Features,
    prepare: Preprocessor,
    seed: int,
    progress: Progress = silent,
) -> Head:
    """A computed head of that method, in eval mode. Raises ConfigError, DataError."""
    head = make_head(method, params, list(level_shapes))
    with torch.no_grad():  # not inference_mode: its tensors could not be traced for export later
        head.fit(features, valid_views(prepare, head.grid_hw), seed, progress)
    return head.eval()


def score_features(head: Head, features: Features, prepare: Preprocessor, batch: int = 8) -> Scores:
    """What a fitted head says of each image; `features` holds their own pictures only, no variations."""
    valid = prepare.valid_cells(prepare.map_hw(head.grid_hw))
    rows: list[tuple[float, float, float]] = []
    scores: list[npt.NDArray[np.float32]] = []
    maps: list[npt.NDArray[np.float32]] = []
    with torch.inference_mode():
        for levels in features.batches(batch):
            score, grid = head(levels)
            scores += list(score.numpy()[:, None])
            maps += list(grid[:, 0].numpy())
            while len(scores) >= features.views:
                value, one = prepare.merge(np.concatenate(scores[: features.views]), np.stack(maps[: features.views]))
                del scores[: features.views], maps[: features.views]
                rows.append((value, float(one.max()), float(np.median(one[valid]))))
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return Scores(table[:, 0], table[:, 1], table[:, 2])


def cross_fit(
    method: str,
    params: Mapping[str, Any],
    level_shapes: Sequence[LevelShape],
    features: Features,
    prepare: Preprocessor,
    seed: int,
    folds: int | None = None,
    progress: Progress = silent,
    painted: Painted | None = None,
    whole: Head | None = None,
) -> tuple[Scores, Scores | None]:
    """Held-out scores of all images, and of painted ones: each is scored by a head that was fitted on the other folds, their variations
    included.

    `folds`: None is `folds_of(method, n)`. Images are dealt to folds at random, by `seed`. `whole`: the head that was fitted on all images,
    by `fit_head`, where there is one already. Raises DataError for a single image.
    """
    n = features.n_images
    folds = folds_of(method, n) if folds is None else folds
    if not 2 <= folds <= n:
        raise DataError(f"fit: expected at least 2 good images to hold some out, found {n}; a useful threshold needs 99 or more")
    table = np.empty((n, 3), dtype=np.float64)
    painted_table = np.empty((0 if painted is None else len(painted.sources), 3), dtype=np.float64)
    dealt = [np.sort(held) for held in np.array_split(np.random.default_rng(seed).permutation(n), folds)]
    whole = whole or fit_head(method, params, level_shapes, features, prepare, seed, progress)
    heads = _heads(whole, method, params, level_shapes, features, prepare, seed, dealt, progress)
    for i, (held, head) in enumerate(zip(dealt, heads, strict=True)):
        found = score_features(head, features.of_images(held, varied=False), prepare)
        table[held] = np.stack([found.score, found.map_peak, found.map_median], axis=1)
        if painted is not None and (rows := np.flatnonzero(np.isin(painted.sources, held))).size:
            found = score_features(head, painted.features.of_images(rows, varied=False), prepare)
            painted_table[rows] = np.stack([found.score, found.map_peak, found.map_median], axis=1)
        progress("held-out scores", i + 1, folds)
    return Scores(*table.T), None if painted is None else Scores(*painted_table.T)


def _heads(
    whole: Head, method: str, params: Mapping[str, Any], level_shapes: Sequence[LevelShape], features: Features, prepare: Preprocessor,
    seed: int, folds: Sequence[npt.NDArray[np.intp]], progress: Progress,
) -> Iterator[Head]:  # fmt: skip
    """For each fold a head that was fitted without it."""
    everything = features.of_images(np.arange(features.n_images), varied=True)
    with torch.no_grad():
        quick = whole.without(everything, valid_views(prepare, whole.grid_hw), folds, seed)
        if quick is not None:
            yield from quick
            return
    for i, held in enumerate(folds):
        rest = np.setdiff1d(np.arange(features.n_images), held)
        step = _named(progress, f"fold {i + 1} of {len(folds)}: ")
        yield fit_head(method, params, level_shapes, features.of_images(rest, varied=True), prepare, seed, step)


def folds_of(method: str, n_images: int) -> int:
    """How many folds the cross-fit of that method has."""
    quick = METHODS[method].head.without is not Head.without
    return min(QUICK_FOLDS if quick else DEAR_FOLDS, n_images)


def _named(progress: Progress, prefix: str) -> Progress:
    return lambda what, done, total: progress(prefix + what, done, total)
