"""MVG: one Gaussian a level over pooled features, judged by its components of least variance (Rippel et al. 2021; Wang et al. 2022)."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_runtime.errors import ConfigError, DataError
from training.core.base import Features, Head, LevelShape, Progress, silent

_BATCH = 32


@dataclass(frozen=True, slots=True)
class MvgParams:
    """What a user may choose; stored as JSON beside the weights."""

    kept_variance: float = 0.05
    """Share of a level's variance that the kept components of least variance hold together (negated PCA); 1 keeps all components."""


PRESETS: Mapping[str, tuple[tuple[int, ...], MvgParams]] = {
    "fast": ((8, 16, 32), MvgParams()),
    "fine": ((4, 8, 16, 32), MvgParams()),
}
"""Name -> (strides of the backbone, parameters). At 256 px the map of `fast` has 32x32 cells, that of `fine` 64x64."""


class MvgHead(Head):
    """One Gaussian a level.

    The whitening is a full (C, C) matrix whose rows of dropped components are 0, so that shapes do not depend on data.
    """

    def __init__(self, params: MvgParams, level_shapes: Sequence[LevelShape]) -> None:
        """Build an unfitted head. `level_shapes`: (C, h, w) a level, finest first. Raises ConfigError for impossible parameters."""
        super().__init__()
        if not 0 < params.kept_variance <= 1:
            raise ConfigError(f"mvg: expected kept_variance to be above 0 and at most 1, found {params.kept_variance}")
        self.params = params
        self.level_shapes = tuple(level_shapes)
        self.grid_hw = level_shapes[0][1:]
        for i, (c, h, w) in enumerate(level_shapes):
            self.register_buffer(f"whiten_{i}", torch.zeros(c, c, 1, 1))
            self.register_buffer(f"centre_{i}", torch.zeros(c))
            self.register_buffer(f"weight_{i}", torch.zeros(h * w))
        self.register_buffer("valid", torch.zeros(1, 1, *self.grid_hw))
        self.pooled: list[npt.NDArray[np.float64]] = []  # (N, C) a level, of the pictures that it was fitted on

    valid: Tensor

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """`levels`: (N, C, h, w) float32, finest first -> raw score (N,) and map (N, 1, gh, gw).

        Score: sum over levels of the Mahalanobis distance of the pooled features (Rippel 2021, section III). Pooling and whitening
        are both linear, so the pooled features are whitened as the mean of the whitened positions.
        """
        score = grid = torch.zeros(1)
        for i, level in enumerate(levels):
            z = F.conv2d(level, self.get_buffer(f"whiten_{i}"), -self.get_buffer(f"centre_{i}"))
            pooled = torch.matmul(z.flatten(2), self.get_buffer(f"weight_{i}"))
            score = score + pooled.square().sum(1).sqrt()
            distance = z.square().sum(1, keepdim=True).sqrt()
            if distance.shape[2:] != self.grid_hw:
                distance = F.interpolate(distance, size=self.grid_hw, mode="bilinear", align_corners=False)
            grid = grid + distance
        return score, grid * self.valid

    def memory_bytes(self, n_images: int) -> int:
        """Peak of a fit: the features, their pooled means in float64, covariances and one batch in flight."""
        numbers = sum(c * h * w for c, h, w in self.level_shapes)
        channels = sum(c for c, _, _ in self.level_shapes)
        widest = max(c for c, _, _ in self.level_shapes)
        return 4 * n_images * numbers + 3 * 8 * n_images * channels + 6 * 8 * widest**2 + 2 * 4 * _BATCH * numbers + 20_000_000

    def fit(self, features: Features, valid: npt.NDArray[np.bool_], seed: int, progress: Progress = silent) -> None:
        """Estimate mean and Ledoit-Wolf covariance of the pooled features a level, keep the components of least variance.

        Nothing is drawn, so `seed` changes nothing. Raises DataError for fewer than 2 images or no valid position.
        """
        if valid.shape != self.grid_hw:
            raise DataError(f"mvg: expected a valid mask of {self.grid_hw}, found {valid.shape}")
        if len(features) < 2 or not valid.any():
            raise DataError(
                f"mvg: needs at least 2 good images and one position outside the ignore mask, found {len(features)} images"
                f" and {int(valid.sum())} positions. Give more images of good parts or a smaller mask"
            )
        mask = torch.from_numpy(np.ascontiguousarray(valid)).float()[None, None]
        self.valid.copy_(mask)
        weights = []
        for i, (_, h, w) in enumerate(self.level_shapes):
            # A coarse position counts as much as of it is valid on the finest grid.
            weight = F.adaptive_avg_pool2d(mask, (h, w)).flatten()
            weights.append(weight / weight.sum())
            self.get_buffer(f"weight_{i}").copy_(weights[-1])
        pooled: list[list[Tensor]] = [[] for _ in self.level_shapes]
        for n, batch in enumerate(features.batches(_BATCH)):
            for means, level, weight in zip(pooled, batch, weights, strict=True):
                means.append(level.flatten(2).double() @ weight.double())
            progress("pooled features", min((n + 1) * _BATCH, len(features)), len(features))
        self.pooled = [torch.cat(means).numpy() for means in pooled]
        self._refit(np.arange(len(features)))

    def _refit(self, rows: npt.NDArray[np.intp]) -> None:
        """On some pictures of the last fit."""
        for i, means in enumerate(self.pooled):
            whiten, mean = least_variance_whitening(means[rows], self.params.kept_variance)
            self.get_buffer(f"whiten_{i}").copy_(torch.from_numpy(whiten)[:, :, None, None])
            self.get_buffer(f"centre_{i}").copy_(torch.from_numpy(whiten @ mean))

    def without(
        self, features: Features, valid: npt.NDArray[np.bool_], folds: Sequence[npt.NDArray[np.intp]], seed: int
    ) -> Iterator[Head] | None:
        """All that a fit needs of a picture is its pooled features, which are kept."""
        head, each = copy.deepcopy(self), features.views * (1 + features.copies)

        def heads() -> Iterator[Head]:
            for fold in folds:
                head._refit(np.setdiff1d(np.arange(len(features)), (fold[:, None] * each + np.arange(each)).ravel()))
                yield head

        return heads()


def least_variance_whitening(
    samples: npt.NDArray[np.float64], kept_variance: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(N, C) samples -> (C, C) matrix W with |W (x - mean)| = the Mahalanobis distance in the kept components, and the mean (C,).

    Covariance: Ledoit and Wolf 2004. Kept: the components of least variance that together hold at most `kept_variance` of it, at
    least one (NPCA, Rippel et al. 2021, section III-C). Rows of W that belong to dropped components are 0.
    """
    from sklearn.covariance import ledoit_wolf  # slow to load, and other methods do without

    covariance, _ = ledoit_wolf(samples)
    variance, basis = np.linalg.eigh(covariance)
    variance = np.maximum(variance, np.finfo(np.float64).eps * variance[-1] + np.finfo(np.float32).tiny)
    kept = max(1, int(np.searchsorted(np.cumsum(variance), kept_variance * variance.sum() * (1 + 1e-12), side="right")))
    whiten = np.zeros_like(covariance)
    whiten[:kept] = (basis[:, :kept] / np.sqrt(variance[:kept])).T
    return whiten, samples.mean(0)
