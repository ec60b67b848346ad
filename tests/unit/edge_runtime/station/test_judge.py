"""The verdict: fail closed, and a reason that an operator can read."""

from pathlib import Path

import numpy as np
import pytest

from edge_runtime.config.files import Recipe
from edge_runtime.errors import ConfigError
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.records import Prediction, Verdict
from edge_runtime.station.judge import Limits, judge, limits_of

LIMITS = Limits(threshold=20.0, map_threshold=10.0)


def prediction(score: float, peak: float = 0.0) -> Prediction:
    score_map = np.zeros((8, 8), np.float32)
    score_map[2, 3] = peak
    return Prediction(score, score_map, np.array([[8.0, 0.0, 0.0], [0.0, 8.0, 0.0]]))


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_no_number_is_a_fault(score: float) -> None:
    """Law 2: `nan > threshold` is False and would accept."""
    found = judge(prediction(score), LIMITS, (64, 64))
    assert (found.verdict, found.severity, found.regions) == (Verdict.FAULT, None, ())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_map_with_one_value_that_is_no_number_is_a_fault_even_under_a_good_score(value: float) -> None:
    assert judge(prediction(1.0, peak=value), LIMITS, (64, 64)).verdict is Verdict.FAULT


def test_a_score_at_the_threshold_is_accepted_and_one_above_is_rejected() -> None:
    assert judge(prediction(20.0), LIMITS, (64, 64)).verdict is Verdict.ACCEPT
    found = judge(prediction(np.nextafter(20.0, 21.0)), LIMITS, (64, 64))
    assert found.verdict is Verdict.REJECT


def test_a_reject_says_how_bad_and_where() -> None:
    found = judge(prediction(50.0, peak=50.0), LIMITS, (64, 64))
    assert found.severity == 2.5
    assert found.regions[0].peak == 50.0
    assert "2.50 times" in found.reason
    assert "x=28 y=20" in found.reason


def test_only_small_places_are_no_defect_when_the_recipe_says_so() -> None:
    part = prediction(50.0, peak=50.0)
    area = judge(part, LIMITS, (64, 64)).regions[0].area_px
    forgiving = Limits(20.0, 10.0, min_defect_px=area + 1)
    assert judge(part, forgiving, (64, 64)).verdict is Verdict.ACCEPT
    assert judge(part, Limits(20.0, 10.0, min_defect_px=area), (64, 64)).verdict is Verdict.REJECT


def test_a_high_score_without_any_place_on_the_map_is_rejected_whatever_the_smallest_defect() -> None:
    assert judge(prediction(50.0), Limits(20.0, 10.0, min_defect_px=1000), (64, 64)).verdict is Verdict.REJECT


def test_the_recipes_threshold_moves_the_maps_in_proportion(tiny_bundle: Path) -> None:
    manifest = ModelBundle.open(tiny_bundle).manifest
    assert limits_of(manifest, Recipe(name="r", bundle=tiny_bundle)) == Limits(20.0, 19.0, 0)
    assert limits_of(manifest, Recipe(name="r", bundle=tiny_bundle, threshold=40.0, min_defect_px=7)) == Limits(40.0, 38.0, 7)
    with pytest.raises(ConfigError, match=r"recipe r: expected a threshold of at most 10\d\d.*found 1e\+308: every part would be accepted"):
        limits_of(manifest, Recipe(name="r", bundle=tiny_bundle, threshold=1e308))
