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
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import cv2
import msgspec
import numpy as np
import typer

from edge_runtime.config import PlcTrigger
from edge_runtime.console import run_app
from edge_runtime.plc.defaults import KINDS, default_trigger
from edge_runtime.sim.plc import SimulatedPlc
from export import demo
from tests.conftest import bad_image, good_image, write_bundle

TABLE = Path(__file__).parents[1] / "deploy" / "plc" / "latency.md"
BEGIN, END = "<!-- figures: made by python -m tests.bench_plc --write -->", "<!-- end of figures -->"
app = typer.Typer(add_completion=False)


@app.command()
def main(
    kind: Annotated[list[str] | None, typer.Option(help="A protocol; repeat it. Default: all.")] = None,
    parts: Annotated[int, typer.Option(min=10, help="A row.")] = 1000,
    rate: Annotated[float, typer.Option(min=1, help="Parts a second.")] = 20.0,
    write: Annotated[bool, typer.Option("--write", help="Put the table into deploy/plc/latency.md.")] = False,
) -> None:
    """A station process with a small model, a simulated PLC in this one (1 ms scan), Modbus, S7, OPC UA or EtherNet/IP between them."""
    rows = []
    for one in kind or KINDS:
        for busy in (False, True):
            with tempfile.TemporaryDirectory() as home, loaded(busy):
                trigger = default_trigger(one, port=demo.free_ports(1)[0])  # type: ignore[arg-type]
                latencies, cpu, violations = measure(Path(home), trigger, parts, rate)
            p50, p99, p999 = np.percentile(latencies, [50, 99, 99.9])
            load = "all cores busy" if busy else "idle"
            row = f"| {one} | {load} | {len(latencies)} | {p50:.1f} | {p99:.1f} | {p999:.1f} | {100 * cpu:.0f} % |"
            rows.append(row)
            print(row, *violations, sep="\n", file=sys.stderr)
    head = "| protocol | machine | parts | p50 ms | p99 ms | p99.9 ms | station's CPU |\n|---|---|---|---|---|---|---|"
    table = f"{head}\n" + "\n".join(rows)
    print(table)
    if write:
        text = TABLE.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        where = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {rate:g} parts a second."
        TABLE.write_text(f"{before}{BEGIN}\n{where}\n\n{table}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def measure(home: Path, trigger: PlcTrigger, parts: int, rate: float) -> tuple[list[float], float, list[str]]:
    """Milliseconds from edge to result for each part, the station's share of one core meanwhile, and what the PLC complained of."""
    station = write_station(home, trigger)
    with SimulatedPlc(trigger, parts_per_minute=60 * rate, count=parts, result_timeout_ms=5000) as plc, (home / "log").open("wb") as log:
        process = subprocess.Popen([demo.tool("lineside"), "run", str(station)], stderr=log)
        try:
            while len(plc.results) < 5:  # the first parts warm it up
                time.sleep(0.01)
                if process.poll() is not None:
                    sys.exit(f"bench: the station ended: {(home / 'log').read_text()}")
            began, cpu = time.monotonic(), cpu_s(process.pid)
            plc.wait_finished(parts / rate + 120)
            share = (cpu_s(process.pid) - cpu) / (time.monotonic() - began)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
    found = [r.latency_ms for r in plc.results.values() if r.latency_ms is not None]
    lost = [f"part {r.part}: no result" for r in plc.results.values() if r.verdict is None]
    return found[5:], share, [*plc.violations, *lost]


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
