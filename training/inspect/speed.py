"""How fast this machine runs the model: a network of the default backbone's shape, timed for a moment before anything is taught.

It has EfficientNet-Lite0's convolutions up to stride 16 and weights of chance, so that neither PyTorch nor a conversion is waited for.
"""

import time
from typing import Literal

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as op

SIDE = 256
"""Side of the picture that is timed; time grows with the pixels, from 128x128 up."""
RUNS, LEAST_RUNS, SECONDS = 30, 12, 0.4
"""On one thread, in its own CPU time, of which the least counts: so it does not matter much what else the machine does. On two cores with
16 other processes, wall time came to 25 times what an idle machine takes, this to 1.1 times."""
PARALLEL = 0.857
"""Share of the work that more threads divide (Amdahl 1967): two are 1.75 times as fast as one."""
WITH_HEAD = {"patchcore": 1.61, "mvg": 1.5, "stfpm": 2.77, "efficientad": 4.7, "autoencoder": 0.85, "fastflow": 1.7, "fcdd": 1.5,
             "devnet": 1.5}  # fmt: skip
"""A whole model's time in times of the backbone's, presets `fast`: column "x backbone" in training/README.md."""
PADIM = 1.47
"""The same of padim, and of what is not in the table."""

_OPTIONS = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1"}
_STAGES = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3))
"""Expansion, kernel, stride of the first block, channels, blocks: Tan and Le 2019, table 1, without what the Lite variants leave out."""


def ms_per_megapixel(method: str, precision: Literal["int8", "fp32"]) -> float:
    """Milliseconds of model time for a million pixels of input when nothing else runs, measured on this machine in about a second."""
    core = ov.Core()
    picture = np.random.default_rng(0).integers(0, 256, (1, 3, SIDE, SIDE)).astype(np.float32)
    request = core.compile_model(network(precision), "CPU", _OPTIONS | {"INFERENCE_NUM_THREADS": 1}).create_infer_request()
    request.infer([picture], share_inputs=True)  # the first one allocates
    times: list[float] = []
    over = time.perf_counter() + SECONDS
    while len(times) < RUNS and (len(times) < LEAST_RUNS or time.perf_counter() < over):
        began = time.process_time()
        request.infer([picture], share_inputs=True)
        times.append(time.process_time() - began)
    return 1e3 * alone_s(min(times), graph_threads(core)) * WITH_HEAD.get(method, PADIM) / (SIDE * SIDE / 1e6)


def alone_s(cpu_s: float, threads: int) -> float:
    """Seconds that so much CPU time of a model takes on so many threads that nothing else wants."""
    return cpu_s * (1 - PARALLEL + PARALLEL / threads)


def graph_threads(core: ov.Core | None = None) -> int:
    """How many a model of ours is given here, whatever it computes."""
    x = op.parameter([1], np.float32)
    compiled = (core or ov.Core()).compile_model(ov.Model([op.relu(x)], [x], "threads"), "CPU", _OPTIONS)
    return max(1, int(compiled.get_property("INFERENCE_NUM_THREADS")))


def network(precision: Literal["int8", "fp32"]) -> ov.Model:
    """(1, 3, SIDE, SIDE) float32 -> what the backbone gives at stride 16."""
    maker = _Maker(precision == "int8")
    image = op.parameter([1, 3, SIDE, SIDE], np.float32)
    x = maker.convolve(image, 3, 32, 3, 2)
    before = 32
    for expand, kernel, first, channels, blocks in _STAGES:
        for block in range(blocks):
            came, wide = x, before * expand
            if expand > 1:
                x = maker.convolve(x, before, wide, 1)
            x = maker.convolve(x, wide, wide, kernel, first if block == 0 else 1, depthwise=True)
            x = maker.convolve(x, wide, channels, 1, clamp=False)
            if block:
                x = op.add(x, came)
            before = channels
    return ov.Model([x], [image], "speed")


class _Maker:
    """Convolutions with weights of chance; `int8`: their inputs and weights are rounded to 256 steps, as NNCF marks them."""

    def __init__(self, int8: bool) -> None:
        self.int8, self.rng = int8, np.random.default_rng(0)

    def convolve(
        self, x: ov.Node, before: int, channels: int, kernel: int, stride: int = 1, depthwise: bool = False, clamp: bool = True
    ) -> ov.Node:
        shape = (channels, 1, 1, kernel, kernel) if depthwise else (channels, before, kernel, kernel)
        weights: ov.Node = op.constant(self.rng.normal(0, 0.1, shape).astype(np.float32))
        if self.int8:
            low, high = np.zeros(1, np.float32), np.full(1, 6, np.float32)
            if not clamp or before == 3 or not depthwise:  # what follows an addition, and the picture, goes below zero
                low = -high
            x = op.fake_quantize(x, *map(op.constant, (low, high, low, high)), 256)
            ends = np.full((channels, *(1,) * (len(shape) - 1)), 0.3, np.float32)
            weights = op.fake_quantize(weights, *map(op.constant, (-ends, ends, -ends, ends)), 255)
        args = ([stride] * 2, [kernel // 2] * 2, [kernel // 2] * 2, [1, 1])
        x = op.group_convolution(x, weights, *args) if depthwise else op.convolution(x, weights, *args)
        bias: npt.NDArray[np.float32] = self.rng.normal(0, 0.1, (1, channels, 1, 1)).astype(np.float32)
        x = op.add(x, op.constant(bias))
        return op.clamp(x, 0.0, 6.0) if clamp else x
