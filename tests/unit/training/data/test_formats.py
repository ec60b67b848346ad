"""Which layout a folder has, and what its images are then: tiny trees of real files, one a format."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.errors import DataError
from training.data.dataset import load_dataset
from training.data.formats import find
from training.data.layout import Found, Sample
from training.data.tables import names_images

SHAPE = (40, 48)


def image(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 200, SHAPE, dtype=np.uint8))
    return path


def mask(path: Path, filled: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.zeros(SHAPE, np.uint8)
    picture[5:9, 5:9] = 1 if filled else 0  # VisA's masks count kinds from 1 up; nothing says that a mark is 255
    assert cv2.imwrite(str(path), picture)
    return path


def shown(samples: tuple[Sample, ...]) -> list[tuple[str, str, bool, str | None]]:
    return [(s.path.name, s.kind, s.is_good, s.mask_path and s.mask_path.name) for s in samples]


def check(found: Found) -> None:
    """What every reader promises."""
    assert all(s.is_good and s.split == "train" and s.mask_path is None for s in found.train)
    assert all(s.split == "test" for s in found.test)
    assert all(not s.is_good and s.split == "train" for s in found.bad)
    assert not found.problems
    assert max(Counter(s.path for s in found.samples).values()) == 1


@pytest.fixture
def visa(tmp_path: Path) -> Path:
    """The folder of all objects, with two of them."""
    rows = ["object,split,label,image,mask"]
    for name in ("candle", "pcb1"):
        for i in range(7):
            image(tmp_path / name / f"Data/Images/Normal/{i:04d}.JPG", i)
            rows.append(f"{name},{'test' if i == 2 else 'train'},normal,{name}/Data/Images/Normal/{i:04d}.JPG,")
        for i in range(2):
            image(tmp_path / name / f"Data/Images/Anomaly/{i:03d}.JPG", 20 + i)
            mask(tmp_path / name / f"Data/Masks/Anomaly/{i:03d}.png")
            rows.append(f"{name},test,anomaly,{name}/Data/Images/Anomaly/{i:03d}.JPG,{name}/Data/Masks/Anomaly/{i:03d}.png")
        (tmp_path / name / "image_anno.csv").write_text(
            f"image,label,mask\n{name}/Data/Images/Normal/0000.JPG,normal,\n{name}/Data/Images/Anomaly/000.JPG,wax melded,x\n"
            f'{name}/Data/Images/Anomaly/001.JPG,"bent, melt",x\n'
        )
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv" / "1cls.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_visa_is_split_by_its_table_and_names_its_kinds(visa: Path) -> None:
    found = find(visa / "candle")
    check(found)
    assert found.format == "VisA" and [s.path.name for s in found.train] == [f"{i:04d}.JPG" for i in (0, 1, 3, 4, 5, 6)]
    assert shown(found.test) == [
        ("0002.JPG", "good", True, None), ("000.JPG", "wax melded", False, "000.png"), ("001.JPG", "bent + melt", False, "001.png"),
    ]  # fmt: skip
    assert load_dataset(visa / "pcb1").spec.channels == 1


def test_visa_without_its_table_is_split_by_name_and_says_so(visa: Path) -> None:
    (visa / "split_csv" / "1cls.csv").unlink()
    (visa / "candle" / "image_anno.csv").unlink()
    found = find(visa / "candle")
    check(found)
    assert [s.path.name for s in found.test if s.is_good] == ["0004.JPG"] and {s.kind for s in found.test} == {"good", "bad"}
    assert any("every fifth" in n for n in found.notes) and find(visa / "candle") == found


def test_visas_table_and_files_must_agree(visa: Path) -> None:
    (visa / "candle/Data/Images/Normal/0003.JPG").unlink()
    image(visa / "candle/Data/Images/Normal/0099.JPG")
    found = find(visa / "candle")
    assert len(found.problems) == 1 and "line 5" in found.problems[0] and "0003.JPG" in found.problems[0]
    assert any("1 images" in n and "0099.JPG" in n for n in found.notes)
    with pytest.raises(DataError, match="line 5"):
        load_dataset(visa / "candle")


def test_a_folder_of_several_products_says_which_ones(visa: Path) -> None:
    with pytest.raises(DataError, match=r"2 data sets.*candle, pcb1"):
        find(visa)


@pytest.mark.parametrize(("picture", "truth"), [("bmp", "png"), ("png", "png"), ("bmp", "bmp")])
def test_btad_calls_good_ok_and_bad_ko(tmp_path: Path, picture: str, truth: str) -> None:
    for i in range(3):
        image(tmp_path / f"train/ok/{i:04d}.{picture}", i)
    image(tmp_path / f"test/ok/0000.{picture}", 10)
    image(tmp_path / f"test/ko/0000.{picture}", 11)
    mask(tmp_path / f"ground_truth/ko/0000.{truth}")
    found = find(tmp_path)
    check(found)
    assert found.format == "BTAD" and len(found.train) == 3
    assert shown(found.test) == [(f"0000.{picture}", "good", True, None), (f"0000.{picture}", "ko", False, f"0000.{truth}")]
    assert len(load_dataset(tmp_path).test) == 2


@pytest.fixture
def ksdd2(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        for i in range(4):
            image(tmp_path / split / f"1000{i}.png", i + 10 * len(split))
            mask(tmp_path / split / f"1000{i}_GT.png", filled=i == 1)
    return tmp_path


def test_kolektorsdd2_is_good_where_the_mask_is_empty_and_never_learns_bad_ones(ksdd2: Path) -> None:
    found = find(ksdd2)
    check(found)
    assert found.format == "KolektorSDD2" and [s.path.name for s in found.train] == ["10000.png", "10002.png", "10003.png"]
    assert shown(found.bad) == [("10001.png", "defect", False, "10001_GT.png")]
    assert [s.is_good for s in found.test] == [True, False, True, True]
    data = load_dataset(ksdd2)
    assert len(data.train) == len(data.sha256) == data.record.n_good == 3 and data.bad == found.bad
    assert data.scored == data.test, "the training split's bad images are no part of the test"
    against = load_dataset(ksdd2, spec=data.spec)
    assert against.test == data.test and against.bad == ()


def test_kolektorsdd2_without_a_mask_is_refused(ksdd2: Path) -> None:
    (ksdd2 / "train/10002_GT.png").unlink()
    (ksdd2 / "test/10003.png").unlink()
    (ksdd2 / "test/10001_GT.png").write_bytes(b"no image")
    with pytest.raises(DataError) as e:
        load_dataset(ksdd2)
    assert "3 things" in str(e.value)
    for name in ("10002_GT.png", "10003_GT.png: belongs to no image", "10001_GT.png: expected an image"):
        assert name in str(e.value)


@pytest.mark.slow
def test_kolektorsdd_is_split_by_whole_items(tmp_path: Path) -> None:
    for item in range(1, 11):
        for part in range(3):
            image(tmp_path / f"kos{item:02d}" / f"Part{part}.jpg", item * 10 + part)
            mask(tmp_path / f"kos{item:02d}" / f"Part{part}_label.bmp", filled=part == item % 3)
    found = find(tmp_path)
    check(found)
    assert found.format == "KolektorSDD" and not found.bad
    assert {s.path.parent.name for s in found.test if s.is_good} == {"kos05", "kos10"} and len(found.train) == 16
    assert sum(not s.is_good for s in found.test) == 10 and any("no split" in n for n in found.notes)
    assert find(tmp_path) == found
    assert [s.path.resolve() for s in load_dataset(tmp_path).train] == [s.path.resolve() for s in found.train]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for i in range(6):
        image(tmp_path / f"images/{i}.png", i)
    mask(tmp_path / "masks/5.png")
    path = tmp_path / "parts.csv"
    path.write_text(
        "\ufeffPath,Label,Mask,Split,operator\nimages/0.png,good,,train,x\nimages/1.png,OK,,train\nimages\\2.png,0,,test,x\n"
        "images/3.png,dent,,train,x\n\nimages/4.png,1,,bad,x\nimages/5.png,dent,masks/5.png,test,x\n",
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize("by_folder", [True, False])
def test_a_table_says_what_each_image_is(table: Path, by_folder: bool) -> None:
    where = table.parent if by_folder else table
    found = find(where)
    check(found)
    assert shown(found.train) == [("0.png", "good", True, None), ("1.png", "good", True, None)]
    assert shown(found.bad) == [("3.png", "dent", False, None), ("4.png", "bad", False, None)]
    assert shown(found.test) == [("2.png", "good", True, None), ("5.png", "dent", False, "5.png")]
    data = load_dataset(where)
    assert data.format == "a table (parts.csv)" and len(data.train) == 2 and len(data.bad) == 2
    assert [data.name_of(s) for s in data.train] == ["images/0.png", "images/1.png"]
    assert load_dataset(data.path).train == data.train, "a run finds its data again by this path"


def test_a_table_with_semicolons_and_no_split_holds_every_fifth_good_image_back(tmp_path: Path) -> None:
    rows = ["label;path"]
    for i in range(11):
        image(tmp_path / f"{i:02d}.png", i)
        rows.insert(1, f"{'crack' if i == 3 else 'good'};{i:02d}.png")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    found = find(tmp_path / "t.csv")
    check(found)
    assert sorted(s.path.name for s in found.test) == ["03.png", "05.png", "10.png"] and len(found.train) == 8
    (tmp_path / "t.csv").write_text("label;path\ngood;00.png\ngood;01.png\n")
    assert not find(tmp_path / "t.csv").test, "all good: as a plain folder"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("images/1.png,,,train", "line 3: images/1.png has no label"),
        (",good,,train", "line 3: expected the path"),
        ("images/9.png,good,,train", r"line 3: expected an image at .*images/9.png, found nothing"),
        ("images/1.png,dent,masks/1.png,test", r"line 3: expected a mask at .*masks/1.png, found nothing"),
        ("images/1.png,good,,", "line 3: images/1.png: expected train, test or bad as its split, found ''"),
        ("images/1.png,good,,bad", "line 3: .* labelled good but stands in the split bad"),
        ("images/0.png,dent,,test", "line 3: images/0.png stands in line 2 already"),
        ("images/1.png,good,masks/5.png,train", "line 3: labelled good, but its mask .* marks a defect"),
        ("images/1.png", "line 3: images/1.png has no label"),
        ('"images/1.png,good', "line 3: expected a row of a CSV"),
        (f"{'a' * 300}.png,good,,train", "expected an image at"),
    ],
)
def test_a_wrong_row_is_named_by_its_line(table: Path, row: str, message: str) -> None:
    table.write_text(f"path,label,mask,split\nimages/0.png,good,,train\n{row}\n")
    with pytest.raises(DataError, match=message):
        load_dataset(table)


def test_a_table_that_contradicts_its_folders_is_refused_where_it_calls_a_part_good_and_said_where_it_calls_one_bad(tmp_path: Path) -> None:
    for folder in ("good", "NG"):
        for i in range(8):
            image(tmp_path / folder / f"{i}.png", i if folder == "good" else 50 + i)
    rows = [f"good/{i}.png,{'bad' if i == 7 else 'good'}" for i in range(8)] + [f"NG/{i}.png,bad" for i in range(8)]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["path,label", *rows]))
    data = load_dataset(table)
    assert "1 image that the table calls bad lies in a folder called good: the table is believed (the first: good/7.png)" in str(data.notes)
    table.write_text("\n".join(["path,label", *rows[:-1], "NG/7.png,good"]))
    with pytest.raises(DataError, match=r"line 17: NG/7.png is labelled good and lies in a folder that says otherwise; correct one"):
        load_dataset(table)


def test_a_table_of_another_product_s_images_says_nothing_of_those_of_the_same_name(tmp_path: Path) -> None:
    for folder in ("a/good", "a/NG", "b"):
        for i in range(8):
            image(tmp_path / folder / f"{i}.png", i)
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["filename,class", *(f"a/{k}/{i}.png,{k}" for k in ("good", "NG") for i in range(8))]))
    assert not names_images(table, sorted((tmp_path / "b").iterdir()))
    assert names_images(table, sorted((tmp_path / "a" / "NG").iterdir()))


def test_of_many_wrong_rows_five_are_named(table: Path) -> None:
    table.write_text("path,label\n" + "".join(f"images/{i}.png,\n" for i in range(6)) + "images/absent.png,good\n")
    with pytest.raises(DataError) as e:
        load_dataset(table)
    assert "7 things" in str(e.value) and str(e.value).count("no label") == 5 and "2 more" in str(e.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"part,label\nimages/0.png,good\n",
            r"found part,label: path is missing. Understood as the path: path, .*, bild, .*as the label: label, ",
        ),
        (
            b"image,class,status\nimages/0.png,good,good\n",
            "one column that says good or bad, found class and status; call the one that is meant",
        ),
        (b"filename,class,xmin,ymin,xmax,ymax\nimages/0.png,hole,1,2,3,4\n", "a table of places on images; export it as COCO"),
        (b"object,split,label,image,mask\npcb,train,normal,images/0.png,\n", "is VisA's table of all its objects; give the folder of one"),
        (b"images/0.png,good,,train\n", "path is missing"),
        (b"", "found nothing"),
        (b"path,label\nimages/0.png,gro\xdf\n", "UTF-8"),
        (b"path,label,split\nimages/0.png,dent,train\n", "good images to learn from"),
        (b"path,label\n", "found none"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(table: Path, content: bytes, message: str) -> None:
    table.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_dataset(table)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label\n0.png,gr\u00fcn\n".encode("cp1252"), "UTF-8"),
        ("path,label\n0.png,dent\n".encode("utf-16"), "UTF-8"),
        (b'path,label\n"0.png,dent\n', "expected a row of a CSV"),
        (b"filename,label\n0.png,dent\n", "expected good images to learn from, found no label that says good"),
        (b"part,label\n0.png,dent\n", "path is missing. Understood.* Without it, all images beside it would count as good"),
        (b"filename,label\n7.png,dent\n", "names none of the images beside it"),
    ],
)
def test_images_are_never_learnt_as_good_because_the_table_beside_them_is_unreadable(tmp_path: Path, content: bytes, message: str) -> None:
    image(tmp_path / "0.png")
    image(tmp_path / "1.png", 1)
    (tmp_path / "l.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        find(tmp_path)


def test_a_table_is_found_whatever_its_suffix_delimiter_and_quotes(tmp_path: Path) -> None:
    image(tmp_path / "0.png")
    image(tmp_path / "1.png", 1)
    (tmp_path / "LABELS.CSV").write_text('"path"\t"label"\n0.png\tgood\n1.png\tdent\n')
    found = find(tmp_path)
    assert found.format == "a table (LABELS.CSV)" and len(found.train) == 1 and shown(found.test) == [("1.png", "dent", False, None)]


def test_two_tables_or_two_layouts_are_ambiguous(table: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_bytes(table.read_bytes())
    with pytest.raises(DataError, match=r"2 tables.*other\.csv, parts\.csv"):
        find(tmp_path)
    image(tmp_path / "d/train/good/0.png")
    image(tmp_path / "d/train/ok/0.png")
    with pytest.raises(DataError, match=r"d/train: expected one folder of good images, found good, ok"):
        load_dataset(tmp_path / "d")
    image(tmp_path / "e/train/good/0.png")
    image(tmp_path / "e/Data/Images/Normal/0.png")
    with pytest.raises(DataError, match=r"2 layouts.*VisA \(Data/Images/Normal.*MVTec AD"):
        find(tmp_path / "e")


def test_a_table_wins_over_the_folders_beside_it(table: Path, tmp_path: Path) -> None:
    image(tmp_path / "train/good/0.png")
    assert find(tmp_path).format == "a table (parts.csv)"
    (tmp_path / "notes.csv").write_text("date,shift\n")
    assert find(tmp_path).format == "a table (parts.csv)"


def test_half_a_layout_says_what_was_expected_and_found(tmp_path: Path) -> None:
    image(tmp_path / "a/train/0.png")
    with pytest.raises(DataError, match=r"train/good.*found the folders train; images directly in .*train: move the good ones"):
        find(tmp_path / "a")
    image(tmp_path / "b/Data/Images/Anomaly/0.png")
    with pytest.raises(DataError, match=r"Data/Images/Normal.*found the folders Data"):
        find(tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/list.csv").write_text("file,class\n")
    with pytest.raises(DataError, match=r"columns path,label; found list.csv with the columns file,class"):
        find(tmp_path / "c")
    (tmp_path / "d/train/good").mkdir(parents=True)
    with pytest.raises(DataError, match="MVTec AD, found none"):
        find(tmp_path / "d")


def test_mvtecs_further_training_folders_are_never_learnt_as_good(tmp_path: Path) -> None:
    for i in range(2):
        image(tmp_path / f"train/good/{i}.png", i)
    image(tmp_path / "train/bad/7.png", 7)
    image(tmp_path / "test/hole/0.png", 9)
    mask(tmp_path / "ground_truth/hole/0_mask.png")
    mask(tmp_path / "ground_truth/hole/0.bmp", filled=False)
    image(tmp_path / "stray.png")
    found = find(tmp_path)
    check(found)
    assert found.format == "MVTec AD" and shown(found.bad) == [("7.png", "bad", False, None)]
    assert shown(found.test) == [("0.png", "hole", False, "0_mask.png")]
    assert any("stray.png" in n for n in found.notes) and "never learnt as good" in found.sentence


def test_good_images_under_another_spelling_are_good(tmp_path: Path) -> None:
    for name in ("train/good/0.png", "train/good/1.png", "test/Good/2.png", "test/hole/3.png"):
        image(tmp_path / name, int(name[-5]))
    found = find(tmp_path)
    check(found)
    assert [(s.path.name, s.is_good) for s in found.test] == [("2.png", True), ("3.png", False)]


def test_a_plain_folder_is_all_good(tmp_path: Path) -> None:
    image(tmp_path / "b.tif", 1)
    image(tmp_path / "a.png", 2)
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "log.csv").write_text("date,shift\n")
    found = find(tmp_path)
    check(found)
    assert found.notes[0] == "log.csv (columns date,shift) says nothing about images; it is left out"
    assert "1 images are hidden" in found.notes[1] and len(found.notes) == 2
    image(tmp_path / "more/c.png", 3)
    assert any("left out: 1 images belong to no part of this layout" in n and "more/c.png" in n for n in find(tmp_path).notes)
    assert [s.path.name for s in found.train] == ["a.png", "b.tif"] and not found.test
    assert load_dataset(tmp_path).notes[0] == "the data is a plain folder of good images: 2 good images to learn from"
