"""The truth about a bad part: its mask, read beside its siblings, or what was drawn on it.

One mask alone cannot tell which of its colours is the background. All masks of a data set together can: the colour at their borders.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import DataError
from edge_runtime.images.masks import BLACK, Colour, border_of, colour_of, difference, marks, usual_colour, values_of
from edge_runtime.images.read import decode, is_lossy, read_image, read_mask
from training.data.layout import Sample
from training.data.shapes import box, draw

EVERYTHING = 0.95
"""Share of its picture from which on a mask says nothing of where the defect is."""
_Of = TypeVar("_Of")
_MOST = 0.5
_INSIDE = 0.5
"""Share of a mark that must lie in its picture; hands overshoot its border a little."""
_TOUCHES = 0.02
"""Share of the border that black takes where it is the background, cut off by a large defect."""
_END = 24
"""A lossy file's black and white lie within this of 0 and 255."""


@dataclass(frozen=True, slots=True)
class MaskFacts:
    """What one mask file says by itself."""

    wh: tuple[int, int]
    border: Colour
    """The most usual colour of the outermost pixels."""
    constant: bool
    """One colour only."""
    alpha: bool
    """Drawn in the alpha channel."""
    black_at_border: float
    """Share of the outermost pixels that are black."""
    not_black: float
    """Share of all pixels that are not black."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What all masks say together."""

    facts: dict[Path, MaskFacts | DataError]
    background: Colour
    marked: dict[Path, float]
    """Share of its picture that each mask marks, over `background`."""
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    """Masks that cannot be what they seem; unreadable ones stand in `facts`."""


def truth(sample: Sample, wh: tuple[int, int] | None = None) -> npt.NDArray[np.uint8] | None:
    """(H, W) uint8 of the image's size, 255 on the defect; None where neither a mask nor a shape is known. Raises DataError.

    `wh`: of the image, where it is known already; else it is read for shapes.
    """
    if sample.mask_path is not None:
        return read_mask(sample.mask_path, sample.background or BLACK)
    if sample.shapes is None:
        return None
    if wh is None:
        wh = read_image(sample.path).shape[1::-1]
    return draw(sample.shapes, wh)


def settle(samples: Sequence[Sample]) -> tuple[tuple[Sample, ...], Survey]:
    """The samples with their masks' background, and what is to be said of it."""
    found = survey(s.mask_path for s in samples if s.mask_path is not None)
    if found.background == BLACK:
        return tuple(samples), found
    settled = (s if s.mask_path is None else dataclasses.replace(s, background=found.background) for s in samples)
    return tuple(settled), found


def size_of_truth(sample: Sample, found: Survey) -> tuple[int, int] | DataError | None:
    """(width, height) of a sample's mask, or what its annotation states of its image; None where nothing does."""
    if sample.mask_path is not None:
        fact = found.facts[sample.mask_path]
        return fact if isinstance(fact, DataError) else fact.wh
    return None if sample.shapes is None else sample.shapes.wh


def say_sizes(wrong: Sequence[tuple[Sample, tuple[int, int], tuple[int, int]]]) -> list[str]:
    """A sentence a file whose (sample, its stated size, its image's size) differ: one annotation file may speak of many images."""
    by_file: dict[str, list[tuple[Sample, tuple[int, int], tuple[int, int]]]] = {}
    for entry in wrong:
        by_file.setdefault(entry[0].truth_name, []).append(entry)
    said = []
    for name, entries in by_file.items():
        sample, stated, wh = entries[0]
        there, here = f"{stated[0]}x{stated[1]}", f"{wh[0]}x{wh[1]}"
        if sample.mask_path is not None:
            said.append(f"{name}: expected the size of its image, {here}, found {there}")
        else:
            count = f"of {len(entries)} images (the first: {sample.path.name})" if len(entries) > 1 else f"of {sample.path.name}"
            said.append(f"{name}: expected the size {count}, {here}, found {there}; was the picture scaled since? Export it again")
    return said


def beyond(sample: Sample, wh: tuple[int, int]) -> str | None:
    """A sentence where a mark that annotations draw lies outside of its picture of `wh`, or most of it."""
    if sample.shapes is None or sample.shapes.relative:
        return None
    for shape in sample.shapes.items:
        corners = np.array(box(*shape.box_xywh).points if shape.kind == "runs" else shape.points, dtype=np.float64).reshape(-1, 2)
        if len(corners) < 2:
            continue
        low, high = corners.min(axis=0), corners.max(axis=0)
        whole = np.maximum(high - low, 1)
        inside = np.clip(np.minimum(high, wh) - np.maximum(low, 0), 0, None) / whole
        if (whole > 1).all() and inside.prod() < _INSIDE:
            x0, y0, x1, y1 = (round(float(v)) for v in (*low, *high))
            return (
                f"{sample.truth_name}: expected marks inside of {sample.path.name}, {wh[0]}x{wh[1]}, found one at {x0},{y0} to {x1},{y1};"
                " was the picture cut or scaled since? Export the annotations again"
            )
    return None


