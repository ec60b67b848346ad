"""Good images with painted defects and their masks, for choosing and calibrating where no bad part exists yet.

No painted defect is a real one, so a figure that rests on them says so: they rank detectors, they do not measure them. Image AUROC on 200
of them, painted into held-out images, against that on the real test images, over 17 variants of PaDiM, PatchCore and MVG on lite0: rank
correlation 0.93 on solar cells (best 0.96 on painted ones, 0.96 on real ones) and 0.72 on magnetic tiles (0.85 and 0.95), where many real
defects are larger than the painted ones, and a score that looks at the single highest cell is flattered by small ones.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ConfigError, DataError
from training.pictures.defects import PAINTERS, Scene

Image = npt.NDArray[np.uint8]

CHANGED = 6
"""Grey levels by which a pixel must have moved, in one channel at least, to be marked."""
LEAST_PIXELS = 6
"""Marked pixels that make a defect."""
VISIBLE = 1.5
"""Mean change of the marked pixels, in standard deviations of the texture around them: what drowns in it is no defect."""
TRIES = 50
"""Draws of a kind until one shows: a patch may look like what it covers. Then the next kind has its turn."""

KINDS: tuple[str, ...] = tuple(PAINTERS)
"""What can be painted."""

_BACKGROUND_WEIGHT = 0.1
_FLAT = 16.0  # variance of a surface whose only texture is the camera's noise


class Painted(NamedTuple):
    """A good image with one defect in it."""

    image: Image
    """(H, W, 3) uint8 BGR."""
    mask: npt.NDArray[np.bool_]
    """(H, W) True where the image differs from the good one by at least CHANGED grey levels."""
    kind: str
    """One of KINDS."""
    source: int
    """Position of the good image."""


def paint_defects(
    images: Sequence[Image] | Image,
    count: int,
    seed: int,
    *,
    kinds: Sequence[str] = KINDS,
    valid: npt.NDArray[np.bool_] | None = None,
) -> Iterator[Painted]:
    """`count` good images with one painted defect each; kinds take turns, and so do the images, in random order.

    The same arguments give the same pictures, and a smaller count gives the first of them. Gray images (three equal channels) stay gray.

    Args:
        images: (H, W, 3) uint8 BGR model inputs of good parts, possibly a memory map.
        count: how many to paint.
        seed: of all that is random.
        kinds: some of KINDS.
        valid: (H, W) pixels that are inspected; nothing is painted elsewhere. None: all.

    Raises:
        ConfigError: unknown kinds.
        DataError: no images, no valid pixel, shapes that do not fit, or images on which no defect can be seen.
    """
    chosen = tuple(kinds)
    unknown = [kind for kind in chosen if kind not in PAINTERS]
    if unknown or not chosen:
        raise ConfigError(f"synthetic defects: expected some of {', '.join(KINDS)}, found {', '.join(unknown) or 'none'}")
    if not len(images):
        raise DataError("synthetic defects: expected good images to paint into, found none")
    usable = np.ones(images[0].shape[:2], dtype=bool) if valid is None else valid
    if not usable.any():
        raise DataError("synthetic defects: expected at least one pixel that is inspected, found none; use a smaller ignore mask")
    return _paint_all(images, count, seed, chosen, usable)


def _paint_all(
    images: Sequence[Image] | Image, count: int, seed: int, kinds: tuple[str, ...], valid: npt.NDArray[np.bool_]
) -> Iterator[Painted]:
    n = len(images)
    for i in range(count):
        # A new order in every round: else each image would always meet the same kinds when their numbers share a factor.
        source = int(np.random.default_rng([seed, n, i // n]).permutation(n)[i % n])
        turn = i % len(kinds)
        rng = np.random.default_rng([seed, n, i // n, source])
        image = np.asarray(images[source])
        if image.shape != (*valid.shape, 3) or image.dtype != np.uint8:
            raise DataError(
                f"synthetic defects: expected uint8 images of {(*valid.shape, 3)}, found {image.dtype} {image.shape} at position {source}"
            )
        other = np.asarray(images[(source + int(rng.integers(1, n))) % n]) if n > 1 else image
        yield _paint_one(image, other, kinds[turn:] + kinds[:turn], source, valid, rng)


def _paint_one(
    image: Image, other: Image, kinds: tuple[str, ...], source: int, valid: npt.NDArray[np.bool_], rng: np.random.Generator
) -> Painted:
    """The first of `kinds` that can be seen on this image: nearly always the very first."""
    part = ~_background(image)
    chances = np.cumsum(np.where(part, 1.0, _BACKGROUND_WEIGHT) * valid)
    roughness = _roughness(image)
    gray = bool((image == image[:, :, :1]).all())
    if gray:
        other = np.repeat(cv2.cvtColor(other, cv2.COLOR_BGR2GRAY)[:, :, None], 3, axis=2)
    for kind in np.repeat(kinds, TRIES):
        y, x = divmod(int(np.searchsorted(chances, rng.random() * chances[-1], side="right")), image.shape[1])
        scene = Scene(image.astype(np.float32), (float(x), float(y)), part, other.astype(np.float32))
        painted = np.clip(np.rint(PAINTERS[kind](scene, rng)), 0, 255).astype(np.uint8)
        if gray:
            painted = np.repeat(painted[:, :, :1], 3, axis=2)
        painted = np.where(valid[:, :, None], painted, image)
        change = np.asarray(cv2.absdiff(painted, image)).max(axis=2)
        mask = change >= CHANGED
        if int(mask.sum()) >= LEAST_PIXELS and change[mask].mean() >= VISIBLE * roughness[mask].mean():
            return Painted(painted, mask, str(kind), source)
    raise DataError(
        f"synthetic defects: after {TRIES} tries of each kind, no defect can be seen on the image at position {source} of the good ones;"
        " use a smaller ignore mask, or look at that image"
    )


def _roughness(image: Image) -> npt.NDArray[np.float32]:
    """(H, W) standard deviation of the fine texture around each pixel, in grey levels."""
    light = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)
    fine = light - np.asarray(cv2.GaussianBlur(light, (0, 0), 2))
    square = np.asarray(cv2.blur(fine * fine, (15, 15)), dtype=np.float32)
    return np.sqrt(np.maximum(square, 0))  # running sums end a little below 0 on a flat place


def _background(image: Image) -> npt.NDArray[np.bool_]:
    """(H, W) what is flat, of the border's usual colour and connected to it: a belt or a light table around a part.

    A guess, so it only makes defects rarer there. What fills nearly all of the picture is the part itself.
    """
    pixels = image.astype(np.float32)
    mean = np.asarray(cv2.blur(pixels, (7, 7)))
    variance = np.asarray(cv2.blur(pixels * pixels, (7, 7))) - mean * mean
    border = np.concatenate([mean[0], mean[-1], mean[:, 0], mean[:, -1]])
    alike = (np.abs(mean - np.median(border, axis=0)) < 10).all(axis=2) & (variance < _FLAT).all(axis=2)
    labels = np.asarray(cv2.connectedComponents(alike.astype(np.uint8))[1])
    touching = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    found = alike & np.isin(labels, touching)
    return found if found.mean() < 0.8 else np.zeros_like(found)
