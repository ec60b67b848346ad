"""How an export quantizes a trunk and computes features with it; shared by the exports of one data set, both are done once."""

import hashlib
import tempfile
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
from training.core.backbones import Backbone, BackboneSpec, build_backbone
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


class SharedExtractor(FeatureExtractor):
    """One backbone with all levels that any of the exports needs is quantized once, and run once on each set of pictures."""

    def __init__(self, name: str, strides: Sequence[int], weights: Path | None, height: int, width: int, place: Path) -> None:
        """`place`: an existing folder for graphs and features. Raises ConfigError, DataError as `build_backbone` does."""
        self._backbone = build_backbone(name, strides, weights)
        self._hw, self._place = (height, width), place
        self._graph = convert.convert_trunk(self._backbone, height, width)
        self._int8: ov.Model | None = None
        self._cut: dict[int, tuple[ov.Model, tuple[int, ...]]] = {}
        self._known: dict[str, Levels] = {}
        self._seen: dict[bytes, int] = {}
        self._rows: list[list[npt.NDArray[np.float32]]] = []
        self._request = ov.Core().compile_model(self._graph.convolutions, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()

    def backbone_fn(self, backbone: Backbone) -> BackboneFn:
        """FP32 features for `teach`: those of a picture that was met before are not computed again."""
        picks = [self._backbone.spec.strides.index(s) for s in backbone.spec.strides]

        def run(batch: npt.NDArray[np.uint8]) -> Levels:
            rows = [self._row(picture) for picture in batch]
            return [np.stack([row[i] for row in rows]) for i in picks]

        return run

    def quantize(self, trunk: TrunkGraph, info: RunInfo, pictures: Path, progress: Progress, floats: Sequence[str] = ()) -> ov.Model:
        """The shared graph, cut down to the run's levels; a network of its own, or one with layers in float, is quantized as ever."""
        if trunk.compare is not None or floats:
            return super().quantize(trunk, info, pictures, progress, floats)
        if self._int8 is None:
            self._int8 = super().quantize(self._graph, info, pictures, progress)
        model = self._int8.clone()
        picks = [self._backbone.spec.strides.index(s) for s in info.backbone.strides]
        results = [model.get_results()[i] for i in picks]
        cut = ov.Model(results, model.get_parameters(), "trunk")
        convert.name_outputs(cut, "level")
        self._cut[id(cut)] = (cut, tuple(picks))
        return cut

    def levels(self, trunk: ov.Model, pictures: Path, out: Path) -> Levels:
        """Looked up where the shared graph has seen these very pictures."""
        if id(trunk) not in self._cut or self._int8 is None:
            return super().levels(trunk, pictures, out)
        with pictures.open("rb") as file:
            key = hashlib.file_digest(file, "sha256").hexdigest()
        if key not in self._known:
            self._known[key] = super().levels(self._int8, pictures, Path(tempfile.mkdtemp(dir=self._place)) / "int8")
        return [self._known[key][i] for i in self._cut[id(trunk)][1]]

    def _row(self, picture: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
        key = hashlib.sha1(picture.tobytes(), usedforsecurity=False).digest()
        if key not in self._seen:
            self._request.infer({0: picture[None]}, share_inputs=True)
            self._seen[key] = len(self._rows)
            self._rows.append([self._request.get_output_tensor(i).data[0].copy() for i in range(len(self._backbone.spec.strides))])
        return self._rows[self._seen[key]]


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
