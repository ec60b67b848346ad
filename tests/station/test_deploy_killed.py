"""A station as a process that is killed at each step of a deployment: what judges after the next start, and that all of it is whole."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_runtime.model.bundle import read_manifest
from edge_runtime.records import Verdict
from edge_runtime.sinks.journal import read_decisions
from tests.support.ports import free_ports
from tests.support.waiting import BUSY_S, until

_CODE = """
import importlib, os, signal, sys, threading
from pathlib import Path
from edge_runtime.errors import LinesideError
from edge_runtime.station.deployments import Deployments, Wish
from edge_runtime.station.launch import run_station

def end(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def killing(name, when):
    module, _, attribute = name.rpartition(".")
    try:
        owner = importlib.import_module(module)
    except ModuleNotFoundError:
        module, _, kind = module.rpartition(".")
        owner = getattr(importlib.import_module(module), kind)
    real = getattr(owner, attribute)
    def instead(*a, **kw):
        if when == "after":
            real(*a, **kw)
        end()
    setattr(owner, attribute, instead)

def listen(deployments):
    for line in sys.stdin:
        path, step = line.rstrip("\\n").split("\\t")
        if step:
            killing(*step.split(" "))
        try:
            print(deployments.deploy(Path(path), Wish("anna", "why")), flush=True)
        except LinesideError as e:
            print("refused:", e, flush=True)

begin = Deployments.begin
def beginning(self, station):
    begin(self, station)
    threading.Thread(target=listen, args=(self,), daemon=True).start()
Deployments.begin = beginning
sys.exit(run_station(Path(sys.argv[1])))
"""
OLD, NEW = "old", "new"
STEPS = {
    "edge_runtime.model.bundle.ModelBundle.copied after": OLD,
    "edge_runtime.model.store.BundleStore._put after": OLD,
    "edge_runtime.station.loop.Station.warm after": OLD,
    "edge_runtime.files._sync before": NEW,  # the file has its name, and nobody was told
    "edge_runtime.station.loop.Station.switch after": NEW,
    "edge_runtime.model.store.BundleStore.prune before": NEW,
}
"""Where it is killed, and what judges afterwards."""


@contextlib.contextmanager
def running(station: Path) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", _CODE, str(station)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ask(process: "subprocess.Popen[str]", bundle: Path, step: str = "") -> str:
    """What is answered; empty where it is killed over it."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{bundle}\t{step}\n")
    process.stdin.flush()
    return process.stdout.readline()


@pytest.fixture
def station(station_dir: Path) -> Path:
    recipe = station_dir / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("deadline_ms = 500", "deadline_ms = 10000"))
    ports = free_ports(2)
    path = station_dir / "station.toml"
    path.write_text(
        'name = "st"\nrecipe = "recipe.toml"\nqueue = 64\nmodels.keep = 1\n[source]\nkind = "folder"\npath = "parts"\nloop = true\n'
        '[trigger]\nkind = "timer"\nperiod_ms = 50\n'
        f'[publisher]\nendpoint = "tcp://127.0.0.1:{ports[0]}"\nreplay = "tcp://127.0.0.1:{ports[1]}"\n'
    )
    return path


@pytest.mark.slow
def test_a_kill_at_any_step_leaves_the_old_or_the_new_model_whole(
    station: Path, tiny_bundle: Path, make_bundle: Callable[..., Path]
) -> None:
    """Law 1 as well: every number has its one row."""
    folder, store = station.parent, station.parent / "models"

    def judged() -> list[str]:
        rows = read_decisions(folder / "journal.sqlite", 0, 100_000) if (folder / "journal.sqlite").exists() else []
        return [d.bundle_id for d in rows if d.verdict is not Verdict.FAULT]  # what the kill took is a FAULT at the next start

    wanted, before = id_of(tiny_bundle), 0
    for step, then in STEPS.items():
        with running(station) as process:
            until(lambda before=before: len(judged()) > before)
            assert judged()[-1] == wanted, f"after the step before {step}"
            assert not [*store.glob(".begun*"), *store.glob(".gone*")]
            new = make_bundle(name=f"n{len(judged())}")
            answer = ask(process, new, step)
            assert not answer or "prune" in step  # which comes after the answer
            assert process.wait(BUSY_S) == -signal.SIGKILL
        wanted, before = (id_of(new) if then == NEW else wanted), len(judged())
    with running(station) as process:
        until(lambda: len(judged()) > before)
        assert judged()[-1] == wanted
        assert "judges from now on" in ask(process, tiny_bundle)
        process.send_signal(signal.SIGTERM)
        assert process.wait(BUSY_S) == 0
    rows = read_decisions(folder / "journal.sqlite", 0, 100_000)
    assert [d.seq for d in rows] == list(range(1, len(rows) + 1))


def id_of(bundle: Path) -> str:
    return read_manifest(bundle)[1]
