"""Station and recipe files: TOML in, checked and frozen settings out. Unknown keys are refused, errors carry the key's path.

A *station* is this machine (camera, trigger, sockets, disks); a *recipe* is this product (region, thresholds, deadline) and names the
bundle that judges it. Relative paths are relative to the file that holds them.
"""

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, field

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
from edge_runtime.config.triggers import PlcTrigger, TimerTriggerConfig, Trigger, ZeromqTriggerConfig
from edge_runtime.credentials import Role
from edge_runtime.errors import ConfigError
from edge_runtime.plc.settings import ByteOrder, PlcConfig, PlcInputs, PlcOutputs, PlcTag, PulseConfig, TagConfig, TagType
from edge_runtime.plugins import Plugin, PluginSettings
from edge_runtime.security.access import beyond_loopback, refusal
from edge_runtime.values import Endpoint, Host, Name, NonNegative, Port, Positive, Settings

_T = TypeVar("_T", bound=msgspec.Struct)
if TYPE_CHECKING:
    AnySource = Source | PluginSettings
    AnyTrigger = Trigger | PluginSettings
else:  # `widened` adds those of installed packages that a file names
    AnySource, AnyTrigger = Source, Trigger


class PublisherConfig(Settings, frozen=True, kw_only=True):
    """The ZeroMQ sockets of the station (see edge_runtime.wire)."""

    endpoint: Endpoint = "tcp://127.0.0.1:5560"
    """PUB, binds: topics `decision` and `health`."""
    replay: Endpoint | None = "tcp://127.0.0.1:5561"
    """ROUTER, binds: answers a subscriber's request for decisions that it missed, out of the journal."""


class JournalConfig(Settings, frozen=True, kw_only=True):
    """The SQLite journal, one row a decision."""

    path: Path = Path("journal.sqlite")
    """The SQLite file; it and its folder are made where they are missing."""
    keep_days: Annotated[float, Meta(gt=0, le=36_500)] = 400.0
    """Older rows are deleted, by the journal's own time: neither a wrong clock nor a step of it makes a row old."""
    keep_mb: Positive | None = None
    """The oldest rows of a larger file are deleted; a part takes about 1 kB. Without it, age alone counts."""
    required: bool = False
    """Accept no part whose row is not in the journal in time: it is a FAULT, also on a full disk. Without it such a part is told all the
    same, and its row is written later."""
    commit_timeout_ms: Positive = 50.0
    """How long a decision waits for its row to be committed before it is told all the same and the journal is reported as late; at most
    until its deadline."""
    durable: bool = False
    """Wait for the disk itself at each commit, so that a power cut loses no decision that was told; costs one disk sync a part."""


class ArchiveConfig(Settings, frozen=True, kw_only=True):
    """Images kept on disk, lossless, dropped oldest first beyond the quota."""

    path: Path = Path("archive")
    """The folder; made where it is missing."""
    quota_mb: Positive = 10_000.0
    """Megabytes on the disk before the oldest images go."""
    every_nth_accept: Annotated[int, Meta(ge=0)] = 0
    """Keep every N-th accepted part as well; 0 keeps none."""


class PreviewConfig(Settings, frozen=True, kw_only=True):
    """A small picture of each decided part for the overlay window."""

    endpoint: Endpoint = "tcp://127.0.0.1:5562"
    """PUB, binds: topic `preview`."""
    max_fps: Positive = 15.0
    """Pictures a second; what comes faster is dropped."""
    long_side_px: Annotated[int, Meta(ge=64, le=4096)] = 960
    """Long side of the picture that is sent; the frame is reduced to it."""


class ModelsConfig(Settings, frozen=True, kw_only=True):
    """Where the station keeps what was deployed to it (`lineside deploy`), and what of it is in effect."""

    path: Path | None = None
    """The folder; made where it is missing. Default: `models` beside the journal."""
    keep: Annotated[int, Meta(ge=1, le=1000)] = 5
    """Bundles that stay there. What is in effect, what was before, and what looks on as a shadow stay whatever their number."""
    shadow_mb: Positive = 500.0
    """Megabytes of pictures that a shadow judged otherwise, beside the archive (or the models), before the oldest go."""


class MetricsConfig(Settings, frozen=True, kw_only=True):
    """What `lineside metrics` offers to Prometheus, in a process of its own."""

    host: Host = "127.0.0.1"
    """Beyond this machine only with `plain` in [security]: nothing is encrypted, and nobody is asked for a key."""
    port: Port = 9464
    """Each station has its own."""


class ControlConfig(Settings, frozen=True, kw_only=True):
    """The control socket: status, alarms, labels, and what changes the station, for those who may. How: deploy/security.md."""

    endpoint: Endpoint = "tcp://127.0.0.1:5563"
    """ROUTER, binds. On `ipc://` the system says who asks: root and the station's user may do all. On 127.0.0.1 nobody does: whoever works
    on this machine may observe and operate. Beyond it, a key says it."""
    groups: dict[str, list[Role]] = field(default_factory=dict)
    """On `ipc://`: what members of a group of the system may: `line-engineers = ["engineer"]`. Others observe and operate, where the
    socket's mode lets them connect."""


