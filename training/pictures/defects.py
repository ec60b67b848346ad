"""What a painted defect looks like: one painter a kind, each (Scene, generator) -> the picture with the defect, (H, W, 3) float 0..255.

After Zavrtanik et al., "DRAEM", 2021 (arXiv 2108.07610, section 3.3: Perlin masks filled with textures) and Li et al., "CutPaste", 2021
(arXiv 2104.04015, section 2: patches and scars), with what is seen on parts: spots, scratches, cracks, smears, missing material. Sizes
are log-uniform, so that small ones, which are what an inspection fails on, are as frequent as large ones.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.floating[Any]]

STRENGTH = (0.12, 0.6)
"""Share of the way to black, or to white, that a shaded defect goes; log-uniform."""
_LEAST_PX = 3.0
_FINE = 4  # shapes are drawn this many times finer and averaged down, for widths of a fraction of a pixel


class Scene(NamedTuple):
    """A good image and where the defect goes."""

    image: Field
    """(H, W, 3) 0..255."""
    centre: tuple[float, float]
    """(x, y) in pixels."""
    part: npt.NDArray[np.bool_]
    """(H, W) False on what looks like background."""
    other: Field
    """Another good image of the set, (H, W, 3) 0..255, where there is one."""

    @property
    def hw(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    @property
    def side(self) -> int:
        return min(self.hw)


def _spot(scene: Scene, rng: np.random.Generator) -> Field:
    """A stain, a blob, a pinhole, sometimes with a rim as dried drops have it; small ones may come in a group."""
    size = _size(scene, rng, 0.01, 0.3)
    shape = _blob(scene.hw, scene.centre, size, rng)
    if size < 0.06 * scene.side and rng.random() < 0.3:
        for _ in range(int(rng.integers(1, 5))):
            x, y = (float(c + rng.normal(0, 3 * size)) for c in scene.centre)
            shape = np.maximum(shape, _blob(scene.hw, (x, y), size * rng.uniform(0.4, 1), rng))
    if size > 0.06 * scene.side and rng.random() < 0.3:
        inner = cv2.erode(shape, np.ones((5, 5), np.uint8))
        shape = shape - rng.uniform(0.4, 0.9) * cv2.GaussianBlur(inner, (0, 0), 0.08 * size)
    return _mix(scene.image, _shade(scene.image, _signed(rng)), shape)


def _scratch(scene: Scene, rng: np.random.Generator) -> Field:
    """A thin curved line, lighter or darker, of changing depth; deep ones have a flank of the opposite shade."""
    length = _size(scene, rng, 0.05, 0.8)
    bend = rng.normal(0, 1.2 / length)
    headings = rng.uniform(0, 2 * np.pi) + bend * np.arange(int(length)) + np.cumsum(rng.normal(0, 0.02, int(length)))
    line = _lines(scene.hw, [_walk(headings, scene.centre)], _log_uniform(rng, 0.6, max(0.7, 0.012 * scene.side)))
    line = line * (0.35 + 0.65 * _noise(scene.hw, 6, rng))
    share = _signed(rng)
    result = scene.image
    if rng.random() < 0.4:
        dx, dy = rng.choice([-1.0, 1.0], 2)
        flank = np.asarray(cv2.warpAffine(line, np.array([[1, 0, dx], [0, 1, dy]]), scene.hw[::-1]))
        result = _mix(result, _shade(result, -0.5 * share), flank * (1 - line))
    return _mix(result, _shade(result, share), line)


def _crack(scene: Scene, rng: np.random.Generator) -> Field:
    """A dark jagged line, sometimes with branches."""
    length = _size(scene, rng, 0.08, 0.7)
    paths = [_jagged(length, rng.uniform(0, 2 * np.pi), scene.centre, rng)]
    for _ in range(int(rng.integers(0, 3))):
        trunk = paths[0]
        at = int(rng.integers(len(trunk) // 4, len(trunk) - 1))
        heading = float(np.arctan2(*(trunk[at + 1] - trunk[at])[::-1])) + rng.choice([-1, 1]) * rng.uniform(0.4, 1.2)
        paths.append(_jagged(length * rng.uniform(0.2, 0.5), heading, (float(trunk[at, 0]), float(trunk[at, 1])), rng, centred=False))
    line = _lines(scene.hw, paths, _log_uniform(rng, 0.7, max(0.8, 0.01 * scene.side)))
    line = line * (0.5 + 0.5 * _noise(scene.hw, 8, rng))
    return _mix(scene.image, _shade(scene.image, -_log_uniform(rng, *STRENGTH)), line)


def _texture(scene: Scene, rng: np.random.Generator) -> Field:
    """Patches where Perlin noise is high, filled with a foreign texture (DRAEM, section 3.3 and equation 1), within a window."""
    size = _size(scene, rng, 0.04, 0.5)
    noise = _noise(scene.hw, scene.side / size * rng.uniform(2, 4), rng)
    window = _blob(scene.hw, scene.centre, size, rng)
    shape = cv2.GaussianBlur(((noise * window) > 0.45).astype(np.float32), (0, 0), 0.7)
    # A window without a peak of the noise would be empty.
    if shape.max() < 0.5:
        shape = window
    choice = rng.integers(3)
    if choice == 0:
        filling = _elsewhere(scene.other, scene, rng, zoom=rng.uniform(0.5, 2))
    elif choice == 1:
        filling = scene.image + rng.uniform(20, 70) * (2 * _noise(scene.hw, scene.side / rng.uniform(2, 12), rng) - 1)[:, :, None]
    else:
        filling = _shade(_elsewhere(scene.image, scene, rng, zoom=rng.uniform(0.5, 2)), 0.5 * _signed(rng))
    return _mix(scene.image, filling, shape * rng.uniform(0.3, 1.0))


def _patch(scene: Scene, rng: np.random.Generator) -> Field:
    """A rectangle cut elsewhere and pasted (CutPaste, section 2.2)."""
    area = _size(scene, rng, 0.02, 0.3) ** 2
    aspect = _log_uniform(rng, 0.3, 3.3)
    return _paste(scene, (area * aspect) ** 0.5, (area / aspect) ** 0.5, 0.0, rng)


def _scar(scene: Scene, rng: np.random.Generator) -> Field:
    """A thin turned rectangle of another place and another shade (CutPaste, section 2.3)."""
    length = _size(scene, rng, 0.04, 0.3)
    return _paste(scene, length, max(2.0, length * rng.uniform(0.08, 0.3)), rng.uniform(0, 180), rng)


def _smear(scene: Scene, rng: np.random.Generator) -> Field:
    """Wiped along one direction: the texture is gone, the shade a little off."""
    size = _size(scene, rng, 0.06, 0.5)
    angle = rng.uniform(0, 180)
    reach = 2 * int(np.clip(0.15 * size, 2, 15)) + 1
    kernel = np.zeros((reach, reach), np.float32)
    kernel[reach // 2] = 1 / reach
    turned = np.asarray(cv2.warpAffine(kernel, cv2.getRotationMatrix2D((reach // 2, reach // 2), angle, 1), (reach, reach)))
    wiped = np.asarray(cv2.filter2D(scene.image, -1, turned / turned.sum(), borderType=cv2.BORDER_REFLECT), dtype=np.float32)
    shape = _blob(scene.hw, scene.centre, size, rng, aspect=rng.uniform(0.2, 0.5), angle=angle)
    shape = np.asarray(cv2.GaussianBlur(shape, (0, 0), max(0.8, 0.04 * size)))
    return _mix(scene.image, _shade(wiped, 0.6 * _signed(rng)), shape)


def _missing(scene: Scene, rng: np.random.Generator) -> Field:
    """Material gone, to the background's colour or the picture's darkest one; half of them break into the part's edge."""
    size = _size(scene, rng, 0.02, 0.25)
    centre = scene.centre
    edge = scene.part & (cv2.erode(np.pad(scene.part, 1).astype(np.uint8), np.ones((3, 3), np.uint8))[1:-1, 1:-1] == 0)
    if rng.random() < 0.5 and edge.any():
        ys, xs = np.nonzero(edge)
        pick = int(np.argmin((xs - centre[0]) ** 2 + (ys - centre[1]) ** 2))
        centre = (float(xs[pick]), float(ys[pick]))
    flat = scene.image[~scene.part]
    colour = np.median(flat, axis=0) if len(flat) > 0.02 * scene.part.size else np.percentile(scene.image, 3, axis=(0, 1))
    filling = colour + (scene.image - cv2.blur(scene.image, (9, 9))) * 0.3
    return _mix(scene.image, filling.astype(np.float32), _blob(scene.hw, centre, size, rng) * rng.uniform(0.4, 1.0))


