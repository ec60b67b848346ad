"""MVG: against a plain NumPy reference, with a mask, and as a graph."""

import warnings

import numpy as np
import openvino as ov
import pytest
import torch
from sklearn.covariance import ledoit_wolf

from edge_runtime.errors import ConfigError, DataError
from training.core.base import Features
from training.methods.mvg import MvgHead, MvgParams

SHAPES = [(5, 8, 8), (9, 4, 4)]
EVERYWHERE = np.ones((8, 8), dtype=bool)


def features(n: int, seed: int = 0) -> Features:
    rng = np.random.default_rng(seed)
    scales = [np.linspace(0.2, 3.0, c)[None, :, None, None] for c, _, _ in SHAPES]
    return Features.of([(2 + rng.normal(0, 1, (n, *shape)) * s).astype(np.float32) for shape, s in zip(SHAPES, scales, strict=True)])


def fitted(kept: float = 0.05, n: int = 40, valid: np.ndarray = EVERYWHERE) -> MvgHead:
    head = MvgHead(MvgParams(kept), SHAPES)
    head.fit(features(n), valid, 0)
    return head


def batch(n: int) -> list[torch.Tensor]:
    return next(features(n, 7).batches(n))


@pytest.mark.parametrize("kept", [0.05, 1.0])
def test_score_and_map_agree_with_numpy(kept: float) -> None:
    levels = batch(3)
    score, grid = fitted(kept)(levels)
    wanted = np.zeros(3)
    at = np.zeros(3)  # map at position (0, 0): bilinear resizing clamps there, so it is each level's first position
    for good, level in zip(features(40).levels, levels, strict=True):
        pooled = good.mean((2, 3), dtype=np.float64)
        values, vectors = np.linalg.eigh(ledoit_wolf(pooled)[0])
        keep = np.cumsum(values) <= kept * values.sum() * (1 + 1e-9)
        keep[0] = True
        assert kept == 1.0 or keep.sum() < len(values)
        precision = (vectors[:, keep] / values[keep]) @ vectors[:, keep].T
        for distances, x in ((wanted, level.numpy().mean((2, 3))), (at, level.numpy()[:, :, 0, 0])):
            gap = x - pooled.mean(0)
            distances += np.sqrt(np.einsum("nc,cd,nd->n", gap, precision, gap))
    np.testing.assert_allclose(score.numpy(), wanted, rtol=1e-3)
    np.testing.assert_allclose(grid[:, 0, 0, 0].numpy(), at, rtol=1e-3)


def test_keeping_everything_with_fewer_images_than_features_stays_finite() -> None:
    score, grid = fitted(1.0, n=4)(batch(2))
    assert torch.isfinite(score).all() and torch.isfinite(grid).all() and (score > 0).all()


def test_ignored_positions_are_zero_and_do_not_count() -> None:
    valid = EVERYWHERE.copy()
    valid[:, 4:] = False
    head = fitted(valid=valid)
    levels = batch(1)
    score, grid = head(levels)
    assert (grid[..., 4:] == 0).all() and (grid[..., :4] > 0).all()
    levels[0][..., 4:], levels[1][..., 2:] = 1e4, -1e4
    assert float(head(levels)[0]) == pytest.approx(float(score), rel=1e-5)


def test_a_saved_state_fits_a_head_built_from_the_same_arguments() -> None:
    loaded = MvgHead(MvgParams(), SHAPES)
    loaded.load_state_dict(fitted().state_dict())
    for a, b in zip(fitted()(batch(2)), loaded(batch(2)), strict=True):
        assert torch.equal(a, b)


def test_too_few_images_or_a_mask_without_a_hole_are_named() -> None:
    with pytest.raises(DataError, match="at least 2 good images"):
        fitted(n=1)
    with pytest.raises(DataError, match="0 positions"):
        fitted(valid=np.zeros((8, 8), dtype=bool))
    with pytest.raises(ConfigError, match="kept_variance"):
        MvgHead(MvgParams(0.0), SHAPES)


@pytest.mark.slow
def test_openvino_computes_what_torch_computes() -> None:
    head, levels = fitted().eval(), batch(1)
    with warnings.catch_warnings():  # torch and OpenVINO announce their own deprecations while tracing
        warnings.simplefilter("ignore")
        model = ov.convert_model(head, example_input=(levels,), input=[[1, *shape] for shape in SHAPES])
    assert not model.is_dynamic()
    result = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([level.numpy() for level in levels])
    for wanted, found in zip(head(levels), (result[0], result[1]), strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-3, atol=1e-4)
