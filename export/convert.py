"""torch -> OpenVINO: backbone and head are converted apart and stitched into one graph whose head parameters are named constants."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov
import torch
from openvino import op
from torch import Tensor, nn

from edge_runtime.errors import ExportError
from export.quiet import quiet
from training.backbones import Backbone
from training.methods.base import Head, LevelShape

HEAD_PREFIX = "head."
"""Friendly names of the head's constants: `head.` + the name of the buffer, with the buffer's own shape and type."""

ONNX_OPSET = 17
Array = npt.NDArray[np.generic]


class _HeadAsFunction(nn.Module):
    """A head whose buffers are arguments.

    Converted like this, they become parameters of the graph, which no simplification can fold, transpose or share. Each is then
    replaced by a constant, so the graph holds exactly the head's own buffers under their own names.
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head
        self.names = [name for name, _ in head.named_buffers()]

    def forward(self, levels: list[Tensor], buffers: list[Tensor]) -> tuple[Tensor, Tensor]:
        score, score_map = torch.func.functional_call(self.head, dict(zip(self.names, buffers, strict=True)), (levels,))
        return score, score_map


class _Whole(nn.Module):
    def __init__(self, backbone: nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        score, score_map = self.head(self.backbone(image))
        return score, score_map


def convert_backbone(backbone: Backbone, height: int, width: int) -> ov.Model:
    """uint8 (1, height, width, 3) `image` -> one float32 output a level, named `level0`, `level1` ... Raises ExportError."""
    model = _convert(backbone, (torch.zeros(1, height, width, 3, dtype=torch.uint8),), "backbone")
    model.reshape([1, height, width, 3])
    model.input(0).set_names({"image"})
    model.input(0).get_node().set_friendly_name("image")
    for i, output in enumerate(model.outputs):
        output.get_node().input(0).get_source_output().set_names({f"level{i}"})
    model.validate_nodes_and_infer_types()
    return model


def convert_head(head: Head, level_shapes: Sequence[LevelShape]) -> ov.Model:
    """One float32 (1, C, h, w) input a level -> `score` (1,) and `map` (1, 1, gh, gw). Raises ExportError.

    Each buffer of the head is a constant with the friendly name `head.<buffer>`.
    """
    head = head.eval()
    function = _HeadAsFunction(head)
    levels = [torch.zeros(1, *shape) for shape in level_shapes]
    buffers = [b.detach().clone() for _, b in head.named_buffers()]
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


def stitch(backbone: ov.Model, head: ov.Model) -> ov.Model:
    """One graph `image` -> `score`, `map`. Both arguments are cloned, so they can be used again. Raises ExportError."""
    front, back = backbone.clone(), head.clone()
    inputs = back.get_parameters()
    if len(front.outputs) != len(inputs):
        raise ExportError(f"stitching: the backbone gives {len(front.outputs)} levels, the head takes {len(inputs)}")
    for output, parameter in zip(front.outputs, inputs, strict=True):
        if output.partial_shape != parameter.get_output_partial_shape(0):
            raise ExportError(
                f"stitching: the backbone gives {output.partial_shape}, the head takes {parameter.get_output_partial_shape(0)}"
            )
        parameter.output(0).replace(output.get_node().input(0).get_source_output())
    model = ov.Model(back.get_results(), front.get_parameters(), "detector")
    model.validate_nodes_and_infer_types()
    _check_contract(model)
    return model


def head_constants(model: ov.Model) -> dict[str, Array]:
    """The head's parameters as they stand in the graph: buffer name -> copy of the values."""
    return {name: np.array(node.get_data()) for name, node in _head_nodes(model).items()}


def replace_head(model: ov.Model, values: dict[str, Array]) -> ov.Model:
    """A copy of `model` with new values for some of the head's parameters: needs no torch.

    Raises ExportError for a wrong name, shape or type.
    """
    model = model.clone()
    nodes = _head_nodes(model)
    for name, value in values.items():
        if name not in nodes:
            raise ExportError(f"head: expected one of {', '.join(sorted(nodes))}, found {name}")
        old = nodes[name].get_data()
        if old.shape != value.shape or old.dtype != value.dtype:
            raise ExportError(f"head.{name}: expected {old.dtype} {old.shape}, found {value.dtype} {value.shape}")
        constant = op.Constant(np.ascontiguousarray(value))
        constant.set_friendly_name(HEAD_PREFIX + name)
        nodes[name].output(0).replace(constant.output(0))
    return model


def save_ir(model: ov.Model, path: Path) -> None:
    """Write `path` (.xml) and the weights beside it (.bin), every number in the precision it has in the graph."""
    ov.save_model(model, path, compress_to_fp16=False)


def export_onnx(backbone: Backbone, head: Head, height: int, width: int, path: Path, notes: dict[str, str]) -> None:
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


def _head_nodes(model: ov.Model) -> dict[str, op.Constant]:
    nodes = (n for n in model.get_ops() if n.get_type_name() == "Constant" and n.get_friendly_name().startswith(HEAD_PREFIX))
    return {n.get_friendly_name().removeprefix(HEAD_PREFIX): n for n in nodes}


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
