"""What every Sink promises: an error at start or none, every kind of decision taken quickly from any thread, its resource given back."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from edge_runtime.config.files import ArchiveConfig, JournalConfig, PreviewConfig, PublisherConfig
from edge_runtime.errors import SinkError
from edge_runtime.model.manifest import DisplayScale
from edge_runtime.sinks.archive import Archive
from edge_runtime.sinks.journal import Journal
from edge_runtime.sinks.preview import Display, PreviewSink
from edge_runtime.sinks.publisher import Publisher
from edge_runtime.testing import SinkContract
from tests.support.ports import free_port

AnySink = Any
Make = Callable[[], AnySink]


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


class TestEverySink(SinkContract):
    """The suite that ships."""


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
