"""What every format of annotations has in common: what is marked on an image, and which image a name means."""

import dataclasses
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_runtime.errors import DataError
from edge_runtime.images.names import MASK_FOLDERS, is_image, plain, says_good
from training.data.layout import BAD
from training.data.shapes import Shape, check

READ = "COCO, YOLO, Pascal VOC, CVAT for images or LabelMe"
SUFFIXES = (".json", ".xml", ".txt", ".yaml", ".yml", ".names")


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
    """What all files of one format say."""

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


class Images:
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
        return nearest(exact or found, near)

    def stem(self, stem: str, near: Path) -> Path | None:
        """The image of this name without its suffix."""
        return nearest([p for p in self._by_name.get(stem.lower(), []) if p.stem.lower() == stem.lower()], near)


def nearest(found: Sequence[Path], near: Path) -> Path | None:
    """The one of `found` that lies closest to `near`, also by the words in their names; None where several may be meant."""
    if len(found) < 2:
        return found[0] if found else None
    shared = [len(Path(os.path.commonpath([p, near])).parts) for p in found]
    best = [p for p, n in zip(found, shared, strict=True) if n == max(shared)]
    if len(best) > 1:  # instances_train2017.json speaks of train2017/
        words = set(re.split(r"[_\-.]", near.stem.lower()))
        best = [p for p in best if words & {part.lower() for part in p.parts[:-1]}] or best
    return best[0] if len(best) == 1 else None


def refused(path: Path, what: str) -> DataError:
    """The error to raise for a file of annotations that nothing here reads. `what`: which form it is of."""
    return DataError(
        f"data: {path} holds annotations {what}, which are not read: what they mark would be taught as good. Export them as {READ}, put"
        " good and bad images into folders named good and bad, or move the file elsewhere"
    )


def size_of(width: Any, height: Any) -> tuple[int, int] | None:
    """An image's (width, height) in pixels as a file states it; None where it states none that can be."""
    try:
        wh = int(width), int(height)
    except (TypeError, ValueError):
        return None
    return wh if min(wh) > 0 else None
