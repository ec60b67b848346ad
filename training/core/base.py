"""What every method is: a head that turns a backbone's features into a score and a map, and that can be refitted."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.core.progress import Progress as Progress
from training.core.progress import silent as silent

LEAST_BAD = 5
"""Real bad images below which a method that needs them is refused."""

LevelShape = tuple[int, int, int]
"""(C, h, w) of one level of the backbone, for one image."""


@dataclass(frozen=True, slots=True)
class Features:
    """Features of N good images, one array a level, possibly a memory map on disk."""

    levels: tuple[npt.NDArray[np.float32], ...]
    """One (N, C, h, w) array a level, finest first."""
    rows: npt.NDArray[np.intp]
    """Which of the N pictures count; all methods go through this, so that a fold copies nothing."""
    views: int = 1
    """Consecutive pictures that one image was cut into (tiles)."""
    copies: int = 0
    """Further pictures of each image, after its own: random variations, learnt from but never scored."""
    images: npt.NDArray[np.intp] | None = None
    """Which images of the arrays there are at all (`only`); None: every one."""

    @classmethod
    def of(cls, levels: Sequence[npt.NDArray[np.float32]], views: int = 1, copies: int = 0) -> "Features":
        """All pictures of `levels`, which come image by image: `views` of its own, then `copies` times as many variations."""
        return cls(tuple(levels), np.arange(len(levels[0])), views, copies)

    @property
    def n_images(self) -> int:
        """How many images a whole set holds, not a subset."""
        return len(self.levels[0]) // (self.views * (1 + self.copies)) if self.images is None else len(self.images)

    def only(self, images: npt.NDArray[np.intp]) -> "Features":
        """As if the other images were not there, with their variations; `images` counts among those that are."""
        kept = images if self.images is None else self.images[images]
        each = self.views * (1 + self.copies)
        return Features(self.levels, (kept[:, None] * each + np.arange(each)).ravel(), self.views, self.copies, kept)

    def of_images(self, images: npt.NDArray[np.intp], *, varied: bool) -> "Features":
        """The pictures of these images, in their order, with their variations or without."""
        each = self.views * (1 + self.copies)
        kept = each if varied else self.views
        images = images if self.images is None else self.images[images]
        return Features(self.levels, (images[:, None] * each + np.arange(kept)).ravel(), self.views, self.copies, self.images)

    def first_copies(self, images: npt.NDArray[np.intp]) -> "Features":
        """The first variation of each of these images, to be scored as pictures of their own."""
        images = images if self.images is None else self.images[images]
        rows = images[:, None] * self.views * (1 + self.copies) + self.views + np.arange(self.views)
        return Features(self.levels, rows.ravel(), self.views, 0, self.images)

    def __len__(self) -> int:
        return len(self.rows)

    def subset(self, picks: npt.NDArray[np.intp]) -> "Features":
        """Only the images at `picks` (positions within this selection)."""
        return Features(self.levels, self.rows[picks], self.views, self.copies, self.images)

    def batches(self, size: int) -> Iterator[list[Tensor]]:
        """Tensors of up to `size` images, one a level."""
        for start in range(0, len(self.rows), size):
            picks = self.rows[start : start + size]
            yield [torch.from_numpy(np.ascontiguousarray(level[picks])) for level in self.levels]


@dataclass(frozen=True, slots=True)
class Outliers:
    """Features of M bad images, for methods that learn from a few of them."""

    features: Features
    """One picture an image."""
    masks: npt.NDArray[np.float32]
    """(M, gh, gw) share of each cell of the map that is defective, 0..1; of an image without a mask all NaN."""
    kinds: tuple[str, ...]
    """(M,) what is wrong with it."""
    synthetic: npt.NDArray[np.bool_]
    """(M,) True for defects that were painted into good images."""

    def __len__(self) -> int:
        return len(self.features)


def usual(mean: Tensor, n: int, size: int, inside: Tensor) -> Tensor:
    """(1, h, w) mean map of `n` good images -> what is usual at each place: the mean over `size` squared cells (odd) that are `inside`.

    `inside`: (1, h, w) 1 or 0, not 0 everywhere. Two images' worth of the mean of all places goes into it, too: few images know a place
    only roughly.
    """
    overall = (mean * inside).sum() / inside.sum()
    pooled, share = (nn.functional.avg_pool2d(x, size, 1, size // 2) for x in ((mean - overall) * inside, inside))
    return overall + n / (n + 2) * pooled / share.clamp_min(1e-6)


class Head(nn.Module):
    """Features in, (score, map) out.

    `forward(levels)`: list of (N, C, h, w) float32, finest first -> score (N,) and map (N, 1, gh, gw), both raw: unbounded,
    larger = more anomalous, at least 0, never normalised. Positions that are not `valid` are 0 in the map and never count in the score.
    All parameters are buffers (nn.Parameters where they are learnt) with fixed shapes, which follow from the constructor's arguments alone,
    so that a saved state can be loaded into a head built from the same arguments, and so that they become named constants in the graph.
    """

    grid_hw: tuple[int, int]
    """Rows and columns of the map."""

    @abstractmethod
    def fit(self, features: Features, valid: npt.NDArray[np.bool_], seed: int, progress: Progress = silent) -> None:
        """Estimate the parameters from good images. Fitting again replaces the earlier fit; the same seed gives the same result.

        `valid`: (gh, gw) positions outside the ignore mask and inside the region of interest.
        Raises DataError when there are fewer images than the method can use.
        """

    def without(
        self, features: Features, valid: npt.NDArray[np.bool_], folds: Sequence[npt.NDArray[np.intp]], seed: int
    ) -> "Iterator[Head] | None":
        """For each of `folds` (positions of images) a head that is fitted on all images but these, in turn; a head of an earlier turn may
        change with the next. None: this method knows no quicker way than to be fitted anew.

        `features`: of whole images, with their variations; `valid`, `seed`: as of `fit`. Call it on a head that is fitted on all of them.
        """
        return None

    @abstractmethod
    def memory_bytes(self, n_images: int) -> int:
        """What fitting on that many images takes at its peak, features included, as stated to the user before it begins."""
