"""A test split whose good and bad are swapped is asked about before anything is taught, and one that is right is not."""

import numpy as np
import pytest

from training.inspect.swapped import doubtful, say_swapped


def many(seeds: range, bad: bool = False, light: float = 1.0) -> np.ndarray:
    """Plates with a bar; bad ones have a dark spot somewhere."""
    found = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        image = np.full((32, 32), 60.0)
        image[9:23, 6:26] = 170
        if bad:
            y, x = rng.integers(10, 20, 2)
            image[y : y + 2, x : x + 3] = 90
        found.append(light * image + rng.normal(0, 2, image.shape))
    return np.asarray(found, np.float32)


LEARN, GOOD, BAD = many(range(40)), many(range(100, 112)), many(range(200, 212), bad=True)


def test_it_is_asked_where_bad_ones_look_like_those_to_learn_from() -> None:
    said = say_swapped(LEARN, BAD, GOOD)
    assert said is not None and "are good and bad swapped" in said


@pytest.mark.parametrize("light", [1.0, 0.8])
def test_it_is_not_asked_of_a_split_that_is_right_or_tells_nothing_also_under_another_lamp(light: float) -> None:
    assert say_swapped(LEARN, many(range(100, 112), light=light), BAD) is None
    assert say_swapped(LEARN, GOOD, many(range(300, 312), light=light)) is None


def test_few_say_nothing() -> None:
    assert say_swapped(LEARN, BAD[:4], GOOD) is None


def test_single_labels_that_are_wrong_are_named() -> None:
    pictures, is_good = np.concatenate([many(range(400, 440)), many(range(500, 540), bad=True)]), np.arange(80) < 40
    wrong = np.isin(np.arange(80), (3, 17, 31, 45, 60, 75))
    found = doubtful(LEARN, pictures, is_good ^ wrong)
    assert found[wrong].sum() >= 3 and not found[~wrong].any()
    assert not doubtful(LEARN, many(range(600, 680)), is_good).any(), "good and bad are alike"
