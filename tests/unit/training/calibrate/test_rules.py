"""What a threshold promises, and when it must not be given."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from edge_runtime.console import run_app
from edge_runtime.errors import CalibrationError
from training.calibrate.bounds import band_bound, clopper_pearson, order_bound, percent
from training.calibrate.gap import place
from training.calibrate.rules import HeldOut, Rule, Scores, apply_rule, check_bad, check_rule, default_rule
from training.calibrate.tail import tail_quantile
from training.commands.cli import app


def scores(values: object) -> Scores:
    s = np.asarray(values, dtype=np.float64)
    return Scores(s, s * 2, s / 4)


def rate(target: float) -> Rule:
    return Rule(kind="false_reject_rate", target=target)


def conformal(target: float) -> Rule:
    return Rule(kind="conformal", target=target)


def test_the_threshold_is_the_conformal_order_statistic() -> None:
    good = np.arange(1, 200, dtype=float)  # n = 199: k = ceil(200 * 0.95) = 190
    threshold, display = apply_rule(conformal(0.05), scores(np.random.default_rng(0).permutation(good)))
    assert (threshold.value, threshold.map_value) == (190.0, 380.0)
    assert threshold.n_good == 199 and threshold.false_reject_rate == 0.05
    assert display.high == 760.0 and display.low == 25.0


def test_new_good_parts_are_rejected_no_more_often_than_stated() -> None:
    rng = np.random.default_rng(1)
    true_rates = []
    bound_held = 0
    for _ in range(400):
        threshold, _ = apply_rule(conformal(0.02), scores(rng.lognormal(size=150)))
        fresh = rng.lognormal(size=4000)
        true_rates.append(float((fresh > threshold.value).mean()))
        assert threshold.false_reject_upper is not None
        bound_held += true_rates[-1] <= threshold.false_reject_upper
    assert np.mean(true_rates) <= 0.022
    assert bound_held / 400 > 0.92


def test_the_upper_bound_is_the_rule_of_three_for_the_maximum() -> None:
    assert order_bound(100, 0, 0.95) == pytest.approx(1 - 0.05 ** (1 / 100))
    threshold, _ = apply_rule(conformal(0.01), scores(np.linspace(1, 2, 176)))
    assert "at most 1.7 % at 95 % confidence from 176 good images" in threshold.rule


def test_a_rate_that_the_images_cannot_support_is_refused_with_both_ways_out() -> None:
    with pytest.raises(CalibrationError, match=r"98 good images support 1\.1 %.*1 %.*needs 99 good images"):
        apply_rule(conformal(0.01), scores(np.linspace(1, 2, 98)))
    with pytest.raises(CalibrationError, match=r"23 good images support 1\.1 %.*1 %.*needs 24 good images"):
        apply_rule(rate(0.01), scores(np.linspace(1, 2, 23)))
    threshold, _ = apply_rule(conformal(0.01), scores(np.linspace(1, 2, 99)))
    assert threshold.value == 2.0


@pytest.mark.parametrize("n", [2, 7, 40, 98, 99, 176, 2000])
def test_the_default_rule_is_always_supported(n: int) -> None:
    threshold, _ = apply_rule(default_rule(n), scores(np.linspace(1, 2, n)))
    assert threshold.false_reject_rate == max(0.01, 0.5 / (n + 1))


@pytest.mark.parametrize("target", [0.0, -0.1, 0.7, float("nan"), None])
def test_an_impossible_rate_is_refused(target: float | None) -> None:
    with pytest.raises(CalibrationError, match="false-reject rate"):
        apply_rule(Rule(kind="false_reject_rate", target=target), scores(np.ones(500)))


def test_maximum_f1_equals_trying_every_threshold() -> None:
    rng = np.random.default_rng(3)
    good, bad = rng.normal(5, 1, 80), rng.normal(7, 1, 30)
    threshold, _ = apply_rule(Rule(kind="max_f1"), scores(good), scores(bad))

    def f1(t: float) -> float:
        caught, false = (bad > t).sum(), (good > t).sum()
        return 2 * caught / (2 * caught + false + (len(bad) - caught))

    assert f1(threshold.value) == max(f1(t) for t in np.concatenate([good, bad]))
    assert threshold.map_value == pytest.approx(2 * threshold.value)
    assert threshold.value not in good and threshold.value not in bad
    assert threshold.n_bad == 30 and threshold.false_reject_rate is None


def test_of_equal_f1_the_middle_of_the_gap_is_taken() -> None:
    threshold, _ = apply_rule(Rule(kind="max_f1"), scores([1, 2, 3]), scores([7, 8]))
    assert threshold.value == 5.0


@pytest.mark.parametrize("recall", [1e-12, 0.5, 0.9, 0.95, 1.0])
def test_recall_is_reached_with_the_fewest_false_rejects(recall: float) -> None:
    rng = np.random.default_rng(4)
    good, bad = rng.normal(5, 1, 200), rng.normal(6.5, 1, 60)
    threshold, _ = apply_rule(Rule(kind="recall", target=recall), scores(good), scores(bad))
    assert (bad > threshold.value).mean() >= recall
    higher = [t for t in np.concatenate([good, bad]) if t > threshold.value and (bad > t).mean() >= recall]
    assert all((good > t).sum() == (good > threshold.value).sum() for t in higher)
    observed = float((good > threshold.value).mean())
    assert threshold.false_reject_upper is not None and threshold.false_reject_upper > observed


def test_rules_on_bad_images_need_some() -> None:
    with pytest.raises(CalibrationError, match="--bad"):
        apply_rule(Rule(kind="max_f1"), scores([1, 2]))


def test_a_threshold_from_the_test_split_says_so() -> None:
    threshold, _ = apply_rule(Rule(kind="max_f1", from_test_split=True), scores([1, 2]), scores([5, 6]))
    assert threshold.from_test_split and "test split" in threshold.rule


def test_scores_that_are_no_numbers_or_all_zero_are_refused() -> None:
    with pytest.raises(CalibrationError, match="not finite"):
        apply_rule(rate(0.1), scores([1.0] * 50 + [np.nan]))
    with pytest.raises(CalibrationError, match="above 0"):
        apply_rule(rate(0.1), scores(np.zeros(50)))


def cost(ratio: float | None, share: float | None = None) -> Rule:
    return Rule(kind="cost", cost_ratio=ratio, defect_rate=share)


@pytest.mark.parametrize(("ratio", "share"), [(5, 0.1), (50, 0.01), (50, 0.1), (1000, 0.01)])
def test_the_lowest_cost_equals_trying_every_threshold(ratio: float, share: float) -> None:
    rng = np.random.default_rng(7)
    good, bad = rng.normal(5, 1, 300), rng.normal(8, 1.5, 50)
    threshold, _ = apply_rule(cost(ratio, share), scores(good), scores(bad))

    def expected(t: float) -> float:
        return (1 - share) * float((good > t).mean()) + share * ratio * float((bad <= t).mean())

    assert expected(threshold.value) == pytest.approx(min(expected(t) for t in np.concatenate([good, bad])))
    assert threshold.value not in good and threshold.map_value == pytest.approx(2 * threshold.value)
    found, without = (f"{v:,.0f}" if v >= 100 else f"{v:.3g}" for v in (1000 * expected(threshold.value), 1000 * share * ratio))
    assert f"costs {found} false rejects, {without} without" in threshold.rule
    assert "a false accept costs" in threshold.rule and threshold.false_reject_rate is None


def test_dearer_misses_and_more_bad_parts_lower_the_threshold() -> None:
    rng = np.random.default_rng(8)
    good, bad = scores(rng.normal(5, 1, 400)), scores(rng.normal(7, 1, 100))
    values = [apply_rule(cost(r, 0.05), good, bad)[0].value for r in (2, 20, 200)]
    assert values == sorted(values, reverse=True) and values[0] > values[2]
    assert apply_rule(cost(20, 0.5), good, bad)[0].value < values[1]


def test_an_assumed_share_of_bad_parts_is_named() -> None:
    rng = np.random.default_rng(9)
    good, bad = scores(rng.normal(5, 1, 100)), scores(rng.normal(12, 1, 20))
    assert "1 % (assumed) of the parts are bad" in apply_rule(cost(50), good, bad)[0].rule
    assert "2 % of the parts are bad" in apply_rule(cost(50, 0.02), good, bad)[0].rule


def test_a_cost_that_no_threshold_lowers_is_refused() -> None:
    same = np.linspace(1, 2, 50)
    with pytest.raises(CalibrationError, match="cheapest to accept every part"):
        apply_rule(cost(1, 0.001), scores(same), scores(same))
    with pytest.raises(CalibrationError, match="cheapest to reject every part"):
        apply_rule(cost(1000, 0.5), scores(same), scores(same - 0.001))


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        (cost(None), "cost ratio.*found None"),
        (cost(0), "cost ratio"),
        (cost(float("inf")), "cost ratio"),
        (cost(1e300), "up to 1,000,000"),
        (cost(5, 1.0), "defect rate.*1.0"),
    ],
)
def test_impossible_costs_are_refused(rule: Rule, match: str) -> None:
    with pytest.raises(CalibrationError, match=match):
        apply_rule(rule, scores([1, 2]), scores([3, 4]))


def test_a_recall_is_stated_with_its_lower_bound() -> None:
    """The bound holds although the threshold is chosen on the very images that it is counted on."""
    rng = np.random.default_rng(10)
    held = 0
    for _ in range(400):
        threshold, _ = apply_rule(Rule(kind="recall", target=0.9), scores(rng.normal(5, 1, 200)), scores(rng.normal(7, 1, 40)))
        assert threshold.recall_lower is not None
        held += float((rng.normal(7, 1, 4000) > threshold.value).mean()) >= threshold.recall_lower
    assert held / 400 > 0.93
    threshold, _ = apply_rule(Rule(kind="recall", target=1.0), scores(np.linspace(1, 2, 99)), scores(np.linspace(3, 4, 5)))
    assert threshold.recall_lower == pytest.approx(0.05 ** (1 / 5))
    assert "recall at least 54 % at 95 % confidence, false-reject rate at most 3 %" in threshold.rule


def test_painted_defects_are_named_in_the_rule() -> None:
    rule = Rule(kind="max_f1", synthetic=2)
    threshold, _ = apply_rule(rule, scores([1, 2]), scores([5, 6]))
    assert "all of the bad images are synthetic" in threshold.rule and threshold.n_synthetic == 2
    threshold, _ = apply_rule(rule, scores([1, 2]), scores([5, 6, 7]))
    assert "2 of the bad images are synthetic" in threshold.rule
    threshold, _ = apply_rule(Rule(kind="false_reject_rate", target=0.3, synthetic=2), scores([1, 2, 3, 4]), scores([5, 6]))
    assert "synthetic" not in threshold.rule and threshold.n_synthetic == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--cost-ratio", "50"), "--cost-ratio need bad images"),
        (("--max-f1", "--defect-rate", "0.1"), "belongs to --cost-ratio"),
        (("--cost-ratio", "50", "--recall", "0.9"), "exactly one"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    args: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as e:
        run_app(app, ["calibrate", str(tmp_path), *args])
    assert e.value.code == 78 and message in capsys.readouterr().err


def test_a_rule_that_would_reject_most_good_parts_gives_no_threshold() -> None:
    good = scores([4, 5, 6, 7])
    with pytest.raises(CalibrationError, match=r"do not tell good from bad: .* would reject 3 of 4"):
        apply_rule(Rule(kind="max_f1"), good, scores([4.5, 4.6, 4.7, 8]))
    with pytest.raises(CalibrationError, match="would reject 4 of 4"):
        apply_rule(Rule(kind="recall", target=1.0), good, scores([3, 8, 9]))
    threshold, _ = apply_rule(Rule(kind="recall", target=1.0), good, scores([4.5, 8, 9]))
    assert "rejects 3 of 4 good" in threshold.rule, "who asks for recall may pay for it"


def at_most(seen: int, n: int, confidence: float = 0.95) -> str:
    """In words, the upper bound of a rate that was seen so many times of n."""
    return percent(float(binomtest(seen, n).proportion_ci(2 * confidence - 1, "exact").high), up=True)


def at_least(missed: int, n: int, confidence: float = 0.95) -> str:
    return percent(1 - float(binomtest(missed, n).proportion_ci(2 * confidence - 1, "exact").high), down=True)


def test_a_rule_of_good_images_says_in_words_what_it_promises_and_from_what() -> None:
    good = scores(np.arange(1, 200))
    assert apply_rule(conformal(0.05), good)[0].rule == (
        f"false-reject rate 5 %: at most {at_most(9, 199)} at 95 % confidence from 199 good images, of which it would reject 9 (4.5 %)"
    )
    threshold, _ = apply_rule(Rule(kind="conformal", target=0.005, confidence=0.99), good, apart=3, odd=5)
    assert threshold.rule == (
        f"false-reject rate 0.5 %: at most {at_most(0, 199, 0.99)} at 99 % confidence from 199 good images,"
        " none of which it would reject; 3 odd ones were set apart"
    )
    assert (threshold.value, threshold.map_value, threshold.confidence, threshold.n_odd) == (199.0, 398.0, 0.99, 5)
    assert (threshold.n_good, threshold.n_bad, threshold.n_synthetic, threshold.recall_lower) == (199, 0, 0, None)


def test_a_rule_of_bad_images_says_in_words_what_it_does_to_those_seen() -> None:
    good, bad = scores([1, 2, 3, 9]), scores([4, 10, 11, 12])
    seen = "rejects 1 of 4 good and misses 1 of 4 bad images"
    assert apply_rule(Rule(kind="max_f1"), scores([1, 2, 3]), scores([7, 8]))[0].rule == (
        "maximum F1: rejects 0 of 3 good and misses 0 of 2 bad images"
    )
    threshold, _ = apply_rule(Rule(kind="recall", target=0.75), scores([1, 2, 3, 9, 9.5]), scores([4, 9.2, 11, 12]))
    assert threshold.rule == (
        f"lowest false-reject rate at a recall of 75 %: rejects 1 of 5 good and misses 1 of 4 bad images;"
        f" recall at least {at_least(1, 4)} at 95 % confidence, false-reject rate at most {at_most(1, 5)}"
    )
    assert threshold.value == pytest.approx(9.1) and (threshold.n_good, threshold.n_bad) == (5, 4)
    dear, _ = apply_rule(cost(1, 0.2), good, bad)
    assert dear.rule == (
        f"lowest cost where a false accept costs 1 false rejects and 20 % of the parts are bad:"
        f" {seen.replace('rejects 1', 'rejects 0')}; per 1,000 parts that costs 50 false rejects, 200 without an inspection"
    )


def test_what_a_threshold_must_not_rest_on_is_said_behind_it() -> None:
    sure = Rule(kind="max_f1", synthetic=1, from_test_split=True)
    threshold, _ = apply_rule(sure, scores([1, 2]), scores([5, 6]))
    assert threshold.rule.endswith(
        "; 1 of the bad images are synthetic, real defects may score lower; calibrated on the test split, so figures measured on it flatter"
    )
    assert (threshold.n_synthetic, threshold.from_test_split) == (1, True)


def test_scores_that_were_held_out_are_read_back_in_their_order() -> None:
    kept = HeldOut.of(["a.png", "b.png"], ["0", "1"], Scores(np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.array([5.0, 6.0])))
    assert [(i.name, i.sha256, i.score, i.map_peak, i.map_median) for i in kept.images] == [
        ("a.png", "0", 1.0, 3.0, 5.0), ("b.png", "1", 2.0, 4.0, 6.0),
    ]  # fmt: skip
    found = kept.scores
    assert (found.score.tolist(), found.map_peak.tolist(), found.map_median.tolist()) == ([1, 2], [3, 4], [5, 6])
    assert len(HeldOut(images=[]).scores) == 0
    with pytest.raises(ValueError, match="zip"):
        HeldOut.of(["a.png"], ["0", "1"], found)


@pytest.mark.parametrize(
    ("rule", "n_good", "n_bad", "message"),
    [
        (Rule(kind="gap"), 9, 2, "calibration: expected at least 3 bad images to place the threshold by, found 2: with so few, half of all"
         " bad parts may score lower than those seen; add some to --bad FOLDER, or leave it out"),
        (Rule(kind="max_f1"), 3, 0, "calibration: the rule max_f1 needs bad images, found none: give them with --bad FOLDER"),
        (Rule(kind="max_f1"), 0, 3, "calibration: expected scores of good images, found none"),
        (Rule(kind="recall"), 3, 3, "recall: expected a share above 0 and up to 1 (0.01 is 1 %), found None"),
        (Rule(kind="recall", target=1.5), 3, 3, "recall: expected a share above 0 and up to 1 (0.01 is 1 %), found 1.5"),
        (rate(0.6), 3, 0, "false-reject rate: expected a share above 0 and up to 0.5 (0.01 is 1 %), found 0.6"),
        (conformal(0.01), 98, 0, "false-reject rate: 98 good images support 1.1 % at the lowest, 1 % was asked for; that needs 99 good"
         " images"),
        (Rule(kind="cost", cost_ratio=0), 3, 3, "cost ratio: expected a number above 0 and up to 1,000,000 (50: a false accept costs 50"
         " false rejects), found 0"),
        (Rule(kind="cost", cost_ratio=1, defect_rate=0), 3, 3, "defect rate: expected a share between 0 and 1 (0.01: one part in a hundred"
         " is bad), found 0"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_was_expected_what_was_found_and_what_to_do(rule: Rule, n_good: int, n_bad: int, message: str) -> None:
    with pytest.raises(CalibrationError) as e:
        apply_rule(rule, scores(1 + np.arange(n_good)), scores(100 + np.arange(n_bad)))
    assert str(e.value) == message


@pytest.mark.parametrize(
    ("allowed", "refused"),
    [
        (rate(0.5), rate(0.501)), (conformal(0.25), conformal(0.249)), (Rule(kind="recall", target=1.0), Rule(kind="recall", target=1.001)),
        (Rule(kind="cost", cost_ratio=1_000_000, defect_rate=0.999), Rule(kind="cost", cost_ratio=1_000_000, defect_rate=1.0)),
        (Rule(kind="cost", cost_ratio=1_000_000), Rule(kind="cost", cost_ratio=1_000_001)),
    ],
)  # fmt: skip
def test_what_lies_on_the_border_of_a_rule_s_settings_is_allowed_and_what_lies_beyond_it_is_not(allowed: Rule, refused: Rule) -> None:
    check_rule(allowed, 3)
    with pytest.raises(CalibrationError):
        check_rule(refused, 3)


def test_three_bad_images_are_enough_for_a_gap_and_any_number_for_other_rules() -> None:
    check_bad(Rule(kind="gap"), 3)
    check_bad(Rule(kind="max_f1"), 1)
    with pytest.raises(CalibrationError, match="expected at least 3 bad images"):
        check_bad(Rule(kind="gap"), 2)


def test_scores_that_no_threshold_can_part_are_refused_and_two_that_one_can_are_not() -> None:
    with pytest.raises(CalibrationError) as e:
        apply_rule(Rule(kind="max_f1"), scores([5, 5]), scores([5, 5, 5]))
    assert str(e.value) == "calibration: all good and bad images have the same score; no threshold can part them"
    assert apply_rule(Rule(kind="max_f1"), scores([2, 2]), scores([6, 6]))[0].value == 4.0


def test_images_that_score_alike_count_each_in_f1_and_in_cost() -> None:
    """At 5 lie many of both sides: the threshold above them misses two bad ones, the one below rejects six good ones."""
    good, bad = scores([1] * 4 + [5] * 6), scores([5] * 2 + [9] * 4)
    assert apply_rule(Rule(kind="max_f1"), good, bad)[0].value == 7.0
    assert apply_rule(cost(1.5, 0.5), good, bad)[0].value == 7.0
    assert apply_rule(cost(3, 0.5), good, bad)[0].value == 3.0


@pytest.mark.parametrize(("ratio", "what"), [(1, "accept every part"), (99, "accept every part"), (100, "reject every part")])
def test_where_no_threshold_pays_the_cheaper_of_both_is_named_with_the_ways_out(ratio: float, what: str) -> None:
    same = scores([1, 2])
    with pytest.raises(CalibrationError) as e:
        apply_rule(cost(ratio, 0.01), same, same)
    assert str(e.value) == (
        f"calibration: at this cost ratio and defect rate it is cheapest to {what}: no threshold of this detector does better."
        " Check the two numbers, or use --recall or --false-reject-rate"
    )


def test_scores_that_are_all_the_same_are_refused_by_their_values() -> None:
    with pytest.raises(CalibrationError) as e:
        apply_rule(conformal(0.1), scores([3.0] * 50))
    assert str(e.value) == ("calibration: expected a threshold above 0, found 3 for scores and 6 for maps: these images are all the same")
    assert apply_rule(Rule(kind="max_f1"), scores([2, 2]), scores([6, 6]))[0].value == 4.0, "not where bad ones differ from them"


@pytest.mark.parametrize("bad", [[9.0, np.nan], [9.0, np.inf]])
def test_a_bad_score_that_is_no_number_is_refused(bad: list[float]) -> None:
    with pytest.raises(CalibrationError) as e:
        apply_rule(Rule(kind="max_f1"), scores([1, 2]), scores(bad))
    assert str(e.value) == "calibration: some scores are not finite: the detector is broken; fit again"


def test_images_set_apart_move_the_threshold_and_odd_ones_are_only_noted() -> None:
    good = scores(np.random.default_rng(0).lognormal(1, 0.2, 100))
    plain, apart = (apply_rule(rate(0.02), good, None, n)[0] for n in (0, 8))
    assert (apart.value, apart.map_value) == (tail_quantile(good.score, 0.02, 8), tail_quantile(good.map_peak, 0.02, 8))
    assert apart.value > plain.value and plain.n_odd == 0
    assert apply_rule(rate(0.02), good, None, 0, 5)[0].value == plain.value


def test_the_bound_of_a_threshold_that_was_read_off_a_tail_is_the_wider_one() -> None:
    good = scores(np.random.default_rng(0).lognormal(1, 0.2, 100))
    threshold, _ = apply_rule(rate(0.02), good)
    above = int((good.score > threshold.value).sum())
    assert threshold.false_reject_upper == band_bound(100, above, 0.95) > order_bound(100, above, 0.95)


@pytest.mark.parametrize("n", range(40, 50))
def test_a_promise_is_rounded_up(n: int) -> None:
    good, bad = scores(np.arange(1.0, n + 1)), scores([100.0, 101.0])
    for rule in (conformal(0.05), Rule(kind="recall", target=1.0)):
        threshold, _ = apply_rule(rule, good, bad)
        assert threshold.false_reject_upper is not None
        assert f"at most {percent(threshold.false_reject_upper, up=True)}" in threshold.rule


def test_a_gap_s_promise_is_the_base_s_where_it_lies_above_it_and_that_of_the_images_where_it_lies_below() -> None:
    good = scores(np.append(np.linspace(1, 2, 59), 6))
    within, rule = Rule(kind="false_reject_rate", target=0.05), Rule(kind="gap", target=0.05)
    base, _ = apply_rule(within, good, None, 6)
    above, _ = apply_rule(rule, good, scores([20.0, 21, 22]), 6, 9)
    placed = place(good.score, np.array([20.0, 21, 22]), base.value, 0.05)
    assert (above.value, above.false_reject_upper, above.n_odd) == (placed.value, base.false_reject_upper, 9)
    assert above.value > base.value
    lower = [(base.value + 2) / 2, 0.5, 30]
    below, _ = apply_rule(rule, good, scores(lower), 6)
    assert below.value < base.value
    assert below.false_reject_upper == band_bound(60, int((good.score > below.value).sum()), 0.95)
    sure, _ = apply_rule(Rule(kind="gap", target=0.05, confidence=0.8), good, scores(lower), 6)
    assert sure.false_reject_upper == band_bound(60, int((good.score > sure.value).sum()), 0.8)


def test_up_to_half_of_the_good_images_may_be_rejected_by_the_best_f1() -> None:
    bad = scores([8.0] * 8)
    assert apply_rule(Rule(kind="max_f1"), scores([1, 1, 9, 9]), bad)[0].value == 4.5
    with pytest.raises(CalibrationError) as e:
        apply_rule(Rule(kind="max_f1"), scores([1, 9, 9]), bad)
    assert str(e.value) == (
        "calibration: these scores do not tell good from bad: maximum F1 would reject 2 of 3 good images;"
        " teach on more images or another method, or give real bad images with --bad FOLDER"
    )


@given(st.lists(st.integers(1, 6), min_size=2, max_size=8), st.lists(st.integers(1, 6), min_size=1, max_size=8))
def test_of_scores_that_are_alike_no_threshold_has_a_better_f1(good: list[int], bad: list[int]) -> None:
    def f1(threshold: float) -> float:
        caught, rejected = sum(b > threshold for b in bad), sum(g > threshold for g in good)
        return 2 * caught / (caught + rejected + len(bad))

    try:
        threshold, _ = apply_rule(Rule(kind="max_f1"), scores(good), scores(bad))
    except CalibrationError:
        return  # all alike, or most good ones rejected
    levels = sorted({*good, *bad})
    assert f1(threshold.value) == max(f1((a + b) / 2) for a, b in pairwise(levels))


def test_a_recall_s_bound_has_the_confidence_that_was_asked_for_and_says_nothing_of_a_rate_that_was_aimed_at() -> None:
    threshold, _ = apply_rule(Rule(kind="recall", target=0.75, confidence=0.8), scores([1, 2, 3]), scores([2.5, 5, 6, 7]))
    assert threshold.recall_lower == 1 - clopper_pearson(1, 4, 0.8)[1]
    assert threshold.false_reject_rate is None


def test_a_low_recall_is_reached_beyond_good_images_that_a_higher_one_would_reject() -> None:
    assert apply_rule(Rule(kind="recall", target=0.4), scores([1, 6, 6, 6]), scores([5, 9]))[0].value == 7.5


def test_a_recall_that_only_rejecting_everything_reaches_is_refused() -> None:
    with pytest.raises(CalibrationError, match="would reject 2 of 2 good images"):
        apply_rule(Rule(kind="recall", target=1.0), scores([3, 3]), scores([3, 4]))


def test_painted_defects_are_said_behind_what_the_threshold_does() -> None:
    threshold, _ = apply_rule(Rule(kind="max_f1", synthetic=2), scores([1, 2, 3]), scores([7, 8]))
    assert threshold.rule == (
        "maximum F1: rejects 0 of 3 good and misses 0 of 2 bad images; all of the bad images are synthetic, real defects may score lower"
    )


def test_small_scores_are_as_good_as_large_ones_and_a_map_of_nothing_carries_no_threshold() -> None:
    small = np.linspace(0.01, 0.1, 50)
    threshold, _ = apply_rule(conformal(0.1), scores(small))
    assert 0 < threshold.value < threshold.map_value < 0.2
    nothing = np.zeros(50)
    for good in (Scores(small, nothing, nothing), Scores(nothing - np.arange(50), small, small)):
        with pytest.raises(CalibrationError, match="expected a threshold above 0"):
            apply_rule(conformal(0.1), good)


def test_two_images_that_score_alike_carry_no_threshold_and_a_single_one_does() -> None:
    with pytest.raises(CalibrationError, match="these images are all the same"):
        apply_rule(conformal(0.5), scores([3.0, 3.0]))
    assert apply_rule(conformal(0.5), scores([3.0]))[0].value == 3.0


@pytest.mark.parametrize("seed", range(20))
def test_the_order_statistic_is_found_in_whatever_order_the_scores_come(seed: int) -> None:
    mixed = np.random.default_rng(seed).permutation(np.arange(1.0, 41.0))
    assert apply_rule(conformal(0.25), scores(mixed))[0].value == 31.0


@pytest.mark.parametrize(
    ("n", "above", "said"),
    [
        (140, 0, "none of which it would reject"),
        (140, 1, "of which it would reject 1 (0.71 %)"),
        (140, 3, "of which it would reject 3 (2.1 %: so few images may show that where 1 % is true)"),
        (666, 15, "of which it would reject 15 (2.3 %: more than 1 % makes likely: look at them, or be ready for as many)"),
    ],
)
def test_what_its_own_images_show_stands_beside_the_rate_that_was_aimed_at(
    n: int, above: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stated 1 %, seen 2.1 or 2.3 %: whether that contradicts the promise is told, and not left to the reader."""
    monkeypatch.setattr("training.calibrate.rules.tail_quantile", lambda scores, *_: float(np.sort(scores)[-1 - above]))
    threshold, _ = apply_rule(Rule(kind="false_reject_rate", target=0.01), scores(np.arange(1, n + 1)))
    assert threshold.rule.endswith(f"from {n} good images, {said}")
