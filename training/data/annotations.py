"""Annotation files beside images: COCO, LabelMe, YOLO, Pascal VOC and CVAT are read as what they are, others are named.

An image with a box or an outline of a defect is a bad one, of the kind that the annotation names; one without is good. Categories whose
names call parts good mark nothing.
"""

import base64
import binascii
import dataclasses
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np

from edge_runtime.errors import DataError
from edge_runtime.images.hush import hushed
from edge_runtime.images.names import MASK_FOLDERS, is_image, plain, says_good
from training.data.encodings import NOT_UNDERSTOOD, decode_json, parse_xml, read_text, why
from training.data.folders import TEST, TRAIN, say_words, with_own_split
from training.data.layout import BAD, GOOD, LISTED, Found, Sample
from training.data.shapes import Shape, Shapes, as_runs, box, check, ellipse, pairs, runs_of_text
from training.data.tables import names_images

READ = "COCO, YOLO, Pascal VOC, CVAT for images or LabelMe"
SUFFIXES = (".json", ".xml", ".txt", ".yaml", ".yml", ".names")
_LISTS = frozenset({"classes", "train", "val", "valid", "test", "trainval", "readme", "license", "requirements", "labels", "names", "log"})
"""Text files that are of no one image."""
_MARKS = frozenset(
    {
        "annotations",
        "annotation",
        "regions",
        "objects",
        "shapes",
        "labels",
        "bbox",
        "bboxes",
        "boxes",
        "defects",
        "polygons",
        "segmentation",
    }
)

_SAYS = frozenset({"label", "class", "category", "verdict", "result", "tag", "tags", "defect", "classification"})
"""What a file that is named as an image may say of the whole image."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What annotations say of one image."""

    labels: tuple[str, ...]
    shapes: tuple[Shape, ...]
    wh: tuple[int, int] | None
    relative: bool
    source: Path

    @property
    def kinds(self) -> tuple[str, ...]:
        """Labels that are defects, each once."""
        return tuple(dict.fromkeys(label.strip() or BAD for label in self.labels if not says_good(label)))


@dataclass(slots=True)
class Annotations:
    """All of one format."""

    format: str
    drawn: dict[Path, Drawn] = field(default_factory=dict)
    listed_only: bool = False
    """The file lists its images: one that is not in it was never looked at."""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    strays: list[Path] = field(default_factory=list)
    """Files of its form that belong to no image."""
    unread: set[Path] = field(default_factory=set)
    """Images whose annotation is a problem: nobody knows whether they are good."""

    def add(self, image: Path, drawn: Drawn) -> None:
        """Together with what is known of it already. Raises ValueError for places that are none."""
        for shape in drawn.shapes:
            check(shape)
        old = self.drawn.get(image)
        if old is not None:
            drawn = dataclasses.replace(drawn, labels=old.labels + drawn.labels, shapes=old.shapes + drawn.shapes)
        self.drawn[image] = drawn


class _Images:
    """Images below a folder, found again by the names that annotations give them."""

    def __init__(self, root: Path, beside: Iterable[Path] = ()) -> None:
        """`beside`: files elsewhere that may speak of them."""
        self.root = root
        self.paths: list[Path] = []
        self.files: dict[str, list[Path]] = {}
        self.unknown: list[Path] = []
        """Files that name images in a form that no reader knows."""
        for place, folders, files in os.walk(root):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            masks = any(plain(part) in MASK_FOLDERS for part in Path(place).relative_to(root).parts)
            for name in sorted(files):
                path = Path(place, name)
                if name.startswith("."):
                    continue
                if is_image(path) and path.is_file():
                    self.paths += [] if masks else [path]
                elif path.suffix.lower() in SUFFIXES and path.is_file():
                    self.files.setdefault(path.suffix.lower(), []).append(path)
        for path in beside:
            self.files.setdefault(path.suffix.lower(), []).append(path)
        self._by_name: dict[str, list[Path]] = {}
        for path in self.paths:
            for key in {path.name.lower(), path.stem.lower()}:
                self._by_name.setdefault(key, []).append(path)

    def named(self, name: str, near: Path) -> Path | None:
        """The image that an annotation at `near` calls `name`; None where there is none, or more than one."""
        name = name.replace("\\", "/").lower()
        found = self._by_name.get(name.rpartition("/")[2], [])
        exact = [p for p in found if ("/" + p.as_posix().lower()).endswith("/" + name.lstrip("./"))]
        return _nearest(exact or found, near)

    def stem(self, stem: str, near: Path) -> Path | None:
        """The image of this name without its suffix."""
        return _nearest([p for p in self._by_name.get(stem.lower(), []) if p.stem.lower() == stem.lower()], near)


