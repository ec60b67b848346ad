"""FCDD: a fully convolutional one-class head whose output is its own explanation, learnt with a few bad images or painted ones.

Liznerski et al., "Explainable Deep One-Class Classification", 2021 (arXiv 2007.01760).

The paper's network is learnt as a whole; here the backbone stays as it is. So that defects unlike those learnt from are found as well, the
embedding has a part that is never learnt: phi = (z / sqrt(C), psi(z)), z the features in units of how good parts vary (`whitened`), psi
a small convolutional net. Where psi has nothing to say the map is that of PaDiM, and psi can only add to it.
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
from training.core.base import Features, LevelShape, Outliers
from training.core.learn import seeded
from training.methods.exposure import Batch, ExposedParams, ExposedTask, Exposure, Scorer, hidden_in_part
from training.methods.whitened import WhitenedHead


@dataclass(frozen=True, slots=True, kw_only=True)
class FcddParams(ExposedParams):
    """What a user may choose; stored as JSON beside the weights. The highest cells (`top_k`) are picked before they are spread; the
    paper's score is the mean of all, in which small defects drown."""

    upsample: int = 2
    """Rows and columns of the map for each of the finest level's: a Gaussian of the receptive field's shape spreads each cell (section 3,
    heatmap upsampling). 1: none."""
    sigma: float = 0.5
    """Standard deviation of that Gaussian, in cells of the finest level."""


PRESETS: Mapping[str, tuple[tuple[int, ...], FcddParams]] = {
    "fast": ((16,), FcddParams(context=64)),
    "fine": ((8, 16), FcddParams(context=64, top_k=20)),
}
"""Name -> (strides of the backbone, parameters)."""


