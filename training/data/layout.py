"""What a data set's files are to each other: images, their kinds, splits and masks; and the helpers that every format shares."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import DataError
from edge_runtime.images.masks import Colour
from edge_runtime.images.names import MASK_FOLDERS, is_image, is_of_system, plain, says_good
from training.data.names import half_good
from training.data.shapes import Shapes
from training.data.twins import masks_among

GOOD = "good"
BAD = "bad"
"""The kind of a bad image where nothing names one."""
TEST_EVERY = 5
LISTED = 5
"""How many of many files a message names."""


def first_of(items: Sequence[str]) -> Sequence[str]:
    """The first LISTED of them; all where only one more is left, since "and 1 more" takes the room of its name."""
    return items if len(items) <= LISTED + 1 else items[:LISTED]


@dataclass(frozen=True, slots=True)
class Sample:
    """One image file."""

    path: Path
    kind: str
    """"good", or the name of the defect (MVTec's folder), or "bad" where the folder names no kind."""
    is_good: bool
    mask_path: Path | None
    """Where the defect's mask lies; None for good images and where there is none."""
    split: str
    """"train" (bad ones too, where a data set's training split holds some), "test", or "bad" (given with --bad)."""
    shapes: Shapes | None = None
    """What an annotation file draws on it, where there is no mask."""
    background: Colour | None = None
    """The mask's background, where it is not black: told from all masks together."""

    @property
    def has_truth(self) -> bool:
        """Whether anything says where the defect is."""
        return self.mask_path is not None or self.shapes is not None

    @property
    def truth_name(self) -> str:
        """What says so, for messages."""
        return str(self.mask_path or (self.shapes.source if self.shapes else "") or self.path)


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in a folder, before any image of it is decoded."""

    format: str
    """For people: "MVTec AD"."""
    train: tuple[Sample, ...]
    """Good images to learn from."""
    test: tuple[Sample, ...]
    bad: tuple[Sample, ...] = ()
    """Bad images of the training split: never learnt as good."""
    orphans: tuple[Path, ...] = ()
    """Masks that belong to no image."""
    notes: tuple[str, ...] = ()
    """Sentences that a user should read."""
    problems: tuple[str, ...] = ()
    """Sentences, each of which makes the data set unusable as it is."""
    reversed: str = ""
    """A sentence where good and bad may stand for each other: such images may be judged by, and not learnt from."""
    own_split: bool = False
    """Which good images test was chosen here, not by whoever laid them out."""

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All of them, training images first."""
        return (*self.train, *self.bad, *self.test)

    @property
    def sentence(self) -> str:
        """What was found, for people."""
        bad = sum(not s.is_good for s in self.test)
        parts = [f"{len(self.train)} good images to learn from"]
        if self.bad:
            parts.append(f"{len(self.bad)} bad ones in the training split (never learnt as good)")
        if self.test:
            parts.append(f"{len(self.test) - bad} good and {bad} bad ones to test with")
        return f"the data is {self.format}: {', '.join(parts)}"


def images_in(folder: Path) -> list[Path]:
    """Image files directly in `folder`, by name; none where it does not exist."""
    if not folder.is_dir():
        return []
    found = sorted(p for p in folder.iterdir() if is_image(p) and p.is_file())
    for path in found:
        _refuse_bytes(path)
    return found


def _refuse_bytes(path: Path) -> None:
    """Records and reports are text: a name that is none would stop them after all the work."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise DataError(f"images: expected names in UTF-8, found {os.fsencode(path)!r}; rename it") from None


def folders_in(folder: Path) -> list[Path]:
    """Folders directly in `folder`, by name, without hidden ones and a system's own; none where it does not exist."""
    inside = folder.iterdir() if folder.is_dir() else ()
    found = sorted(p for p in inside if p.is_dir() and not p.name.startswith(".") and not is_of_system(p.name))
    for path in found:
        _refuse_bytes(path)
    return found


def pair_masks(images: Sequence[Path], folder: Path | None) -> tuple[dict[Path, Path], list[Path]]:
    """Masks by image (`<name>_mask.*` before `<name>.*`, PNG before others), and the files of `folder` that belong to none of them."""
    found = images_in(folder) if folder is not None else []
    by_stem = {p.stem: p for p in sorted(found, key=lambda p: p.suffix.lower() == ".png")}
    masks = {i: m for i in images if (m := by_stem.get(f"{i.stem}_mask", by_stem.get(i.stem))) is not None}
    stems = {i.stem for i in images}
    return masks, [p for p in found if p.stem not in stems and p.stem.removesuffix("_mask") not in stems]


def say_orphans(where: Path, unmasked: Sequence[Path], orphans: Sequence[Path]) -> tuple[list[str], list[str]]:
    """(problems, notes) about masks without an image.

    Left-over masks alone are harmless: somebody took images out. But where images of the same kind lack masks too, the names do not match,
    and every figure over pixels would silently leave those defects out.
    """
    if not orphans:
        return [], []
    if unmasked:
        return [
            f"{where}: {len(orphans)} masks fit no image (the first: {orphans[0].name}) and {len(unmasked)} images have no mask (the first:"
            f" {unmasked[0].name}): expected masks named as their images, {unmasked[0].stem}_mask.png; rename them, or remove the masks"
        ], []
    return [], [f"{len(orphans)} masks in {where} belong to no image (the first: {orphans[0].name}); they are left out"]


def are_masks(images: Sequence[Path]) -> bool:
    return bool(images) and all(i.stem.lower().endswith("_mask") for i in images)


def _below(folder: Path) -> list[Path]:
    """Images in a folder and in all folders below it, without masks."""
    return [*images_in(folder), *(p for f in folders_in(folder) if plain(f.name) not in MASK_FOLDERS for p in _below(f))]


def find_bad(bad: Path | None, masks: Path | None) -> tuple[list[Sample], list[Path]]:
    """The defective images in `bad`, subfolders naming kinds, and masks without an image; `masks` may lie inside. Raises DataError."""
    if bad is None:
        return [], []
    if not bad.is_dir():
        raise DataError(f"bad images: expected a folder, found {'a file' if bad.exists() else 'nothing'} at {bad}")
    if masks is not None and not masks.is_dir():
        raise DataError(f"masks: expected a folder, found {'a file' if masks.exists() else 'nothing'} at {masks}")
    inside = [f for f in folders_in(bad) if masks is None or f.resolve() != masks.resolve()]
    for folder in inside:
        if says_good(folder.name) or half_good(folder.name):
            raise DataError(f"bad images: expected defects in the folders of {bad}, found {folder.name}; give a folder without good images")
        if plain(folder.name) in MASK_FOLDERS or are_masks(images_in(folder)):
            raise DataError(
                f"bad images: expected defects in the folders of {bad}, found masks in {folder.name}; give them with --masks {folder}"
            )
    kinds = [(BAD, bad), *((f.name, f) for f in inside)]
    found: list[Sample] = []
    used: set[Path] = set()
    for kind, folder in kinds:
        images = images_in(folder) if folder == bad else _below(folder)
        inner = masks / kind if masks is not None and folder != bad and (masks / kind).is_dir() else masks
        among = masks_among(images)
        images = [p for p in images if p not in among]
        paired = {image: mask for mask, image in among.items()} | pair_masks(images, inner)[0]
        used.update(paired.values())
        found += [Sample(p, kind, False, paired.get(p), "bad") for p in images]
    if not found:
        raise DataError(f"bad images: expected images in {bad}, found none")
    if masks is not None and not used:
        raise DataError(f"masks: expected files such as {found[0].path.stem}_mask.png in {masks}, found none for any image of {bad}")
    everything = [m for f in (masks, *folders_in(masks)) for m in images_in(f)] if masks is not None else []
    return found, [m for m in everything if m not in used]
