"""Images -> features -> held-out scores and a fitted head. Export calls the same functions with the INT8 graph as backbone."""

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edge_runtime.errors import DataError
from training.backbones import Backbone
from training.calibrate import Scores
from training.methods.base import Features, Head, LevelShape, Progress, silent
from training.run import make_head

BackboneFn = Callable[[npt.NDArray[np.uint8]], Sequence[npt.NDArray[np.float32]]]
"""(N, H, W, 3) uint8 BGR -> one (N, C, h, w) float32 array a level, finest first."""

IN_MEMORY_BYTES = 256 << 20
"""Features beyond this lie in a file."""

FOLDS: Mapping[str, int] = {"patchcore": 3}
"""Folds of the cross-fit where a fit is dear; 5 otherwise."""
DEFAULT_FOLDS = 5


def torch_backbone_fn(backbone: Backbone) -> BackboneFn:
    """The torch backbone as a BackboneFn."""

    def run(batch: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
        with torch.inference_mode():
            return [level.numpy() for level in backbone(torch.from_numpy(batch))]

    return run


def extract_features(
    backbone_fn: BackboneFn,
    images: Iterable[npt.NDArray[np.uint8]],
    n_images: int,
    level_shapes: Sequence[LevelShape],
    *,
    batch: int = 1,
    scratch: Path | None = None,
    progress: Progress = silent,
) -> Features:
    """Features of `n_images` model inputs, in their order; one batch of images in memory at a time.

    Args:
        backbone_fn: see BackboneFn.
        images: (H, W, 3) uint8 BGR each, as data.inputs yields them.
        n_images: how many come.
        level_shapes: (C, h, w) a level.
        batch: images a call. One is what a graph of static shape takes, and fastest on a CPU, whose caches then hold the activations.
        scratch: folder for features that do not fit into IN_MEMORY_BYTES (default: the system's); their file has no name, so nothing
            stays behind whatever happens.
        progress: told of each batch.
    """
    total = 4 * n_images * sum(c * h * w for c, h, w in level_shapes)
    levels = [_room((n_images, *shape), total > IN_MEMORY_BYTES, scratch) for shape in level_shapes]
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
        progress("features", done, n_images)

    for image in images:
        pending.append(image)
        if len(pending) == batch:
            flush()
    flush()
    if done != n_images:
        raise ValueError(f"extract_features: {n_images} images were announced, {done} came")
    return Features.of(levels)


def fit_head(
    method: str,
    params: Mapping[str, Any],
    level_shapes: Sequence[LevelShape],
    features: Features,
    valid: npt.NDArray[np.bool_],
    seed: int,
    progress: Progress = silent,
) -> Head:
    """A head of that method, fitted, in eval mode. `valid`: (gh, gw). Raises ConfigError, DataError."""
    head = make_head(method, params, list(level_shapes))
    with torch.no_grad():  # not inference_mode: its tensors could not be traced for export later
        head.fit(features, valid, seed, progress)
    return head.eval()


def score_features(head: Head, features: Features, valid: npt.NDArray[np.bool_], batch: int = 8) -> Scores:
    """What a fitted head says of each image."""
    rows: list[tuple[float, float, float]] = []
    with torch.inference_mode():
        for levels in features.batches(batch):
            score, grid = head(levels)
            for value, one in zip(score.numpy(), grid[:, 0].numpy(), strict=True):
                rows.append((float(value), float(one.max()), float(np.median(one[valid]))))
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return Scores(table[:, 0], table[:, 1], table[:, 2])


def cross_fit(
    method: str,
    params: Mapping[str, Any],
    level_shapes: Sequence[LevelShape],
    features: Features,
    valid: npt.NDArray[np.bool_],
    seed: int,
    folds: int | None = None,
    progress: Progress = silent,
) -> Scores:
    """Held-out scores of all images: each is scored by a head that was fitted on the other folds.

    `folds`: None is `folds_of(method, len(features))`. Images are dealt to folds at random, by `seed`. Raises DataError for a single image.
    """
    n = len(features)
    folds = folds_of(method, n) if folds is None else folds
    if not 2 <= folds <= n:
        raise DataError(f"fit: expected at least 2 good images to hold some out, found {n}; a useful threshold needs 99 or more")
    table = np.empty((n, 3), dtype=np.float64)
    for i, held in enumerate(np.array_split(np.random.default_rng(seed).permutation(n), folds)):
        rest = np.setdiff1d(np.arange(n), held)
        step = _named(progress, f"fold {i + 1} of {folds}: ")
        head = fit_head(method, params, level_shapes, features.subset(rest), valid, seed, step)
        found = score_features(head, features.subset(held), valid)
        table[held] = np.stack([found.score, found.map_peak, found.map_median], axis=1)
        progress("held-out scores", i + 1, folds)
    return Scores(table[:, 0], table[:, 1], table[:, 2])


def folds_of(method: str, n_images: int) -> int:
    """How many folds the cross-fit of that method has."""
    return min(FOLDS.get(method, DEFAULT_FOLDS), n_images)


def check_memory(needed: int) -> None:
    """Refuse a fit that this machine cannot hold. Raises DataError."""
    free = available_memory()
    if free is not None and needed > free:
        raise DataError(
            f"fit: needs about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB is available."
            " Use --preset fast, a smaller --image-size or fewer images"
        )


def available_memory() -> int | None:
    """Bytes that may still be taken without swapping; None where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def _room(shape: tuple[int, ...], on_disk: bool, scratch: Path | None) -> npt.NDArray[np.float32]:
    if not on_disk:
        return np.empty(shape, dtype=np.float32)
    try:
        with tempfile.TemporaryFile(dir=scratch, prefix="lineside-features-") as file:
            return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)
    except OSError as e:
        size = 4 * int(np.prod(shape)) / 1e9
        raise DataError(f"fit: no room for {size:.1f} GB of features in {scratch or tempfile.gettempdir()}: {e.strerror or e}") from e


def _named(progress: Progress, prefix: str) -> Progress:
    return lambda what, done, total: progress(prefix + what, done, total)
