"""The tables of station and recipe files: which keys there are, what each means, and what it is where nobody says."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, field

from edge_runtime.config.sources import Source
from edge_runtime.config.triggers import Trigger
from edge_runtime.credentials import Role
from edge_runtime.plugins import PluginSettings
from edge_runtime.values import MOST, Endpoint, Host, Name, NonNegative, Port, Positive, Region, Settings, check_region

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
    """Older rows are deleted, by the journal's own time: neither a wrong clock nor a step of it makes a row old. A row whose hash
    does not fit stays, and all after it, until somebody acknowledges that."""
    keep_mb: Positive | None = None
    """The oldest rows of a larger file are deleted; a part takes about 1 kB. Without it, age alone counts."""
    required: bool = False
    """Accept no part whose row is not in the journal in time: it is a FAULT, also on a full disk. Without it such a part is told all the
    same, and its row is written later."""
    commit_timeout_ms: Positive = 50.0
    """How long a decision waits for its row to be committed before it is told all the same and the journal is reported as late; at most
    until its deadline."""
    durable: bool = False
    """Wait for the disk itself at each commit, so that a power cut loses no decision that was told; costs one
    disk sync a part, which parts that come meanwhile share."""


class ArchiveConfig(Settings, frozen=True, kw_only=True):
    """Images kept on disk, lossless, dropped oldest first beyond the quota."""

    path: Path = Path("archive")
    """The folder; made where it is missing."""
    quota_mb: Positive = 10_000.0
    """Megabytes on the disk before the oldest images go."""
    every_nth_accept: Annotated[int, Meta(ge=0, le=MOST)] = 0
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
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    """Inference threads on the CPU; 0: as many as there are cores among the CPUs that this process may use (CPUAffinity= of its unit)."""
    queue: Annotated[int, Meta(ge=1, le=64)] = 8
    """Triggers that may wait for their turn; one more is an overrun and becomes a FAULT."""
    keep_warm_ms: NonNegative = 200.0
    """Run the model on the last frame when no part came for that long, so that idle gaps do not slow the next verdict;
    0 switches it off."""
    alarm_rejects: Annotated[int, Meta(ge=0, le=30)] = 20
    """So many rejects among the last 30 parts are a problem that window and status show: bad parts one after the other, or good ones whose
    picture is no longer what was taught; 0: never."""
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
    min_defect_px: Annotated[int, Meta(ge=0, le=MOST)] = 0
    """Regions smaller than this many frame pixels are no defect; a part whose regions are all smaller is accepted."""
    deadline_ms: Positive = 500.0
    """From the trigger's edge to the decision's telling."""
    roi: Region | None = None
    """[x, y, width, height] in this station's frames, where the camera is mounted otherwise than in training;
    same aspect as the bundle's."""

    def __post_init__(self) -> None:
        check_region(self.roi)

    @property
    def region(self) -> tuple[int, int, int, int] | None:
        """`roi` as Preprocessor takes it: (x, y, width, height)."""
        return None if self.roi is None else (self.roi[0], self.roi[1], self.roi[2], self.roi[3])
