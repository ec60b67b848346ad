"""PaDiM against textbook formulas, on small structured tensors."""

from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
import torch

from edge_runtime.errors import ConfigError, DataError
from training.core.base import Features, LevelShape
from training.methods.padim import PadimHead, PadimParams

PAPER = PadimParams(neighbourhood=1, components=1.0, shrinkage=0.01, top_k=1)
"""The paper's own form: every component of every cell alone."""
SHAPES: list[LevelShape] = [(3, 4, 6), (5, 2, 3)]
Array = npt.NDArray[np.float32]


def images(n: int, shapes: list[LevelShape], seed: int = 0) -> list[Array]:
    """Correlated features with another mean and spread at every position."""
    rng = np.random.default_rng(seed)
    structure = np.random.default_rng(99)
    levels = []
    for c, h, w in shapes:
        mix, offset = structure.normal(size=(h, w, c, c)), structure.normal(size=(c, h, w)) * 3
        levels.append((np.einsum("hwcd,ndhw->nchw", mix, rng.normal(size=(n, c, h, w))) + offset).astype(np.float32))
    return levels


def everywhere(shapes: list[LevelShape]) -> npt.NDArray[np.bool_]:
    return np.ones(shapes[0][1:], bool)


def fitted(params: PadimParams, shapes: list[LevelShape] = SHAPES, n: int = 60, seed: int = 0) -> PadimHead:
    head = PadimHead(params, shapes).eval()
    head.fit(Features.of(images(n, shapes)), everywhere(shapes), seed)
    return head


def run(head: PadimHead, levels: list[Array]) -> tuple[Array, Array]:
    with torch.inference_mode():
        score, score_map = head([torch.from_numpy(level) for level in levels])
    return score.numpy(), score_map.numpy()


def test_the_chain_over_levels_is_the_joint_mahalanobis_distance() -> None:
    good, new = images(60, SHAPES), images(4, SHAPES, seed=1)

    def joint(levels: list[Array]) -> Array:
        return np.concatenate([levels[0], levels[1].repeat(2, 2).repeat(2, 3)], 1)

    train, test = joint(good).astype(np.float64), joint(new).astype(np.float64)
    expected = np.empty((4, 4, 6))
    for y in range(4):
        for x in range(6):
            mean = train[:, :, y, x].mean(0)
            precision = np.linalg.inv(np.cov(train[:, :, y, x].T, bias=True) + 0.01 * np.eye(8))
            delta = test[:, :, y, x] - mean
            expected[:, y, x] = np.sqrt(np.einsum("nc,cd,nd->n", delta, precision, delta))
    score, score_map = run(fitted(PAPER), new)
    np.testing.assert_allclose(score_map[:, 0], expected, rtol=1e-4)
    np.testing.assert_allclose(score, expected.max((1, 2)), rtol=1e-4)


def test_ledoit_wolf_shrinks_as_scikit_learn_does() -> None:
    from sklearn.covariance import ledoit_wolf

    shapes: list[LevelShape] = [(6, 1, 2)]
    params = PadimParams(neighbourhood=1, components=1.0, top_k=1)
    good, new = images(10, shapes)[0], images(3, shapes, seed=1)[0]
    delta = new[:, :, 0, 1] - good[:, :, 0, 1].mean(0)
    covariance, _ = ledoit_wolf(good[:, :, 0, 1])
    head = PadimHead(params, shapes).eval()
    head.fit(Features.of([good]), everywhere(shapes), 0)
    expected = np.sqrt(np.einsum("nc,cd,nd->n", delta, np.linalg.inv(covariance), delta))
    np.testing.assert_allclose(run(head, [new])[1][:, 0, 0, 1], expected, rtol=1e-3)


def test_the_components_of_least_variance_are_kept() -> None:
    rng = np.random.default_rng(0)
    good = (rng.normal(size=(200, 2, 1, 1)) * np.array([10.0, 0.1])[None, :, None, None]).astype(np.float32)
    head = PadimHead(PadimParams(neighbourhood=1, components=0.5, shrinkage=1e-4, top_k=1), [(2, 1, 1)]).eval()
    head.fit(Features.of([good]), np.ones((1, 1), bool), 0)
    far_in_wide, far_in_narrow = np.zeros((2, 1, 2, 1, 1), np.float32)
    far_in_wide[0, 0], far_in_narrow[0, 1] = 5.0, 5.0
    assert run(head, [far_in_wide])[0][0] < 1.0
    assert run(head, [far_in_narrow])[0][0] > 20.0


@pytest.mark.parametrize("shrinkage", ["ledoit_wolf", 0.01])
@pytest.mark.parametrize(("channels", "n"), [((40, 80), 50), ((64, 112), 160)])
def test_fewer_images_than_features_still_tell_good_from_bad(shrinkage: str | float, channels: tuple[int, int], n: int) -> None:
    shapes: list[LevelShape] = [(channels[0], 3, 4), (channels[1], 2, 2)]
    head = fitted(PadimParams(shrinkage=shrinkage), shapes, n=n)
    good = images(8, shapes, seed=1)
    bad = [level.copy() for level in good]
    bad[0][:, :, 1, 2] += 30 * np.random.default_rng(3).normal(size=channels[0]).astype(np.float32)
    good_scores, bad_scores = run(head, good)[0], run(head, bad)[0]
    assert np.isfinite(good_scores).all() and (good_scores > 0).all()
    assert bad_scores.min() > good_scores.max()


