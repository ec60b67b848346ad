"""A station as a process: signals, kill -9, exit codes, systemd, over real sockets and a real journal."""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import msgspec
import pytest
import zmq

from edge_runtime import wire
from edge_runtime.errors import BundleError, LinesideError
from edge_runtime.model.bundle import read_manifest, write_manifest
from edge_runtime.records import Cause, Decision, Health, State, Trigger, Verdict
from edge_runtime.sinks.announced import Announced
from edge_runtime.sinks.journal import read_decisions
from edge_runtime.station.launch import run_station
from tests.support.ports import free_port
from tests.support.waiting import BUSY_S, until

RUN = [sys.executable, "-m", "edge_runtime.cli", "run"]


def write_station(folder: Path, trigger: str, *, port: int, loop: bool = True, more: str = "") -> Path:
    path = folder / "station.toml"
    path.write_text(
        f'name = "st"\nrecipe = "recipe.toml"\n{more}\n[source]\nkind = "folder"\npath = "parts"\nloop = {json.dumps(loop)}\n'
        f'[trigger]\n{trigger}\n[publisher]\nendpoint = "tcp://127.0.0.1:{port}"\nreplay = "tcp://127.0.0.1:{free_port()}"\n'
    )
    return path


@dataclass
class Subscriber:
    """Collects what is published, in a thread."""

    port: int
    decisions: list[Decision] = field(default_factory=list)
    health: list[Health] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as sock:
            sock.setsockopt(zmq.LINGER, 0)
            sock.setsockopt(zmq.RECONNECT_IVL, 10)
            sock.subscribe(b"")
            sock.connect(f"tcp://127.0.0.1:{self.port}")
            while not self._stop.is_set():
                if not sock.poll(20):
                    continue
                message = wire.decode(sock.recv_multipart())
                if isinstance(message, wire.DecisionMessage):
                    self.decisions.append(message.decision)
                elif isinstance(message, wire.HealthMessage):
                    self.health.append(message.health)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[list[str]]:
    """Stands in for systemd: what it was told so far."""
    messages: list[str] = []
    stop = threading.Event()

    def listen(sock: socket.socket) -> None:
        while not stop.is_set():
            with suppress(TimeoutError):
                messages.append(sock.recv(4096).decode())

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(0.02)
        thread = threading.Thread(target=listen, args=(sock,))
        thread.start()
        yield messages
        stop.set()
        thread.join()


@contextmanager
def running(station: Path, command: list[str] | None = None, watchdog_s: float = 10.0) -> Iterator["subprocess.Popen[str]"]:
    environment = {**os.environ, "NOTIFY_SOCKET": str(station.parent / "notify"), "WATCHDOG_USEC": str(round(watchdog_s * 1e6))}
    process = subprocess.Popen([*(command or RUN), str(station)], stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def patient(folder: Path) -> None:
    """A busy test machine must not make faults where the deadline is not the point."""
    recipe = folder / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("deadline_ms = 500", "deadline_ms = 10000"))


