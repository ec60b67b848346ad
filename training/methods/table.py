"""Which methods can be taught: the one table that command line, runs and exports look into."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from edge_runtime.errors import ConfigError
from training.core.backbones import BackboneSpec
from training.core.base import Head, LevelShape
from training.core.learn import Network
from training.methods import autoencoder, devnet, efficientad, fastflow, fcdd, mvg, padim, patchcore, stfpm


class Method(NamedTuple):
    """One row of the table below."""

    params: type[Any]
    """A frozen dataclass: what a user may choose."""
    head: type[Head]
    """Built as head(params, level_shapes). A `TrainedHead` learns by gradient steps."""
    presets: Mapping[str, tuple[tuple[int, ...], Any]]
    """Name -> (strides of the backbone, params)."""
    network: type[Network] | None = None
    """What learns on images, built as network(params, backbone_spec, (height, width)); None: a frozen backbone gives the levels."""
    outliers: Literal["none", "optional", "required"] = "none"
    """Whether it learns from bad images: "optional" paints synthetic ones where none are given."""
    least_images: int = 8
    """Good images below which it is refused."""
    fp32_presets: frozenset[str] = frozenset()
    """Presets to which INT8 costs more than the parity gate allows: their bundles are FP32 unless the user says otherwise."""

    def precision(self, preset: str) -> Literal["int8", "fp32"]:
        """What a bundle is built in unless the user says otherwise."""
        return "fp32" if preset in self.fp32_presets else "int8"


METHODS: Mapping[str, Method] = {
    # One Gaussian for a whole picture knows no place where features are quiet, so it feels each activation that INT8 rounds: image AUROC
    # 0.969 instead of 0.981 on printed circuit boards at 640 px.
    "padim": Method(padim.PadimParams, padim.PadimHead, padim.PRESETS, fp32_presets=frozenset({"shared"})),
    "patchcore": Method(patchcore.PatchcoreParams, patchcore.PatchcoreHead, patchcore.PRESETS),
    "mvg": Method(mvg.MvgParams, mvg.MvgHead, mvg.PRESETS),
    "stfpm": Method(stfpm.StfpmParams, stfpm.StfpmHead, stfpm.PRESETS, stfpm.StfpmNetwork),
    "efficientad": Method(
        efficientad.EfficientadParams, efficientad.EfficientadHead, efficientad.PRESETS, efficientad.EfficientadNetwork, least_images=16
    ),
    "autoencoder": Method(autoencoder.AutoencoderParams, autoencoder.AutoencoderHead, autoencoder.PRESETS, autoencoder.AutoencoderNetwork),
    "fastflow": Method(fastflow.FastflowParams, fastflow.FastflowHead, fastflow.PRESETS),
    "fcdd": Method(fcdd.FcddParams, fcdd.FcddHead, fcdd.PRESETS, outliers="optional"),
    "devnet": Method(devnet.DevnetParams, devnet.DevnetHead, devnet.PRESETS, outliers="required"),
}


def make_params(method: str, values: Mapping[str, Any]) -> Any:
    """The method's Params from plain values. Raises ConfigError for an unknown method, key, or type."""
    known = METHODS.get(method)
    if known is None:
        raise ConfigError(f"method: expected one of {', '.join(METHODS)}, found {method!r}")
    fields = {f.name for f in dataclasses.fields(known.params)}
    unknown = sorted(set(values) - fields)
    if unknown:
        raise ConfigError(f"{method}: has no parameter {unknown[0]!r}; it has {', '.join(sorted(fields))}")
    try:
        return msgspec.convert(dict(values), known.params)
    except msgspec.ValidationError as e:
        raise ConfigError(f"{method}: {e}") from e


def make_head(method: str, values: Mapping[str, Any], level_shapes: list[LevelShape]) -> Head:
    """An unfitted head. Raises ConfigError."""
    params = make_params(method, values)
    return METHODS[method].head(params, level_shapes)


def make_network(method: str, values: Mapping[str, Any], spec: BackboneSpec, input_hw: tuple[int, int]) -> Network | None:
    """The method's network without weights; None for a method over a frozen backbone. Raises ConfigError."""
    params = make_params(method, values)
    kind = METHODS[method].network
    return None if kind is None else kind(params, spec, input_hw)