def test_a_shared_gaussian_is_the_mahalanobis_distance_over_all_positions() -> None:
    params = PadimParams(neighbourhood=1, components=1.0, shrinkage=0.01, top_k=1, shared=True)
    good, new = images(20, SHAPES)[0], images(2, SHAPES, seed=1)[0]
    head = PadimHead(params, SHAPES[:1]).eval()
    head.fit(Features.of([good]), everywhere(SHAPES), 0)
    rows = good.transpose(0, 2, 3, 1).reshape(-1, 3).astype(np.float64)
    delta = new.transpose(0, 2, 3, 1) - rows.mean(0)
    precision = np.linalg.inv(np.cov(rows.T, bias=True) + 0.01 * np.eye(3))
    expected = np.sqrt(np.einsum("nhwc,cd,nhwd->nhw", delta, precision, delta))
    np.testing.assert_allclose(run(head, [new])[1][:, 0], expected, rtol=1e-4)
    moved = np.roll(new, (1, 2), (2, 3))
    np.testing.assert_allclose(run(head, [moved])[0], run(head, [new])[0], rtol=1e-5)


def test_given_its_context_a_position_is_judged_by_what_the_rest_of_the_picture_does_not_explain() -> None:
    shapes: list[LevelShape] = [(4, 6, 6)]
    rng, good = np.random.default_rng(0), images(200, [(4, 6, 6)])[0]
    lamp = rng.normal(size=(200, 4, 1, 1)).astype(np.float32) * 200  # each picture's own light, the same at all its positions
    head = PadimHead(PadimParams(neighbourhood=1, components=1.0, shrinkage=0.0, top_k=1, context=4), shapes).eval()
    head.fit(Features.of([good + lamp]), everywhere(shapes), 0)
    means = (good + lamp).astype(np.float64).mean((2, 3))
    means -= means.mean(0)
    cell = (good + lamp)[:, :, 2, 3].astype(np.float64)
    cell -= cell.mean(0)
    slope = np.linalg.lstsq(means, cell, rcond=None)[0]
    rest = cell - means @ slope
    expected = np.sqrt(np.einsum("nc,cd,nd->n", rest, np.linalg.inv(rest.T @ rest / 200), rest))
    np.testing.assert_allclose(run(head, [good + lamp])[1][:, 0, 2, 3], expected, rtol=1e-2)
    bad = (good + lamp)[:20].copy()
    bad[:, :, 2, 3] += 60.0  # far less than lamps differ
    assert (run(head, [bad])[0] > 2 * run(head, [(good + lamp)[:20]])[0].max()).all()
    blind = PadimHead(PadimParams(neighbourhood=1, components=1.0, shrinkage=0.0, top_k=1), shapes).eval()
    blind.fit(Features.of([good + lamp]), everywhere(shapes), 0)
    assert run(blind, [bad])[0].mean() < 2 * run(blind, [(good + lamp)[:20]])[0].mean()


def test_the_context_takes_no_more_components_than_the_images_bear() -> None:
    for n, used in ((7, 0), (8, 1), (23, 2), (200, 5)):
        head = fitted(PadimParams(context=64), n=n)
        assert head.state_dict()["context.project"].shape == (5, 5, 1, 1)
        assert int((head.state_dict()["context.project"].abs().sum((1, 2, 3)) > 0).sum()) == used
    new = images(2, SHAPES, seed=1)
    np.testing.assert_allclose(run(fitted(PadimParams(context=64), n=7), new)[1], run(fitted(PadimParams(), n=7), new)[1], rtol=1e-5)


def test_variations_of_an_image_bear_no_further_components() -> None:
    for copies, used in ((0, 3), (2, 1)):
        head = PadimHead(PadimParams(context=64), SHAPES).eval()
        head.fit(Features.of(images(24, SHAPES), copies=copies), everywhere(SHAPES), 0)
        assert int((head.state_dict()["context.project"].abs().sum((1, 2, 3)) > 0).sum()) == used


def test_a_channel_that_never_moves_leaves_scores_finite() -> None:
    good = images(20, SHAPES)
    good[0][:, 1] = 0.0
    head = PadimHead(PAPER, SHAPES).eval()
    head.fit(Features.of(good), everywhere(SHAPES), 0)
    assert np.isfinite(run(head, good)[1]).all()


