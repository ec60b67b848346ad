"""Several cameras look at one part: one decision from all views, whichever of them hangs, fails or sees a defect."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime import wire
from edge_runtime.commands.replay import expectations, list_all
from edge_runtime.config.files import FolderSourceConfig
from edge_runtime.errors import DeviceError, SourceError
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.protocols import Predictor, Sink, Source
from edge_runtime.records import Decision, Frame, Picture, Prediction, View
from edge_runtime.sinks.journal import read_decisions
from edge_runtime.sources.folder import Folder
from edge_runtime.station import views as inspection
from edge_runtime.station.judge import Judgement, Limits
from edge_runtime.station.launch import run_station
from edge_runtime.station.model_thread import model_thread, together_is_faster
from tests.conftest import bad_image, good_image
from tests.station.rig import BUSY_MS, A, F, Line, Parts, R, Recipe, Wrapped, every, several
from tests.station.test_process import Subscriber, free_port, patient
from tests.support.waiting import until


@pytest.fixture(scope="module")
def other_model(tiny_bundle: Path) -> Iterator[OpenvinoPredictor]:
    """A second one of the same bundle: no predictor is for two threads at once."""
    with OpenvinoPredictor(ModelBundle.open(tiny_bundle)) as predictor:
        yield predictor


def at(source: Source, predictor: Predictor, deadline_ms: float = 1000) -> tuple[Source, dict[str, Recipe]]:
    return source, {"": Recipe(predictor, deadline_ms=deadline_ms)}


def of(decision: Decision) -> dict[str, View]:
    return {view.camera: view for view in decision.views}


class Kept(Sink):
    def __init__(self) -> None:
        self.pictures: list[tuple[Picture, ...]] = []

    def put(self, decision: Decision, pictures: tuple[Picture, ...]) -> None:
        self.pictures.append(pictures)


@pytest.mark.parametrize("together", [False, True])
def test_one_trigger_is_one_decision_from_all_views_and_any_reject_rejects(
    model: OpenvinoPredictor, other_model: OpenvinoPredictor, together: bool
) -> None:
    """Law 1, with two cameras: each view is in the decision, and the one that decides speaks for it."""
    kept = Kept()
    views = {"top": at(Parts(bad=[3]), model, 5000), "side": at(Parts(bad=[2, 3]), other_model, 5000)}
    with several(Line(every(5, 4)), views, together=together, tellers=[kept]) as r:
        assert r.station.run() == 0
        assert r.heard.seqs == [1, 2, 3, 4]
        assert r.heard.verdicts == [A, R, R, A]
        one = r.heard.decisions[1]
        assert [v.camera for v in one.views] == ["top", "side"]
        assert [v.verdict for v in one.views] == [A, R]
        side = of(one)["side"]
        assert (one.score, one.severity, one.regions, one.frame_wh) == (side.score, side.severity, side.regions, (64, 64))
        assert one.reason.startswith("side: Anomaly of")
        assert one.deciding is one.views[1]
        assert [p.camera for p in kept.pictures[1]] == ["top", "side"], "one a view, in their order"
        assert all(p.frame is not None and p.prediction is not None for p in kept.pictures[1])
        assert "Rejected by" in r.heard.decisions[2].reason
        for d in r.heard.decisions:
            for v in d.views:
                assert d.stamps.fired_ns <= v.captured_ns <= v.grabbed_ns <= v.predicted_ns <= d.stamps.decided_ns
        assert wire.decode_decision(wire.encode_decision(one)) == one


def test_a_missing_view_is_a_fault_and_the_other_one_is_in_the_decision(model: OpenvinoPredictor, other_model: OpenvinoPredictor) -> None:
    """Law 2: what nobody looked at is not accepted."""

    class Lost(Parts):
        def grab(self, timeout_s: float) -> Frame:
            if self.grabs == 1:
                self.grabs += 1
                raise SourceError("the cable is out")
            return super().grab(timeout_s)

    with several(Line(every(5, 3)), {"top": at(Parts(), model), "side": at(Lost(), other_model)}) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [A, F, A]
        d = r.heard.decisions[1]
        assert d.reason == "side: the cable is out"
        assert (d.score, d.severity, d.frame_wh) == (None, None, (0, 0))
        assert (of(d)["top"].verdict, of(d)["side"].verdict) == (A, F)
        assert of(d)["top"].score is not None
        assert of(d)["side"].score is None


def test_a_reject_beats_a_missing_view_and_its_reason_names_that_too(model: OpenvinoPredictor, other_model: OpenvinoPredictor) -> None:
    """No further picture could make it good."""

    class Lost(Parts):
        def grab(self, timeout_s: float) -> Frame:
            raise SourceError("the cable is out")

    with several(Line([0]), {"top": at(Lost(), model), "side": at(Parts(bad=[1]), other_model)}) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [R]
        reason = r.heard.decisions[0].reason
        assert reason.startswith("side: Anomaly")
        assert reason.endswith("Not judged by top: the cable is out")
        assert r.monitor.snapshot().problems == ("top: the cable is out",)


@pytest.mark.alone
@pytest.mark.parametrize("hangs", ["top", "side"])
def test_the_deadline_holds_while_one_camera_hangs_and_a_defect_in_the_other_is_still_seen(
    model: OpenvinoPredictor, other_model: OpenvinoPredictor, hangs: str
) -> None:
    """Law 1 and 2: the hanging one costs its own view only."""
    sources = {name: Parts(bad=() if name == hangs else [3], hang_at=2 if name == hangs else 0) for name in ("top", "side")}
    views = {name: at(source, m, 300) for (name, source), m in zip(sources.items(), (model, other_model), strict=True)}
    with several(Line([0, 350, 500, 1800]), views) as r:
        threading.Timer(1.4, sources[hangs].release.set).start()
        assert r.station.run() == 0
        assert r.heard.seqs == [1, 2, 3, 4]
        assert r.heard.verdicts == [A, F, R, A]
        assert max(r.heard.late_ms) <= 300 + BUSY_MS
        for d in r.heard.decisions[1:3]:
            assert of(d)[hangs].verdict is F


@pytest.mark.alone
def test_a_model_that_hangs_faults_its_parts_in_time(model: OpenvinoPredictor, other_model: OpenvinoPredictor) -> None:
    release = threading.Event()
    slow = Wrapped(other_model, lambda n: release.wait(20) and None if n == 2 else None)
    with several(Line([0, 350, 1800]), {"top": at(Parts(), model, 300), "side": at(Parts(), slow, 300)}, together=True) as r:
        threading.Timer(1.2, release.set).start()
        assert r.station.run() == 0
        assert r.heard.verdicts == [A, F, A]
        assert max(r.heard.late_ms) <= 300 + BUSY_MS
        assert "side: " in r.heard.decisions[1].reason
        assert of(r.heard.decisions[1])["top"].verdict is A


@pytest.mark.alone
def test_a_view_that_does_not_come_back_at_all_keeps_nobody_waiting(
    model: OpenvinoPredictor, other_model: OpenvinoPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever hangs in it, the part is told in time; the view serves again when it is back."""
    real, stuck = inspection.judge, Limits(20.0, 18.0)
    first = threading.Event()

    def judge(prediction: Prediction, limits: Limits, frame_wh: tuple[int, int]) -> Judgement:
        if limits is stuck and not first.is_set():
            first.set()
            time.sleep(1.5)
        return real(prediction, limits, frame_wh)

    monkeypatch.setattr(inspection, "judge", judge)
    side: tuple[Source, dict[str, Recipe]] = (Parts(), {"": Recipe(other_model, stuck, 300)})
    with several(Line([0, 400, 2500]), {"top": at(Parts(bad=[2]), model, 300), "side": side}) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [F, R, A]
        assert max(r.heard.late_ms) <= 300 + BUSY_MS
        assert "side: It did not answer in time." in r.heard.decisions[0].reason


