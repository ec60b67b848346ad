"""`lineside plc`: reads beside a station without writing, writes by hand only without one, records every change."""

import csv
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
from rich.console import Console

from edge_runtime.cli import app
from edge_runtime.commands.plc import Change, PlcWatcher, Screen, parse_settings
from edge_runtime.config.files import PlcTrigger
from edge_runtime.console import run_app
from edge_runtime.errors import ConfigError
from edge_runtime.plc.defaults import default_trigger, trigger_toml
from edge_runtime.plc.kinds import KINDS
from edge_runtime.sim.plc import SimulatedPlc
from tests.support.ports import free_port
from tests.support.waiting import until


def write(folder: Path, settings: PlcTrigger) -> Path:
    file = folder / "station.toml"
    file.write_text(
        f'name = "s"\nrecipe = "r.toml"\n[source]\nkind = "synthetic"\n{trigger_toml(settings)}\n[publisher]\n'
        f'endpoint = "tcp://127.0.0.1:{free_port()}"\nreplay = "tcp://127.0.0.1:{free_port()}"\n'
    )
    return file


@pytest.fixture
def plc() -> Iterator[SimulatedPlc]:
    with SimulatedPlc(default_trigger("modbus", port=free_port()), count=0) as plc:
        yield plc


@pytest.fixture
def station(plc: SimulatedPlc, tmp_path: Path) -> Path:
    return write(tmp_path, plc._settings)


