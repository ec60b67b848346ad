"""FastFlow: where it starts, what it learns, and as a graph."""

import math

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
import torch

from edge_runtime.errors import ConfigError, DataError
from training.core.base import Features, LevelShape
from training.core.learn import Schedule, learn
from training.methods.fastflow import FastflowHead, FastflowParams

pytestmark = pytest.mark.slow  # a real fit that all of them share

SHAPES: list[LevelShape] = [(6, 4, 6), (8, 2, 3)]
EVERYWHERE = np.ones((4, 6), bool)
SMALL = FastflowParams(hidden_ratio=2.0, batch=32, steps=300, rate=3e-3)


def bent(n: int, seed: int) -> list[npt.NDArray[np.float32]]:
    """Features on a parabola: the second channel follows the square of the first, which no Gaussian can say."""
    rng = np.random.default_rng(seed)
    levels = []
    for c, h, w in SHAPES:
        x = rng.normal(size=(n, c, h, w))
        x[:, 1] = x[:, 0] ** 2 + 0.1 * x[:, 1]
        levels.append((3 * x + 5).astype(np.float32))
    return levels


def unlearnt(valid: npt.NDArray[np.bool_] = EVERYWHERE, params: FastflowParams = SMALL) -> tuple[FastflowHead, Features]:
    head, good = FastflowHead(params, SHAPES), Features.of(bent(400, 0))
    head.task(good, Features.of(bent(30, 1)), valid, None, 0)
    return head.eval(), good


@pytest.fixture(scope="module")
def learnt() -> FastflowHead:
    head = FastflowHead(SMALL, SHAPES)
    learn(head.task(Features.of(bent(400, 0)), Features.of(bent(30, 1)), EVERYWHERE, None, 0), Schedule(), 0)
    return head


