"""Compiles and runs a model in a process of its own, so that a crash inside OpenVINO is a failed export and not the end of ours.

Started as `python -m export.child run IR INPUT.npy OUT_DIR`, `… race|deviate INPUT.npy OUT_DIR IR...` or `… golden BUNDLE OUT_DIR`. It
imports no torch. Other modules that are started so use `call` and `serve`.
"""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_runtime import errors
from edge_runtime.console import lacking
from edge_runtime.errors import ExportError

if TYPE_CHECKING:
    from edge_runtime.model.predictor import GoldenResult

COMMAND = (sys.executable, "-m", "export.child")
COMPILE_TIMEOUT_S = 300.0
"""To start, read and compile. The slowest seen takes 3 s; a machine that swaps may take far longer."""
IMAGE_TIMEOUT_S = 2.0
"""Added for each image. No model that is any use on a line comes near."""
RACE_ROUNDS = 30
RACE_S = 6.0
"""A race of large models ends after so long, but not before each has run RACE_LEAST times."""
RACE_LEAST = 7
COMPILE_OPTIONS = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1"}
"""As the device compiles it."""


@dataclass(frozen=True, slots=True)
class ChildRun:
    """What a model gave for N images, in a child process."""

    outputs: dict[str, npt.NDArray[np.float32]]
    """By output name, (N, ...): the leading 1 of the static batch is gone. Memory maps of files in the directory that was given."""
    latency_ms: float
    """Median over the images, inference alone, compiled and run as on the device."""


def run_in_child(
    ir: Path, images: Path, out: Path, command: Sequence[str] = COMMAND, timeout_s: float | None = None, advice: str | None = None
) -> ChildRun:
    """Compile `ir` for the CPU and run it on every image.

    Args:
        ir: model.xml with its .bin beside it; one input uint8 (1, H, W, 3).
        images: .npy of (N, H, W, 3) uint8; the child maps it, so it is never held twice.
        out: an existing folder; one .npy an output is written there.
        command: what starts the child; tests give one that misbehaves.
        timeout_s: None allows for the number of images.
        advice: what to do when it crashes or hangs; None: for a model of ours.

    Raises:
        ExportError: the child crashed, failed, or did not end in time; the message names the IR, the stage, and what to do.
    """
    count = len(np.load(images, mmap_mode="r"))
    limit = COMPILE_TIMEOUT_S + IMAGE_TIMEOUT_S * count if timeout_s is None else timeout_s
    _call([*command, "run", str(ir), str(images), str(out)], ir, limit, advice)
    report = json.loads((out / "report.json").read_text())
    outputs = {name: np.load(out / f"{name}.npy", mmap_mode="r") for name in report["outputs"]}
    return ChildRun(outputs, report["latency_ms"])


def race_in_child(irs: Sequence[Path], images: Path, out: Path) -> list[float]:
    """Median milliseconds of each model, all in one process and in turns on the same pictures, so that whatever else the machine does slows
    all of them. Arguments and errors as of `run_in_child`."""
    limit = COMPILE_TIMEOUT_S + len(irs) * RACE_ROUNDS * IMAGE_TIMEOUT_S
    _call([*COMMAND, "race", str(images), str(out), *map(str, irs)], irs[-1], limit)
    return [float(ms) for ms in json.loads((out / "race.json").read_text())]


def deviations_in_child(exact: Path, irs: Sequence[Path], images: Path, out: Path) -> list[float]:
    """How far each model's outputs lie from those of `exact` on `images`: squared, relative to these, summed over the outputs; NaN where
    they are no numbers. Errors as of `run_in_child`."""
    limit = COMPILE_TIMEOUT_S + (len(irs) + 1) * len(np.load(images, mmap_mode="r")) * IMAGE_TIMEOUT_S
    _call([*COMMAND, "deviate", str(images), str(out), str(exact), *map(str, irs)], exact, limit)
    return [math.nan if d is None else float(d) for d in json.loads((out / "deviations.json").read_text())]


