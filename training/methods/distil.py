"""Patch description networks, and their distillation from any pretrained backbone on any folder of pictures.

Batzner et al., "EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies", 2024 (arXiv 2303.14535), section 3.1.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from edge_runtime.errors import ConfigError, DataError
from edge_runtime.images.names import is_image, is_of_system
from edge_runtime.images.read import read_image
from edge_runtime.model.bundle import file_sha256
from edge_runtime.model.manifest import InputSpec
from edge_runtime.model.preprocess import Preprocessor
from training.core.backbones import Backbone, build_backbone, resolve_name
from training.core.base import Progress, silent
from training.core.checkpoint import Checkpoint, save_tensors
from training.core.learn import LearningResult, Pictures, Schedule, Task, device, hold_out, learn, seeded
from training.core.places import prove

STRIDES = (8, 16)
"""Levels of the backbone that a teacher repeats: the two middle ones, as in the paper."""
STEPS = 10_000
"""Steps of `lineside-train distil` in all, unless --minutes ends it. The paper takes 60,000 with 16 pictures each, on a GPU."""
LEAST_IMAGES = 8
BATCH = 8
_CUT = 64
"""Pixels along each side of what a step sees of a picture."""
_MOST_UNSEEN = 16
"""Pictures of one validation; each has thousands of positions."""
_MEASURED = 32
"""Pictures from which the target takes mean and deviation of its channels."""
_VERSION = "1"

# (kernel, channels of the paper, padding) as in the appendix's tables of the networks, None a pooling by 2. The paper allows to leave the
# padding out for speed; here it stays, in teacher and student alike: a part is inspected up to the border of its picture, and the map
# covers the picture exactly, a cell for 4x4 pixels.
_LAYERS: Mapping[str, tuple[tuple[int, int, int] | None, ...]] = {
    "small": ((4, 128, 3), None, (4, 256, 3), None, (3, 256, 1), (4, 0, 0)),
    "medium": ((4, 256, 3), None, (4, 512, 3), None, (1, 512, 0), (3, 512, 1), (4, 0, 0), (1, 0, 0)),
}
SIZES = tuple(_LAYERS)
WIDTHS: Mapping[str, float] = {"small": 0.25, "medium": 0.5}
"""Share of the paper's channels that each size has unless asked otherwise."""


@dataclass(frozen=True, slots=True)
class PdnSpec:
    """Everything needed to build the same network again, weights aside."""

    size: str = "small"
    """"small" or "medium": PDN-S or PDN-M of the paper."""
    channels: int = 128
    """What it says of each patch; the paper's 384 repeat a WideResNet-101 with ten times the channels of a lite0."""
    width: float = WIDTHS["small"]
    """Share of the paper's channels inside."""

    def __post_init__(self) -> None:
        if self.size not in SIZES or self.channels < 1 or not 0 < self.width <= 1:
            raise ConfigError(
                f"teacher: expected a size of {' or '.join(SIZES)}, at least 1 channel and a width in (0, 1],"
                f" found {self.size!r}, {self.channels}, {self.width}"
            )


