"""An export from end to end, on a small real detector; and what a refused one leaves behind."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import msgspec
import numpy as np
import openvino as ov
import pytest
from openvino import op, opset13

from edge_runtime.errors import ConfigError, DataError, NotAccepted, ParityError
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.predictor import OpenvinoPredictor
from export.build import build as builder
from export.build import convert
from export.build import features as features_module
from export.build.accept import PAINTED, Asked
from export.build.build import build
from export.build.int8 import Int8Maker
from export.build.options import BuildOptions
from export.build.outcome import BuildReport
from tests.support.graph_heads import head_constants, replace_head
from tests.support.shared_extractor import SharedExtractor
from training.calibrate.rules import Rule
from training.data.dataset import load_dataset
from training.data.facts import frame_of, load_frame
from training.fitting.recalibrate import recalibrate
from training.judging.asked import parse_accept
from training.judging.evaluate import evaluate_bundle
from training.runs import load_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # real fits and builds

LENIENT = 0.2
"""24 images of 64x64 pixels: quantization costs more here than on a real product, and these tests are not about how much."""


@pytest.fixture(scope="module")
def int8(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildReport:
    out = tmp_path_factory.mktemp("bundles") / "rings"
    return build(load_run(run_dir), out, None, BuildOptions("int8", onnx=True, zipped=True, band=LENIENT, budget=LENIENT))


def test_an_int8_bundle_holds_what_a_device_needs(int8: BuildReport, run_dir: Path) -> None:
    info = load_run(run_dir).info
    bundle = ModelBundle.open(int8.out)
    manifest = bundle.manifest
    assert (bundle.id, manifest.precision, manifest.method, manifest.input) == (int8.bundle_id, "int8", "padim", info.input)
    assert manifest.metrics.keys() == {"torch", "fp32", "int8"}
    assert manifest.metrics["torch"].image_auroc == pytest.approx(manifest.metrics["fp32"].image_auroc, abs=1e-9)
    assert manifest.metrics["int8"].n_bad == 6
    assert manifest.dataset == info.dataset
    assert len(manifest.golden) == 6
    assert manifest.threshold.value != info.threshold.value  # recalibrated on the refitted head
    assert {"openvino", "nncf", "torch", "lineside"} <= manifest.tools.keys()
    assert ModelBundle.open(int8.out.with_name("rings.zip")).id == int8.bundle_id
    assert sorted(p.name for p in int8.out.parent.iterdir()) == ["rings", "rings.zip"]


def test_the_int8_graph_is_quantized_and_its_head_is_not(int8: BuildReport) -> None:
    model = ov.Core().read_model(int8.out / "model.xml")
    assert sum(op.get_type_name() == "FakeQuantize" for op in model.get_ops()) > 20
    constants = head_constants(model)
    assert constants
    assert all(value.dtype in (np.float32, np.int64) for value in constants.values())


def test_the_head_was_refitted_on_the_quantized_features(int8: BuildReport, run_dir: Path) -> None:
    before = dict(load_run(run_dir).detector().head.named_buffers())
    after = head_constants(ov.Core().read_model(int8.out / "model.xml"))
    assert before.keys() == after.keys()
    assert any(not np.allclose(before[name].numpy(), value, rtol=1e-2) for name, value in after.items())


def test_the_devices_predictor_gives_the_recorded_scores(int8: BuildReport) -> None:
    bundle = ModelBundle.open(int8.out)
    with OpenvinoPredictor(bundle) as predictor:
        assert bundle.manifest.golden
        for golden in bundle.manifest.golden:
            found = predictor.predict(frame_of(bundle.directory / golden.image, bundle.manifest.input))
            assert found.score == pytest.approx(golden.score, rel=1e-5)
            assert float(found.score_map.max()) == pytest.approx(golden.map_peak, rel=1e-5)


def test_the_manifest_states_what_an_evaluation_of_the_bundle_finds(int8: BuildReport, data_dir: Path) -> None:
    bundle = ModelBundle.open(int8.out)
    found = evaluate_bundle(bundle, load_dataset(data_dir, spec=bundle.manifest.input)).metrics
    expected = bundle.manifest.metrics["int8"]
    assert msgspec.structs.asdict(found) == pytest.approx(msgspec.structs.asdict(expected), abs=1e-5)


def test_the_envelope_is_measured_on_the_very_graph_that_ships(int8: BuildReport) -> None:
    """8 good test images are too few, so the 24 that it was taught stand in, with their held-out scores."""
    manifest = ModelBundle.open(int8.out).manifest
    found = manifest.envelope
    assert found is not None and found == int8.envelope
    assert (found.basis, found.n_good, found.n_bad, found.held_out) == ("real", 32, 6, False)
    clean = found.rows[0]
    assert clean.what == "clean" and clean.holds and clean.image_auroc is not None
    assert clean.image_auroc == pytest.approx(manifest.metrics["int8"].image_auroc, abs=0.1)
    assert {r.what for r in found.rows} == {"clean", "light", "gamma", "blur", "shift", "turn", "noise", "jpeg"}
    assert not all(r.holds for r in found.rows), "a ring that lies 4 % off is another picture"
    assert 120 < found.brightness < 160 and found.sharpness > 0


def test_the_child_that_measures_the_envelope_imports_no_torch() -> None:
    code = "import sys, export.build.envelope; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_golden_samples_are_test_images_as_the_camera_gave_them(int8: BuildReport, data_dir: Path) -> None:
    spec = ModelBundle.open(int8.out).manifest.input
    frames = {load_frame(p, spec).tobytes() for p in data_dir.rglob("test/*/*.png")}
    golden = list((int8.out / "golden").iterdir())
    assert golden and all(load_frame(p, spec).tobytes() in frames for p in golden)


@pytest.mark.usefixtures("children_here")
def test_a_refused_export_leaves_nothing_behind(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = convert.stitch
    # A conversion that goes wrong: the head's largest parameter comes out 5 % too large.
    monkeypatch.setattr(convert, "stitch", lambda *parts: _distort(real(*parts)))
    with pytest.raises(ParityError, match="expected the FP32 graph to give torch's scores"):
        build(load_run(run_dir), tmp_path / "bundle", None, BuildOptions("fp32"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("children_here")
def test_a_quantization_that_went_wrong_does_not_pass_the_default_gate(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_module, "quantize_backbone", lambda backbone, *rest: _blind(backbone.clone()))
    with pytest.raises(ParityError, match="INT8 against FP32"):
        build(load_run(run_dir), tmp_path / "bundle", None, BuildOptions("int8"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("children_here")
def test_where_no_int8_passes_auto_builds_fp32_and_says_why_and_what_it_costs(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_module, "quantize_backbone", lambda backbone, *rest: _blind(backbone.clone()))
    report = build(load_run(run_dir), tmp_path / "bundle", None, BuildOptions(envelope=False))
    manifest = ModelBundle.open(report.out).manifest
    assert (manifest.precision, manifest.golden_tolerance, set(manifest.metrics)) == ("fp32", 1e-3, {"torch", "fp32"})
    assert report.flips is None
    refused, built, costs, *_ = report.notes
    assert "tried and not taken: INT8 against FP32" in refused and "built in FP32" in built
    assert "FP32" in costs and "INT8 throughout" in costs and "ms" in costs


@pytest.mark.usefixtures("children_here")
def test_layers_that_hurt_stay_float_and_the_manifest_names_them(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = features_module.quantize_backbone
    # Rounding takes the stem's weights away, unless some layers stay float.
    monkeypatch.setattr(features_module, "quantize_backbone", lambda *parts: real(*parts) if parts[4] else _coarse_stem(real(*parts)))
    report = build(load_run(run_dir), tmp_path / "bundle", None, BuildOptions(band=LENIENT, budget=LENIENT, envelope=False))
    manifest = ModelBundle.open(report.out).manifest
    assert (manifest.precision, manifest.golden_tolerance) == ("int8", 1e-2)
    assert manifest.params["floats"].startswith("convolutions 1-3")
    first, *others = _convolutions(report.out)
    assert not _is_quantized(first) and all(map(_is_quantized, others[-5:]))
    assert any("in float, which the gate passes" in note for note in report.notes)
    assert any("as built" in note and "INT8 throughout" in note for note in report.notes)


def _convolutions(bundle: Path) -> list[ov.Node]:
    ops = ov.Core().read_model(bundle / "model.xml").get_ordered_ops()
    return [node for node in ops if node.get_type_name() in ("Convolution", "GroupConvolution")][:33]


def _is_quantized(node: ov.Node) -> bool:
    return node.input_value(0).get_node().get_type_name() == "FakeQuantize"


def _coarse_stem(model: ov.Model) -> ov.Model:
    """A quantized model whose stem has lost its weights."""
    stem = next(node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution")
    stem.input(1).replace_source_output(opset13.multiply(stem.input_value(1), op.Constant(np.zeros(1, np.float32))).output(0))
    return model


def _blind(model: ov.Model) -> ov.Model:
    """All but one channel of the first layer lost, as wrong ranges would lose them."""
    stem = next(node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution")
    weights = np.zeros(list(stem.input_value(1).get_shape()), np.float32)
    weights[0] = 1e-3
    stem.input(1).replace_source_output(op.Constant(weights).output(0))
    return model


def _distort(model: object) -> object:
    values = head_constants(model)  # type: ignore[arg-type]
    name = max(values, key=lambda n: values[n].size)
    return replace_head(model, {name: values[name] * np.float32(1.05)})  # type: ignore[arg-type]


@pytest.mark.usefixtures("children_here")
def test_fp32_with_good_images_only_keeps_the_runs_threshold_and_says_what_was_not_gated(
    data_dir: Path, run_dir: Path, tmp_path: Path
) -> None:
    good = tmp_path / "good"
    (good / "train").mkdir(parents=True)
    shutil.copytree(data_dir / "train" / "good", good / "train" / "good")
    run = load_run(run_dir)
    report = build(run, tmp_path / "bundle", good, BuildOptions("fp32"))
    manifest = ModelBundle.open(report.out).manifest
    assert manifest.envelope is not None and manifest.envelope.basis == "painted"
    assert manifest.threshold == run.info.threshold
    assert manifest.metrics["fp32"].image_auroc is None
    assert manifest.metrics["fp32"].n_good == 24
    assert any("how well they tell good from bad was not" in note for note in report.notes)


def test_other_images_than_the_runs_are_refused(run_dir: Path, data_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(data_dir, other)
    cv2.imwrite(str(other / "train" / "good" / "000.png"), np.full((80, 80), 7, np.uint8))
    with pytest.raises(DataError, match=r"expected the 24 good images that the run was taught on .* found 24 in"):
        build(load_run(run_dir), tmp_path / "bundle", other, BuildOptions())
    with pytest.raises(DataError, match="nothing is now"):
        build(load_run(run_dir), tmp_path / "bundle", tmp_path / "gone", BuildOptions())
    assert [p.name for p in tmp_path.iterdir()] == ["other"]


def test_an_existing_bundle_is_not_replaced_without_force(int8: BuildReport, run_dir: Path) -> None:
    with pytest.raises(ConfigError, match="--force"):
        build(load_run(run_dir), int8.out, None, BuildOptions())
    assert ModelBundle.open(int8.out).id == int8.bundle_id


@pytest.mark.usefixtures("children_here")
def test_a_rule_that_rests_on_painted_defects_is_applied_to_the_int8_graph_too(
    run_dir: Path, extractor: SharedExtractor, tmp_path: Path
) -> None:
    run = recalibrate(load_run(Path(shutil.copytree(run_dir, tmp_path / "run"))), Rule(kind="max_f1", synthetic=10))
    report = build(run, tmp_path / "bundle", None, BuildOptions("int8", band=1.0, budget=1.0, envelope=False), extractor=extractor)
    assert ModelBundle.open(report.out).manifest.envelope is None
    threshold = ModelBundle.open(report.out).manifest.threshold
    assert (threshold.n_bad, threshold.n_synthetic) == (10, 10)
    assert threshold.value != run.info.threshold.value and "synthetic" in threshold.rule
    # Both are of the same painted images, by heads that did not see them plain: the two graphs differ a little only.
    assert threshold.value == pytest.approx(run.info.threshold.value, rel=0.2)


@pytest.mark.usefixtures("children_here")
def test_what_misses_more_than_is_asked_is_not_built_unless_by_force_and_then_says_so(run_dir: Path, tmp_path: Path) -> None:
    """Six bad parts cannot show 1 % at 99 % confidence, whatever they score."""
    asked = parse_accept("misses <= 1 %, rejects <= 50 %, confidence 99 %")
    with pytest.raises(
        NotAccepted, match=r"the FP32 model: not fit for release: misses \d of 6 bad parts .* which takes 459 bad parts .* --force"
    ) as e:
        build(load_run(run_dir), tmp_path / "bundle", None, BuildOptions("fp32", accept=Asked(asked), envelope=False))
    assert e.value.exit_code == 86
    assert list(tmp_path.iterdir()) == []
    report = build(load_run(run_dir), tmp_path / "bundle", None, BuildOptions("fp32", accept=Asked(asked, force=True), envelope=False))
    found = ModelBundle.open(report.out).manifest.acceptance
    assert found is not None and found == report.acceptance
    assert (found.state, found.forced, found.basis, found.n_bad, found.n_good) == ("failed", True, "real", 6, 32)
    assert report.told is not None
    assert (report.told.n_bad, report.told.missed, report.told.n_good) == (6, found.missed, 8)


@pytest.mark.usefixtures("children_here")
def test_what_fails_in_fp32_by_far_is_said_at_once_and_not_quantized(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(run_dir)
    threshold = msgspec.structs.replace(run.info.threshold, value=5 * float(max(run.held_out.scores.score)))
    run = dataclasses.replace(run, info=msgspec.structs.replace(run.info, threshold=threshold))
    quantized: list[str] = []
    monkeypatch.setattr(Int8Maker, "quantize", lambda *args: quantized.append("again"))
    said: list[str] = []
    options = BuildOptions(accept=Asked(parse_accept("misses <= 1 %")), envelope=False)
    with pytest.raises(NotAccepted, match="the FP32 model: not fit for release: misses"):
        build(run, tmp_path / "bundle", None, options, say=said.append)
    assert not quantized and any("already in FP32 it is not fit for release: misses" in text for text in said)


@pytest.mark.usefixtures("children_here")
def test_what_was_refused_is_packed_as_it_was_judged_where_all_it_is_made_of_is_the_same(
    run_dir: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data = (Path(shutil.copytree(of, tmp_path / name)) for of, name in ((run_dir, "run"), (data_dir, "data")))
    options = BuildOptions("fp32", accept=Asked(parse_accept("misses <= 1 %, confidence 99 %")), envelope=False)
    packed: list[BuildReport] = []
    said: list[str] = []
    with pytest.raises(NotAccepted):
        build(
            load_run(run), tmp_path / "a", data, options, refused=lambda _, report: packed.append(report), say=said.append, expected_s=600.0
        )
    assert said[0].startswith("10 to 15 min here at the pace of until now"), "the caller has seen how long teaching took"
    force = dataclasses.replace(options, force=True, accept=dataclasses.replace(options.accept, force=True))
    with monkeypatch.context() as m:
        m.setattr(builder, "_Export", None)
        report = build(load_run(run), tmp_path / "a", data, force)
        assert report.metrics == packed[0].metrics and report.tried == packed[0].tried and report.told == packed[0].told
        manifest = ModelBundle.open(tmp_path / "a").manifest
        assert manifest.acceptance == report.acceptance and report.acceptance is not None and report.acceptance.forced
        assert ModelBundle.open(tmp_path / "a").id == report.bundle_id != packed[0].bundle_id
        other = parse_accept("misses <= 2 %, confidence 99 %")
        with pytest.raises(TypeError):  # made anew: other options
            build(load_run(run), tmp_path / "b", data, dataclasses.replace(force, accept=Asked(other, force=True)))
        image = next((data / "test" / "good").iterdir())
        cv2.imwrite(str(image), 255 - cv2.imread(str(image), cv2.IMREAD_UNCHANGED))
        with pytest.raises(TypeError):  # made anew: another image
            build(load_run(run), tmp_path / "b", data, force)
    assert not (tmp_path / "b").exists()


@pytest.mark.usefixtures("children_here")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_without_bad_parts_painted_ones_judge(
    precision: str, run_dir: Path, data_dir: Path, extractor: SharedExtractor, tmp_path: Path
) -> None:
    """The same hundred for either precision, by heads that have not learnt what they are painted into."""
    good = tmp_path / "good"
    shutil.copytree(data_dir / "train" / "good", good / "train" / "good")
    asked = Asked(parse_accept("misses <= 99 %, rejects <= 50 %"))
    options = BuildOptions(precision, band=1.0, budget=1.0, accept=asked, envelope=False)
    report = build(load_run(run_dir), tmp_path / "bundle", good, options, extractor=extractor)
    found = ModelBundle.open(report.out).manifest.acceptance
    assert found is not None
    assert (found.state, found.basis, found.n_bad, found.n_good) == ("passed", "painted", PAINTED, 24)
    assert 0 <= found.missed < PAINTED, "some are plain to see"
    assert "painted bad parts" in found.sentence
    assert report.told is None


@pytest.mark.usefixtures("children_here")
def test_bad_parts_that_set_the_threshold_judge_it_one_by_one(
    run_dir: Path, data_dir: Path, extractor: SharedExtractor, tmp_path: Path
) -> None:
    good = tmp_path / "good"
    shutil.copytree(data_dir / "train" / "good", good / "train" / "good")
    run = load_run(Path(shutil.copytree(run_dir, tmp_path / "run")))
    run = recalibrate(run, Rule(kind="gap", bad=str(data_dir / "test" / "scratch")), good)
    options = BuildOptions("int8", band=1.0, budget=1.0, accept=Asked(parse_accept("misses <= 99 %")), envelope=False)
    found = build(run, tmp_path / "bundle", good, options, extractor=extractor).acceptance
    assert found is not None
    assert (found.basis, found.n_bad) == ("real", 6)
    assert "each is judged by the one that the others set" in found.sentence
