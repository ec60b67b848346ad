"""Along which axes the pictures of a product tell where parts lie: of one with a place, one that is round, and one without any place."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.model.manifest import InputSpec
from edge_runtime.model.placement import PlacementMeter, Shrinker, Small
from training.judging.placed import LEAST_PARTS, mean_of, watched_axes

SPEC = InputSpec(height=128, width=128, channels=1, frame_wh=(160, 160))
SHRINK = Shrinker(SPEC)


def with_grain(image: npt.NDArray[np.uint8], rng: np.random.Generator) -> Small:
    return SHRINK(np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8))


def moved(image: npt.NDArray[np.uint8], x: float, y: float, turn: float = 0.0) -> npt.NDArray[np.uint8]:
    matrix = cv2.getRotationMatrix2D((79.5, 79.5), turn, 1.0)
    matrix[:, 2] += (x, y)
    return np.asarray(cv2.warpAffine(image, matrix, (160, 160), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def plates(wander_px: float = 0.3, n: int = 16) -> list[Small]:
    image = np.full((160, 160), 50, np.uint8)
    cv2.rectangle(image, (35, 40), (125, 115), 170, -1)
    cv2.circle(image, (60, 65), 12, 60, -1)
    rng = np.random.default_rng(0)
    return [with_grain(moved(image, *rng.normal(0, wander_px, 2)), rng) for _ in range(n)]


def ways(pictures: list[Small], shift: float | None = 0.02, turn: float | None = 1.0) -> set[str]:
    return {axis.way for axis in watched_axes(pictures, None, shift, turn)}


def test_a_plate_tells_where_it_lies_and_how_it_is_turned_and_the_gain_makes_it_right() -> None:
    axes = {axis.way: axis for axis in watched_axes(plates(), None, 0.02, 1.0)}
    assert set(axes) == {"x", "y", "turn"}
    meter = PlacementMeter(mean_of(plates()))
    image = np.full((160, 160), 50, np.uint8)
    cv2.rectangle(image, (35, 40), (125, 115), 170, -1)
    cv2.circle(image, (60, 65), 12, 60, -1)
    lie = meter(SHRINK(moved(image, 4, -3, 1.5)))
    assert lie is not None
    found = [(value - axes[way].usual) / axes[way].gain for way, value in (("x", lie.x), ("y", lie.y), ("turn", lie.turn))]
    assert found == [pytest.approx(4 / 160, abs=0.003), pytest.approx(-3 / 160, abs=0.003), pytest.approx(1.5, abs=0.3)]


def test_nobody_asks_how_a_ring_is_turned() -> None:
    ring = np.full((160, 160), 50, np.uint8)
    cv2.circle(ring, (80, 80), 50, 170, -1, cv2.LINE_AA)
    cv2.circle(ring, (80, 80), 20, 50, -1, cv2.LINE_AA)
    rng = np.random.default_rng(1)
    assert ways([with_grain(moved(ring, *rng.normal(0, 0.3, 2)), rng) for _ in range(16)]) == {"x", "y"}


def test_a_texture_has_no_place() -> None:
    rng = np.random.default_rng(2)
    textures = [cv2.GaussianBlur(rng.standard_normal((160, 160)), (0, 0), 2) * 100 + 128 for _ in range(16)]
    assert ways([with_grain(np.clip(t, 0, 255).astype(np.uint8), rng) for t in textures]) == set()


def test_parts_that_wander_by_themselves_as_far_as_the_limit_are_not_watched() -> None:
    assert ways(plates(wander_px=4)) <= {"turn"}, "4 px of 160 are more than the limit of 2 %"
    assert ways(plates(), shift=0.0005) <= {"turn"}


def test_without_a_limit_or_with_few_parts_nothing_is_watched() -> None:
    assert ways(plates(), None, None) == set()
    assert ways(plates(n=LEAST_PARTS - 1)) == set()


def test_what_an_ignore_mask_hides_does_not_hold_the_part_in_place() -> None:
    """A frame around the part that never moves, masked: without the mask it would say that nothing has moved."""
    image = np.full((160, 160), 50, np.uint8)
    cv2.circle(image, (70, 70), 20, 170, -1)
    mask = np.ones((160, 160), np.uint8)
    mask[24:136, 24:136] = 0
    shrink = Shrinker(SPEC, mask)

    def framed(x: float) -> npt.NDArray[np.uint8]:
        found = moved(image, x, 0)
        found[mask > 0] = np.indices((160, 160)).sum(axis=0)[mask > 0] // 8 % 2 * 200
        return found

    meter = PlacementMeter(shrink(framed(0)), shrink.ignored)
    lie = meter(shrink(framed(5)))
    assert lie is not None and lie.x == pytest.approx(5 / 160, abs=0.004)
    assert not Shrinker.suits(InputSpec(height=64, width=64, channels=1)), "frames of many sizes lie upon one another nowhere"