class SecurityConfig(Settings, frozen=True, kw_only=True):
    """Who may come in at the sockets. One that only this machine can reach (127.0.0.1, ipc) asks for no key; any other demands one."""

    keys: Path | None = None
    """The folder of keys, made and filled by `lineside keys`; it belongs to the station's user, and nobody else may read its server.key."""
    everywhere: bool = False
    """Demand keys on this machine as well."""
    networks: tuple[str, ...] = ()
    """Addresses and networks, such as "192.168.0.0/24", that the service may be reached from or talk to beside PLC and URL cameras:
    `lineside unit` tells systemd, which drops all other packets."""
    plain: bool = False
    """Open sockets beyond this machine without keys: whoever reaches them reads every decision, sees every part and may announce parts. For
    a network that itself keeps strangers out."""


class CameraConfig(Settings, frozen=True, kw_only=True):
    """One of several cameras: a `[[camera]]` block."""

    name: Name
    """In every decision, in the window, and the archive's folder."""
    source: AnySource
    """As the station's `[source]`."""
    recipe: Path
    """What this camera judges by when a trigger names no recipe."""
    recipes: dict[str, Path] = field(default_factory=dict)
    """The same keys at each camera: the PLC asks for a product, not for a camera's recipe."""


class StationConfig(Settings, frozen=True, kw_only=True):
    """One station: this machine."""

    name: Name
    """In every decision and message."""
    recipe: Path | None = None
    """What a trigger gets that names no recipe."""
    recipes: dict[str, Path] = field(default_factory=dict)
    """What a trigger gets that names one, by what the PLC calls it: `7 = "gadget.toml"`. All are opened and proved at start, and each
    bundle stays in memory."""
    source: AnySource | None = None
    """The camera, or what stands in for one."""
    camera: tuple[CameraConfig, ...] = ()
    """Several cameras that look at the same part, instead of the three above."""
    trigger: AnyTrigger
    """What announces parts."""
    device: str | list[str] = "CPU"
    """An OpenVINO device (CPU, GPU, NPU), or a list in order of preference. A missing device is an error unless a later one is listed."""
    threads: Annotated[int, Meta(ge=0)] = 0
    """Inference threads on the CPU; 0: as many as there are cores among the CPUs that this process may use (CPUAffinity= of its unit)."""
    queue: Annotated[int, Meta(ge=1, le=64)] = 8
    """Triggers that may wait for their turn; one more is an overrun and becomes a FAULT."""
    keep_warm_ms: NonNegative = 200.0
    """Run the model on the last frame when no part came for that long, so that idle gaps do not slow the next verdict;
    0 switches it off."""
    publisher: PublisherConfig = PublisherConfig()
    """Decisions over ZeroMQ."""
    journal: JournalConfig = JournalConfig()
    """Every decision, on this machine's disk."""
    archive: ArchiveConfig | None = None
    """Images of rejects and faults; without this table none are kept."""
    preview: PreviewConfig | None = None
    """Pictures for the operator's window; without this table none are sent."""
    models: ModelsConfig = ModelsConfig()
    """Bundles that were deployed while the station ran."""
    control: ControlConfig | None = None
    """What a station may be asked and told while it runs; without this table nothing."""
    metrics: MetricsConfig | None = None
    """Figures for Prometheus; without this table `lineside metrics` offers none."""
    security: SecurityConfig = SecurityConfig()
    """Keys, for sockets that others than this machine can reach."""
    sink: tuple[PluginSettings, ...] = ()
    """Further receivers of decisions, a [[sink]] block each, of kinds that installed packages bring. They are told after the verdict, each
    in a thread of its own; what one is too slow for, it is not told."""
    trusted_keys: tuple[Path, ...] = ()
    """Public keys (`lineside-export keygen`): with any, only bundles that one of them released are run (`lineside-export sign`)."""
    require_release: bool = False
    """Run only bundles that were found fit for release when they were built (`lineside-export build --accept`), at their own threshold."""
    golden_tolerance_scale: Annotated[float, Meta(ge=1, le=5)] = 1.0
    """Multiplies the bundle's golden-sample tolerance on this device (another instruction set rounds differently); beyond five times
    it would no longer be the same model. Echoed by `lineside check`."""

    @property
    def store(self) -> Path:
        """The folder of deployed bundles."""
        return self.models.path or self.journal.path.parent / "models"

    @property
    def cameras(self) -> tuple[CameraConfig, ...]:
        """The station's cameras, however the file writes them; the only one of a station has no name."""
        if self.source is None or self.recipe is None:
            return self.camera
        return (CameraConfig(name="", source=self.source, recipe=self.recipe, recipes=self.recipes),)


class Recipe(Settings, frozen=True, kw_only=True):
    """One product: what is judged and how strictly."""

    name: Name
    """In every decision."""
    bundle: Path
    """The model: a directory that `lineside-export build` made, or its one-file form, a .zip."""
    threshold: Positive | None = None
    """Overrides the bundle's threshold on the raw score; the map's threshold follows in proportion."""
    min_defect_px: Annotated[int, Meta(ge=0)] = 0
    """Regions smaller than this many frame pixels are no defect; a part whose regions are all smaller is accepted."""
    deadline_ms: Positive = 500.0
    """From the trigger's edge to the decision's telling."""
    roi: Annotated[list[Annotated[int, Meta(ge=0)]], Meta(min_length=4, max_length=4)] | None = None
    """[x, y, width, height] in this station's frames, where the camera is mounted otherwise than in training;
    same aspect as the bundle's."""

    @property
    def region(self) -> tuple[int, int, int, int] | None:
        """`roi` as Preprocessor takes it: (x, y, width, height)."""
        return None if self.roi is None else (self.roi[0], self.roi[1], self.roi[2], self.roi[3])


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
        text = path.read_text(encoding="utf-8-sig")
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
