"""PatchCore: distance of each patch to the nearest of a fixed number of good patches (Roth et al. 2022), shaped for a CPU at the line."""

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
from training.methods.coreset import greedy_coreset

_BATCH = 16
_BLOCK = 2048
"""Patches whose distances to the whole bank are held at once."""


@dataclass(frozen=True, slots=True)
class PatchcoreParams:
    """What a user may choose; stored as JSON beside the weights."""

    bank_size: int = 4000
    """Patches in the memory bank: a budget fixed up front, whatever the number of images. Time on the device grows with it."""
    dims: int | None = 128
    """Principal components of the patch features in which distances are measured; None keeps all channels, as in the paper."""
    whiten: bool = False
    """Scale each kept component to unit variance, so that distances are Mahalanobis distances under the covariance of good patches."""
    top_k: int = 1
    """The image score is the mean over this many highest patch scores (fewer where fewer positions are valid); 1 is the paper's maximum."""
    neighbours: int = 9
    """b in equation 7, the bank patches that the re-weighting looks at; 0 switches re-weighting off."""
    projection: int | None = None
    """Gaussian random projection to so many dimensions while the coreset is picked (section 3.2); None picks by the scoring distances."""


PRESETS: Mapping[str, tuple[tuple[int, ...], PatchcoreParams]] = {
    "fast": ((16,), PatchcoreParams(dims=None, top_k=5)),
    "fine": ((8, 16, 32), PatchcoreParams(top_k=20)),
}
"""Name -> (strides, parameters). At 256 px `fast` has a 16x16 grid and `fine` a 32x32 one; `top_k` is the same area in both.

Stride 16 alone was preferred to 16+32 after looking at test images of two sets (INT8, lite0): magnetic tiles 0.959 against 0.965, solar
cells 0.955 against 0.947, and it needs a shorter backbone.
"""


