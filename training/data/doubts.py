"""What speaks against what was found: names, masks and files nearby that call images bad which would be taught as good."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from edge_runtime.errors import DataError
from edge_runtime.images.names import MASK_FOLDERS, is_image, is_of_system, plain, says_good
from training.data.annotations import read_annotations
from training.data.folders import ASIDE, TEST, TRAIN, WRAPPERS, holds_masks, is_aside
from training.data.layout import LISTED, Found, Sample, folders_in, pair_masks
from training.data.lists import LISTS
from training.data.marked import SUFFIXES
from training.data.masks import marked
from training.data.names import word_in
from training.data.tables import header_of, names_images
from training.data.twins import NAMED, masks_among

_OTHERS = frozenset({".git", ".venv", ".cache", ".ipynb_checkpoints", ".dvc"})
_HIDDEN = "are hidden (a name that begins with a point)"
_OF_SYSTEM = "are thumbnails, or deleted, in folders that a system made"
_MOST_FILES = 500_000


def refuse_bad_name(path: Path) -> None:
    """Raises DataError where the folder that all good images would come from is called bad, itself or above a folder of a neutral name."""
    here = path.resolve()
    named = here.parent if plain(here.name) in WRAPPERS else here
    if says_good(named.name) is False:
        raise DataError(
            f"data: the name of {path if named == here else named} calls parts bad ({named.name}), and all images in it would be taught as"
            " good. If they are bad, give the folder of good ones, and these with --bad; if they are good, rename the folder, or list"
            " them in a .csv of path,label"
        )


def refuse_nearby(path: Path, images: Sequence[Path]) -> None:
    """Raises DataError where files in or beside the folder `path`, or masks, say which of its `images` are bad, and would not be read."""
    if among := masks_among(images):
        mask, image = next(iter(among.items()))
        raise DataError(
            f"data: {mask} is named as the mask of {image.name} beside it, as are {len(among)}, and would be taught as a good part; put"
            " masks into a folder masks, and bad images into a folder beside those of good ones"
        )
    above = [path.resolve().parent]
    if plain(above[0].name) in TRAIN | TEST | WRAPPERS:
        above.append(above[0].parent)
    for place in (path, *above):
        for folder in (f for f in _folders(place) if plain(f.name) in MASK_FOLDERS):
            for inside in (folder, *_folders(folder)):
                if inside == folder or inside.name == path.name:
                    _refuse_masks(images, inside)
    for place in above:
        files = [p for p in _files(place) if p.suffix.lower() in (*SUFFIXES, *LISTS, ".csv")]
        files += [p for f in _folders(place) if plain(f.name) in ASIDE for d in (f, *_folders(f)) for p in _files(d)]
        _refuse_files(path, images, place, files)


def _refuse_masks(images: Sequence[Path], folder: Path) -> None:
    masks, _ = pair_masks(images, folder)
    marking = [i for i, m in masks.items() if marked([m])[m] is True]
    if marking:
        raise DataError(
            f"data: masks in {folder} mark something on {len(marking)} images that would be taught as good (the first: {marking[0]});"
            " put these images into a folder of bad ones, or move the masks elsewhere"
        )


def _refuse_files(path: Path, images: Sequence[Path], place: Path, files: list[Path]) -> None:
    stems = {p.stem.lower() for p in images}
    files = [p for p in files if p.stem.lower() in stems or p.parent == place or p.suffix.lower() in (".json", ".xml")]
    names = [p for p in files if p.suffix.lower() in (".yaml", ".yml", ".names") or p.stem.lower() == "classes"]
    speaking = [p for p in files if p not in names and (p.stem.lower() in stems or names_images(p, list(images)))]
    known = read_annotations(path, [*(p for p in speaking if p.suffix.lower() in (".json", ".xml", ".txt")), *names]) if speaking else None
    bad = {i: d for i, d in known.drawn.items() if d.kinds} if known is not None else {}
    if known is not None and bad:
        source = next(iter(bad.values())).source
        raise DataError(
            f"data: {known.format} beside the folder mark {len(bad)} images in {path}, which would be taught as good (the first: {source}):"
            f" give {place} instead, so that they are read, or move them elsewhere"
        )
    used = {d.source for d in known.drawn.values()} if known is not None else set()
    for file in speaking:
        if file.suffix.lower() == ".csv":
            raise DataError(
                f"data: {file} (columns {','.join(header_of(file))}) names images of {path}; all of them would be taught as good. Give the"
                " table instead, with the columns path,label, or move it elsewhere"
            )
        is_list = file.suffix.lower() in LISTS and file not in used and file.parent == place
        if is_list and names_images(file, list(images)) and not _is_plain_list(file, len(images)):
            raise DataError(
                f"data: {file} names images of {path}; if it says which are bad, save it as .csv with the columns path,label, and give"
                " that, else move it elsewhere"
            )


def _is_plain_list(file: Path, count: int) -> bool:
    """One word a line, and as many lines as images or more: nothing is said of some of them alone."""
    lines = [line for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return len(lines) >= count and all(len(line.split()) == 1 and "," not in line for line in lines)


def doubted(found: Found, root: Path, by_table: bool) -> Found:
    """With what names and masks say against good images, and all images of the data's folder that are in none of its parts."""
    problems, notes = list(found.problems), list(found.notes)
    good = [s for s in found.samples if s.is_good]
    called = [s for s in good if word_in(s.path.stem) is False]
    if called and (by_table or 2 * len(called) > len(good)):
        notes.append(f"the names of {len(called)} of {len(good)} good images call them bad (the first: {called[0].path}): is that meant?")
    elif called:
        problems.append(
            f"{called[0].path}: lies among good images, and its name calls it bad, as do those of {len(called)} of {len(good)}; move such"
            " images to a folder of bad ones, rename them, or list all images in a .csv of path,label"
        )
    if among := masks_among([s.path for s in found.samples]):
        mask, image = next(iter(among.items()))
        problems.append(
            f"{mask}: is the mask of {image.name} by its name and what it shows, as are {len(among)} images that would count as parts; put"
            " masks into a folder of their own, called masks"
        )
    if not by_table:
        problems += _masks_of_good(good, found, root)
    notes += _say_unused(found, root)
    return dataclasses.replace(found, problems=tuple(problems), notes=tuple(notes))


