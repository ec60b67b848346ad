"""Reads an OpenVINO model that another tool exported, and wraps it: camera pixels in, `score` and `map` out, all else as it was."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops
from openvino.preprocess import ColorFormat, PrePostProcessor

from edge_runtime.errors import ConfigError, ExportError

ANOMALIB = "anomalib 2"
MODEL_API = "model_info"

_SCORE, _MAP, _LABEL, _MASK = "pred_score", "anomaly_map", "pred_label", "pred_mask"
_PROBES = ((320, 320), (448, 384))
_CUTS = ("Slice", "StridedSlice", "Crop")
_SHAPING = ("Convert", "Reshape", "Squeeze", "Unsqueeze", "FakeQuantize")


@dataclass(frozen=True, slots=True)
class Foreign:
    """A model that was read and wrapped."""

    model: ov.Model
    """uint8 (1, height, width, 3) BGR `image` -> `score` (1,) and `map` (1, 1, h, w), float32, static."""
    exporter: str
    """ANOMALIB (its outputs' names say so) or MODEL_API (its rt_info does: OpenVINO Training Extensions, Geti)."""
    height: int
    width: int
    map_hw: tuple[int, int]
    threshold: float | None
    """A part is rejected above it, on the model's own scale; None where the model does not say."""
    map_threshold: float | None
    clamped: bool
    """Scores or maps were normalised and clamped within the graph."""
    quantized: bool


def read_foreign(path: Path, image_hw: tuple[int, int] | None = None) -> Foreign:
    """Read, check and wrap.

    Args:
        path: model.xml, its .bin beside it.
        image_hw: (height, width) of the input, for a model that takes any size.

    Raises:
        ConfigError: `image_hw` is not the size that the model has.
        ExportError: the model is unreadable, says too little of itself, or cannot be made static.
    """
    model = _read(path)
    info = _model_info(model)
    outputs = {name: port for port in model.outputs for name in port.get_names()}
    exporter = _exporter(path, outputs, info, model)
    mean, scale = _pixel_scale(path, exporter, info)
    height, width = _make_static(path, model, image_hw, info)
    _refuse_cuts(path, model)
    if info.get("resize_type", "standard") != "standard":
        raise ExportError(
            f"{path}: expected a model that was taught on images resized to {width}x{height} as they are (resize_type standard), found "
            f"{info['resize_type']}: the device would show it stretched ones. Teach and export it without"
        )
    outputs = {name: port for port in model.outputs for name in port.get_names()}
    score, score_map = _results(path, exporter, outputs, model)
    if exporter == ANOMALIB:
        # The threshold that its labels and masks were made with stands in the graph, as a constant.
        threshold, map_threshold = (_compared_with(outputs[name]) if name in outputs else None for name in (_LABEL, _MASK))
    else:
        threshold, map_threshold = (_number(info, key) for key in ("image_threshold", "pixel_threshold"))
    clamped = _is_clamped(score) or _is_clamped(score_map)
    quantized = any(node.get_type_name() == "FakeQuantize" for node in model.get_ops())
    map_hw = (score_map.get_shape()[-2], score_map.get_shape()[-1])
    wrapped = _wrap(model, score, score_map, mean, scale, (height, width))
    return Foreign(wrapped, exporter, height, width, map_hw, threshold, map_threshold, clamped, quantized)


def _read(path: Path) -> ov.Model:
    if path.suffix != ".xml" or not path.is_file():
        raise ExportError(f"{path}: expected the .xml of an OpenVINO model, found {'another file' if path.is_file() else 'no such file'}")
    if not path.with_suffix(".bin").is_file():
        raise ExportError(f"{path}: expected the model's weights in {path.with_suffix('.bin').name} beside it, found none; copy both files")
    try:
        model = ov.Core().read_model(path)
    except RuntimeError as e:
        raise ExportError(f"{path}: expected an OpenVINO model, could not read it: {_last_line(e)}") from e
    if len(model.inputs) != 1:
        raise ExportError(f"{path}: expected a model with one input, an image, found {len(model.inputs)} inputs")
    port = model.input(0)
    shape, kind = port.get_partial_shape(), port.get_element_type().get_type_name()
    if kind not in ("f32", "f16") or shape.rank.is_dynamic or len(shape) != 4 or str(shape[1]) != "3":
        raise ExportError(f"{path}: expected an input of float pixels, (1, 3, height, width), found {shape} {kind}")
    return model


def _model_info(model: ov.Model) -> dict[str, str]:
    """What OpenVINO Training Extensions, Geti and model_api write into the model of themselves; empty where they did not."""
    keys = (
        "model_type", "image_threshold", "pixel_threshold", "mean_values", "scale_values", "orig_height", "orig_width",
        "resize_type",
    )  # fmt: skip
    paths = {key: ["model_info", key] for key in keys}
    return {key: str(model.get_rt_info(where).astype(str)) for key, where in paths.items() if model.has_rt_info(where)}


def _exporter(path: Path, outputs: dict[str, Any], info: dict[str, str], model: ov.Model) -> str:
    if _SCORE in outputs and _MAP in outputs:
        return ANOMALIB
    if _SCORE in outputs or _MAP in outputs:
        missing = _MAP if _SCORE in outputs else _SCORE
        raise ExportError(
            f"{path}: expected outputs {_SCORE} and {_MAP}, found no {missing}: "
            + ("this method gives no map, and a verdict here names the place of a defect" if missing == _MAP else "no score")
            + "; export another method"
        )
    if info.get("model_type", "").lower() == "anomalydetection" and len(model.outputs[0].get_partial_shape()) >= 3:
        return MODEL_API
    raise ExportError(
        f"{path}: the model does not say what it is: expected outputs named {_SCORE} and {_MAP} (anomalib 2), or rt_info model_info of "
        f"model_type AnomalyDetection whose first output is a map (OpenVINO Training Extensions); found outputs "
        f"{', '.join(sorted(outputs)) or 'without names'}{' and model_type ' + info['model_type'] if 'model_type' in info else ''}. "
        "Export it again with one of these"
    )


def _pixel_scale(path: Path, exporter: str, info: dict[str, str]) -> tuple[list[float], list[float]]:
    """(mean, scale) that take pixels 0..255 to what the graph was taught on: (x - mean) / scale."""
    mean, scale = _numbers(path, info, "mean_values"), _numbers(path, info, "scale_values")
    if any(mean) or any(s != 1 for s in scale):
        return mean, scale
    if exporter == ANOMALIB:  # takes 0..1; the mean and deviation of the method are within its graph
        return [], [255.0]
    if not mean and not scale:
        raise ExportError(
            f"{path}: takes float pixels of an unknown scale: expected mean_values and scale_values in its rt_info model_info, found "
            f"{', '.join(sorted(info)) or 'none'}; export it again with them"
        )
    return [], []


def _make_static(path: Path, model: ov.Model, image_hw: tuple[int, int] | None, info: dict[str, str]) -> tuple[int, int]:
    """Fix batch, height and width. Returns (height, width)."""
    shape = model.input(0).get_partial_shape()
    if shape[2].is_static and shape[3].is_static:
        hw = (shape[2].get_length(), shape[3].get_length())
        if image_hw is not None and image_hw != hw:
            raise ConfigError(
                f"image size: this model takes {hw[1]}x{hw[0]} (width x height), found {image_hw[1]}x{image_hw[0]}; leave the option out"
            )
    elif image_hw is not None:
        hw = image_hw
    elif "orig_height" in info and "orig_width" in info:
        if not (info["orig_height"].isdecimal() and info["orig_width"].isdecimal()):
            raise ExportError(
                f"{path}: expected whole numbers as orig_height and orig_width in its model_info, found {info['orig_height']} and "
                f"{info['orig_width']}; say the size with --image-size, 256 or 320x256"
            )
        hw = (int(info["orig_height"]), int(info["orig_width"]))
    else:
        found = _inner_size(model)
        if found is None:
            raise ExportError(f"{path}: takes images of any size ({shape}); say which it was taught on with --image-size, 256 or 320x256")
        hw = found
    try:
        model.reshape([1, 3, *hw])
    except RuntimeError as e:
        why = "it takes two images at once and never one, as anomalib exports PatchCore" if _takes(model, [2, 3, *hw]) else _last_line(e)
        raise ExportError(f"{path}: could not be given the fixed input 1x3x{hw[0]}x{hw[1]}: {why}; export another method") from e
    loose = next((port for port in model.outputs if port.get_partial_shape().is_dynamic), None)
    if loose is not None:
        raise ExportError(
            f"{path}: {_name(loose)} stays {loose.get_partial_shape()} for a fixed input of {hw[0]}x{hw[1]}; "
            "a device needs static shapes: export it again with a fixed input size and a batch of 1"
        )
    return hw


def _inner_size(model: ov.Model) -> tuple[int, int] | None:
    """The size that the graph itself scales every image to, where it does: ours is scaled to just that, so that nothing is scaled twice."""
    found = set()
    for hw in _PROBES:
        if (probe := _takes(model, [1, 3, *hw])) is None:
            return None
        port = next((p for p in probe.outputs if _MAP in p.get_names()), probe.outputs[0])
        if port.get_partial_shape().is_dynamic:
            return None
        found.add((port.get_shape()[-2], port.get_shape()[-1]))
    return found.pop() if len(found) == 1 else None


def _takes(model: ov.Model, shape: list[int]) -> ov.Model | None:
    """A copy with an input of this shape, or None."""
    probe = model.clone()
    try:
        probe.reshape(shape)
    except RuntimeError:
        return None
    return probe


def _refuse_cuts(path: Path, model: ov.Model) -> None:
    """A graph that looks at the middle of the image alone would have its map drawn over all of it."""
    for node in model.get_ordered_ops():
        if node.get_type_name() in ("Convolution", "GroupConvolution", "MatMul"):
            return
        if node.get_type_name() in _CUTS and node.get_output_partial_shape(0).is_static and len(node.get_output_shape(0)) == 4:
            before, after = node.input(0).get_source_output().get_shape(), node.get_output_shape(0)
            if tuple(before[2:]) != tuple(after[2:]):
                raise ExportError(
                    f"{path}: cuts {after[2]}x{after[3]} out of the {before[2]}x{before[3]} image, so that defects would be shown in the "
                    "wrong place; export it without the centre crop, and give the recipe a region instead"
                )


def _results(path: Path, exporter: str, outputs: dict[str, Any], model: ov.Model) -> tuple[Any, Any]:
    """Ports in front of the results: score of one value, map of (…, h, w)."""
    score_map = _source(outputs[_MAP] if exporter == ANOMALIB else model.outputs[0])
    score = _source(outputs[_SCORE]) if exporter == ANOMALIB else _maximum(score_map)
    for name, port, sound in (
        (_SCORE, score, math.prod(score.get_shape()) == 1),
        (_MAP, score_map, len(score_map.get_shape()) >= 3 and math.prod(score_map.get_shape()[:-2]) == 1),
    ):
        if not sound or not port.get_element_type().is_real():
            kind = f"{list(port.get_shape())} {port.get_element_type().get_type_name()}"
            raise ExportError(f"{path}: expected {name} to be {'one number' if name == _SCORE else 'one map'} an image, found {kind}")
    return score, score_map


def _wrap(model: ov.Model, score: Any, score_map: Any, mean: list[float], scale: list[float], hw: tuple[int, int]) -> ov.Model:
    h, w = score_map.get_shape()[-2:]
    named = []
    for name, port, shape in (("score", score, [1]), ("map", score_map, [1, 1, h, w])):
        node = ops.reshape(ops.convert(port, "f32"), ops.constant(np.array(shape, np.int64)), False)
        node.output(0).set_names({name})
        named.append(node.output(0))
    model = ov.Model(named, model.get_parameters(), "adopted")
    steps = PrePostProcessor(model)
    image = steps.input(0)
    image.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC")).set_color_format(ColorFormat.BGR).set_shape([1, *hw, 3])
    image.model().set_layout(ov.Layout("NCHW"))
    # Every one of these tools teaches on RGB; their flag reverse_input_channels only says what its own reader is handed.
    image.preprocess().convert_element_type(ov.Type.f32).convert_color(ColorFormat.RGB)
    if any(mean):
        image.preprocess().mean(mean)
    if any(s != 1 for s in scale):
        image.preprocess().scale(scale)
    wrapped = steps.build()
    wrapped.input(0).set_names({"image"})
    return wrapped


def _source(port: Any) -> Any:
    return port.get_node().input(0).get_source_output()


def _maximum(score_map: Any) -> Any:
    axes = np.arange(len(score_map.get_shape()))
    return ops.reduce_max(score_map, ops.constant(axes), False).output(0)


def _is_clamped(port: Any) -> bool:
    """Whether a Clamp stands last, apart from reshaping, and from choices that constants make."""
    node = port.get_node()
    while (kind := node.get_type_name()) != "Clamp":
        if kind == "Select" and (chosen := _constant(node.input(0).get_source_output())) is not None:
            node = node.input(1 if chosen.all() else 2).get_source_output().get_node()
        elif kind in _SHAPING or kind == "ReduceMax":
            node = node.input(0).get_source_output().get_node()
        else:
            return False
    return True


def _compared_with(port: Any) -> float | None:
    """The constant of `x > constant`, by which a label or mask was made; None where there is none or it is no number."""
    node = port.get_node()
    while node.get_type_name() in ("Result", *_SHAPING):
        node = node.input(0).get_source_output().get_node()
    if node.get_type_name() not in ("Greater", "GreaterEqual"):
        return None
    value = _constant(node.input(1).get_source_output())
    return float(value.ravel()[0]) if value is not None and value.size == 1 and np.isfinite(value).all() else None


def _constant(port: Any) -> Any:
    node = port.get_node()
    while node.get_type_name() == "Convert":  # weights that are stored in 16 bits
        node = node.input(0).get_source_output().get_node()
    return np.array(node.get_data()) if node.get_type_name() == "Constant" else None


def _numbers(path: Path, info: dict[str, str], key: str) -> list[float]:
    try:
        found = [float(v) for v in re.split(r"[\s,\[\]()]+", info.get(key, "")) if v]
    except ValueError:
        found = [math.nan]
    if len(found) not in (0, 1, 3) or not all(map(math.isfinite, found)) or (key == "scale_values" and 0.0 in found):
        raise ExportError(f"{path}: rt_info model_info/{key}: expected one number or three, found {info[key]!r}")
    return found


def _number(info: dict[str, str], key: str) -> float | None:
    try:
        value = float(info[key])
    except (KeyError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _name(port: Any) -> str:
    return str(min(port.get_names(), default="an output"))


def _last_line(e: BaseException) -> str:
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(e).__name__
