"""Annotation files beside images: COCO, LabelMe, YOLO, Pascal VOC and CVAT are read as what they are, others are named.

An image with a box or an outline of a defect is a bad one, of the kind that the annotation names; one without is good. Categories whose
names call parts good mark nothing.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from edge_runtime.errors import DataError
from edge_runtime.images.names import plain
from training.data.folders import TEST, TRAIN, say_words, with_own_split
from training.data.layout import GOOD, Found, Sample
from training.data.marked import Annotations, Drawn, Images, refused
from training.data.marks_json import read_json
from training.data.marks_xml import read_xml
from training.data.marks_yolo import read_yolo
from training.data.shapes import Shapes


def overlay(found: Found, root: Path) -> Found:
    """A layout that tells good from bad by itself, with what annotations draw on its bad images. Good images with a defect are problems."""
    try:
        known = read_annotations(root)
    except DataError as e:
        return dataclasses.replace(found, notes=(*found.notes, f"annotations are left out: {e}"))
    if known is None:
        return found
    problems = [*found.problems, *known.problems]
    used = 0

    def with_shapes(sample: Sample) -> Sample:
        nonlocal used
        drawn = known.drawn.get(sample.path)
        if drawn is None or not drawn.kinds:
            return sample
        if sample.is_good:
            problems.append(
                f"{sample.path}: lies among good images, but {drawn.source} marks {', '.join(drawn.kinds)} on it; correct one of the two"
            )
            return sample
        if sample.mask_path is not None or not drawn.shapes:
            return sample
        used += 1
        return dataclasses.replace(sample, shapes=_shapes(drawn))

    sides = [tuple(with_shapes(s) for s in side) for side in (found.train, found.test, found.bad)]
    notes = [*found.notes, *known.notes, *_say_strays(known)]
    if used:
        notes.append(f"masks of {used} bad images are drawn from {known.format}")
    return dataclasses.replace(found, train=sides[0], test=sides[1], bad=sides[2], notes=tuple(notes), problems=tuple(problems))


def with_marks(samples: Sequence[Sample], root: Path | None) -> list[Sample]:
    """Bad images of a folder with what annotations beside them draw, where they have no mask."""
    if root is None or not samples:
        return list(samples)
    try:
        known = read_annotations(root)
    except DataError:
        known = None  # bad they are by their folder; a format that is not read only leaves them without a mask
    drawn = known.drawn if known is not None else {}
    return [
        dataclasses.replace(s, shapes=_shapes(drawn[s.path])) if s.mask_path is None and s.path in drawn and drawn[s.path].shapes else s
        for s in samples
    ]


def read_annotated(root: Path) -> Found | None:
    """A folder of images that only annotations tell apart; None where there are none. Raises DataError."""
    known = read_annotations(root)
    if known is None:
        return None
    if known.strays and not known.drawn:
        raise DataError(
            f"data: {_say_strays(known)[0]}; what they mark would be taught as good. Expected files named as their images; rename them, or"
            " move them elsewhere"
        )
    images = [p for p in Images(root).paths if p not in known.unread]
    notes = [*known.notes, *(f"{said}; they are left out" for said in _say_strays(known))]
    if known.unread:
        notes.append(f"{len(known.unread)} images have an annotation that could not be read: they count neither as good nor as bad")
    if known.listed_only and (strange := [p for p in images if p not in known.drawn]):
        notes.append(f"{len(strange)} images (the first: {strange[0]}) do not stand in the annotations; they are left out")
        images = [p for p in images if p in known.drawn]
    elif bare := [p for p in images if p not in known.drawn]:
        notes.append(f"{len(bare)} images have no annotation (the first: {bare[0]}): they are taken as good")
    splits = {p: _split_of(p, root, known.drawn.get(p)) for p in images}
    samples = []
    for path in images:
        drawn = known.drawn.get(path)
        kinds = drawn.kinds if drawn is not None else ()
        if drawn is None or not kinds:
            samples.append(Sample(path, GOOD, True, None, splits[path] or "train"))
        else:
            shapes = _shapes(drawn) if drawn.shapes else None
            samples.append(Sample(path, " + ".join(kinds), False, None, splits[path] or "train", shapes))
    good, bad = [s for s in samples if s.is_good], [s for s in samples if not s.is_good]
    if not bad and not known.problems:
        notes.append(f"{known.format} name no defect: all {len(good)} images are taken as good")
    if not good and not known.problems:
        names = ", ".join(dict.fromkeys(s.kind for s in bad))
        raise DataError(
            f"data: expected good images to learn from, found a mark on each of the {len(bad)} images in {known.format} ({names});"
            " add images of good parts without marks, or, if the marks show where parts are and not what is wrong, move the annotations"
            " elsewhere"
        )
    if not any(s.split == "test" for s in samples) or not any(s.split == "train" for s in samples):
        moved = [dataclasses.replace(s, split="test") for s in bad]
        words = {s.path: "no mark" if s.is_good else s.kind for s in samples}
        return with_own_split(known.format, [s.path for s in good], moved, (), notes, known.problems, words)
    return Found(
        known.format,
        tuple(s for s in good if s.split == "train"),
        tuple(s for s in samples if s.split == "test"),
        tuple(s for s in bad if s.split == "train"),
        (),
        (*notes, *say_words(samples, {s.path: "no mark" if s.is_good else s.kind for s in samples})),
        tuple(known.problems),
    )


def _say_strays(known: Annotations) -> list[str]:
    count = len(known.strays)
    return [f"{count} files of {known.format} belong to no image (the first: {known.strays[0]})"] if count else []


def read_annotations(root: Path, beside: Iterable[Path] = ()) -> Annotations | None:
    """What the annotation files below `root`, and the files `beside`, say of its images; None where there are none.

    Raises DataError for annotations of a format that is not read: whatever they mark would be taught as good.
    """
    images = Images(root, beside)
    if not images.paths or not images.files:
        return None
    read = (*read_json(images), *read_xml(images), read_yolo(images))
    found = [a for a in read if a.drawn or a.problems or a.strays]
    if images.unknown and not any(a.drawn or a.problems for a in found):
        raise refused(images.unknown[0], "or something else about images, which it names, in a form that is not known")
    if not found:
        return None
    best = max(found, key=lambda a: (len(a.drawn), len(a.problems), len(a.strays)))
    if others := [a.format for a in found if a is not best]:
        best.notes.append(f"annotations are there as {best.format} and as {', '.join(others)}: the first are read, the others left out")
    if images.unknown:
        best.notes.append(
            f"{len(images.unknown)} files name images in a form that is not read, and are left out (the first: {images.unknown[0]})"
        )
    return best


def _shapes(drawn: Drawn) -> Shapes:
    return Shapes(drawn.shapes, drawn.wh, drawn.relative, str(drawn.source))


def _split_of(path: Path, root: Path, drawn: Drawn | None) -> str | None:
    words = [*path.relative_to(root).parts[:-1], *(re.split(r"[_\-.]", drawn.source.stem) if drawn is not None else ())]
    for word in (plain(w).rstrip("0123456789") for w in words):
        if word in TRAIN or word in TEST:
            return "train" if word in TRAIN else "test"
    return None


def say_archive(images: Iterable[Path]) -> list[str]:
    """A sentence where images carry the station's own decisions."""
    rejected = total = 0
    for path in images:
        record = path.with_suffix(".json")
        if not record.is_file():
            continue
        try:
            decision = msgspec.json.decode(record.read_bytes()).get("decision")
        except (OSError, msgspec.DecodeError, AttributeError):
            continue
        total += isinstance(decision, dict)
        rejected += isinstance(decision, dict) and decision.get("verdict") != "ACCEPT"
    return [f"{rejected} of {total} images with a decision of the station were not accepted by it"] if rejected else []
