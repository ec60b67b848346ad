"""Autoencoder: a bottleneck that has only learnt to redraw good parts redraws a defect badly. Included as the baseline that it is.

Bergmann et al., "Improving Unsupervised Defect Segmentation by Applying Structural Similarity to Autoencoders", 2019 (arXiv 1807.02011);
its variational form, Kingma & Welling, "Auto-Encoding Variational Bayes", 2014 (arXiv 1312.6114).

It needs no pretrained backbone. What is redrawn is the picture minus the mean good picture, so that learning begins where the comparison
with that mean already stands. Image AUROC after 250 steps: solar cells 0.906 (mean picture alone 0.89), magnetic tiles, whose grain no
two parts share, 0.61.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_runtime.errors import ConfigError, DataError
from training.core.backbones import BackboneSpec
from training.core.base import Features, Head, LevelShape, Progress, silent
from training.core.checkpoint import Checkpoint
from training.core.learn import Network, Pictures, Task, device

WINDOW = 11
"""Side of SSIM's window, in pixels (section 4.1; box-shaped here, which costs a tenth of a Gaussian one)."""
_C1, _C2 = 0.01**2, 0.03**2
_HALVINGS = 4
_CELL = 4
"""Redrawn pixels, squared, that one cell of the map averages."""
_PRIOR = 5
_LEAST = 1e-3  # an error below this is none: about a quarter of a grey level
_BATCH = 16


@dataclass(frozen=True, slots=True)
class AutoencoderParams:
    """What a user may choose; stored as JSON beside the weights."""

    variational: bool = False
    """Learn a distribution of codes (its mean is used on the device) instead of codes."""
    latent: int = 128
    """Numbers that the whole picture has to pass through."""
    width: int = 32
    """Channels of the outer layers; the inner ones have twice as many."""
    shrink: int = 2
    """The picture is averaged over so many pixels squared first: time falls with the square of it, and so does what can be seen."""
    l1: float = 1.0
    """Weight of the absolute difference beside 1 - SSIM in the loss."""
    kl: float = 1e-4
    """Weight of the divergence from a standard normal in the loss of the variational form."""
    steps: int = 600
    batch: int = 8
    rate: float = 2e-3
    """Peak of Adam's learning rate."""
    top_k: int = 5
    """The image's score is the mean of this many largest cells."""


PRESETS: Mapping[str, tuple[tuple[int, ...], AutoencoderParams]] = {
    "fast": ((16,), AutoencoderParams()),
}
"""Name -> (strides, which it has no use for, and parameters)."""


