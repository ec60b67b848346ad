"""Annotations in JSON: COCO and LabelMe are read, others refused by name."""

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_runtime.images.decoder_output import silenced
from edge_runtime.images.names import says_good
from training.data.encodings import NOT_UNDERSTOOD, decode_json, why
from training.data.layout import LISTED
from training.data.marked import Annotations, Drawn, Images, refused, size_of
from training.data.shapes import Shape, as_runs, box, ellipse, pairs, runs_of_text
from training.data.tables import names_images

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


def read_json(images: Images) -> list[Annotations]:
    """COCO and LabelMe. What cannot be understood is a problem of its own; raises DataError for a form that is known and not read."""
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
                raise refused(path, "of a table of images")
            elif (what := _foreign(content, path.stem.lower() in stems)) is not None:
                raise refused(path, what)
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


def _add_coco(into: Annotations, content: dict[str, Any], images: Images, path: Path) -> None:
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
        into.add(image, Drawn((), (), size_of(entry.get("width"), entry.get("height")), False, path))
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
    """The id of an image or a category: some tools write numbers as text, or with a point."""
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


def _add_labelme(into: Annotations, content: dict[str, Any], images: Images, path: Path) -> None:
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
    into.add(image, Drawn(labels, shapes, size_of(content.get("imageWidth"), content.get("imageHeight")), False, path))


def _labelme_shape(shape: dict[str, Any]) -> Shape:
    points = tuple((float(x), float(y)) for x, y in shape["points"])
    kind = shape.get("shape_type") or "polygon"
    if kind == "mask" and shape.get("mask"):
        try:
            with silenced():
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
