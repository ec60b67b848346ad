"""What speaks against good images is believed: files beside the folder, names, masks; what belongs nowhere is counted."""

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.errors import DataError
from training.data.dataset import load_dataset
from training.data.formats import find
from training.inspect.inspect import inspect_data

W, H = 80, 64
BOX = f"0 {40 / W} {25 / H} {20 / W} {10 / H}\n"
COCO = (
    '{"images": [{"id": 1, "file_name": "000.png", "width": 80, "height": 64}], "categories": [{"id": 1, "name": "scratch"}],'
    ' "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [30, 20, 20, 10]}]}'
)
VOC = (
    "<annotation><filename>000.png</filename><object><name>scratch</name><bndbox><xmin>30</xmin><ymin>20</ymin><xmax>50</xmax>"
    "<ymax>30</ymax></bndbox></object></annotation>"
)


def parts(folder: Path, n: int = 10, name: str = "{:03d}.png", seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        noise = np.random.default_rng([seed, i]).integers(60, 190, (H, W), dtype=np.uint8)
        assert cv2.imwrite(str(folder / name.format(i)), cv2.GaussianBlur(noise, (0, 0), 1))
    return folder


def mask(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.zeros((H, W), np.uint8)
    picture[5:9, 5:9] = 255
    assert cv2.imwrite(str(path), picture)


@pytest.mark.parametrize("images", ["images", "images/train", "train/images", "shots"])
@pytest.mark.parametrize(
    ("file", "text"),
    [("labels/000.txt", BOX), ("coco.json", COCO), ("_annotations.coco.json", COCO), ("annotations/instances.json", COCO),
     ("Annotations/000.xml", VOC), ("labels.csv", "path,label\nimages/000.png,NG\n"), ("results.csv", "file;result\n000.png;NG\n"),
     ("bad.txt", "000.png\n")],
)  # fmt: skip
def test_what_lies_beside_the_folder_and_marks_its_images_is_not_passed_over(tmp_path: Path, images: str, file: str, text: str) -> None:
    folder = parts(tmp_path / images)
    place = folder.parent
    (place / file).parent.mkdir(exist_ok=True)
    (place / file).write_text(text)
    with pytest.raises(DataError, match=f"{Path(file).name}.*(give {place} instead|Give the table instead|save it as .csv)"):
        find(folder)


def test_what_lies_beside_the_folder_and_speaks_of_others_changes_nothing(tmp_path: Path) -> None:
    folder = parts(tmp_path / "images")
    for file, text in (
        ("labels/900.txt", BOX),
        ("coco.json", COCO.replace("000.png", "q.png")),
        ("notes.csv", "a,b\n1,2\n"),
        ("cam.json", "{"),
    ):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    (tmp_path / "all.txt").write_text("".join(f"images/{i:03d}.png\n" for i in range(10)))
    found = find(folder)
    assert len(found.train) == 10 and not found.problems


@pytest.mark.parametrize("place", ["masks/003.png", "../masks/003.png", "../ground_truth/003_mask.png", "003_mask.png", "003_GT.png"])
def test_masks_of_images_that_would_be_good_are_refused(tmp_path: Path, place: str) -> None:
    folder = parts(tmp_path / "images")
    mask(folder / place)
    with pytest.raises(DataError, match=r"mask.* would be taught as"):
        find(folder)


@pytest.mark.parametrize("name", ["part_NG_0012.png", "0012-NG-a.png", "partNG7.png", "Teil 4 schlecht b.png"])
def test_a_bad_word_anywhere_in_a_name_among_good_images_is_refused(tmp_path: Path, name: str) -> None:
    parts(tmp_path / "good", 10, "part_{}.png")
    parts(tmp_path / "NG", 2, seed=1)
    parts(tmp_path / "good", 1, name, seed=2)
    with pytest.raises(DataError, match="lies among good images, and its name calls it bad"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    "name", ["part_no_defect_{}.png", "not bad {}.png", "x_ma_{}_b.png", "0bad1234-1bad-4bad-8bad-0123456789a{}.png", "kong{}.png"]
)
def test_other_names_are_no_bad_words(tmp_path: Path, name: str) -> None:
    parts(tmp_path, 10, name)
    assert len(find(tmp_path).train) == 10


def test_names_that_all_call_good_images_bad_are_questioned(tmp_path: Path) -> None:
    parts(tmp_path / "good", 10, "defect_camera_{}.png")
    parts(tmp_path / "NG", 2, seed=1)
    found = find(tmp_path)
    assert not found.problems and any("the names of 10 of 10 good images call them bad" in n for n in found.notes)


@pytest.mark.parametrize("folder", ["NG", "defects", "NG/images", "Ausschuss"])
def test_a_folder_that_is_called_bad_is_not_taught(tmp_path: Path, folder: str) -> None:
    with pytest.raises(DataError, match=r"calls parts bad .* --bad; if they are good, rename the folder"):
        find(parts(tmp_path / folder))


def test_a_kind_of_defect_beside_good_images_is_not_taught(tmp_path: Path) -> None:
    parts(tmp_path / "good")
    with pytest.raises(DataError, match=f"lies beside folders of good images.*give {tmp_path}"):
        find(parts(tmp_path / "scratch", seed=1))
    assert len(find(tmp_path / "good").train) == 10


def test_masks_of_good_images_are_contradictions(tmp_path: Path) -> None:
    parts(tmp_path / "good")
    parts(tmp_path / "NG", 2, "n{}.png", seed=1)
    mask(tmp_path / "masks/NG/n0.png")
    mask(tmp_path / "masks/good/004.png")
    with pytest.raises(DataError, match=r"masks/good/004.png: marks a defect on a good image"):
        load_dataset(tmp_path)


def test_folders_are_read_to_their_depth(tmp_path: Path) -> None:
    parts(tmp_path / "good/2024/11")
    parts(tmp_path / "NG/x/2024", 3, "n{}.png", seed=1)
    found = find(tmp_path)
    assert sum(s.is_good for s in found.samples) == 10 and [s.kind for s in found.samples if not s.is_good] == ["x"] * 3
    parts(tmp_path / "good/2024/NG", 1, "late.png", seed=2)
    assert any("bad images in a folder of good ones" in p for p in find(tmp_path).problems)


def hidden(root: Path) -> None:
    parts(root / ".NG", 3, "n{}.png", seed=1)


def in_no_row(root: Path) -> None:
    (root / "labels.csv").write_text("path,label\n" + "".join(f"good/{i:03d}.png,good\n" for i in range(7)))


def loose(root: Path) -> None:
    (root / "good").rename(root / "g")
    for path in (root / "g").iterdir():
        path.rename(root / path.name)
    (root / "g").rmdir()
    parts(root / "odd", 3, "n{}.png", seed=1)


def beside_splits(root: Path) -> None:
    (root / "train").mkdir()
    (root / "good").rename(root / "train/good")
    parts(root / "more", 3, "n{}.png", seed=1)


@pytest.mark.parametrize("lay", [hidden, in_no_row, loose, beside_splits])
def test_images_that_belong_nowhere_are_counted_and_named(tmp_path: Path, lay: Callable[[Path], None]) -> None:
    parts(tmp_path / "good")
    assert not any("left out" in n for n in find(tmp_path).notes)
    lay(tmp_path)
    assert any(n.startswith("left out: 3 images") and ".png)" in n for n in find(tmp_path).notes)


def test_pipes_devices_and_folders_that_are_called_as_pictures_are_named_and_not_opened(tmp_path: Path) -> None:
    parts(tmp_path)
    for name in ("f.png", "a.json", "001.txt", "labels.csv", "bare"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "dev.png").symlink_to("/dev/zero")
    (tmp_path / "x.png").mkdir()
    assert any("3 folders, pipes or devices" in n for n in find(tmp_path).notes)


def test_a_picture_of_a_few_pixels_is_none(tmp_path: Path) -> None:
    parts(tmp_path)
    cv2.imwrite(str(tmp_path / "t.png"), np.zeros((1, 1), np.uint8))
    with pytest.raises(DataError, match=r"t\.png: expected a photograph, .* found 1x1"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("name", ["labels/p1.txt", "Annotations/p1.xml", "p1.json"])
def test_annotations_that_fit_no_image_are_refused_and_some_are_counted(tmp_path: Path, name: str) -> None:
    parts(tmp_path / "images")
    labelme = '{"version": "5", "shapes": [], "imagePath": "p1.png"}'
    text = {".txt": BOX, ".xml": VOC.replace("000.png", "p1.png"), ".json": labelme}[Path(name).suffix]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=r"1 files of .* belong to no image.*Expected files named as their images"):
        find(tmp_path)
    (tmp_path / name).with_stem("001").write_text(text.replace("p1.png", "001.png"))
    assert any("1 files of" in n and "p1" in n for n in find(tmp_path).notes)


def test_marks_outside_of_their_picture_are_refused(tmp_path: Path) -> None:
    parts(tmp_path)
    (tmp_path / "coco.json").write_text(
        COCO.replace("[30,", "[200,").replace('}], "categories', '}, {"id": 2, "file_name": "001.png"}], "categories')
    )
    with pytest.raises(DataError, match=r"expected marks inside of 000.png, 80x64, found one at 200,20 to 220,30"):
        load_dataset(tmp_path)
    assert any(f.what == "marks outside of their image" for f in inspect_data(tmp_path).summary.findings)


def test_masks_in_a_folder_called_after_the_bad_ones_are_masks(tmp_path: Path) -> None:
    parts(tmp_path / "good")
    parts(tmp_path / "NG", 2, "n{}.png", seed=1)
    mask(tmp_path / "NG_masks/n0.png")
    assert [(s.kind, s.mask_path is not None) for s in find(tmp_path).samples if not s.is_good] == [("NG", True), ("NG", False)]
