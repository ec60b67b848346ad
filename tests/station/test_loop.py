"""THE loop with real small parts: whatever hangs, fails or floods, each trigger gets its one decision, in order and in time."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest

from edge_runtime.bundle import ModelBundle
from edge_runtime.capture import Capture
from edge_runtime.config import FolderSource
from edge_runtime.errors import DeviceError, SinkError, SourceError, TriggerError
from edge_runtime.health import Monitor
from edge_runtime.judge import Limits
from edge_runtime.observers import Observers
from edge_runtime.predictor import OpenvinoPredictor
from edge_runtime.protocols import Predictor, Sink, Source
from edge_runtime.records import Decision, Frame, Prediction, State, Trigger, Verdict
from edge_runtime.sources.folder import Folder
from edge_runtime.station import Identity, Station

MS = 1_000_000
BUSY_MS = 60
"""What a busy test machine may add to any time; the hangs that are tested last for seconds."""
A, R, F = Verdict.ACCEPT, Verdict.REJECT, Verdict.FAULT


class _Managed:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        pass


class Line(_Managed):
    """Fires each trigger so many ms after the first call, then is exhausted, or raises `ends_with`."""

    def __init__(self, at_ms: Sequence[float], ends_with: Exception | None = None, endless: bool = False) -> None:
        self._at_ms, self._ends_with, self._endless = list(at_ms), ends_with, endless
        self._fired = 0
        self._start_ns = 0

    @property
    def exhausted(self) -> bool:
        return self._fired == len(self._at_ms) and self._ends_with is None and not self._endless

    def wait(self, timeout_s: float) -> Trigger | None:
        self._start_ns = self._start_ns or time.monotonic_ns()
        if self._fired == len(self._at_ms):
            if self._ends_with is not None:
                raise self._ends_with
            time.sleep(timeout_s)
            return None
        left_ns = self._start_ns + round(self._at_ms[self._fired] * MS) - time.monotonic_ns()
        if left_ns > timeout_s * 1e9:
            time.sleep(timeout_s)
            return None
        time.sleep(max(left_ns, 0) / 1e9)
        self._fired += 1
        return Trigger(self._fired, time.monotonic_ns(), f"part-{self._fired}")


class Parts(_Managed):
    """Frames on demand: bright parts where the number is in `bad`. `hang_at`: that grab waits for `release`."""

    def __init__(self, bad: Sequence[int] = (), hang_at: int = 0, age_ms: float = 0.0, side: int = 64, on_demand: bool = True) -> None:
        self.on_demand = on_demand
        self._bad, self._hang_at, self._age_ns, self._side = set(bad), hang_at, round(age_ms * MS), side
        self.grabs = 0
        self.release = threading.Event()

    def grab(self, timeout_s: float) -> Frame:
        began = time.monotonic_ns()
        self.grabs += 1
        n = self.grabs
        if n == self._hang_at:
            self.release.wait(20)
        if not self.on_demand:
            time.sleep(0.005)
        image = np.full((self._side, self._side), 80, np.uint8)
        if n in self._bad:
            image[16:32, 32:48] = 200
        return Frame(n, began - self._age_ns, "test", image)


class Wrapped(_Managed):
    """The real predictor; before its n-th call of a part, `before(n)` runs."""

    def __init__(self, inner: Predictor, before: Callable[[int], None]) -> None:
        self._inner, self._before = inner, before
        self.calls = 0

    def predict(self, frame: Frame) -> Prediction:
        self.calls += 1
        self._before(self.calls)
        return self._inner.predict(frame)


@dataclass
class Heard(_Managed):
    """A receiver that remembers, with the time."""

    decisions: list[Decision] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)

    def put(self, decision: Decision, frame: Frame | None, prediction: Prediction | None) -> None:
        self.decisions.append(decision)
        self.late_ms.append((time.monotonic_ns() - decision.stamps.fired_ns) / 1e6)

    @property
    def verdicts(self) -> list[Verdict]:
        return [d.verdict for d in self.decisions]

    @property
    def seqs(self) -> list[int]:
        return [d.seq for d in self.decisions]


class Failing(_Managed):
    """A receiver that raises."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def put(self, decision: Decision, frame: Frame | None, prediction: Prediction | None) -> None:
        raise self._error


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[OpenvinoPredictor]:
    with OpenvinoPredictor(ModelBundle.open(tiny_bundle)) as predictor:
        yield predictor


@dataclass
class Rig:
    station: Station
    monitor: Monitor
    heard: Heard


