"""The contract suites find a part that breaks its promise, and are there without pytest."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import pytest

from edge_runtime.errors import ConfigError, SinkError
from edge_runtime.protocols import Sink, Source, TriggerLine
from edge_runtime.records import Decision, Frame, Picture, Trigger
from edge_runtime.testing import FIRST_SEQ, SinkContract, SourceContract, TriggerContract, make_source, make_trigger, sources


class Plain(Source):
    """Keeps its promises, but for what a test changes."""

    def __init__(self, **wrong: Any) -> None:
        self._wrong, self._seq, self._thread = wrong, 0, 0

    def __enter__(self) -> Self:
        if self._wrong.get("once") and self._seq:
            raise RuntimeError("the driver was opened before")
        self._thread = threading.get_ident()
        return self

    def __exit__(self, *exc: object) -> None:
        time.sleep(self._wrong.get("leaves_in", 0))
        if self._wrong.get("swallows"):
            return True  # type: ignore[return-value]
        return None

    def grab(self, timeout_s: float) -> Frame:
        if self._wrong.get("own_thread") and threading.get_ident() != self._thread:
            raise RuntimeError("of another thread")
        self._seq += self._wrong.get("step", 1)
        image = np.zeros(self._wrong.get("shape", (4, 6)), self._wrong.get("dtype", np.uint8))
        frame = Frame(self._seq, self._wrong.get("clock", time.monotonic_ns)() - self._wrong.get("age_ns", 0), "plain", image)
        image.flags.writeable = bool(self._wrong.get("writable"))
        return frame

    @property
    def remaining(self) -> int | None:
        return self._wrong.get("remaining")


def fails(suite: object, test: str, *fixtures: object) -> bool:
    try:
        getattr(suite, test)(*fixtures)
    except (AssertionError, RuntimeError):
        return True
    return False


TESTS = [name for name in dir(SourceContract) if name.startswith("test_")]


@pytest.mark.parametrize(
    ("wrong", "test"),
    [
        ({"step": 2}, "test_frames_are_numbered_stamped_and_read_only"),
        ({"step": 0}, "test_frames_are_numbered_stamped_and_read_only"),
        ({"clock": time.time_ns}, "test_frames_are_numbered_stamped_and_read_only"),
        ({"writable": True}, "test_frames_are_numbered_stamped_and_read_only"),
        ({"shape": (4, 6, 4)}, "test_frames_are_images_of_one_size"),
        ({"dtype": np.float32}, "test_frames_are_images_of_one_size"),
        ({"age_ns": 10_000_000}, "test_a_frame_made_on_demand_is_not_older_than_its_grab"),
        ({"once": True}, "test_a_source_can_be_opened_again"),
        ({"swallows": True}, "test_a_source_can_be_opened_again"),
        ({"own_thread": True}, "test_it_is_grabbed_from_in_another_thread_than_the_one_that_opened_it"),
        ({"remaining": -1}, "test_what_a_station_asks_is_answered"),
        ({"leaves_in": 0.4}, "test_leaving_takes_a_moment_only"),
    ],
)
def test_a_source_that_breaks_a_promise_is_found(wrong: dict[str, Any], test: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert test in TESTS
    monkeypatch.setattr(sources, "_LEAVE_S", 0.3)
    assert fails(SourceContract(), test, Plain(**wrong))
    assert not fails(SourceContract(), test, Plain())


class Line(TriggerLine):
    def __init__(self, first_seq: int = FIRST_SEQ, late_s: float = 0.0, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._seq, self._late_s, self._clock = first_seq, late_s, clock
        self._parts: list[int] = []

    def wait(self, timeout_s: float) -> Trigger | None:
        if not self._parts:
            time.sleep(timeout_s + self._late_s)
            return None
        self._seq += 1
        return Trigger(self._seq - 1, self._clock(), str(self._parts.pop(0)))

    def announce(self, part: int) -> None:
        self._parts.append(part)


@pytest.mark.parametrize("wrong", [{"first_seq": 1}, {"clock": time.time_ns}, {"clock": lambda: 5}, {"late_s": 0.3}])
def test_a_line_that_breaks_a_promise_is_found(wrong: dict[str, Any]) -> None:
    def found(**its: Any) -> bool:
        line, suite = Line(**its), TriggerContract()
        counting = fails(suite, "test_triggers_count_from_the_given_number_and_carry_when_they_fired", line, line.announce)
        return counting or fails(suite, "test_waiting_ends_in_time_when_nothing_comes", line)

    assert found(**wrong)
    assert not found()


class Keeps(Sink):
    def __init__(self, fault: bool = False, slow_s: float = 0.0, thread: bool = False, once: bool = False) -> None:
        self._fault, self._slow_s, self._thread, self._once = fault, slow_s, thread, once

    def put(self, decision: Decision, pictures: tuple[Picture, ...]) -> None:
        time.sleep(self._slow_s)
        if self._thread and threading.current_thread() is not threading.main_thread():
            raise RuntimeError("of another thread")
        if self._fault and decision.score is None:
            raise SinkError("no score")


@pytest.mark.parametrize(
    ("wrong", "test"),
    [
        ({"fault": True}, "test_it_takes_every_kind_of_decision"),
        ({"thread": True}, "test_it_may_be_told_from_another_thread_than_the_one_that_opened_it"),
        ({"slow_s": 0.06}, "test_it_does_not_keep_its_caller"),
    ],
)
def test_a_sink_that_breaks_a_promise_is_found(wrong: dict[str, Any], test: str) -> None:
    def breaks(**its: Any) -> bool:
        try:
            return fails(SinkContract(), test, lambda: Keeps(**its))
        except SinkError:
            return True

    assert breaks(**wrong)
    assert not breaks()


def test_a_part_is_made_as_a_station_makes_it() -> None:
    with make_source(kind="synthetic", width=64, height=48) as source:
        assert source.grab(1).image.shape[:2] == (48, 64)
    with make_trigger(kind="timer", period_ms=1) as line:
        trigger = line.wait(1)
        assert trigger is not None and trigger.seq == FIRST_SEQ
    with pytest.raises(ConfigError, match=r"source\.widht: unknown key; did you mean source\.width\?"):
        make_source(kind="synthetic", widht=64)


@pytest.mark.slow
def test_the_suites_can_be_imported_without_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; import edge_runtime.testing as t; print(len(t.__all__))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "8\n", done.stderr
