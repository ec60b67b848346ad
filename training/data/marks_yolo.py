"""Annotations in text: YOLO."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_runtime.images.names import says_good
from training.data.encodings import read_text
from training.data.marked import Annotations, Drawn, Images, nearest, refused
from training.data.shapes import Shape, box, pairs

_LISTS = frozenset({"classes", "train", "val", "valid", "test", "trainval", "readme", "license", "requirements", "labels", "names", "log"})
"""Text files that are of no one image."""


def read_yolo(images: Images) -> Annotations:
    """Rows of the texts that belong to images, and the strays. Raises DataError where texts beside images are something else."""
    texts: dict[str, list[Path]] = {}
    for path in images.files.get(".txt", []):
        if path.stem.lower() not in _LISTS:
            texts.setdefault(path.stem.lower(), []).append(path)
    pairs_ = [(p, t) for p in images.paths if (t := _text_of(p, texts.get(p.stem.lower(), []))) is not None]
    names = _yolo_names(images)
    found = Annotations("YOLO annotations")
    paired = {t for _, t in pairs_}
    found.strays += [t for same in texts.values() for t in same if t not in paired and _is_yolo(t)]
    if not pairs_:
        return found
    wrong: list[str] = []
    rows = 0
    for image, path in pairs_:
        try:
            marks = [_yolo_row(line.split()) for line in read_text(path).splitlines() if line.strip()]
        except (OSError, ValueError) as e:
            found.unread.add(image)
            wrong.append(f"{path}: expected rows of YOLO (class x y width height, as shares of the image), found something else: {e}")
            continue
        rows += len(marks)
        labels = tuple(names.get(c, f"class {c}") for c, _ in marks)
        shapes = tuple(s for (_, s), label in zip(marks, labels, strict=True) if not says_good(label))
        found.add(image, Drawn(labels, shapes, None, True, path))
    if wrong and not rows:
        raise refused(pairs_[0][1], "or other text about its image in a format that is not known") from None
    found.problems += wrong
    return found


def _is_yolo(path: Path) -> bool:
    """Whether a text of no image marks something."""
    try:
        return bool([_yolo_row(line.split()) for line in read_text(path).splitlines() if line.strip()])
    except (OSError, ValueError):
        return False


def _text_of(image: Path, texts: Sequence[Path]) -> Path | None:
    beside = [t for t in texts if t.parent == image.parent]
    return beside[0] if beside else nearest(texts, image)


def _yolo_row(cells: Sequence[str]) -> tuple[int, Shape]:
    numbers = [float(c) for c in cells]
    if not np.isfinite(numbers).all():
        raise ValueError(f"a number that is none in {' '.join(cells)[:60]!r}")
    if len(numbers) < 5 or numbers[0] != int(numbers[0]) or numbers[0] < 0:
        raise ValueError(f"a row {' '.join(cells)[:60]!r}")
    if any(not -0.02 <= n <= 1.02 for n in numbers[1:]):
        raise ValueError(f"numbers outside of 0 to 1 in {' '.join(cells)[:60]!r}")
    where = numbers[1:]
    if len(where) in (4, 5):  # the fifth is a detector's confidence
        x, y, w, h = where[:4]
        return int(numbers[0]), box(x - w / 2, y - h / 2, w, h)
    return int(numbers[0]), Shape("polygon", pairs(where[: len(where) // 2 * 2]))


def _yolo_names(images: Images) -> dict[int, str]:
    """Class names from classes.txt, *.names or data.yaml; none where they stand nowhere."""
    for path in (*images.files.get(".txt", []), *images.files.get(".names", [])):
        if path.stem.lower() in ("classes", "obj", "names", "labels") or path.suffix == ".names":
            return dict(enumerate(path.read_text(encoding="utf-8-sig", errors="replace").split("\n")))
    for path in (*images.files.get(".yaml", []), *images.files.get(".yml", [])):
        if names := _names_in_yaml(path.read_text(encoding="utf-8-sig", errors="replace")):
            return names
    return {}


def _names_in_yaml(text: str) -> dict[int, str]:
    """`names` of a data.yaml, in one of the three ways that it is written: [a, b], a list of lines, or numbered lines."""
    match = re.search(r"^names\s*:[ \t]*(.*)$", text, re.MULTILINE)
    if match is None:
        return {}
    rest = match[1].split(" #")[0].strip() + "\n" + text[match.end() :]
    if rest.lstrip()[:1] in ("[", "{"):
        inner = re.match(r"\s*[\[{](.*?)[\]}]", rest, re.DOTALL)
        items = [i.strip() for i in (inner[1] if inner else "").replace("\n", " ").split(",") if i.strip()]
    else:
        items = []
        for line in rest.splitlines()[1:]:
            if line.strip() and not re.match(r"\s*(-|\d+\s*:)", line):
                break
            items += [line.split(" #")[0].strip().lstrip("-").strip()] if line.strip() else []
    found: dict[int, str] = {}
    for i, item in enumerate(items):
        numbered = re.match(r"(\d+)\s*:\s*(.*)", item)
        found[int(numbered[1]) if numbered else i] = (numbered[2] if numbered else item).strip("'\" ")
    return found