def golden_in_child(bundle: Path) -> "list[GoldenResult]":
    """Run a bundle's golden samples with the device's own predictor, tolerances aside: look at each result's `ok`.

    Raises: BundleError and the like as the predictor does (a NaN is a GoldenMismatch), ExportError as `run_in_child` does.
    """
    from edge_runtime.model.predictor import GoldenResult

    with tempfile.TemporaryDirectory(prefix="lineside-golden-") as out:
        _call([*COMMAND, "golden", str(bundle), out], bundle, COMPILE_TIMEOUT_S)
        report = json.loads((Path(out) / "golden.json").read_text())
    if "error" in report:
        raise getattr(errors, report["error"])(report["message"])
    return [GoldenResult(**r) for r in report["results"]]


def call(command: list[str], what: Path, timeout_s: float) -> None:
    """Run a child of another module, whose side is in `serve`. Raises ExportError about `what` as `run_in_child` does."""
    _call(command, what, timeout_s)


def _call(command: list[str], what: Path, timeout_s: float, advice: str | None = None) -> None:
    # The child sees the packages that we see, whatever the folder it is started in.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:  # files, not pipes: nothing can fill up and block
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ExportError(f"{what}: gave no answer within {timeout_s:.0f} s while {_stage(out)}; {advice or _advice(what)}") from None
        except BaseException:
            process.kill()
            process.wait()
            raise
        if code == 0:
            return
        stage = _stage(out)
        if code < 0:
            name = next((s.name for s in signal.Signals if s == -code), f"signal {-code}")
            raise ExportError(f"{what}: ended with signal {name} while {stage}; {advice or _advice(what)}")
        err.seek(0)
        lines = [line for line in err.read().splitlines() if line.strip()]
        said = ExportError(f"{what}: failed while {stage}: {lines[-1][:300] if lines else f'exit code {code}'}")
        if code == errors.EXIT_EXHAUSTED:
            raise said from MemoryError()  # or of room on the disk: its last line says which
        raise said


def _stage(out: IO[str]) -> str:
    out.seek(0)
    lines = out.read().split("\n")
    return next((line for line in reversed(lines) if line.strip()), "starting")


def _advice(what: Path) -> str:
    return "it must not reach a line: build with --precision fp32, or with another method or preset" + (
        "" if what.suffix == ".xml" else ", and do not deploy this bundle"
    )


def _say(stage: str) -> None:
    print(stage, flush=True)  # the parent reads the last line when we are gone


def _run(ir: Path, images_file: Path, out: Path) -> None:
    import openvino as ov

    from training.core.memory import array_file

    images = np.load(images_file, mmap_mode="r")
    _say("reading")
    core = ov.Core()
    model = core.read_model(ir)
    _say("compiling")
    names = [o.get_any_name() for o in model.outputs]  # before compiling, which may join tensors and so add names
    compiled = core.compile_model(model, "CPU", COMPILE_OPTIONS)
    shapes = [(len(images), *list(o.get_shape())[1:]) for o in compiled.outputs]
    _say("making room for its outputs")
    files = {name: array_file(out / f"{name}.npy", np.float32, shape) for name, shape in zip(names, shapes, strict=True)}
    request = compiled.create_infer_request()
    times = []
    if len(images):
        request.infer([np.ascontiguousarray(images[:1])])  # the first one allocates; it must not count as latency
    for i in range(len(images)):
        if i % 10 == 0:
            _say(f"running image {i + 1} of {len(images)}")
        image = np.ascontiguousarray(images[i : i + 1])
        start = time.perf_counter()
        request.infer([image], share_inputs=True)
        times.append(time.perf_counter() - start)
        for index, name in enumerate(names):
            files[name][i] = request.get_output_tensor(index).data[0]
    for array in files.values():
        array.flush()
    latency = float(np.median(times) * 1e3) if times else 0.0
    (out / "report.json").write_text(json.dumps({"outputs": names, "latency_ms": latency}))


