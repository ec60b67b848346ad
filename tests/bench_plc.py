"""How long the PLC waits, from its edge to the result that it sees, by protocol, without and with load: `python -m tests.bench_plc`."""

import contextlib
import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import msgspec
import numpy as np
import typer

from edge_runtime.config.files import PlcTrigger
from edge_runtime.console import run_app
from edge_runtime.plc.defaults import default_trigger
from edge_runtime.plc.kinds import KINDS
from edge_runtime.plc.modbus import ModbusTriggerConfig
from edge_runtime.sim.plc import SimulatedPlc
from edge_runtime.sinks.journal_file import read_decisions
from export import demo
from tests.conftest import bad_image, good_image, write_bundle

TABLE = Path(__file__).parents[1] / "deploy" / "plc" / "latency.md"
BEGIN, END = "<!-- figures: made by python -m tests.bench_plc --write -->", "<!-- end of figures -->"
LIBMODBUS = "libmodbus"
PLC_IN_C = Path(__file__).parent / "contract" / "peers" / "modbus_plc.c"
app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Row:
    """One line on one machine."""

    told_ms: dict[int, float]
    """Part -> from raising its trigger to its result."""
    less_ms: dict[int, float]
    """The same without the time from the beginning of the grab to the model's answer."""
    cpu: float
    """The station's share of one core."""
    complaints: list[str]


