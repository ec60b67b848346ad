"""DevNet: anomaly scores learnt from a few bad images, as deviations from what chance would give.

Pang et al., "Explainable Deep Few-shot Anomaly Detection with Deviation Networks", 2021 (arXiv 2108.00462).

A cell's score is what a small net says of it, plus how far it lies from good ones (the Mahalanobis distance of `whitened`, in standard
deviations of that distance over good cells): defects of kinds that nobody showed are then found as well as without learning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_runtime.errors import ConfigError, DataError
from training.core.base import LEAST_BAD, Features, LevelShape, Outliers
from training.core.learn import seeded
from training.methods.exposure import ExposedParams, ExposedTask, Exposure, Scorer, hidden_in_part
from training.methods.whitened import BATCH, WhitenedHead

_REFERENCES = 5000
"""Scores drawn from the prior a step (l in the paper)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevnetParams(ExposedParams):
    """What a user may choose; stored as JSON beside the weights. `top_k` is the paper's K, there a tenth of all cells."""

    margin: float = 5.0
    """Deviations by which bad images are to stand out (a in the paper)."""


PRESETS: Mapping[str, tuple[tuple[int, ...], DevnetParams]] = {
    "fast": ((16,), DevnetParams(context=64)),
    "fine": ((8, 16), DevnetParams(context=64, top_k=20)),
}
"""Name -> (strides of the backbone, parameters)."""


class DevnetHead(WhitenedHead):
    """Deviations a cell, made positive."""

    name = "devnet"
    base: Tensor

    def __init__(self, params: DevnetParams, level_shapes: Sequence[LevelShape]) -> None:
        """Build an unfitted head. `level_shapes`: (C, h, w) a level, finest first. Raises ConfigError for impossible parameters."""
        params.check(self.name)
        if params.margin <= 0:
            raise ConfigError(f"devnet: expected margin to be above 0, found {params.margin}")
        super().__init__(level_shapes, params.top_k, context=params.context)
        self.params = params
        self.net = seeded(partial(Scorer, sum(c for c, _, _ in self.level_shapes), params.hidden, 0.0), 0)
        self.register_buffer("base", torch.tensor([0.0, 1.0]))  # minus the mean, and one over the spread, of good cells' distances

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(N, C, h, w) a level, finest first -> score (N,), map (N, 1, gh, gw): log(1 + exp(.)) of deviations.

        A deviation may be negative, a map may not; this function keeps the order of all cells, which cutting at 0 would not.
        """
        cells = self.cells(self.stacked(levels))
        return F.softplus(self.deviation(cells)), F.softplus(cells) * self.valid

    def cells(self, z: Tensor, seen: Tensor | None = None) -> Tensor:
        """Whitened features -> the score of each cell (N, 1, h, w), of either sign. `seen`: what the net sees of `z` while it learns."""
        learnt: Tensor = self.net(z if seen is None else seen)
        return (_distance(z) + self.base[0]) * self.base[1] + learnt

    def deviation(self, cells: Tensor) -> Tensor:
        """Mean score of the k highest cells that are inspected (top-K multiple-instance learning, section 3): (N,)."""
        flat, inside = cells.flatten(1), self.valid.flatten(1)
        where = torch.topk(flat * inside - 1e6 * (1 - inside), self.top_k, dim=1).indices
        return (flat * inside).gather(1, where).sum(1) * self.top_weight

    @torch.no_grad()
    def prepare(self, features: Features, held_out: Features, valid: npt.NDArray[np.bool_]) -> None:
        """Whitening, and what distances are usual. See `TrainedHead.prepare`."""
        self.whiten(features, valid, 2)
        inside = self.valid.flatten() > 0
        # Of held-out images: those that whitening was estimated from lie nearer than any other.
        found = torch.cat([_distance(self.stacked(levels)).flatten(1)[:, inside].flatten() for levels in held_out.batches(BATCH)])
        self.base.copy_(torch.stack([-found.mean(), 1 / found.std(correction=0).clamp_min(1e-6)]))

    def task(
        self, features: Features, held_out: Features, valid: npt.NDArray[np.bool_], outliers: Outliers | None, seed: int
    ) -> "DevnetTask":
        """From good and at least LEAST_BAD real bad images, beside which painted ones may be."""
        real = 0 if outliers is None else int((~outliers.synthetic).sum())
        if outliers is None or real < LEAST_BAD:
            raise DataError(
                f"devnet: expected at least {LEAST_BAD} real bad images to learn from, found {real}; give them with --bad FOLDER, or take"
                " fcdd, which can do with painted defects"
            )
        exposure = Exposure(self.name, features, held_out, outliers, self.grid_hw, seed)
        self.prepare(features, held_out, valid)
        return DevnetTask(self, exposure)


class DevnetTask(ExposedTask):
    """The deviation loss."""

    def __init__(self, head: DevnetHead, exposure: Exposure) -> None:
        super().__init__(head, head.params, exposure)
        self.head = head

    def loss(self, rng: np.random.Generator) -> Tensor:
        """The loss of a batch, half of it bad. Masks are not looked at: the k highest cells are (multiple-instance learning, section 3)."""
        self.head.train()
        batch = self.exposure.draw(self.head.params.batch, rng)
        references = rng.standard_normal(_REFERENCES)  # the prior N(0, 1), section 3
        deviations = (self._scores(batch.levels, rng) - float(references.mean())) / float(references.std())
        return self._each(deviations, batch.bad).mean()

    def validate(self) -> float:
        """The loss of held-out good images and of bad ones, each half, against the prior itself."""
        self.head.eval()
        found = [(self._each(self._scores(batch.levels), batch.bad), batch.bad) for batch in self.exposure.held()]
        each, bad = torch.cat([e for e, _ in found]), torch.cat([b for _, b in found])
        return float((each[~bad].mean() + each[bad].mean()) / 2)

    def _scores(self, levels: list[Tensor], rng: np.random.Generator | None = None) -> Tensor:
        with torch.no_grad():
            z = self.head.stacked(levels)
        return self.head.deviation(self.head.cells(z, None if rng is None else hidden_in_part(z, self.head.params.dropout, rng)))

    def _each(self, deviation: Tensor, bad: Tensor) -> Tensor:
        """The deviation loss of section 3: |dev| of good images, max(0, a - dev) of bad ones."""
        return torch.where(bad, F.relu(self.head.params.margin - deviation), deviation.abs())


def _distance(z: Tensor) -> Tensor:
    return torch.sqrt(z.square().mean(1, keepdim=True) + 1e-12)
