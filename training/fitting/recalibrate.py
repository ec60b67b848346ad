"""Another threshold for a detector that is already taught: gathers the scores that a rule asks for, and applies it."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import DataError
from edge_runtime.model.manifest import InputSpec
from edge_runtime.model.preprocess import Preprocessor
from training.calibrate.rules import OF_GOOD, Rule, Scores, apply_rule
from training.core.base import Progress, silent
from training.core.learn import TrainedHead, hold_out
from training.data.dataset import Dataset, inputs, load_bad, load_dataset
from training.data.layout import Sample
from training.data.taught import taught_on, unlearnt
from training.fitting.heads import BackboneFn, Painted, cross_fit, extract_features, score_features, torch_backbone_fn
from training.pictures.material import good_pictures, painted_pictures
from training.runs import IGNORE, Detector, Run, digest, rewrite_info


def recalibrate(run: Run, rule: Rule, data: Path | None = None, progress: Progress = silent) -> Run:
    """Another threshold for a run, by another rule; run.json is replaced at once.

    `data`: where the data lies now, for a rule on the test split. Raises DataError, CalibrationError; the run is then as before.
    """
    good, bad = evidence(run, rule, data, progress)
    own = () if rule.from_test_split else (run.info.apart, len(run.info.odd))
    threshold, display = apply_rule(rule, good, bad, *own)
    return rewrite_info(run, msgspec.structs.replace(run.info, rule=rule, threshold=threshold, display=display))


def evidence(run: Run, rule: Rule, data: Path | None = None, progress: Progress = silent) -> tuple[Scores, Scores | None]:
    """Scores that `rule` needs of the torch detector: of good images and, where it uses them, of bad ones."""
    good_samples, bad_samples = rule_samples(rule, data or Path(run.info.data), run.info.input, run.ignore, progress)
    if rule.bad is not None and (copies := taught_on(bad_samples, run.info.dataset)):
        raise DataError(
            f"calibrate: {len(copies)} of the bad images in {rule.bad} are good ones that {run.info.method} was taught on (the first:"
            f" {copies[0].path.name}); give bad images alone"
        )
    given, bad_samples = len(bad_samples), unlearnt(bad_samples, run.info.dataset)
    if given and not bad_samples and not rule.synthetic:
        raise DataError(f"calibrate: {run.info.method} has learnt from all {given} bad images that were given; a threshold needs others")
    if not good_samples and not bad_samples and not rule.synthetic:
        return run.held_out.scores, None
    detector, prepare = run.detector(), run.preprocessor()
    good = score_samples(detector, good_samples, prepare, progress) if good_samples else run.held_out.scores
    bad = [score_samples(detector, bad_samples, prepare, progress)] if bad_samples else []
    if rule.synthetic:
        bad.append(painted_scores(run, detector, open_data(run, data, progress), prepare, rule.synthetic, progress))
    return good, Scores(*(np.concatenate(part) for part in zip(*map(astuple, bad), strict=True))) if bad else None


def painted_scores(
    run: Run, detector: Detector, dataset: Dataset, prepare: Preprocessor, count: int, progress: Progress = silent, seed: int | None = None,
    run_backbone: BackboneFn | None = None,
) -> Scores:  # fmt: skip
    """Scores of defects painted into good images, by heads that know those images as little as those did that scored the good ones.

    `seed`: of the painting; None: the run's. `run_backbone`: a quicker way to run the detector's own trunk than torch. Raises DataError.
    """
    info, views = run.info, prepare.views
    held = run.unlearnt(dataset.train, [dataset.name_of(s) for s in dataset.train])
    pictures, sources = painted_pictures(held, prepare, count, info.seed if seed is None else seed)
    shapes = detector.backbone.level_shapes(info.input.height, info.input.width)
    run_backbone = run_backbone or torch_backbone_fn(detector.backbone)
    flat = iter(pictures.reshape(-1, *pictures.shape[2:]))
    features = extract_features(run_backbone, flat, count, shapes, views=views, progress=progress)
    if isinstance(detector.head, TrainedHead):
        return score_features(detector.head, features, prepare)
    # A head on a learnt network was fitted on the images that the network has not learnt from, as they are.
    augment = info.augment if info.learning is None else None
    copies = augment.copies if augment else 0
    taught = extract_features(
        run_backbone, good_pictures(held, prepare, augment, info.seed), len(held), shapes, views=views, copies=copies, progress=progress
    )
    _, found = cross_fit(info.method, info.params, shapes, taught, prepare, info.seed, info.folds, progress, Painted(features, sources))
    assert found is not None
    return found


def open_data(run: Run, data: Path | None, progress: Progress = silent) -> Dataset:
    """The images of the run, checked to be the same. Raises DataError."""
    info = run.info
    path = data or Path(info.data)
    if not path.exists():
        raise DataError(f"data: the images of this run were in {path}, where nothing is now; say where they are with --data FOLDER")
    dataset = load_dataset(
        path,
        roi=info.input.roi,
        ignore_mask=run.directory / IGNORE if info.input.ignore_mask else None,
        bad=Path(info.rule.bad) if info.rule.bad else None,
        masks=Path(info.rule.masks) if info.rule.masks else None,
        image_size=f"{info.input.width}x{info.input.height}",
        tiles=info.input.tiles,
        bayer=info.input.bayer,
        bits=info.input.bits if info.input.bits > 8 else None,
        allow_duplicates=True,  # the fit has refused them, or its user has allowed them
        progress=progress,
    )
    dataset = dataset.leave_out(info.left_out)
    dataset = dataclasses.replace(dataset, spec=msgspec.structs.replace(dataset.spec, brightness=info.input.brightness))
    if dataset.record.fingerprint != info.dataset.fingerprint:
        raise DataError(
            f"data: expected the {info.dataset.n_good} good images that the run was taught on "
            f"(fingerprint {info.dataset.fingerprint[:12]}…), found {len(dataset.train)} in {path} "
            f"(fingerprint {dataset.record.fingerprint[:12]}…). Give their folder with --data, or fit again"
        )
    if info.learning is not None:
        # Which images were never learnt from follows from their order, and that from their names.
        held = {dataset.sha256[int(i)] for i in hold_out(len(dataset.train), info.seed)[1]}
        known = info.learning.held or digest({i.sha256 for i in run.held_out.images})
        if digest(held) != known:
            raise DataError(
                f"data: the images in {path} are those of the run under other names, so that it cannot be told which of them were held out;"
                " give them their old names, or fit again"
            )
    return dataset


def rule_samples(
    rule: Rule, data: Path, spec: InputSpec, ignore: npt.NDArray[np.uint8] | None, progress: Progress = silent
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """(good, bad) images that a rule wants scored beside the held-out good ones; both empty for a rule that needs none.

    Raises DataError when they are not there, or do not fit.
    """
    if rule.from_test_split:
        test = load_dataset(data, spec=spec, ignore=ignore, allow_duplicates=True, progress=progress).test
        good, bad = tuple(s for s in test if s.is_good), tuple(s for s in test if not s.is_good)
        if not good or (not bad and rule.kind not in OF_GOOD):
            raise DataError(
                f"calibrate: expected a test split with good and bad images in {data} (test/good, test/<defect>), found no such"
            )
        return good, bad if rule.kind not in OF_GOOD else ()
    if rule.bad is None:
        return (), ()
    return (), load_bad(Path(rule.bad), spec, ignore, masks=Path(rule.masks) if rule.masks else None, progress=progress)


def score_samples(detector: Detector, samples: Sequence[Sample], prepare: Preprocessor, progress: Progress = silent) -> Scores:
    """Scores of images by the whole torch detector. Raises DataError."""
    return score_pictures(detector, inputs(samples, prepare), len(samples), prepare, progress)


def score_pictures(
    detector: Detector, pictures: Iterable[npt.NDArray[np.uint8]], count: int, prepare: Preprocessor, progress: Progress = silent
) -> Scores:
    """The same of `count` images that are model inputs already, `prepare.views` each."""
    shapes = detector.backbone.level_shapes(prepare.spec.height, prepare.spec.width)
    run_backbone = torch_backbone_fn(detector.backbone)
    features = extract_features(run_backbone, pictures, count, shapes, views=prepare.views, progress=progress)
    return score_features(detector.head, features, prepare)
