"""Learning from a few bad images beside many good ones: what is drawn, what is held back, and how both are weighed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edge_runtime.errors import ConfigError, DataError
from training.core.base import Features, LevelShape, Outliers
from training.core.learn import Task
from training.methods.whitened import BATCH, WhitenedHead, drawn

ENOUGH = 10
"""Bad images of one sort (real, painted) from which on a fifth of them is held back to end the learning by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposedParams:
    """What a user may choose of any such method."""

    context: int = 0
    """Principal components of the picture's mean features that every position is judged given, as in PaDiM; 0 for none."""
    hidden: int = 32
    """Width of the learnt net."""
    top_k: int = 5
    """Cells of highest score whose mean is the image's."""
    dropout: float = 0.3
    """Share of the channels that a step of the learning does not see."""
    rate: float = 1e-3
    """Peak learning rate."""
    decay: float = 1e-2
    """Weight decay."""
    batch: int = 24
    """Images a step, half of them bad."""
    steps: int = 400
    """Steps in all, where neither time nor patience ends it."""

    def check(self, name: str) -> None:
        """Raises ConfigError for impossible values."""
        if self.hidden < 1 or not 0 <= self.dropout < 1:
            raise ConfigError(
                f"{name}: expected hidden of at least 1 and dropout of 0 up to below 1, found {self.hidden} and {self.dropout}"
            )
        if self.rate <= 0 or self.decay < 0 or self.batch < 2 or self.steps < 1:
            raise ConfigError(
                f"{name}: expected rate above 0, decay of at least 0, batch of at least 2 and steps of at least 1, found {self.rate},"
                f" {self.decay}, {self.batch} and {self.steps}"
            )


@dataclass(frozen=True, slots=True)
class Batch:
    """Features, and what is known of them."""

    levels: list[Tensor]
    """(n, C, h, w) each."""
    bad: Tensor
    """(n,) bool."""
    defect: Tensor
    """(n, 1, gh, gw) share of each cell that is defective: 0 for good images, NaN for bad ones without a mask."""


class Exposure:
    """Good and bad images for learning (half of each batch is bad), and others to end it by.

    Few real defects would drown among many painted ones, so where both are there each sort is half of what is drawn. With fewer than ENOUGH
    of a sort nothing is held back of it: the ones learnt from are then looked at again, next to held-out good ones. Without any bad image
    there, a map of nothing but zeros would look best.
    """

    def __init__(self, name: str, features: Features, held_out: Features, outliers: Outliers, grid_hw: tuple[int, int], seed: int) -> None:
        """Raises DataError for sets that are empty or do not fit together."""
        if not len(held_out):
            raise DataError(f"{name}: expected at least 1 held-out good image to end the learning by, found none; add images")
        if not len(outliers):
            raise DataError(f"{name}: expected bad images or synthetic defects to learn from, found none")
        if outliers.masks.shape != (len(outliers), *grid_hw):
            raise DataError(f"{name}: expected masks of shape {(len(outliers), *grid_hw)} for the bad images, found {outliers.masks.shape}")
        shapes: list[LevelShape] = [level.shape[1:] for level in features.levels]
        found = [level.shape[1:] for level in outliers.features.levels]
        if found != shapes:
            raise DataError(f"{name}: expected features of shape {shapes} for the bad images, found {found}")
        self.features, self.held_out, self.outliers = features, held_out, outliers
        rng = np.random.default_rng(seed)
        self.learn: list[npt.NDArray[np.intp]] = []
        """Positions of the bad images that are learnt from, a sort each."""
        held: list[npt.NDArray[np.intp]] = []
        for sort in (np.flatnonzero(~outliers.synthetic), np.flatnonzero(outliers.synthetic)):
            if not len(sort):
                continue
            order = rng.permutation(sort)
            keep = len(sort) // 5 if len(sort) >= ENOUGH else 0
            self.learn.append(np.sort(order[keep:]))
            held.append(np.sort(order[:keep] if keep else order))
        self.looked_at = np.concatenate(held)
        """Positions of the bad images that end the learning."""

    def draw(self, size: int, rng: np.random.Generator) -> Batch:
        """`size` pictures, half of them bad, with replacement."""
        n_bad = max(1, size // 2)
        good = drawn(self.features, rng.integers(len(self.features), size=max(1, size - n_bad)))
        sorts = rng.integers(len(self.learn), size=n_bad)
        return self._joined(good, np.array([rng.choice(self.learn[sort]) for sort in sorts], np.intp))

    def held(self) -> Iterator[Batch]:
        """All held-out good images, then all bad ones that are looked at."""
        blank = torch.zeros(1, 1, *self.outliers.masks.shape[1:])
        for levels in self.held_out.batches(BATCH):
            n = len(levels[0])
            yield Batch(levels, torch.zeros(n, dtype=torch.bool), blank.expand(n, -1, -1, -1))
        for start in range(0, len(self.looked_at), BATCH):
            picks = self.looked_at[start : start + BATCH]
            yield Batch(drawn(self.outliers.features, picks), torch.ones(len(picks), dtype=torch.bool), self._masks(picks))

    def _joined(self, good: list[Tensor], picks: npt.NDArray[np.intp]) -> Batch:
        n_good, masks = len(good[0]), self._masks(picks)
        levels = [torch.cat(pair) for pair in zip(good, drawn(self.outliers.features, picks), strict=True)]
        return Batch(levels, torch.arange(n_good + len(picks)) >= n_good, torch.cat([torch.zeros(n_good, *masks.shape[1:]), masks]))

    def _masks(self, picks: npt.NDArray[np.intp]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.outliers.masks[picks]))[:, None]


class ExposedTask(Task):
    """What the losses of these methods share."""

    check_every = 40

    def __init__(self, head: WhitenedHead, params: ExposedParams, exposure: Exposure) -> None:
        self.module, self.params, self.exposure = head, params, exposure
        self.steps = params.steps

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.module.parameters(), lr=self.params.rate, weight_decay=self.params.decay)


class Scorer(nn.Module):
    """What is learnt: (N, C, h, w) -> (N, 1, h, w), from each cell and its neighbours."""

    def __init__(self, channels: int, hidden: int, first: float) -> None:
        """`first`: what it says everywhere before it has learnt."""
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.LeakyReLU(0.1),
        )
        self.out = nn.Conv2d(hidden, 1, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.constant_(self.out.bias, first)  # type: ignore[arg-type]  # it has one

    def forward(self, x: Tensor) -> Tensor:
        """One number a cell."""
        found: Tensor = self.out(self.body(x))
        return found


def hidden_in_part(z: Tensor, dropout: float, rng: np.random.Generator) -> Tensor:
    """`z` (N, C, h, w) without a share of its channels, others for each image, and the rest larger to make up for it.

    It keeps what is learnt from resting on the few channels in which a few bad images differ.
    """
    kept = rng.random(z.shape[:2]) >= dropout
    return z * torch.from_numpy((kept / (1 - dropout)).astype(np.float32))[:, :, None, None]
