"""(Prediction, limits) -> verdict, and the sentence that tells the operator why. Pure.

Why: deploy/decisions/0009.
"""

import math
from dataclasses import dataclass

import numpy as np

from edge_runtime.config.files import Recipe
from edge_runtime.errors import ConfigError
from edge_runtime.model.manifest import Manifest
from edge_runtime.model.regions import find_regions, worst_place
from edge_runtime.records import Cause, Prediction, Region, Verdict


@dataclass(frozen=True, slots=True)
class Limits:
    """The thresholds of a product for one camera, in raw scores."""

    threshold: float
    """A part is rejected when its score is larger."""
    map_threshold: float
    """A place of the map is suspicious when its value is larger."""
    min_defect_px: int = 0
    """Places smaller than this many frame pixels are no defect; 0 counts them all."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on one picture or part, and why."""

    verdict: Verdict
    reason: str
    regions: tuple[Region, ...]
    """What exceeds the map's threshold; of a rejected part at least its worst place, which may lie below it."""
    severity: float | None
    cause: Cause = Cause.NONE
    """Why it is a FAULT; NONE otherwise."""


def limits_of(manifest: Manifest, recipe: Recipe) -> Limits:
    """The thresholds in effect: the bundle's, or the recipe's own; the map's threshold follows the score's in proportion.

    Raises ConfigError for a recipe's threshold that would accept every part, or none.
    """
    stated = manifest.threshold
    threshold = recipe.threshold or stated.value
    if recipe.threshold is not None:
        try:
            manifest.check_threshold(recipe.threshold)
        except ValueError as e:
            raise ConfigError(
                f"threshold: recipe {recipe.name}: expected {e}; leave it out for the bundle's own, {stated.value:.4g}"
            ) from e
    return Limits(threshold, stated.map_value * (threshold / stated.value), recipe.min_defect_px)


def fault(reason: str, cause: Cause) -> Judgement:
    """The judgement of what could not be judged: a FAULT, with its reason."""
    return Judgement(Verdict.FAULT, reason, (), None, cause)


def judge(prediction: Prediction, limits: Limits, frame_wh: tuple[int, int]) -> Judgement:
    """Judge one picture. FAULT where the model gave no number: `nan > threshold` is False and would accept."""
    score = prediction.score
    if not math.isfinite(score):
        return fault(f"The model gave no valid score ({score}); the part was not judged.", Cause.MODEL)
    if not np.isfinite(prediction.score_map).all():
        return fault("The model's map holds values that are no numbers; the part was not judged.", Cause.MODEL)
    regions = find_regions(prediction.score_map, prediction.grid_to_frame, frame_wh, limits.map_threshold)
    severity = score / limits.threshold
    if score <= limits.threshold:
        return Judgement(Verdict.ACCEPT, f"Within limits: {severity:.2f} of the threshold.", regions, severity)
    if regions and (largest := max(r.area_px for r in regions)) < limits.min_defect_px:
        reason = f"Only small marks: the largest has {largest} px, defects count from {limits.min_defect_px} px."
        return Judgement(Verdict.ACCEPT, reason, regions, severity)
    reason = f"Anomaly of {severity:.2f} times the threshold"
    if regions:
        r = regions[0]
        reason += f", worst near x={(r.x0 + r.x1) // 2} y={(r.y0 + r.y1) // 2} ({r.area_px} px)"
    elif regions := worst_place(prediction.score_map, prediction.grid_to_frame, frame_wh):
        r = regions[0]
        reason += f", most of it near x={(r.x0 + r.x1) // 2} y={(r.y0 + r.y1) // 2}; no single place exceeds its own limit"
    return Judgement(Verdict.REJECT, reason + ".", regions, severity)
