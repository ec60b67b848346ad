"""What openvino-model-api's AnomalyDetection needs to read our detectors: its settings in the IR's rt_info, and outputs in its order."""

from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from edge_runtime.errors import ExportError
from edge_runtime.model.manifest import Threshold
from export.package import save_ir

LABELS = "Normal Anomaly"
"""In model_api's order and spelling: what is accepted, what is rejected."""
OUTPUTS = ("anomaly_map", "score", "map", "peak")


def write_model_info(xml: Path, threshold: Threshold) -> None:
    """Give the IR at `xml` (`score`, `map`) what model_api reads; its scores, maps and weights stay as they are.

    model_api takes a model with one output or with four, wants a map as the first of them, and judges by that map's maximum. Ours judge
    by `score`, which seldom is that maximum. So `anomaly_map`, the first of four, is the map with its peak set to the score and all else
    capped by it: model_api then gives the very verdict that the station gives. `peak` (1,) is the map's own maximum. A device asks for
    `score` and `map` alone.

    Raises ExportError for a model with other outputs.
    """
    model = ov.Core().read_model(xml)
    ports = {name: port.get_node().input(0).get_source_output() for port in model.outputs for name in port.get_names()}
    if not {"score", "map"} <= set(ports):
        raise ExportError(f"{xml}: expected outputs score and map, found {', '.join(sorted(ports)) or 'none'}")
    score, score_map = ports["score"], ports["map"]
    peak = ops.reduce_max(score_map, ops.constant(np.array([1, 2, 3])), False)
    everywhere = ops.constant(np.array([1, 1, 1, 1]))
    at_peak = ops.greater_equal(score_map, ops.reshape(peak, everywhere, False))
    level = ops.reshape(score, everywhere, False)
    view = ops.select(at_peak, level, ops.minimum(score_map, level))
    view.output(0).set_names({"anomaly_map"})
    peak.output(0).set_names({"peak"})
    model = ov.Model([view.output(0), score, score_map, peak.output(0)], model.get_parameters(), model.get_friendly_name())
    model.input(0).get_node().set_layout(ov.Layout("NHWC"))
    for key, value in model_info(threshold, *model.input(0).get_shape()[1:3]).items():
        model.set_rt_info(value, ["model_info", key])
    # The weights are mapped from the very file that is replaced, so both go elsewhere first.
    part = xml.with_name(f".{xml.stem}.part.xml")
    try:
        save_ir(model, part)
        del model, ports, score, score_map, peak, at_peak, level, view
        part.with_suffix(".bin").replace(xml.with_suffix(".bin"))
        part.replace(xml)
    finally:
        part.unlink(missing_ok=True)
        part.with_suffix(".bin").unlink(missing_ok=True)


def model_info(threshold: Threshold, height: int, width: int) -> dict[str, str]:
    """rt_info `model_info`, by the names of model_api 0.4's parameters; its readers parse text."""
    image, pixel = _below(threshold.value), _below(threshold.map_value)
    return {
        "model_type": "AnomalyDetection",
        "task": "segmentation",
        "labels": LABELS,
        # model_api compares in float32, by `>` the score and by `>=` the map; ours by `>` in float64. These numbers make both the same.
        "image_threshold": repr(image),
        "pixel_threshold": repr(float(np.nextafter(np.float32(pixel), np.float32(np.inf)))),
        # It shows (score - threshold) / scale + 0.5, cut to 0..1: the threshold at 0.5 and nothing at 0.
        "normalization_scale": repr(2 * threshold.value),
        "image_shape": f"{height} {width}",
        "orig_height": str(height),
        "orig_width": str(width),
        "resize_type": "standard",
        "reverse_input_channels": "False",
        "mean_values": "",
        "scale_values": "",
    }


def _below(value: float) -> float:
    """The largest float32 that is not above `value`."""
    near = np.float32(value)
    return float(near if float(near) <= value else np.nextafter(near, np.float32(-np.inf)))
