"""What every Sink promises: an error at start or none, every kind of decision taken quickly from any thread, its resource given back."""

import dataclasses
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from edge_runtime.config.files import ArchiveConfig, JournalConfig, PreviewConfig, PublisherConfig
from edge_runtime.errors import SinkError
from edge_runtime.model.manifest import DisplayScale
from edge_runtime.records import Decision, Frame, Picture, Prediction, Region, Stamps, Verdict, View
from edge_runtime.sinks.archive import Archive
from edge_runtime.sinks.journal import Journal
from edge_runtime.sinks.preview import Display, PreviewSink
from edge_runtime.sinks.publisher import Publisher
from tests.support.decisions import decision_with
from tests.support.ports import free_port

AnySink = Any
Make = Callable[[], AnySink]


def a_decision(seq: int, verdict: Verdict) -> Decision:
    fault = verdict is Verdict.FAULT
    return decision_with(
        recipe="r", bundle_id="b", seq=seq, part_id=f"Ä/{seq}", verdict=verdict, reason="why", score=None if fault else 3.0, threshold=2.0,
        severity=None if fault else 1.5, regions=() if fault else (Region(0, 0, 4, 4, 9, 3.0),), frame_wh=(48, 32),
        stamps=Stamps(1, 2, 3, 4, 5, 6), wall_time=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )  # fmt: skip


def a_view(camera: str, verdict: Verdict) -> View:
    return View(camera, verdict, "why", None, 2.0, None, (), (48, 32), "b", "r")


FRAME = Frame(1, 1, "test", np.zeros((32, 48, 3), np.uint8))
PREDICTION = Prediction(3.0, np.ones((4, 6), np.float32), np.array([[8.0, 0, 0], [0, 8.0, 0]]))
PARTS = [
    (a_decision(1, Verdict.ACCEPT), (Picture("", FRAME, PREDICTION),)),
    (a_decision(2, Verdict.REJECT), (Picture("", FRAME, PREDICTION),)),
    (a_decision(3, Verdict.FAULT), (Picture("", FRAME, None),)),
    (a_decision(4, Verdict.FAULT), (Picture("", None, None),)),
    (a_decision(5, Verdict.FAULT), ()),
    (
        dataclasses.replace(a_decision(6, Verdict.REJECT), views=(a_view("top", Verdict.REJECT), a_view("side", Verdict.FAULT))),
        (Picture("top", FRAME, PREDICTION), Picture("side", None, None)),
    ),
]


def endpoint() -> str:
    return f"tcp://127.0.0.1:{free_port()}"


@pytest.fixture(params=["journal", "publisher", "archive", "preview"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes a sink, always on the same resource."""
    ports = endpoint(), endpoint()
    makers: dict[str, Make] = {
        "journal": lambda: Journal(JournalConfig(path=tmp_path / "j.sqlite", commit_timeout_ms=5000), "cell-3"),
        "publisher": lambda: Publisher(PublisherConfig(endpoint=ports[0], replay=ports[1]), "cell-3", tmp_path / "j.sqlite"),
        "archive": lambda: Archive(ArchiveConfig(path=tmp_path / "archive", every_nth_accept=1)),
        "preview": lambda: PreviewSink(PreviewConfig(endpoint=ports[0]), "cell-3", {"b": Display(DisplayScale(low=0.0, high=4.0))}),
    }
    return makers[request.param]


def test_it_takes_every_kind_of_decision(make: Make) -> None:
    with make() as sink:
        for part in PARTS:
            sink.put(*part)
        assert sink.problem is None


def test_it_may_be_told_from_another_thread_than_the_one_that_opened_it(make: Make) -> None:
    raised: list[BaseException] = []

    def tell(sink: AnySink) -> None:
        try:
            for part in PARTS:
                sink.put(*part)
        except BaseException as e:
            raised.append(e)

    with make() as sink:
        thread = threading.Thread(target=tell, args=(sink,))
        thread.start()
        thread.join()
        assert raised == []
        assert sink.problem is None


def test_it_does_not_keep_its_caller(make: Make) -> None:
    """The median: a loaded test machine may stop any single call for long."""
    with make() as sink:
        times = []
        for seq in range(100, 150):
            began = time.perf_counter()
            sink.put(a_decision(seq, Verdict.REJECT), PARTS[1][1])
            times.append(time.perf_counter() - began)
    assert sorted(times)[25] < 0.05


def test_what_it_held_is_free_again_after_it_was_left(make: Make) -> None:
    for _ in range(3):
        with make() as sink:
            assert sink.problem is None
    with pytest.raises(KeyError), make():
        raise KeyError("what happens inside comes out")
    with make():
        pass


def test_leaving_takes_a_moment_only(make: Make) -> None:
    with make() as sink:
        for part in PARTS:
            sink.put(*part)
        began = time.perf_counter()
    assert time.perf_counter() - began < 2.0


@pytest.mark.parametrize("kind", ["publisher", "preview"])
def test_a_subscription_of_absurd_length_ends_its_connection(kind: str) -> None:
    """libzmq would build a tree of its bytes in the sender's own time, and never give the memory back."""
    address = endpoint()
    publisher = Publisher(PublisherConfig(endpoint=address, replay=endpoint()), "s", None)
    sink: AnySink = publisher if kind == "publisher" else PreviewSink(PreviewConfig(endpoint=address), "s", {})
    with sink, zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.linger = 0
        subscriber.subscribe(b"decision" * 1000)
        with subscriber.get_monitor_socket(zmq.EVENT_DISCONNECTED) as events:
            subscriber.connect(address)
            came = events.poll(5000)
            subscriber.disable_monitor()
        assert came


@pytest.mark.parametrize("kind", ["journal", "publisher", "replay", "archive", "preview"])
def test_a_resource_that_is_not_to_be_had_is_a_sink_error_that_names_it(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        sinks: dict[str, tuple[AnySink, str]] = {
            "journal": (Journal(JournalConfig(path=tmp_path / "file" / "j"), "s"), str(tmp_path / "file" / "j")),
            "publisher": (Publisher(PublisherConfig(endpoint=busy), "s", None), busy),
            "replay": (Publisher(PublisherConfig(endpoint=endpoint(), replay=busy), "s", None), busy),
            "archive": (Archive(ArchiveConfig(path=tmp_path / "file" / "a")), str(tmp_path / "file" / "a")),
            "preview": (PreviewSink(PreviewConfig(endpoint=busy), "s", {"b": Display(DisplayScale(low=0.0, high=4.0))}), busy),
        }
        sink, name = sinks[kind]
        with pytest.raises(SinkError) as e, sink:
            pass
    assert name in str(e.value)
    assert "expected" in str(e.value) or "cannot" in str(e.value)
