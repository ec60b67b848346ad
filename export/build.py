"""From a run to a bundle: the stages of an export in their order, each of which can refuse."""

import dataclasses
import datetime
import importlib.metadata
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov
import torch

import edge_runtime
from edge_runtime.bundle import SCHEMA, DisplayScale, Golden, Manifest, Metrics, OutputSpec, Threshold
from edge_runtime.errors import DataError, ExportError, GoldenMismatch
from edge_runtime.records import Frame, Prediction
from export import convert, package, parity
from export.child import ChildRun, golden_in_child, run_in_child
from export.quantize import pick_images, quantize_backbone
from training.calibrate import Scores, apply_rule
from training.data import Dataset, Sample, inputs, load_dataset, load_frame
from training.evaluate import Scored, measure, score_dataset
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
class _Judged:
    """One precision's detector on the images of the gate."""

    scored: Scored
    """On `samples` of the gate; where there is no test split, good images carry their held-out scores."""
    raw: npt.NDArray[np.float64]
    """(N,) scores of the very graph, held-out or not."""
    peaks: npt.NDArray[np.float64]
    """(N,) maxima of its maps."""
    latency_ms: float


@dataclass(frozen=True, slots=True)
class _Built:
    """An IR ready to be packed."""

    ir: Path
    judged: _Judged
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
        self.prepare = run.preprocessor()
        self.samples: tuple[Sample, ...] = dataset.scored
        self.names = [_name(s.path, dataset.path) for s in self.samples]
        self.work, self.pack = place / "work", place / "bundle"
        self.work.mkdir()
        self.pack.mkdir()

    def build(self, out: Path, began: float) -> Report:
        info, options = self.run.info, self.options
        detector = self.run.detector()
        images = self._write_inputs("gate", self.samples)
        scores, maps = _torch_outputs(detector, np.load(images, mmap_mode="r"), self.progress)
        of_torch = self._judge(scores, maps, self.run.held_out.scores, 0.0)

        backbone = convert.convert_backbone(detector.backbone, info.input.height, info.input.width)
        level_shapes = detector.backbone.level_shapes(info.input.height, info.input.width)
        fp32 = self._run_ir("fp32", convert.stitch(backbone, convert.convert_head(detector.head, level_shapes)), images)
        judged = self._judge(fp32.outputs["score"], fp32.outputs["map"][:, 0], self.run.held_out.scores, fp32.latency_ms)
        difference = parity.check_same(self.names, of_torch.raw, judged.raw, info.threshold.value)
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
            names = [_name(s.path, self.dataset.path) for s in judged.scored.samples]
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
        taught = self._write_inputs("taught", self.dataset.train)
        array = np.load(taught, mmap_mode="r")
        quantized = quantize_backbone(backbone, array, pick_images(len(array), info.seed), self.progress)
        levels = self._run_ir("int8_backbone", quantized, taught).outputs
        features = Features.of([levels[f"level{i}"] for i in range(len(level_shapes))])
        valid = self.prepare.valid_cells(self.run.new_head(level_shapes).grid_hw)
        common = (info.method, info.params, level_shapes, features, valid, info.seed)
        held_out = cross_fit(*common, info.folds, self.progress)
        head = fit_head(*common, self.progress)
        found = self._run_ir("int8", convert.stitch(quantized, convert.convert_head(head, level_shapes)), images)
        score, score_map = found.outputs["score"], found.outputs["map"][:, 0]
        if not (np.isfinite(score).all() and np.isfinite(score_map).all()):
            raise ExportError("INT8: the quantized detector gives scores that are no numbers; build with --precision fp32")
        judged = self._judge(score, score_map, held_out, found.latency_ms)
        rule = info.rule
        good = _of(judged.scored, "test", True) if rule.from_test_split else held_out
        bad = _of(judged.scored, "test" if rule.from_test_split else "bad", False)
        threshold, display = apply_rule(rule, good, bad if len(bad) else None)
        return _Built(self.work / "int8.xml", judged, threshold, display)

    def _run_ir(self, name: str, model: ov.Model, images: Path) -> ChildRun:
        ir, out = self.work / f"{name}.xml", self.work / name
        out.mkdir()
        convert.save_ir(model, ir)
        self.progress(f"running {name.replace('_', ' ')}", 0, 1)
        found = run_in_child(ir, images, out)
        self.progress(f"running {name.replace('_', ' ')}", 1, 1)
        return found

    def _write_inputs(self, name: str, samples: Sequence[Sample]) -> Path:
        """Model inputs as (N, H, W, 3) uint8 in a file that processes can share."""
        path = self.work / f"{name}.npy"
        spec = self.run.info.input
        array = np.lib.format.open_memmap(path, "w+", np.uint8, (len(samples), spec.height, spec.width, 3))
        for i, image in enumerate(inputs(samples, self.prepare)):
            array[i] = image
            self.progress("preparing images", i + 1, len(samples))
        array.flush()
        return path

    def _judge(self, scores: npt.NDArray[np.floating], maps: npt.NDArray[np.floating], held_out: Scores, latency_ms: float) -> _Judged:
        """`scores` (N,) and `maps` (N, gh, gw) of all samples, counted as an evaluation counts them.

        Without a test split the good images are those that were taught, which score too well: their held-out scores stand in, and only
        bad images count by their pixels.
        """
        raw = np.asarray(scores, dtype=np.float64)
        shown = {s.path: i for i, s in enumerate(self.samples)}
        peaks = np.asarray(maps, dtype=np.float64).max(axis=(1, 2))

        def predict(frame: Frame) -> Prediction:
            i = shown[Path(frame.source)]
            return Prediction(float(raw[i]), maps[i], self.prepare.grid_to_frame(frame.image, maps[i].shape))

        if self.dataset.test:
            return _Judged(score_dataset(predict, self.samples, self.prepare, progress=self.progress), raw, peaks, latency_ms)
        bad = score_dataset(predict, self.dataset.bad, self.prepare, progress=self.progress)
        good = len(self.dataset.train)
        parts = (held_out, bad.scores)
        scored = dataclasses.replace(
            bad,
            samples=(*self.dataset.train, *self.dataset.bad),
            scores=Scores(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("score", "map_peak", "map_median"))),
            regions=np.concatenate([np.zeros(good, np.intp), bad.regions]),
            hits=np.concatenate([np.zeros(good, np.intp), bad.hits]),
        )
        return _Judged(scored, raw, peaks, latency_ms)

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
        parity.check_same(self.names[:ONNX_CHECKED], expected[:ONNX_CHECKED], scores, info.threshold.value)

    def _pack(self, built: _Built, metrics: dict[str, Metrics]) -> str:
        info, precision = self.run.info, self.options.precision
        good = np.array([s.is_good for s in self.samples], dtype=bool)
        picks = package.choose_golden(built.judged.raw, good, built.threshold.value)
        files = package.write_golden(self.pack, [load_frame(self.samples[i].path, info.input) for i in picks])
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
            tools=tool_versions(),
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


