"""A straying line's frames: each condition does what its name says, at any depth, in colour, of a region, and on a reduced frame alike."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.model.manifest import InputSpec, TileSpec
from edge_runtime.model.preprocess import Preprocessor
from edge_runtime.records import Image
from training.judging.distort import CONDITIONS, Condition, Directions, Stage

DIRECTIONS = Directions(1, -1, 1, 3)


def picture(h: int, w: int, *, channels: int = 1, bits: int = 8) -> Image:
    """Soft blobs of 40 to 160 gray levels of 255."""
    cells = np.random.default_rng(0).uniform(40, 160, (12, 12, channels)).astype(np.float32)
    image = cv2.resize(cells, (w, h), interpolation=cv2.INTER_CUBIC).clip(0, 255) / 255 * ((1 << bits) - 1)
    return np.squeeze(image.astype(np.uint8 if bits == 8 else np.uint16))


def spec(h: int, w: int, **more: object) -> InputSpec:
    return InputSpec(**{"height": 64, "width": 64, "channels": 1, "frame_wh": (w, h), **more})  # type: ignore[arg-type]


KINDS: list[tuple[int, int, dict[str, object]]] = [
    (64, 64, {}),
    (100, 90, {"channels": 3}),
    (90, 100, {"bits": 12}),
    (500, 700, {}),
    (500, 700, {"roi": (101, 53, 333, 307)}),
    (500, 700, {"channels": 3, "bits": 12, "roi": (0, 0, 400, 400)}),
    (800, 900, {"tiles": TileSpec(columns=3, rows=2)}),
    (601, 733, {"bayer": "GRBG"}),
]


def made(h: int, w: int, more: dict[str, object]) -> tuple[InputSpec, Image]:
    return spec(h, w, **more), picture(h, w, channels=int(more.get("channels", 1)), bits=int(more.get("bits", 8)))  # type: ignore[call-overload]


@pytest.mark.parametrize(("h", "w", "more"), KINDS)
def test_a_reduced_frame_becomes_the_same_picture(h: int, w: int, more: dict[str, object]) -> None:
    its, image = made(h, w, more)
    small, plan = Stage(its).reduce(image)
    assert small.size <= 3 * image.size
    direct, reduced = Preprocessor(its).split(image).astype(float), plan.prepare.split(small).astype(float)
    assert np.abs(direct - reduced).mean() < 1.5


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda c: f"{c.what}-{c.amount:g}")
@pytest.mark.parametrize(("h", "w", "more"), KINDS)
def test_every_condition_gives_a_frame_of_the_same_kind(h: int, w: int, more: dict[str, object], condition: Condition) -> None:
    its, image = made(h, w, more)
    stage = Stage(its)
    small, plan = stage.reduce(image)
    before = small.copy()
    out = stage.distort(small, plan, condition, DIRECTIONS)
    assert (out.shape, out.dtype) == (small.shape, small.dtype)
    assert int(out.max()) < 1 << its.bits or condition.what == "turn"
    assert np.array_equal(small, before), "the frame itself stays"
    assert np.array_equal(out, small) == (condition.what == "clean")
    assert np.array_equal(out, stage.distort(small, plan, condition, DIRECTIONS)), "the same again"
    assert plan.prepare.split(out).shape == (plan.prepare.views, 64, 64, 3)


def distorted(
    what: str, amount: float, h: int = 128, w: int = 128, **more: object
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The frame before and after, in gray levels of 255."""
    its, image = made(h, w, more)
    stage = Stage(its)
    small, plan = stage.reduce(image)
    scale = 255 / ((1 << its.bits) - 1)
    return small * scale, stage.distort(small, plan, Condition(what, amount), DIRECTIONS) * scale


@pytest.mark.parametrize("bits", [8, 12])
def test_light_is_a_factor_that_clips_and_gamma_a_power(bits: int) -> None:
    before, after = distorted("light", 1.3, bits=bits)
    assert after == pytest.approx(np.minimum(before * 1.3, 255), abs=0.6)
    before, after = distorted("light", 2.5, bits=bits)
    assert after.max() == pytest.approx(255)
    before, after = distorted("gamma", 1.4, bits=bits)
    assert after == pytest.approx(255 * (before / 255) ** 1.4, abs=0.6)


