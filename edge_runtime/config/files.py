"""Station and recipe files: TOML in, checked and frozen settings out. Unknown keys are refused, errors carry the key's path.

A *station* is this machine (camera, trigger, sockets, disks); a *recipe* is this product (region, thresholds, deadline) and names the
bundle that judges it. Relative paths are relative to the file that holds them.
"""

import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edge_runtime.config.explain import WINDOWS_PATHS, explain, likely_cause, look_up, not_finite
from edge_runtime.config.foreign import widened
from edge_runtime.config.sources import (
    AravisSourceConfig,
    FolderSourceConfig,
    GenicamSourceConfig,
    IndustrialSourceConfig,
    LiveSourceConfig,
    PixelFormat,
    PylonSourceConfig,
    Source,
    SyntheticSourceConfig,
    VideoSourceConfig,
)
from edge_runtime.config.tables import (
    AnySource,
    AnyTrigger,
    ArchiveConfig,
    CameraConfig,
    ControlConfig,
    JournalConfig,
    MetricsConfig,
    PreviewConfig,
    PublisherConfig,
    Recipe,
    StationConfig,
)
from edge_runtime.config.triggers import PlcTrigger, TimerTriggerConfig, Trigger, ZeromqTriggerConfig
from edge_runtime.errors import ConfigError
from edge_runtime.files import read_whole
from edge_runtime.plc.settings import ByteOrder, PlcConfig, PlcInputs, PlcOutputs, PlcTag, PulseConfig, TagConfig, TagType
from edge_runtime.plugins import Plugin, PluginSettings
from edge_runtime.security.access import beyond_loopback, refusal

_T = TypeVar("_T", bound=msgspec.Struct)


def load_station(path: Path) -> StationConfig:
    """Read a station file; relative paths in it come back absolute. Raises ConfigError."""
    config = _load(path, StationConfig)
    wrong = _contradiction(config)
    if wrong is not None:
        raise ConfigError(f"{path}: {wrong}")
    return config


def _contradiction(config: StationConfig) -> str | None:
    """What no single key says: the first of it."""
    if not config.device:
        return 'device: expected at least one device such as "CPU", found an empty list'
    plain = {"source": config.source, "recipe": config.recipe}
    if not config.camera:
        missing = [key for key, value in plain.items() if value is None]
        if missing:
            return f"{missing[0]}: missing"
    else:
        both = [key for key, value in {**plain, "recipes": config.recipes or None}.items() if value is not None]
        if both:
            return f"{both[0]}: expected in each [[camera]] block, found at the top of the file as well; remove it there"
        if len(config.camera) == 1:
            return "camera: expected two [[camera]] blocks or more, found one; the only camera's source and recipe stand at the top"
    names = [camera.name for camera in config.cameras]
    for i, camera in enumerate(config.cameras):
        where = f"camera[{i}]." if config.camera else ""
        if "" in camera.recipes:
            return f"{where}recipes: expected keys such as 7, found an empty one; what a trigger without a recipe gets is `recipe`"
        if camera.name in names[:i]:
            return f'{where}name: expected another name than that of camera[{names.index(camera.name)}], found "{camera.name}" again'
        if (known := set(config.cameras[0].recipes)) != (found := set(camera.recipes)):
            return f"{where}recipes: expected the keys of camera[0].recipes ({_keys(known)}), found {_keys(found)}"
    metrics = {"metrics.port": f"tcp://{config.metrics.host}:{config.metrics.port}"} if config.metrics is not None else {}
    return _shared_port(endpoints_of(config) | metrics) or _open_to_strangers(config)


def endpoints_of(config: StationConfig) -> dict[str, str]:
    """Every socket that the station binds, by its key in the station file."""
    endpoints = {"publisher.endpoint": config.publisher.endpoint}
    if config.publisher.replay is not None:
        endpoints["publisher.replay"] = config.publisher.replay
    if config.preview is not None:
        endpoints["preview.endpoint"] = config.preview.endpoint
    if isinstance(config.trigger, ZeromqTriggerConfig):
        endpoints["trigger.endpoint"] = config.trigger.endpoint
    if config.control is not None:
        endpoints["control.endpoint"] = config.control.endpoint
    return endpoints


def _open_to_strangers(config: StationConfig) -> str | None:
    """A socket beyond this machine without keys, as a sentence. Whether the keys are there, the start looks."""
    security = config.security
    if security.plain and security.keys is not None:
        return "security.plain: expected either keys or plain = true, found both; with keys, take plain away"
    if security.everywhere and security.keys is None:
        return "security.keys: missing: everywhere = true demands keys, and none are named"
    if config.control is not None and security.keys is None and beyond_loopback(config.control.endpoint):
        where = f"control.endpoint: {config.control.endpoint} can be reached from beyond this machine"
        return f"{where}: expected security.keys; plain = true does not let anybody change a station"
    if config.control is not None and config.control.endpoint.startswith("inproc://"):
        return f"control.endpoint: expected ipc:// or tcp://, found {config.control.endpoint}: nobody could ask"
    for key, endpoint in endpoints_of(config).items():
        if security.keys is None and not security.plain and beyond_loopback(endpoint):
            return refusal(endpoint, key)
    metrics = config.metrics
    if metrics is not None and not security.plain and beyond_loopback(f"tcp://{metrics.host}:{metrics.port}"):
        return (
            f'metrics.host: expected an address of this machine alone such as "127.0.0.1", found "{metrics.host}", and HTTP knows no keys: '
            "scrape it here, put a proxy with TLS before it, or say plain = true in [security]"
        )
    return None


