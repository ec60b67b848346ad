"""Masks that lie among the images themselves, told by their names and by what they show: `7.png` beside `7_m.png` of two values only."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_runtime.errors import DataError
from edge_runtime.images.masks import values_of
from edge_runtime.images.read import decode, is_lossy

NAMED = ("_mask", "_gt", "_label", "_seg")
"""Ends of names that call a picture a mask, whatever it shows."""
_VALUES = 4
"""A mask shows its background and a defect, or a few kinds of them."""
_SOFT = 0.02
"""Share of a lossy mask's pixels that may lie between its two values."""
_LOOKED_AT = 5


def masks_among(images: Sequence[Path]) -> dict[Path, Path]:
    """Mask -> its image, of files that lie in one folder with it: a mask's name is its image's and more.

    Known ends are believed. Others are looked at, some of each: all must show few values, and their images more, since photographs may be
    black and white, too, and numbered on (`1.png`, `1_2.png`).
    """
    by_stem = {(p.parent, p.stem.lower()): p for p in images}
    groups: dict[str, list[tuple[Path, Path]]] = {}
    for path in images:
        stem = path.stem.lower()
        # The longest name that this one begins with; a digit after it makes another number of it.
        ends = (n for n in range(len(stem) - 1, 0, -1) if not stem[n].isdigit() and (path.parent, stem[:n]) in by_stem)
        if (end := next(ends, None)) is not None:
            groups.setdefault(re.sub(r"\d+", "#", stem[end:]), []).append((path, by_stem[path.parent, stem[:end]]))
    found: dict[Path, Path] = {}
    for tail, pairs in groups.items():
        some = pairs[:: max(1, len(pairs) // _LOOKED_AT)]
        if tail.endswith(NAMED) or (_is_drawn(some[0][0]) and all(_is_drawn(m) for m, _ in some) and not _is_drawn(some[0][1])):
            found |= dict(pairs)
    return found


def _is_drawn(path: Path) -> bool:
    """Whether a picture shows so few values as masks do; False for what cannot be read."""
    try:
        values = values_of(decode(path))
    except DataError:
        return False
    if values.ndim == 3:
        values = values.astype(np.int64) @ np.array([1, 1 << 16, 1 << 32]) if not is_lossy(path) else values.max(axis=2)
    if not is_lossy(path):
        return len(np.unique(values[::7])) <= _VALUES and len(np.unique(values)) <= _VALUES
    low, high = int(values.min()), int(values.max())
    near = (high - low) / 10
    return bool(((values > low + near) & (values < high - near)).mean() <= _SOFT)
