"""A whole station whose disk is full, whose ports are taken, whose listeners never read: it says so, and decisions go on."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from edge_runtime import wire
from edge_runtime.client import DecisionClient
from edge_runtime.config.files import JournalConfig
from edge_runtime.errors import SinkError
from edge_runtime.records import Decision, Health, State, Verdict
from edge_runtime.sinks.journal import Journal, read_decisions
from edge_runtime.station.launch import run_station
from tests.support.ports import free_port
from tests.support.waiting import BUSY_S

RUN = [sys.executable, "-m", "edge_runtime.cli", "run"]


class StationFile:
    """A station over parts/ with every sink, on free ports."""

    def __init__(self, folder: Path, *, loop: bool, period_ms: int, disk: Path | None = None) -> None:
        self.path = folder / "station.toml"
        self.disk = disk or folder
        self.publisher, self.replay, self.preview = (f"tcp://127.0.0.1:{free_port()}" for _ in range(3))
        recipe = folder / "recipe.toml"
        recipe.write_text(recipe.read_text().replace("= 500", "= 10000"))  # a busy test machine must not make faults here
        self.path.write_text(f"""
            name = "st"
            recipe = "recipe.toml"
            queue = 64
            [source]
            kind = "folder"
            path = "parts"
            loop = {str(loop).lower()}
            [trigger]
            kind = "timer"
            period_ms = {period_ms}
            [publisher]
            endpoint = "{self.publisher}"
            replay = "{self.replay}"
            [journal]
            path = "{self.disk}/journal.sqlite"
            [archive]
            path = "{self.disk}/archive"
            quota_mb = 1
            [preview]
            endpoint = "{self.preview}"
        """)


class Listener:
    """Keeps every decision and the last health record; fails on a gap."""

    def __init__(self, client: DecisionClient) -> None:
        self._client = client
        self.decisions: list[Decision] = []

    def listen_until(self, true: Callable[[], object], timeout_s: float = BUSY_S) -> None:
        until = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < until, f"did not happen in time; {len(self.decisions)} decisions; {self.health}"
            item = self._client.receive(0.1)
            assert item is None or isinstance(item, Decision), f"a gap: {item}"
            if item is not None:
                self.decisions.append(item)

    def hear_the_rest(self) -> None:
        while (item := self._client.receive(0.3)) is not None:
            assert isinstance(item, Decision), f"a gap: {item}"
            self.decisions.append(item)

    @property
    def health(self) -> Health | None:
        return self._client.health

    def state(self) -> State | None:
        return self.health.state if self.health else None

    def problems(self) -> str:
        return "\n".join(self.health.problems) if self.health else ""


@contextlib.contextmanager
def running(station: StationFile, before: tuple[str, ...] = ()) -> Iterator["subprocess.Popen[str]"]:
    log = station.path.with_suffix(".log")
    with log.open("w") as stderr, subprocess.Popen([*before, *RUN, str(station.path)], stderr=stderr, text=True) as process:
        try:
            yield process
        except AssertionError:
            print(log.read_text())
            raise
        finally:
            process.kill()


def end(process: "subprocess.Popen[str]") -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(BUSY_S)


def test_a_full_disk_under_journal_and_archive_is_visible_and_stops_no_decision(
    station_dir: Path, small_disk: tuple[Path, Path, tuple[str, ...]]
) -> None:
    inside, outside, enter = small_disk
    station = StationFile(station_dir, loop=True, period_ms=40, disk=inside)
    with DecisionClient(station.publisher, station.replay, connect_s=0.05) as client, running(station, enter) as process:
        listener = Listener(client)
        listener.listen_until(lambda: len(listener.decisions) >= 20 and listener.state() is State.READY)
        with (outside / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while ballast.write(bytes(4096)):
                pass
        listener.listen_until(lambda: listener.state() is State.DEGRADED and "archive" in listener.problems())
        assert "journal" in listener.problems()
        assert "full" in listener.problems()
        assert "MB of its disk are free" in listener.problems()
        before = len(listener.decisions)
        listener.listen_until(lambda: len(listener.decisions) >= before + 50)

        (outside / "ballast").unlink()
        listener.listen_until(lambda: listener.state() is State.READY)
        assert end(process) == 0
        listener.hear_the_rest()

    assert {d.verdict for d in listener.decisions} == {Verdict.ACCEPT, Verdict.REJECT}, "no part became a fault"
    assert [d.seq for d in listener.decisions] == list(range(1, len(listener.decisions) + 1))
    shutil.copytree(outside, station_dir / "copy")
    written = read_decisions(station_dir / "copy" / "journal.sqlite", 0, 10_000)
    assert written == listener.decisions, "also what was decided while the disk was full"


def test_listeners_that_never_read_delay_nobody_and_do_not_fill_the_memory(station_dir: Path) -> None:
    station = StationFile(station_dir, loop=True, period_ms=40)
    with (
        zmq.Context() as context,
        context.socket(zmq.SUB) as lazy,
        context.socket(zmq.DEALER) as asks_only,
        DecisionClient(station.publisher, station.replay, connect_s=0.05) as client,
        running(station) as process,
    ):
        lazy.linger = asks_only.linger = 0
        lazy.set(zmq.RCVHWM, 1)
        lazy.subscribe(b"")
        lazy.connect(station.publisher)
        lazy.connect(station.preview)
        asks_only.set(zmq.RCVHWM, 1)
        asks_only.set(zmq.RCVBUF, 4096)
        asks_only.connect(station.replay)
        listener = Listener(client)
        listener.listen_until(lambda: len(listener.decisions) >= 100)
        memory = resident_bytes(process.pid)
        for number in range(2000):  # a page of 100 decisions each: some 80 MB of answers
            asks_only.send(wire.encode_replay(wire.ReplayRequest(request=number, after_seq=0)))
        before = len(listener.decisions)
        listener.listen_until(lambda: len(listener.decisions) >= before + 100)
        assert resident_bytes(process.pid) - memory < 30e6
        assert end(process) == 0
        listener.hear_the_rest()
    assert read_decisions(station_dir / "journal.sqlite", 0, 10_000) == listener.decisions
    assert [d.seq for d in listener.decisions] == list(range(1, len(listener.decisions) + 1))
    assert Verdict.FAULT not in {d.verdict for d in listener.decisions}


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("which", ["publisher", "replay", "preview"])
def test_a_port_in_use_is_named_and_once_it_is_free_the_station_starts(station_dir: Path, which: str) -> None:
    station = StationFile(station_dir, loop=False, period_ms=5)
    endpoint = getattr(station, which)
    with zmq.Context() as context, context.socket(zmq.PUB) as other:
        other.bind(endpoint)
        with pytest.raises(SinkError, match=f"expected to bind {endpoint}.*in use") as error:
            run_station(station.path)
        assert error.value.exit_code == 73
    assert run_station(station.path) == 0, "what the failed start had opened was closed again"
    assert len(read_decisions(station_dir / "journal.sqlite")) == 6


def test_a_damaged_journal_stops_the_start_and_is_left_as_it_is(station_dir: Path) -> None:
    station = StationFile(station_dir, loop=False, period_ms=5)
    (station_dir / "journal.sqlite").write_bytes(b"not a database, but somebody's file\n" * 200)
    with pytest.raises(SinkError, match=r"journal\.sqlite.*move it aside"):
        run_station(station.path)
    assert (station_dir / "journal.sqlite").read_bytes().startswith(b"not a database")


def test_a_journal_that_another_station_writes_stops_the_start(station_dir: Path) -> None:
    station = StationFile(station_dir, loop=False, period_ms=5)
    with (
        Journal(JournalConfig(path=station_dir / "journal.sqlite"), "the other"),
        pytest.raises(SinkError, match="another station"),
    ):
        run_station(station.path)


def test_an_archive_that_cannot_be_a_folder_stops_the_start(station_dir: Path) -> None:
    station = StationFile(station_dir, loop=False, period_ms=5)
    (station_dir / "archive").write_text("a file")
    with pytest.raises(SinkError, match=r"archive .*archive: expected a folder"):
        run_station(station.path)
