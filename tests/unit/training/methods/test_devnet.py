"""DevNet: five bad images, kinds that nobody showed, and as a graph."""

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
import torch

from edge_runtime.errors import ConfigError, DataError
from tests.unit.training.methods.outliers import SHAPES, good, rank, run
from training.core.base import Outliers
from training.core.learn import Schedule, learn
from training.methods.devnet import DevnetHead, DevnetParams

pytestmark = pytest.mark.slow  # a real fit that all of them share

EVERYWHERE = np.ones((4, 6), bool)
SMALL = DevnetParams(hidden=8, steps=160, rate=5e-3, batch=32, top_k=2, dropout=0.1)


def bad(n: int, seed: int, *, synthetic: bool = False, by: float = 4.0, channel: int = 2) -> Outliers:
    """One channel of one cell is moved; nobody says where."""
    features, rng = good(n, seed), np.random.default_rng(seed)
    for i in range(n):
        features.levels[0][i, channel, rng.integers(4), rng.integers(6)] += 2 * by
    return Outliers(features, np.full((n, 4, 6), np.nan, np.float32), ("dent",) * n, np.full(n, synthetic))


def taught(outliers: Outliers, params: DevnetParams = SMALL, valid: npt.NDArray[np.bool_] = EVERYWHERE) -> DevnetHead:
    head = DevnetHead(params, SHAPES)
    learn(head.task(good(120, 0), good(30, 1), valid, outliers, 0), Schedule(), 0)
    return head


@pytest.fixture(scope="module")
def from_five() -> DevnetHead:
    return taught(bad(5, 5))


def test_five_bad_images_teach_what_distance_does_not_tell(from_five: DevnetHead) -> None:
    unlearnt = taught(bad(5, 5), DevnetParams(hidden=8, steps=1, rate=1e-9, batch=4, top_k=2))
    assert rank(from_five, bad(60, 9).features) > rank(unlearnt, bad(60, 9).features) + 0.03


def test_defects_of_a_kind_that_nobody_showed_are_found_by_their_distance(from_five: DevnetHead) -> None:
    assert rank(from_five, bad(60, 9, channel=5, by=9.0).features) > 0.95


def test_good_images_lie_around_the_prior_and_bad_ones_beyond_the_margin(from_five: DevnetHead) -> None:
    with torch.no_grad():
        found = [
            from_five.deviation(from_five.cells(from_five.stacked([torch.from_numpy(level) for level in features.levels])))
            for features in (good(60, 8), bad(60, 9).features)
        ]
    assert abs(float(found[0].mean())) < 1.5
    assert float(found[1].mean()) > float(found[0].mean()) + 1.5


def test_scores_are_positive_and_keep_the_order_of_deviations(from_five: DevnetHead) -> None:
    levels = [torch.from_numpy(level) for level in good(50, 8).levels]
    with torch.no_grad():
        deviation = from_five.deviation(from_five.cells(from_five.stacked(levels)))
        score, score_map = from_five(levels)
    assert float(deviation.min()) < 0 and (score > 0).all() and (score_map > 0).all()
    assert torch.equal(deviation.argsort(), score.argsort())


def test_the_loss_is_the_deviation_loss(from_five: DevnetHead) -> None:
    task = from_five.task(good(120, 0), good(30, 1), EVERYWHERE, bad(5, 5), 0)
    loss = task._each(torch.tensor([-2.0, 3.0, 1.0, 7.0]), torch.tensor([False, False, True, True]))
    torch.testing.assert_close(loss, torch.tensor([2.0, 3.0, 4.0, 0.0]))


def test_the_weights_that_were_learnt_are_better_on_held_out_and_bad_images_than_those_before() -> None:
    head = DevnetHead(SMALL, SHAPES)
    task = head.task(good(120, 0), good(30, 1), EVERYWHERE, bad(20, 5), 0)
    with torch.no_grad():
        start = task.validate()
    assert learn(task, Schedule(), 0).best < start - 0.1
    before = head.net.out.weight.detach().clone()
    head.task(good(120, 0), good(30, 1), EVERYWHERE, bad(20, 5), 0)
    assert torch.equal(head.net.out.weight, before)


def test_ignored_positions_are_zero_and_never_count() -> None:
    valid = EVERYWHERE.copy()
    valid[:, 4:] = False
    head = taught(bad(5, 5), DevnetParams(hidden=8, steps=10, batch=8, top_k=24), valid)
    new = good(2, 3)
    score, score_map = run(head, new)
    assert (score_map[:, 0][:, ~valid] == 0).all() and (score_map[:, 0][:, valid] > 0).all()
    cells = np.log(np.expm1(score_map[:, 0][:, valid]))
    np.testing.assert_allclose(score, np.log1p(np.exp(cells.mean(1))), rtol=1e-3)  # fewer cells than top_k: the mean of those there are
    new.levels[0][..., 4:], new.levels[1][..., 2:] = 1e3, -1e3
    np.testing.assert_array_equal(run(head, new)[0], score)


def test_the_same_seed_gives_the_same_head() -> None:
    params = DevnetParams(hidden=8, steps=10, batch=8)
    one, two = (taught(bad(5, 5), params).state_dict() for _ in range(2))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_openvino_computes_what_torch_computes_from_a_saved_state(from_five: DevnetHead) -> None:
    head = DevnetHead(SMALL, SHAPES).eval()
    head.load_state_dict(from_five.state_dict())
    new = good(1, 9)
    model = ov.convert_model(torch.export.export(head, ([torch.from_numpy(level) for level in new.levels],), strict=False))
    result = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(list(new.levels))
    for i, wanted in enumerate(run(from_five, new)):
        np.testing.assert_allclose(result[i], wanted, rtol=1e-3, atol=1e-5)


def test_fewer_than_five_real_bad_images_are_refused() -> None:
    head = DevnetHead(SMALL, SHAPES)
    for outliers, found in ((None, 0), (bad(4, 5), 4), (bad(50, 5, synthetic=True), 0)):
        with pytest.raises(DataError, match=f"at least 5 real bad images to learn from, found {found}"):
            head.task(good(20, 0), good(5, 1), EVERYWHERE, outliers, 0)
    with pytest.raises(DataError, match="at least 2 good images"):
        head.task(good(1, 0), good(1, 1), EVERYWHERE, bad(5, 5), 0)
    for params in (DevnetParams(margin=0.0), DevnetParams(hidden=0), DevnetParams(rate=0.0), DevnetParams(top_k=0)):
        with pytest.raises(ConfigError, match="expected"):
            DevnetHead(params, SHAPES)
