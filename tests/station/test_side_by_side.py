"""Several stations on one PC: each with CPUs of its own, none disturbs the other."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from edge_runtime.errors import SinkError
from edge_runtime.records import Verdict
from edge_runtime.sinks.journal import read_decisions
from tests.station.test_process import RUN, free_port, patient, write_station
from tests.support.waiting import BUSY_S, until

CPUS = sorted(os.sched_getaffinity(0))
ON_ONE_CPU = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); os.execv(sys.argv[2], sys.argv[2:])"


def judged(folder: Path, count: int) -> bool:
    try:
        return len(read_decisions(folder / "journal.sqlite")) >= count
    except SinkError:
        return False  # it is being created


def cpus_of(task: int) -> set[int]:
    try:
        return os.sched_getaffinity(task)
    except ProcessLookupError:
        return set()  # it has ended since


@pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")
def test_two_stations_keep_to_their_own_cpus_and_answer_every_part(station_dir: Path) -> None:
    """As two instances of the unit with CPUAffinity= in a drop-in: every thread of each, OpenVINO's too, stays where it belongs."""
    patient(station_dir)
    with contextlib.ExitStack() as stack:
        running = []
        for cpu in CPUS[:2]:
            folder = station_dir / f"station-{cpu}"
            folder.mkdir()
            for name in ("parts", "recipe.toml"):
                (shutil.copytree if name == "parts" else shutil.copy)(station_dir / name, folder / name)
            station = write_station(folder, 'kind = "timer"\nperiod_ms = 50', port=free_port(), more="queue = 64")
            command = [sys.executable, "-c", ON_ONE_CPU, str(cpu), *RUN, str(station)]
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            running.append((cpu, folder, process))
        for cpu, folder, process in running:
            until(partial(judged, folder, 5))
            tasks = [int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir()]
            assert len(tasks) > 3
            assert set().union(*map(cpus_of, tasks)) == {cpu}
        for _, folder, process in running:
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=BUSY_S)
            assert process.returncode == 0, log
            assert "on CPU, 1 inference threads" in log
            decisions = read_decisions(folder / "journal.sqlite")
            assert [d.seq for d in decisions] == list(range(1, len(decisions) + 1))
            assert all(d.verdict is (Verdict.ACCEPT if d.seq % 3 else Verdict.REJECT) for d in decisions)
