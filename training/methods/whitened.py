"""What learnt heads see: features in units of how good parts vary at each position, so that learning begins where PaDiM ends.

Every position has its own mean and covariance (PaDiM, Defard 2020, equation 1). Features are multiplied by the covariance's inverse
square root, the symmetric one: of all whitenings it moves features least and follows the covariance without jumps, so that weights
learnt on one backbone's features still mean the same on the slightly other features of its INT8 form (Kessy et al. 2018, "Optimal
Whitening and Decorrelation", section 3: ZCA). The squared length of what results is the squared Mahalanobis distance.

With a `context` (see `Context`) each position is whitened given what its whole picture looks like, as in `padim`.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_runtime.errors import ConfigError, DataError
from training.core.base import Features, LevelShape
from training.core.learn import TrainedHead
from training.methods.context import Context, explained
from training.methods.gaussian import inverse_root
from training.methods.grid import each_position, repeat

_CHUNK_BYTES = 24 << 20
"""Working memory for one chunk of positions while covariances are estimated."""
BATCH = 32


class WhitenedHead(TrainedHead):
    """Common to learnt heads: whitened levels, the mask of what counts, and a score of the k highest cells."""

    name: str
    """The method's name, for messages."""
    valid: Tensor
    top_weight: Tensor

    def __init__(self, level_shapes: Sequence[LevelShape], top_k: int, upsample: int = 1, context: int = 0) -> None:
        """`level_shapes`: (C, h, w) a level, finest first; the map has `upsample` times the rows and columns of the finest; `context`:
        principal components of the coarsest level's mean that positions are whitened given.

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
        if context < 0:
            raise ConfigError(f"{self.name}: expected context to be at least 0, found {context}")
        self.context = Context(context, self.level_shapes[-1]) if context else None
        given = 0 if self.context is None else self.context.components
        for i, (c, h, w) in enumerate(self.level_shapes):
            # Minus the mean: an export folds a subtraction into an addition, and the constant should stay what the buffer is.
            self.register_buffer(f"shift_{i}", torch.zeros(1, c, h, w))
            self.register_buffer(f"whiten_{i}", torch.zeros(h * w * c, c + given, 1, 1))
            self.register_buffer(f"inside_{i}", torch.ones(1, 1, h, w))
        self.register_buffer("valid", torch.ones(1, 1, *self.grid_hw))
        self.register_buffer("top_weight", torch.tensor(1.0 / self.top_k))

    def whitened(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """(N, C, h, w) a level -> the same shapes: mean 0 and covariance 1 over good parts, 0 where nothing is inspected."""
        found = []
        context = None if self.context is None else self.context(levels[-1])
        for i, (c, h, w) in enumerate(self.level_shapes):
            x = levels[i] + self.get_buffer(f"shift_{i}")
            if context is not None:
                x = torch.cat([x, context.expand(-1, -1, h, w)], 1)
            weight = self.get_buffer(f"whiten_{i}")
            found.append(each_position(x, weight, h * w, c).reshape(-1, c, h, w) * self.get_buffer(f"inside_{i}"))
        return found

    def stacked(self, levels: Sequence[Tensor]) -> Tensor:
        """Whitened levels on the finest grid, (N, C of all, h, w): each coarse cell repeated over the finer ones above it."""
        z = self.whitened(levels)
        coarser = [repeat(x, (h, w), self.cells_hw) for x, (_, h, w) in zip(z[1:], self.level_shapes[1:], strict=True)]
        return torch.cat([z[0], *coarser], 1) if coarser else z[0]

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
        context = torch.zeros(len(features), 0)
        if self.context is not None:
            context = self.context.fit((levels[-1] for levels in features.batches(BATCH)), valid, features.copies)
        for i, (c, h, w) in enumerate(self.level_shapes):
            # A coarse cell counts when any part of it does: what lies at the edge of the inspected region must not be missed.
            self.get_buffer(f"inside_{i}").copy_(F.adaptive_max_pool2d(mask, (h, w)))
            step = max(1, _CHUNK_BYTES // (w * (2 * len(features) * c * 4 + 6 * c * c * 8)))
            factors = self.get_buffer(f"whiten_{i}").view(h, w, c, -1)
            for rows in (slice(top, min(top + step, h)) for top in range(0, h, step)):
                flat = torch.from_numpy(features.levels[i][features.rows, :, rows]).reshape(len(features), -1)
                mean = flat.mean(0, keepdim=True)
                flat, slope = explained(flat - mean, context)
                roots = inverse_root(flat.view(len(features), c, -1).permute(2, 0, 1).contiguous())
                slopes = slope.view(-1, c, len(roots)).permute(2, 1, 0)  # (P, C, q)
                factors[rows] = torch.cat([roots, -roots @ slopes], 2).view(-1, w, c, factors.shape[3])
                self.get_buffer(f"shift_{i}")[0, :, rows] = -mean.view(c, -1, w)
        self.top_weight.fill_(1.0 / min(self.top_k, int(self.get_buffer("inside_0").sum())))

    def memory_bytes(self, n_images: int) -> int:
        """Features, weights four times over (gradients and two moments, the best so far), one chunk of covariances, a batch in flight."""
        numbers = sum(c * h * w for c, h, w in self.level_shapes)
        state: int = sum(t.numel() * t.element_size() for t in self.state_dict().values())
        return 4 * n_images * numbers + 4 * state + 3 * _CHUNK_BYTES + 20 * 4 * BATCH * numbers


def drawn(features: Features, picks: npt.NDArray[np.intp]) -> list[Tensor]:
    """One (n, C, h, w) tensor a level of the pictures at `picks`, which may repeat."""
    return next(iter(features.subset(picks).batches(len(picks))))
