"""Greedy k-centre selection: the few points that leave no other point far away (the coreset of PatchCore, section 3.2)."""

import torch
from torch import Tensor

from training.core.base import Progress, silent

_BLOCK_NUMBERS = 4_000_000
"""Largest block of distances held at once: 16 MB."""


def greedy_coreset(
    points: Tensor, count: int, seed: int, progress: Progress = silent, pool: int = 8192, nearest: Tensor | None = None
) -> Tensor:
    """Pick `count` rows of `points` one after the other, each time the row farthest from all rows picked so far.

    Roth et al. 2022, algorithm 1, after Sener and Savarese 2018. This is the exact greedy order, not an approximation of it, yet it
    reads the points tens of times instead of `count` times: a round takes the `pool` farthest rows and plays greedy on those alone. A
    distance to the nearest pick only ever falls, so as long as the farthest row of the pool is farther than every row outside the
    pool was when the round began, it is the farthest of all. Then one matrix product brings all rows up to date.

    Args:
        points: (n, d) float32, best centred, since distances are formed as |a|^2 - 2ab + |b|^2.
        count: how many to pick, at most n.
        seed: draws the first pick.
        progress: told after each round.
        pool: rows that a round plays on; changes the time, never the picks (ties and rounding aside).
        nearest: (n,) squared distance of each row to the nearest of picks that were made elsewhere, which these continue; None: there are
            none, and the first pick is drawn.

    Returns:
        (count,) int64 row numbers in the order of picking.
    """
    n = len(points)
    if not 0 < count <= n:
        raise ValueError(f"greedy_coreset: expected a count in 1..{n}, found {count}")
    pool = min(pool, n)
    square = points.square().sum(1)
    picks = torch.empty(count, dtype=torch.int64)
    done, told = 0, 0
    if nearest is None:
        picks[0] = int(torch.randint(n, (1,), generator=torch.Generator().manual_seed(seed)))
        done = 1
    nearest = torch.full((n,), torch.inf) if nearest is None else nearest.clone()
    while True:
        _lower(nearest, points, square, picks[told:done])
        told = done
        progress("coreset", done, count)
        if done == count:
            return picks
        far, rows = torch.topk(nearest, pool)
        edge = float(far[-1]) if pool < n else -1.0
        held, held_square = points[rows], square[rows]
        while done < count:
            distance, at = torch.max(far, 0)
            if float(distance) < edge:
                break
            picks[done] = rows[at]
            done += 1
            gap = torch.addmv(held_square, held, held[at], alpha=-2.0).add_(held_square[at]).clamp_(min=0)
            torch.minimum(far, gap, out=far)
            far[at] = -1.0  # a picked row is never picked again, even among duplicates


def _lower(nearest: Tensor, points: Tensor, square: Tensor, picks: Tensor) -> None:
    """Bring `nearest`, the squared distance of each row to its nearest pick, up to date with new picks, in place."""
    if not len(picks):
        return
    centres, centre_square = points[picks].T.contiguous(), square[picks]
    block = max(256, _BLOCK_NUMBERS // max(len(picks), 1))
    for start in range(0, len(points), block):
        part = slice(start, start + block)
        gap = torch.addmm(centre_square, points[part], centres, alpha=-2.0).amin(1).add_(square[part]).clamp_(min=0)
        torch.minimum(nearest[part], gap, out=nearest[part])
    nearest[picks] = -1.0