def _nearest(found: Sequence[Path], near: Path) -> Path | None:
    if len(found) < 2:
        return found[0] if found else None
    shared = [len(Path(os.path.commonpath([p, near])).parts) for p in found]
    best = [p for p, n in zip(found, shared, strict=True) if n == max(shared)]
    if len(best) > 1:  # instances_train2017.json speaks of train2017/
        words = set(re.split(r"[_\-.]", near.stem.lower()))
        best = [p for p in best if words & {part.lower() for part in p.parts[:-1]}] or best
    return best[0] if len(best) == 1 else None


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
    images = [p for p in _Images(root).paths if p not in known.unread]
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
        kinds = ", ".join(dict.fromkeys(s.kind for s in bad))
        raise DataError(
            f"data: expected good images to learn from, found a mark on each of the {len(bad)} images in {known.format} ({kinds});"
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
    images = _Images(root, beside)
    if not images.paths or not images.files:
        return None
    read = (*_read_json(images), *_read_xml(images), _read_yolo(images))
    found = [a for a in read if a is not None and (a.drawn or a.problems or a.strays)]
    if images.unknown and not any(a.drawn or a.problems for a in found):
        raise _refuse(images.unknown[0], "or something else about images, which it names, in a form that is not known")
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


def _refuse(path: Path, what: str) -> DataError:
    return DataError(
        f"data: {path} holds annotations {what}, which are not read: what they mark would be taught as good. Export them as {READ}, put"
        " good and bad images into folders named good and bad, or move the file elsewhere"
    )


# JSON: COCO, LabelMe


def _read_json(images: _Images) -> list[Annotations]:
    coco, labelme = Annotations("COCO annotations", listed_only=True), Annotations("LabelMe annotations")
    stems = {p.stem.lower() for p in images.paths} | {p.name.lower() for p in images.paths}
    names = {p.name.lower() for p in images.paths}
    beside = {p.parent for p in images.paths}
    for path in images.files.get(".json", []):
        raw = b""
        try:
            raw = path.read_bytes()
            content = decode_json(raw)
        except (OSError, ValueError) as e:
            raw = raw.replace(b"\0", b"")  # of UTF-16
            named = path.stem.lower() in stems or any(word in path.as_posix().lower() for word in ("annot", "coco"))
            # Half a file still says what it was; another program's file elsewhere is none of ours.
            if not (named or path.parent in beside or any(word in raw for word in (b'"images"', b'"annotations"', b'"shapes"'))):
                continue
            into = labelme if path.stem.lower() in stems or b'"shapes"' in raw else coco
            into.unread |= {image for image in [images.stem(path.stem, path)] if image is not None}
            into.problems.append(
                f"{path}: expected annotations in JSON, could not read it ({e}): export it again, or move it elsewhere if it marks nothing"
            )
            continue
        try:
            if isinstance(content, dict) and isinstance(content.get("images"), list) and isinstance(content.get("annotations"), list):
                _add_coco(coco, content, images, path)
            elif isinstance(content, dict) and isinstance(content.get("shapes"), list) and ("imagePath" in content or "version" in content):
                _add_labelme(labelme, content, images, path)
            elif isinstance(content, dict) and any(str(key).lower() in names for key in content):
                raise _refuse(path, "of a table of images")
            elif (what := _foreign(content, path.stem.lower() in stems)) is not None:
                raise _refuse(path, what)
            elif not (isinstance(content, dict) and "decision" in content) and names_images(path, images.paths):
                images.unknown.append(path)
        except NOT_UNDERSTOOD as e:
            into = coco if "images" in content else labelme
            into.unread |= {image for image in [images.stem(path.stem, path)] if image is not None}
            into.unread |= {image for image, drawn in into.drawn.items() if drawn.source == path}
            into.problems.append(f"{path}: its annotations cannot be understood ({why(e)}); export them again")
    return [coco, labelme]


def _foreign(content: Any, beside: bool) -> str | None:
    """What a JSON that is neither COCO nor LabelMe is; None where it marks nothing. `beside`: it is named as an image."""
    if isinstance(content, list) and content and isinstance(content[0], dict):
        keys = set(content[0])
        if {"image", "annotations"} <= keys:
            return "of CreateML"
        if "data" in keys and keys & {"annotations", "completions", "predictions"}:
            return "of Label Studio"
        if keys & {"annotator", "annotation_id", "lead_time"}:
            return "of Label Studio (JSON-MIN)"
        if keys & {"data_row", "Labeled Data"}:
            return "of Labelbox"
        return "of COCO's results, without its list of images" if "image_id" in keys else None
    if not isinstance(content, dict) or "decision" in content:  # the archive's own record of a decision
        return None
    if "_via_img_metadata" in content or any(isinstance(v, dict) and {"filename", "regions"} <= set(v) for v in content.values()):
        return "of VGG's image annotator (VIA)"
    for keys, name in (
        ({"images", "categories"}, "of COCO without its list of annotations, half an export"),
        ({"_via_settings"}, "of VGG's image annotator (VIA)"), ({"items", "dm_format_version"}, "of Datumaro"),
        ({"items", "infos"}, "of Datumaro"), ({"items", "categories"}, "of Datumaro"), ({"objects", "size"}, "of Supervisely"),
        ({"item", "annotations"}, "of Darwin"),
        ({"asset", "regions"}, "of VoTT"),
    ):  # fmt: skip
        if keys <= set(content):
            return name
    known = _MARKS | _SAYS if beside else _MARKS
    if (beside or "annotations" in content) and (marks := sorted(known & {str(k).lower() for k in content})):
        return f"of an unknown format (with {', '.join(marks)})"
    return None


def _add_coco(into: Annotations, content: dict[str, Any], images: _Images, path: Path) -> None:
    names = {_id(c["id"]): str(c.get("name", c["id"])) for c in content.get("categories") or []}
    by_id: dict[str, Path | None] = {}
    missing, lost = [], []
    names_of: dict[str, set[str]] = {}
    for entry in content["images"]:
        image, number = images.named(str(entry["file_name"]), path), _id(entry["id"])
        names_of.setdefault(number, set()).add(str(entry["file_name"]))
        by_id[number] = image
        if image is None:
            missing.append(str(entry["file_name"]))
            continue
        into.add(image, Drawn((), (), _size(entry.get("width"), entry.get("height")), False, path))
    for entry in content["annotations"]:
        if (number := _id(entry["image_id"])) not in by_id:
            lost.append(number)
            continue
        if (image := by_id[number]) is None:
            continue
        label = names.get(_id(entry.get("category_id")), f"category {entry.get('category_id')}")
        old = into.drawn[image]
        try:
            shapes = () if says_good(label) else _coco_shapes(entry, old.wh)
            into.add(
                image, Drawn((label,), shapes, old.wh or next((s.box_xywh[2:] for s in shapes if s.kind == "runs"), None), False, path)
            )
        except NOT_UNDERSTOOD as e:
            raise ValueError(f"the annotation {entry.get('id')} of {image.name}: {why(e)}") from e
    if shared := [number for number, called in names_of.items() if len(called) > 1]:
        count = sum(len(names_of[number]) for number in shared)
        into.problems.append(f"{path}: {count} images share an id ({_listed(shared)}): nobody knows whose marks are whose; export it again")
    elif lost:
        into.problems.append(
            f"{path}: {len(lost)} annotations belong to no image (image_id {_listed(lost)}); export it again, with its images"
        )
    if shared or lost:
        into.unread |= {image for image, drawn in into.drawn.items() if drawn.source == path and not drawn.labels}
    if missing:
        into.notes.append(f"{len(missing)} images of {path} are not there, or more than once (the first: {missing[0]})")
    if missing and not any(by_id.values()):
        into.problems.append(f"{path}: none of its {len(missing)} images is there (the first: {missing[0]}); put the images beside it")


def _id(value: Any) -> str:
    """Of an image or a category: some tools write numbers as text, or with a point."""
    if isinstance(value, dict | list):
        raise ValueError(f"expected an id, found {str(value)[:40]}")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _listed(ids: Sequence[str]) -> str:
    unique = list(dict.fromkeys(ids))
    return ", ".join(unique[:LISTED]) + (", …" if len(unique) > LISTED else "")


def _coco_shapes(entry: dict[str, Any], wh: tuple[int, int] | None) -> tuple[Shape, ...]:
    """`wh`: of the image, where the file states it."""
    outline = entry.get("segmentation")
    if isinstance(outline, dict):
        height, width = (int(n) for n in outline["size"])
        counts = outline["counts"]
        if wh is not None and wh != (width, height):
            raise ValueError(f"expected runs over its image of {wh[0]}x{wh[1]}, found some over {width}x{height}")
        return (Shape("runs", runs=runs_of_text(counts) if isinstance(counts, str) else as_runs(counts), box_xywh=(0, 0, width, height)),)
    if polygons := [p for p in outline or [] if len(p) >= 6]:
        return tuple(Shape("polygon", pairs(p)) for p in polygons)
    return (box(*map(float, entry["bbox"])),) if entry.get("bbox") else ()


def _add_labelme(into: Annotations, content: dict[str, Any], images: _Images, path: Path) -> None:
    image = images.stem(path.stem, path) or images.named(str(content.get("imagePath") or ""), path)
    if image is None:
        into.strays.append(path)
        return
    flags = content.get("flags")
    if isinstance(flags, dict) and (said := [str(name) for name, on in flags.items() if on is True and not says_good(str(name))]):
        into.problems.append(
            f"{path}: marks the whole image ({', '.join(said)}), which is not read; put such images into a folder of that name"
        )
    labels = tuple(str(s["label"]) for s in content["shapes"])
    shapes = tuple(_labelme_shape(s) for s in content["shapes"] if not says_good(str(s["label"])))
    into.add(image, Drawn(labels, shapes, _size(content.get("imageWidth"), content.get("imageHeight")), False, path))


def _labelme_shape(shape: dict[str, Any]) -> Shape:
    points = tuple((float(x), float(y)) for x, y in shape["points"])
    kind = shape.get("shape_type") or "polygon"
    if kind == "mask" and shape.get("mask"):
        try:
            with hushed():
                picture = cv2.imdecode(np.frombuffer(base64.b64decode(shape["mask"]), np.uint8), cv2.IMREAD_UNCHANGED)
        except (binascii.Error, cv2.error) as e:
            raise ValueError(f"a mask that is no picture: {e}") from e
        if picture is None:
            raise ValueError("a mask that is no picture")
        flat = (picture.reshape(picture.shape[0], picture.shape[1], -1).max(axis=2) > 0).ravel()
        ends = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(np.int8)))
        runs = np.diff(np.concatenate([[0], ends, [len(flat)]]))
        place = (int(points[0][0]), int(points[0][1]), picture.shape[1], picture.shape[0])
        return Shape("runs", runs=as_runs(runs.tolist()), box_xywh=place, by_columns=False)
    if kind == "rectangle":
        return Shape("box", points)
    if kind == "circle":
        (cx, cy), (x, y) = points
        radius = float(np.hypot(x - cx, y - cy))
        return ellipse(cx, cy, radius, radius)
    return Shape("polygon" if kind in ("polygon", "rotation", "quadrilateral") else "line", points)


