"""The threshold between good and bad: near the good ones, within the stated rate, and it says what it rests on."""

import numpy as np
import pytest

from edge_runtime.errors import CalibrationError
from training.calibrate import gap
from training.calibrate.bounds import percent
from training.calibrate.gap import left_out, place
from training.calibrate.rules import Rule, Scores, apply_rule, check_rule


def scores(values: object) -> Scores:
    v = np.array(values, dtype=np.float64)
    return Scores(v, v * 2, v / 2)


GOOD = scores(np.linspace(10, 20, 199))  # the order statistic of 1 % is the second largest, 19.949


@pytest.mark.parametrize("n_bad", [3, 10, 99, 1000])
def test_the_threshold_lies_in_the_gap_nearer_to_the_good_side_the_fewer_bad_images_there_are(n_bad: int) -> None:
    bad = scores(np.linspace(40, 80, n_bad))
    base, _ = apply_rule(Rule(kind="false_reject_rate", target=0.01), GOOD)
    threshold, display = apply_rule(Rule(kind="gap", target=0.01), GOOD, bad)
    share = np.log(threshold.value / base.value) / np.log(40 / base.value)
    assert share == pytest.approx(min(0.5, 0.01 / (0.01 + 1 / (n_bad + 1))))
    assert base.value < threshold.value < 40
    assert base.map_value < threshold.map_value < 80, "the same on the maps"
    assert display.high == 2 * threshold.map_value
    assert f"rejects {int((GOOD.score > threshold.value).sum())} of 199 good and misses 0 of {n_bad} bad images" in threshold.rule
    assert threshold.rule.startswith("in the gap between good and bad images, within a false-reject rate of 1 %")
    assert (threshold.false_reject_rate, threshold.n_bad) == (0.01, n_bad)
    assert threshold.false_reject_upper == base.false_reject_upper, "a higher threshold rejects fewer"
    assert threshold.recall_lower == pytest.approx(0.05 ** (1 / n_bad)), "of so few bad images: Clopper and Pearson with no miss"


def test_where_good_and_bad_overlap_the_stated_rate_decides_and_the_misses_are_named() -> None:
    bad = scores([12, 15, 19, 50, 60])
    base, _ = apply_rule(Rule(kind="false_reject_rate", target=0.01), GOOD)
    threshold, _ = apply_rule(Rule(kind="gap", target=0.01), GOOD, bad)
    assert threshold.value == base.value, "lower would reject more than was stated, higher would miss more"
    assert threshold.rule.startswith("no gap between good and bad images, so a false-reject rate of 1 % decides: rejects 0 of 199 good")
    assert "misses 3 of 5 bad images" in threshold.rule


def test_one_odd_good_part_does_not_keep_the_threshold_above_bad_ones_that_the_rate_allows_to_catch() -> None:
    """The order statistic of 160 images at 1 % is their largest, here an odd one; 1 of 160 may be rejected all the same."""
    good = np.append(np.linspace(10, 28, 159), 40.8)
    placed = place(good, np.array([31.0, 35.0, 60.0]), 40.8, 0.01)
    assert 28 < placed.value < 31
    assert (placed.rejected, placed.missed, placed.gap) == (1, 0, False)
    strict = place(good, np.array([27.0, 35.0, 60.0]), 40.8, 0.005)
    assert (strict.value, strict.missed) == (40.8, 2), "none of 160 may be rejected at half a per cent"


def test_a_gap_rejects_no_more_of_the_good_images_than_the_stated_share() -> None:
    """A model of the tail may put the base below four of 160 good images."""
    good = np.append(np.linspace(10, 14, 156), [15.2, 15.4, 16.0, 17.0])
    placed = place(good, np.array([30.0, 35.0, 60.0]), 15.15, 0.01)
    assert placed.gap and placed.rejected == 1 and 16.0 < placed.value < 30
    among = place(good, np.array([15.3, 35.0, 60.0]), 15.15, 0.01)
    assert (among.value, among.gap, among.missed) == (15.15, False, 0), "a bad image among the good ones beyond the base leaves no gap"


def test_a_bad_image_in_vain_does_not_raise_the_threshold_above_the_base() -> None:
    placed = place(GOOD.score, np.array([11.0, 90.0, 95.0]), 20.0, 0.01)
    assert (placed.value, placed.missed) == (20.0, 1)


def test_fewer_than_three_bad_images_are_refused_with_the_remedy() -> None:
    with pytest.raises(CalibrationError, match=r"at least 3 bad images .* found 2: .* --bad FOLDER"):
        apply_rule(Rule(kind="gap"), GOOD, scores([50, 60]))


def test_a_gap_without_a_rate_lies_within_the_one_that_the_images_support() -> None:
    threshold, _ = apply_rule(Rule(kind="gap"), scores([1, 2, 3]), scores([8, 9, 10]))
    assert threshold.false_reject_rate == 0.125
    with pytest.raises(CalibrationError, match="3 good images support"):
        check_rule(Rule(kind="gap", target=0.01), 3)


