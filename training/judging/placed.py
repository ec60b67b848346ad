"""Whether the pictures of a product tell where its parts lie, proved on good parts that are moved; and the mean picture that tells it.

Each good part is compared with the mean of the others, as it is and after its small picture was shifted and turned to and fro. An axis is
watched on the device only where all of this holds, for the limit that the envelope has found:

- good parts differ among themselves by less than half of the limit (standard deviation, by their first and last deciles: where nothing has
  a place, a tenth of them and more lie anywhere);
- of what they are moved, between LEAST_GAIN and MOST_GAIN is seen, of nearly each of them;
- a turn is not taken for half a limit of shift, nor a shift for half a limit of turn.

Why: deploy/decisions/0052.
"""

from collections.abc import Sequence
from typing import Literal, cast

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.model.manifest import Axis
from edge_runtime.model.placement import PlacementMeter, Pose, Small

LEAST_PARTS = 12
LEAST_GAIN, MOST_GAIN = 0.6, 1.5
_UNSTEADY_GAIN = 0.5
"""Standard deviation of the gain, by deciles, that is no measure any more."""
_QUIET = 0.5
"""Shares of a limit that good parts, or another way of straying, may look like."""
_FOUND = 0.9
"""Share of the parts whose place must be found."""
_DECILES = 2.563
"""Between the first and the last decile of a normal distribution, in standard deviations."""

_Array = npt.NDArray[np.float64]
_Way = Literal["x", "y", "turn"]
_MOVES: dict[str, tuple[float, float, float]] = {
    "right": (0.02, 0.0, 0.0), "left": (-0.02, 0.0, 0.0), "down": (0.0, 0.02, 0.0), "up": (0.0, -0.02, 0.0),
    "over": (0.0, 0.0, 1.5), "back": (0.0, 0.0, -1.5),
}  # fmt: skip
"""Shares of width and height, and degrees."""
_PROVES: dict[_Way, tuple[int, tuple[str, str]]] = {"x": (0, ("right", "left")), "y": (1, ("down", "up")), "turn": (2, ("over", "back"))}


def mean_of(pictures: Sequence[Small]) -> npt.NDArray[np.uint8]:
    """(h, w), gray levels as they are kept in a bundle."""
    return np.asarray(np.clip(np.rint(np.mean(pictures, axis=0)), 0, 255), np.uint8)


def watched_axes(
    pictures: Sequence[Small], ignored: npt.NDArray[np.bool_] | None, shift_limit: float | None, turn_limit: float | None
) -> tuple[Axis, ...]:
    """The axes along which a device can tell that parts lie elsewhere, well enough for these limits; none without limits.

    `pictures`: (h, w) of good parts, by `Shrinker`. `ignored`: likewise, True = not looked at.
    """
    if len(pictures) < LEAST_PARTS or (shift_limit is None and turn_limit is None):
        return ()
    whole = np.sum(pictures, axis=0)
    own, moved = [], {name: list[_Array]() for name in _MOVES}
    for picture in pictures:
        meter = PlacementMeter((whole - picture) / (len(pictures) - 1), ignored)
        own.append(_numbers(meter(picture)))
        for name, move in _MOVES.items():
            moved[name].append(_numbers(meter(_moved(picture, *move))))
    lies = np.stack(own)
    away = {name: np.stack(found) - lies for name, found in moved.items()}
    limits: dict[_Way, float | None] = {"x": shift_limit, "y": shift_limit, "turn": turn_limit}
    found = []
    for way, (i, names) in _PROVES.items():
        limit = limits[way]
        if limit is None or np.isfinite(lies[:, i]).mean() < _FOUND:
            continue
        gains = np.concatenate([away[name][:, i] / _MOVES[name][i] for name in names])
        if np.isfinite(gains).mean() < _FOUND:
            continue
        gain, spread = float(np.nanmedian(gains)), _spread(lies[:, i])
        if not (LEAST_GAIN <= gain <= MOST_GAIN) or _spread(gains) > _UNSTEADY_GAIN or spread / gain > _QUIET * limit:
            continue
        others = _PROVES["turn"][1] if way != "turn" else (*_PROVES["x"][1], *_PROVES["y"][1])
        if max(abs(float(np.nanmedian(away[name][:, i]))) for name in others) / gain > _QUIET * limit:
            continue
        found.append(Axis(way=way, usual=round(float(np.nanmedian(lies[:, i])), 6), spread=round(spread, 6), gain=round(gain, 4)))
    return tuple(found)


def _moved(picture: Small, x: float, y: float, turn: float) -> Small:
    h, w = picture.shape
    matrix = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), turn, 1.0)
    matrix[:, 2] += (x * w, y * h)
    return cast(Small, cv2.warpAffine(picture, matrix, (w, h), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101))


def _numbers(pose: Pose | None) -> _Array:
    return np.array([np.nan] * 3 if pose is None else [pose.x, pose.y, pose.turn])


def _spread(values: _Array) -> float:
    low, high = np.nanquantile(values, [0.1, 0.9])
    return float(high - low) / _DECILES