def marked(masks: Iterable[Path]) -> dict[Path, bool | DataError]:
    """Whether each mask marks anything, or why it cannot be read."""
    found = survey(masks)
    return {p: f if isinstance(f, DataError) else found.marked[p] > 0 for p, f in found.facts.items()}


def survey(masks: Iterable[Path]) -> Survey:
    """Read all masks and tell their background from what they mark."""
    paths = list(dict.fromkeys(masks))
    facts: dict[Path, MaskFacts | DataError] = dict(zip(paths, _each(_look, paths), strict=True))
    known = {p: f for p, f in facts.items() if isinstance(f, MaskFacts)}
    telling = {p: f for p, f in known.items() if not f.constant}
    background, said, doubts = _background_of(telling)
    shares = dict(zip(known, _each(lambda p: _share(p, background), list(known)), strict=True))
    problems = [*doubts, *_impossible(known, shares, background)]
    notes = [said] if said else []
    if alpha := sum(f.alpha for f in known.values()):
        notes.append(
            f"{alpha} of {len(known)} masks are drawn in the alpha channel: what differs from their background there is the defect"
        )
    if lossy := [p for p in known if is_lossy(p)]:
        notes.append(f"{len(lossy)} masks are of a lossy format (the first: {lossy[0].name}): their edges are where half the brightness is")
    return Survey(facts, background, shares, tuple(notes), tuple(problems))


def _each(what: Callable[[Path], _Of], paths: Sequence[Path]) -> list[_Of]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(what, paths))


def _look(path: Path) -> MaskFacts | DataError:
    try:
        image = decode(path)
    except DataError as e:
        return e
    values = values_of(image)
    edge = border_of(values)
    lossy = is_lossy(path)
    usual = _snapped(colour_of(np.median(edge, axis=0))) if lossy else usual_colour(edge)
    limit = _END if lossy else 0
    black = difference(values, BLACK) <= limit
    black_edge = border_of(black)
    constant = bool((difference(values, usual) <= limit).all())
    alpha = image.ndim == 3 and image.shape[2] in (2, 4) and bool((image[:, :, -1] != image[0, 0, -1]).any())
    return MaskFacts((values.shape[1], values.shape[0]), usual, constant, alpha, float(black_edge.mean()), float(1 - black.mean()))


def _snapped(colour: Colour) -> Colour:
    return tuple(0.0 if v <= _END else 255.0 if v >= 255 - _END else v for v in colour)


def _share(path: Path, background: Colour) -> float:
    return float((marks(values_of(decode(path)), background, lossy=is_lossy(path)) > 0).mean())


def _background_of(telling: dict[Path, MaskFacts]) -> tuple[Colour, str, list[str]]:
    """(background, a note where it is not black, problems)."""
    votes = Counter(f.border for f in telling.values())
    if not votes:
        return BLACK, "", []
    usual, count = votes.most_common(1)[0]
    if usual == BLACK:
        return BLACK, "", []
    first = next(p for p, f in telling.items() if f.border == usual)
    name = _name(usual)
    black = votes.get(BLACK, 0)
    if count - black <= 0.5 * black or count <= len(telling) / 2:
        colours = ", ".join(f"{n} with {_name(c)}" for c, n in votes.most_common(3))
        return BLACK, "", [f"masks: expected one background, found {colours} at their borders (the first: {first}); draw all of them alike"]
    theirs = [f for f in telling.values() if f.border == usual]
    cut_off = sum(f.black_at_border > _TOUCHES and f.not_black > _MOST for f in theirs)
    if cut_off > len(theirs) / 2:
        shares = np.median([f.not_black for f in theirs])
        return (
            BLACK,
            "",
            [
                f"masks: {count} of {len(telling)} (the first: {first}) mark most of their pictures, {100 * shares:.0f} % on the median,"
                " and reach their border: nobody can tell defect from background. If black is the defect, invert them; if it is"
                " the background, leave these masks out"
            ],
        )
    inverted = " (they are drawn the other way round)" if usual == (255.0,) else ""
    said = (
        f"masks: their background is {name}, not black, in {count} of {len(telling)}{inverted}: what differs from it is taken as the defect"
    )
    return usual, said, []


def _impossible(known: dict[Path, MaskFacts], shares: dict[Path, float], background: Colour) -> list[str]:
    problems = []
    for path, share in shares.items():
        fact = known[path]
        if share > EVERYTHING:
            problems.append(
                f"{path}: marks {100 * share:.0f} % of its picture, so it says nothing of where the defect is; draw the defect alone,"
                " invert the mask if it is the other way round, or remove it: the part then counts as an image"
            )
        elif share > _MOST and not fact.constant and fact.border != background and (background != BLACK or fact.black_at_border == 0):
            problems.append(
                f"{path}: marks {100 * share:.0f} % of its picture and all of its border, other than its siblings: it seems inverted;"
                " invert it, or remove it"
            )
    return problems


def _name(colour: Colour) -> str:
    numbers = tuple(int(v) for v in colour)
    if len(numbers) == 1:
        return {0: "black", 255: "white"}.get(numbers[0], f"gray {numbers[0]}")
    return "RGB " + ",".join(str(v) for v in numbers[::-1])
