"""What the images at hand cannot promise: too few that differ, next to nothing to be seen, or no good or bad ones to judge by."""

from collections.abc import Sequence

import numpy as np

from training.data.duplicates import say_different
from training.data.facts import Facts
from training.data.layout import Sample

LEAST_DIFFERENT = 8
"""Good images; what is taught on fewer says nothing of the next part."""
UNMEASURED = "can't be measured on it"
FLAT = 2.0
"""Standard deviation, of 255, of a picture reduced to 32x32 that shows next to nothing; of the parts measured here the flattest had 6."""


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
    flat = sum(float(f.small.std()) < FLAT for f in facts)
    if not facts or flat < 0.9 * len(facts):
        return None
    level = float(np.median([f.small.mean() for f in facts]))
    word = "black" if level < 16 else "white" if level > 239 else "of one gray"
    return (
        f"{flat} of {len(facts)} good images show next to nothing, they are (nearly) all {word}: is the lens covered, the lamp off or too"
        " bright? What is promised by them holds for such pictures alone"
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
