"""From a run to a bundle: the stages of an export in their order, each of which can refuse."""

import datetime
import importlib.metadata
import shutil
import time
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import openvino as ov
import timm
import torch

import edge_runtime
from edge_runtime.bundle import SCHEMA, DisplayScale, Envelope, Golden, Manifest, Metrics, OutputSpec, Threshold
from edge_runtime.errors import ExportError, GoldenMismatch
from export import convert, package, parity
from export.child import golden_in_child, run_in_child
from export.envelope import envelope_of
from export.gate import Gate, Judged
from export.model_info import write_model_info
from export.workshop import Workshop
from training.calibrate import Scores, apply_rule
from training.data import Dataset
from training.drift import drift_limits
from training.evaluate import measure
from training.facts import load_frame
from training.fit import Course, Painted, fit_held_out
from training.material import painted_pictures
from training.methods.base import Features, Head, LevelShape, Progress, silent
from training.recalibrate import open_data
from training.run import IGNORE, Detector, Run, RunInfo

ONNX_CHECKED = 16
"""Images on which the ONNX file is compared with torch."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may choose."""

    precision: str = "int8"
    onnx: bool = False
    zipped: bool = False
    band: float = parity.DEFAULT_BAND
    budget: float = parity.DEFAULT_BUDGET
    force: bool = False
    torch_images: int | None = None
    """Compare the FP32 graph with torch on this many images only; the manifest then has no figures of torch's."""
    envelope: bool = True
    """Measure how far the line may stray."""


@dataclass(frozen=True, slots=True)
class Report:
    """What an export came to."""

    out: Path
    bundle_id: str
    size_bytes: int
    metrics: dict[str, Metrics]
    """By precision: torch, fp32 and, where built, int8."""
    latency_ms: dict[str, float]
    """Median by precision on this machine, of one image, or of one tile where an image is cut into `views` of them."""
    views: int
    threshold: Threshold
    score_difference: float
    """Largest relative difference of torch's and the FP32 graph's scores."""
    flips_in_band: int | None
    """Verdicts that flip from FP32 to INT8 within the band; None for fp32."""
    n_compared: int
    envelope: Envelope | None
    """How far the line may stray; None where that was not measured."""
    seconds: float
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Built:
    """An IR ready to be packed."""

    ir: Path
    judged: Judged
    threshold: Threshold
    display: DisplayScale
    held_out: Scores
    """Of good parts."""


def build(
    run: Run,
    out: Path,
    data: Path | None,
    options: Options,
    progress: Progress = silent,
    workshop: Workshop | None = None,
    dataset: Dataset | None = None,
) -> Report:
    """Export `run` to a bundle at `out`. Nothing is at `out` unless everything passed.

    Args:
        run: what was taught.
        out: a folder that is not there yet (or, with `force`, a bundle).
        data: where the images of the run are now; None: where they were.
        options: see Options.
        progress: told of the steps.
        workshop: one that remembers, for many exports of one data set.
        dataset: the images of the run, where they are at hand already; `data` does not count then.

    Raises:
        ConfigError: `out` is taken.
        DataError: images are missing or are not those of the run.
        ExportError: a conversion or a model failed; ParityError: precisions disagree.
    """
    began = time.monotonic()
    package.check_out(out, options.zipped, options.force)
    dataset = dataset or open_data(run, data, progress)
    with package.workplace(out) as place:
        return _Export(run, dataset, options, place, progress, workshop or Workshop()).build(out, began)


