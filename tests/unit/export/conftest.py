"""A small real run: 24 drawn gray parts at 64x64, taught by PaDiM on the lite0 of the wheel. Costs a few seconds, so once a session."""

import contextlib
import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
import torch

from edge_runtime.errors import ExportError
from export import child
from export.build import convert
from tests.support.graph_heads import head_constants, replace_head
from tests.support.shared_extractor import SharedExtractor
from training.core.backbones import DEFAULT_BACKBONE, Backbone
from training.core.base import Head, LevelShape
from training.fitting.options import FitOptions, resolve
from training.methods.table import METHODS

SIDE = 64


def draw(seed: int, bad: bool = False, side: int = SIDE + 16) -> npt.NDArray[np.uint8]:
    """A gray part with a ring and a little noise; a bad one has a dark scratch."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side), 150, np.uint8)
    cv2.circle(image, (side // 2, side // 2), side // 4, 90, 3)
    if bad:
        x, y = (int(v) for v in rng.integers(10, side - 30, 2))
        cv2.line(image, (x, y), (x + 20, y + 14), 10, 4)
    noise = rng.normal(0, 4, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def draw_mask(seed: int, side: int = SIDE + 16) -> npt.NDArray[np.uint8]:
    """Where the scratch of `draw(seed, True)` lies."""
    x, y = (int(v) for v in np.random.default_rng(seed).integers(10, side - 30, 2))
    mask = np.zeros((side, side), np.uint8)
    cv2.line(mask, (x, y), (x + 20, y + 14), 255, 4)
    return mask


@pytest.fixture(scope="session", autouse=True)
def _converted_once() -> Iterator[None]:
    """The very same backbone at the very same size, which takes seven seconds to convert, is converted once for all tests.

    So is a head of the same kind, settings and shapes, which takes two: its constants are replaced. The gate
    of each build compares both with torch; test_convert converts anew.
    """
    backbone_anew, head_anew = convert._from_image, convert.convert_head
    made: dict[tuple[Any, ...], ov.Model] = {}

    def from_image(module: torch.nn.Module, image: torch.Tensor, name: str) -> ov.Model:
        if not isinstance(module, Backbone):
            return backbone_anew(module, image, name)
        weights = hashlib.sha256(b"".join(t.numpy().tobytes() for t in module.state_dict().values())).hexdigest()
        key = (module.spec, weights, tuple(image.shape), name)
        if key not in made:
            made[key] = backbone_anew(module, image, name)
        return made[key].clone()

    def convert_head(head: Head, level_shapes: Sequence[LevelShape]) -> ov.Model:
        state = {name: t.detach().contiguous().numpy() for name, t in convert.head_state(head).items()}
        settings = {k: v.tobytes() if isinstance(v, np.ndarray) else repr(v) for k, v in vars(head).items() if not k.startswith("_")}
        del settings["training"]
        shapes = tuple((name, v.shape, v.dtype.str) for name, v in state.items())
        key = (type(head), tuple(sorted(settings.items())), tuple(level_shapes), shapes)
        if key not in made:
            made[key] = head_anew(head, level_shapes)
        named = head_constants(made[key])  # the graph has no constant of what the head does not look at
        return replace_head(made[key], {name: value for name, value in state.items() if name in named})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "_from_image", from_image)
        patch.setattr(convert, "convert_head", convert_head)
        yield


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MVTec's layout: 24 good to learn from, 8 good and 6 bad with masks to test on."""
    root = tmp_path_factory.mktemp("data") / "rings"
    for folder, seeds, bad in (
        ("train/good", range(24), False),
        ("test/good", range(100, 108), False),
        ("test/scratch", range(200, 206), True),
    ):
        (root / folder).mkdir(parents=True)
        for seed in seeds:
            cv2.imwrite(str(root / folder / f"{seed:03d}.png"), draw(seed, bad))
    (root / "ground_truth" / "scratch").mkdir(parents=True)
    for seed in range(200, 206):
        cv2.imwrite(str(root / "ground_truth" / "scratch" / f"{seed}_mask.png"), draw_mask(seed))
    return root


@pytest.fixture(scope="session")
def run_dir(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that `lineside-train fit` would have made."""
    from training.data.dataset import load_dataset
    from training.fitting.options import FitOptions
    from training.fitting.teach import teach

    out = tmp_path_factory.mktemp("runs") / "rings"
    teach(load_dataset(data_dir, image_size=str(SIDE)), FitOptions("padim"), out)
    return out


@pytest.fixture(scope="session")
def extractor(tmp_path_factory: pytest.TempPathFactory) -> SharedExtractor:
    """One quantization of the backbone for many exports at 64x64. Networks are quantized anew.

    An export that shares nothing is `int8` of test_build.
    """
    strides = {s for method, known in METHODS.items() if known.network is None for s in resolve(FitOptions(method))[0]}
    return SharedExtractor(DEFAULT_BACKBONE, sorted(strides | {8, 16}), None, SIDE, SIDE, tmp_path_factory.mktemp("extractor"))


@pytest.fixture(scope="module")
def children_here() -> Iterator[None]:
    """What an export's children do is done in this process, as starting each takes a second; envelopes are still measured in one.

    Exports with all their children: test_child and the bundle of test_build that is made first.
    """
    start = child._call

    def call(command: list[str], what: Path, *more: Any) -> None:
        if tuple(command[:3]) != child.COMMAND:
            return start(command, what, *more)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                return child.main(command[3:])
        except SystemExit as e:
            raise ExportError(f"{what}: failed") from e

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child, "_call", call)
        yield
