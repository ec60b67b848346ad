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
from torch import Tensor, nn

from edge_runtime.errors import ConfigError, DataError
from training.core.backbones import Backbone, BackboneSpec, build_backbone
from training.core.base import Features, Head, LevelShape, Progress, silent, usual
from training.core.checkpoint import Checkpoint
from training.core.learn import Network, Pictures, Task, device, seeded
from training.methods.gaussian import inverse_root

_EPS = 1e-6
"""Under the root of a norm: a feature that is 0 everywhere then has a direction, 0, and a gradient."""
_MOST_UNSEEN = 32
"""Held-out images of one validation: more say little more and cost as much as learning."""

_LEAST_VARIANCE = 1e-7
"""Least variance of a gap along any direction, and of a whitened place's distance _LEAST_DISTANCE: the product of three levels then stays a
float32."""
_LEAST_DISTANCE = 1e-3
_MOST_CELLS = 20_000
"""Cells of held-out images from which a level's covariance is estimated."""
_BATCH = 16


@dataclass(frozen=True, slots=True)
class StfpmParams:
    """What a user may choose; stored as JSON beside the weights."""

    steps: int = 1000
    """In all, where neither time nor patience ends it."""
    batch: int = 4
    """Images a step. The paper's 32 make an eighth of the steps in the same time."""
    momentum: float = 0.05
    """Share of a batch in the running statistics of the student's normalisation. timm's 0.01 lags behind a student that learns for
    minutes: after one, held-out images had a loss of 1.63 where those it learnt from had 1.09."""
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

    def start(
        self, weights: Path | None, good: Pictures, seed: int, progress: Progress = silent, *,
        minutes: float | None = None, resumed: bool = False, checkpoint: Checkpoint | None = None,
    ) -> None:  # fmt: skip
        """Pretrained weights for the teacher, random ones for the student: a student that began as its teacher would know defects, too."""
        spec = self.teacher.spec
        self.teacher.load_state_dict(build_backbone(spec.name, spec.strides, weights).state_dict())
        self.student.load_state_dict(seeded(lambda: Backbone(spec), seed).state_dict())
        for module in self.student.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = self.params.momentum
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
        """One (N, C, h, w) gap a level: the teacher's direction less the student's."""
        n = len(features) // 2
        return [gap(t, s) for t, s in zip(features[:n], features[n:], strict=True)]

    def task(self, good: Pictures, held_out: Pictures, seed: int) -> Task:
        """Raises DataError where there is nothing to learn from, or to hold out."""
        if not len(good) or not len(held_out):
            raise DataError(f"stfpm: expected good images to learn from and to hold out, found {len(good)} and {len(held_out)}")
        return _Matching(self, good, held_out)


def gap(teacher: Tensor, student: Tensor) -> Tensor:
    """Difference of the directions (section 3.2), of length 0..2. (N, C, h, w) twice -> the same."""
    return _direction(teacher) - _direction(student)


def _loss(levels: Sequence[Tensor]) -> Tensor:
    """Half the squared length of the gaps: the mean over positions, summed over levels (section 3.2), all weights 1."""
    return torch.stack([level.square().sum(1).mean() / 2 for level in levels]).sum()


def _direction(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(1, keepdim=True) + _EPS)


class _Matching(Task):
    """The student comes closer to its teacher."""

    def __init__(self, network: StfpmNetwork, good: Pictures, held_out: Pictures) -> None:
        self.network, self.module = network, network.student
        self.good, self.unseen = good, Pictures(held_out.images, held_out.rows[:_MOST_UNSEEN])
        self.steps = network.params.steps
        self.check_every = max(1, self.steps // 15)

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.module.parameters(), lr=self.network.params.rate)

    def loss(self, rng: np.random.Generator) -> Tensor:
        """The loss of one random batch."""
        self.network.train()
        image = self.good.draw(self.network.params.batch, rng).to(device())
        with torch.no_grad():
            wanted = self.network.teacher(image)
        return _loss([gap(t, s) for t, s in zip(wanted, self.network.student(image), strict=True)])

    def validate(self) -> float:
        """The same over held-out images."""
        self.network.eval()
        found = [float(_loss(self.network(image.to(device())))) * len(image) for image in self.unseen.batches(4)]
        return sum(found) / len(self.unseen)


