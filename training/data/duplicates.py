"""Pictures that are there twice: the same bytes, or the same photograph saved again in another format, as JPEG, or smaller.

Parts on one line in one fixture look alike, and so do two photographs of the same spot. What tells a copy from them is that it shares what
is different in every photograph: its grain. Three steps, each passing fewer pairs on to a dearer one:

1. a perceptual hash of 64 bits (signs of the lowest frequencies of the 32x32 picture against their median) differs by few bits,
2. the 32x32 pictures agree in every pixel but for what JPEG changes,
3. at full size the pixels are equal, or most of the grain is common to both, or neither ever had any and the edges are the same.

Where compression took the grain away nobody can tell, and the pictures do not count as copies: an error that stops a fit must be right.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import DataError
from edge_runtime.images.names import LOSSY
from edge_runtime.images.read import read_image
from training.data.facts import SIDE, Facts, gray_of, refuse
from training.data.layout import first_of

MOST_BITS = 8
MOST_DIFFERENCE = 4.0
"""In grey levels of 255, in any pixel of the 32x32 pictures. JPEG at quality 75 changed them by 1.8 at most, on metal surfaces and circuit
boards; two of one picture with much grain, at qualities 95 and 55, differ by 3.9, and still share most of that grain."""
MOST_DIFFERENCE_SCALED = 8.0
"""The same where the sizes differ: pixels of one are shared out otherwise among the 32."""
LEAST_SHARED = 0.5
"""Share of the grain. Measured there: 0.5 or more for the same photograph as JPEG of quality 75 and up, 0.2 or less for two of one spot."""
LEAST_GRAIN = 1.0
"""Variance, in squared gray values of 255, below which what is left is the marks of compression and not grain."""
NO_GRAIN = 0.01
"""Variance of a picture that never had any."""
MOST_AT_EDGES = 10.0
"""In grey levels of 255, between pictures without grain, slightly blurred. JPEG at quality 75 came to 9, an edge a seventh of a pixel
further to 10."""
_ASPECT = 0.02
_BLOCK = 16
_CLOSEST = 3
_IN_VAIN = 100
_ROWS = 1024


class Pair(NamedTuple):
    """Two pictures that are one; positions in the order given, the earlier one first."""

    first: int
    second: int
    same_bytes: bool


def find_pairs(paths: Sequence[Path], facts: Sequence[Facts]) -> list[Pair]:
    """Each copy with the first picture that it is a copy of, by position.

    Looking closer decodes two files; after 100 closest pairs in vain it ends, so that a set in which all pictures look alike costs little.
    """
    firsts: dict[str, int] = {}
    pairs = []
    for i, fact in enumerate(facts):
        first = firsts.setdefault(fact.sha256, i)
        if first != i:
            pairs.append(Pair(first, i, True))
    known = set()
    in_vain = 0
    for first, second in _alike(list(firsts.values()), facts):
        if second in known:
            continue
        if _is_copy(paths[first], paths[second]):
            known.add(second)
            pairs.append(Pair(first, second, False))
            in_vain = 0
        elif (in_vain := in_vain + 1) == _IN_VAIN:
            break
    return sorted(pairs, key=lambda p: (p.second, p.first))


def refuse_copies(
    paths: Sequence[Path], facts: Sequence[Facts], n_train: int, learns: bool, allowed: bool, good: Sequence[bool] = ()
) -> tuple[frozenset[int], list[str]]:
    """(which of the first `n_train` images, good ones, are copies of others of them; notes on all copies).

    Where they are not to be learnt from (`learns`), only the others matter, and whether they are among these.
    `good`: of each picture, whether it is called so. Raises DataError where one of those is among the others, too, or where one picture is
    called good and bad, unless `allowed`.
    """
    pairs = find_pairs(paths, facts)
    if good and not allowed:
        both = [(paths[p.first], paths[p.second]) for p in pairs if good[p.first] != good[p.second]]
        refuse(
            [f"{b} is {a}, the same picture called good and bad: move it to where it belongs, and remove the other" for a, b in both],
            "pictures are called good and bad",
            inspected=True,
        )
    within = {p.second: p.first for p in pairs if p.second < n_train and learns}
    across = [(paths[p.first], paths[p.second]) for p in pairs if p.first < n_train <= p.second]
    apart = {p.second: p.first for p in pairs if p.first >= n_train}
    notes = []
    if within:
        second = min(within)
        notes.append(
            f"{say_different(n_train, n_train - len(within))}: {len(within)} are copies of others (the first: {paths[second]} of"
            f" {paths[within[second]]}) and are not learnt again; what is promised rests on the pictures that differ"
        )
    if apart:
        second, n = min(apart), len(paths) - n_train
        notes.append(
            f"of the test and bad images, {say_different(n, n - len(apart))} (the first copy: {paths[second]} of {paths[apart[second]]}):"
            " their figures count each as a part of its own"
        )
    if across and allowed:
        notes.append(f"{len(across)} test or bad images are copies of training images (the first: {across[0][1]}): figures flatter")
    elif across:
        shown = first_of([f"\n  {b} is {a}" for a, b in across])
        listed, more = "".join(shown), f"\n  … and {len(across) - len(shown)} more" if len(across) > len(shown) else ""
        raise DataError(
            f"data: {len(across)} test or bad images are copies of training images, so that figures would flatter; remove one of each, or"
            f" give --allow-duplicates:{listed}{more}"
        )
    return frozenset(within), notes


def say_different(n_images: int, n_pictures: int) -> str:
    """For people: 160 images, 1 different picture."""
    return f"{n_images} images, {n_pictures} different picture{'' if n_pictures == 1 else 's'}"


def perceptual_hash(small: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """(64,) bits of a (32, 32) picture: which of its 8x8 lowest cosine frequencies lie above their median."""
    lowest = np.asarray(cv2.dct(small))[:8, :8].ravel()
    return np.asarray(lowest > np.median(lowest[1:]), dtype=np.bool_)


def is_same_picture(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], *, drawn: bool = False) -> bool:
    """Whether two (H, W) gray pictures that look alike when reduced are one.

    Pictures without grain (drawn, binarized, before a light that saturates) have only their edges to tell by. `drawn`: one of them comes
    from a file that loses nothing; what has no grain in a JPEG may have had some.
    """
    if a.shape != b.shape:
        small = min(a.shape, b.shape, key=lambda shape: shape[0] * shape[1])[::-1]
        a, b = (x if x.shape[::-1] == small else cv2.resize(x, small, interpolation=cv2.INTER_AREA) for x in (a, b))  # type: ignore[assignment]
    if np.array_equal(a, b):
        return True
    own_a, own_b, both = grain(a, b)
    if min(own_a, own_b) >= LEAST_GRAIN:
        return both / min(own_a, own_b) >= LEAST_SHARED
    if drawn and min(own_a, own_b) < NO_GRAIN:
        return bool(np.abs(cv2.GaussianBlur(a - b, (0, 0), 1.0)).max() <= MOST_AT_EDGES)
    return False


def grain(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> tuple[float, float, float]:
    """(variance in `a`, in `b`, covariance) of what a blur takes away from two (H, W) pictures, over their smoothest quarter of blocks.

    cov(a, b) / min(var a, var b) is about 1 for copies, as a copy that lost grain to compression still shares all that it has, and about 0
    for two photographs. Only smooth places count, because edges are common to all parts of a kind and would hide the grain.
    """
    fine_a, fine_b = (x - cv2.GaussianBlur(x, (0, 0), 1.5) for x in (a, b))
    blocks = (max(1, a.shape[1] // _BLOCK), max(1, a.shape[0] // _BLOCK))
    own_a, own_b, both = (
        np.asarray(cv2.resize(x, blocks, interpolation=cv2.INTER_AREA), dtype=np.float64).ravel()
        for x in (fine_a**2, fine_b**2, fine_a * fine_b)
    )
    smooth = np.argsort(own_a + own_b)[: max(1, len(both) // 4)]
    return float(own_a[smooth].mean()), float(own_b[smooth].mean()), float(both[smooth].mean())


def _is_copy(first: Path, second: Path) -> bool:
    drawn = any(p.suffix.lower() not in LOSSY for p in (first, second))
    return is_same_picture(gray_of(read_image(first)), gray_of(read_image(second)), drawn=drawn)


def _alike(rows: Sequence[int], facts: Sequence[Facts]) -> list[tuple[int, int]]:
    """Pairs that pass steps 1 and 2, closest first; of each picture those with its three closest earlier ones."""
    if not rows:
        return []
    small = np.stack([facts[i].small for i in rows]).reshape(len(rows), SIDE * SIDE)
    signs = np.array([perceptual_hash(facts[i].small) for i in rows], dtype=np.float32).reshape(len(rows), 64) * 2 - 1
    sizes = np.array([facts[i].wh for i in rows], dtype=np.float64).reshape(len(rows), 2)
    aspects = sizes[:, 0] / sizes[:, 1]
    # Distances and differing bits as matrix products: all pairs at once. Centred, so that float32 is fine enough.
    centred = small - small.mean(axis=0)
    squares = (centred**2).sum(axis=1)
    found: list[tuple[float, int, int]] = []
    for start in range(0, len(rows), _ROWS):
        some = slice(start, start + _ROWS)
        bits = (64 - signs[some] @ signs.T) / 2
        apart = squares[some, None] + squares - 2 * centred[some] @ centred.T
        for i in range(len(bits)):
            second = start + i
            near = np.flatnonzero((bits[i, :second] <= MOST_BITS) & (np.abs(aspects[:second] / aspects[second] - 1) <= _ASPECT))
            near = near[np.argsort(apart[i, near])[:_CLOSEST]]
            most = np.where((sizes[near] == sizes[second]).all(axis=1), MOST_DIFFERENCE, MOST_DIFFERENCE_SCALED)
            passed = near[np.abs(small[near] - small[second]).max(axis=1, initial=0) <= most]
            found += [(float(apart[i, first]), rows[first], rows[second]) for first in passed]
    return [(first, second) for _, first, second in sorted(found)]
