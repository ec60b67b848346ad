"""Our IRs say what openvino-model-api's anomaly wrapper asks for, and give it the verdict that the station gives."""

from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from edge_runtime.errors import ExportError
from edge_runtime.model.manifest import Threshold
from export.build.model_info import LABELS, OUTPUTS, model_info, write_model_info
from tests.conftest import bad_image, build_model, good_image

THRESHOLD = Threshold(value=20.3, map_value=19.1, rule="by hand", false_reject_rate=None, false_reject_upper=None)


@pytest.fixture
def ir(tmp_path: Path) -> Path:
    ov.save_model(build_model(), tmp_path / "model.xml", compress_to_fp16=False)
    write_model_info(tmp_path / "model.xml", THRESHOLD)
    return tmp_path / "model.xml"


IMAGES = [draw(seed=seed) for draw in (good_image, bad_image) for seed in range(3)]
IMAGES[-1][40:56, 8:24] = 180  # a second spot, weaker than the first, yet above half of it


def _run(model: ov.Model) -> list[dict[str, np.ndarray]]:
    """The outputs for each of IMAGES, by name."""
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [o.get_any_name() for o in model.outputs]
    rows = [compiled(np.repeat(image[None, :, :, None], 3, axis=3)) for image in IMAGES]
    return [{name: np.array(row[name]) for name in names} for row in rows]


def _lower(model: ov.Model) -> ov.Model:
    """With half the score: below the map's peak, as a mean of several places is."""
    score = model.output("score").get_node().input(0).get_source_output()
    half = ops.multiply(score, ops.constant(np.array([0.5], np.float32)))
    score_map = model.output("map").get_node().input(0).get_source_output()
    score.set_names(set())
    half.output(0).set_names({"score"})
    return ov.Model([half.output(0), score_map], model.get_parameters(), "tiny")


def test_the_settings_that_model_api_reads_survive_saving_and_loading(ir: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.xml"
    ov.save_model(ov.Core().read_model(ir), again, compress_to_fp16=False)
    for path in (ir, again):
        model = ov.Core().read_model(path)
        found = {key: model.get_rt_info(["model_info", key]).astype(str) for key in model_info(THRESHOLD, 64, 64)}
        assert found == model_info(THRESHOLD, 64, 64)
        assert (
            found["model_type"] == "AnomalyDetection"
            and found["labels"].split() == LABELS.split()
            and found["reverse_input_channels"] == "False"
        )
        assert (float(found["normalization_scale"]), found["orig_height"], found["orig_width"]) == (2 * 20.3, "64", "64")


def test_scores_and_maps_stay_what_they_were_and_nothing_else_is_left_behind(ir: Path) -> None:
    for before, after in zip(_run(build_model()), _run(ov.Core().read_model(ir)), strict=True):
        np.testing.assert_array_equal(after["score"], before["score"])
        np.testing.assert_array_equal(after["map"], before["map"])
    assert sorted(p.name for p in ir.parent.iterdir()) == ["model.bin", "model.xml"]


def test_the_first_of_four_outputs_is_a_map_whose_maximum_is_exactly_the_score(ir: Path, tmp_path: Path) -> None:
    lower = tmp_path / "lower.xml"
    ov.save_model(_lower(build_model()), lower, compress_to_fp16=False)
    write_model_info(lower, THRESHOLD)
    below = 0
    for path in (ir, lower):
        model = ov.Core().read_model(path)
        assert tuple(o.get_any_name() for o in model.outputs) == OUTPUTS
        for found in _run(model):
            score, peak = found["score"][0], found["map"].max()
            assert found["anomaly_map"].shape == found["map"].shape
            assert found["anomaly_map"].max() == score != peak
            assert found["peak"][0] == peak
            elsewhere = found["map"] < peak
            np.testing.assert_array_equal(found["anomaly_map"][elsewhere], np.minimum(found["map"], score)[elsewhere])
            below += bool(score < peak)
    assert 0 < below < 2 * len(IMAGES)


@pytest.mark.parametrize("value", [20.3, 0.1, 1 / 3, 7.0, 1e-6])
def test_its_comparisons_in_float32_come_to_ours_in_float64(value: float) -> None:
    info = model_info(Threshold(value=value, map_value=value, rule="", false_reject_rate=None, false_reject_upper=None), 64, 64)
    near = np.float32(value)
    for score in (np.nextafter(near, np.float32(0)), near, np.nextafter(near, np.float32(np.inf))):
        rejected = float(score) > value
        assert bool(score > float(info["image_threshold"])) == rejected
        assert bool(score >= float(info["pixel_threshold"])) == rejected


def test_a_model_without_our_outputs_is_refused(tmp_path: Path) -> None:
    model = build_model()
    ov.save_model(ov.Model([model.output("map")], model.get_parameters(), "half"), tmp_path / "half.xml")
    with pytest.raises(ExportError, match="expected outputs score and map, found map"):
        write_model_info(tmp_path / "half.xml", THRESHOLD)
