"""Fit for release or not: the verdict is that of the counts."""

import numpy as np
import pytest

from training.calibrate.rules import default_rule
from training.judging.acceptance import Criteria, default_criteria, judge_acceptance, rejects_evidence

GOOD = np.arange(100.0)
BAD = np.arange(90.0, 190.0)


def test_the_verdict_is_that_of_the_shares_seen() -> None:
    """At 98: 1 of 100 good is rejected, 9 of 100 bad are missed."""
    found = judge_acceptance(Criteria(0.09, 0.01), GOOD, BAD, 98.0, "real")
    assert (found.state, found.missed, found.n_bad, found.rejected, found.n_good) == ("passed", 9, 100, 1, 100)
    assert found.sentence == (
        "fit for release: misses 9 of 100 bad parts (9 %; at most 9 % asked for)"
        " and rejects 1 of 100 good parts (1 %; at most 1 % asked for)"
    )
    failed = judge_acceptance(Criteria(0.08, 0.01), GOOD, BAD, 98.0, "real")
    assert failed.state == "failed"
    assert failed.sentence == "not fit for release: misses 9 of 100 bad parts (9 %; at most 8 % asked for)", "what is wrong stands alone"
    assert not failed.forced


def test_with_a_confidence_the_upper_bound_is_compared_and_too_few_parts_are_no_pass() -> None:
    assert judge_acceptance(Criteria(0.02, 1.0, 0.95), GOOD, np.full(149, 200.0), 98.0, "real").state == "passed", "the rule of three"
    few = judge_acceptance(Criteria(0.02, 1.0, 0.95), GOOD, np.full(148, 200.0), 98.0, "real")
    assert few.state == "failed"
    assert "which takes 149 bad parts without one" in few.sentence


def test_without_bad_parts_nothing_is_assessed_unless_the_good_ones_are_enough_to_fail() -> None:
    none = np.empty(0)
    unknown = judge_acceptance(Criteria(0.05, 0.02), GOOD, none, 98.0, "none")
    assert (unknown.state, unknown.basis) == ("not assessed", "none")
    assert "misses not known, for there are no bad parts" in unknown.sentence
    assert judge_acceptance(Criteria(0.05, 0.02), GOOD, none, 50.0, "none").state == "failed"
    assert judge_acceptance(Criteria(1.0, 0.02), GOOD, none, 98.0, "none").state == "passed", "misses were not asked about"


def test_painted_bad_parts_are_named_as_such() -> None:
    found = judge_acceptance(Criteria(0.05, 0.02), GOOD, BAD, 98.0, "painted")
    assert (found.state, found.basis) == ("failed", "painted")
    assert "9 of 100 painted bad parts" in found.sentence


def test_bad_parts_that_set_the_threshold_may_be_judged_as_if_each_had_been_left_out() -> None:
    missed = np.array([True] * 6 + [False] * 94)
    assert judge_acceptance(Criteria(0.05), GOOD, BAD, 98.0, "real", missed=missed).missed == 6


def test_few_test_parts_do_not_decide_alone_about_false_rejects() -> None:
    """One of twenty is 5 %, and says nothing of a limit of 2 %; two of twenty would be too many without the one, too."""
    held = np.full(200, 2.0)
    test = np.r_[np.full(19, 1.0), 9.0]
    scores, what = rejects_evidence(test, held, 0.02, 5.0)
    assert len(scores) == 220
    assert what == "20 of the test split, 200 held out"
    scores, what = rejects_evidence(np.r_[test[1:], 9.0], held, 0.02, 5.0)
    assert (len(scores), what) == (20, "of the test split")
    assert rejects_evidence(np.empty(0), held, 0.02, 5.0)[1] == "held out of the training images"
    assert rejects_evidence(test, np.empty(0), 0.02, 5.0)[1] == "of the test split"


def test_the_same_images_count_however_many_of_them_were_held_back_to_test_with() -> None:
    """36 or 50 good ones for the test, the others to be taught: 160 count, and the verdict is one."""
    good = np.r_[9.0, np.full(158, 1.0), 9.0]
    for n in (36, 49, 50, 51, 80):
        scores, _ = rejects_evidence(good[-n:], good[:-n], 0.02, 5.0)
        verdict = judge_acceptance(Criteria(1.0, 0.02), scores, BAD, 5.0, "real")
        assert (verdict.state, verdict.rejected, verdict.n_good) == ("passed", 2, 160), n


def test_by_default_one_in_twenty_bad_and_twice_the_stated_rate_of_good_parts_may_go_wrong() -> None:
    assert default_criteria(0.01) == Criteria(0.05, 0.02, granted=1)
    assert default_criteria(0.03) == Criteria(0.05, 0.06, granted=1)
    assert default_criteria(None) == Criteria(0.05, 0.02, granted=1)


def test_a_limit_that_one_part_breaks_is_said_to_be() -> None:
    good = np.arange(32.0)
    found = judge_acceptance(Criteria(max_rejected=0.02), good, np.empty(0), 30.5, "none")
    assert found.state == "failed" and "one part decides that" in found.sentence
    worse = judge_acceptance(Criteria(max_rejected=0.02), good, np.empty(0), 28.5, "none")
    assert "one part" not in worse.sentence


@pytest.mark.parametrize(
    ("rejected", "n", "state"), [(3, 140, "passed"), (4, 140, "failed"), (1, 8, "passed"), (2, 8, "failed"), (7, 300, "failed")]
)
def test_where_nobody_asks_one_rejected_part_more_is_no_refusal(rejected: int, n: int, state: str) -> None:
    """A threshold at one in a hundred, on a product that is told apart wholly."""
    good = np.r_[np.full(n - rejected, 0.5), np.full(rejected, 1.2)]
    found = judge_acceptance(default_criteria(0.01), good, np.full(20, 9.0), 1.0, "real")
    assert found.state == state
    assert ("one part decides that" in found.sentence) is (state == "passed" or (n == 8 and rejected == 1))
    asked = judge_acceptance(Criteria(max_rejected=0.02), good, np.full(20, 9.0), 1.0, "real")
    assert asked.state == "failed"


def test_twice_the_stated_rate_is_twice_what_is_said_of_it_and_says_so() -> None:
    """With 47 good images one in twice as many is stated, 1.04 %: said as 1 %, of which twice is 2 %."""
    assert default_rule(47).target == pytest.approx(0.0104, abs=1e-4)
    assert default_criteria(default_rule(47).target).max_rejected == 0.02
    found = judge_acceptance(default_criteria(0.0161), np.array([0.5] * 28 + [2.0] * 2), np.full(20, 9.0), 1.0, "real")
    assert "at most 3.2 % asked for, twice the stated 1.6 %" in found.sentence
    assert "twice" not in judge_acceptance(default_criteria(0.01), np.full(30, 0.5), np.full(20, 9.0), 1.0, "real").sentence


def test_what_is_to_be_known_of_bad_parts_is_not_said_of_good_ones_that_are_rejected() -> None:
    of_bad = "real defects may score higher or lower than painted ones"
    rejects = judge_acceptance(Criteria(0.5, 0.001), GOOD, BAD, 98.0, "painted", of_bad=of_bad)
    assert rejects.state == "failed"
    assert "rejects 1 of 100 good parts" in rejects.sentence
    assert "painted" not in rejects.sentence
    for both in (judge_acceptance(Criteria(m, 0.02), GOOD, BAD, 98.0, "painted", of_bad=of_bad) for m in (0.01, 0.5)):
        assert both.sentence.endswith(of_bad)
