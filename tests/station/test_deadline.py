"""The deadline: cameras and models that hang, die or are too slow, floods, observers: each part is answered in time all the same."""

import threading
import time
from dataclasses import replace

import pytest

from edge_runtime.errors import SourceError
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.records import Decision, Frame, Picture, Trigger
from tests.station.rig import BUSY_MS, A, F, Heard, Line, Parts, Wrapped, every, rig

pytestmark = pytest.mark.alone


def test_a_camera_that_hangs_faults_its_parts_in_time_and_serves_again_when_it_comes_back(model: OpenvinoPredictor) -> None:
    """Law 1: the deadline is kept even if the camera's driver hangs."""
    source = Parts(bad=[2], hang_at=2)  # the late picture is of a bad part: it must reach nobody
    with rig(Line([0, 350, 370, 390, 1800, 2100]), source, model, deadline_ms=300) as r:
        threading.Timer(1.4, source.release.set).start()
        assert r.station.run() == 0
        assert r.heard.verdicts == [A, F, F, F, A, A]
        assert r.heard.seqs == [1, 2, 3, 4, 5, 6]
        assert max(r.heard.late_ms) <= 300 + BUSY_MS
        assert "did not answer" in r.heard.decisions[1].reason


def test_a_model_that_hangs_faults_its_parts_in_time_and_its_late_result_is_given_to_nobody(model: OpenvinoPredictor) -> None:
    """Law 1: the deadline is kept even if the model hangs."""
    release = threading.Event()
    predictor = Wrapped(model, lambda n: release.wait(20) and None if n == 2 else None)
    with rig(Line([0, 350, 370, 390, 1800, 2100]), Parts(bad=[2]), predictor, deadline_ms=300) as r:
        threading.Timer(1.4, release.set).start()
        assert r.station.run() == 0
        assert r.heard.verdicts == [A, F, F, F, A, A]
        assert max(r.heard.late_ms) <= 300 + BUSY_MS
        assert "model did not answer" in r.heard.decisions[1].reason
        assert all(d.score is None and d.severity is None for d in r.heard.decisions if d.verdict is F)


def test_a_deadline_counts_from_the_earliest_moment_at_which_the_part_may_have_been_announced(model: OpenvinoPredictor) -> None:
    """Law 1: from the PLC's own edge, not from when it was seen."""

    class Seen(Line):
        def wait(self, timeout_s: float) -> Trigger | None:
            trigger = super().wait(timeout_s)
            late_ns = 350_000_000 if trigger is not None and trigger.seq == 2 else 0
            return trigger and replace(trigger, since_ns=trigger.fired_ns - late_ns)

    with rig(Seen([0, 200, 400]), Parts(), model, deadline_ms=300) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [A, F, A]


def test_a_burst_on_a_model_that_hangs_is_told_by_the_deadline_part_by_part(model: OpenvinoPredictor) -> None:
    release = threading.Event()
    with rig(Line([0.0] * 12), Parts(), Wrapped(model, lambda n: release.wait(20) and None), deadline_ms=200, queue=8) as r:
        assert r.station.run() == 0
        release.set()
        assert r.heard.seqs == list(range(1, 13))  # one after the other, 12 deadlines would pass
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


def test_a_free_running_camera_that_dies_faults_its_parts_and_serves_again_when_it_comes_back(model: OpenvinoPredictor) -> None:
    class Dying(Parts):
        dead = False

        def grab(self, timeout_s: float) -> Frame:
            if self.dead:
                raise SourceError("the cable is out")
            return super().grab(timeout_s)

    camera = Dying(on_demand=False)
    with rig(Line([0, 800, 820, 2400]), camera, model, deadline_ms=400) as r:
        threading.Timer(0.5, setattr, (camera, "dead", True)).start()
        threading.Timer(1.9, setattr, (camera, "dead", False)).start()
        assert r.station.run() == 0
        assert r.heard.verdicts == [A, F, F, A]
        assert max(r.heard.late_ms) <= 400 + BUSY_MS
        assert "the cable is out" in r.heard.decisions[1].reason


def test_no_observer_delays_a_decision(model: OpenvinoPredictor) -> None:
    """Law 4: what an observer has no time for is dropped and counted."""
    release = threading.Event()

    class Slow(Heard):
        def put(self, decision: Decision, pictures: tuple[Picture, ...]) -> None:
            release.wait(20)
            super().put(decision, pictures)

    slow = Slow()
    with rig(Line(every(4, 30)), Parts(), model, watching={"archives": slow}, queue=64) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [A] * 30
        dropped = r.monitor.counts()["dropped_archives"]
        release.set()
    assert dropped == 30 - len(slow.decisions) >= 20
    assert [(d.to, d.outcome) for d in r.deliveries] == [("archives", "failed")] * dropped, "and noted, each by its number"
    assert {d.seq for d in r.deliveries}.isdisjoint(d.seq for d in slow.decisions)


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
    """The first part comes in the middle of a warming run of 500 ms and is judged after some 650 ms, not after 1,150."""
    predictor = Wrapped(model, lambda n: time.sleep(0.5))
    with rig(Line([450]), Parts(), predictor, keep_warm_ms=40, warm_frame=model.blank(), deadline_ms=5000) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [A]
        assert 500 <= r.heard.late_ms[0] < 1100


def test_a_camera_problem_is_in_health_while_it_lasts(model: OpenvinoPredictor) -> None:
    class Lost(Parts):
        def grab(self, timeout_s: float) -> Frame:
            raise SourceError("the cable is out")

    with rig(Line([0]), Lost(), model) as r:
        r.monitor.ready()
        assert r.station.run() == 0
        assert r.heard.decisions[0].reason == "the cable is out"
        assert r.monitor.snapshot().problems == ("the cable is out",)
