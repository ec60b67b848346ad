"""What is done, unless its user says otherwise, so that a lamp that ages and a fixture that wears do not stop a line.

brightness  Every picture is brought by one factor to the brightness that the good parts have in the middle (`InputSpec.brightness`). Left
            undone where brightness itself tells bad parts from good ones.
variations  A detector that learns what belongs at which place, or what there is to be seen at all, also learns from good parts that lie
            SHIFT off, as they will, under a lamp that is LAMP darker (brought back to the same brightness: what is left is rounding),
            half of them BLUR out of focus. Of no use to one that learns variations of its own. Where frames have little noise of their
            own, the least of this is else unlike all that was seen.

What both cost where nothing strays stands in deploy/decisions/0022; the figures in training/README.md are made with both.
"""

import dataclasses
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from training.core.base import Progress, silent
from training.data.dataset import Dataset, inputs
from training.data.layout import Sample
from training.pictures.augment import Augment

SHIFT = 0.025
"""Share of the model's input, of its longer side, by which parts are shifted, either way along each axis: somewhat more than the 2 % that a
fixture is to be allowed, since what lies at the end of a range is learnt from little."""
LAMP = 0.4
BLUR = 0.6
"""Standard deviation in pixels of the model's input: less than anybody sees."""
MOST_PICTURES = 2_000
"""Variations are made up to so many pictures in all, and COPIES of an image at most."""
COPIES = 3
SHIFTED = ("padim", "patchcore", "fastflow", "fcdd", "devnet")
"""Methods that gain by it: statistics that belong to places of the picture; and a bank of patches, to which every edge that crosses a patch
elsewhere, and what comes in at the picture's border, is new."""
LOOKED_AT = 200
"""Images whose brightness is measured, spread over all."""
TELLING = 0.9
"""AUROC of nothing but the distance from the usual brightness, of some kind of bad parts, from which on brightness is left as it is."""
LEAST_OF_A_KIND = 3
_DARKEST = 4.0


def with_brightness(dataset: Dataset, progress: Progress = silent) -> tuple[Dataset, str]:
    """The data set with pictures brought to one brightness, or as it was; and a sentence why. Raises DataError."""
    good = brightness(dataset, dataset.train, progress)
    target = float(np.median(good))
    if target < _DARKEST:
        return dataset, f"brightness is left as it comes: these pictures are nearly black (mean {target:.1f} of 255)"
    bad = [s for s in (*dataset.bad, *dataset.test) if not s.is_good]
    for kind in sorted({s.kind for s in bad}):
        these = [s for s in bad if s.kind == kind]
        if len(these) < LEAST_OF_A_KIND:
            continue
        off = np.abs(np.log(np.maximum(np.concatenate([good, brightness(dataset, these, progress)]), 1e-3) / target))
        if (told := float(roc_auc_score(np.arange(len(off)) >= len(good), off))) >= TELLING:
            return dataset, (
                f"brightness is left as it comes: it alone tells the bad parts of kind {kind} (AUROC {told:.2f}), so a lamp that ages may"
                " look like a defect; keep the light steady. Most methods look at places and hardly see how bright a whole picture is: if"
                f" {kind} is missed below, try --method mvg"
            )
    return dataclasses.replace(dataset, spec=msgspec.structs.replace(dataset.spec, brightness=round(target, 3))), (
        f"every picture is brought to the same brightness (mean {target:.0f} of 255), so that an ageing lamp changes little (how little,"
        " the build measures). If a part can be bad by being too dark or too bright as a whole: --brightness keep"
    )


def variations(dataset: Dataset, method: str, preset: str = "fast") -> tuple[Augment | None, str]:
    """Variations to learn from, too, and a sentence; None and nothing for methods that gain nothing by them."""
    if method not in SHIFTED:
        return None, ""
    spec, pictures = dataset.spec, len(dataset.train) * dataset.preprocessor().views
    # Where places mean nothing, every image shows what it shows at many of them already.
    most = 1 if preset == "shared" else COPIES
    copies = min(most, max(1, MOST_PICTURES // max(1, pictures) - 1))
    pixels = max(1, round(SHIFT * max(spec.height, spec.width)))
    lamp = 0.0 if spec.brightness is None else LAMP
    how = "slightly out of focus" + (" and under a dimmer lamp" if lamp else "")
    made = Augment(shift_px=pixels, lamp=lamp, blur_px=BLUR, copies=copies)
    return made, (
        f"it also learns variations of good parts: shifted by up to {pixels} px of the model's input, {how} (--augment {made.words}); how"
        " far parts may really stray, the build measures. Where such a part is bad: --augment none; where parts turn, too: add"
        " rotate=DEGREES (180 for any way)"
    )


def steadied(
    dataset: Dataset, method: str, preset: str = "fast", *, keep_light: bool = False, progress: Progress = silent
) -> tuple[Dataset, Augment | None, tuple[str, ...]]:
    """Both remedies for a method: the data set, what it learns from beside it, and a sentence each. Raises DataError.

    `keep_light`: leave brightness as it comes.
    """
    light = "brightness is left as it comes (--brightness keep)"
    if not keep_light:
        dataset, light = with_brightness(dataset, progress)
    augment, varied = variations(dataset, method, preset)
    return dataset, augment, (light, *([varied] if varied else []))


def brightness(dataset: Dataset, samples: Sequence[Sample], progress: Progress = silent) -> npt.NDArray[np.float64]:
    """(n,) mean gray level of model inputs before anything is done to it, of up to LOOKED_AT of `samples`. Raises DataError."""
    plain = dataclasses.replace(dataset, spec=msgspec.structs.replace(dataset.spec, brightness=None)).preprocessor()
    picks = np.unique(np.linspace(0, len(samples) - 1, min(LOOKED_AT, len(samples))).astype(int)).tolist() if samples else []
    found = []
    for i, pick in enumerate(picks):
        found.append(plain.brightness_of(np.stack(list(inputs([samples[pick]], plain)))))
        progress("measuring light", i + 1, len(picks))
    return np.array(found, dtype=np.float64)