@pytest.mark.alone
def test_cameras_grab_at_the_same_time(model: OpenvinoPredictor, other_model: OpenvinoPredictor) -> None:
    class Slow(Parts):
        def grab(self, timeout_s: float) -> Frame:
            frame = super().grab(timeout_s)
            time.sleep(0.8)
            return frame

    with several(Line([0]), {"top": at(Slow(), model, 5000), "side": at(Slow(), other_model, 5000)}) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [A]
        assert r.heard.late_ms[0] < 1450, "one after the other, they would take 1,600 ms"


@pytest.mark.parametrize("together", [False, True])
def test_models_run_in_turn_or_at_the_same_time(model: OpenvinoPredictor, other_model: OpenvinoPredictor, together: bool) -> None:
    running, most = [0], [0]
    lock = threading.Lock()

    def slowly(n: int) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.3)
        with lock:
            running[0] -= 1

    views = {"top": at(Parts(), Wrapped(model, slowly), 5000), "side": at(Parts(), Wrapped(other_model, slowly), 5000)}
    with several(Line([0]), views, together=together) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [A]
    assert most == [2 if together else 1]


def test_a_bug_in_one_view_ends_the_station_after_the_parts_were_told(model: OpenvinoPredictor, other_model: OpenvinoPredictor) -> None:
    def bug(n: int) -> None:
        raise ZeroDivisionError("a bug")

    with several(Line([0.0] * 3, endless=True), {"top": at(Parts(), model), "side": at(Parts(), Wrapped(other_model, bug))}) as r:
        assert r.station.run() == 70
        assert r.heard.verdicts == [F, F, F]


