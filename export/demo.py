"""The main job on real images: `python -m export.demo --out runs/demo` teaches solar cells, builds the bundle and runs a station.

Every step is the command that a line engineer would type; what is told at the end is read back from the station's subscriber and
from the simulated PLC, never from inside the station.
"""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from edge_runtime.console import run_app, run_child
from edge_runtime.errors import ConfigError, LinesideError, MissingExtra
from edge_runtime.records import Decision, Verdict

if TYPE_CHECKING:
    from edge_runtime.plc.settings import PlcConfig
    from edge_runtime.sim.score import PartResult

SEED = 7
TRAIN_SHARE = 0.7
LINE_GOOD, LINE_BAD = 140, 60
PARTS_PER_MINUTE = 480
FALSE_REJECT_RATE = 0.02
FIRST_PART = 1001
SCREEN_WH = (1920, 1080)
MARK = "demo.txt"

console = Console(highlight=False)
app = typer.Typer(add_completion=False)


def main() -> None:
    """Entry point of `python -m export.demo`."""
    run_app(app)


@app.command()
def demo(out: Annotated[Path, typer.Option(help="Folder to work in; an earlier demo there is replaced.")] = Path("runs/demo")) -> None:
    """Teach, export and run a station on electroluminescence images of solar cells."""
    began = time.monotonic()
    out = out.resolve()
    if out.exists() and not (out / MARK).is_file():
        raise ConfigError(f"out: {out} exists and is no earlier demo ({MARK} is missing), so it is not replaced; choose another place")
    shutil.rmtree(out, ignore_errors=True)
    truth = lay_out_images(out)
    (out / MARK).write_text("Made by make demo, and replaced by the next one.\n")
    parts = len(truth)
    console.print(f"\n[bold]Lineside[/]: {parts} solar cells will pass; {sum(truth.values())} of them are cracked or dead.\n")
    step(1, "teach, from good cells only")
    command(
        "lineside-train",
        "fit",
        out / "data",
        "--method",
        "padim",
        "--false-reject-rate",
        FALSE_REJECT_RATE,
        "--seed",
        SEED,
        "--out",
        out / "taught",
    )
    step(2, "quantize to INT8, refit, check against the detector, pack")
    # Some cracks are finer than what is seen at this size: it is built whatever it misses, and the station says so.
    command("lineside-export", "build", out / "taught", "--precision", "int8", "--force", "--out", out / "bundle")
    step(3, "run the station; a simulated PLC announces every part")
    decisions, plc, previews = run_line(out, parts)
    summary = summarise(decisions, plc, truth)
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    paint_worst(previews, out / "overlay.png")
    say_result(summary, plc, out, time.monotonic() - began)
    if summary["triggers"] != summary["decisions"] or summary["faults"]:
        raise LinesideError("demo: expected one decision for every trigger and no FAULT; see summary.json")


def lay_out_images(out: Path, cells: str = "mono") -> dict[str, bool]:
    """Write data/ (train/good, test/good, test/defective) and line/ (the parts in the order in which they come).

    `cells`: mono- or polycrystalline ("poly"). Returns part id -> is it defective.
    """
    try:
        import elpv_dataset
    except ImportError as e:
        raise MissingExtra("the demo", "demo") from e
    import random

    root = Path(elpv_dataset.__file__).parent / "data"
    rows = [line.split() for line in (root / "labels.csv").read_text().splitlines() if line.strip()]
    chosen = [(root / path, float(probability)) for path, probability, kind in rows if kind == cells]
    rng = random.Random(SEED)
    good = [path for path, probability in chosen if probability == 0.0]
    bad = [path for path, probability in chosen if probability == 1.0]
    rng.shuffle(good)
    rng.shuffle(bad)
    n_train = int(TRAIN_SHARE * len(good))
    for folder, paths in (("train/good", good[:n_train]), ("test/good", good[n_train:]), ("test/defective", bad)):
        target = out / "data" / folder
        target.mkdir(parents=True)
        for path in paths:
            shutil.copy(path, target)
    line = [(p, False) for p in good[n_train:][:LINE_GOOD]] + [(p, True) for p in bad[:LINE_BAD]]
    rng.shuffle(line)
    (out / "line").mkdir()
    for i, (path, _) in enumerate(line):
        shutil.copy(path, out / "line" / f"{i:04d}.png")
    return {str(FIRST_PART + i): is_bad for i, (_, is_bad) in enumerate(line)}


