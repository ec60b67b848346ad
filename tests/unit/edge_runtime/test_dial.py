"""Connections by host name: a name server that is silent costs no more time than a PLC or a camera that is."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime.dial import addresses_of, connect

_CODE = """
import json, socket, subprocess, sys, threading, time
from pathlib import Path
from edge_runtime.config.sources import LiveSourceConfig
from edge_runtime.errors import LinesideError
from edge_runtime.plc.kinds import KINDS, kind_named
from edge_runtime.plc.defaults import default_trigger
from edge_runtime.sources import open_source
from edge_runtime.triggers import open_trigger
import msgspec

silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
silent.bind(("127.0.0.1", 53))
own = Path(sys.argv[1], "resolv.conf")
own.write_text("nameserver 127.0.0.1\\n")
subprocess.run(["mount", "--bind", own, "/etc/resolv.conf"], check=True)
took = {}
def timed(what, piece):
    began = time.monotonic()
    try:
        with piece:
            pass
    except LinesideError as e:
        took[what] = time.monotonic() - began, str(e)
for kind in KINDS:
    settings = default_trigger(kind)
    where = {"endpoint": "opc.tcp://press-3.lan:4840"} if kind == "opcua" else {"host": "press-3.lan"}
    line = open_trigger(msgspec.structs.replace(settings, **where), 1)
    timed(kind, line)
    timed(kind + " again", line)
timed("camera", open_source(LiveSourceConfig(device="rtsp://camera-2.lan/a", open_timeout_ms=500)))
print(json.dumps([took, sum(t.name == "lookup" for t in threading.enumerate())]))
"""


@pytest.mark.slow
def test_a_name_server_that_is_silent_costs_no_more_than_the_timeout(tmp_path: Path) -> None:
    probe = ["unshare", "-m", "mount", "--bind", "/etc/hosts", "/etc/resolv.conf"]
    if (tried := subprocess.run(probe, capture_output=True, text=True, timeout=60, check=False)).returncode:
        pytest.skip(f"a private /etc/resolv.conf cannot be mounted here: {tried.stderr.strip()}")
    command = ["unshare", "-m", sys.executable, "-c", _CODE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    took, threads = json.loads(done.stdout)
    assert len(took) == 9
    for what, (seconds, said) in took.items():
        assert seconds < 2.5, (what, said)
        assert "no name server answered what" in said, (what, said)
    assert threads <= 2  # one a name, however often it is asked


def test_an_address_is_asked_nobody_and_each_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as alone:
        alone.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("an address was looked up"))
        assert addresses_of("192.0.2.1", 1.0) == ["192.0.2.1"] and addresses_of("fe80::1%lo", 1.0) == ["fe80::1%lo"]
    lookup = socket.getaddrinfo
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in ("127.0.0.2", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: both if host == "press-3" else lookup(host, *a, **k))
    with socket.create_server(("127.0.0.1", 0)) as server, connect(("press-3", server.getsockname()[1]), 1.0) as sock:
        assert sock.getpeername()[0] == "127.0.0.1"
