"""What a whole picture looks like, in a few numbers that each of its positions can be judged *given*.

The mean features of the picture are one more, coarsest level in the chain of conditional Gaussians (see `padim`), of a single cell that is
conditioned on and never judged itself. What a batch, a lamp or a variant of the part does to a whole picture is then explained before
its positions are judged.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.methods.gaussian import eigh

IMAGES_A_COMPONENT = 8
"""Good images that each component needs: with fewer, the coefficients of a regression on it follow the noise of single images."""


class Context(nn.Module):
    """(N, C, h, w) features of the coarsest level -> (N, components, 1, 1) whitened principal components of their mean."""

    weight: Tensor
    shift: Tensor
    project: Tensor

    def __init__(self, components: int, level_shape: tuple[int, int, int]) -> None:
        """At most one component a channel."""
        super().__init__()
        c, h, w = level_shape
        self.components = min(components, c)
        self.bears = 0
        self.means: Tensor | None = None  # (N, C) float64, of the pictures that it was fitted on
        self.register_buffer("weight", torch.zeros(1, 1, h, w))
        self.register_buffer("shift", torch.zeros(1, c, 1, 1))
        self.register_buffer("project", torch.zeros(self.components, c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The context of the mean over the valid positions."""
        return F.conv2d((x * self.weight).sum((2, 3), keepdim=True) + self.shift, self.project)

    def fit(self, batches: Iterable[Tensor], valid: npt.NDArray[np.bool_], copies: int) -> Tensor:
        """Good images' features batch by batch -> (N, components) what each gives: of variance 1 or, where images are too few for one, 0.

        `valid`: positions that are inspected, on any grid. `copies`: variations beside each image, which are no further images.
        """
        h, w = self.weight.shape[2:]
        weight = F.adaptive_avg_pool2d(torch.from_numpy(np.ascontiguousarray(valid)).float()[None, None], (h, w))
        self.weight.copy_(weight / weight.sum())
        means = torch.cat([(x * self.weight).sum((2, 3)) for x in batches]).double()
        self.means, self.bears = means, len(means) // (1 + copies) // IMAGES_A_COMPONENT
        return self.refit(torch.arange(len(means)))

    def refit(self, rows: Tensor) -> Tensor:
        """The same on some pictures of the last `fit` alone, without reading their features again: (len(rows), components).

        As many components as all pictures bear: one fewer moves all distances, by a fifth where images are few.
        """
        assert self.means is not None
        means = self.means[rows]
        centre = means.mean(0)
        means = means - centre
        variances, vectors = eigh(means.T @ means / len(means))
        used = min(self.components, self.bears, int((variances > 1e-6 * variances[-1]).sum()))
        project = torch.zeros(self.components, means.shape[1], dtype=torch.float64)
        project[:used] = (vectors / variances.clamp_min(1e-30).sqrt()).flip(1).T[:used]
        self.shift.copy_(-centre[None, :, None, None])
        self.project.copy_(project[:, :, None, None])
        return (means @ project.T).float()


def explained(flat: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """Centred (N, M) numbers of N pictures, (N, q) their context -> what the context does not explain, in place, and the slopes (q, M).

    Its components have variance 1 and mean 0 by construction, so the regression is one product, whatever the scale of the features.
    """
    slope = context.T @ flat / len(flat)
    return flat.addmm_(context, slope, alpha=-1), slope
