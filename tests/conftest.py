"""Shared fixtures: a tiny real bundle (an OpenVINO model built by hand, no torch) and frames that it accepts or rejects."""

import export  # isort: skip  # noqa: F401  # before openvino, which would tell its makers of each test, and before torch: it must not spin

import hashlib
import json
import platform
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import openvino as ov
import pytest
from hypothesis import settings
from openvino import opset13 as ops

from edge_runtime.config.files import PublisherConfig
from edge_runtime.model import bundle as b
from edge_runtime.model.manifest import SCHEMA, Dataset, DisplayScale, Golden, InputSpec, Manifest, OutputSpec, Threshold
from tests.support.ports import free_ports

settings.register_profile("lineside", deadline=None)  # an example that takes long on a busy machine shows nothing
settings.load_profile("lineside")

SIDE = 64


def build_model(side: int = SIDE, broken: str | None = None) -> ov.Model:
    """uint8 (1, side, side, 3) -> map = brightness above 100 averaged over 8x8 cells, score = its maximum + 1.

    `broken`: "nan" makes the score NaN for a picture whose mean is above 200, "inf" infinite.
    """
    image = ops.parameter([1, side, side, 3], ov.Type.u8, name="image")
    x = ops.convert(image, "f32")
    gray = ops.reduce_mean(x, ops.constant(np.array([3])), keep_dims=True)
    nchw = ops.transpose(gray, ops.constant(np.array([0, 3, 1, 2])))
    above = ops.relu(ops.subtract(nchw, ops.constant(np.float32(100))))
    score_map = ops.avg_pool(above, [8, 8], [0, 0], [0, 0], [8, 8], False)
    score = ops.add(ops.reduce_max(score_map, ops.constant(np.array([1, 2, 3])), keep_dims=False), ops.constant(np.float32(1)))
    if broken is not None:
        mean = ops.reduce_mean(nchw, ops.constant(np.array([1, 2, 3])), keep_dims=False)
        # 0 / 0 is NaN and 1 / 0 is infinite once the mean is above 200.
        numerator = ops.constant(np.float32(1 if broken == "inf" else 0))
        gap = ops.relu(ops.subtract(ops.constant(np.float32(200)), mean))
        score = ops.add(
            score, ops.select(ops.greater(gap, ops.constant(np.float32(0))), ops.constant(np.float32(0)), ops.divide(numerator, gap))
        )
    score.output(0).set_names({"score"})
    score_map.output(0).set_names({"map"})
    return ov.Model([score, score_map], [image], "tiny")


def good_image(side: int = SIDE, seed: int = 0) -> np.ndarray:
    """(side, side) uint8, dark with a little noise: score near 1."""
    return np.random.default_rng(seed).integers(60, 95, (side, side), dtype=np.uint8)


def bad_image(side: int = SIDE, seed: int = 0) -> np.ndarray:
    """The same with a bright spot in rows 16..31, columns 32..47: score near 101, threshold 20."""
    image = good_image(side, seed)
    image[side // 4 : side // 2, side // 2 : side * 3 // 4] = 200
    return image


def write_bundle(
    directory: Path, *, broken: str | None = None, frame_wh: tuple[int, int] | None = (SIDE, SIDE), name: str = "tiny",
    threshold: float = 20.0, side: int = SIDE,
) -> Path:  # fmt: skip
    """A complete bundle with four golden samples, computed by the model itself."""
    (directory / "golden").mkdir(parents=True)
    model = build_model(side, broken=broken)
    ov.save_model(model, directory / "model.xml", compress_to_fp16=False)
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    golden = []
    for i in range(4):
        image = good_image(side, i) if i < 3 else bad_image(side, i)
        file = f"golden/{i:03d}.png"
        cv2.imwrite(str(directory / file), image)
        result = compiled({0: np.repeat(image[None, :, :, None], 3, axis=3)})
        golden.append(Golden(image=file, score=float(result["score"].item()), map_peak=float(result["map"].max())))
    files = {
        p.relative_to(directory).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(directory.rglob("*")) if p.is_file()
    }
    manifest = Manifest(
        schema=SCHEMA, name=name, version="1", created="2026-01-01T00:00:00Z", method="brightness", backbone="none", params={},
        precision="fp32", input=InputSpec(height=side, width=side, channels=1, frame_wh=frame_wh if side == SIDE else (side, side)),
        output=OutputSpec(map_height=side // 8, map_width=side // 8),
        threshold=Threshold(value=threshold, map_value=19.0, rule="by hand", false_reject_rate=None, false_reject_upper=None),
        display=DisplayScale(low=0.0, high=40.0), dataset=Dataset(name="drawn", fingerprint="0" * 64, n_good=4),
        metrics={}, golden=golden, golden_tolerance=1e-3, files=files, tools={"python": platform.python_version()},
    )  # fmt: skip
    b.write_manifest(directory, manifest)
    return directory


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """`lineside run` leaves SIGINT and SIGTERM ignored, as its process is about to end; children of the tests would inherit that.

    So they would from a shell that started the tests in the background, where Ctrl-C is ignored from the beginning.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only: copy it before altering it."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """`make_bundle(broken="nan")` and so on: a fresh bundle in this test's folder."""
    counter = iter(range(100))
    return lambda **kw: write_bundle(tmp_path / f"bundle{next(counter)}", **kw)


@pytest.fixture
def free_port() -> int:
    """A port of loopback that nobody listens on."""
    return free_ports(1)[0]


@pytest.fixture
def endpoints() -> PublisherConfig:
    """A publisher's, on ports that are free."""
    ports = free_ports(2)
    return PublisherConfig(endpoint=f"tcp://127.0.0.1:{ports[0]}", replay=f"tcp://127.0.0.1:{ports[1]}")


@pytest.fixture
def station_dir(tmp_path: Path, tiny_bundle: Path) -> Path:
    """A folder with parts/ (four good, two bad, sorted), recipe.toml and the bundle's path in it."""
    parts = tmp_path / "parts"
    parts.mkdir()
    for i in range(6):
        cv2.imwrite(str(parts / f"{i:02d}.png"), bad_image(seed=i) if i in (2, 5) else good_image(seed=i))
    (tmp_path / "recipe.toml").write_text(f'name = "tiny"\nbundle = {json.dumps(str(tiny_bundle))}\ndeadline_ms = 500\n')
    return tmp_path
