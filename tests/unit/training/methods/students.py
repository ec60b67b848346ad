"""What tests of the methods share in which a student learns from a teacher: good and bad photographs, and how it is taught."""

from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch

from training.core.learn import Pictures, Schedule, learn
from training.methods.efficientad import EfficientadNetwork
from training.methods.stfpm import StfpmNetwork

SIDE = 64
_N = TypeVar("_N", EfficientadNetwork, StfpmNetwork)


def photographs(n: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """(n, 64, 64, 3): a pattern that lies a little differently in each, with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    images = [120 + 60 * np.sin((x + rng.integers(3)) / 4) + 20 * np.cos(y / 6) + rng.normal(0, 4, (SIDE, SIDE)) for _ in range(n)]
    return np.repeat(np.stack(images).clip(0, 255).astype(np.uint8)[..., None], 3, axis=3)


def defective() -> npt.NDArray[np.uint8]:
    """(6, 64, 64, 3): with a white scratch in rows 36 to 48 and columns 34 to 50."""
    images = photographs(6, 2)
    for image in images:
        cv2.line(image, (34, 36), (50, 48), (255, 255, 255), 3)
    return images


def pictures(n: int, seed: int = 0) -> Pictures:
    return Pictures(photographs(n, seed), np.arange(n))


def teach(network: _N, good: Pictures) -> _N:
    """The network after it has learnt, which halved its loss at least and left its teacher as it was."""
    before = {k: v.clone() for k, v in network.teacher.state_dict().items()}
    task = network.task(good, pictures(6, 1), 0)
    with torch.no_grad():
        first = task.validate()
    assert learn(task, Schedule(), 0).best < 0.5 * first
    assert all(torch.equal(v, before[k]) for k, v in network.teacher.state_dict().items()), "the teacher learnt"
    return network.requires_grad_(False)


def maps(network: EfficientadNetwork | StfpmNetwork, images: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
    with torch.inference_mode():
        return [level.numpy() for level in network(torch.from_numpy(images))]