PAINTERS: Mapping[str, Callable[[Scene, np.random.Generator], Field]] = {
    "spot": _spot,
    "scratch": _scratch,
    "crack": _crack,
    "texture": _texture,
    "patch": _patch,
    "scar": _scar,
    "smear": _smear,
    "missing": _missing,
}
"""Kind -> painter."""


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(max(low, high)))))


def _size(scene: Scene, rng: np.random.Generator, low: float, high: float) -> float:
    """Pixels, between these shares of the picture's shorter side."""
    return max(_LEAST_PX, _log_uniform(rng, low * scene.side, high * scene.side))


def _signed(rng: np.random.Generator) -> float:
    """A strength, darker (negative) two times of three: dirt, holes and cracks are."""
    return _log_uniform(rng, *STRENGTH) * (-1 if rng.random() < 2 / 3 else 1)


def _shade(image: Field, share: float) -> Field:
    """`share` of the way to black (negative) or white (positive)."""
    return image * (1 + share) if share < 0 else image + share * (255 - image)


def _mix(image: Field, paint: Field, alpha: Field) -> Field:
    return image + alpha[:, :, None] * (paint - image)


def _noise(hw: tuple[int, int], cells: float, rng: np.random.Generator) -> Field:
    """Perlin's gradient noise, two octaves, `cells` of them along the shorter side: (H, W), 0..1, around 0.5."""
    total = np.zeros(hw, dtype=np.float32)
    for octave in range(2):
        step = max(2.0, min(hw) / (cells * 2**octave))
        ys, xs = (np.arange(n, dtype=np.float32) / step for n in hw)
        angles = rng.uniform(0, 2 * np.pi, (int(ys[-1]) + 2, int(xs[-1]) + 2)).astype(np.float32)
        gy, gx = np.sin(angles), np.cos(angles)
        iy, ix = ys.astype(int)[:, None], xs.astype(int)[None]
        fy, fx = (ys % 1)[:, None], (xs % 1)[None]
        sy, sx = (f * f * f * (f * (f * 6 - 15) + 10) for f in (fy, fx))
        corner = {(a, b): gy[iy + a, ix + b] * (fy - a) + gx[iy + a, ix + b] * (fx - b) for a in (0, 1) for b in (0, 1)}
        top = corner[0, 0] + sx * (corner[0, 1] - corner[0, 0])
        low = corner[1, 0] + sx * (corner[1, 1] - corner[1, 0])
        total += (top + sy * (low - top)) / 2**octave
    return np.asarray(np.clip(0.5 + 0.7 * total, 0, 1))