class AutoencoderNetwork(Network):
    """Strided convolutions down to a code of `latent` numbers, nearest-neighbour enlarging and convolutions back up."""

    mean: Tensor

    def __init__(self, params: AutoencoderParams, spec: BackboneSpec, size_hw: tuple[int, int]) -> None:
        """`spec` is not looked at: there is no backbone. Raises ConfigError for parameters that do not fit the input."""
        super().__init__()
        _check(params, size_hw)
        self.params = params
        self.sizes = [(size_hw[0] // params.shrink, size_hw[1] // params.shrink)]
        for _ in range(_HALVINGS):
            self.sizes.append(((self.sizes[-1][0] + 1) // 2, (self.sizes[-1][1] + 1) // 2))
        widths = [3, params.width, params.width, 2 * params.width, 2 * params.width]
        self.inner = (widths[-1], *self.sizes[-1])
        flat = self.inner[0] * self.inner[1] * self.inner[2]
        self.encoder = nn.Sequential(*(_block(a, b, 2) for a, b in pairwise(widths)), nn.Flatten())
        self.squeeze = nn.Linear(flat, params.latent * (2 if params.variational else 1))
        self.expand = nn.Linear(params.latent, flat)
        self.decoder = nn.ModuleList(_block(b, a, 1) for a, b in reversed(list(pairwise(widths[1:]))))
        self.last = nn.Conv2d(params.width, 3, 3, padding=1)
        self.register_buffer("mean", torch.full((1, 3, *self.sizes[0]), 0.5))

    def start(
        self, weights: Path | None, good: Pictures, seed: int, progress: Progress = silent, *,
        minutes: float | None = None, resumed: bool = False, checkpoint: Checkpoint | None = None,
    ) -> None:  # fmt: skip
        """Random weights, and the mean good picture."""
        if weights is not None:
            raise DataError(f"autoencoder: learns from nothing but your images and has no use for the weights {weights}; leave them out")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                    module.reset_parameters()
        total = torch.zeros_like(self.mean, dtype=torch.float64)
        done = 0
        for batch in good.batches(_BATCH):
            total += self.scale(batch).double().sum(0, keepdim=True)
            done += len(batch)
            progress("mean picture", done, len(good))
        self.mean.copy_(total / done)

    def scale(self, image: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 -> (N, 3, h, w) 0..1, shrunk: what is redrawn."""
        x = image.permute(0, 3, 1, 2).float() / 255
        return x if self.params.shrink == 1 else F.avg_pool2d(x, self.params.shrink)

    def encode(self, x: Tensor) -> Tensor:
        """(N, 3, h, w) -> (N, latent) codes; of the variational form (N, 2 latent), means and logarithms of variances."""
        code: Tensor = self.squeeze(self.encoder(x - self.mean))
        return code

    def decode(self, code: Tensor) -> Tensor:
        """(N, latent) -> (N, 3, h, w)."""
        y = self.expand(code).view(-1, *self.inner)
        for block, hw in zip(self.decoder, self.sizes[-2:0:-1], strict=True):
            y = block(F.interpolate(y, size=hw, mode="nearest"))
        drawn: Tensor = self.mean + self.last(F.interpolate(y, size=self.sizes[0], mode="nearest"))
        return drawn

    def features(self, image: Tensor) -> list[Tensor]:
        """(N, H, W, 3) uint8 BGR -> [picture, as redrawn], (N, 3, h, w) each."""
        x = self.scale(image)
        return [x, self.decode(self.encode(x)[:, : self.params.latent])]

    def compare(self, features: Sequence[Tensor]) -> list[Tensor]:
        """-> [mean absolute difference, mean 1 - SSIM], (N, 1, gh, gw) each."""
        x, y = features
        errors = (x - y).abs(), 1 - ssim(x, y)
        return [F.avg_pool2d(e.mean(1, keepdim=True), _CELL, ceil_mode=True) for e in errors]

    def task(self, good: Pictures, held_out: Pictures, seed: int) -> Task:
        """Redraw good pictures."""
        return AutoencoderTask(self.to(device()), good, held_out)


class AutoencoderTask(Task):
    """Mean of 1 - SSIM and of the weighted absolute difference, over all pixels."""

    check_every = 50

    def __init__(self, network: AutoencoderNetwork, good: Pictures, held_out: Pictures) -> None:
        self.network, self.module = network, network
        self.good, self.held_out = good, held_out
        self.steps = network.params.steps

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.network.parameters(), lr=self.network.params.rate)

    def loss(self, rng: np.random.Generator) -> Tensor:
        """The loss of one batch; of the variational form with a drawn code and the divergence (Kingma & Welling, equation 10)."""
        network, params = self.network.train(), self.network.params
        x = network.scale(self.good.draw(params.batch, rng).to(network.mean.device))
        code = network.encode(x)
        if not params.variational:
            return self._distance(x, network.decode(code))
        mean, logvar = code.chunk(2, 1)
        noise = torch.from_numpy(rng.standard_normal(tuple(mean.shape), dtype=np.float32)).to(mean)
        divergence = -0.5 * (1 + logvar - mean.square() - logvar.exp()).sum(1).mean()
        return self._distance(x, network.decode(mean + noise * (0.5 * logvar).exp())) + params.kl * divergence

    def validate(self) -> float:
        """The same distance, without noise or divergence: what the device will see."""
        network = self.network.eval()
        total = 0.0
        for batch in self.held_out.batches(_BATCH):
            x, y = network.features(batch.to(network.mean.device))
            total += float(self._distance(x, y)) * len(batch)
        return total / len(self.held_out)

    def _distance(self, x: Tensor, y: Tensor) -> Tensor:
        return (1 - ssim(x, y)).mean() + self.network.params.l1 * (x - y).abs().mean()


class AutoencoderHead(Head):
    """How many standard deviations an error lies above what good parts show at that place, as the root of both kinds' squares.

    In logarithms, whose spread is alike at quiet and at busy places and which few images suffice for. Solar cells, mono, 82 held-out
    images: image AUROC 0.908, of plain errors 0.913; with 8 of them 0.920 against 0.890, with 2 0.850 against 0.801. Without regard
    to the place 0.77.
    """

    valid: Tensor
    top_weight: Tensor

    def __init__(self, params: AutoencoderParams, level_shapes: Sequence[LevelShape]) -> None:
        """`level_shapes`: (1, gh, gw) for each kind of error. Raises ConfigError."""
        super().__init__()
        if params.top_k < 1:
            raise ConfigError(f"autoencoder: expected top_k to be at least 1, found {params.top_k}")
        self.params = params
        self.level_shapes = tuple(level_shapes)
        self.grid_hw = self.level_shapes[0][1:]
        for i in range(len(self.level_shapes)):
            self.register_buffer(f"usual_{i}", torch.zeros(1, 1, *self.grid_hw))
            self.register_buffer(f"scale_{i}", torch.ones(1, 1, *self.grid_hw))
        self.register_buffer("valid", torch.ones(1, 1, *self.grid_hw))
        self.register_buffer("top_weight", torch.tensor(1.0 / self._top(self.grid_hw[0] * self.grid_hw[1])))

    def _top(self, cells: int) -> int:
        return min(self.params.top_k, cells)

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(N, 1, gh, gw) errors -> score (N,), map (N, 1, gh, gw)."""
        grid = torch.zeros(1)
        for i, level in enumerate(levels):
            grid = grid + F.relu((_log(level) - self.get_buffer(f"usual_{i}")) * self.get_buffer(f"scale_{i}")).square()
        grid = grid.sqrt() * self.valid
        top = torch.topk(grid.flatten(1), self._top(self.grid_hw[0] * self.grid_hw[1]), dim=1).values
        return top.sum(1) * self.top_weight, grid

    def fit(self, features: Features, valid: npt.NDArray[np.bool_], seed: int, progress: Progress = silent) -> None:
        """Mean and variance of each place's error over good images that were not learnt from. See `Head.fit`.

        Both are drawn towards those of the whole picture, as if that had been seen on _PRIOR further images: a place's own are known badly
        from few. Raises DataError without images or without a valid position.
        """
        if valid.shape != self.grid_hw or not valid.any() or not len(features):
            raise DataError(
                f"autoencoder: expected a good image and a mask {self.grid_hw} with a valid position, found {len(features)} images and"
                f" {int(valid.sum())} positions of {valid.shape}"
            )
        n = len(features)
        inside = torch.from_numpy(np.ascontiguousarray(valid))
        for i, level in enumerate(features.levels):
            errors = _log(torch.from_numpy(np.ascontiguousarray(level[features.rows]))).double()[:, 0]
            mean = (errors.sum(0) + _PRIOR * errors[:, inside].mean()) / (n + _PRIOR)
            square = (errors - mean).square()
            variance = (square.sum(0) + _PRIOR * square[:, inside].mean()) / (n + _PRIOR) + 1e-12
            self.get_buffer(f"usual_{i}").copy_(mean[None, None])
            self.get_buffer(f"scale_{i}").copy_(variance.rsqrt()[None, None])
            progress("usual errors", i + 1, len(features.levels))
        self.valid.copy_(inside[None, None])
        self.top_weight.fill_(1.0 / self._top(int(valid.sum())))

    def memory_bytes(self, n_images: int) -> int:
        """The errors, and a few copies of one kind in float64."""
        return (
            sum(n_images * h * w for _, h, w in self.level_shapes) * 4 + 3 * 8 * n_images * self.grid_hw[0] * self.grid_hw[1] + 10_000_000
        )


def _log(errors: Tensor) -> Tensor:
    return torch.log(errors.clamp_min(0) + _LEAST)


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity around each pixel of two (N, C, h, w), values 0..1 (equation 3): 1 where alike, down to -1."""
    mx, my = _around(x), _around(y)
    vx, vy, covariance = _around(x * x) - mx * mx, _around(y * y) - my * my, _around(x * y) - mx * my
    return (2 * mx * my + _C1) * (2 * covariance + _C2) / ((mx * mx + my * my + _C1) * (vx + vy + _C2))


def _around(x: Tensor) -> Tensor:
    """Mean over the window; by rows and columns, which is five times faster."""
    rows = F.avg_pool2d(x, (WINDOW, 1), 1, (WINDOW // 2, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, WINDOW), 1, (0, WINDOW // 2), count_include_pad=False)


def _block(incoming: int, outgoing: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(incoming, outgoing, 3, stride, 1, bias=False), nn.BatchNorm2d(outgoing), nn.ReLU())


def _check(params: AutoencoderParams, size_hw: tuple[int, int]) -> None:
    for name in ("latent", "width", "shrink", "steps", "batch", "rate"):
        if not getattr(params, name) > 0:
            raise ConfigError(f"autoencoder: expected {name} to be above 0, found {getattr(params, name)}")
    if params.l1 < 0 or params.kl < 0:
        raise ConfigError(f"autoencoder: expected l1 and kl to be at least 0, found {params.l1} and {params.kl}")
    least = params.shrink * 2**_HALVINGS
    if min(size_hw) < least:
        raise ConfigError(f"autoencoder: expected an input of at least {least}x{least} pixels, found {size_hw[0]}x{size_hw[1]}")
