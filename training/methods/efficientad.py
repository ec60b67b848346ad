"""EfficientAD: a student repeats a patch description network on good images, and an autoencoder watches what the parts are together.

Batzner et al., "EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies", 2024 (arXiv 2303.14535).
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_runtime.errors import ConfigError, DataError
from training.core.backbones import BackboneSpec, build_backbone
from training.core.base import Features, Head, LevelShape, Progress, silent, usual
from training.core.checkpoint import Checkpoint
from training.core.learn import Network, Pictures, Schedule, Task, device, seeded
from training.methods.distil import (
    STRIDES,
    WIDTHS,
    Pdn,
    PdnSpec,
    as_input,
    channel_statistics,
    load_teacher,
    make_teacher,
    normalised,
    pictures_below,
)
from training.pictures.variety import varied

_MOST_UNSEEN = 32
"""Held-out images of one validation."""
_MEASURED = 64
"""Good images from which the teacher's channels take their mean and deviation."""
_AROUND = 5
"""Rows and columns of the cells around a place, over which its mean is taken."""
_IGNORANT = 0.3
"""Share of its variance that a teacher may miss without a word."""
_HARD = 0.999
"""Share of a batch's squared differences that the hard-feature loss leaves out (section 3.2, p_hard)."""


@dataclass(frozen=True, slots=True)
class EfficientadParams:
    """What a user may choose; stored as JSON beside the weights."""

    size: str = "small"
    """Patch description network: "small" (the paper's S) or "medium" (M)."""
    channels: int = 128
    """Channels of the teacher; the paper's 384 suit its teacher's teacher, a WideResNet-101."""
    width: float = WIDTHS["small"]
    """Share of the paper's channels inside the networks. Twice as many take nearly four times as long, to learn and on the device."""
    steps: int = 1500
    """In all, where neither time nor patience ends it. The paper takes 70,000, on a GPU."""
    batch: int = 1
    """Pictures a step, as in the paper."""
    rate: float = 1e-3
    """Adam's largest learning rate; it falls as a cosine. The paper's 1e-4 suits its 70,000 steps."""
    distil_steps: int = 3000
    """Steps that make a teacher out of variations of the good images where no file gives one (--weights). Up to 40 % of --minutes."""
    penalty_images: str | None = None
    """Folder of pictures of anything else, on which the student is kept from repeating the teacher (section 3.2); None: none."""
    top_k: int = 1
    """The image's score is the mean of this many largest values of the map (1: the paper's maximum)."""


PRESETS: Mapping[str, tuple[tuple[int, ...], EfficientadParams]] = {
    "fast": (STRIDES, EfficientadParams()),
    "fine": (STRIDES, EfficientadParams(size="medium", width=WIDTHS["medium"])),
}
"""Name -> (levels of the backbone that a teacher is distilled from, parameters): S and M of the paper. Maps have a cell for 4x4 pixels."""


