"""A station that is killed between a PLC's acknowledge and its result: what the PLC is told when it is back."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from edge_runtime.plc.defaults import default_trigger, trigger_toml
from edge_runtime.plc.kinds import KINDS
from edge_runtime.plc.port import TagServer
from edge_runtime.plc.signals import tags_of
from edge_runtime.records import Cause, Verdict
from edge_runtime.sim.plc import server_of
from edge_runtime.sinks.journal import read_decisions
from tests.support.ports import free_port
from tests.support.waiting import until

RUN = [sys.executable, "-m", "edge_runtime.cli", "run"]
HANGS = [
    sys.executable,
    "-c",
    "import sys, time\nfrom pathlib import Path\nfrom edge_runtime.station import views\n"
    "from edge_runtime.station.launch import run_station\n"
    "views.judge = lambda *a: time.sleep(100)\nsys.exit(run_station(Path(sys.argv[1])))\n",
]
"""A station that never comes to a verdict: it is killed in the middle of its first part."""
LEFT = [(kind, "lowered") for kind in KINDS] + [("modbus", "held")]


@contextmanager
def running(command: list[str], station: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with (station.parent / "log").open("ab") as log:
        process = subprocess.Popen([*command, str(station)], stderr=log, env={**os.environ})
        try:
            yield process
        finally:
            process.kill()
            process.wait()


class Plc:
    """A PLC's program, by hand."""

    def __init__(self, server: TagServer) -> None:
        self.server = server

    def __getitem__(self, name: str) -> object:
        return self.server.get([name])[name]

    def announce(self, part: int) -> None:
        until(lambda: self["ready"])
        self.server.set({"part_id": part})
        self.server.set({"trigger": True})
        until(lambda: self["trigger_acknowledge"])

    def take(self) -> dict[str, object]:
        until(lambda: self["result_valid"])
        found = dict(self.server.get(["result_part_id", "accept", "reject", "fault", "fault_code", "ready"]))
        self.server.set({"trigger": False, "acknowledge": True})
        until(lambda: not self["result_valid"])
        self.server.set({"acknowledge": False})
        return found


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "trigger"), LEFT)
def test_a_part_that_was_acknowledged_before_a_kill_gets_its_fault_from_the_next_run(kind: str, trigger: str, station_dir: Path) -> None:
    """Law 1, seen from the PLC: it shows the part by its name, and the outputs stand as the killed station left them."""
    recipe = station_dir / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("deadline_ms = 500", "deadline_ms = 30000"))
    settings = msgspec.structs.replace(default_trigger(kind, port=free_port()), timeout_ms=2000.0)
    station = station_dir / "station.toml"
    station.write_text(
        'name = "st"\nrecipe = "recipe.toml"\n[source]\nkind = "folder"\npath = "parts"\nloop = true\n'
        f'[publisher]\nendpoint = "tcp://127.0.0.1:{free_port()}"\nreplay = "tcp://127.0.0.1:{free_port()}"\n{trigger_toml(settings)}'
    )
    inputs, outputs = tags_of(settings)
    with server_of(settings, [*inputs, *outputs]) as server:
        server.set({"enable": True})
        plc = Plc(server)
        with running(HANGS, station) as killed:
            plc.announce(17)
            if trigger == "lowered":
                server.set({"trigger": False})
                until(lambda: not plc["trigger_acknowledge"])
            assert plc["busy"] is True
            killed.kill()
            killed.wait()
        assert (plc["busy"], plc["result_valid"]) == (True, False), "nobody has told it anything"
        with running(RUN, station):
            told = plc.take()
            assert told == {
                "result_part_id": 17, "accept": False, "reject": False, "fault": True, "fault_code": Cause.ENDED, "ready": False,
            }  # fmt: skip
            plc.announce(18)
            assert plc.take() | {"ready": None} == {
                "result_part_id": 18, "accept": True, "reject": False, "fault": False, "fault_code": 0, "ready": None,
            }  # fmt: skip
            assert plc["result_count"] == 2
    rows = [(d.seq, d.part_id, d.verdict, d.cause) for d in read_decisions(station_dir / "journal.sqlite")]
    assert rows == [(1, "17", Verdict.FAULT, Cause.ENDED), (2, "18", Verdict.ACCEPT, Cause.NONE)], "one decision a part"
