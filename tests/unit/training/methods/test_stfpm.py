"""STFPM: the student learns from its teacher alone, what it does not know stands out, and maps are multiplied."""

from pathlib import Path

import cv2
import numpy as np
import openvino as ov
import pytest
import torch

from edge_runtime.errors import ConfigError, DataError
from export.build.convert import convert_head, convert_trunk
from tests.unit.training.methods.students import SIDE, defective, maps, photographs, pictures, teach
from training.core.backbones import BackboneSpec
from training.core.base import Features
from training.core.learn import Pictures
from training.methods.stfpm import StfpmHead, StfpmNetwork, StfpmParams, gap

pytestmark = pytest.mark.slow  # a real fit that all of them share

SPEC = BackboneSpec("tf_efficientnet_lite0", (8, 16))
SHAPES = [(40, 8, 8), (112, 4, 4)]
EVERYWHERE = np.ones((8, 8), dtype=bool)


@pytest.fixture(scope="module")
def taught() -> StfpmNetwork:
    network = StfpmNetwork(StfpmParams(steps=60), SPEC, (SIDE, SIDE))
    good = pictures(12)
    network.start(None, good, 0)
    return teach(network, good)


def test_a_gap_is_the_difference_of_directions() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(2, 5, 3, 3)).astype(np.float32) for _ in range(2))
    wanted = a / np.linalg.norm(a, axis=1, keepdims=True) - b / np.linalg.norm(b, axis=1, keepdims=True)
    found = gap(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)
    longer = gap(torch.from_numpy(a), torch.from_numpy(7 * b))
    np.testing.assert_allclose(longer.numpy(), found.numpy(), atol=1e-5)
    still = torch.zeros(1, 5, 1, 1, requires_grad=True)
    gap(still, torch.from_numpy(b[:1, :, :1, :1])).square().sum().backward()
    assert still.grad is not None and torch.isfinite(still.grad).all()


def test_the_loss_is_the_mean_of_half_the_squared_gaps_summed_over_levels() -> None:
    network = StfpmNetwork(StfpmParams(), SPEC, (SIDE, SIDE))
    network.start(None, pictures(2), 0)
    held = pictures(5, 1)
    with torch.inference_mode():
        levels = [level.numpy() for level in network(torch.from_numpy(held.images))]
        found = network.task(pictures(2), held, 0).validate()
    assert found == pytest.approx(sum(float(np.square(level).sum(1).mean()) / 2 for level in levels), rel=1e-4)


