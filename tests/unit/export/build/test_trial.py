"""`lineside-export build --json`: a program learns every precision that was tried, whether or not a bundle came of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import op

from edge_runtime.console import run_app
from edge_runtime.model.bundle import ModelBundle
from export.build import features as features_module
from export.cli import app

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("children_here")]


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding loses all but one channel of the first layer."""

    def quantize(backbone: ov.Model, *rest: Any) -> ov.Model:
        model = backbone.clone()
        stem = next(node for node in model.get_ordered_ops() if node.get_type_name() == "Convolution")
        weights = np.zeros(list(stem.input_value(1).get_shape()), np.float32)
        weights[0] = 1e-3
        stem.input(1).replace_source_output(op.Constant(weights).output(0))
        return model

    monkeypatch.setattr(features_module, "quantize_backbone", quantize)


def _build(run: Path, out: Path, more: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any], str]:
    with pytest.raises(SystemExit) as ended:
        run_app(app, ["build", str(run), "--out", str(out), "--json", "--no-envelope", *more])
    said, err = capsys.readouterr()
    return int(ended.value.code or 0), json.loads(said), err


@pytest.mark.usefixtures("blind")
def test_what_the_gate_refuses_is_told_whole_before_the_command_ends_with_its_code(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found, err = _build(run_dir, tmp_path / "bundle", ["--precision", "int8"], capsys)
    assert (code, found["exit_code"], found["bundle_id"], found["precision"]) == (81, 81, None, None)
    assert found["refused"].startswith("parity, INT8 against FP32") and found["refused"] in err
    fp32, int8 = found["tried"]
    assert (fp32["precision"], fp32["refused"], int8["precision"], int8["refused"]) == ("fp32", None, "int8", found["refused"])
    assert not fp32["taken"] and not int8["taken"] and fp32["latency_ms"] > 0 and int8["latency_ms"] > 0
    assert fp32["gains"] is None and int8["losses"] is not None
    for trial in (fp32, int8):
        assert trial["metrics"]["image_auroc"] is not None and trial["threshold"]["value"] > 0
        assert len(trial["images"]) == 38
        wrong = [(i["label"], i["verdict"]) for i in trial["images"] if not i["right"] and i["split"] == "test"]
        assert (wrong.count(("bad", "ACCEPT")), wrong.count(("good", "REJECT"))) == (trial["missed"], trial["rejected"])
    before, after = ({i["path"]: i["verdict"] for i in t["images"]} for t in (fp32, int8))
    turned = {Path(p).name for p in before if before[p] != after[p]}
    assert turned == {Path(f["image"]).name for f in int8["losses"] + int8["gains"]}
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("blind")
def test_what_was_passed_over_stands_beside_what_was_taken(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found, _ = _build(run_dir, tmp_path / "bundle", ["--force"], capsys)
    assert (code, found["refused"], found["precision"]) == (0, None, "fp32")
    assert found["bundle_id"] == ModelBundle.open(tmp_path / "bundle").id
    assert [t["precision"] for t in found["tried"] if t["taken"]] == ["fp32"]
    assert next(t["precision"] for t in found["tried"] if t["refused"]) == "int8"


def test_what_is_not_fit_for_release_is_told_with_the_model_that_would_have_shipped(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six bad parts cannot show 1 % at 99 % confidence, whatever they score."""
    asked = ["--precision", "fp32", "--accept", "misses <= 1 %, rejects <= 50 %, confidence 99 %"]
    code, found, _ = _build(run_dir, tmp_path / "bundle", asked, capsys)
    assert (code, found["exit_code"], found["precision"], found["bundle_id"]) == (86, 86, "fp32", None)
    assert found["acceptance"]["state"] == "failed" and "not fit for release" in found["refused"]
    (fp32,) = found["tried"]
    assert fp32["taken"] and fp32["missed"] == found["acceptance"]["missed"]


def test_a_users_mistake_is_a_sentence_and_no_object(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(SystemExit) as ended:
        run_app(app, ["build", str(run_dir), "--out", str(tmp_path / "bundle"), "--json"])
    said, err = capsys.readouterr()
    assert ended.value.code == 78 and said == "" and "exists already" in err
