"""`make soak`: a line with everything that goes wrong at once, and the five laws counted afterwards. Not a test: it takes minutes.

A simulated PLC announces 20 parts a second to a station with a camera of Basler's emulation, triggered by software. Every half minute, in
turn: the camera's driver hangs for 3 s, the PLC is off for 5 s, five pictures arrive incomplete, and all cores are busy for 6 s. A
subscriber reads one message a second all the while, and each fiftieth trigger is a bounce, at once after the one before it: the station is
busy, and the part under the camera the same. Each picture shows the part that lay there when the exposure was triggered, every fifth of
them bad: one that is given to another part shows as a wrong verdict.

Exit code 1 when a law was broken; the sentences say where.
"""

import contextlib
import json
import mmap
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer

from edge_runtime.console import run_app
from edge_runtime.errors import EXIT_FINDINGS, EXIT_OK
from edge_runtime.plc.defaults import default_trigger
from edge_runtime.records import Decision, Verdict
from edge_runtime.sim.plc import SimulatedPlc
from edge_runtime.sinks.journal_file import read_decisions
from edge_runtime.sources.driver import RawFrame
from edge_runtime.sources.pylon import PylonDriver
from export import demo
from tests.bench_plc import cpu_s, loaded, toml
from tests.conftest import SIDE, bad_image, good_image, write_bundle
from tests.support.ports import free_ports

app = typer.Typer(add_completion=False)
DEADLINE_MS, GRACE_MS = 250.0, 5.0
BAD_EVERY, BUSY_EVERY, FAILED_PICTURES = 5, 50, 5
_WORLD = struct.Struct("=QQQ")


class World:
    """What the station cannot know, shared by its process and the line's: the part under the camera, and what is wrong with the camera."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as f:
            self._map = mmap.mmap(f.fileno(), _WORLD.size)

    def read(self) -> tuple[int, int, int]:
        """(part under the camera, CLOCK_MONOTONIC ns until which its driver hangs, pictures that shall fail, counted since the start)."""
        return _WORLD.unpack_from(self._map)

    def change(self, part: int | None = None, hangs_until_ns: int | None = None, failing: int | None = None) -> None:
        """One writer only: the line."""
        now = self.read()
        new = (part, hangs_until_ns, failing)
        _WORLD.pack_into(self._map, 0, *(n if v is None else v for v, n in zip(new, now, strict=True)))


class LyingDriver(PylonDriver):
    """Basler's emulation, looking at the world: its timing, its failed buffers, our parts."""

    world: World
    failed = 0

    def fire(self, timeout_s: float) -> None:
        if self.world.read()[2] > LyingDriver.failed:
            LyingDriver.failed += 1
            for name, value in (("ForceFailedBufferCount", 1), ("ForceFailedBuffer", True)):
                node = self.node(name)
                assert node is not None
                node.write(value)
        self._parts.append(self.world.read()[0])
        super().fire(timeout_s)

    def start(self) -> None:
        self._parts: deque[int] = deque()
        super().start()

    def fetch(self, timeout_s: float) -> RawFrame | None:
        time.sleep(max(self.world.read()[1] - time.monotonic_ns(), 0) / 1e9)
        raw = super().fetch(timeout_s)
        if raw is None:
            return None
        part = self._parts.popleft() if self._parts else 0
        picture = bad_image(seed=part) if part % BAD_EVERY == 0 else good_image(seed=part)
        return replace(raw, data=picture.ravel()) if raw.complete else raw