def test_a_folder_is_judged_once_published_journalled_and_ends_with_0(station_dir: Path, told: list[str]) -> None:
    """Law 1, from the trigger to the subscriber, in a process of its own."""
    port = free_port()
    patient(station_dir)
    # Longer than a second in all, so that one of the regular health messages comes while the station runs.
    station = write_station(station_dir, 'kind = "timer"\nperiod_ms = 300', port=port, loop=False)
    with Subscriber(port) as subscriber, running(station, watchdog_s=0.2) as process:
        _, log = process.communicate(timeout=BUSY_S)
        assert process.returncode == 0, log
        until(lambda: len(subscriber.decisions) == 6)
    a, r = Verdict.ACCEPT, Verdict.REJECT
    assert [d.verdict for d in subscriber.decisions] == [a, a, r, a, a, r]
    assert read_decisions(station_dir / "journal.sqlite", 0, 100) == subscriber.decisions
    assert "READY=1" in told
    assert told.count("WATCHDOG=1") >= 3
    assert "STOPPING=1" in told
    assert subscriber.health[-1].device == "CPU"
    assert State.READY in {h.state for h in subscriber.health}
    assert subscriber.health[-1].state is State.STOPPING
    assert subscriber.health[-1].counts["ACCEPT"] + subscriber.health[-1].counts["REJECT"] == 6
    assert "Traceback" not in log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_with_0_after_the_parts_announced_before_it(station_dir: Path, told: list[str], number: signal.Signals) -> None:
    """Every verdict takes 150 ms here, so that one part is in flight and others wait when the signal comes. Its loop begins 200 ms after
    READY, as on a busy machine: what is announced in between is judged as well."""
    code = (
        "import signal, sys, time\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # nohup, under which tests may run, has it ignored
        "from pathlib import Path\nfrom edge_runtime.station import views as inspection\n"
        "from edge_runtime.station.health import ServiceManager\n"
        "from edge_runtime.station.launch import run_station\nfrom edge_runtime.station.loop import Station\n"
        "from edge_runtime.triggers.zeromq import ZeromqLine\n"
        "judge, run, wait = inspection.judge, Station.run, ZeromqLine.wait\n"
        "inspection.judge = lambda *a: time.sleep(0.15) or judge(*a)\nStation.run = lambda self: time.sleep(0.2) or run(self)\n"
        "def tell(trigger):\n    if trigger is not None:\n        ServiceManager().tell(f'TAKEN={trigger.part_id}')\n    return trigger\n"
        "ZeromqLine.wait = lambda *a: tell(wait(*a))\nsys.exit(run_station(Path(sys.argv[1])))\n"
    )
    port, trigger_port = free_port(), free_port()
    patient(station_dir)
    station = write_station(station_dir, f'kind = "zeromq"\nendpoint = "tcp://127.0.0.1:{trigger_port}"', port=port)
    command = [sys.executable, "-c", code]
    with Subscriber(port) as subscriber, running(station, command) as process, zmq.Context() as context, context.socket(zmq.PUSH) as push:
        push.setsockopt(zmq.LINGER, 0)
        push.connect(f"tcp://127.0.0.1:{trigger_port}")
        until(lambda: "READY=1" in told)
        push.send_json({"part_id": "first"})
        until(lambda: subscriber.decisions)
        for i in range(5):
            push.send_json({"part_id": f"part-{i}"})
        until(lambda: "TAKEN=part-4" in told)  # at most one of the five is decided by then
        process.send_signal(number)
        _, log = process.communicate(timeout=BUSY_S)
        assert process.returncode == 0, log
        until(lambda: len(subscriber.decisions) == 6)
        assert [d.part_id for d in subscriber.decisions] == ["first", *(f"part-{i}" for i in range(5))]
    assert Verdict.FAULT not in {d.verdict for d in subscriber.decisions}
    assert read_decisions(station_dir / "journal.sqlite", 0, 100) == subscriber.decisions


def test_a_stop_during_the_start_ends_it_before_the_next_step(station_dir: Path, told: list[str]) -> None:
    """Models take seconds each to open: nothing more is opened, no journal begun, nobody told that it is ready."""
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom edge_runtime.station import recipes\n"
        "from edge_runtime.station.health import ServiceManager\nfrom edge_runtime.station.launch import run_station\n"
        "opened = recipes.open_bundle\n"
        "def slowly(*a):\n    ServiceManager().tell('OPENING=1')\n    time.sleep(0.5)\n    return opened(*a)\n"
        "recipes.open_bundle = slowly\nsys.exit(run_station(Path(sys.argv[1])))\n"
    )
    station = write_station(station_dir, 'kind = "timer"', port=free_port())
    with running(station, [sys.executable, "-c", code]) as process:
        until(lambda: "OPENING=1" in told)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=BUSY_S)
    assert process.returncode == 0, log
    assert "stopped before it had begun" in log
    assert "golden samples agree" not in log
    assert not (station_dir / "journal.sqlite").exists()
    assert "READY=1" not in told