def plugins_in(config: StationConfig) -> list[Plugin]:
    """What installed packages bring to this station, each once."""
    settings = (*(camera.source for camera in config.cameras), config.trigger, *config.sink)
    return list(dict.fromkeys(s.plugin for s in settings if isinstance(s, PluginSettings)))


def sinks_in(config: StationConfig) -> dict[str, PluginSettings]:
    """The [[sink]] blocks by the names that counts and problems have for them: `sink_csv`, and for a second one `sink_csv_2`."""
    named: dict[str, PluginSettings] = {}
    for settings in config.sink:
        kind = f"sink_{settings.plugin.kind}"
        same = sum(s.plugin.kind == settings.plugin.kind for s in named.values())
        named[f"{kind}_{same + 1}" if same else kind] = settings
    return named


def _shared_port(endpoints: dict[str, str]) -> str | None:
    """Two keys with one port of one network card, or one file, as a sentence."""
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    for key, endpoint in endpoints.items():
        card, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        for (other_card, other_port), (other, its) in seen.items():
            everywhere = {card, other_card} & {"*", "0.0.0.0"}
            if endpoint == its or (endpoint.startswith("tcp") and its.startswith("tcp") and port == other_port and everywhere):
                return f'{key}: expected a socket of its own, found "{endpoint}", which {other} ("{its}") takes'
        seen[card, port] = (key, endpoint)
    return None


def _keys(keys: set[str]) -> str:
    return ", ".join(sorted(keys)) or "none"


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file; the bundle's path comes back absolute. Raises ConfigError."""
    return _load(path, Recipe)


def _load(path: Path, kind: type[_T]) -> _T:
    try:
        text = read_whole(path).decode("utf-8-sig")
        raw = tomllib.loads(text)
    except OSError as e:
        raise ConfigError(f"{path}: expected a {_noun(kind)} file, could not read it: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: is not valid TOML: save it as UTF-8 ({e})") from e
    except (tomllib.TOMLDecodeError, RecursionError) as e:
        raise ConfigError(f"{path}: is not valid TOML: {e}{likely_cause(text, str(e))}") from e
    return settings_of(raw, path, kind)


def settings_of(raw: dict[str, Any], path: Path, kind: type[_T]) -> _T:
    """What was parsed of the file at `path` as a `kind`, checked, with its relative paths made absolute. Raises ConfigError."""
    bad = not_finite(raw)
    if bad is not None:
        raise ConfigError(f"{path}: {bad}: expected a finite number, found {look_up(raw, bad)}")
    try:
        wanted, plugins = widened(raw, kind, CameraConfig) if kind is StationConfig else (kind, [])
    except ConfigError as e:
        raise ConfigError(f"{path}: {e}") from e
    try:
        settings: _T = msgspec.convert(raw, type=wanted, dec_hook=_decode_path)
    except msgspec.ValidationError as e:
        raise ConfigError(f"{path}: {explain(str(e), raw, wanted)}") from e
    except Exception as e:
        if not plugins:
            raise
        whose = " or ".join(map(str, plugins))  # a __post_init__ of theirs
        raise ConfigError(f"{path}: expected settings that are taken, or a ValueError, found {type(e).__name__}: {e} from {whose}") from e
    rooted: _T = _rooted(settings, path.resolve().parent)
    return rooted


def _rooted(value: Any, base: Path) -> Any:
    """The same settings with each relative path in them below `base`."""
    match value:
        case Path():
            return base / value
        case dict():
            return {key: _rooted(v, base) for key, v in value.items()}
        case list() | tuple():
            return type(value)(_rooted(v, base) for v in value)
        case msgspec.Struct():
            changed = {name: new for name in value.__struct_fields__ if (new := _rooted(old := getattr(value, name), base)) is not old}
            return msgspec.structs.replace(value, **changed) if changed else value
    return value


def _noun(kind: type[msgspec.Struct]) -> str:
    return "recipe" if kind is Recipe else "station"


def _decode_path(wanted: type, value: Any) -> Any:
    if wanted is Path and isinstance(value, str):
        if "\0" in value:
            raise ValueError("expected a path, found one with a NUL character in it")
        if (control := next((c for c in value if ord(c) < 32), None)) is not None:
            raise ValueError(f"expected a path, found {control!r} in it: in double quotes a backslash begins a code; {WINDOWS_PATHS}")
        return Path(value)
    raise TypeError("expected a path in quotes")


__all__ = [
    "AnySource",
    "AnyTrigger",
    "AravisSourceConfig",
    "ArchiveConfig",
    "ByteOrder",
    "CameraConfig",
    "ControlConfig",
    "FolderSourceConfig",
    "GenicamSourceConfig",
    "IndustrialSourceConfig",
    "JournalConfig",
    "LiveSourceConfig",
    "MetricsConfig",
    "PixelFormat",
    "PlcConfig",
    "PlcInputs",
    "PlcOutputs",
    "PlcTag",
    "PlcTrigger",
    "PluginSettings",
    "PreviewConfig",
    "PublisherConfig",
    "PulseConfig",
    "PylonSourceConfig",
    "Recipe",
    "Source",
    "StationConfig",
    "SyntheticSourceConfig",
    "TagConfig",
    "TagType",
    "TimerTriggerConfig",
    "Trigger",
    "VideoSourceConfig",
    "ZeromqTriggerConfig",
    "endpoints_of",
    "load_recipe",
    "load_station",
    "plugins_in",
    "settings_of",
    "sinks_in",
]
