"""`make benchmark-methods`: every method on every data set that is at hand, and the table of training/README.md. Not a test.

    make benchmark-methods                                            # solar cells (mono, poly) from the elpv-dataset package
    make benchmark-methods BENCH="--data PATH/TO/magnetic_tile"       # and any folder in MVTec layout

Every method goes the whole way: taught on all good images as `fit` does (one brightness, shifted variations), quantized, packed, and
measured as its bundle. Settings are the presets'; the test images choose nothing here. The methods that learn from bad parts get ten of the
test split's, which then do not count.
Latencies are measured at the end, all bundles of a set in turn in one process, beside the INT8 backbone that PaDiM's bundle holds.
"""

import json
import os
import platform
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import openvino as ov
import typer
from rich.console import Console

from edge_runtime.console import run_app
from edge_runtime.errors import LinesideError
from edge_runtime.images.read import read_image
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.preprocess import Preprocessor
from export.build.build import build
from export.build.options import BuildOptions
from tests.bench import INT8_CPU, backbone_of
from tests.support.bench_sets import sets_of
from tests.support.shared_extractor import SharedExtractor
from training.core.backbones import DEFAULT_BACKBONE
from training.data.dataset import Dataset, load_dataset
from training.fitting.options import FitOptions, learns, resolve
from training.fitting.remedies import variations, with_brightness
from training.fitting.teach import teach
from training.methods.table import METHODS
from training.pictures.material import OutlierSource

BAD = 10
"""Bad images that a method which learns from them is given."""
TABLE = Path("training/README.md")
BEGIN, END = "<!-- figures: made by make benchmark-methods -->", "<!-- end of figures -->"

console = Console(highlight=False, stderr=True)
app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True)
class Arm:
    """One row."""

    name: str
    fit: FitOptions


@app.command()
def benchmark(
    data: Annotated[list[Path] | None, typer.Option(help="Further data sets in MVTec layout.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to work in; what is there is not built again.")] = Path("runs/methods"),
    minutes: Annotated[float, typer.Option(help="For each method that learns by steps.")] = 4.0,
    only: Annotated[str | None, typer.Option(help="Arms such as padim,fcdd, separated by commas; padim/shared for another preset.")] = None,
    image_size: Annotated[str, typer.Option(help="Model input, for all sets.")] = "256",
    cells: Annotated[bool, typer.Option(help="Solar cells, beside --data.")] = True,
    rounds: Annotated[int, typer.Option(help="Inferences of each arm.")] = 200,
    kept: Annotated[bool, typer.Option("--kept", help="Only what is there already: measures latency again and draws the table.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Put the table into training/README.md.")] = False,
) -> None:
    """Teach, build and measure every method on every set."""
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    sets = sets_of(data, cells, out)
    rows: list[dict[str, Any]] = []
    for name, path in sets.items():
        rows += measure_set(out / "bundles" / name, name, path, minutes, only, image_size, kept)
    for name in sets:
        here = [r for r in rows if r["set"] == name and "bundle" in r]
        if here:
            measure_latency(here, rounds)
    result = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "minutes": minutes, "rows": rows}
    (out / "methods.json").write_text(json.dumps(result, indent=2) + "\n")
    table = render(rows, list(sets), minutes)
    print(table)
    if write:
        head, rest = TABLE.read_text().split(BEGIN)
        TABLE.write_text(f"{head}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}")


def measure_set(place: Path, name: str, data: Path, minutes: float, only: str | None, image_size: str, kept: bool) -> list[dict[str, Any]]:
    """A row for every method."""
    place.mkdir(parents=True, exist_ok=True)
    dataset, _ = with_brightness(load_dataset(data, image_size=image_size, allow_duplicates=True))
    wanted = None if only is None else only.split(",")
    arms = [a for a in arms_of(dataset, place / "bad", minutes) if wanted is None or a.fit.method in wanted]
    pairs = [w.split("/") for w in wanted or () if "/" in w]
    arms += [Arm(f"{method} {preset}", FitOptions(method, preset)) for method, preset in pairs]
    strides = {s for a in arms if METHODS[a.fit.method].network is None for s in resolve(a.fit)[0]}
    work = place / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    extractor = SharedExtractor(DEFAULT_BACKBONE, sorted(strides or {16}), None, dataset.spec.height, dataset.spec.width, work)
    rows = []
    for arm in arms:
        bundle = place / arm.name.replace(" ", "-")
        figures = bundle.with_suffix(".json")
        if not figures.exists() and kept:
            continue
        if not figures.exists():
            shutil.rmtree(bundle, ignore_errors=True)
            figures.write_text(json.dumps(measure_arm(dataset, arm, bundle, work, extractor)))
        rows.append({"set": name, "arm": arm.name, **json.loads(figures.read_text())})
        console.print(rows[-1])
    shutil.rmtree(work)
    return rows


