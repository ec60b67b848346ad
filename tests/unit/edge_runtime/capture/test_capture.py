"""A frame for each trigger: bound by identity and by time, whatever the driver does."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from edge_runtime.capture.capture import Capture
from edge_runtime.errors import FrameError, LostFrame, SourceError, SourceExhausted
from edge_runtime.protocols import Source
from edge_runtime.records import Frame, Trigger
from tests.support.waiting import until

MS = 1_000_000


class Scripted(Source):
    """A source whose n-th grab runs the n-th step, and the last one ever after."""

    on_demand: bool
    remaining: int | None
    live = False

    def __init__(self, *steps: Callable[[float], Frame], on_demand: bool = True, remaining: int | None = None) -> None:
        self.on_demand, self.remaining = on_demand, remaining
        self._steps = list(steps)
        self.grabs = 0

    def grab(self, timeout_s: float) -> Frame:
        step = self._steps[min(self.grabs, len(self._steps) - 1)]
        self.grabs += 1
        return step(timeout_s)


def frame(n: int = 1, captured_ns: int | None = None) -> Frame:
    return Frame(n, time.monotonic_ns() if captured_ns is None else captured_ns, "test", np.full((4, 4), n, np.uint8))


def trigger(seq: int, fired_ns: int | None = None) -> Trigger:
    return Trigger(seq, time.monotonic_ns() if fired_ns is None else fired_ns, "")


def in_ms(ms: float) -> int:
    return time.monotonic_ns() + round(ms * MS)


@contextmanager
def capturing(source: Scripted) -> Iterator[Capture]:
    capture = Capture(source, timeout_s=0.5)
    try:
        yield capture
    finally:
        capture.close()


def failing(error: Exception) -> Callable[[float], Frame]:
    def step(_: float) -> Frame:
        raise error

    return step


def test_on_demand_each_trigger_gets_its_own_grab_in_order() -> None:
    numbers = iter(range(1, 10))
    source = Scripted(lambda _: frame(next(numbers)))
    with capturing(source) as capture:
        triggers = [trigger(seq) for seq in (1, 2, 3)]
        for t in triggers:
            capture.order(t)
        assert [capture.collect(t, in_ms(1000)).frame.seq for t in triggers] == [1, 2, 3]
        assert source.grabs == 3


def test_a_frame_older_than_its_trigger_is_refused() -> None:
    t = trigger(1)
    with capturing(Scripted(lambda _: frame(captured_ns=t.fired_ns - 5 * MS))) as capture:
        capture.order(t)
        with pytest.raises(FrameError, match=r"5\.0 ms older than its trigger"):
            capture.collect(t, in_ms(1000))


def test_a_driver_that_hangs_costs_time_only_until_the_deadline_and_its_late_frame_is_given_to_nobody() -> None:
    release = threading.Event()

    def hang(_: float) -> Frame:
        release.wait(10)
        return frame(1)

    with capturing(Scripted(hang, lambda _: frame(2))) as capture:
        first, second = trigger(1), trigger(2)
        capture.order(first)
        began = time.monotonic()
        with pytest.raises(SourceError, match="did not answer"):
            capture.collect(first, in_ms(30))
        assert time.monotonic() - began < 0.5
        capture.order(second)
        release.set()
        assert capture.collect(second, in_ms(1000)).frame.seq == 2


def test_a_trigger_that_was_given_up_while_the_driver_hung_is_not_grabbed_for_afterwards() -> None:
    release = threading.Event()

    def hang(_: float) -> Frame:
        release.wait(10)
        return frame(1)

    source = Scripted(hang, lambda _: frame(2))
    with capturing(source) as capture:
        for seq in (1, 2, 3):
            capture.order(trigger(seq))
        for seq in (1, 2, 3):
            with pytest.raises(SourceError):
                capture.collect(trigger(seq), in_ms(5))
        release.set()
        last = trigger(4)
        capture.order(last)
        assert capture.collect(last, in_ms(1000)).frame.seq == 2
        assert source.grabs == 2


def test_what_the_source_says_is_the_reason_and_stays_a_problem_until_it_delivers() -> None:
    with capturing(Scripted(failing(SourceError("the cable is out")), lambda _: frame())) as capture:
        first, second = trigger(1), trigger(2)
        capture.order(first)
        with pytest.raises(SourceError, match="the cable is out"):
            capture.collect(first, in_ms(1000))
        assert capture.problem == "the cable is out"
        capture.order(second)
        capture.collect(second, in_ms(1000))
        assert capture.problem is None


def test_a_source_that_knows_its_end_is_never_asked_for_more() -> None:
    release = threading.Event()

    def last(_: float) -> Frame:
        source.remaining = 0
        release.wait(10)
        return frame()

    source = Scripted(last, remaining=1)
    with capturing(source) as capture:
        assert capture.can_serve
        t = trigger(1)
        capture.order(t)
        assert not capture.can_serve  # its last image is ordered, yet the end is not sure before it is there
        assert not capture.exhausted
        release.set()
        capture.collect(t, in_ms(1000))
        until(lambda: capture.exhausted)
        assert not capture.can_serve


def test_a_source_whose_end_is_only_guessed_is_asked_again() -> None:
    with capturing(Scripted(lambda _: frame(), remaining=1)) as capture:
        for seq in (1, 2, 3):
            until(lambda: capture.can_serve)
            capture.order(trigger(seq))
        assert not capture.exhausted


@pytest.mark.parametrize("on_demand", [True, False])
def test_the_end_of_a_source_is_told_to_whoever_waits(on_demand: bool) -> None:
    with capturing(Scripted(failing(SourceExhausted("no more images")), on_demand=on_demand)) as capture:
        t = trigger(1)
        capture.order(t)
        with pytest.raises(SourceExhausted):
            capture.collect(t, in_ms(1000))
        assert capture.exhausted


@pytest.mark.parametrize("on_demand", [True, False])
def test_a_bug_in_a_source_reaches_the_loop(on_demand: bool) -> None:
    with capturing(Scripted(failing(ZeroDivisionError("bug")), on_demand=on_demand)) as capture:
        t = trigger(1)
        capture.order(t)
        with pytest.raises(ZeroDivisionError):
            capture.collect(t, in_ms(1000))
        if not on_demand:
            with pytest.raises(ZeroDivisionError):
                capture.check()


def paced(made: list[Frame], lag_ms: float = 0.0) -> Callable[[float], Frame]:
    """Free run at about 200 frames a second that arrive `lag_ms` after their exposure."""

    def step(_: float) -> Frame:
        time.sleep(0.005)
        made.append(frame(len(made) + 1, time.monotonic_ns() - round(lag_ms * MS)))
        return made[-1]

    return step


def test_in_free_run_a_trigger_gets_the_first_frame_captured_after_its_edge() -> None:
    made: list[Frame] = []
    with capturing(Scripted(paced(made, lag_ms=20), on_demand=False)) as capture:
        time.sleep(0.03)
        t = trigger(1)
        capture.order(t)
        found = capture.collect(t, in_ms(2000)).frame
    # Frames that were exposed before the edge went on arriving for 20 ms.
    assert found is next(f for f in made if f.captured_ns >= t.fired_ns)


def test_a_frame_that_came_between_the_edge_and_its_polling_is_found() -> None:
    released = threading.Event()
    edge = time.monotonic_ns()
    frames = iter([frame(1, edge - 1), frame(2, edge + 1), frame(3, edge + 2)])

    def step(_: float) -> Frame:
        given = next(frames, None)
        if given is None:
            released.wait(10)
            raise SourceError("closed")
        return given

    source = Scripted(step, on_demand=False)
    with capturing(source) as capture:
        until(lambda: source.grabs >= 4)
        t = trigger(1, fired_ns=edge)
        capture.order(t)
        assert capture.collect(t, in_ms(1000)).frame.seq == 2
        released.set()


def test_a_free_running_camera_that_comes_back_in_time_still_serves_the_part() -> None:
    with capturing(Scripted(failing(SourceError("lost")), failing(SourceError("lost")), paced([]), on_demand=False)) as capture:
        t = trigger(1)
        capture.order(t)
        assert capture.collect(t, in_ms(2000)).frame.captured_ns >= t.fired_ns
        assert capture.problem is None


class Wired(Source):
    """A camera that the PLC's wire triggers: its pictures come when the test puts them."""

    on_demand = False
    trigger_window_ns = (20_000_000, 5_000_000)

    def __init__(self) -> None:
        self.pictures: queue.SimpleQueue[Frame | LostFrame] = queue.SimpleQueue()
        self.in_vain = 0
        """Grabs that found nothing."""

    def expose(self, seq: int) -> None:
        now = time.monotonic_ns()
        self.pictures.put(Frame(seq, now, "wired", np.zeros((4, 4), np.uint8)))

    def grab(self, timeout_s: float) -> Frame:
        try:
            found = self.pictures.get(timeout=timeout_s)
        except queue.Empty:
            self.in_vain += 1
            raise SourceError("none came") from None
        if isinstance(found, LostFrame):
            raise found
        return found


