"""One backbone, quantized and run once, for many exports of one data set: what tests and benchmarks hand to `build`."""

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov

from export.build import convert
from export.build.convert import TrunkGraph
from export.build.features import FeatureExtractor, Levels
from training.core.backbones import Backbone, build_backbone
from training.core.base import Progress
from training.fitting.heads import BackboneFn
from training.runs import RunInfo


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