@contextmanager
def rig(
    line: Line, source: Source, predictor: Predictor, *, tellers: Sequence[Sink] = (), watching: Mapping[str, Sink] | None = None,
    deadline_ms: float = 1000, **more: object,
) -> Iterator[Rig]:  # fmt: skip
    heard = Heard()
    monitor = Monitor(station="s", recipe="r", bundle_id="b", device="CPU")
    capture = Capture(source, deadline_ms / 1e3)
    observers = Observers(watching or {}, monitor)
    identity = Identity("s", "r", "b", Limits(20.0, 19.0), deadline_ms)
    station = Station(identity, line, capture, predictor, [*tellers, heard], observers, monitor, **more)  # type: ignore[arg-type]
    monitor.watch([station, capture])
    try:
        yield Rig(station, monitor, heard)
    finally:
        observers.close(1)
        capture.close()


def every(ms: float, n: int) -> list[float]:
    return [ms * i for i in range(n)]


def test_six_parts_get_six_verdicts_in_order_with_their_own_timing(station_dir: Path, model: OpenvinoPredictor) -> None:
    with Folder(FolderSource(path=station_dir / "parts")) as folder, rig(Line(every(5, 6)), folder, model) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [A, A, R, A, A, R]
        assert r.heard.seqs == [1, 2, 3, 4, 5, 6]
        for d in r.heard.decisions:
            s = d.stamps
            assert 0 < s.fired_ns <= s.captured_ns <= s.grabbed_ns <= s.predicted_ns <= s.decided_ns <= s.told_ns
            assert (d.part_id, d.threshold, d.frame_wh, d.severity) == (f"part-{d.seq}", 20.0, (64, 64), d.score / 20.0)
        assert r.monitor.counts()["REJECT"] == 2


def test_the_end_of_a_folder_ends_the_station_without_a_fault(station_dir: Path, model: OpenvinoPredictor) -> None:
    with Folder(FolderSource(path=station_dir / "parts")) as folder, rig(Line(every(5, 50)), folder, model) as r:
        assert r.station.run() == 0
        assert len(r.heard.decisions) == 6
        assert F not in r.heard.verdicts


def test_a_camera_that_hangs_faults_its_parts_in_time_and_serves_again_when_it_comes_back(model: OpenvinoPredictor) -> None:
    source = Parts(bad=[2], hang_at=2)  # the late picture is of a bad part: it must reach nobody
    with rig(Line([0, 60, 80, 100, 600, 650]), source, model, deadline_ms=150) as r:
        threading.Timer(0.45, source.release.set).start()
        assert r.station.run() == 0
        assert r.heard.verdicts == [A, F, F, F, A, A]
        assert r.heard.seqs == [1, 2, 3, 4, 5, 6]
        assert max(r.heard.late_ms) <= 150 + BUSY_MS
        assert "did not answer" in r.heard.decisions[1].reason


def test_a_model_that_hangs_faults_its_parts_in_time_and_its_late_result_is_given_to_nobody(model: OpenvinoPredictor) -> None:
    release = threading.Event()
    predictor = Wrapped(model, lambda n: release.wait(20) and None if n == 2 else None)
    with rig(Line([0, 60, 80, 100, 600, 650]), Parts(bad=[2]), predictor, deadline_ms=150) as r:
        threading.Timer(0.45, release.set).start()
        assert r.station.run() == 0
        assert r.heard.verdicts == [A, F, F, F, A, A]
        assert max(r.heard.late_ms) <= 150 + BUSY_MS
        assert "model did not answer" in r.heard.decisions[1].reason
        assert all(d.score is None and d.severity is None for d in r.heard.decisions if d.verdict is F)


def test_a_burst_on_a_model_that_hangs_is_told_by_the_deadline_part_by_part(model: OpenvinoPredictor) -> None:
    release = threading.Event()
    with rig(Line([0.0] * 12), Parts(), Wrapped(model, lambda n: release.wait(20) and None), deadline_ms=200, queue=8) as r:
        assert r.station.run() == 0
        release.set()
        assert r.heard.seqs == list(range(1, 13))
        assert set(r.heard.verdicts) == {F}
        assert max(r.heard.late_ms) <= 200 + BUSY_MS


def test_an_overrun_costs_no_part_its_decision_nor_the_order(model: OpenvinoPredictor) -> None:
    with rig(Line([0.0] * 10), Parts(), Wrapped(model, lambda n: time.sleep(0.02)), queue=2) as r:
        assert r.station.run() == 0
        assert r.heard.seqs == list(range(1, 11))
        overruns = [d for d in r.heard.decisions if d.verdict is F]
        assert overruns
        assert all("Overrun: 2 parts were waiting" in d.reason for d in overruns)
        assert r.monitor.counts()["overruns"] == len(overruns)
        assert r.heard.verdicts.count(A) >= 3