def _race(images_file: Path, out: Path, irs: Sequence[Path]) -> None:
    import openvino as ov

    images, core = np.load(images_file, mmap_mode="r"), ov.Core()
    _say("compiling")
    requests = [core.compile_model(ir, "CPU", COMPILE_OPTIONS).create_infer_request() for ir in irs]
    times: list[list[float]] = [[] for _ in requests]
    picks = np.linspace(0, len(images) - 1, RACE_ROUNDS).astype(int)
    _say("racing")
    for request in requests:
        request.infer([np.ascontiguousarray(images[:1])])
    began = time.perf_counter()
    for done, i in enumerate(picks):
        if done >= RACE_LEAST and time.perf_counter() - began > RACE_S:
            break
        image = np.ascontiguousarray(images[i : i + 1])
        for request, row in zip(requests, times, strict=True):
            start = time.perf_counter()
            request.infer([image], share_inputs=True)
            row.append(time.perf_counter() - start)
    (out / "race.json").write_text(json.dumps([float(np.median(row) * 1e3) for row in times]))


def _deviate(images_file: Path, out: Path, irs: Sequence[Path]) -> None:
    import openvino as ov

    images, core = np.load(images_file, mmap_mode="r"), ov.Core()
    exact: list[list[npt.NDArray[np.float32]]] = []
    found: list[float | None] = []
    for ir in irs:
        _say(f"running {ir.name}")
        request = core.compile_model(ir, "CPU", COMPILE_OPTIONS).create_infer_request()
        outputs = []
        for image in images:
            request.infer([np.ascontiguousarray(image[None])])
            outputs.append([np.array(t.data) for t in request.output_tensors])
        if not exact:
            exact = outputs
            continue
        error = 0.0
        for level in range(len(exact[0])):
            whole = sum(float(np.sum(row[level] ** 2, dtype=np.float64)) for row in exact)
            off = sum(float(np.sum((a[level] - b[level]) ** 2, dtype=np.float64)) for a, b in zip(outputs, exact, strict=True))
            error += off / max(whole, float(np.finfo(np.float32).tiny))
        found.append(error if math.isfinite(error) else None)
    (out / "deviations.json").write_text(json.dumps(found))


def _golden(path: Path, out: Path) -> None:
    from edge_runtime.model.bundle import ModelBundle
    from edge_runtime.model.predictor import OpenvinoPredictor

    report: dict[str, Any]
    try:
        _say("opening")
        bundle = ModelBundle.open(path)
        tolerance = bundle.manifest.golden_tolerance
        _say("compiling")
        with OpenvinoPredictor(bundle) as predictor:
            _say("running the golden samples")
            results = predictor.run_golden(tolerance_scale=math.inf)
        report = {"results": [{**asdict(r), "allowed": tolerance} for r in results]}
    except errors.LinesideError as e:
        report = {"error": type(e).__name__, "message": str(e)}
    (out / "golden.json").write_text(json.dumps(report))


def main(arguments: Sequence[str]) -> None:
    """The child's side."""
    paths = [Path(a) for a in arguments[1:]]
    if arguments[0] == "golden":
        serve(lambda: _golden(paths[0], paths[1]))
    elif arguments[0] in ("race", "deviate"):
        several = _race if arguments[0] == "race" else _deviate
        serve(lambda: several(paths[0], paths[1], paths[2:]))
    else:
        serve(lambda: _run(paths[0], paths[1], paths[2]))


def serve(work: Callable[[], None]) -> None:
    """Work as a child. A failure is one line on stderr and exit code 1 (71 for want of room); the parent makes a sentence of it."""
    try:
        work()
    except Exception as e:
        lines = str(e).strip().splitlines() or ["no message"]
        print(f"{type(e).__name__}: {lines[-1].strip()}", file=sys.stderr, flush=True)  # OpenVINO's reason is its last line
        raise SystemExit(errors.EXIT_EXHAUSTED if lacking(e) else 1) from None


if __name__ == "__main__":
    main(sys.argv[1:])
