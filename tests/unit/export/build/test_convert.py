"""torch -> OpenVINO: same scores, and a head whose parameters can be found and replaced by name."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openvino as ov
import pytest
import torch

from edge_runtime.errors import ExportError, ParityError
from export import package
from export.build import convert
from export.build.convert import convert_head  # itself: the module's own is made to remember what it converted
from export.build.parity import check_same
from tests.support.graph_heads import head_constants, replace_head
from training.data.dataset import inputs, load_dataset
from training.runs import Detector, load_run

pytestmark = pytest.mark.slow  # a real fit that all of them share


class Parts(NamedTuple):
    detector: Detector
    backbone: ov.Model
    head: ov.Model
    model: ov.Model
    images: np.ndarray
    expected: tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def parts(run_dir: Path, data_dir: Path) -> Parts:
    run = load_run(run_dir)
    spec = run.info.input
    detector = run.detector()
    backbone = convert.convert_trunk(detector.backbone, spec.height, spec.width).joined()
    head = convert_head(detector.head, detector.backbone.level_shapes(spec.height, spec.width))
    dataset = load_dataset(data_dir, image_size=f"{spec.height}x{spec.width}")
    images = np.stack(list(inputs(dataset.test, run.preprocessor())))
    return Parts(detector, backbone, head, convert.stitch(backbone, head), images, _torch(detector, images))


def _torch(detector: Detector, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with torch.inference_mode():
        score, score_map = detector(torch.from_numpy(images))
    return score.numpy().astype(np.float64), score_map.numpy()


def _run(model: ov.Model, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = [compiled([image[None]]) for image in images]
    scores, maps = [r["score"].copy() for r in results], [r["map"].copy() for r in results]
    return np.concatenate(scores).astype(np.float64), np.concatenate(maps)


def _largest(values: Iterable[tuple[str, Any]]) -> str:
    """The name of the parameter with most numbers, which no head can do without."""
    return max(((int(np.prod(v.shape)), n) for n, v in values))[1]


def test_the_graph_gives_torchs_scores_and_maps(parts: Parts) -> None:
    score, score_map = _run(parts.model, parts.images)
    np.testing.assert_allclose(score, parts.expected[0], rtol=1e-4)
    np.testing.assert_allclose(score_map, parts.expected[1], rtol=1e-3, atol=1e-4)


def test_the_graph_is_static_and_named_as_the_device_expects(parts: Parts, tmp_path: Path) -> None:
    package.save_ir(parts.model, tmp_path / "model.xml")
    model = ov.Core().read_model(tmp_path / "model.xml")
    assert [(p.get_names(), p.get_element_type(), list(p.get_shape())) for p in model.inputs] == [({"image"}, ov.Type.u8, [1, 64, 64, 3])]
    assert {p.get_any_name(): (p.get_element_type(), list(p.get_shape())) for p in model.outputs} == {
        "score": (ov.Type.f32, [1]),
        "map": (ov.Type.f32, [1, 1, *parts.detector.head.grid_hw]),
    }


def test_every_buffer_of_the_head_is_a_named_constant_of_the_saved_graph(parts: Parts, tmp_path: Path) -> None:
    package.save_ir(parts.model, tmp_path / "model.xml")
    found = head_constants(ov.Core().read_model(tmp_path / "model.xml"))
    expected = {name: buffer.numpy() for name, buffer in parts.detector.head.named_buffers()}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def test_a_replaced_constant_changes_the_output_as_it_does_in_torch(parts: Parts, run_dir: Path) -> None:
    moved = load_run(run_dir).detector()
    name = _largest(moved.head.named_buffers())
    buffer = moved.head.get_buffer(name)
    buffer *= 1.5
    expected, _ = _torch(moved, parts.images)
    assert np.abs(expected - parts.expected[0]).max() > 0.1
    score, _ = _run(replace_head(parts.model, {name: buffer.numpy()}), parts.images)
    np.testing.assert_allclose(score, expected, rtol=1e-4)
    np.testing.assert_allclose(_run(parts.model, parts.images)[0], parts.expected[0], rtol=1e-4)  # the original stays as it was


def test_a_head_that_differs_from_torchs_does_not_pass_the_gate(parts: Parts) -> None:
    values = head_constants(parts.model)
    name = _largest(values.items())
    score, _ = _run(replace_head(parts.model, {name: values[name] * np.float32(1.05)}), parts.images)
    names = [f"{i}.png" for i in range(len(parts.images))]
    with pytest.raises(ParityError, match=r"expected the FP32 graph to give torch's scores.*\n  \d+\.png: torch"):
        check_same(names, parts.expected[0], score, 1.0)
    assert check_same(names, parts.expected[0], _run(parts.model, parts.images)[0], 1.0) < 1e-4


def test_a_head_for_another_grid_is_not_stitched(parts: Parts) -> None:
    other = parts.head.clone()
    shape = list(other.inputs[0].get_shape())
    parameter = ov.opset13.parameter([shape[0], shape[1] + 1, *shape[2:]], ov.Type.f32)
    wrong = ov.Model([ov.opset13.relu(parameter)], [parameter])
    with pytest.raises(ExportError, match="the head takes"):
        convert.stitch(parts.backbone, wrong)


def test_the_onnx_file_gives_torchs_scores(parts: Parts, tmp_path: Path) -> None:
    path = tmp_path / "detector.onnx"
    convert.export_onnx(parts.detector.backbone, parts.detector.head, 64, 64, path, {"lineside_threshold": "1.5"})
    score, _ = _run(ov.Core().read_model(path), parts.images)
    np.testing.assert_allclose(score, parts.expected[0], rtol=1e-4)
    import onnx

    assert {p.key: p.value for p in onnx.load(path).metadata_props} == {"lineside_threshold": "1.5"}
