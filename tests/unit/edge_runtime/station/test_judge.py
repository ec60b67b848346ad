"""The verdict: fail closed, and a reason that an operator can read."""

from pathlib import Path

import numpy as np
import pytest

from edge_runtime.config.files import Recipe
from edge_runtime.errors import ConfigError
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.records import Cause, Prediction, Region, Verdict
from edge_runtime.station.judge import Judgement, Limits, fault, judge, limits_of

LIMITS = Limits(threshold=20.0, map_threshold=10.0)


def prediction(score: float, peak: float = 0.0) -> Prediction:
    score_map = np.zeros((8, 8), np.float32)
    score_map[2, 3] = peak
    return Prediction(score, score_map, np.array([[8.0, 0.0, 0.0], [0.0, 8.0, 0.0]]))


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_no_number_is_a_fault(score: float) -> None:
    """Law 2: `nan > threshold` is False and would accept."""
    reason = f"The model gave no valid score ({score}); the part was not judged."
    assert judge(prediction(score), LIMITS, (64, 64)) == Judgement(Verdict.FAULT, reason, (), None, Cause.MODEL)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_map_with_one_value_that_is_no_number_is_a_fault_even_under_a_good_score(value: float) -> None:
    reason = "The model's map holds values that are no numbers; the part was not judged."
    assert judge(prediction(1.0, peak=value), LIMITS, (64, 64)) == Judgement(Verdict.FAULT, reason, (), None, Cause.MODEL)


def test_a_fault_keeps_its_reason_and_its_cause() -> None:
    assert fault("The camera is gone.", Cause.CAMERA) == Judgement(Verdict.FAULT, "The camera is gone.", (), None, Cause.CAMERA)


def test_a_score_at_the_threshold_is_accepted_and_one_above_is_rejected() -> None:
    assert judge(prediction(20.0), LIMITS, (64, 64)).verdict is Verdict.ACCEPT
    found = judge(prediction(np.nextafter(20.0, 21.0)), LIMITS, (64, 64))
    assert found.verdict is Verdict.REJECT


def test_an_accept_says_how_near_it_was_and_shows_what_its_map_shows() -> None:
    found = judge(prediction(5.0, peak=50.0), LIMITS, (64, 64))
    assert found == Judgement(Verdict.ACCEPT, "Within limits: 0.25 of the threshold.", found.regions, 0.25)
    assert [r.peak for r in found.regions] == [50.0]


def test_a_reject_says_how_bad_and_where() -> None:
    found = judge(prediction(50.0, peak=50.0), LIMITS, (64, 64))
    (place,) = found.regions
    assert place == Region(22, 14, 34, 26, place.area_px, 50.0)
    assert found.reason == f"Anomaly of 2.50 times the threshold, worst near x=28 y=20 ({place.area_px} px)."
    assert (found.verdict, found.severity, found.cause) == (Verdict.REJECT, 2.5, Cause.NONE)


@pytest.mark.parametrize("peak", [50.0, 9.0])
def test_a_place_is_never_told_beyond_the_picture(peak: float) -> None:
    """The model's grid may reach over the edge; 9 is below the map's own limit."""
    (place,) = judge(prediction(50.0, peak), LIMITS, (29, 19)).regions
    assert (place.x1, place.y1) == (29, 19)


def test_only_small_places_are_no_defect_when_the_recipe_says_so() -> None:
    part = prediction(50.0, peak=50.0)
    area = judge(part, LIMITS, (64, 64)).regions[0].area_px
    forgiving = Limits(20.0, 10.0, min_defect_px=area + 1)
    found = judge(part, forgiving, (64, 64))
    reason = f"Only small marks: the largest has {area} px, defects count from {area + 1} px."
    assert found == Judgement(Verdict.ACCEPT, reason, judge(part, LIMITS, (64, 64)).regions, 2.5)
    assert judge(part, Limits(20.0, 10.0, min_defect_px=area), (64, 64)).verdict is Verdict.REJECT


def test_a_high_score_without_any_place_on_the_map_is_rejected_whatever_the_smallest_defect() -> None:
    assert judge(prediction(50.0), Limits(20.0, 10.0, min_defect_px=1000), (64, 64)).verdict is Verdict.REJECT


def test_a_reject_without_any_place_above_its_limit_says_where_most_of_it_is() -> None:
    found = judge(prediction(50.0, peak=9.0), LIMITS, (64, 64))
    where = "most of it near x=28 y=20; no single place exceeds its own limit"
    assert found.reason == f"Anomaly of 2.50 times the threshold, {where}."
    assert [(r.x0, r.y0, r.peak) for r in found.regions] == [(24, 16, 9.0)]


def test_the_recipes_threshold_moves_the_maps_in_proportion(tiny_bundle: Path) -> None:
    manifest = ModelBundle.open(tiny_bundle).manifest
    assert limits_of(manifest, Recipe(name="r", bundle=tiny_bundle)) == Limits(20.0, 19.0, 0)
    assert limits_of(manifest, Recipe(name="r", bundle=tiny_bundle, threshold=40.0, min_defect_px=7)) == Limits(40.0, 38.0, 7)
    with pytest.raises(ConfigError, match=r"recipe r: expected a threshold of at most 10\d\d.*found 1e\+308: every part would be accepted"):
        limits_of(manifest, Recipe(name="r", bundle=tiny_bundle, threshold=1e308))
