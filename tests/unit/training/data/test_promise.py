"""What too few, too equal or empty pictures cannot promise is said, and what can is let through."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from edge_runtime.errors import DataError
from training.data.dataset import load_dataset
from training.data.promise import UNMEASURED, refuse_alike
from training.inspect.inspect import inspect_data, show


def _images(folder: Path, n: int, level: int, noise: float, seed: int = 0) -> None:
    folder.mkdir(parents=True)
    for i in range(n):
        picture = np.random.default_rng(seed + i).normal(level, noise, (64, 64)).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), picture)


def _said(path: Path) -> str:
    written = io.StringIO()
    show(inspect_data(path).summary, Console(file=written, width=300, highlight=False, markup=False))
    return written.getvalue()


def test_copies_of_a_few_pictures_carry_no_threshold() -> None:
    refuse_alike([str(i) for i in range(8)])
    refuse_alike(["a", "b", "c"])  # too few, which is told elsewhere
    with pytest.raises(DataError, match="at least 8 good images that differ, found 2 among 40"):
        refuse_alike(["a"] * 39 + ["b"])


@pytest.mark.parametrize(("level", "word"), [(0, "black"), (255, "white"), (120, "of one gray")])
def test_pictures_that_show_nothing_are_named(tmp_path: Path, level: int, word: str) -> None:
    _images(tmp_path / "good", 10, level, 1.0)
    notes = load_dataset(tmp_path).notes
    assert any("show next to nothing" in n and f"all {word}:" in n for n in notes)
    assert "nothing wrong" not in _said(tmp_path)


def test_a_test_split_without_one_of_both_is_not_nothing_wrong(tmp_path: Path) -> None:
    _images(tmp_path / "train/good", 10, 120, 40.0)
    _images(tmp_path / "test/good", 3, 120, 40.0, 50)
    assert any("no bad image" in n and UNMEASURED in n for n in load_dataset(tmp_path).notes)
    assert "no bad image" in _said(tmp_path) and "nothing wrong" not in _said(tmp_path)
    _images(tmp_path / "test/hole", 3, 60, 40.0, 70)
    assert not any(UNMEASURED in n for n in load_dataset(tmp_path).notes) and "nothing wrong" in _said(tmp_path)
