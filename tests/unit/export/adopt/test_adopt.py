"""Models of other tools: what they are wrapped into, what is said of them, and what is refused in a sentence with nothing left behind."""

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import msgspec
import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from edge_runtime.console import run_app
from edge_runtime.errors import ConfigError, DataError, ExportError
from edge_runtime.images.read import read_image
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.records import Frame
from export.adopt.adopt import ADVICE, FEWEST_BAD, Options, _find_frames, adopt, parse_hw
from export.adopt.foreign import read_foreign
from export.child import run_in_child
from export.cli import app
from tests.conftest import bad_image, good_image

pytestmark = pytest.mark.usefixtures("children_here")

SIDE = 64
LIMIT, RANGE = 0.5, 0.6
"""Values of the red channel, 0..1: what the drawn exporter's threshold and normalisation rest on."""


def _f32(value: float) -> ov.Node:
    return ops.constant(np.array(value, np.float32))


def _brightness(image: ov.Node) -> ov.Node:
    """Mean of the red channel (the first of RGB) over 9x9 pixels: (?, 1, h, w)."""
    kernel = np.zeros((1, 3, 9, 9), np.float32)
    kernel[0, 0] = 1 / 81
    return ops.convolution(image, ops.constant(kernel), [1, 1], [4, 4], [4, 4], [1, 1])


def anomalib_like(
    *, static: bool = False, resizes: bool = True, cut: int = 0, limit: float = 0.5, without: str = "", kind: ov.Type = ov.Type.f32
) -> ov.Model:
    """Inputs, outputs and last operations as anomalib 2.7 writes them: no rt_info, all in the graph."""
    image = ops.parameter([-1, 3, SIDE, SIDE] if static else [-1, 3, -1, -1], kind, name="input")
    image.output(0).set_names({"input"})
    x = image if kind == ov.Type.f32 else ops.convert(image, "f32")
    if resizes and not static:
        x = ops.interpolate(x, ops.constant(np.array([SIDE, SIDE])), "linear", "sizes", axes=ops.constant(np.array([2, 3])))
    if cut:
        ends = [ops.constant(np.array(v)) for v in ([cut, cut], [SIDE - cut, SIDE - cut], [1, 1], [2, 3])]
        x = ops.slice(x, *ends)
    raw = _brightness(x)

    def normalised(value: ov.Node, name: str) -> ov.Node:
        clamped = ops.clamp(ops.add(ops.divide(ops.subtract(value, _f32(LIMIT)), _f32(RANGE)), _f32(0.5)), 0.0, 1.0)
        node = ops.select(ops.constant(np.array(True)), clamped, value)
        node.output(0).set_names({name})
        return node

    score_map = normalised(raw, "anomaly_map")
    score = normalised(ops.reduce_max(raw, ops.constant(np.array([2, 3])), False), "pred_score")
    nodes = {"pred_score": score, "anomaly_map": score_map}
    for name, value in (("pred_label", score), ("pred_mask", score_map)):
        nodes[name] = ops.greater(value, _f32(limit))
        nodes[name].output(0).set_names({name})
    kept = [nodes[n] for n in ("pred_score", "pred_label", "anomaly_map", "pred_mask") if n != without]
    return ov.Model([n.output(0) for n in kept], [image], "onnx_Frontend_IR")


def otx_like(info: dict[str, object]) -> ov.Model:
    """One raw map out, all else in rt_info: as OpenVINO Training Extensions write it."""
    image = ops.parameter([1, 3, SIDE, SIDE], ov.Type.f32, name="input")
    score_map = _brightness(image)
    score_map.output(0).set_names({"output"})
    model = ov.Model([score_map.output(0)], [image], "exported_model")
    for key, value in info.items():
        model.set_rt_info(value, ["model_info", key])
    return model


OTX = {
    "model_type": "AnomalyDetection", "labels": "Normal Anomaly", "image_threshold": 0.3, "pixel_threshold": 0.25,
    "mean_values": [63.75, 127.5, 127.5], "scale_values": [255.0, 255.0, 255.0], "normalization_scale": 2.0,
}  # fmt: skip


