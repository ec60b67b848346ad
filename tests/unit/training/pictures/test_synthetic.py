"""Painted defects: where they lie, what their masks say, and that a seed repeats them."""

import numpy as np
import pytest

from edge_runtime.errors import ConfigError, DataError
from training.pictures.synthetic import CHANGED, KINDS, paint_defects

SIDE = 96


def good(n: int = 4, *, gray: bool = False) -> np.ndarray:
    """(n, 96, 96, 3): a textured part, 20..75 of either axis, on a flat light table."""
    rng = np.random.default_rng(0)
    images = np.full((n, SIDE, SIDE, 3), 220, np.uint8)
    part = rng.integers(90, 130, (n, 56, 56, 3))
    images[:, 20:76, 20:76] = np.repeat(part[..., :1], 3, axis=3) if gray else part
    return images


def test_masks_mark_exactly_what_changed_and_every_kind_takes_its_turn() -> None:
    images = good()
    painted = list(paint_defects(images, 3 * len(KINDS), 0))
    for found in painted:
        change = np.abs(found.image.astype(int) - images[found.source]).max(axis=2)
        assert np.array_equal(found.mask, change >= CHANGED) and found.mask.any()
        assert found.image.shape == (SIDE, SIDE, 3) and found.image.dtype == np.uint8
    assert [p.kind for p in painted] == [*KINDS] * 3
    assert np.array_equal(images, good())  # painted on copies


def test_images_take_turns_and_meet_different_kinds() -> None:
    painted = list(paint_defects(good(4), 24, 1))
    assert sorted(p.source for p in painted) == sorted([0, 1, 2, 3] * 6)
    assert all(len({p.kind for p in painted if p.source == source}) > 2 for source in range(4))


def test_a_seed_repeats_its_defects_and_a_smaller_count_begins_alike() -> None:
    images = good()
    first, again, fewer, other = (
        [p.image.tobytes() for p in paint_defects(images, count, seed)] for count, seed in ((10, 5), (10, 5), (6, 5), (10, 6))
    )
    assert first == again and first[:6] == fewer and len(set(first)) == 10
    assert not set(first) & set(other)


def test_nothing_is_painted_where_nothing_is_inspected() -> None:
    valid = np.zeros((SIDE, SIDE), dtype=bool)
    valid[30:60, 30:50] = True
    images = good()
    painted = list(paint_defects(images, 2 * len(KINDS), 2, valid=valid))
    assert len(painted) == 2 * len(KINDS)
    for found in painted:
        assert np.array_equal(found.image[~valid], images[found.source][~valid])
        assert found.mask.any() and not found.mask[~valid].any()


def test_defects_prefer_the_part_to_its_background() -> None:
    part = np.zeros((SIDE, SIDE), dtype=bool)
    part[20:76, 20:76] = True
    shares = [float(p.mask[part].sum() / p.mask.sum()) for p in paint_defects(good(8), 80, 0, kinds=["spot", "scar"])]
    # The part is a third of the picture: without a preference a third of the defects would lie on it.
    assert np.mean(shares) > 0.7


def test_gray_images_stay_gray() -> None:
    coloured = [bool((found.image != found.image[:, :, :1]).any()) for found in paint_defects(good(gray=True), 2 * len(KINDS), 3)]
    assert coloured == [False] * (2 * len(KINDS))


@pytest.mark.slow
def test_sizes_and_strengths_reach_from_little_to_much() -> None:
    images = good(8)
    painted = list(paint_defects(images, 120, 4))
    sizes = np.array([p.mask.sum() for p in painted])
    assert np.quantile(sizes, 0.1) < 40 and np.quantile(sizes, 0.9) > 250
    changes = np.array([np.abs(p.image.astype(int) - images[p.source])[p.mask].mean() for p in painted])
    assert np.quantile(changes, 0.1) < 25 and np.quantile(changes, 0.9) > 50


def test_one_image_without_any_texture_is_enough() -> None:
    black = np.zeros((1, 64, 64, 3), np.uint8)
    drawn = np.full((1, 64, 64, 3), 255, np.uint8)
    drawn[:, 20:23, :50] = 0
    assert all(p.mask.any() for image in (black, drawn) for p in paint_defects(image, len(KINDS), 0))


def test_arguments_that_make_no_sense_are_named() -> None:
    with pytest.raises(ConfigError, match="found dent"):
        paint_defects(good(), 1, 0, kinds=["spot", "dent"])
    with pytest.raises(ConfigError, match="found none"):
        paint_defects(good(), 1, 0, kinds=[])
    with pytest.raises(DataError, match="expected good images"):
        paint_defects([], 1, 0)
    with pytest.raises(DataError, match="at least one pixel"):
        paint_defects(good(), 1, 0, valid=np.zeros((SIDE, SIDE), dtype=bool))
    with pytest.raises(DataError, match=r"expected uint8 images of \(8, 8, 3\), found uint8 \(96, 96, 3\)"):
        list(paint_defects(good(), 1, 0, valid=np.ones((8, 8), dtype=bool)))
    with pytest.raises(DataError, match="found float32"):
        list(paint_defects(good().astype(np.float32), 1, 0))
    lonely = np.zeros((SIDE, SIDE), dtype=bool)
    lonely[0, 0] = True
    with pytest.raises(DataError, match="no defect can be seen on the image at position 0"):
        list(paint_defects(good(1), 1, 0, kinds=["crack"], valid=lonely))