@app.command()
def soak(
    minutes: Annotated[float, typer.Option(min=0.5)] = 10.0,
    rate: Annotated[float, typer.Option(min=1, help="Parts a second.")] = 20.0,
    kind: Annotated[str, typer.Option(help="The PLC's protocol.")] = "modbus",
) -> None:
    """Run the line and count."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "world").write_bytes(bytes(_WORLD.size))
        world = World(home / "world")
        broken = play(home, world, kind, round(minutes * 60 * rate), rate)
    for sentence in broken[:40]:
        print(f"✗ {sentence}")
    raise typer.Exit(EXIT_FINDINGS if broken else EXIT_OK)


def play(home: Path, world: World, kind: str, parts: int, rate: float) -> list[str]:
    """The line from its first part to its last; what was broken."""
    trigger = default_trigger(kind, port=demo.free_ports(1)[0])
    endpoint = write_station(home, trigger)
    outages: list[tuple[float, float]] = []

    def under_the_camera(part: int) -> int:
        world.change(part=lies_there(part))
        return 0  # the station's own recipe

    plc = SimulatedPlc(
        trigger, parts_per_minute=60 * rate, count=parts, wait_for_result=True, result_timeout_ms=1500, recipe_of=under_the_camera,
        busy_parts=range(BUSY_EVERY, parts, BUSY_EVERY),
    )  # fmt: skip
    over = threading.Event()
    with plc, (home / "log").open("wb") as log:
        station = subprocess.Popen(
            [sys.executable, "-m", "tests.soak", "station", str(home)], stderr=log, env=os.environ | {"PYLON_CAMEMU": "1"}
        )
        slow = subprocess.Popen([sys.executable, "-c", _SLOW_SUBSCRIBER, endpoint])
        harm = threading.Thread(target=trouble, args=(world, plc, over, outages))
        try:
            while len(plc.results) < 20 and station.poll() is None:
                time.sleep(0.05)
            first_mb = resident_mb(station.pid) if station.poll() is None else 0.0
            harm.start()
            while not plc.wait_finished(1) and station.poll() is None:
                pass
            share, last_mb = cpu_s(station.pid) if station.poll() is None else 0.0, resident_mb(station.pid)
        finally:
            over.set()
            if harm.is_alive():
                harm.join()
            station.send_signal(signal.SIGTERM)
            code = station.wait(30)
            slow.kill()
            slow.wait()
    decisions = read_decisions(home / "journal.sqlite", limit=10 * parts)
    broken = laws(decisions, plc, outages) + ([] if code == 0 else [f"the station ended with {code}: {(home / 'log').read_text()[-2000:]}"])
    told = [r.latency_ms for r in plc.results.values() if r.latency_ms is not None]
    quantiles = {f"p{q:g}": round(float(np.percentile(told, q)), 1) for q in (50, 99, 99.9)}
    counts = Counter(d.verdict.value for d in decisions)
    causes = Counter(d.cause.name for d in decisions if d.verdict is Verdict.FAULT)
    figures = {
        "parts": len(plc.results), "decisions": len(decisions), **counts, "causes": dict(causes), "edge_to_result_ms": quantiles,
        "station_cpu_s": share, "resident_mb": [first_mb, last_mb], "outages": len(outages), "broken": len(broken),
    }  # fmt: skip
    print(json.dumps(figures))
    return broken


def laws(decisions: list[Decision], plc: SimulatedPlc, outages: list[tuple[float, float]]) -> list[str]:
    """What was broken, a sentence each."""
    broken = list(plc.violations)
    seqs = [d.seq for d in decisions]
    if seqs != list(range(1, len(seqs) + 1)):
        broken.append("decisions are not numbered 1 to n")

    def in_outage(at_s: float) -> bool:
        return any(began - 0.3 <= at_s <= ended + 1.0 for began, ended in outages)

    broken += [
        f"seq {d.seq}: {d.verdict} without a part's name, outside an outage or not a fault"
        for d in decisions  # the PLC went between the trigger's edge and the part's name
        if not d.part_id and not (d.verdict is Verdict.FAULT and in_outage(d.stamps.fired_ns / 1e9))
    ]
    decisions = [d for d in decisions if d.part_id]
    often = Counter(d.part_id for d in decisions)
    broken += [f"part {part}: {n} decisions" for part, n in often.items() if n > 1]
    for d in decisions:
        late_ms = (d.stamps.told_ns - d.stamps.fired_ns) / 1e6
        if late_ms > DEADLINE_MS + GRACE_MS:
            broken.append(f"part {d.part_id}: told {late_ms:.0f} ms after its trigger")
        if d.verdict is not Verdict.FAULT and d.stamps.captured_ns < d.stamps.fired_ns:
            broken.append(f"part {d.part_id}: judged by a picture older than its trigger")
        if d.verdict is (Verdict.ACCEPT if lies_there(int(d.part_id)) % BAD_EVERY == 0 else Verdict.REJECT):
            broken.append(f"part {d.part_id}: {d.verdict}, which it is not: the picture shows another part")
    told = {d.part_id: d.verdict for d in decisions}
    for part, result in plc.results.items():
        if result.verdict is None and not in_outage(plc.raised_at(part)):
            broken.append(f"part {part}: the PLC got no result, and was not off")
        if result.verdict is not None and result.verdict is not told.get(str(part)):
            broken.append(f"part {part}: the PLC read {result.verdict}, the journal says {told.get(str(part))}")
    return broken


def lies_there(part: int) -> int:
    """What the camera sees when this part is announced."""
    return part - 1 if part % BUSY_EVERY == 0 else part


def trouble(world: World, plc: SimulatedPlc, over: threading.Event, outages: list[tuple[float, float]]) -> None:
    """Half a minute of it, again and again."""
    failing = 0
    while not over.wait(4):
        world.change(hangs_until_ns=time.monotonic_ns() + 3_000_000_000)
        if over.wait(8):
            return
        began = time.monotonic()
        plc.power_off(5)
        outages.append((began, began + 6))
        if over.wait(9):
            return
        failing += FAILED_PICTURES
        world.change(failing=failing)
        if over.wait(3):
            return
        with loaded(True):
            over.wait(6)


def write_station(home: Path, trigger: object) -> str:
    """Its file, bundle and recipe; returns where it publishes."""
    import msgspec

    bundle = write_bundle(home / "bundle")
    (home / "recipe.toml").write_text(f'name = "soak"\nbundle = "{bundle}"\ndeadline_ms = {DEADLINE_MS}\n')
    ports = demo.free_ports(3)
    endpoints = [f"tcp://127.0.0.1:{port}" for port in ports]
    source = {
        "kind": "pylon", "trigger": "software", "exposure_us": 4000.0, "pixel_format": "Mono8", "roi": [0, 0, SIDE, SIDE],
        "read_timeout_ms": 500.0,
    }  # fmt: skip
    content = {
        "name": "soak", "recipe": "recipe.toml", "source": source, "trigger": msgspec.to_builtins(trigger),
        "publisher": {"endpoint": endpoints[0], "replay": endpoints[1]}, "preview": {"endpoint": endpoints[2]}, "archive": {"quota_mb": 50},
    }  # fmt: skip
    (home / "station.toml").write_text("\n".join(f"{key} = {toml(value)}" for key, value in content.items()))
    return endpoints[0]


@app.command()
def station(home: Path) -> None:
    """The station's process: its own code, but for the camera, which looks at the world."""
    from edge_runtime.sources import pylon
    from edge_runtime.station.launch import run_station

    LyingDriver.world = World(home / "world")
    pylon.PylonDriver = LyingDriver  # type: ignore[misc]  # a station imports it when it opens the camera
    raise typer.Exit(run_station(home / "station.toml"))