@pytest.fixture
def save(tmp_path: Path) -> Callable[[ov.Model], Path]:
    def write(model: ov.Model) -> Path:
        (tmp_path / "foreign").mkdir(exist_ok=True)
        ov.save_model(model, tmp_path / "foreign" / "model.xml", compress_to_fp16=False)
        return tmp_path / "foreign" / "model.xml"

    return write


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """Frames larger than the model's input, gray: four good and four bad."""
    for kind, draw in (("good", good_image), ("spot", bad_image)):
        (tmp_path / "frames" / kind).mkdir(parents=True)
        for seed in range(FEWEST_BAD):
            frame = cv2.resize(draw(seed=seed), (96, 80), interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(tmp_path / "frames" / kind / f"{seed}.png"), frame)
    return tmp_path / "frames"


def _expected(image: np.ndarray) -> float:
    """The score of a gray frame, computed apart: our area resize, then what `anomalib_like` does."""
    x = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float64) / 255
    mean = cv2.filter2D(x, -1, np.full((9, 9), 1 / 81), borderType=cv2.BORDER_CONSTANT)
    return float(np.clip((mean.max() - LIMIT) / RANGE + 0.5, 0, 1))


def _left(tmp_path: Path) -> set[str]:
    return {p.name for p in tmp_path.iterdir()} - {"foreign", "frames"}


@pytest.mark.parametrize("static", [True, False])
def test_a_model_of_anomalib_runs_on_the_device_and_says_that_it_is_clamped(
    static: bool, save: Callable[[ov.Model], Path], golden: Path, tmp_path: Path
) -> None:
    report = adopt(save(anomalib_like(static=static)), tmp_path / "bundle", Options(golden=golden, name="tiles"))
    manifest = report.manifest
    assert manifest.clamped and manifest.name == "tiles" and manifest.precision == "fp32" and manifest.params["exporter"] == "anomalib 2"
    assert (manifest.threshold.value, manifest.threshold.map_value) == (0.5, 0.5)
    spec, out = manifest.input, manifest.output
    assert (spec.height, spec.width, spec.channels, spec.frame_wh) == (SIDE, SIDE, 1, (96, 80))
    assert (out.map_height, out.map_width) == (SIDE, SIDE)
    assert any("rejects 0 of 4 good and 4 of 4 bad" in note for note in report.notes)
    assert _left(tmp_path) == {"bundle"}
    with OpenvinoPredictor(ModelBundle.open(tmp_path / "bundle")) as predictor:
        predictor.run_golden()
        for path in sorted(golden.rglob("*.png")):
            image = read_image(path)
            found = predictor.predict(Frame(seq=0, captured_ns=0, source="test", image=image))
            assert found.score == pytest.approx(_expected(image), abs=1e-5)