class Pdn(nn.Module):
    """Patch description network: (N, H, W, 3) uint8 BGR -> (N, channels, H/4, W/4), each position from the 33x33 pixels around it."""

    def __init__(self, spec: PdnSpec, channels: int | None = None) -> None:
        """`channels`: instead of the spec's."""
        super().__init__()
        self.spec = spec
        layers: list[nn.Module] = []
        width = 3
        for layer in _LAYERS[spec.size]:
            if layer is None:
                layers.append(nn.AvgPool2d(2, 2, padding=1))
                continue
            kernel, full, padding = layer
            out = max(1, round(spec.width * full)) if full else channels or spec.channels
            layers += [nn.Conv2d(width, out, kernel, padding=padding), nn.ReLU()]
            width = out
        del layers[-1]  # what it says is not rectified
        self.body = nn.Sequential(*layers)
        for module in layers:
            if isinstance(module, nn.Conv2d):
                # He et al. 2015: without normalisation layers, torch's own choice lets signals fade. A teacher's error on unseen cells was
                # 0.87 instead of 0.94 after 15 steps, the same after 60.
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Tensor:
        """`image`: (N, H, W, 3) uint8 BGR."""
        return self.describe(normalised(image))

    def describe(self, x: Tensor) -> Tensor:
        """`x`: (N, 3, H, W) float32 from `normalised`."""
        y: Tensor = self.body(x)
        return y

    def fold(self, mean: Tensor, std: Tensor) -> None:
        """From now on give (y - mean) / std, channel by channel: the last layer is linear, so it costs nothing."""
        last = self.body[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        with torch.no_grad():
            last.weight /= std.view(-1, 1, 1, 1)
            last.bias.copy_((last.bias - mean) / std)


def normalised(image: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 or float 0..255 BGR -> (N, 3, H, W) float32, -2..2. BGR as it comes: these networks have no other past."""
    return (image.permute(0, 3, 1, 2).float() - 127.5) / 63.75


class Target(nn.Module):
    """What a patch description network is to say: a backbone's features, one vector for each of its positions."""

    def __init__(self, backbone: Backbone, channels: int) -> None:
        super().__init__()
        self.backbone = backbone.eval().requires_grad_(False)
        self.channels = channels
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    mean: Tensor
    std: Tensor

    def forward(self, image: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 BGR -> (N, channels, H/4, W/4), of mean 0 and variance 1 over the pictures it was measured on.

        As in the paper's distillation (appendix): the backbone sees the picture at twice its size, features are averaged over 3x3 cells,
        joined over the levels, and their channels pooled to the wanted number (Roth 2022, section 3.1).
        """
        h, w = image.shape[1:3]
        twice = F.interpolate(image.permute(0, 3, 1, 2).float(), scale_factor=2.0, mode="bilinear", align_corners=False)
        levels = [F.avg_pool2d(level, 3, 1, 1, count_include_pad=False) for level in self.backbone(twice.permute(0, 2, 3, 1))]
        grid = (round(h / 4), round(w / 4))
        joined = torch.cat([F.interpolate(level, size=grid, mode="bilinear", align_corners=False) for level in levels], 1)
        n, c = joined.shape[:2]
        pooled = F.adaptive_avg_pool1d(joined.view(n, c, -1).transpose(1, 2), self.channels).transpose(1, 2).view(n, self.channels, *grid)
        return (pooled - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)

    def measure(self, pictures: Pictures, count: int, rng: np.random.Generator) -> None:
        """Take mean and deviation from up to `count` pictures."""
        mean, std = channel_statistics(self, Pictures(pictures.images, rng.permutation(pictures.rows)[:count]))
        self.mean.copy_(mean)
        self.std.copy_(std)


def channel_statistics(module: nn.Module, pictures: Pictures) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel that `module` gives, over all positions of all pictures."""
    sums: list[Tensor] = []
    with torch.no_grad():
        for image in pictures.batches(1):
            y = module(image.to(device())).double()
            sums.append(torch.stack([y.mean((0, 2, 3)), y.square().mean((0, 2, 3))]))
    mean, square = torch.stack(sums).mean(0)
    # A channel that never moves says nothing; dividing by its tiny deviation would let it shout.
    std = (square - mean.square()).clamp_min(0).sqrt()
    return mean.float(), std.clamp_min(max(float(std.mean()) * 1e-2, 1e-6)).float()


class DistilTask(Task):
    """Mean squared difference between the network and its target (section 3.1), learnt on small cuts of many pictures.

    A whole picture's positions say much the same; so many pixels of eight others teach more (the paper's 16 whole ones suit a GPU).
    """

    def __init__(self, pdn: Pdn, target: Target, pictures: Pictures, unseen: Pictures, *, steps: int, batch: int, rate: float) -> None:
        self.module, self.pdn, self.target = pdn, pdn, target
        self.pictures, self.batch, self.peak = pictures, batch, rate
        self.unseen = Pictures(unseen.images, unseen.rows[:_MOST_UNSEEN])
        self.steps = steps
        self.check_every = max(1, steps // 10)

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam with the paper's weight decay."""
        return torch.optim.Adam(self.pdn.parameters(), lr=self.peak, weight_decay=1e-5)

    def loss(self, rng: np.random.Generator) -> Tensor:
        """The loss of one random batch."""
        self.pdn.train()
        image = self.pictures.draw(self.batch, rng)
        h, w = (min(_CUT, side) for side in image.shape[1:3])
        # In steps of a cell, which is 4 pixels wide.
        y, x = (4 * int(rng.integers((side - cut) // 4 + 1)) for side, cut in zip(image.shape[1:3], (h, w), strict=True))
        image = image[:, y : y + h, x : x + w].contiguous().to(device())
        with torch.no_grad():
            wanted = self.target(image)
        return F.mse_loss(self.pdn(image), wanted)

    def validate(self) -> float:
        """The same over unseen pictures: 1.0 is what a network that knows nothing has."""
        self.pdn.eval()
        total = 0.0
        for image in self.unseen.batches(1):
            on = image.to(device())
            total += float(F.mse_loss(self.pdn(on), self.target(on)))
        return total / len(self.unseen)


def make_teacher(
    spec: PdnSpec, backbone: Backbone, pictures: Pictures, seed: int, *, steps: int = STEPS, batch: int = BATCH, rate: float = 2e-3,
    schedule: Schedule | None = None, checkpoint: Checkpoint | None = None, progress: Progress = silent,
) -> tuple[Pdn, LearningResult]:  # fmt: skip
    """A teacher that says of each patch what `backbone` (at STRIDES) says of it. Raises DataError for fewer than two pictures."""
    rows, held = hold_out(len(pictures), seed)
    good = Pictures(pictures.images, pictures.rows[rows], pictures.distort)
    unseen = Pictures(pictures.images, pictures.rows[held])
    pdn = seeded(lambda: Pdn(spec), seed).to(device())
    target = Target(backbone, spec.channels).to(device())
    target.measure(good, _MEASURED, np.random.default_rng(seed))
    task = DistilTask(pdn, target, good, unseen, steps=steps, batch=batch, rate=rate)
    outcome = learn(task, schedule or Schedule(), seed, checkpoint=checkpoint, progress=progress, what="distilling the teacher")
    return pdn, outcome


def distil(
    folder: Path, out: Path, spec: PdnSpec, *, backbone: str, weights: Path | None = None, image_size: int = 256, seed: int = 0,
    minutes: float | None = None, resume: bool = False, progress: Progress = silent,
) -> LearningResult:  # fmt: skip
    """Write a teacher learnt on all pictures below `folder` to `out` (.safetensors). Its checkpoint stays beside it, to go on from.

    Raises DataError for pictures that are too few or unreadable, for weights that do not fit, and where `out` cannot be written.
    """
    paths = pictures_below(folder)
    if len(paths) < LEAST_IMAGES:
        raise DataError(f"distil: expected at least {LEAST_IMAGES} pictures below {folder}, found {len(paths)}")
    if not out.resolve().parent.is_dir():
        raise DataError(f"distil: expected an existing folder for {out}, found none; create it first")
    prove(out.resolve().parent)
    source = build_backbone(backbone, STRIDES, weights)
    images = _LazyPictures(paths, image_size)
    identity = {
        "what": "teacher", "version": _VERSION, "seed": seed, "backbone": resolve_name(backbone), "image_size": image_size,
        "size": spec.size, "channels": spec.channels, "width": spec.width, "pictures": len(paths),
        "names": hashlib.sha256("\n".join(p.relative_to(folder).as_posix() for p in paths).encode()).hexdigest(),
        "weights": None if weights is None else file_sha256(weights),
    }  # fmt: skip
    checkpoint = Checkpoint(out.with_name(f".{out.name}.checkpoint"), identity, resume)
    pictures = Pictures(images, np.arange(len(paths)))  # type: ignore[arg-type]  # indexed like an array, read as it goes
    pdn, outcome = make_teacher(
        spec, source, pictures, seed, schedule=Schedule(minutes=minutes), checkpoint=checkpoint, progress=progress
    )  # fmt: skip
    save_teacher(pdn, out, resolve_name(backbone))
    return outcome


def save_teacher(pdn: Pdn, path: Path, backbone: str) -> None:
    """Raises DataError where it cannot be written."""
    spec = pdn.spec
    notes = {
        "kind": "lineside-teacher", "version": _VERSION, "size": spec.size, "channels": str(spec.channels), "width": repr(spec.width),
        "backbone": backbone,
    }  # fmt: skip
    try:
        save_tensors({k: v.detach().cpu() for k, v in pdn.state_dict().items()}, path, notes)
    except OSError as e:
        raise DataError(f"teacher {path}: cannot be written ({e})") from e


def load_teacher(path: Path, spec: PdnSpec) -> Pdn:
    """Raises DataError for a file that is no teacher, or one of another size, width or number of channels than `spec` says."""
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as e:
        raise DataError(f"teacher {path}: cannot be read as safetensors ({e}); make one with lineside-train distil") from e
    if notes.get("kind") != "lineside-teacher":
        raise DataError(f"teacher {path}: expected a teacher made by lineside-train distil, found other weights")
    wanted = {"version": _VERSION, "size": spec.size, "channels": str(spec.channels), "width": repr(spec.width)}
    for key, value in wanted.items():
        if notes.get(key) != value:
            raise DataError(
                f"teacher {path}: expected {key} {value}, found {notes.get(key)}; set the method's {key} to it"
                " (--set), or distil another teacher"
            )
    pdn = Pdn(spec)
    try:
        pdn.load_state_dict(state)
    except RuntimeError as e:
        raise DataError(f"teacher {path}: its weights are not those of a {spec.size} network; distil it again") from e
    return pdn


def pictures_below(folder: Path) -> list[Path]:
    """Image files in `folder` and all folders below it, by name. Raises DataError where there is no such folder."""
    if not folder.is_dir():
        raise DataError(f"pictures: expected a folder, found nothing at {folder}")
    return sorted(
        p for p in folder.rglob("*") if is_image(p) and p.is_file() and not any(is_of_system(part) for part in p.relative_to(folder).parts)
    )


def as_input(path: Path, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Any picture as a model input (height, width, 3) uint8 BGR, by the house's own preprocessing. Raises DataError."""
    image = read_image(path)
    spec = InputSpec(height=height, width=width, channels=1 if image.ndim == 2 else 3, bits=8 * image.dtype.itemsize)
    return Preprocessor(spec)(image)


class _LazyPictures(Sequence[npt.NDArray[np.uint8]]):
    """Files, read when they are wanted: a folder may hold more pictures than memory does."""

    def __init__(self, paths: Sequence[Path], side: int) -> None:
        self.paths, self.side = paths, side

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, at: Any) -> Any:
        """One picture, or an array of those at several positions."""
        if np.ndim(at):
            return np.stack([self[i] for i in at])
        return as_input(self.paths[int(at)], self.side, self.side)
