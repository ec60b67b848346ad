"""From a run to a bundle: the stages of an export in their order, each of which can refuse.

Why: deploy/decisions/0005.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import openvino as ov
import torch

from edge_runtime.errors import CalibrationError, ExportError
from edge_runtime.model.compressed import say_measured
from edge_runtime.model.manifest import Acceptance, Envelope, Metrics
from export import package
from export.build import convert, floats, kept, noise, parity, precision
from export.build.accept import PAINTED, PAINTED_SEED, accept, between, hopeless, is_refused, refusal, wants_painted
from export.build.envelope import envelope_of
from export.build.features import FeatureExtractor, openvino_backbone
from export.build.gate import Gate, Judged
from export.build.int8 import Built, Int8Maker, Parts
from export.build.options import BuildOptions
from export.build.outcome import BuildReport
from export.build.pack import pack
from export.build.trial import Trial, Tried
from export.child import run_in_child
from training.calibrate.rules import OF_GOOD
from training.core.backbones import Backbone
from training.core.base import Progress, silent
from training.core.places import move_into_place
from training.data.dataset import Dataset
from training.fitting.estimate import ALONE, TORCH, about, build_seconds, pace_of
from training.fitting.heads import torch_backbone_fn
from training.fitting.recalibrate import open_data, painted_scores
from training.inspect.choice import look_at
from training.inspect.pose import LEAST, pose_of
from training.judging.acceptance import promised
from training.judging.envelope import BUDGET_S
from training.judging.evaluate import measure
from training.judging.telling import Told, tell, with_setter
from training.methods.table import METHODS
from training.runs import Detector, Run

ONNX_CHECKED = 16
"""Images on which the ONNX file is compared with torch."""


def build(
    run: Run,
    out: Path,
    data: Path | None,
    options: BuildOptions,
    progress: Progress = silent,
    extractor: FeatureExtractor | None = None,
    dataset: Dataset | None = None,
    say: Callable[[str], None] = lambda text: None,
    refused: Callable[[Path, BuildReport], None] = lambda pack, report: None,
    tried: Callable[[tuple[Trial, ...]], None] = lambda trials: None,
    expected_s: float | None = None,
) -> BuildReport:
    """Export `run` to a bundle at `out`. Nothing is at `out` unless everything passed.

    What is not fit for release is kept in the run; one that was refused of the very same run, images and options is not made again where it
    is to be built all the same.

    Args:
        run: what was taught.
        out: a folder that is not there yet (or, with `force`, a bundle).
        data: where the images of the run are now; None: where they were.
        options: what the user chose.
        progress: told of the steps.
        extractor: a shared one, for many exports of one data set.
        dataset: the images of the run, where they are at hand already; `data` does not count then.
        say: gets a sentence on how long it will take here.
        refused: gets what is not fit for release before that is raised: packed in a place that will be gone, and what it came to.
        expected_s: seconds that it will take, envelope included, where the caller has measured more of this machine; None: by its pace now.
        tried: gets every precision that was tried, once one is chosen or all are refused, before any refusal is raised.

    Raises:
        ConfigError: `out` is taken.
        DataError: images are missing or are not those of the run.
        ExportError: a conversion or a model failed; ParityError: precisions disagree; NotAccepted: it is not fit for release.
    """
    began = time.monotonic()
    package.check_out(out, options.zipped, options.force)
    dataset = open_data(run, data, progress) if dataset is None else dataset.leave_out(run.info.left_out)
    key = partial(kept.made_of, run, dataset, options)
    with package.workplace(out) as place:
        forced = options.accept is not None and options.accept.force and not options.onnx
        if forced and (run.directory / kept.REFUSED).is_dir() and (report := kept.take(run, place / "bundle", key())) is not None:
            say("this model was judged and refused already, of the very same images and options: it is packed as it was judged")
            tried(report.tried)
            _put(place / "bundle", out, options.zipped)
            return dataclasses.replace(report, out=out, seconds=time.monotonic() - began)
        return _Export(run, dataset, options, place, progress, extractor or FeatureExtractor(), say, tried, expected_s).build(
            out, began, refused, key
        )


def _put(folder: Path, out: Path, zipped: bool) -> None:
    move_into_place(folder, out)
    if zipped:
        package.write_zip(out, package.zip_path(out))


class _Export:
    """Holds what all stages share."""

    def __init__(self, run: Run, dataset: Dataset, options: BuildOptions, place: Path, progress: Progress, extractor: FeatureExtractor,
                 say: Callable[[str], None], told: Callable[[tuple[Trial, ...]], None],
                 expected_s: float | None = None) -> None:  # fmt: skip
        self.expected_s = expected_s
        self.extractor, self.say, self.told = extractor, say, told
        self.run, self.dataset, self.options, self.progress = run, dataset, options, progress
        self.work, self.pack = place / "work", place / "bundle"
        self.work.mkdir()
        self.pack.mkdir()
        self.gate = Gate(run, dataset, self.work, progress)
        self.paints = PAINTED if options.accept is not None and wants_painted(dataset) else 0
        self.notes: list[str] = []
        self.tried: list[Tried] = []

    def build(self, out: Path, began: float, refused: Callable[[Path, BuildReport], None], key: Callable[[], str]) -> BuildReport:
        info, options = self.run.info, self.options
        detector = self.run.detector()
        pace = ALONE if self.expected_s is None else "at the pace of until now"
        self.say(f"{about(self.expected_s or self._expected(detector))} here {pace}; more where INT8 does not pass at once")
        images = self.gate.write_inputs("gate", self.gate.samples)
        shapes = detector.backbone.level_shapes(info.input.height, info.input.width)
        self.progress("converting", 0, 1)
        trunk = convert.convert_trunk(detector.backbone, info.input.height, info.input.width)
        parts = Parts(trunk, detector.head, shapes)
        fp32 = self.gate.run_ir("fp32", convert.stitch(trunk.joined(), convert.convert_head(detector.head, shapes)), images)
        judged = self.gate.judge(fp32.outputs["score"], fp32.outputs["map"][:, 0], self.run.held_out.scores, fp32.latency_ms)
        metrics = {"fp32": measure(judged.scored, info.threshold.value)}
        error = noise.threshold_error(info.rule, self.run.held_out.scores, None) if info.rule.kind in OF_GOOD else 0.0
        exact = Built(self.work / "fp32.xml", judged, info.threshold, info.display, self.run.held_out.scores, uncertain=error)
        first = Tried("fp32", built=exact, metrics=metrics["fp32"])
        try:
            difference, taught = self._against_torch(detector, images, judged)
            self.tried.append(first)
            metrics = {**({} if taught is None else {"torch": taught}), **metrics}
            final = exact if options.precision == "fp32" else self._quantized(parts, images, exact, metrics)
        except (ExportError, CalibrationError) as e:
            if not self.tried:
                self.tried.append(dataclasses.replace(first, refused=str(e)))
            self.told(self._trials(images))
            raise
        acceptance = self._accept(final)
        if options.onnx and not is_refused(acceptance):
            self._onnx(detector, images)
        self.progress("measuring milliseconds", 0, 1)
        times = self._race(images)
        latency = {"fp32": times["fp32"], final.precision: times[final.ir.stem]}
        trials = tuple(t.trial(times, final) for t in self.tried)
        self.told(trials)
        self.notes += precision.costs(times, final.ir.stem, os.getloadavg()[0], os.cpu_count() or 1)
        placed = not METHODS[info.method].whole_picture
        envelope = None
        if options.envelope:
            asked = promised(options.accept.criteria if options.accept is not None else None, final.threshold.false_reject_rate)
            envelope = envelope_of(final.ir, self.gate, final.held_out, final.threshold.value, asked, placed, info.seed)
            envelope = envelope and self._with_own_shift(envelope)
        self.progress("packing, and trying the golden samples", 0, 1)
        bundle_id = pack(self.pack, self.run, self.gate, final, metrics, acceptance, envelope)
        told, size = self._tell(final), package.size_bytes(self.pack)
        report = BuildReport(
            out, bundle_id, size, metrics, latency, self.gate.prepare.views, final.threshold, difference, final.flips,
            len(judged.compared.samples), self.gate.judged_on, envelope, time.monotonic() - began,
            tuple(dict.fromkeys((*self.notes, *self._notes(metrics, envelope)))),
            told, acceptance, trials, self._measured_on(),
        )  # fmt: skip
        if acceptance is not None and is_refused(acceptance):
            kept.keep(self.run, self.pack, report, key())
            refused(self.pack, report)
            raise refusal(acceptance, told, final.precision, metrics, self.run.info.apart, self.run.info.odd, self.dataset.doubts)
        _put(self.pack, out, options.zipped)
        return report

    def _expected(self, detector: Detector) -> float:
        """Seconds, by the pace of the torch trunk."""
        info, views, spec = self.run.info, self.gate.prepare.views, self.run.info.input
        copies = info.augment.copies if info.augment else 0
        n, gate, int8 = len(self.dataset.train), len(self.gate.samples) * views, self.options.precision != "fp32"
        pace = pace_of(torch_backbone_fn(detector.backbone), spec.height, spec.width, gate, torch.get_num_threads()) / TORCH
        few = min(self.options.torch_images * views, gate)
        found = build_seconds(f"{info.method}/{info.preset}", n, n * views * (1 + copies), gate, few, views, pace, int8)
        return found + (BUDGET_S if self.options.envelope else 0.0)

    def _with_own_shift(self, envelope: Envelope) -> Envelope:
        """How far the taught parts lie off their own place stands beside how much further others may."""
        if envelope.shift_limit is None or len(self.dataset.train) < LEAST:
            return envelope
        shift = pose_of(look_at(self.dataset.train, self.gate.prepare, self.progress)[0]).shift
        return msgspec.structs.replace(envelope, parts_shift=None if shift is None else round(shift, 4))

    def _accept(self, built: Built) -> Acceptance | None:
        if self.options.accept is None:
            return None
        painted = built.painted
        if self.paints and painted is None:
            seed = self.run.info.seed + PAINTED_SEED
            detector = self.run.detector()
            # A learnt network is no backbone of the house's, whose conversion is known.
            trunk = detector.backbone
            run = openvino_backbone(self.dataset)(trunk) if isinstance(trunk, Backbone) else None
            painted = painted_scores(self.run, detector, self.dataset, self.gate.prepare, self.paints, self.progress, seed, run)
        return accept(self.options.accept, self.run.info.rule, built.threshold, built.judged, built.held_out, painted, self.run.info.apart)

    def _hopeless(self, exact: Built) -> str | None:
        """Why no precision can make it fit, without a full stop; None where one may. Painted defects are not waited for."""
        asked = self.options.accept
        return None if asked is None else hopeless(
            asked, self.run.info.rule, exact.threshold, exact.judged, exact.held_out, self.run.info.apart, self.options.band
        )  # fmt: skip

    def _tell(self, built: Built) -> Told | None:
        scored = built.judged.scored
        what = f"{built.precision.upper()}, {self._measured_on()}"
        told = tell(scored.samples, scored.scores.score, built.threshold.value, built.threshold.false_reject_rate, what=what)
        if told is None:
            return None
        gap = between(built.judged.scores_of("test", True), built.judged.scores_of("test", False))
        return dataclasses.replace(with_setter(told, self.run.info.rule, scored.samples), between=gap)

    def _measured_on(self) -> str:
        return "test split" if self.dataset.test else "held-out good and the bad images"

    def _against_torch(self, detector: Detector, images: Path, judged: Judged) -> tuple[float, Metrics | None]:
        """Largest relative difference of the FP32 graph's scores, and torch's figures where it ran on all images. Raises ParityError."""
        info, views, count = self.run.info, self.gate.prepare.views, len(judged.raw)
        few = min(self.options.torch_images, count)
        picks = np.sort(np.argsort(judged.raw, kind="stable")[np.linspace(0, count - 1, few).round().astype(int)])
        pictures = np.load(images, mmap_mode="r").reshape(count, views, info.input.height, info.input.width, 3)
        scores, maps = self.gate.run_torch(detector, pictures[picks].reshape(-1, *pictures.shape[2:]))
        names = [self.gate.names[i] for i in picks]
        difference = parity.check_same(names, self.gate.merge(scores, maps)[0], judged.raw[picks], info.threshold.value)
        if few < count:
            return difference, None
        return difference, measure(self.gate.judge(scores, maps, self.run.held_out.scores, 0.0).scored, info.threshold.value)

    def _quantized(self, parts: Parts, images: Path, exact: Built, metrics: dict[str, Metrics]) -> Built:
        """INT8 where it passes; where `auto` was asked for, else INT8 in part, else FP32. Raises ExportError."""
        options, lossy = self.options, precision.known_to_lose(self.run.info)
        auto = options.precision == "auto"
        if auto and lossy and metrics["fp32"].image_auroc is None:
            self.notes.append(f"built in FP32: {lossy}, and without bad pictures nobody could tell how much")
            return exact
        if auto and options.accept is not None and (why := self._hopeless(exact)) is not None:
            self.say(f"already in FP32 it is {why}: no precision mends that, so it is not quantized")
            self.notes.append(
                "built in FP32, and not quantized, since it fails by far more than a precision changes; INT8 all the same: lineside-export"
                " build RUN --precision int8"
            )
            return exact
        before = precision.Side(exact.judged, exact.threshold.value, exact.uncertain, metrics["fp32"])
        maker = Int8Maker(self.run, self.gate, self.extractor, parts, self.paints)

        def attempt(quantize: Callable[[], ov.Model], name: str, layers: str | None = None) -> Built:
            row = Tried("mixed" if layers else "int8", layers)
            try:
                built = dataclasses.replace(maker.make(quantize(), images, name), floats=layers)
                found = measure(built.judged.scored, built.threshold.value)
                after = precision.Side(built.judged, built.threshold.value, built.uncertain, found)
                row = dataclasses.replace(row, built=built, metrics=found, flips=precision.flips_of(self.gate, before, after))
                flips, notes = precision.compare(self.gate, before, after, options.band, options.budget, auto and lossy is not None)
            except (ExportError, CalibrationError) as e:
                self.tried.append(dataclasses.replace(row, refused=str(e)))
                raise
            self.tried.append(row)
            self.notes += notes
            metrics["int8"] = found
            return dataclasses.replace(built, flips=flips)

        def attempts() -> Iterator[precision.Attempt[Built]]:
            try:
                quantized = maker.quantize()
            except ExportError as e:
                self.tried.append(Tried("int8", refused=str(e)))
                raise
            yield precision.Attempt("INT8", partial(attempt, lambda: quantized, "int8"))
            for n, some in enumerate(floats.candidates(parts.trunk.joined(), quantized, maker.taught(), self.work), 1):
                layers = partial(maker.quantize, some.names)
                yield precision.Attempt(f"INT8 with {some.label} in float", partial(attempt, layers, f"int8_{n}", some.label))

        if not auto:
            return next(attempts()).run()
        final, notes = precision.first_that_passes(attempts(), exact)
        self.notes += notes
        return final

    def _race(self, images: Path) -> dict[str, float]:
        """Milliseconds of every graph that was tried and ran, by its name. Raises ExportError."""
        names = [t.built.ir.stem for t in self.tried if t.built is not None]
        return dict(zip(names, self.gate.race(names, images), strict=True))

    def _trials(self, images: Path) -> tuple[Trial, ...]:
        """Where nothing was chosen; without milliseconds where they cannot be had."""
        times: dict[str, float] = {}
        with contextlib.suppress(ExportError):
            times = self._race(images)
        return tuple(t.trial(times, None) for t in self.tried)

    def _onnx(self, detector: Detector, images: Path) -> None:
        """detector.onnx: the FP32 detector with the run's own head, whatever the bundle's precision; its threshold is in its metadata."""
        info = self.run.info
        path, few, out = self.pack / "detector.onnx", self.work / "few.npy", self.work / "onnx"
        notes = {"lineside_threshold": repr(info.threshold.value), "lineside_map_threshold": repr(info.threshold.map_value)}
        convert.export_onnx(detector.backbone, detector.head, info.input.height, info.input.width, path, notes)
        pictures = np.load(images, mmap_mode="r")[:ONNX_CHECKED]
        np.save(few, pictures)
        out.mkdir()
        found = run_in_child(path, few, out)
        scores = np.asarray(found.outputs["score"], dtype=np.float64)
        expected = np.asarray(self.gate.run_torch(detector, pictures)[0], dtype=np.float64)
        names = [self.gate.names[i // self.gate.prepare.views] for i in range(len(pictures))]
        parity.check_same(names, expected, scores, info.threshold.value)

    def _notes(self, metrics: dict[str, Metrics], envelope: Envelope | None) -> tuple[str, ...]:
        gate = metrics["fp32"]
        notes = []
        if gate.image_auroc is None:
            notes.append("only good images were at hand: their verdicts were compared, how well they tell good from bad was not")
        elif gate.pixel_auroc is None:
            notes.append("no masks were at hand: how well the precisions find places was not compared")
        if self.options.envelope and envelope is None:
            notes.append("how far the line may stray was not measured: too few good images, or too many tiles for the time")
        elif envelope is not None and (said := say_measured(self.run.info.dataset)):
            notes.append(f"how far the line may stray was {said}")
        return tuple(notes)
