"""Swapped labels are questioned; what few images may show by chance is not."""

import numpy as np

from training.judging.inverted import say_inverted


def test_bad_parts_that_score_lower_are_questioned() -> None:
    rng = np.random.default_rng(0)
    good, bad = rng.normal(10, 1, 15), rng.normal(20, 2, 20)
    assert say_inverted(good, bad) is None
    sentence = say_inverted(bad, good)
    assert sentence is not None and "swapped" in sentence and "AUROC 0.00" in sentence


def test_few_images_or_chance_trip_nothing() -> None:
    assert say_inverted(np.array([3.0, 4.0, 5.0]), np.array([0.0, 1.0, 2.0])) is None
    assert say_inverted(np.empty(0), np.ones(9)) is None
    assert say_inverted(np.ones(20), np.ones(20)) is None
    rng = np.random.default_rng(1)
    tripped = sum(say_inverted(rng.normal(size=15), rng.normal(size=20)) is not None for _ in range(400))
    assert tripped <= 8  # 2 expected