def test_a_shift_is_a_share_of_the_region_and_mirrors_the_border() -> None:
    before, after = distorted("shift", 0.04)
    assert np.array_equal(after[: 128 - 5, 5:], before[5:, : 128 - 5])  # 5 of 128 pixels to the right and up
    assert np.array_equal(after[:, 4], after[:, 6])


def test_a_shift_inside_of_a_larger_frame_brings_in_what_lies_beside_the_region() -> None:
    its, image = made(128, 128, {"roi": (32, 32, 64, 64)})
    stage = Stage(its)
    small, plan = stage.reduce(image)
    seen = plan.prepare.split(stage.distort(small, plan, Condition("shift", 0.04), DIRECTIONS))[0, :, :, 0]
    assert np.array_equal(seen, image[32 + 3 : 96 + 3, 32 - 3 : 96 - 3])


def test_what_is_mirrored_in_is_told_and_what_was_photographed_beside_the_region_is_not_invented() -> None:
    for more, cells in (({}, True), ({"roi": (32, 32, 64, 64)}, False)):
        its, image = made(128, 128, dict(more))
        stage = Stage(its)
        _, plan = stage.reduce(image)
        for what, amount in (("shift", 0.04), ("turn", 2.0)):
            found = stage.invented(plan, Condition(what, amount), DIRECTIONS)
            assert (found is not None) == cells, what
        assert stage.invented(plan, Condition("blur", 2.0), DIRECTIONS) is None
    its, image = made(128, 128, {})
    stage = Stage(its)
    found = stage.invented(stage.reduce(image)[1], Condition("shift", 0.04), DIRECTIONS)
    assert found is not None and found.shape == (1, 64, 64)
    assert found[0, :, :3].all() and found[0, -3:].all() and not found[0, :-3, 3:].any()  # 5 of 128 pixels to the right and up


def test_of_tiles_only_those_at_the_border_show_what_is_mirrored_in() -> None:
    its, image = made(800, 900, {"tiles": TileSpec(columns=3, rows=2)})
    stage = Stage(its)
    found = stage.invented(stage.reduce(image)[1], Condition("shift", 0.01), DIRECTIONS)
    assert found is not None and [bool(view.any()) for view in found] == [True, False, False, True, True, True]


def test_a_turn_leaves_the_middle_where_it_is() -> None:
    before, after = distorted("turn", 2.0)
    assert after[60:68, 60:68] == pytest.approx(before[60:68, 60:68], abs=3)
    assert np.abs(after - before)[5:20, 5:20].mean() > 1


def test_blur_is_measured_in_pixels_of_the_models_input() -> None:
    """One of 2 px over a frame that is twice as large is a blur of 4 of its own."""
    before, after = distorted("blur", 2.0)
    assert after == pytest.approx(cv2.GaussianBlur(before, (0, 0), 4.0, borderType=cv2.BORDER_REFLECT_101), abs=1)


@pytest.mark.parametrize(("side", "bits"), [(128, 8), (128, 12), (512, 8)])
def test_noise_is_that_of_the_cameras_pixels(side: int, bits: int) -> None:
    """A frame that is reduced by 4 averages it: a quarter."""
    before, after = distorted("noise", 10.0, side, side, bits=bits)
    assert (after - before).std() == pytest.approx(10 if side == 128 else 2.5, rel=0.1)


def test_jpeg_of_lower_quality_loses_more() -> None:
    errors = [np.abs(np.subtract(*distorted("jpeg", q, bits=bits))).mean() for bits in (8, 12) for q in (90, 40)]
    assert 0 < errors[0] < errors[1] and 0 < errors[2] < errors[3]


@pytest.mark.parametrize(("h", "w", "more"), KINDS)
def test_a_painted_defect_shows_where_parts_are_judged(h: int, w: int, more: dict[str, object]) -> None:
    its, image = made(h, w, more)
    stage = Stage(its)
    small, plan = stage.reduce(image)
    painted = stage.paint(small, plan, 0, 1)
    assert painted is not None
    assert (painted.shape, painted.dtype) == (small.shape, small.dtype)
    x, y, rw, rh = plan.region
    changed = np.abs(painted.astype(float) - small) * 255 / ((1 << its.bits) - 1)
    assert changed.max() > 6
    changed[y : y + rh, x : x + rw] = 0
    assert changed.max() == 0
