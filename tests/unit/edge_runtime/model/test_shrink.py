"""Halving, then by area: near the mean over the area, no square's pixels lost, a mosaic's colours each the mean of their own."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.images.read import Pixels
from edge_runtime.model import shrink
from edge_runtime.model.shrink import by_area, by_halves, halvings, mosaic_by_halves

PATTERNS = ["RGGB", "BGGR", "GRBG", "GBRG"]


@pytest.fixture(autouse=True, scope="module")
def all_are_large() -> Iterator[None]:
    """So that small pictures show what happens to large ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shrink, "LARGE_PX", 0)
        yield


def noise(*shape: int, bits: int = 8) -> Pixels:
    return np.random.default_rng(0).integers(0, 1 << bits, shape, dtype=np.uint8 if bits == 8 else np.uint16)


@pytest.mark.parametrize("shape", [(64, 96), (64, 96, 3)])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("factor", [1, 2, 4, 8, 16])
def test_of_whole_squares_it_is_their_mean_but_for_rounding(shape: tuple[int, ...], bits: int, factor: int) -> None:
    image = noise(*shape, bits=bits)
    before = image.copy()
    h, w = shape[0] // factor, shape[1] // factor
    wanted = image.reshape(h, factor, w, factor, *shape[2:]).mean(axis=(1, 3))
    got = by_halves(image, w, h)
    assert got.dtype == image.dtype
    assert np.abs(got - wanted).max() <= 0.5 * max(1, halvings(image, w, h))
    assert (image == before).all()


@given(w=st.integers(1, 200), h=st.integers(1, 200), to_w=st.integers(1, 40), to_h=st.integers(1, 40))
def test_any_size_becomes_any_other_and_keeps_where_things_lie(w: int, h: int, to_w: int, to_h: int) -> None:
    """A slope from left to right stays one: what is left out at the sides is less than a pixel of what comes out."""
    image = np.tile(np.linspace(0, 60_000, w, dtype=np.uint16), (h, 1))
    got = by_halves(image, to_w, to_h)
    assert got.shape == (to_h, to_w)
    step = 60_000 / max(1, w - 1) * max(1, w / to_w)
    assert np.abs(got.astype(float) - by_area(image, to_w, to_h)).max() <= step + 2


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("factor", [2, 4, 8, 16])
@pytest.mark.parametrize("odd", [0, 1])
def test_a_mosaic_s_colours_are_each_the_mean_of_their_own(pattern: str, bits: int, factor: int, odd: int) -> None:
    h, w = 64, 96
    mosaic = noise(h + odd, w + odd, bits=bits)
    inner = mosaic[:h, :w].astype(float)
    wanted = np.zeros((h // factor, w // factor, 3))
    for colour in "BGR":
        sums = counts = 0
        for at in (i for i, c in enumerate(pattern) if c == colour):
            own = inner[at // 2 :: 2, at % 2 :: 2]
            sums = sums + own.reshape(h // factor, factor // 2, w // factor, factor // 2).sum(axis=(1, 3))
            counts += factor * factor // 4
        wanted[:, :, "BGR".index(colour)] = sums / counts
    got = mosaic_by_halves(mosaic, pattern, w // factor, h // factor)
    assert got.dtype == mosaic.dtype
    assert np.abs(got - wanted).max() <= 0.5 * (2 + np.log2(factor))


def test_a_mosaic_shrinks_to_the_colours_of_its_demosaiced_picture() -> None:
    bgr = cv2.GaussianBlur(noise(256, 256, 3), (0, 0), 6)
    bgr = cv2.normalize(bgr, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    mosaic = np.empty((256, 256), np.uint8)
    for at, colour in enumerate("GBRG"):
        mosaic[at // 2 :: 2, at % 2 :: 2] = bgr[at // 2 :: 2, at % 2 :: 2, "BGR".index(colour)]
    for side in (100, 64, 30):
        wanted = by_halves(np.asarray(cv2.cvtColor(mosaic, cv2.COLOR_BayerGBRG2BGR)), side, side)
        assert np.abs(mosaic_by_halves(mosaic, "GBRG", side, side).astype(int) - wanted).mean() < 2


def test_a_mosaic_that_is_not_halved_is_refused() -> None:
    with pytest.raises(ValueError, match="60x60 is not halved on its way to 40x40"):
        mosaic_by_halves(noise(60, 60), "RGGB", 40, 40)


def test_a_hair_line_keeps_its_weight() -> None:
    """None of aliasing: a line of one pixel is as bright as its share, wherever it lies."""
    for x in range(40, 56):
        image = np.zeros((1000, 1000), np.uint8)
        image[:, x] = 255
        assert abs(int(by_halves(image, 90, 90)[45].sum()) - 255 * 90 / 1000) <= 4


def test_small_pictures_are_the_exact_mean_over_the_area(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shrink, "LARGE_PX", 1 << 19)
    small, large = noise(700, 700), noise(800, 700)
    assert (by_halves(small, 100, 90) == by_area(small, 100, 90)).all()
    assert (halvings(small, 100, 90), halvings(large, 100, 90), halvings(large, 351, 90)) == (0, 1, 0)
