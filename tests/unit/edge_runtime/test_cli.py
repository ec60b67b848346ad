"""`lineside`: verbs -> calls -> exit codes. What runs and is stopped by signals runs as a real process."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pytest
import zmq

from edge_runtime.cli import app
from edge_runtime.commands.bench import STAGES
from edge_runtime.console import run_app
from edge_runtime.plc.defaults import default_trigger, trigger_toml
from tests.support.decisions import SCHEMA_1
from tests.support.ports import free_port
from tests.support.waiting import BUSY_S, until

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-m", "edge_runtime.cli"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "160"}


@dataclass
class Done:
    returncode: object
    stdout: str
    stderr: str


@pytest.fixture
def lineside(capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run a verb to its end, in this process."""

    def run(*arguments: str | Path) -> Done:
        with pytest.raises(SystemExit) as e:
            run_app(app, [str(a) for a in arguments])
        out, err = capfd.readouterr()
        return Done(e.value.code or 0, out, err)

    return run


def listens(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def station(station_dir: Path) -> Path:
    """Six parts of a folder on a timer, then it ends."""
    file = station_dir / "station.toml"
    ports = [free_port() for _ in range(3)]
    file.write_text(
        'name = "s"\nrecipe = "recipe.toml"\n[source]\nkind = "folder"\npath = "parts"\n[trigger]\nkind = "timer"\nperiod_ms = 60\n'
        f'[publisher]\nendpoint = "tcp://127.0.0.1:{ports[0]}"\nreplay = "tcp://127.0.0.1:{ports[1]}"\n'
        f'[preview]\nendpoint = "tcp://127.0.0.1:{ports[2]}"\n'
    )
    return file


def loop_for_ever(station: Path) -> None:
    station.write_text(station.read_text().replace('path = "parts"', 'path = "parts"\nloop = true'))


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a verb in the background; whatever still runs afterwards is killed."""
    running: list[subprocess.Popen[str]] = []

    def begin(*arguments: str | Path) -> subprocess.Popen[str]:
        command = [*COMMAND, *map(str, arguments)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def lines(process: subprocess.Popen[str], count: int, timeout_s: float = BUSY_S) -> list[str]:
    """The next `count` lines of its output, or a few more."""
    assert process.stdout is not None
    raw = b""
    until = time.monotonic() + timeout_s
    while raw.count(b"\n") < count and time.monotonic() < until:
        if select.select([process.stdout], [], [], 0.1)[0]:
            raw += os.read(process.stdout.fileno(), 65_536)
    assert raw.count(b"\n") >= count, raw
    return raw[: raw.rindex(b"\n")].decode().splitlines()


@pytest.mark.slow
def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom edge_runtime.cli import main\nsys.argv = ['lineside', '--help']\n"
        "try:\n    main()\nexcept SystemExit as e:\n    assert not e.code\n"
        "print(sorted({'cv2', 'numpy', 'openvino', 'zmq', 'msgspec', 'pymodbus'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_every_verb_is_in_the_help(lineside: Callable[..., Done]) -> None:
    said = lineside("--help").stdout
    for verb in ("run", "check", "tail", "replay", "bench", "overlay", "plc", "sim", "version"):
        assert f"\n  {verb} " in said


def test_the_version_is_told_both_ways(lineside: Callable[..., Done]) -> None:
    assert lineside("--version").stdout == lineside("version").stdout == "lineside 0.1.0\n"


@pytest.mark.parametrize("arguments", [("run",), ("rum",), ("bench", "b", "--count", "0"), ("sim", "plc", "--port", "70000")])
def test_a_usage_error_ends_with_2(lineside: Callable[..., Done], arguments: tuple[str, ...]) -> None:
    done = lineside(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", "{dir}/nowhere.toml"), 78, "nowhere.toml"),
        (("bench", "{dir}/nowhere"), 65, "found nothing at"),
        (("replay", "{dir}/parts", "--bundle", "{dir}/parts"), 65, "manifest.json is missing"),
        (("replay", "{dir}/nowhere", "--bundle", "{bundle}"), 74, "expected a folder of images"),
        (("bench", "{bundle}", "--device", "GPU.9"), 69, "GPU.9"),
        (("tail", "--endpoint", "nonsense"), 78, "nonsense"),
        (("sim", "plc", "{dir}/station.toml"), 78, "trigger.kind"),
        (("sim", "plc", "--protocol", "profinet"), 78, "expected one of modbus, opcua, s7, ethernetip"),
        (("plc", "{dir}/station.toml"), 78, "trigger.kind"),
    ],
)
def test_a_user_s_mistake_is_one_message_and_its_exit_code(
    lineside: Callable[..., Done], station: Path, tiny_bundle: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = lineside(*(a.format(dir=station.parent, bundle=tiny_bundle) for a in arguments))
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_check_has_a_line_for_each_part_and_an_exit_code(lineside: Callable[..., Done], station: Path) -> None:
    done = lineside("check", station)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("✓") == len(done.stdout.splitlines()) > 7
    (station.parent / "recipe.toml").write_text('name = "tiny"\nbundle = "nowhere"\n')
    done = lineside("check", station)
    assert done.returncode == 1
    assert done.stdout.count("✗") == 1


@pytest.mark.slow
def test_a_folder_is_run_to_its_end(station: Path, start: Callable[..., Any]) -> None:
    running = start("run", station)
    assert running.wait(BUSY_S) == 0, running.stderr.read()


@pytest.mark.slow
def test_tail_and_status_show_a_running_station_to_programs_and_people(
    station: Path, start: Callable[..., Any], lineside: Callable[..., Done]
) -> None:
    loop_for_ever(station)
    programs, people, running = start("tail", station, "--json"), start("tail", station), start("run", station)
    decisions = [json.loads(line) for line in lines(programs, 8)]
    first = decisions[0]["seq"]
    assert [d["seq"] for d in decisions] == list(range(first, first + len(decisions)))
    assert [d["verdict"] == "REJECT" for d in decisions] == [(d["seq"] - 1) % 6 in (2, 5) for d in decisions]
    assert {"score", "threshold", "severity", "reason", "regions", "stamps", "bundle_id"} <= set(decisions[0])
    shown = lines(people, 8)
    assert any(" ACCEPT " in line for line in shown)
    assert any(" REJECT " in line and "worst near" in line for line in shown)
    until(lambda: lineside("status", station).returncode == 0)  # a busy machine may have made it late for a moment
    status = lineside("status", station)
    assert status.stderr == ""
    assert "READY" in status.stdout and "ACCEPT" in status.stdout and "p99" in status.stdout
    assert json.loads(lineside("status", station, "--json").stdout)["state"] == "READY"
    for tail in (programs, people):
        tail.send_signal(signal.SIGINT)
        tail.communicate(timeout=BUSY_S)  # reads on: a pipe that is full would keep it from ending
        assert tail.returncode == 0
    running.send_signal(signal.SIGTERM)
    assert running.wait(BUSY_S) == 0


@pytest.mark.slow
def test_status_of_a_station_that_does_not_run_is_one_sentence(lineside: Callable[..., Done], station: Path) -> None:
    done = lineside("status", station)
    assert (done.returncode, done.stdout) == (84, "")
    assert "is the station running" in done.stderr


def test_status_and_tail_of_a_station_of_another_version_are_one_sentence_each(lineside: Callable[..., Done]) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    stop = threading.Event()

    def old_station() -> None:
        with zmq.Context() as context, context.socket(zmq.PUB) as pub:
            pub.linger = 0
            pub.bind(endpoint)
            while not stop.wait(0.05):
                pub.send_multipart([b"health", b"st", (SCHEMA_1 / "health.msgpack").read_bytes()])

    thread = threading.Thread(target=old_station)
    thread.start()
    try:
        for verb in ("status", "tail"):
            done = lineside(verb, "--endpoint", endpoint)
            assert (done.returncode, done.stdout) == (84, "")
            assert done.stderr.count("schema 1") == 1 and "expected messages of schema 2" in done.stderr, done.stderr
            assert "update the other side" in done.stderr
    finally:
        stop.set()
        thread.join()


def test_replay_ends_with_1_when_a_verdict_is_not_as_expected(lineside: Callable[..., Done], station: Path, tiny_bundle: Path) -> None:
    parts = station.parent / "parts"
    table = station.parent / "expected.csv"
    table.write_text("00.png,ACCEPT\n02.png,REJECT\n")
    assert lineside("replay", parts, "--bundle", tiny_bundle, "--expect", table).returncode == 0
    table.write_text("00.png,REJECT\n02.png,REJECT\n")
    done = lineside("replay", parts, "--bundle", tiny_bundle, "--expect", table)
    assert done.returncode == 1
    assert "✗ 00.png: expected REJECT, found ACCEPT" in done.stdout
    done = lineside("replay", parts, "--bundle", tiny_bundle, "--expect", table, "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert [d["path"] for d in report["disagreements"]] == ["00.png"]
    assert (report["images"], report["accepts"], report["rejects"], report["faults"]) == (6, 4, 2, 0)


def test_a_recipe_sets_the_threshold_of_a_replay(lineside: Callable[..., Done], station: Path, tiny_bundle: Path) -> None:
    (station.parent / "lax.toml").write_text('name = "lax"\nbundle = "elsewhere"\nthreshold = 900.0\n')
    done = lineside("replay", station.parent / "parts", "--bundle", tiny_bundle, "--recipe", station.parent / "lax.toml", "--json")
    assert json.loads(done.stdout)["rejects"] == 0


def test_bench_prints_one_object(lineside: Callable[..., Done], tiny_bundle: Path) -> None:
    done = lineside("bench", tiny_bundle, "--count", "10", "--gap-ms", "1", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report["stages_ms"]) == set(STAGES)
    assert all(set(ms) == {"median", "p99"} for ms in report["stages_ms"].values())
    assert report["device"] == "CPU"


def test_bench_prints_a_table_for_people(lineside: Callable[..., Done], tiny_bundle: Path) -> None:
    said = lineside("bench", tiny_bundle, "--count", "10").stdout
    for stage in STAGES:
        assert f"\n{stage} " in said


@pytest.mark.slow
def test_overlay_draws_a_snapshot_of_a_running_station(lineside: Callable[..., Done], station: Path, start: Callable[..., Any]) -> None:
    loop_for_ever(station)
    running = start("run", station)
    file = station.parent / "overlay.png"
    until(lambda: lineside("status", station).returncode == 0)
    assert lineside("overlay", station, "--snapshot", file).returncode == 0
    picture = cv2.imread(str(file))
    assert picture is not None
    assert picture.std() > 5
    running.send_signal(signal.SIGTERM)
    assert running.wait(BUSY_S) == 0


def test_overlay_of_a_station_without_pictures_never_shows_another_ones(lineside: Callable[..., Done], station: Path) -> None:
    station.write_text(station.read_text().partition("[preview]")[0])
    done = lineside("overlay", station, "--snapshot", station.parent / "o.png")
    assert done.returncode == 78
    assert "expected a [preview]" in done.stderr


def test_a_full_disk_is_no_bug() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, "--version"], stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, check=False)
    assert "this machine has no more room on the disk" in done.stderr
    assert done.returncode == 71


@pytest.mark.slow
def test_the_simulated_plc_plays_a_line_for_a_station(station: Path, start: Callable[..., Any]) -> None:
    port = free_port()
    trigger = trigger_toml(default_trigger("modbus", port=port))
    station.write_text(station.read_text().replace('[trigger]\nkind = "timer"\nperiod_ms = 60', trigger))
    loop_for_ever(station)
    plc = start("sim", "plc", station, "--parts-per-minute", "600", "--count", "6")
    until(lambda: listens(port))
    running = start("run", station)
    assert plc.wait(BUSY_S) == 0, plc.stderr.read()
    assert [line.split(",")[0].strip() for line in plc.stdout] == [
        "part 1: ACCEPT", "part 2: ACCEPT", "part 3: REJECT", "part 4: ACCEPT", "part 5: ACCEPT", "part 6: REJECT",
    ]  # fmt: skip
    running.send_signal(signal.SIGTERM)
    assert running.wait(BUSY_S) == 0


def test_sigterm_ends_what_a_command_has_begun(tmp_path: Path) -> None:
    """`kill` on a command that teaches in children must not leave them at work."""
    code = (
        "import subprocess, sys, typer\nfrom edge_runtime.console import run_app, run_child\napp = typer.Typer()\n"
        "@app.command()\ndef f(depth: int):\n"
        "    run_child([sys.executable, __file__, '0']) if depth else run_child(['sh', '-c', 'echo $$ > pid; exec sleep 60'])\n"
        "run_app(app)\n"
    )
    (tmp_path / "nested.py").write_text(code)
    pid = tmp_path / "pid"
    process = subprocess.Popen([sys.executable, "nested.py", "1"], cwd=tmp_path)
    until(lambda: pid.exists() and pid.read_text().strip() != "")
    process.terminate()
    assert process.wait(BUSY_S) == -signal.SIGTERM
    until(lambda: not Path(f"/proc/{pid.read_text().strip()}").exists())
