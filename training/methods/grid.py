"""Levels of different coarseness on one grid, and a matrix of its own for each position of it."""

import torch
from torch import Tensor, nn


def each_position(x: Tensor, weight: Tensor, positions: int, rank: int) -> Tensor:
    """(N, C, h, w), (P*rank, C, 1, 1) -> (N, rank, P): every position times its own matrix.

    A grouped convolution rather than a batched product: OpenVINO packs its weights once, at load.
    """
    columns = x.permute(0, 2, 3, 1).reshape(-1, positions * weight.shape[1], 1, 1)
    return nn.functional.conv2d(columns, weight, groups=positions).reshape(-1, positions, rank).transpose(1, 2)


def nearest(source: int, target: int) -> Tensor:
    """For each of `target` cells, the one of `source` cells that lies under it."""
    return torch.arange(target) * source // target


def repeat(x: Tensor, source_hw: tuple[int, int], target_hw: tuple[int, int]) -> Tensor:
    """(N, C, *source_hw) -> (N, C, *target_hw), each cell repeated over the finer cells above it."""
    (hs, ws), (ht, wt) = source_hw, target_hw
    if source_hw == target_hw:
        return x
    if ht % hs == 0 and wt % ws == 0:
        return nn.functional.interpolate(x, size=target_hw, mode="nearest")
    return x.index_select(2, nearest(hs, ht)).index_select(3, nearest(ws, wt))
