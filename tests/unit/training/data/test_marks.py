"""Whatever marks parts is read as it is meant, or refused in one sentence: broken ids, encodings, numbers, half exports."""

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.errors import DataError
from tests.unit.training.data.test_annotations import H, W, by_coco, by_cvat, by_labelme, by_voc, by_yolo_beside, coco, part, write
from training.data.dataset import load_dataset
from training.data.formats import find
from training.data.layout import find_bad
from training.data.masks import truth
from training.data.tables import header_of
from training.inspect.inspect import inspect_data


def parts(root: Path, count: int = 8) -> list[str]:
    return [part(root / f"{i:03}.png", i).name for i in range(count)]


def change(file: Path, **keys: object) -> None:
    """Sets these keys in each annotation of a COCO file."""
    content = json.loads(file.read_text())
    for entry in content["annotations"]:
        entry.update(keys)
    write(file, content)


def test_marks_of_images_that_the_file_does_not_list_are_refused(tmp_path: Path) -> None:
    by_coco(tmp_path)
    content = json.loads((tmp_path / "_annotations.coco.json").read_text())
    for entry in content["annotations"]:
        entry["image_id"] += 1000
    write(tmp_path / "_annotations.coco.json", content)
    with pytest.raises(DataError, match=r"3 annotations belong to no image \(image_id 1000, 1001, 1002\)"):
        load_dataset(tmp_path)


def test_ids_that_are_text_are_the_numbers_that_they_spell(tmp_path: Path) -> None:
    by_coco(tmp_path)
    content = json.loads((tmp_path / "_annotations.coco.json").read_text())
    for entry in content["annotations"]:
        entry["image_id"], entry["category_id"] = str(entry["image_id"]), float(entry["category_id"])
    write(tmp_path / "_annotations.coco.json", content)
    assert [s.kind for s in find(tmp_path).samples if not s.is_good] == ["scratch"] * 3


