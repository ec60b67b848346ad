"""Which layers of a quantized backbone hurt: each few convolutions are made float again in turn, and what comes nearest to float tells.

The error is that of the features that the head sees: squared, relative to the float features, added over the levels. Squared errors of
different layers add up roughly, so the groups that take most of it away alone are taken together, worst first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino as ov

from edge_runtime.errors import ExportError
from export import package
from export.child import deviations_in_child

GROUP = 3
"""Convolutions that follow each other, tried as one: an inverted residual block has three."""
PICTURES = 8
REMAINS = (0.5, 0.2)
"""A candidate leaves no more than this share of the error, with as few layers in float as do it."""
WORTH = 0.9
"""One that leaves more than this share is not worth building."""
MOST = 0.5
"""At most this share of all groups goes to float: more is as slow as FP32."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Convolutions that stay float."""

    names: tuple[str, ...]
    """Their friendly names in the float graph."""
    label: str
    """For people and the manifest: "convolutions 1-3, 7-9 of 33"."""
    remains: float
    """Share of the features' squared error that is left."""


def candidates(exact: ov.Model, quantized: ov.Model, images: Path, work: Path) -> list[Candidate]:
    """Up to one candidate for each of REMAINS, the one with fewer layers first; none where the two graphs cannot be laid side by side.

    Args:
        exact: image -> levels, float.
        quantized: the same with its convolutions in INT8.
        images: .npy of (N, H, W, 3) uint8 model inputs of good parts; PICTURES of them are looked at.
        work: an existing folder.

    Raises:
        ExportError: the graphs could not be run.
    """
    layers = _quantized_layers(exact, quantized)
    if not layers:
        return []
    groups = [range(i, min(i + GROUP, len(layers))) for i in range(0, len(layers), GROUP)]
    place = work / "floats"
    place.mkdir(exist_ok=True)
    pictures = np.load(images, mmap_mode="r")
    few = place / "few.npy"
    np.save(few, pictures[np.linspace(0, len(pictures) - 1, min(PICTURES, len(pictures))).astype(int)])
    package.save_ir(exact, place / "exact.xml")

    def errors(choices: Sequence[Sequence[int]]) -> list[float]:
        irs = []
        for i, chosen in enumerate(choices):
            irs.append(place / f"part{i}.xml")
            package.save_ir(_in_part(exact, quantized, [layers[j] for j in chosen]), irs[-1])
        return deviations_in_child(place / "exact.xml", irs, few, place)

    whole, *alone = errors([[], *groups])
    if not np.isfinite(whole) or whole <= 0:
        whole = float("inf")
    order = np.argsort(np.nan_to_num(alone, nan=np.inf), kind="stable")[: max(1, int(len(groups) * MOST))]
    sets = [sorted(j for g in order[: n + 1] for j in groups[int(g)]) for n in range(len(order))]
    left = [e / whole if np.isfinite(whole) else 1.0 for e in errors(sets)]
    found: list[Candidate] = []
    for remains in REMAINS:
        n = next((i for i, share in enumerate(left) if share <= remains), len(left) - 1)
        names = tuple(layers[j] for j in sets[n])
        if left[n] < WORTH and all(names != c.names for c in found):
            found.append(Candidate(names, f"convolutions {_ranges(sets[n])} of {len(layers)}", left[n]))
    return found


def _convolutions(model: ov.Model) -> list[ov.Node]:
    return [node for node in model.get_ordered_ops() if node.get_type_name() in ("Convolution", "GroupConvolution")]


def _is_quantized(node: ov.Node) -> bool:
    return any(_source(node, i).get_type_name() == "FakeQuantize" for i in range(2)) or _source(node, 1).get_type_name() != "Constant"


def _source(node: ov.Node, i: int) -> ov.Node:
    return node.input_value(i).get_node()


def _quantized_layers(exact: ov.Model, quantized: ov.Model) -> list[str]:
    """Names of the convolutions that are quantized, in the graph's order."""
    known = {node.get_friendly_name() for node in _convolutions(exact)}
    names = [node.get_friendly_name() for node in _convolutions(quantized) if _is_quantized(node)]
    return names if set(names) <= known else []


def _in_part(exact: ov.Model, quantized: ov.Model, names: Sequence[str]) -> ov.Model:
    """A copy of `quantized` with these convolutions, their weights and biases as they are in `exact`."""
    model = quantized.clone()
    before = {node.get_friendly_name(): node for node in _convolutions(exact)}
    for node in _convolutions(model):
        if node.get_friendly_name() not in names:
            continue
        original = before[node.get_friendly_name()]
        picture = _source(node, 0)
        if picture.get_type_name() == "FakeQuantize":
            node.input(0).replace_source_output(picture.input_value(0))
        _copy_constant(node, 1, original)
        for after, was in zip(_adds(node), _adds(original), strict=True):  # NNCF has moved the bias to make good what it rounded
            _copy_constant(after, 1, was)
    model.validate_nodes_and_infer_types()
    return model


def _adds(node: ov.Node) -> list[ov.Node]:
    """Additions of a constant to what `node` gives."""
    users = [target.get_node() for target in node.output(0).get_target_inputs()]
    return [u for u in users if u.get_type_name() == "Add" and _source(u, 1).get_type_name() == "Constant"]


def _copy_constant(node: ov.Node, i: int, original: ov.Node) -> None:
    values = _source(original, i)
    if values.get_type_name() != "Constant":
        raise ExportError(f"{original.get_friendly_name()}: expected constant weights, found {values.get_type_name()}")
    node.input(i).replace_source_output(ov.op.Constant(np.array(values.get_data())).output(0))


def _ranges(positions: Sequence[int]) -> str:
    """0-based, sorted -> "1-3, 7-9"."""
    parts: list[list[int]] = []
    for p in positions:
        if parts and parts[-1][-1] == p - 1:
            parts[-1].append(p)
        else:
            parts.append([p])
    return ", ".join(f"{p[0] + 1}-{p[-1] + 1}" if len(p) > 1 else f"{p[0] + 1}" for p in parts)
