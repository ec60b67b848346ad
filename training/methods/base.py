"""What every method is: a head that turns a backbone's features into a score and a map, and that can be refitted."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

LevelShape = tuple[int, int, int]
"""(C, h, w) of one level of the backbone, for one image."""

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""


def silent(what: str, done: int, total: int) -> None:
    """A Progress that says nothing."""


@dataclass(frozen=True, slots=True)
class Features:
    """Features of N good images, one array a level, possibly a memory map on disk."""

    levels: tuple[npt.NDArray[np.float32], ...]
    """One (N, C, h, w) array a level, finest first."""
    rows: npt.NDArray[np.intp]
    """Which of the N images count; all methods go through this, so that a fold copies nothing."""

    @classmethod
    def of(cls, levels: Sequence[npt.NDArray[np.float32]]) -> "Features":
        """All images of `levels`."""
        return cls(tuple(levels), np.arange(len(levels[0])))

    def __len__(self) -> int:
        return len(self.rows)

    def subset(self, picks: npt.NDArray[np.intp]) -> "Features":
        """Only the images at `picks` (positions within this selection)."""
        return Features(self.levels, self.rows[picks])

    def batches(self, size: int) -> Iterator[list[Tensor]]:
        """Tensors of up to `size` images, one a level."""
        for start in range(0, len(self.rows), size):
            picks = self.rows[start : start + size]
            yield [torch.from_numpy(np.ascontiguousarray(level[picks])) for level in self.levels]


class Head(nn.Module):
    """Features in, (score, map) out.

    `forward(levels)`: list of (N, C, h, w) float32, finest first -> score (N,) and map (N, 1, gh, gw), both raw: unbounded,
    larger = more anomalous, at least 0, never normalised. Positions that are not `valid` are 0 in the map and never count in the score.
    All parameters are buffers with fixed shapes (they follow from the constructor's arguments alone), so that a saved
    state can be loaded into a head built from the same arguments, and so that they become named constants in the graph.
    """

    grid_hw: tuple[int, int]
    """Rows and columns of the map."""

    @abstractmethod
    def fit(self, features: Features, valid: npt.NDArray[np.bool_], seed: int, progress: Progress = silent) -> None:
        """Estimate the parameters from good images. Fitting again replaces the earlier fit; the same seed gives the same result.

        `valid`: (gh, gw) positions outside the ignore mask and inside the region of interest.
        Raises DataError when there are fewer images than the method can use.
        """

    @abstractmethod
    def memory_bytes(self, n_images: int) -> int:
        """What fitting on that many images takes at its peak, features included, as stated to the user before it begins."""