class StfpmHead(Head):
    """Multiplies the levels' maps, each a distance in units of what good images show.

    Two departures from the paper, whose maps are the bare squared gaps. Gaps are whitened by their covariance over held-out good images:
    a student that learnt for minutes misses its teacher most where good parts vary most, along few directions, and what is left of
    them hides the others (magnetic tiles: image AUROC 0.84 instead of 0.77). And each place is divided by its own mean, as the rims of
    parts are repeated less well than their middle. After the product comes a root, so that scores grow as distances do; it changes no
    order within maps.
    """

    def __init__(self, params: StfpmParams, level_shapes: Sequence[LevelShape]) -> None:
        """`level_shapes`: (C, h, w) a level, finest first. Raises ConfigError."""
        super().__init__()
        _check(params)
        self.params = params
        self.level_shapes = tuple(level_shapes)
        self.grid_hw = (level_shapes[0][1], level_shapes[0][2])
        for i, (c, h, w) in enumerate(level_shapes):
            # Minus the mean: an export folds a subtraction into an addition, and the constant should stay what the buffer is.
            self.register_buffer(f"shift_{i}", torch.zeros(1, c, 1, 1))
            self.register_buffer(f"whiten_{i}", torch.eye(c)[:, :, None, None].clone())
            self.register_buffer(f"scale_{i}", torch.ones(1, 1, h, w))
        self.register_buffer("valid", torch.ones(1, 1, *self.grid_hw))
        self.register_buffer("top_weight", torch.tensor(1.0 / self._k(self.valid.numel())))

    valid: Tensor
    top_weight: Tensor

    def _k(self, cells: int) -> int:
        return min(self.params.top_k, cells)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """`levels`: (N, C, h, w) gaps -> score (N,), map (N, 1, gh, gw).

        The product of the enlarged maps (section 3.3), and of n levels the n-th root of it.
        """
        product: Tensor | None = None
        for i, level in enumerate(levels):
            part = self._distance(level, i) * self.get_buffer(f"scale_{i}")
            if part.shape[2:] != self.grid_hw:
                part = F.interpolate(part, size=self.grid_hw, mode="bilinear", align_corners=False)
            product = part if product is None else product * part
        assert product is not None
        grid = product.clamp_min(0).pow(1 / len(levels)) * self.valid
        top = torch.topk(grid.flatten(1), self._k(self.grid_hw[0] * self.grid_hw[1]), dim=1).values
        return top.sum(1) * self.top_weight, grid

    def _distance(self, gaps: Tensor, level: int) -> Tensor:
        """(N, C, h, w) -> (N, 1, h, w) squared Mahalanobis distance over C."""
        return F.conv2d(gaps + self.get_buffer(f"shift_{level}"), self.get_buffer(f"whiten_{level}")).square().mean(1, keepdim=True)

    def fit(self, features: Features, valid: npt.NDArray[np.bool_], seed: int, progress: Progress = silent) -> None:
        """Covariance of each level's gaps over the valid cells of held-out good images, then one over the mean distance of each place.

        That mean is taken over 3x3 cells. See `Head.fit`.
        """
        n = len(features)
        if n < 1:
            raise DataError("stfpm: expected at least 1 held-out good image, found none; add images")
        if valid.shape != self.grid_hw or not valid.any():
            raise DataError(
                f"stfpm: expected a mask {self.grid_hw} with at least one valid position, found {valid.shape}"
                f" with {int(valid.sum())} positions"
            )
        mask = torch.from_numpy(np.ascontiguousarray(valid)).float()[None, None]
        rng = np.random.default_rng(seed)
        for i, (c, h, w) in enumerate(self.level_shapes):
            inside = F.adaptive_max_pool2d(mask, (h, w))[0]
            # A few cells of every image, rather than all of a few images.
            cells = rng.permuted(np.tile(np.flatnonzero(inside.numpy()), (n, 1)), axis=1)[:, : max(1, _MOST_CELLS // n)]
            rows = [features.levels[i][row].reshape(c, -1)[:, picks].T for row, picks in zip(features.rows, cells, strict=True)]
            x = torch.from_numpy(np.concatenate(rows)).float()
            mean = x.mean(0)
            self.get_buffer(f"shift_{i}").copy_(-mean[None, :, None, None])
            self.get_buffer(f"whiten_{i}").copy_(inverse_root((x - mean)[None], _LEAST_VARIANCE)[0, :, :, None, None])
            total = torch.zeros(1, h, w, dtype=torch.float64)
            for batch in features.batches(_BATCH):
                total += self._distance(batch[i], i).sum(0).double()
            self.get_buffer(f"scale_{i}").copy_((1 / usual(total / n, n, 3, inside.double()).clamp_min(_LEAST_DISTANCE))[None])
            progress("fitting distances", i + 1, len(self.level_shapes))
        self.valid.copy_(mask)
        self.top_weight.fill_(1.0 / self._k(int(valid.sum())))

    def memory_bytes(self, n_images: int) -> int:
        """The gaps, some cells of a level three times, its covariance, and a batch."""
        numbers = sum(c * h * w for c, h, w in self.level_shapes)
        widest = max(c for c, _, _ in self.level_shapes)
        return 4 * (n_images + 3 * _BATCH) * numbers + 12 * _MOST_CELLS * widest + 40 * widest**2 + 20_000_000


def _check(params: StfpmParams) -> None:
    if min(params.steps, params.batch, params.top_k) < 1 or params.rate <= 0:
        raise ConfigError(
            "stfpm: expected steps, batch and top_k of at least 1 and a rate above 0, found"
            f" {params.steps}, {params.batch}, {params.top_k} and {params.rate}"
        )
    if not 0 < params.momentum <= 1:
        raise ConfigError(f"stfpm: expected a momentum above 0, up to 1, found {params.momentum}")
