"""What a table's labels mean, in any words and polarity."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.errors import DataError
from training.data.dataset import load_dataset
from training.data.formats import find
from training.data.labels import understand
from training.inspect.inspect import inspect_data


def lay(root: Path, header: str, *rows: str, n: int = 6) -> Path:
    for i in range(n):
        cv2.imwrite(str(root / f"{i}.png"), np.random.default_rng(i).integers(0, 200, (40, 48), dtype=np.uint8))
    (root / "parts.csv").write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("good", "bad"), [("PASS", "FAIL"), ("iO", "niO"), ("Gut", "Ausschuss"), ("合格", "不合格"), ("0", "1"), ("0.0", "1.0")]
)
def test_words_are_understood_and_shown_back(tmp_path: Path, good: str, bad: str) -> None:
    found = find(lay(tmp_path, "path,label", *(f"{i}.png,{bad if i == 3 else good}" for i in range(6))))
    assert [s.path.name for s in found.test if not s.is_good] == ["3.png"] and not found.problems
    assert any(f"good: {good}, 5; bad: {bad}, 1" in n for n in found.notes)


@pytest.mark.parametrize(("column", "one_is_good"), [("good", True), ("is_ok", True), ("bad", False), ("defective", False)])
def test_a_column_that_states_its_polarity(tmp_path: Path, column: str, one_is_good: bool) -> None:
    found = find(lay(tmp_path, f"path,{column}", *(f"{i}.png,{int((i != 3) == one_is_good)}" for i in range(6))))
    assert [s.path.name for s in found.test if not s.is_good] == ["3.png"]


def test_zero_and_one_the_other_way_round_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"by 0 = good only 1 of 6 images would be good.*Name the column good"):
        find(lay(tmp_path, "path,label", *(f"{i}.png,{int(i != 3)}" for i in range(6))))


def test_words_of_no_known_language_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no label that says good \(5 × hyv, 1 × huono\)\. Known words.*good, ok.*images/names.py"):
        find(lay(tmp_path, "path,label", *(f"{i}.png,{'huono' if i == 3 else 'hyv'}" for i in range(6))))


@pytest.mark.parametrize(
    ("label", "message"),
    [("unknown", "leaves open"), ("?", "leaves open"), ("goood", "slip of the pen: write good"), ("0.33", "decide from which value"),
     ('"0,33"', "a decimal comma"), ("-1", "leave open which is good"), ("0,33", "is 0,33 a number with a decimal comma")],
)  # fmt: skip
def test_labels_that_leave_it_open_are_refused_by_their_line(tmp_path: Path, label: str, message: str) -> None:
    lay(tmp_path, "path,label", "0.png,good", f"1.png,{label}")
    with pytest.raises(DataError, match=message):
        if problems := find(tmp_path).problems:
            assert all("line 3" in p for p in problems)
            raise DataError(problems[0])


def test_few_that_are_called_good_are_questioned(tmp_path: Path) -> None:
    found = find(lay(tmp_path, "path,label", *(f"{i}.png,{'PASS' if i == 3 else 'FAIL'}" for i in range(6))))
    assert any("only 1 of 6 images are called good" in n for n in found.notes)


def many(tmp_path: Path, good: str, bad: str, header: str = "path,label") -> Path:
    """Two images called `good` and nine called `bad`."""
    return lay(tmp_path, header, *(f"{i}.png,{good if i in (3, 7) else bad}" for i in range(11)), n=11)


@pytest.mark.parametrize(("good", "bad"), [("good", "bad"), ("PASS", "FAIL"), ("i.O.", "n.i.O.")])
def test_a_table_whose_two_words_may_be_swapped_is_not_learnt_from(tmp_path: Path, good: str, bad: str) -> None:
    table = many(tmp_path, good, bad)
    with pytest.raises(DataError, match=rf"calls only 2 of 11 .*good \({good}: 3.png, …\) and 9 bad \({bad}: 0.png.*swapped.*column split"):
        load_dataset(table)
    findings = {f.what: f.items for f in inspect_data(table).summary.findings}
    assert "are the two words swapped?" in findings["good and bad may be swapped: not learnt from"][0]
    with pytest.raises(DataError, match="are the two words swapped"):
        load_dataset(many(tmp_path, "1", "0", "path,passed"))


def test_a_table_with_many_bad_ones_is_learnt_from_where_more_than_two_words_say_so(tmp_path: Path) -> None:
    for header, good, bad in (
        ("path,label", "good", "scratch"), ("path,label,split", "good,train", "bad,test"), ("path,label,split", "good,train", "bad,bad")
    ):  # fmt: skip
        assert load_dataset(many(tmp_path, good, bad, header)).train
    with pytest.raises(DataError, match=r"2 of 11 of the images of its split train good .*give the bad ones the split bad or test"):
        load_dataset(many(tmp_path, "good,train", "bad,train", "path,label,split"))


@pytest.mark.parametrize("where", ["{}_{}.png", "{}/{}.png"])
def test_names_that_agree_with_the_table_make_two_words_believed(tmp_path: Path, where: str) -> None:
    names = [where.format("OK" if i in (3, 7) else "NG", i) for i in range(11)]
    many(tmp_path, "good", "bad")
    for i, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{i}.png").rename(tmp_path / name)
    (tmp_path / "parts.csv").write_text("\n".join(("path,label", *(f"{n},{'good' if 'OK' in n else 'bad'}" for n in names))))
    assert load_dataset(tmp_path / "parts.csv").train


def test_mostly_bad_parts_may_be_judged_by(tmp_path: Path) -> None:
    spec = load_dataset(many(tmp_path, "good,train", "bad,test", "path,label,split")).spec
    assert len(load_dataset(many(tmp_path, "good", "bad"), spec=spec).test) == 9


def test_kinds_stay_kinds_beside_words() -> None:
    assert understand(["OK", "scratch", "NG", "0", "1", "7"]).kinds == ("good", "scratch", "bad", "good", "bad", "7")


@pytest.mark.parametrize(
    "header",
    ["Datei;Ergebnis", "file,class", "image\tresult", "filename,category", "img,verdict", "Image Path,Status", "File_Name,target",
     "Archivo;Categoría", "Fichier;Résultat", "Ścieżka;Wynik", "图片,判定", "bild,klasse"],
)  # fmt: skip
def test_a_table_with_the_headers_that_people_write_is_read(tmp_path: Path, header: str) -> None:
    delimiter = next(c for c in ";,\t" if c in header)
    found = find(lay(tmp_path, header, *(f"{i}.png{delimiter}{'bad' if i == 3 else 'good'}" for i in range(6))))
    assert [s.path.name for s in found.test if not s.is_good] == ["3.png"] and not found.problems
    path, label = header.lower().split(delimiter)
    assert f"parts.csv: {path} is read as the path, {label} as the label" in found.notes


def test_a_log_with_a_file_and_a_status_that_names_no_image_is_no_data_set(tmp_path: Path) -> None:
    for folder in ("good", "NG"):
        (tmp_path / folder).mkdir()
        lay(tmp_path / folder, "x")
        (tmp_path / folder / "parts.csv").unlink()
    (tmp_path / "log.csv").write_text("file,status\nboot.log,ok\n")
    assert len([s for s in find(tmp_path).samples if not s.is_good]) == 6


@pytest.mark.parametrize("header", ["Stück;Ergebnis", "part,class", "image\tweight"])
def test_a_table_that_names_the_images_in_other_columns_is_not_passed_over(tmp_path: Path, header: str) -> None:
    delimiter = next(c for c in ";,\t" if c in header)
    lay(tmp_path, header, *(f"{i}.png{delimiter}{'bad' if i == 3 else 'good'}" for i in range(6)))
    with pytest.raises(DataError, match="all images beside it would count as good"):
        find(tmp_path)


def test_a_list_in_a_text_file_is_not_passed_over(tmp_path: Path) -> None:
    lay(tmp_path, "path,label", *(f"{i}.png,good" for i in range(6)))
    (tmp_path / "parts.csv").rename(tmp_path / "list.txt")
    with pytest.raises(DataError, match=r"list\.txt: names images beside it"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("header", "good", "bad"),
    [("path,label,bad", "good,0", "good,1"), ("path,ok,ng", "1,0", "1,1"), ("path,label,verdict", "good,OK", "good,NG"),
     ("path,good,defective", "yes,no", "no,no")],
)  # fmt: skip
def test_columns_that_contradict_each_other_are_named_by_their_row(tmp_path: Path, header: str, good: str, bad: str) -> None:
    found = find(lay(tmp_path, header, *(f"{i}.png,{bad if i == 3 else good}" for i in range(6))))
    assert len(found.problems) == 1 and "line 5: 3.png" in found.problems[0] and "correct one of the two" in found.problems[0]


def test_a_further_column_that_speaks_well_of_the_picture_of_a_bad_part_is_no_contradiction(tmp_path: Path) -> None:
    found = find(lay(tmp_path, "path,label,status", *(f"{i}.png,{'scratch' if i == 3 else 'good'},ok" for i in range(6))))
    assert not found.problems and [s.kind for s in found.test if not s.is_good] == ["scratch"]


@pytest.mark.parametrize("beside", ["good", ""])
def test_a_column_that_is_there_twice_is_refused(tmp_path: Path, beside: str) -> None:
    (tmp_path / beside).mkdir(exist_ok=True)
    lay(tmp_path / beside, "x").joinpath("parts.csv").rename(tmp_path / "parts.csv")
    (tmp_path / "parts.csv").write_text("path,label,label\n" + "".join(f"{beside or '.'}/{i}.png,good,bad\n" for i in range(6)))
    with pytest.raises(DataError, match="expected each column once, found label 2 times"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("label", "message"),
    [("-OK", "leaves open"), ("OK?", "leaves open"), ("OK (reworked)", "says OK and more"),
     ("≠OK", ""), ("!good", ""), ("nicht bestanden", "")],
)  # fmt: skip
def test_labels_that_deny_good_are_bad_or_refused(tmp_path: Path, label: str, message: str) -> None:
    found = find(lay(tmp_path, "path,label", *(f"{i}.png,{label if i == 3 else 'good'}" for i in range(6))))
    assert sum(s.is_good for s in found.samples) == 5
    assert message in found.problems[0] if message else [s.kind for s in found.test if not s.is_good] == ["bad"]


def test_one_image_under_two_spellings_of_its_path_is_there_twice(tmp_path: Path) -> None:
    found = find(lay(tmp_path, "path,label", *(f"{i}.png,good" for i in range(5)), "5.png,scratch", f"../{tmp_path.name}/5.png,good"))
    assert len(found.problems) == 1 and "stands in line 7 already" in found.problems[0]


def test_paths_from_the_root_are_the_images_of_a_folder_that_is_given_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(tmp_path, "path,label", *(f"{tmp_path}/{i}.png,good" for i in range(6)))
    monkeypatch.chdir(tmp_path.parent)
    assert not any("left out" in n for n in find(Path(tmp_path.name)).notes)


@pytest.mark.parametrize(
    ("file", "text"),
    [("a.csv", "part,defect\np4,scratch\n"), ("a.csv", "part,remark\np4,scratch\np3,dent\n"),
     ("a.csv", "Teilenummer;Fehler\n0004;Kratzer\n"),
     ("a.csv", "nr,text\n3,x\n"), ("a.txt", "p3\np4\n"), ("a.txt", "3\n"), ("a.tsv", "part\tfault\np3\tx\n")],
)  # fmt: skip
def test_a_short_list_of_rejects_by_stem_or_number_is_not_passed_over(tmp_path: Path, file: str, text: str) -> None:
    lay(tmp_path, "x").joinpath("parts.csv").unlink()
    for path in tmp_path.iterdir():
        path.rename(tmp_path / f"p{path.name}")
    (tmp_path / file).write_text(text)
    with pytest.raises(DataError, match=rf"{file}: (expected a header|names)"):
        find(tmp_path)


def test_text_that_speaks_of_something_else_is_passed_over(tmp_path: Path) -> None:
    lay(tmp_path, "time,lamp", "09:00,21.5", "09:01,21.4")
    (tmp_path / "log.csv").write_text("nr,lamp\n1,21.5\n2,21.4\n")
    (tmp_path / "README.txt").write_text("Taken in May.\n2 lamps\n")
    assert len(find(tmp_path).train) == 6
