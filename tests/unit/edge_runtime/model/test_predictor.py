"""OpenVINO on a named device: what is refused, what is read back, what must agree."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from edge_runtime.errors import BundleError, ConfigError, DeviceError, FrameError, GoldenMismatch
from edge_runtime.model.bundle import MANIFEST, ModelBundle, file_sha256, write_manifest
from edge_runtime.model.manifest import Manifest
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.records import Frame


def drawn(spot: int | None = None, side: int = 64) -> Frame:
    image = np.full((side, side), 80, np.uint8)
    if spot is not None:
        image[16:32, 32:48] = spot
    return Frame(seq=1, captured_ns=0, source="test", image=image)


def alter(bundle: Path, change: Callable[[dict[str, Any]], None]) -> ModelBundle:
    """A bundle that says something else than its model, yet is sealed properly."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    change(manifest)
    write_manifest(bundle, msgspec.convert(manifest, Manifest))
    return ModelBundle.open(bundle)


def test_score_and_map_are_the_models_raw_outputs(tiny_bundle: Path) -> None:
    with OpenvinoPredictor(ModelBundle.open(tiny_bundle)) as predictor:
        found = predictor.predict(drawn(spot=200))
        assert found.score == pytest.approx(101.0)
        assert found.score_map.shape == (8, 8)
        assert found.score_map[2:4, 4:6] == pytest.approx(np.full((2, 2), 100.0))
        assert found.grid_to_frame.tolist() == [[8, 0, 0], [0, 8, 0]]


def test_a_prediction_is_not_overwritten_by_the_next_one(tiny_bundle: Path) -> None:
    with OpenvinoPredictor(ModelBundle.open(tiny_bundle)) as predictor:
        bad = predictor.predict(drawn(spot=200))
        predictor.predict(drawn())
        assert bad.score_map.max() == pytest.approx(100.0)
        assert not bad.score_map.flags.writeable


def test_a_frame_of_another_size_is_refused_with_both_sizes(tiny_bundle: Path) -> None:
    with OpenvinoPredictor(ModelBundle.open(tiny_bundle)) as predictor, pytest.raises(FrameError, match=r"64x64.*32x32"):
        predictor.predict(drawn(side=32))


def test_a_missing_device_is_an_error_that_names_it_and_what_is_there(tiny_bundle: Path) -> None:
    with pytest.raises(DeviceError, match=r"NPU.*not found.*Present here: .*CPU"), OpenvinoPredictor(ModelBundle.open(tiny_bundle), "NPU"):
        pass


def test_a_listed_fallback_is_used_and_said(tiny_bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    with OpenvinoPredictor(ModelBundle.open(tiny_bundle), ["GPU", "CPU"]) as predictor:
        assert predictor.device_used == "CPU"
    assert "GPU" in caplog.text
    assert "using CPU" in caplog.text


@pytest.mark.parametrize("device", ["AUTO", "AUTO:GPU,CPU", "MULTI:GPU,CPU", "HETERO:GPU,CPU"])
def test_devices_that_fall_back_silently_are_refused(tiny_bundle: Path, device: str) -> None:
    with pytest.raises(DeviceError, match="silently"), OpenvinoPredictor(ModelBundle.open(tiny_bundle), device):
        pass


def test_golden_samples_agree_where_they_were_made(tiny_bundle: Path) -> None:
    with OpenvinoPredictor(ModelBundle.open(tiny_bundle)) as predictor:
        assert [r.ok for r in predictor.run_golden()] == [True] * 4


@pytest.mark.parametrize("key", ["score", "map_peak"])
def test_a_golden_value_that_differs_is_a_mismatch_unless_the_tolerance_is_scaled(make_bundle: Callable[..., Path], key: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["golden"][3][key] *= 1.01

    with OpenvinoPredictor(alter(make_bundle(), change)) as predictor:
        with pytest.raises(GoldenMismatch, match=r"1 of 4 golden samples differ: golden/003\.png"):
            predictor.run_golden()
        assert len(predictor.run_golden(tolerance_scale=20)) == 4


def test_a_golden_value_far_below_the_threshold_is_compared_to_a_tenth_of_it(make_bundle: Callable[..., Path]) -> None:
    """The good samples score 1.0 of a threshold of 20; allowed are 1e-3 of 2, so 1.0019 passes and 1.0021 does not."""

    def shifted(by: float) -> Callable[[dict[str, Any]], None]:
        return lambda manifest: manifest["golden"][0].__setitem__("score", 1.0 + by)

    with OpenvinoPredictor(alter(make_bundle(), shifted(0.0019))) as predictor:
        assert all(r.ok for r in predictor.run_golden())
    with OpenvinoPredictor(alter(make_bundle(), shifted(0.0021))) as predictor, pytest.raises(GoldenMismatch):
        predictor.run_golden()


def test_a_golden_sample_that_scores_nan_is_a_mismatch_at_any_tolerance(make_bundle: Callable[..., Path]) -> None:
    white = np.full((64, 64), 255, np.uint8)
    bundle = make_bundle(broken="nan")
    assert cv2.imwrite(str(bundle / "golden/000.png"), white)

    def trust_it(manifest: dict[str, Any]) -> None:
        manifest["files"]["golden/000.png"] = file_sha256(bundle / "golden/000.png")

    with OpenvinoPredictor(alter(bundle, trust_it)) as predictor:
        assert math.isnan(predictor.predict(Frame(1, 0, "white", white)).score)
        with pytest.raises(GoldenMismatch, match="found nan"):
            predictor.run_golden(tolerance_scale=5)


@pytest.mark.parametrize(
    ("section", "key", "value", "named"),
    [("input", "height", 32, "input"), ("output", "map_width", 4, "map"), ("output", "map_height", 16, "map")],
)
def test_a_model_that_is_not_what_its_manifest_says_is_refused(
    make_bundle: Callable[..., Path], section: str, key: str, value: int, named: str
) -> None:
    bundle = alter(make_bundle(), lambda m: m[section].__setitem__(key, value))
    with pytest.raises(BundleError, match=f"{named}: the manifest says"), OpenvinoPredictor(bundle):
        pass


def test_a_recipes_region_moves_the_crop_but_golden_samples_keep_their_own(tiny_bundle: Path) -> None:
    with OpenvinoPredictor(ModelBundle.open(tiny_bundle), roi=(100, 20, 128, 128)) as predictor:
        assert len(predictor.run_golden()) == 4
        frame = Frame(1, 0, "wide", np.full((200, 300), 80, np.uint8))
        assert predictor.predict(frame).grid_to_frame.tolist() == [[16, 0, 100], [0, 16, 20]]
        assert predictor.predict(predictor.blank()).score == pytest.approx(1.0)


def test_frames_may_be_smaller_than_the_models_input(make_bundle: Callable[..., Path]) -> None:
    with OpenvinoPredictor(ModelBundle.open(make_bundle(frame_wh=(40, 24)))) as predictor:
        assert predictor.blank().image.shape == (24, 40)
        assert predictor.predict(Frame(1, 0, "small", np.full((24, 40), 80, np.uint8))).grid_to_frame.tolist() == [[5, 0, 0], [0, 3, 0]]


def test_a_region_of_another_aspect_is_a_configuration_error(tiny_bundle: Path) -> None:
    with pytest.raises(ConfigError, match="aspect"):
        OpenvinoPredictor(ModelBundle.open(tiny_bundle), roi=(0, 0, 128, 64))