def test_no_signal_stops_the_wait_for_the_next_part(tmp_path: Path) -> None:
    """Python's queue waits for ever when a signal comes in the last microseconds of its time: thousands of short waits under signals."""
    code = (
        "import time\nfrom edge_runtime.handoff import Lane\nfrom edge_runtime.station.process import stopping_on_signals\n"
        "class Station:\n    asked = 0\n    def stop(self):\n        Station.asked += 1\n"
        "lane, until = Lane(1), time.monotonic() + 2\nwith stopping_on_signals() as stop:\n    stop.begin(Station().stop)\n"
        "    print('begun', flush=True)\n    while time.monotonic() < until:\n        lane.get(0.001)\n"
        "print(Station.asked, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.0003)
        try:
            out, _ = process.communicate(timeout=BUSY_S)
        finally:
            process.kill()
    assert process.returncode == 0 and int(out) > 100


def test_kill_9_loses_no_decision_that_anybody_was_told_and_numbers_go_on(station_dir: Path, told: list[str]) -> None:
    """Law 1 beyond the process's end: the journal has whatever anybody was told."""
    port = free_port()
    station = write_station(station_dir, 'kind = "timer"\nperiod_ms = 4', port=port)
    with Subscriber(port) as subscriber:
        for kill_after in (0.15, 0.31, 0.22):
            before = len(subscriber.decisions)
            told.clear()
            with running(station) as process:
                until(lambda: "READY=1" in told)
                until(lambda before=before: len(subscriber.decisions) > before)
                time.sleep(kill_after)
                process.kill()
                process.wait()
            time.sleep(0.1)  # what was sent before the kill still arrives
            kept = {d.seq: d for d in read_decisions(station_dir / "journal.sqlite", 0, 100_000)}
            assert len(subscriber.decisions) > before
            assert [d for d in subscriber.decisions if kept.get(d.seq) != d] == []
            assert sorted(kept) == list(range(1, len(kept) + 1))
    seqs = [d.seq for d in subscriber.decisions]
    assert seqs == sorted(set(seqs))


def test_a_part_that_was_in_flight_at_a_kill_is_a_fault_at_the_next_start_and_its_number_is_nobody_else_s(station_dir: Path) -> None:
    """Law 1, over the end of a process."""
    station = write_station(station_dir, 'kind = "timer"\nperiod_ms = 5', port=free_port(), loop=False)
    journal = station_dir / "journal.sqlite"
    with Announced(journal, lambda: 0) as announced:  # as a station leaves it that was killed with two parts in flight
        announced.note(Trigger(1, 1, "A-1"))
        announced.note(Trigger(2, 2, "A-2", recipe="nobody's"))
    assert run_station(station) == 0
    decided = read_decisions(journal)
    assert [d.seq for d in decided] == list(range(1, 9))
    assert [(d.part_id, d.verdict, d.cause) for d in decided[:2]] == [
        ("A-1", Verdict.FAULT, Cause.ENDED),
        ("A-2", Verdict.FAULT, Cause.ENDED),
    ]
    assert "it was killed, or lost its power" in decided[0].reason
    assert all(d.cause is not Cause.ENDED for d in decided[2:])
    assert run_station(station) == 0
    assert [d.cause for d in read_decisions(journal, 8)].count(Cause.ENDED) == 0, "what was decided is not in flight"


def test_a_golden_sample_that_differs_stops_the_station_before_ready(station_dir: Path, tiny_bundle: Path, told: list[str]) -> None:
    """Law 5: the bundle proves itself on this device first."""
    bundle = station_dir / "altered"
    shutil.copytree(tiny_bundle, bundle)
    manifest, _ = read_manifest(bundle)
    wrong = msgspec.structs.replace(manifest.golden[3], score=manifest.golden[3].score * 1.01)
    write_manifest(bundle, msgspec.structs.replace(manifest, golden=[*manifest.golden[:3], wrong]))
    (station_dir / "recipe.toml").write_text('name = "tiny"\nbundle = "altered"\n')
    station = write_station(station_dir, 'kind = "timer"\nperiod_ms = 5', port=free_port())
    with running(station) as process:
        _, log = process.communicate(timeout=BUSY_S)
    assert process.returncode == 65
    assert "golden/003.png" in log
    assert "Traceback" not in log
    assert "READY=1" not in told
    assert any(text.startswith("STATUS=") and "golden" in text for text in told)
    assert read_decisions(station_dir / "journal.sqlite", 0, 10) == []


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "swap"])
def test_a_bundle_that_was_altered_stops_the_station_and_names_the_file(
    station_dir: Path, tiny_bundle: Path, tmp_path: Path, damage: str
) -> None:
    """Law 5: a bundle is immutable."""
    bundle = station_dir / "altered"
    shutil.copytree(tiny_bundle, bundle)
    file = bundle / "golden/001.png"
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(content[:-20])
    elif damage == "remove":
        file.unlink()
    else:
        file.write_bytes((bundle / "golden/002.png").read_bytes())
    (station_dir / "recipe.toml").write_text('name = "tiny"\nbundle = "altered"\n')
    station = write_station(station_dir, 'kind = "timer"\nperiod_ms = 5', port=free_port())
    with pytest.raises(BundleError, match=r"golden/001\.png") as error:
        run_station(station)
    assert error.value.exit_code == 65
    assert not (station_dir / "journal.sqlite").exists(), "nothing was opened for a bundle that cannot be trusted"


