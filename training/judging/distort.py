"""Frames as a line that strays would give them: another light, a blurred lens, parts that lie elsewhere; before any preprocessing.

A frame that is much larger than the model's input is first reduced, over whole pixels, to about twice that size: what is finer no model
sees, and a condition then costs a millisecond. JPEG's blocks are therefore those of the reduced frame, which errs on the hard side.

What a shift or a turn brings into view from beyond the frame nobody has seen. It is mirrored in, and `Stage.invented` says where, so that
what a detector says of the seam is not taken for what it says of the part.
"""

import math
from dataclasses import dataclass
from typing import Any, cast

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import DataError
from edge_runtime.model.manifest import InputSpec
from edge_runtime.model.preprocess import _DEMOSAIC, Preprocessor
from edge_runtime.model.sight import SightMeter
from edge_runtime.model.tiles import Box, Tiling
from edge_runtime.records import Image
from training.pictures.synthetic import KINDS, paint_defects

_FINER = 2
"""A reduced frame has at least so many pixels for one of the model's input, along each side."""
_MARGIN = 0.06
"""Share of the region's sides that is kept around it: what a shift of 4 % and a turn of 2 degrees bring in."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One way and amount of straying, as in bundle.Wander."""

    what: str
    amount: float


CLEAN = Condition("clean", 0.0)
CONDITIONS: tuple[Condition, ...] = (
    CLEAN,
    *(Condition("light", a) for a in (0.7, 0.8, 0.9, 0.95, 1.05, 1.1, 1.2, 1.3)),
    *(Condition("gamma", a) for a in (0.7, 1.4)),
    *(Condition("blur", a) for a in (0.5, 1.0, 2.0)),
    *(Condition("shift", a) for a in (0.01, 0.02, 0.04)),
    *(Condition("turn", a) for a in (1.0, 2.0)),
    *(Condition("noise", a) for a in (2.0, 5.0, 10.0)),
    *(Condition("jpeg", a) for a in (90.0, 70.0, 40.0)),
)
"""What is measured, the clean pictures first."""
_ORIGINS = {"light": 1.0, "gamma": 1.0, "jpeg": 100.0}


def origin_of(what: str) -> float:
    """The amount of a picture that does not stray that way."""
    return _ORIGINS.get(what, 0.0)


@dataclass(frozen=True, slots=True)
class Directions:
    """Which way one image is moved, the same for every amount, so that more is further."""

    x: int
    y: int
    turn: int
    seed: int

    @classmethod
    def of(cls, seed: int, number: int) -> "Directions":
        """Random, by the seed and the image's number."""
        rng = np.random.default_rng([seed, number])
        x, y, turn = (int(v) for v in rng.choice((-1, 1), 3))
        return cls(x, y, turn, int(rng.integers(1 << 30)))


@dataclass(frozen=True, slots=True)
class _Plan:
    """How frames of one size are reduced."""

    crop: Box
    factor: int
    prepare: Preprocessor
    plain: Preprocessor
    """The same without photometric normalisation."""
    meter: SightMeter
    region: Box
    """Where parts are judged, in the reduced frame's pixels."""
    small_hw: tuple[int, int]
    """Rows and columns of the reduced frame."""
    per_px: tuple[float, float]
    """The reduced frame's pixels in one of the model's input, along x and y."""


