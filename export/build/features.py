"""How an export quantizes a trunk, and computes features with it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov

from export import package
from export.build import convert
from export.build.convert import TrunkGraph
from export.build.quantize import CALIBRATION_IMAGES, CALIBRATION_TILES, pick_images, quantize_backbone
from export.child import ChildRun, run_in_child
from training.core.backbones import Backbone, BackboneSpec
from training.core.base import Progress
from training.data.dataset import Dataset
from training.fitting.heads import BackboneFn
from training.runs import RunInfo

Levels = list[npt.NDArray[np.float32]]


class FeatureExtractor:
    """Quantizes and computes anew each time."""

    def quantize(self, trunk: TrunkGraph, info: RunInfo, pictures: Path, progress: Progress, floats: Sequence[str] = ()) -> ov.Model:
        """`image` -> `level0`, `level1` ..., the convolutions but `floats` in INT8, their ranges from `pictures`. Raises ExportError,
        DataError."""
        array = np.load(pictures, mmap_mode="r")
        picks = pick_images(len(array), info.seed, CALIBRATION_IMAGES if info.input.tiles is None else CALIBRATION_TILES)
        return trunk.joined(quantize_backbone(trunk.convolutions, array, picks, progress, floats))

    def levels(self, trunk: ov.Model, pictures: Path, out: Path) -> Levels:
        """One (N, C, h, w) array a level, computed in a child process by `out`.xml, which is written. Raises ExportError."""
        found = _run(trunk, pictures, out)
        return [found.outputs[f"level{i}"] for i in range(len(trunk.outputs))]


def _run(model: ov.Model, pictures: Path, out: Path) -> ChildRun:
    ir = out.with_name(out.name + ".xml")
    out.mkdir()
    package.save_ir(model, ir)
    return run_in_child(ir, pictures, out)


def openvino_backbone(dataset: Dataset) -> Callable[[Backbone], BackboneFn]:
    """A frozen backbone run by OpenVINO in FP32, which takes a third of torch's time; the gate compares the two.

    What it gives converts a backbone once, however often it is asked: it is for one fit, whose weights are always the same.
    """
    made: dict[BackboneSpec, BackboneFn] = {}

    def make(backbone: Backbone) -> BackboneFn:
        if backbone.spec in made:
            return made[backbone.spec]
        graph = convert.convert_trunk(backbone, dataset.spec.height, dataset.spec.width).convolutions
        request = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()

        def run(batch: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
            rows = []
            for picture in batch:
                request.infer({0: picture[None]}, share_inputs=True)
                rows.append([request.get_output_tensor(i).data[0].copy() for i in range(len(backbone.spec.strides))])
            return [np.stack(level) for level in zip(*rows, strict=True)]

        made[backbone.spec] = run
        return run

    return make
