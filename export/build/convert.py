"""torch -> OpenVINO: backbone and head are converted apart and stitched into one graph whose head parameters are named constants."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import torch
from openvino import op
from torch import Tensor, nn

from edge_runtime.errors import ExportError
from export.build.quiet import quiet
from training.core.base import Head, LevelShape
from training.core.learn import Network
from training.runs import Trunk

HEAD_PREFIX = "head."
"""Friendly names of the head's constants: `head.` + the name of the buffer, with the buffer's own shape and type."""

ONNX_OPSET = 17
Array = npt.NDArray[np.generic]


class _HeadAsFunction(nn.Module):
    """A head whose buffers (and learnt parameters) are arguments.

    Converted like this, they become parameters of the graph, which no simplification can fold, transpose or share. Each is then
    replaced by a constant, so the graph holds exactly the head's own buffers under their own names.
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head
        self.names = list(head_state(head))

    def forward(self, levels: list[Tensor], buffers: list[Tensor]) -> tuple[Tensor, Tensor]:
        score, score_map = torch.func.functional_call(self.head, dict(zip(self.names, buffers, strict=True)), (levels,))
        return score, score_map


class _Whole(nn.Module):
    def __init__(self, backbone: Trunk, head: Head) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        score, score_map = self.head(self.backbone(image))
        return score, score_map


class _Part(nn.Module):
    """One method of a network as a module of its own, which is what a converter takes."""

    def __init__(self, network: Network, part: str) -> None:
        super().__init__()
        self.network, self.part = network, part

    def forward(self, x: Any) -> list[Tensor]:
        return list(getattr(self.network, self.part)(x))


@dataclass(frozen=True, slots=True)
class TrunkGraph:
    """What gives the levels, as graphs."""

    convolutions: ov.Model
    """uint8 (1, height, width, 3) `image` -> float32 outputs: what is quantized."""
    compare: ov.Model | None
    """From these to the levels of a network: what stays float. None: they are the levels."""

    def joined(self, convolutions: ov.Model | None = None) -> ov.Model:
        """`image` -> `level0`, `level1` ..., with these (quantized) convolutions in place of the own ones. Raises ExportError."""
        front = convolutions or self.convolutions
        return front if self.compare is None else _join(front, self.compare, "trunk")


def convert_trunk(trunk: Trunk, height: int, width: int) -> TrunkGraph:
    """The backbone, or the two parts of a network. Raises ExportError."""
    image = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    if not isinstance(trunk, Network):
        return TrunkGraph(_from_image(trunk, image, "level"), None)
    front = _from_image(_Part(trunk, "features"), image, "feature")
    with torch.inference_mode():
        shapes = [tuple(f.shape) for f in trunk.features(image)]
    compare = _convert(_Part(trunk, "compare"), ([torch.zeros(shape) for shape in shapes],), "network")
    compare.reshape({i: ov.PartialShape(list(shape)) for i, shape in enumerate(shapes)})
    name_outputs(compare, "level")
    return TrunkGraph(front, compare)


def _from_image(module: nn.Module, image: Tensor, name: str) -> ov.Model:
    model = _convert(module, (image,), "backbone")
    model.reshape(list(image.shape))
    model.input(0).set_names({"image"})
    model.input(0).get_node().set_friendly_name("image")
    name_outputs(model, name)
    return model


def name_outputs(model: ov.Model, name: str) -> None:
    """`<name>0`, `<name>1` …, in place of the names they had."""
    for i, output in enumerate(model.outputs):
        output.get_node().input(0).get_source_output().set_names({f"{name}{i}"})
    model.validate_nodes_and_infer_types()


def head_state(head: Head) -> dict[str, Tensor]:
    """Buffers and parameters by name."""
    return {**dict(head.named_buffers()), **dict(head.named_parameters())}