class Stage:
    """Distorts frames of one product."""

    def __init__(self, spec: InputSpec, ignored: npt.NDArray[np.uint8] | None = None) -> None:
        """As for Preprocessor."""
        self._spec, self._ignored = spec, ignored
        self._top = (1 << spec.bits) - 1
        self._plans: dict[tuple[int, ...], _Plan] = {}
        self._noise: dict[tuple[int, ...], npt.NDArray[np.float32]] = {}

    def reduce(self, frame: Image) -> tuple[Image, _Plan]:
        """The part of a frame that counts, at a size that suits the model, and the plan for what becomes of it."""
        plan = self._plans.get(frame.shape) or self._plan(frame)
        self._plans[frame.shape] = plan
        if frame.ndim == 3 and self._spec.channels == 1:
            frame = frame[:, :, 0]
        if self._spec.bayer is not None:
            frame = cast(Image, cv2.cvtColor(frame, _DEMOSAIC[self._spec.bayer]))
        return _shrink(frame, plan.crop, plan.factor), plan

    def distort(self, image: Image, plan: _Plan, condition: Condition, directions: Directions) -> Image:
        """A reduced frame under that condition; of the same shape and type."""
        amount = condition.amount
        match condition.what:
            case "light":
                return self._curve(image, np.arange(self._top + 1) * amount)
            case "gamma":
                return self._curve(image, self._top * (np.arange(self._top + 1) / self._top) ** amount)
            case "blur":
                sigma_x, sigma_y = (amount * p for p in plan.per_px)
                blurred = cv2.GaussianBlur(image, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y, borderType=cv2.BORDER_REFLECT_101)
                return cast(Image, blurred)
            case "shift" | "turn":
                how = cv2.INTER_NEAREST if condition.what == "shift" else cv2.INTER_CUBIC
                return _warp(image, _movement(plan, condition, directions), how, cv2.BORDER_REFLECT_101)
            case "noise":
                # A pixel of the reduced frame is the mean of factor x factor of the camera's, and so is its noise.
                noise = self._grain(image.shape, directions.seed) * np.float32(amount * self._top / 255 / plan.factor)
                return self._rounded(image + noise)
            case "jpeg":
                return self._jpeg(image, int(amount))
        return image

    def invented(self, plan: _Plan, condition: Condition, directions: Directions) -> npt.NDArray[np.bool_] | None:
        """(views, H, W): which pixels of the model's inputs show what `distort` has mirrored in; None where no pixel does."""
        if condition.what not in ("shift", "turn"):
            return None
        movement = _movement(plan, condition, directions)
        real = _warp(np.ones(plan.small_hw, np.uint8), movement, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)
        tiles, hw = self._spec.tiles, (self._spec.width, self._spec.height)
        boxes = [plan.region] if tiles is None else Tiling(tiles, self._spec.height, self._spec.width).boxes(plan.region)
        shares = [cv2.resize(real[y : y + h, x : x + w].astype(np.float32), hw, interpolation=cv2.INTER_AREA) for x, y, w, h in boxes]
        found = np.stack(shares) < 1 - 1e-4
        return found if found.any() else None

    def paint(self, image: Image, plan: _Plan, seed: int, number: int) -> Image | None:
        """A reduced frame with a synthetic defect (training.pictures.synthetic), of the size that it would have in the model's input.

        None where none shows: the texture hides them all.
        """
        rng = np.random.default_rng([seed, number])
        views = plan.plain.split(image)
        view = int(rng.integers(len(views)))
        valid = plan.plain.valid_cells((self._spec.height, self._spec.width)) if len(views) == 1 else None
        first = number % len(KINDS)
        try:
            painted = next(paint_defects([views[view]], 1, seed + number, kinds=(*KINDS[first:], *KINDS[:first]), valid=valid))
        except DataError:
            return None
        change = painted.image.astype(np.float32) - views[view]
        tiles = self._spec.tiles
        x, y, w, h = plan.region if tiles is None else Tiling(tiles, self._spec.height, self._spec.width).boxes(plan.region)[view]
        change = np.asarray(cv2.resize(change, (w, h), interpolation=cv2.INTER_LINEAR)) * np.float32(self._top / 255)
        out = image.astype(np.float32)
        out[y : y + h, x : x + w] += change.mean(axis=2) if image.ndim == 2 else change
        return self._rounded(out)

    def _plan(self, frame: Image) -> _Plan:
        spec = self._spec
        height, width = frame.shape[:2]
        x, y, w, h = spec.roi or (0, 0, width, height)
        tile_w, tile_h = (w, h) if spec.tiles is None else Tiling(spec.tiles, spec.height, spec.width).boxes((x, y, w, h))[0][2:]
        factor = max(1, int(min(tile_w / spec.width, tile_h / spec.height) / _FINER))
        left, top = (min(start, math.ceil(_MARGIN * side)) // factor * factor for start, side in ((x, w), (y, h)))
        right, bottom = min(width - x - w, math.ceil(_MARGIN * w)), min(height - y - h, math.ceil(_MARGIN * h))
        crop = (x - left, y - top, (left + w + right) // factor * factor, (top + h + bottom) // factor * factor)
        small_wh = (crop[2] // factor, crop[3] // factor)
        rx, ry = left // factor, top // factor
        region = (rx, ry, min(round(w / factor), small_wh[0] - rx), min(round(h / factor), small_wh[1] - ry))
        ignored = None
        if self._ignored is not None:
            share = _shrink((self._ignored > 0).astype(np.float32), crop, factor)
            ignored = np.asarray(share > 0.5, np.uint8)
        small = msgspec.structs.replace(
            spec, frame_wh=small_wh, roi=region, bayer=None, channels=3 if spec.bayer is not None else spec.channels
        )
        plain = msgspec.structs.replace(small, brightness=None)
        per_px = (region[2] * tile_w / w / spec.width, region[3] * tile_h / h / spec.height)
        return _Plan(
            crop, factor, Preprocessor(small, ignored), Preprocessor(plain, ignored), SightMeter(plain, ignored=ignored), region,
            (small_wh[1], small_wh[0]), per_px,
        )  # fmt: skip

    def _curve(self, image: Image, values: npt.NDArray[np.floating[Any]]) -> Image:
        table = np.clip(np.rint(values), 0, self._top).astype(image.dtype)
        if image.dtype == np.uint8:
            return cast(Image, cv2.LUT(image, table))
        return cast(Image, table[np.minimum(image, self._top)])

    def _rounded(self, image: npt.NDArray[np.floating[Any]]) -> Image:
        kind = np.uint8 if self._spec.bits == 8 else np.uint16
        return cast(Image, np.clip(np.rint(image), 0, self._top).astype(kind))

    def _grain(self, shape: tuple[int, ...], seed: int) -> npt.NDArray[np.float32]:
        """Standard normal; one field a shape, moved at random for each image: drawing anew would take longer than all else."""
        if shape not in self._noise:
            self._noise[shape] = np.random.default_rng(0).standard_normal(shape, np.float32)
        rng = np.random.default_rng(seed)
        return np.roll(self._noise[shape], (int(rng.integers(shape[0])), int(rng.integers(shape[1]))), axis=(0, 1))

    def _jpeg(self, image: Image, quality: int) -> Image:
        eight = image if image.dtype == np.uint8 else cv2.convertScaleAbs(np.minimum(image, self._top), alpha=255 / self._top)
        _, coded = cv2.imencode(".jpg", eight, [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(coded, cv2.IMREAD_UNCHANGED)
        assert decoded is not None  # we have just written it
        return cast(Image, decoded) if image.dtype == np.uint8 else self._rounded(decoded.astype(np.float32) * (self._top / 255))


def _shrink(image: npt.NDArray[Any], crop: Box, factor: int) -> Any:
    x, y, w, h = crop
    cut = np.ascontiguousarray(image[y : y + h, x : x + w])
    return cut if factor == 1 else cv2.resize(cut, (w // factor, h // factor), interpolation=cv2.INTER_AREA)


def _movement(plan: _Plan, condition: Condition, directions: Directions) -> npt.NDArray[np.float64]:
    """(2, 3) of a shift, by a share of the region's sides and whole pixels, or of a turn about its middle, by degrees."""
    x, y, w, h = plan.region
    if condition.what == "turn":
        middle = (x + (w - 1) / 2, y + (h - 1) / 2)
        return np.asarray(cv2.getRotationMatrix2D(middle, directions.turn * condition.amount, 1.0), np.float64)
    by = [sign * max(1, round(condition.amount * side)) for sign, side in ((directions.x, w), (directions.y, h))]
    return np.array([[1, 0, by[0]], [0, 1, by[1]]], np.float64)


def _warp(image: Image, matrix: npt.NDArray[np.float64], how: int, border: int) -> Image:
    size = (image.shape[1], image.shape[0])
    return cast(Image, cv2.warpAffine(image, matrix, size, flags=how, borderMode=border))
