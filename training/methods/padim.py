"""PaDiM: one Gaussian a position, Mahalanobis distance, in the form that is cheapest to run.

Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization", 2020 (arXiv 2011.08785).

The joint Gaussian over all levels of a position is never stored as one matrix. With the coarser level repeated under the finer
grid (section III-A), the chain rule splits the distance exactly,

    d2(fine, coarse) = d2(coarse) + d2(fine | coarse),

so that the coarse part is computed once a coarse cell instead of once a fine one. Each part is `sum((W (x - mean))^2)`, with W the
eigenvectors of the part's covariance over the roots of their eigenvalues, run as one grouped convolution. Such a head is bound
by the memory it reads: 8+16 on a 32x32 grid has 31.7 million weights as full matrices, 9.4 as this chain, 4.7 with half of the
components.

Two departures from the paper. `context`: the mean features of the whole picture are one more, coarsest level of that chain (see
`Context`). `shared`: one Gaussian a level for all positions, for parts whose layout differs from picture to picture.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edge_runtime.errors import ConfigError, DataError
from training.core.base import Features, Head, LevelShape, Progress, silent
from training.methods.context import Context, explained
from training.methods.gaussian import Moments, factors, quartic, shrunk, whiten
from training.methods.grid import each_position, nearest, repeat

FIT_CHUNK_BYTES = 24 << 20
"""Working memory that one chunk of positions may take while fitting."""
BATCH = 16
MOMENTS_BYTES = 1 << 30
"""Moments of all positions that may be held at once while images are left out; where they are more, each fold is fitted anew."""


@dataclass(frozen=True, slots=True)
class PadimParams:
    """Plain values only: stored as JSON beside the weights."""

    features: int | None = None
    """Channels kept, picked at random as in section III-A, each level in proportion to its width; None keeps all."""
    neighbourhood: int = 3
    """Each level is averaged over this many cells squared first (odd, 1 for none), as PatchCore's locally aware patches are (Roth
    2022, section 3.1): parts never lie exactly where the last one lay."""
    components: float = 0.5
    """Share of each Gaussian's components that is kept, those of *least* variance (Rippel 2021, section III-C): what varies much among good
    parts tells little about bad ones. 1.0 is the paper's full Mahalanobis distance."""
    shrinkage: str | float = "ledoit_wolf"
    """What makes a covariance invertible: "ledoit_wolf" (Ledoit & Wolf 2004, each position its own intensity; right also with fewer
    images than channels), or a number added to the diagonal (the paper's 0.01, section III-B)."""
    top_k: int = 5
    """The image's score is the mean of this many largest distances (1: the paper's maximum)."""
    context: int = 0
    """Principal components of the picture's mean features (of the coarsest level) that every position is judged *given*, 0 for none.
    At most one for each 8 good images (with tiles: 8 tiles, whose own means they are) is used, since each costs every position a
    regression coefficient a channel, and never more than the level has channels."""
    shared: bool = False
    """One mean and covariance for all positions of a level, instead of one each."""
    smooth: float = 0.0
    """Standard deviation, in cells, of a Gaussian over the map, 0 for none (the paper's 4 pixels are one cell of its stride-4 grid).
    The image's score comes from the map before smoothing: small defects would drown."""


PRESETS: Mapping[str, tuple[tuple[int, ...], PadimParams]] = {
    "fast": ((16,), PadimParams(components=0.75, context=64)),
    "fine": ((8, 16), PadimParams(context=64, smooth=1.0)),
    "shared": ((16,), PadimParams(neighbourhood=1, components=0.25, shared=True)),
}
"""Preset -> (strides of the backbone's levels, parameters)."""


