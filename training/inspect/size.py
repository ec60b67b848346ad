"""How large the model's input is to be: the parts' aspect, the smallest defect that is known, and the time that a decision may take."""

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from edge_runtime.images.read import read_mask
from edge_runtime.model.tiles import tile_wh
from training.data.dataset import Dataset
from training.data.layout import Sample

SIDE = 256
"""Pixels of the shorter side: what the figures of training/README.md are measured with."""
STEP = 32
"""Sides are multiples of the backbone's coarsest stride."""
MOST_PX = 200_000
"""Pixels of all tiles together, where no budget is stated: 15 ms in INT8 with VNNI on two cores. A number of pixels and not of
milliseconds, so that a slower machine teaches the same detector, and says what it costs there."""
SQUARE = 1.25
"""Parts whose sides differ by less are brought to a square, at little distortion."""
UNLIKE = 1.25
"""Where the widest tenth of pictures is more than so much wider (for its height) than the narrowest, there is no aspect to keep."""
ENOUGH_PX = 8.0
"""Side, in pixels of the model's input, of a square as large as a defect: half a cell of the map; beyond, a larger input gains little."""
LEAST_PX = 2.0
"""Below this a defect is lost in the shrinking, and tiles are proposed, on which it comes to twice as much."""
SHARE = 10.0
"""Percentile of the known defects that counts as the smallest: a single speck in a mask sets no size."""
MASKS_READ = 200


@dataclass(frozen=True, slots=True)
class Size:
    """A model input, and why it is that large."""

    height: int
    width: int
    ms: float
    """Model time of a decision, all tiles together, by the speed that was given."""
    why: str
    """For people."""
    advice: str | None = None
    """What would serve better, where this size does not."""


def aspect_of(sizes_wh: Sequence[tuple[int, int]]) -> float | None:
    """Median of width over height; None where pictures differ so much that there is none. `sizes_wh`: of regions or tiles."""
    aspects = np.array([w / h for w, h in sizes_wh])
    low, high = np.percentile(aspects, (10, 90))
    return None if high > UNLIKE * low else float(statistics.median(aspects))


def smallest_defect(dataset: Dataset) -> float | None:
    """Frame pixels: side of a square as large as the smallest defects whose masks are known, by the largest place of each bad part.

    None where no mask is known. Masks of the test split count: how large defects are is what an engineer knows of the product, and no score
    takes part in it.
    """
    samples = [s for s in (*dataset.test, *dataset.bad) if not s.is_good and s.mask_path is not None]
    step = max(1, len(samples) // MASKS_READ)
    sides = [side for s in samples[::step] if (side := _side(s, dataset)) is not None]
    return float(np.percentile(sides, SHARE)) if sides else None


def choose_size(
    sizes_wh: Sequence[tuple[int, int]],
    defect_px: float | None = None,
    *,
    ms_per_megapixel: float,
    budget_ms: float | None = None,
    views: int = 1,
    least_side: int = SIDE,
    most_px: int = MOST_PX,
) -> Size:
    """Model input for regions (or tiles) of these sizes.

    The shorter side is `least_side`; more where a defect of `defect_px` frame pixels needs it, never more than the picture has. All is
    shrunk, aspect kept, to what `budget_ms` allows at `ms_per_megapixel` (training.inspect.speed) for `views` tiles, or to `most_px` where
    no budget is stated, though not below the area of 128x128. Pictures of unlike aspects are all brought to SIDE squared.
    """
    most = (most_px if budget_ms is None else budget_ms / ms_per_megapixel * 1e6) / views

    def made(height: int, width: int, why: str, advice: str | None = None) -> Size:
        return Size(height, width, float(f"{height * width * views * ms_per_megapixel / 1e6:.2g}"), why, advice)

    aspect = aspect_of(sizes_wh)
    if aspect is None:
        side = SIDE if most >= SIDE * SIDE else max(128, int(most**0.5) // STEP * STEP)
        why = "the pictures differ in aspect, so each is brought to a square"
        return made(side, side, why)
    wide, high = (statistics.median(side) for side in zip(*sizes_wh, strict=True))
    short, ratio = min(wide, high), max(aspect, 1 / aspect)
    ratio = 1.0 if ratio < SQUARE else ratio
    # A part that is longer than wide, yet small: no pixel is made up, and still the area is that of a square of SIDE.
    wanted = max(min(least_side, short), SIDE / ratio**0.5)
    because = "square, as the parts nearly are" if ratio == 1 else f"the parts' aspect of {ratio:.1f} : 1 kept"
    if defect_px is not None and (needed := ENOUGH_PX / defect_px * short) > wanted:
        grown = min(needed, max(short, wanted))
        if grown > wanted:
            wanted, because = grown, f"{because}, larger for defects of {defect_px:.0f} pixels"
    area = wanted * wanted * ratio
    if area > most:
        wanted = max(most, 128 * 128) ** 0.5 / ratio**0.5
        because += f", as large as {most_px:,} pixels allow" if budget_ms is None else f", as large as {budget_ms:g} ms allow"
    small, long = _sides(wanted, ratio, most)
    height, width = (small, long) if aspect >= 1 else (long, small)
    return made(height, width, because, _advice(defect_px, short, small, wide, high, views))


def resized(dataset: Dataset, size: Size) -> Dataset:
    """The same data, seen at another size."""
    return dataclasses.replace(dataset, spec=msgspec.structs.replace(dataset.spec, height=size.height, width=size.width))


def regions_wh(dataset: Dataset, frames_wh: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """(width, height) of what the model sees of frames of these sizes: the region of interest, or one tile."""
    spec = dataset.spec
    found = [(spec.roi[2], spec.roi[3]) if spec.roi is not None else wh for wh in frames_wh]
    return found if spec.tiles is None else [tile_wh(spec.tiles, wh) for wh in found]


def _sides(short: float, ratio: float, most: float) -> tuple[int, int]:
    small = max(STEP, round(short / STEP) * STEP)
    long = max(STEP, round(small * ratio / STEP) * STEP)
    if small * long > 1.05 * max(most, 128 * 128) and small > STEP:  # rounding up must not cost the budget
        small -= STEP
        long = max(STEP, round(small * ratio / STEP) * STEP)
    return small, long


def _advice(defect_px: float | None, short: float, small: int, wide: float, high: float, views: int) -> str | None:
    if defect_px is None or (seen := defect_px * small / short) >= LEAST_PX:
        return None
    # Tiles so small that a defect comes to twice LEAST_PX on a square of SIDE.
    side = max(SIDE / 4, SIDE * defect_px / (2 * LEAST_PX))
    columns, rows = (max(1, int(np.ceil(length / side))) for length in (wide, high))
    return (
        f"defects of {defect_px:.0f} pixels come to {seen:.1f} pixels of this input and may be lost; --tiles {columns}x{rows} shows them at"
        f" {2 * LEAST_PX:.0f}, at {columns * rows} times the time" + (" of one tile" if views == 1 else "")
    )


def _side(sample: Sample, dataset: Dataset) -> float | None:
    assert sample.mask_path is not None
    mask: npt.NDArray[np.uint8] = read_mask(sample.mask_path)
    if dataset.spec.roi is not None:
        x, y, w, h = dataset.spec.roi
        mask = mask[y : y + h, x : x + w]
    areas = cv2.connectedComponentsWithStats((mask > 0).astype(np.uint8))[2][1:, cv2.CC_STAT_AREA]
    return float(np.sqrt(areas.max())) if len(areas) else None
