"""The methods that can be taught, one file each."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from training.methods import mvg, padim, patchcore
from training.methods.base import Head


class Method(NamedTuple):
    """One row of the table below."""

    params: type[Any]
    """A frozen dataclass: what a user may choose."""
    head: type[Head]
    """Built as head(params, level_shapes)."""
    presets: Mapping[str, tuple[tuple[int, ...], Any]]
    """Name -> (strides of the backbone, params)."""


METHODS: Mapping[str, Method] = {
    "padim": Method(padim.PadimParams, padim.PadimHead, padim.PRESETS),
    "patchcore": Method(patchcore.PatchcoreParams, patchcore.PatchcoreHead, patchcore.PRESETS),
    "mvg": Method(mvg.MvgParams, mvg.MvgHead, mvg.PRESETS),
}