@pytest.fixture
def lineside(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as e:
            run_app(app, ["plc", *map(str, arguments)])
        out, err = capfd.readouterr()
        return int(e.value.code or 0), out, err

    return run


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_one_reading_shows_every_signal(kind: str, tmp_path: Path, lineside: Callable[..., tuple[int, str, str]]) -> None:
    settings = default_trigger(kind, port=free_port())
    with SimulatedPlc(settings, count=0) as plc:
        plc.server.set({"part_id": 77, "ready": True, "severity": 1.25})
        code, out, _ = lineside(write(tmp_path, settings), "--once", "--json")
    values = json.loads(out)["values"]
    assert code == 0
    assert len(values) == 19
    assert (values["part_id"], values["ready"], values["busy"], values["severity"]) == (77, True, False, 1.25)


def test_looking_on_writes_nothing(plc: SimulatedPlc) -> None:
    """Beside a running station, an output written back as it was read would undo what the station wrote meanwhile."""
    with PlcWatcher(plc._settings) as monitor:
        assert not any(tag.writable for tag in monitor._port._tags.values())  # type: ignore[attr-defined]
        assert len(list(monitor.changes(0))) == 1


@pytest.mark.slow
def test_a_trace_has_every_change(plc: SimulatedPlc, station: Path, tmp_path: Path, lineside: Callable[..., tuple[int, str, str]]) -> None:
    trace = tmp_path / "trace.csv"

    def act() -> None:
        """Each change once the one before it is in the file, however slow the machine."""
        for value, seen in ((True, "busy,0\n"), (False, "busy,1\n")):
            until(lambda: trace.exists() and seen in trace.read_text())  # noqa: B023
            time.sleep(0.2)
            plc.server.set({"busy": value})

    actor = threading.Thread(target=act)
    actor.start()
    code, out, _ = lineside(station, "--seconds", "2", "--trace", trace)
    actor.join()
    assert code == 0
    rows = list(csv.DictReader(trace.read_text().splitlines()))
    assert len({row["signal"] for row in rows}) == 19
    assert [row["value"] for row in rows if row["signal"] == "busy"] == ["0", "1", "0"]
    _, began, ended = (float(row["seconds"]) for row in rows if row["signal"] == "busy")
    assert ended - began > 0.1
    assert [line.split("  ")[1] for line in out.splitlines()[1:]] == ["busy=1", "busy=0"]


def test_an_output_is_set_after_a_warning(plc: SimulatedPlc, station: Path, lineside: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = lineside(station, "--set", "ready=1", "--set", "severity=2.5", "--yes")
    assert code == 0
    assert "the PLC, which may act on it" in err
    assert "ready=1" in out
    assert plc.server.get(["ready", "severity"]) == {"ready": True, "severity": 2.5}


def test_without_a_yes_nothing_is_set(
    plc: SimulatedPlc, station: Path, lineside: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    code, _, _ = lineside(station, "--set", "ready=1")
    assert code == 1
    assert plc.server.get(["ready"]) == {"ready": False}


def test_nothing_is_set_while_the_station_runs(plc: SimulatedPlc, station: Path, lineside: Callable[..., tuple[int, str, str]]) -> None:
    from edge_runtime.config.files import load_station

    with zmq.Context() as context, context.socket(zmq.PUB) as running:
        running.bind(load_station(station).publisher.endpoint)
        code, _, err = lineside(station, "--set", "ready=1", "--yes")
    assert code == 73
    assert "nothing was set" in err
    assert plc.server.get(["ready"]) == {"ready": False}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("trigger=1", "trigger is the PLC's to write"),
        ("redy=1", "redy, which is no signal"),
        ("ready", "expected SIGNAL=VALUE"),
        ("ready=2", 'expected 0 or 1, found "2"'),
        ("severity=1000", "expected 0 to 655.35, found 1000"),
        ("severity=high", 'expected a number, found "high"'),
        ("fault_code=1.5", "expected a whole number, found 1.5"),
        ("fault_code=nan", 'expected a number, found "nan"'),
    ],
)
def test_what_cannot_be_set_is_said(wanted: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        parse_settings(default_trigger("modbus"), [wanted])


@pytest.mark.slow
def test_a_plc_that_goes_and_comes_back_is_shown(plc: SimulatedPlc) -> None:
    seen: list[Change] = []
    with PlcWatcher(plc._settings) as monitor:
        for change in monitor.changes(8.0):
            seen.append(change)
            if len(seen) == 1:
                plc.power_off(0.2)
            if any(c.problem for c in seen) and change.values:
                break
    assert sum(c.problem is not None for c in seen) == 1
    assert len(seen[-1].values) == 19, "all of them again"


def test_a_plc_that_is_not_there_is_one_sentence(tmp_path: Path, lineside: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = lineside(write(tmp_path, default_trigger("modbus", port=free_port())), "--once")
    assert code == 76
    assert err.count("\n") == 1


def test_another_kind_of_trigger_has_no_tags(tmp_path: Path, lineside: Callable[..., tuple[int, str, str]]) -> None:
    file = tmp_path / "station.toml"
    file.write_text('name = "s"\nrecipe = "r.toml"\n[source]\nkind = "synthetic"\n[trigger]\nkind = "timer"\n')
    code, _, err = lineside(file)
    assert code == 78
    assert 'expected a PLC (modbus, opcua, s7, ethernetip), found "timer"' in err


def test_the_screen_shows_address_value_and_age(plc: SimulatedPlc) -> None:
    with PlcWatcher(plc._settings) as monitor:
        first = next(iter(monitor.changes(0)))
        screen = Screen(monitor)
        screen.add(first)
        screen.add(Change(first.wall_time, 2.0, {"busy": True}))
        console = Console(width=140)
        screen._console = console
        with console.capture() as capture:
            console.print(screen._table(5.0))
        narrow = screen._console = Console(width=60)
        with narrow.capture() as captured:
            narrow.print(screen._table(5.0))
        screen.add(Change(first.wall_time, 3.0, {"part_id": "A" * 70}))
        with narrow.capture() as long:
            narrow.print(screen._table(5.0))
    assert long.get().count("A") >= 70, "a long value is folded"
    assert "coil:20" in long.get()
    assert ["busy", "coil:20", "1", "3.0", "s", "ago"] in [row.split() for row in captured.get().splitlines()]
    line = next(row for row in capture.get().splitlines() if row.split()[:1] == ["busy"])
    assert line.split() == ["busy", "station", "->", "PLC", "coil:20", "bool", "1", "3.0", "s", "ago"]
