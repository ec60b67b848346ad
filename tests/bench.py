"""`make bench`: the figures that the README states, measured on this machine. Not a test: nothing here passes or fails.

    make bench                                      # solar cells from the elpv-dataset package
    make bench BENCH="--data PATH/TO/magnetic_tile" # and any folder in MVTec layout

Latency is compared inside one process, the two arms in turn, and given as a ratio: a single absolute time on a busy machine says little.
"""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from edge_runtime.console import run_app
from edge_runtime.model.bundle import ModelBundle
from export import demo
from tests import bench_journal, bench_keys

ARMS = (("padim", "fast"), ("padim", "fine"), ("patchcore", "fast"), ("mvg", "fast"))
INT8_CPU = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}

console = Console(highlight=False, stderr=True)
app = typer.Typer(add_completion=False)


@app.command()
def bench(
    data: Annotated[list[Path] | None, typer.Option(help="Further data sets in MVTec layout.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to work in; replaced.")] = Path("runs/bench"),
    rounds: Annotated[int, typer.Option(help="Inferences of each arm.")] = 300,
    only: Annotated[str | None, typer.Option(help="One arm, such as padim/fast.")] = None,
) -> None:
    """Teach, export and time every method, then a station."""
    out = out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    demo.lay_out_images(out / "elpv")
    sets = {"elpv_mono": out / "elpv" / "data", **{p.name: p.resolve() for p in data or []}}
    arms = [a for a in ARMS if only in (None, "/".join(a))]
    rows = [measure_method(out, name, path, *arm, rounds) for name, path in sets.items() for arm in arms]
    station = measure_station(out, next(out.glob("*-bundle")), out / "elpv" / "line")
    journal = bench_journal.measure(out)
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    result = {"machine": machine, "methods": rows, "station": station, "journal": journal, "keys": bench_keys.measure()}
    (out / "bench.json").write_text(json.dumps(result, indent=2) + "\n")
    show(rows, station)
    print(json.dumps(result))


def measure_method(out: Path, set_name: str, data: Path, method: str, preset: str, rounds: int) -> dict[str, Any]:
    """Fit, build INT8 and FP32's figures, and the latency of the bundle against its own backbone."""
    name = f"{set_name}-{method}-{preset}"
    run, bundle = out / f"{name}-run", out / f"{name}-bundle"
    console.print(f"[cyan]{name}[/]")
    fit_s, fit_mb = timed("lineside-train", "fit", data, "--method", method, "--preset", preset, "--out", run)
    # The gate is opened wide: a figure that it would refuse is to be seen here.
    build_s, build_mb = timed(
        "lineside-export", "build", run, "--out", bundle, "--precision", "int8", "--band", "0.5", "--budget", "0.1", "--force"
    )
    manifest = ModelBundle.open(bundle).manifest
    int8, fp32 = manifest.metrics["int8"], manifest.metrics["fp32"]
    return {
        "set": set_name,
        "method": method,
        "preset": preset,
        "fit_s": fit_s,
        "fit_peak_mb": fit_mb,
        "build_s": build_s,
        "build_peak_mb": build_mb,
        "image_auroc_int8": int8.image_auroc,
        "image_auroc_fp32": fp32.image_auroc,
        "pixel_auroc_int8": int8.pixel_auroc,
        "pixel_auroc_fp32": fp32.pixel_auroc,
        "aupro_int8": int8.aupro,
        "false_reject_rate": int8.false_reject_rate,
        "false_accept_rate": int8.false_accept_rate,
        "threshold_rule": manifest.threshold.rule,
        **latency(bundle, rounds),
    }


def latency(bundle: Path, rounds: int) -> dict[str, float]:
    """Bundle against the backbone cut out of the same graph, in turn, on a golden sample."""
    import openvino as ov

    from edge_runtime.images.read import read_image
    from edge_runtime.model.preprocess import Preprocessor

    opened = ModelBundle.open(bundle)
    core = ov.Core()
    model, cut = core.read_model(opened.model_xml), backbone_of(core, opened)
    x = Preprocessor(opened.manifest.input)(read_image(opened.directory / opened.manifest.golden[0].image))[None]
    requests = [core.compile_model(m, "CPU", INT8_CPU).create_infer_request() for m in (model, cut)]
    times: list[list[float]] = [[], []]
    for i in range(rounds + 20):
        for request, found in zip(requests, times, strict=True):
            began = time.perf_counter()
            request.infer({0: x}, share_inputs=True)
            if i >= 20:
                found.append((time.perf_counter() - began) * 1e3)
    whole, backbone = (np.array(t) for t in times)
    return {
        "predict_ms_median": float(np.median(whole)),
        "predict_ms_p99": float(np.quantile(whole, 0.99)),
        "backbone_ms_median": float(np.median(backbone)),
        "backbone_ms_p99": float(np.quantile(backbone, 0.99)),
        "multiple_of_backbone": float(np.median(whole / backbone)),
    }


