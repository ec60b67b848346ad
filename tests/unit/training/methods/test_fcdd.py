"""FCDD: what few bad images teach, what they do not spoil, and as a graph. Whitening and exposure are shared with DevNet."""

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
import torch

from edge_runtime.errors import ConfigError, DataError
from tests.unit.training.methods.outliers import SHAPES, good, rank, run
from training.core.base import Features, Outliers
from training.core.learn import Schedule, learn
from training.methods.exposure import Exposure
from training.methods.fcdd import FcddHead, FcddParams

pytestmark = pytest.mark.slow  # a real fit that all of them share

GRID = (8, 12)
EVERYWHERE = np.ones(GRID, bool)
SMALL = FcddParams(hidden=8, steps=160, rate=5e-3, batch=32, top_k=2, dropout=0.1)


def bad(n: int, seed: int, *, masks: bool = True, synthetic: bool = False, by: float = 4.0, channel: int = 2) -> Outliers:
    """One channel of one cell is moved so little that its distance hardly tells."""
    features, rng = good(n, seed), np.random.default_rng(seed)
    where = np.full((n, *GRID), 0.0 if masks else np.nan, np.float32)
    for i in range(n):
        y, x = rng.integers(4), rng.integers(6)
        features.levels[0][i, channel, y, x] += 2 * by
        if masks:
            where[i, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2] = 1.0
    return Outliers(features, where, ("dent",) * n, np.full(n, synthetic))


def taught(outliers: Outliers, params: FcddParams = SMALL, valid: npt.NDArray[np.bool_] = EVERYWHERE, seed: int = 0) -> FcddHead:
    head = FcddHead(params, SHAPES)
    learn(head.task(good(120, 0), good(30, 1), valid, outliers, seed), Schedule(), seed)
    return head


@pytest.fixture(scope="module")
def with_masks() -> FcddHead:
    return taught(bad(40, 5))


def test_bad_images_teach_what_distance_does_not_tell(with_masks: FcddHead) -> None:
    unlearnt = taught(bad(40, 5), FcddParams(hidden=8, steps=1, rate=1e-9, batch=4, top_k=2))
    assert rank(with_masks, bad(60, 9).features) > rank(unlearnt, bad(60, 9).features) + 0.05


def test_bad_images_without_masks_are_learnt_from_as_well() -> None:
    task = FcddHead(SMALL, SHAPES).task(good(120, 0), good(30, 1), EVERYWHERE, bad(40, 5, masks=False), 0)
    with torch.no_grad():
        start = task.validate()
    outcome = learn(task, Schedule(), 0)
    assert outcome.best < start - 0.005 and outcome.best_step > 0


def test_the_map_shows_where(with_masks: FcddHead) -> None:
    outliers = bad(40, 9)
    heat = run(with_masks, outliers.features)[1][:, 0]
    hits = [outliers.masks[i].ravel()[int(heat[i].argmax())] > 0 for i in range(40)]
    assert np.mean(hits) > 0.8


def test_what_was_learnt_is_only_ever_added_to_the_distance(with_masks: FcddHead) -> None:
    with torch.no_grad():
        z = with_masks.stacked([torch.from_numpy(level) for level in bad(20, 9, channel=4).features.levels])
        distance = torch.sqrt(z.square().mean(1, keepdim=True) + 1) - 1
        assert (with_masks.cells(z) >= distance).all()


def test_before_learning_a_cell_is_the_pseudo_huber_norm_of_its_mahalanobis_distance() -> None:
    from sklearn.covariance import ledoit_wolf

    shapes = [(6, 4, 6)]
    head = FcddHead(FcddParams(upsample=1), shapes)
    levels = good(80, 0).levels[:1]
    head.whiten(Features.of(levels), np.ones((4, 6), bool), 2)
    torch.nn.init.zeros_(head.psi.out.bias)
    new = good(3, 4).levels[0]
    gap = new[:, :, 1, 2] - levels[0][:, :, 1, 2].mean(0)
    d2 = np.einsum("nc,cd,nd->n", gap, np.linalg.inv(ledoit_wolf(levels[0][:, :, 1, 2])[0]), gap)
    with torch.no_grad():
        cells = head.eval().cells(head.stacked([torch.from_numpy(new)]))
    np.testing.assert_allclose(cells[:, 0, 1, 2].numpy(), np.sqrt(d2 / 6 + 1) - 1, rtol=1e-3)


def test_heat_of_a_flat_map_stays_flat_up_to_borders_and_ignored_cells() -> None:
    valid = EVERYWHERE.copy()
    valid[:, 8:] = False
    head = FcddHead(SMALL, SHAPES)
    head.task(good(20, 0), good(5, 1), valid, bad(6, 5), 0)
    flat = head.enlarged(torch.full((1, 1, 4, 6), 2.0) * head.get_buffer("inside_0"))[0, 0]
    np.testing.assert_allclose(flat.numpy(), 2.0 * valid, rtol=1e-5)
    lone = torch.zeros(1, 1, 4, 6)
    lone[0, 0, 1, 1] = 1.0
    spread = head.enlarged(lone)[0, 0]
    assert divmod(int(spread.argmax()), 12) in {(2, 2), (2, 3), (3, 2), (3, 3)}  # above its own cell
    torch.testing.assert_close(spread[2, 2], spread[3, 3])


