"""What the images at hand cannot promise: too few that differ, next to nothing to be seen, or no good or bad ones to judge by."""

import statistics
from collections import Counter
from collections.abc import Sequence

import numpy as np

from edge_runtime.images.names import LOSSY
from edge_runtime.model.compressed import say_lossy
from edge_runtime.model.manifest import Dataset as Taught
from training.data.duplicates import say_different
from training.data.facts import Facts
from training.data.layout import Sample

LEAST_DIFFERENT = 8
"""Good images; what is taught on fewer says nothing of the next part."""
UNMEASURED = "can't be measured on it"
FLAT = 2.0
"""Standard deviation, of 255, of a picture reduced to 32x32 that shows next to nothing; of the parts measured here the flattest had 6."""

_FINE = 8.0
"""The same of the pixels as they are: a weave that reducing averages out has more, and what a covered lens lets through is noise."""
_MASK_VALUES = 4
_FEW_MASKS = 0.3
"""Share of good images up to which drawn ones are no parts; where most are drawn, parts are so (a simulator, a binarized camera)."""
_LEAST_FILES = 5
_CAMERAS = 4
"""More sizes than this that are frequent are of cut-outs, not of cameras."""
_OTHERS, _FEW = 0.8, 0.1
"""Shares of lossy files: so much more of the one side than of the other; and so few that they do not matter."""


def say_alike(n_images: int, n_copies: int) -> str | None:
    """A sentence where so many of the good images are copies of others that hardly any differ."""
    different = n_images - n_copies
    if not n_copies or different >= LEAST_DIFFERENT:
        return None
    return (
        f"expected at least {LEAST_DIFFERENT} good images that differ, found {say_different(n_images, different)}: no false-reject rate can"
        " be promised by copies; is the camera a simulator, or were files copied? Photograph more parts"
    )


def say_flat(facts: Sequence[Facts]) -> str | None:
    """A note where (nearly) all good images, whose facts these are, show nothing."""
    flat = sum(float(f.small.std()) < FLAT and f.spread < _FINE for f in facts)
    if not facts or flat < 0.9 * len(facts):
        return None
    level = float(np.median([f.small.mean() for f in facts]))
    word = "black" if level < 16 else "white" if level > 239 else "of one gray"
    return (
        f"{flat} of {len(facts)} good images show next to nothing, they are (nearly) all {word}: is the lens covered, the lamp off or too"
        " bright? What is promised by them holds for such pictures alone"
    )


def say_drawn(samples: Sequence[Sample], facts: Sequence[Facts]) -> str | None:
    """A sentence where some of the good images show as few values as masks do, and the others are photographs."""
    rows = [(s, f) for s, f in zip(samples, facts, strict=True) if s.is_good]
    drawn = [s for s, f in rows if 1 < f.values <= _MASK_VALUES and s.path.suffix.lower() not in LOSSY]
    if not drawn or len(drawn) > _FEW_MASKS * len(rows):
        return None
    return (
        f"{len(drawn)} of {len(rows)} good images show {_MASK_VALUES} gray values or fewer, as masks do and photographs do not (the first:"
        f" {drawn[0].path}): move masks into a folder masks, or drawings out of the data's folder"
    )


def say_file_kinds(samples: Sequence[Sample]) -> str | None:
    """A note where files' own kind tells good from bad, or good ones are of both kinds: JPEG leaves marks that a detector sees."""
    good, bad = ([s.path.suffix.lower() in LOSSY for s in samples if s.is_good == side] for side in (True, False))
    share = [sum(of) / len(of) for of in (good, bad) if len(of) >= _LEAST_FILES]
    if len(share) == 2 and abs(share[0] - share[1]) > _OTHERS:
        kinds = [f"{sum(of)} of {len(of)} {word}" for of, word in ((good, "good"), (bad, "bad"))]
        return (
            f"{' and '.join(kinds)} images are JPEG or the like: the files may be told apart by that, and not the parts, so that no figure"
            " here says what becomes of bad parts; save both as the station's camera gives them"
        )
    if share and _FEW < share[0] < 1 - _FEW and len(good) >= _LEAST_FILES:
        return (
            f"{sum(good)} of {len(good)} good images are JPEG or the like, the others are not: parts look softer in one kind than in the"
            " other; teach on files of the kind that the station gets, best .png alone"
        )
    return None


def compression_of(losses: Sequence[int | None]) -> tuple[int | None, int]:
    """`n_lossy` and `quality` of manifest.Dataset; `losses`: of each good image, see `edge_runtime.images.loss.loss_of`."""
    lossy = [x for x in losses if x is not None]
    return (len(lossy) if losses else None), round(statistics.median([q for q in lossy if q] or [0]))


def say_loss(losses: Sequence[int | None]) -> str | None:
    """A note where the good images, whose losses these are, were (nearly) all compressed with loss."""
    n_lossy, quality = compression_of(losses)
    return say_lossy(Taught(name="", fingerprint="", n_good=len(losses), n_lossy=n_lossy, quality=quality))


def say_cameras(sizes: Sequence[tuple[int, int]]) -> str | None:
    """A note where the good images, whose widths and heights these are, are of a few sizes that no crop by hand gives."""
    counted = Counter(sizes).most_common()
    many = [(wh, n) for wh, n in counted if n >= max(_LEAST_FILES, _FEW * len(sizes))]
    # A part that lies across is a turned picture, of which `say_turned` tells; cut-outs have as many sizes as there are.
    if not 2 <= len(many) <= _CAMERAS or sum(n for _, n in many) < _OTHERS * len(sizes) or len({tuple(sorted(wh)) for wh, _ in many}) < 2:
        return None
    words = ", ".join(f"{n} of {w}x{h}" for (w, h), n in many)
    return (
        f"the pictures come in {len(counted)} sizes, {words}: {len(many)} cameras? Each shows parts in its own way, so teach a bundle a"
        " camera, from a folder each; if it is one camera, bring all to the size that it gives on the line"
    )


def say_lacking(test: Sequence[Sample], bad: Sequence[Sample]) -> list[str]:
    """What cannot be measured for want of good or bad images in the test split (with `bad`, those of --bad)."""
    good_there, bad_there = any(s.is_good for s in test), any(not s.is_good for s in (*test, *bad))
    notes = []
    if test and not good_there:
        notes.append(f"the test split holds no good image: how many good parts are rejected {UNMEASURED}")
    if test and not bad_there:
        notes.append(f"the test split holds no bad image: how many bad parts are missed {UNMEASURED}")
    return notes
