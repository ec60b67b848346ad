"""How good a detector is: per image at its threshold, per pixel, per defect kind; of a run, or of a bundle through the device's own code.

Pixels are judged at the model's input size (with tiles, at that of all of them together): the map is enlarged bilinearly to it, the mask
reduced so that a pixel with any of a defect is one (nearest neighbour loses small ones whole), ignored places left out. A defective image
whose mask is missing or empty counts as an image, not by its pixels, and the report says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

from edge_runtime.errors import DataError, FrameError
from edge_runtime.images.read import read_mask
from edge_runtime.model import manifest as records
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.manifest import Metrics, Threshold
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.model.preprocess import Preprocessor
from edge_runtime.model.regions import find_regions
from edge_runtime.records import Frame, Prediction, Region
from training.calibrate.rules import Scores
from training.calibrate.suspects import say_suspects, suspects
from training.core.base import Progress, silent
from training.data.dataset import Dataset
from training.data.facts import frame_of
from training.data.layout import Sample
from training.data.masks import truth
from training.data.taught import taught_on, unlearnt
from training.judging.inverted import say_inverted
from training.judging.pixels import PixelCounts, label_regions
from training.runs import Run

Predict = Callable[[Frame], Prediction]


@dataclass(frozen=True, slots=True)
class Scored:
    """What a detector said of N images."""

    samples: tuple[Sample, ...]
    scores: Scores
    pixels: PixelCounts
    regions: npt.NDArray[np.intp]
    """(N,) connected defects in the mask."""
    hits: npt.NDArray[np.intp]
    """(N,) how many of those lie under a reported region's box."""
    unmasked: tuple[Sample, ...]
    """Defective images without a usable mask."""

    @property
    def is_good(self) -> npt.NDArray[np.bool_]:
        """(N,)"""
        return np.array([s.is_good for s in self.samples], dtype=bool)

    def pick(self, good: bool) -> Scores:
        """Scores of the good or of the bad images only."""
        rows = self.is_good == good
        return Scores(self.scores.score[rows], self.scores.map_peak[rows], self.scores.map_median[rows])


class KindRow(NamedTuple):
    """One kind of defect."""

    kind: str
    n: int
    rejected: int
    auroc: float | None
    """Against all good images."""
    regions: int
    hits: int
    learnt: bool = False
    """True where the detector learnt from other parts of this kind."""


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """An evaluation."""

    metrics: Metrics
    kinds: tuple[KindRow, ...]
    notes: tuple[str, ...]
    scored: Scored
    """What the figures were made of."""
    learnt_auroc: float | None = None
    """Image AUROC on the kinds of defect that it learnt from; None where there are none."""
    unseen_auroc: float | None = None
    """On the others, where it learnt from some."""


def score_dataset(
    predict: Predict, samples: Sequence[Sample], prepare: Preprocessor, *, map_threshold: float | None = None, progress: Progress = silent
) -> Scored:
    """Score images one by one and count their pixels.

    Args:
        predict: the signature of edge_runtime's `Predictor.predict`.
        samples: what to score.
        prepare: of the same detector; says what of a mask counts.
        map_threshold: for reported regions; None reports none.
        progress: told of each image.

    Raises:
        DataError: an image that does not fit, or a score that is not a number; with the path.
    """
    spec = prepare.spec
    size = prepare.truth_hw
    counted = prepare.valid_cells(size)
    pixels = PixelCounts()
    rows = np.empty((len(samples), 3), dtype=np.float64)
    regions = np.zeros(len(samples), dtype=np.intp)
    hits = np.zeros(len(samples), dtype=np.intp)
    unmasked: list[Sample] = []
    for i, sample in enumerate(samples):
        frame = frame_of(sample.path, spec, i + 1)
        try:
            found = predict(frame)
        except FrameError as e:
            raise DataError(f"{sample.path}: {e}") from e
        grid = found.score_map
        rows[i] = found.score, grid.max(), np.median(grid[prepare.valid_cells(grid.shape)])
        if not np.isfinite(rows[i]).all():
            raise DataError(f"{sample.path}: the detector gives no finite score for it ({found.score}); its weights are broken")
        marks = truth(sample, (frame.image.shape[1], frame.image.shape[0]))
        mask = np.zeros(size, dtype=bool) if marks is None else prepare.crop_mask(marks) & counted
        if not sample.is_good and not mask.any():
            unmasked.append(sample)
        else:
            labels = label_regions(mask)
            pixels.add(np.asarray(cv2.resize(grid, size[::-1], interpolation=cv2.INTER_LINEAR), dtype=np.float32), labels, counted)
            regions[i] = labels.max()
            if map_threshold is not None:
                wh = (frame.image.shape[1], frame.image.shape[0])
                boxes = find_regions(grid, found.grid_to_frame, wh, map_threshold)
                hits[i] = _hits(labels, boxes, prepare.grid_to_frame(frame.image, size))
        progress("score", i + 1, len(samples))
    return Scored(tuple(samples), Scores(rows[:, 0], rows[:, 1], rows[:, 2]), pixels, regions, hits, tuple(unmasked))


