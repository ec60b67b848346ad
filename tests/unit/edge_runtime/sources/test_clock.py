"""The camera's clock on the host's: drift, jitter, resets, as simulated cameras with a known truth."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.sources.clock import Arrivals, CameraClock

MS, S = 1_000_000, 1_000_000_000
LEAST_NS = 4 * MS
"""What even the fastest frame takes."""


def simulate(ppm: float, jitter_ms: float, seconds: int, fps: int = 20, tick_ns: float = 8.0, seed: int = 0) -> list[tuple[int, int, int]]:
    """(ticks, arrival, truth) of each frame; jitter is exponential, as queues are."""
    rng, out = random.Random(seed), []
    for i in range(seconds * fps):
        truth = 1000 * S + i * S // fps
        ticks = round((i * S / fps * (1 + ppm * 1e-6) + 77 * S) / tick_ns)
        out.append((ticks, truth + LEAST_NS + round(rng.expovariate(1 / (jitter_ms * MS))) if jitter_ms else truth + LEAST_NS, truth))
    return out


@pytest.mark.parametrize("ppm", [-100, -20, 0, 35, 100])
@pytest.mark.parametrize("jitter_ms", [0.0, 2.0, 10.0])
def test_frames_are_told_within_a_millisecond_whatever_drift_and_jitter(ppm: float, jitter_ms: float) -> None:
    clock = CameraClock(8.0)
    errors = [clock.captured_ns(ticks, arrival) - truth - LEAST_NS for ticks, arrival, truth in simulate(ppm, jitter_ms, 120)]
    settled = errors[len(errors) // 4 :]
    assert max(map(abs, settled)) < 1.5 * MS
    assert clock.resets == 0 and clock.error_ns < 5 * MS


def test_a_frame_that_waited_in_a_buffer_is_as_old_as_it_is() -> None:
    clock = CameraClock(8.0)
    frames = simulate(30, 0.5, 20)
    for ticks, arrival, _ in frames[:-1]:
        clock.captured_ns(ticks, arrival)
    ticks, arrival, truth = frames[-1]
    assert clock.captured_ns(ticks, arrival + 300 * MS) - truth - LEAST_NS < MS


@pytest.mark.parametrize(("name", "shift_s"), [("power cycle", -90), ("set back", -10), ("set ahead", 3600)])
def test_a_jump_of_the_cameras_clock_is_noticed_and_survived(name: str, shift_s: int) -> None:
    clock = CameraClock(8.0)
    frames = simulate(30, 0.5, 20)
    for i, (ticks, arrival, truth) in enumerate(frames):
        told = clock.captured_ns(ticks + (round(shift_s * S / 8) if i >= 200 else 0), arrival)
        assert told <= arrival
        if i > 260:
            assert abs(told - truth - LEAST_NS) < 2 * MS, name
    assert clock.resets == 1


def test_a_clock_that_stands_still_makes_frames_older_never_newer() -> None:
    clock = CameraClock(1.0)
    first = clock.captured_ns(5 * S, 1000 * S)
    for i in range(1, 50):
        assert clock.captured_ns(5 * S, 1000 * S + i * 50 * MS) == first


def test_a_few_frames_at_the_beginning_are_never_told_wildly() -> None:
    clock = CameraClock(8.0)
    for ticks, arrival, truth in simulate(100, 5.0, 2):
        assert -1 * MS < clock.captured_ns(ticks, arrival) - truth - LEAST_NS < 40 * MS


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 2**48), st.integers(0, 5 * S)), min_size=1, max_size=60), st.floats(0.5, 1000))
def test_no_frame_is_told_later_than_it_came_nor_before_the_one_before_it(steps: list[tuple[int, int]], tick_ns: float) -> None:
    clock, arrival, last = CameraClock(tick_ns), 1000 * S, 0
    for ticks, waited in steps:
        arrival += waited
        told = clock.captured_ns(ticks, arrival)
        assert last <= told <= arrival
        assert clock.error_ns >= 0
        last = told


def test_a_drift_that_turns_as_the_camera_warms_up_is_followed() -> None:
    clock, rng, truth, ticks = CameraClock(1.0), random.Random(1), 1000 * S, 0.0
    for i in range(20 * 400):
        truth += S // 20
        ticks += S / 20 * (1 + (80e-6 if i < 20 * 300 else -80e-6))
        told = clock.captured_ns(round(ticks), truth + LEAST_NS + round(rng.expovariate(1 / MS)))
    assert abs(told - truth - LEAST_NS) < MS


MS = 1_000_000


def test_pictures_that_were_waited_for_came_when_they_came() -> None:
    arrivals = Arrivals(0)
    assert [arrivals.of(n * 40 * MS + 5 * MS, (n + 1) * 40 * MS) for n in range(5)] == [(n + 1) * 40 * MS for n in range(5)]


def test_pictures_that_lay_in_a_buffer_came_at_the_cameras_pace_since_it_was_last_empty() -> None:
    """Law 3: the process stood still from 800 ms on, and finds ten pictures at 1,200 ms."""
    arrivals = Arrivals(0)
    for n in range(20):
        arrivals.of(n * 40 * MS + 5 * MS, (n + 1) * 40 * MS)
    assert arrivals.of(805 * MS, 1200 * MS) == 1200 * MS, "nobody can know yet"
    found = [arrivals.of(1200 * MS + n * MS, 1201 * MS + n * MS) for n in range(9)]
    assert found == [805 * MS + n * 40 * MS for n in range(1, 10)]
    assert all(told <= 840 * MS + n * 40 * MS for n, told in enumerate(found, 1)), "none is told younger than it is"
    assert arrivals.of(1210 * MS, 1240 * MS) == 1240 * MS


def test_what_came_while_a_stream_was_opened_is_as_old_as_that() -> None:
    arrivals = Arrivals(7)
    assert [arrivals.of(n * MS, n * MS) for n in range(1, 4)] == [7, 7, 7]
