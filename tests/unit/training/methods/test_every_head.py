"""What every head keeps to, whatever its method: also on good images that are all the same, as few as there may be."""

import dataclasses

import numpy as np
import pytest
import torch

from training.core.base import Features, Outliers
from training.core.learn import Schedule, TrainedHead, learn
from training.methods.table import METHODS

MAPS = {"stfpm": [(1, 8, 8), (1, 4, 4)], "efficientad": [(1, 8, 8)] * 2, "autoencoder": [(1, 8, 8)] * 2}
"""Levels of heads over a network of their own; the others see a backbone's."""
LEVELS = [(12, 8, 8), (16, 4, 4)]


@pytest.mark.parametrize("value", [0.0, 3.5], ids=["zeros", "constant"])
@pytest.mark.parametrize("method", METHODS)
def test_eight_images_without_any_difference_leave_scores_finite(method: str, value: float) -> None:
    known, shapes = METHODS[method], MAPS.get(method, LEVELS)
    _, params = known.presets["fast"]
    head = known.head(dataclasses.replace(params, **({"steps": 2} if hasattr(params, "steps") else {})), shapes)
    valid = np.ones(head.grid_hw, bool)
    valid[:, : head.grid_hw[1] // 2] = False
    good = Features.of([np.full((8, *shape), value, np.float32) for shape in shapes])
    rng = np.random.default_rng(0)
    odd = [(value + rng.random((5, *shape))).astype(np.float32) for shape in shapes]
    if isinstance(head, TrainedHead):
        masks = np.full((5, *head.grid_hw), np.nan, np.float32)
        outliers = Outliers(Features.of(odd), masks, ("dent",) * 5, np.zeros(5, bool))
        task = head.task(good.subset(np.arange(6)), good.subset(np.arange(6, 8)), valid, outliers, 0)
        learn(task, Schedule(), 0)
    else:
        with torch.no_grad():
            head.fit(good, valid, 0)
    with torch.inference_mode():
        for levels in (list(map(torch.from_numpy, odd)), next(good.batches(2))):
            score, grid = head.eval()(levels)
            assert score.shape == (len(levels[0]),) and grid.shape[2:] == head.grid_hw
            assert torch.isfinite(score).all() and torch.isfinite(grid).all()
            assert float(score.min()) >= 0 and float(grid.min()) >= 0
            assert not grid[:, 0][:, ~torch.from_numpy(valid)].any()