@app.command()
def memory(
    decisions: Annotated[int, typer.Option(min=2)] = 1_000_000,
    settled: Annotated[int, typer.Option(min=1, help="After so many, what grows is counted.")] = 50_000,
    period_ms: Annotated[float, typer.Option(help="Longer than a decision takes here, or triggers pile up.")] = 4.0,
) -> None:
    """Decide, and see that memory does not grow: by less than 1 % after the first 50,000."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        bundle = write_bundle(home / "bundle")
        (home / "parts").mkdir()
        for i in range(5):
            cv2.imwrite(str(home / f"parts/{i}.png"), bad_image(seed=i) if i == 4 else good_image(seed=i))
        (home / "recipe.toml").write_text(f'name = "r"\nbundle = "{bundle}"\ndeadline_ms = 5000\n')
        publisher, replay = free_ports(2)
        (home / "station.toml").write_text(
            'name = "s"\nrecipe = "recipe.toml"\n[source]\nkind = "folder"\npath = "parts"\nloop = true\n'
            f'[trigger]\nkind = "timer"\nperiod_ms = {period_ms}\n'
            f'[publisher]\nendpoint = "tcp://127.0.0.1:{publisher}"\nreplay = "tcp://127.0.0.1:{replay}"\n'
        )
        process = subprocess.Popen([sys.executable, "-m", "edge_runtime.cli", "run", str(home / "station.toml")], stderr=subprocess.DEVNULL)
        try:
            at_first, began, told = 0.0, time.monotonic(), 0
            while (done := last_seq(home / "journal.sqlite")) < decisions:
                if process.poll() is not None:
                    raise SystemExit(f"the station ended with {process.returncode} after {done} decisions")
                now = resident_mb(process.pid)
                at_first = at_first or (now if done >= settled else 0.0)
                if done // 50_000 > told:
                    told = done // 50_000
                    print(f"{done:9,} decisions, {now:.1f} MB, {done / (time.monotonic() - began):.0f} a second", flush=True)
                time.sleep(1)
            grown = resident_mb(process.pid) / at_first - 1
        finally:
            process.terminate()
            process.wait()
    print(f"{done:,} decisions: {at_first:.1f} MB after {settled:,}, {100 * grown:+.2f} % since")
    raise typer.Exit(EXIT_FINDINGS if grown >= 0.01 else EXIT_OK)


def last_seq(journal: Path) -> int:
    """Decisions in it; 0 before it is there."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as db:
            return int(db.execute("SELECT max(seq) FROM decisions").fetchone()[0] or 0)
    except sqlite3.Error:
        return 0


def resident_mb(pid: int) -> float:
    """Memory of a process that is in RAM."""
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) / 1024, 1)


_SLOW_SUBSCRIBER = """
import sys, time, zmq
s = zmq.Context().socket(zmq.SUB); s.subscribe(b""); s.connect(sys.argv[1])
while True:
    s.recv_multipart(); time.sleep(1)
"""

if __name__ == "__main__":
    run_app(app)