@pytest.mark.slow
@pytest.mark.parametrize("dismissed", [True, False])
def test_the_picture_of_a_refused_part_is_no_stray(dismissed: bool) -> None:
    """The wire triggers the camera whether or not the station was ready for the part."""
    source = Wired()
    capture = Capture(source, 1.0)
    try:
        if dismissed:
            capture.dismiss(trigger(1))
        source.expose(1)
        if dismissed:
            time.sleep(0.4)  # a picture that nobody owns is given up by then
            assert capture.problem is None
        else:
            until(lambda: capture.problem is not None)
        second = trigger(2)
        source.expose(2)
        capture.order(second)
        if dismissed:
            assert capture.collect(second, in_ms(1000)).frame.seq == 2
    finally:
        assert capture.close()


def test_in_free_run_one_picture_is_one_parts() -> None:
    """Two edges with no picture between them: it shows where the second part is, and nobody saw the first."""
    go = threading.Event()

    def step(_: float) -> Frame:
        go.wait(10)
        time.sleep(0.02)
        return frame(1)

    with capturing(Scripted(step, on_demand=False)) as capture:
        first, second = trigger(1), trigger(2)
        capture.order(first)
        capture.order(second)
        go.set()
        with pytest.raises(FrameError, match="no picture between this part's trigger and the next"):
            capture.collect(first, in_ms(2000))
        assert capture.collect(second, in_ms(2000)).frame.captured_ns >= second.fired_ns


