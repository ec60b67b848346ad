"""Pictures that a teacher learns from where there is no folder of others."""

import cv2
import numpy as np

from training.pictures.variety import drawn, varied


def parts(n: int, side: int = 64) -> np.ndarray:
    rng = np.random.default_rng(0)
    images = np.full((n, side, side, 3), 140, np.uint8)
    for image in images:
        cv2.circle(image, (side // 2, side // 2), side // 4, (90, 90, 90), 3)
        image[:] = np.clip(image + rng.normal(0, 3, (side, side, 1)), 0, 255)
    return images


def test_the_generator_decides_and_the_part_stays_as_it_is() -> None:
    images = parts(3)
    before = images.copy()
    distort = varied(images, np.arange(3))
    first, again, other = (distort(images[0], np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.array_equal(images, before)


def test_little_is_left_of_a_good_part_and_much_is_seen_that_no_good_part_shows() -> None:
    images = parts(4)
    distort, rng = varied(images, np.arange(4)), np.random.default_rng(0)
    found = np.stack([distort(images[i % 4], rng) for i in range(80)])
    assert found.shape == (80, 64, 64, 3) and found.dtype == np.uint8
    moved = np.abs(found.astype(int) - images[np.arange(80) % 4]).mean((1, 2, 3))
    assert np.quantile(moved, 0.2) > 3
    spread = np.histogram(found, bins=16, range=(0, 256))[0] / found.size
    alone = np.histogram(images, bins=16, range=(0, 256))[0] / images.size
    assert (alone > 0.01).sum() <= 6 and (spread > 0.01).sum() >= 14  # grey values of all sorts


def test_only_the_given_rows_are_mixed_in() -> None:
    images = parts(3)
    images[2] = (0, 0, 255)  # a red picture that must not be learnt from
    distort, rng = varied(images, np.array([0, 1])), np.random.default_rng(1)
    red = [distort(images[0], rng) for _ in range(60)]
    assert not any(((x[..., 2] > 230) & (x[..., 0] < 20) & (x[..., 1] < 20)).mean() > 0.2 for x in red)


def test_drawn_pictures_have_any_shape_and_fill_the_range() -> None:
    rng = np.random.default_rng(0)
    for hw in ((32, 160), (64, 64), (7, 5)):
        picture = drawn(*hw, rng)
        assert picture.shape == (*hw, 3) and picture.min() >= 0 and picture.max() <= 255
    assert np.stack([drawn(64, 64, rng) for _ in range(10)]).std() > 40
