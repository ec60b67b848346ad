"""Variations of good parts: what they keep, what they stay within, and what is refused."""

import msgspec
import numpy as np
import pytest

from edge_runtime.errors import ConfigError, DataError
from training.pictures.augment import Augment, parse_augment


def picture(seed: int = 0) -> np.ndarray:
    """(40, 60, 3): a bright square on a soft gradient, three different channels."""
    image = np.empty((40, 60, 3), np.uint8)
    image[:] = np.linspace(40, 90, 60).astype(np.uint8)[None, :, None] + np.array([0, 10, 20], np.uint8)
    image[12:20, 20:28] = 200
    return image


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def centre_of_square(image: np.ndarray) -> np.ndarray:
    return np.argwhere(image[:, :, 0] > 150).mean(0)


def test_the_same_generator_gives_the_same_picture_and_the_next_draw_another() -> None:
    augment = Augment(shift_px=5, rotate_deg=5, brightness=0.2, contrast=0.2, flip="both")
    image = picture()
    before = image.copy()
    a, b, draws = augment(image, rng(3)), augment(image, rng(3)), rng(3)
    assert np.array_equal(a, b) and np.array_equal(image, before)
    augment(image, draws)
    assert not np.array_equal(a, augment(image, draws))
    assert a.shape == image.shape and a.dtype == np.uint8 and a.flags.c_contiguous


def test_a_shift_moves_whole_pixels_within_its_range_and_invents_no_values() -> None:
    augment, image, draws = Augment(shift_px=4), picture(), rng()
    moves = []
    for _ in range(60):
        out = augment(image, draws)
        moves.append(centre_of_square(out) - centre_of_square(image))
        assert np.isin(out, image).all()  # mirrored at the border, never interpolated, never black
    found = np.array(moves)
    assert np.array_equal(found, np.rint(found)) and np.abs(found).max() == 4 and (np.abs(found).max(0) == 4).all()


def test_a_rotation_turns_about_the_middle() -> None:
    image = np.full((41, 41, 3), 50, np.uint8)
    image[20, 5:36] = 250
    steepest = 0.0
    draws = rng()
    for _ in range(30):
        ys, xs = np.nonzero(Augment(rotate_deg=10)(image, draws)[:, :, 0] > 150)
        slope, at_middle = np.polyfit(xs - 20, ys - 20, 1)
        assert abs(at_middle) < 0.5
        steepest = max(steepest, abs(np.degrees(np.arctan(slope))))
    assert 6 < steepest < 11


def test_brightness_is_a_factor_and_contrast_keeps_the_mean() -> None:
    image, draws = picture(), rng()
    factors = [float((Augment(brightness=0.2)(image, draws) / image).mean()) for _ in range(40)]
    assert 0.79 < min(factors) < 0.9 and 1.1 < max(factors) < 1.21
    for _ in range(20):
        out = Augment(contrast=0.3)(image, draws)
        assert out.mean() == pytest.approx(image.mean(), abs=1) and 0.68 < out.std() / image.std() < 1.32


def test_flips_happen_only_along_the_stated_axis() -> None:
    image = picture()
    seen = {Augment(flip="horizontal")(image, rng(i)).tobytes() for i in range(20)}
    assert seen == {image.tobytes(), image[:, ::-1].tobytes()}
    assert len({Augment(flip="both")(image, rng(i)).tobytes() for i in range(40)}) == 4
    assert np.array_equal(Augment()(image, rng()), image)


def test_gray_stays_gray_and_light_never_wraps_round() -> None:
    gray = np.repeat(picture()[:, :, :1], 3, axis=2)
    gray[0, :20] = 255
    out = Augment(shift_px=3, rotate_deg=7, brightness=0.5, contrast=0.5)(gray, rng(8))
    assert (out == out[:, :, :1]).all()
    brightest = max((Augment(brightness=0.5)(gray, rng(i)) for i in range(20)), key=lambda x: int(x.sum()))
    assert (brightest[0, :20] == 255).all()


def test_a_dimmer_lamp_leaves_the_brightness_and_rounds_grey_levels() -> None:
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 3, axis=2)
    out = Augment(lamp=0.4)(ramp, rng(2)).astype(int)
    assert np.abs(out - ramp).max() <= 1 and (out != ramp).any() and abs(out.mean() - ramp.mean()) < 0.2


def test_a_blur_softens_half_of_the_variations() -> None:
    noisy = np.repeat(rng().integers(0, 255, (32, 32, 1), dtype=np.uint8), 3, axis=2)
    softer = [float(Augment(blur_px=1.0)(noisy, rng(i)).std()) < float(noisy.std()) for i in range(40)]
    assert 10 < sum(softer) < 30


def test_the_command_line_form_is_understood_and_survives_a_manifest() -> None:
    found = parse_augment("shift=8, rotate=3,brightness=0.1,contrast=.2,lamp=.3,blur=1,flip=vertical,copies=6")
    assert found == Augment(shift_px=8, rotate_deg=3.0, brightness=0.1, contrast=0.2, lamp=0.3, blur_px=1.0, flip="vertical", copies=6)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Augment) == found
    assert parse_augment("shift=2").copies == Augment().copies


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected shift, rotate"),
        ("zoom=2", "found 'zoom=2'"),
        ("shift", "shift to be a whole number from 0 to 64, found ''"),
        ("shift=2.5", "whole number"),
        ("rotate=nan", "rotate to be a number from 0 to 180"),
        ("rotate=-3", "from 0 to 180"),
        ("brightness=2", "brightness to be a number from 0 to 0.5"),
        ("shift=4,copies=0", "copies to be a whole number from 1"),
        ("shift=4,shift=5", "once"),
        ("flip=yes", "flip=horizontal|vertical|both"),
        ("copies=4", "at least one of shift"),
    ],
)
def test_a_text_that_makes_no_sense_is_answered_with_what_would(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as e:
        parse_augment(text)
    assert said in str(e.value)


def test_other_shapes_and_types_are_refused() -> None:
    for wrong in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32)):
        with pytest.raises(DataError, match="expected a picture"):
            Augment(shift_px=1)(wrong, rng())


def test_a_tint_changes_colours_and_not_brightness_differently_from_place_to_place() -> None:
    image = np.full((64, 64, 3), 120, np.uint8)
    to_gray = np.array([0.114, 0.587, 0.299])
    whole = []
    for seed in range(30):
        out = Augment(tint=4)(image, rng(seed)).astype(float)
        assert abs((out @ to_gray).mean() - 120) < 0.1
        blue = out[:, :, 0] - out @ to_gray
        whole.append(blue.mean() / 1.772)
        assert np.ptp(blue.reshape(4, 16, 4, 16).mean((1, 3))) > 1, "from place to place"
        assert 0.5 < np.diff(blue, axis=1).std() / 1.772 / 2**0.5 < 1.5, "a quarter of it is noise"
    assert 1 < np.std(whole) < 4
    assert np.array_equal(Augment(shift_px=3)(image, rng(1)), Augment(shift_px=3, tint=0)(image, rng(1)))
    assert parse_augment("tint=4").tint == 4