def tool_versions() -> dict[str, str]:
    """Of what takes part in an export."""
    return {"lineside": edge_runtime.__version__} | {
        name: importlib.metadata.version(name) for name in ("openvino", "nncf", "torch", "timm", "numpy", "opencv-python")
    }


def _torch_outputs(
    detector: Detector, images: npt.NDArray[np.uint8], progress: Progress, batch: int = 8
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(N,) scores and (N, gh, gw) maps."""
    scores, maps = [], []
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            score, score_map = detector(torch.from_numpy(np.array(images[start : start + batch])))
            scores.append(score.numpy())
            maps.append(score_map[:, 0].numpy())
            progress("running torch", min(start + batch, len(images)), len(images))
    return np.concatenate(scores), np.concatenate(maps)


def _of(scored: Scored, split: str, good: bool) -> Scores:
    """Scores of the good or bad images of one split."""
    rows = np.array([s.split == split and s.is_good == good for s in scored.samples], dtype=bool)
    return Scores(*(getattr(scored.scores, f)[rows] for f in ("score", "map_peak", "map_median")))


def _grid(folder: Path) -> tuple[int, int]:
    shape = np.load(folder / "map.npy", mmap_mode="r").shape
    return int(shape[-2]), int(shape[-1])


def _name(path: Path, base: Path) -> str:
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)
