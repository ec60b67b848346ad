"""Sockets as the service makes them."""

import os
import stat
from pathlib import Path

import zmq

from edge_runtime.sinks.binding import bind


def test_the_station_s_group_may_connect_to_an_ipc_socket_whatever_the_service_s_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
            bind(publisher, f"ipc://{tmp_path}/pub", "publisher.endpoint")
            assert stat.S_IMODE((tmp_path / "pub").stat().st_mode) == 0o660
    finally:
        os.umask(before)
