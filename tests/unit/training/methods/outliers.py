"""What tests of the methods share that learn from bad images too: features of good ones, and what a head says of features."""

import numpy as np
import numpy.typing as npt
import torch

from training.core.base import Features, Head, LevelShape

SHAPES: list[LevelShape] = [(6, 4, 6), (2, 2, 3)]
Array = npt.NDArray[np.float32]


def good(n: int, seed: int) -> Features:
    rng = np.random.default_rng(seed)
    return Features.of([(rng.normal(size=(n, *shape)) * 2 + 3).astype(np.float32) for shape in SHAPES])


def run(head: Head, features: Features) -> tuple[Array, Array]:
    """Scores (n,) and maps (n, 1, gh, gw)."""
    with torch.no_grad():
        score, score_map = head([torch.from_numpy(level) for level in features.levels])
    return score.numpy(), score_map.numpy()


def rank(head: Head, features: Features) -> float:
    """Share of pairs in which one of these, which are bad, scores above a good one."""
    return float((run(head, features)[0][:, None] > run(head, good(60, 8))[0][None]).mean())
