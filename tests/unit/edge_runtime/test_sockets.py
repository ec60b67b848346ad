"""Sockets as the service makes them, and why one that cannot be bound is not."""

import os
import stat
from pathlib import Path

import pytest
import zmq

from edge_runtime.config.files import PublisherConfig
from edge_runtime.errors import SinkError
from edge_runtime.security.access import Access
from edge_runtime.sinks.publisher import Publisher
from edge_runtime.sockets import SUBSCRIBERS, bind


def test_the_station_s_group_may_connect_to_an_ipc_socket_whatever_the_service_s_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
            door = bind(publisher, f"ipc://{tmp_path}/pub", "publisher.endpoint", SUBSCRIBERS)
            assert door is not None
            assert stat.S_IMODE((tmp_path / "pub").stat().st_mode) == 0o660
            assert stat.S_IMODE(door.inner.parent.stat().st_mode) == 0o700, "nobody else comes in by the back door"
        door.close()
    finally:
        os.umask(before)


@pytest.mark.parametrize("which", ["endpoint", "replay"])
def test_a_port_in_use_is_named_with_its_key(tmp_path: Path, endpoints: PublisherConfig, which: str) -> None:
    taken = getattr(endpoints, which)
    with zmq.Context() as context, context.socket(zmq.REP) as other:
        other.bind(taken)
        with pytest.raises(SinkError, match=rf"\[publisher\] {which}: expected to bind {taken}.*in use"), Publisher(endpoints, "s", None):
            pass
    with Publisher(endpoints, "s", None) as publisher:
        assert publisher.problem is None


def test_an_ipc_path_of_a_running_station_is_not_taken_over(tmp_path: Path) -> None:
    settings = PublisherConfig(endpoint=f"ipc://{tmp_path}/pub", replay=None)
    with Publisher(settings, "s", None), pytest.raises(SinkError, match="in use"), Publisher(settings, "s", None):
        pass
    with Publisher(settings, "s", None):  # a path left behind by a station that ended is no hindrance
        pass


@pytest.mark.parametrize(
    ("endpoint", "hint"),
    [
        ("tcp://192.0.2.7:5560", "no such address"),
        ("tcp://127.0.0.1:99999", "not an address"),
        ("tcp://127.0.0.1:*", "not an address"),
        ("ipc:///nowhere/at/all/pub", "does not exist"),
    ],
)
def test_an_endpoint_that_cannot_be_bound_says_why(endpoint: str, hint: str) -> None:
    with pytest.raises(SinkError, match=hint), Publisher(PublisherConfig(endpoint=endpoint, replay=None), "s", None, Access(plain=True)):
        pass