def test_colours_reach_the_model_as_it_was_taught(save: Callable[[ov.Model], Path]) -> None:
    model = ov.Core().compile_model(read_foreign(save(anomalib_like())).model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    blue, red = np.zeros((2, 1, SIDE, SIDE, 3), np.uint8)
    blue[..., 0] = red[..., 2] = 128
    assert model(blue)["score"][0] == 0
    assert model(red)["score"][0] == pytest.approx((128 / 255 - LIMIT) / RANGE + 0.5, abs=1e-5)


def test_a_model_with_model_info_keeps_its_raw_scale_and_its_own_normalisation(
    save: Callable[[ov.Model], Path], golden: Path, tmp_path: Path
) -> None:
    report = adopt(save(otx_like(OTX)), tmp_path / "bundle", Options(golden=golden))
    manifest = report.manifest
    assert not manifest.clamped and manifest.params["exporter"] == "model_info"
    assert (manifest.threshold.value, manifest.threshold.map_value) == (0.3, 0.25)
    with OpenvinoPredictor(ModelBundle.open(tmp_path / "bundle")) as predictor:
        image = np.full((80, 96), 204, np.uint8)
        found = predictor.predict(Frame(seq=0, captured_ns=0, source="test", image=image))
    assert found.score == pytest.approx((204 - 63.75) / 255, abs=1e-5) == found.score_map.max()


def _info(**changed: object) -> dict[str, object]:
    return {k: v for k, v in {**OTX, **changed}.items() if v is not None}


def _sized(height: str) -> ov.Model:
    model = anomalib_like(resizes=False)
    model.set_rt_info(height, ["model_info", "orig_height"])
    model.set_rt_info("64", ["model_info", "orig_width"])
    return model


REFUSED: dict[str, tuple[Callable[[], ov.Model], str]] = {
    "no metadata": (lambda: otx_like({}), "does not say what it is.*found outputs output"),
    "another task": (lambda: otx_like(_info(model_type="ssd")), "does not say what it is.*model_type ssd"),
    "no map": (lambda: anomalib_like(without="anomaly_map"), "found no anomaly_map: this method gives no map"),
    "no score": (lambda: anomalib_like(without="pred_score"), "found no pred_score: no score"),
    "integers": (lambda: anomalib_like(kind=ov.Type.u8), r"expected an input of float pixels, .*found .* u8"),
    "scale unknown": (lambda: otx_like(_info(mean_values=None, scale_values=None)), "float pixels of an unknown scale"),
    "scale absurd": (lambda: otx_like(_info(scale_values="1 2")), "scale_values: expected one number or three, found '1 2'"),
    "any size": (lambda: anomalib_like(resizes=False), "takes images of any size .*--image-size"),
    "centre crop": (lambda: anomalib_like(static=True, cut=8), "cuts 48x48 out of the 64x64 image"),
    "never validated": (lambda: anomalib_like(limit=float("nan")), "does not say where good ends .*--threshold"),
    "letterbox": (lambda: otx_like(_info(resize_type="fit_to_window_letterbox")), "found fit_to_window_letterbox: .* stretched"),
    "size no whole number": (lambda: _sized("64.0"), r"whole numbers as orig_height .* found 64\.0"),
    "no threshold": (lambda: otx_like(_info(image_threshold=None)), "does not say where good ends .*--threshold"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_says_too_little_is_refused_in_one_sentence(
    case: str, save: Callable[[ov.Model], Path], golden: Path, tmp_path: Path
) -> None:
    make, sentence = REFUSED[case]
    with pytest.raises(ExportError, match=sentence):
        adopt(save(make()), tmp_path / "bundle", Options(golden=golden))
    assert _left(tmp_path) == set()


def test_files_that_are_no_model_are_refused(save: Callable[[ov.Model], Path], tmp_path: Path) -> None:
    xml = save(anomalib_like())
    for spoil, sentence in (
        (lambda: xml.write_text("<net"), "could not read it"),
        (lambda: xml.with_suffix(".bin").unlink(), "weights in model.bin beside it, found none"),
        (xml.unlink, "found no such file"),
    ):
        spoil()
        with pytest.raises(ExportError, match=sentence):
            adopt(xml, tmp_path / "bundle", Options())
    assert _left(tmp_path) == set()


def test_what_the_user_says_takes_the_place_of_what_the_model_lacks(save: Callable[[ov.Model], Path], golden: Path, tmp_path: Path) -> None:
    xml = save(anomalib_like(limit=float("nan"), resizes=False))
    options = Options(golden=golden, threshold=0.4, map_threshold=0.6, image_hw=(48, 32))
    manifest = adopt(xml, tmp_path / "bundle", options).manifest
    assert (manifest.threshold.value, manifest.threshold.map_value, manifest.input.height, manifest.input.width) == (0.4, 0.6, 48, 32)
    with pytest.raises(ConfigError, match="--threshold: expected a number between 0 and 1"):
        adopt(xml, tmp_path / "other", Options(threshold=20.0, map_threshold=0.6, image_hw=(48, 32)))
    with pytest.raises(ConfigError, match=r"image size: this model takes 64x64 \(width x height\), found 32x48"):
        adopt(save(anomalib_like(static=True)), tmp_path / "other", Options(image_hw=(48, 32)))
    assert _left(tmp_path) == {"bundle"}
    assert parse_hw("32x48") == (48, 32) and parse_hw("64") == (64, 64)
    with pytest.raises(ConfigError, match="expected N or WxH"):
        parse_hw("large")


def test_a_model_that_accepts_every_bad_part_is_refused(save: Callable[[ov.Model], Path], golden: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"accepts all 4 bad images .*must not reach a line"):
        adopt(save(anomalib_like(limit=0.9999)), tmp_path / "bundle", Options(golden=golden))
    assert _left(tmp_path) == set()


def test_good_frames_have_many_names_and_masks_are_no_frames(save: Callable[[ov.Model], Path], golden: Path, tmp_path: Path) -> None:
    (golden / "good").rename(golden / "OK")
    (golden / "ground_truth").mkdir()
    for seed in range(FEWEST_BAD):
        cv2.imwrite(str(golden / "ground_truth" / f"{seed}_mask.png"), np.full((80, 96), 255, np.uint8))
    frames = _find_frames(Options(golden=golden), read_foreign(save(anomalib_like())))
    assert frames.good is not None
    assert (frames.good.count(True), frames.good.count(False)) == (FEWEST_BAD, FEWEST_BAD)


def test_golden_folders_that_cannot_be_used_are_refused(save: Callable[[ov.Model], Path], golden: Path, tmp_path: Path) -> None:
    xml = save(anomalib_like())
    with pytest.raises(DataError, match="expected a folder of images, found nothing"):
        adopt(xml, tmp_path / "bundle", Options(golden=tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"expected at least 4 images .* found 0"):
        adopt(xml, tmp_path / "bundle", Options(golden=xml.parent))
    (golden / "good" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"0\.png"):
        adopt(xml, tmp_path / "bundle", Options(golden=golden))
    assert _left(tmp_path) == set()


def test_without_photographs_pictures_are_drawn_unless_they_would_prove_nothing(save: Callable[[ov.Model], Path], tmp_path: Path) -> None:
    report = adopt(save(anomalib_like()), tmp_path / "bundle", Options(mono=True))
    assert report.manifest.input.channels == 1
    assert len({g.score for g in report.manifest.golden}) >= 4
    with pytest.raises(ExportError, match=r"all 12 drawn pictures score 0 or 1, .*--golden FOLDER"):
        adopt(save(_saturated()), tmp_path / "other", Options())
    assert _left(tmp_path) == {"bundle"}


def _saturated() -> ov.Model:
    model = anomalib_like()
    for node in model.get_ops():
        if node.get_type_name() == "Divide":
            node.input(1).replace_source_output(_f32(1e-9).output(0))
    return model


def test_a_model_that_crashes_is_a_sentence_that_says_what_to_export(save: Callable[[ov.Model], Path], tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text("import os, signal\nprint('compiling', flush=True)\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    np.save(tmp_path / "images.npy", np.zeros((1, SIDE, SIDE, 3), np.uint8))
    with pytest.raises(ExportError, match=r"model\.xml: ended with signal SIGSEGV while compiling; .*without INT8"):
        run_in_child(save(anomalib_like()), tmp_path / "images.npy", tmp_path, (sys.executable, str(script)), advice=ADVICE)


def test_the_command_adopts_and_verify_tells_of_the_clamped_scale(
    save: Callable[[ov.Model], Path], golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: object) -> int:
        with pytest.raises(SystemExit) as caught:
            run_app(app, [str(a) for a in arguments])
        return int(caught.value.code or 0)

    xml, out = save(anomalib_like()), tmp_path / "bundle"
    assert run("adopt", xml, "--out", out, "--golden", golden) == 0
    assert "threshold 0.5: as the model says" in capsys.readouterr().out
    assert run("verify", out) == 0
    assert "end at 0 and 1" in capsys.readouterr().out
    assert run("adopt", xml, "--out", out, "--golden", golden) == ConfigError.exit_code
    assert run("adopt", save(otx_like({})), "--out", tmp_path / "other") == ExportError.exit_code
    raw = (out / "manifest.json").read_bytes()
    assert msgspec.json.decode(raw)["clamped"] is True