class PadimHead(Head):
    """PaDiM over the grid of the finest level; coarser levels are repeated onto it."""

    valid_mask: Tensor
    map_weight: Tensor
    top_weight: Tensor

    def __init__(self, params: PadimParams, level_shapes: Sequence[LevelShape]) -> None:
        """`level_shapes`: (C, h, w) a level, finest first.

        Raises ConfigError for parameters or shapes that do not fit together.
        """
        super().__init__()
        _check(params, level_shapes)
        self.params = params
        self.level_shapes = [(int(c), int(h), int(w)) for c, h, w in level_shapes]
        self.grid_hw = self.level_shapes[0][1:]
        gh, gw = self.grid_hw
        self.widths = _widths(params.features, [c for c, _, _ in self.level_shapes])
        self.context = Context(params.context, (self.widths[-1], *self.level_shapes[-1][1:])) if params.context else None
        components = 0 if self.context is None else self.context.components
        self.ranks = [max(1, round(params.components * c)) for c in self.widths]
        for i, (_, h, w) in enumerate(self.level_shapes):
            kept, seen = self.widths[i], sum(self.widths[i:]) + components
            if params.features is not None:
                self.register_buffer(f"pick_{i}", torch.arange(kept))
            # Minus the mean: an export folds a subtraction into an addition, and the constant should stay what the buffer is.
            h, w = (1, 1) if params.shared else (h, w)
            self.register_buffer(f"shift_{i}", torch.zeros(1, kept, h, w))
            self.register_buffer(f"whiten_{i}", torch.zeros(h * w * self.ranks[i], seen, 1, 1))
        self.register_buffer("valid_mask", torch.ones(1, 1, gh, gw))
        self.register_buffer("map_weight", torch.ones(1, 1, gh, gw))
        self.register_buffer("top_weight", torch.tensor(1.0 / min(params.top_k, gh * gw)))
        self.kernel = _gaussian(params.smooth)

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(N, C, h, w) a level, finest first -> score (N,), map (N, 1, gh, gw)."""
        coarser: Tensor | None = None  # centred features of the coarser levels
        d2: Tensor | None = None
        below = self.grid_hw
        for i in reversed(range(len(self.level_shapes))):
            _, h, w = self.level_shapes[i]
            x = self._prepare(levels[i], i)
            if coarser is None and self.context is not None:
                coarser, below = self.context(x), (1, 1)
            x = x + self.get_buffer(f"shift_{i}")
            if coarser is not None:
                x = torch.cat([x, repeat(coarser, below, (h, w))], 1)
            weight = self.get_buffer(f"whiten_{i}")
            y = nn.functional.conv2d(x, weight) if self.params.shared else each_position(x, weight, h * w, self.ranks[i])
            part = (y * y).sum(1, keepdim=True).reshape(-1, 1, h, w)
            d2 = part if d2 is None else part + repeat(d2, below, (h, w))
            coarser, below = x, (h, w)
        assert d2 is not None
        return self._score(torch.sqrt(d2))

    def _prepare(self, x: Tensor, level: int) -> Tensor:
        """Channel pick and local averaging of one level; `x` is (N, C, rows, w)."""
        if self.params.features is not None:
            x = x.index_select(1, self.get_buffer(f"pick_{level}"))
        size = self.params.neighbourhood
        return x if size == 1 else nn.functional.avg_pool2d(x, size, 1, size // 2, count_include_pad=False)

    def _score(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        """M(x) = sqrt((x - mu)^T S^-1 (x - mu)), equation 2; the image's score from its largest values, section III-C."""
        score_map = distance * self.valid_mask
        top = torch.topk(score_map.flatten(1), min(self.params.top_k, self.grid_hw[0] * self.grid_hw[1]), dim=1).values
        return top.sum(1) * self.top_weight, self._blur(score_map) * self.map_weight

    def _blur(self, score_map: Tensor) -> Tensor:
        if self.kernel is None:
            return score_map
        return nn.functional.conv2d(score_map, self.kernel, padding=self.kernel.shape[-1] // 2)

    def fit(self, features: Features, valid: npt.NDArray[np.bool_], seed: int, progress: Progress = silent) -> None:
        """Mean and covariance of each position (equation 1) and from them the whitening factors. See `Head.fit`."""
        n = len(features)
        if n < 2:
            raise DataError(f"padim: expected at least 2 good images to estimate a covariance, found {n}; add images")
        if valid.shape != self.grid_hw or not valid.any():
            raise DataError(
                f"padim: expected a mask {self.grid_hw} with at least one valid position, found {valid.shape} with {int(valid.sum())}"
            )
        self._pick(seed)
        context = torch.zeros(n, 0)
        if self.context is not None:
            last = len(self.level_shapes) - 1
            context = self.context.fit((self._prepare(b[last], last) for b in features.batches(BATCH)), valid, features.copies)
        if self.params.shared:
            self._fit_shared(features, valid, context, progress)
        else:
            self._fit_positions(features, context, progress)
        self.valid_mask.copy_(torch.from_numpy(valid)[None, None])
        # Smoothing is renormalised at borders and beside ignored positions, whose zeros would pull their neighbours down.
        self.map_weight.copy_(self.valid_mask / self._blur(self.valid_mask).clamp_min(1e-6))
        self.top_weight.fill_(1.0 / min(self.params.top_k, int(valid.sum())))

    def _fit_positions(self, features: Features, context: Tensor, progress: Progress) -> None:
        n = len(features)
        chunks = [list(self._chunks(i, n)) for i in range(len(self.level_shapes))]
        total, done = sum(map(len, chunks)), 0
        for i in reversed(range(len(self.level_shapes))):
            for rows in chunks[i]:
                self._fit_rows(features, i, rows, context)
                done += 1
                progress("fitting Gaussians", done, total)

    def _fit_shared(self, features: Features, valid: npt.NDArray[np.bool_], context: Tensor, progress: Progress) -> None:
        """One mean and covariance a level, over all valid positions of all images."""
        for i in range(len(self.level_shapes)):
            self._set_shared(i, self._shared_moments(features, i, valid, context, None, progress))

    def _shared_moments(
        self, features: Features, i: int, valid: npt.NDArray[np.bool_], context: Tensor, guess: Tensor | None, progress: Progress
    ) -> Moments:
        """Moments of one level, in float64 around `guess` (None: the first batch's mean)."""
        _, h, w = self.level_shapes[i]
        inside = nn.functional.adaptive_max_pool2d(torch.from_numpy(valid).float()[None, None], (h, w)).flatten() > 0
        count, total, square = 0, torch.zeros(()), torch.zeros(())
        for k, batch in enumerate(features.batches(BATCH)):
            cells = [repeat(self._prepare(batch[j], j), self.level_shapes[j][1:], (h, w)) for j in range(i, len(batch))]
            cells.append(context[k * BATCH : k * BATCH + len(batch[0]), :, None, None].expand(-1, -1, h, w))
            rows = torch.cat(cells, 1).flatten(2)[:, :, inside].permute(0, 2, 1).flatten(0, 1)
            guess = rows.mean(0) if guess is None else guess
            rows = rows - guess
            count, total, square = count + len(rows), total + rows.sum(0).double(), square + (rows.T @ rows).double()
            progress("fitting one Gaussian", min((k + 1) * BATCH, len(features)), len(features))
        assert guess is not None
        return Moments(count, total, square, guess)

    def _set_shared(self, i: int, moments: Moments) -> None:
        kept, mean = self.widths[i], moments.total / moments.count
        cov = moments.square / moments.count - torch.outer(mean, mean)
        # Far more cells than channels: nothing to shrink, unless the user asks for it.
        ridge = torch.zeros(1) if isinstance(self.params.shrinkage, str) else torch.tensor([float(self.params.shrinkage)])
        self.get_buffer(f"shift_{i}").copy_(-(moments.guess + mean)[None, :kept, None, None])
        self.get_buffer(f"whiten_{i}").copy_(factors(cov[None], ridge.double(), kept, self.ranks[i])[0, :, :, None, None])

    def without(
        self, features: Features, valid: npt.NDArray[np.bool_], folds: Sequence[npt.NDArray[np.intp]], seed: int
    ) -> Iterator[Head] | None:
        """By moments: those of all images less those of the fold's give mean, covariance and regression of the others, exactly but for
        the shrinkage's fourth moment, which is that of all images. A fit reads every feature again and forms each covariance anew.
        """
        if self.params.shared:
            return None if self.params.context else self._shared_without(features, valid, folds)
        seen = [sum(self.widths[i:]) + (0 if self.context is None else self.widths[-1]) for i in range(len(self.level_shapes))]
        if sum(4 * h * w * s * s for s, (_, h, w) in zip(seen, self.level_shapes, strict=True)) > MOMENTS_BYTES:
            return None
        return self._positions_without(features, folds)

    def _shared_without(self, features: Features, valid: npt.NDArray[np.bool_], folds: Sequence[npt.NDArray[np.intp]]) -> Iterator[Head]:
        head, none = copy.deepcopy(self), torch.zeros(len(features), 0)
        levels = range(len(self.level_shapes))
        guesses = [-self.get_buffer(f"shift_{i}").flatten() for i in levels]
        guesses = [torch.cat(guesses[i:]) for i in levels]
        whole = [self._shared_moments(features, i, valid, none, guesses[i], silent) for i in levels]
        for fold in folds:
            held = features.of_images(fold, varied=True)
            for i in levels:
                all_, gone = whole[i], self._shared_moments(held, i, valid, none, guesses[i], silent)
                head._set_shared(i, Moments(all_.count - gone.count, all_.total - gone.total, all_.square - gone.square, guesses[i]))
            yield head

    def _positions_without(self, features: Features, folds: Sequence[npt.NDArray[np.intp]]) -> Iterator[Head]:
        n, each = len(features), features.views * (1 + features.copies)
        # What the context is made of goes into the moments as it is, since its principal components are others in every fold.
        means = torch.zeros(n, 0) if self.context is None or self.context.means is None else self.context.means.float()
        centre = means.mean(0)
        context = torch.zeros(n, 0) if self.context is None else self.context.refit(torch.arange(n))
        chunks = [(i, rows) for i in range(len(self.level_shapes)) for rows in self._chunks(i, n)]
        # (P, C, C) and (P, C, M) sums of products about `about` (C, P), quartic (P,), a chunk each
        whole: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for i, rows in chunks:
            x = self._cells(features, i, rows)
            flat, about = x.reshape(n, -1), x.mean(0)  # (C, P)
            residual = explained(flat - flat.mean(0, keepdim=True), context)[0].view(n, *about.shape).permute(2, 0, 1).contiguous()
            own = (x - about).permute(2, 1, 0).contiguous()
            whole.append((torch.matmul(own, own.transpose(1, 2)), torch.matmul(own, means - centre), about, quartic(residual)))
        head = copy.deepcopy(self)
        for fold in folds:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)  # as in `eigh`: many small products
            gone = (fold[:, None] * each + np.arange(each)).ravel()
            rest = np.setdiff1d(np.arange(n), gone)
            if head.context is not None:
                head.context.refit(torch.from_numpy(rest))
            held = features.of_images(fold, varied=True)
            for (i, rows), (square, cross, about, fourth) in zip(chunks, whole, strict=True):
                x = (self._cells(held, i, rows) - about).permute(2, 1, 0).contiguous()  # (P, C, n)
                # About the mean of all, the sum of the rest is the negative of the fold's.
                mean, mean_means = -x.sum(2) / len(rest), -(means[gone] - centre).sum(0) / len(rest)
                own = (square - torch.matmul(x, x.transpose(1, 2))).div_(len(rest)).baddbmm_(mean[:, :, None], mean[:, None, :], alpha=-1)
                cross = (cross - torch.matmul(x, means[gone] - centre)) / len(rest) - mean[:, :, None] * mean_means
                head._set_positions(i, rows, own, cross, mean, about, fourth, len(rest))
            torch.set_num_threads(threads)
            yield head

    def _set_positions(
        self, level: int, rows: slice, own: Tensor, cross: Tensor, mean: Tensor, about: Tensor, fourth: Tensor, n: int
    ) -> None:
        """From the cells' covariances (P, C, C), those with the pictures' means (P, C, M), and means (P, C) about `about` (C, P)."""
        _, h, w = self.level_shapes[level]
        kept, rank, seen = self.widths[level], self.ranks[level], len(about)
        slope = torch.zeros(len(own), seen, 0)
        if self.context is not None:
            slope = cross @ self.context.project[:, :, 0, 0].T  # the components have variance 1
            own = own.baddbmm_(slope, slope.transpose(1, 2), alpha=-1)
        if isinstance(self.params.shrinkage, str):
            cov, ridge = shrunk(own.double(), fourth, n)
        else:
            cov, ridge = own.double(), torch.full((len(own),), float(self.params.shrinkage), dtype=torch.float64)
        whitening = factors(cov, ridge, kept, rank)
        whitening = torch.cat([whitening, -whitening @ slope], 2)
        self.get_buffer(f"shift_{level}")[0, :, rows] = -(about + mean.T).view(seen, -1, w)[:kept]
        self.get_buffer(f"whiten_{level}").view(h, w, rank, -1)[rows] = whitening.view(-1, w, rank, whitening.shape[2])

    def _pick(self, seed: int) -> None:
        if self.params.features is None:
            return
        rng = np.random.default_rng(seed)
        for i, (c, _, _) in enumerate(self.level_shapes):
            picks = np.sort(rng.choice(c, self.widths[i], replace=False))
            self.get_buffer(f"pick_{i}").copy_(torch.from_numpy(picks))

    def _chunks(self, level: int, n: int) -> Iterator[slice]:
        """Rows of a level's grid, few enough for FIT_CHUNK_BYTES of features and covariances."""
        _, h, w = self.level_shapes[level]
        seen = sum(self.widths[level:])
        step = max(1, FIT_CHUNK_BYTES // (w * (2 * n * seen * 4 + 4 * seen * seen * 8)))
        for start in range(0, h, step):
            yield slice(start, min(start + step, h))

    def _cells(self, features: Features, level: int, rows: slice) -> Tensor:
        """(N, C, P): prepared features of the positions in some rows of one level's grid, all coarser levels below them included."""
        parts: list[Tensor] = []  # (N, c, rows, w) a level, this one first
        _, h, w = self.level_shapes[level]
        margin = self.params.neighbourhood // 2
        for j in range(level, len(self.level_shapes)):
            _, hj, wj = self.level_shapes[j]
            at_h, at_w = nearest(hj, h)[rows], nearest(wj, w)
            first, last = max(0, int(at_h[0]) - margin), min(hj, int(at_h[-1]) + 1 + margin)
            block = np.ascontiguousarray(features.levels[j][features.rows, :, first:last])  # the only copy of the features
            x = self._prepare(torch.from_numpy(block), j).index_select(2, at_h - first)
            parts.append(x if wj == w else x.index_select(3, at_w))
        x = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        return x.flatten(2)

    def _fit_rows(self, features: Features, level: int, rows: slice, context: Tensor) -> None:
        """Fit the positions in some rows of one level's grid, given all coarser levels below them and the context (N, q)."""
        _, h, w = self.level_shapes[level]
        x = self._cells(features, level, rows)
        n, seen = x.shape[:2]
        flat = x.reshape(n, -1)  # (N, C * P): all that regresses on the context does so in one product
        mean = flat.mean(0, keepdim=True)
        flat, slope = explained(flat - mean, context)  # regressed apart from the rest: no shrinkage touches it
        # (P, N, C) and (P, C, q), copied: on a view, batched products take ten times as long.
        x = flat.view(n, seen, -1).permute(2, 0, 1).contiguous()
        slope = slope.view(-1, seen, len(x)).permute(2, 1, 0).contiguous()
        kept, rank = self.widths[level], self.ranks[level]
        whitening = whiten(x, kept, rank, self.params.shrinkage)
        whitening = torch.cat([whitening, -whitening @ slope], 2)
        self.get_buffer(f"shift_{level}")[0, :, rows] = -mean.view(seen, -1, w)[:kept]
        self.get_buffer(f"whiten_{level}").view(h, w, rank, -1)[rows] = whitening.view(-1, w, rank, whitening.shape[2])

    def memory_bytes(self, n_images: int) -> int:
        """Features, parameters, and one chunk's working memory."""
        feats = sum(n_images * c * h * w * 4 for c, h, w in self.level_shapes)
        state = sum(b.numel() * b.element_size() for b in self.buffers())
        context = 0 if self.context is None else self.context.components
        batch = 3 * BATCH * 4 * self.grid_hw[0] * self.grid_hw[1] * (sum(self.widths) + context) if self.params.shared else 0
        return feats + state + 3 * FIT_CHUNK_BYTES + batch


def _gaussian(sigma: float) -> Tensor | None:
    if sigma == 0:
        return None
    radius = max(1, round(2.5 * sigma))
    weights = torch.exp(-(torch.arange(-radius, radius + 1).float() ** 2) / (2 * sigma * sigma))
    weights = weights / weights.sum()
    kernel: Tensor = torch.outer(weights, weights)[None, None]
    return kernel


def _widths(features: int | None, channels: Sequence[int]) -> list[int]:
    """Channels kept a level: proportional, at least one each, `features` in all."""
    if features is None:
        return list(channels)
    ends = [round(features * sum(channels[: i + 1]) / sum(channels)) for i in range(len(channels))]
    return [max(1, b - a) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def _check(params: PadimParams, shapes: Sequence[LevelShape]) -> None:
    total = sum(c for c, _, _ in shapes)
    if not shapes:
        raise ConfigError("padim: expected at least one level of the backbone, found none")
    if params.features is not None and not len(shapes) <= params.features <= total:
        raise ConfigError(f"padim: features must be between {len(shapes)} and the backbone's {total} channels, found {params.features}")
    if params.shrinkage != "ledoit_wolf" and (isinstance(params.shrinkage, str) or params.shrinkage < 0):
        raise ConfigError(f'padim: shrinkage must be "ledoit_wolf" or a number from 0 up, found {params.shrinkage!r}')
    if params.top_k < 1 or params.smooth < 0:
        raise ConfigError(f"padim: top_k must be at least 1 and smooth at least 0, found {params.top_k} and {params.smooth}")
    if params.context < 0:
        raise ConfigError(f"padim: context must be at least 0, found {params.context}")
    if params.neighbourhood < 1 or params.neighbourhood % 2 == 0 or not 0 < params.components <= 1:
        raise ConfigError(
            f"padim: neighbourhood must be odd and components in (0, 1], found {params.neighbourhood} and {params.components}"
        )
