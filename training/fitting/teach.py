"""One `lineside-train fit` from a checked data set to a run directory."""

import dataclasses
import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import timm
import torch

import edge_runtime
from edge_runtime.errors import DataError
from edge_runtime.model import bundle, manifest
from edge_runtime.model.preprocess import Preprocessor
from training.calibrate.rules import HeldOut, apply_rule, check_bad, check_rule, default_rule
from training.core.backbones import Backbone, BackboneSpec, build_backbone, resolve_name
from training.core.base import Progress, silent
from training.core.checkpoint import Checkpoint
from training.core.learn import LearningResult, Network, Pictures, Schedule, TrainedHead, device, hold_out, learn
from training.core.memory import check_memory, room
from training.core.places import check_free, nearest_folder
from training.data.dataset import Dataset, inputs, refuse_alike
from training.data.layout import first_of
from training.data.taught import unlearnt
from training.fitting.estimate import ALONE, TORCH, about, fit_seconds, pace_of
from training.fitting.heads import (  # fmt: skip
    BackboneFn,
    Fitted,
    LearningOptions,
    extract_features,
    fit_held_out,
    folds_of,
    learns_again,
    torch_backbone_fn,
)
from training.fitting.odd import say_alike, screen
from training.fitting.options import FitOptions, check_enough, learns, outlier_source, resolve
from training.fitting.recalibrate import score_samples
from training.fitting.weigh import weigh, without_variations
from training.inspect.speed import graph_threads
from training.methods.table import METHODS, make_head, make_network  # fmt: skip
from training.pictures.augment import Augment
from training.pictures.material import OutlierPictures, OutlierSource, good_pictures, outlier_pictures
from training.runs import CHECKPOINT, ODD, SCHEMA, BackboneInfo, Detector, Learning, Run, RunInfo, Trunk, digest, save_run

ODD_KEPT = 50
"""Odd images that a bundle names."""

Say = Callable[[str], None]
MakeBackboneFn = Callable[[Backbone], BackboneFn]


@dataclass(frozen=True, slots=True)
class _Taught:
    trunk: Trunk
    fitted: Fitted
    held: npt.NDArray[np.intp]
    """Positions of the training images that `fitted.held_out` is of."""
    outcome: LearningResult | None
    bad: OutlierPictures | None
    dataset: Dataset
    """What was learnt from: without images that were set apart."""
    augment: Augment | None
    """What was learnt of variations."""
    apart: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()
    odd_margins: tuple[float, ...] = ()
    alike: tuple[str, ...] = ()
    margins: Mapping[str, float] = field(default_factory=dict)


def teach(dataset: Dataset, options: FitOptions, out: Path, *, force: bool = False, progress: Progress = silent,
          say: Say = lambda text: None, backbone_fn: MakeBackboneFn = torch_backbone_fn,
          left_out: tuple[str, ...] = ()) -> Run:  # fmt: skip
    """Fit, calibrate, write the run directory.

    `say` gets sentences for the user. Raises ConfigError, DataError, CalibrationError; then nothing is left at `out` (a checkpoint beside
    it to go on from, where gradient steps had been taken). `backbone_fn` runs a frozen backbone; one that remembers its features serves
    many fits on the same images. `left_out`: good images of the data that are not in `dataset` because its user says so; for the record.
    """
    check_free(out, force)
    strides, params = resolve(options)
    n = len(dataset.train)
    source = outlier_source(options, sum(s.split == "train" for s in dataset.bad))
    refuse_alike(dataset)
    check_enough(options.method, n)
    again = METHODS[options.method].network is None and learns_again(n, options.minutes)
    held = n if not learns(options.method) or again else len(hold_out(n, options.seed)[1])
    rule = options.rule or default_rule(held)
    check_rule(rule, held)
    check_bad(rule, sum(s.split == "bad" for s in dataset.bad))
    whole = dataset
    taught = _Teaching(dataset, options, strides, params, source, out, progress, say, backbone_fn).run()
    dataset = taught.dataset
    if taught.apart and options.rule is None:
        rule = default_rule(len(taught.held))
    detector = Detector(taught.trunk, taught.fitted.head)
    prepare = dataset.preprocessor()
    record = msgspec.structs.replace(
        _with_bad(dataset.record, taught.bad), odd=taught.odd[:ODD_KEPT], odd_margins=taught.odd_margins[:ODD_KEPT]
    )
    given = unlearnt([s for s in dataset.bad if s.split == "bad"], record)
    bad = score_samples(detector, given, prepare, progress) if rule.bad is not None else None
    threshold, display = apply_rule(rule, taught.fitted.held_out, bad, len(taught.apart), len(taught.odd))
    learnt = [dataset.train[int(i)] for i in taught.held]
    names = [dataset.name_of(s) for s in learnt]
    hashes = [dataset.sha256[int(i)] for i in taught.held]
    outcome = taught.outcome
    info = RunInfo(
        schema=SCHEMA,
        name=out.resolve().name.removesuffix(".run") or "run",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        method=options.method,
        preset=options.preset,
        params=params,
        seed=options.seed,
        folds=folds_of(options.method, held),
        backbone=BackboneInfo(name=resolve_name(options.backbone), strides=tuple(sorted(strides)), sha256=""),
        head_sha256="",
        input=dataset.spec,
        data=str(dataset.path),
        dataset=record,
        rule=rule,
        threshold=threshold,
        display=display,
        tools=tools() | METHODS[options.method].tools,
        augment=taught.augment,
        outliers=source,
        learning=None if outcome is None else _learning(outcome, options, dataset.sha256),
        left_out=(*left_out, *taught.apart),
        apart=len(taught.apart),
        odd=taught.odd,
        alike=taught.alike,
        margins=dict(taught.margins),
    )
    if taught.odd:
        say_odd(taught, len(whole.train), out, say)
    checkpoint = checkpoint_of(out)
    return save_run(
        out, info, taught.trunk, taught.fitted.head, HeldOut.of(names, hashes, taught.fitted.held_out), dataset.ignore,
        force=force, checkpoint=checkpoint if outcome is not None else None,
    )  # fmt: skip


