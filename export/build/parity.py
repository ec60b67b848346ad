"""The gate: torch, FP32 IR and INT8 IR must agree on the same images, or a precision is refused and the images are named."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ParityError
from edge_runtime.model.manifest import Metrics

SCORE_TOLERANCE = 1e-3
"""Largest difference of torch's and the FP32 graph's scores, relative to the score, or to the threshold if that is larger: the head is the
same, so only rounding differs (1e-5 is usual)."""
DEFAULT_BUDGET = 0.005
"""How far image AUROC, and pixel AUROC where there are masks, may fall from FP32 to INT8; AUPRO, which moves more, by twice as much."""
DEFAULT_BAND = 0.15
"""Relative distance of the FP32 severity from 1.0 within which a verdict may flip to the wrong side; the threshold's own uncertainty widens
it (export/build/noise.py). Severities of healthy INT8 detectors move by 2 to 8 % in the median near the border, and the farthest flip seen
lay
0.132 from it: deploy/decisions/0010-parity.md."""
NAMED = 5
NEXT = "Build with --precision auto, which leaves the layers that hurt in float and takes FP32 where that does not help"

Severities = npt.NDArray[np.float64]
"""(N,): score / threshold of the same detector; above 1 is a reject."""


@dataclass(frozen=True, slots=True)
class Flip:
    """One image that two precisions judge differently."""

    image: str
    good: bool
    """What the part is."""
    reference: float
    """Severity before."""
    found: float
    """Severity after."""

    @property
    def gain(self) -> bool:
        """To the right verdict. NaN never accepts."""
        return self.good == (self.found <= 1)

    def __str__(self) -> str:
        """A row for people."""
        kind = "good" if self.good else "bad"
        verdicts = ("rejected", "accepted") if self.reference > 1 else ("accepted", "rejected")
        return f"{self.image} ({kind} part): {verdicts[0]} at {self.reference:.3f}x the threshold -> {verdicts[1]} at {self.found:.3f}x"


@dataclass(frozen=True, slots=True)
class Flips:
    """All of them, furthest from the border first."""

    gains: tuple[Flip, ...]
    """To the right verdict: bad parts now rejected, good ones now accepted."""
    losses: tuple[Flip, ...]
    """To the wrong one."""


def flips(images: Sequence[str], good: Sequence[bool] | npt.NDArray[np.bool_], reference: Severities, found: Severities) -> Flips:
    """Images whose verdict differs, by what is known of the part. NaN never accepts."""
    differs = np.flatnonzero((reference > 1) != ~(found <= 1))
    rows = [Flip(images[i], bool(good[i]), float(reference[i]), float(found[i])) for i in map(int, differs)]
    rows.sort(key=lambda f: -abs(f.reference - 1))
    return Flips(tuple(f for f in rows if f.gain), tuple(f for f in rows if not f.gain))


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


def check_verdicts(
    what: str,
    images: Sequence[str],
    good: Sequence[bool] | npt.NDArray[np.bool_],
    reference: Severities,
    found: Severities,
    band: float,
    widened: float | None = None,
) -> Flips:
    """Flipped verdicts of `what` ("INT8 against FP32"). Raises ParityError for one to the wrong side from outside of the band.

    `band`: as it was stated; `widened`: by what the threshold itself is uncertain by (noise.widen). None: not at all.
    """
    found_flips = flips(images, good, reference, found)
    wide = band if widened is None else widened
    bad = [f for f in found_flips.losses if abs(f.reference - 1) > wide]
    if not bad:
        return found_flips
    rows = "".join(f"\n  {f}" for f in bad[:NAMED])
    more = f"\n  … and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    widest = max(abs(f.reference - 1) for f in bad)
    uncertain = f" (a band of {band:g}, wider by what the threshold itself is uncertain by)" if wide > band else ""
    gained = f". {len(found_flips.gains)} others are judged right for the first time" if found_flips.gains else ""
    raise ParityError(
        f"parity, {what}: {len(bad)} of {len(images)} parts that were judged right are judged wrong, though they lay further than"
        f" {wide:.3g} from the border{uncertain}{gained}:{rows}{more}\nThe rounding to 8 bits decides over these parts, and it should not."
        f" {NEXT}."
        " If they are mislabelled or may go either way, correct them or state a wider band"
        f" (--band {widest + 0.005:.2f})"
    )


def check_metrics(
    what: str, reference: Metrics, found: Metrics, budget: float, chance: Callable[[str], float] = lambda key: 0.0
) -> list[str]:
    """Raises ParityError when image or pixel AUROC fell by more than `budget`, AUPRO by twice that, and by more than chance explains.

    `chance`: key of Metrics -> what few images explain (noise.allowance); asked only where the budget is exceeded. None on both sides is
    not gated. Returns a sentence for each fall that passed by chance's leave.
    """
    excused = []
    for key, name, allowed in (
        ("image_auroc", "image AUROC", budget),
        ("pixel_auroc", "pixel AUROC", budget),
        ("aupro", "AUPRO", 2 * budget),
    ):
        before, after = getattr(reference, key), getattr(found, key)
        if before is None or (after is not None and before - after <= allowed):
            continue
        few = f"{reference.n_bad} bad and {reference.n_good} good pictures"
        noise = 0.0 if after is None else chance(key)
        if after is not None and before - after <= allowed + noise:
            excused.append(
                f"{name} falls by {before - after:.4f}, {what}: more than the budget of {allowed:g}, but {few} alone leave"
                f" {noise:.4f} to chance; more bad pictures with masks would tell"
            )
            continue
        explained = f" and the {noise:.4f} that {few} leave to chance" if noise else ""
        raise ParityError(
            f"parity, {what}: {name} falls {'to none' if after is None else f'by {before - after:.4f}'}, "
            f"more than the budget of {allowed:g}{explained}"
            f"\nThe rounding to 8 bits costs this detector some of what it tells good parts from bad by. {NEXT}, teach another preset, or"
            " state what you would give for speed (--budget)"
        )
    return excused