def test_the_end_of_one_folder_ends_the_station_without_a_fault(
    station_dir: Path, model: OpenvinoPredictor, other_model: OpenvinoPredictor
) -> None:
    folder = Folder(FolderSourceConfig(path=station_dir / "parts"))
    with folder, several(Line(every(5, 50)), {"top": at(Parts(), model, 5000), "side": at(folder, other_model, 5000)}) as r:
        assert r.station.run() == 0
        assert r.heard.verdicts == [A, A, R, A, A, R]


@pytest.mark.alone
def test_what_is_faster_at_start_is_chosen(model: OpenvinoPredictor) -> None:
    """Models that only wait gain all by running together, those that share one lock lose."""
    lock = threading.Lock()
    threads = [model_thread(), model_thread()]
    try:
        assert together_is_faster([(Slept(), model.blank()), (Slept(), model.blank())], threads) is True
        assert together_is_faster([(Locked(lock), model.blank()), (Locked(lock), model.blank())], threads) is False
        with pytest.raises(DeviceError):
            together_is_faster([(Broken(), model.blank()), (Slept(), model.blank())], threads)
    finally:
        for thread in threads:
            thread.close(1)


class Slept(Predictor):
    def predict(self, frame: Frame) -> Prediction:
        time.sleep(0.01)
        return Prediction(1.0, np.zeros((1, 1), np.float32), np.eye(2, 3))


class Locked(Slept):
    def __init__(self, lock: "threading.Lock") -> None:
        self._lock = lock

    def predict(self, frame: Frame) -> Prediction:
        with self._lock:
            return super().predict(frame)


class Broken(Slept):
    def predict(self, frame: Frame) -> Prediction:
        raise DeviceError("inference failed on CPU")


