"""`lineside-train`, whole: its help is quick, and each of its verbs is there without an upward import or another program."""

import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("verb", ["release", "compare"])
def test_without_what_teaching_needs_a_verb_says_how_to_install_it(verb: str, tmp_path: Path) -> None:
    done = lineside_train(verb, str(tmp_path), "--out", str(tmp_path / "b"), block=("torch",))
    assert done.returncode == 83 and "lineside[train]" in done.stderr, done.stderr
