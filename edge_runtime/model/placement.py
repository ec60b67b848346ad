"""How far a part is shifted and turned in its picture, against a small mean picture of good parts.

Training and the device share it.
Shift is found by phase correlation of windowed pictures whose mean was taken out (Kuglin and Hines, "The phase correlation image alignment
method", 1975), with a parabola through its peak; the turn by correlating the picture, moved back, with the mean picture turned to several
angles. Where a product shows nothing that has a place, or is the same whichever way it is turned, both find anything: whoever measures an
envelope proves on good parts that were moved whether they work (training.judging.placed).

Why: deploy/decisions/0052.
"""

from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.model.manifest import InputSpec
from edge_runtime.model.tiles import Box
from edge_runtime.records import Image

Small = npt.NDArray[np.float32]

SIDE_PX = 128
"""Longer side of the small picture."""
_LEAST_PX = 24
"""Shorter sides tell nothing."""
_ACROSS = 4
"""Pixels of the frame, along each side, that stand for one of the small picture: more of them would tell the same."""
_REACH = 0.2
"""Share of a side up to which a shift is looked for."""
_ANGLES = np.arange(-4.0, 4.01, 0.5)
_FINE = 0.12
"""Cycles a pixel beyond which frequencies hardly count: there is more noise than part."""
_LEAST_POWER = 0.05
"""Share of the mean amplitude that each frequency's is divided by at least."""


@dataclass(frozen=True, slots=True)
class Pose:
    """How a part lies, relative to the mean picture."""

    x: float
    """Share of the region's width, to the right."""
    y: float
    """Share of its height, downwards."""
    turn: float
    """Degrees, counterclockwise as seen."""


class Shrinker:
    """Makes the small pictures of a product's frames."""

    def __init__(self, spec: InputSpec, ignored: npt.NDArray[np.uint8] | None = None) -> None:
        """`ignored`: (H, W) of the frame's size, non-zero = not looked at."""
        self._spec = spec
        self._region = _region(spec)
        self._scale = 255.0 / ((1 << spec.bits) - 1)
        self.size_wh = _small_wh(self._region)
        """Width and height of the small pictures."""
        self.ignored: npt.NDArray[np.bool_] | None = None
        """(h, w): which of their pixels show what is not looked at."""
        if ignored is not None:
            x, y, w, h = self._region
            share = cv2.resize((ignored[y : y + h, x : x + w] > 0).astype(np.float32), self.size_wh, interpolation=cv2.INTER_AREA)
            self.ignored = np.asarray(share) > 0

    @staticmethod
    def suits(spec: InputSpec) -> bool:
        """Whether frames of this product lie upon one another at all: all of one size, and not a few pixels."""
        return (spec.frame_wh is not None or spec.roi is not None) and min(_small_wh(_region(spec))) >= _LEAST_PX

    def __call__(self, image: Image) -> Small:
        """(H, W) or (H, W, 3), uint8 or uint16, as the camera gives it -> (h, w) gray levels of 0..255."""
        x, y, w, h = self._region
        inside = image[y : y + h, x : x + w]
        if inside.ndim == 3:
            inside = inside[:, :, 1]  # green: most of what is seen
        # An odd step meets all colours of a mosaic in turn.
        steps = [max(1, side // (small * _ACROSS)) - 1 | 1 for side, small in zip((w, h), self.size_wh, strict=True)]
        some: npt.NDArray[np.integer[Any]] = np.ascontiguousarray(inside[:: steps[1], :: steps[0]])
        return cast(Small, np.asarray(cv2.resize(some, self.size_wh, interpolation=cv2.INTER_AREA), np.float32) * np.float32(self._scale))


class PlacementMeter:
    """Compares small pictures with a mean one; about a millisecond each."""

    def __init__(self, reference: npt.NDArray[Any], ignored: npt.NDArray[np.bool_] | None = None) -> None:
        """`reference`: (h, w) gray levels; `ignored`: (h, w), True = not looked at."""
        self._hw = h, w = (int(reference.shape[0]), int(reference.shape[1]))
        window = np.outer(np.hanning(h + 2)[1:-1], np.hanning(w + 2)[1:-1]).astype(np.float32)
        self._window: Small = window if ignored is None else np.where(ignored, np.float32(0), window)
        self._weights: Small = self._window / max(float(self._window.sum()), 1e-6)
        mean = reference.astype(np.float32)
        self._spectrum = np.conj(np.fft.rfft2(self._windowed(mean) * self._window))
        fy, fx = np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None]
        self._low: Small = np.exp(-(fx * fx + fy * fy) / (2 * _FINE**2)).astype(np.float32)
        middle = ((w - 1) / 2, (h - 1) / 2)
        turned = [_warp(mean, cv2.getRotationMatrix2D(middle, float(a), 1.0)) for a in _ANGLES]
        self._turned: Small = np.stack([self._windowed(t) * self._weights for t in turned]).reshape(len(_ANGLES), -1)

    def __call__(self, picture: Small) -> Pose | None:
        """(h, w) as `Shrinker` makes it; None where no place fits within a fifth of the picture."""
        h, w = self._hw
        power = np.fft.rfft2(self._windowed(picture) * self._window) * self._spectrum
        size = np.abs(power)
        peaks = np.fft.irfft2(power / np.maximum(size, _LEAST_POWER * float(size.mean()) + 1e-12) * self._low, s=(h, w))
        ry, rx = (max(2, round(_REACH * side)) for side in (h, w))
        near = np.roll(peaks, (ry, rx), (0, 1))[: 2 * ry + 1, : 2 * rx + 1]
        j, i = (int(v) for v in np.unravel_index(int(near.argmax()), near.shape))
        if not (0 < j < 2 * ry and 0 < i < 2 * rx):
            return None
        x, y = i - rx + _between(*near[j, i - 1 : i + 2]), j - ry + _between(*near[j - 1 : j + 2, i])
        back = _warp(picture, np.array([[1, 0, x], [0, 1, y]], np.float64), cv2.WARP_INVERSE_MAP)
        like = self._turned @ self._windowed(back).ravel()
        best = int(like.argmax())
        part = _between(*like[best - 1 : best + 2]) if 0 < best < len(_ANGLES) - 1 else 0.0
        return Pose(x / w, y / h, float(_ANGLES[best]) + part * float(_ANGLES[1] - _ANGLES[0]))

    def _windowed(self, picture: Small) -> Small:
        """Brought to mean 0 and deviation 1 where the window looks."""
        picture = picture - np.float32((picture * self._weights).sum())
        return cast(Small, picture / np.float32(np.sqrt((picture * picture * self._weights).sum() + 1e-9)))


def _region(spec: InputSpec) -> Box:
    return spec.roi or (0, 0, *(spec.frame_wh or (spec.width, spec.height)))


def _small_wh(region: Box) -> tuple[int, int]:
    scale = min(1.0, SIDE_PX / max(region[2:]))
    return max(1, round(region[2] * scale)), max(1, round(region[3] * scale))


def _between(left: float, middle: float, right: float) -> float:
    """Where between its neighbours a peak lies: of a parabola through all three, -0.5..0.5."""
    bend = float(left) - 2 * float(middle) + float(right)
    return 0.5 * (float(left) - float(right)) / bend if bend < 0 else 0.0


def _warp(picture: Small, matrix: npt.NDArray[Any], more: int = 0) -> Small:
    size = (picture.shape[1], picture.shape[0])
    return cast(Small, cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_LINEAR | more, borderMode=cv2.BORDER_REFLECT_101))