def test_images_that_share_an_id_are_refused(tmp_path: Path) -> None:
    by_coco(tmp_path)
    content = json.loads((tmp_path / "_annotations.coco.json").read_text())
    for entry in (*content["images"], *content["annotations"]):
        entry["id"] = entry["image_id"] = 1
    write(tmp_path / "_annotations.coco.json", content)
    with pytest.raises(DataError, match=r"12 images share an id \(1\)"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("mark", "what"),
    [
        (
            {"segmentation": {"size": [H // 2, W * 2], "counts": [H * W]}},
            f"runs over its image of {W}x{H}, found some over {2 * W}x{H // 2}",
        ),
        ({"segmentation": {"size": [H, W], "counts": [100, 50]}}, f"runs over all {H * W} pixels of {W}x{H}, found some over 150"),
        ({"bbox": [30, 20, -20, 10]}, "a box's width and height, found -20 and 10"),
        ({"bbox": [30, 20, 1e30, 10]}, "places in pixels"),
    ],
)
def test_marks_that_no_picture_can_have_are_refused(tmp_path: Path, mark: dict, what: str) -> None:
    by_coco(tmp_path)
    change(tmp_path / "_annotations.coco.json", **mark)
    with pytest.raises(DataError, match=f"the annotation 0 of 0.jpg: expected {what}"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("corner", ["nan", "inf", "80,5"])
def test_an_image_whose_annotation_cannot_be_read_is_neither_good_nor_bad(tmp_path: Path, corner: str) -> None:
    by_voc(tmp_path)
    file = min(tmp_path.rglob("*.xml"))
    write(file, file.read_text().replace("<xmin>30", f"<xmin>{corner}"))
    found = find(tmp_path)
    assert len(found.problems) == 1 and file.name in found.problems[0] and len(found.samples) == 11
    assert any("1 images have an annotation that could not be read" in n for n in found.notes)
    assert not any("have no annotation" in n and "taken as good" in n for n in found.notes)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_is_read_in_the_encodings_that_windows_tools_write(tmp_path: Path, encoding: str) -> None:
    names = parts(tmp_path)
    coco(tmp_path / "x" / "labels.json", names, names[:3])
    text = (tmp_path / "x" / "labels.json").read_text()
    (tmp_path / "x" / "labels.json").write_bytes(text.encode(encoding))
    assert sum(not s.is_good for s in find(tmp_path).samples) == 3


@pytest.mark.parametrize(("named", "encoding"), [("GB2312", "gb18030"), ("Shift_JIS", "shift_jis"), ("x-foo", "ascii")])
def test_xml_is_read_in_the_encoding_that_it_names_or_named(tmp_path: Path, named: str, encoding: str) -> None:
    by_voc(tmp_path)
    for file in tmp_path.rglob("*.xml"):
        text = f'<?xml version="1.0" encoding="{named}"?>' + file.read_text().replace("<name>scratch", "<name>" + "線"[: named != "x-foo"])
        file.write_bytes(text.encode(encoding))
    found = find(tmp_path)
    if named == "x-foo":
        assert "unknown encoding: x-foo" in found.problems[0] and not found.samples
    else:
        assert not found.problems and {s.kind for s in found.samples if not s.is_good} == {"線"}


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("project.json", [{"image": "/data/upload/1/ab12cd-000.png", "id": 1, "annotator": 1, "label": []}], "Label Studio"),
        ("unknown.json", {"rows": [["000.png", "NG"]]}, "which it names"),
        ("unknown.xml", "<dataset><images><image file='000.png'><box top='1'/></image></images></dataset>", "which it names"),
        ("half.json", {"images": [{"id": 1, "file_name": "000.png"}], "categories": []}, "half an export"),
        ("labelbox.json", [{"data_row": {"external_id": "000.png"}, "projects": {}}], "Labelbox"),
        ("default.json", {"dm_format_version": "1.0", "items": []}, "Datumaro"),
        ("000.json", {"label": "scratch"}, "unknown format"),
    ],
)
def test_what_other_programs_export_is_refused_by_name(tmp_path: Path, name: str, content: object, what: str) -> None:
    parts(tmp_path)
    write(tmp_path / name, content)
    with pytest.raises(DataError, match=f"{name} holds annotations .*{what}"):
        find(tmp_path)


@pytest.mark.parametrize("name", ["x/list.jsonl", "x/labels.csv", "export.ndjson", "labels.xlsx"])
def test_lists_that_name_images_are_refused_wherever_they_lie(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    parts(tmp_path)
    write(file, '{"image": "000.png", "y": 1}')
    if file.suffix == ".xlsx":
        with zipfile.ZipFile(file, "w") as sheet:
            sheet.writestr("xl/sharedStrings.xml", "<sst><si><t>000.png</t></si></sst>")
    with pytest.raises(DataError, match=f"{name}: names images"):
        find(tmp_path)


def test_spreadsheets_beside_the_folder_of_images_are_named(tmp_path: Path) -> None:
    parts(tmp_path / "images")
    for name in ("labels.xlsx", "data.tfrecord"):
        write(tmp_path / name, "PKxx")
    assert any("data.tfrecord, labels.xlsx is not read" in n for n in find(tmp_path).notes)


def test_annotations_without_a_defect_are_said(tmp_path: Path) -> None:
    names = parts(tmp_path)
    coco(tmp_path / "a.json", names, [])
    assert "COCO annotations name no defect: all 8 images are taken as good" in find(tmp_path).notes


def test_a_table_of_old_macs_is_read_and_an_endless_header_refused(tmp_path: Path) -> None:
    parts(tmp_path)
    write(tmp_path / "labels.csv", "path,label\r" + "\r".join(f"{i:03}.png,{'good' if i > 2 else 'NG'}" for i in range(8)))
    assert sum(not s.is_good for s in find(tmp_path).samples) == 3
    with pytest.raises(DataError, match="line 1: expected a header"):
        header_of(write(tmp_path / "labels.csv", "p" * 200_000))


def _replaced(content: object, value: object) -> list[object]:
    """The content with each of its numbers and texts replaced, one at a time."""
    if isinstance(content, dict):
        return [{**content, k: new} for k, v in content.items() for new in _replaced(v, value)]
    if isinstance(content, list):
        return [[*content[:i], new, *content[i + 1 :]] for i, v in enumerate(content) for new in _replaced(v, value)]
    return [value]


@pytest.mark.slow
@pytest.mark.parametrize("lay", [by_coco, by_labelme])
def test_json_with_any_value_for_any_other_never_ends_in_an_internal_error(tmp_path: Path, lay) -> None:  # type: ignore[no-untyped-def]
    lay(tmp_path)
    file = min(tmp_path.rglob("*.json"))
    whole = file.read_text()
    content = json.loads(whole)
    for key, most in (("images", 1), ("annotations", 1), ("shapes", 1)):
        content[key] = content[key][:most] if key in content else None
    content = {k: v for k, v in content.items() if v is not None}
    broken = [json.dumps(new) for value in (float("inf"), -1, 1e30, "", "x", None, [], {}, [[1]]) for new in _replaced(content, value)]
    for text in [*broken, *(whole[: len(whole) * n // 7] for n in range(7))]:
        file.write_text(text)
        _survives(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("lay", [by_yolo_beside, by_voc, by_cvat])
def test_text_with_any_word_for_a_number_never_ends_in_an_internal_error(tmp_path: Path, lay) -> None:  # type: ignore[no-untyped-def]
    lay(tmp_path)
    file = next(f for f in sorted(p for s in ("*.txt", "*.xml") for p in tmp_path.rglob(s)) if any(c.isdigit() for c in f.read_text()))
    whole = file.read_text()[:900]
    ends = [i for i, c in enumerate(whole) if c.isdigit() and not whole[i + 1 : i + 2].isdigit()]
    broken = [whole[:i] + word + whole[i + 1 :] for i in ends for word in ("nan", "inf", "1e30", "", ",5")]
    for text in [*broken, *(whole[: len(whole) * n // 7] for n in range(7))]:
        file.write_text(text)
        _survives(tmp_path)


def _survives(root: Path) -> None:
    try:
        for sample in find(root).samples:
            truth(sample, (W, H))
    except DataError as e:
        assert "\n" not in str(e)


def test_a_size_that_annotations_state_wrongly_names_an_image_once_with_the_count(tmp_path: Path) -> None:
    names = parts(tmp_path)
    coco(tmp_path / "annotations.json", names, names[:3], wh=(512, 512))
    items = next(f.items for f in inspect_data(tmp_path).summary.findings if "another size" in f.what)
    assert len(items) == 1 and "000.png" in items[0] and "3 images" in items[0] and "512x512" in items[0]
    with pytest.raises(DataError, match=r"annotations.json: expected the size of 3 images \(the first: 000.png\), 80x64, found 512x512"):
        load_dataset(tmp_path)


def mask(path: Path, marked: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.zeros((H, W), np.uint8)
    picture[20:30, 30:50] = 255 * marked
    assert cv2.imwrite(str(path), picture)
    return path


@pytest.mark.parametrize("tail", ["_m.png", " mask.png", ".mask.png", "-annotation.png", "_m.jpg"])
def test_a_picture_of_two_values_named_as_another_and_more_is_its_mask(tmp_path: Path, tail: str) -> None:
    for i in range(8):
        part(tmp_path / "good" / f"{i}.png", i)
    for i in range(3):
        part(tmp_path / "scratch" / f"b{i}.png", 50 + i)
        mask(tmp_path / "scratch" / f"b{i}{tail}")
    found = find(tmp_path)
    bad = [s for s in found.samples if not s.is_good]
    assert not found.problems and [s.path.name for s in bad] == ["b0.png", "b1.png", "b2.png"]
    assert [s.mask_path and s.mask_path.name for s in bad] == [f"b{i}{tail}" for i in range(3)]
    given, _ = find_bad(tmp_path / "scratch", None)
    assert [s.mask_path for s in given] == [s.mask_path for s in bad]


@pytest.mark.parametrize("folder", ["good", "."])
def test_masks_among_good_parts_are_refused(tmp_path: Path, folder: str) -> None:
    for i in range(8):
        part(tmp_path / folder / f"{i}.png", i)
        mask(tmp_path / folder / f"{i}_m.png", marked=i < 2)
    if folder == "good":
        part(tmp_path / "scratch" / "x.png", 99)
    with pytest.raises(DataError, match=r"(\d)_m.png:? is (named as )?the mask of \1.png.*, as are 8"):
        load_dataset(tmp_path)


def test_photographs_in_black_and_white_and_numbered_ones_are_parts(tmp_path: Path) -> None:
    for i in range(4):
        mask(tmp_path / "prints" / f"{i}.png", marked=i < 3)
        mask(tmp_path / "prints" / f"{i}_again.png")
        part(tmp_path / "photos" / f"{i}.png", i)
        part(tmp_path / "photos" / f"{i}_2.png", 20 + i)
        part(tmp_path / "photos" / f"{i}_top.png", 40 + i)
    assert len(find(tmp_path / "prints").train) == 8 and len(find(tmp_path / "photos").train) == 12


@pytest.mark.parametrize("folder", ["ground_truth", "masks", "test/masks"])
def test_masks_without_a_folder_for_their_kind_are_read_where_names_tell(tmp_path: Path, folder: str) -> None:
    for i in range(8):
        part(tmp_path / "train/good" / f"{i}.png", i)
    for i in range(3):
        part(tmp_path / "test/scratch" / f"{i}.png", 50 + i)
        mask(tmp_path / folder / f"{i}_mask.png")
    assert [s.mask_path and s.mask_path.name for s in find(tmp_path).test] == ["0_mask.png", "1_mask.png", "2_mask.png"]
    part(tmp_path / "test/crack/0.png", 60)
    assert any("0_mask.png may be the mask of 2 images" in p for p in find(tmp_path).problems)
