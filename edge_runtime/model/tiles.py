"""Tiles: where a large region is cut, and how the tiles' maps become one map again. Geometry only; training and the device share it.

Why: deploy/decisions/0011.
"""

import functools
import math
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ConfigError
from edge_runtime.model.manifest import MOST_VIEWS, TileSpec
from edge_runtime.records import ScoreMap

STEP = 32
"""Tiles overlap by a multiple of this many pixels of the model's input: 32 is the coarsest stride of the backbones, so that a tile
begins on a whole cell of any of their maps and its values are placed, never interpolated."""

DEFAULT_OVERLAP = 0.1

Box = tuple[int, int, int, int]
"""x, y, width, height in pixels."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """Equal tiles, row by row, each of which becomes one picture of the model's size.

    >>> tiling = Tiling(TileSpec(columns=2, rows=1, overlap=0.1), height=256, width=256)
    >>> tiling.boxes((0, 0, 480, 256))  # x, y, width, height
    [(0, 0, 256, 256), (224, 0, 256, 256)]
    """

    spec: TileSpec
    height: int
    """Height of the model's input."""
    width: int

    @property
    def views(self) -> int:
        """Tiles a frame."""
        return self.spec.columns * self.spec.rows

    def merged_hw(self, grid_hw: tuple[int, int]) -> tuple[int, int]:
        """Size of the one grid over the whole region, from the size of a tile's grid (of its map, or of the model's input itself).

        Of a grid that the overlap does not divide, the overlap is rounded to whole cells; tiles then lie up to a cell off.
        """
        (gh, gw), (oy, ox) = grid_hw, self._overlap(grid_hw)
        return self.spec.rows * gh - (self.spec.rows - 1) * oy, self.spec.columns * gw - (self.spec.columns - 1) * ox

    def boxes(self, region: Box) -> list[Box]:
        """Each tile in the frame's pixels; the first begins and the last ends with the region, and no pixel lies between two."""
        x, y, w, h = region
        merged_h, merged_w = self.merged_hw((self.height, self.width))
        tile_w, tile_h = -(-w * self.width // merged_w), -(-h * self.height // merged_h)  # rounded up
        lefts = _starts(w - tile_w, self.spec.columns)
        return [(x + left, y + top, tile_w, tile_h) for top in _starts(h - tile_h, self.spec.rows) for left in lefts]

    def merge(self, maps: npt.NDArray[np.float32]) -> ScoreMap:
        """(views, gh, gw) raw maps, at least 0 -> one map over the region, the largest of the tiles' weighted values at each place.

        A tile's weight is 1 up to the middle of its overlap with a neighbour and falls from there to its border, where a network sees
        the least around it. So seams are no steps, a constant stays exactly what it is, and a peak that only one of two tiles sees is
        not averaged away. NaN stays NaN.
        """
        grid_hw = (maps.shape[1], maps.shape[2])
        merged: ScoreMap = np.zeros(self.merged_hw(grid_hw), dtype=np.float32)
        for one, (rows, columns, weight) in zip(
            maps, _places(self.spec.rows, self.spec.columns, grid_hw, self._overlap(grid_hw)), strict=True
        ):
            part = merged[rows, columns]
            np.maximum(part, one * weight, out=part)
        return merged

    def _overlap(self, grid_hw: tuple[int, int]) -> tuple[int, int]:
        (gh, gw), share = grid_hw, self.spec.overlap
        oy, ox = _snapped(share, self.height), _snapped(share, self.width)
        return min(round(oy * gh / self.height), gh // 2), min(round(ox * gw / self.width), gw // 2)


def tile_wh(spec: TileSpec, region_wh: tuple[int, int]) -> tuple[int, int]:
    """About the size of one tile in the frame's pixels, known before the model's size is: what `--image-size auto` takes the aspect of.

    >>> tile_wh(TileSpec(columns=2, rows=1, overlap=0.0), (4000, 3000))
    (2000, 3000)
    """
    w, h = (side / (n - (n - 1) * spec.overlap) for side, n in zip(region_wh, (spec.columns, spec.rows), strict=True))
    return max(1, round(w)), max(1, round(h))


def parse_tiles(
    tiles: str | None, tile_size: str | None = None, overlap: str | None = None, region_wh: tuple[int, int] | None = None
) -> TileSpec | None:
    """What a user asked for on the command line; None where no tiles are asked for.

    Args:
        tiles: `COLUMNSxROWS`, such as 5x4.
        tile_size: `WIDTHxHEIGHT` in the frame's pixels, instead of `tiles`: as many tiles as are needed for none to be larger.
        overlap: share of a tile that its neighbour sees too, `0.1` or `10%`; 0 to 0.5.
        region_wh: size of the region of interest, or of all frames; None where frames differ in size.

    Raises:
        ConfigError: what cannot be read, or does not fit the region.

    >>> parse_tiles("5x4")
    TileSpec(columns=5, rows=4, overlap=0.1)
    >>> parse_tiles(None, tile_size="800x600", overlap="10%", region_wh=(4000, 3000))
    TileSpec(columns=6, rows=6, overlap=0.1)
    """
    if tiles is None and tile_size is None:
        if overlap is not None:
            raise ConfigError("overlap: only counts together with --tiles or --tile-size; none is given")
        return None
    if tiles is not None and tile_size is not None:
        raise ConfigError(f"tiles: expected --tiles or --tile-size, found both ({tiles} and {tile_size})")
    share = DEFAULT_OVERLAP if overlap is None else _share(overlap)
    if tiles is not None:
        columns, rows = _pair("tiles", "COLUMNSxROWS (5x4)", tiles)
        if region_wh is not None and (columns > region_wh[0] or rows > region_wh[1]):
            raise ConfigError(f"tiles: expected at most a tile a pixel, found {tiles} for a region of {region_wh[0]}x{region_wh[1]}")
    else:
        w, h = _pair("tile size", "WIDTHxHEIGHT in pixels (800x600)", tile_size or "")
        if region_wh is None:
            raise ConfigError("tile size: the images differ in size, so it says no number of tiles; give --tiles COLUMNSxROWS instead")
        columns, rows = (max(1, math.ceil((side / n - share) / (1 - share))) for side, n in zip(region_wh, (w, h), strict=True))
    if not 1 < columns * rows <= MOST_VIEWS:
        asked = f"--tiles {tiles}" if tiles is not None else f"--tile-size {tile_size}"
        raise ConfigError(
            f"tiles: expected 2 to {MOST_VIEWS} of them, found {columns}x{rows} for {asked}; leave it out for one picture a part"
        )
    return TileSpec(columns=columns, rows=rows, overlap=share)


def _pair(what: str, wanted: str, text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{0,4})[xX]([1-9]\d{0,4})", text.strip())
    if found is None:
        raise ConfigError(f"{what}: expected {wanted}, found {text!r}")
    return int(found[1]), int(found[2])


def _share(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(%?)", text.strip())
    share = float(found[1]) / (100 if found[2] else 1) if found else math.nan
    if not 0 <= share <= 0.5:
        raise ConfigError(f"overlap: expected a share of a tile from 0 to 0.5 (0.1 or 10%), found {text!r}")
    return share


def _snapped(share: float, side: int) -> int:
    """An overlap in pixels of the model's input. One that is asked for never becomes none."""
    return 0 if share == 0 else min(STEP * max(1, round(share * side / STEP)), side // 2)


def _starts(last: int, count: int) -> list[int]:
    return [round(i * last / max(count - 1, 1)) for i in range(count)]


def _window(side: int, overlap: int, first: bool, last: bool) -> npt.NDArray[np.float32]:
    """Weights along one axis of a tile's map; the outer edges of the region have no neighbour to fall towards."""
    ramp = np.minimum(1.0, (2 * np.arange(overlap) + 1) / max(overlap, 1))
    window = np.ones(side, dtype=np.float32)
    if not first:
        window[:overlap] = ramp
    if not last:
        window[side - overlap :] = ramp[::-1]
    return window


@functools.lru_cache(maxsize=8)
def _places(
    rows: int, columns: int, grid_hw: tuple[int, int], overlap: tuple[int, int]
) -> tuple[tuple[slice, slice, npt.NDArray[np.float32]], ...]:
    """For each tile, row by row: its rows and columns of the merged map, and its weights there."""
    (gh, gw), (oy, ox) = grid_hw, overlap
    across = [(slice(c * (gw - ox), c * (gw - ox) + gw), _window(gw, ox, c == 0, c == columns - 1)) for c in range(columns)]
    down = [(slice(r * (gh - oy), r * (gh - oy) + gh), _window(gh, oy, r == 0, r == rows - 1)) for r in range(rows)]
    return tuple((ys, xs, wy[:, None] * wx) for ys, wy in down for xs, wx in across)
