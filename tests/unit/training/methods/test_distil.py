"""Teachers: distilled from a backbone on a folder of pictures, written whole, and refused where they do not fit."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from edge_runtime.console import run_app
from edge_runtime.errors import ConfigError, DataError
from training.commands.cli import app
from training.core.backbones import build_backbone
from training.core.learn import Pictures
from training.methods.distil import (
    STRIDES,
    Pdn,
    PdnSpec,
    Target,
    as_input,
    channel_statistics,
    distil,
    load_teacher,
    make_teacher,
    save_teacher,
)

TINY = PdnSpec(channels=6, width=0.05)


def scenes(n: int, side: int = 64) -> np.ndarray:
    rng = np.random.default_rng(0)
    noise = rng.normal(128, 60, (n, side, side, 3)).astype(np.float32)
    return np.stack([cv2.GaussianBlur(image, (0, 0), 1 + i % 3) for i, image in enumerate(noise)]).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    (root / "deep" / "er").mkdir(parents=True)
    for i, image in enumerate(scenes(9)):
        where = (root, root / "deep", root / "deep" / "er")[i % 3]
        # Whatever lies there: gray, colour, 16 bits, any size.
        cv2.imwrite(str(where / f"{i}.png"), (image, image[:40, :, 0], image.astype(np.uint16) * 257)[i // 3])
    (root / "notes.txt").write_text("no picture")
    return root


@pytest.mark.parametrize("size", ["small", "medium"])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 80)])
def test_each_position_describes_the_33_pixels_around_it(size: str, height: int, width: int) -> None:
    pdn = Pdn(replace(TINY, size=size)).eval()
    image = torch.full((1, height, width, 3), 128, dtype=torch.uint8)
    changed = image.clone()
    changed[0, 32, 40] = 255
    with torch.inference_mode():
        gap = (pdn(changed) - pdn(image)).abs().sum(1)[0]
    assert gap.shape == (height // 4, width // 4)
    rows, columns = np.nonzero(gap.numpy() > 1e-9)
    centres = np.stack([rows * 4, columns * 4], axis=1) - (32, 40)
    assert len(centres) and np.abs(centres).max() <= 16 and abs(centres.mean()) < 2


def test_medium_is_the_larger_one_and_full_width_has_the_papers_channels() -> None:
    small, medium = (Pdn(PdnSpec(size, 384, 1.0)) for size in ("small", "medium"))
    assert [sum(p.numel() for p in pdn.parameters()) for pdn in (small, medium)] == [2_694_144, 8_026_624]
    with pytest.raises(ConfigError, match="small or medium"):
        PdnSpec("large")


def test_what_is_folded_in_gives_mean_0_and_variance_1() -> None:
    torch.manual_seed(0)
    pdn, pictures = Pdn(TINY), Pictures(scenes(4), np.arange(4))
    pdn.fold(*channel_statistics(pdn, pictures))
    mean, std = channel_statistics(pdn, pictures)
    assert float(mean.abs().max()) < 1e-3 and float((std - 1).abs().max()) < 1e-3


def test_the_target_is_the_backbones_features_of_the_picture_at_twice_its_size() -> None:
    backbone, images = build_backbone("efficientnet_lite0", STRIDES), scenes(3)
    target = Target(backbone, 40 + 112)  # as many channels as there are: nothing is pooled
    raw = target(torch.from_numpy(images[:1]))
    twice = cv2.resize(images[0], (128, 128), interpolation=cv2.INTER_LINEAR)
    wanted = torch.nn.functional.avg_pool2d(backbone(torch.from_numpy(twice)[None])[0], 3, 1, 1, count_include_pad=False)
    assert raw.shape == (1, 152, 16, 16)
    assert float((raw[:, :40] - wanted).abs().mean()) < 0.05 * float(wanted.abs().mean())
    target.measure(Pictures(images, np.arange(3)), 3, np.random.default_rng(0))
    scaled = target(torch.from_numpy(images))
    assert float(scaled.mean().abs()) < 0.01 and float(scaled.var()) == pytest.approx(1, abs=0.05)


@pytest.mark.slow
def test_the_teacher_comes_to_say_what_the_backbone_says() -> None:
    y, x = np.mgrid[:64, :64]
    stripes = np.stack([120 + 60 * np.sin((x + i) / 4) + 20 * np.cos(y / 6) for i in range(8)]).astype(np.uint8)
    backbone, pictures = build_backbone("efficientnet_lite0", STRIDES), Pictures(np.repeat(stripes[..., None], 3, 3), np.arange(8))
    _, outcome = make_teacher(PdnSpec(channels=16, width=0.25), backbone, pictures, 0, steps=50, batch=2, rate=3e-3)
    assert outcome.best < 0.9, "1.0 is what knows nothing"
    first, second = (make_teacher(TINY, backbone, pictures, 3, steps=2, batch=1)[0].state_dict() for _ in range(2))
    assert all(torch.equal(v, second[k]) for k, v in first.items())


@pytest.mark.slow
def test_any_folder_of_pictures_will_do(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "teacher.safetensors"
    outcome = distil(folder, out, TINY, backbone="efficientnet_lite0", image_size=64, minutes=0.02)
    assert outcome.steps >= 1
    with safe_open(out, framework="pt") as file:
        notes = file.metadata()
    assert notes is not None
    assert {k: notes[k] for k in ("size", "channels", "width", "backbone")} == {
        "size": "small", "channels": "6", "width": "0.05", "backbone": "tf_efficientnet_lite0",
    }  # fmt: skip
    assert load_teacher(out, TINY)(torch.from_numpy(scenes(1))).shape == (1, 6, 16, 16)
    longer = distil(folder, out, TINY, backbone="efficientnet_lite0", image_size=64, minutes=0.04, resume=True)
    assert longer.steps > outcome.steps
    with pytest.raises(DataError, match="image_size 96, found one with 64"):
        distil(folder, out, TINY, backbone="efficientnet_lite0", image_size=96, minutes=0.01, resume=True)


@pytest.mark.slow
def test_the_verb_says_what_it_wrote_and_what_is_wrong(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*args: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as e:
            run_app(app, ["distil", *map(str, args)])
        return int(e.value.code or 0), capsys.readouterr().err

    out = tmp_path / "t.safetensors"
    few = tmp_path / "few"
    few.mkdir()
    code, err = run("--images", folder, "--out", out, "--channels", 6, "--width", 0.05, "--image-size", 64, "--minutes", 0.02)
    assert code == 0 and "t.safetensors" in err and load_teacher(out, TINY)
    other = tmp_path / "other.safetensors"
    for args, exit_code, words in (
        (("--images", folder, "--out", out), 78, "--force to replace it"),
        (("--images", few, "--out", other), 66, "at least 8 pictures"),
        (("--images", tmp_path / "absent", "--out", other), 66, "found nothing at"),
        (("--images", folder, "--out", tmp_path / "no" / "t.safetensors"), 66, "create it first"),
        (("--images", folder, "--out", other, "--size", "huge"), 78, "small or medium"),
        (("--images", folder, "--out", other, "--image-size", 62), 78, "divisible by 4"),
        (("--images", folder, "--out", other, "--weights", folder / "notes.txt"), 66, "cannot be read"),
    ):
        code, err = run(*args)
        assert code == exit_code and words in " ".join(err.split()), err


def test_teachers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    save_teacher(Pdn(TINY), path, "resnet18")
    assert [p.name for p in tmp_path.iterdir()] == ["t.safetensors"]
    for spec, words in (
        (replace(TINY, size="medium"), "expected size medium, found small"),
        (replace(TINY, channels=8), "expected channels 8, found 6"),
        (replace(TINY, width=0.5), "expected width 0.5, found 0.05"),
    ):
        with pytest.raises(DataError, match=rf"t\.safetensors: {words}"):
            load_teacher(path, spec)
    other, broken = tmp_path / "other.safetensors", tmp_path / "broken.safetensors"
    save_file({"conv.weight": torch.zeros(2)}, other)
    broken.write_bytes(path.read_bytes()[:500])
    for wrong, words in ((other, "other weights"), (broken, "cannot be read"), (tmp_path / "absent", "cannot be read")):
        with pytest.raises(DataError, match=words):
            load_teacher(wrong, TINY)


def test_pictures_of_any_depth_become_inputs(folder: Path) -> None:
    paths = list(folder.rglob("*.png"))
    assert paths
    for path in paths:
        image = as_input(path, 32, 64)
        assert image.shape == (32, 64, 3) and image.dtype == np.uint8 and 90 < image.mean() < 165
