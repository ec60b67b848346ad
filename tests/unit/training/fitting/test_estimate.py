"""What is said beforehand grows with the work, and is measured on this machine."""

import time

import numpy as np
import pytest

from training.fitting.estimate import about, build_seconds, fit_seconds, pace_of


def test_the_pace_is_that_of_this_machine() -> None:
    def slow(batch: np.ndarray) -> list[np.ndarray]:
        time.sleep(0.02)
        return [batch.astype(np.float32)]

    assert 0.019 < pace_of(slow, 32, 32) < 0.2


def test_more_pictures_or_a_slower_machine_take_longer() -> None:
    few, many, slow = (
        fit_seconds("padim/fast", 40, 160, 1, 0.01),
        fit_seconds("padim/fast", 200, 800, 1, 0.01),
        fit_seconds("padim/fast", 40, 160, 1, 0.02),
    )
    assert many == pytest.approx(5 * few) and slow == pytest.approx(2 * few)
    assert build_seconds("padim/fast", 40, 160, 75, 32, 1, 0.01, True) > build_seconds("padim/fast", 40, 160, 75, 32, 1, 0.01, False)
    assert (about(2), about(22), about(200)) == ("5 s", "20 s", "3 min")
