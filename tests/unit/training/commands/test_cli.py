"""`lineside-train` as a user meets it: exit codes, one message, one JSON object."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.console import run_app
from edge_runtime.errors import DataError
from training.commands.cli import app

KEYS = ["image_auroc", "image_ap", "f1", "false_reject_rate", "false_accept_rate", "pixel_auroc", "aupro", "threshold", "n_good", "n_bad"]


def here(*args: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """In this process: loading torch once is enough. (exit code, stdout, stderr)"""
    with pytest.raises(SystemExit) as e:
        run_app(app, [str(a) for a in args])
    out, err = capsys.readouterr()
    return int(e.value.code or 0), out, err


def lineside_train(*args: object, block: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """In its own process; `block` makes packages look as if they were not installed."""
    code = f"import sys; sys.modules.update(dict.fromkeys({block!r})); from training.commands.cli import main; main()"
    root = Path(__file__).resolve().parents[4]
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, args)], capture_output=True, text=True, timeout=300, cwd=root
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for folder, seeds in (("train/good", range(10)), ("test/good", range(20, 23)), ("test/hole", range(30, 33))):
        (root / folder).mkdir(parents=True)
        for seed in seeds:
            image = cv2.GaussianBlur(np.random.default_rng(seed).normal(120, 40, (64, 64)).astype(np.float32), (0, 0), 2)
            if "hole" in folder:
                image[20:40, 20:40] = 0
                (root / "ground_truth/hole").mkdir(parents=True, exist_ok=True)
                mask = np.zeros((64, 64), np.uint8)
                mask[20:40, 20:40] = 255
                cv2.imwrite(str(root / "ground_truth/hole" / f"{seed}_mask.png"), mask)
            cv2.imwrite(str(root / folder / f"{seed}.png"), image.clip(0, 255).astype(np.uint8))
    (root / "none").mkdir()
    (root / "one").mkdir()
    (root / "one" / "0.png").write_bytes((root / "train/good/0.png").read_bytes())
    (root / "broken").mkdir()
    (root / "broken" / "run.json").write_text("{bad")
    return root


@pytest.mark.slow
def test_fit_calibrate_evaluate(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    code, out, err = here("fit", data, "--method", "padim", "--out", run, "--image-size", 64, "--set", "top_k=1", capsys=capsys)
    assert code == 0, err
    assert "memory" in err and "95 % confidence from 10 good images" in err and out == ""
    assert json.loads((run / "run.json").read_text())["params"]["top_k"] == 1
    assert re.search(r"^test split: rejects \d of 3 good \(\d+ %\), misses \d of 3 bad \(\d+ %\)$", err, re.MULTILINE), "plain into a pipe"

    code, _, err = here("fit", data, "--method", "padim", "--out", run, capsys=capsys)
    assert code == 78 and "--force" in err

    code, _, err = here("calibrate", run, "--max-f1", "--from-test", capsys=capsys)
    assert code == 0 and "test split" in err

    # In its own process, with warnings as errors: whatever a library prints would show here.
    evaluated = lineside_train("evaluate", run, data, "--json")
    assert evaluated.returncode == 0, evaluated.stderr
    figures = json.loads(evaluated.stdout)
    assert list(figures) == [*KEYS, "kinds", "images", "notes"] and evaluated.stdout.count("\n") == 1
    rows = figures["images"]
    assert len(rows) == 6 and sum(r["label"] == "good" for r in rows) == 3 and all(Path(r["path"]).is_file() for r in rows)
    for row in rows:
        assert row["verdict"] == ("REJECT" if row["score"] > figures["threshold"] else "ACCEPT")
        assert row["right"] == ((row["verdict"] == "REJECT") == (row["label"] == "bad")) and row["split"] == "test"
    missed = sum(not r["right"] for r in rows if r["label"] == "bad")
    assert [(k["kind"], k["images"], k["missed"]) for k in figures["kinds"]] == [("hole", 3, missed)]
    table = tmp_path / "rows.csv"
    code, _, err = here("evaluate", run, data, "--csv", table, capsys=capsys)
    assert code == 0 and f"wrote {table}" in err, err
    with table.open(newline="") as f:
        written = list(csv.DictReader(f))
    assert [(r["path"], float(r["score"]), r["kind"]) for r in written] == [(r["path"], r["score"], r["kind"]) for r in rows]
    assert (figures["n_good"], figures["n_bad"], figures["image_auroc"]) == (3, 3, 1.0)
    assert figures["pixel_auroc"] > 0.5 and "flatter" in evaluated.stderr

    code, out, err = here("evaluate", run, data / "train" / "good", capsys=capsys)
    assert code == 0 and "10 of 10 good images were taught on" in err and "misses – (no bad images)" in out

    # Also where only some of them are there, under other names.
    few = tmp_path / "few"
    few.mkdir()
    for i, path in enumerate(sorted((data / "train" / "good").iterdir())[:3]):
        shutil.copy(path, few / f"x{i}.png")
    code, out, err = here("evaluate", run, few, capsys=capsys)
    assert code == 0 and "3 of 3 good images were taught on" in err

    code, _, err = here("calibrate", run, "--recall", 0.9, "--bad", few, capsys=capsys)
    assert code == 66 and "3 of the bad images" in err and "are good ones that padim was taught on" in err

    code, _, err = here("calibrate", run, "--gap", "--false-reject-rate", 0.2, "--bad", data / "test" / "hole", capsys=capsys)
    assert code == 0 and "gap between good and bad images" in err and "of 3 bad images" in err and "false-reject rate of 20 %" in err
    assert json.loads((run / "run.json").read_text())["rule"]["kind"] == "gap"

    code, _, err = here("calibrate", run, "--false-reject-rate", 0.01, capsys=capsys)
    assert code == 82 and "24 good images" in err


@pytest.mark.slow
def test_a_fit_without_a_method_says_how_parts_lie_and_takes_what_follows(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = here("fit", data, "--out", tmp_path / "run", capsys=capsys)
    assert code == 0, err
    assert "parts lie anyhow (" in err and "padim shared" in err  # every drawn part is another texture
    taught = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (taught["method"], taught["preset"], taught["input"]["height"], taught["input"]["width"]) == ("padim", "shared", 256, 256)
    assert "input 256x256" in err and "ms of model time" in err
    inspected = here("inspect", data, capsys=capsys)[1]
    assert "parts lie anyhow (" in inspected and "padim shared" in inspected


@pytest.mark.slow
def test_without_torch_one_line_names_the_extra(data: Path, tmp_path: Path) -> None:
    result = lineside_train("fit", data, "--method", "padim", "--out", tmp_path / "run", block=("torch",))
    assert result.returncode == 83
    assert result.stderr.strip().count("\n") == 0 and "pip install 'lineside[train]'" in result.stderr
    assert lineside_train("--help", block=("torch", "timm", "sklearn", "scipy", "safetensors")).returncode == 0


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("fit", "{data}/absent", "--method", "padim", "--out", "{tmp}/r"), 66, "absent"),
        (("fit", "{data}", "--method", "magic", "--out", "{tmp}/r"), 78, "padim"),
        (("fit", "{data}", "--method", "padim", "--out", "{tmp}/r", "--roi", "1,2,3"), 78, "X,Y,W,H"),
        (("fit", "{data}", "--method", "padim", "--out", "{tmp}/r", "--roi", "0,0,65,64"), 78, "64x64"),
        (("fit", "{data}", "--method", "padim", "--out", "{tmp}/r", "--set", "top_k"), 78, "key=value"),
        (("fit", "{data}", "--method", "padim", "--out", "{tmp}/r", "--false-reject-rate", "0.001"), 82, "249"),
        *(
            ((*verb, option, value), 78, f"{option}: expected a ")
            for option, values, verb in (
                (
                    "--false-reject-rate",
                    ("nan", "2", "-1", "0", "1%", "1,5", "a"),
                    ("fit", "{data}", "--method", "padim", "--out", "{tmp}/r"),
                ),
                ("--minutes", ("nan", "inf", "0"), ("fit", "{data}", "--method", "fcdd", "--out", "{tmp}/r")),
                ("--budget-ms", ("nan", "-5"), ("fit", "{data}", "--out", "{tmp}/r")),
                ("--recall", ("1.5", "nan", "95%"), ("calibrate", "{tmp}")),
                ("--cost-ratio", ("0", "inf"), ("calibrate", "{tmp}")),
                ("--defect-rate", ("1", "-0.1"), ("calibrate", "{tmp}", "--cost-ratio", "5")),
                ("--threshold", ("nan", "0", "1e50"), ("report", "{tmp}", "{data}", "--out", "{tmp}/r.html")),
            )
            for value in values
        ),
        (("fit", "{data}", "--method", "padim", "--out", "/proc/nowhere/r"), 78, "expected a place that can be written, found /proc"),
        (("report", "{tmp}", "{data}", "--out", "/proc/r.html"), 78, "expected a place that can be written, found /proc"),
        (("inspect", "{data}", "--out", "/proc/r.png"), 78, "expected a place that can be written, found /proc"),
        (("fit", "{data}", "--method", "padim", "--out", "{tmp}/r", "--image-size", "255x"), 78, "'255x'"),
        (("fit", "{data}/none", "--method", "padim", "--out", "{tmp}/a/b"), 66, "expected images"),
        (("fit", "{data}/one", "--method", "padim", "--out", "{tmp}/a/b", "--image-size", "64"), 66, "at least 8 good images"),
        (("fit", "{data}", "--method", "padim", "--out", "{data}/one/0.png/r"), 78, "0.png, which is a file"),
        (("fit", "{data}", "--method", "padim", "--out", "{tmp}/r", "--seed", "-1"), 2, "--seed"),
        (
            ("fit", "{data}", "--method", "padim", "--out", "{tmp}/r", "--bad", "{data}/one", "--allow-duplicates"),
            82,
            "at least 3 bad",
        ),
        (("fit", "{data}", "--method", "padim", "--out", "{tmp}/r", "--weights", "{data}/one/0.png"), 66, "0.png cannot be read"),
        (("calibrate", "{data}/broken", "--false-reject-rate", "0.1"), 66, "run.json: is not valid JSON"),
        (("calibrate", "{tmp}", "--false-reject-rate", "0.1", "--masks", "{data}"), 78, "--bad"),
        (("evaluate", "{data}/broken", "{data}"), 66, "run.json: is not valid JSON"),
        (("fit", "{data}", "--method", "padim"), 2, "--out"),
        (("evaluate", "{tmp}", "{data}"), 65, "manifest.json"),
        (("calibrate", "{tmp}", "--max-f1"), 78, "--bad"),
        (("calibrate", "{tmp}", "--from-test"), 78, "exactly one"),
        (("calibrate", "{tmp}", "--false-reject-rate", "0.1"), 66, "run.json"),
    ],
)
def test_a_mistake_is_one_message_and_an_exit_code(
    data: Path, tmp_path: Path, args: tuple[str, ...], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out, err = here(*(a.format(data=data, tmp=tmp_path) for a in args), capsys=capsys)
    assert found == code, err
    assert message in err and "Traceback" not in err and out == ""
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        run_app(app, ["calibrate", str(tmp_path), "--false-reject-rate", "0.1", "--debug"])


@pytest.mark.slow
def test_padim_tells_defective_solar_cells_from_good_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elpv = pytest.importorskip("elpv_dataset.utils")
    images, probabilities, types = elpv.load_dataset()
    mono = np.flatnonzero(types == "mono")
    order = np.random.default_rng(0).permutation(mono)
    good, bad = order[probabilities[order] == 0][:120], order[probabilities[order] == 1][:40]
    for folder, rows in (("train/good", good[:80]), ("test/good", good[80:]), ("test/defective", bad)):
        (tmp_path / "d" / folder).mkdir(parents=True)
        for row in rows:
            cv2.imwrite(str(tmp_path / "d" / folder / f"{row}.png"), images[row])
    code, _, err = here("fit", tmp_path / "d", "--method", "padim", "--out", tmp_path / "run", capsys=capsys)
    assert code == 0, err
    figures = json.loads(here("evaluate", tmp_path / "run", tmp_path / "d", "--json", capsys=capsys)[1])
    assert figures["image_auroc"] > 0.93 and figures["false_reject_rate"] < 0.08 and figures["pixel_auroc"] is None
