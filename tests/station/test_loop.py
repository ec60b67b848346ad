"""THE loop with real small parts: whatever hangs, fails or floods, each trigger gets its one decision, in order and in time."""

import json
import os
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.capture.capture import Capture
from edge_runtime.config.files import ArchiveConfig, FolderSourceConfig
from edge_runtime.errors import DeviceError, SinkError, TriggerError
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.records import Frame, Picture, State, Trigger
from edge_runtime.sinks.archive import Archive
from edge_runtime.sources.folder import Folder, read_frame
from edge_runtime.wire import decode_decision, encode_decision
from tests.conftest import good_image
from tests.station.rig import BUSY_MS, A, F, Failing, Line, Parts, R, Wrapped, every, rig


def test_six_parts_get_six_verdicts_in_order_with_their_own_timing(station_dir: Path, model: OpenvinoPredictor) -> None:
    """Law 1: one trigger, one decision, in order."""
    with Folder(FolderSourceConfig(path=station_dir / "parts")) as folder, rig(Line(every(5, 6)), folder, model) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [A, A, R, A, A, R]
        assert r.heard.seqs == [1, 2, 3, 4, 5, 6]
        for d in r.heard.decisions:
            s = d.stamps
            assert 0 < s.fired_ns <= s.captured_ns <= s.grabbed_ns <= s.predicted_ns <= s.decided_ns <= s.told_ns
            assert (d.part_id, d.threshold, d.frame_wh, d.severity) == (f"part-{d.seq}", 20.0, (64, 64), d.score / 20.0)
        assert r.monitor.counts()["REJECT"] == 2
        names = sorted(str(p) for p in (station_dir / "parts").iterdir())
        assert [d.source for d in r.heard.decisions] == names, "whoever replays a folder sees which picture each verdict is of"


def test_file_names_that_are_no_utf_8_cost_no_decision(tmp_path: Path, model: OpenvinoPredictor) -> None:
    png = cv2.imencode(".png", good_image())[1].tobytes()
    for name, content in ((b"T\xfcr_1.png", png), (b"T\xfcr_2.png", png[:200])):
        (tmp_path / os.fsdecode(name)).write_bytes(content)
    kept = Archive(ArchiveConfig(path=tmp_path / "kept", every_nth_accept=1))
    with Folder(FolderSourceConfig(path=tmp_path)) as folder, rig(Line(every(5, 2)), folder, model) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [A, F]
        assert r.heard.decisions[0].source.endswith("T�r_1.png")
        assert "T�r_2.png" in r.heard.decisions[1].reason
        for decision in r.heard.decisions:
            assert decode_decision(encode_decision(decision)) == decision
        with kept:
            kept.put(r.heard.decisions[0], (Picture("", read_frame(tmp_path / os.fsdecode(b"T\xfcr_1.png"), 1), None),))
        about = json.loads(next((tmp_path / "kept").rglob("*.json")).read_text())
        assert about["frame_source"] == about["decision"]["source"] == r.heard.decisions[0].source


def test_the_end_of_a_folder_ends_the_station_without_a_fault(station_dir: Path, model: OpenvinoPredictor) -> None:
    with Folder(FolderSourceConfig(path=station_dir / "parts")) as folder, rig(Line(every(5, 50)), folder, model) as r:
        assert r.station.run() == 0
        assert len(r.heard.decisions) == 6
        assert F not in r.heard.verdicts


@pytest.mark.parametrize("broken", ["nan", "inf"])
def test_a_score_that_is_no_number_is_a_fault(make_bundle: Callable[..., Path], broken: str) -> None:
    """Law 2: fail closed."""

    class White(Parts):
        def grab(self, timeout_s: float) -> Frame:
            return Frame(1, time.monotonic_ns(), "white", np.full((64, 64), 255, np.uint8))

    with OpenvinoPredictor(ModelBundle.open(make_bundle(broken=broken))) as predictor, rig(Line([0]), White(), predictor) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [F]
        assert r.heard.decisions[0].score is None
        assert broken in r.heard.decisions[0].reason


def test_a_picture_older_than_its_trigger_is_never_judged(model: OpenvinoPredictor) -> None:
    """Law 3, on demand."""
    predictor = Wrapped(model, lambda n: None)
    with rig(Line([0, 5]), Parts(age_ms=100), predictor) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [F, F]
        assert "older than its trigger" in r.heard.decisions[0].reason
        assert predictor.calls == 0


@pytest.mark.parametrize(
    ("image", "names"),
    [
        (np.full((32, 32), 80, np.uint8), ("64x64", "32x32")),
        (np.full((64, 64), 80, np.uint16), ("uint8", "uint16")),
        (np.full((64, 64, 3), (80, 80, 81), np.uint8), ("1 channel", "3 channels")),
        (np.full((64, 64, 4), 80, np.uint8), ("1 channel", "4-channel")),
        (np.full((64, 64), 80, np.float32), ("uint8", "float32")),
    ],
)
def test_a_picture_of_another_kind_is_a_fault_that_names_both(model: OpenvinoPredictor, image: np.ndarray, names: tuple[str, str]) -> None:
    """Law 2: what the model was not made for is never judged; the part after it is."""

    class Odd(Parts):
        def grab(self, timeout_s: float) -> Frame:
            good = super().grab(timeout_s)
            return good if self.grabs == 2 else Frame(1, good.captured_ns, "odd", image)

    with rig(Line([0, 5]), Odd(), model) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [F, A]
        assert all(name in r.heard.decisions[0].reason for name in names)
        assert r.heard.decisions[0].frame_wh == image.shape[1::-1]


