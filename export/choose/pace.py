"""How long a decision of each of several graphs takes: measured in one process, in turns, so that all suffer alike from what else runs.

`python -m export.choose.pace FOLDER` in a process of its own, without torch, as on the device.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from edge_runtime.errors import ExportError
from edge_runtime.model.manifest import InputSpec

ROUNDS, LEAST_ROUNDS = 80, 12
BLOCKS = 4
BUSY = 0.2
"""Spread of the blocks' medians, as a share of the whole's, from which on the machine was doing something else meanwhile."""
TIMEOUT_S = 600.0


class Order(msgspec.Struct, frozen=True):
    """What the child is to measure."""

    spec: InputSpec
    graphs: dict[str, str]
    seconds: float


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How long one graph takes."""

    median_ms: float
    """Median of a decision: preprocess, and inference of all tiles."""
    p99_ms: float
    spread: float
    """Largest less smallest median of four blocks of rounds, over the median of all."""
    memory_mb: float
    """Resident, of a process that runs this graph alone: what Python and OpenVINO take, and what this graph added."""


def pace(
    graphs: dict[str, Path], spec: InputSpec, frame: np.ndarray, ignore: np.ndarray | None, place: Path,
    seconds: float = 30.0,
) -> dict[str, Pace]:  # fmt: skip
    """Milliseconds of each graph, in turns: ROUNDS, or fewer where `seconds` are over, though never fewer than LEAST_ROUNDS.

    `frame`: as the camera gives it; `place`: an existing folder. Raises ExportError.
    """
    np.save(place / "frame.npy", frame)
    if ignore is not None:
        np.save(place / "ignore.npy", ignore)
    order = Order(spec, {name: str(path.resolve()) for name, path in graphs.items()}, seconds)
    (place / "order.json").write_bytes(msgspec.json.encode(order))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "export.choose.pace", str(place)],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as e:
        raise ExportError(f"latency: no answer within {TIMEOUT_S:.0f} s") from e
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise ExportError(f"latency: measuring ended with code {done.returncode}: {said[-1][:200] if said else 'nothing said'}")
    return msgspec.json.decode((place / "pace.json").read_bytes(), type=dict[str, Pace])


def busy(found: dict[str, Pace], load: float) -> str | None:
    """A sentence where the machine did something else. `load`: its load average before we began."""
    cores = os.cpu_count() or 1
    spread = float(np.median([p.spread for p in found.values()])) if found else 0.0
    if load <= 0.5 * cores and spread <= BUSY:
        return None
    return (
        f"this machine is busy (load {load:.1f} on {cores} cores before, medians that vary by {100 * spread:.0f} %): the order of the"
        " milliseconds holds, as they were taken in turns; their size does not"
    )


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main(arguments: Sequence[str]) -> None:
    """The child's side."""
    import openvino as ov

    from edge_runtime.model.preprocess import Preprocessor
    from export.child import COMPILE_OPTIONS

    place = Path(arguments[0])
    order = msgspec.json.decode((place / "order.json").read_bytes(), type=Order)
    frame = np.load(place / "frame.npy")
    ignore = np.load(place / "ignore.npy") if (place / "ignore.npy").exists() else None
    prepare, core = Preprocessor(order.spec, ignore), ov.Core()
    base = _resident_mb()
    requests, memory = {}, {}
    for name, path in order.graphs.items():
        before = _resident_mb()
        requests[name] = core.compile_model(core.read_model(path), "CPU", COMPILE_OPTIONS).create_infer_request()
        for _ in range(3):
            requests[name].infer([prepare.split(frame)[:1]])
        memory[name] = base + _resident_mb() - before
    times: dict[str, list[float]] = {name: [] for name in requests}
    names = list(requests)
    over = time.monotonic() + order.seconds
    for i in range(ROUNDS):
        if i >= LEAST_ROUNDS and time.monotonic() > over:
            break
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.perf_counter()
            for picture in prepare.split(frame):
                requests[name].infer([picture[None]], share_inputs=True)
            times[name].append(1e3 * (time.perf_counter() - start))
    found = {}
    for name, all_ms in times.items():
        blocks = [float(np.median(part)) for part in np.array_split(all_ms, BLOCKS)]
        middle = float(np.median(all_ms))
        spread = (max(blocks) - min(blocks)) / middle
        found[name] = Pace(median_ms=middle, p99_ms=float(np.percentile(all_ms, 99)), spread=spread, memory_mb=round(memory[name]))
    (place / "pace.json").write_bytes(msgspec.json.encode(found))


if __name__ == "__main__":
    main(sys.argv[1:])
