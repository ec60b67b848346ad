"""A line of drawn parts with known defects: turned metal plates with printed marks, a fault in some of them. Pure drawing by seed."""

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.records import Image

Kind = Literal["good", "scratch", "spot", "missing"]
DEFECTS: tuple[Kind, ...] = ("scratch", "spot", "missing")
_Plane = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Part:
    """One drawn part and the truth about it."""

    kind: Kind
    image: Image
    """(height, width) uint8 gray, read-only."""
    truth: npt.NDArray[np.uint8]
    """(height, width) uint8, 255 where the defect is; all 0 on a good part."""


class Line:
    """Part n is a function of (seed, n): the same today and tomorrow, whatever was drawn before it."""

    def __init__(self, width: int = 320, height: int = 320, defect_rate: float = 0.2, seed: int = 0) -> None:
        self.width, self.height, self.defect_rate, self.seed = width, height, defect_rate, seed

    def part(self, n: int) -> Part:
        """Part n: good, or with one defect with probability `defect_rate`."""
        rng = np.random.default_rng([self.seed, n])
        kind: Kind = DEFECTS[rng.integers(len(DEFECTS))] if rng.random() < self.defect_rate else "good"
        return self.draw(n, kind)

    def draw(self, n: int, kind: Kind) -> Part:
        """Part n with exactly that fault, or none."""
        rng = np.random.default_rng([self.seed, n, 1])
        w, h = self.width, self.height
        side = min(w, h)
        centre = (w / 2 + rng.normal(0, 0.006) * side, h / 2 + rng.normal(0, 0.006) * side)
        plane = _plate(rng, w, h, centre, side)
        holes = [(centre[0] + dx * side, centre[1] + dy * side) for dx in (-0.27, 0.27) for dy in (-0.27, 0.27)]
        missing = int(rng.integers(len(holes)))
        truth = np.zeros((h, w), np.uint8)
        for i, (x, y) in enumerate(holes):
            if kind == "missing" and i == missing:
                _disc(truth, (x, y), 0.055 * side, 255)
            else:
                _disc(plane, (x, y), 0.055 * side, 35.0)
                _ring(plane, (x, y), 0.055 * side, 0.012 * side, 205.0)
        _marks(plane, centre, side)
        if kind == "scratch":
            _scratch(rng, plane, truth, centre, side)
        elif kind == "spot":
            _spot(rng, plane, truth, centre, side)
        plane = plane * rng.normal(1.0, 0.015) + rng.normal(0, 2.0, plane.shape).astype(np.float32)  # lamp and sensor
        image = np.clip(plane, 0, 255).astype(np.uint8)
        image.flags.writeable = False
        return Part(kind, image, truth)


def _plate(rng: np.random.Generator, w: int, h: int, centre: tuple[float, float], side: int) -> _Plane:
    """A round plate on a dark belt: brushed along circles, lit from the upper left."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    dx, dy = x - centre[0], y - centre[1]
    radius = np.hypot(dx, dy)
    grooves = cv2.GaussianBlur(rng.normal(0, 1, (1, side)).astype(np.float32), (0, 0), 0.8)[0]
    metal = 150 + 5 * grooves[np.minimum(radius, side - 1).astype(np.int32)] - 22 * (dx + dy) / side
    inside = np.clip(0.46 * side - radius, 0, 1)
    return np.asarray(inside * metal + (1 - inside) * 45, dtype=np.float32)


def _marks(plane: _Plane, centre: tuple[float, float], side: int) -> None:
    """The bore in the middle and a printed cross-hair of four bars."""
    _disc(plane, centre, 0.10 * side, 30.0)
    _ring(plane, centre, 0.13 * side, 0.015 * side, 95.0)
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        ends = [(round((centre[0] + dx * r * side) * 16), round((centre[1] + dy * r * side) * 16)) for r in (0.20, 0.33)]
        cv2.line(plane, ends[0], ends[1], 80.0, max(round(0.02 * side), 1), cv2.LINE_AA, shift=4)


def _scratch(rng: np.random.Generator, plane: _Plane, truth: npt.NDArray[np.uint8], centre: tuple[float, float], side: int) -> None:
    angle, turn = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.3)
    start = np.array(centre) + rng.uniform(0.16, 0.30) * side * np.array([np.cos(angle), np.sin(angle)])
    direction = angle + rng.uniform(0.35, 0.65) * np.pi + turn * np.linspace(0, 1, 12)
    steps = 0.018 * side * np.stack([np.cos(direction), np.sin(direction)], axis=1)
    points = np.round((start + np.cumsum(steps, axis=0)) * 16).astype(np.int32)
    thick = max(round(0.009 * side), 1)
    cv2.polylines(plane, [points], False, 235.0, thick, cv2.LINE_AA, shift=4)
    cv2.polylines(truth, [points], False, 255, thick, shift=4)


def _spot(rng: np.random.Generator, plane: _Plane, truth: npt.NDArray[np.uint8], centre: tuple[float, float], side: int) -> None:
    angle, r = rng.uniform(0, 2 * np.pi), rng.uniform(0.17, 0.38) * side
    at = (round(centre[0] + r * np.cos(angle)), round(centre[1] + r * np.sin(angle)))
    axes = (max(round(rng.uniform(0.018, 0.035) * side), 2), max(round(rng.uniform(0.014, 0.028) * side), 2))
    shape = np.zeros(plane.shape, np.uint8)
    cv2.ellipse(shape, at, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1)
    truth[shape > 0] = 255
    soft = cv2.GaussianBlur(shape, (0, 0), 1.2).astype(np.float32) / 255
    plane *= 1 - soft * 0.62  # a stain: darker than any metal, lighter than a hole


def _disc(plane: npt.NDArray[np.integer[Any] | np.floating[Any]], at: tuple[float, float], radius: float, value: float) -> None:
    cv2.circle(plane, (round(at[0] * 16), round(at[1] * 16)), round(radius * 16), value, -1, cv2.LINE_AA, shift=4)


def _ring(plane: _Plane, at: tuple[float, float], radius: float, width: float, value: float) -> None:
    cv2.circle(plane, (round(at[0] * 16), round(at[1] * 16)), round(radius * 16), value, max(round(width), 1), cv2.LINE_AA, shift=4)
