"""Annotation files beside images are read as what they are, and never passed over: tiny sets as the tools export them."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.errors import DataError
from training.data.dataset import load_dataset
from training.data.formats import find
from training.data.masks import truth
from training.inspect.inspect import inspect_data

W, H = 80, 64
BOX = (30, 20, 20, 10)


def part(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(60, 190, (H, W), dtype=np.uint8)
    assert cv2.imwrite(str(path), cv2.GaussianBlur(noise, (0, 0), 1))
    return path


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def coco(
    path: Path, names: list[str], bad: list[str], mark: dict | None = None, category: str = "scratch", wh: tuple[int, int] = (W, H)
) -> None:
    write(
        path,
        {
            "images": [{"id": i, "file_name": n, "width": wh[0], "height": wh[1]} for i, n in enumerate(names)],
            "annotations": [{"id": i, "image_id": names.index(n), "category_id": 1, **(mark or {"bbox": BOX})} for i, n in enumerate(bad)],
            "categories": [{"id": 0, "name": "parts"}, {"id": 1, "name": category}],
        },
    )


def by_coco(root: Path) -> None:
    names = [part(root / f"{i}.jpg", i).name for i in range(12)]
    coco(root / "_annotations.coco.json", names, names[:3])


def by_coco_apart(root: Path) -> None:
    names = [part(root / "images" / f"{i}.png", i).name for i in range(12)]
    coco(root / "annotations/instances_default.json", names, names[:3], {"bbox": BOX, "segmentation": [[30, 20, 50, 20, 50, 30, 30, 30]]})


def by_labelme(root: Path) -> None:
    for i in range(12):
        part(root / f"{i}.png", i)
    for i in range(3):
        shape = {"label": "scratch", "points": [[30, 20], [50, 30]], "shape_type": "rectangle"}
        write(
            root / f"{i}.json",
            {"version": "5.5.0", "shapes": [shape], "imagePath": f"{i}.png", "imageData": None, "imageHeight": H, "imageWidth": W},
        )


def by_yolo(root: Path) -> None:
    for i in range(12):
        part(root / "images" / f"{i}.png", i)
        write(root / "labels" / f"{i}.txt", f"0 {40 / W} {25 / H} {20 / W} {10 / H}\n" if i < 3 else "")
    write(root / "data.yaml", "train: images\nnc: 1\nnames:\n  0: scratch  # on the lid\n")


def by_yolo_beside(root: Path) -> None:
    for i in range(12):
        part(root / f"{i}.png", 200 + i)
    for i in range(3):
        write(root / f"{i}.txt", f"0 {30 / W} {20 / H} {50 / W} {20 / H} {50 / W} {30 / H} {30 / W} {30 / H}\n")
    write(root / "classes.txt", "scratch\n")


def by_voc(root: Path) -> None:
    for i in range(12):
        part(root / "JPEGImages" / f"{i}.jpg", i)
        mark = "<object><name>scratch</name><bndbox><xmin>30</xmin><ymin>20</ymin><xmax>50</xmax><ymax>30</ymax></bndbox></object>"
        size = f"<size><width>{W}</width><height>{H}</height><depth>1</depth></size>"
        write(root / "Annotations" / f"{i}.xml", f"<annotation><filename>{i}.jpg</filename>{size}{mark if i < 3 else ''}</annotation>")


def by_cvat(root: Path) -> None:
    rows = []
    for i in range(12):
        part(root / "images" / f"{i}.png", i)
        mark = '<polygon label="scratch" points="30,20;50,20;50,30;30,30"/>' if i < 3 else ""
        rows.append(f'<image id="{i}" name="{i}.png" width="{W}" height="{H}">{mark}</image>')
    write(root / "annotations.xml", f"<annotations><version>1.1</version>{''.join(rows)}</annotations>")


@pytest.mark.parametrize("lay", [by_coco, by_coco_apart, by_labelme, by_yolo, by_yolo_beside, by_voc, by_cvat])
def test_marked_images_are_bad_ones_with_masks_and_are_never_learnt(tmp_path: Path, lay: Callable[[Path], None]) -> None:
    lay(tmp_path)
    data = load_dataset(tmp_path)
    bad = [s for s in data.test if not s.is_good]
    assert sorted(s.path.stem for s in bad) == ["0", "1", "2"] and {s.kind for s in bad} == {"scratch"}
    assert not {s.path for s in bad} & {s.path for s in data.train} and len(data.train) + len(data.test) == 12
    for sample in bad:
        mask = truth(sample)
        assert mask is not None and mask.shape == (H, W) and mask[20:30, 30:50].all() and (mask > 0).sum() <= 21 * 11
    assert any("bad: scratch, 3" in n for n in data.notes)
    summary = inspect_data(tmp_path).summary
    assert [(c.kind, c.images, c.masks) for c in summary.counts if c.kind == "scratch"] == [("scratch", 3, 3)] and not summary.findings


def test_roboflows_splits_are_kept(tmp_path: Path) -> None:
    for split, seed in (("train", 0), ("valid", 20), ("test", 40)):
        names = [part(tmp_path / split / f"{split}{i}.jpg", seed + i).name for i in range(5)]
        coco(tmp_path / split / "_annotations.coco.json", names, names[:1])
    found = find(tmp_path)
    assert (len(found.train), len(found.bad), len(found.test)) == (4, 1, 10) and sum(not s.is_good for s in found.test) == 2


@pytest.mark.parametrize("compressed", [False, True])
def test_runs_of_pixels_are_masks(tmp_path: Path, compressed: bool) -> None:
    wanted = np.zeros((H, W), np.uint8)
    wanted[20:30, 30:33] = 255
    counts = [30 * H + 20, 10, H - 10, 10, H - 10, 10, H * W - 32 * H - 30]
    names = [part(tmp_path / f"{i}.jpg", i).name for i in range(6)]
    runs = _compressed(counts) if compressed else counts
    coco(tmp_path / "a.json", names, names[:1], {"segmentation": {"size": [H, W], "counts": runs}, "iscrowd": 1})
    bad = next(s for s in find(tmp_path).test if not s.is_good)
    assert np.array_equal(truth(bad), wanted)


def _compressed(counts: list[int]) -> str:
    """As maskApi.c writes them, taken down independently of the reader."""
    out = ""
    for i, count in enumerate(counts):
        x = count - (counts[i - 2] if i > 2 else 0)
        more = True
        while more:
            c = x & 0x1F
            x >>= 5
            more = x != -1 if c & 0x10 else x != 0
            out += chr((c | 0x20 if more else c) + 48)
    return out


def test_a_labelme_mask_and_a_circle_are_drawn(tmp_path: Path) -> None:
    by_labelme(tmp_path)
    png = base64.b64encode(cv2.imencode(".png", np.eye(4, dtype=np.uint8) * 255)[1].tobytes()).decode()
    shapes = [
        {"label": "pit", "points": [[10, 5], [13, 8]], "shape_type": "mask", "mask": png},
        {"label": "pit", "points": [[60, 40], [65, 40]], "shape_type": "circle"},
    ]
    write(tmp_path / "0.json", {"version": "5.5.0", "shapes": shapes, "imagePath": "0.png", "imageHeight": H, "imageWidth": W})
    sample = next(s for s in find(tmp_path).test if s.path.stem == "0")
    mask = truth(sample)
    assert np.array_equal(mask[5:9, 10:14], np.eye(4, dtype=np.uint8) * 255) and 60 < (mask[30:50, 50:70] > 0).sum() < 110


def test_categories_that_are_called_good_mark_nothing(tmp_path: Path) -> None:
    names = [part(tmp_path / f"{i}.jpg", i).name for i in range(6)]
    coco(tmp_path / "a.json", names, names, category="OK")
    found = find(tmp_path)
    assert len(found.train) == 6 and not found.test


def test_a_mark_on_every_image_is_no_set_of_good_ones(tmp_path: Path) -> None:
    names = [part(tmp_path / f"{i}.jpg", i).name for i in range(6)]
    coco(tmp_path / "a.json", names, names)
    with pytest.raises(DataError, match="a mark on each of the 6 images"):
        find(tmp_path)


def test_images_that_the_annotations_do_not_know_are_left_out(tmp_path: Path) -> None:
    by_coco(tmp_path)
    part(tmp_path / "later.jpg", 99)
    data = load_dataset(tmp_path)
    assert all(s.path.stem != "later" for s in (*data.train, *data.test)) and any("1 images" in n and "later.jpg" in n for n in data.notes)


def test_annotations_for_pictures_of_another_size_are_refused(tmp_path: Path) -> None:
    names = [part(tmp_path / f"{i}.jpg", i).name for i in range(6)]
    coco(tmp_path / "a.json", names, names[:1], wh=(2 * W, 2 * H))
    with pytest.raises(DataError, match=r"a\.json: expected the size of 0.jpg, 80x64, found 160x128"):
        load_dataset(tmp_path)
    assert [f.what for f in inspect_data(tmp_path).summary.findings] == ["masks of another size than their image"]


def test_annotations_give_the_masks_of_a_layout_of_folders(tmp_path: Path) -> None:
    for i in range(6):
        part(tmp_path / "good" / f"g{i}.png", i)
    part(tmp_path / "NG/x.png", 50)
    shape = {"label": "dent", "points": [[30, 20], [50, 30]], "shape_type": "rectangle"}
    label = {"version": "5.5.0", "shapes": [shape], "imagePath": "x.png", "imageHeight": H, "imageWidth": W}
    write(tmp_path / "NG/x.json", label)
    bad = next(s for s in find(tmp_path).test if not s.is_good)
    assert bad.kind == "NG" and (truth(bad) > 0).sum() == 200
    write(tmp_path / "good/g0.json", label | {"imagePath": "g0.png"})
    with pytest.raises(DataError, match=r"g0\.png: lies among good images, but .*g0\.json marks dent on it"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("via.json", {"0.png123": {"filename": "0.png", "regions": []}}, "VIA"),
        ("project.json", [{"id": 1, "data": {"image": "0.png"}, "annotations": []}], "Label Studio"),
        ("_annotations.createml.json", [{"image": "0.png", "annotations": []}], "CreateML"),
        ("0.png.json", {"objects": [], "size": {"width": W, "height": H}}, "Supervisely"),
        ("0.json", {"regions": [[1, 2, 3, 4]]}, r"unknown format \(with regions\)"),
        ("0.xml", "<doc><regions/></doc>", "unknown format"),
        ("0.txt", "466 441 493 470 3\n", "other text"),
        ("v.xml", "<annotations><track id='0'/></annotations>", "CVAT for videos"),
    ],
)
def test_other_annotations_are_refused_by_name(tmp_path: Path, name: str, content: object, what: str) -> None:
    for i in range(4):
        part(tmp_path / f"{i}.png", i)
    write(tmp_path / name, content)
    with pytest.raises(DataError, match=rf"{name}.* annotations .*{what}.*Export them as COCO"):
        find(tmp_path)


@pytest.mark.parametrize("name", ["_annotations.coco.json", "0.json", "0.xml"])
def test_annotations_that_cannot_be_read_are_named(tmp_path: Path, name: str) -> None:
    for i in range(4):
        part(tmp_path / f"{i}.png", i)
    write(tmp_path / name, '{"images": [')
    with pytest.raises(DataError, match=f"{name}: expected annotations in"):
        load_dataset(tmp_path)


def test_files_that_speak_of_something_else_change_nothing(tmp_path: Path) -> None:
    for i in range(4):
        part(tmp_path / f"{i}.png", i)
    write(tmp_path / "camera.json", {"exposure_us": 900})
    write(tmp_path / "0.json", {"decision": {"verdict": "REJECT"}})
    write(tmp_path / "readme.txt", "Taken on Monday.")
    found = find(tmp_path)
    assert len(found.train) == 4 and "1 of 1 images with a decision of the station were not accepted by it" in found.notes


def test_annotations_beside_bad_images_that_are_given_are_their_masks(tmp_path: Path) -> None:
    for i in range(6):
        part(tmp_path / "parts" / f"{i}.png", i)
    by_yolo_beside(tmp_path / "bad")
    data = load_dataset(tmp_path / "parts", bad=tmp_path / "bad")
    assert len(data.bad) == 12 and sum(s.has_truth for s in data.bad) == 3 and (truth(data.bad[0]) > 0).sum() >= 200


def test_the_same_names_in_two_splits_are_told_apart_by_the_file_s_name(tmp_path: Path) -> None:
    for split, seed in (("train2017", 0), ("val2017", 20)):
        names = [part(tmp_path / split / f"{i}.jpg", seed + i).name for i in range(5)]
        coco(tmp_path / "annotations" / f"instances_{split}.json", names, names[:1])
    found = find(tmp_path)
    assert not found.problems and (len(found.train), len(found.bad), len(found.test)) == (4, 1, 5)
