"""What a station needs of this machine beside its devices: one OpenCV, processors, room on the disk."""

import os
import shutil
from importlib import metadata
from pathlib import Path

from edge_runtime.errors import ConfigError, DeviceError, SinkError


def one_opencv() -> str:
    """opencv-python and opencv-python-headless unpack into the same folder: with both, which one runs is chance. Raises ConfigError.

    Why there are two: deploy/decisions/0002.
    """
    here = [name for name in ("opencv-python", "opencv-python-headless") if _installed(name)]
    if len(here) == 2:
        raise ConfigError(
            "expected opencv-python or opencv-python-headless, found both, and they overwrite each other's files. "
            "Run: pip uninstall --yes opencv-python opencv-python-headless && pip install opencv-python"
        )
    return f"{here[0]} {metadata.version(here[0])}, openvino {metadata.version('openvino')}" if here else "OpenCV is not pip's"


def processors(wanted: int, taken: int) -> str:
    """How many CPUs the station's inference takes, of those that it may use. Raises DeviceError for more threads than CPUs."""
    may = sorted(os.sched_getaffinity(0))
    among = f"CPUs {_ranges(may)}, {len(may)} of {os.cpu_count()} in this machine"
    if wanted > len(may):
        raise DeviceError(
            f"threads: expected at most {len(may)}, found {wanted}: this process may use {among}; see cpus.conf among the examples"
        )
    how = f"{taken} thread{'' if taken == 1 else 's'}" if taken else "none"
    return f"inference takes {how} of {among}. Stations that share them wait for one another: see cpus.conf among the examples"


def _ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] -> "0-2,5", as CPUAffinity= takes it."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def room(folder: Path, wanted_mb: float, key: str) -> str:
    """Whether `folder` (or the nearest one above it that exists) may be written to and has `wanted_mb`, counting what it holds already.

    Raises SinkError.
    """
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise SinkError(f"{folder}: expected a folder that this user may write to, found {existing} is not; change its owner or the path")
    held = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6 if folder.is_dir() else 0.0
    free = shutil.disk_usage(existing).free / 1e6
    if free + held < wanted_mb:
        raise SinkError(f"{folder}: {key} wants {wanted_mb:,.0f} MB, found {free:,.0f} MB free beside {held:,.0f} MB in use; make room")
    return f"{folder} may be written to, {free:,.0f} MB free"


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
