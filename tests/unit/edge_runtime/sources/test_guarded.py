"""The watchdog round a driver, tried with a driver that fails on command: it is the guard that is under test."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edge_runtime.capture.capture import Capture
from edge_runtime.config.files import AravisSourceConfig
from edge_runtime.errors import ConfigError, FrameError, LostFrame, SourceError
from edge_runtime.records import Frame, Trigger
from edge_runtime.sources.driver import Node, RawFrame, set_node
from edge_runtime.sources.guarded import GuardedSource
from edge_runtime.sources.pixels import FORMATS
from tests.support.waiting import until

MONO8 = FORMATS["Mono8"].code


class Bench:
    """A camera that outlives its drivers; what is set here is how it fails."""

    def __init__(self) -> None:
        self.dead = self.hangs = self.in_use = self.raises = False
        self.incomplete = 0
        self.format, self.wh = MONO8, (8, 6)
        self.late_s = 0.0
        self.opened = self.closed = self.fired = 0
        self.release = threading.Event()
        self.pulses: list[int] = []
        """Exposures that the wire asks for (CLOCK_MONOTONIC ns), each one frame."""
        self.period_s = 0.01
        self.count = 0

    def driver(self) -> "BenchDriver":
        return BenchDriver(self)


class BenchDriver:
    tick_ns = 1.0
    name = "bench 1"

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.mode = "Off"
        self.source = "Software"
        self.due: list[tuple[float, int]] = []

    def open(self) -> None:
        self.bench.opened += 1
        if self.bench.dead:
            raise SourceError("camera bench 1: not found")

    def node(self, name: str) -> Node | None:
        def write(value: Any) -> None:
            setattr(self, {"TriggerMode": "mode", "TriggerSource": "source"}[name], value)

        entries = {"TriggerMode": ("On", "Off"), "TriggerSource": ("Software", "Line1")}.get(name)
        return None if entries is None else Node("enumeration", True, write, lambda: "", entries=entries)

    def start(self) -> None:
        self.due = []

    stop = start

    def fire(self, timeout_s: float) -> None:
        self.bench.fired += 1
        self.due.append((time.monotonic() + 0.002 + self.bench.late_s, time.monotonic_ns()))

    def fetch(self, timeout_s: float) -> RawFrame | None:
        b = self.bench
        if b.hangs:
            b.release.wait(30)
        if b.raises:
            raise RuntimeError("segment of a driver")
        if b.dead:
            raise SourceError("camera bench 1: control lost")
        until = time.monotonic() + timeout_s
        if self.mode == "Off":
            time.sleep(min(timeout_s, b.period_s))
            return None if timeout_s < b.period_s else self._frame(time.monotonic_ns())
        while True:
            self.due += [(at / 1e9 + 0.002, at) for at in b.pulses]
            b.pulses = []
            if self.due and self.due[0][0] <= time.monotonic():
                return self._frame(self.due.pop(0)[1])
            if time.monotonic() >= until:
                return None
            time.sleep(0.0005)

    def _frame(self, taken_ns: int) -> RawFrame:
        b = self.bench
        b.count += 1
        if b.incomplete > 0:
            b.incomplete -= 1
            return RawFrame(np.empty(0, np.uint8), 0, 0, 0, time.monotonic_ns(), None, b.count, complete=False, why="packets are missing")
        level = b.fired % 256 if self.mode == "On" else b.count % 256
        data = np.full(b.wh[0] * b.wh[1] * 3, level, np.uint8)
        data[5] = b.count % 256  # no two pictures are alike
        return RawFrame(data, b.format, *b.wh, arrived_ns=time.monotonic_ns(), ticks=taken_ns, block_id=b.count)

    def check(self) -> None:
        if self.bench.dead:
            raise SourceError("camera bench 1: does not answer")

    def close(self) -> None:
        self.bench.closed += 1


@pytest.fixture
def bench() -> Iterator[Bench]:
    b = Bench()
    yield b
    b.release.set()


def _source(bench: Bench, **settings: Any) -> GuardedSource:
    return GuardedSource(AravisSourceConfig(**({"read_timeout_ms": 200.0, "open_timeout_ms": 500.0} | settings)), bench.driver)


def _well(source: GuardedSource) -> bool:
    return source.problem is None


def test_free_run_gives_the_newest_frame(bench: Bench) -> None:
    with _source(bench) as source:
        first = source.grab(1)
        until(lambda: bench.count > first.seq + 8)
        source.grab(1)
        assert source.grab(1).seq - first.seq > 5
    assert bench.opened == bench.closed == 1


@pytest.mark.slow
@pytest.mark.parametrize("trigger", ["free", "software", "hardware"])
def test_a_driver_that_hangs_is_left_behind_and_a_fresh_one_is_tried(bench: Bench, trigger: str) -> None:
    with _source(bench, trigger=trigger) as source:
        if trigger != "hardware":
            source.grab(1)
        bench.hangs = True
        began = time.monotonic()
        with pytest.raises(SourceError):
            for _ in range(3):
                source.grab(0.1)
        assert time.monotonic() - began < 1.0, "grab keeps its timeout whatever the driver does"
        until(lambda: source.problem is not None and "has not answered" in source.problem)
        bench.hangs = False
        until(lambda: _well(source))
        bench.pulses.append(time.monotonic_ns())
        assert source.grab(2).image.shape == (6, 8)
        assert source.reconnects >= 1
        bench.release.set()
        until(lambda: bench.closed >= 1)  # the one that was left behind lets go of the camera once it can


@pytest.mark.slow
def test_hung_drivers_do_not_pile_up(bench: Bench) -> None:
    with _source(bench, open_timeout_ms=50.0, read_timeout_ms=50.0) as source:
        bench.hangs = True
        until(lambda: source.problem is not None and "3 calls" in source.problem)
        assert sum(t.name == "camera-driver" for t in threading.enumerate()) == 3
        opened = bench.opened
        time.sleep(0.5)
        assert bench.opened == opened
        bench.hangs = False
        bench.release.set()
        until(lambda: _well(source))
    until(lambda: not any(t.name == "camera-driver" for t in threading.enumerate()))


@pytest.mark.parametrize("trigger", ["free", "software"])
@pytest.mark.parametrize("how", ["dead", "raises"])
def test_a_camera_that_dies_is_told_and_comes_back_without_a_restart(bench: Bench, trigger: str, how: str) -> None:
    with _source(bench, trigger=trigger) as source:
        before = source.grab(1)
        setattr(bench, how, True)
        with pytest.raises(SourceError, match=r"control lost|segment of a driver|not found"):
            for _ in range(5):
                source.grab(0.2)
        until(lambda: source.problem is not None)
        setattr(bench, how, False)
        until(lambda: _well(source))
        assert source.grab(1).captured_ns > before.captured_ns


@pytest.mark.slow
def test_a_camera_that_dies_while_no_part_comes_is_told_too(bench: Bench) -> None:
    with _source(bench, trigger="software") as source:
        bench.dead = True
        until(lambda: source.problem is not None, 4)
        began = time.monotonic()
        with pytest.raises(SourceError, match="bench 1"):
            source.grab(5)
        assert time.monotonic() - began < 1, "a part need not wait for what is known"


@pytest.mark.slow
def test_back_off_grows_while_the_camera_is_away(bench: Bench) -> None:
    with _source(bench) as source:
        source.grab(1)
        bench.dead = True
        until(lambda: source.problem is not None)
        opened = bench.opened
        time.sleep(1.6)  # 0.2 + 0.4 + 0.8 …
        assert 2 <= bench.opened - opened <= 4


def test_incomplete_frames_are_counted_and_never_judged(bench: Bench) -> None:
    with _source(bench) as source:
        source.grab(1)
        bench.incomplete = 5
        until(lambda: bench.incomplete == 0)
        assert source.grab(1).image.shape == (6, 8) and source.incomplete == 5
        assert source.problem is not None and "5 pictures lost packets" in source.problem
    with _source(bench, trigger="software") as source:
        bench.incomplete = 1
        with pytest.raises(LostFrame, match="lost packets"):
            source.grab(1)
        assert source.grab(1).image.shape == (6, 8), "the next part is judged again, without a reconnection"
        assert source.reconnects == 0


@pytest.mark.slow
@pytest.mark.parametrize("trigger", ["free", "software"])
@pytest.mark.parametrize(
    ("change", "said"), [({"wh": (8, 4)}, "expected Mono8 8x6 .* Mono8 8x4"), ({"format": FORMATS["RGB8"].code}, "Mono8 8x6 .* RGB8 8x6")]
)
def test_a_changed_format_is_never_judged(bench: Bench, trigger: str, change: dict[str, Any], said: str) -> None:
    with _source(bench, trigger=trigger) as source:
        source.grab(1)
        for name, value in change.items():
            setattr(bench, name, value)
        with pytest.raises(SourceError, match=said):
            for _ in range(5):
                assert source.grab(1).image.shape == (6, 8)
        bench.wh, bench.format = (8, 6), MONO8
        until(lambda: _well(source))
        assert source.grab(1).image.shape == (6, 8)


def test_a_late_triggers_frame_is_never_given_to_the_next(bench: Bench) -> None:
    with _source(bench, trigger="software") as source:
        source.grab(1)
        bench.late_s = 0.1
        with pytest.raises(SourceError):
            source.grab(0.03)
        bench.late_s = 0.0
        for i in range(3, 40):
            before = time.monotonic_ns()
            frame = source.grab(0.5)
            assert int(frame.image[0, 0]) == bench.fired == i, "the frame of this very trigger"
            assert frame.captured_ns >= before
        assert source.reconnects == 0


def test_two_triggers_without_a_frame_open_the_camera_anew(bench: Bench) -> None:
    with _source(bench, trigger="software") as source:
        bench.late_s = 10
        for _ in range(2):
            with pytest.raises(SourceError, match="software trigger"):
                source.grab(0.05)
        bench.late_s = 0
        until(lambda: source.reconnects == 1 and source.problem is None)
        assert source.grab(1).image.shape == (6, 8)


def test_the_first_opening_says_what_is_wrong(bench: Bench) -> None:
    bench.dead = True
    with pytest.raises(SourceError, match="not found"), _source(bench):
        pass
    bench.dead = False
    with (
        pytest.raises(ConfigError, match=r"source.nodes.Gamma: the camera bench 1 has no node Gamma"),
        _source(bench, nodes={"Gamma": 1.0}),
    ):
        pass
    assert bench.closed == bench.opened
    until(lambda: not any(t.name.startswith("camera") for t in threading.enumerate()))


def _collect(capture: Capture, trigger: Trigger, within_s: float = 0.3) -> Frame:
    return capture.collect(trigger, time.monotonic_ns() + round(within_s * 1e9)).frame


def _part(seq: int, ago_ms: float = 3) -> tuple[Trigger, int]:
    """A trigger seen now, of an edge that long ago."""
    now = time.monotonic_ns()
    return Trigger(seq, now, ""), now - round(ago_ms * 1e6)


@pytest.mark.alone
@pytest.mark.slow
def test_hardware_triggers_are_paired_with_the_wires_frames(bench: Bench) -> None:
    with _source(bench, trigger="hardware", trigger_window_ms=(30.0, 10.0)) as source:
        capture = Capture(source, 0.5)
        try:
            for seq in range(1, 6):
                trigger, edge_ns = _part(seq)
                bench.pulses.append(edge_ns)
                capture.order(trigger)
                frame = _collect(capture, trigger)
                assert frame.seq == seq and abs(frame.captured_ns - edge_ns) < 10e6
                time.sleep(0.05)
            assert capture.problem is None

            missed, _ = _part(6)
            capture.order(missed)
            with pytest.raises(SourceError, match="No picture"):
                _collect(capture, missed, 0.1)
            time.sleep(0.05)
            twice, edge_ns = _part(7)
            bench.pulses += [edge_ns, edge_ns + 4_000_000]
            capture.order(twice)
            with pytest.raises(FrameError, match="2 pictures for one trigger"):
                _collect(capture, twice)
            time.sleep(0.05)

            bench.pulses.append(time.monotonic_ns())
            until(lambda: capture.problem is not None and "without a trigger" in capture.problem)
            bench.count += 1  # one that was sent and never came
            gap, edge_ns = _part(8)
            bench.pulses.append(edge_ns)
            capture.order(gap)
            with pytest.raises(FrameError, match="counted 1"):
                _collect(capture, gap)
            time.sleep(0.05)
            again, edge_ns = _part(9)
            bench.pulses.append(edge_ns)
            capture.order(again)
            assert _collect(capture, again).image.shape == (6, 8)
            assert capture.problem is None
        finally:
            assert capture.close()


def test_lost_packets_of_a_hardware_trigger_are_that_parts_fault(bench: Bench) -> None:
    with _source(bench, trigger="hardware", trigger_window_ms=(30.0, 10.0)) as source:
        capture = Capture(source, 0.5)
        try:
            trigger, edge_ns = _part(1)
            bench.incomplete = 1
            capture.order(trigger)
            time.sleep(0.01)
            bench.pulses.append(edge_ns)
            with pytest.raises(FrameError, match="lost packets"):
                _collect(capture, trigger)
        finally:
            assert capture.close()


@pytest.mark.parametrize(("dead", "kind"), [(True, SourceError), (False, ConfigError)])
def test_a_camera_that_goes_while_it_is_set_up_is_not_blamed_on_the_station_file(dead: bool, kind: type[Exception]) -> None:
    """A service tries again after a lost camera, never after a wrong file."""

    def write(value: Any) -> None:
        raise SourceError("timed out")

    driver = BenchDriver(Bench())
    driver.node = lambda name: Node("float", True, write, lambda: "", low=0.0, high=9.0)  # type: ignore[method-assign]
    driver.bench.dead = dead
    with pytest.raises(kind):
        set_node(driver, "ExposureTime", 4.0, "source.exposure_us")
