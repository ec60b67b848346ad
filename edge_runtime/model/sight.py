"""What a frame looks like before any model: how bright, how sharp and how noisy it is where parts are judged.

Training and the device share it.
"""

import math
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.model.manifest import InputSpec
from edge_runtime.model.tiles import Box, Tiling
from edge_runtime.records import Image

_POINTS = 1 << 12
"""Pixels whose mean is the brightness: a lattice over the whole region."""
_VALUES = 1 << 14
"""Pixels that are looked at to find the sharpness, in patches."""
_PATCHES = 3
"""Along each side of the region."""
_LEAST_PX = 8
"""Side of a patch in pixels of the model's input: enough for second derivatives."""
_ACROSS = 4
"""Pixels of the frame, along each side, that stand for one of the model's input: more of them would tell the same."""
_FLAT = 0.75
"""Share of the pixels that tell the noise, those with the least contrast: the others lie on edges."""
_OF_FLAT = 6 * 0.51488
"""Mean of the least _FLAT of |noise| after the kernel below, for normal noise of 1: the kernel makes 6 of it, and the mean of a normal
variable's absolute value below its quartile of _FLAT is 0.515."""
_GRAIN = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
"""Sees neither gradients nor straight edges along the axes (Immerkaer 1996, "Fast noise variance estimation")."""


@dataclass(frozen=True, slots=True)
class Sight:
    """How bright, how sharp and how noisy one frame is."""

    brightness: float
    """Mean gray level of 0..255, over all channels."""
    sharpness: float
    """Standard deviation of the Laplacian at the scale of the model's input, over the mean gray level: a lamp that is dimmer by a factor
    leaves it as it is, a blur of a pixel of the model's input does not."""
    noise: float = 0.0
    """Standard deviation from pixel to pixel of the frame where it is flat, in gray levels of 255; 0 where nothing tells it."""