def test_what_it_was_not_taught_stands_out_where_it_is(taught: StfpmNetwork) -> None:
    head = StfpmHead(StfpmParams(top_k=3), SHAPES)
    head.fit(Features.of(maps(taught, photographs(6, 1))), EVERYWHERE, 0)
    good, _ = head([torch.from_numpy(m) for m in maps(taught, photographs(6, 3))])
    bad, grid = head([torch.from_numpy(m) for m in maps(taught, defective())])
    assert float(bad.min()) > float(good.max())
    peaks = grid[:, 0].flatten(1).argmax(1)
    assert all(3 <= int(p) // 8 <= 6 and 3 <= int(p) % 8 <= 6 for p in peaks)


def test_the_same_seed_gives_the_same_student_and_another_one_another() -> None:
    built = []
    for seed in (0, 0, 1):
        network = StfpmNetwork(StfpmParams(), SPEC, (SIDE, SIDE))
        network.start(None, pictures(2), seed)
        built.append(network.student.state_dict()["body.conv_stem.weight"])
    assert torch.equal(built[0], built[1]) and not torch.equal(built[0], built[2])


def test_a_saved_state_is_all_there_is_to_it(taught: StfpmNetwork) -> None:
    again = StfpmNetwork(StfpmParams(), SPEC, (SIDE, SIDE)).eval()
    again.load_state_dict({k: v.contiguous() for k, v in taught.state_dict().items()})
    for a, b in zip(maps(taught, defective()), maps(again, defective()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def some_gaps(n: int, seed: int = 0, shapes: list[tuple[int, int, int]] = SHAPES) -> list[np.ndarray]:
    """With channels that go together, a mean that is not 0, and places that are worse than others."""
    rng = np.random.default_rng(seed)
    fixed = np.random.default_rng(99)
    found = []
    for c, h, w in shapes:
        mix, mean, worse = fixed.normal(0, 1, (c, c)), fixed.normal(0, 1, (c, 1, 1)), fixed.uniform(0.5, 2, (h, w))
        x = np.einsum("dc,nchw->ndhw", mix, rng.normal(0, 1, (n, c, h, w)))
        found.append(((x * worse + mean) * 0.1).astype(np.float32))
    return found


def test_distances_are_mahalanobis_s_in_units_of_their_place_and_are_multiplied() -> None:
    shapes = [(3, 8, 8), (5, 4, 4)]
    good, seen = some_gaps(300, 0, shapes), some_gaps(2, 1, shapes)
    head = StfpmHead(StfpmParams(top_k=4), shapes)
    head.fit(Features.of(good), EVERYWHERE, 0)
    wanted = np.ones((2, 8, 8))
    for level, found in zip(good, seen, strict=True):
        c, h, w = level.shape[1:]
        rows = level.transpose(0, 2, 3, 1).reshape(-1, c).astype(np.float64)
        mean, inverse = rows.mean(0), np.linalg.inv(np.cov(rows.T, bias=True))
        of_good, of_seen = (
            np.einsum("nhwc,cd,nhwd->nhw", x - mean, inverse, x - mean) / c for x in (m.transpose(0, 2, 3, 1) for m in (level, found))
        )
        place = of_good.mean(0)
        framed, ones = np.pad(place, 1), np.pad(np.ones_like(place), 1)
        local = sum(framed[i : i + h, j : j + w] for i in range(3) for j in range(3))
        local = local / sum(ones[i : i + h, j : j + w] for i in range(3) for j in range(3))
        local = (300 * local + 2 * place.mean()) / 302
        wanted *= np.stack([cv2.resize(m / local, (8, 8), interpolation=cv2.INTER_LINEAR) for m in of_seen])
    score, grid = head([torch.from_numpy(m) for m in seen])
    # Not exactly: the covariance is that of 20,000 cells, shrunk as much as these call for.
    np.testing.assert_allclose(grid[:, 0].numpy(), np.sqrt(wanted), rtol=0.1)
    np.testing.assert_allclose(score.numpy(), np.sort(np.sqrt(wanted).reshape(2, -1), axis=1)[:, -4:].mean(1), rtol=0.1)


def test_one_held_out_image_is_enough_to_stay_finite() -> None:
    head = StfpmHead(StfpmParams(), SHAPES)
    head.fit(Features.of(some_gaps(1)), EVERYWHERE, 0)
    score, grid = head([torch.from_numpy(m) for m in some_gaps(2, 1)])
    assert torch.isfinite(score).all() and torch.isfinite(grid).all() and (score > 0).all()


def test_ignored_positions_are_zero_and_do_not_count() -> None:
    valid = EVERYWHERE.copy()
    valid[:, 2:] = False
    head = StfpmHead(StfpmParams(top_k=64), SHAPES)
    head.fit(Features.of(some_gaps(5)), valid, 0)
    score, grid = head([torch.from_numpy(m) for m in some_gaps(1, 1)])
    assert (grid[..., 2:] == 0).all() and (grid[..., :2] > 0).all()
    assert float(score) == pytest.approx(float(grid[..., :2].mean()), rel=1e-5)


def test_what_cannot_be_is_named(tmp_path: Path) -> None:
    network = StfpmNetwork(StfpmParams(), SPEC, (SIDE, SIDE))
    with pytest.raises(DataError, match="found 0 and 3"):
        network.task(Pictures(photographs(1), np.arange(0)), pictures(3), 0)
    with pytest.raises(DataError, match=r"weights.*absent\.pth"):
        network.start(tmp_path / "absent.pth", pictures(2), 0)
    head = StfpmHead(StfpmParams(), SHAPES)
    with pytest.raises(DataError, match="at least one valid position"):
        head.fit(Features.of(some_gaps(2)), ~EVERYWHERE, 0)
    with pytest.raises(DataError, match="at least 1 held-out"):
        head.fit(Features.of(some_gaps(2)).subset(np.arange(0)), EVERYWHERE, 0)
    with pytest.raises(ConfigError, match="steps, batch and top_k"):
        StfpmHead(StfpmParams(steps=0), SHAPES)
    with pytest.raises(ConfigError, match="momentum above 0"):
        StfpmHead(StfpmParams(momentum=0), SHAPES)


def test_openvino_computes_what_torch_computes() -> None:
    network = StfpmNetwork(StfpmParams(), BackboneSpec("tf_efficientnet_lite0", (4, 8)), (SIDE, SIDE))
    network.start(None, pictures(2), 0)
    shapes = network.level_shapes(SIDE, SIDE)
    assert shapes == [(24, 16, 16), (40, 8, 8)]
    head = StfpmHead(StfpmParams(), shapes)
    head.fit(Features.of(maps(network, photographs(4, 1))), np.ones((16, 16), dtype=bool), 0)
    image = defective()[:1]
    trunk = ov.compile_model(convert_trunk(network, SIDE, SIDE).joined(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    wanted = maps(network, image)
    for a, b in zip(wanted, trunk([image]).values(), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-2, atol=1e-4)
    last = ov.compile_model(convert_head(head, shapes), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(wanted)
    for a, b in zip(head([torch.from_numpy(m) for m in wanted]), last.values(), strict=True):
        np.testing.assert_allclose(b, a.numpy(), rtol=1e-3, atol=1e-4)
