"""Standard errors agree with what drawing other images shows."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import roc_auc_score

from export.build import noise
from training.calibrate.rules import Rule, Scores
from training.judging.pixels import PixelCounts, label_regions

SIDE = 12


def _scores(values: npt.NDArray[np.float64]) -> Scores:
    return Scores(values, values, values)


@pytest.mark.slow
def test_the_error_of_an_auroc_difference_is_that_of_other_draws_of_the_same_product() -> None:
    def draw(seed: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        rng = np.random.default_rng(seed)
        good = np.arange(60) < 40
        before = rng.normal(np.where(good, 0, 1.5), 1)
        return good, before, before + rng.normal(0, 0.5, 60)

    differences, errors = [], []
    for seed in range(150):
        good, before, after = draw(seed)
        differences.append(roc_auc_score(~good, after) - roc_auc_score(~good, before))
        errors.append(noise.auroc_error(good, before, after))
    assert np.mean(errors) == pytest.approx(np.std(differences), rel=0.15)


def test_equal_rankings_leave_nothing_to_chance_and_a_single_image_leaves_everything() -> None:
    good, scores = np.array([True, True, False, False]), np.array([1.0, 3.0, 2.0, 4.0])
    assert noise.auroc_error(good, scores, 10 * scores) == 0
    assert noise.auroc_error(np.array([True, True, True, False]), scores, scores) == math.inf
    assert noise.allowance(math.inf) == noise.MOST_FALL


def _pictures(seed: int, n: int = 24) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], npt.NDArray[np.bool_]]]:
    """The same pictures (by half of them with one or two defects) for every detector; each shifts its scores as a whole."""
    rng = np.random.default_rng(1)
    valid = np.ones((SIDE, SIDE), bool)
    valid[:, 0] = False
    found = []
    for i in range(n):
        mask = np.zeros((SIDE, SIDE), bool)
        if i % 2:
            mask[2:5, 2:6] = True
        if i % 4 == 3:
            mask[8:10, 7:10] = True
        noisy = rng.normal(5, 1, mask.shape) + 1.5 * mask + rng.normal(0, 0.7)
        own = np.random.default_rng([seed, i]).normal(0, 0.4, (SIDE, SIDE)) if seed else 0
        found.append(((noisy + own).astype(np.float32), label_regions(mask), valid))
    return found


def _count(pictures: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], npt.NDArray[np.bool_]]]) -> PixelCounts:
    counts = PixelCounts()
    for picture in pictures:
        counts.add(*picture)
    return counts


@pytest.mark.slow
def test_an_images_influence_is_what_the_figures_move_by_when_it_is_left_out() -> None:
    pictures = _pictures(0)
    counts = _count(pictures)
    found = noise.pixel_influences(pictures, counts)
    assert found.auroc.sum() == pytest.approx(0, abs=1e-9) and found.aupro.sum() == pytest.approx(0, abs=1e-6)
    for figure, values in (("auroc", found.auroc), ("aupro", found.aupro)):
        whole = getattr(counts, figure)()
        left_out = [whole - getattr(_count(pictures[:i] + pictures[i + 1 :]), figure)() for i in range(len(pictures))]
        np.testing.assert_allclose(left_out, values, atol=0.35 * np.abs(values).max())
        assert np.corrcoef(left_out, values)[0, 1] > 0.99


@pytest.mark.slow
def test_the_paired_error_of_pixel_figures_is_that_of_drawing_other_images() -> None:
    before, after = _pictures(0), _pictures(1)
    rng = np.random.default_rng(0)
    moved: dict[str, list[float]] = {"auroc": [], "aupro": []}
    for _ in range(60):
        picks = rng.integers(len(before), size=len(before))
        a, b = _count([before[i] for i in picks]), _count([after[i] for i in picks])
        for figure, values in moved.items():
            values.append(getattr(b, figure)() - getattr(a, figure)())
    of_before, of_after = noise.pixel_influences(before, _count(before)), noise.pixel_influences(after, _count(after))
    for figure, values in moved.items():
        error = noise.paired_error(getattr(of_before, figure), getattr(of_after, figure))
        assert error == pytest.approx(np.std(values), rel=0.3)
    assert noise.paired_error(of_before.auroc, of_before.auroc) == 0


@pytest.mark.slow
def test_a_threshold_from_few_images_is_uncertain_by_what_other_images_would_make_of_it() -> None:
    rule = Rule(kind="false_reject_rate", target=0.1)
    few, many = (_scores(np.random.default_rng(0).lognormal(1, 0.3, n)) for n in (30, 3000))
    others = [np.log(np.quantile(np.random.default_rng(i).lognormal(1, 0.3, 30), 0.9)) for i in range(300)]
    assert noise.threshold_error(rule, few, None) == pytest.approx(np.std(others), rel=0.5)
    assert noise.threshold_error(rule, many, None) < 0.2 * np.std(others)
    assert noise.threshold_error(rule, few, None) == noise.threshold_error(rule, few, None)


def test_a_rule_on_bad_images_is_as_uncertain_as_both_kinds_make_it() -> None:
    rng = np.random.default_rng(0)
    good, bad = _scores(rng.lognormal(0, 0.2, 40)), _scores(rng.lognormal(1, 0.4, 6))
    assert 0 < noise.threshold_error(Rule(kind="max_f1"), good, bad) < 1


def test_the_band_widens_by_the_thresholds_uncertainty_and_never_without_end() -> None:
    assert noise.widen(0.15, 0.0) == 0.15
    assert noise.widen(0.15, 0.04) == pytest.approx(0.17)
    assert noise.widen(0.15, math.inf) == noise.MOST_BAND
    assert noise.widen(0.5, math.inf) == 0.5
