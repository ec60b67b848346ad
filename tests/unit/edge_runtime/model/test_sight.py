"""Brightness, sharpness and noise of a frame: what a lamp, a lens and a gain change, whatever the frame's size, depth and colours."""

import time

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.model.manifest import InputSpec, TileSpec
from edge_runtime.model.sight import SightMeter


def picture(h: int, w: int, *, channels: int = 1, bits: int = 8) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """A texture of about 1.5 pixels of a model's input at 64x64, mean 100."""
    rng = np.random.default_rng(0)
    cells = rng.normal(100, 25, (48, 48)).astype(np.float32)
    image = cv2.resize(cells, (w, h), interpolation=cv2.INTER_CUBIC)
    image = np.clip(image, 0, 255) / 255 * ((1 << bits) - 1)
    whole = image.astype(np.uint8 if bits == 8 else np.uint16)
    return whole if channels == 1 else np.repeat(whole[:, :, None], 3, axis=2)


def spec(h: int, w: int, **more: object) -> InputSpec:
    return InputSpec(**{"height": 64, "width": 64, "channels": 1, "frame_wh": (w, h), **more})  # type: ignore[arg-type]


KINDS = [
    (64, 64, {}),
    (160, 200, {}),
    (1000, 1400, {}),
    (1000, 1400, {"channels": 3}),
    (700, 500, {"bits": 12}),
    (1000, 1400, {"bayer": "RGGB"}),
    (500, 700, {"tiles": TileSpec(columns=2, rows=2)}),
]


@pytest.mark.parametrize(("h", "w", "more"), KINDS)
def test_a_dimmer_lamp_is_darker_and_as_sharp_and_a_blur_is_as_bright_and_less_sharp(h: int, w: int, more: dict[str, object]) -> None:
    image = picture(h, w, channels=int(more.get("channels", 1)), bits=int(more.get("bits", 8)))  # type: ignore[call-overload]
    meter = SightMeter(spec(h, w, **more))
    taught = meter(image)
    assert taught.brightness == pytest.approx(100, rel=0.03)
    dim = meter((image * 0.8).astype(image.dtype))
    assert dim.brightness / taught.brightness == pytest.approx(0.8, abs=0.01)
    assert dim.sharpness / taught.sharpness == pytest.approx(1, abs=0.05)
    side = w / (2 if "tiles" in more else 1) / 64
    blurred = meter(cv2.GaussianBlur(image, (0, 0), max(1.0, side)))  # type: ignore[arg-type]
    assert blurred.brightness / taught.brightness == pytest.approx(1, abs=0.01)
    assert blurred.sharpness / taught.sharpness < 0.7


def test_a_blur_finer_than_the_model_sees_is_hardly_one() -> None:
    image = picture(1280, 1280)
    meter = SightMeter(spec(1280, 1280))
    assert meter(cv2.GaussianBlur(image, (0, 0), 2)).sharpness > 0.95 * meter(image).sharpness  # type: ignore[arg-type]


def test_only_the_region_counts_and_what_is_ignored_does_not() -> None:
    image = picture(200, 200)
    image[:, 100:] = 250
    left = SightMeter(spec(200, 200, roi=(0, 0, 100, 200)))(image)
    assert left.brightness == pytest.approx(100, rel=0.05)
    mask = np.zeros((200, 200), np.uint8)
    mask[:, 100:] = 255
    assert SightMeter(spec(200, 200), ignored=mask)(image).brightness == pytest.approx(left.brightness, rel=0.01)
    moved = SightMeter(spec(200, 200, roi=(0, 0, 100, 200)), roi=(100, 0, 100, 200))(image)
    assert moved.brightness == pytest.approx(250, rel=0.01)


def test_a_black_or_a_tiny_frame_has_no_sharpness() -> None:
    black = SightMeter(spec(64, 64))(np.zeros((64, 64), np.uint8))
    assert (black.brightness, black.sharpness) == (0.0, 0.0)
    assert SightMeter(spec(2, 2, frame_wh=None))(np.full((2, 2), 9, np.uint8)).sharpness == 0.0


def test_looking_costs_little_whatever_the_size() -> None:
    image = picture(2048, 2448)
    meter = SightMeter(spec(2048, 2448, height=256, width=256))
    meter(image)
    best = np.inf
    for _ in range(50):
        began = time.thread_time()
        meter(image)
        best = min(best, time.thread_time() - began)
    assert best < 1e-3  # 0.1 ms; the bound is for a busy machine


@pytest.mark.parametrize(("bayer", "bits"), [(None, 8), ("RGGB", 8), (None, 12)])
def test_noise_is_told_in_gray_levels_beside_edges_and_saturated_places(bayer: str | None, bits: int) -> None:
    """Stripes, a black and a white quarter: what a sensor's noise does between them is told to a tenth."""
    top = (1 << bits) - 1
    kind = np.uint8 if bits == 8 else np.uint16
    meter = SightMeter(msgspec.structs.replace(spec(64, 64, frame_wh=None), bayer=bayer, bits=bits))
    picture = np.full((256, 256), 0.4)
    picture[:, ::32] = 0.6
    picture[:64], picture[-64:] = 0.0, 1.0
    grain = np.random.default_rng(0).standard_normal(picture.shape)
    for sigma in (1.0, 3.0, 9.0):
        noisy = np.clip(np.rint((picture + grain * sigma / 255) * top), 0, top).astype(kind)
        assert meter(noisy).noise == pytest.approx(sigma, rel=0.1)
    assert meter(np.zeros((256, 256), kind)).noise == 0.0
