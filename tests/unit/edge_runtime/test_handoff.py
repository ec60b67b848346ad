"""Handing over between threads: nothing is lost in silence, nothing late is taken for something else."""

import contextlib
import queue
import threading
import time

import pytest

from edge_runtime.errors import HandoffFull
from edge_runtime.handoff import Helper, Lane, Mailbox, take
from tests.support.waiting import BUSY_S, until


def test_a_mailbox_keeps_only_the_latest() -> None:
    box: Mailbox[int] = Mailbox()
    box.put(1)
    box.put(2)
    assert box.get(0) == 2
    assert box.get(0.001) is None


def test_a_waiting_reader_is_woken_at_once() -> None:
    lane: Lane[int] = Lane(1)
    threading.Timer(0.05, lane.put, [7]).start()
    began = time.monotonic()
    assert lane.get(5.0) == 7
    assert time.monotonic() - began < 1.0


def test_a_full_lane_raises_and_keeps_what_it_has() -> None:
    lane: Lane[int] = Lane(2)
    lane.put(1)
    lane.put(2)
    assert lane.full
    with pytest.raises(HandoffFull):
        lane.put(3)
    assert [lane.get(0), lane.get(0), lane.get(0)] == [1, 2, None]


def test_a_note_fits_into_a_full_lane_in_its_turn_and_takes_no_room() -> None:
    lane: Lane[str] = Lane(1)
    lane.put("part 1")
    lane.note("overrun 2")
    assert lane.get(0) == "part 1"
    assert not lane.full
    lane.put("part 3")
    assert [lane.get(0), lane.get(0)] == ["overrun 2", "part 3"]


def test_a_late_result_belongs_to_its_own_call_only() -> None:
    release = threading.Event()

    def slow_first(x: int) -> int:
        if x == 1:
            release.wait(5)
        return x * 10

    helper: Helper[int, int] = Helper(slow_first, "test")
    first = helper.call(1)
    with pytest.raises(TimeoutError):
        first.result(0.02)
    assert helper.busy_s > 0
    second = helper.call(2)
    release.set()
    assert second.result(5) == 20
    assert first.result(0) == 10
    assert helper.close(1)


def test_a_call_that_nobody_wants_any_more_is_never_made() -> None:
    release, made = threading.Event(), []

    def function(x: int) -> None:
        made.append(x)
        release.wait(5)

    helper: Helper[int, None] = Helper(function, "test")
    helper.call(1)
    helper.call(2).unwanted = True
    last = helper.call(3)
    release.set()
    last.result(5)
    assert made == [1, 3]
    assert helper.close(1)


def test_what_the_function_raises_reaches_the_caller_and_the_helper_goes_on() -> None:
    helper: Helper[int, float] = Helper(lambda x: 1 / x, "test")
    with pytest.raises(ZeroDivisionError):
        helper.call(0).result(5)
    assert helper.call(4).result(5) == 0.25
    assert helper.close(1)


def test_closing_does_not_wait_for_a_call_that_hangs_and_begins_no_other() -> None:
    release, made = threading.Event(), []

    def function(x: int) -> None:
        made.append(x)
        release.wait(30)

    helper: Helper[int, None] = Helper(function, "test")
    helper.call(1)
    until(lambda: helper.busy_s)
    helper.call(2)
    began = time.monotonic()
    assert not helper.close(0.05)
    assert time.monotonic() - began < 1
    release.set()
    assert helper.close(5)
    assert made == [1]


@pytest.mark.slow
def test_no_wait_is_for_ever_however_short_it_is_and_whatever_came_before() -> None:
    """A queue's reader that takes something and at once waits for a moment again, as between two polls of a PLC."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    over = threading.Event()

    def read() -> None:
        for i in range(100_000):
            waiting.put(i)
            assert take(waiting, 1.0) == i
            with contextlib.suppress(queue.Empty):
                take(waiting, 1e-9 + i % 50 * 1e-7)
        over.set()

    threading.Thread(target=read, daemon=True).start()
    assert over.wait(BUSY_S)
