"""A method: how many standard deviations each place lies from the mean good part."""

from dataclasses import dataclass

import torch

from training.core.base import Head, silent
from training.methods.table import Method


@dataclass(frozen=True)
class SpreadParams:
    least: float = 0.05  # below which a feature's own spread is not believed


class SpreadHead(Head):
    def __init__(self, params, level_shapes):
        super().__init__()
        self.params, self.shape, self.grid_hw = params, level_shapes[0], level_shapes[0][1:]
        for name in ("mean", "scale", "valid"):
            self.register_buffer(name, torch.zeros(1, *((1, *self.grid_hw) if name == "valid" else self.shape)))

    def fit(self, features, valid, seed, progress=silent):
        level = torch.from_numpy(features.levels[0][features.rows])
        self.mean.copy_(level.mean(0, keepdim=True))
        self.scale.copy_(1 / (level.std(0, keepdim=True) + self.params.least))
        self.valid.copy_(torch.from_numpy(valid))

    def forward(self, levels):
        grid = ((levels[0] - self.mean) * self.scale).square().mean(1, keepdim=True).sqrt() * self.valid
        return grid.flatten(1).amax(1), grid

    def memory_bytes(self, n_images):
        return 16 * n_images * self.mean.numel()


SPREAD = Method(SpreadParams, SpreadHead, {"fast": ((16,), SpreadParams())})
