"""The gate: torch, FP32 IR and INT8 IR on the same images must agree, or nothing is exported and the images are named."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle import Metrics
from edge_runtime.errors import ParityError

SCORE_TOLERANCE = 1e-3
"""Largest difference of torch's and the FP32 graph's scores, relative to the score, or to the threshold if that is larger: the head is the
same, so only rounding differs (1e-5 is usual)."""
DEFAULT_BUDGET = 0.005
"""How far image AUROC, and pixel AUROC where there are masks, may fall from FP32 to INT8; AUPRO, which moves more, by twice as much."""
DEFAULT_BAND = 0.15
"""Relative distance of the FP32 severity from 1.0 within which a verdict may flip. Severities of healthy INT8 detectors move by 2 to 8 %
in the median near the border, and the farthest flip seen lay 0.132 from it: deploy/decisions/0010-parity.md."""
NAMED = 5

Severities = npt.NDArray[np.float64]
"""(N,): score / threshold of the same detector; above 1 is a reject."""


@dataclass(frozen=True, slots=True)
class Flip:
    """One image that two precisions judge differently."""

    image: str
    reference: float
    """Severity before."""
    found: float
    """Severity after."""


def flips(images: Sequence[str], reference: Severities, found: Severities, band: float) -> list[Flip]:
    """Images whose verdict differs although their reference lies further than `band` from the border; furthest first. NaN never accepts."""
    differs = (reference > 1) != ~(found <= 1)
    outside = np.abs(reference - 1) > band
    rows = [Flip(images[int(i)], float(reference[i]), float(found[i])) for i in np.flatnonzero(differs & outside)]
    return sorted(rows, key=lambda f: -abs(f.reference - 1))


def check_same(images: Sequence[str], torch_scores: npt.NDArray[np.float64], ir_scores: npt.NDArray[np.float64], threshold: float) -> float:
    """Torch against its own FP32 graph. Returns the largest relative difference. Raises ParityError above SCORE_TOLERANCE, or for NaN."""
    # With few images, taught ones score next to nothing, and rounding is all that is left of them: it moves no verdict.
    scale = np.maximum(np.abs(torch_scores), threshold)
    relative = np.abs(ir_scores - torch_scores) / scale
    wrong = np.flatnonzero(~(relative <= SCORE_TOLERANCE))
    if len(wrong):
        worst = wrong[np.argsort(-np.nan_to_num(relative[wrong], nan=np.inf))][:NAMED]
        rows = "".join(f"\n  {images[int(i)]}: torch {torch_scores[i]:.6g}, IR {ir_scores[i]:.6g}" for i in worst)
        raise ParityError(
            f"parity: expected the FP32 graph to give torch's scores within {SCORE_TOLERANCE:g}, "
            f"{len(wrong)} of {len(images)} differ:{rows}"
            "\nThe conversion is wrong for this model; nothing was exported"
        )
    return float(relative.max(initial=0.0))


def check_verdicts(what: str, images: Sequence[str], reference: Severities, found: Severities, band: float) -> int:
    """Flipped verdicts of `what` ("INT8 against FP32"). Returns how many flipped inside of the band. Raises ParityError for one outside."""
    bad = flips(images, reference, found, band)
    if bad:
        rows = "".join(f"\n  {f.image}: severity {f.reference:.3f} -> {f.found:.3f}" for f in bad[:NAMED])
        more = f"\n  … and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        widest = max(abs(f.reference - 1) for f in bad)
        raise ParityError(
            f"parity, {what}: {len(bad)} of {len(images)} verdicts flip although their severity is further than {band:g} from 1.0:"
            f"{rows}{more}\nLook at these images. Build with --precision fp32, or state a wider band if such parts may go either way "
            f"(--band {widest + 0.005:.2f})"
        )
    return len(flips(images, reference, found, -1.0))


def check_metrics(what: str, reference: Metrics, found: Metrics, budget: float) -> None:
    """Raises ParityError when image or pixel AUROC fell by more than `budget`, AUPRO by twice that. None on both sides is not gated."""
    for key, name, allowed in (
        ("image_auroc", "image AUROC", budget),
        ("pixel_auroc", "pixel AUROC", budget),
        ("aupro", "AUPRO", 2 * budget),
    ):
        before, after = getattr(reference, key), getattr(found, key)
        if before is None:
            continue
        if after is None or not before - after <= allowed:
            raise ParityError(
                f"parity, {what}: {name} falls from {before:.4f} to {'none' if after is None else format(after, '.4f')}, "
                f"more than the budget of {allowed:g}. Build with --precision fp32 or another preset, or state a larger budget (--budget)"
            )