def arms_of(dataset: Dataset, bad: Path, minutes: float) -> list[Arm]:
    """Every method's fast preset; those that can learn from bad parts with a few of them, too."""
    if not bad.exists():
        kinds = sorted({s.kind for s in dataset.test if not s.is_good})
        rng = random.Random(0)
        for i, kind in enumerate(kinds):
            share = BAD // len(kinds) + (i < BAD % len(kinds))
            for sample in rng.sample([s for s in dataset.test if s.kind == kind], share):
                (bad / kind).mkdir(parents=True, exist_ok=True)
                shutil.copy(sample.path, bad / kind)
                if sample.mask_path is not None:
                    (bad.with_name("masks") / kind).mkdir(parents=True, exist_ok=True)
                    shutil.copy(sample.mask_path, bad.with_name("masks") / kind)
    masks = bad.with_name("masks")
    given = OutlierSource(bad=str(bad), masks=str(masks) if masks.exists() else None, synthetic=0)
    arms = []
    for method, known in METHODS.items():
        limit = minutes if learns(method) else None
        if known.outliers != "required":
            arms.append(Arm(method, FitOptions(method, minutes=limit)))
        if known.outliers != "none":
            arms.append(Arm(f"{method} {BAD} bad", FitOptions(method, outliers=given, minutes=limit)))
    return arms


def measure_arm(dataset: Dataset, arm: Arm, bundle: Path, work: Path, extractor: SharedExtractor) -> dict[str, Any]:
    """Teach and build; the gate is opened wide: a figure that it would refuse is to be seen here."""
    began = time.monotonic()
    try:
        run = teach(
            dataset,
            replace(arm.fit, augment=variations(dataset, arm.fit.method, arm.fit.preset)[0]),
            work / bundle.name,
            backbone_fn=extractor.backbone_fn,
        )
        taught = time.monotonic()
        options = BuildOptions("int8", band=1.0, budget=1.0, torch_images=32, envelope=False)
        report = build(run, bundle, None, options, extractor=extractor, dataset=dataset)
    except LinesideError as e:
        return {"failed": str(e)}
    int8, fp32 = report.metrics["int8"], report.metrics["fp32"]
    return {
        "bundle": str(bundle),
        "teach_s": round(taught - began, 1),
        "build_s": round(time.monotonic() - taught, 1),
        "size_mb": round(report.size_bytes / 1e6, 1),
        **{f"{key}_{p}": getattr(m, key) for p, m in (("int8", int8), ("fp32", fp32)) for key in ("image_auroc", "pixel_auroc", "aupro")},
    }


def measure_latency(rows: list[dict[str, Any]], rounds: int) -> None:
    """Adds ms_median, ms_p99 and multiple: every bundle in turn, against the backbone in PaDiM's."""
    core = ov.Core()
    opened = [ModelBundle.open(Path(r["bundle"])) for r in rows]
    base = next((b for b, r in zip(opened, rows, strict=True) if r["arm"] == "padim"), None)
    models = [core.read_model(b.model_xml) for b in opened] + ([] if base is None else [backbone_of(core, base)])
    first = opened[0]
    x = Preprocessor(first.manifest.input)(read_image(first.directory / first.manifest.golden[0].image))[None]
    requests = [core.compile_model(m, "CPU", INT8_CPU).create_infer_request() for m in models]
    times: list[list[float]] = [[] for _ in models]
    for i in range(rounds + 10):
        for request, found in zip(requests, times, strict=True):
            # Each arm finds the caches as a line would leave them for it: its own, from the part before.
            request.infer({0: x}, share_inputs=True)
            began = time.perf_counter()
            request.infer({0: x}, share_inputs=True)
            if i >= 10:
                found.append((time.perf_counter() - began) * 1e3)
    table = np.array(times)
    for row, found in zip(rows, table, strict=False):
        row["ms_median"], row["ms_p99"] = float(np.median(found)), float(np.quantile(found, 0.99))
        row["multiple"] = None if base is None else float(np.median(found / table[-1]))


def render(rows: list[dict[str, Any]], sets: Sequence[str], minutes: float) -> str:
    """A Markdown table, an arm a row."""
    names = list(dict.fromkeys(r["arm"] for r in rows))
    lines = [
        f"INT8 bundles (FP32 in brackets), EfficientNet-Lite0, 256x256, presets `fast`, up to {minutes:g} minutes for each method that"
        f" learns by steps. {platform.machine()}, {os.cpu_count()} cores.",
        "",
        "| method | "
        + " | ".join(f"image AUROC, {s}" for s in sets)
        + " | AUPRO, first set | ms, median (p99) | x backbone | MB | teach s |",
        "|---" * (len(sets) + 6) + "|",
    ]
    for arm in names:
        found = {r["set"]: r for r in rows if r["arm"] == arm}
        cells = [_pair(found.get(s), "image_auroc") for s in sets]
        some = next((r for r in found.values() if "bundle" in r), {})
        size, teach_s, multiple = (_number(some.get(k), d) for k, d in (("size_mb", 1), ("teach_s", 0), ("multiple", 2)))
        cells += [_pair(found.get(sets[0]), "aupro"), _ms(some), multiple, size, teach_s]
        lines.append(f"| `{arm}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _pair(row: dict[str, Any] | None, key: str) -> str:
    if row is None or row.get(f"{key}_int8") is None:
        return "–"
    return f"{row[f'{key}_int8']:.3f} ({row[f'{key}_fp32']:.3f})"


def _ms(row: dict[str, Any]) -> str:
    return "–" if row.get("ms_median") is None else f"{row['ms_median']:.1f} ({row['ms_p99']:.1f})"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    run_app(app)
