"""Makes INT8 detectors of a taught one: quantize, extract with the very graph that ships, refit the head, set the threshold anew.

Why: deploy/decisions/0005.
"""

import shutil
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov

from edge_runtime.errors import ExportError
from edge_runtime.model.manifest import DisplayScale, Threshold
from export.build import convert, noise, parity, precision
from export.build.accept import PAINTED_SEED
from export.build.features import FeatureExtractor
from export.build.gate import Gate, Judged
from training.calibrate.rules import Scores, apply_rule
from training.core.base import Features, Head, LevelShape
from training.fitting.heads import LearningOptions, Painted, fit_held_out
from training.pictures.material import painted_pictures
from training.runs import Run


@dataclass(frozen=True, slots=True)
class Built:
    """An IR ready to be packed."""

    ir: Path
    judged: Judged
    threshold: Threshold
    display: DisplayScale
    held_out: Scores
    """Held-out scores of good parts."""
    painted: Scores | None = None
    """Scores of painted defects, where there are no bad parts to judge by."""
    precision: str = "fp32"
    uncertain: float = 0.0
    """Relative standard error of the threshold."""
    floats: str | None = None
    """Which convolutions of an INT8 backbone stayed float."""
    flips: parity.Flips | None = None
    """Against FP32."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a taught detector was taken apart into."""

    trunk: convert.TrunkGraph
    head: Head
    shapes: list[LevelShape]
    """Shapes of what the trunk gives the head."""


class Int8Maker:
    """Makes them of one run; each may leave other layers in float."""

    def __init__(self, run: Run, gate: Gate, extractor: FeatureExtractor, parts: Parts, paints: int) -> None:
        """`paints`: defects painted to judge by, beside those that the rule has painted."""
        self.run, self.gate, self.extractor, self.parts, self.paints = run, gate, extractor, parts, paints

    def taught(self) -> Path:
        """Pictures that are learnt from."""
        info = self.run.info
        augment = None if self.parts.trunk.compare else info.augment
        return self.gate.write_inputs("taught", self.gate.dataset.train, augment, info.seed)

    def quantize(self, layers: Sequence[str] = ()) -> ov.Model:
        """The trunk; `layers`: convolutions that stay float. Raises ExportError, DataError."""
        return self.extractor.quantize(self.parts.trunk, self.run.info, self.taught(), self.gate.progress, layers)

    def make(self, quantized: ov.Model, images: Path, name: str) -> Built:
        """The INT8 model of a quantized trunk. Raises ExportError, CalibrationError.

        `images`: of the gate, as `Gate.write_inputs` writes them; `name`: of the graph in the gate's folder.
        """
        info, trunk, dataset = self.run.info, self.parts.trunk, self.gate.dataset
        taught = self.taught()
        # A network has learnt from most images; its head is fitted on the others.
        learns = self.gate.held if trunk.compare else dataset.train
        levels = self._levels(f"{name}_backbone", quantized, self.gate.write_inputs("held", learns) if trunk.compare else taught)
        prepare = self.gate.prepare
        features = Features.of(levels, prepare.views, len(levels[0]) // (len(learns) * prepare.views) - 1)
        fitted = fit_held_out(
            info.method, info.params, self.parts.shapes, features, prepare, info.seed, folds=info.folds,
            learning=LearningOptions(learnt=self.parts.head, known=self.run.held_out.scores),
            painted=self._painted(quantized, info.rule.synthetic, name) if info.rule.synthetic or self.paints else None,
            progress=self.gate.progress,
        )  # fmt: skip
        held_out = fitted.held_out
        # Where another precision is tried, the disk need not hold both.
        shutil.rmtree(self.gate.work / f"{name}_backbone", ignore_errors=True)
        found = self.gate.run_ir(name, convert.stitch(quantized, convert.convert_head(fitted.head, self.parts.shapes)), images)
        score, score_map = found.outputs["score"], found.outputs["map"][:, 0]
        if not (np.isfinite(score).all() and np.isfinite(score_map).all()):
            raise ExportError("INT8: the quantized detector gives scores that are no numbers; build with --precision auto")
        judged = self.gate.judge(score, score_map, held_out, found.latency_ms)
        rule = info.rule
        good = judged.scores_of("test", True) if rule.from_test_split else held_out
        bad = judged.scores_of("test" if rule.from_test_split else "bad", False)
        painted, judges = _parted(fitted.painted, info.rule.synthetic)
        if painted is not None:
            both = zip(astuple(bad), astuple(painted), strict=True)
            bad = painted if not len(bad) else Scores(*(np.concatenate(p) for p in both))
        own = () if rule.from_test_split else (info.apart, len(info.odd))
        threshold, display = apply_rule(rule, good, bad if len(bad) else None, *own)
        threshold = precision.set_anew(info.threshold, threshold)
        error = noise.threshold_error(rule, good, bad if len(bad) else None, info.seed)
        return Built(self.gate.work / f"{name}.xml", judged, threshold, display, held_out, judges, "int8", error)

    def _painted(self, quantized: ov.Model, count: int, name: str) -> Painted:
        """What the quantized backbone makes of the defects that the rule has painted, and of those that judge."""
        prepare, seed = self.gate.prepare, self.run.info.seed
        sets = [painted_pictures(self.gate.unlearnt, prepare, n, s) for n, s in ((count, seed), (self.paints, seed + PAINTED_SEED)) if n]
        pictures, sources = (np.concatenate(parts) for parts in zip(*sets, strict=True))
        file = self.gate.write_pictures(f"{name}_pictures", pictures.reshape(-1, *pictures.shape[2:]), len(sources) * prepare.views)
        return Painted(Features.of(self._levels(f"{name}_painted", quantized, file), prepare.views, 0), sources)

    def _levels(self, name: str, trunk: ov.Model, pictures: Path) -> list[npt.NDArray[np.float32]]:
        what = f"running {name.replace('_', ' ')}"
        self.gate.progress(what, 0, 1)
        found = self.extractor.levels(trunk, pictures, self.gate.work / name)
        self.gate.progress(what, 1, 1)
        return found


def _parted(painted: Scores | None, first: int) -> tuple[Scores | None, Scores | None]:
    """The first so many, and the others; None for none."""
    if painted is None:
        return None, None
    own, others = (Scores(*(a[rows] for a in astuple(painted))) for rows in (slice(first), slice(first, None)))
    return own if len(own) else None, others if len(others) else None