@pytest.mark.parametrize("on_demand", [True, False])
@pytest.mark.parametrize("refused", [True, False])
def test_no_part_gets_a_picture_that_was_exposed_after_another_part_came(on_demand: bool, refused: bool) -> None:
    go = threading.Event()

    def step(_: float) -> Frame:
        go.wait(10)
        return frame(1)

    source = Scripted(step, on_demand=on_demand)
    source.live = True
    with capturing(source) as capture:
        first, second = trigger(1), trigger(2)
        capture.order(first)
        (capture.dismiss if refused else capture.order)(second)
        go.set()
        with pytest.raises(FrameError, match="no picture between this part's trigger and the next"):
            capture.collect(first, in_ms(2000))
        third = trigger(3)
        capture.order(third)
        assert capture.collect(third, in_ms(2000)).frame.captured_ns >= third.fired_ns


@pytest.mark.slow
def test_incomplete_pictures_do_not_hide_that_one_never_came() -> None:
    """A camera that lost packets a moment ago has a problem, and is not lost: its count goes on."""
    source = Wired()
    source.problem = "2 pictures lost packets so far"
    capture = Capture(source, 1.0)
    try:
        first = trigger(1)
        source.expose(1)
        capture.order(first)
        assert capture.collect(first, in_ms(1000)).frame.seq == 1
        in_vain = source.in_vain
        until(lambda: source.in_vain >= in_vain + 3)
        third = trigger(2)
        source.expose(3)
        capture.order(third)
        with pytest.raises(FrameError, match="counted 1 pictures more than came"):
            capture.collect(third, in_ms(1000))
    finally:
        assert capture.close()


def test_an_incomplete_picture_after_the_deadline_of_its_part_costs_no_other_part() -> None:
    source = Wired()
    capture = Capture(source, 1.0)
    try:
        first = trigger(1)
        capture.order(first)
        with pytest.raises(SourceError):
            capture.collect(first, in_ms(100))
        source.pictures.put(LostFrame("incomplete", 1, first.fired_ns))
        time.sleep(0.2)
        capture.check()
        second = trigger(2)
        source.expose(2)
        capture.order(second)
        assert capture.collect(second, in_ms(1000)).frame.seq == 2
    finally:
        assert capture.close()


@pytest.mark.parametrize("on_demand", [True, False])
def test_a_camera_that_shows_the_part_before_again_and_again_has_no_part_judged_on_it(on_demand: bool) -> None:
    """Law 3: new times on an old picture. Stored pictures may be alike, and those of an unmoved scene behind an encoder."""
    shown = [np.full((130, 70), 9, np.uint8) for _ in range(2)]
    shown[1][129, 69] = 8  # the least that tells two pictures apart, at none of the places that are looked at first
    picture = [0]

    def step(_: float) -> Frame:
        time.sleep(0.002)
        return Frame(1, time.monotonic_ns(), "test", shown[picture[0]].copy())

    source = Scripted(step, on_demand=on_demand)

    def judged(seq: int) -> bool:
        part = trigger(seq)
        capture.order(part)
        try:
            capture.collect(part, in_ms(2000))
        except FrameError as e:
            assert "the very picture of the part before" in str(e)
            return False
        return True

    for live, lossy in ((True, False), (False, False), (True, True)):
        source.live, source.lossy = live, lossy
        stands_still = live and not lossy
        with capturing(source) as capture:
            assert judged(1)
            assert judged(2) is not stands_still and judged(3) is not stands_still
            picture[0] = 1 - picture[0]
            time.sleep(0.02)
            assert judged(4)