def test_a_log_that_nobody_reads_delays_no_decision(station_dir: Path) -> None:
    """Law 4: every part is a fault with a line in the log, stderr is a pipe of 4 kB, and its reader sleeps."""
    for path in (station_dir / "parts").iterdir():
        path.write_bytes(b"no image")
    station = write_station(station_dir, 'kind = "timer"\nperiod_ms = 5\ncount = 150', port=free_port())
    with running(station) as process:
        assert process.stderr is not None
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        until(lambda: len(read_decisions(station_dir / "journal.sqlite", 0, 1000)) == 150)
        _, log = process.communicate(timeout=BUSY_S)
        assert process.returncode == 0
    assert log.count("FAULT") > 50


def test_a_bug_is_published_as_a_fault_then_ends_with_70_and_its_traceback_is_in_the_log_only(station_dir: Path, told: list[str]) -> None:
    """The bug: the judge's code raises at the third part."""
    code = (
        "import itertools, sys\nfrom pathlib import Path\nfrom edge_runtime.station import views as inspection\n"
        "from edge_runtime.station.launch import run_station\n"
        "real, count = inspection.judge, itertools.count(1)\n"
        "inspection.judge = lambda *a: real(*a) if next(count) < 3 else {}['a bug']\n"
        "sys.exit(run_station(Path(sys.argv[1])))\n"
    )
    port = free_port()
    patient(station_dir)
    station = write_station(station_dir, 'kind = "timer"\nperiod_ms = 400', port=port)
    with Subscriber(port) as subscriber, running(station, [sys.executable, "-c", code]) as process:
        _, log = process.communicate(timeout=BUSY_S)
        assert process.returncode == 70, log
        until(lambda: len(subscriber.decisions) == 3)
    assert [d.verdict for d in subscriber.decisions] == [Verdict.ACCEPT, Verdict.ACCEPT, Verdict.FAULT]
    assert "a bug" not in subscriber.decisions[-1].reason
    assert "Traceback" in log
    assert "KeyError: 'a bug'" in log
    assert read_decisions(station_dir / "journal.sqlite", 0, 10) == subscriber.decisions


@pytest.mark.parametrize(
    ("more", "change", "code", "says"),
    [
        ('device = "NPU"', {}, 69, "Present here"),
        ('device = "AUTO"', {}, 69, "silently"),
        ("", {"parts": "nowhere"}, 74, "nowhere"),
        ("", {"recipe.toml": "other.toml"}, 78, "other.toml"),
        ("unknown_key = 1", {}, 78, "unknown_key"),
        ('recipes = {7 = "other.toml"}', {}, 78, r"recipes\.7: .*other\.toml"),
        ('recipes = {7 = "hollow.toml"}', {}, 65, r"recipes\.7: .*nowhere"),
    ],
)
def test_what_is_missing_ends_with_its_branchs_code_and_one_sentence(
    station_dir: Path, more: str, change: dict[str, str], code: int, says: str
) -> None:
    (station_dir / "hollow.toml").write_text('name = "hollow"\nbundle = "nowhere"\n')
    station = write_station(station_dir, 'kind = "timer"\nperiod_ms = 5', port=free_port(), more=more)
    for old, new in change.items():
        station.write_text(station.read_text().replace(old, new))
    with pytest.raises(LinesideError, match=says) as error:
        run_station(station)
    assert error.value.exit_code == code


def test_archive_and_preview_follow_the_verdicts(station_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    more = 'device = ["GPU", "CPU"]'
    patient(station_dir)
    station = write_station(station_dir, 'kind = "timer"\nperiod_ms = 20', port=free_port(), loop=False, more=more)
    with station.open("a") as f:
        f.write(f'[archive]\npath = "kept"\n[preview]\nendpoint = "tcp://127.0.0.1:{free_port()}"\n')
    assert run_station(station) == 0
    assert "using CPU instead" in caplog.text
    rejects = [d.seq for d in read_decisions(station_dir / "journal.sqlite", 0, 10) if d.verdict is Verdict.REJECT]
    assert len(list((station_dir / "kept").rglob("*.png"))) == len(rejects) == 2
