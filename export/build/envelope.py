"""The envelope of what ships: the very graph, run in a process of its own on all cores, measured by training.judging.envelope.

Started as `python -m export.build.envelope JOB.json OUT.json`.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import openvino as ov

from edge_runtime.errors import DataError
from edge_runtime.images.read import read_mask
from edge_runtime.model.manifest import Envelope, InputSpec
from export import package
from export.child import COMPILE_TIMEOUT_S, call, serve
from training.judging.acceptance import Criteria
from training.judging.envelope import BUDGET_S, ENOUGH_GOOD, Good, measure_envelope
from training.judging.strayed import Judge

if TYPE_CHECKING:  # they bring torch, which the child is spared
    from export.build.gate import Gate
    from training.calibrate.rules import Scores

COMMAND = (sys.executable, "-m", "export.build.envelope")
REFERENCE = "reference.png"
"""In the gate's folder, and then in the bundle."""
_TIMEOUT_S = 600.0
"""Many times what its budget allows for: only a child that hangs takes so long."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is told, as JSON."""

    ir: str
    input: InputSpec
    mask: str | None
    """PNG of the ignore mask."""
    good: list[tuple[str, float | None]]
    """Path, and the held-out score of an image that was taught."""
    bad: list[str]
    threshold: float
    asked: Criteria
    placed: bool
    """Whether the score is that of the map's highest cells."""
    seed: int
    budget_s: float


def envelope_of(
    ir: Path, gate: "Gate", held_out: "Scores", threshold: float, asked: Criteria, placed: bool, seed: int, budget_s: float = BUDGET_S
) -> Envelope | None:
    """Measure a graph that passed the gate; None where too few good images are at hand. Raises DataError, ExportError.

    Args:
        ir: model.xml with its .bin beside it.
        gate: its images: good ones of the test split where there are enough, else those of the training set that `held_out` is of.
        held_out: of the same detector, in the order of `gate.held`.
        threshold: of the same detector.
        asked: what its verdicts promise.
        placed: see measure_envelope.
        seed: of what is drawn at random.
        budget_s: see measure_envelope.
    """
    good: list[tuple[str, float | None]] = [(str(s.path), None) for s in gate.samples if s.is_good and s.split == "test"]
    if len(good) < ENOUGH_GOOD:
        good += [(str(s.path), float(score)) for s, score in zip(gate.held, held_out.score, strict=True)]
    mask = None
    if (ignore := gate.dataset.ignore) is not None:
        mask = gate.work / "envelope_mask.png"
        package.write_png(mask, ignore)
    job = Job(
        ir=str(ir), input=gate.prepare.spec, mask=None if mask is None else str(mask), good=good,
        bad=[str(s.path) for s in gate.samples if not s.is_good], threshold=threshold, asked=asked, placed=placed, seed=seed,
        budget_s=budget_s,
    )  # fmt: skip
    told, answer = gate.work / "envelope_job.json", gate.work / "envelope.json"
    told.write_bytes(msgspec.json.encode(job))
    gate.progress("measuring the envelope", 0, 1)
    call([*COMMAND, str(told), str(answer)], ir, COMPILE_TIMEOUT_S + _TIMEOUT_S)
    gate.progress("measuring the envelope", 1, 1)
    found = msgspec.json.decode(answer.read_bytes(), type=Envelope | str | None)
    if isinstance(found, str):
        raise DataError(found)
    return found


def measure(told: Path, answer: Path) -> None:
    """The child's side. What is wrong with an image is told as a sentence."""
    print("measuring the envelope", flush=True)  # the parent reads the last line when we are gone
    job = msgspec.json.decode(told.read_bytes(), type=Job)
    cv2.setNumThreads(1)  # frames are prepared beside the inference
    mask = None if job.mask is None else read_mask(Path(job.mask))
    good = [Good(Path(path), held_out) for path, held_out in job.good]
    found: Envelope | str | None
    try:
        found = measure_envelope(
            judge_of(Path(job.ir)), job.input, mask, good, [Path(b) for b in job.bad], job.threshold, job.asked, placed=job.placed,
            seed=job.seed, budget_s=job.budget_s, reference=answer.with_name(REFERENCE),
        )  # fmt: skip
    except DataError as e:
        found = str(e)
    answer.write_bytes(msgspec.json.encode(found))


def judge_of(ir: Path) -> Judge:
    """Scores pictures with a graph, several at once, on all CPUs that this process may use."""
    compiled = ov.Core().compile_model(ir, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"})
    requests = ov.AsyncInferQueue(compiled)

    grid_hw = tuple(compiled.output("map").shape)[2:]

    def judge(pictures: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        scores, maps = np.empty(len(pictures)), np.empty((len(pictures), *grid_hw), np.float32)

        def keep(request: ov.InferRequest, row: int) -> None:
            scores[row] = float(request.get_tensor("score").data[0])
            maps[row] = request.get_tensor("map").data[0, 0]

        requests.set_callback(keep)
        for i in range(len(pictures)):
            requests.start_async([pictures[i : i + 1]], i)
        requests.wait_all()
        return scores, maps

    return judge


if __name__ == "__main__":
    serve(lambda: measure(Path(sys.argv[1]), Path(sys.argv[2])))