def test_parts_that_come_faster_than_they_are_judged_are_faulted_not_piled_up(model: OpenvinoPredictor) -> None:
    with rig(Line(every(10, 30)), Parts(), Wrapped(model, lambda n: time.sleep(0.04)), deadline_ms=120, queue=64) as r:
        assert r.station.run() == 0
        assert r.heard.seqs == list(range(1, 31))
        assert max(r.heard.late_ms) <= 120 + BUSY_MS
        assert r.heard.verdicts.count(A) >= 4  # the line is not lost in parts that are too late anyway
        assert F in r.heard.verdicts


@pytest.mark.parametrize("broken", ["nan", "inf"])
def test_a_score_that_is_no_number_is_a_fault(make_bundle: Callable[..., Path], broken: str) -> None:
    class White(Parts):
        def grab(self, timeout_s: float) -> Frame:
            return Frame(1, time.monotonic_ns(), "white", np.full((64, 64), 255, np.uint8))

    with OpenvinoPredictor(ModelBundle.open(make_bundle(broken=broken))) as predictor, rig(Line([0]), White(), predictor) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [F]
        assert r.heard.decisions[0].score is None
        assert broken in r.heard.decisions[0].reason


def test_a_picture_older_than_its_trigger_is_never_judged(model: OpenvinoPredictor) -> None:
    predictor = Wrapped(model, lambda n: None)
    with rig(Line([0, 5]), Parts(age_ms=100), predictor) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [F, F]
        assert "older than its trigger" in r.heard.decisions[0].reason
        assert predictor.calls == 0


def test_a_picture_of_another_size_is_a_fault_that_names_both(model: OpenvinoPredictor) -> None:
    with rig(Line([0]), Parts(side=32), model) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [F]
        assert "64x64" in r.heard.decisions[0].reason
        assert "32x32" in r.heard.decisions[0].reason
        assert r.heard.decisions[0].frame_wh == (32, 32)


def test_an_inference_error_is_a_fault_and_the_next_part_is_judged(model: OpenvinoPredictor) -> None:
    def fail_second(n: int) -> None:
        if n == 2:
            raise DeviceError("inference failed on CPU")

    with rig(Line(every(5, 3)), Parts(), Wrapped(model, fail_second)) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [A, F, A]
        assert r.heard.decisions[1].reason == "inference failed on CPU"


def test_a_free_running_camera_gives_each_part_a_picture_taken_after_its_trigger(model: OpenvinoPredictor) -> None:
    with rig(Line(every(23, 8)), Parts(on_demand=False), model) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [A] * 8
        assert all(d.stamps.captured_ns >= d.stamps.fired_ns for d in r.heard.decisions)


def test_a_bug_is_told_as_a_fault_to_the_part_in_flight_and_all_that_wait_then_ends_with_70(
    model: OpenvinoPredictor, caplog: pytest.LogCaptureFixture
) -> None:
    def bug(n: int) -> None:
        time.sleep(0.05)
        if n == 2:
            raise ZeroDivisionError("a bug")

    with rig(Line([0.0] * 5, endless=True), Parts(), Wrapped(model, bug)) as r:
        assert r.station.run() == 70
        assert r.heard.seqs == [1, 2, 3, 4, 5]
        assert r.heard.verdicts == [A, F, F, F, F]
        assert "Traceback" in caplog.text
        assert "ZeroDivisionError" in caplog.text
        assert "ZeroDivision" not in "".join(d.reason for d in r.heard.decisions)


def test_a_bug_in_the_camera_thread_ends_the_station_even_when_no_part_comes(model: OpenvinoPredictor) -> None:
    class Broken(Parts):
        def grab(self, timeout_s: float) -> Frame:
            raise ZeroDivisionError("a bug")

    with rig(Line([], endless=True), Broken(on_demand=False), model) as r:
        assert r.station.run() == 70


def test_a_bug_in_one_receiver_keeps_no_other_from_being_told_once(model: OpenvinoPredictor) -> None:
    with rig(Line(every(100, 3)), Parts(), model, tellers=[Failing(ZeroDivisionError("a bug"))]) as r:
        assert r.station.run() == 70
        assert r.heard.seqs == [1]
        assert r.heard.verdicts == [A]


