"""Layouts that are told by the names of folders: good beside bad, with or without a folder for each split, in whatever words."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from edge_runtime.errors import DataError
from edge_runtime.images.names import MASK_FOLDERS, is_unsettled, known_words, nearly_good, plain, says_good
from training.data.layout import BAD, GOOD, LISTED, Found, Sample, folders_in, images_in, pair_masks, say_orphans
from training.data.names import claims_in, denied_in, half_good, is_no_kind, tokens_of, word_in
from training.data.split import hold_back
from training.data.twins import masks_among

TRAIN = frozenset({"train", "training", "trainset", "traindata"})
TEST = frozenset({"test", "testing", "testset", "testdata", "val", "valid", "validation", "eval"})
ASIDE = frozenset({"labels", "label", "annotations", "annotation", "ann", "anns", "json", "xml", "imagesets", "splitcsv", "docs"})
"""Folders beside the images that hold none."""
WRAPPERS = frozenset({"images", "image", "imgs", "img", "data", "dataset", "jpegimages", "pictures", "photos", "bilder", "teile", "parts"})


def is_aside(folder: Path) -> bool:
    """Whether a folder holds masks or annotations by its name."""
    return plain(folder.name) in ASIDE or holds_masks(folder)


def holds_masks(folder: Path) -> bool:
    """Whether its name, or the last word of it ("NG_masks"), says that a folder holds masks."""
    return plain(folder.name) in MASK_FOLDERS or plain(re.split(r"[\s_\-.]+", folder.name.strip())[-1]) in MASK_FOLDERS


def good_folders(folder: Path) -> list[Path]:
    """Folders in it whose names call parts good."""
    return [f for f in folders_in(folder) if says_good(f.name)]


def splits_in(path: Path) -> tuple[list[Path], list[Path]]:
    """(folders of the training split, folders of the test split) directly in `path`."""
    inside = folders_in(path)
    return [f for f in inside if plain(f.name) in TRAIN], [f for f in inside if plain(f.name) in TEST]


def fits_split(path: Path) -> bool:
    """Whether there are folders for the splits that hold folders of good and bad images."""
    train, test = splits_in(path)
    if any(good_folders(f) for f in (*train, *test)):
        return True
    kinds = [k for f in test for k in folders_in(f) if not is_aside(k) and plain(k.name) not in WRAPPERS]
    return any(_below(k) for k in kinds)


def fits_sides(path: Path) -> bool:
    """Whether good images lie in a folder of that name directly in `path`, or directly in `path` beside a folder of bad ones."""
    if any(good_folders(f) for found in splits_in(path) for f in found):
        return False
    if any(_below(f) for f in good_folders(path)):
        return True
    return bool(images_in(path)) and any(says_good(f.name) is False and _below(f) for f in folders_in(path))


def read_split(path: Path) -> Found:
    """train/<good>, test/<good>, test/<kind>, masks in ground_truth/<kind>; further folders of train hold bad images. Raises DataError."""
    train_folders, test_folders = splits_in(path)
    problems: list[str] = []
    notes: list[str] = []
    orphans: list[Path] = []
    truths = [f for f in folders_in(path) if plain(f.name) in MASK_FOLDERS]
    train: list[Sample] = []
    bad: list[Sample] = []
    test: list[Sample] = []
    names: set[str] = set()
    for split in train_folders:
        good, kinds = _sides(split, problems)
        train += [Sample(p, GOOD, True, None, "train") for f in good for p in _below(f)]
        for kind, folder, images in kinds:
            masks, _ = _paired(images, folder, [t / split.name / kind for t in truths])
            bad += [Sample(p, kind, False, masks.get(p), "train") for p in images if p not in masks.values()]
        names |= {f.name for f in good}
    for split in test_folders:
        good, kinds = _sides(split, problems)
        test += [Sample(p, GOOD, True, None, "test") for f in good for p in _below(f)]
        for kind, folder, images in kinds:
            masks, left = _paired(images, folder, [*(t / kind for t in truths), *(t / split.name / kind for t in truths)])
            images = [p for p in images if p not in masks.values()]
            wrong, said = say_orphans(left[0].parent if left else folder, [p for p in images if p not in masks], left)
            orphans, problems, notes = orphans + left, problems + wrong, notes + said
            test += [Sample(p, kind, False, masks.get(p), "test") for p in images]
        names |= {f.name for f in good}
    if bad and not train and not names:
        kinds_seen = ", ".join(dict.fromkeys(s.kind for s in bad))
        raise DataError(
            f"data: expected in {train_folders[0]} a folder that is called good, found {kinds_seen}; rename the one that holds good"
            f" images. Words for good | bad: {known_words()}"
        )
    folders_of_masks = [f for p in (path, *train_folders, *test_folders) for f in folders_in(p) if holds_masks(f)]
    flat, wrong, said = _flat_masks([*bad, *test], folders_of_masks)
    bad, test = ([dataclasses.replace(s, mask_path=flat.get(s.path, s.mask_path)) for s in side] for side in (bad, test))
    problems, notes = problems + wrong, notes + said
    kinds_of_test = {k.name for f in test_folders for k in folders_in(f)}
    splits = {f.name for f in (*train_folders, *test_folders)}
    for folder in (f for t in truths for f in folders_in(t) if f.name not in kinds_of_test | splits and not says_good(f.name)):
        left = images_in(folder)
        orphans, notes = orphans + left, notes + say_orphans(folder, [], left)[1]
    if loose := [p for f in (path, *train_folders, *test_folders) for p in images_in(f)]:
        notes.append(f"{len(loose)} images lie outside of the layout's folders (the first: {loose[0]}); they are left out")
    if validation := [f.name for f in test_folders if plain(f.name) not in ("test", "testing")]:
        notes.append(f"images of {', '.join(validation)} are test images here: nothing is chosen by them")
    kinds_found = {s.kind for s in test if not s.is_good}
    name = (
        "BTAD" if names == {"ok"} and kinds_found <= {"ko"} else "MVTec AD" if names <= {GOOD} else "folders of good and bad in each split"
    )
    notes += say_words([*train, *bad, *test]) if name.startswith("folders") else []
    return Found(name, tuple(train), tuple(test), tuple(bad), tuple(orphans), tuple(notes), tuple(problems))


def _flat_masks(samples: list[Sample], folders: list[Path]) -> tuple[dict[Path, Path], list[str], list[str]]:
    """(masks by image, problems, notes) of masks directly in `folders`, without a folder for their kind: read where names tell."""
    bare = [s.path for s in samples if not s.is_good and s.mask_path is None]
    unmasked = set(bare)
    used: dict[Path, Path] = {}
    problems: list[str] = []
    notes: list[str] = []
    for folder in folders:
        masks, left = pair_masks([s.path for s in samples if not s.is_good], folder)
        several = Counter(masks.values())
        masks = {image: mask for image, mask in masks.items() if image in unmasked}
        if unclear := [(image, mask) for image, mask in masks.items() if several[mask] > 1]:
            image, mask = unclear[0]
            problems.append(
                f"{folder}: {mask.name} may be the mask of {several[mask]} images of that name (one is {image}); put masks into a folder"
                f" for each kind, as {folder / image.parent.name}"
            )
        used |= {image: mask for image, mask in masks.items() if several[mask] == 1}
        known = {s.path.stem for s in samples}
        wrong, said = say_orphans(folder, [] if masks else bare, [m for m in left if m.stem.removesuffix("_mask") not in known])
        problems, notes = problems + wrong, notes + said
    return used, problems, notes


def read_sides(path: Path) -> Found:
    """good/ beside NG/, scratch/ …: the bad ones test, with a fifth of the good ones. Raises DataError."""
    problems: list[str] = []
    notes: list[str] = []
    good, kinds = _sides(path, problems)
    good_images = [p for f in good for p in _below(f)]
    if not good:
        good_images = images_in(path)
        kinds = [k for k in kinds if says_good(k[1].name) is False or says_good(k[1].parent.name) is False]
    elif loose := images_in(path):
        notes.append(f"{len(loose)} images lie outside of the folders (the first: {loose[0]}); they are left out")
    roots = [f for f in folders_in(path) if holds_masks(f)]
    roots += [f for f in folders_in(path.parent) if plain(f.name) in MASK_FOLDERS]
    bad: list[Sample] = []
    orphans: list[Path] = []
    for kind, folder, images in kinds:
        own = sorted(roots, key=lambda r: not r.name.startswith(folder.name))
        masks, left = _paired(images, folder, [*(r / kind for r in own), *(r / folder.name for r in own), *own])
        images = [p for p in images if p not in masks.values()]
        wrong, said = say_orphans(left[0].parent if left else folder, [p for p in images if p not in masks], left)
        orphans, problems, notes = orphans + left, problems + wrong, notes + said
        bad += [Sample(p, kind, False, masks.get(p), "test") for p in images]
    words = {p: f.name.strip() for f in good for p in good_images if p.is_relative_to(f)} or dict.fromkeys(good_images, path.name)
    words |= {s.path: s.kind for s in bad}
    name = "folders of good and bad" if bad else "folders of good ones alone"
    return with_own_split(name, good_images, bad, orphans, notes, problems, words)


def with_own_split(
    name: str,
    good: Iterable[Path],
    bad: Iterable[Sample],
    orphans: Iterable[Path],
    notes: Iterable[str],
    problems: Iterable[str],
    words: dict[Path, str] | None = None,
) -> Found:
    """Good and bad images without a split: the bad ones, and a fifth of the good ones where there are bad ones, test."""
    good, bad = list(good), list(bad)
    held = hold_back(good) if bad else frozenset()
    samples = [Sample(p, GOOD, True, None, "test" if p in held else "train") for p in good]
    said = say_words([*samples, *bad], words)
    if bad:
        said.append(
            f"no split: {len(held)} good images (a fifth, by what they show and not by their names) and all {len(bad)} bad ones are the"
            " test split"
        )
    train = tuple(s for s in samples if s.split == "train")
    test = (*(s for s in samples if s.split == "test"), *bad)
    return Found(name, train, test, (), tuple(orphans), (*notes, *said), tuple(problems), own_split=bool(bad))


def say_words(samples: Iterable[Sample], words: dict[Path, str] | None = None) -> list[str]:
    """What was taken as good and as bad, as it was written, and a doubt where the good ones are few."""
    samples = list(samples)
    counts: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for s in samples:
        counts[s.is_good][words[s.path] if words else _word_of(s)] += 1
    shown = "; ".join(f"{side}: {_counted(counts[which])}" for side, which in (("good", True), ("bad", False)) if counts[which])
    notes = [shown] if shown else []
    good, bad = (sum(c.values()) for c in (counts[True], counts[False]))
    if 0 < good < bad:
        notes.append(
            f"only {good} of {good + bad} images are called good: on a line it is the other way round. If the words are meant otherwise,"
            " correct them before anything is taught"
        )
    return notes


def say_by_name(images: list[Path]) -> dict[Path, bool] | None:
    """Good (True) or bad by words in the files' names (OK_001.png, part7_NG.png); None where the names do not speak of bad ones.

    Raises DataError where some do and others say nothing, or both, or where some deny what others say ("no_dent" beside "dent").
    """
    claims = {p: {c.good for c in claims_in(p.stem)} for p in images}
    said = {p: word_in(p.stem) for p in images}
    if False not in said.values():
        denied = {word for p in images for word in denied_in(p.stem)}
        for path in images if denied else []:
            word = next((t for t in tokens_of(path.stem)[0] if plain(t) in denied and plain(t) not in denied_in(path.stem)), None)
            if word is not None:
                other = next(p for p in images if plain(word) in denied_in(p.stem))
                raise DataError(
                    f"data: {path} says {word} in its name, and {other.name} says that there is none: if {word} means a bad part, put good"
                    " and bad images into folders named good and bad"
                )
        return None
    silent = [p for p, word in said.items() if word is None]
    spoken = {p: word for p, word in said.items() if word is not None}
    bad = next(p for p, word in said.items() if word is False)
    if silent:
        raise DataError(
            f"data: {len(spoken)} of {len(images)} names in {bad.parent} say good or bad (as {bad.name}), the others do not (as"
            f" {silent[0].name}): put good and bad images into folders named good and bad"
        )
    if both := [p for p, words in claims.items() if len(words) > 1]:
        raise DataError(
            f"data: {len(both)} of {len(images)} names in {bad.parent} say good and bad at once (as {both[0].name}): rename them, or put"
            " good and bad images into folders named good and bad"
        )
    return spoken


def _word_of(sample: Sample) -> str:
    return sample.path.parent.name.strip() if sample.is_good else sample.kind


def _counted(words: Counter[str]) -> str:
    shown = ", ".join(f"{word}, {count}" for word, count in words.most_common(LISTED))
    return shown + (f", … {len(words)} kinds in all" if len(words) > LISTED else "")


def _below(folder: Path) -> list[Path]:
    """Images in a folder and in all folders below it, without masks."""
    return [*images_in(folder), *(p for f in folders_in(folder) if not is_aside(f) for p in _below(f))]


def _folders_below(folder: Path) -> list[Path]:
    return [g for f in folders_in(folder) if not is_aside(f) for g in (f, *_folders_below(f))]


def _sides(path: Path, problems: list[str]) -> tuple[list[Path], list[tuple[str, Path, list[Path]]]]:
    """(folders of good images, (kind, folder, images) of bad ones) in `path`; a folder of bad ones may hold one for each kind."""
    good: list[Path] = []
    kinds: list[tuple[str, Path, list[Path]]] = []
    unsaid = {"0", "1"} if all(_below(path / n) for n in "01") else frozenset[str]()
    if unsaid:
        problems.append(say_folders_zero_and_one(path))
    for folder in (f for f in folders_in(path) if f.name not in unsaid):
        if is_aside(folder) or not (_below(folder) or any(folders_in(folder))):
            continue
        if says_good(folder.name):
            good.append(folder)
            if wrong := [f for f in _folders_below(folder) if word_in(f.name) is False and _below(f)]:
                problems.append(f"{wrong[0]}: bad images in a folder of good ones; move them beside it")
        elif is_unsettled(folder.name) or plain(folder.name) in TRAIN | TEST:
            problems.append(f"{folder}: its name says neither good nor bad; move its images to a folder that does, or elsewhere")
        elif (meant := nearly_good(folder.name)) is not None:
            problems.append(f"{folder}: a slip of the pen? its images would be bad ones; call it {meant} if they are good")
        elif (word := half_good(folder.name)) is not None:
            problems.append(
                f"{folder}: its name says {word} and more, and its images would be bad ones; if they are good, move them into the folder of"
                f" good images; if they are bad, give it a name without {word}; else move it elsewhere"
            )
        elif is_no_kind(folder.name):
            problems.append(
                f"{folder}: its name is that of no defect, and its images would be bad ones; move it into a folder {BAD} if they are, else"
                " elsewhere"
            )
        else:
            own = images_in(folder)
            inner = [f for f in folders_in(folder) if not is_aside(f) and _below(f)]
            if wrong := [f for f in _folders_below(folder) if (says_good(f.name) or half_good(f.name)) and _below(f)]:
                problems.append(f"{wrong[0]}: good images in a folder of bad ones; move them")
                continue
            kinds += [(folder.name.strip(), folder, own)] if own else []
            kinds += [(f.name.strip(), f, _below(f)) for f in inner]
    if len(good) > 1:
        problems.append(f"{path}: expected one folder of good images, found {', '.join(f.name for f in good)}; keep one of them")
    return good, kinds


def say_folders_zero_and_one(path: Path) -> str:
    """Where folders 0 and 1 hold images: as a label in a table 0 is good, but folders are also numbered."""
    counts = " and ".join(f"{n} ({len(_below(path / n))} images)" for n in "01")
    return (
        f"{path}: the folders {counts} leave open which images are good. If 0 and 1 are labels, call the folders good and bad; if they"
        f" count cameras, days or lots of good parts, move both into one folder good ({path / GOOD / '0'}, …)"
    )


def _paired(images: list[Path], folder: Path, places: list[Path]) -> tuple[dict[Path, Path], list[Path]]:
    """Masks by image and those without one: in the first of `places` that has some, in the folder's own, or beside the images."""
    inner = [f for f in folders_in(folder) if plain(f.name) in MASK_FOLDERS]
    for place in (*places, *inner):
        masks, left = pair_masks(images, place)
        if masks or (left and (place.name == folder.name or place.parent == folder)):
            return masks, left if place.name == folder.name or place.parent == folder else []
    return {image: mask for mask, image in masks_among(images).items()}, []