class FcddHead(WhitenedHead):
    """A(x) = sqrt(|phi(x)|^2 + 1) - 1 a cell, the pseudo-Huber norm of section 3."""

    name = "fcdd"
    kernel: Tensor
    spread: Tensor

    def __init__(self, params: FcddParams, level_shapes: Sequence[LevelShape]) -> None:
        """Build an unfitted head. `level_shapes`: (C, h, w) a level, finest first. Raises ConfigError for impossible parameters."""
        params.check(self.name)
        if params.upsample < 1 or params.sigma <= 0:
            raise ConfigError(f"fcdd: expected upsample of at least 1 and sigma above 0, found {params.upsample} and {params.sigma}")
        super().__init__(level_shapes, params.top_k, params.upsample, params.context)
        self.params = params
        # A little above 0: at 0 itself the square has no slope, and nothing would ever be learnt.
        self.psi = seeded(partial(Scorer, sum(c for c, _, _ in self.level_shapes), params.hidden, 0.1), 0)
        self.register_buffer("kernel", _gaussian(params.upsample, params.sigma))
        self.register_buffer("spread", torch.ones(1, 1, *self.grid_hw))

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(N, C, h, w) a level, finest first -> score (N,), map (N, 1, gh, gw)."""
        cells = self.cells(self.stacked(levels))
        return self.top(cells), self.enlarged(cells)

    def cells(self, z: Tensor, seen: Tensor | None = None) -> Tensor:
        """Whitened features -> A on the finest level's own grid (N, 1, h, w), 0 where nothing is inspected.

        `seen`: what psi sees of `z` while it learns.
        """
        length2 = z.square().mean(1, keepdim=True) + self.psi(z if seen is None else seen).square()
        return (torch.sqrt(length2 + 1) - 1) * self.get_buffer("inside_0")

    def enlarged(self, cells: Tensor) -> Tensor:
        """A' of section 3: strided transposed convolution with a Gaussian, renormalised so that a flat map stays flat to its borders."""
        if self.params.upsample == 1:
            return cells * self.valid
        return self._spread(cells) * self.spread

    def _spread(self, cells: Tensor) -> Tensor:
        up, size = self.params.upsample, self.kernel.shape[-1]
        return F.conv_transpose2d(cells, self.kernel, stride=up, padding=(size - up) // 2)

    @torch.no_grad()
    def prepare(self, features: Features, held_out: Features, valid: npt.NDArray[np.bool_]) -> None:
        """Whitening, and what spreads cells over the map. See `TrainedHead.prepare`."""
        self.whiten(features, valid, 2)
        self.spread.copy_(self.valid / self._spread(self.get_buffer("inside_0")).clamp_min(1e-6))

    def task(
        self, features: Features, held_out: Features, valid: npt.NDArray[np.bool_], outliers: Outliers | None, seed: int
    ) -> "FcddTask":
        """From good images, and bad or painted ones. See `TrainedHead.task`."""
        if outliers is None:
            raise DataError("fcdd: expected bad images or synthetic defects to learn from, found none; give some with --bad FOLDER")
        exposure = Exposure(self.name, features, held_out, outliers, self.grid_hw, seed)
        self.prepare(features, held_out, valid)
        return FcddTask(self, exposure)


class FcddTask(ExposedTask):
    """The hypersphere classifier's loss a cell, with masks where there are any."""

    def __init__(self, head: FcddHead, exposure: Exposure) -> None:
        super().__init__(head, head.params, exposure)
        self.head = head

    def loss(self, rng: np.random.Generator) -> Tensor:
        """The loss of a batch, half of it bad."""
        self.head.train()
        batch = self.exposure.draw(self.head.params.batch, rng)
        each = self._each(batch, rng)
        return each[~batch.bad].mean() + each[batch.bad].mean()

    def validate(self) -> float:
        """The loss of held-out good images and of bad ones, each half."""
        self.head.eval()
        good: list[Tensor] = []
        bad: list[Tensor] = []
        for batch in self.exposure.held():
            each = self._each(batch)
            good.append(each[~batch.bad])
            bad.append(each[batch.bad])
        return float(torch.cat(good).mean() + torch.cat(bad).mean())

    def _each(self, batch: Batch, rng: np.random.Generator | None = None) -> Tensor:
        """(n,) loss of each image.

        Good cells: the mean of A'. Defective cells: -log(1 - exp(-mean of A' over them)) (section 3, semi-supervised FCDD; here the mean
        runs over the cells concerned, not over all, so that a small defect weighs as much as a large one). Bad images without a mask: the
        same of the image's score. Good images: their score on top, since single high cells of good parts are what makes false rejects;
        without it painted defects taught more harm than good (magnetic tiles, image AUROC 0.91 instead of 0.96).
        """
        with torch.no_grad():
            z = self.head.stacked(batch.levels)
        cells = self.head.cells(z, None if rng is None else hidden_in_part(z, self.head.params.dropout, rng))
        score, heat = self.head.top(cells), self.head.enlarged(cells)
        known = ~batch.defect.isnan().flatten(1).any(1)
        share = torch.nan_to_num(batch.defect) * self.head.valid
        sound = (share == 0).float() * self.head.valid * known[:, None, None, None]
        calm = (heat * sound).sum((1, 2, 3)) / sound.sum((1, 2, 3)).clamp_min(1)
        area = share.sum((1, 2, 3))
        marked = known & (area > 0)  # a defect outside what is inspected teaches nothing but what lies around it
        peak = torch.where(marked, (heat * share).sum((1, 2, 3)) / area.clamp_min(1e-6), score)
        pushed = batch.bad & (marked | ~known)
        return calm + torch.where(batch.bad, torch.where(pushed, _away(peak), torch.zeros_like(peak)), score)


def _away(a: Tensor) -> Tensor:
    """-log(1 - exp(-a)): falls as a grows, and never asks for more than it needs (section 3)."""
    return -torch.log(-torch.expm1(-a.clamp_min(1e-4)))


def _gaussian(up: int, sigma: float) -> Tensor:
    """(1, 1, size, size) kernel of a transposed convolution of stride `up`, with the parity that keeps cells centred; `sigma` in cells."""
    size = up * (2 * max(1, round(2 * sigma)) + 1)
    at = torch.arange(size).float() - (size - 1) / 2
    weights = torch.exp(-0.5 * (at / (sigma * up)) ** 2)
    kernel: Tensor = torch.outer(weights, weights)[None, None]
    return kernel
