"""STFPM: a student learns to repeat a pretrained teacher's feature pyramid on good images; where it fails, something is new.

Wang et al., "Student-Teacher Feature Pyramid Matching for Anomaly Detection", 2021 (arXiv 2103.04257).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_runtime.errors import ConfigError, DataError
from training.backbones import Backbone, BackboneSpec, build_backbone
from training.learn import Network, Pictures, Task, device, seeded
from training.methods.base import Features, Head, LevelShape, Progress, silent

_EPS = 1e-6
"""Under the root of a norm: a feature that is 0 everywhere then has a direction, 0, and a gradient."""
_MOST_UNSEEN = 32
"""Held-out images that one look takes in: more say little more and cost as much as learning."""

_PRIOR = 2
"""Images' worth of a level's own mean that goes into each place's: few images know a place only roughly."""


@dataclass(frozen=True, slots=True)
class StfpmParams:
    """What a user may choose; stored as JSON beside the weights."""

    steps: int = 1000
    """Of a whole course."""
    batch: int = 4
    """Images a step. The paper's 32 make an eighth of the steps in the same time."""
    rate: float = 0.008
    """Adam's largest learning rate; it falls as a cosine. The paper's SGD (0.4, momentum 0.9) is made for a hundred epochs."""
    top_k: int = 5
    """The image's score is the mean of this many largest values of the map (1: the paper's maximum)."""


PRESETS: Mapping[str, tuple[tuple[int, ...], StfpmParams]] = {
    "fast": ((8, 16, 32), StfpmParams()),
    "fine": ((4, 8, 16), StfpmParams(top_k=20)),
}
"""Name -> (levels of teacher and student, parameters). At 256 px the map of `fast` has 32x32 cells, that of `fine` (the paper's three
strides) 64x64."""


class StfpmNetwork(Network):
    """A frozen teacher and a student of the same architecture, cut behind the coarsest level that is compared."""

    def __init__(self, params: StfpmParams, backbone: BackboneSpec, size_hw: tuple[int, int]) -> None:
        """`size_hw` does not matter here: all of it is convolutions. Raises ConfigError for impossible parameters."""
        super().__init__()
        _check(params)
        self.params = params
        self.teacher = Backbone(backbone).eval().requires_grad_(False)
        self.student = Backbone(backbone).eval()

    def start(self, weights: Path | None, good: Pictures, seed: int, progress: Progress = silent) -> None:
        """Pretrained weights for the teacher, random ones for the student: a student that began as its teacher would know defects, too."""
        spec = self.teacher.spec
        self.teacher.load_state_dict(build_backbone(spec.name, spec.strides, weights).state_dict())
        self.student.load_state_dict(seeded(lambda: Backbone(spec), seed).state_dict())
        self.to(device()).to(memory_format=torch.channels_last).eval()  # a tenth faster on a CPU

    def train(self, mode: bool = True) -> Self:
        """The teacher stays in eval mode: its batch statistics are ImageNet's."""
        super().train(mode)
        self.teacher.eval()
        return self

    def features(self, image: Tensor) -> list[Tensor]:
        """The teacher's levels, then the student's."""
        return [*self.teacher(image), *self.student(image)]

    def compare(self, features: Sequence[Tensor]) -> list[Tensor]:
        """One (N, 1, h, w) distance a level."""
        n = len(features) // 2
        return [distance(t, s) for t, s in zip(features[:n], features[n:], strict=True)]

    def task(self, good: Pictures, held_out: Pictures, seed: int) -> Task:
        """Raises DataError where there is nothing to learn from, or to hold out."""
        if not len(good) or not len(held_out):
            raise DataError(f"stfpm: expected good images to learn from and to hold out, found {len(good)} and {len(held_out)}")
        return _Matching(self, good, held_out)


def distance(teacher: Tensor, student: Tensor) -> Tensor:
    """Half the squared distance of the directions, 0..2 (section 3.2). (N, C, h, w) twice -> (N, 1, h, w)."""
    return (_direction(teacher) - _direction(student)).square().sum(1, keepdim=True) / 2


def _direction(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(1, keepdim=True) + _EPS)