def test_scores_below_zero_are_parted_too() -> None:
    placed = place(np.array([-9.0, -8.0, -7.0]), np.array([-1.0, 0.0, 1.0]), -7.0, 0.25)
    assert -7 < placed.value < -1


def test_a_bad_image_is_judged_by_the_threshold_that_the_others_set() -> None:
    """The weakest lowers the threshold enough to be found; without it, it would have been missed."""
    good, base = np.append(np.linspace(10, 28, 159), 40.8), 40.8
    bad = np.array([31.0, 39.0, 60.0, 70.0])
    assert place(good, bad, base, 0.01).missed == 0
    assert left_out(good, bad, base, 0.01).tolist() == [True, False, False, False]


def test_what_scores_the_threshold_itself_is_accepted_good_or_bad() -> None:
    placed = place(GOOD.score, np.array([15.0, 50.0, 60.0]), 15.0, 0.01)
    assert (placed.value, placed.gap, placed.missed, placed.lowest_bad) == (15.0, False, 1, 15.0)
    placed = place(GOOD.score, np.array([11.0, 90.0, 95.0]), 20.0, 0.01)
    assert (placed.value, placed.rejected) == (20.0, 0)
    assert left_out(GOOD.score, np.array([15.0, 12.0, 60.0, 70.0]), 15.0, 0.01).tolist() == [True, True, False, False]


def test_a_bad_image_at_the_worst_good_score_leaves_no_gap_and_is_caught_where_the_rate_allows() -> None:
    placed = place(GOOD.score, np.array([20.0, 50.0, 60.0]), 20.0, 0.01)
    assert not placed.gap
    assert placed.value == pytest.approx(np.sqrt(GOOD.score[-2] * 20.0)), "between the good image below it and the bad one"
    assert (placed.rejected, placed.missed) == (1, 0)
    kept = place(GOOD.score, np.array([GOOD.score[-2], 50.0, 60.0]), 20.0, 0.01)
    assert (kept.value, kept.rejected, kept.missed) == (20.0, 0, 1), "to catch it would cost a second good image"


def test_a_share_that_is_a_whole_number_of_images_is_that_number() -> None:
    assert gap._allowed(np.arange(200.0), 0.01) == 197.0
    assert gap._allowed(np.arange(199.0), 0.01) == 197.0


def test_a_lowered_threshold_rejects_no_good_image_in_vain() -> None:
    """3 of 160 may be rejected at 2 %, but the bad image lies above two of these."""
    good = np.append(np.linspace(10, 28, 157), [29.0, 30.5, 40.8])
    placed = place(good, np.array([31.0, 35.0, 60.0]), 40.8, 0.02)
    assert placed.value == pytest.approx(np.sqrt(30.5 * 31.0))
    assert (placed.rejected, placed.missed) == (1, 0)


@pytest.mark.parametrize("unit", [1e-6, 0.05, 1.0, 1e6])
def test_the_unit_of_the_scores_does_not_matter(unit: float) -> None:
    placed = place(unit * np.array([7.0, 8.0, 9.0]), unit * np.array([90.0, 95.0, 99.0]), unit * 9.0, 0.25)
    assert placed.value / unit == pytest.approx(9 * 10**0.5)


@pytest.mark.parametrize(("base", "bad"), [(0.0, 1.0), (-7.0, 1.0), (-7.0, -1.0)])
def test_from_zero_down_a_gap_is_shared_by_differences(base: float, bad: float) -> None:
    placed = place(np.array([base - 2, base - 1, base]), np.array([bad, bad + 1, bad + 2]), base, 0.05)
    assert placed.value == pytest.approx(base + (bad - base) * 0.05 / (0.05 + 1 / 4))


def test_the_threshold_says_in_words_what_it_rests_on() -> None:
    bad = scores([40, 50, 60])
    threshold, _ = apply_rule(Rule(kind="gap", target=0.01), GOOD, bad)
    assert threshold.false_reject_upper is not None
    rate, recall = percent(threshold.false_reject_upper, up=True), percent(0.05 ** (1 / 3), down=True)
    seen = f"rejects 0 of 199 good and misses 0 of 3 bad images; false-reject rate at most {rate}, recall at least {recall}"
    assert threshold.rule == (f"in the gap between good and bad images, within a false-reject rate of 1 %: {seen} at 95 % confidence")
    sure, _ = apply_rule(Rule(kind="gap", target=0.01, confidence=0.99), GOOD, bad)
    assert sure.rule.endswith("at 99 % confidence") and sure.confidence == 0.99
    assert sure.false_reject_upper is not None and sure.false_reject_upper > threshold.false_reject_upper
    assert sure.recall_lower == pytest.approx(0.01 ** (1 / 3))
