"""FastFlow: a 2-D normalizing flow a level makes good features normal; what stays far from the origin is anomalous.

Yu et al., "FastFlow: Unsupervised Anomaly Detection and Localization via 2D Normalizing Flows", 2021 (arXiv 2111.07677).

The edge form differs in what the flow starts from: features whitened position by position (`whitened`), where the paper normalises layers
and uses eight steps. A flow that begins as the identity then is PaDiM's distance, and a few narrow steps are enough to learn what a
Gaussian cannot say. Steps are a fixed number of modules, so that the graph has no control flow.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_runtime.errors import ConfigError, DataError
from training.core.base import Features, LevelShape, Outliers
from training.core.learn import Task, seeded
from training.methods.whitened import BATCH, WhitenedHead, drawn

_CLAMP = 1.9
"""Soft limit of the logarithm of a scale (Ardizzone et al. 2019, "Guided image generation with conditional INNs", section 3)."""


@dataclass(frozen=True, slots=True)
class FastflowParams:
    """What a user may choose; stored as JSON beside the weights."""

    context: int = 0
    """Principal components of the picture's mean features that every position is judged given, as in PaDiM; 0 for none."""
    flow_steps: int = 4
    """Coupling steps a level; their kernels alternate 3x3, 1x1 (section 3)."""
    hidden_ratio: float = 0.25
    """Width of a subnet's hidden layer, relative to the level's channels."""
    top_k: int = 5
    """The image's score is the mean of this many highest cells."""
    rate: float = 2e-3
    """Peak learning rate."""
    batch: int = 8
    """Images a step."""
    steps: int = 400
    """Steps in all, where neither time nor patience ends it."""


PRESETS: Mapping[str, tuple[tuple[int, ...], FastflowParams]] = {
    "fast": ((16,), FastflowParams(context=64)),
    "fine": ((8, 16), FastflowParams(context=64, top_k=20)),
}
"""Name -> (strides of the backbone, parameters)."""


class _Coupling(nn.Module):
    """One affine coupling step (section 3): a fixed permutation of channels, then y_a = x_a, y_b = exp(s(x_a)) x_b + t(x_a)."""

    permutation: Tensor

    def __init__(self, channels: int, kernel: int, hidden: int) -> None:
        super().__init__()
        self.still, self.moved = channels // 2, channels - channels // 2
        self.register_buffer("permutation", torch.randperm(channels))
        self.enter = nn.Conv2d(self.still, hidden, kernel, padding=kernel // 2)
        self.leave = nn.Conv2d(hidden, 2 * self.moved, kernel, padding=kernel // 2)
        nn.init.zeros_(self.leave.weight)  # the identity to begin with
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]  # it has one

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, h, w) -> the same, and the logarithm of each position's Jacobian determinant (N, 1, h, w)."""
        x = x.index_select(1, self.permutation)
        still, moved = x[:, : self.still], x[:, self.still :]
        found = self.leave(F.relu(self.enter(still)))
        log_scale = _CLAMP * torch.tanh(found[:, : self.moved] / _CLAMP)
        return torch.cat([still, moved * torch.exp(log_scale) + found[:, self.moved :]], 1), log_scale.sum(1, keepdim=True)


