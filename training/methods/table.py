"""Which methods can be taught: the one table that command line, runs and exports look into."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, get_type_hints

import msgspec

from edge_runtime.config.explain import explain
from edge_runtime.errors import ConfigError
from edge_runtime.plugins import Plugin, find, offered
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
    whole_picture: bool = False
    """Whether its score is the whole picture's, and not that of its map's highest cells."""
    package: tuple[str, str] | None = None
    """Name and version of the installed package that brought it; None for our own."""

    @property
    def tools(self) -> dict[str, str]:
        """The version of the package that brought it, for runs and bundles to remember: name -> version."""
        return {} if self.package is None else {self.package[0]: self.package[1]}

    def precision(self, preset: str) -> Literal["int8", "fp32"]:
        """What a bundle is built in unless the user says otherwise."""
        return "fp32" if preset in self.fp32_presets else "int8"


_OWN: Mapping[str, Method] = {
    # One Gaussian for a whole picture knows no place where features are quiet, so it feels each activation that INT8 rounds: image AUROC
    # 0.969 instead of 0.981 on printed circuit boards at 640 px.
    "padim": Method(padim.PadimParams, padim.PadimHead, padim.PRESETS, fp32_presets=frozenset({"shared"})),
    "patchcore": Method(patchcore.PatchcoreParams, patchcore.PatchcoreHead, patchcore.PRESETS),
    "mvg": Method(mvg.MvgParams, mvg.MvgHead, mvg.PRESETS, whole_picture=True),
    "stfpm": Method(stfpm.StfpmParams, stfpm.StfpmHead, stfpm.PRESETS, stfpm.StfpmNetwork),
    "efficientad": Method(
        efficientad.EfficientadParams, efficientad.EfficientadHead, efficientad.PRESETS, efficientad.EfficientadNetwork, least_images=16
    ),
    "autoencoder": Method(autoencoder.AutoencoderParams, autoencoder.AutoencoderHead, autoencoder.PRESETS, autoencoder.AutoencoderNetwork),
    "fastflow": Method(fastflow.FastflowParams, fastflow.FastflowHead, fastflow.PRESETS),
    "fcdd": Method(fcdd.FcddParams, fcdd.FcddHead, fcdd.PRESETS, outliers="optional"),
    "devnet": Method(devnet.DevnetParams, devnet.DevnetHead, devnet.PRESETS, outliers="required"),
}
_NO_METHODS = ("auto", "compare")
"""What commands take in a method's place."""


class Methods(Mapping[str, Method]):
    """Ours, in order. One of an installed package is found when it is asked for by name, and only then: deploy/decisions/0041."""

    def __init__(self, own: Mapping[str, Method]) -> None:
        self._own = own
        self._brought: dict[str, Method] = {}

    def __getitem__(self, name: str) -> Method:
        """Raises ConfigError for a package that is broken, or offers what another one offers, too."""
        if name in self._own:
            return self._own[name]
        if name not in self._brought and name not in _NO_METHODS:
            plugin = find("methods", name, (*self._own, *_NO_METHODS))
            if plugin is not None:
                self._brought[name] = _row(plugin)
        return self._brought[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._own)

    def __len__(self) -> int:
        return len(self._own)

    @property
    def names(self) -> str:
        """All that may be asked for on this machine, for a person."""
        return ", ".join((*self._own, *(f"{p.kind} (of {p.distribution})" for p in offered("methods"))))


def _row(plugin: Plugin) -> Method:
    row = plugin.load()
    if not isinstance(row, Method):
        raise ConfigError(f"{plugin}: expected a training.methods.table.Method, found {row!r}")
    if not (isinstance(row.head, type) and issubclass(row.head, Head)):
        raise ConfigError(f"{plugin}: expected a head that derives from training.core.base.Head, found {row.head!r}")
    if row.network is not None and not (isinstance(row.network, type) and issubclass(row.network, Network)):
        raise ConfigError(f"{plugin}: expected a network that derives from training.core.learn.Network, found {row.network!r}")
    if not (isinstance(row.params, type) and dataclasses.is_dataclass(row.params)):
        raise ConfigError(f"{plugin}: expected params to be a dataclass, found {row.params!r}")
    unfit = [name for name, preset in row.presets.items() if not (len(preset) == 2 and isinstance(preset[1], row.params))]
    if "fast" not in row.presets or unfit:
        found = f"{unfit[0]!r} with {row.presets[unfit[0]]!r}" if unfit else ", ".join(row.presets) or "none"
        raise ConfigError(f'{plugin}: expected presets of {row.params.__name__}, one called "fast" among them, found {found}')
    name, _, version = plugin.distribution.rpartition(" ")
    return row._replace(package=(name, version))


METHODS = Methods(_OWN)


def make_params(method: str, values: Mapping[str, Any]) -> Any:
    """The method's Params from plain values. Raises ConfigError for an unknown method, key, or type."""
    known = METHODS.get(method)
    if known is None:
        raise ConfigError(f"method: expected one of {METHODS.names}, found {method!r}")
    fields = {f.name for f in dataclasses.fields(known.params)}
    unknown = sorted(set(values) - fields)
    if unknown:
        raise ConfigError(f"{method}: has no parameter {unknown[0]!r}; it has {', '.join(sorted(fields))}")
    try:
        return msgspec.convert(dict(values), known.params)
    except msgspec.ValidationError as e:
        raise ConfigError(f"{method}: {explain(str(e), dict(values), _as_table(known.params))}") from e


def _as_table(params: type[Any]) -> type[msgspec.Struct]:
    """The record by which mistakes in them are said as those in a station file are."""
    return msgspec.defstruct(params.__name__, list(get_type_hints(params, include_extras=True).items()))


def make_head(method: str, values: Mapping[str, Any], level_shapes: list[LevelShape]) -> Head:
    """An unfitted head. Raises ConfigError."""
    params = make_params(method, values)
    return METHODS[method].head(params, level_shapes)


def make_network(method: str, values: Mapping[str, Any], spec: BackboneSpec, input_hw: tuple[int, int]) -> Network | None:
    """The method's network without weights; None for a method over a frozen backbone. Raises ConfigError."""
    params = make_params(method, values)
    kind = METHODS[method].network
    return None if kind is None else kind(params, spec, input_hw)
