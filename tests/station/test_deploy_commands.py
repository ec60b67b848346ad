"""`lineside deploy`, `tune`, `rollback` and `promote` against a station as a process, and what `status`, `check` and the journal say."""

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_runtime.control import ControlClient
from edge_runtime.errors import BundleError, ConfigError, Refused
from edge_runtime.model.bundle import read_manifest
from edge_runtime.sinks.journal import read_decisions
from tests.support.ports import free_ports
from tests.support.waiting import BUSY_S, until

LINESIDE = [sys.executable, "-m", "edge_runtime.cli"]


def lineside(*words: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*LINESIDE, *map(str, words)], capture_output=True, text=True, timeout=BUSY_S, check=False)


@contextlib.contextmanager
def running(folder: Path, control: str = 'control.endpoint = "ipc://control.sock"') -> Iterator[Path]:
    """The station of `folder` as a process, which has decided."""
    ports = free_ports(2)
    station = folder / "station.toml"
    station.write_text(
        f'name = "st"\nrecipe = "recipe.toml"\nqueue = 64\n{control}\n[source]\nkind = "folder"\npath = "parts"\nloop = true\n'
        '[trigger]\nkind = "timer"\nperiod_ms = 50\n'
        f'[publisher]\nendpoint = "tcp://127.0.0.1:{ports[0]}"\nreplay = "tcp://127.0.0.1:{ports[1]}"\n'
    )
    recipe = folder / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("deadline_ms = 500", "deadline_ms = 10000"))
    process = subprocess.Popen([*LINESIDE, "run", str(station)], stderr=subprocess.PIPE, text=True, cwd=folder)
    try:
        until(lambda: (folder / "journal.sqlite").exists() and last(folder))
        yield station
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=BUSY_S)
        assert process.returncode == 0 and "Traceback" not in log, log
    finally:
        process.kill()
        process.communicate()


def last(folder: Path) -> tuple[str, float]:
    decisions = read_decisions(folder / "journal.sqlite", 0, 100_000)
    return (decisions[-1].bundle_id, decisions[-1].threshold) if decisions else ("", 0.0)


@pytest.mark.slow
def test_the_commands_change_what_judges_and_everybody_says_since_when_by_whom_and_why(
    station_dir: Path, tiny_bundle: Path, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(station_dir)  # for the socket's path, which must be short
    a, other = read_manifest(tiny_bundle)[1], make_bundle(name="other", threshold=150.0)
    b = read_manifest(other)[1]
    with running(station_dir) as station, ControlClient("ipc://control.sock") as control:
        done = lineside("deploy", other, station, "--as", "anna", "--why", "the new lamp")
        assert (done.returncode, "bundle other 1" in done.stdout) == (0, True), done.stderr
        until(lambda: last(station_dir) == (b, 150.0))
        status = lineside("status", station).stdout
        assert "by anna (" in status and "the new lamp" in status
        control.ask("tune", {"threshold": 120.0}, why="too lax", timeout_s=BUSY_S)
        until(lambda: last(station_dir) == (b, 120.0))
        refused = lineside("tune", station, "--threshold", 1e6, "--why", "too lax")
        assert refused.returncode == ConfigError.exit_code
        assert "threshold of at most" in refused.stderr and "Traceback" not in refused.stderr
        with pytest.raises(Refused, match="this is no bundle") as refusal:
            control.ask("deploy", {"bundle": str(station_dir)}, why="x", timeout_s=BUSY_S)
        assert refusal.value.exit_code == BundleError.exit_code
        control.ask("rollback", why="better before", timeout_s=BUSY_S)
        until(lambda: last(station_dir) == (b, 150.0))
        assert "looks on from now on" in lineside("deploy", tiny_bundle, station, "--shadow", 1, "--why", "to compare").stdout
        until(lambda: "shadow: " in lineside("status", station).stdout)
        control.ask("promote", why="it was right", timeout_s=BUSY_S)
        until(lambda: last(station_dir) == (a, 20.0))
    checked = lineside("check", station).stdout
    assert "promoted" in checked and "it was right" in checked
    with contextlib.closing(sqlite3.connect(station_dir / "journal.sqlite")) as journal:
        rows = journal.execute("SELECT kind, body FROM chain WHERE kind IN ('deploy', 'tune', 'rollback', 'shadow', 'promote')").fetchall()
    assert [kind for kind, _ in rows] == ["deploy", "tune", "rollback", "shadow", "promote"]
    said = json.loads(rows[0][1])
    assert (said["old"], said["new"], said["why"], said["who"].startswith("anna (")) == (a, b, "the new lamp", True)
    verified = lineside("journal", "verify", station)
    assert verified.returncode == 0, verified.stdout


def test_a_station_without_a_control_socket_is_told_to_have_one(station_dir: Path) -> None:
    (station_dir / "station.toml").write_text(
        'name = "st"\nrecipe = "recipe.toml"\n[source]\nkind = "folder"\npath = "parts"\n[trigger]\nkind = "timer"\n'
    )
    done = lineside("rollback", station_dir / "station.toml", "--why", "x")
    assert done.returncode == ConfigError.exit_code
    assert "this station has no control socket" in done.stderr