@app.command()
def main(
    kind: Annotated[list[str] | None, typer.Option(help="A protocol, or libmodbus; repeat it. Default: all.")] = None,
    parts: Annotated[int, typer.Option(min=10, help="A row.")] = 1000,
    rate: Annotated[float, typer.Option(min=1, help="Parts a second.")] = 20.0,
    write: Annotated[bool, typer.Option("--write", help="Put the table into deploy/plc/latency.md.")] = False,
) -> None:
    """A station process with a small model and a PLC: in this process (1 ms scan), or "libmodbus", a program in C."""
    lines = []
    for one in kind or [LIBMODBUS, *KINDS]:
        for busy in (False, True):
            with tempfile.TemporaryDirectory() as home, loaded(busy):
                row = measure(Path(home), one, parts, rate)
            figures = [f"{v:.1f}" for ms in (row.less_ms, row.told_ms) for v in np.percentile(list(ms.values()), [50, 99, 99.9])]
            cells = [one, "all cores busy" if busy else "idle", str(len(row.told_ms)), *figures, f"{100 * row.cpu:.0f} %"]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], *row.complaints, sep="\n", file=sys.stderr)
    columns = ["PLC", "machine", "parts", "p50 ms", "p99 ms", "p99.9 ms", "whole p50", "whole p99", "whole p99.9", "station's CPU"]
    table = "\n".join([f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *lines])
    print(table)
    if write:
        text = TABLE.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        where = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {rate:g} parts a second."
        TABLE.write_text(f"{before}{BEGIN}\n{where}\n\n{table}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def measure(home: Path, kind: str, parts: int, rate: float) -> Row:
    """A line of so many parts."""
    trigger = default_trigger("modbus" if kind == LIBMODBUS else kind, port=demo.free_ports(1)[0])
    station = write_station(home, trigger)
    with (libmodbus if kind == LIBMODBUS else simulated)(home, trigger, parts, rate) as plc, (home / "log").open("wb") as log:
        process = subprocess.Popen([demo.tool("lineside"), "run", str(station)], stderr=log)
        try:
            while not read_decisions(home / "journal.sqlite", limit=1):
                time.sleep(0.05)
                if process.poll() is not None:
                    sys.exit(f"bench: the station ended: {(home / 'log').read_text()}")
            began, cpu = time.monotonic(), cpu_s(process.pid)
            told_ms, complaints = plc()
            share = (cpu_s(process.pid) - cpu) / (time.monotonic() - began)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
    stamps = {int(d.part_id): d.stamps for d in read_decisions(home / "journal.sqlite", limit=2 * parts)}
    told_ms = {part: ms for part, ms in told_ms.items() if part > 5}  # the first ones warm it up
    less_ms = {part: ms - (stamps[part].predicted_ns - stamps[part].captured_ns) / 1e6 for part, ms in told_ms.items()}
    return Row(told_ms, less_ms, share, complaints)


@contextlib.contextmanager
def simulated(home: Path, trigger: PlcTrigger, parts: int, rate: float) -> Iterator[Callable[[], tuple[dict[int, float], list[str]]]]:
    """Calling it waits for the last part; returns part -> ms, and what the PLC complained of."""
    with SimulatedPlc(trigger, parts_per_minute=60 * rate, count=parts, result_timeout_ms=5000) as plc:

        def finish() -> tuple[dict[int, float], list[str]]:
            plc.wait_finished(parts / rate + 120)
            lost = [f"part {r.part}: no result" for r in plc.results.values() if r.verdict is None]
            return {n: r.latency_ms for n, r in plc.results.items() if r.latency_ms is not None}, [*plc.violations, *lost]

        yield finish


@contextlib.contextmanager
def libmodbus(home: Path, trigger: PlcTrigger, parts: int, rate: float) -> Iterator[Callable[[], tuple[dict[int, float], list[str]]]]:
    """The same with a PLC in C."""
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "libmodbus"], capture_output=True, text=True)
    if flags.returncode:
        sys.exit("bench: libmodbus is not installed: apt-get install libmodbus-dev gcc pkg-config; or name the kinds with --kind")
    subprocess.run(["gcc", str(PLC_IN_C), "-o", str(home / "plc"), *flags.stdout.split()], check=True)
    assert isinstance(trigger, ModbusTriggerConfig)
    command = [str(home / "plc"), str(trigger.port), str(parts), str(round(1e6 / rate))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as plc:
        assert plc.stdout is not None
        plc.stdout.readline()
        try:
            yield lambda: ({n: int(us) / 1e3 for n, us in enumerate(plc.communicate(timeout=parts / rate + 120)[0].split(), 1)}, [])
        finally:
            plc.kill()


def write_station(home: Path, trigger: PlcTrigger) -> Path:
    """A folder of small pictures, the tests' small model; returns the station file."""
    bundle = write_bundle(home / "bundle")
    (home / "parts").mkdir()
    for i in range(6):
        cv2.imwrite(str(home / "parts" / f"{i}.png"), bad_image(seed=i) if i == 5 else good_image(seed=i))
    (home / "recipe.toml").write_text(f'name = "bench"\nbundle = "{bundle}"\ndeadline_ms = 500\n')
    ports = demo.free_ports(2)
    sockets = {"endpoint": f"tcp://127.0.0.1:{ports[0]}", "replay": f"tcp://127.0.0.1:{ports[1]}"}
    source = {"kind": "folder", "path": "parts", "loop": True}
    content = {"name": "bench", "recipe": "recipe.toml", "source": source, "publisher": sockets, "trigger": msgspec.to_builtins(trigger)}
    (home / "station.toml").write_text("\n".join(f"{key} = {toml(value)}" for key, value in content.items()))
    return home / "station.toml"


def toml(value: object) -> str:
    """Inline; what is None is left out."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {toml(v)}" for k, v in value.items() if v is not None) + " }"
    return json.dumps(value)


@contextlib.contextmanager
def loaded(busy: bool) -> Iterator[None]:
    """With `busy`, a process a core that computes all the time."""
    burning = [multiprocessing.Process(target=burn, daemon=True) for _ in range(os.cpu_count() or 1)] if busy else []
    for process in burning:
        process.start()
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            process.join()


def burn() -> None:
    """For ever."""
    x = 1
    while True:
        x = x * 3 % 1_000_003


def cpu_s(pid: int) -> float:
    """User and system seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    run_app(app)
