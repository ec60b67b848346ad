"""PatchCore: the coreset, the distances, equation 7, the mask, and the graph."""

import warnings

import numpy as np
import openvino as ov
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from edge_runtime.errors import ConfigError, DataError
from training.core.base import Features
from training.methods.coreset import greedy_coreset
from training.methods.patchcore import PatchcoreHead, PatchcoreParams

SHAPES = [(6, 8, 8), (10, 4, 4)]
EVERYWHERE = np.ones((8, 8), dtype=bool)


def features(n: int, seed: int = 0) -> Features:
    rng = np.random.default_rng(seed)
    return Features.of([rng.normal(3.0, 1.0, (n, *shape)).astype(np.float32) for shape in SHAPES])


def fitted(params: PatchcoreParams, n: int = 20, valid: np.ndarray = EVERYWHERE, seed: int = 0) -> PatchcoreHead:
    head = PatchcoreHead(params, SHAPES)
    head.fit(features(n), valid, seed)
    return head


def batch(n: int, seed: int = 7) -> list[torch.Tensor]:
    return next(features(n, seed).batches(n))


def plain_greedy(points: torch.Tensor, count: int, first: int) -> list[int]:
    picks = [first]
    nearest = torch.cdist(points, points[[first]])[:, 0]
    while len(picks) < count:
        picks.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, torch.cdist(points, points[[picks[-1]]])[:, 0])
    return picks


def test_the_coreset_is_the_plain_greedy_one() -> None:
    points = torch.randn(600, 5, generator=torch.Generator().manual_seed(1))
    for pool in (1, 16, 600):
        picks = greedy_coreset(points, 60, seed=3, pool=pool)
        assert picks.tolist() == plain_greedy(points, 60, int(picks[0]))


def test_the_coreset_covers_better_than_random_picks() -> None:
    rng = torch.Generator().manual_seed(2)
    points = torch.cat([torch.randn(2000, 4, generator=rng), 8 + torch.randn(20, 4, generator=rng)])
    chosen = torch.cdist(points, points[greedy_coreset(points, 50, seed=0)]).amin(1).max()
    drawn = torch.cdist(points, points[torch.randperm(2020, generator=rng)[:50]]).amin(1).max()
    assert chosen < 0.7 * drawn


def test_all_points_can_be_picked_even_when_some_are_equal() -> None:
    points = torch.zeros(12, 3)
    points[:4] = torch.eye(4)[:, :3]
    assert sorted(greedy_coreset(points, 12, seed=0, pool=5).tolist()) == list(range(12))


