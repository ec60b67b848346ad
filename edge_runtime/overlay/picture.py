"""The part's picture with its heat map on the product's fixed scale, and a box round each suspicious place."""

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.overlay import text
from edge_runtime.overlay.text import Canvas
from edge_runtime.records import Affine, Region, ScoreMap

HEAT_STOPS = ((0.0, (90, 200, 250)), (0.5, (40, 190, 255)), (0.68, (20, 110, 255)), (0.85, (30, 30, 235)), (1.0, (120, 0, 190)))
"""Share of the scale -> BGR: pale yellow, amber, orange, red, crimson; darker as it gets hotter, so that it also reads without colour."""
OPACITY_STOPS = ((0.0, 0.0), (0.25, 0.0), (0.5, 0.10), (0.56, 0.38), (1.0, 0.72))
"""Share of the scale -> opacity; 0.5 is the threshold: what is below stays a picture of a good part."""
_BOX = (255, 255, 255)
_INK = (20, 20, 24)
_MAX_LABELS = 8


@lru_cache(maxsize=1)
def heat_table() -> npt.NDArray[np.float32]:
    """(256, 4) float32: B, G, R of 0..255 and opacity 0..1."""
    x = np.linspace(0, 1, 256)
    at = [s for s, _ in HEAT_STOPS]
    channels = [np.interp(x, at, [c[i] for _, c in HEAT_STOPS]) for i in range(3)]
    channels.append(np.interp(x, [s for s, _ in OPACITY_STOPS], [o for _, o in OPACITY_STOPS]))
    return np.stack(channels, axis=1).astype(np.float32)


def scale_share(score_map: ScoreMap, low: float, high: float) -> ScoreMap:
    """Raw map -> share of the product's scale, (h, w) float32 in 0..1; 0.5 is the map's threshold, which is high / 2.

    Fixed for a product (edge_runtime.model.manifest.DisplayScale), never stretched to the picture's own maximum. Not finite counts as hot.
    """
    middle = high / 2
    low = min(low, 0.9 * middle)
    share = np.interp(np.nan_to_num(score_map, nan=high, posinf=high, neginf=low), [low, middle, high], [0.0, 0.5, 1.0])
    return np.asarray(share, dtype=np.float32)


def paint_heat(canvas: Canvas, share: ScoreMap, grid_to_canvas: Affine) -> None:
    """Blend the map over the canvas, in place. `grid_to_canvas`: (2, 3), a cell (col, row) spans [col, col + 1) x [row, row + 1)."""
    height, width = canvas.shape[:2]
    matrix, shift = grid_to_canvas[:, :2], grid_to_canvas[:, 2]
    # OpenCV counts pixels by their middles, the affine by their corners.
    centred = np.column_stack([matrix, matrix @ [0.5, 0.5] + shift - 0.5])
    smooth = cv2.warpAffine(share, centred, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    h, w = share.shape
    corners = np.array([[0, 0], [w, 0], [w, h], [0, h]]) @ matrix.T + shift
    inside = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(inside, np.round(corners).astype(np.int32), 1)
    level = (np.clip(smooth, 0, 1) * 255).astype(np.uint8)
    table = heat_table()
    level *= inside
    x0, y0, w0, h0 = cv2.boundingRect((table[level, 3] > 0).astype(np.uint8))
    if w0 == 0:
        return
    window = np.s_[y0 : y0 + h0, x0 : x0 + w0]  # most parts are good: blend only where there is something to see
    heat = table[level[window]]
    opacity = heat[:, :, 3:]
    canvas[window] = (canvas[window] * (1 - opacity) + heat[:, :, :3] * opacity).astype(np.uint8)


def paint_regions(
    canvas: Canvas, regions: tuple[Region, ...], frame_to_canvas: tuple[float, float], map_threshold: float, unit: float
) -> None:
    """Boxes, the worst ones labelled with their peak as a multiple of the threshold. `frame_to_canvas`: scale in x and y.

    A rejected part's worst place may lie below the map's threshold: a label such as "0.7×" would contradict the verdict, so it has a word.
    """
    height, width = canvas.shape[:2]
    sx, sy = frame_to_canvas
    thick = max(round(3 * unit), 2)
    gap = max(round(5 * unit), 2)
    boxes = []
    for r in regions:
        x0, y0 = max(round(r.x0 * sx) - gap, 0), max(round(r.y0 * sy) - gap, 0)
        x1, y1 = min(round(r.x1 * sx) + gap, width - 1), min(round(r.y1 * sy) + gap, height - 1)
        boxes.append((x0, y0, x1, y1))
        cv2.rectangle(canvas, (x0, y0), (x1, y1), _INK, thick + 2 * max(round(1.5 * unit), 1))
        cv2.rectangle(canvas, (x0, y0), (x1, y1), _BOX, thick)
    taken: list[tuple[int, int, int, int]] = []
    size, pad = max(round(26 * unit), 12), max(round(7 * unit), 3)
    for r, (x0, y0, x1, y1) in list(zip(regions, boxes, strict=True))[:_MAX_LABELS]:
        label = _label(r.peak, map_threshold)
        w, h = text.width_of(label, size, text.BOLD) + 2 * pad, round(size * text.CAP_HEIGHT) + 2 * pad
        for x, y in ((x0, y0 - h), (x0, y1), (x1 - w, y0 - h), (x1 - w, y1), (x1, y0), (x0 - w, y0), (x0, y0)):
            chip = (x, y, x + w, y + h)
            if x >= 0 and y >= 0 and x + w <= width and y + h <= height and not any(_overlap(chip, t) for t in taken):
                taken.append(chip)
                cv2.rectangle(canvas, (x, y), (x + w, y + h), _BOX, -1)
                text.draw(canvas, label, (x + pad, y + h - pad), size, _INK, text.BOLD)
                break


def _label(peak: float, map_threshold: float) -> str:
    if not (np.isfinite(peak) and map_threshold > 0):
        return "?"
    return f"{peak / map_threshold:.1f}×" if peak > map_threshold else "worst"


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def as_bgr(image: npt.NDArray[np.uint8]) -> Canvas:
    """(H, W) or (H, W, 3) -> a fresh (H, W, 3)."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), dtype=np.uint8) if image.ndim == 2 else image.copy()
