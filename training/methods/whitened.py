"""What learnt heads see: features in units of how good parts vary at each position, so that learning begins where PaDiM ends.

Every position has its own mean and covariance (PaDiM, Defard 2020, equation 1). Features are multiplied by the covariance's inverse
square root, the symmetric one: of all whitenings it moves features least and follows the covariance without jumps, so that weights
learnt on one backbone's features still mean the same on the slightly other features of its INT8 form (Kessy et al. 2018, "Optimal
Whitening and Decorrelation", section 3: ZCA). The squared length of what results is the squared Mahalanobis distance.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_runtime.errors import ConfigError, DataError
from training.learn import TrainedHead
from training.methods.base import Features, LevelShape
from training.methods.gaussian import eigh, floor, ledoit_wolf

_CHUNK_BYTES = 24 << 20
"""Working memory for one chunk of positions while covariances are estimated."""
BATCH = 32


class WhitenedHead(TrainedHead):
    """Common to learnt heads: whitened levels, the mask of what counts, and a score of the k highest cells."""

    name: str
    """For messages."""
    valid: Tensor
    top_weight: Tensor

    def __init__(self, level_shapes: Sequence[LevelShape], top_k: int, upsample: int = 1) -> None:
        """`level_shapes`: (C, h, w) a level, finest first; the map has `upsample` times the rows and columns of the finest.

        Raises ConfigError for impossible arguments.
        """
        super().__init__()
        if not level_shapes:
            raise ConfigError(f"{self.name}: expected at least one level of the backbone, found none")
        if top_k < 1:
            raise ConfigError(f"{self.name}: expected top_k to be at least 1, found {top_k}")
        self.level_shapes = [(int(c), int(h), int(w)) for c, h, w in level_shapes]
        self.cells_hw = self.level_shapes[0][1:]
        self.grid_hw = (self.cells_hw[0] * upsample, self.cells_hw[1] * upsample)
        self.top_k = min(top_k, self.cells_hw[0] * self.cells_hw[1])
        for i, (c, h, w) in enumerate(self.level_shapes):
            # Minus the mean: an export folds a subtraction into an addition, and the constant should stay what the buffer is.
            self.register_buffer(f"shift_{i}", torch.zeros(1, c, h, w))
            self.register_buffer(f"whiten_{i}", torch.zeros(h * w * c, c, 1, 1))
            self.register_buffer(f"inside_{i}", torch.ones(1, 1, h, w))
        self.register_buffer("valid", torch.ones(1, 1, *self.grid_hw))
        self.register_buffer("top_weight", torch.tensor(1.0 / self.top_k))

    def whitened(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """(N, C, h, w) a level -> the same shapes: mean 0 and covariance 1 over good parts, 0 where nothing is inspected."""
        found = []
        for i, (c, h, w) in enumerate(self.level_shapes):
            x = (levels[i] + self.get_buffer(f"shift_{i}")).permute(0, 2, 3, 1).reshape(-1, h * w * c, 1, 1)
            # A grouped convolution rather than a batched product: OpenVINO packs its weights once, at load.
            z = F.conv2d(x, self.get_buffer(f"whiten_{i}"), groups=h * w).reshape(-1, h, w, c).permute(0, 3, 1, 2)
            found.append(z * self.get_buffer(f"inside_{i}"))
        return found

    def stacked(self, levels: Sequence[Tensor]) -> Tensor:
        """Whitened levels on the finest grid, (N, C of all, h, w): each coarse cell repeated over the finer ones above it."""
        z = self.whitened(levels)
        return torch.cat([z[0], *(repeat(x, self.cells_hw) for x in z[1:])], 1) if len(z) > 1 else z[0]

    def top(self, cells: Tensor) -> Tensor:
        """(N, 1, h, w), at least 0 and 0 where nothing is inspected -> (N,) mean of the k highest (of all, where fewer are inspected)."""
        return torch.topk(cells.flatten(1), self.top_k, dim=1).values.sum(1) * self.top_weight

    def whiten(self, features: Features, valid: npt.NDArray[np.bool_], least: int) -> None:
        """Estimate means and covariances from good images, and note what counts. Raises DataError for fewer than `least` images."""
        if len(features) < least:
            raise DataError(f"{self.name}: expected at least {least} good images to learn from, found {len(features)}; add images")
        if valid.shape != self.grid_hw or not valid.any():
            raise DataError(
                f"{self.name}: expected a mask {self.grid_hw} with at least one valid position, found {valid.shape} with {int(valid.sum())}"
            )
        mask = torch.from_numpy(np.ascontiguousarray(valid)).float()[None, None]
        self.valid.copy_(mask)
        for i, (c, h, w) in enumerate(self.level_shapes):
            # A coarse cell counts when any part of it does: what lies at the edge of the inspected region must not be missed.
            self.get_buffer(f"inside_{i}").copy_(F.adaptive_max_pool2d(mask, (h, w)))
            step = max(1, _CHUNK_BYTES // (w * (2 * len(features) * c * 4 + 6 * c * c * 8)))
            factors = self.get_buffer(f"whiten_{i}").view(h, w, c, c)
            for rows in (slice(top, min(top + step, h)) for top in range(0, h, step)):
                x = torch.from_numpy(features.levels[i][features.rows, :, rows]).permute(2, 3, 0, 1).reshape(-1, len(features), c)
                mean = x.mean(1, keepdim=True)
                factors[rows] = _inverse_root(x - mean).view(-1, w, c, c)
                self.get_buffer(f"shift_{i}")[0, :, rows] = -mean[:, 0].T.reshape(c, -1, w)
        self.top_weight.fill_(1.0 / min(self.top_k, int(self.get_buffer("inside_0").sum())))

    def memory_bytes(self, n_images: int) -> int:
        """Features, weights four times over (gradients and two moments, the best so far), one chunk of covariances, a batch in flight."""
        numbers = sum(c * h * w for c, h, w in self.level_shapes)
        state = sum(t.numel() * t.element_size() for t in self.state_dict().values())
        return 4 * n_images * numbers + 4 * state + 3 * _CHUNK_BYTES + 20 * 4 * BATCH * numbers


def repeat(x: Tensor, hw: tuple[int, int]) -> Tensor:
    """(N, C, h, w) -> (N, C, *hw): for each finer cell the coarse one that lies under it."""
    h, w = x.shape[2:]
    if (h, w) == hw:
        return x
    if hw[0] % h == 0 and hw[1] % w == 0:
        return F.interpolate(x, size=hw, mode="nearest")
    return x.index_select(2, torch.arange(hw[0]) * h // hw[0]).index_select(3, torch.arange(hw[1]) * w // hw[1])


def drawn(features: Features, picks: npt.NDArray[np.intp]) -> list[Tensor]:
    """One (n, C, h, w) tensor a level of the pictures at `picks`, which may repeat."""
    return next(iter(features.subset(picks).batches(len(picks))))


def _inverse_root(x: Tensor) -> Tensor:
    """(P, N, C) centred samples -> (P, C, C) inverse square roots of their shrunk covariances."""
    cov, ridge = ledoit_wolf(x)
    cov.diagonal(dim1=1, dim2=2).add_(torch.maximum(ridge, floor(cov))[:, None])
    values, vectors = eigh(cov)
    root: Tensor = (vectors / values.clamp_min(1e-12)[:, None].sqrt()) @ vectors.transpose(1, 2)
    return root.float()