class _Matching(Task):
    """The mean over positions, summed over levels (section 3.2), all weights 1."""

    def __init__(self, network: StfpmNetwork, good: Pictures, held_out: Pictures) -> None:
        self.network, self.module = network, network.student
        self.good, self.unseen = good, Pictures(held_out.images, held_out.rows[:_MOST_UNSEEN])
        self.steps = network.params.steps
        self.check_every = max(1, self.steps // 15)

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.module.parameters(), lr=self.network.params.rate)

    def loss(self, rng: np.random.Generator) -> Tensor:
        """Of one random batch."""
        self.network.train()
        image = self.good.draw(self.network.params.batch, rng).to(device())
        with torch.no_grad():
            wanted = self.network.teacher(image)
        return _total([distance(t, s) for t, s in zip(wanted, self.network.student(image), strict=True)])

    def validate(self) -> float:
        """The same over held-out images."""
        self.network.eval()
        found = [float(_total(self.network(image.to(device())))) * len(image) for image in self.unseen.batches(4)]
        return sum(found) / len(self.unseen)


def _total(levels: Sequence[Tensor]) -> Tensor:
    return torch.stack([level.mean() for level in levels]).sum()


class StfpmHead(Head):
    """Multiplies the levels' maps, each divided by what good images show at that place.

    The division is not the paper's: a student that learnt for minutes repeats the rims of parts less well than their middle, always at
    the same places. After the product comes a root, so that scores grow as distances do; it changes no order within maps.
    """

    def __init__(self, params: StfpmParams, level_shapes: Sequence[LevelShape]) -> None:
        """`level_shapes`: (1, h, w) a level, finest first. Raises ConfigError."""
        super().__init__()
        _check(params)
        self.params = params
        self.level_shapes = tuple(level_shapes)
        self.grid_hw = (level_shapes[0][1], level_shapes[0][2])
        for i, shape in enumerate(level_shapes):
            self.register_buffer(f"scale_{i}", torch.ones(1, *shape))
        self.register_buffer("valid", torch.ones(1, 1, *self.grid_hw))
        self.register_buffer("top_weight", torch.tensor(1.0 / self._k(self.valid.numel())))

    valid: Tensor
    top_weight: Tensor

    def _k(self, cells: int) -> int:
        return min(self.params.top_k, cells)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """`levels`: (N, 1, h, w) -> score (N,), map (N, 1, gh, gw).

        The product of the enlarged maps (section 3.3), and of n levels the n-th root of it.
        """
        product: Tensor | None = None
        for i, level in enumerate(levels):
            part = level * self.get_buffer(f"scale_{i}")
            if part.shape[2:] != self.grid_hw:
                part = F.interpolate(part, size=self.grid_hw, mode="bilinear", align_corners=False)
            product = part if product is None else product * part
        assert product is not None
        grid = product.clamp_min(0).pow(1 / len(levels)) * self.valid
        top = torch.topk(grid.flatten(1), self._k(self.grid_hw[0] * self.grid_hw[1]), dim=1).values
        return top.sum(1) * self.top_weight, grid

    def fit(self, features: Features, valid: npt.NDArray[np.bool_], seed: int, progress: Progress = silent) -> None:
        """One over the mean distance of held-out good images at each position, averaged over 3x3 cells. See `Head.fit`."""
        n = len(features)
        if n < 1:
            raise DataError("stfpm: expected at least 1 held-out good image, found none; add images")
        if valid.shape != self.grid_hw or not valid.any():
            raise DataError(
                f"stfpm: expected a mask {self.grid_hw} with at least one valid position, found {valid.shape}"
                f" with {int(valid.sum())} positions"
            )
        for i, level in enumerate(features.levels):
            mean = torch.from_numpy(level[features.rows].mean(0, dtype=np.float64))
            local = F.avg_pool2d(mean[None], 3, 1, 1, count_include_pad=False)[0]
            local = (n * local + _PRIOR * mean.mean()) / (n + _PRIOR)
            self.get_buffer(f"scale_{i}").copy_((1 / local.clamp_min(1e-9))[None])
            progress("fitting scales", i + 1, len(features.levels))
        self.valid.copy_(torch.from_numpy(valid)[None, None])
        self.top_weight.fill_(1.0 / self._k(int(valid.sum())))

    def memory_bytes(self, n_images: int) -> int:
        """The maps, twice for a moment, and little else."""
        return 2 * 4 * n_images * sum(h * w for _, h, w in self.level_shapes) + 20_000_000


def _check(params: StfpmParams) -> None:
    if min(params.steps, params.batch, params.top_k) < 1 or params.rate <= 0:
        raise ConfigError(
            "stfpm: expected steps, batch and top_k of at least 1 and a rate above 0, found"
            f" {params.steps}, {params.batch}, {params.top_k} and {params.rate}"
        )