# XML: Pascal VOC, CVAT


def _read_xml(images: _Images) -> list[Annotations]:
    voc, cvat = Annotations("Pascal VOC annotations"), Annotations("CVAT annotations", listed_only=True)
    stems = {p.stem.lower() for p in images.paths}
    for path in images.files.get(".xml", []):
        raw = b""
        try:
            raw = path.read_bytes()
            root = parse_xml(raw)
        except (OSError, ValueError) as e:
            if path.stem.lower() in stems or "annot" in path.name.lower() or b"<annotation" in raw or names_images(path, images.paths):
                voc.unread |= {image for image in [images.stem(path.stem, path)] if image is not None}
                voc.problems.append(f"{path}: expected annotations in XML, could not read it: {e}")
            continue
        try:
            if root.tag == "annotation":
                _add_voc(voc, root, images, path)
            elif root.tag == "annotations" and root.find("track") is not None:
                raise _refuse(path, "of CVAT for videos")
            elif root.tag == "annotations" and root.find("image") is not None:
                _add_cvat(cvat, root, images, path)
            elif path.stem.lower() in stems:
                raise _refuse(path, f"of an unknown format (<{root.tag}>)")
            elif names_images(path, images.paths):
                images.unknown.append(path)
        except NOT_UNDERSTOOD as e:
            voc.unread |= {image for image in [images.stem(path.stem, path)] if image is not None}
            voc.problems.append(f"{path}: its annotations cannot be understood ({why(e)}); export them again")
    return [voc, cvat]


