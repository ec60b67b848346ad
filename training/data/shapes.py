"""Defects that somebody drew as boxes, polygons or runs of pixels, and the mask that they are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

Point = tuple[float, float]
_FARTHEST = 1e6
"""Pixels; no picture is that large."""
_SHIFT = 4
"""Binary digits behind the point that OpenCV draws with."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One of them."""

    kind: Literal["polygon", "box", "line", "runs"]
    points: tuple[Point, ...] = ()
    """(x, y) of the corners, in pixels, or as shares of the picture's size; a box has two."""
    runs: tuple[int, ...] = ()
    """Lengths of runs that are unmarked, marked, unmarked …"""
    box_xywh: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Where `runs` lie."""
    by_columns: bool = True
    """COCO counts runs down the columns, CVAT along the rows."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """All that is drawn on one picture."""

    items: tuple[Shape, ...]
    wh: tuple[int, int] | None
    """Width and height of the picture, as the annotation states them; None where nothing does."""
    relative: bool = False
    """Points are shares of the picture's width and height."""
    source: str = ""
    """The file that says so, for messages."""


def check(shape: Shape) -> None:
    """Raises ValueError for places that no picture has, and for runs that do not fill theirs."""
    if not (np.abs(np.array(shape.points, dtype=np.float64)) < _FARTHEST).all():  # false for NaN, too
        raise ValueError(f"expected places in pixels, found {' '.join(f'{v:g}' for p in shape.points for v in p)[:60]}")
    if shape.kind == "runs":
        x, y, width, height = shape.box_xywh
        if not 0 < width < _FARTHEST or not 0 < height < _FARTHEST or max(abs(x), abs(y)) >= _FARTHEST:
            raise ValueError(f"expected runs over an area, found one of {width}x{height} at {x},{y}")
        if sum(shape.runs) != width * height:
            raise ValueError(f"expected runs over all {width * height} pixels of {width}x{height}, found some over {sum(shape.runs)}")


def box(x: float, y: float, width: float, height: float) -> Shape:
    """From its corner and size. Raises ValueError for a size below 0."""
    if width < 0 or height < 0:
        raise ValueError(f"expected a box's width and height, found {width:g} and {height:g}")
    return Shape("box", ((x, y), (x + width, y + height)))


def ellipse(cx: float, cy: float, rx: float, ry: float, turned_degrees: float = 0.0) -> Shape:
    """As a polygon of 48 corners."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    turn = np.deg2rad(turned_degrees)
    x, y = rx * np.cos(angle), ry * np.sin(angle)
    points = zip(cx + x * np.cos(turn) - y * np.sin(turn), cy + x * np.sin(turn) + y * np.cos(turn), strict=True)
    return Shape("polygon", tuple((float(a), float(b)) for a, b in points))


def pairs(numbers: Sequence[float]) -> tuple[Point, ...]:
    """x, y, x, y … as points. Raises ValueError for an odd count."""
    if len(numbers) % 2:
        raise ValueError(f"expected pairs of x and y, found {len(numbers)} numbers")
    return tuple((float(x), float(y)) for x, y in zip(numbers[::2], numbers[1::2], strict=True))


def draw(shapes: Shapes, wh: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """(H, W) uint8, 255 inside of any shape; one that is smaller than a pixel marks one."""
    width, height = wh
    mask = np.zeros((height, width), dtype=np.uint8)
    scale = np.array(wh if shapes.relative else (1, 1), dtype=np.float64)
    for shape in shapes.items:
        if shape.kind == "runs":
            _put_runs(mask, shape)
            continue
        points = np.array(shape.points, dtype=np.float64).reshape(-1, 2) * scale
        # Whoever draws a little over the edge means the edge.
        points = points.clip(0, np.array(wh, dtype=np.float64))
        if shape.kind == "box":
            (x0, y0), (x1, y1) = np.floor(points.min(axis=0)).astype(int), np.ceil(points.max(axis=0)).astype(int)
            x0, y0 = min(x0, width - 1), min(y0, height - 1)
            mask[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = 255
            continue
        # Corners are counted from the picture's corner, OpenCV's from the middle of the first pixel.
        fixed = np.round((points - 0.5) * (1 << _SHIFT)).astype(np.int32)[None]
        if shape.kind == "polygon" and len(points) > 2:
            cv2.fillPoly(mask, [fixed], 255, shift=_SHIFT)
        else:
            cv2.polylines(mask, [fixed], False, 255, shift=_SHIFT)
    return mask


def _put_runs(mask: npt.NDArray[np.uint8], shape: Shape) -> None:
    x, y, w, h = shape.box_xywh
    marked = np.repeat(np.arange(len(shape.runs)) % 2, shape.runs).astype(bool)
    marked = np.resize(np.concatenate([marked, np.zeros(max(0, w * h - len(marked)), dtype=bool)]), w * h)
    area = marked.reshape((w, h)).T if shape.by_columns else marked.reshape((h, w))
    place = mask[y : y + h, x : x + w]
    place[area[: place.shape[0], : place.shape[1]]] = 255


def runs_of_text(text: str) -> tuple[int, ...]:
    """COCO's compressed counts: five bits a character, each run after the second as the difference from the last but one.

    Source: `rleFrString` of pycocotools (maskApi.c).
    """
    counts: list[int] = []
    at = 0
    while at < len(text):
        value, shift, more = 0, 0, True
        while more:
            if at >= len(text):
                raise ValueError("expected compressed runs, found a text that ends early")
            code = ord(text[at]) - 48
            if not 0 <= code < 64:
                raise ValueError(f"expected compressed runs, found the character {text[at]!r}")
            value |= (code & 31) << shift
            more = bool(code & 32)
            at += 1
            shift += 5
            if not more and code & 16:
                value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return as_runs(counts)


def as_runs(counts: Iterable[float]) -> tuple[int, ...]:
    """Raises ValueError for a run of less than no pixel."""
    runs = tuple(int(c) for c in counts)
    if any(r < 0 for r in runs):
        raise ValueError("expected lengths of runs, found one below 0")
    return runs