def convert_head(head: Head, level_shapes: Sequence[LevelShape]) -> ov.Model:
    """One float32 (1, C, h, w) input a level -> `score` (1,) and `map` (1, 1, gh, gw). Raises ExportError.

    Each buffer and parameter of the head is a constant with the friendly name `head.<name>`.
    """
    head = head.eval()
    function = _HeadAsFunction(head)
    levels = [torch.zeros(1, *shape) for shape in level_shapes]
    buffers = [b.detach().clone() for b in head_state(head).values()]
    model = _convert(function, (levels, buffers), type(head).__name__)
    if len(model.inputs) != len(levels) + len(buffers):
        raise ExportError(
            f"{type(head).__name__}: expected {len(levels) + len(buffers)} inputs after conversion, found {len(model.inputs)}"
        )
    shapes = {i: list(t.shape) for i, t in enumerate([*levels, *buffers])}
    model.reshape({model.input(i): ov.PartialShape(shape) for i, shape in shapes.items()})
    parameters = model.get_parameters()
    for name, buffer, parameter in zip(function.names, buffers, parameters[len(levels) :], strict=True):
        constant = op.Constant(buffer.contiguous().numpy())
        constant.set_friendly_name(HEAD_PREFIX + name)
        parameter.output(0).replace(constant.output(0))
        model.remove_parameter(parameter)
    for name, output in zip(("score", "map"), model.outputs, strict=True):
        output.get_node().input(0).get_source_output().set_names({name})
    model.validate_nodes_and_infer_types()
    return model


def stitch(trunk: ov.Model, head: ov.Model) -> ov.Model:
    """One graph `image` -> `score`, `map`. Both arguments are cloned, so they can be used again. Raises ExportError."""
    model = _join(trunk, head, "detector")
    _check_contract(model)
    return model


def _join(front: ov.Model, back: ov.Model, name: str) -> ov.Model:
    front, back = front.clone(), back.clone()
    inputs = back.get_parameters()
    if len(front.outputs) != len(inputs):
        raise ExportError(f"stitching: the backbone gives {len(front.outputs)} levels, the head takes {len(inputs)}")
    for output, parameter in zip(front.outputs, inputs, strict=True):
        if output.partial_shape != parameter.get_output_partial_shape(0):
            raise ExportError(
                f"stitching: the backbone gives {output.partial_shape}, the head takes {parameter.get_output_partial_shape(0)}"
            )
        parameter.output(0).replace(output.get_node().input(0).get_source_output())
    model = ov.Model(back.get_results(), front.get_parameters(), name)
    model.validate_nodes_and_infer_types()
    return model


def export_onnx(backbone: Trunk, head: Head, height: int, width: int, path: Path, notes: dict[str, str]) -> None:
    """Write the whole FP32 detector as ONNX with the same input and outputs; `notes` become its metadata. Raises ExportError."""
    import onnx

    whole = _Whole(backbone, head).eval()
    example = torch.zeros(1, height, width, 3, dtype=torch.uint8)
    try:
        with quiet(), torch.inference_mode():
            # Shapes are static here, so a trace cannot generalise wrongly.
            warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
            torch.onnx.export(
                whole, (example,), str(path), dynamo=False, opset_version=ONNX_OPSET, input_names=["image"], output_names=["score", "map"]
            )
    except Exception as e:  # the exporter raises many kinds, all of which mean that this head has an operation ONNX lacks
        raise ExportError(f"ONNX: {type(head).__name__} could not be exported ({_first_line(e)}); leave out --onnx") from e
    model = onnx.load(path)
    for key, value in notes.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)


def _convert(module: nn.Module, example: tuple[object, ...], what: str) -> ov.Model:
    try:
        with quiet(), torch.no_grad():
            # torch.export: the tracing front end's torch.jit is deprecated, and this one keeps static shapes and warns of nothing.
            return ov.convert_model(torch.export.export(module, example, strict=False))
    except Exception as e:  # both converters raise whatever their layers raise; all of it means the same to the user
        raise ExportError(
            f"{what}: could not be converted to OpenVINO ({_first_line(e)}). This is a limit of the model, not of your data"
        ) from e


def _check_contract(model: ov.Model) -> None:
    found = {o.get_any_name(): (o.get_element_type(), o.partial_shape) for o in model.outputs}
    score, score_map = found.get("score"), found.get("map")
    good = (
        score is not None
        and score_map is not None
        and score == (ov.Type.f32, ov.PartialShape([1]))
        and score_map[0] == ov.Type.f32
        and score_map[1].is_static
        and list(score_map[1].to_shape())[:2] == [1, 1]
    )
    if not good:
        raise ExportError(f"graph: expected score f32 (1,) and map f32 (1, 1, h, w), found {found}: the head breaks its contract")


def _first_line(e: Exception) -> str:
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return f"{type(e).__name__}: {lines[0][:160] if lines else 'no message'}"
