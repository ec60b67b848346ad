"""How parts lie from picture to picture: how much of what they show is explained by place, how far they wander, the light.

Measured on small gray pictures with OpenCV alone, so that `inspect` can say it without PyTorch, and in a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from training.data.layout import Sample

Smalls = npt.NDArray[np.float32]
"""(N, 32, 32) gray, 0 to 255."""

LOOKED_AT = 100
"""Pictures that are measured; more change the second digit at most."""
LEAST = 8
"""Pictures from which on it is worth saying."""
COARSE = 2.0
"""Standard deviation, in pixels of the small picture, of what is taken off as shading: a lamp's gradient never moves."""
SURE = 0.1
"""Height of a phase correlation's peak from which on it tells a shift rather than a guess."""
FOUND = 0.4
"""Explained share of pictures that were moved back, from which on their shifts are those of parts: 0.58 and more of drawn parts that are
moved by up to 6 % of the picture (further ones are found as often as not); 0.01 of magnetic_tile, 0.30 of stripes a third of it apart."""

ALIKE = 0.15
"""Explained share from which on a place of the picture tells what a part shows there: one Gaussian a place is worth its parameters."""
ANYHOW = 0.07
"""Below it positions mean nothing: one Gaussian for all of them, fed with many pixels, ranks better than a bank of patches."""
MANY = 60
"""Good pictures that a Gaussian a place wants; below, a bank of patches ranks as well or better."""


@dataclass(frozen=True, slots=True)
class Pose:
    """How alike pictures of good parts are, place by place."""

    n: int
    """Pictures that were looked at."""
    explained: float
    """Share of the variance of what the pictures show (shading taken off, each picture's contrast brought to 1) that the mean picture
    explains: 1 where all are the same, 0 where nothing stands where it stood before. The mean correlation of two different pictures, so it
    does not grow with few of them."""
    shift: float | None
    """Median distance of a picture from the mean of the others, as a share of its side; None where the two have too little in common, or
    where pictures that are moved back by it do not come to lie on each other, as those of a cloth."""
    light: float
    """Standard deviation of the pictures' mean brightness over their mean (from the median deviation, so single ones do not count)."""


def pose_of(smalls: Smalls) -> Pose:
    """Measure (N, h, w) small gray pictures, N >= 2. Same arguments, same result."""
    means = smalls.mean(axis=(1, 2))
    middle = float(np.median(means))
    light = 1.4826 * float(np.median(np.abs(means - middle))) / max(middle, 1.0)
    fine = np.stack([s - cv2.GaussianBlur(s, (0, 0), COARSE) for s in smalls])
    fine -= fine.mean(axis=(1, 2), keepdims=True)
    return Pose(len(fine), float(np.clip(_explained(fine), 0, 1)), _shift(fine), light)


class Advice(NamedTuple):
    """What to teach parts that lie so."""

    method: str
    preset: str
    why: str
    """For people, with the numbers that it rests on."""


def advise(pose: Pose, n_good: int, views: int = 1) -> Advice:
    """Method and preset for parts that lie so: `n_good` images of `views` tiles each.

    The limits were set on magnetic_tile, elpv, deeppcb and drawn parts that lie alike, are shifted, turned, or lie anyhow, with 8 to all of
    their good images (deploy/decisions/0029-choosing-in-seconds.md).
    """
    share = f"{100 * pose.explained:.0f} % of what a picture shows stands at the same place in the others"
    least = f"padim wants {100 * ALIKE:.0f} %"
    if pose.explained < ANYHOW and views == 1:
        return Advice(
            "padim", "shared", f"parts lie anyhow ({share}, below {100 * ANYHOW:.0f} %): padim shared, which judges all places alike"
        )
    if pose.explained < ALIKE:
        return Advice("patchcore", "fast", f"parts do not lie alike ({share}; {least}): patchcore")
    if n_good * views < MANY:
        few = f"{n_good} good images are few to learn each place by itself (padim wants {MANY})"
        return Advice("patchcore", "fast", f"parts lie alike ({share}), but {few}: patchcore")
    return Advice("padim", "fast", f"parts lie alike ({share}; {least}): padim")


class Spread(Protocol):
    """What `describe` needs of a Pose, or of what was stored of it."""

    @property
    def shift(self) -> float | None: ...
    @property
    def light(self) -> float: ...


def describe(pose: Spread) -> str:
    """Shift and light, for people."""
    away = "" if pose.shift is None else f"half of the parts lie {100 * pose.shift:.1f} % of the picture or more off their usual place; "
    return f"{away}their brightness varies by {100 * pose.light:.0f} %"


def spread(samples: Sequence[Sample], limit: int) -> list[Sample]:
    """`limit` of them at most, evenly over their order: a folder is sorted by time more often than not."""
    if not samples:
        return []
    picks = np.unique(np.linspace(0, len(samples) - 1, min(limit, len(samples))).round().astype(int))
    return [samples[int(i)] for i in picks]


def _explained(fine: Smalls) -> float:
    """How much of one picture the other explains, both with a mean of 0; see Pose."""
    spread = fine.std(axis=(1, 2), keepdims=True)
    flat = (fine / np.maximum(spread, 1e-3)).reshape(len(fine), -1).astype(np.float64)
    total, own, n = flat.sum(axis=0), float((flat * flat).sum()), len(flat)
    return (float(total @ total) - own) / (n * (n - 1)) / max(own / n, 1e-9)


def _shift(fine: Smalls) -> float | None:
    side_h, side_w = fine.shape[1:]
    window = cv2.createHanningWindow((side_w, side_h), cv2.CV_32F)
    total, n = fine.sum(axis=0), len(fine)
    away, sure, back = [], [], []
    for picture in fine:
        others = ((total - picture) / max(n - 1, 1)).astype(np.float32)
        (dx, dy), peak = cv2.phaseCorrelate(others, picture.astype(np.float32), window)
        away.append(np.hypot(dx / side_w, dy / side_h))
        sure.append(peak)
        back.append(np.roll(picture, (-round(dy), -round(dx)), (0, 1)))
    return float(np.median(away)) if np.median(sure) >= SURE and _explained(np.stack(back)) >= FOUND else None