def test_nothing_but_zeros_is_not_the_best_weights(with_masks: FcddHead) -> None:
    """The loss over good images alone has its minimum there; the one that ends the learning must not."""
    task = FcddHead(SMALL, SHAPES).task(good(120, 0), good(30, 1), EVERYWHERE, bad(20, 5), 0)
    with torch.no_grad():
        trained = with_masks.task(good(120, 0), good(30, 1), EVERYWHERE, bad(20, 5), 0).validate()
        for i in range(2):
            task.head.get_buffer(f"whiten_{i}").zero_()
        task.head.psi.out.bias.zero_()
        assert task.validate() > trained + 1.0


def test_ignored_positions_are_zero_and_never_count() -> None:
    valid = EVERYWHERE.copy()
    valid[:, 8:] = False
    head = taught(bad(8, 5), FcddParams(hidden=8, steps=10, batch=8, top_k=50), valid)
    new = good(2, 3)
    score, score_map = run(head, new)
    assert (score_map[:, 0][:, ~valid] == 0).all() and (score_map[:, 0][:, valid] > 0).all()
    new.levels[0][..., 4:], new.levels[1][..., 2:] = 1e3, -1e3
    again, map_again = run(head, new)
    np.testing.assert_array_equal(again, score)
    np.testing.assert_array_equal(map_again, score_map)


def test_real_defects_do_not_drown_among_painted_ones_and_a_fifth_is_held_back() -> None:
    real, painted = bad(10, 5), bad(100, 6, synthetic=True)
    both = Outliers(
        Features.of([np.concatenate(pair) for pair in zip(real.features.levels, painted.features.levels, strict=True)]),
        np.concatenate([real.masks, painted.masks]),
        real.kinds + painted.kinds,
        np.concatenate([real.synthetic, painted.synthetic]),
    )
    exposure = Exposure("fcdd", good(20, 0), good(5, 1), both, GRID, 0)
    assert [len(sort) for sort in exposure.learn] == [8, 80] and len(exposure.looked_at) == 22
    assert not set(exposure.looked_at) & set(np.concatenate(exposure.learn))
    rng = np.random.default_rng(0)
    drawn = [exposure.draw(20, rng) for _ in range(40)]
    assert all(int(batch.bad.sum()) == 10 for batch in drawn)
    bad_levels = torch.cat([batch.levels[0][batch.bad] for batch in drawn])
    from_real = np.mean([any(np.array_equal(x, y) for y in real.features.levels[0]) for x in bad_levels.numpy()])
    assert 0.4 < from_real < 0.6
    few = Exposure("fcdd", good(20, 0), good(5, 1), real_only := bad(5, 5), GRID, 0)
    assert len(few.learn[0]) == len(few.looked_at) == len(real_only)


def test_the_same_seed_gives_the_same_head_and_a_second_fit_goes_on() -> None:
    params = FcddParams(hidden=8, steps=10, batch=8)
    one, two = (taught(bad(6, 5), params) for _ in range(2))
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())
    before = one.psi.out.weight.detach().clone()
    assert before.abs().sum() > 0
    one.task(good(120, 0), good(30, 1), EVERYWHERE, bad(6, 5), 0)
    assert torch.equal(one.psi.out.weight, before)


def test_openvino_computes_what_torch_computes_from_a_saved_state(with_masks: FcddHead) -> None:
    head = FcddHead(SMALL, SHAPES).eval()
    head.load_state_dict(with_masks.state_dict())
    new = good(1, 9)
    model = ov.convert_model(torch.export.export(head, ([torch.from_numpy(level) for level in new.levels],), strict=False))
    result = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(list(new.levels))
    for i, wanted in enumerate(run(with_masks, new)):
        np.testing.assert_allclose(result[i], wanted, rtol=1e-3)


def test_what_does_not_fit_is_named() -> None:
    head = FcddHead(SMALL, SHAPES)
    with pytest.raises(DataError, match="synthetic defects"):
        head.fit(good(20, 0), EVERYWHERE, 0)
    with pytest.raises(DataError, match="at least 2 good images"):
        head.task(good(1, 0), good(1, 1), EVERYWHERE, bad(5, 5), 0)
    wrong = bad(5, 5)
    with pytest.raises(DataError, match=r"masks of shape \(5, 8, 12\)"):
        head.task(good(9, 0), good(2, 1), EVERYWHERE, Outliers(wrong.features, wrong.masks[:, :4], wrong.kinds, wrong.synthetic), 0)
    coarse = Features.of(wrong.features.levels[1:])
    with pytest.raises(DataError, match="features of shape"):
        head.task(good(9, 0), good(2, 1), EVERYWHERE, Outliers(coarse, wrong.masks, wrong.kinds, wrong.synthetic), 0)
    for params in (FcddParams(upsample=0), FcddParams(dropout=1.0), FcddParams(batch=1), FcddParams(top_k=0)):
        with pytest.raises(ConfigError, match="expected"):
            FcddHead(params, SHAPES)