def run(head: FastflowHead, levels: list[npt.NDArray[np.float32]]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    with torch.no_grad():
        score, score_map = head([torch.from_numpy(level) for level in levels])
    return score.numpy(), score_map.numpy()


def test_before_it_has_learnt_it_is_the_mahalanobis_distance_of_each_position() -> None:
    from sklearn.covariance import ledoit_wolf

    head, good = unlearnt()
    new = bent(2, 7)
    wanted = []
    for levels, level in zip(good.levels, new, strict=True):
        samples = levels[:, :, 0, 0]
        gap = level[:, :, 0, 0] - samples.mean(0)
        d2 = np.einsum("nc,cd,nd->n", gap, np.linalg.inv(ledoit_wolf(samples)[0]), gap)
        wanted.append(d2 / 2 / len(gap[0]))
    # In the corner bilinear enlarging repeats the coarse level's corner.
    np.testing.assert_allclose(run(head, new)[1][:, 0, 0, 0], np.mean(wanted, 0), rtol=1e-3)


def test_the_stated_jacobian_is_that_of_the_flow() -> None:
    head, _ = unlearnt()
    flow = head.flows[0]
    torch.manual_seed(0)
    for parameter in flow.parameters():
        parameter.data.normal_(0, 0.3)
    x = torch.randn(1, 6, 1, 1)
    z, log_det = flow(x)
    matrix = torch.autograd.functional.jacobian(lambda v: flow(v.view(1, 6, 1, 1))[0].flatten(), x.flatten())
    assert float(log_det.detach()) == pytest.approx(float(torch.linalg.slogdet(matrix).logabsdet), rel=1e-4)
    assert abs(float(log_det.detach())) > 0.01 and z.shape == x.shape


def test_it_learns_what_a_gaussian_cannot_say(learnt: FastflowHead) -> None:
    good, bad = bent(40, 3), bent(40, 3)
    bad[0][:, 1] += 4.5  # beside the parabola, but nearer than many good ones in terms of variance

    def contrast(head: FastflowHead) -> float:
        return float(run(head, bad)[1].mean() / run(head, good)[1].mean())

    assert contrast(learnt) > contrast(unlearnt()[0]) + 0.1


def test_held_out_likelihood_rises_and_a_second_fit_goes_on_from_the_weights_that_are_there() -> None:
    head, good = unlearnt()
    held = Features.of(bent(30, 1))
    task = head.task(good, held, EVERYWHERE, None, 0)
    with torch.no_grad():
        start = task.validate()
    assert start == pytest.approx(0.5 * (1 + math.log(2 * math.pi)), abs=0.15)  # a unit Gaussian's entropy a channel
    outcome = learn(task, Schedule(max_steps=100), 0)
    assert outcome.best < start - 0.05
    again = head.task(good, held, EVERYWHERE, None, 0)
    with torch.no_grad():
        assert again.validate() == pytest.approx(outcome.best, abs=1e-4)


def test_ignored_positions_are_zero_and_never_count() -> None:
    valid = EVERYWHERE.copy()
    valid[:, 4:] = False
    head = FastflowHead(FastflowParams(hidden_ratio=1.0, batch=8, steps=5, top_k=24), SHAPES)
    good = Features.of(bent(60, 0))
    learn(head.task(good, Features.of(bent(10, 1)), valid, None, 0), Schedule(), 0)
    new = bent(2, 5)
    score, score_map = run(head, new)
    assert (score_map[:, 0][:, ~valid] == 0).all() and (score_map[:, 0][:, valid] > 0).all()
    np.testing.assert_allclose(score, score_map[:, 0][:, valid].mean(1), rtol=1e-5)  # fewer cells than top_k
    new[0][..., 4:], new[1][..., 2:] = 1e3, -1e3
    np.testing.assert_array_equal(run(head, new)[0], score)


def test_the_same_seed_gives_the_same_head_whatever_was_drawn_before() -> None:
    states = []
    for other in (1, 2):
        torch.manual_seed(other)
        head = FastflowHead(FastflowParams(batch=8, steps=10), SHAPES)
        head.fit(Features.of(bent(40, 0)), EVERYWHERE, 0)
        states.append(head.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_openvino_computes_what_torch_computes_from_a_saved_state(learnt: FastflowHead) -> None:
    head = FastflowHead(SMALL, SHAPES).eval()
    head.load_state_dict(learnt.state_dict())
    new = bent(1, 9)
    model = ov.convert_model(torch.export.export(head, ([torch.from_numpy(level) for level in new],), strict=False))
    assert not {"If", "Loop", "TensorIterator"} & {node.get_type_name() for node in model.get_ops()}
    result = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(new)
    for i, wanted in enumerate(run(learnt, new)):
        np.testing.assert_allclose(result[i], wanted, rtol=1e-3, atol=1e-5)


def test_a_few_images_are_enough_and_none_are_named() -> None:
    head = FastflowHead(FastflowParams(steps=3, batch=2), SHAPES)
    head.fit(Features.of(bent(8, 0)), EVERYWHERE, 0)
    assert np.isfinite(run(head, bent(2, 1))[0]).all()
    with pytest.raises(DataError, match="at least 2 good images"):
        head.task(Features.of(bent(1, 0)), Features.of(bent(1, 1)), EVERYWHERE, None, 0)
    with pytest.raises(DataError, match="held-out"):
        head.task(Features.of(bent(8, 0)), Features.of(bent(1, 1)).subset(np.array([], np.intp)), EVERYWHERE, None, 0)
    with pytest.raises(DataError, match="valid position"):
        head.fit(Features.of(bent(8, 0)), ~EVERYWHERE, 0)
    for wrong in (FastflowParams(flow_steps=0), FastflowParams(hidden_ratio=0.0), FastflowParams(rate=0.0), FastflowParams(top_k=0)):
        with pytest.raises(ConfigError, match="expected"):
            FastflowHead(wrong, SHAPES)


def test_stated_memory_covers_features_and_state() -> None:
    head = FastflowHead(FastflowParams(), [(112, 16, 16)])
    state = sum(t.numel() * t.element_size() for t in head.state_dict().values())
    assert 666 * 4 * 112 * 256 + 3 * state < head.memory_bytes(666) < 1 << 30


def test_what_a_whole_picture_shows_is_explained_before_its_positions_are_judged() -> None:
    """A lamp that brightens all of a picture is no news, and a cell that is as bright without the rest is."""
    shape = (5, 4, 4)
    everywhere = np.ones((4, 4), bool)

    def pictures(n: int, seed: int) -> npt.NDArray[np.float32]:
        rng = np.random.default_rng(seed)
        lamp = 5 * rng.normal(size=(n, 1, 1, 1))
        return (lamp + rng.normal(size=(n, *shape))).astype(np.float32)

    heads = {}
    for context in (0, 2):
        heads[context] = FastflowHead(FastflowParams(context=context, top_k=1), [shape]).eval()
        heads[context].prepare(Features.of([pictures(600, 0)]), Features.of([pictures(60, 1)]), everywhere)
    good, odd = pictures(200, 2), np.random.default_rng(3).normal(size=(1, *shape)).astype(np.float32)
    odd[:, :, 1, 2] += 8  # as a lamp would, at one place alone
    odd_cell, usual_cells = ({k: run(head, [x])[1][:, 0] for k, head in heads.items()} for x in (odd, good))
    # Half of the mean squared length of 5 whitened numbers.
    assert usual_cells[0].mean() == pytest.approx(0.5, rel=0.1) and usual_cells[2].mean() == pytest.approx(0.5, rel=0.1)
    assert odd_cell[0][0, 1, 2] < np.quantile(usual_cells[0], 0.99)
    assert odd_cell[2][0, 1, 2] > 5 * np.quantile(usual_cells[2], 0.99)
    bright = good[:1] + 12
    assert run(heads[2], [bright])[0][0] < 3 * np.quantile(usual_cells[2].max((1, 2)), 0.99)
