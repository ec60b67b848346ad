"""Data sets that a table describes: a CSV of path,label,mask,split, and VisA with its split_csv/1cls.csv and image_anno.csv."""

import codecs
import csv
import glob
import io
import itertools
import os
import re
import zipfile
import zlib
from pathlib import Path
from urllib.parse import unquote

from edge_runtime.errors import DataError
from edge_runtime.images.names import says_good
from training.data.folders import say_words
from training.data.headers import columns_of
from training.data.labels import LABEL, contradiction, understand
from training.data.layout import BAD, GOOD, LISTED, TEST_EVERY, Found, Sample, images_in, pair_masks, say_orphans
from training.data.masks import marked
from training.data.names import word_in

SPLITS = ("train", "test", "bad")
_SPLIT_WORDS = {"training": "train", "val": "test", "valid": "test", "validation": "test", "testing": "test"}
_MOST_TEXT = 1 << 20
_UPLOADED = re.compile(r"[0-9a-f]{4,32}[-_]")
"""What Label Studio puts before a file's name when it is uploaded."""

Row = tuple[int, dict[str, str]]
"""(line of the file, cells by the header's name in lower case)."""


def header_of(path: Path) -> list[str]:
    """The first line's names, in lower case, whatever the rest of the file is. Raises DataError for a file that cannot be read.

    A table in another encoding is still known by its header: it is then read, and refused, rather than passed over.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_MOST_TEXT)
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror}") from e
    text = start.decode("utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig", "replace")
    text = _first_line(text).strip()
    try:
        return [c.strip().lower() for c in next(csv.reader([text], delimiter=_delimiter(text)), [])]
    except csv.Error as e:
        raise DataError(f"{path} line 1: expected a header with path,label, found something else ({e})") from e


def _first_line(text: str) -> str:
    """Up to the end of a line as any system writes it: a carriage return alone is old Macs'."""
    return re.split(r"[\r\n]", text, maxsplit=1)[0]


def is_labels(path: Path) -> bool:
    """Whether a CSV file has the two columns that a data set needs.

    Where they are not called path and label, it must name an image that is there: results of a test bench have a file and a status, too.
    """
    columns = columns_of(header_of(path))
    if (columns.refused and not columns.ambiguous) or columns.path is None:
        return False
    if columns.exact and not columns.ambiguous:
        return True
    try:
        rows = _rows(path, (columns.path,))
    except DataError:
        return True  # to be refused when it is read, rather than passed over
    return any(_is_file(_inside(path.parent, row[columns.path])) for _, row in rows if row[columns.path])


def names_images(path: Path, images: list[Path]) -> bool:
    """Whether a text file, whatever its form, names images beside it.

    One with its suffix, or half of them without, or some in half of its lines, by name or by the number that ends it: a list of rejects
    is short.
    """
    try:
        if _is_of_others(path, images):
            return False
        text = _text_in(path).lower()
    except OSError:
        return False
    apart = r",;:\t\"'|/\\<>(){}\[\]"
    lines = [re.split(rf"[\s{apart}]+", line.strip()) for line in text.splitlines() if line.strip()]
    words = {*(w for line in lines for w in line), *(w.strip() for w in re.split(rf"[\r\n{apart}]+", text))}  # names may hold blanks
    words |= {w[found.end() :] for w in words if (found := _UPLOADED.match(w))}
    if any(p.name.lower() in words for p in images):
        return True
    stems = {p.stem.lower() for p in images}
    if len(stems & words) * 2 >= len(images) > 0:
        return True
    numbers = {int(n[0]) for s in stems if (n := re.findall(r"[0-9]+$", s))}
    called = {s for s in stems if not s.isdecimal()}
    is_table = path.suffix.lower() in (".csv", ".tsv")

    def speaks(line: list[str]) -> bool:
        """By a name, or by a number with a word beside it: a log of numbers alone counts something else."""
        worded = len(line) == 1 or (is_table and any(c.isalpha() for word in line[1:] for c in word))
        return bool(called & set(line)) or (worded and line[0].isdecimal() and int(line[0]) in numbers)

    said = [speaks(line) for line in lines]
    return sum(said) * 2 >= len(said) - (len(said) > 1 and not said[0]) > 0  # a header names none


def _is_of_others(path: Path, images: list[Path]) -> bool:
    """Whether it is a table whose rows all lead to files that are there, none of which is one of these images: another product's."""
    if path.suffix.lower() not in (".csv", ".tsv"):
        return False
    try:
        column = columns_of(header_of(path)).path
        named = {os.path.realpath(_inside(path.parent, row[column])) for _, row in _rows(path, (column,))} if column else set()
    except DataError:
        return False
    return bool(named) and all(_is_file(Path(name)) for name in named) and named.isdisjoint(map(os.path.realpath, images))