@pytest.mark.parametrize("dims", [None, 5])
def test_distances_are_those_to_the_nearest_bank_patch(dims: int | None) -> None:
    head = fitted(PatchcoreParams(bank_size=100, dims=dims, neighbours=0))
    levels = batch(3)
    score, grid = head(levels)
    search = NearestNeighbors(n_neighbors=1).fit((head.bank / -2).T.numpy())
    wanted, _ = search.kneighbors(head.patches(levels).permute(0, 2, 1).reshape(-1, head.dims).numpy())
    np.testing.assert_allclose(grid.flatten().numpy(), wanted[:, 0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(score.numpy(), wanted.reshape(3, -1).max(1), rtol=1e-3)


def test_all_dimensions_measure_the_distances_of_the_raw_patch_features() -> None:
    levels = batch(2)
    head = fitted(PatchcoreParams(bank_size=50, dims=None))
    raw = []
    for level in levels:
        pooled = torch.nn.functional.avg_pool2d(level, 3, 1, 1)
        raw.append(torch.nn.functional.interpolate(pooled, size=(8, 8), mode="bilinear"))
    a = torch.cat(raw, 1).flatten(2).permute(0, 2, 1).flatten(0, 1)
    b = head.patches(levels).permute(0, 2, 1).flatten(0, 1)
    torch.testing.assert_close(torch.pdist(a), torch.pdist(b), rtol=1e-3, atol=1e-3)


def test_the_score_is_reweighted_by_equation_7() -> None:
    head = fitted(PatchcoreParams(bank_size=100, dims=8, neighbours=5))
    levels = batch(1)
    score, _ = head(levels)
    bank, queries = (head.bank / -2).T.double(), head.patches(levels)[0].T.double()
    table = torch.cdist(queries, bank)
    star = int(table.amin(1).argmax())
    nearest = int(table[star].argmin())
    around = torch.cdist(bank[[nearest]], bank)[0].topk(5, largest=False).indices
    weight = 1 - torch.exp(table[star, nearest]) / torch.exp(table[star, around]).sum()
    assert float(score) == pytest.approx(float(weight * table[star, nearest]), rel=1e-3)


def test_the_mean_of_the_highest_patches_can_be_the_score() -> None:
    head = fitted(PatchcoreParams(bank_size=100, top_k=6, neighbours=0))
    score, grid = head(batch(2))
    torch.testing.assert_close(score, grid.flatten(1).topk(6).values.mean(1))


@pytest.mark.parametrize("neighbours", [0, 5])
def test_the_mean_runs_over_no_more_patches_than_are_valid(neighbours: int) -> None:
    valid = np.zeros((8, 8), dtype=bool)
    valid[2, 2:5] = True
    few = fitted(PatchcoreParams(bank_size=50, top_k=3, neighbours=neighbours), valid=valid)
    many = fitted(PatchcoreParams(bank_size=50, top_k=100, neighbours=neighbours), valid=valid)
    torch.testing.assert_close(many(batch(2))[0], few(batch(2))[0])


def test_ignored_positions_are_zero_and_change_neither_score_nor_bank() -> None:
    valid = EVERYWHERE.copy()
    valid[:, 5:] = False
    head = PatchcoreHead(PatchcoreParams(bank_size=100), SHAPES)
    good = features(20)
    good.levels[0][:, :, :, 7] = 1e3  # column 7 reaches columns 6 and 7 through the 3x3 mean: both ignored
    head.fit(good, valid, 0)
    assert float((head.bank / 2).abs().max()) < 50
    levels = batch(1)
    score, grid = head(levels)
    assert (grid[..., 5:] == 0).all() and (grid[..., :5] > 0).all()
    levels[0][..., 7] = 1e4
    assert float(head(levels)[0]) == pytest.approx(float(score))


def test_the_same_seed_gives_the_same_scores_and_fitting_again_replaces() -> None:
    params = PatchcoreParams(bank_size=100, projection=4)
    head, again = fitted(params, seed=5), fitted(params, n=10, seed=1)
    again.fit(features(20), EVERYWHERE, 5)
    for a, b in zip(head(batch(2)), again(batch(2)), strict=True):
        assert torch.equal(a, b)


def test_a_saved_state_fits_a_head_built_from_the_same_arguments() -> None:
    params = PatchcoreParams(bank_size=100)
    head, loaded = fitted(params), PatchcoreHead(params, SHAPES)
    loaded.load_state_dict(head.state_dict())
    assert torch.equal(head(batch(2))[0], loaded(batch(2))[0])


def test_a_bank_larger_than_the_data_holds_every_patch() -> None:
    head = fitted(PatchcoreParams(bank_size=500), n=2)
    score, grid = head(batch(1))
    _, own = head([torch.from_numpy(level[:1]) for level in features(2).levels])
    assert float(own.max()) < 0.01 < float(grid.min()) and float(score) > 0


def test_too_few_patches_are_named() -> None:
    valid = np.zeros((8, 8), dtype=bool)
    valid[0, 0] = True
    with pytest.raises(DataError, match=r"needs more than 9 good patches, found 3 \(3 images x 1 positions"):
        fitted(PatchcoreParams(bank_size=100), n=3, valid=valid)


def test_impossible_parameters_are_refused() -> None:
    with pytest.raises(ConfigError, match="top_k"):
        PatchcoreHead(PatchcoreParams(top_k=0), SHAPES)
    with pytest.raises(ConfigError, match="dims"):
        PatchcoreHead(PatchcoreParams(dims=0), SHAPES)
    with pytest.raises(ConfigError, match="bank_size"):
        PatchcoreHead(PatchcoreParams(bank_size=0), SHAPES)


@pytest.mark.slow
@pytest.mark.parametrize("top_k", [1, 6])
def test_openvino_computes_what_torch_computes(top_k: int) -> None:
    head = fitted(PatchcoreParams(bank_size=100, dims=8, top_k=top_k)).eval()
    levels = batch(1)
    with warnings.catch_warnings():  # torch and OpenVINO announce their own deprecations while tracing
        warnings.simplefilter("ignore")
        model = ov.convert_model(head, example_input=(levels,), input=[[1, *shape] for shape in SHAPES])
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert not model.is_dynamic()
    result = compiled([level.numpy() for level in levels])
    for wanted, found in zip(head(levels), (result[0], result[1]), strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-3, atol=1e-4)
