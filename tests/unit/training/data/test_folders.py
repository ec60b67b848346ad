"""Folders and file names that say good or bad, in whatever words: read as they are meant, shown back, or refused."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.errors import DataError
from training.data.dataset import load_dataset
from training.data.formats import find
from training.data.split import hold_back
from training.inspect.inspect import inspect_data

SHAPE = (40, 48)


def image(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 200, SHAPE, dtype=np.uint8))
    return path


def mask(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.zeros(SHAPE, np.uint8)
    picture[5:9, 5:9] = 255
    assert cv2.imwrite(str(path), picture)
    return path


def lay(root: Path, good: str, *bad: str, n: int = 11) -> Path:
    for i in range(n):
        image(root / good / f"{i:02d}.png", i)
    for k, folder in enumerate(bad):
        for i in range(2):
            image(root / folder / f"{i}.png", 100 + 10 * k + i)
    return root


@pytest.mark.parametrize(
    ("good", "bad"),
    [("good", "NG"), ("OK", "ng"), ("Gut ", "schlecht"), ("i.O.", "n.i.O."), ("PASS", "FAIL"), ("良品", "不良"), ("good_parts", "scratch"),
     ("images/good", "images/bad"), ("data/OK", "data/NG"), ("conforme", "non conforme"),
     ("unpacked/parts/good", "unpacked/parts/NG")],
)  # fmt: skip
def test_good_beside_bad_is_read_in_any_words(tmp_path: Path, good: str, bad: str) -> None:
    data = load_dataset(lay(tmp_path, good, bad))
    assert len(data.train) == 9 and sum(s.is_good for s in data.test) == 2
    assert {s.kind for s in data.test if not s.is_good} == {Path(bad).name}
    assert any(f"good: {Path(good).name.strip()}, 11; bad: {Path(bad).name}, 2" in n for n in data.notes)
    summary = inspect_data(tmp_path).summary
    assert [(c.split, c.images) for c in summary.counts] == [("train", 9), ("test", 2), ("test", 2)] and not summary.findings


def test_several_kinds_and_kinds_inside_of_bad_with_their_masks(tmp_path: Path) -> None:
    lay(tmp_path, "good", "scratch", "bad/dent", "bad/hole")
    for kind in ("scratch", "dent"):
        mask(tmp_path / "masks" / kind / "0.png")
    mask(tmp_path / "bad/hole/1_mask.png")
    found = find(tmp_path)
    assert sorted((s.kind, s.path.name, s.mask_path is not None) for s in found.test if not s.is_good) == [
        ("dent", "0.png", True), ("dent", "1.png", False), ("hole", "0.png", False), ("hole", "1.png", True), ("scratch", "0.png", True),
        ("scratch", "1.png", False),
    ]  # fmt: skip


def test_good_images_directly_beside_a_folder_of_bad_ones(tmp_path: Path) -> None:
    found = find(lay(tmp_path, ".", "NG"))
    assert len(found.train) == 9 and sum(not s.is_good for s in found.test) == 2


@pytest.mark.parametrize(
    ("train", "test"),
    [("Train/OK", "Test/NG"), ("training/good ", "validation/defect"), ("train/PASS", "test/FAIL"), ("train/ok_front", "test/def_front")],
)
def test_splits_are_read_in_any_words(tmp_path: Path, train: str, test: str) -> None:
    lay(tmp_path, train, test, str(Path(test).parent / Path(train).name))
    found = find(tmp_path)
    assert not found.problems and len(found.train) == 11
    assert sorted(s.is_good for s in found.test) == [False, False, True, True]


def test_what_is_held_back_depends_on_the_pictures_and_not_on_their_names(tmp_path: Path) -> None:
    first = lay(tmp_path / "a", "good", "NG")
    second = lay(tmp_path / "b", "good", "NG")
    for i, path in enumerate(sorted((second / "good").iterdir(), reverse=True)):
        path.rename(path.with_name(f"x{i}.png"))
    held = [{s.path.read_bytes() for s in find(root).test if s.is_good} for root in (first, second)]
    assert held[0] == held[1] and len(held[0]) == 2


def test_copies_are_not_torn_apart_by_a_split_of_ours(tmp_path: Path) -> None:
    root = lay(tmp_path, "good", "NG", n=10)
    for i in range(10):
        (root / f"good/{i:02d}b.png").write_bytes((root / f"good/{i:02d}.png").read_bytes())
    held = hold_back(sorted((root / "good").iterdir()))
    assert len(held) == 4 and {p.name[:2] for p in held if p.stem.endswith("b")} == {p.name[:2] for p in held if not p.stem.endswith("b")}
    data = load_dataset(root)
    assert len(data.train) == len(data.copies) == 8, "and are learnt once"


@pytest.mark.parametrize(
    ("folder", "message"),
    [("unknown", "says neither good nor bad"), ("test", "says neither good nor bad"), ("goood", "a slip of the pen.*call it good"),
     ("OK", "expected one folder of good images, found OK, good"), ("NG/ok", "good images in a folder of bad ones")],
)  # fmt: skip
def test_folders_that_leave_it_open_are_refused(tmp_path: Path, folder: str, message: str) -> None:
    lay(tmp_path, "good", "scratch", folder)
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path)


def test_folders_none_of_which_is_called_good_are_refused_with_the_known_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found the folders huonot, hyvat. Rename them.*good, ok.*images/names.py"):
        find(lay(tmp_path, "hyvat", "huonot"))


def test_few_that_are_called_good_are_questioned(tmp_path: Path) -> None:
    lay(tmp_path, "NG", "good", n=11)
    assert any("only 2 of 13 images are called good" in n for n in find(tmp_path).notes)


def test_names_of_files_that_say_good_or_bad_are_believed(tmp_path: Path) -> None:
    for i in range(11):
        image(tmp_path / f"OK_{i}.png", i)
    image(tmp_path / "NG_0.png", 99)
    found = find(tmp_path)
    assert len(found.train) == 9 and [s.path.name for s in found.test if not s.is_good] == ["NG_0.png"]
    image(tmp_path / "IMG_7.png", 98)
    with pytest.raises(DataError, match=r"12 of 13 names .* say good or bad .* the others do not \(as IMG_7.png\)"):
        find(tmp_path)


def test_names_that_only_say_good_stay_a_plain_folder(tmp_path: Path) -> None:
    for i in range(3):
        image(tmp_path / f"good_{i}.png", i)
    image(tmp_path / "7.png", 9)
    assert len(find(tmp_path).train) == 4


@pytest.mark.parametrize(
    ("good", "bad"),
    [("IO_{}", "n.i.O._{}"), ("{}_i.O.", "{}_n.i.O."), ("teil_{}_ok", "teil_{}_nicht_ok"), ("ok_{}", "not_pass_{}"),
     ("{}_bestanden", "x{}_nicht_bestanden"), ("{}_pass", "{}_not_passed"), ("p_{}_bueno", "p_{}_no_bueno"),
     ("part{}_no_damage", "part{}_damage"), ("{}_異常なし", "{}_異常"), ("{}_bez_vad", "{}_vada"), ("ok {}", "!ok {}")],
)  # fmt: skip
def test_denied_words_in_names_of_files_say_the_contrary(tmp_path: Path, good: str, bad: str) -> None:
    named = {image(tmp_path / f"{(good if i < 11 else bad).format(100 + i)}.png", i): i < 11 for i in range(13)}
    assert {s.path: s.is_good for s in find(tmp_path).samples} == named


@pytest.mark.parametrize(
    ("usual", "other", "message"),
    [("{}", "{}_nicht_ok", "the others do not"), ("ok_{}", "ok_{}_NG", "good and bad at once"),
     ("{}_no_dent", "{}_dent", "says dent in its name")],
)  # fmt: skip
def test_names_of_which_some_alone_say_something_are_refused(tmp_path: Path, usual: str, other: str, message: str) -> None:
    for i in range(13):
        image(tmp_path / f"{(usual if i else other).format(100 + i)}.png", i)
    with pytest.raises(DataError, match=message):
        find(tmp_path)


@pytest.mark.parametrize(
    ("folder", "message"),
    [("good/day2_NG", "bad images in a folder of good ones"), ("good/n.i.O. Montag", "bad images in a folder of good ones"),
     ("NG/rest_OK", "good images in a folder of bad ones"), ("OK_alt", "says OK and more"), ("good_reworked", "says good and more"),
     ("good - Copy", "says good and more"), ("gut - Kopie (2)", "says gut and more"), ("i.O. alt", "says iO and more"),
     ("misc", "that of no defect"), ("New folder (2)", "that of no defect"), ("backup", "that of no defect"),
     ("overlays", "that of no defect"), ("cam1", "that of no defect")],
)  # fmt: skip
def test_folders_that_are_called_as_no_defect_is_are_asked_about(tmp_path: Path, folder: str, message: str) -> None:
    lay(tmp_path, "good", "NG", folder)
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path)


@pytest.mark.parametrize("folder", ["fine_scratch", "rework", "no_solder", "not_good_day2", "contamination", "3"])
def test_other_names_of_folders_stay_kinds(tmp_path: Path, folder: str) -> None:
    found = find(lay(tmp_path, "good", folder))
    assert not found.problems and sum(s.kind == folder for s in found.samples) == 2


def test_what_a_network_drive_or_a_viewer_makes_is_no_part_and_is_said(tmp_path: Path) -> None:
    lay(tmp_path, "good", "NG", "$RECYCLE.BIN", "lost+found", "Thumbs", ".thumbnails", "good/@eaDir/00.png", "@eaDir/00.png")
    data = load_dataset(tmp_path)
    assert len(data.train) == 9 and {s.kind for s in data.test} == {"good", "NG"}
    assert any("12 images are thumbnails, or deleted" in n and str(tmp_path / "$RECYCLE.BIN") in n for n in data.notes)
    assert not any("are called as pictures are" in n for n in data.notes)


def test_good_images_that_lie_by_days_are_shown_a_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"all of them hold good images.*good/2026-01-01"):
        find(lay(tmp_path, "2026-01-01", "2026-01-02"))


def test_splits_without_a_folder_of_good_images_are_refused(tmp_path: Path) -> None:
    lay(tmp_path, "train/a", "train/b", "test/a", "test/b")
    with pytest.raises(DataError, match=r"expected in .*train a folder that is called good, found a, b"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("zero", "one", "verb"),
    [
        ("part{}_0", "part{}_1", "end"),
        ("a{:03d}-0", "b{:03d}-1", "end"),
        ("{}label0", "{}label1", "end"),
        ("0_{:03d}", "1_{:03d}", "begin"),
    ],
)
def test_names_that_differ_in_0_and_1_are_read_as_numbers_and_that_is_said(tmp_path: Path, zero: str, one: str, verb: str) -> None:
    for i in range(12):
        image(tmp_path / f"{(one if i % 4 == 0 else zero).format(i)}.png", i)
    said = next(n for n in find(tmp_path).notes if f"all names {verb} in 0 (" in n)
    assert "9 in all) or 1 (" in said and "3 in all): read as numbers, so that all 12 are good" in said and "folder good" in said
    assert said in load_dataset(tmp_path).notes
    assert said in inspect_data(tmp_path).summary.remarks


@pytest.mark.parametrize("names", ["part_{}", "{:03d}", "{}_front", "part10_{}0", "2026_{}_0"])
def test_counters_are_no_question(tmp_path: Path, names: str) -> None:
    for i in range(12):
        image(tmp_path / f"{names.format(i)}.png", i)
    assert not any("read as numbers" in n for n in find(tmp_path).notes)


@pytest.mark.parametrize("where", ["", "test", "train", "beside"])
def test_folders_0_and_1_are_not_guessed_at(tmp_path: Path, where: str) -> None:
    for i in range(12):
        image(tmp_path / ("" if where == "beside" else where) / ("1" if i % 4 == 0 else "0") / f"{i}.png", i)
        if where:
            image(tmp_path / {"test": "train/good", "train": "test/good", "beside": "good"}[where] / f"{i}.png", 50 + i)
    with pytest.raises(DataError, match=r"the folders 0 \(9 images\) and 1 \(3 images\) leave open which images are good"):
        load_dataset(tmp_path)