def run_line(out: Path, parts: int) -> tuple[list[Decision], Mapping[int, "PartResult"], list[list[bytes]]]:
    """Run `lineside run` against a simulated PLC until every part is through.

    Returns what a subscriber received, what the PLC read back (part -> PartResult), and the previews' messages.
    """
    from edge_runtime.client import DecisionClient
    from edge_runtime.plc.defaults import default_trigger
    from edge_runtime.sim.plc import SimulatedPlc

    modbus, decision, replay, preview = free_ports(4)
    endpoints = [f"tcp://127.0.0.1:{port}" for port in (decision, replay, preview)]
    previews: list[list[bytes]] = []
    decisions: list[Decision] = []
    trigger = default_trigger("modbus", port=modbus)
    plc = SimulatedPlc(trigger, parts_per_minute=PARTS_PER_MINUTE, count=parts, first_part=FIRST_PART, told=tell_part)
    watching = threading.Event()
    station = write_station(out, trigger, endpoints)
    with (
        DecisionClient(endpoints[0], endpoints[1]) as client,
        plc,
        gather_previews(endpoints[2], previews, watching),
        started(station, out),
    ):
        until = time.monotonic() + 60 + parts * 60 / PARTS_PER_MINUTE * 3
        while len(decisions) < parts and time.monotonic() < until:
            received = client.receive(1.0)
            if isinstance(received, Decision):
                decisions.append(received)
        plc.wait_finished(5.0)
        time.sleep(0.3)  # the last preview comes after its decision
    return decisions, plc.results, previews


def write_station(out: Path, trigger: "PlcConfig", endpoints: Sequence[str]) -> Path:
    """The station and recipe files, as a line engineer would write them. Returns the station file's path."""
    from edge_runtime.plc.defaults import trigger_toml

    (out / "recipe.toml").write_text('name = "solar-cell"\nbundle = "bundle"\ndeadline_ms = 500\n')
    station = out / "station.toml"
    station.write_text(
        f"""\
name = "demo"
recipe = "recipe.toml"
device = "CPU"

[source]
kind = "folder"
path = "line"

{trigger_toml(trigger)}

[publisher]
endpoint = "{endpoints[0]}"
replay = "{endpoints[1]}"

[preview]
endpoint = "{endpoints[2]}"

[archive]
path = "archive"
"""
    )
    return station


@contextmanager
def started(station: Path, out: Path) -> Iterator[None]:
    """The station as a process of its own; ended as systemd would, with SIGTERM, and expected to end cleanly."""
    with (out / "station.log").open("wb") as log:
        process = subprocess.Popen([tool("lineside"), "run", str(station)], stderr=log)
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                code = process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
    if code != 0:
        raise LinesideError(f"demo: the station ended with exit code {code}; see {out / 'station.log'}")


