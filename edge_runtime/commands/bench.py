"""Where the milliseconds go on this device: preprocess, infer, postprocess, one image at a time as on a line."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_runtime.images.read import read_image
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.records import Image, Prediction
from edge_runtime.sources.folder import list_images
from edge_runtime.station.judge import Limits, judge

UNCOUNTED = 5
"""Measurements before the first that counts: code and memory that are touched for the first time are no figure of the device."""

STAGES = ("preprocess", "infer", "postprocess", "total")


@dataclass(frozen=True, slots=True)
class BenchReport:
    """What was measured, and on what."""

    bundle: str
    bundle_id: str
    device: str
    """As read back from OpenVINO."""
    images: int
    """Different images that took turns."""
    count: int
    """Measurements."""
    gap_ms: float
    """Idle time before each measurement."""
    frame_wh: tuple[int, int]
    """Width and height of the first image."""
    stages_ms: dict[str, dict[str, float]]
    """Stage -> {"median", "p99"}. Decoding the file is in none of them: a camera delivers pixels."""
    memory_mb: float | None = None
    """Peak resident memory of this process; None where the system does not say."""


def run_bench(
    bundle_path: Path, frames: Path | None = None, device: str | list[str] = "CPU", count: int = 200, gap_ms: float = 0.0, threads: int = 0
) -> BenchReport:
    """Measure `count` decisions of one part in flight. Without `frames` (a folder of images) the bundle's golden samples take turns.

    With `gap_ms` the machine idles before each part, as a triggered line does: processors that clock down show it here.
    Raises the errors of opening a bundle, a device and images, and FrameError for an image that the bundle was not made for.
    """
    bundle = ModelBundle.open(bundle_path)
    paths = list_images(frames) if frames is not None else [bundle.directory / g.image for g in bundle.manifest.golden]
    images = [read_image(p) for p in paths[:count]]
    stated = bundle.manifest.threshold
    limits = Limits(stated.value, stated.map_value)
    with OpenvinoPredictor(bundle, device, threads) as predictor:
        for i in range(UNCOUNTED):
            _measure(predictor, images[i % len(images)], limits, 0.0)
        times = [_measure(predictor, images[i % len(images)], limits, gap_ms) for i in range(count)]
        used = predictor.device_used
    return BenchReport(
        bundle=f"{bundle.manifest.name} {bundle.manifest.version} ({bundle.manifest.method}, {bundle.manifest.precision})",
        bundle_id=bundle.id,
        device=used,
        images=len(images),
        count=count,
        gap_ms=gap_ms,
        frame_wh=(images[0].shape[1], images[0].shape[0]),
        stages_ms=summarise(times),
        memory_mb=peak_memory_mb(),
    )


def peak_memory_mb() -> float | None:
    """The most memory that this process ever held. (What wait4 says of a child counts its parent's memory before exec, too.)"""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next((round(int(line.split()[1]) / 1024, 1) for line in status.splitlines() if line.startswith("VmHWM:")), None)


def summarise(times: Sequence[tuple[float, ...]]) -> dict[str, dict[str, float]]:
    """(count, len(STAGES)) milliseconds -> stage -> median and 99th percentile."""
    columns = np.asarray(times, dtype=np.float64).T
    return {
        stage: {"median": round(float(np.median(column)), 4), "p99": round(float(np.percentile(column, 99)), 4)}
        for stage, column in zip(STAGES, columns, strict=True)
    }


def _measure(predictor: OpenvinoPredictor, image: Image, limits: Limits, gap_ms: float) -> tuple[float, ...]:
    if gap_ms > 0:
        time.sleep(gap_ms / 1e3)
    began = time.perf_counter_ns()
    pictures = predictor.preprocessor.split(image)
    prepared = time.perf_counter_ns()
    scores, maps = predictor.infer(pictures)
    inferred = time.perf_counter_ns()
    score, score_map = predictor.preprocessor.merge(scores, maps)
    grid_to_frame = predictor.preprocessor.grid_to_frame(image, (score_map.shape[0], score_map.shape[1]))
    judge(Prediction(score, score_map, grid_to_frame), limits, (image.shape[1], image.shape[0]))
    ended = time.perf_counter_ns()
    return tuple(ns / 1e6 for ns in (prepared - began, inferred - prepared, ended - inferred, ended - began))
