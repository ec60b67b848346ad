"""What is said beforehand grows with the work, and is measured on this machine."""

import time

import numpy as np
import pytest

from training.fitting.estimate import TORCH, about, build_seconds, fit_seconds, pace_of, slower


def test_the_pace_is_this_machines_own_whatever_else_it_does() -> None:
    """By CPU time: what waits for others, as a picture does on a busy machine, is no slower."""

    def held_up(batch: np.ndarray) -> list[np.ndarray]:
        time.sleep(0.05)
        over = time.thread_time() + 0.02
        while time.thread_time() < over:
            pass
        return [batch.astype(np.float32)]

    assert 0.019 < pace_of(held_up, 32, 32, 40, 1) < 0.045
    assert pace_of(held_up, 32, 32, 40, 2) < 0.9 * pace_of(held_up, 32, 32, 40, 1)


def test_little_work_is_not_asked_after_for_long() -> None:
    asked: list[int] = []

    def quick(batch: np.ndarray) -> list[np.ndarray]:
        asked.append(len(batch))
        return [batch.astype(np.float32)]

    pace_of(quick, 32, 32, 40, 1)
    assert sum(asked) <= 1 + 40 // 10


def test_what_torch_computes_takes_longer_and_the_rest_does_not() -> None:
    graph, torch = (fit_seconds("padim/fast", 40, 160, 1, 0.01, by) for by in (1, TORCH))
    assert torch - graph == pytest.approx(160 * 0.01 * (TORCH - 1))


def test_more_pictures_or_a_slower_machine_take_longer() -> None:
    few, many, slow = (
        fit_seconds("padim/fast", 40, 160, 1, 0.01),
        fit_seconds("padim/fast", 200, 800, 1, 0.01),
        fit_seconds("padim/fast", 40, 160, 1, 0.02),
    )
    assert many == pytest.approx(5 * few) and slow == pytest.approx(2 * few)
    assert build_seconds("padim/fast", 40, 160, 75, 32, 1, 0.01, True) > build_seconds("padim/fast", 40, 160, 75, 32, 1, 0.01, False)
    assert [about(s) for s in (2, 22, 60, 200)] == ["5 s", "20 to 35 s", "60 s to 2 min", "3 to 5 min"]


def test_variations_and_weighing_them_cost_what_they_were_measured_to_cost() -> None:
    """91 images at 352x256 with three variations, 12.8 ms a picture: screen, cross-fit and weighing came to 198 ms of CPU an image."""
    pace = 0.0128
    plain, varied = (fit_seconds("padim/fast", 91, n, 1, pace) - n * pace for n in (91, 4 * 91))
    assert varied / 91 == pytest.approx(0.198, rel=0.1) and plain < 0.6 * varied


def test_what_is_still_to_come_is_told_by_what_is_done() -> None:
    assert slower(30.0, 75.0) == pytest.approx(2.5) and slower(30.0, 30.0) == 1.0
    assert slower(30.0, 1.0) == 0.5, "the rest is not promised at once because a first part was quick"
