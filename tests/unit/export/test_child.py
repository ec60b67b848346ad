"""Whatever a model does to the process it runs in, the export gets a sentence."""

import sys
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13

from edge_runtime.errors import ExportError
from export.child import deviations_in_child, golden_in_child, race_in_child, run_in_child


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), dtype=np.uint8))
    return path


def _script(tmp_path: Path, text: str) -> tuple[str, ...]:
    path = tmp_path / "child.py"
    path.write_text(text)
    return (sys.executable, str(path))


@pytest.mark.slow
def test_a_child_gives_what_the_model_gives(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    found = run_in_child(tiny_bundle / "model.xml", images, tmp_path)
    compiled = ov.Core().compile_model(tiny_bundle / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for i, image in enumerate(np.load(images)):
        expected = compiled([image[None]])
        np.testing.assert_array_equal(found.outputs["score"][i], expected["score"][0])
        np.testing.assert_array_equal(found.outputs["map"][i], expected["map"][0])
    assert found.outputs["map"].shape == (3, 1, 8, 8)
    assert found.latency_ms > 0


def test_a_segmentation_fault_is_a_sentence_with_the_model_and_the_stage(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    command = _script(tmp_path, "import os, signal\nprint('compiling', flush=True)\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    with pytest.raises(ExportError, match=r"model\.xml: ended with signal SIGSEGV while compiling; .*--precision fp32"):
        run_in_child(tiny_bundle / "model.xml", images, tmp_path, command)


@pytest.mark.slow
def test_a_child_that_hangs_is_ended_and_named(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    command = _script(tmp_path, "import time\nprint('running image 1 of 3', flush=True)\ntime.sleep(600)\n")
    with pytest.raises(ExportError, match=r"model\.xml: gave no answer within 3 s while running image 1 of 3"):
        run_in_child(tiny_bundle / "model.xml", images, tmp_path, command, timeout_s=3)


@pytest.mark.slow
def test_a_model_that_cannot_be_read_is_named_with_openvinos_reason(images: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.xml").write_text("<net name='x'")
    with pytest.raises(ExportError, match=r"broken\.xml: failed while reading: RuntimeError: "):
        run_in_child(tmp_path / "broken.xml", images, tmp_path)


@pytest.mark.slow
def test_golden_samples_run_with_the_devices_predictor(tiny_bundle: Path) -> None:
    results = golden_in_child(tiny_bundle)
    assert [r.image for r in results] == [f"golden/{i:03d}.png" for i in range(4)]
    assert all(r.ok and r.allowed == 1e-3 for r in results)


@pytest.mark.slow
def test_a_race_times_every_model_in_its_order(tiny_bundle: Path, images: Path, tmp_path: Path) -> None:
    model = tiny_bundle / "model.xml"
    found = race_in_child([model, model, model], images, tmp_path)
    assert len(found) == 3 and min(found) > 0
    with pytest.raises(ExportError, match=r"broken\.xml: failed while compiling"):
        (tmp_path / "broken.xml").write_text("<net name='x'")
        race_in_child([model, tmp_path / "broken.xml"], images, tmp_path)


@pytest.mark.slow
def test_a_model_deviates_by_the_square_of_what_its_outputs_are_off_by(images: Path, tmp_path: Path) -> None:
    irs = [tmp_path / f"times{factor}.xml" for factor in (1, 1, 3)]
    for ir, factor in zip(irs, (1, 1, 3), strict=True):
        image = ov.op.Parameter(ov.Type.u8, ov.Shape([1, 64, 64, 3]))
        scaled = opset13.multiply(opset13.convert(image, "f32"), ov.op.Constant(np.full(1, factor, np.float32)))
        ov.save_model(ov.Model([ov.op.Result(scaled.output(0))], [image], "scaled"), ir, compress_to_fp16=False)
    assert deviations_in_child(irs[0], irs[1:], images, tmp_path) == pytest.approx([0.0, 4.0])