def _add_voc(into: Annotations, root: ET.Element, images: _Images, path: Path) -> None:
    image = images.stem(path.stem, path) or images.named(root.findtext("filename") or "", path)
    if image is None:
        into.strays.append(path)
        return
    labels, shapes = [], []
    for entry in root.iter("object"):
        label = (entry.findtext("name") or "").strip()
        labels.append(label)
        if says_good(label):
            continue
        outline, corners = entry.find("polygon"), entry.find("bndbox")
        if outline is not None and len(outline) >= 6:
            at = {e.tag: float(e.text or "") for e in outline}
            shapes.append(Shape("polygon", tuple((at[f"x{i}"], at[f"y{i}"]) for i in range(1, len(at) // 2 + 1))))
        elif corners is not None:
            x0, y0, x1, y1 = (float(corners.findtext(n) or "") for n in ("xmin", "ymin", "xmax", "ymax"))
            shapes.append(Shape("box", ((x0, y0), (x1, y1))))
    size = root.find("size")
    wh = None if size is None else _size(size.findtext("width"), size.findtext("height"))
    into.add(image, Drawn(tuple(labels), tuple(shapes), wh, False, path))


def _add_cvat(into: Annotations, root: ET.Element, images: _Images, path: Path) -> None:
    missing = []
    for entry in root.iter("image"):
        image = images.named(entry.attrib["name"], path)
        if image is None:
            missing.append(entry.attrib["name"])
            continue
        labels, shapes = [], []
        for mark in entry:
            if (label := mark.get("label")) is None:
                continue
            labels.append(label)
            if not says_good(label) and (shape := _cvat_shape(mark)) is not None:
                shapes.append(shape)
        wh = _size(entry.get("width"), entry.get("height"))
        into.add(image, Drawn(tuple(labels), tuple(shapes), wh, False, path))
    if missing and not into.drawn:
        into.problems.append(f"{path}: none of its {len(missing)} images is there (the first: {missing[0]}); put the images beside it")
    elif missing:
        into.notes.append(f"{len(missing)} images of {path} are not there, or more than once (the first: {missing[0]})")


def _cvat_shape(mark: ET.Element) -> Shape | None:
    at = mark.attrib
    if mark.tag == "box":
        x0, y0, x1, y1 = (float(at[n]) for n in ("xtl", "ytl", "xbr", "ybr"))
        if turned := float(at.get("rotation", 0)):
            middle, turn = np.array([(x0 + x1) / 2, (y0 + y1) / 2]), np.deg2rad(turned)
            arms = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]) - middle
            around = arms @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + middle
            return Shape("polygon", tuple((float(x), float(y)) for x, y in around))
        return Shape("box", ((x0, y0), (x1, y1)))
    if mark.tag == "ellipse":
        return ellipse(*(float(at[n]) for n in ("cx", "cy", "rx", "ry")), float(at.get("rotation", 0)))
    if mark.tag == "mask":
        place = (int(at["left"]), int(at["top"]), int(at["width"]), int(at["height"]))
        return Shape("runs", runs=as_runs(int(n) for n in at["rle"].split(",")), box_xywh=place, by_columns=False)
    if mark.tag in ("polygon", "polyline", "points"):
        points = tuple((float(x), float(y)) for x, y in (p.split(",") for p in at["points"].split(";")))
        return Shape("polygon" if mark.tag == "polygon" else "line", points)
    return None  # a tag of the whole image


# Text: YOLO


def _read_yolo(images: _Images) -> Annotations | None:
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
        raise _refuse(pairs_[0][1], "or other text about its image in a format that is not known") from None
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
    return beside[0] if beside else _nearest(texts, image)


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


def _yolo_names(images: _Images) -> dict[int, str]:
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


def _size(width: Any, height: Any) -> tuple[int, int] | None:
    try:
        wh = int(width), int(height)
    except (TypeError, ValueError):
        return None
    return wh if min(wh) > 0 else None


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
