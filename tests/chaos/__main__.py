"""`make chaos`: a real station, an independent PLC, subscribers that die, strangers at every socket, and whatever a night brings.

At a moment that the seed chose each, these disturb it (disturbances.py): kill -9, SIGTERM and SIGSTOP of the station, of its door and of
subscribers, the PLC off or busy, the clock stepped, the network cut, the disk full, all cores busy. Afterwards the histories of PLC,
journal and subscribers are laid side by side (histories.py), and the journal is tampered with (tampering.py). Exit code 1 when something
disagrees; the sentences say where, the seed how to have about the same again.

A full disk and a cut network need namespaces (root), a clock that steps and a slow disk gcc; the result says which were left out.
"""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from edge_runtime.console import run_app
from edge_runtime.errors import EXIT_FINDINGS, EXIT_OK
from tests.chaos.disturbances import possible
from tests.chaos.night import Night

_NEED = {"clock_steps", "disk_full", "disk_slow", "network_cut"}
"""What not every machine allows."""
app = typer.Typer(add_completion=False)


def _in_namespaces() -> bool:
    return os.environ.get("LINESIDE_CHAOS") == "namespaces"


def _enter_namespaces() -> None:
    """This program again, with a network and mounts of its own, where that may be; never comes back then."""
    if _in_namespaces() or os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("ip") is None:
        return
    tried = subprocess.run(
        ["unshare", "-nm", "sh", "-c", "ip link set lo up && mount -t tmpfs none /mnt"], capture_output=True, check=False
    )
    if tried.returncode == 0:
        os.environ["LINESIDE_CHAOS"] = "namespaces"
        command = ["unshare", "-nm", "sh", "-c", 'ip link set lo up; exec "$@"', "_", sys.executable, "-m", "tests.chaos", *sys.argv[1:]]
        os.execvp("unshare", command)


@app.command()
def chaos(
    parts: Annotated[int, typer.Option(help="Parts to announce.")] = 20_000,
    minutes: Annotated[float, typer.Option(help="At most.")] = 60.0,
    seed: Annotated[int, typer.Option(help="0: a new one, which is printed.")] = 0,
    pace_ms: Annotated[float, typer.Option(help="From part to part.")] = 50.0,
    every_s: Annotated[float, typer.Option(help="At most, from one disturbance to the next.")] = 3.0,
    keep: Annotated[Path | None, typer.Option(help="Folder for the histories.")] = None,
) -> None:
    """Let a night pass and lay the histories side by side."""
    _enter_namespaces()
    seed = seed or random.SystemRandom().randrange(1, 2**31)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        began = time.monotonic()
        with _small_disk(home / "disk") if _in_namespaces() else contextlib.nullcontext():
            with Night(home, seed, pace_ms) as night:
                night.pass_by(possible(night, _in_namespaces()), parts, every_s, time.monotonic() + 60 * minutes)
                night.settle()
            broken, events, decisions = night.judged(), night.events(), night.decisions()
            if keep is not None or broken:
                kept = keep or Path("runs/chaos") / str(seed)
                shutil.copytree(home, kept, dirs_exist_ok=True, ignore=shutil.ignore_patterns("archive", "bundle"))
    results = Counter("+".join(e["verdicts"]) for e in events if e["event"] == "result")  # type: ignore[arg-type]
    print(json.dumps({
        "seed": seed, "minutes": round((time.monotonic() - began) / 60, 1), "parts": sum(e["event"] == "raised" for e in events),
        "taken": sum(e["event"] == "taken" for e in events), "decisions": len(decisions), "results": dict(results),
        "causes": dict(Counter(d.cause.name for d in decisions if d.cause)), "disturbances": dict(night.disturbances),
        **{name: {"median": round(float(np.median(v)), 2), "most": round(max(v), 2)} for name, v in night.figures.items() if v},
        "left out": sorted(_NEED - {disturb.__name__ for disturb in possible(night, _in_namespaces())}),
        "broken": len(broken),
    }))  # fmt: skip
    for sentence in broken[:40]:
        print(f"✗ {sentence}")
    raise typer.Exit(EXIT_FINDINGS if broken else EXIT_OK)


@contextlib.contextmanager
def _small_disk(path: Path) -> Iterator[None]:
    """Room for the journal, and little more."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


if __name__ == "__main__":
    run_app(app)
