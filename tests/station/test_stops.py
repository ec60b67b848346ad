"""Stations that are asked to stop, or stand still, at bad moments. The long rounds are `python -m tests.stops` and `make chaos`."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_runtime.records import Verdict
from edge_runtime.sinks.journal import read_decisions
from tests.chaos import plc
from tests.chaos.histories import broken_laws
from tests.stops import RUN, WITHIN_S, slow_bundle, stop_once
from tests.support.ports import free_ports
from tests.support.waiting import until


def test_a_station_whose_model_is_late_ends_in_order(tmp_path: Path) -> None:
    """Its model comes back while the process ends: the interpreter's own end would abort it (`terminate called`)."""
    bundle = slow_bundle(tmp_path / "slow")
    for n in range(3):
        folder = tmp_path / str(n)
        folder.mkdir()
        assert stop_once(folder, "model late", bundle, in_start_s=None, in_use_s=0.4 + 0.15 * n).wrong == ""


@pytest.mark.alone
def test_a_station_that_still_waits_for_its_camera_ends_within_seconds(tiny_bundle: Path, tmp_path: Path) -> None:
    """The camera takes the connection and sends nothing, for which the station would wait a minute."""
    stopped = stop_once(tmp_path, "camera silent", tiny_bundle, in_start_s=6.0)
    assert stopped.wrong == "" and stopped.took_s < WITHIN_S
    assert "stopped while it was starting; no part was taken" in stopped.said


@pytest.mark.alone
def test_cameras_that_are_silent_are_left_behind_together(tiny_bundle: Path, tmp_path: Path) -> None:
    """Four of them, one after the other, would take longer than a stop may."""
    stopped = stop_once(tmp_path, "four cameras silent", tiny_bundle, in_start_s=None, in_use_s=0.5)
    assert stopped.wrong == "" and stopped.took_s < WITHIN_S


@pytest.mark.alone
def test_no_part_is_accepted_late_by_a_station_that_stood_still(station_dir: Path) -> None:
    """Law 1, by the PLC's own clock: SIGSTOP for longer and shorter than the deadline, while it is idle and just after an edge."""
    port, publisher, replay = free_ports(3)
    history = station_dir / "plc.jsonl"
    history.touch()
    for i in range(6):
        (station_dir / f"parts/{i:02d}.png").rename(station_dir / f"parts/{'bad' if i in (2, 5) else 'good'}_{i:02d}.png")
    recipe = station_dir / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("deadline_ms = 500", "deadline_ms = 300"))
    (station_dir / "station.toml").write_text(
        f'name = "st"\nrecipe = "recipe.toml"\n[source]\nkind = "folder"\npath = "parts"\nloop = true\n'
        f'[publisher]\nendpoint = "tcp://127.0.0.1:{publisher}"\nreplay = "tcp://127.0.0.1:{replay}"\n'
        f'[trigger]\nkind = "modbus"\nhost = "127.0.0.1"\nport = {port}\n{plc.MAP}'
    )

    def events() -> list[dict[str, object]]:
        return [json.loads(line) for line in history.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def count(event: str) -> int:
        return sum(e["event"] == event for e in events())

    rng = random.Random(17)
    line = subprocess.Popen([sys.executable, plc.__file__, str(port), str(history), "100"], stdin=subprocess.PIPE, text=True)
    station = subprocess.Popen([*RUN, str(station_dir / "station.toml")], stderr=subprocess.DEVNULL)
    try:
        until(lambda: count("result") > 3)
        for n, still_s in enumerate((0.05, 0.28, 0.31, 0.4, 1.0) * 2):
            raised = count("raised")
            if n % 2:
                until(lambda: count("raised") > raised)  # noqa: B023
            else:
                time.sleep(rng.uniform(0, 0.1))
            station.send_signal(signal.SIGSTOP)
            time.sleep(still_s)
            station.send_signal(signal.SIGCONT)
            results = count("result")
            until(lambda: count("result") > results + 1)  # noqa: B023
        assert line.stdin is not None
        line.stdin.write("stop\n")
        line.stdin.flush()
        time.sleep(0.5)
        station.terminate()
        assert station.wait() == 0
    finally:
        for process in (station, line):
            process.kill()
            process.communicate()
    decisions = read_decisions(station_dir / "journal.sqlite")
    assert broken_laws(events(), decisions, {}, deadline_ms=300) == []
    assert {Verdict.ACCEPT, Verdict.FAULT} <= {d.verdict for d in decisions}
