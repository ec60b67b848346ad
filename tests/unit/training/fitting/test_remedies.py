"""What is done without being asked for, so that a lamp that ages stops no line; and where brightness itself is what is looked for."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.model.manifest import InputSpec, TileSpec
from edge_runtime.model.preprocess import GAIN_MAX, Preprocessor
from training.data.dataset import Dataset, load_dataset
from training.fitting.remedies import steadied, variations, with_brightness
from training.pictures.augment import parse_augment


def picture(seed: int, gain: float = 1.0) -> np.ndarray:
    """(64, 64) uint8, a bright square on a gray ground."""
    image = np.random.default_rng(seed).normal(90, 4, (64, 64))
    image[20:40, 20:40] += 60
    return np.clip(np.rint(gain * image), 0, 255).astype(np.uint8)


def data(folder: Path, bad_gain: float) -> Dataset:
    """Twelve good parts, and four bad ones that differ from them by their brightness alone."""
    for name, gain, seeds in (("train/good", 1.0, range(12)), ("test/good", 1.0, range(20, 24)), ("test/dull", bad_gain, range(30, 34))):
        (folder / name).mkdir(parents=True)
        for seed in seeds:
            cv2.imwrite(str(folder / name / f"{seed}.png"), picture(seed, gain * (1 + 0.01 * (seed % 3))))
    return load_dataset(folder, image_size="64")


def spec(**more: object) -> InputSpec:
    return InputSpec(height=64, width=64, channels=1, **more)


@pytest.mark.parametrize("lamp", [0.7, 0.8, 0.9, 1.1])
def test_a_lamp_that_ages_leaves_the_models_input_as_it_was(lamp: float) -> None:
    prepare = Preprocessor(spec(brightness=100.0))
    usual, dim = (prepare(picture(0, gain)).astype(int) for gain in (1.0, lamp))
    assert np.abs(usual - dim).max() <= 2  # grey levels: what rounding leaves
    assert prepare.brightness_of(usual[None].astype(np.uint8)) == pytest.approx(100, abs=0.5)


def test_a_black_picture_stays_dark() -> None:
    prepare = Preprocessor(spec(brightness=100.0))
    assert prepare(np.full((64, 64), 3, np.uint8)).max() == round(3 * GAIN_MAX)
    assert prepare(np.zeros((64, 64), np.uint8)).max() == 0


def test_all_tiles_of_a_frame_change_by_one_factor() -> None:
    image = np.hstack([np.full((64, 64), 50, np.uint8), np.full((64, 64), 110, np.uint8)])
    tiles = Preprocessor(spec(brightness=100.0, tiles=TileSpec(columns=2, rows=1))).split(image)
    assert (int(tiles[0].mean()), int(tiles[1].mean())) == (62, 138)


def test_ignored_places_do_not_count() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    image = np.full((64, 64), 50, np.uint8)
    seen = Preprocessor(spec(brightness=100.0, frame_wh=(64, 64), ignore_mask="m.png"), mask)(image)
    assert int(seen[:, :28].mean()) == 100
    assert (seen[:, 36:] == 127).all()  # their fill is the one that was taught, under any lamp


def test_pictures_are_brought_to_what_good_parts_show(tmp_path: Path) -> None:
    found, why = with_brightness(data(tmp_path, bad_gain=1.0))
    assert found.spec.brightness == pytest.approx(97, abs=3) and "same brightness" in why


def test_brightness_is_left_alone_where_it_tells_bad_parts(tmp_path: Path) -> None:
    found, why = with_brightness(data(tmp_path, bad_gain=0.7))
    assert found.spec.brightness is None and "dull" in why and "1.00" in why


def test_methods_that_know_places_learn_from_shifted_parts(tmp_path: Path) -> None:
    dataset = data(tmp_path, bad_gain=1.0)
    augment, why = variations(dataset, "padim")
    assert augment is not None and augment.shift_px == 2 and augment.copies == 3 and "--augment none" in why
    assert f"(--augment {augment.words})" in why and parse_augment(augment.words) == augment, "named as the option names it"
    assert augment.lamp == 0 and augment.blur_px > 0  # pictures whose brightness is left as it comes show any lamp themselves
    levelled, _, _ = steadied(dataset, "padim")
    varied, _ = variations(levelled, "padim")
    assert varied is not None and varied.lamp > 0
    shared, _ = variations(dataset, "padim", "shared")
    assert shared is not None and shared.copies == 1
    assert variations(dataset, "mvg") == (None, "")