def measure(scored: Scored, threshold: float) -> Metrics:
    """All figures; None where a class, or masks, are missing. A part is rejected when its score is larger than `threshold`."""
    good, score = scored.is_good, scored.scores.score
    rejected = score > threshold
    n_good, n_bad = int(good.sum()), int((~good).sum())
    both = n_good > 0 and n_bad > 0
    caught, false = int((rejected & ~good).sum()), int((rejected & good).sum())
    return Metrics(
        image_auroc=float(roc_auc_score(~good, score)) if both else None,
        image_ap=float(average_precision_score(~good, score)) if both else None,
        f1=2 * caught / (caught + false + n_bad) if both else None,
        false_reject_rate=false / n_good if n_good else None,
        false_accept_rate=1 - caught / n_bad if n_bad else None,
        pixel_auroc=scored.pixels.auroc(),
        aupro=scored.pixels.aupro(),
        threshold=threshold,
        n_good=n_good,
        n_bad=n_bad,
    )


def by_kind(scored: Scored, threshold: float, learnt: Sequence[str] = ()) -> tuple[KindRow, ...]:
    """A row a defect kind, by name. `learnt`: kinds that the detector learnt from."""
    good, score = scored.is_good, scored.scores.score
    kinds = np.array([s.kind for s in scored.samples])
    rows = []
    for kind in sorted({s.kind for s in scored.samples if not s.is_good}):
        these = (kinds == kind) & ~good
        against = these | good
        auroc = float(roc_auc_score(these[against], score[against])) if good.any() else None
        rejected = int((score[these] > threshold).sum())
        regions, hits = int(scored.regions[these].sum()), int(scored.hits[these].sum())
        rows.append(KindRow(kind, int(these.sum()), rejected, auroc, regions, hits, kind in learnt))
    return tuple(rows)


def auroc_of(scored: Scored, kinds: Sequence[str]) -> float | None:
    """Image AUROC of some kinds of defect against all good images; None without either."""
    bad = np.array([s.kind in kinds and not s.is_good for s in scored.samples], dtype=bool)
    rows = bad | scored.is_good
    return float(roc_auc_score(bad[rows], scored.scores.score[rows])) if bad.any() and scored.is_good.any() else None


def evaluate_run(run: Run, dataset: Dataset, progress: Progress = silent) -> EvaluationReport:
    """Evaluate a run, in torch. `dataset` must have been loaded against the run's input. Raises DataError."""
    scored = score_dataset(
        run.predictor(),
        unlearnt(dataset.scored, run.info.dataset),
        run.preprocessor(),
        map_threshold=run.info.threshold.map_value,
        progress=progress,
    )
    return _report(scored, run.info.threshold, run.info.dataset)


def evaluate_bundle(bundle: ModelBundle, dataset: Dataset, device: str = "CPU", progress: Progress = silent) -> EvaluationReport:
    """Evaluate a bundle, through edge_runtime's own predictor and regions on `device`. Raises DataError, BundleError, DeviceError."""
    manifest = bundle.manifest
    mask = None if manifest.input.ignore_mask is None else read_mask(bundle.directory / manifest.input.ignore_mask)
    with OpenvinoPredictor(bundle, device) as predictor:
        prepare = Preprocessor(manifest.input, mask)
        samples = unlearnt(dataset.scored, manifest.dataset)
        scored = score_dataset(predictor.predict, samples, prepare, map_threshold=manifest.threshold.map_value, progress=progress)
    return _report(scored, manifest.threshold, manifest.dataset)


def _report(scored: Scored, threshold: Threshold, taught: records.Dataset) -> EvaluationReport:
    metrics = measure(scored, threshold.value)
    seen = len(taught_on([s for s in scored.samples if s.is_good], taught))
    notes = []
    if inverted := say_inverted(scored.pick(True).score, scored.pick(False).score):
        notes.append(inverted)
    found = suspects(scored.scores.score, scored.is_good, [s.kind for s in scored.samples])
    if doubtful := say_suspects(scored.samples, found, times=(scored.scores.score / threshold.value).tolist()):
        notes.append(doubtful)
    if taught.bad_sha256:
        kinds = ", ".join(taught.bad_kinds)
        notes.append(f"{len(taught.bad_sha256)} bad images were learnt from ({kinds}); where they lie here, too, they do not count")
    others = sorted({s.kind for s in scored.samples if not s.is_good} - set(taught.bad_kinds))
    if threshold.from_test_split:
        notes.append("the threshold was calibrated on the test split: F1 and the two rates flatter if these are the same images")
    if seen:
        notes.append(f"{seen} of {metrics.n_good} good images were taught on: the figures flatter; give images that were held back")
    if scored.unmasked and scored.pixels.regions:
        notes.append(
            f"{len(scored.unmasked)} defective images have no mask, or an empty one"
            f" (the first: {scored.unmasked[0].path}): they count as images, not by their pixels"
        )
    return EvaluationReport(
        metrics,
        by_kind(scored, threshold.value, taught.bad_kinds),
        tuple(notes),
        scored,
        auroc_of(scored, taught.bad_kinds) if taught.bad_kinds else None,
        auroc_of(scored, others) if taught.bad_kinds else None,
    )


def _hits(labels: npt.NDArray[np.int32], boxes: Sequence[Region], to_frame: npt.NDArray[np.float64]) -> int:
    """How many labelled defects have a pixel under some box; `to_frame` maps pixels of the model's input to the frame's."""
    scale, shift = np.diag(to_frame[:, :2]), to_frame[:, 2]
    under: set[int] = set()
    for box in boxes:
        x0, y0 = np.maximum(np.floor((np.array([box.x0, box.y0]) - shift) / scale), 0).astype(int)
        x1, y1 = np.ceil((np.array([box.x1, box.y1]) - shift) / scale).astype(int)
        under.update(np.unique(labels[y0:y1, x0:x1]).tolist())
    return len(under - {0})
