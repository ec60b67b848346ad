"""`lineside bench`: stage by stage, on golden samples or on one's own images, with and without gaps."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.commands.bench import STAGES, peak_memory_mb, run_bench, summarise
from edge_runtime.errors import DeviceError, FrameError, SourceError


def test_without_images_the_golden_samples_take_turns(tiny_bundle: Path) -> None:
    report = run_bench(tiny_bundle, count=20)
    assert (report.images, report.count, report.device, report.frame_wh) == (4, 20, "CPU", (64, 64))
    assert tuple(report.stages_ms) == STAGES
    for ms in report.stages_ms.values():
        assert 0 < ms["median"] <= ms["p99"]


def test_the_total_is_the_sum_of_the_stages() -> None:
    times = [(1.0, 10.0, 2.0, 13.0), (1.0, 12.0, 2.0, 15.0), (1.0, 11.0, 2.0, 14.0)]
    assert {k: v["median"] for k, v in summarise(times).items()} == {"preprocess": 1.0, "infer": 11.0, "postprocess": 2.0, "total": 14.0}
    assert summarise(times)["infer"]["p99"] == pytest.approx(11.98)


@pytest.mark.slow
def test_the_peak_of_memory_is_this_processs_own(tiny_bundle: Path) -> None:
    import subprocess
    import sys

    held = np.ones(300 << 20, np.uint8)  # wait4 would say of any child that it had these, too
    mine = peak_memory_mb()
    said = subprocess.run(
        [sys.executable, "-m", "edge_runtime.cli", "bench", str(tiny_bundle), "--count", "5", "--json"], capture_output=True
    )
    child = json.loads(said.stdout)["memory_mb"]
    assert mine is not None and mine > held.nbytes >> 20
    assert 30 < child < mine


def test_gaps_idle_between_the_parts(tiny_bundle: Path) -> None:
    import time

    began = time.monotonic()
    report = run_bench(tiny_bundle, count=10, gap_ms=30)
    assert time.monotonic() - began > 0.3
    assert report.stages_ms["total"]["median"] < 30, "the gap itself is no stage"


def test_one_s_own_images_are_measured(station_dir: Path, tiny_bundle: Path) -> None:
    assert run_bench(tiny_bundle, station_dir / "parts", count=6).images == 6


def test_images_that_do_not_fit_are_refused(tmp_path: Path, tiny_bundle: Path) -> None:
    with pytest.raises(SourceError, match="found none"):
        run_bench(tiny_bundle, tmp_path, count=1)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((9, 9), np.uint8))
    with pytest.raises(FrameError, match="taught on 64x64 images, found 9x9"):
        run_bench(tiny_bundle, tmp_path, count=1)


def test_a_device_that_is_not_there_is_an_error(tiny_bundle: Path) -> None:
    with pytest.raises(DeviceError, match=r"GPU\.9"):
        run_bench(tiny_bundle, device="GPU.9", count=1)
