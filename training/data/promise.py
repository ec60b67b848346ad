"""What the images at hand cannot promise: too few that differ, next to nothing to be seen, or no good or bad ones to judge by."""

from collections.abc import Sequence

import numpy as np

from edge_runtime.errors import DataError
from training.data.facts import Facts
from training.data.layout import Sample

LEAST_DIFFERENT = 8
"""Good images; what is taught on fewer says nothing of the next part."""
UNMEASURED = "can't be measured on it"
FLAT = 2.0
"""Standard deviation, of 255, of a picture reduced to 32x32 that shows next to nothing; of the parts measured here the flattest had 6."""


def refuse_alike(sha256: Sequence[str]) -> None:
    """Raises DataError where so many of the good images, whose hashes these are, are copies that hardly any differ."""
    different = len(set(sha256))
    if different < min(LEAST_DIFFERENT, len(sha256)):
        raise DataError(
            f"data: expected at least {LEAST_DIFFERENT} good images that differ, found {different} among {len(sha256)}: the others are"
            " copies of these, and no threshold can be promised by them; photograph more parts"
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
