"""A head's parameters in a graph: read, and put in the place of others, so that a head of the same kind is not converted again."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import op

from export.build.convert import HEAD_PREFIX

Array = npt.NDArray[np.float32]


def head_constants(model: ov.Model) -> dict[str, Array]:
    """Buffer name -> copy of the values."""
    return {name: np.array(node.get_data()) for name, node in _head_nodes(model).items()}


def replace_head(model: ov.Model, values: Mapping[str, Array]) -> ov.Model:
    """A copy of `model` with new values for some of the head's parameters."""
    model = model.clone()
    nodes = _head_nodes(model)
    for name, value in values.items():
        old = nodes[name].get_data()
        assert (old.shape, old.dtype) == (value.shape, value.dtype), name
        constant = op.Constant(np.asarray(value, order="C"))  # ascontiguousarray would make a list of a scalar
        constant.set_friendly_name(HEAD_PREFIX + name)
        nodes[name].output(0).replace(constant.output(0))
    return model


def _head_nodes(model: ov.Model) -> dict[str, op.Constant]:
    nodes = (n for n in model.get_ops() if n.get_type_name() == "Constant" and n.get_friendly_name().startswith(HEAD_PREFIX))
    return {n.get_friendly_name().removeprefix(HEAD_PREFIX): n for n in nodes}
