"""Heads that leave images out without being fitted anew score them as heads that were."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch

from edge_runtime.model.manifest import InputSpec
from edge_runtime.model.preprocess import Preprocessor
from training.core.base import Features, LevelShape
from training.fitting.heads import fit_head, score_features
from training.methods.mvg import MvgParams
from training.methods.padim import PadimParams
from training.methods.patchcore import PatchcoreParams

PLAIN = Preprocessor(InputSpec(height=64, width=64, channels=1))
ONE: list[LevelShape] = [(6, 8, 8)]
TWO: list[LevelShape] = [(4, 8, 8), (6, 4, 4)]


def features(shapes: list[LevelShape], n: int, copies: int = 0) -> Features:
    rng = np.random.default_rng(0)
    mixes = [rng.normal(size=(c, c)) for c, _, _ in shapes]
    own = [
        np.einsum("ij,njhw->nihw", mix, rng.normal(size=(n, *s)) + rng.normal(size=(n, s[0], 1, 1))) + rng.normal(size=s)
        for mix, s in zip(mixes, shapes, strict=True)
    ]
    varied = [np.stack([x, *(x + 0.2 * rng.normal(size=x.shape) for _ in range(copies))], 1).reshape(-1, *x.shape[1:]) for x in own]
    return Features.of([x.astype(np.float32) for x in varied], copies=copies)


@pytest.mark.parametrize(
    ("method", "params", "shapes", "copies"),
    [
        ("padim", asdict(PadimParams(components=0.75)), ONE, 0),
        ("padim", asdict(PadimParams(components=0.75, context=2)), ONE, 0),
        ("padim", asdict(PadimParams(context=2, smooth=1.0)), TWO, 1),
        ("padim", asdict(PadimParams(shrinkage=0.01)), ONE, 2),
        ("padim", asdict(PadimParams(shared=True)), TWO, 0),
        ("mvg", asdict(MvgParams(kept_variance=0.5)), TWO, 1),
    ],
)
def test_a_gaussian_without_some_images_is_the_one_that_never_saw_them(
    method: str, params: dict[str, Any], shapes: list[LevelShape], copies: int
) -> None:
    data = features(shapes, 40, copies)
    whole = fit_head(method, params, shapes, data, PLAIN, 0)
    folds = [np.arange(0, 4), np.arange(4, 5), np.arange(20, 26)]
    valid = np.ones(whole.grid_hw, dtype=bool)
    with torch.no_grad():
        quick = whole.without(data.only(np.arange(40)), valid, folds, 0)
        assert quick is not None
        for fold, head in zip(folds, quick, strict=True):
            held = data.of_images(fold, varied=False)
            found = score_features(head, held, PLAIN).score
            anew = fit_head(method, params, shapes, data.only(np.setdiff1d(np.arange(40), fold)), PLAIN, 0)
            expected = score_features(anew, held, PLAIN).score
            # Padim's principal components are as many as all images bear, and its shrinkage has the fourth moment of all.
            assert found == pytest.approx(expected, rel=0.05)
            assert (found > score_features(whole, held, PLAIN).score).mean() > 0.9


@pytest.mark.slow
def test_a_bank_without_some_images_holds_none_of_their_patches_and_scores_them_alike() -> None:
    data = features(ONE, 30)
    params = asdict(PatchcoreParams(bank_size=200, dims=None, top_k=5))
    whole = fit_head("patchcore", params, ONE, data, PLAIN, 0)
    folds = np.array_split(np.arange(30), 6)
    ratios = []
    with torch.no_grad():
        quick = whole.without(data, np.ones((8, 8), dtype=bool), folds, 0)
        assert quick is not None
        for fold, head in zip(folds, quick, strict=True):
            held = data.of_images(fold, varied=False)
            anew = fit_head("patchcore", params, ONE, data.only(np.setdiff1d(np.arange(30), fold)), PLAIN, 0)
            ratios += list(score_features(head, held, PLAIN).score / score_features(anew, held, PLAIN).score)
            own = np.einsum("ncp->npc", whole.patches([torch.from_numpy(data.levels[0][fold])]).numpy()).reshape(-1, 1, 6)
            bank = head.bank.T.numpy() / -2
            assert np.abs(own - bank[None]).max(2).min() > 1e-4
    assert np.median(ratios) == pytest.approx(1, abs=0.05)
