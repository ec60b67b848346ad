"""EfficientAD: teacher, student and autoencoder learn together, maps come to one scale, and defects stand out."""

from dataclasses import replace
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
from training.methods.distil import Pdn, PdnSpec, as_input, channel_statistics, save_teacher
from training.methods.efficientad import PRESETS, EfficientadHead, EfficientadNetwork, EfficientadParams, _hardest

pytestmark = pytest.mark.slow  # a real fit that all of them share

SPEC = BackboneSpec("tf_efficientnet_lite0", (8, 16))
SHAPES = [(1, 16, 16), (1, 16, 16)]
EVERYWHERE = np.ones((16, 16), dtype=bool)
PARAMS = EfficientadParams(channels=16, width=0.125, steps=100, batch=2, distil_steps=10, rate=3e-3)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    torch.manual_seed(0)
    save_teacher(Pdn(PdnSpec(channels=16, width=0.125)), path, "none")  # even a random one has something to say of a patch
    return path


@pytest.fixture(scope="module")
def taught(teacher: Path) -> EfficientadNetwork:
    network = EfficientadNetwork(PARAMS, SPEC, (SIDE, SIDE))
    good = pictures(12)
    network.start(teacher, good, 0)
    return teach(network, good)


def test_what_it_was_not_taught_stands_out_where_it_is(taught: EfficientadNetwork) -> None:
    head = EfficientadHead(PARAMS, SHAPES)
    head.fit(Features.of(maps(taught, photographs(6, 1))), EVERYWHERE, 0)
    good, _ = head([torch.from_numpy(m) for m in maps(taught, photographs(6, 3))])
    bad, grid = head([torch.from_numpy(m) for m in maps(taught, defective())])
    assert float(bad.min()) > float(good.max())
    peaks = grid[:, 0].flatten(1).argmax(1)
    assert all(7 <= int(p) // 16 <= 14 and 6 <= int(p) % 16 <= 14 for p in peaks)


def test_the_teacher_is_normalised_on_the_good_images(taught: EfficientadNetwork) -> None:
    mean, std = channel_statistics(taught.teacher, pictures(12))
    assert float(mean.abs().max()) < 0.01 and float((std - 1).abs().max()) < 0.01


def test_without_a_file_a_teacher_is_distilled_from_the_good_images() -> None:
    told: list[str] = []
    networks = []
    for _ in range(2):
        network = EfficientadNetwork(EfficientadParams(channels=8, width=0.05, distil_steps=3), SPEC, (SIDE, SIDE))
        network.start(None, pictures(5), 0, lambda what, done, total: told.append(what))
        networks.append(network.state_dict())
    assert "distilling the teacher" in told
    assert all(torch.equal(v, networks[1][k]) for k, v in networks[0].items())


def test_a_teacher_of_another_size_is_refused(teacher: Path) -> None:
    with pytest.raises(DataError, match="expected channels 8, found 16"):
        EfficientadNetwork(EfficientadParams(channels=8, width=0.125), SPEC, (SIDE, SIDE)).start(teacher, pictures(2), 0)
    with pytest.raises(DataError, match="expected size medium, found small"):
        EfficientadNetwork(EfficientadParams("medium", 16, 0.125), SPEC, (SIDE, SIDE)).start(teacher, pictures(2), 0)


def test_only_the_hardest_differences_are_learnt_from() -> None:
    gap = torch.arange(4000.0).reshape(1, 4, 20, 50)
    assert float(_hardest(gap)) == pytest.approx((3999 + 3998 + 3997 + 3996) / 4)
    assert float(_hardest(torch.ones(1, 1, 2, 2))) == 1


def test_penalty_images_cost_what_the_student_says_of_them(taught: EfficientadNetwork, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "other.png"), photographs(1)[0, ::2])
    losses = []
    for folder in (None, str(tmp_path)):
        network = EfficientadNetwork(replace(PARAMS, penalty_images=folder), SPEC, (SIDE, SIDE))
        network.load_state_dict(taught.state_dict())
        losses.append(float(network.task(pictures(6), pictures(2, 1), 0).loss(np.random.default_rng(0)).detach()))
    other = as_input(tmp_path / "other.png", SIDE, SIDE)
    with torch.no_grad():
        wanted = float(taught.student(torch.from_numpy(other)[None])[:, :16].square().mean())
    assert wanted > 0.1 and losses[1] - losses[0] == pytest.approx(wanted, rel=1e-3)