@contextmanager
def gather_previews(endpoint: str, into: list[list[bytes]], stop: threading.Event) -> Iterator[None]:
    """Collect what the operator's window would be shown, beside everything else."""
    import zmq

    def listen() -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as socket_:
            socket_.setsockopt(zmq.LINGER, 0)
            socket_.subscribe(b"preview")
            socket_.connect(endpoint)
            while not stop.is_set():
                if socket_.poll(100):
                    into.append(socket_.recv_multipart())

    thread = threading.Thread(target=listen, name="previews", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def summarise(decisions: Sequence[Decision], plc: Mapping[int, "PartResult"], truth: dict[str, bool]) -> dict[str, float | int | None]:
    """The figures of summary.json, from the subscriber's decisions and the PLC's own table."""
    import numpy as np
    from sklearn.metrics import roc_auc_score

    mismatched = [d.part_id for d in decisions if (r := plc.get(int(d.part_id))) is None or r.verdict is not d.verdict]
    if mismatched:
        raise LinesideError(f"demo: the PLC read another verdict than the subscriber for part {mismatched[0]}")
    judged = [d for d in decisions if d.verdict is not Verdict.FAULT and d.score is not None]
    predict = [(d.stamps.predicted_ns - d.stamps.grabbed_ns) / 1e6 for d in judged]
    whole = [(d.stamps.told_ns - d.stamps.fired_ns) / 1e6 for d in decisions]
    labels = [truth[d.part_id] for d in judged]

    def quantile(values: Sequence[float], q: float) -> float | None:
        return round(float(np.quantile(values, q)), 3) if values else None

    return {
        "triggers": len(plc),
        "decisions": len(decisions),
        "accepts": sum(d.verdict is Verdict.ACCEPT for d in decisions),
        "rejects": sum(d.verdict is Verdict.REJECT for d in decisions),
        "faults": sum(d.verdict is Verdict.FAULT for d in decisions),
        "false_rejects": sum(d.verdict is Verdict.REJECT and not truth[d.part_id] for d in decisions),
        "false_accepts": sum(d.verdict is Verdict.ACCEPT and truth[d.part_id] for d in decisions),
        "image_auroc": round(float(roc_auc_score(labels, [d.score for d in judged])), 4) if len(set(labels)) == 2 else None,
        "predict_ms_median": quantile(predict, 0.5),
        "predict_ms_p99": quantile(predict, 0.99),
        "trigger_to_decision_ms_median": quantile(whole, 0.5),
        "trigger_to_decision_ms_p99": quantile(whole, 0.99),
    }


def paint_worst(previews: Sequence[list[bytes]], file: Path) -> None:
    """The operator's window at the part that was furthest beyond its threshold."""
    import cv2

    from edge_runtime.overlay.paint import paint, screen_of
    from edge_runtime.wire import decode_preview

    seen = [decode_preview(parts) for parts in previews]
    rejects = [p for p in seen if p.decision.verdict is Verdict.REJECT]
    if not rejects:
        raise LinesideError("demo: no preview of a rejected part arrived; see station.log")
    worst = max(rejects, key=lambda p: p.decision.severity or 0.0)
    if not cv2.imwrite(str(file), paint(screen_of(worst), SCREEN_WH)):
        raise LinesideError(f"demo: could not write {file}")


def say_result(s: dict[str, Any], plc: Mapping[int, "PartResult"], out: Path, seconds: float) -> None:
    """What a person reads at the end."""
    seen_by_plc = [r.latency_ms for r in plc.values() if r.latency_ms is not None]
    bad = s["rejects"] - s["false_rejects"]
    good = s["accepts"] - s["false_accepts"] + s["false_rejects"]
    console.print(
        f"\n\n[bold green]{s['decisions']} of {s['triggers']} triggers decided[/], {s['faults']} faults; the PLC read the same verdicts.\n"
        f"  {bad} of {bad + s['false_accepts']} defective cells rejected, and {s['false_rejects']} of {good} good ones "
        f"(image AUROC {s['image_auroc']:.3f}).\n"
        f"  Model {s['predict_ms_median']:.1f} ms (p99 {s['predict_ms_p99']:.1f}); "
        f"trigger to decision {s['trigger_to_decision_ms_median']:.1f} ms (p99 {s['trigger_to_decision_ms_p99']:.1f}); "
        f"as the PLC saw it {sorted(seen_by_plc)[len(seen_by_plc) // 2]:.0f} ms.\n"
        f"  Look at {shown(out / 'overlay.png')}, read {shown(out / 'summary.json')}. From nothing to here: {seconds:.0f} s.\n",
        soft_wrap=True,
    )


def tell_part(result: "PartResult") -> None:
    """One character a part: what a person watches while the line runs."""
    marks = {Verdict.ACCEPT: "[green]·[/]", Verdict.REJECT: "[red]■[/]", Verdict.FAULT: "[yellow]![/]", None: "[yellow]?[/]"}
    console.print(marks[result.verdict], end="")


def step(number: int, what: str) -> None:
    """A heading."""
    console.print(f"\n[bold cyan]{number}[/] {what}")


def command(name: str, *args: object) -> None:
    """Show a command and run it. Raises LinesideError when it fails."""
    words = [str(a) for a in args]
    console.print(f"  [dim]$ {name} {' '.join(shown(w) for w in words)}[/]", soft_wrap=True)
    code, _ = run_child([tool(name), *words], capture=False)
    if code != 0:
        raise LinesideError(f"demo: {name} ended with exit code {code}")


def tool(name: str) -> str:
    """The command of the environment that this runs in, whatever PATH says."""
    return str(Path(sys.executable).with_name(name))


def shown(path: object) -> str:
    """A path relative to here where that is shorter."""
    p = Path(str(path))
    return str(p.relative_to(Path.cwd())) if p.is_absolute() and p.is_relative_to(Path.cwd()) else str(path)


def free_ports(n: int) -> list[int]:
    """Ports on loopback that nobody listens on."""
    held = [socket.socket() for _ in range(n)]
    for s in held:
        s.bind(("127.0.0.1", 0))
    ports = [int(s.getsockname()[1]) for s in held]
    for s in held:
        s.close()
    return ports


if __name__ == "__main__":
    main()
