"""What a user can get wrong with data, options and checkpoints: each is one message and an exit code, and nothing is left half-written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from edge_runtime.console import run_app
from tests.unit.training.commands.test_cli import here

SIDE = 64
N_GOOD = 12
FIT = ("fit", "{data}", "--method", "{method}", "--image-size", "64", "--out", "{out}/run")


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def part(seed: int, bad: bool = False) -> np.ndarray:
    image = cv2.GaussianBlur(np.random.default_rng(seed).normal(120, 40, (SIDE, SIDE)).astype(np.float32), (0, 0), 2)
    if bad:
        image[20:40, 20:40] = 0
    return image.clip(0, 255).astype(np.uint8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """MVTec's layout: 12 good to learn from, 3 good and 6 bad with masks to test on."""
    root = tmp_path / "data"
    for seed in range(N_GOOD):
        write(root / "train/good" / f"{seed}.png", part(seed))
    for seed in range(20, 23):
        write(root / "test/good" / f"{seed}.png", part(seed))
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[20:40, 20:40] = 255
    for seed in range(30, 36):
        write(root / "test/hole" / f"{seed}.png", part(seed, bad=True))
        write(root / "ground_truth/hole" / f"{seed}_mask.png", mask)
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where results go; must stay empty when there are none."""
    place = tmp_path / "out"
    place.mkdir()
    return place


def shrink_masks(data: Path) -> Path:
    for mask in (data / "ground_truth/hole").iterdir():
        cv2.imwrite(str(mask), np.full((50, 50), 255, np.uint8))
    return data


def rename_masks(data: Path) -> Path:
    for mask in (data / "ground_truth/hole").iterdir():
        mask.rename(mask.with_name(f"other{mask.name}"))
    return data


def mix_sizes(data: Path) -> Path:
    cv2.imwrite(str(data / "train/good/1.png"), np.full((70, 90), 128, np.uint8))
    return data


def table(data: Path, *rows: str, header: str = "path,label,mask,split") -> Path:
    good = [f"data/train/good/{i}.png,good,,train" for i in range(N_GOOD)]
    path = data.parent / "table.csv"
    path.write_text("\n".join([header, *(good if header.startswith("path,label") and rows != ("",) else []), *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("spoil", "args", "message"),
    [
        (shrink_masks, (), "30_mask.png: expected the size of its image, 64x64, found 50x50"),
        (rename_masks, (), "6 masks fit no image (the first: other30_mask.png) and 6 images have no mask (the first: 30.png)"),
        (lambda d: table(d, "data/test/good/20.png,,,test"), (), "table.csv line 14: data/test/good/20.png has no label"),
        (lambda d: table(d, "data/train/good/0.png,train", header="path,split"), (), "found path,split: label is missing"),
        (lambda d: table(d, ""), (), "table.csv: expected a row for each image below the header, found none"),
        (mix_sizes, ("--tile-size", "40x40"), "tile size: the images differ in size, so it says no number of tiles; give --tiles"),
        (lambda d: table(d, ""), ("--tile-size", "40x40"), "table.csv: expected a row for each image below the header, found none"),
        (lambda d: table(d, "gone.png,good,,train"), ("--tile-size", "40x40"), "table.csv line 14: expected an image at"),
    ],
)
def test_data_that_contradict_themselves_are_refused(
    data: Path, out: Path, spoil: Callable[[Path], Path], args: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt = spoil(data)
    code, said, err = here(*(a.format(data=spoilt, method="padim", out=out) for a in FIT), *args, capsys=capsys)
    assert code == (78 if spoil is mix_sizes else 66) and message in err and "Traceback" not in err and said == ""
    assert not list(out.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "args", "code", "message"),
    [
        ("efficientad", (), 66, "expected at least 16 good images to learn from, found 12 beside"),
        ("devnet", (), 66, "devnet: needs at least 5 bad images to learn from, found none; give them with --bad FOLDER"),
        ("devnet", ("--bad", "{data}/three"), 66, "bad: expected at least 5 images to learn from, found 3"),
        ("fcdd", ("--bad", "{data}/test/hole", "--masks", "{data}/train/good"), 66, "expected files such as 30_mask.png in"),
        ("padim", ("--masks", "{data}/ground_truth/hole"), 78, "masks: they belong to the images of --bad, which is not given"),
        ("padim", ("--synthetic", "5"), 78, "synthetic: padim learns from good images only"),
        ("padim", ("--resume",), 78, "padim: is computed, not learnt by steps"),
        ("fastflow", ("--resume",), 66, "resume: expected a checkpoint at"),
        ("padim", ("--weights", "{data}/head.safetensors"), 66, "head.safetensors: do not fit tf_efficientnet_lite0: lacks"),
        ("stfpm", ("--weights", "{data}/head.safetensors", "--augment", "shift=0"), 78, "augment: expected at least one of shift"),
        ("padim", ("--budget-ms", "5"), 78, "--budget-ms only counts together with --image-size auto or --method compare"),
        ("auto", ("--synthetic", "5"), 78, "synthetic: --synthetic counts for one method"),
        ("auto", ("--set", "top_k=2"), 78, "set: --set counts for one method"),
        ("auto", ("--resume",), 78, "resume: --resume counts for one method"),
        ("auto", ("--preset", "fine"), 78, "preset: --method auto chooses the preset, found 'fine'"),
        ("compare", ("--set", "top_k=2"), 78, "set: --set counts for one method; leave it out, or name the method, not compare"),
        ("auto", ("--masks", "{data}/ground_truth/hole"), 78, "masks: they belong to the images of --bad"),
        ("auto", ("--augment", "tilt=3"), 78, "augment: expected shift"),
    ],
)
def test_a_method_says_what_it_needs_before_it_begins(
    data: Path, out: Path, method: str, args: tuple[str, ...], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(30, 33):
        write(data / "three" / f"{seed}.png", part(seed, bad=True))
    save_file({"mean": torch.zeros(3)}, data / "head.safetensors")
    found, said, err = here(*(a.format(data=data, method=method, out=out) for a in (*FIT, *args)), capsys=capsys)
    assert found == code and message in err and "Traceback" not in err and said == ""
    assert not list(out.iterdir())


@pytest.mark.slow
def test_a_checkpoint_of_something_else_is_refused_and_the_run_stays_as_it_was(
    data: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def again(method: str, *args: object) -> tuple[int, str]:
        code, _, err = here(*(a.format(data=data, method=method, out=out) for a in FIT), *args, capsys=capsys)
        return code, err

    assert again("fastflow", "--minutes", 0.01)[0] == 0
    checkpoint = out / "run" / "checkpoint.safetensors"
    before = {p.name: p.read_bytes() for p in (out / "run").iterdir()}
    for args, message in (
        (("fcdd", "--resume"), "expected a fit with method 'fcdd', found one with 'fastflow'"),
        (("fastflow", "--resume", "--seed", 3), "expected a fit with seed 3, found one with 0"),
        (("fastflow", "--resume", "--image-size", 96), "expected a fit with input height 96, found one with 64"),
    ):
        code, err = again(*args)
        assert code == 66 and f"{message}; leave out --resume to begin anew" in err, err
        assert {p.name: p.read_bytes() for p in (out / "run").iterdir()} == before and len(list(out.iterdir())) == 1
    with safe_open(checkpoint, framework="pt") as file:
        notes, tensors = file.metadata(), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    for spoilt, spoilt_notes in (({"x": torch.zeros(3)}, {}), ({k: v.flatten()[:1] for k, v in tensors.items()}, notes)):
        save_file(spoilt, checkpoint, metadata=spoilt_notes)
        code, err = again("fastflow", "--resume")
        assert code == 66 and "version of Lineside; leave out --resume to begin anew" in err, err
        assert [p.name for p in out.iterdir()] == ["run"]


@pytest.mark.slow
def test_a_threshold_needs_the_class_that_its_rule_is_about(data: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = data / "test" / "hole"
    fit = [a.format(data=data, method="fcdd", out=out) for a in FIT]
    assert here(*fit, "--minutes", 0.01, "--bad", bad, capsys=capsys)[0] == 0
    before = (out / "run" / "run.json").read_bytes()
    only_good = data.parent / "only_good"
    shutil.copytree(data / "test" / "good", only_good / "test" / "good")
    for args, message in (
        (("--max-f1", "--bad", bad), "fcdd has learnt from all 6 bad images that were given; a threshold needs others"),
        (("--max-f1", "--from-test"), "fcdd has learnt from all 6 bad images that were given; a threshold needs others"),
        (("--recall", 0.9, "--from-test", "--data", only_good), "expected a test split with good and bad images"),
    ):
        code, _, err = here("calibrate", out / "run", *args, capsys=capsys)
        assert code == 66 and message in err, err
    assert (out / "run" / "run.json").read_bytes() == before
    assert json.loads(before)["threshold"]["n_bad"] == 0


@pytest.mark.slow
def test_bad_images_that_a_table_sets_apart_are_learnt_from_and_never_counted_by_an_export(
    data: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from edge_runtime.model.bundle import ModelBundle
    from export.build.build import build
    from export.build.options import BuildOptions
    from training.runs import load_run

    rows = [f"data/test/hole/{i}.png,hole,data/ground_truth/hole/{i}_mask.png,bad" for i in range(30, 36)]
    labels = table(data, *rows)
    assert here(*(a.format(data=labels, method="fcdd", out=out) for a in FIT), "--minutes", 0.01, capsys=capsys)[0] == 0
    report = build(load_run(out / "run"), out / "bundle", None, BuildOptions("fp32", envelope=False))
    manifest = ModelBundle.open(report.out).manifest
    assert len(manifest.dataset.bad_sha256) == 6 and manifest.metrics["fp32"].n_bad == 0


@pytest.mark.slow
@pytest.mark.parametrize("budget_ms", [0.01, 60_000])
def test_compare_takes_a_method_within_the_budget_or_the_fastest_and_says_so(
    data: Path, out: Path, budget_ms: float, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from export.choose import candidates, compare
    from export.train import app

    # All methods would take minutes, and so would what INT8 does to this one.
    monkeypatch.setattr(compare, "fast_methods", lambda dataset: ["padim"])
    monkeypatch.setattr(candidates, "quantize_backbone", lambda backbone, *rest: backbone.clone())
    with pytest.raises(SystemExit) as e:
        run_app(app, [*(a.format(data=data, method="compare", out=out) for a in FIT), "--budget-ms", str(budget_ms)])
    err = capfd.readouterr().err
    assert (e.value.code or 0) == 0, err
    assert "taking padim (fast), chosen by" in err and "synthetic defects painted into them" in " ".join(err.split())
    assert ("nothing fits 0.01 ms here; fastest is padim/fast" in " ".join(err.split())) == (budget_ms < 1)
    assert json.loads((out / "run" / "run.json").read_text())["method"] == "padim"