class _Export:
    """Holds what all stages share."""

    def __init__(self, run: Run, dataset: Dataset, options: Options, place: Path, progress: Progress, workshop: Workshop) -> None:
        self.workshop = workshop
        self.run, self.dataset, self.options, self.progress = run, dataset, options, progress
        self.work, self.pack = place / "work", place / "bundle"
        self.work.mkdir()
        self.pack.mkdir()
        self.gate = Gate(run, dataset, self.work, progress)

    def build(self, out: Path, began: float) -> Report:
        info, options = self.run.info, self.options
        detector = self.run.detector()
        images = self.gate.write_inputs("gate", self.gate.samples)
        shapes = detector.backbone.level_shapes(info.input.height, info.input.width)
        trunk = convert.convert_trunk(detector.backbone, info.input.height, info.input.width)
        fp32 = self.gate.run_ir("fp32", convert.stitch(trunk.joined(), convert.convert_head(detector.head, shapes)), images)
        judged = self.gate.judge(fp32.outputs["score"], fp32.outputs["map"][:, 0], self.run.held_out.scores, fp32.latency_ms)
        metrics = {"fp32": measure(judged.scored, info.threshold.value)}
        few = options.torch_images
        views = self.gate.prepare.views
        scores, maps = self.gate.run_torch(detector, np.load(images, mmap_mode="r")[: None if few is None else few * views])
        of_torch = self.gate.merge(scores, maps)[0]
        difference = parity.check_same(self.gate.names[:few], of_torch, judged.raw[:few], info.threshold.value)
        if few is None:
            taught = self.gate.judge(scores, maps, self.run.held_out.scores, 0.0)
            metrics = {"torch": measure(taught.scored, info.threshold.value), **metrics}
        final = _Built(self.work / "fp32.xml", judged, info.threshold, info.display, self.run.held_out.scores)
        latency = {"fp32": fp32.latency_ms}
        flips: int | None = None
        if options.precision == "int8":
            final = self._int8(trunk, detector.head, shapes, images)
            metrics["int8"] = measure(final.judged.scored, final.threshold.value)
            latency["int8"] = final.judged.latency_ms
            parity.check_metrics("INT8 against FP32", metrics["fp32"], metrics["int8"], options.budget)
            before = judged.scored.scores.score / info.threshold.value
            after = final.judged.scored.scores.score / final.threshold.value
            names = self.gate.names_of(judged.scored.samples)
            flips = parity.check_verdicts("INT8 against FP32", names, before, after, options.band)
        if options.onnx:
            self._onnx(detector, images, of_torch)
        envelope = envelope_of(final.ir, self.gate, final.held_out, final.threshold, info.seed) if options.envelope else None
        bundle_id = self._pack(final, metrics, envelope)
        package.publish(self.pack, out)
        if options.zipped:
            package.write_zip(out, package.zip_path(out))
        return Report(
            out, bundle_id, package.size_bytes(out), metrics, latency, self.gate.prepare.views, final.threshold, difference, flips,
            len(judged.scored.samples), envelope, time.monotonic() - began, self._notes(metrics, envelope),
        )  # fmt: skip

    def _int8(self, trunk: convert.TrunkGraph, head: Head, level_shapes: list[LevelShape], images: Path) -> _Built:
        """Quantize, extract with the very graph that ships, refit, stitch, recalibrate."""
        info, dataset = self.run.info, self.dataset
        taught = self.gate.write_inputs("taught", dataset.train, None if trunk.compare else info.augment, info.seed)
        quantized = self.workshop.quantize(trunk, info, taught, self.progress)
        # A network has learnt from most images; its head is fitted on the others.
        good = self.gate.held if trunk.compare else dataset.train
        levels = self._levels("int8_backbone", quantized, self.gate.write_inputs("held", good) if trunk.compare else taught)
        prepare = self.gate.prepare
        features = Features.of(levels, prepare.views, len(levels[0]) // (len(good) * prepare.views) - 1)
        fitted = fit_held_out(
            info.method, info.params, level_shapes, features, prepare, info.seed, folds=info.folds, course=Course(learnt=head),
            painted=self._painted(quantized, info.rule.synthetic) if info.rule.synthetic else None, progress=self.progress,
        )  # fmt: skip
        held_out = fitted.held_out
        found = self.gate.run_ir("int8", convert.stitch(quantized, convert.convert_head(fitted.head, level_shapes)), images)
        score, score_map = found.outputs["score"], found.outputs["map"][:, 0]
        if not (np.isfinite(score).all() and np.isfinite(score_map).all()):
            raise ExportError("INT8: the quantized detector gives scores that are no numbers; build with --precision fp32")
        judged = self.gate.judge(score, score_map, held_out, found.latency_ms)
        rule = info.rule
        good = judged.scores_of("test", True) if rule.from_test_split else held_out
        bad = judged.scores_of("test" if rule.from_test_split else "bad", False)
        if (painted := fitted.painted) is not None:
            bad = painted if not len(bad) else Scores(*(np.concatenate(p) for p in zip(astuple(bad), astuple(painted), strict=True)))
        threshold, display = apply_rule(rule, good, bad if len(bad) else None)
        return _Built(self.work / "int8.xml", judged, threshold, display, held_out)

    def _painted(self, quantized: ov.Model, count: int) -> Painted:
        """What the quantized backbone makes of the defects that the rule has painted."""
        prepare = self.gate.prepare
        pictures, sources = painted_pictures(self.gate.held, prepare, count, self.run.info.seed)
        file = self.gate.write_pictures("painted", pictures.reshape(-1, *pictures.shape[2:]), count * prepare.views)
        return Painted(Features.of(self._levels("int8_painted", quantized, file), prepare.views, 0), sources)

    def _levels(self, name: str, trunk: ov.Model, pictures: Path) -> list[npt.NDArray[np.float32]]:
        what = f"running {name.replace('_', ' ')}"
        self.progress(what, 0, 1)
        found = self.workshop.levels(trunk, pictures, self.work / name)
        self.progress(what, 1, 1)
        return found

    def _onnx(self, detector: Detector, images: Path, expected: npt.NDArray[np.float64]) -> None:
        """detector.onnx: the FP32 detector with the run's own head, whatever the bundle's precision; its threshold is in its metadata."""
        info = self.run.info
        path, few, out = self.pack / "detector.onnx", self.work / "few.npy", self.work / "onnx"
        notes = {"lineside_threshold": repr(info.threshold.value), "lineside_map_threshold": repr(info.threshold.map_value)}
        convert.export_onnx(detector.backbone, detector.head, info.input.height, info.input.width, path, notes)
        np.save(few, np.load(images, mmap_mode="r")[:ONNX_CHECKED])
        out.mkdir()
        found = run_in_child(path, few, out)
        scores = np.asarray(found.outputs["score"], dtype=np.float64)
        parity.check_same(self.gate.names[:ONNX_CHECKED], expected[:ONNX_CHECKED], scores, info.threshold.value)

    def _pack(self, built: _Built, metrics: dict[str, Metrics], envelope: Envelope | None) -> str:
        info, precision = self.run.info, self.options.precision
        good = np.array([s.is_good for s in self.gate.samples], dtype=bool)
        picks = package.choose_golden(built.judged.raw, good, built.threshold.value)
        files = package.write_golden(self.pack, [load_frame(self.gate.samples[i].path, info.input) for i in picks])
        for suffix in (".xml", ".bin"):
            shutil.move(built.ir.with_suffix(suffix), self.pack / f"model{suffix}")
        if info.input.tiles is None:  # model_api knows no tiles
            write_model_info(self.pack / "model.xml", built.threshold)
        if self.run.ignore is not None:
            package.write_png(self.pack / (info.input.ignore_mask or IGNORE), self.run.ignore)
        now = datetime.datetime.now(datetime.UTC)
        manifest = Manifest(
            schema=SCHEMA,
            name=info.name,
            version=now.strftime("%Y%m%dT%H%M%SZ"),
            created=now.isoformat(timespec="seconds"),
            method=info.method,
            backbone=info.backbone.name,
            params=_settings(info),
            precision=precision,
            input=info.input,
            output=OutputSpec(**dict(zip(("map_height", "map_width"), _grid(self.work / precision), strict=True))),
            threshold=built.threshold,
            display=built.display,
            drift=drift_limits(built.held_out.score),
            envelope=envelope,
            dataset=info.dataset,
            metrics=metrics,
            golden=[
                Golden(image=f, score=float(built.judged.raw[i]), map_peak=float(built.judged.peaks[i]))
                for f, i in zip(files, picks, strict=True)
            ],
            golden_tolerance=package.GOLDEN_TOLERANCE[precision],
            files={},
            tools=tool_versions(precision),
        )
        bundle = package.seal(self.pack, manifest)
        wrong = [r for r in golden_in_child(self.pack) if not r.ok]
        if wrong:
            raise GoldenMismatch(f"golden samples: the device's predictor gives {wrong[0].score:.6g}, not {wrong[0].expected_score:.6g}")
        return bundle.id

    def _notes(self, metrics: dict[str, Metrics], envelope: Envelope | None) -> tuple[str, ...]:
        gate = metrics["fp32"]
        notes = []
        if gate.image_auroc is None:
            notes.append("only good images were at hand: their verdicts were compared, AUROC could not be gated")
        elif gate.pixel_auroc is None:
            notes.append("no masks were at hand: pixel AUROC could not be gated")
        if self.options.envelope and envelope is None:
            notes.append("how far the line may stray was not measured: too few good images, or too many tiles for the time")
        return tuple(notes)


def _settings(info: RunInfo) -> dict[str, Any]:
    """What was chosen, for the manifest: the method's parameters and everything else that the detector follows from."""
    more = {"augment": info.augment, "outliers": info.outliers, "learning": info.learning}
    chosen = {key: msgspec.to_builtins(value) for key, value in more.items() if value is not None}
    return {**info.params, "preset": info.preset, "strides": list(info.backbone.strides), "seed": info.seed, **chosen}


def tool_versions(precision: str) -> dict[str, str]:
    """Of what takes part in an export."""
    found = {
        "lineside": edge_runtime.__version__,
        "openvino": ov.__version__,
        "torch": str(torch.__version__),
        "timm": timm.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }
    # NNCF is not imported where it took no part, and its own module is slow to load.
    return found | ({"nncf": importlib.metadata.version("nncf")} if precision == "int8" else {})


def _grid(folder: Path) -> tuple[int, int]:
    shape = np.load(folder / "map.npy", mmap_mode="r").shape
    return int(shape[-2]), int(shape[-1])
