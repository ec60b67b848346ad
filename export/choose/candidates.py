"""The candidates of a comparison: taught on one set of features, of the very backbone that would ship, and judged on the same pictures.

A head over a frozen backbone needs no bundle to be judged: its scores are those of torch on the features of the quantized graph, which the
stitched graph repeats to rounding. So all pictures go through each precision of the backbone once, and a candidate costs its fit alone.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov

from edge_runtime.errors import DataError
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.model.preprocess import Preprocessor
from export import package
from export.build import convert
from export.build.build import build
from export.build.options import BuildOptions
from export.build.quantize import pick_images, quantize_backbone
from export.child import run_in_child
from export.choose.choosing import Judged
from training.calibrate.rules import apply_rule, default_rule
from training.core.backbones import build_backbone
from training.core.base import Features, Outliers, Progress
from training.core.learn import Schedule, hold_out
from training.core.memory import array_file
from training.data.dataset import Dataset, inputs
from training.data.layout import Sample
from training.fitting.heads import LearningOptions, fit_held_out, score_features
from training.fitting.options import FitOptions, outlier_source, resolve
from training.fitting.teach import teach
from training.inspect.pose import spread
from training.methods.table import METHODS, make_head
from training.pictures.material import OutlierPictures, outlier_pictures

Pictures = npt.NDArray[np.uint8]

TESTED = 400
"""Images of the test split that are shown beside the choice, half of them good; a report has them all."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One candidate, taught and judged."""

    judged: Judged
    test: Judged | None
    """On the data's own test split, where it has one with both classes."""
    graph: Path
    """model.xml of the detector that would ship."""
    precision: str
    seconds: float


