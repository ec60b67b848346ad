"""From what was built to a bundle: its graph, golden samples and manifest."""

import datetime
import importlib.metadata
import shutil
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import openvino as ov
import timm
import torch

import edge_runtime
from edge_runtime.errors import GoldenMismatch
from edge_runtime.model.manifest import SCHEMA, Acceptance, Envelope, Golden, Manifest, Metrics, OutputSpec
from export import package
from export.build.gate import Gate
from export.build.int8 import Built
from export.build.model_info import write_model_info
from export.child import golden_in_child
from training.data.facts import load_frame
from training.judging.drift import drift_limits
from training.methods.table import METHODS
from training.runs import IGNORE, Run, RunInfo


def pack(
    folder: Path, run: Run, gate: Gate, built: Built, metrics: dict[str, Metrics], acceptance: Acceptance | None, envelope: Envelope | None
) -> str:
    """Make `folder`, which is there, the bundle of `built`, and run its golden samples as a device will. Returns the bundle's id.

    Raises GoldenMismatch, and DataError for an image that is gone.
    """
    info = run.info
    good = np.array([s.is_good for s in gate.samples], dtype=bool)
    picks = package.choose_golden(built.judged.raw, good, built.threshold.value)
    files = package.write_golden(folder, [load_frame(gate.samples[i].path, info.input) for i in picks])
    for suffix in (".xml", ".bin"):
        shutil.move(built.ir.with_suffix(suffix), folder / f"model{suffix}")
    if info.input.tiles is None:  # model_api knows no tiles
        write_model_info(folder / "model.xml", built.threshold)
    if run.ignore is not None:
        package.write_png(folder / (info.input.ignore_mask or IGNORE), run.ignore)
    if envelope is not None and envelope.placement is not None:
        shutil.copyfile(gate.work / envelope.placement.reference, folder / envelope.placement.reference)
    now = datetime.datetime.now(datetime.UTC)
    manifest = Manifest(
        schema=SCHEMA,
        name=info.name,
        version=now.strftime("%Y%m%dT%H%M%SZ"),
        created=now.isoformat(timespec="seconds"),
        method=info.method,
        backbone=info.backbone.name,
        params=_settings(info, built.floats),
        precision=built.precision,
        input=info.input,
        output=OutputSpec(**dict(zip(("map_height", "map_width"), _grid(built.ir.with_suffix("")), strict=True))),
        threshold=built.threshold,
        display=built.display,
        drift=drift_limits(built.held_out.score),
        acceptance=acceptance,
        envelope=envelope,
        dataset=info.dataset,
        metrics=metrics,
        golden=[
            Golden(image=f, score=float(built.judged.raw[i]), map_peak=float(built.judged.peaks[i]))
            for f, i in zip(files, picks, strict=True)
        ],
        golden_tolerance=package.GOLDEN_TOLERANCE[built.precision],
        files={},
        tools=tool_versions(built.precision) | METHODS[info.method].tools,
    )
    bundle = package.seal(folder, manifest)
    wrong = [r for r in golden_in_child(folder) if not r.ok]
    if wrong:
        raise GoldenMismatch(f"golden samples: the device's predictor gives {wrong[0].score:.6g}, not {wrong[0].expected_score:.6g}")
    return bundle.id


def _settings(info: RunInfo, floats: str | None) -> dict[str, Any]:
    """What was chosen, for the manifest: the method's parameters and everything else that the detector follows from."""
    more = {"augment": info.augment, "outliers": info.outliers, "learning": info.learning, "floats": floats}
    chosen = {key: msgspec.to_builtins(value) for key, value in more.items() if value is not None}
    return {**info.params, "preset": info.preset, "strides": list(info.backbone.strides), "seed": info.seed, **chosen}


def tool_versions(precision: str) -> dict[str, str]:
    """Versions of what takes part in an export."""
    found = {
        "lineside": edge_runtime.__version__,
        "openvino": ov.__version__,
        "torch": str(torch.__version__),
        "timm": timm.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }
    # NNCF is not imported where it took no part, and its own module is slow to load.
    return found | ({"nncf": importlib.metadata.version("nncf")} if precision == "int8" else {})


def _grid(folder: Path) -> tuple[int, int]:
    shape = np.load(folder / "map.npy", mmap_mode="r").shape
    return int(shape[-2]), int(shape[-1])
