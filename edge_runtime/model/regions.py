"""Score map -> boxes in frame pixels. Pure; training evaluates with this very code."""

import cv2
import numpy as np

from edge_runtime.records import Affine, Region, ScoreMap

FINER = 4
"""Interpolated steps a cell."""


def find_regions(
    score_map: ScoreMap, grid_to_frame: Affine, frame_wh: tuple[int, int], map_threshold: float, min_area_px: int = 0
) -> tuple[Region, ...]:
    """The connected places where the map exceeds its threshold, largest peak first.

    A place is every cell that exceeds, whole, and what of its neighbours exceeds after bilinear interpolation (on magnetic tiles this
    covers 10 % more of the marked defects than cells alone, at a better overlap). A strong place has a halo, for a cell sees
    far around itself. Without what lies below 40 % of the highest within two cells, boxes are a quarter smaller there, and 3 % fewer of the
    defects lie under one, so the halo stays.
    `peak` is the largest raw value among its cells.
    Places that touch at a corner are one.

    Args:
        score_map: (h, w) float32, finite, raw.
        grid_to_frame: (2, 3) float64 from grid to frame pixels.
        frame_wh: boxes are clipped to this size, in pixels.
        map_threshold: a place counts when its value is larger.
        min_area_px: smaller regions are left out, in frame pixels.

    >>> score_map = np.zeros((8, 8), np.float32)
    >>> score_map[2:4, 5:6] = 40
    >>> grid_to_frame = np.array([[8.0, 0.0, 0.0], [0.0, 8.0, 0.0]])  # cells of 8 pixels
    >>> for region in find_regions(score_map, grid_to_frame, frame_wh=(64, 64), map_threshold=20):
    ...     print(region)
    Region(x0=40, y0=16, x1=48, y1=32, area_px=128, peak=40.0)
    """
    hot = score_map > map_threshold
    if not hot.any():
        return ()
    h, w = score_map.shape
    fine = cv2.resize(score_map, (w * FINER, h * FINER), interpolation=cv2.INTER_LINEAR) > map_threshold
    fine |= hot.repeat(FINER, axis=0).repeat(FINER, axis=1)
    n, labels, stats, _ = cv2.connectedComponentsWithStats(fine.astype(np.uint8), connectivity=8)
    owner = labels[::FINER, ::FINER][hot].astype(np.intp)
    peak = np.full(n, -np.inf, dtype=np.float32)
    np.maximum.at(peak, owner, score_map[hot])

    linear, shift = grid_to_frame[:, :2], grid_to_frame[:, 2]
    px_per_step = abs(float(np.linalg.det(linear))) / FINER**2
    found = []
    for i in np.unique(owner):
        left, top, width, height, steps = stats[i]
        x0, y0, x1, y1 = left / FINER, top / FINER, (left + width) / FINER, (top + height) / FINER
        # Rounded first: 16.000000001 is 16, not 17 after the ceiling.
        corners = np.round(np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]]) @ linear.T + shift, 6)
        low = np.clip(np.floor(corners.min(axis=0)), 0, frame_wh).astype(int)
        high = np.clip(np.ceil(corners.max(axis=0)), 0, frame_wh).astype(int)
        area = max(1, round(int(steps) * px_per_step))
        if area >= min_area_px and (high > low).all():
            found.append(Region(int(low[0]), int(low[1]), int(high[0]), int(high[1]), area, float(peak[i])))
    return tuple(sorted(found, key=lambda r: r.peak, reverse=True))


def worst_place(score_map: ScoreMap, grid_to_frame: Affine, frame_wh: tuple[int, int]) -> tuple[Region, ...]:
    """The one region round the map's largest value, down to half of its height above the map's median: where to look first when no place
    exceeds the map's threshold. Of a map that is the same everywhere, all of it. Arguments as for `find_regions`.

    >>> gentle = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    >>> worst_place(gentle, np.array([[8.0, 0.0, 0.0], [0.0, 8.0, 0.0]]), (64, 64))[0].peak
    1.0
    """
    peak = score_map.max()
    level = min(float(np.median(score_map) + peak) / 2, float(np.nextafter(peak, np.float32(-np.inf))))
    return find_regions(score_map, grid_to_frame, frame_wh, level)[:1]
