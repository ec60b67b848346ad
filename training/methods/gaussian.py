"""Gaussians of many positions at once: covariances that few images are enough for, their eigenvectors, and what whitens by them."""

from dataclasses import dataclass

import torch
from torch import Tensor


def ledoit_wolf(x: Tensor) -> tuple[Tensor, Tensor]:
    """(P, N, C) centred samples -> S* = (1 - rho) S + rho mu I in float64 as ((1 - rho) S (P, C, C), rho mu (P,)).

    Ledoit & Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices", lemmas 3.2 to 3.4: each position has its
    own intensity; right also with fewer images than channels.
    """
    n = x.shape[1]
    return shrunk(torch.matmul(x.transpose(1, 2), x).double() / n, quartic(x), n)


def quartic(x: Tensor) -> Tensor:
    """(P, N, C) centred samples -> (P,) float64 mean of their squared lengths, squared: what the intensity of shrinkage follows from."""
    return (x.double() ** 2).sum(2).pow(2).mean(1)


def shrunk(cov: Tensor, quartic: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """As `ledoit_wolf`, from the samples' covariances (P, C, C) in float64, their `quartic` (P,) and their number."""
    c = cov.shape[1]
    mu = cov.diagonal(dim1=1, dim2=2).mean(1)
    fro2 = (cov * cov).sum((1, 2))
    delta2 = (fro2 - c * mu**2).clamp_min(torch.finfo(torch.float64).tiny)
    rho = ((quartic - fro2) / n / delta2).clamp(0, 1)
    return cov * (1 - rho)[:, None, None], rho * mu


def floor(cov: Tensor) -> Tensor:
    """(P, C, C) -> (P,), the least that belongs on a diagonal: a channel that never moves (a dead ReLU, a masked corner) has no variance,
    and its distance must stay finite."""
    return 1e-6 * cov.diagonal(dim1=1, dim2=2).mean(1) + 1e-12


def eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """torch.linalg.eigh of (P, C, C) on one thread.

    Matrices of a hundred channels are too small to share out: on two busy cores, two threads took twenty times as long as one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        values, vectors = torch.linalg.eigh(matrices)
    finally:
        torch.set_num_threads(threads)
    return values, vectors


def inverse_root(x: Tensor, least: float = 1e-12) -> Tensor:
    """(P, N, C) centred samples -> (P, C, C) float32: symmetric inverse square roots of their shrunk covariances.

    `least`: variance below which no direction is believed to be.
    """
    cov, ridge = ledoit_wolf(x)
    cov.diagonal(dim1=1, dim2=2).add_(torch.maximum(ridge, floor(cov))[:, None])
    values, vectors = eigh(cov)
    root: Tensor = (vectors / values.clamp_min(least)[:, None].sqrt()) @ vectors.transpose(1, 2)
    return root.float()


@dataclass(frozen=True)
class Moments:
    """The moments of one level's cells about `guess`."""

    count: int
    total: Tensor
    """(C,) float64."""
    square: Tensor
    """(C, C) float64."""
    guess: Tensor
    """(C,)"""


def whiten(x: Tensor, kept: int, rank: int, shrinkage: str | float) -> Tensor:
    """(P, N, C) centred samples -> (P, rank, C): `rank` components of least variance of the first `kept` channels given the others.

    Own channels a, others b: the residual a - S_ab S_bb^-1 b has covariance S_aa - S_ab S_bb^-1 S_ba (the Schur complement).
    """
    if isinstance(shrinkage, str):
        cov, ridge = ledoit_wolf(x)
    else:
        cov = torch.matmul(x.transpose(1, 2), x).double() / x.shape[1]
        ridge = torch.full((len(cov),), float(shrinkage), dtype=torch.float64)
    return factors(cov, ridge, kept, rank)


def factors(cov: Tensor, ridge: Tensor, kept: int, rank: int) -> Tensor:
    """(P, C, C) covariances in float64, (P,) what is added to their diagonals -> (P, rank, C), see `whiten`."""
    c = cov.shape[1]
    cov.diagonal(dim1=1, dim2=2).add_(torch.maximum(ridge, floor(cov))[:, None])
    own, cross, others = cov[:, :kept, :kept], cov[:, :kept, kept:], cov[:, kept:, kept:]
    residual = torch.eye(kept, dtype=torch.float64).expand(len(cov), -1, -1)
    if c > kept:
        slope = torch.cholesky_solve(cross.transpose(1, 2), torch.linalg.cholesky(others)).transpose(1, 2)
        own = own - slope @ cross.transpose(1, 2)
        residual = torch.cat([residual, -slope], 2)
    variances, vectors = eigh(own)  # ascending
    directions = vectors[:, :, :rank].transpose(1, 2) / variances[:, :rank, None].sqrt()
    whitening: Tensor = directions @ residual
    return whitening.float()
