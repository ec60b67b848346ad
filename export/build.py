"""From a run to a bundle: the stages of an export in their order, each of which can refuse."""

import datetime
import importlib.metadata
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import openvino as ov
import timm
import torch

import edge_runtime
from edge_runtime.bundle import SCHEMA, DisplayScale, Golden, Manifest, Metrics, OutputSpec, Threshold
from edge_runtime.errors import DataError, ExportError, GoldenMismatch
from export import convert, package, parity
from export.child import golden_in_child, run_in_child
from export.gate import Gate, Judged
from export.quantize import pick_images, quantize_backbone
from training.calibrate import apply_rule
from training.data import Dataset, load_dataset, load_frame
from training.evaluate import measure
from training.fit import cross_fit, fit_head
from training.methods.base import Features, Progress, silent
from training.run import IGNORE, Detector, Run

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


@dataclass(frozen=True, slots=True)
class Report:
    """What an export came to."""

    out: Path
    bundle_id: str
    size_bytes: int
    metrics: dict[str, Metrics]
    """By precision: torch, fp32 and, where built, int8."""
    latency_ms: dict[str, float]
    """Median by precision, one image, on this machine."""
    threshold: Threshold
    score_difference: float
    """Largest relative difference of torch's and the FP32 graph's scores."""
    flips_in_band: int | None
    """Verdicts that flip from FP32 to INT8 within the band; None for fp32."""
    n_compared: int
    seconds: float
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Built:
    """An IR ready to be packed."""

    ir: Path
    judged: Judged
    threshold: Threshold
    display: DisplayScale


def build(run: Run, out: Path, data: Path | None, options: Options, progress: Progress = silent) -> Report:
    """Export `run` to a bundle at `out`. Nothing is at `out` unless everything passed.

    Args:
        run: what was taught.
        out: a folder that is not there yet (or, with `force`, a bundle).
        data: where the images of the run are now; None: where they were.
        options: see Options.
        progress: told of the steps.

    Raises:
        ConfigError: `out` is taken.
        DataError: images are missing or are not those of the run.
        ExportError: a conversion or a model failed; ParityError: precisions disagree.
    """
    began = time.monotonic()
    package.check_out(out, options.zipped, options.force)
    dataset = open_data(run, data, progress)
    try:
        place = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.absolute().parent))
    except OSError as e:
        raise ExportError(f"out: {out.absolute().parent} cannot be written: {e.strerror}") from e
    try:
        return _Export(run, dataset, options, place, progress).build(out, began)
    except OSError as e:
        raise ExportError(f"out: {place} cannot be written: {e.strerror or e}; free some space or choose another place") from e
    finally:
        shutil.rmtree(place, ignore_errors=True)


def open_data(run: Run, data: Path | None, progress: Progress) -> Dataset:
    """The images of the run, checked to be the same. Raises DataError."""
    info = run.info
    path = data or Path(info.data)
    if not path.is_dir():
        raise DataError(f"data: the images of this run were in {path}, where no folder is now; say where they are with --data FOLDER")
    dataset = load_dataset(
        path,
        roi=info.input.roi,
        ignore_mask=run.directory / IGNORE if info.input.ignore_mask else None,
        bad=Path(info.rule.bad) if info.rule.bad else None,
        masks=Path(info.rule.masks) if info.rule.masks else None,
        image_size=f"{info.input.height}x{info.input.width}",
        progress=progress,
    )
    if dataset.record.fingerprint != info.dataset.fingerprint:
        raise DataError(
            f"data: expected the {info.dataset.n_good} good images that the run was taught on "
            f"(fingerprint {info.dataset.fingerprint[:12]}…), found {len(dataset.train)} in {path} "
            f"(fingerprint {dataset.record.fingerprint[:12]}…). Give their folder with --data, or fit again"
        )
    return dataset


