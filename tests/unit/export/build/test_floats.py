"""The layers that rounding hurts most are found, on a chain of convolutions as a backbone has them."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
from openvino import op, opset13

from export.build import floats

LAYERS, SIDE = 12, 8


def _chain(spoilt: dict[int, float]) -> ov.Model:
    """uint8 (1, 8, 8, 3) -> a level, by 12 convolutions with biases; `spoilt`: position -> relative error of its weights, made as NNCF
    would: through an operation before the weights, and FakeQuantize before the layer's input."""
    rng = np.random.default_rng(0)
    image = op.Parameter(ov.Type.u8, ov.Shape([1, SIDE, SIDE, 3]))
    found = opset13.transpose(opset13.convert(image, "f32"), op.Constant(np.array([0, 3, 1, 2])))
    for i in range(LAYERS):
        weights = op.Constant(_weights(rng)).output(0)
        error = rng.normal(0, 1, (3, 3, 1, 1))
        bias = np.full((1, 3, 1, 1), 0.1, np.float32)
        if i in spoilt:
            weights = opset13.multiply(weights, op.Constant((1 + spoilt[i] * error).astype(np.float32))).output(0)
            limits = [op.Constant(np.array(v, np.float32)) for v in (-1e4, 1e4, -1e4, 1e4)]
            found = opset13.fake_quantize(found, *limits, 2**20)
            bias += np.float32(spoilt[i])
        found = opset13.convolution(found, weights, [1, 1], [0, 0], [0, 0], [1, 1])
        found.set_friendly_name(f"layer{i}")
        found = opset13.add(found, op.Constant(bias))
    model = ov.Model([op.Result(found.output(0))], [image], "chain")
    model.input(0).set_names({"image"})
    model.output(0).set_names({"level0"})
    return model


def _weights(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    return (np.eye(3)[:, :, None, None] + rng.normal(0, 0.1, (3, 3, 1, 1))).astype(np.float32)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    np.save(tmp_path / "images.npy", np.random.default_rng(1).integers(0, 255, (20, SIDE, SIDE, 3), dtype=np.uint8))
    return tmp_path / "images.npy"


@pytest.mark.slow
def test_the_layers_that_hurt_most_come_first(images: Path, tmp_path: Path) -> None:
    spoilt = {i: 0.15 if i == 7 else 0.3 if i == 1 else 0.003 for i in range(LAYERS)}
    few, more = floats.candidates(_chain({}), _chain(spoilt), images, tmp_path)
    assert (few.names, few.label) == (("layer6", "layer7", "layer8"), "convolutions 7-9 of 12")
    assert set(more.names) == {f"layer{i}" for i in (0, 1, 2, 6, 7, 8)}
    assert more.label == "convolutions 1-3, 7-9 of 12"
    assert more.remains < 0.2 < few.remains < 0.5


@pytest.mark.slow
def test_where_every_layer_hurts_alike_no_more_than_half_goes_to_float(images: Path, tmp_path: Path) -> None:
    found = floats.candidates(_chain({}), _chain(dict.fromkeys(range(LAYERS), 0.02)), images, tmp_path)
    assert found and all(len(c.names) <= LAYERS // 2 for c in found)


def test_a_graph_that_is_not_quantized_has_no_candidates(images: Path, tmp_path: Path) -> None:
    assert floats.candidates(_chain({}), _chain({}), images, tmp_path) == []
