"""Masks and their images: which belongs to which, and what is said of those that belong to none."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.errors import DataError
from training.data.dataset import load_dataset
from training.data.formats import find
from training.data.layout import find_bad, pair_masks


def put(path: Path, value: int = 0, seed: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = (
        np.pad(np.full((6, 6), value, np.uint8), 5)
        if seed is None
        else np.random.default_rng(seed).integers(0, 255, (16, 16), dtype=np.uint8)
    )
    assert cv2.imwrite(str(path), picture)
    return path


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    for i in range(2):
        put(tmp_path / f"train/good/{i}.png", seed=i)
        put(tmp_path / f"test/hole/{i}.png", seed=10 + i)
        put(tmp_path / f"ground_truth/hole/{i}_mask.png", 255)
    return tmp_path


def test_a_mask_is_found_by_its_name_and_png_comes_first(tmp_path: Path) -> None:
    images = [put(tmp_path / "i" / n) for n in ("a.bmp", "b.png", "c.png", "d.png")]
    for name in ("a.png", "a_mask.bmp", "b.bmp", "b.png", "d_mask_mask.png", "x_mask.png"):
        put(tmp_path / "m" / name)
    masks, left = pair_masks(images, tmp_path / "m")
    assert {i.name: m.name for i, m in masks.items()} == {"a.bmp": "a_mask.bmp", "b.png": "b.png"}
    assert [p.name for p in left] == ["d_mask_mask.png", "x_mask.png"]
    assert pair_masks(images, None) == ({}, []) and pair_masks(images, tmp_path / "absent") == ({}, [])


def test_masks_that_are_merely_left_over_are_a_note(mvtec: Path) -> None:
    (mvtec / "test/hole/1.png").unlink()
    put(mvtec / "ground_truth/dent/0_mask.png")
    found = find(mvtec)
    assert [p.name for p in found.orphans] == ["1_mask.png", "0_mask.png"] and not found.problems
    assert sum("belong to no image" in n for n in load_dataset(mvtec).notes) == 2


def test_masks_whose_names_do_not_match_are_refused(mvtec: Path) -> None:
    (mvtec / "ground_truth/hole/1_mask.png").rename(mvtec / "ground_truth/hole/001_mask.png")
    with pytest.raises(DataError, match=r"1 masks fit no image \(the first: 001_mask.png\) and 1 images have no mask \(the first: 1.png\)"):
        load_dataset(mvtec)


def test_masks_for_more_images_than_were_given_are_a_note(mvtec: Path, tmp_path: Path) -> None:
    put(tmp_path / "few/hole/0.png", seed=50)
    put(tmp_path / "few/1.png", seed=51)
    samples, orphans = find_bad(tmp_path / "few", mvtec / "ground_truth")
    assert [(s.kind, s.split, s.mask_path and s.mask_path.name) for s in samples] == [
        ("bad", "bad", None), ("hole", "bad", "0_mask.png")
    ]  # fmt: skip
    assert [p.name for p in orphans] == ["1_mask.png"]
    data = load_dataset(mvtec, bad=tmp_path / "few", masks=mvtec / "ground_truth")
    assert any("1 masks in" in n for n in data.notes) and data.bad == tuple(samples)
    assert data.scored == (*data.test, *samples)


def test_masks_inside_of_the_bad_images_folder_are_no_images(tmp_path: Path) -> None:
    put(tmp_path / "bad/a.png", seed=1)
    put(tmp_path / "bad/masks/a.png", 255)
    samples, orphans = find_bad(tmp_path / "bad", tmp_path / "bad/masks")
    assert [(s.path.name, s.mask_path) for s in samples] == [("a.png", tmp_path / "bad/masks/a.png")] and not orphans


def test_bad_images_or_masks_that_are_not_there_are_refused(tmp_path: Path) -> None:
    assert find_bad(None, None) == ([], [])
    put(tmp_path / "bad/a.png", seed=1)
    (tmp_path / "empty").mkdir()
    for bad, masks, message in (
        ("absent", None, "found nothing"),
        ("bad/a.png", None, "found a file"),
        ("empty", None, "found none"),
        ("bad", "absent", "masks: expected a folder, found nothing"),
        ("bad", "empty", "a_mask.png"),
    ):
        with pytest.raises(DataError, match=message):
            find_bad(tmp_path / bad, tmp_path / masks if masks else None)


@pytest.mark.parametrize("name", ["good", "OK", "Normal"])
def test_good_parts_are_no_kind_of_defect(tmp_path: Path, name: str) -> None:
    put(tmp_path / f"{name}/0.png")
    put(tmp_path / "hole/1.png")
    with pytest.raises(DataError, match=f"found {name}"):
        find_bad(tmp_path, None)


@pytest.mark.parametrize("mask", ["masks/0.png", "ground_truth/0.png", "marks/0_mask.png"])
def test_masks_beside_bad_images_are_no_kind_of_defect(tmp_path: Path, mask: str) -> None:
    put(tmp_path / "0.png")
    put(tmp_path / mask, 255)
    with pytest.raises(DataError, match=r"found masks .* give them with --masks"):
        find_bad(tmp_path, None)


@pytest.mark.parametrize("name", [b"teil_\xe4.png", b"Ri\xdf/0.png"])
def test_a_name_that_is_no_text_is_refused_before_any_work(mvtec: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(mvtec / "test") + b"/" + (name if b"/" in name else b"hole/" + name)))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((mvtec / "test/hole/0.png").read_bytes())
    with pytest.raises(DataError, match=r"names in UTF-8, found b'.*\\x(e4|df)"):
        find(mvtec)
