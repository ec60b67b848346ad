"""Which methods can be taught: the one table that command line, runs and exports look into."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from training.learn import Network
from training.methods import autoencoder, devnet, efficientad, fastflow, fcdd, mvg, padim, patchcore, stfpm
from training.methods.base import Head


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
    precision: Literal["int8", "fp32"] = "int8"
    """What a bundle is built in unless the user says otherwise."""


METHODS: Mapping[str, Method] = {
    "padim": Method(padim.PadimParams, padim.PadimHead, padim.PRESETS),
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
