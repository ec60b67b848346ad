"""What is not read is counted and named."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.errors import DataError
from training.data.dataset import load_dataset
from training.data.left_out import pages_in, say_left_out
from training.inspect.inspect import inspect_data


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (40, 48), dtype=np.uint8)


def test_formats_links_and_names_without_a_suffix_are_counted(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), picture())
    for name in ("a.gif", "sub/b.GIF", "c.heic", ".hidden.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"GIF89a")
    (tmp_path / "gone.png").symlink_to("/nowhere/7.png")
    (tmp_path / "bare").write_bytes((tmp_path / "0.png").read_bytes())
    (tmp_path / "LICENSE").write_text("text")
    notes = say_left_out(tmp_path)
    assert any("2 .gif, 1 .heic" in n for n in notes) and any("1 links that lead to nothing" in n and "/nowhere/7.png" in n for n in notes)
    assert any("1 pictures whose names end in no suffix" in n and "bare" in n for n in notes) and len(notes) == 3
    assert set(notes) <= set(load_dataset(tmp_path).notes) and set(notes) <= set(inspect_data(tmp_path).summary.remarks)


def test_what_lies_beside_pictures_and_is_none_is_counted_and_what_a_system_puts_there_is_not(tmp_path: Path) -> None:
    for folder in ("good", "scratch"):
        for i in range(6):
            (tmp_path / folder).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / folder / f"{folder}{i}.png"), picture(i + 10 * len(folder)))
    assert not any("not pictures" in n for n in load_dataset(tmp_path).notes)
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "README.md"):
        (tmp_path / "good" / name).write_text("x")
    assert not any("not pictures" in n for n in load_dataset(tmp_path).notes)
    for name in ("good/notes.txt", "scratch/lot 7.docx", "good/todo", "good/more.txt"):
        (tmp_path / name).write_text("remember the lamp")
    said = f"left out, as they are not pictures: 2 .txt, 1 without a suffix, 1 .docx (the first: {tmp_path / 'good' / 'more.txt'})"
    assert said in load_dataset(tmp_path).notes and said in inspect_data(tmp_path).summary.remarks


def test_further_pages_of_a_file_are_said(tmp_path: Path) -> None:
    assert cv2.imwritemulti(str(tmp_path / "many.tif"), [picture(i) for i in range(3)])
    cv2.imwrite(str(tmp_path / "one.tif"), picture(9))
    cv2.imwrite(str(tmp_path / "one.png"), picture(10))
    assert [pages_in(tmp_path / n) for n in ("many.tif", "one.tif", "one.png")] == [3, 1, 1]
    assert any("1 files hold further pictures" in n and "many.tif, 3 pages" in n for n in load_dataset(tmp_path).notes)
    assert any("many.tif, 3 pages" in r for r in inspect_data(tmp_path).summary.remarks)


def test_a_file_that_only_looks_like_a_tiff_has_one_page(tmp_path: Path) -> None:
    (tmp_path / "x.tif").write_bytes(b"II*\0\xff\xff\xff\x0f")
    assert pages_in(tmp_path / "x.tif") == 1


def test_an_animated_png_is_several_pictures(tmp_path: Path) -> None:
    raw = cv2.imencode(".png", picture())[1].tobytes()
    (tmp_path / "a.png").write_bytes(raw[:33] + b"\0\0\0\x08acTL\0\0\0\x04\0\0\0\0" + bytes(4) + raw[33:])
    assert pages_in(tmp_path / "a.png") == 4


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("bad.txt", "03.png\n04.png\n"),
        ("labels.yaml", "03.png: NG\n"),
        ("meta.jsonl", '{"file_name": "03.png", "label": "NG"}\n'),
        ("labels.json", '{"03.png": "NG"}'),
        ("instances_default.json", '{"images": [{"file_na'),
        ("results.tsv", "file\tresult\n03.png\tNG\n"),
    ],
)
def test_what_may_say_which_images_are_bad_is_refused_by_name(tmp_path: Path, name: str, text: str) -> None:
    for i in range(12):
        cv2.imwrite(str(tmp_path / f"{i:02d}.png"), np.random.default_rng(i).integers(0, 255, (64, 64), dtype=np.uint8))
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=name):
        load_dataset(tmp_path)


def test_bad_images_inside_a_folder_of_good_ones_are_refused(tmp_path: Path) -> None:
    for folder in ("good", "good/NG"):
        (tmp_path / folder).mkdir()
        for i in range(8):
            picture = np.random.default_rng([i, len(folder)]).integers(0, 255, (64, 64), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / folder / f"{i:02d}.png"), picture)
    with pytest.raises(DataError, match="bad images in a folder of good ones"):
        load_dataset(tmp_path)
