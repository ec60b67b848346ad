"""What a detector learns from, laid out the same way by a fit and by an export: pictures of good parts, their variations, and bad ones."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ConfigError, DataError
from edge_runtime.model.bundle import file_sha256
from edge_runtime.model.preprocess import Preprocessor
from training.core.base import LEAST_BAD, Features, Outliers, Progress, silent
from training.core.memory import room
from training.data.dataset import Dataset, inputs, load_bad
from training.data.layout import Sample
from training.data.masks import truth
from training.pictures.augment import Augment
from training.pictures.synthetic import paint_defects

SYNTHETIC = 200
"""Defects that are painted where a method can learn from bad parts and none were given."""

Images = npt.NDArray[np.uint8]


class OutlierSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bad parts to learn from; stored with the run, so that an export can learn from the same ones."""

    bad: str | None = None
    """Folder (absolute path); subfolders name kinds."""
    masks: str | None = None
    synthetic: int = 0
    """How many defects are painted into good parts."""


@dataclass(frozen=True, slots=True)
class OutlierPictures:
    """M model inputs that show a defect."""

    images: Images
    """(M, H, W, 3) BGR."""
    masks: npt.NDArray[np.bool_]
    """(M, H, W); where `masked` says so."""
    masked: npt.NDArray[np.bool_]
    """(M,) whether the mask is known."""
    kinds: tuple[str, ...]
    synthetic: npt.NDArray[np.bool_]
    """(M,)"""
    sha256: tuple[str, ...]
    """sha256 of each real image file."""

    def __len__(self) -> int:
        return len(self.images)

    def outliers(self, levels: Sequence[npt.NDArray[np.float32]], grid_hw: tuple[int, int]) -> Outliers:
        """With their features, one (M, C, h, w) array a level."""
        shares = np.full((len(self), *grid_hw), np.nan, np.float32)
        for i in np.flatnonzero(self.masked):
            mask = self.masks[i].astype(np.float32)
            shares[i] = cv2.resize(mask, grid_hw[::-1], interpolation=cv2.INTER_AREA)
        return Outliers(Features.of(levels), shares, self.kinds, self.synthetic)


def good_pictures(samples: Sequence[Sample], prepare: Preprocessor, augment: Augment | None = None, seed: int = 0) -> Iterator[Images]:
    """(H, W, 3) model inputs image by image: its tiles, then `augment.copies` random variations of them. Raises DataError with the path.

    A variation follows from the seed, the image's bytes and its number, so it is the same whatever other images there are.
    """
    copies = 0 if augment is None else augment.copies
    views: list[Images] = []
    for picture in inputs(samples, prepare):
        yield picture
        if augment is None or not copies:
            continue
        views.append(picture)
        if len(views) < prepare.views:
            continue
        for copy in range(copies):
            for view in views:
                rng = np.random.default_rng([seed, copy, int.from_bytes(hashlib.sha256(view.tobytes()).digest()[:8], "big")])
                yield augment(view, rng)
        views.clear()


def outlier_pictures(
    source: OutlierSource, dataset: Dataset, learn: Sequence[Sample], prepare: Preprocessor, seed: int, progress: Progress = silent
) -> OutlierPictures:
    """Bad images of the data's training split and of `source`, then synthetic ones painted into the images of `learn`.

    Of a tiled image, the tiles that show something.

    Raises:
        DataError: images that cannot be read or do not fit, or too few of them.
        ConfigError: bad images without masks of a tiled product: nobody could tell which tile is bad.
    """
    images: list[Images] = []
    masks: list[npt.NDArray[np.bool_]] = []
    masked: list[bool] = []
    kinds: list[str] = []
    hashes: list[str] = []
    samples = [s for s in dataset.bad if s.split == "train"]
    if source.bad is not None:
        folder, mask_folder = Path(source.bad), Path(source.masks) if source.masks else None
        samples += load_bad(folder, dataset.spec, dataset.ignore, masks=mask_folder, progress=progress)
    if samples and len(samples) < LEAST_BAD:
        raise DataError(f"bad: expected at least {LEAST_BAD} images to learn from, found {len(samples)}; add some")
    # A mask is cut and reduced as its image is; whatever pixel holds any of the defect counts.
    as_mask = Preprocessor(msgspec.structs.replace(prepare.spec, channels=1, bits=8, bayer=None, brightness=None))
    for sample in samples:
        hashes.append(file_sha256(sample.path))
        drawn = truth(sample)
        marked = None if drawn is None else as_mask.split(drawn)[..., 0] > 0
        has_mask = marked is not None and bool(marked.any())
        if prepare.views > 1 and not has_mask:
            raise ConfigError(
                f"bad: {sample.path} has no mask: of a product that is cut into tiles, nobody could tell which is bad; give --masks"
            )
        for i, picture in enumerate(inputs([sample], prepare)):
            mask = np.zeros(picture.shape[:2], bool) if marked is None else marked[i]
            if prepare.views > 1 and not mask.any():
                continue
            images.append(picture)
            masks.append(mask)
            masked.append(has_mask)
            kinds.append(sample.kind)
    real = len(images)
    if source.synthetic:
        spread = np.random.default_rng(seed).permutation(len(learn))[: source.synthetic]
        originals = _stacked([learn[int(i)] for i in np.sort(spread)], prepare)
        valid = prepare.valid_cells((prepare.spec.height, prepare.spec.width)) if prepare.views == 1 else None
        for done, painted in enumerate(paint_defects(originals, source.synthetic, seed, valid=valid), 1):
            images.append(painted.image)
            masks.append(painted.mask)
            masked.append(True)
            kinds.append(f"synthetic {painted.kind}")
            progress("painting defects", done, source.synthetic)
    if not images:
        raise DataError("outliers: expected bad images to learn from, found none; give them with --bad FOLDER")
    synthetic = np.arange(len(images)) >= real
    return OutlierPictures(np.stack(images), np.stack(masks), np.array(masked), tuple(kinds), synthetic, tuple(hashes))


def painted_pictures(
    samples: Sequence[Sample], prepare: Preprocessor, count: int, seed: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.intp]]:
    """(count, views, H, W, 3) model inputs of good images with one synthetic defect each, of a tiled one in one of its tiles; and (count,)
    positions in `samples` of the images that they were painted into.

    Raises DataError for no samples.
    """
    if not samples:
        raise DataError("synthetic: expected good images to paint defects into, found none")
    flat = _stacked(samples, prepare)
    good = flat.reshape(-1, prepare.views, *flat.shape[1:])
    valid = prepare.valid_cells((prepare.spec.height, prepare.spec.width)) if prepare.views == 1 else None
    frames = room((count, *good.shape[1:]), np.uint8)
    sources = np.empty(count, np.intp)
    for i, painted in enumerate(paint_defects(flat, count, seed, valid=valid)):
        sources[i], view = divmod(painted.source, prepare.views)
        frames[i] = good[sources[i]]
        frames[i, view] = painted.image
    return frames, sources


def _stacked(samples: Sequence[Sample], prepare: Preprocessor) -> Images:
    """(samples x views, H, W, 3) model inputs, in a file where they are many: a large image has hundreds of tiles."""
    stack = room((len(samples) * prepare.views, prepare.spec.height, prepare.spec.width, 3), np.uint8)
    for i, picture in enumerate(inputs(samples, prepare)):
        stack[i] = picture
    return stack