class _Teaching:
    """Holds what the stages share."""

    def __init__(
        self, dataset: Dataset, options: FitOptions, strides: tuple[int, ...], params: dict[str, Any], source: OutlierSource | None,
        out: Path, progress: Progress, say: Say, backbone_fn: MakeBackboneFn,
    ) -> None:  # fmt: skip
        self.dataset, self.options, self.params, self.source, self.progress, self.say = dataset, options, params, source, progress, say
        self.strides, self.out, self.backbone_fn = strides, out, backbone_fn
        self.prepare: Preprocessor = dataset.preprocessor()
        self.scratch = nearest_folder(out)
        self.schedule = Schedule(minutes=options.minutes)

    def run(self) -> _Taught:
        spec, options = self.dataset.spec, self.options
        backbone_spec = BackboneSpec(resolve_name(options.backbone), tuple(sorted(self.strides)))
        network = make_network(options.method, self.params, backbone_spec, (spec.height, spec.width))
        return self._over_frozen() if network is None else self._learnt(network)

    def _over_frozen(self) -> _Taught:
        """A head over a frozen backbone."""
        dataset, options, prepare = self.dataset, self.options, self.prepare
        n, copies = len(dataset.train), options.augment.copies if options.augment else 0
        self.progress("reading the backbone", 0, 1)
        backbone = build_backbone(options.backbone, self.strides, options.weights)
        shapes = backbone.level_shapes(dataset.spec.height, dataset.spec.width)
        blank = make_head(options.method, self.params, shapes)
        needed = blank.memory_bytes(n * prepare.views * (1 + copies))
        self._announce(backbone.spec.name, blank.grid_hw, f"; memory for the fit: about {needed / 1e6:.0f} MB")
        check_memory(needed)
        run_backbone = self.backbone_fn(backbone)
        count = n * prepare.views * (1 + copies)
        by = TORCH if self.backbone_fn is torch_backbone_fn else 1
        threads = torch.get_num_threads() if by == TORCH else graph_threads()
        pace = pace_of(run_backbone, dataset.spec.height, dataset.spec.width, count, threads)
        seconds = fit_seconds(f"{options.method}/{options.preset}", n, count, prepare.views, pace / by, by)
        self.say(f"{about(seconds)} here {ALONE}: {count} pictures at {1e3 * pace:.0f} ms, and what is computed from them")
        bad: OutlierPictures | None = None
        if self.source is not None:  # before the features, which take long: a mask that does not fit is told at once
            learn_rows, _ = hold_out(n, options.seed)
            bad = outlier_pictures(self.source, dataset, [dataset.train[int(i)] for i in learn_rows], prepare, options.seed, self.progress)
        pictures = good_pictures(dataset.train, prepare, options.augment, options.seed)
        features = extract_features(
            run_backbone, pictures, n, shapes, views=prepare.views, copies=copies, scratch=self.scratch, progress=self.progress
        )
        apart: tuple[str, ...] = ()
        odd: tuple[str, ...] = ()
        margins: tuple[float, ...] = ()
        alike: tuple[str, ...] = ()
        unlike: dict[str, float] = {}
        if not options.keep_odd:
            self.progress("looking for odd images", 0, 1)
            shared = options.preset == "shared"
            found = screen(features, shapes, prepare, options.seed, self.progress, anyhow=shared)
            names = [dataset.name_of(s) for s in dataset.train]
            apart = tuple(names[i] for i in np.flatnonzero(found.apart))
            odd, alike = (tuple(names[i] for i in np.argsort(-found.scores) if which[i]) for which in (found.named, found.alike))
            margins = tuple(round(float(m), 3) for m in np.sort(found.margins[found.named])[::-1])
            unlike = {names[i]: round(float(found.margins[i]), 3) for i in np.flatnonzero(found.named | found.apart)}
        if apart:
            dataset, features = dataset.leave_out(apart), features.only(np.flatnonzero(~found.apart))
            if self.source is not None:  # nor may what is painted be painted into them
                rows, _ = hold_out(len(dataset.train), options.seed)
                bad = outlier_pictures(self.source, dataset, [dataset.train[int(i)] for i in rows], prepare, options.seed, self.progress)
        augment = options.augment
        if augment is not None and options.weigh:
            weighed = weigh(
                options.method, self.params, shapes, features, dataset.train, prepare, run_backbone, options.seed, self.progress
            )  # fmt: skip
            if weighed is not None:
                self.say(weighed.sentence)
                if not weighed.kept:
                    augment, features = None, without_variations(features, self.scratch)
        outliers = None
        if bad is not None:
            levels = extract_features(run_backbone, iter(bad.images), len(bad), shapes, scratch=self.scratch, progress=self.progress).levels
            outliers = bad.outliers(levels, blank.grid_hw)
        learning = LearningOptions(outliers, self.schedule, self._checkpoint(bad) if isinstance(blank, TrainedHead) else None)
        self.progress(f"fitting {options.method}", 0, 1)
        fitted = fit_held_out(
            options.method, self.params, shapes, features, prepare, options.seed, learning=learning, progress=self.progress
        )
        self.progress(f"fitting {options.method}", 1, 1)
        return _Taught(backbone, fitted, fitted.images, fitted.outcome, bad, dataset, augment, apart, odd, margins, alike, unlike)

    def _learnt(self, network: Network) -> _Taught:
        """A network that learns on images, and a head that is fitted on held-out ones."""
        dataset, options, prepare = self.dataset, self.options, self.prepare
        n, views = len(dataset.train), prepare.views
        spec = dataset.spec
        self._announce(
            resolve_name(options.backbone),
            None,
            f" on {device()}" + ("" if options.minutes is None else f", up to {options.minutes:g} min"),
        )
        images = room((n * views, spec.height, spec.width, 3), np.uint8, self.scratch)
        for i, picture in enumerate(inputs(dataset.train, prepare)):
            images[i] = picture
            self.progress("preparing images", i + 1, len(images))
        rows, held = hold_out(n, options.seed)
        own = np.arange(views)
        good = Pictures(images, (rows[:, None] * views + own).ravel(), options.augment)
        unseen = Pictures(images, (held[:, None] * views + own).ravel())
        checkpoint = self._checkpoint()
        share = network.start_share if options.weights is None else 0.0
        before, after = (None if options.minutes is None else part * options.minutes for part in (share, 1 - share))
        # What is learnt before the method itself has a checkpoint of its own, until that one has one.
        early = dataclasses.replace(
            checkpoint, path=early_of(checkpoint.path), source=None, part="start", resume=options.resume and not checkpoint.resume
        )
        if not options.resume:
            early.path.unlink(missing_ok=True)
        network.start(options.weights, good, options.seed, self.progress, minutes=before, resumed=checkpoint.resume, checkpoint=early)
        if network.remark:
            self.say(f"note: {network.remark}")
        outcome = learn(
            network.task(good, unseen, options.seed), Schedule(minutes=after), options.seed,
            checkpoint=checkpoint, progress=self.progress, what=f"learning {options.method}",
        )  # fmt: skip
        early.path.unlink(missing_ok=True)
        network = network.cpu().eval().requires_grad_(False)
        shapes = network.level_shapes(spec.height, spec.width)
        pictures = (images[int(i)] for i in unseen.rows)
        features = extract_features(
            torch_backbone_fn(network), pictures, len(held), shapes, views=views, scratch=self.scratch, progress=self.progress
        )
        fitted = fit_held_out(options.method, self.params, shapes, features, prepare, options.seed, progress=self.progress)
        return _Taught(network, fitted, held[fitted.images], outcome, None, dataset, options.augment)

    def _announce(self, backbone: str, grid_hw: tuple[int, int] | None, more: str) -> None:
        spec, options = self.dataset.spec, self.options
        grid = "" if grid_hw is None else f", map {grid_hw[1]}x{grid_hw[0]}"
        tiles = "" if self.prepare.views == 1 else f", {self.prepare.views} tiles an image"
        self.say(
            f"{len(self.dataset.train)} good images, {options.method} ({options.preset}) on {backbone},"
            f" {spec.width}x{spec.height}{tiles}{grid}{more}"
        )

    def _checkpoint(self, bad: OutlierPictures | None = None) -> Checkpoint:
        """Raises DataError, where there is none to go on from."""
        options, dataset = self.options, self.dataset
        path, before = checkpoint_of(self.out), self.out / CHECKPOINT
        source = path if path.is_file() else before
        resume = options.resume and source.is_file()
        if options.resume and not resume and not early_of(path).is_file():
            raise DataError(
                f"resume: expected a checkpoint at {path} (of an interrupted fit) or {before} (of a finished one), found none;"
                " leave out --resume to begin anew"
            )
        identity = {
            "method": options.method,
            "params": self.params,
            "seed": options.seed,
            "backbone": resolve_name(options.backbone),
            "input": msgspec.to_builtins(dataset.spec),
            "data": dataset.record.fingerprint,
            "augment": msgspec.to_builtins(options.augment),
            "outliers": msgspec.to_builtins(self.source),
            "bad images": None if bad is None else hashlib.sha256("".join(sorted(bad.sha256)).encode()).hexdigest(),
            "weights": None if options.weights is None else bundle.file_sha256(options.weights),
            "ignore mask": None if dataset.ignore is None else hashlib.sha256(dataset.ignore.tobytes()).hexdigest(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)  # as for the run itself, only earlier
        return Checkpoint(path, identity, resume, source)


def say_odd(taught: _Taught, n: int, out: Path, say: Say) -> None:
    """Names the images that look unlike the others, and how unlike they are."""
    odd, apart, alike = taught.odd, taught.apart, taught.alike
    some = [f"{name} ({margin:.2f}x)" for name, margin in zip(first_of(odd), taught.odd_margins, strict=False)]
    shown = ", ".join(some) + (f" and {len(odd) - len(some)} more" if len(odd) > len(some) else "")
    say(
        f"{len(odd)} of {n} good images look unlike the others: bad, oddly placed, or rare? {shown}; 1x is the most unlike of the others;"
        f" all in {out / ODD}"
    )
    if alike:
        say(say_alike(alike, apart))
    if apart:
        told = len(set(odd) & set(apart))
        like = f" and {len(apart) - told} that are most like them" if len(apart) > told else ""
        say(
            f"that is more than good parts explain: {told} of these{like} were not learnt and do not count for the threshold."
            " If they are good: --keep-odd"
        )
    say(f"look at them: lineside-train inspect DATA --run {out} --out odd.png; take bad ones out: --leave-out {out / ODD}")


def checkpoint_of(out: Path) -> Path:
    """Where the state of a fit to `out` lies until it is done."""
    return out.with_name(f".{out.name}.{CHECKPOINT}")


def early_of(checkpoint: Path) -> Path:
    """Where the state of what is learnt before the method itself lies (efficientad's teacher), beside its own."""
    return checkpoint.with_name(f"{checkpoint.name}.start")


def tools() -> dict[str, str]:
    """Versions of what computes."""
    return {
        "python": platform.python_version(),
        "lineside": edge_runtime.__version__,
        "torch": str(torch.__version__),
        "timm": timm.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }


def _learning(outcome: LearningResult, options: FitOptions, sha256: Sequence[str]) -> Learning:
    where = "cpu" if METHODS[options.method].network is None else str(device())  # a head over features is too small for a GPU
    return Learning(
        steps=outcome.steps, best_step=outcome.best_step, best_loss=outcome.best, ended=outcome.ended,
        seconds=round(outcome.seconds, 1), minutes=options.minutes, device=where,
        held=digest([sha256[int(i)] for i in hold_out(len(sha256), options.seed)[1]]),
    )  # fmt: skip


def _with_bad(record: manifest.Dataset, bad: OutlierPictures | None) -> manifest.Dataset:
    if bad is None:
        return record
    real = sorted({k for k, s in zip(bad.kinds, bad.synthetic, strict=True) if not s})
    return msgspec.structs.replace(
        record, bad_kinds=tuple(real), bad_sha256=tuple(sorted(bad.sha256)), n_synthetic=int(bad.synthetic.sum())
    )
