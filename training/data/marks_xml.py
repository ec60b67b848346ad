"""Annotations in XML: Pascal VOC and CVAT for images."""

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np

from edge_runtime.images.names import says_good
from training.data.encodings import NOT_UNDERSTOOD, parse_xml, why
from training.data.marked import Annotations, Drawn, Images, refused, size_of
from training.data.shapes import Shape, as_runs, ellipse
from training.data.tables import names_images


def read_xml(images: Images) -> list[Annotations]:
    """Pascal VOC and CVAT. What cannot be understood is a problem of its own; raises DataError for a form that is known and not read."""
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
                raise refused(path, "of CVAT for videos")
            elif root.tag == "annotations" and root.find("image") is not None:
                _add_cvat(cvat, root, images, path)
            elif path.stem.lower() in stems:
                raise refused(path, f"of an unknown format (<{root.tag}>)")
            elif names_images(path, images.paths):
                images.unknown.append(path)
        except NOT_UNDERSTOOD as e:
            voc.unread |= {image for image in [images.stem(path.stem, path)] if image is not None}
            voc.problems.append(f"{path}: its annotations cannot be understood ({why(e)}); export them again")
    return [voc, cvat]


def _add_voc(into: Annotations, root: ET.Element, images: Images, path: Path) -> None:
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
    wh = None if size is None else size_of(size.findtext("width"), size.findtext("height"))
    into.add(image, Drawn(tuple(labels), tuple(shapes), wh, False, path))


def _add_cvat(into: Annotations, root: ET.Element, images: Images, path: Path) -> None:
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
        wh = size_of(entry.get("width"), entry.get("height"))
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
        cx, cy, rx, ry = (float(at[n]) for n in ("cx", "cy", "rx", "ry"))
        return ellipse(cx, cy, rx, ry, float(at.get("rotation", 0)))
    if mark.tag == "mask":
        place = (int(at["left"]), int(at["top"]), int(at["width"]), int(at["height"]))
        return Shape("runs", runs=as_runs(int(n) for n in at["rle"].split(",")), box_xywh=place, by_columns=False)
    if mark.tag in ("polygon", "polyline", "points"):
        points = tuple((float(x), float(y)) for x, y in (p.split(",") for p in at["points"].split(";")))
        return Shape("polygon" if mark.tag == "polygon" else "line", points)
    return None  # a tag of the whole image
