"""What a station's start costs in two checkouts, in turn in one run: CPU and wall time until READY, and the same of `lineside --help`.

    python -m tests.bench_start --bundle BUNDLE --images FOLDER --other ../lineside-of-before

CPU is that of the station and of the door's process, which is not waited for. Each station starts beside the journal that the last one
of its checkout has left.
"""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from tests.support.ports import free_ports

RUN = "import sys; sys.argv[0] = 'lineside'; from edge_runtime.entry import main; main()"
STATION = """name = "start"
recipe = "recipe.toml"
[source]
kind = "folder"
path = "{images}"
loop = true
[trigger]
kind = "timer"
period_ms = 1000
[publisher]
endpoint = "tcp://127.0.0.1:{ports[0]}"
replay = "tcp://127.0.0.1:{ports[1]}"
"""
_DOOR_S = 0.5
"""By then the door's process has started as well."""


def start(checkout: Path, home: Path) -> dict[str, float]:
    """One station, until it says READY."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address := str(home / "notify"))
        manager.settimeout(60)
        environment = {**os.environ, "PYTHONPATH": str(checkout), "NOTIFY_SOCKET": address}
        began = time.monotonic()
        command = [sys.executable, "-c", RUN, "run", str(home / "station.toml")]
        with subprocess.Popen(command, env=environment, cwd=home, stderr=subprocess.DEVNULL) as process:
            while b"READY=1" not in manager.recv(4096):
                pass
            wall, cpu = time.monotonic() - began, cpu_of(process.pid)
            time.sleep(_DOOR_S)
            children = {pid for task in Path(f"/proc/{process.pid}/task").iterdir() for pid in (task / "children").read_text().split()}
            door = sum(cpu_of(int(pid)) for pid in children)
            process.send_signal(signal.SIGTERM)
    (home / "notify").unlink()
    return {"wall": wall, "cpu": cpu + door, "door_cpu": door}


def cpu_of(pid: int) -> float:
    """Seconds that a process has computed, those of its threads that have ended included."""
    return time.clock_gettime(~pid << 3 | 2)  # CPUCLOCK_SCHED of clock_getcpuclockid(3)


def helped(checkout: Path) -> dict[str, float]:
    """`lineside --help`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", RUN, "--help"]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(checkout)}, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"help_cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def bench(
    bundle: Annotated[Path, typer.Option(help="A bundle that both can read.")],
    images: Annotated[Path, typer.Option(help="A folder of its pictures.")],
    other: Annotated[Path, typer.Option(help="The checkout to compare with.")],
    pairs: Annotated[int, typer.Option(min=2, help="Starts of each.")] = 10,
) -> None:
    """Medians, and this checkout's share of the other, pair by pair."""
    here = Path(__file__).parents[1]
    for checkout in (here, other):  # as an installed station's modules are
        subprocess.run([sys.executable, "-m", "compileall", "-q", "edge_runtime"], cwd=checkout, check=True)
    found: dict[str, list[dict[str, float]]] = {"here": [], "other": []}
    with tempfile.TemporaryDirectory() as folder:
        for name in found:
            home = Path(folder, name)
            home.mkdir()
            (home / "recipe.toml").write_text(f'name = "start"\nbundle = "{bundle.resolve()}"\n')
            (home / "station.toml").write_text(STATION.format(images=images.resolve(), ports=free_ports(2)))
        for i in range(pairs + 1):
            for name, checkout in (("here", here), ("other", other.resolve()))[:: 1 if i % 2 else -1]:
                figures = start(checkout, Path(folder, name)) | helped(checkout)
                if i:  # the first of each compiles and makes its files
                    found[name].append(figures)
    result: dict[str, Any] = {name: {key: round(median(f[key] for f in all_), 4) for key in all_[0]} for name, all_ in found.items()}
    result["share"] = {
        key: round(median(a[key] / b[key] for a, b in zip(found["here"], found["other"], strict=True)), 3)
        for key in ("wall", "cpu", "help_cpu")
    }
    print(json.dumps({"pairs": pairs, **result}, indent=2))


if __name__ == "__main__":
    typer.run(bench)
