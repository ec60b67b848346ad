"""A test split whose good and bad are swapped is asked about before anything is taught, and one that is right is not."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.errors import DataError
from training.data.layout import Sample
from training.inspect.inspect import inspect_data
from training.inspect.precheck import precheck
from training.inspect.swapped import FEW, doubtful, say_few_good, say_swapped


def many(seeds: range, bad: bool = False, light: float = 1.0) -> np.ndarray:
    """Plates with a bar; bad ones have a dark spot somewhere."""
    found = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        image = np.full((32, 32), 60.0)
        image[9:23, 6:26] = 170
        if bad:
            y, x = rng.integers(10, 20, 2)
            image[y : y + 2, x : x + 3] = 90
        found.append(light * image + rng.normal(0, 2, image.shape))
    return np.asarray(found, np.float32)


LEARN, GOOD, BAD = many(range(40)), many(range(100, 112)), many(range(200, 212), bad=True)


def test_it_is_asked_where_bad_ones_look_like_those_to_learn_from() -> None:
    said = say_swapped(LEARN, BAD, GOOD)
    assert said is not None and "are good and bad swapped" in said


@pytest.mark.parametrize("light", [1.0, 0.8])
def test_it_is_not_asked_of_a_split_that_is_right_or_tells_nothing_also_under_another_lamp(light: float) -> None:
    assert say_swapped(LEARN, many(range(100, 112), light=light), BAD) is None
    assert say_swapped(LEARN, GOOD, many(range(300, 312), light=light)) is None


def test_few_say_nothing() -> None:
    assert say_swapped(LEARN, BAD[:4], GOOD) is None


def test_single_labels_that_are_wrong_are_named() -> None:
    pictures, is_good = np.concatenate([many(range(400, 440)), many(range(500, 540), bad=True)]), np.arange(80) < 40
    wrong = np.isin(np.arange(80), (3, 17, 31, 45, 60, 75))
    found = doubtful(LEARN, pictures, is_good ^ wrong)
    assert found[wrong].sum() >= 3 and not found[~wrong].any()
    assert not doubtful(LEARN, many(range(600, 680)), is_good).any(), "good and bad are alike"


def cap(seed: int, bad: bool = False) -> np.ndarray:
    """A ridged cap that lies a little off its place, under a lamp that varies, turned anyhow; bad ones have a stain or scratch."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:120, :120].astype(np.float32)
    centre = 60 + rng.normal(0, 1.5, 2)
    away, turn = np.hypot(x - centre[0], y - centre[1]), np.arctan2(y - centre[1], x - centre[0]) - rng.uniform(0, 2 * np.pi)
    image = np.where(away < 42, 150.0, 60.0).astype(np.float32)
    image[(away < 42) & (away > 36)] += 25 * np.sign(np.sin(30 * turn))[(away < 42) & (away > 36)]
    image[(np.abs(away - 21) < 3) & (np.cos(turn) > -0.8)] = 190
    if bad:
        at = (centre + rng.uniform(8, 30) * np.array([np.cos(seed), np.sin(seed)])).round().astype(int)
        if seed % 2:
            cv2.circle(image, at.tolist(), 3, 70.0, -1)
        else:
            cv2.line(image, at.tolist(), (at + rng.integers(-9, 10, 2)).tolist(), 225.0, 2)
    image = cv2.GaussianBlur(image, (0, 0), 0.8) * rng.normal(1, 0.06)
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def lay(root: Path, **folders: tuple[int, bool]) -> Path:
    for k, (name, (n, bad)) in enumerate(folders.items()):
        (root / name).mkdir(parents=True)
        for i in range(n):
            cv2.imwrite(str(root / name / f"{i:02d}.png"), cap(1000 * k + i, bad))
    return root


@pytest.mark.parametrize(("few", "many_"), [(12, 40), (16, 20)])
def test_a_few_that_are_called_good_and_are_bad_are_not_learnt_from_unless_it_is_said(tmp_path: Path, few: int, many_: int) -> None:
    data = lay(tmp_path / "swapped", good=(few, True), NG=(many_, False))
    why = (
        rf"only {few} of {few + many_} images are called good \(as good/00.png\).*look alike.*swapped\? If so, give each folder.*--few-good"
    )
    with pytest.raises(DataError, match=why):
        precheck(data, {}, bad=None, masks=None, allow_duplicates=False)
    findings = {f.what for f in inspect_data(data).summary.findings}
    assert "good and bad may be swapped: not learnt from" in findings
    assert not inspect_data(data, few_good=True).reversed
    precheck(data, {"few_good": True}, bad=None, masks=None, allow_duplicates=False)


def test_a_collection_of_bad_parts_beside_few_good_ones_is_learnt_from(tmp_path: Path) -> None:
    data = lay(tmp_path / "right", good=(12, False), NG=(40, True))
    assert not inspect_data(data).reversed
    precheck(data, {}, bad=None, masks=None, allow_duplicates=False)


def test_where_pictures_do_not_tell_the_counts_are_questioned_unless_kinds_or_marks_say_more(tmp_path: Path) -> None:
    """Parts that lie anyhow, as magnetic_tile's: its own test split holds 286 good and 392 bad ones."""
    anyhow = np.random.default_rng(0).normal(128, 30, (100, 32, 32)).astype(np.float32)

    def said(n: int, kind: str, mask: Path | None = None, by_table: bool = False) -> str | None:
        parts = [Sample(tmp_path / f"{i}.png", "good" if i < n else kind, i < n, None if i < n else mask, "test") for i in range(100)]
        return say_few_good(parts, anyhow, by_table=by_table)

    fewest = round(100 * FEW / (1 + FEW))
    assert "do not tell which are sound" in (said(20, "NG") or "") and said(fewest, "NG") is not None
    assert said(fewest + 1, "NG") is None and said(42, "NG") is None
    assert said(20, "scratch") is None and said(20, "NG", tmp_path / "mask.png") is None and said(20, "NG", by_table=True) is None
