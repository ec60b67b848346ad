"""Bytes of a camera become pixels: every packing against a slow reading of the same bits."""

from typing import get_args

import numpy as np
import pytest

from edge_runtime.config.files import PixelFormat
from edge_runtime.errors import SourceError
from edge_runtime.sources.pixels import FORMATS, format_named, format_of, to_image

W, H = 7, 5


def _values(bits: int) -> np.ndarray:
    return np.random.default_rng(bits).integers(0, 1 << bits, (H, W), dtype=np.uint16)


def _as_bit_stream(values: np.ndarray, bits: int) -> np.ndarray:
    stream = "".join(format(int(v), f"0{bits}b")[::-1] for v in values.ravel())
    return np.array([int(stream[i : i + 8][::-1].rjust(8, "0"), 2) for i in range(0, len(stream), 8)], dtype=np.uint8)


def _as_gige_packed(values: np.ndarray, bits: int) -> np.ndarray:
    out, low = [], bits - 8
    flat = [*map(int, values.ravel()), 0]
    for a, b in zip(flat[::2], flat[1::2], strict=False):
        out += [a >> low, (a & (1 << low) - 1) | (b & (1 << low) - 1) << 4, b >> low]
    return np.array(out, dtype=np.uint8)


def test_the_settings_know_the_same_formats_as_the_table() -> None:
    assert set(get_args(PixelFormat)) == set(FORMATS)


def test_the_codes_are_the_conventions() -> None:
    pylon = pytest.importorskip("pypylon.pylon", reason="pypylon knows the codes: pip install 'lineside[cameras]'")
    compared = 0
    for name, fmt in FORMATS.items():
        theirs = {"RGB8": "RGB8packed", "BGR8": "BGR8packed"}.get(name, name.replace("Packed", "packed"))
        code = getattr(pylon, f"PixelType_{theirs}", None)
        if code is not None:
            compared += 1
            assert code == fmt.code, name
    assert compared > 30


@pytest.mark.parametrize("name", ["Mono10", "Mono12", "Mono16", "Mono10p", "Mono12p", "Mono10Packed", "Mono12Packed"])
def test_deep_gray_becomes_uint16_with_its_own_range(name: str) -> None:
    fmt = FORMATS[name]
    values = _values(fmt.bits)
    if fmt.packing == "p":
        data = _as_bit_stream(values, fmt.bits)
    else:
        data = _as_gige_packed(values, fmt.bits) if fmt.packing else values.astype("<u2").view(np.uint8).ravel()
    image = to_image(data, fmt, W, H)
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, values)


def test_colour_becomes_bgr() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    np.testing.assert_array_equal(to_image(rgb.ravel(), FORMATS["RGB8"], W, H), rgb[..., ::-1])
    np.testing.assert_array_equal(to_image(rgb.ravel(), FORMATS["BGR8"], W, H), rgb)


@pytest.mark.parametrize(("colours", "first"), [("RG", 2), ("GR", 1), ("GB", 1), ("BG", 0)])
def test_a_mosaic_becomes_the_colour_it_was_taken_of(colours: str, first: int) -> None:
    bgr = (3000, 200, 90)
    rows = {"RG": ((2, 1), (1, 0)), "GR": ((1, 2), (0, 1)), "GB": ((1, 0), (2, 1)), "BG": ((0, 1), (1, 2))}[colours]
    mosaic = np.zeros((8, 8), dtype=np.uint16)
    for y in range(2):
        for x in range(2):
            mosaic[y::2, x::2] = bgr[rows[y][x]]
    assert mosaic[0, 0] == bgr[first]
    data, fmt = mosaic.astype("<u2").view(np.uint8).ravel(), FORMATS[f"Bayer{colours}12"]
    image = to_image(data, fmt, 8, 8)
    assert image.dtype == np.uint16 and tuple(int(v) for v in image[4, 4]) == bgr
    np.testing.assert_array_equal(to_image(data, fmt, 8, 8, demosaic=False), mosaic)


def test_a_mosaic_is_coloured_as_training_colours_it() -> None:
    from edge_runtime.model.manifest import InputSpec
    from edge_runtime.model.preprocess import Preprocessor

    mosaic = np.random.default_rng(1).integers(0, 256, (16, 16), dtype=np.uint8)
    taught = Preprocessor(InputSpec(height=16, width=16, channels=1, frame_wh=(16, 16), bayer="RGGB"))(mosaic)
    np.testing.assert_array_equal(to_image(mosaic.ravel(), FORMATS["BayerRG8"], 16, 16), taught)


def test_padding_after_each_row_is_left_out() -> None:
    values = np.arange(W * H, dtype=np.uint8).reshape(H, W)
    padded = np.hstack([values, np.full((H, 3), 255, np.uint8)]).ravel()
    np.testing.assert_array_equal(to_image(padded, FORMATS["Mono8"], W, H, padding_x=3), values)
    np.testing.assert_array_equal(to_image(padded[:-3], FORMATS["Mono8"], W, H, padding_x=3), values)


def test_too_few_bytes_and_unknown_formats_are_refused() -> None:
    with pytest.raises(SourceError, match=r"expected 70 bytes of a 7x5 Mono12 picture, the camera sent 69"):
        to_image(np.zeros(69, np.uint8), FORMATS["Mono12"], W, H)
    with pytest.raises(SourceError, match=r"source.pixel_format: expected one of Mono8.*0x02200016"):
        format_of(0x02200016)
    with pytest.raises(SourceError, match=r"is set to YUV422"):
        format_named("YUV422")
    assert format_named("RGB8Packed") is FORMATS["RGB8"]