def test_an_inference_error_is_a_fault_and_the_next_part_is_judged(model: OpenvinoPredictor) -> None:
    def fail_second(n: int) -> None:
        if n == 2:
            raise DeviceError("inference failed on CPU")

    with rig(Line(every(5, 3)), Parts(), Wrapped(model, fail_second)) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [A, F, A]
        assert r.heard.decisions[1].reason == "inference failed on CPU"


def test_a_free_running_camera_gives_each_part_a_picture_taken_after_its_trigger(model: OpenvinoPredictor) -> None:
    """Law 3, in free run."""
    with rig(Line(every(23, 8)), Parts(on_demand=False), model, deadline_ms=10_000) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [A] * 8
        assert all(d.stamps.captured_ns >= d.stamps.fired_ns for d in r.heard.decisions)


def test_a_bug_is_told_as_a_fault_to_the_part_in_flight_and_all_that_wait_then_ends_with_70(
    model: OpenvinoPredictor, caplog: pytest.LogCaptureFixture
) -> None:
    """Law 1: silence is a bug, also when Lineside has one."""

    def bug(n: int) -> None:
        time.sleep(0.2)
        if n == 2:
            raise ZeroDivisionError("a bug")

    with rig(Line([0.0] * 5, endless=True), Parts(), Wrapped(model, bug)) as r:
        assert r.station.run() == 70
        assert r.heard.seqs == [1, 2, 3, 4, 5]
        assert r.heard.verdicts == [A, F, F, F, F]
        assert "Traceback" in caplog.text
        assert "ZeroDivisionError" in caplog.text
        assert "ZeroDivision" not in "".join(d.reason for d in r.heard.decisions)


def test_a_part_that_a_slow_line_announces_while_a_bug_ends_the_station_is_told_too(model: OpenvinoPredictor) -> None:
    """Law 1: a PLC's request may take longer than the station needs to give up."""

    class Slow(Line):
        def wait(self, timeout_s: float) -> Trigger | None:
            if self._fired == 1:
                time.sleep(0.8)
            return super().wait(timeout_s)

    def bug(n: int) -> None:
        raise ZeroDivisionError("a bug")

    with rig(Slow([0.0, 0.0], endless=True), Parts(), Wrapped(model, bug)) as r:
        assert r.station.run() == 70
        assert r.heard.seqs == [1, 2]
        assert r.heard.verdicts == [F, F]
        assert r.heard.late_ms[0] < 500 + BUSY_MS, "the part in flight does not wait for the slow line"


def test_a_bug_in_the_camera_thread_ends_the_station_even_when_no_part_comes(model: OpenvinoPredictor) -> None:
    class Broken(Parts):
        def grab(self, timeout_s: float) -> Frame:
            raise ZeroDivisionError("a bug")

    with rig(Line([], endless=True), Broken(on_demand=False), model) as r:
        assert r.station.run() == 70


def test_a_bug_in_one_receiver_keeps_no_other_from_being_told_once(model: OpenvinoPredictor) -> None:
    with rig(Line(every(5000, 3)), Parts(), model, tellers=[Failing(ZeroDivisionError("a bug"))]) as r:
        assert r.station.run() == 70
        assert r.heard.seqs == [1]
        assert r.heard.verdicts == [A]


def test_a_receiver_that_fails_is_a_problem_in_health_and_the_others_are_told(model: OpenvinoPredictor) -> None:
    with rig(Line(every(5, 3)), Parts(), model, tellers=[Failing(SinkError("the PLC does not answer"))]) as r:
        r.monitor.ready()
        assert r.station.run() == 0
        assert r.heard.verdicts == [A, A, A]
        assert "the PLC does not answer" in r.monitor.snapshot().problems
    why = "the PLC does not answer"
    assert [(d.seq, d.to, d.outcome, d.detail) for d in r.deliveries] == [(seq, "failing", "failed", why) for seq in (1, 2, 3)]


def test_stopping_decides_what_was_announced_and_takes_no_more(model: OpenvinoPredictor) -> None:
    with rig(Line([0, 0, 0, 10_000]), Parts(bad=[3]), Wrapped(model, lambda n: time.sleep(0.3)), deadline_ms=5000) as r:
        threading.Timer(0.4, r.station.stop).start()
        began = time.monotonic()
        assert r.station.run() == 0
        assert time.monotonic() - began < 5
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


def test_a_bug_in_an_observer_costs_no_verdict_and_shows_in_health(model: OpenvinoPredictor) -> None:
    with rig(Line(every(5, 4)), Parts(), model, watching={"previews": Failing(ZeroDivisionError("a bug"))}) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [A] * 4
    assert any("previews" in p for p in r.monitor.snapshot().problems)


def test_every_decision_comes_after_the_one_before(model: OpenvinoPredictor) -> None:
    with rig(Line(every(1, 60)), Parts(), model, queue=64, deadline_ms=5000) as r:
        assert r.station.run() == 0
        assert all(a.stamps.told_ns < b.stamps.told_ns and a.seq + 1 == b.seq for a, b in pairwise(r.heard.decisions))
        assert len(r.heard.decisions) == 60


def test_a_part_that_the_line_announces_while_the_station_stops_is_decided(model: OpenvinoPredictor) -> None:
    class Ending(Line):
        """Its other side takes a moment to hear that no more parts are taken."""

        over = False

        def end(self) -> bool:
            self.over = True
            return True

        def wait(self, timeout_s: float) -> Trigger | None:
            if self.over and self._fired < 3:
                self._fired += 1
                return Trigger(self._fired, time.monotonic_ns(), f"part-{self._fired}")
            return None if self.over else super().wait(timeout_s)

    with rig(Ending([0.0], endless=True), Parts(), model) as r:
        stopping = threading.Timer(0.2, r.station.stop)
        stopping.start()
        assert r.station.run() == 0
        assert r.heard.verdicts == [A, A, A]