def _blob(
    hw: tuple[int, int],
    centre: tuple[float, float],
    size: float,
    rng: np.random.Generator,
    aspect: float | None = None,
    angle: float | None = None,
) -> Field:
    """(H, W) 0..1: an ellipse of about `size` pixels with a wavy edge, one pixel soft."""
    turn = np.deg2rad(rng.uniform(0, 180) if angle is None else angle)
    ratio = rng.uniform(0.5, 1) if aspect is None else aspect
    dx = np.arange(hw[1], dtype=np.float32)[None] - centre[0]
    dy = np.arange(hw[0], dtype=np.float32)[:, None] - centre[1]
    along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    radius = size / 2
    distance = np.hypot(along, across / ratio) - radius
    if size > 4:
        distance = distance + 1.2 * radius * (_noise(hw, min(hw) / size * 1.5, rng) - 0.5)
    return np.asarray(np.clip(0.5 - distance, 0, 1), dtype=np.float32)


def _walk(headings: Field, centre: tuple[float, float], *, centred: bool = True) -> Field:
    """(n, 2) x, y of a path of steps of one pixel, with its middle or its beginning at `centre`."""
    points = np.cumsum(np.stack([np.cos(headings), np.sin(headings)], axis=1), axis=0)
    return np.asarray(points + centre - points[len(points) // 2 if centred else 0])


def _jagged(length: float, heading: float, centre: tuple[float, float], rng: np.random.Generator, *, centred: bool = True) -> Field:
    steps = max(4, int(length))
    turns = np.repeat(rng.normal(0, 0.45, steps // 3 + 1), rng.integers(2, 9, steps // 3 + 1))
    return _walk(heading + np.resize(turns, steps), centre, centred=centred)


def _lines(hw: tuple[int, int], paths: Sequence[Field], width: float) -> Field:
    """(H, W) 0..1: how much of each pixel the lines cover."""
    canvas = np.zeros((hw[0] * _FINE, hw[1] * _FINE), np.uint8)
    points = [np.rint((path + 0.5) * _FINE).astype(np.int32) for path in paths]
    cv2.polylines(canvas, points, isClosed=False, color=255, thickness=max(1, round(width * _FINE)))
    return np.asarray(cv2.resize(canvas, hw[::-1], interpolation=cv2.INTER_AREA), dtype=np.float32) / 255


def _elsewhere(image: Field, scene: Scene, rng: np.random.Generator, zoom: float = 1.0, angle: float = 0.0) -> Field:
    """`image` moved so that a random place of it lies at the scene's centre, turned and zoomed about it, mirrored beyond its border."""
    matrix = cv2.getRotationMatrix2D((0.0, 0.0), angle, zoom)
    place = np.array([rng.uniform(0, scene.hw[1]), rng.uniform(0, scene.hw[0])])
    matrix[:, 2] = np.array(scene.centre) - matrix[:, :2] @ place
    return np.asarray(
        cv2.warpAffine(image, matrix, scene.hw[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), dtype=np.float32
    )


def _paste(scene: Scene, width: float, height: float, angle: float, rng: np.random.Generator) -> Field:
    """A rectangle of another place of the same picture, a little lighter or darker (the paper's colour jitter)."""
    corners = cv2.boxPoints((scene.centre, (width, height), angle))
    canvas = np.zeros((scene.hw[0] * _FINE, scene.hw[1] * _FINE), np.uint8)
    cv2.fillConvexPoly(canvas, np.rint((corners + 0.5) * _FINE).astype(np.int32), 255)
    shape = np.asarray(cv2.resize(canvas, scene.hw[::-1], interpolation=cv2.INTER_AREA), dtype=np.float32) / 255
    return _mix(scene.image, _shade(_elsewhere(scene.image, scene, rng, angle=angle), rng.uniform(-0.15, 0.15)), shape)