def _masks_of_good(good: Sequence[Sample], found: Found, root: Path) -> list[str]:
    bad = {s.path.stem for s in found.samples if not s.is_good}
    images = [s.path for s in good]
    problems = []
    for folder in (f for f in _folders(root) if holds_masks(f)):
        for inside in (folder, *(f for f in _folders(folder) if says_good(f.name))):
            masks = {i: m for i, m in pair_masks(images, inside)[0].items() if inside != folder or i.stem not in bad}
            marking = [m for m, is_marked in marked(masks.values()).items() if is_marked is True]
            if marking:
                problems.append(
                    f"{marking[0]}: marks a defect on a good image, as do {len(marking)} masks in {inside}; correct the masks, or put these"
                    " images among the bad ones"
                )
    return problems


def _say_unused(found: Found, root: Path) -> list[str]:
    """Sentences about images below `root` that are no part of the data set."""
    own = (*found.orphans, *(p for s in found.samples for p in (s.path, s.mask_path) if p is not None))
    known = {os.path.realpath(p) for p in own}  # a table may name them otherwise: from the root, or through other folders
    named = " ".join((*found.notes, *found.problems))
    unused: dict[str, list[tuple[Path, Path]]] = {}
    seen = 0
    for at, folders, files in os.walk(root):
        place = Path(at)
        folders[:] = sorted(f for f in folders if f.lower() not in _OTHERS and not is_aside(Path(f)))
        for name in sorted(files):
            seen += 1
            path = place / name
            no_part = path.stem.lower().endswith(NAMED) or name.startswith("._") or not is_image(Path(name.lstrip(".")))
            if no_part or seen > _MOST_FILES or os.path.realpath(path) in known or not path.is_file():
                continue
            parts = path.relative_to(root).parts
            system = next((i for i, part in enumerate(parts[:-1]) if is_of_system(part)), None)
            hidden = any(part.startswith(".") for part in parts)
            why = _OF_SYSTEM if system is not None else _HIDDEN if hidden else "belong to no part of this layout"
            unused.setdefault(why, []).append((path, path.parent if system is None else root.joinpath(*parts[: system + 1])))
    notes = []
    for why, paths in unused.items():
        if f"{len(paths)} images" in named:
            continue  # said already
        folders_ = ", ".join(dict.fromkeys(str(place) for _, place in paths[: 100 * LISTED]))
        notes.append(f"left out: {len(paths)} images {why}, in {folders_[:300]} (the first: {paths[0][0]})")
    return notes


def _folders(place: Path) -> list[Path]:
    try:
        return folders_in(place)
    except (OSError, DataError):
        return []  # of somebody else, above the folder that was given


def _files(place: Path) -> Iterable[Path]:
    try:
        return sorted(p for p in place.iterdir() if p.is_file() and not p.name.startswith("."))
    except OSError:
        return []
