"""What is said of a model that is refused fits what is wrong with it."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from edge_runtime.model.manifest import Metrics, Threshold
from export.build.accept import Asked, accept, between, hopeless, refusal
from training.calibrate.rules import Rule, Scores, apply_rule
from training.data.layout import Sample
from training.judging.acceptance import Criteria, judge_acceptance
from training.judging.telling import Told, tell


def test_a_refusal_offers_what_fits_its_cause() -> None:
    metrics = {"int8": Metrics(n_good=32, n_bad=10, threshold=30.5), "fp32": Metrics(n_good=32, n_bad=10, threshold=30.5)}
    found = judge_acceptance(Criteria(max_rejected=0.02), np.arange(32.0), np.empty(0), 28.5, "none")
    plain, odd = (str(refusal(found, None, "int8", metrics, apart)) for apart in (0, 16))
    assert "--keep-odd" not in plain
    assert "look at the 16 images that were held for bad: learn them if they are good (--keep-odd)" in odd.lower()


@pytest.mark.parametrize(("first_bad", "said"), [(40.0, True), (20.0, False)])
def test_the_gap_is_advised_where_there_is_one(first_bad: float, said: bool) -> None:
    """Good ones score up to 31, and the threshold lies far above: with bad ones from 40.5 on there is a place for it, from 20 on none.
    What is said of it is what following the advice comes to, by the rule itself."""
    metrics = {"fp32": Metrics(n_good=32, n_bad=12, threshold=60.0)}
    good, bad = np.arange(32.0), first_bad + 0.5 + np.arange(12.0)
    found = judge_acceptance(Criteria(0.05, 0.02), good, bad, 60.0, "real")
    parts = [Sample(Path(f"{i}.png"), "good" if i < 32 else "chip", i < 32, None, "test") for i in range(44)]
    told = tell(parts, np.concatenate([good, bad]), 60.0, 0.01)
    assert told is not None
    scores = [Scores(values, values, np.zeros(len(values))) for values in (good, bad)]
    told = dataclasses.replace(told, between=between(*scores))
    then, _ = apply_rule(Rule(kind="gap", from_test_split=True), *scores)
    refused = str(refusal(found, told, "fp32", metrics, 0))
    assert (
        "Put the threshold between the good and bad images of the test split (lineside-train calibrate RUN --gap --from-test" in refused
        and f"the FP32 model's threshold would be {then.value:.4g}, and miss 0 % and reject 0 %" in refused
    ) == said
    assert ("--gap" in refused) == said and "ry another method or size" in refused


def test_good_parts_that_are_rejected_lead_to_those_that_look_unlike_the_others() -> None:
    metrics = {"fp32": Metrics(n_good=32, n_bad=12, threshold=28.5)}
    bad, odd = np.arange(60.0, 72.0), ("OK/7.png", "OK/3.png")
    rejects = judge_acceptance(Criteria(0.05, 0.02), np.arange(32.0), bad, 28.5, "real")
    said = str(refusal(rejects, None, "fp32", metrics, 0, odd))
    assert "Look at the 2 good images that look unlike the others (OK/7.png first), and teach without those that are bad" in said
    misses = judge_acceptance(Criteria(0.05, 0.02), np.arange(32.0), bad, 80.0, "real")
    assert "unlike the others" not in str(refusal(misses, None, "fp32", metrics, 0, odd)), "they do not make it miss"


def test_good_parts_that_are_rejected_lead_to_what_of_the_data_may_be_why() -> None:
    metrics = {"fp32": Metrics(n_good=32, n_bad=12, threshold=28.5)}
    bad, doubts = np.arange(60.0, 72.0), ("the pictures come in 2 sizes, 16 of 64x64, 16 of 48x48: 2 cameras?",)
    rejects, misses = (judge_acceptance(Criteria(0.05, 0.02), np.arange(32.0), bad, t, "real") for t in (28.5, 80.0))
    assert "asked for). The pictures come in 2 sizes, 16 of 64x64" in str(refusal(rejects, None, "fp32", metrics, 0, doubts=doubts))
    assert "cameras" not in str(refusal(misses, None, "fp32", metrics, 0, doubts=doubts))


def test_what_is_measured_to_help_is_advised_before_what_may_help() -> None:
    """INT8 rejects three of 32 and FP32 none; two good ones look odd, and no bad one is known by which a threshold could be placed."""
    found = judge_acceptance(Criteria(0.05, 0.02), np.arange(32.0), np.arange(60.0, 72.0), 28.5, "real")
    bad, good = {"n_good": 32, "n_bad": 12, "threshold": 28.5}, {"false_accept_rate": 0.0, "false_reject_rate": 0.0}
    metrics = {"int8": Metrics(**bad, false_accept_rate=0.0, false_reject_rate=3 / 32), "fp32": Metrics(**bad, **good)}
    said = str(refusal(found, None, "int8", metrics, 0, ("OK/7.png", "OK/3.png")))
    places = [said.index(word) for word in ("Build it in FP32", "unlike the others", "try another method", "ask for less", "--force")]
    assert places == sorted(places)
    metrics["fp32"] = metrics["int8"]
    assert "in FP32" not in str(refusal(found, None, "int8", metrics, 0)), "it would do no better"
    metrics["fp32"] = Metrics(**bad)
    assert "in FP32" not in str(refusal(found, None, "int8", metrics, 0)), "nobody knows"


def test_labels_are_questioned_before_the_advice() -> None:
    metrics = {"fp32": Metrics(n_good=32, n_bad=10, threshold=30.5)}
    found = judge_acceptance(Criteria(max_missed=0.05), np.arange(32.0), np.arange(10.0), 30.5, "real")
    told = Told("test split", 30.5, 0, 32, 10, 10, (("chip", 10, 10),), doubtful="are these labelled right? called good: 3.png")
    said = str(refusal(found, told, "fp32", metrics, 0))
    assert said.count("labelled right?") == 1 and said.index("labelled right?") < said.index("ry another method")


def test_good_images_that_were_set_apart_are_named_in_a_verdict_that_does_not_count_them() -> None:
    """They may be a variant by right, all of whose parts would be rejected."""
    threshold = Threshold(value=50.0, map_value=50.0, rule="", false_reject_rate=0.01, false_reject_upper=0.02)
    scores = Scores(*[np.arange(40.0)] * 3)
    bad = Scores(*[np.arange(60.0, 70.0)] * 3)
    seen = SimpleNamespace(samples=[SimpleNamespace(split="test")] * 10, scores=bad, is_good=np.zeros(10, dtype=bool))
    judged = SimpleNamespace(scores_of=lambda split, good: scores, scored=seen)
    rule = Rule(kind="false_reject_rate", target=0.01)
    whole, apart = (accept(Asked(), rule, threshold, judged, scores, None, n) for n in (0, 13))  # type: ignore[arg-type]
    assert (whole.state, whole.apart, apart.state, apart.apart) == ("passed", 0, "passed", 13)
    assert "set apart" not in whole.sentence
    assert (
        "13 good images were set apart as unlike the others and not counted: parts that are so by right would be rejected" in apart.sentence
    )


def test_no_threshold_is_advised_where_a_kind_scores_like_good_parts() -> None:
    metrics = {"fp32": Metrics(n_good=32, n_bad=10, threshold=30.5)}
    found = judge_acceptance(Criteria(max_missed=0.05), np.arange(32.0), np.arange(10.0), 30.5, "real")
    told = Told("test split", 30.5, 0, 32, 10, 10, (("chip", 10, 10),), blind=(("chip", 0.5),))
    said = str(refusal(found, told, "fp32", metrics, 0))
    assert "--gap" not in said and "no threshold tells chip (AUROC 0.50)" in said and ". Try another method" in said


def test_no_precision_is_tried_for_what_is_missed_by_far_and_one_near_the_border_is() -> None:
    """Ten bad parts, held-out good ones below 40, a threshold of 50."""
    threshold = Threshold(value=50.0, map_value=50.0, rule="", false_reject_rate=0.01, false_reject_upper=0.02)
    good = Scores(*[np.arange(40.0)] * 3)
    rule = Rule(kind="false_reject_rate", target=0.01)

    def said(first: float, bad_set_it: bool = False) -> str | None:
        bad = Scores(*[first + np.arange(10.0) / 10] * 3)
        seen = SimpleNamespace(samples=[SimpleNamespace(split="test")] * 10, scores=bad, is_good=np.zeros(10, dtype=bool))
        judged = SimpleNamespace(scores_of=lambda split, good_ones: good, scored=seen)
        by = msgspec.structs.replace(rule, bad="BAD") if bad_set_it else rule
        return hopeless(Asked(), by, threshold, judged, good, 0, 0.15)  # type: ignore[arg-type]

    assert "misses 10 of 10 bad parts" in str(said(20.0))
    assert said(45.0) is None, "within the border: another precision may find them"
    assert said(20.0, bad_set_it=True) is None and said(60.0) is None