class Autoencoder(nn.Module):
    """(N, 3, H, W) -> (N, channels, H/4, W/4) through 64 numbers a picture (section 3.3; the layers are in the appendix).

    The decoder grows by even factors and stops at the size of the map: the paper's goes over half the picture's size and back, which
    costs more than all the rest of it.
    """

    def __init__(self, channels: int, size_hw: tuple[int, int]) -> None:
        """For pictures of `size_hw`."""
        super().__init__()
        h, w = size_hw
        bottom = (h // 32, w // 32)
        if min(bottom) < 1:
            raise ConfigError(f"efficientad: expected pictures of at least 32x32 pixels, found {h}x{w}")
        widths = (3, 32, 32, 64, 64, 64)
        encoder: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            encoder += [nn.Conv2d(a, b, 4, 2, 1), nn.ReLU()]
        self.encoder = nn.Sequential(*encoder, nn.Conv2d(64, 64, (min(8, bottom[0]), min(8, bottom[1]))))
        self.sizes = tuple((max(1, h // s), max(1, w // s)) for s in (64, 32, 16, 8, 4))
        self.grow = nn.ModuleList(nn.Conv2d(64, 64, 3, padding=1) for _ in self.sizes)
        self.dropout = nn.Dropout(0.2)
        self.last = nn.Conv2d(64, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`x`: see `normalised`."""
        y = self.encoder(x)
        for size, conv in zip(self.sizes, self.grow, strict=True):
            y = self.dropout(F.relu(conv(F.interpolate(y, size=size, mode="bilinear", align_corners=False))))
        out: Tensor = self.last(y)
        return out


class EfficientadNetwork(Network):
    """Teacher, student (twice the channels: one half repeats the teacher, the other the autoencoder), autoencoder."""

    def __init__(self, params: EfficientadParams, backbone: BackboneSpec, size_hw: tuple[int, int]) -> None:
        """`backbone`: what the teacher is distilled from. Raises ConfigError for impossible parameters."""
        super().__init__()
        _check(params)
        self.params, self.backbone, self.size_hw = params, backbone, size_hw
        if size_hw[0] % 4 or size_hw[1] % 4:
            raise ConfigError(f"efficientad: expected a picture size divisible by 4, found {size_hw[0]}x{size_hw[1]}")
        self.spec = PdnSpec(params.size, params.channels, params.width)
        self.teacher = Pdn(self.spec)
        self.student = Pdn(self.spec, 2 * params.channels)
        self.autoencoder = Autoencoder(params.channels, size_hw)
        self.teacher.requires_grad_(False)

    start_share = 0.4

    def start(
        self, weights: Path | None, good: Pictures, seed: int, progress: Progress = silent, *,
        minutes: float | None = None, resumed: bool = False, checkpoint: Checkpoint | None = None,
    ) -> None:  # fmt: skip
        """`weights`: a teacher made by `lineside-train distil`. None: one is distilled from the backbone on variations of the good
        images (see `varied`), in `distil_steps` steps, or in `minutes`."""
        p = self.params
        if weights is not None:
            teacher = load_teacher(weights, self.spec)
        elif resumed:
            teacher = Pdn(self.spec)
        else:
            source = build_backbone(self.backbone.name, STRIDES)
            sundry = Pictures(good.images, good.rows, varied(good.images, good.rows))
            schedule = Schedule(minutes=minutes)
            teacher, outcome = make_teacher(
                self.spec, source, sundry, seed, steps=p.distil_steps, schedule=schedule, checkpoint=checkpoint, progress=progress
            )
            if outcome.best > _IGNORANT:
                self.remark = (
                    f"this teacher, distilled from variations of the good images, misses {100 * outcome.best:.0f} % of what"
                    f" {self.backbone.name} says of them; make a better one with lineside-train distil --images FOLDER --minutes N and"
                    " give it with --weights, or take more --minutes"
                )
        fresh = seeded(lambda: EfficientadNetwork(p, self.backbone, self.size_hw), seed)
        self.load_state_dict(fresh.state_dict())
        self.teacher.load_state_dict(teacher.state_dict())
        self.to(device()).eval()
        # Teacher normalisation (algorithm 1): mean 0 and variance 1 over the good images, put into the last layer.
        some = np.random.default_rng(seed).permutation(good.rows)[:_MEASURED]
        self.teacher.fold(*channel_statistics(self.teacher, Pictures(good.images, some)))

    def features(self, image: Tensor) -> list[Tensor]:
        """Teacher (C), student (2C), autoencoder (C), each on the grid of the map."""
        x = normalised(image)
        return [self.teacher.describe(x), self.student.describe(x), self.autoencoder(x)]

    def compare(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Local and global anomaly map: mean over channels of the squared differences (sections 3.2 and 3.3)."""
        teacher, student, code = features
        c = self.params.channels
        local = (teacher - student[:, :c]).square().mean(1, keepdim=True)
        overall = (code - student[:, c:]).square().mean(1, keepdim=True)
        return [local, overall]

    def task(self, good: Pictures, held_out: Pictures, seed: int) -> Task:
        """Raises DataError for a folder of penalty images that holds none."""
        return _Matching(self, good, held_out)


class _Matching(Task):
    """Algorithm 1 of the appendix: student and autoencoder learn together."""

    def __init__(self, network: EfficientadNetwork, good: Pictures, held_out: Pictures) -> None:
        p = network.params
        self.network, self.module = network, network
        self.good, self.unseen = good, Pictures(held_out.images, held_out.rows[:_MOST_UNSEEN])
        self.steps, self.check_every = p.steps, max(1, p.steps // 15)
        self.others: list[Path] = []
        if p.penalty_images is not None:
            self.others = pictures_below(Path(p.penalty_images))
            if not self.others:
                raise DataError(f"penalty_images: expected pictures in {p.penalty_images}, found none; add some or leave it out")

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam with the paper's weight decay."""
        learnt = [*self.network.student.parameters(), *self.network.autoencoder.parameters()]
        return torch.optim.Adam(learnt, lr=self.network.params.rate, weight_decay=1e-5)

    def loss(self, rng: np.random.Generator) -> Tensor:
        """L_ST + L_AE + L_STAE (sections 3.2 and 3.3)."""
        net, p = self.network, self.network.params
        net.train()
        c = p.channels
        image = self.good.draw(p.batch, rng).to(device())
        with torch.random.fork_rng():
            torch.manual_seed(int(rng.integers(1 << 31)))  # dropout must follow the fit's own generator
            x = normalised(image)
            with torch.no_grad():
                wanted = net.teacher.describe(x)
            gap = (wanted - net.student.describe(x)[:, :c]).square()
            total = _hardest(gap)
            if self.others:
                picture = as_input(self.others[int(rng.integers(len(self.others)))], *net.size_hw)
                other = normalised(torch.from_numpy(picture)[None].to(device()))
                total = total + net.student.describe(other)[:, :c].square().mean()
            varied = normalised(_jitter(image, rng))
            with torch.no_grad():
                wanted = net.teacher.describe(varied)
            code = net.autoencoder(varied)
            student = net.student.describe(varied)[:, c:]
            loss: Tensor = total + F.mse_loss(code, wanted) + F.mse_loss(student, code)
        return loss

    def validate(self) -> float:
        """Mean of both maps over held-out images, and of the autoencoder's own error."""
        net = self.network.eval()
        total = 0.0
        for image in self.unseen.batches(1):
            teacher, student, code = net.features(image.to(device()))
            local, overall = net.compare([teacher, student, code])
            total += float(local.mean() + overall.mean() + F.mse_loss(code, teacher))
        return total / len(self.unseen)


class EfficientadHead(Head):
    """Brings both maps to one scale by quantiles of held-out good images, and averages them.

    Before that each place is divided by what good images show there, which is not the paper's: a student that learnt for minutes repeats
    the rims of parts less well than their middle (magnetic tiles, five minutes of a student: image AUROC 0.75 instead of 0.62).
    """

    def __init__(self, params: EfficientadParams, level_shapes: Sequence[LevelShape]) -> None:
        """`level_shapes`: twice (1, h, w). Raises ConfigError."""
        super().__init__()
        _check(params)
        self.params = params
        self.grid_hw = (level_shapes[0][1], level_shapes[0][2])
        for i in range(2):
            self.register_buffer(f"scale_{i}", torch.ones(1, 1, *self.grid_hw))
        self.register_buffer("valid", torch.ones(1, 1, *self.grid_hw))
        self.register_buffer("top_weight", torch.tensor(1.0 / self._k(self.valid.numel())))

    scale_0: Tensor
    scale_1: Tensor
    valid: Tensor
    top_weight: Tensor

    def _k(self, cells: int) -> int:
        return min(self.params.top_k, cells)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Local and global map, (N, 1, h, w) each -> score (N,), map (N, 1, h, w) = their mean (section 3.4).

        The paper's normalised map is 0.1 (M - q_a) / (q_b - q_a). What is subtracted is the same at every place of every picture, so it is
        left out: raw maps are never negative here.
        """
        grid = (levels[0] * self.scale_0 + levels[1] * self.scale_1) * self.valid
        top = torch.topk(grid.flatten(1), self._k(self.grid_hw[0] * self.grid_hw[1]), dim=1).values
        return top.sum(1) * self.top_weight, grid

    def fit(self, features: Features, valid: npt.NDArray[np.bool_], seed: int, progress: Progress = silent) -> None:
        """Quantiles q_a = 0.9 and q_b = 0.995 of each map over held-out good images (section 3.4), in units of its place.

        See `Head.fit`.
        """
        if len(features) < 1:
            raise DataError("efficientad: expected at least 1 held-out good image, found none; add images")
        if valid.shape != self.grid_hw or not valid.any():
            raise DataError(
                f"efficientad: expected a mask {self.grid_hw} with at least one valid position, found {valid.shape}"
                f" with {int(valid.sum())} positions"
            )
        inside = torch.from_numpy(np.ascontiguousarray(valid)).double()[None]
        for i, level in enumerate(features.levels):
            maps = level[features.rows]
            place = usual(torch.from_numpy(maps.mean(0, dtype=np.float64)), len(maps), _AROUND, inside)
            place = place.clamp_min(max(1e-3 * float(place.mean()), 1e-9))
            low, high = np.quantile((maps / place.numpy())[:, 0, valid], [0.9, 0.995])
            self.get_buffer(f"scale_{i}").copy_((0.5 * 0.1 / max(float(high - low), 1e-6) / place)[None])
            progress("fitting quantiles", i + 1, len(features.levels))
        self.valid.copy_(torch.from_numpy(valid)[None, None])
        self.top_weight.fill_(1.0 / self._k(int(valid.sum())))

    def memory_bytes(self, n_images: int) -> int:
        """The maps, and a copy of one level for its quantiles in float64."""
        return n_images * self.grid_hw[0] * self.grid_hw[1] * (2 * 4 + 4 + 3 * 8) + 20_000_000


def _hardest(gap: Tensor) -> Tensor:
    """Mean of the squared differences that reach their 0.999 quantile (section 3.2)."""
    flat = gap.flatten()
    # torch.quantile refuses more than 16 million values; the k largest are the same.
    return flat.topk(max(1, round((1 - _HARD) * flat.numel()))).values.mean()


def _jitter(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Brightness, contrast or saturation, picked at random, times 0.8..1.2 (algorithm 1): (N, H, W, 3) uint8 -> float, 0..255."""
    x = image.float()
    factor = float(rng.uniform(0.8, 1.2))
    kind = int(rng.integers(3))
    if kind == 0:
        base = torch.zeros_like(x)
    elif kind == 1:
        base = x.mean((1, 2, 3), keepdim=True)
    else:
        base = x.mean(3, keepdim=True)
    return ((x - base) * factor + base).clamp(0, 255)


def _check(params: EfficientadParams) -> None:
    PdnSpec(params.size, params.channels, params.width)
    if min(params.steps, params.batch, params.distil_steps, params.top_k) < 1 or params.rate <= 0:
        raise ConfigError(
            "efficientad: expected steps, batch, distil_steps and top_k of at least 1 and a rate above 0, found"
            f" {params.steps}, {params.batch}, {params.distil_steps}, {params.top_k} and {params.rate}"
        )