class SightMeter:
    """Looks at a part of the pixels only, so that it costs a small fraction of a millisecond whatever the frame's size."""

    def __init__(self, spec: InputSpec, roi: tuple[int, int, int, int] | None = None, ignored: npt.NDArray[np.uint8] | None = None) -> None:
        """`roi` replaces the spec's region, as a recipe may; `ignored`: (H, W) of the frame's size, non-zero = not looked at."""
        self._spec, self._roi = spec, roi or spec.roi
        self._ignored = None if ignored is None else np.asarray(ignored > 0, np.uint8)
        self._scale = 255.0 / ((1 << spec.bits) - 1)

    def __call__(self, image: Image) -> Sight:
        """(H, W) or (H, W, 3), uint8 or uint16, as the camera gives it and as `Preprocessor.check` accepts it."""
        x, y, w, h = region = self._roi or (0, 0, image.shape[1], image.shape[0])
        inside = image[y : y + h, x : x + w]
        if inside.ndim == 3 and self._spec.channels == 1:
            inside = inside[:, :, 0]
        seen = None if self._ignored is None else self._ignored[y : y + h, x : x + w] == 0
        brightness = self._brightness(inside, seen)
        return Sight(brightness, self._sharpness(inside, seen, region) / max(brightness, 1.0), self._noise(inside, seen))

    def _brightness(self, inside: Image, seen: npt.NDArray[np.bool_] | None) -> float:
        # An odd step meets all colours of a mosaic in turn.
        step = math.isqrt(max(0, inside.shape[0] * inside.shape[1] - 1) // _POINTS) | 1 if inside.size > _POINTS else 1
        some = np.ascontiguousarray(inside[::step, ::step])
        mask = None if seen is None else np.ascontiguousarray(seen[::step, ::step], np.uint8)
        if mask is not None and not mask.any():
            mask = None
        channels = 1 if some.ndim == 2 else some.shape[2]
        return float(np.mean(cv2.mean(cast(Image, some), mask)[:channels])) * self._scale

    def _sharpness(self, inside: Image, seen: npt.NDArray[np.bool_] | None, region: Box) -> float:
        """In gray levels of 255. Of patches, each reduced to about the model's scale: only changes tell, so whole steps will do."""
        h, w = inside.shape[:2]
        (across_x, step_x), (across_y, step_y) = (self._steps(per) for per in self._frame_px(region))
        side = max(_LEAST_PX, math.isqrt(_VALUES // (_PATCHES**2 * across_x * across_y)))
        nx, ny = (max(3, min(side, n // (across * step))) for n, across, step in ((w, across_x, step_x), (h, across_y, step_y)))
        span_x, span_y = nx * across_x * step_x, ny * across_y * step_y
        if span_x > w or span_y > h:
            return 0.0  # a few pixels: nothing is sharp
        flat = inside if inside.ndim == 2 else inside[:, :, 1]  # green: most of what is seen
        canvas = np.empty((_PATCHES * ny * across_y, _PATCHES * nx * across_x), np.float32)
        kept = np.ones((_PATCHES, _PATCHES), bool)
        for j in range(_PATCHES):
            top = (h - span_y) * j // (_PATCHES - 1)
            rows = slice(j * ny * across_y, (j + 1) * ny * across_y)
            for i in range(_PATCHES):
                left = (w - span_x) * i // (_PATCHES - 1)
                cut = (slice(top, top + span_y, step_y), slice(left, left + span_x, step_x))
                canvas[rows, i * nx * across_x : (i + 1) * nx * across_x] = flat[cut]
                kept[j, i] = seen is None or bool(seen[cut].mean() > 0.5)
        if across_x * across_y > 1:
            canvas = cv2.resize(canvas, (_PATCHES * nx, _PATCHES * ny), interpolation=cv2.INTER_AREA)
        edges = np.asarray(cv2.Laplacian(canvas, cv2.CV_32F)).reshape(_PATCHES, ny, _PATCHES, nx)
        variances = edges[:, 1:-1, :, 1:-1].var(axis=(1, 3))  # without the seams between patches
        return math.sqrt(float(variances[kept].mean() if kept.any() else variances.mean())) * self._scale

    def _noise(self, inside: Image, seen: npt.NDArray[np.bool_] | None) -> float:
        """Told by patches of the frame's own pixels; those that are black or saturated hide it and do not count."""
        flat = inside if inside.ndim == 2 else inside[:, :, 1]
        step = 1 if self._spec.bayer is None else 2  # of one colour
        flat = flat[::step, ::step]
        seen = None if seen is None else seen[::step, ::step]
        h, w = flat.shape
        side = math.isqrt(_VALUES) // _PATCHES
        ny, nx = min(side, h // _PATCHES), min(side, w // _PATCHES)
        if min(ny, nx) < 3:
            return 0.0
        top, found = (1 << self._spec.bits) - 1, []
        for j in range(_PATCHES):
            for i in range(_PATCHES):
                y, x = (h - ny) * j // (_PATCHES - 1), (w - nx) * i // (_PATCHES - 1)
                cut = (slice(y, y + ny), slice(x, x + nx))
                patch = np.asarray(flat[cut], np.float32)
                blind = (patch == 0) | (patch >= top)
                if seen is not None:
                    blind |= ~seen[cut]
                grain = np.abs(cv2.filter2D(patch, -1, _GRAIN))[1:-1, 1:-1]
                if blind.any():
                    grain = grain[cv2.dilate(blind.astype(np.uint8), np.ones((3, 3), np.uint8))[1:-1, 1:-1] == 0]
                found.append(grain.ravel())
        values = np.concatenate(found)
        count = int(_FLAT * len(values))
        if count < _LEAST_PX**2:
            return 0.0
        return float(np.partition(values, count - 1)[:count].mean()) / _OF_FLAT * self._scale

    def _steps(self, per: float) -> tuple[int, int]:
        """How many of the frame's pixels stand for one of the model's along a side, and how far apart they lie, from how many there are."""
        if self._spec.bayer is not None:
            # An even number of pixels at odd steps holds all colours alike: else the mosaic itself would be all that is sharp.
            across = _ACROSS if per >= _ACROSS else 2
            return across, max(1, int(per / across)) - 1 | 1
        across = max(1, min(_ACROSS, int(per)))
        return across, max(1, round(per / across))

    def _frame_px(self, region: Box) -> tuple[float, float]:
        """Pixels of the frame in one of the model's input, along x and y; at least 1: what is enlarged gets no sharper."""
        spec = self._spec
        w, h = region[2], region[3]
        if spec.tiles is not None:
            _, _, w, h = Tiling(spec.tiles, spec.height, spec.width).boxes(region)[0]
        return max(1.0, w / spec.width), max(1.0, h / spec.height)