class PatchcoreHead(Head):
    """PatchCore with its bank as constants of the graph.

    Edge form. All steps from features to patch vectors are linear (3x3 mean, bilinear resize, centring, principal components), so
    each level is projected on its own grid and the levels are summed. Distances are |q|^2 + (|b|^2 - 2 q b), the bracket being one
    product with constants.
    """

    mean: Tensor
    bank: Tensor
    bank_square: Tensor
    around: Tensor
    valid: Tensor
    top_weight: Tensor

    def __init__(self, params: PatchcoreParams, level_shapes: Sequence[LevelShape]) -> None:
        """Build an unfitted head. `level_shapes`: (C, h, w) a level, finest first. Raises ConfigError for impossible parameters."""
        super().__init__()
        channels = sum(c for c, _, _ in level_shapes)
        self.params = params
        self.level_shapes = tuple(level_shapes)
        self.grid_hw = level_shapes[0][1:]
        self.dims = channels if params.dims is None else min(params.dims, channels)
        patches = self.grid_hw[0] * self.grid_hw[1]
        for name, value, low, high in (
            ("bank_size", params.bank_size, 1, None),
            ("dims", self.dims, 1, None),
            ("top_k", params.top_k, 1, None),
            ("neighbours", params.neighbours, 0, params.bank_size),
            ("projection", 1 if params.projection is None else params.projection, 1, None),
        ):
            if value < low or (high is not None and value > high):
                raise ConfigError(f"patchcore: expected {name} to be {low}..{high or 'any'}, found {value}")
        for i, (c, _, _) in enumerate(level_shapes):
            self.register_buffer(f"project_{i}", torch.zeros(self.dims, c, 1, 1))
        self.register_buffer("mean", torch.zeros(self.dims))
        self.register_buffer("bank", torch.zeros(self.dims, params.bank_size))
        self.register_buffer("bank_square", torch.zeros(params.bank_size))
        self.register_buffer("around", torch.zeros(params.bank_size, params.neighbours, dtype=torch.int64))
        self.register_buffer("valid", torch.zeros(patches))
        self.picks: Tensor | None = None  # (bank,) which of the patches that it was fitted on make the bank
        self.top_k = min(params.top_k, patches)
        self.register_buffer("top_weight", torch.tensor(1.0 / self.top_k))

    def patches(self, levels: Sequence[Tensor]) -> Tensor:
        """Locally aware patch features (section 3.1), projected: (N, dims, gh * gw)."""
        total = -self.mean[:, None, None]
        for i, level in enumerate(levels):
            total = total + self._to_grid(F.conv2d(level, self.get_buffer(f"project_{i}")))
        return total.flatten(2)

    def _to_grid(self, level: Tensor) -> Tensor:
        """Mean of each 3x3 neighbourhood (equation 2 with p = 3), brought to the finest level's grid.

        Beyond the border lie zeros that count in the mean, as in the authors' code. It matters: it damps the patches at the border,
        whose features carry the backbone's own padding and vary most among good parts.
        """
        level = F.avg_pool2d(level, 3, 1, 1, count_include_pad=True)
        if level.shape[2:] != self.grid_hw:
            level = F.interpolate(level, size=self.grid_hw, mode="bilinear", align_corners=False)
        return level

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """`levels`: (N, C, h, w) float32, finest first -> raw score (N,) and map (N, 1, gh, gw)."""
        patches = self.patches(levels)
        # One image at a time: batches meet torch only, and N x patches x bank numbers at once would not fit.
        results = [self._judge(patches[i]) for i in range(patches.shape[0])]
        grid = torch.stack([m for _, m in results]).view(-1, 1, *self.grid_hw)
        return torch.stack([s for s, _ in results]), grid

    def _judge(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """(dims, P) -> score () and distances (P,), 0 where not valid."""
        query = patches.T
        nearest = (self.bank_square + torch.matmul(query, self.bank)).amin(1)
        distance = (nearest + patches.square().sum(0)).clamp(min=0).sqrt() * self.valid
        top, where = torch.topk(distance, self.top_k)
        if self.params.neighbours:
            top = top * self._weight(query[where])
        return top.sum() * self.top_weight, distance

    def _weight(self, query: Tensor) -> Tensor:
        """Equation 7: 1 - exp(d(q, m*)) / sum over m in N_b(m*) of exp(d(q, m)), for each of the k highest patches (k, dims)."""
        square = self.bank_square + torch.matmul(query, self.bank) + query.square().sum(1, keepdim=True)
        nearest, star = square.min(1, keepdim=True)
        gaps = square.gather(1, self.around[star[:, 0]]).clamp(min=0).sqrt()
        distance = nearest.clamp(min=0).sqrt()
        # m* belongs to its own neighbourhood, so the sum has at least its term and the weight stays in 0..1; the shift avoids overflow.
        return 1 - 1 / torch.exp(gaps - distance).sum(1)

    def memory_bytes(self, n_images: int) -> int:
        """Peak of a fit: the features, all patches projected, the covariance, one batch in flight and blocks of distances."""
        channels = sum(c for c, _, _ in self.level_shapes)
        cells = self.grid_hw[0] * self.grid_hw[1]
        features = 4 * n_images * sum(c * h * w for c, h, w in self.level_shapes)
        patches = 4 * n_images * cells * (self.dims + (self.params.projection or 0) + 4)
        return features + patches + 3 * 8 * channels**2 + 4 * 4 * _BATCH * cells * channels + 100_000_000

    def fit(self, features: Features, valid: npt.NDArray[np.bool_], seed: int, progress: Progress = silent) -> None:
        """Find the principal components, gather all valid patches, keep a greedy k-centre coreset of them as the bank.

        The coreset is the exact greedy one (see coreset.py). When there are fewer valid patches than `bank_size`, all are kept and the rest
        of the bank repeats them, which changes no distance. Raises DataError without an image, without a valid position, or with fewer
        patches than `neighbours` needs.
        """
        usable = torch.from_numpy(np.ascontiguousarray(valid.reshape(-1)))
        if usable.shape != self.valid.shape:
            raise DataError(f"patchcore: expected a valid mask of {self.grid_hw}, found {valid.shape}")
        cells = int(usable.sum())
        count = cells * len(features)
        if count <= max(self.params.neighbours, 1):
            raise DataError(
                f"patchcore: needs more than {max(self.params.neighbours, 1)} good patches, found {count} ({len(features)} images x"
                f" {cells} positions outside the ignore mask). Give more images of good parts or a smaller mask"
            )
        self.valid.copy_(usable)
        self.top_weight.fill_(1.0 / min(self.top_k, max(cells, 1)))
        self._find_components(features, usable, progress)
        points = self._points(features, usable, progress)
        kept = min(self.params.bank_size, count)
        space = points
        if self.params.projection:
            draw = torch.randn(self.dims, self.params.projection, generator=torch.Generator().manual_seed(seed))
            space = points @ draw / self.params.projection**0.5
        self.picks = greedy_coreset(space, kept, seed, progress)
        self._set_bank(points[self.picks])

    def _points(self, features: Features, usable: Tensor, progress: Progress) -> Tensor:
        """(pictures x usable positions, dims): all patches, picture by picture."""
        cells = int(usable.sum())
        points = torch.empty(cells * len(features), self.dims)
        for i, batch in enumerate(features.batches(_BATCH)):
            part = self.patches(batch)[:, :, usable].permute(0, 2, 1).reshape(-1, self.dims)
            points[i * _BATCH * cells : i * _BATCH * cells + len(part)] = part
            progress("patches", min((i + 1) * _BATCH, len(features)), len(features))
        return points

    def _set_bank(self, chosen: Tensor) -> None:
        """(up to bank_size, dims), repeated until the bank is full."""
        size, kept = self.params.bank_size, len(chosen)
        if self.params.neighbours:
            gaps = torch.cdist(chosen, chosen)
            around = gaps.topk(min(self.params.neighbours, kept), largest=False).indices
            self.around.copy_(around.repeat(size // kept + 1, 1)[:size])
        chosen = chosen.repeat(size // kept + 1, 1)[:size]
        self.bank.copy_(chosen.T * -2)
        self.bank_square.copy_(chosen.square().sum(1))

    def without(
        self, features: Features, valid: npt.NDArray[np.bool_], folds: Sequence[npt.NDArray[np.intp]], seed: int
    ) -> Iterator[Head] | None:
        """The bank less the fold's own patches, and as many others in their place: the greedy choice goes on among those patches that had
        been near one of them. Components stay those of all images, which turns distances but does not change them where all are kept.
        """
        if self.picks is None or self.params.projection or self.params.whiten:
            return None
        return self._reduced(features, torch.from_numpy(np.ascontiguousarray(valid.reshape(-1))), folds, seed)

    def _reduced(self, features: Features, usable: Tensor, folds: Sequence[npt.NDArray[np.intp]], seed: int) -> Iterator[Head]:
        assert self.picks is not None
        points, cells = self._points(features, usable, silent), int(usable.sum())
        image = torch.arange(len(features)).repeat_interleave(cells) // (features.views * (1 + features.copies))
        bank = points[self.picks]
        owner = torch.empty(len(points), dtype=torch.int64)
        for start in range(0, len(points), _BLOCK):
            owner[start : start + _BLOCK] = _squares(points[start : start + _BLOCK], bank).argmin(1)
        head = copy.deepcopy(self)
        for fold in folds:
            inside = torch.zeros(features.n_images, dtype=torch.bool)
            inside[torch.from_numpy(fold)] = True
            gone = inside[image[self.picks]]
            rest = bank[~gone]
            bereft = points[~inside[image] & gone[owner]]  # whose nearest goes: a patch of the bank is its own, so none of the rest's
            count = min(int(gone.sum()), len(bereft))
            if count:
                nearest = torch.cat([_squares(bereft[i : i + _BLOCK], rest).amin(1) for i in range(0, len(bereft), _BLOCK)])
                rest = torch.cat([rest, bereft[greedy_coreset(bereft, count, seed, nearest=nearest)]])
            head._set_bank(rest)
            yield head

    def _find_components(self, features: Features, usable: Tensor, progress: Progress) -> None:
        """Principal components of the patch features, in float64 around a first guess of the mean."""
        channels = sum(c for c, _, _ in self.level_shapes)
        total = torch.zeros(channels, dtype=torch.float64)
        square = torch.zeros(channels, channels, dtype=torch.float64)
        shift = torch.zeros(channels)
        count = 0
        for i, batch in enumerate(features.batches(_BATCH)):
            rows = torch.cat([self._to_grid(level) for level in batch], 1).flatten(2)[:, :, usable].permute(0, 2, 1).flatten(0, 1)
            shift = rows.mean(0) if i == 0 else shift
            rows = rows - shift
            total += rows.sum(0).double()
            square += (rows.T @ rows).double()
            count += len(rows)
            progress("components", min((i + 1) * _BATCH, len(features)), len(features))
        centre = total / count
        variance, basis = torch.linalg.eigh(square / count - torch.outer(centre, centre))
        variance, basis = variance.flip(0)[: self.dims], basis.flip(1)[:, : self.dims]
        if self.params.whiten:
            basis = basis / variance.clamp(min=1e-6 * float(variance[0])).sqrt()
        start = 0
        for i, (c, _, _) in enumerate(self.level_shapes):
            self.get_buffer(f"project_{i}").copy_(basis.T[:, start : start + c, None, None])
            start += c
        self.mean.copy_((shift.double() + centre) @ basis)


def _squares(points: Tensor, bank: Tensor) -> Tensor:
    """(n, d), (m, d) -> (n, m) squared distances."""
    return torch.addmm(bank.square().sum(1), points, bank.T, alpha=-2.0).add_(points.square().sum(1, keepdim=True)).clamp_(min=0)
