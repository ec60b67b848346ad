"""`lineside-train inspect`: everything that is wrong with a folder, told at once, and a picture of it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.console import run_app
from edge_runtime.errors import ConfigError, DataError
from training.commands.cli import app
from training.inspect.inspect import inspect_data, outline
from training.inspect.sheet import COLUMNS, WIDTH, draw_sheet, save_sheet

SHAPE = (60, 80)


def put(path: Path, seed: int, shape: tuple[int, ...] = SHAPE, low: int = 80, high: int = 120) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.random.default_rng(seed).integers(low, high, shape).astype(np.uint8))
    return path


def mask(path: Path, size: int = 12, shape: tuple[int, int] = SHAPE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.zeros(shape, np.uint8)
    picture[20 : 20 + size, 30 : 30 + size] = 255
    assert cv2.imwrite(str(path), picture)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "parts"
    for i in range(12):
        put(root / f"train/good/{i:02d}.png", i)
    for i in range(3):
        put(root / f"test/good/{i}.png", 30 + i)
        put(root / f"test/hole/{i}.png", 40 + i)
        mask(root / f"ground_truth/hole/{i}_mask.png")
    return root


def run(*args: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as e:
        run_app(app, ["inspect", *map(str, args)])
    out, err = capsys.readouterr()
    return int(e.value.code or 0), out, err


def test_a_sound_data_set_ends_with_0(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(data, capsys=capsys)
    assert code == 0 and "MVTec AD; 80x60, 18 gray, 8 bits" in out and err == ""
    assert "looked at: all 18 images can be read, no picture is there twice, the 3 masks fit their images." in out
    assert "Whether every good part is one, only you can see" in out and "nothing wrong" not in out
    rows = [line.split() for line in out.splitlines() if line.startswith(("train", "test"))]
    assert rows == [["train", "good", "12"], ["test", "good", "3"], ["test", "hole", "3", "3"]]


def copy_of_a_training_image(root: Path) -> str:
    (root / "test/good/copy.png").write_bytes((root / "train/good/03.png").read_bytes())
    return "copies across splits: figures would flatter"


def good_and_bad_at_once(root: Path) -> str:
    (root / "test/hole/0.png").write_bytes((root / "test/good/0.png").read_bytes())
    return "labelled good and bad"


def copy_within_the_split(root: Path) -> str:
    (root / "train/good/99.png").write_bytes((root / "train/good/03.png").read_bytes())
    return "copies within a split"


def empty_mask(root: Path) -> str:
    mask(root / "ground_truth/hole/1_mask.png", 0)
    return "empty masks: these parts count as images, not by their pixels"


def broken_mask(root: Path) -> str:
    (root / "ground_truth/hole/1_mask.png").write_bytes(b"x")
    return "masks that cannot be read"


def small_mask(root: Path) -> str:
    mask(root / "ground_truth/hole/1_mask.png", 4, (30, 40))
    return "masks of another size than their image"


def missing_mask(root: Path) -> str:
    (root / "ground_truth/hole/1_mask.png").unlink()
    return "bad images without a mask, where others have one"


def orphan(root: Path) -> str:
    (root / "test/hole/1.png").unlink()
    return "masks without an image"


def colour(root: Path) -> str:
    put(root / "train/good/05.png", 5, (*SHAPE, 3))
    return "gray and colour are mixed"


def depth(root: Path) -> str:
    cv2.imwrite(str(root / "train/good/05.png"), np.random.default_rng(5).integers(0, 4000, SHAPE).astype(np.uint16))
    return "depths are mixed"


@pytest.mark.parametrize(
    "spoil",
    [copy_of_a_training_image, good_and_bad_at_once, copy_within_the_split, empty_mask, broken_mask, small_mask, missing_mask, orphan,
     colour, depth],
)  # fmt: skip
def test_each_thing_that_is_wrong_is_found_and_nothing_else(data: Path, spoil: Callable[[Path], str]) -> None:
    what = spoil(data)
    found = inspect_data(data)
    assert [(f.what, len(f.items)) for f in found.summary.findings] == [(what, 1)]
    assert draw_sheet(found).shape[1] == WIDTH


def test_it_goes_on_past_unreadable_files_and_names_all_of_them(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(7):
        (data / f"train/good/{i:02d}.png").write_bytes(b"" if i % 2 else b"no image")
    empty_mask(data)
    code, out, err = run(data, "--out", tmp_path / "sheet.png", capsys=capsys)
    assert code == 1 and "7 × cannot be read" in out and all(f"{i:02d}.png" in out for i in range(7))
    assert "1 × empty masks" in out and ["train", "good", "5"] in [line.split() for line in out.splitlines()]
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] == WIDTH and "wrote" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["parts", "sheet.png"]


def test_rows_of_a_table_that_are_wrong_are_findings(tmp_path: Path) -> None:
    put(tmp_path / "a.png", 1)
    put(tmp_path / "b.png", 2)
    (tmp_path / "t.csv").write_text("path,label\na.png,good\nb.png,\nc.png,good\n")
    found = inspect_data(tmp_path)
    assert [(f.what, len(f.items)) for f in found.summary.findings] == [("the layout is broken", 2)]
    assert [c.images for c in found.summary.counts] == [1]


@pytest.mark.parametrize("folder", ["elsewhere/", "C:\\Users\\me\\"])
def test_a_table_whose_paths_lead_nowhere_says_so_once_and_where_the_images_are(tmp_path: Path, folder: str) -> None:
    for i in range(9):
        put(tmp_path / "img" / f"{i}.png", i)
    (tmp_path / "t.csv").write_text("path,label\n" + "".join(f"{folder}{i}.png,{'bad' if i > 6 else 'good'}\n" for i in range(9)))
    (found,) = [f.items for f in inspect_data(tmp_path).summary.findings if f.what == "the layout is broken"]
    assert len(found) == 1 and "9 of 9 images are not where the table says; t.csv line 2" in found[0]
    assert "(as img/0.png, which is there)" in found[0]


def test_json_is_one_object_and_nothing_else(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "train/good/00.png").write_bytes(b"")
    code, out, _ = run(data, "--json", capsys=capsys)
    summary = json.loads(out)
    assert code == 1 and out.count("\n") == 1
    assert summary["counts"][0] == {"split": "train", "kind": "good", "images": 11, "masks": 0, "empty_masks": 0}
    assert (summary["sizes_wh"], summary["gray"], summary["colour"], summary["bits"]) == ([[80, 60]], 17, 0, [8])
    assert summary["findings"][0]["what"] == "cannot be read" and "00.png" in summary["findings"][0]["items"][0]


def test_bad_images_and_their_masks_are_looked_at_too(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "bad/dent/a.png", 70)
    mask(tmp_path / "masks/a.png", 0)
    mask(tmp_path / "masks/z.png")
    code, out, _ = run(data, "--bad", tmp_path / "bad", "--masks", tmp_path / "masks", capsys=capsys)
    assert code == 1 and "1 × masks without an image" in out
    assert ["bad", "dent", "1", "1", "1"] in [line.split() for line in out.splitlines()]
    with pytest.raises(ConfigError, match="--bad"):
        inspect_data(data, masks=tmp_path / "masks")


def test_a_good_image_much_brighter_than_the_others_is_remarked_but_no_finding(data: Path) -> None:
    put(data / "train/good/07.png", 7, low=200, high=240)
    found = inspect_data(data)
    assert not found.summary.findings and len(found.summary.remarks) == 1
    assert "1 good images" in found.summary.remarks[0] and "07.png" in found.summary.remarks[0]


def test_pictures_that_a_phone_asks_to_be_turned_are_remarked_and_taken_as_they_are_stored(tmp_path: Path) -> None:
    plain = put(tmp_path / "a.jpg", 1).read_bytes()
    # A JPEG's APP1 segment: big-endian TIFF with one entry, tag 0x0112 (orientation), a short of value 6 (a quarter turn clockwise).
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    (tmp_path / "b.jpg").write_bytes(plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:])
    found = inspect_data(tmp_path).summary
    assert found.sizes_wh == [SHAPE[1::-1]]
    assert f"1 files (the first: {tmp_path}/b.jpg) ask by EXIF to be shown turned" in found.remarks[0]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("{tmp}/absent",), 66, "found nothing"),
        (("{data}", "--out", "{tmp}/sheet.gif"), 78, ".png or .jpg, found sheet.gif"),
        (("{data}", "--out", "{tmp}/no/sheet.png"), 78, "existing folder"),
        (("{data}", "--masks", "{tmp}"), 78, "--bad"),
        (("{data}", "--out", "{tmp}/folder.png"), 78, "expected a file, found a folder"),
    ],
)
def test_a_mistake_is_one_message(
    data: Path, tmp_path: Path, args: tuple[str, ...], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.png").mkdir()
    found, _, err = run(*(a.format(data=data, tmp=tmp_path) for a in args), capsys=capsys)
    assert found == code and message in err and "Traceback" not in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.png", "parts"]


def test_it_needs_no_torch(data: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from training.commands.cli import main; main()"
    root = Path(__file__).resolve().parents[4]
    done = subprocess.run([sys.executable, "-c", code, "inspect", str(data)], capture_output=True, text=True, timeout=60, cwd=root)
    assert done.returncode == 0, done.stderr


def test_the_sheet_shows_every_kind_and_outlines_the_defect(data: Path, tmp_path: Path) -> None:
    def reds(page: np.ndarray) -> int:
        left = page[:, 220:].astype(int)  # beside the names of the kinds
        return int(((left[..., 2] > 160) & (left[..., 0] < 100) & (left[..., 1] < 90)).sum())

    found = inspect_data(data)
    page = draw_sheet(found)
    assert reds(page) > 200
    one = page.shape[0]
    for i in range(20):
        put(data / f"test/dent/{i}.png", 100 + i)
    for i in range(20):
        put(data / f"test/kind{i:02d}/0.png", 200 + i)
    taller = draw_sheet(inspect_data(data))
    assert taller.shape[0] > one + 12 * 100 and len(inspect_data(data).summary.counts) == 24
    (data / "ground_truth/hole").rename(tmp_path / "elsewhere")
    assert reds(draw_sheet(inspect_data(data))) < reds(page) / 2
    for path in (data / "test/hole").iterdir():
        path.unlink()  # a file that goes away between looking and drawing leaves an empty place
    save_sheet(found, tmp_path / "sheet.jpg")
    assert cv2.imread(str(tmp_path / "sheet.jpg")).shape == page.shape and COLUMNS == 8


def test_deep_images_are_drawn_at_their_own_depth(tmp_path: Path) -> None:
    for i in range(2):
        image = np.random.default_rng(i).integers(1000, 4000, SHAPE).astype(np.uint16)
        (tmp_path / "d").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"d/{i}.png"), image)
    found = inspect_data(tmp_path / "d")
    assert found.summary.bits == [12]
    cell = draw_sheet(found)[140:200, 240:360]
    assert 100 < cell.mean() < 220


def test_a_defect_smaller_than_a_pixel_of_the_sheet_keeps_its_outline() -> None:
    picture = np.zeros((1000, 1000), np.uint8)
    picture[500, 500] = 1
    assert len(outline(picture, (100, 100))) == 1 and outline(np.zeros_like(picture), (100, 100)) == []


def test_nothing_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected images"):
        inspect_data(tmp_path)
