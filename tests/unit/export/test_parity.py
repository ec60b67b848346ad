"""Precisions that disagree are refused, and the images are named."""

import numpy as np
import pytest

from edge_runtime.bundle import Metrics
from edge_runtime.errors import ParityError
from export.parity import check_metrics, check_same, check_verdicts, flips

NAMES = [f"test/good/{i}.png" for i in range(8)]
BEFORE = np.array([0.5, 0.7, 0.95, 1.02, 1.3, 2.0, 0.8, 0.6])


def test_equal_verdicts_pass_whatever_the_severities() -> None:
    after = np.where(BEFORE > 1, BEFORE * 3, BEFORE / 3)
    assert check_verdicts("INT8", NAMES, BEFORE, after, 0.0) == 0


def test_a_flip_inside_of_the_band_is_counted_and_one_outside_is_refused() -> None:
    after = BEFORE.copy()
    after[2], after[3] = 1.01, 0.99
    assert check_verdicts("INT8", NAMES, BEFORE, after, 0.1) == 2
    after[4] = 0.9
    with pytest.raises(ParityError, match=r"INT8: 1 of 8 verdicts flip .*\n  test/good/4\.png: severity 1\.300 -> 0\.900") as caught:
        check_verdicts("INT8", NAMES, BEFORE, after, 0.1)
    assert "2.png" not in str(caught.value)
    assert "--band 0.31" in str(caught.value)  # and that band is indeed wide enough:
    assert check_verdicts("INT8", NAMES, BEFORE, after, 0.31) == 3


def test_at_most_five_images_are_named_the_worst_first() -> None:
    after = np.where(BEFORE > 1, 0.5, 1.5)
    with pytest.raises(ParityError, match=r"8 of 8 verdicts") as caught:
        check_verdicts("INT8", NAMES, BEFORE, after, 0.0)
    text = str(caught.value)
    assert text.count(".png") == 5
    assert text.index("5.png") < text.index("0.png") < text.index("7.png")
    assert "and 3 more" in text


def test_a_severity_exactly_at_the_border_is_accepted() -> None:
    assert flips(["a"], np.array([1.0]), np.array([1.0]), 0.0) == []


def test_a_nan_flips_an_accept() -> None:
    assert [f.image for f in flips(["a", "b"], np.array([0.5, 2.0]), np.array([np.nan, np.nan]), 0.1)] == ["a"]


@pytest.mark.parametrize("value", [np.nan, np.inf, 3.01])
def test_scores_that_are_not_torchs_are_refused(value: float) -> None:
    scores = np.array([1.0, 2.0, 3.0])
    found = scores.copy()
    found[2] = value
    with pytest.raises(ParityError, match=r"1 of 3 differ:\n  test/good/2\.png: torch 3"):
        check_same(NAMES[:3], scores, found, 2.0)
    assert check_same(NAMES[:3], scores, scores * 1.0001, 2.0) == pytest.approx(1e-4, rel=1e-3)


def test_rounding_of_a_score_next_to_zero_is_no_difference() -> None:
    scores = np.array([1e-5, 2.0, 3.0])
    assert check_same(NAMES[:3], scores, scores + np.array([1e-4, 0, 0]), 2.0) < 1e-3
    with pytest.raises(ParityError):
        check_same(NAMES[:3], scores, scores + np.array([3e-3, 0, 0]), 2.0)


@pytest.mark.parametrize("key", ["image_auroc", "pixel_auroc"])
def test_an_auroc_that_falls_by_more_than_the_budget_is_refused(key: str) -> None:
    before = Metrics(image_auroc=0.97, pixel_auroc=0.85)
    for after, passes in ((0.004, True), (0.006, False), (-0.02, True)):
        values = {"image_auroc": 0.97, "pixel_auroc": 0.85}
        values[key] -= after
        found = Metrics(**values)
        if passes:
            check_metrics("INT8", before, found, 0.005)
        else:
            with pytest.raises(ParityError, match=rf"{key.split('_')[0]} AUROC falls from .* more than the budget of 0\.005"):
                check_metrics("INT8", before, found, 0.005)


def test_what_the_data_cannot_tell_is_not_gated() -> None:
    check_metrics("INT8", Metrics(), Metrics(), 0.005)
    with pytest.raises(ParityError):
        check_metrics("INT8", Metrics(image_auroc=0.9), Metrics(), 0.005)