class _Flow(nn.Module):
    """The steps of one level."""

    def __init__(self, channels: int, steps: int, hidden: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(_Coupling(channels, 1 if i % 2 else 3, hidden) for i in range(steps))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, h, w) -> z of that shape and log |det dz/dx| a position (N, 1, h, w)."""
        total = torch.zeros_like(x[:, :1])
        for step in self.steps:
            x, log_det = step(x)
            total = total + log_det
        return x, total


class FastflowHead(WhitenedHead):
    """A flow a level; maps are brought to the finest grid and averaged (section 3)."""

    name = "fastflow"

    def __init__(self, params: FastflowParams, level_shapes: Sequence[LevelShape]) -> None:
        """Build an unfitted head. `level_shapes`: (C, h, w) a level, finest first. Raises ConfigError for impossible parameters."""
        super().__init__(level_shapes, params.top_k, context=params.context)
        if params.flow_steps < 1 or not 0 < params.hidden_ratio <= 4:
            raise ConfigError(
                f"fastflow: expected flow_steps of at least 1 and hidden_ratio above 0 and at most 4, found {params.flow_steps} and"
                f" {params.hidden_ratio}"
            )
        if params.rate <= 0 or params.batch < 1 or params.steps < 1:
            raise ConfigError(f"fastflow: expected rate, batch and steps above 0, found {params.rate}, {params.batch} and {params.steps}")
        if min(c for c, _, _ in self.level_shapes) < 2:
            raise ConfigError("fastflow: expected levels of at least 2 channels, since a step splits them in halves")
        self.params = params
        self.flows = nn.ModuleList(
            seeded(partial(_Flow, c, params.flow_steps, max(1, round(params.hidden_ratio * c))), 0) for c, _, _ in self.level_shapes
        )
        for i in range(1, len(self.level_shapes)):
            self.register_buffer(f"spread_{i}", torch.ones(1, 1, *self.grid_hw))

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(N, C, h, w) a level, finest first -> score (N,), map (N, 1, gh, gw): sum(z^2) / 2C a cell, averaged over levels.

        The likelihood's other term, the Jacobian, is left out, as in public implementations: it may be negative, and a distance to the
        origin may not; what it changes in the ranking is small (image AUROC within 0.003).
        """
        total = torch.zeros(1)
        for i, (x, flow) in enumerate(zip(self.whitened(levels), self.flows, strict=True)):
            z, _ = flow(x)
            cells = 0.5 * z.square().mean(1, keepdim=True) * self.get_buffer(f"inside_{i}")
            if i:
                cells = _enlarge(cells, self.grid_hw) * self.get_buffer(f"spread_{i}")
            total = total + cells
        score_map = total / len(self.level_shapes) * self.valid
        return self.top(score_map), score_map

    @torch.no_grad()
    def prepare(self, features: Features, held_out: Features, valid: npt.NDArray[np.bool_]) -> None:
        """Whitening, and what enlarges coarse maps. See `TrainedHead.prepare`."""
        self.whiten(features, valid, 2)
        for i in range(1, len(self.level_shapes)):
            # Enlarging is renormalised beside ignored cells, whose zeros would pull their neighbours down.
            share = _enlarge(self.get_buffer(f"inside_{i}"), self.grid_hw)
            self.get_buffer(f"spread_{i}").copy_(1 / share.clamp_min(1e-3))

    def task(
        self, features: Features, held_out: Features, valid: npt.NDArray[np.bool_], outliers: Outliers | None, seed: int
    ) -> "FlowTask":
        """Maximum likelihood on good images; outliers are not used. See `TrainedHead.task`."""
        if not len(held_out):
            raise DataError("fastflow: expected at least 1 held-out good image to end the learning by, found none; add images")
        self.prepare(features, held_out, valid)
        return FlowTask(self, features, held_out)


class FlowTask(Task):
    """Mean negative log-likelihood (section 3), in nats a channel, so that levels weigh alike."""

    check_every = 50

    def __init__(self, head: FastflowHead, features: Features, held_out: Features) -> None:
        self.module = self.head = head
        self.features, self.held_out = features, held_out
        self.steps = head.params.steps

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW (the paper has Adam with weight decay 1e-5)."""
        return torch.optim.AdamW(self.head.parameters(), lr=self.head.params.rate, weight_decay=1e-4)

    def loss(self, rng: np.random.Generator) -> Tensor:
        """The loss of a batch of good images."""
        self.head.train()
        return self._nll(drawn(self.features, rng.integers(len(self.features), size=self.head.params.batch))).mean()

    def validate(self) -> float:
        """The loss of the held-out good images. A flow cannot collapse: the Jacobian pays for every contraction."""
        self.head.eval()
        return float(np.mean(np.concatenate([self._nll(levels).numpy() for levels in self._held()])))

    def _held(self) -> Iterator[list[Tensor]]:
        return self.held_out.batches(BATCH)

    def _nll(self, levels: list[Tensor]) -> Tensor:
        """(N,)"""
        with torch.no_grad():
            whitened = self.head.whitened(levels)
        total = torch.zeros(1)
        for i, (x, flow) in enumerate(zip(whitened, self.head.flows, strict=True)):
            z, log_det = flow(x)
            inside = self.head.get_buffer(f"inside_{i}")
            nll = 0.5 * (z.square().mean(1, keepdim=True) + math.log(2 * math.pi)) - log_det / x.shape[1]
            total = total + (nll * inside).sum((1, 2, 3)) / inside.sum()
        return total / len(self.head.level_shapes)


def _enlarge(cells: Tensor, hw: tuple[int, int]) -> Tensor:
    return F.interpolate(cells, size=hw, mode="bilinear", align_corners=False)
