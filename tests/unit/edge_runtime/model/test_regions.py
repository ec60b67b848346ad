"""Map to boxes: geometry in frame pixels, peaks from the raw map."""

import numpy as np
import pytest

from edge_runtime.model.regions import find_regions
from edge_runtime.records import Region

THRESHOLD = 10.0


def affine(cell_w: float = 8.0, cell_h: float = 8.0, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    return np.array([[cell_w, 0.0, x], [0.0, cell_h, y]])


def score_map(h: int = 8, w: int = 8, **cells: float) -> np.ndarray:
    """score_map(r2c3=50) -> 50 at row 2, column 3, zero elsewhere."""
    out = np.zeros((h, w), np.float32)
    for name, value in cells.items():
        row, col = name[1:].split("c")
        out[int(row), int(col)] = value
    return out


def holds(region: Region, x0: float, y0: float, x1: float, y1: float) -> bool:
    return region.x0 <= x0 and region.y0 <= y0 and region.x1 >= x1 and region.y1 >= y1


def test_nothing_above_the_threshold_is_no_region() -> None:
    assert find_regions(np.full((8, 8), THRESHOLD, np.float32), affine(), (64, 64), THRESHOLD) == ()


def test_a_region_holds_its_cell_and_little_more_and_carries_the_raw_peak() -> None:
    (region,) = find_regions(score_map(r2c3=50.5), affine(), (64, 64), THRESHOLD)
    assert holds(region, 24, 16, 32, 24)
    assert region.peak == 50.5
    assert 64 <= region.area_px <= (region.x1 - region.x0) * (region.y1 - region.y0) <= 256


def test_a_cell_hardly_above_the_threshold_still_gets_its_whole_box() -> None:
    (region,) = find_regions(score_map(r2c3=THRESHOLD + 1e-4), affine(), (64, 64), THRESHOLD)
    assert (region.x0, region.y0, region.x1, region.y1, region.area_px) == (24, 16, 32, 24, 64)


def test_regions_are_sorted_by_peak_and_scored_each_on_its_own() -> None:
    found = find_regions(score_map(r1c1=20, r6c6=90, r1c6=40), affine(), (64, 64), THRESHOLD)
    assert [r.peak for r in found] == [90, 40, 20]


def test_cells_that_touch_at_a_corner_are_one_region() -> None:
    assert len(find_regions(score_map(r2c2=20, r3c3=20), affine(), (64, 64), THRESHOLD)) == 1


def test_boxes_follow_the_region_of_interest_and_stay_inside_the_frame() -> None:
    grid = affine(cell_w=10, cell_h=5, x=100, y=50)
    (region,) = find_regions(score_map(r7c7=500), grid, (180, 90), THRESHOLD)
    assert holds(region, 170, 85, 180, 90)
    assert (region.x1, region.y1) == (180, 90)
    assert region.x0 > 160


def test_small_regions_can_be_left_out() -> None:
    found = find_regions(score_map(r2c3=THRESHOLD + 1e-4, r6c6=90), affine(), (64, 64), THRESHOLD, min_area_px=65)
    assert [r.peak for r in found] == [90]


@pytest.mark.parametrize("seed", range(20))
def test_every_exceeding_cell_is_inside_a_region_with_at_least_its_value(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.gamma(1.0, 4.0, (12, 9)).astype(np.float32)
    found = find_regions(values, affine(7.3, 11.1, 3.0, 2.0), (80, 150), THRESHOLD)
    for row, col in np.argwhere(values > THRESHOLD):
        x, y = 7.3 * (col + 0.5) + 3, 11.1 * (row + 0.5) + 2
        assert any(r.x0 <= x < r.x1 and r.y0 <= y < r.y1 and r.peak >= values[row, col] for r in found)
    assert max(r.peak for r in found) == values.max()
    assert all(r.peak > THRESHOLD for r in found)
