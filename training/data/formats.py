"""Which layout a data set has, and its images. Looked for in this order; what is found is said to the user.

1. A table: a .csv file named by the user, or the one .csv directly in the folder whose header has `path` and `label`
   (training/data/tables.py). A table that cannot be read is refused rather than passed over: the bad images that it names would be learnt
   as good ones.
2. VisA, one object: Data/Images/Normal.
3. Folders for the splits (training/data/folders.py): MVTec AD (train/good, test/<kind>, masks in ground_truth/<kind>), BTAD (train/ok,
   test/ko), and the like in other words.
4. Folders of good and bad without a split: good/ beside NG/, scratch/ …
5. KolektorSDD2: train/<name>.png beside train/<name>_GT.png, the same in test.
6. KolektorSDD: kosNN/PartN.jpg beside kosNN/PartN_label.bmp.
7. Images that annotation files tell apart (training/data/annotations.py): COCO, YOLO, Pascal VOC, CVAT, LabelMe.
8. One folder that holds any of these, and nothing beside it.
9. A plain folder of good images; words in their names (OK_1.png, NG_1.png) tell them apart where some are bad.

A table wins over whatever else lies in its folder, because somebody wrote it for this purpose. Signs of two others are refused. In layouts
1 to 6, annotations give the masks of bad images.

Why: deploy/decisions/0025.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from edge_runtime.errors import DataError
from edge_runtime.images.names import SUFFIXES, known_words, plain
from training.data.annotations import overlay, read_annotated, say_archive
from training.data.doubts import doubted, refuse_bad_name, refuse_nearby
from training.data.folders import (
    WRAPPERS,
    fits_sides,
    fits_split,
    is_aside,
    read_sides,
    read_split,
    say_by_name,
    say_folders_zero_and_one,
    with_own_split,
)
from training.data.headers import columns_of
from training.data.layout import BAD, GOOD, LISTED, TEST_EVERY, Found, Sample, folders_in, images_in
from training.data.left_out import say_left_out, say_no_pictures
from training.data.lists import refuse_lists, say_sheets
from training.data.marked import SUFFIXES as SIDECARS
from training.data.masks import marked
from training.data.names import say_zero_or_one
from training.data.tables import header_of, is_labels, names_images, read_csv, read_visa

ANNOTATIONS = ("COCO", "YOLO", "Pascal VOC", "CVAT", "LabelMe")


class Format(NamedTuple):
    """One layout of folders."""

    name: str
    sign: str
    """What gives it away, for a message."""
    fits: Callable[[Path], bool]
    read: Callable[[Path], Found]


def find(path: Path) -> Found:
    """The images of the data set at `path`, a folder or a .csv file. Raises DataError where no layout, or more than one, is there."""
    found = _find(path)
    root = path if path.is_dir() else path.parent
    found = doubted(found, root, by_table=found.format.startswith("a table"))
    notes = (*found.notes, *say_left_out(root))
    return dataclasses.replace(found, notes=(*notes, *say_no_pictures(root, _labels_of(found), (*notes, *found.problems))))


def _labels_of(found: Found) -> tuple[str, ...]:
    """Suffixes of files that say something about the images, and were read for it."""
    marked_ = any(s.shapes is not None for s in found.samples) or any(name in found.format for name in ANNOTATIONS)
    return (".csv", *(SIDECARS if marked_ else ()))


def _find(path: Path) -> Found:
    if path.suffix.lower() == ".csv" and path.is_file():
        return overlay(read_csv(path), path.parent)
    if not path.is_dir():
        raise DataError(
            "data: expected a folder of images, or a CSV of path,label,mask,split,"
            f" found {'a file' if path.exists() else 'nothing'} at {path}"
        )
    visa = FORMATS[0].fits(path)  # its image_anno.csv names the kinds alone
    tables = [p for p in _tables_in(path) if is_labels(p) and not (visa and p.name == "image_anno.csv")]
    if len(tables) > 1:
        raise DataError(f"data: found {len(tables)} tables of images in {path} ({_names(tables)}); name the one that is meant")
    if tables:
        return overlay(read_csv(tables[0]), path)
    fitting = [f for f in FORMATS if f.fits(path)]
    if len(fitting) > 1:
        signs = ", ".join(f"{f.name} ({f.sign})" for f in fitting)
        raise DataError(f"data: found signs of {len(fitting)} layouts in {path}: {signs}; keep the folders of one of them")
    if fitting:
        found = fitting[0].read(path)
        if not found.samples and not found.problems:
            raise DataError(f"data: expected images ({_suffixes()}) in {path} in the layout of {found.format}, found none")
        return overlay(found, path)
    if (annotated := read_annotated(path)) is not None:
        return annotated
    inside = [f for f in folders_in(path) if not is_aside(f)]
    if not images_in(path):
        alone = inside[0] if len(inside) == 1 else None
        if alone is not None and (_holds(alone) or (plain(alone.name) in WRAPPERS and images_in(alone))):
            found = _find(alone)
            return dataclasses.replace(found, notes=(f"the data lies in {alone}", *found.notes, *say_sheets(path)))
    return _plain(path)


def _holds(path: Path, deep: int = 3) -> bool:
    """Whether folders in one another, each alone in its place as archives unpack them, hold a layout at last."""
    inside = [f for f in folders_in(path) if not is_aside(f)]
    return any(p.fits(path) for p in FORMATS) or (deep > 0 and len(inside) == 1 and not images_in(path) and _holds(inside[0], deep - 1))


def _plain(path: Path) -> Found:
    images = images_in(path)
    inside = folders_in(path)
    headers = {p: header_of(p) for p in _tables_in(path)}
    if images:
        for table, header in headers.items():
            columns = columns_of(header)
            one = (columns.path is None) != (columns.label is None) or columns.label == "label"
            if one or names_images(table, images):  # meant for the images; one that has neither speaks of something else
                raise DataError(
                    f"{table}: {columns.refused or 'names none of the images beside it by its path'}. Without it, all images beside it"
                    " would count as good; correct the table, or move it elsewhere"
                )
        notes = [f"{t.name} (columns {','.join(h) or 'none'}) says nothing about images; it is left out" for t, h in headers.items()]
        notes += say_sheets(path)
        refuse_lists(path, images)
        notes += say_archive(images)
        if (said := say_by_name(images)) is not None:
            bad = [Sample(p, BAD, False, None, "test") for p, good in said.items() if not good]
            note = "names of the files say which are good and which are bad"
            words = {p: f"names such as {next(q.name for q, g in said.items() if g == good)}" for p, good in said.items()}
            return with_own_split("a folder of good and bad images", [p for p in images if said[p]], bad, (), (*notes, note), (), words)
        refuse_bad_name(path)
        refuse_nearby(path, images)
        here = path.resolve()
        if any(f.fits(here.parent) and here in {s.path.parent for s in f.read(here.parent).samples if not s.is_good} for f in FORMATS[1:3]):
            raise DataError(
                f"data: {path} lies beside folders of good images, so its own are bad ones; give {path.resolve().parent}, which tells them"
                " apart, or move it elsewhere if its parts are good"
            )
        notes += [doubt] if (doubt := say_zero_or_one(images)) is not None else []
        return Found("a plain folder of good images", tuple(Sample(p, GOOD, True, None, "train") for p in images), (), notes=tuple(notes))
    products = [p for p in inside if any(f.fits(p) for f in FORMATS)]
    if products:
        raise DataError(
            f"data: {path} holds {len(products)} data sets, each in a folder of its own ({_names(products)}); give one of them, as"
            f" {products[0]}; or, if they hold the same part, sort them"
            f" into one folder good and one bad ({path / GOOD / products[0].name})"
        )
    found = [
        f"the folders {_names(inside)}" if inside else "",
        *(f"{t.name} with the columns {','.join(h)}" for t, h in list(headers.items())[:2]),
    ]
    loose = next((f"images directly in {p}: move the good ones to {p / GOOD}" for p in (path / "train", path / "test") if images_in(p)), "")
    what = "; ".join(f for f in (*found, loose) if f) or "none of these"
    if {f.name for f in inside} == {"0", "1"}:
        raise DataError(f"data: {say_folders_zero_and_one(path)}")
    if len(inside) > 1 and not loose and all(images_in(f) for f in inside):
        raise DataError(
            f"data: expected in {path} one folder that is called good, beside those of bad images; found the folders {_names(inside)}."
            f" Rename them; if all of them hold good images, by days or by cameras, move them into one folder that is called good"
            f" ({path / GOOD / inside[0].name}, …). Words for good | bad: {known_words()}"
        )
    raise DataError(
        f"data: expected images ({_suffixes()}) in {path}, or the layout of MVTec AD (train/good, test/…), VisA (Data/Images/Normal), BTAD"
        f" (train/ok, test/ko), KolektorSDD, a folder good beside bad ones, or a CSV with the columns path,label; found {what}"
    )


def _read_ksdd2(path: Path) -> Found:
    images: list[tuple[Path, str]] = []
    masks: dict[Path, Path] = {}
    orphans: list[Path] = []
    for split in ("train", "test"):
        here, paired, left = _beside(path / split, "_GT")
        images += [(p, split) for p in here]
        masks, orphans = masks | paired, orphans + left
    return _by_marks("KolektorSDD2", images, masks, orphans, "_GT.png", ())


def _read_ksdd(path: Path) -> Found:
    """It has no split of its own: the good images of every fifth item, and all bad images, are the test split.

    Whole items, because the eight surfaces of one item resemble each other more than those of two.
    """
    items = [f for f in folders_in(path) if _beside(f, "_label")[1]]
    held = {f.name for f in items[TEST_EVERY - 1 :: TEST_EVERY]}
    images: list[tuple[Path, str]] = []
    masks: dict[Path, Path] = {}
    orphans: list[Path] = []
    for item in items:
        here, paired, left = _beside(item, "_label")
        images += [(p, "test" if item.name in held else "train") for p in here]
        masks, orphans = masks | paired, orphans + left
    note = "KolektorSDD has no split of its own: the good images of every fifth folder and all bad ones are the test split"
    found = _by_marks("KolektorSDD", images, masks, orphans, "_label.bmp", (note,))
    moved = (Sample(s.path, s.kind, False, s.mask_path, "test") for s in found.bad)
    return Found(found.format, found.train, (*found.test, *moved), (), found.orphans, found.notes, found.problems)


def _by_marks(
    name: str, images: list[tuple[Path, str]], masks: dict[Path, Path], orphans: list[Path], tail: str, notes: tuple[str, ...]
) -> Found:
    """Every image has a mask, and those are good whose mask marks nothing."""
    marks = marked(masks.values())
    problems = [str(m) for m in marks.values() if isinstance(m, DataError)]
    for image, _ in images:
        if image not in masks:
            problems.append(
                f"{image}: expected its mask {image.stem}{tail} beside it, found none; whether the part is good stands there only"
            )
    problems += [f"{m}: belongs to no image; expected {m.stem.removesuffix(Path(tail).stem)}.* beside it" for m in orphans]
    samples = []
    for image, split in images:
        mask = masks.get(image)
        if mask is not None and isinstance(is_bad := marks[mask], bool):
            samples.append(Sample(image, "defect" if is_bad else GOOD, not is_bad, mask if is_bad else None, split))
    return Found(
        name,
        tuple(s for s in samples if s.split == "train" and s.is_good),
        tuple(s for s in samples if s.split == "test"),
        tuple(s for s in samples if s.split == "train" and not s.is_good),
        tuple(orphans),
        notes,
        tuple(problems),
    )


def _beside(folder: Path, tail: str) -> tuple[list[Path], dict[Path, Path], list[Path]]:
    """(images, masks by image, masks without one) where masks lie beside their images and end in `tail`."""
    files = images_in(folder)
    labels = {p.stem.removesuffix(tail): p for p in files if p.stem.endswith(tail)}
    images = [p for p in files if not p.stem.endswith(tail)]
    masks = {p: labels[p.stem] for p in images if p.stem in labels}
    return images, masks, [m for m in labels.values() if m not in masks.values()]


def _fits_ksdd2(path: Path) -> bool:
    return any(p.stem.endswith("_GT") for split in ("train", "test") for p in images_in(path / split))


def _fits_ksdd(path: Path) -> bool:
    return not fits_sides(path) and any(next(f.glob("*_label.*"), None) for f in folders_in(path))


FORMATS = (
    Format("VisA", "Data/Images/Normal", lambda p: (p / "Data" / "Images" / "Normal").is_dir(), read_visa),
    Format("MVTec AD, BTAD and the like", "train/good or test/<kind>", fits_split, read_split),
    Format("folders of good and bad", "good beside bad", fits_sides, read_sides),
    Format("KolektorSDD2", "train/<name>_GT.png", _fits_ksdd2, _read_ksdd2),
    Format("KolektorSDD", "<item>/<name>_label.bmp", _fits_ksdd, _read_ksdd),
)


def _tables_in(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.suffix.lower() == ".csv" and not p.name.startswith(".") and p.is_file())


def _names(paths: list[Path]) -> str:
    return ", ".join(p.name for p in paths[:LISTED]) + (f" … {len(paths)} in all" if len(paths) > LISTED else "")


def _suffixes() -> str:
    return ", ".join(sorted(SUFFIXES))