def backbone_of(core: Any, bundle: ModelBundle) -> Any:
    """The INT8 backbone alone, cut out of a bundle's graph."""
    import openvino as ov

    model = core.read_model(bundle.model_xml)
    levels = [f"level{i}" for i in range(8) if any(f"level{i}" in o.get_names() for op in model.get_ops() for o in op.outputs())]
    for level in levels:
        model.add_outputs(level)
    return ov.Model([o for o in model.outputs if o.get_names() & set(levels)], model.get_parameters(), "backbone")


def measure_station(out: Path, bundle: Path, images: Path, parts: int = 400) -> dict[str, float]:
    """What the station itself measures (overhead: trigger to the last receiver told, less grab and predict), and its resident memory."""
    import zmq

    from edge_runtime.wire import DecisionMessage, HealthMessage, decode

    home = out / "station"
    home.mkdir()
    ports = demo.free_ports(2)
    (home / "recipe.toml").write_text(f'name = "bench"\nbundle = "{bundle}"\n')
    station = home / "station.toml"
    station.write_text(
        f'name = "bench"\nrecipe = "recipe.toml"\n[source]\nkind = "folder"\npath = "{images}"\nloop = true\n'
        f'[trigger]\nkind = "timer"\nperiod_ms = 50\n[publisher]\nendpoint = "tcp://127.0.0.1:{ports[0]}"\nreplay = "tcp://127.0.0.1:{ports[1]}"\n'
    )
    seen, health = 0, None
    with (home / "log").open("wb") as log, zmq.Context() as context, context.socket(zmq.SUB) as listener:
        listener.setsockopt(zmq.LINGER, 0)
        listener.subscribe(b"")
        listener.connect(f"tcp://127.0.0.1:{ports[0]}")
        process = subprocess.Popen([demo.tool("lineside"), "run", str(station)], stderr=log)
        try:
            until = time.monotonic() + 120
            while (
                seen < parts or health is None or health.counts["ACCEPT"] + health.counts["REJECT"] < parts
            ) and time.monotonic() < until:
                if listener.poll(1000):
                    message = decode(listener.recv_multipart())
                    seen += isinstance(message, DecisionMessage)
                    health = message.health if isinstance(message, HealthMessage) else health
            status = Path(f"/proc/{process.pid}/status").read_text()
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)
    if health is None:
        sys.exit(f"bench: the station said nothing; see {home / 'log'}")
    resident_kb = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
    figures: dict[str, float] = {"decisions": seen, "faults": health.counts["FAULT"], "resident_mb": resident_kb / 1024}
    for stage, (median, p99) in health.stages_ms.items():
        figures |= {f"{stage}_ms_median": median, f"{stage}_ms_p99": p99}
    return figures


def timed(name: str, *args: object) -> tuple[float, float]:
    """Run a command; wall seconds and peak resident MB of its own process."""
    began = time.monotonic()
    process = subprocess.Popen([demo.tool(name), *map(str, args)], stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"bench: {name} ended with exit code {process.returncode}")
    return round(time.monotonic() - began, 1), round(usage.ru_maxrss / 1024)


def show(rows: list[dict[str, Any]], station: dict[str, float]) -> None:
    """A table for people."""
    table = Table(title="INT8 bundles on this CPU")
    for column in ("set", "arm", "AUROC", "FP32", "pixel", "AUPRO", "x backbone", "ms (p99)", "fit s", "MB"):
        table.add_column(column, no_wrap=True, justify="left" if column in ("set", "arm") else "right")
    for r in rows:
        quality = (r[k] for k in ("image_auroc_int8", "image_auroc_fp32", "pixel_auroc_int8", "aupro_int8"))
        table.add_row(
            r["set"],
            f"{r['method']} {r['preset']}",
            *("-" if q is None else f"{q:.4f}" for q in quality),
            f"{r['multiple_of_backbone']:.2f}",
            f"{r['predict_ms_median']:.1f} ({r['predict_ms_p99']:.1f})",
            f"{r['fit_s']:.0f}",
            f"{r['fit_peak_mb']:.0f}",
        )
    Console(highlight=False, stderr=True, width=110).print(table)
    console.print({k: round(v, 2) for k, v in station.items()})


if __name__ == "__main__":
    run_app(app)