def test_a_receiver_that_fails_is_a_problem_in_health_and_the_others_are_told(model: OpenvinoPredictor) -> None:
    with rig(Line(every(5, 3)), Parts(), model, tellers=[Failing(SinkError("the PLC does not answer"))]) as r:
        r.monitor.ready()
        assert r.station.run() == 0
        assert r.heard.verdicts == [A, A, A]
        assert "the PLC does not answer" in r.monitor.snapshot().problems


def test_stopping_decides_what_was_announced_and_takes_no_more(model: OpenvinoPredictor) -> None:
    with rig(Line([0, 0, 0, 2000]), Parts(bad=[3]), Wrapped(model, lambda n: time.sleep(0.1))) as r:
        threading.Timer(0.05, r.station.stop).start()
        began = time.monotonic()
        assert r.station.run() == 0
        assert time.monotonic() - began < 1.5
        assert r.heard.verdicts == [A, A, R]
        assert r.monitor.snapshot().state is State.STOPPING


def test_a_trigger_line_lost_for_good_ends_the_station_after_the_parts_it_announced(model: OpenvinoPredictor) -> None:
    with rig(Line(every(1, 4), ends_with=TriggerError("the PLC is gone")), Parts(bad=[4]), model) as r:
        with pytest.raises(TriggerError, match="the PLC is gone"):
            r.station.run()
        assert r.heard.verdicts == [A, A, A, R]


def test_a_bug_while_a_trigger_is_taken_costs_it_no_decision(model: OpenvinoPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    with rig(Line([0, 5, 10]), Parts(), model) as r:
        real = Capture.order

        def order(capture: Capture, trigger: Trigger) -> None:
            if trigger.seq == 2:
                raise ZeroDivisionError("a bug")
            real(capture, trigger)

        monkeypatch.setattr(Capture, "order", order)
        assert r.station.run() == 70
        assert r.heard.verdicts == [A, F]


def test_no_observer_delays_a_decision(model: OpenvinoPredictor) -> None:
    release = threading.Event()

    class Slow(Heard):
        def put(self, decision: Decision, frame: Frame | None, prediction: Prediction | None) -> None:
            release.wait(20)
            super().put(decision, frame, prediction)

    slow = Slow()
    with rig(Line(every(4, 30)), Parts(), model, watching={"archives": slow}) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [A] * 30
        dropped = r.monitor.counts()["dropped_archives"]
        release.set()
    assert dropped == 30 - len(slow.decisions) >= 20


def test_a_bug_in_an_observer_costs_no_verdict_and_shows_in_health(model: OpenvinoPredictor) -> None:
    with rig(Line(every(5, 4)), Parts(), model, watching={"previews": Failing(ZeroDivisionError("a bug"))}) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [A] * 4
    assert any("previews" in p for p in r.monitor.snapshot().problems)


def test_the_model_is_kept_warm_while_no_part_comes_and_never_while_one_waits(model: OpenvinoPredictor) -> None:
    def calls(keep_warm_ms: float) -> int:
        predictor = Wrapped(model, lambda n: None)
        with rig(Line([0, 500]), Parts(), predictor, keep_warm_ms=keep_warm_ms, warm_frame=model.blank()) as r:
            assert r.station.run() == 0
            assert r.heard.verdicts == [A, A]
        return predictor.calls

    assert calls(0) == 2
    assert 3 <= calls(100) <= 7


def test_a_warming_run_delays_a_part_by_one_inference_at_most(model: OpenvinoPredictor) -> None:
    """The first part comes in the middle of a warming run of 200 ms and is judged after 400 ms, not after 600."""
    predictor = Wrapped(model, lambda n: time.sleep(0.2))
    with rig(Line([150]), Parts(), predictor, keep_warm_ms=40, warm_frame=model.blank()) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [A]
        assert 200 <= r.heard.late_ms[0] < 400 + BUSY_MS


def test_a_camera_problem_is_in_health_while_it_lasts(model: OpenvinoPredictor) -> None:
    class Lost(Parts):
        def grab(self, timeout_s: float) -> Frame:
            raise SourceError("the cable is out")

    with rig(Line([0]), Lost(), model) as r:
        r.monitor.ready()
        assert r.station.run() == 0
        assert r.heard.decisions[0].reason == "the cable is out"
        assert r.monitor.snapshot().problems == ("the cable is out",)


def test_every_decision_comes_after_the_one_before(model: OpenvinoPredictor) -> None:
    with rig(Line(every(1, 60)), Parts(), model) as r:
        assert r.station.run() == 0
        assert all(a.stamps.told_ns < b.stamps.told_ns and a.seq + 1 == b.seq for a, b in pairwise(r.heard.decisions))
        assert len(r.heard.decisions) == 60
