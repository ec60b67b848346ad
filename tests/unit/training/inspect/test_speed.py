"""The machine's own speed: of a network that is what would ship, and whatever else runs."""

from collections import Counter
from itertools import chain, repeat

import openvino as ov
import pytest

from training.inspect import speed


@pytest.mark.slow
def test_the_network_is_the_backbones_and_is_run_in_the_precision_asked_for() -> None:
    for precision, expected in (("int8", "u8"), ("fp32", "f32")):
        compiled = ov.Core().compile_model(speed.network(precision), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})  # type: ignore[arg-type]
        infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
        of = Counter(i["runtimePrecision"].astype(str) for i in infos if i["layerType"].astype(str) == "Convolution")
        assert of == {expected: 33}
        assert list(compiled.output(0).shape) == [1, 112, speed.SIDE // 16, speed.SIDE // 16]


@pytest.mark.slow
def test_the_least_cpu_time_counts_whatever_the_clock_on_the_wall_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """One run of 12 ms, all others interrupted; a second a look at the wall's clock."""
    took = chain([0.5, 0.3, 0.012], repeat(0.4))
    ends = chain.from_iterable((0.0, t) for t in took)
    wall = chain(map(float, range(1000)))
    monkeypatch.setattr(speed.time, "process_time", lambda: next(ends))
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(wall))
    monkeypatch.setattr(speed, "graph_threads", lambda core: 2)
    expected = 12 / 1.75 * 1.47 / (256 * 256 / 1e6)
    assert speed.ms_per_megapixel("padim", "fp32") == pytest.approx(expected, rel=0.01)


@pytest.mark.slow
def test_what_is_measured_here_is_of_the_size_of_what_is_known() -> None:
    """Ten times faster or slower than two cores of 2023 is no machine that this runs on."""
    assert 7 < speed.ms_per_megapixel("padim", "int8") < 750