def test_a_station_file_with_two_cameras_is_run_journalled_published_archived_and_shown(station_dir: Path) -> None:
    """From the file to the last receiver, over real sockets."""
    for name, bad in (("top", (1,)), ("side", (2,))):
        (station_dir / name).mkdir()
        for i in range(4):
            cv2.imwrite(str(station_dir / name / f"{i}.png"), bad_image(seed=i) if i in bad else good_image(seed=i))
    (station_dir / "side" / "3.png").write_bytes(b"no image")
    patient(station_dir)
    strict = (station_dir / "recipe.toml").read_text().replace('"tiny"', '"flank"') + "threshold = 30.0\n"
    (station_dir / "flank.toml").write_text(strict)
    ports = free_port(), free_port(), free_port()
    (station_dir / "station.toml").write_text(
        f'name = "st"\n[trigger]\nkind = "timer"\nperiod_ms = 300\n'
        f'[publisher]\nendpoint = "tcp://127.0.0.1:{ports[0]}"\nreplay = "tcp://127.0.0.1:{ports[1]}"\n'
        f'[archive]\npath = "kept"\n[preview]\nendpoint = "tcp://127.0.0.1:{ports[2]}"\n'
        '[[camera]]\nname = "top"\nrecipe = "recipe.toml"\nsource = {kind = "folder", path = "top"}\n'
        '[[camera]]\nname = "side"\nrecipe = "flank.toml"\nsource = {kind = "folder", path = "side"}\n'
    )
    with Subscriber(ports[0]) as subscriber, previews(ports[2]) as shown:
        assert run_station(station_dir / "station.toml") == 0
        until(lambda: shown and shown[-1].decision.seq == 4)
    decisions = read_decisions(station_dir / "journal.sqlite")
    assert [d.verdict for d in decisions] == [A, R, R, F]
    assert [(d.recipe, d.threshold) for d in decisions][1:3] == [("tiny", 20.0), ("flank", 30.0)]
    assert [[v.verdict for v in d.views] for d in decisions] == [[A, A], [R, A], [A, R], [A, F]]
    assert subscriber.decisions == decisions
    assert subscriber.health[-1].inference in ("together", "in turn")
    assert subscriber.health[-1].recipes == ("tiny", "flank")
    assert len(set(subscriber.health[-1].bundle_ids)) == 1 and len(subscriber.health[-1].bundle_ids) == 2
    files = sorted(p.relative_to(station_dir / "kept").as_posix() for p in (station_dir / "kept").rglob("*.png"))
    day = decisions[0].wall_time[:10]
    assert files == [
        f"side/{day}/000000002_ACCEPT.png", f"side/{day}/000000003_REJECT.png",
        f"top/{day}/000000002_REJECT.png", f"top/{day}/000000003_ACCEPT.png", f"top/{day}/000000004_ACCEPT.png",
    ]  # fmt: skip
    about = json.loads((station_dir / "kept" / files[0]).with_suffix(".json").read_text())
    assert (about["camera"], about["decision"]["verdict"]) == ("side", "REJECT")
    top = station_dir / "kept" / "top"
    assert list(expectations(top, list_all(top)).values()) == [R, A, A], "the view's own verdict is what a replay expects"
    last = shown[-1]
    assert last.decision.seq == 4
    assert last.decision.deciding.camera == "side"
    assert [(v.camera, s.image[:2]) for v, s in zip(last.decision.views, last.shown, strict=True)] == [("top", b"\xff\xd8"), ("side", b"")]


@contextlib.contextmanager
def previews(port: int) -> Iterator[list[wire.Preview]]:
    import zmq

    shown: list[wire.Preview] = []
    stop = threading.Event()

    def listen() -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as sock:
            sock.setsockopt(zmq.LINGER, 0)
            sock.setsockopt(zmq.RECONNECT_IVL, 10)
            sock.subscribe(b"")
            sock.connect(f"tcp://127.0.0.1:{port}")
            while not stop.is_set():
                if sock.poll(20):
                    shown.append(wire.decode_preview(sock.recv_multipart()))

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield shown
    finally:
        stop.set()
        thread.join()


def test_an_observer_hears_of_a_part_that_was_refused_without_any_picture(model: OpenvinoPredictor, other_model: OpenvinoPredictor) -> None:
    kept = Kept()
    views = {"top": at(Parts(), model), "side": at(Parts(), other_model)}
    with several(Line([0.0] * 6), views, queue=1, watching={"archives": kept}) as r:
        assert r.station.run() == 0
        assert r.heard.seqs == [1, 2, 3, 4, 5, 6]
        overruns = [d for d in r.heard.decisions if "Overrun" in d.reason]
        assert overruns
        for d in overruns:
            assert [(v.camera, v.verdict, v.reason, v.recipe) for v in d.views] == [(c, F, d.reason, "r") for c in ("top", "side")]
    assert (Picture("top", None, None), Picture("side", None, None)) in kept.pictures