@pytest.mark.parametrize(
    "extra", [{"smooth": 0.0}, {"smooth": 1.0}, {"context": 3}, {"shared": True}, {"shared": True, "context": 3}], ids=str
)
def test_ignored_positions_are_zero_and_never_count(extra: dict[str, Any]) -> None:
    smooth = extra.get("smooth")
    valid = everywhere(SHAPES)
    # Whole coarse cells, for a coarse cell that is seen in part counts.
    valid[:, 4:] = False
    head = PadimHead(PadimParams(neighbourhood=1, top_k=20, **extra), SHAPES).eval()
    good = images(30, SHAPES)
    head.fit(Features.of(good), valid, 0)
    spoilt = [level.copy() for level in good]
    spoilt[0][:, :, :, 4:] *= 50
    spoilt[1][:, :, :, 2:] *= 50
    if "smooth" not in extra:  # what is ignored teaches nothing either
        twin = PadimHead(head.params, SHAPES).eval()
        twin.fit(Features.of(spoilt), valid, 0)
        np.testing.assert_allclose(run(twin, images(2, SHAPES, seed=1))[0], run(head, images(2, SHAPES, seed=1))[0], rtol=1e-4)
    new = images(2, SHAPES, seed=1)
    score, score_map = run(head, new)
    new[0][:, :, :, 4:] += 1000.0
    new[1][:, :, :, 2:] += 1000.0
    again, map_again = run(head, new)
    assert (map_again[:, 0][:, ~valid] == 0).all() and (map_again[:, 0][:, valid] > 0).all()
    np.testing.assert_array_equal(again, score)
    np.testing.assert_allclose(map_again, score_map)
    if not smooth:  # fewer valid cells than top_k: the mean is over those there are
        np.testing.assert_allclose(score, score_map[:, 0][:, valid].mean(1), rtol=1e-5)


def test_smoothing_keeps_a_flat_map_flat_up_to_the_border() -> None:
    head = fitted(PadimParams(smooth=1.0))
    flat = torch.full((1, 1, 4, 6), 2.0)
    torch.testing.assert_close(head._score(flat)[1], flat)


def test_random_features_follow_the_seed() -> None:
    params = PadimParams(features=4)
    one, same, other = (fitted(params, seed=seed).state_dict() for seed in (1, 1, 2))
    assert one["pick_0"].numel() + one["pick_1"].numel() == 4
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)


def test_a_saved_state_gives_the_same_scores() -> None:
    head, new = fitted(PadimParams(features=6, smooth=1.0)), images(2, SHAPES, seed=1)
    fresh = PadimHead(PadimParams(features=6, smooth=1.0), SHAPES).eval()
    fresh.load_state_dict(head.state_dict())
    for a, b in zip(run(head, new), run(fresh, new), strict=True):
        np.testing.assert_array_equal(a, b)


def test_fitting_in_many_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[LevelShape] = [(3, 7, 5), (5, 4, 3)]  # grids that do not divide, as odd image sizes give
    whole = fitted(PadimParams(), shapes).state_dict()
    monkeypatch.setattr("training.methods.padim.FIT_CHUNK_BYTES", 1)
    steps: list[tuple[int, int]] = []
    head = PadimHead(PadimParams(), shapes).eval()
    head.fit(Features.of(images(60, shapes)), everywhere(shapes), 0, lambda _, done, total: steps.append((done, total)))
    assert steps[-1] == (11, 11)
    new = images(2, shapes, seed=1)
    reference = PadimHead(PadimParams(), shapes).eval()
    reference.load_state_dict(whole)
    np.testing.assert_allclose(run(head, new)[1], run(reference, new)[1], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("params", "shapes"),
    [
        (PadimParams(features=6, smooth=1.0), SHAPES),
        (PadimParams(features=6, context=3), [(3, 7, 5), (5, 4, 3)]),
        (PadimParams(shared=True, context=3), SHAPES),
    ],
)
def test_openvino_computes_what_torch_computes(params: PadimParams, shapes: list[LevelShape]) -> None:
    head, new = fitted(params, shapes), images(1, shapes, seed=1)
    example = [torch.from_numpy(level) for level in new]
    model = ov.convert_model(torch.export.export(head, (example,), strict=False))
    result = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(new)
    for i, expected in enumerate(run(head, new)):
        np.testing.assert_allclose(result[i], expected, rtol=1e-3)


def test_stated_memory_covers_features_and_state() -> None:
    head = PadimHead(PadimParams(), [(40, 32, 32), (112, 16, 16)])
    state = sum(b.nbytes for b in head.buffers())
    assert head.memory_bytes(666) > 666 * 4 * (40 * 32 * 32 + 112 * 16 * 16) + state
    assert head.memory_bytes(666) < 1 << 30


def test_impossible_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match="features"):
        PadimHead(PadimParams(features=9), SHAPES)
    with pytest.raises(ConfigError, match="shrinkage"):
        PadimHead(PadimParams(shrinkage="none"), SHAPES)
    with pytest.raises(ConfigError, match="context"):
        PadimHead(PadimParams(context=-1), SHAPES)
    with pytest.raises(ConfigError, match="components"):
        PadimHead(PadimParams(components=0.0), SHAPES)
    head = PadimHead(PadimParams(), SHAPES)
    with pytest.raises(DataError, match="at least 2 good images"):
        head.fit(Features.of(images(1, SHAPES)), everywhere(SHAPES), 0)
    with pytest.raises(DataError, match="valid position"):
        head.fit(Features.of(images(5, SHAPES)), np.zeros((4, 6), bool), 0)
