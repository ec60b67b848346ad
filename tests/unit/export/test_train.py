"""`lineside-train`, whole: its help is quick, and each of its verbs is there without an upward import or another program."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.commands.options import OWN_METHODS
from training.methods.table import METHODS

ROOT = Path(__file__).resolve().parents[3]


def lineside_train(*words: str, block: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """In a process of its own; `block` makes packages look as if they were not installed."""
    code = f"import sys; sys.modules.update(dict.fromkeys({block!r})); from export.train import main; main()"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *words], capture_output=True, text=True, timeout=300, cwd=ROOT, check=False
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), ("fit", "calibrate", "inspect", "evaluate", "report", "distil", "release", "compare")),
        (("release",), ("--accept", "--brightness", "--leave-out")),
        (("compare",), ("--methods", "--budget-ms", "--minutes")),
        (("fit",), ("--method", "--conformal")),
    ],
)
def test_help_needs_nothing_that_takes_long_to_load(words: tuple[str, ...], told: tuple[str, ...]) -> None:
    done = lineside_train(*words, "--help", block=("torch", "openvino", "nncf", "timm", "sklearn", "scipy"))
    assert (done.returncode, done.stderr) == (0, "")
    assert all(word in done.stdout for word in told), done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["fit", "release"])
def test_what_is_wrong_with_paths_labels_and_pictures_is_told_before_anything_heavy_is_loaded(verb: str, tmp_path: Path) -> None:
    """Whatever loads torch here fails."""
    heavy, data, out = tmp_path / "heavy", tmp_path / "parts", tmp_path / "out" / "b"
    heavy.mkdir()
    for name in ("torch", "timm", "openvino"):
        (heavy / f"{name}.py").write_text(f"raise RuntimeError('{name} was loaded')")
    code = f"import sys; sys.path.insert(0, {str(heavy)!r}); from export.train import main; main()"

    def told(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-c", code, verb, str(data), "--out", str(out), *words], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert not out.parent.exists() or out.exists()
        return done.returncode, done.stderr

    code_, said = told()
    assert code_ == 66 and "found nothing at" in said, said
    data.mkdir()
    for i in range(20):
        cv2.imwrite(str(data / f"{i}.png"), np.random.default_rng(i).integers(0, 200, (40, 48), dtype=np.uint8))
    code_, said = told("--method", "magic")
    assert code_ == 78 and "one of padim" in said, said
    (data / "7.png").write_bytes((data / "7.png").read_bytes()[:200])
    code_, said = told()
    assert code_ == 66 and "7.png" in said, said
    (data / "7.png").unlink()
    (data / "labels.csv").write_text("file,label\n" + "".join(f"{i}.png,{'good' if i < 3 else 'bad'}\n" for i in range(20) if i != 7))
    code_, said = told()
    assert code_ == 66 and "are the two words swapped" in said, said
    (data / "labels.csv").unlink()
    out.mkdir(parents=True)
    code_, said = told()
    assert code_ == 78 and "exists already" in said, said


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["fit", "release", "compare"])
def test_too_few_pictures_are_told_before_anything_heavy_is_loaded(verb: str, tmp_path: Path) -> None:
    """Whatever loads torch here fails. Seven, and seven of which one is there twice."""
    heavy, data = tmp_path / "heavy", tmp_path / "parts"
    heavy.mkdir()
    data.mkdir()
    for name in ("torch", "timm", "openvino"):
        (heavy / f"{name}.py").write_text(f"raise RuntimeError('{name} was loaded')")
    code = f"import sys; sys.path.insert(0, {str(heavy)!r}); from export.train import main; main()"
    for i in range(7):
        cv2.imwrite(str(data / f"{i}.png"), np.random.default_rng(i).integers(0, 200, (40, 48), dtype=np.uint8))
    for found in ("to learn from, found 7 in", "that differ, found 8 images, 7 different pictures"):
        done = subprocess.run(
            [sys.executable, "-c", code, verb, str(data), "--out", str(tmp_path / "b")],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        assert done.returncode == 66 and "expected at least 8 good images" in done.stderr and found in done.stderr, done.stderr
        (data / "again.png").write_bytes((data / "0.png").read_bytes())


def test_methods_that_a_command_line_knows_are_those_that_can_be_taught() -> None:
    assert {name: m.least_images for name, m in METHODS.items()} == OWN_METHODS


@pytest.mark.parametrize("verb", ["release", "compare"])
def test_without_what_teaching_needs_a_verb_says_how_to_install_it(verb: str, tmp_path: Path) -> None:
    done = lineside_train(verb, str(tmp_path), "--out", str(tmp_path / "b"), block=("torch",))
    assert done.returncode == 83 and "lineside[train]" in done.stderr, done.stderr
