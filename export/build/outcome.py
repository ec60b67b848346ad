"""What a build came to: for who called it, and as JSON for programs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_runtime.errors import LinesideError
from edge_runtime.model.manifest import Acceptance, Envelope, Metrics, Threshold
from export.build.parity import Flips
from export.build.trial import Trial
from training.judging.telling import Told


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What an export came to."""

    out: Path
    bundle_id: str
    size_bytes: int
    metrics: dict[str, Metrics]
    """By precision: torch where it ran on all images, fp32 and, where built, int8."""
    latency_ms: dict[str, float]
    """Median by precision on this machine, of one image, or of one tile where an image is cut into `views` of them; taken in turns."""
    views: int
    threshold: Threshold
    score_difference: float
    """Largest relative difference of torch's and the FP32 graph's scores."""
    flips: Flips | None
    """Verdicts that differ from FP32 to INT8; None for fp32."""
    n_compared: int
    compared: str
    """On which images precisions were compared."""
    envelope: Envelope | None
    """How far the line may stray; None where that was not measured."""
    seconds: float
    notes: tuple[str, ...]
    told: Told | None = None
    """What the threshold does to bad parts, where some are known."""
    acceptance: Acceptance | None = None
    tried: tuple[Trial, ...] = ()
    """Every precision that was tried, in that order."""
    measured_on: str = ""
    """The images that `metrics` are of."""

    @property
    def precision(self) -> str:
        """Precision of what ships."""
        return "int8" if "int8" in self.latency_ms else "fp32"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What `lineside-export build --json` prints. Keys are only ever added."""

    out: str
    """Where the bundle is, or would have been."""
    refused: str | None
    """Why there is no bundle; None: there is."""
    exit_code: int
    tried: list[Trial]
    """In the order in which they were tried, FP32 first."""
    precision: str | None = None
    """Precision of the bundle, or of what would have shipped: fp32 or int8; None where no precision was good enough."""
    bundle_id: str | None = None
    size_bytes: int | None = None
    acceptance: Acceptance | None = None
    """Whether it is fit for release; None where nothing was chosen."""
    envelope: Envelope | None = None
    notes: list[str] = []
    seconds: float | None = None


def outcome_of(out: Path, tried: Sequence[Trial], report: BuildReport | None, refusal: LinesideError | None = None) -> Outcome:
    """The outcome of a build that came to `report`, or was refused: before there was one where that is None."""
    outcome = Outcome(
        out=str(out), refused=None if refusal is None else str(refusal), exit_code=0 if refusal is None else refusal.exit_code,
        tried=list(tried),
    )  # fmt: skip
    if report is None:
        return outcome
    return msgspec.structs.replace(
        outcome, precision=report.precision, size_bytes=report.size_bytes, acceptance=report.acceptance, envelope=report.envelope,
        notes=list(report.notes), seconds=report.seconds, bundle_id=None if refusal else report.bundle_id,
    )  # fmt: skip