class CandidateBench:
    """Pictures, backbone and features that all candidates share."""

    def __init__(
        self, dataset: Dataset, good: Pictures, bad: Pictures, candidates: Sequence[FitOptions], weights: Path | None, seed: int,
        work: Path, progress: Progress,
    ) -> None:  # fmt: skip
        """`dataset.train` is learnt from; `good` and `bad`, (N, views, H, W, 3) model inputs, are chosen by; `work`: an existing folder.

        Raises ConfigError, DataError as `build_backbone` does.
        """
        self.dataset, self.seed, self.work, self.progress = dataset, seed, work, progress
        self.prepare: Preprocessor = dataset.preprocessor()
        self.good, self.bad = good, bad
        frozen = [fit_options for fit_options in candidates if METHODS[fit_options.method].network is None]
        self.strides = sorted({s for fit_options in frozen for s in resolve(fit_options)[0]} or {16})
        self.backbone = build_backbone(candidates[0].backbone, self.strides, weights)
        spec = dataset.spec
        self.shapes = self.backbone.level_shapes(spec.height, spec.width)
        self.graph = convert.convert_trunk(self.backbone, spec.height, spec.width)
        sides = [spread([s for s in dataset.test if s.is_good == good], TESTED // 2) for good in (True, False)]
        self.tested: tuple[Sample, ...] = (*sides[0], *sides[1]) if all(sides) else ()
        self._outliers: OutlierPictures | None = None
        teaching = [fit_options for fit_options in frozen if METHODS[fit_options.method].outliers != "none"]
        if teaching:
            source = outlier_source(teaching[0], sum(s.split == "train" for s in dataset.bad))
            assert source is not None
            rows, _ = hold_out(len(dataset.train), seed)
            samples = [dataset.train[int(i)] for i in rows]
            self._outliers = outlier_pictures(source, dataset, samples, self.prepare, seed, progress)
        self._file: Path | None = None
        self._parts: dict[str, slice] = {}
        self._models: dict[str, ov.Model] = {}
        self._levels: dict[str, list[npt.NDArray[np.float32]]] = {}

    @property
    def n_pictures(self) -> int:
        """That go through the backbone, once a precision."""
        views = self.prepare.views
        own = views * (len(self.dataset.train) + len(self.tested) + len(self.good) + len(self.bad))
        return own + (0 if self._outliers is None else len(self._outliers))

    def seconds_a_picture(self) -> float:
        """FP32 backbone, measured here and now on a picture of the data."""
        request = ov.Core().compile_model(self.graph.convolutions, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
        picture = np.ascontiguousarray(self.good[0, :1])
        request.infer({0: picture})
        times = []
        for _ in range(8):
            start = time.perf_counter()
            request.infer({0: picture})
            times.append(time.perf_counter() - start)
        return float(np.median(times))

    def measure(self, fit_options: FitOptions, minutes: float | None) -> Measured:
        """Teach and judge one; `minutes` for one that learns by steps. Raises LinesideError."""
        began = time.monotonic()
        if METHODS[fit_options.method].network is not None:
            return self._network(fit_options, began)
        precision = METHODS[fit_options.method].precision(fit_options.preset)
        strides, params = resolve(fit_options)
        picks = [self.strides.index(s) for s in strides]
        shapes = [self.shapes[i] for i in picks]
        outliers = None
        if METHODS[fit_options.method].outliers != "none":
            outliers = self._bad_to_learn(precision, picks, make_head(fit_options.method, params, shapes).grid_hw)
        fitted = fit_held_out(
            fit_options.method, params, shapes, self._features("taught", precision, picks), self.prepare, self.seed,
            learning=LearningOptions(outliers, Schedule(minutes=minutes), alone=True), progress=self.progress,
        )  # fmt: skip
        threshold = apply_rule(default_rule(len(fitted.held_out.score)), fitted.held_out)[0].value
        good, bad = (score_features(fitted.head, self._features(n, precision, picks), self.prepare).score for n in ("good", "bad"))
        test = None
        if self.tested:
            scores = score_features(fitted.head, self._features("test", precision, picks), self.prepare).score
            is_good = np.array([s.is_good for s in self.tested])
            test = Judged(scores[is_good], scores[~is_good], threshold)
        _refuse_nan(good, bad)
        file = self.work / f"{fit_options.method}-{fit_options.preset}.xml"
        package.save_ir(convert.stitch(self._cut(precision, picks), convert.convert_head(fitted.head, shapes)), file)
        return Measured(Judged(good, bad, threshold), test, file, precision, time.monotonic() - began)

    def _network(self, fit_options: FitOptions, began: float) -> Measured:
        """A network of its own is taught and built as ever, behind an open gate: what is taken is built again behind the narrow one."""
        name = f"{fit_options.method}-{fit_options.preset}"
        precision = METHODS[fit_options.method].precision(fit_options.preset)
        run = teach(self.dataset, fit_options, self.work / f"{name}.run", progress=self.progress)
        options = BuildOptions(precision=precision, band=math.inf, budget=1.0, torch_images=8, envelope=False)
        report = build(run, self.work / f"{name}.bundle", None, options, self.progress, dataset=self.dataset)
        bundle = ModelBundle.open(report.out)
        threshold = bundle.manifest.threshold.value
        with OpenvinoPredictor(bundle) as predictor:

            def score(pictures: Pictures) -> npt.NDArray[np.float64]:
                return np.array([predictor.preprocessor.merge(*predictor.infer(p))[0] for p in pictures], dtype=np.float64)

            good, bad = score(self.good), score(self.bad)
            test = None
            if self.tested:
                scores = np.array([score(np.stack(list(inputs([s], self.prepare)))[None])[0] for s in self.tested])
                is_good = np.array([s.is_good for s in self.tested])
                test = Judged(scores[is_good], scores[~is_good], threshold)
        _refuse_nan(good, bad)
        return Measured(Judged(good, bad, threshold), test, report.out / "model.xml", precision, time.monotonic() - began)

    def _bad_to_learn(self, precision: str, picks: Sequence[int], grid_hw: tuple[int, int]) -> Outliers:
        assert self._outliers is not None
        return self._outliers.outliers(self._features("outliers", precision, picks).levels, grid_hw)

    def _features(self, part: str, precision: str, picks: Sequence[int]) -> Features:
        """Features of one part of the pictures; all of them are run where this precision's are not there yet."""
        self._pictures()
        if precision not in self._levels:
            model = self._model(precision)
            ir, out = self.work / f"backbone_{precision}.xml", self.work / f"backbone_{precision}"
            out.mkdir()
            package.save_ir(model, ir)
            self.progress(f"features of {self.n_pictures} pictures in {precision.upper()}", 0, 1)
            found = run_in_child(ir, self._pictures(), out)
            self._levels[precision] = [found.outputs[f"level{i}"] for i in range(len(model.outputs))]
        views = 1 if part == "outliers" else self.prepare.views
        return Features.of([self._levels[precision][i][self._parts[part]] for i in picks], views)

    def _model(self, precision: str) -> ov.Model:
        if precision not in self._models:
            convolutions = None
            if precision == "int8":
                array = np.load(self._pictures(), mmap_mode="r")[self._parts["taught"]]
                convolutions = quantize_backbone(self.graph.convolutions, array, pick_images(len(array), self.seed), self.progress)
            self._models[precision] = self.graph.joined(convolutions)
        return self._models[precision]

    def _cut(self, precision: str, picks: Sequence[int]) -> ov.Model:
        """The backbone with these of its levels alone."""
        model = self._model(precision).clone()
        results = model.get_results()
        cut = ov.Model([results[i] for i in picks], model.get_parameters(), "trunk")
        convert.name_outputs(cut, "level")
        return cut

    def _pictures(self) -> Path:
        """All of them in one file, so that one child runs them all."""
        if self._file is None:
            spec = self.prepare.spec
            self._file = self.work / "pictures.npy"
            array = array_file(self._file, np.uint8, (self.n_pictures, spec.height, spec.width, 3))
            done = 0
            for name, samples in (("taught", self.dataset.train), ("test", self.tested)):
                start = done
                for picture in inputs(samples, self.prepare):
                    array[done] = picture
                    done += 1
                    self.progress("preparing images", done, self.n_pictures)
                self._parts[name] = slice(start, done)
            flat = [("good", self.good.reshape(-1, *self.good.shape[2:])), ("bad", self.bad.reshape(-1, *self.bad.shape[2:]))]
            if self._outliers is not None:
                flat.append(("outliers", self._outliers.images))
            for name, pictures in flat:
                array[done : done + len(pictures)] = pictures
                self._parts[name] = slice(done, done + len(pictures))
                done += len(pictures)
            array.flush()
        return self._file


def _refuse_nan(*scores: npt.NDArray[np.float64]) -> None:
    if not all(np.isfinite(s).all() for s in scores):
        raise DataError("some scores are no numbers")
