"""What `lineside-train evaluate --json` prints and `--csv` writes: the figures, a row a kind, a row an image."""

import csv
import io
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from edge_runtime.model.manifest import Metrics
from training.data.layout import GOOD, Sample
from training.judging.evaluate import EvaluationReport


class KindFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of defect at the threshold."""

    kind: str
    images: int
    missed: int
    """Accepted although bad."""
    image_auroc: float | None
    """Against all good images."""
    regions: int
    """Connected defects in the masks."""
    regions_found: int
    """How many of these lie under a reported box."""
    learnt: bool
    """Whether the detector learnt from other parts of this kind."""


class ImageFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One image."""

    path: str
    split: str
    """train, test or bad."""
    label: str
    """good or bad."""
    kind: str
    """good, or the kind of defect."""
    score: float
    """Raw, as it is compared with the threshold."""
    severity: float
    """Score over threshold: above 1 the part is rejected."""
    verdict: str
    """ACCEPT or REJECT."""
    right: bool
    """Whether verdict and label agree."""


class Evaluation(Metrics, frozen=True, kw_only=True):
    """The figures as a manifest has them, then what they were made of. Keys are only ever added."""

    kinds: list[KindFigures]
    images: list[ImageFigures]
    notes: list[str]
    """What makes the figures flatter, and what did not count."""


def evaluation_of(report: EvaluationReport) -> Evaluation:
    """Everything that a report holds, for a program."""
    m = report.metrics
    assert m.threshold is not None
    images = image_figures(report.scored.samples, report.scored.scores.score, m.threshold)
    kinds = [
        KindFigures(
            kind=row.kind, images=row.n, missed=row.n - row.rejected, image_auroc=row.auroc, regions=row.regions, regions_found=row.hits,
            learnt=row.learnt,
        )
        for row in report.kinds
    ]  # fmt: skip
    return Evaluation(**msgspec.structs.asdict(m), kinds=kinds, images=images, notes=list(report.notes))


def image_figures(samples: Sequence[Sample], scores: npt.NDArray[np.float64], threshold: float) -> list[ImageFigures]:
    """A row an image, of (N,) scores: a part is rejected when its score is larger than `threshold`."""
    images = []
    for sample, score in zip(samples, scores.tolist(), strict=True):
        rejected = score > threshold
        images.append(
            ImageFigures(
                path=str(sample.path), split=sample.split, label=GOOD if sample.is_good else "bad", kind=sample.kind, score=score,
                severity=score / threshold, verdict="REJECT" if rejected else "ACCEPT", right=rejected != sample.is_good,
            )
        )  # fmt: skip
    return images


def as_csv(found: Evaluation) -> str:
    """A header and a row an image."""
    text = io.StringIO()
    rows = csv.DictWriter(text, ImageFigures.__struct_fields__, lineterminator="\n")
    rows.writeheader()
    rows.writerows(map(msgspec.structs.asdict, found.images))
    return text.getvalue()
