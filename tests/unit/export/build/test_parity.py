"""Precisions that disagree are refused, and the images are named."""

import numpy as np
import pytest

from edge_runtime.errors import ParityError
from edge_runtime.model.manifest import Metrics
from export.build.parity import check_metrics, check_same, check_verdicts, flips

NAMES = [f"test/good/{i}.png" for i in range(8)]
BEFORE = np.array([0.5, 0.7, 0.95, 1.02, 1.3, 2.0, 0.8, 0.6])
RIGHT = BEFORE <= 1
"""What the parts are, where every verdict before is right."""


def test_equal_verdicts_pass_whatever_the_severities() -> None:
    after = np.where(BEFORE > 1, BEFORE * 3, BEFORE / 3)
    found = check_verdicts("INT8", NAMES, RIGHT, BEFORE, after, 0.0)
    assert (found.gains, found.losses) == ((), ())


def test_a_flip_inside_of_the_band_is_counted_and_one_outside_is_refused() -> None:
    after = BEFORE.copy()
    after[2], after[3] = 1.01, 0.99
    assert len(check_verdicts("INT8", NAMES, RIGHT, BEFORE, after, 0.1).losses) == 2
    after[4] = 0.9
    with pytest.raises(ParityError, match=r"INT8: 1 of 8 parts that were judged right are judged wrong") as caught:
        check_verdicts("INT8", NAMES, RIGHT, BEFORE, after, 0.1)
    text = str(caught.value)
    assert "\n  test/good/4.png (bad part): rejected at 1.300x the threshold -> accepted at 0.900x" in text
    assert "2.png" not in text and "--precision auto" in text
    assert "--band 0.31" in text  # and that band is indeed wide enough:
    assert len(check_verdicts("INT8", NAMES, RIGHT, BEFORE, after, 0.31).losses) == 3


def test_a_flip_to_the_right_verdict_is_a_gain_however_far_it_goes() -> None:
    after = np.where(BEFORE > 1, 0.2, 3.0)
    found = check_verdicts("INT8", NAMES, ~RIGHT, BEFORE, after, 0.0)
    assert (len(found.gains), found.losses) == (8, ())
    good, bad = (next(f for f in found.gains if f.good == kind) for kind in (True, False))
    assert (good.found, bad.found) == (0.2, 3.0)
    with pytest.raises(ParityError, match=r"7 others are judged right for the first time.*\n  test/good/5\.png \(bad part\)"):
        check_verdicts("INT8", NAMES, ~RIGHT ^ (np.arange(8) == 5), BEFORE, after, 0.0)


def test_the_thresholds_uncertainty_widens_the_band_and_is_named_where_it_does_not_suffice() -> None:
    after = BEFORE.copy()
    after[4] = 0.9
    assert len(check_verdicts("INT8", NAMES, RIGHT, BEFORE, after, 0.15, 0.31).losses) == 1
    with pytest.raises(ParityError, match=r"further than 0\.2 from the border \(a band of 0\.15, wider by what the threshold itself"):
        check_verdicts("INT8", NAMES, RIGHT, BEFORE, after, 0.15, 0.2)


def test_at_most_five_images_are_named_the_worst_first() -> None:
    after = np.where(BEFORE > 1, 0.5, 1.5)
    with pytest.raises(ParityError, match=r"8 of 8 parts") as caught:
        check_verdicts("INT8", NAMES, RIGHT, BEFORE, after, 0.0)
    text = str(caught.value)
    assert text.count(".png") == 5
    assert text.index("5.png") < text.index("0.png") < text.index("7.png")
    assert "and 3 more" in text


def test_a_severity_exactly_at_the_border_is_accepted() -> None:
    found = flips(["a"], [True], np.array([1.0]), np.array([1.0]))
    assert (found.gains, found.losses) == ((), ())


def test_a_nan_flips_an_accept() -> None:
    found = flips(["a", "b"], [True, False], np.array([0.5, 2.0]), np.array([np.nan, np.nan]))
    assert ([f.image for f in found.losses], found.gains) == (["a"], ())


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
            with pytest.raises(ParityError, match=rf"{key.split('_', 1)[0]} AUROC falls by .* more than the budget of 0\.005"):
                check_metrics("INT8", before, found, 0.005)


def test_what_the_data_cannot_tell_is_not_gated() -> None:
    check_metrics("INT8", Metrics(), Metrics(), 0.005)
    with pytest.raises(ParityError):
        check_metrics("INT8", Metrics(image_auroc=0.9), Metrics(), 0.005)


def test_a_fall_that_few_images_explain_passes_and_is_said() -> None:
    before = Metrics(image_auroc=0.99, pixel_auroc=0.875, aupro=0.6, n_good=60, n_bad=53)
    after = Metrics(image_auroc=0.99, pixel_auroc=0.869, aupro=0.6, n_good=60, n_bad=53)
    with pytest.raises(ParityError, match=r"pixel AUROC falls by 0\.0060"):
        check_metrics("INT8", before, after, 0.005)
    asked: list[str] = []

    def chance(key: str) -> float:
        asked.append(key)
        return 0.004

    (sentence,) = check_metrics("INT8", before, after, 0.005, chance)
    assert "pixel AUROC falls by 0.0060" in sentence and "53 bad and 60 good pictures alone leave 0.0040 to chance" in sentence
    assert asked == ["pixel_auroc"]  # what costs seconds is asked only where it matters


def test_a_fall_beyond_budget_and_chance_is_refused_with_both() -> None:
    before, after = Metrics(image_auroc=0.99, n_good=8, n_bad=6), Metrics(image_auroc=0.6, n_good=8, n_bad=6)
    with pytest.raises(ParityError, match=r"more than the budget of 0\.005 and the 0\.0500 that 6 bad and 8 good pictures leave") as caught:
        check_metrics("INT8", before, after, 0.005, lambda key: 0.05)
    assert "--precision auto" in str(caught.value)
    with pytest.raises(ParityError):
        check_metrics("INT8", before, Metrics(image_auroc=float("nan")), 0.005, lambda key: 0.05)