def test_an_empty_or_absent_penalty_folder_is_named(tmp_path: Path) -> None:
    for folder, words in ((tmp_path, "found none"), (tmp_path / "absent", "nothing at")):
        network = EfficientadNetwork(EfficientadParams(penalty_images=str(folder)), SPEC, (SIDE, SIDE))
        with pytest.raises(DataError, match=words):
            network.task(pictures(2), pictures(2), 0)


@pytest.mark.parametrize("hw", [(64, 64), (32, 160), (256, 256), (288, 416)])
def test_pictures_of_any_shape_give_a_cell_for_4_pixels(hw: tuple[int, int]) -> None:
    network = EfficientadNetwork(EfficientadParams(channels=4, width=0.05), SPEC, hw).eval()
    assert network.level_shapes(*hw) == [(1, hw[0] // 4, hw[1] // 4)] * 2


def some_maps(n: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.gamma(2, scale, (n, 1, 16, 16)).astype(np.float32) for scale in (0.1, 3.0)]


def test_maps_come_to_one_scale_by_quantiles_of_good_images() -> None:
    good, seen = some_maps(40), some_maps(2, 1)
    valid = EVERYWHERE.copy()
    valid[:, 10:] = False
    for level in good:
        level[..., 10:] = 1e4
    head = EfficientadHead(EfficientadParams(top_k=2), SHAPES)
    head.fit(Features.of(good), valid, 0)
    score, grid = head([torch.from_numpy(m) for m in seen])
    wanted = np.zeros((2, 16, 16))
    for level, m in zip(good, seen, strict=True):
        mean = level[:, 0, :, :10].mean(0, dtype=np.float64)
        framed = np.pad(mean, 2, constant_values=np.nan)
        around = np.stack([framed[i : i + 16, j : j + 10] for i in range(5) for j in range(5)])
        place = np.ones((16, 16))
        place[:, :10] = (40 * np.nanmean(around, axis=0) + 2 * mean.mean()) / 42
        low, high = np.quantile((level[:, 0] / place)[..., :10], [0.9, 0.995])
        wanted += 0.5 * 0.1 * m[:, 0] / place / (high - low)
    wanted[..., 10:] = 0
    np.testing.assert_allclose(grid[:, 0].numpy(), wanted, rtol=1e-4)
    np.testing.assert_allclose(score.numpy(), np.sort(wanted.reshape(2, -1), axis=1)[:, -2:].mean(1), rtol=1e-4)


def test_what_cannot_be_is_named() -> None:
    head = EfficientadHead(EfficientadParams(), SHAPES)
    with pytest.raises(DataError, match="at least one valid position"):
        head.fit(Features.of(some_maps(2)), ~EVERYWHERE, 0)
    with pytest.raises(DataError, match="at least 1 held-out"):
        head.fit(Features.of(some_maps(2)).subset(np.arange(0)), EVERYWHERE, 0)
    for params, hw, words in (
        (EfficientadParams(size="large"), (64, 64), "small or medium"),
        (EfficientadParams(steps=0), (64, 64), "steps, batch"),
        (EfficientadParams(), (66, 64), "divisible by 4"),
        (EfficientadParams(), (64, 16), "at least 32x32"),
    ):
        with pytest.raises(ConfigError, match=words):
            EfficientadNetwork(params, SPEC, hw)


def test_fast_is_the_papers_s_and_fine_its_m() -> None:
    assert [PRESETS[name][1].size for name in ("fast", "fine")] == ["small", "medium"]


def test_openvino_computes_what_torch_computes(taught: EfficientadNetwork) -> None:
    head = EfficientadHead(PARAMS, SHAPES)
    head.fit(Features.of(maps(taught, photographs(4, 1))), EVERYWHERE, 0)
    image = defective()[:1]
    found = list(ov.compile_model(convert_trunk(taught, SIDE, SIDE).joined(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([image]).values())
    wanted = maps(taught, image)
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4)
    last = ov.compile_model(convert_head(head, SHAPES), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(wanted)
    for a, b in zip(head([torch.from_numpy(m) for m in wanted]), last.values(), strict=True):
        np.testing.assert_allclose(b, a.numpy(), rtol=1e-3, atol=1e-4)