def _text_in(path: Path) -> str:
    """The text of a text file, or of a spreadsheet, which is XML in a ZIP; URLs' own signs are what they stand for."""
    if path.suffix.lower() in (".xlsx", ".ods"):
        try:
            with zipfile.ZipFile(path) as parts:
                raw = b"\n".join(parts.open(n).read(_MOST_TEXT) for n in parts.namelist() if n.endswith(".xml"))
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, EOFError):
            return ""
    else:
        with path.open("rb") as file:
            raw = file.read(_MOST_TEXT)
    if raw.count(b"\0") > len(raw) // 4:  # UTF-16 of a language with Latin letters
        return raw.decode("utf-16" if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-16-le", "replace")
    return unquote(raw.decode("utf-8-sig", "replace"))


def read_csv(path: Path) -> Found:
    """A CSV with a header: `path` and `label` in each row, `mask` and `split` if wanted, or what people call them
    (training/data/headers.py).

    Other columns are ignored.

    Paths are relative to the CSV's folder. A label is good or bad in any of the words of edge_runtime/images/names.py, 0 or 1, or the name
    of a kind of defect; instead of `label` a column may be called good or bad and hold 1 and 0. `split` is train, test or bad; bad images
    of train are set apart as those of bad are. Without a column `split`: all images are for training where all are good, else every fifth
    good image (by path) and all bad ones are the test split. Where two words alone tell good from bad and most images to learn from would
    be bad, it is not learnt from (`Found.reversed`). Raises DataError.
    """
    base, problems, notes = path.parent, [], []
    columns = columns_of(header_of(path))
    if columns.refused or columns.path is None or columns.label is None:
        raise DataError(f"{path}: {columns.refused}")
    column = columns.states
    called = {columns.path: "path", columns.label: column, columns.mask: "mask", columns.split: "split"}
    rows = [
        (line, {called.get(name, f"{name} (ignored)"): cell for name, cell in row.items()}) for line, row in _rows(path, (columns.path,))
    ]
    if (columns.path, columns.label) != ("path", column):
        notes.append(f"{path.name}: {columns.path} is read as the path, {columns.label} as the label")
    if not rows:
        raise DataError(f"{path}: expected a row for each image below the header, found none")
    splits = "split" in rows[0][1]
    labels = understand([row[column] for _, row in rows], column)
    if labels.refused:
        raise DataError(f"{path}: {labels.refused}")
    words: dict[Path, str] = {}
    samples: list[tuple[Sample, str]] = []
    masks_of_good: dict[Path, int] = {}
    first_seen: dict[str, int] = {}  # by the file itself, however the row writes its path
    missing: list[tuple[str, Path]] = []
    untold: list[Sample] = []  # to learn from, and nothing but the label says whether it is good
    for i, (line, row) in enumerate(rows):
        where = f"{path.name} line {line}"
        name, label, split = row["path"], row[column], row.get("split", "").lower()
        split, kind = _SPLIT_WORDS.get(split, split), labels.kinds[i]
        image, mask = _inside(base, name), _inside(base, row["mask"]) if row.get("mask") else None
        is_good = kind == GOOD
        if not name:
            problems.append(f"{where}: expected the path of an image, found an empty cell")
        elif kind is None:
            problems.append(f"{where}: {name}{'' if not label else ':'} {labels.problems[i]}")
        elif (file := os.path.realpath(image)) in first_seen:
            problems.append(f"{where}: {name} stands in line {first_seen[file]} already; keep one of the two")
        elif against := contradiction(is_good, {c: row.get(f"{c} (ignored)", "") for c in columns.verdicts}):
            problems.append(f"{where}: {name}: {column} says {label} {against}; correct one of the two")
        elif is_good and _says_folder(name) is False:
            problems.append(f"{where}: {name} is labelled {label} and lies in a folder that says otherwise; correct one of the two")
        elif not _is_file(image):
            missing.append((where, image))
        elif mask is not None and not _is_file(mask):
            problems.append(f"{where}: expected a mask at {mask}, found nothing")
        elif splits and split not in SPLITS:
            problems.append(f"{where}: {name}: expected train, test or bad as its split, found {split!r}")
        elif is_good and split == "bad":
            problems.append(f"{where}: {name} is labelled {label} but stands in the split bad; correct one of the two")
        else:
            words[image] = label if column == LABEL else f"{column} = {label}"
            samples.append((Sample(image, kind, is_good, None if is_good else mask, "test" if split == "test" else "train"), where))
            if split in ("", "train") and _says_folder(name) is None and word_in(image.stem) is None:
                untold.append(samples[-1][0])
            if is_good and mask is not None:
                masks_of_good[mask] = line
        if name:
            first_seen.setdefault(os.path.realpath(image), line)
    problems += _say_missing(path, missing, len(rows))
    for mask, result in marked(masks_of_good).items():
        if isinstance(result, DataError):
            problems.append(str(result))
        elif result:
            problems.append(f"{path.name} line {masks_of_good[mask]}: labelled good, but its mask {mask} marks a defect")
    found = [s for s, _ in samples]
    if not splits and any(not s.is_good for s in found):
        held = {s.path for s in sorted((s for s in found if s.is_good), key=lambda s: s.path)[TEST_EVERY - 1 :: TEST_EVERY]}
        found = [Sample(s.path, s.kind, s.is_good, s.mask_path, "test" if s.path in held or not s.is_good else "train") for s in found]
        notes.append("no column split: every fifth good image (by path) and all bad ones are the test split")
    notes += say_words(found, words)
    in_good = [s.path for s in found if not s.is_good and _says_folder(os.path.relpath(s.path, base))]
    if in_good:
        are = "image that the table calls bad lies" if len(in_good) == 1 else "images that the table calls bad lie"
        first = os.path.relpath(in_good[0], base)
        notes.append(f"{len(in_good)} {are} in a folder called good: the table is believed (the first: {first})")
    return Found(
        f"a table ({path.name})",
        tuple(s for s in found if s.split == "train" and s.is_good),
        tuple(s for s in found if s.split == "test"),
        tuple(s for s in found if s.split == "train" and not s.is_good),
        notes=tuple(notes),
        problems=tuple(problems),
        reversed=_say_reversed(path, untold, words, splits),
    )


def _say_reversed(path: Path, untold: list[Sample], words: dict[Path, str], splits: bool) -> str:
    """A sentence where more parts are called bad than good by two words alone, which may be swapped; else empty.

    Names of kinds of defects say more than a word."""
    good, bad = [s for s in untold if s.is_good], [s for s in untold if not s.is_good]
    if not 0 < len(good) < len(bad) or any(s.kind != BAD for s in bad):
        return ""
    which = "the images of its split train" if splits else "its images"
    how = "give the bad ones the split bad or test" if splits else "add a column split: train for good ones to learn from, test for others"
    few, most = (f"{words[side[0].path]}: {side[0].path.name}, …" for side in (good, bad))
    return (
        f"{path}: calls only {len(good)} of {len(untold)} of {which} good ({few}) and {len(bad)} bad ({most}). On a line it is the other"
        f" way round: are the two words swapped? Then swap them. If it is meant so: --few-good, or {how}"
    )


def _say_missing(table: Path, missing: list[tuple[str, Path]], n_rows: int) -> list[str]:
    """A sentence for each image that is not there; one for all of them where they are many, and where files of their names lie."""
    if len(missing) <= LISTED:
        return [f"{where}: expected an image at {image}, found nothing" for where, image in missing]
    where, first = missing[0]
    name = first.name
    found = next((p for p in sorted(table.parent.glob(f"*/{glob.escape(name)}")) if p.is_file()), None)
    found = table.parent / name if _is_file(table.parent / name) else found
    beside = "" if found is None else f" (as {found.relative_to(table.parent).as_posix()}, which is there)"
    return [
        f"{table.name}: {len(missing)} of {n_rows} images are not where the table says; {where}: expected an image at {first}, found"
        f" nothing. Write paths as they lie from the table's folder{beside}, or put the images there"
    ]


def _says_folder(name: str) -> bool | None:
    """What the nearest of the folders in a path, as the table writes it, says of its images; None where none says anything."""
    said = (says_good(part) for part in reversed(Path(name).parts[:-1]))
    return next((good for good in said if good is not None), None)


def read_visa(path: Path) -> Found:
    """One object of VisA: Data/Images/{Normal,Anomaly}, Data/Masks/Anomaly, image_anno.csv (names the kinds).

    The split is that of split_csv/1cls.csv, beside the object's folder or in it; without one, every fifth normal image (by name) and all
    anomalies are the test split. Raises DataError.
    """
    normal, anomaly = (images_in(path / "Data" / "Images" / n) for n in ("Normal", "Anomaly"))
    paired, orphans = pair_masks(anomaly, path / "Data" / "Masks" / "Anomaly")
    problems, notes = say_orphans(path / "Data" / "Masks" / "Anomaly", [p for p in anomaly if p not in paired], orphans)
    kinds = _visa_kinds(path / "image_anno.csv")
    test = set(normal[TEST_EVERY - 1 :: TEST_EVERY])
    train = set(normal) - test
    table = next((t for d in (path, path.parent) if (t := d / "split_csv" / "1cls.csv").is_file()), None)
    rows = _rows(table, ("object", "split", "label", "image", "mask")) if table is not None else []
    rows = [(line, row) for line, row in rows if row["object"] == path.name]
    if table is None or not rows:
        notes.append(
            f"{'no split_csv/1cls.csv' if table is None else f'nothing about {path.name} in {table}'}: every fifth normal image (by name)"
            " and all anomalies are the test split"
        )
        test |= set(anomaly)
    else:
        train, test = set(), set()
        there = {*normal, *anomaly}
        for line, row in rows:
            # The table counts from the folder that holds all objects; a copy of one object keeps only the part below its own name.
            image = path / Path(row["image"].replace("\\", "/").removeprefix(f"{path.name}/"))
            if image not in there:
                problems.append(f"{table.name} line {line}: expected an image at {image}, found nothing")
            elif row["split"] not in ("train", "test"):
                problems.append(f"{table.name} line {line}: expected train or test as the split, found {row['split']!r}")
            else:
                (train if row["split"] == "train" else test).add(image)
        if left := sorted(there - train - test):
            notes.append(f"{len(left)} images (the first: {left[0].name}) do not stand in {table.name}; they are left out")

    def samples(images: list[Path], split: str, good: bool) -> list[Sample]:
        return [Sample(p, GOOD if good else kinds.get(p.name, BAD), good, None if good else paired.get(p), split) for p in images]

    return Found(
        "VisA",
        tuple(samples([p for p in normal if p in train], "train", True)),
        (*samples([p for p in normal if p in test], "test", True), *samples([p for p in anomaly if p in test], "test", False)),
        tuple(samples([p for p in anomaly if p in train], "train", False)),
        tuple(orphans),
        tuple(notes),
        tuple(problems),
    )


def _visa_kinds(path: Path) -> dict[str, str]:
    """Kinds by the name of the anomaly's file; several on one part are joined."""
    if not path.is_file():
        return {}
    rows = _rows(path, ("image", "label"))
    kinds = {Path(r["image"].replace("\\", "/")).name: r["label"] for _, r in rows if "/anomaly/" in f"/{r['image']}".lower()}
    return {n: BAD if says_good(k) is False or not k else " + ".join(p.strip() for p in k.split(",")) for n, k in kinds.items()}


def _is_file(path: Path) -> bool:
    """False as well for a name that no file can have: one that is too long."""
    try:
        return path.is_file()
    except OSError:
        return False


def _inside(base: Path, name: str) -> Path:
    return base / name.replace("\\", "/")


def _rows(path: Path, needed: tuple[str, ...]) -> list[Row]:
    lines = _lines(path)
    header = [c.lower() for c in lines[0][1]] if lines else []
    if missing := [n for n in needed if n not in header]:
        found = ",".join(header) or "nothing"
        raise DataError(f"{path}: expected a header with {','.join(needed)} in its first line, found {found}: {missing[0]} is missing")
    if long := next(((line, cells) for line, cells in lines[1:] if any(cells[len(header) :])), None):
        line, cells = long
        comma = next((f"{a},{b}" for a, b in itertools.pairwise(cells) if a.isdigit() and b.isdigit()), None)
        hint = f"; is {comma} a number with a decimal comma? Write a point, or separate the cells by semicolons" if comma else ""
        raise DataError(f"{path} line {line}: expected at most {len(header)} cells, as the header has, found {len(cells)}{hint}")
    # A short row's missing cells are empty ones: the reader of the row says which of them it needs.
    return [(line, dict(zip(header, (*cells, *[""] * len(header)), strict=False))) for line, cells in lines[1:]]


def _delimiter(header: str) -> str:
    """Spreadsheets write semicolons where the comma is the decimal mark, and tabs when asked for text."""
    return max(",;\t", key=header.count)


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """(line of the file, cells) of each row that is not empty. Raises DataError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise DataError(f"{path}: expected UTF-8 text, found a byte {e.object[e.start]:#04x} at {e.start}; save the table as UTF-8") from e
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataError(f"{path} line {line}: expected text, found a NUL character; export the table again as UTF-8")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(_first_line(text)), strict=True)
    try:
        return [(reader.line_num, [c.strip() for c in cells]) for cells in reader if any(c.strip() for c in cells)]
    except csv.Error as e:
        raise DataError(f"{path} line {reader.line_num}: expected a row of a CSV, found something else ({e})") from e