class _Export:
    """Holds what all stages share."""

    def __init__(self, run: Run, dataset: Dataset, options: Options, place: Path, progress: Progress) -> None:
        self.run, self.dataset, self.options, self.progress = run, dataset, options, progress
        self.work, self.pack = place / "work", place / "bundle"
        self.work.mkdir()
        self.pack.mkdir()
        self.gate = Gate(run, dataset, self.work, progress)

    def build(self, out: Path, began: float) -> Report:
        info, options = self.run.info, self.options
        detector = self.run.detector()
        images = self.gate.write_inputs("gate", self.gate.samples)
        scores, maps = self.gate.run_torch(detector, np.load(images, mmap_mode="r"))
        of_torch = self.gate.judge(scores, maps, self.run.held_out.scores, 0.0)

        backbone = convert.convert_backbone(detector.backbone, info.input.height, info.input.width)
        level_shapes = detector.backbone.level_shapes(info.input.height, info.input.width)
        fp32 = self.gate.run_ir("fp32", convert.stitch(backbone, convert.convert_head(detector.head, level_shapes)), images)
        judged = self.gate.judge(fp32.outputs["score"], fp32.outputs["map"][:, 0], self.run.held_out.scores, fp32.latency_ms)
        difference = parity.check_same(self.gate.names, of_torch.raw, judged.raw, info.threshold.value)
        final = _Built(self.work / "fp32.xml", judged, info.threshold, info.display)
        metrics = {"torch": measure(of_torch.scored, info.threshold.value), "fp32": measure(judged.scored, info.threshold.value)}
        latency = {"fp32": fp32.latency_ms}
        flips: int | None = None
        if options.precision == "int8":
            final = self._int8(backbone, level_shapes, images)
            metrics["int8"] = measure(final.judged.scored, final.threshold.value)
            latency["int8"] = final.judged.latency_ms
            parity.check_metrics("INT8 against FP32", metrics["fp32"], metrics["int8"], options.budget)
            before = judged.scored.scores.score / info.threshold.value
            after = final.judged.scored.scores.score / final.threshold.value
            names = self.gate.names_of(judged.scored.samples)
            flips = parity.check_verdicts("INT8 against FP32", names, before, after, options.band)
        if options.onnx:
            self._onnx(detector, images, of_torch.raw)
        bundle_id = self._pack(final, metrics)
        package.publish(self.pack, out)
        if options.zipped:
            package.write_zip(out, package.zip_path(out))
        return Report(
            out, bundle_id, package.size_bytes(out), metrics, latency, final.threshold, difference, flips,
            len(judged.scored.samples), time.monotonic() - began, self._notes(metrics),
        )  # fmt: skip

    def _int8(self, backbone: ov.Model, level_shapes: list[tuple[int, int, int]], images: Path) -> _Built:
        """Quantize, extract with the very graph that ships, refit, stitch, recalibrate."""
        info = self.run.info
        taught = self.gate.write_inputs("taught", self.dataset.train)
        array = np.load(taught, mmap_mode="r")
        quantized = quantize_backbone(backbone, array, pick_images(len(array), info.seed), self.progress)
        levels = self.gate.run_ir("int8_backbone", quantized, taught).outputs
        features = Features.of([levels[f"level{i}"] for i in range(len(level_shapes))])
        valid = self.gate.prepare.valid_cells(self.run.new_head(level_shapes).grid_hw)
        common = (info.method, info.params, level_shapes, features, valid, info.seed)
        held_out = cross_fit(*common, info.folds, self.progress)
        head = fit_head(*common, self.progress)
        found = self.gate.run_ir("int8", convert.stitch(quantized, convert.convert_head(head, level_shapes)), images)
        score, score_map = found.outputs["score"], found.outputs["map"][:, 0]
        if not (np.isfinite(score).all() and np.isfinite(score_map).all()):
            raise ExportError("INT8: the quantized detector gives scores that are no numbers; build with --precision fp32")
        judged = self.gate.judge(score, score_map, held_out, found.latency_ms)
        rule = info.rule
        good = judged.scores_of("test", True) if rule.from_test_split else held_out
        bad = judged.scores_of("test" if rule.from_test_split else "bad", False)
        threshold, display = apply_rule(rule, good, bad if len(bad) else None)
        return _Built(self.work / "int8.xml", judged, threshold, display)

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

    def _pack(self, built: _Built, metrics: dict[str, Metrics]) -> str:
        info, precision = self.run.info, self.options.precision
        good = np.array([s.is_good for s in self.gate.samples], dtype=bool)
        picks = package.choose_golden(built.judged.raw, good, built.threshold.value)
        files = package.write_golden(self.pack, [load_frame(self.gate.samples[i].path, info.input) for i in picks])
        for suffix in (".xml", ".bin"):
            shutil.move(built.ir.with_suffix(suffix), self.pack / f"model{suffix}")
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
            params={**info.params, "preset": info.preset, "strides": list(info.backbone.strides), "seed": info.seed},
            precision=precision,
            input=info.input,
            output=OutputSpec(**dict(zip(("map_height", "map_width"), _grid(self.work / precision), strict=True))),
            threshold=built.threshold,
            display=built.display,
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

    def _notes(self, metrics: dict[str, Metrics]) -> tuple[str, ...]:
        gate = metrics["fp32"]
        if gate.image_auroc is None:
            return ("only good images were at hand: verdicts were compared on held-out ones, AUROC could not be gated",)
        return () if gate.pixel_auroc is not None else ("no masks were at hand: pixel AUROC could not be gated",)


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
