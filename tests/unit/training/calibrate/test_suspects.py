"""Single labels that are wrong are named, and sets whose good and bad are alike are left alone."""

from pathlib import Path

import numpy as np
import pytest

from training.calibrate.suspects import say_suspects, suspects
from training.data.layout import Sample


def scores(n: int, m: int, apart: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(0, 1, n), rng.normal(apart, 1 + apart / 4, m)]), np.arange(n + m) < n


def mixed(is_good: np.ndarray, seed: int) -> np.ndarray:
    """A tenth of either side."""
    rng, wrong = np.random.default_rng(seed), np.zeros(len(is_good), dtype=bool)
    for side in (is_good, ~is_good):
        wrong[rng.choice(np.flatnonzero(side), side.sum() // 10, replace=False)] = True
    return wrong


@pytest.mark.parametrize(("n", "m"), [(30, 30), (286, 392)])
def test_of_a_tenth_of_wrong_labels_half_are_named_and_few_that_are_right(n: int, m: int) -> None:
    named, false = [], []
    for seed in range(20):
        score, is_good = scores(n, m, 6, seed)
        wrong = mixed(is_good, seed)
        found = suspects(score, is_good ^ wrong)
        named.append(found[wrong].mean())
        false.append(found[~wrong].mean())
    assert np.mean(named) > 0.5 and np.mean(false) < 0.02


@pytest.mark.parametrize("apart", [0.0, 0.5])
def test_where_good_and_bad_are_alike_no_label_is_doubted(apart: float) -> None:
    assert not any(suspects(*scores(30, 30, apart, seed)).any() for seed in range(20))


def test_right_labels_are_seldom_doubted() -> None:
    found = np.array([suspects(*scores(100, 100, 4, seed)) for seed in range(20)])
    assert found[:, :100].mean() < 0.01, "good ones"
    assert found[:, 100:].mean() < 0.07, "a tenth of these bad ones scores as the lower nine tenths of good ones do"


def test_a_kind_that_the_detector_does_not_see_is_not_called_mislabelled() -> None:
    score, is_good = scores(60, 40, 6, 0)
    kinds = np.array(["good"] * 60 + ["hole"] * 35 + ["dent"] * 5)
    score[95:] = np.quantile(score[:60], 0.5)
    assert suspects(score, is_good)[95:].all() and not suspects(score, is_good, kinds.tolist())[95:].any()


def test_two_labels_that_were_exchanged_are_named_among_parts_at_the_border_and_faint_defects() -> None:
    """Scores that a detector gave lids with 24 good and 25 bad ones, of which one each is the other: 126 and 15.9."""
    good = [12.9, 13, 13.3, 13.6, 13.6, 13.8, 13.9, 13.9, 14.2, 14.3, 14.3, 14.4, 14.5, 14.9, 15]
    good += [17.3, 18.5, 18.8, 20.7, 29.4, 34.5, 35.1, 35.3]
    faint = [13.8, 14.7, 18.9, 20.2, 25.7, 28.1, 28.2, 31.1, 31.5, 34.5]
    bad = [*faint, 64, 65.7, 66.2, 67, 67.1, 67.5, 68, 95.2, 120, 128, 141, 147, 153, 170]
    score, is_good = np.array([*good, 126, *bad, 15.9]), np.arange(49) < 24
    found = suspects(score, is_good)
    assert set(score[found & is_good]) == {126}
    assert {13.8, 14.7, 15.9} <= set(score[found & ~is_good]), "what hardly shows is not told from what is not there"
    assert max(score[found & ~is_good]) < 20, "nor is what lies at the border doubted"


def test_few_images_say_nothing() -> None:
    score, is_good = scores(30, 7, 6, 0)
    assert not suspects(score, is_good ^ mixed(is_good, 0)).any()


def test_the_sentence_names_both_sides() -> None:
    samples = [Sample(Path("t/good/1.png"), "good", True, None, "test"), Sample(Path("t/dent/2.png"), "dent", False, None, "test")]
    said = say_suspects(samples, np.array([True, True]))
    assert said is not None
    assert "called good, and score as bad ones do: good/1.png; called bad, and score as good ones do: dent/2.png; a bad part whose" in said
    assert said.endswith("move the file to the other folder, or correct its row in the table, and teach again")
    one = say_suspects(samples, np.array([True, False]), times=[6.39, 0.6])
    assert one is not None and "called good, and score as bad ones do: good/1.png (6.39x). Where" in one and "hardly shows" not in one
    assert say_suspects(samples, np.array([False, False])) is None
