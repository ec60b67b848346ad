"""The recommendation: the default stands unless another is better by more than chance explains, and there always is one."""

import numpy as np
import pytest

from export.choose.choosing import Judged, resampled, take
from export.choose.cli import after_the_default
from export.choose.compare import Comparison

MS = {"a": 5.0, "b": 8.0, "c": 3.0}


def judged(seed: int, shift: float, n: int = 60, m: int = 200, threshold: float = 2.3) -> Judged:
    rng = np.random.default_rng(seed)
    return Judged(rng.normal(0, 1, n), rng.normal(shift, 1, m), threshold)


def test_error_and_auroc_are_those_of_the_scores() -> None:
    j = Judged(np.array([0.0, 1.0, 3.0, 0.5]), np.array([2.5, 1.0, 4.0]), 2.0)
    assert j.error == pytest.approx((1 / 4 + 1 / 3) / 2)
    assert j.auroc == pytest.approx((3 + 2.5 + 4) / 12)
    assert j.figure == pytest.approx((j.error + 1 - j.auroc) / 2)


def test_the_default_wins_ties_within_the_noise() -> None:
    some = {"a": judged(0, 3.0), "b": judged(1, 3.1), "c": judged(2, 3.05)}
    taken = take(some, MS, "a", None)
    assert taken.name == "a" and "none is better than a" in taken.why and taken.behind["a"] == (0.0, 0.0)


def test_what_is_surely_better_is_taken() -> None:
    some = {"a": judged(0, 2.0), "b": judged(1, 4.0), "c": judged(2, 2.0)}
    taken = take(some, MS, "a", None)
    diff, noise = taken.behind["b"]
    assert taken.name == "b" and diff < -2.5 * noise < 0 and "more than chance" in taken.why


@pytest.mark.slow
def test_among_equals_a_rival_seldom_passes() -> None:
    wrong = sum(take({name: judged(10 * trial + i, 3.0) for i, name in enumerate("abc")}, MS, "a", None).name != "a" for trial in range(60))
    assert wrong <= 4


def test_the_noise_is_that_of_drawing_the_images_again() -> None:
    figures = [judged(1000 + i, 2.5).figure for i in range(300)]
    estimates = [resampled({"a": judged(i, 2.5)}, None)["a"].std() for i in range(20)]
    assert np.median(estimates) == pytest.approx(np.std(figures), rel=0.3)


def test_painted_defects_come_and_go_with_the_image_that_they_are_painted_into() -> None:
    rng = np.random.default_rng(0)
    good = rng.normal(0, 1, 20)
    sources = np.repeat(np.arange(20), 10)
    bad = good[sources] + 2  # ten defects of an image are hardly more than one
    some = Judged(good, bad, 1.5)
    assert resampled({"a": some}, sources)["a"].std() > 1.3 * resampled({"a": some}, None)["a"].std()


def test_a_default_that_is_too_slow_gives_way_to_the_fastest_that_is_as_good_as_the_best() -> None:
    some = {"a": judged(0, 4.0), "b": judged(1, 3.0), "c": judged(2, 3.0)}
    assert take(some, {"a": 50.0, "b": 8.0, "c": 3.0}, "a", 15.0).name == "c"
    assert "not among those compared" in take(some, MS, "z", None).why


def test_what_the_images_to_choose_by_flatter_is_not_taken_by_them() -> None:
    some = {"a": judged(0, 2.0), "b": judged(1, 4.0)}
    assert take(some, MS, "a", None).name == "b"
    assert take(some, MS, "a", None, partial=["b"]).name == "a"
    assert take({"b": some["b"]}, MS, "a", None, partial=["b"]).name == "b"  # there is no other


def test_where_nothing_fits_the_fastest_is_recommended_all_the_same() -> None:
    taken = take({"a": judged(0, 4.0), "c": judged(2, 2.0)}, MS, "a", 1.0)
    assert taken.name == "c" and not taken.fits and taken.why == "nothing fits 1 ms here; fastest is c, 3.0 ms"


def test_where_the_default_is_taken_again_the_next_step_is_another() -> None:
    """Whoever was refused with it and sent here must not be sent back."""

    def compared(best: str) -> Comparison:
        return Comparison(
            data="parts", backbone="lite0", input_hw=(256, 320), n_learnt=80, n_held_back=20, n_bad_learnt=0, chosen_by="painted defects",
            budget_ms=None, default="padim/fast", best=best, why="", fits=True, busy=None, rows=[], failed={}, seconds=60.0,
        )  # fmt: skip

    said = after_the_default(compared("padim/fast"))
    assert said is not None and "--image-size 480x384" in said and "--bad FOLDER" in said
    assert after_the_default(compared("patchcore/fast")) is None
