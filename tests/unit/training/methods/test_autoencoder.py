"""The autoencoder: what its loss measures, that it learns, that its head judges by place, and that all of it survives an export."""

from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch

from edge_runtime.errors import ConfigError, DataError
from export.build.convert import convert_head, convert_trunk, stitch
from training.core.backbones import BackboneSpec
from training.core.base import Features
from training.core.learn import LearningResult, Pictures, Schedule, learn
from training.methods.autoencoder import WINDOW, AutoencoderHead, AutoencoderNetwork, AutoencoderParams, ssim

pytestmark = pytest.mark.slow  # a real fit that all of them share

SPEC = BackboneSpec("tf_efficientnet_lite0", (16,))
SMALL = AutoencoderParams(latent=8, width=8, shrink=1, batch=4, rate=5e-3, top_k=3)
SIDE = 48


def pictures(n: int, seed: int = 0, hw: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """(n, *hw, 3): a bar that lies a little differently in each picture, some noise."""
    rng = np.random.default_rng(seed)
    images = rng.integers(98, 103, (n, *hw, 3))
    for image in images:
        at = int(rng.choice([6, 16]))
        image[at : at + 8] += int(rng.integers(60, 100))
    return images.astype(np.uint8)


def learnt(params: AutoencoderParams, steps: int, seed: int = 0) -> tuple[AutoencoderNetwork, float, LearningResult]:
    """A network after so many steps, and its held-out loss before them."""
    images = pictures(24)
    good, held = Pictures(images, np.arange(20)), Pictures(images, np.arange(20, 24))
    network = AutoencoderNetwork(params, SPEC, (SIDE, SIDE))
    network.start(None, good, seed)
    task = network.task(good, held, seed)
    with torch.no_grad():
        before = task.validate()
    return network, before, learn(task, Schedule(max_steps=steps), seed)


@pytest.fixture(scope="module")
def taught() -> tuple[AutoencoderNetwork, AutoencoderHead]:
    network, before, outcome = learnt(SMALL, 50)
    assert outcome.best < 0.85 * before
    return network, fitted(network, pictures(12, 1))


def fitted(network: AutoencoderNetwork, images: np.ndarray, valid: np.ndarray | None = None) -> AutoencoderHead:
    hw = images.shape[1:3]
    head = AutoencoderHead(network.params, network.level_shapes(*hw)).eval()
    head.fit(errors(network, images), np.ones(head.grid_hw, bool) if valid is None else valid, 0)
    return head


def errors(network: AutoencoderNetwork, images: np.ndarray) -> Features:
    with torch.inference_mode():
        return Features.of([level.numpy() for level in network(torch.from_numpy(images))])


def test_ssim_is_the_papers_equation() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((1, 1, 20, 20)).astype(np.float32)
    y = np.clip(x + rng.normal(0, 0.1, x.shape), 0, 1).astype(np.float32)
    r = WINDOW // 2
    a, b = (t[0, 0, 10 - r : 10 + r + 1, 8 - r : 8 + r + 1].astype(np.float64) for t in (x, y))
    covariance = ((a - a.mean()) * (b - b.mean())).mean()
    wanted = (2 * a.mean() * b.mean() + 1e-4) * (2 * covariance + 9e-4)
    wanted /= (a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (a.var() + b.var() + 9e-4)
    found = ssim(torch.from_numpy(x), torch.from_numpy(y))
    assert float(found[0, 0, 10, 8]) == pytest.approx(wanted, rel=1e-4) and wanted < 0.99
    assert torch.allclose(ssim(torch.from_numpy(x), torch.from_numpy(x)), torch.ones(1), atol=1e-4)


def test_a_defect_scores_above_good_parts_and_is_found_where_it_is(taught: tuple[AutoencoderNetwork, AutoencoderHead]) -> None:
    network, head = taught
    images = pictures(8, 2)
    images[0, 32:40, 8:16] = 10
    with torch.inference_mode():
        score, grid = head(network(torch.from_numpy(images)))
    assert float(score[0]) > 2 * float(score[1:].max())
    row, column = np.unravel_index(int(grid[0, 0].argmax()), head.grid_hw)
    # Cells of 4 pixels; SSIM's window reaches 5 pixels, one cell and a bit, beyond the defect.
    assert 6 <= row <= 11 and 0 <= column <= 5


def test_the_same_seed_learns_the_same() -> None:
    first, again, other = (learnt(SMALL, 3, seed)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["squeeze.weight"], other["squeeze.weight"])


def test_the_variational_form_learns_and_is_not_random_once_taught() -> None:
    network, before, outcome = learnt(AutoencoderParams(variational=True, latent=8, width=8, shrink=1, batch=4, rate=5e-3), 40)
    assert outcome.best < 0.9 * before
    image = torch.from_numpy(pictures(1, 3))
    with torch.inference_mode():
        code = network.encode(network.scale(image))
        assert code.shape == (1, 16) and not torch.allclose(code[:, 8:], torch.zeros(1), atol=1e-3)
        assert torch.equal(network(image)[0], network(image)[0])


def test_an_error_that_good_parts_show_at_a_place_counts_for_less_there() -> None:
    rng = np.random.default_rng(0)
    level = rng.normal(1, 0.1, (40, 1, 6, 6)).astype(np.float32)
    level[:, :, 0, 0] = rng.normal(3, 1, (40, 1))
    head = AutoencoderHead(AutoencoderParams(top_k=1), [(1, 6, 6)])
    valid = np.ones((6, 6), bool)
    valid[:, 5] = False
    head.fit(Features.of([level]), valid, 0)
    new = torch.ones(3, 1, 6, 6)
    new[0, 0, 0, 0], new[1, 0, 3, 3], new[2, 0, 3, 5] = 3.5, 3.5, 100
    score, grid = head([new])
    assert score[1] > 5 * score[0] and score[2] < score[1] / 5
    assert (grid[..., 5] == 0).all() and (grid >= 0).all()


def test_two_images_are_enough_for_the_head_and_what_is_not_is_named() -> None:
    level = np.random.default_rng(0).normal(1, 0.1, (2, 1, 4, 4)).astype(np.float32)
    head = AutoencoderHead(AutoencoderParams(), [(1, 4, 4)])
    for n in (1, 2):
        head.fit(Features.of([level[:n]]), np.ones((4, 4), bool), 0)
        score, _ = head([torch.full((1, 1, 4, 4), 2.0)])
        assert torch.isfinite(score).all() and 1 < float(score) < 100
    assert torch.isfinite(head([torch.zeros(1, 1, 4, 4)])[0]).all()
    with pytest.raises(DataError, match="0 positions"):
        head.fit(Features.of([level]), np.zeros((4, 4), bool), 0)
    with pytest.raises(DataError, match=r"mask \(4, 4\)"):
        head.fit(Features.of([level]), np.ones((2, 2), bool), 0)


def test_settings_and_weights_that_do_not_fit_are_named() -> None:
    for params, said in (
        (AutoencoderParams(latent=0), "latent to be above 0"),
        (AutoencoderParams(kl=-1.0), "kl to be at least 0"),
        (AutoencoderParams(shrink=4), "at least 64x64 pixels, found 48x48"),
    ):
        with pytest.raises(ConfigError, match=said):
            AutoencoderNetwork(params, SPEC, (SIDE, SIDE))
    with pytest.raises(ConfigError, match="top_k"):
        AutoencoderHead(AutoencoderParams(top_k=0), [(1, 4, 4)])
    with pytest.raises(DataError, match="no use for the weights"):
        AutoencoderNetwork(SMALL, SPEC, (SIDE, SIDE)).start(Path("teacher.pth"), Pictures(pictures(2), np.arange(2)), 0)


def test_openvino_computes_what_torch_computes_on_a_size_that_no_stride_divides() -> None:
    images = pictures(4, 4, (51, 70))
    params = AutoencoderParams(latent=8, width=8, shrink=2, top_k=3, variational=True)
    network = AutoencoderNetwork(params, SPEC, (51, 70)).eval().requires_grad_(False)
    network.start(None, Pictures(images, np.arange(4)), 0)
    loaded = AutoencoderNetwork(params, SPEC, (51, 70)).eval().requires_grad_(False)
    loaded.load_state_dict(network.state_dict())
    head = fitted(network, images)
    model = stitch(convert_trunk(loaded, 51, 70).joined(), convert_head(head, network.level_shapes(51, 70)))
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    new = pictures(1, 5, (51, 70))
    new[0, 30:38, 40:50] = 20
    with torch.inference_mode():
        score, grid = head(network(torch.from_numpy(new)))
    found = compiled([new])
    np.testing.assert_allclose(found["score"], score.numpy(), rtol=1e-3)
    np.testing.assert_allclose(found["map"], grid.numpy(), rtol=1e-2, atol=1e-2)
