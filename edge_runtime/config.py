"""Station and recipe files: TOML in, checked and frozen settings out. Unknown keys are refused, errors carry the key's path.

A *station* is this machine (camera, trigger, sockets, disks); a *recipe* is this product (region, thresholds, deadline) and names the
bundle that judges it. Relative paths are relative to the file that holds them.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from edge_runtime.errors import ConfigError
from edge_runtime.explain import ENDPOINT, NAME, OPCUA_ENDPOINT, explain, look_up, not_finite

Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]
PositiveInt = Annotated[int, Meta(gt=0)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Name = Annotated[str, Meta(pattern=NAME)]
Endpoint = Annotated[str, Meta(pattern=ENDPOINT)]

TagType = Literal["bool", "int16", "uint16", "int32", "uint32", "float32", "text"]
ByteOrder = Literal["ABCD", "CDAB", "BADC", "DCBA"]
"""Of a 32-bit value, A the most significant byte: big-endian, words swapped, bytes swapped, little-endian. A 16-bit value follows (AB, AB,
BA, BA), and so does each pair of characters of a text."""

_T = TypeVar("_T", bound=msgspec.Struct)


class _Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Common to all tables of the two files."""


# --- sources -----------------------------------------------------------------------------------------------------


class FolderSource(_Settings, frozen=True, kw_only=True, tag="folder", tag_field="kind"):
    """Images of a folder in sorted order, one a trigger."""

    path: Path
    loop: bool = False
    """Begin again at the end; otherwise the end of the folder ends the station cleanly."""


class VideoSource(_Settings, frozen=True, kw_only=True, tag="video", tag_field="kind"):
    """Frames of a video file, one a trigger."""

    path: Path
    loop: bool = False
    mono: bool = False


class CameraSource(_Settings, frozen=True, kw_only=True, tag="camera", tag_field="kind"):
    """A camera that OpenCV opens: a V4L2 index, or an RTSP/HTTP URL. Runs free; a trigger gets the first frame captured after it."""

    device: int | str
    width: PositiveInt | None = None
    height: PositiveInt | None = None
    fps: Positive | None = None
    exposure: float | None = None
    """In the driver's own unit (CAP_PROP_EXPOSURE); None leaves it."""
    mono: bool = False
    """Deliver one channel: for a gray camera whose driver hands out three equal ones."""
    latency_ms: NonNegative = 0.0
    """Time from exposure to arrival that the driver or network adds; a frame counts as that much older than its arrival."""
    open_timeout_ms: Positive = 5000.0
    read_timeout_ms: Positive = 2000.0


class SyntheticSource(_Settings, frozen=True, kw_only=True, tag="synthetic", tag_field="kind"):
    """Drawn parts with known defects (edge_runtime.sim): for trying a station without a camera."""

    width: PositiveInt = 320
    height: PositiveInt = 320
    defect_rate: Annotated[float, Meta(ge=0, le=1)] = 0.2
    seed: int = 0


PixelFormat = Literal[
    "Mono8", "Mono10", "Mono12", "Mono16", "Mono10p", "Mono12p", "Mono10Packed", "Mono12Packed",
    "BayerGR8", "BayerRG8", "BayerGB8", "BayerBG8", "BayerGR10", "BayerRG10", "BayerGB10", "BayerBG10",
    "BayerGR12", "BayerRG12", "BayerGB12", "BayerBG12", "BayerGR16", "BayerRG16", "BayerGB16", "BayerBG16",
    "BayerGR10p", "BayerRG10p", "BayerGB10p", "BayerBG10p", "BayerGR12p", "BayerRG12p", "BayerGB12p", "BayerBG12p",
    "BayerGR10Packed", "BayerRG10Packed", "BayerGB10Packed", "BayerBG10Packed",
    "BayerGR12Packed", "BayerRG12Packed", "BayerGB12Packed", "BayerBG12Packed", "RGB8", "BGR8",
]  # fmt: skip


class IndustrialSource(_Settings, frozen=True, kw_only=True):
    """What `pylon`, `aravis` and `genicam` have in common. What is left out stays as the camera has it."""

    trigger: Literal["free", "software", "hardware"] = "free"
    """free: the camera runs, a trigger gets the first frame exposed after it. software: the station triggers the camera at the PLC's
    edge. hardware: the PLC's wire does, and each trigger must find exactly one frame in its window."""
    trigger_line: str = "Line1"
    """hardware: the camera's input, by its own name (node TriggerSource)."""
    trigger_window_ms: tuple[NonNegative, NonNegative] = (20.0, 5.0)
    """hardware: how long before and after the moment at which the station saw the edge the exposure may have begun. Longer before than
    the PLC is polled, and both together shorter than the shortest time between two parts."""
    exposure_us: Positive | None = None
    gain_db: float | None = None
    roi: Annotated[list[Annotated[int, Meta(ge=0)]], Meta(min_length=4, max_length=4)] | None = None
    """[x, y, width, height] on the sensor: only this is read out and sent."""
    pixel_format: PixelFormat | None = None
    """By the GenICam naming convention. More than 8 bits become uint16, unpacked; colour becomes BGR."""
    demosaic: bool = True
    """Make colours of a Bayer mosaic. false for a bundle that was taught on raw mosaics."""
    packet_bytes: PositiveInt | None = None
    """GigE: size of a packet; 8000 or so where every switch and the network card pass jumbo frames."""
    buffers: Annotated[int, Meta(ge=2, le=256)] = 8
    strobe_line: str | None = None
    """The camera's output that is on while it exposes, by its own name (node LineSelector)."""
    latency_ms: NonNegative = 0.0
    """What even the fastest frame takes from the exposure's end to its arrival (readout, transfer); a frame counts as that much older."""
    nodes: dict[str, bool | int | float | str] = {}
    """Any other GenICam node by name, written in this order before the settings above; `true` executes a command."""
    open_timeout_ms: Positive = 5000.0
    read_timeout_ms: Positive = 2000.0
    """Free run: a camera that delivers nothing for so long counts as lost. Otherwise: how long one call into the driver may take."""


class PylonSource(IndustrialSource, frozen=True, kw_only=True, tag="pylon", tag_field="kind"):
    """A Basler camera, through pypylon. Without any of the following the only one that is there."""

    serial: str | None = None
    ip: str | None = None
    user_name: str | None = None
    """The name that was stored in the camera."""


class AravisSource(IndustrialSource, frozen=True, kw_only=True, tag="aravis", tag_field="kind"):
    """A GigE Vision or USB3 Vision camera of any make, through Aravis: no vendor's software."""

    camera: str | None = None
    """Its id as `arv-tool-0.8` lists it, or its IP address; None takes the only one that is there."""


class GenicamSource(IndustrialSource, frozen=True, kw_only=True, tag="genicam", tag_field="kind"):
    """Any camera whose vendor ships a GenTL producer (a .cti file), through harvesters."""

    producer: Path
    """The .cti file."""
    camera: str | None = None
    """Its id, serial number or user-defined name; None takes the only one that is there."""


Source = FolderSource | VideoSource | CameraSource | SyntheticSource | PylonSource | AravisSource | GenicamSource

# --- triggers ----------------------------------------------------------------------------------------------------


class TimerTrigger(_Settings, frozen=True, kw_only=True, tag="timer", tag_field="kind"):
    """A trigger every `period_ms`; for benches and demonstrations."""

    period_ms: Positive = 1000.0
    count: PositiveInt | None = None
    """End the station cleanly after that many."""


class ZeromqTrigger(_Settings, frozen=True, kw_only=True, tag="zeromq", tag_field="kind"):
    """A PULL socket that binds; each message is JSON such as {"part_id": "A-17"}, with "recipe" where it is to be another one."""

    endpoint: Endpoint = "tcp://127.0.0.1:5555"


class TagSettings(_Settings, frozen=True, kw_only=True):
    """One signal of the handshake in the PLC. `"coil:0"` is short for `{ address = "coil:0" }`."""

    address: str
    """As the protocol writes it; `edge_runtime.plc` has a page each."""
    type: TagType | None = None
    """None: the signal's own (`edge_runtime.plc.signals`)."""
    order: ByteOrder | None = None
    """Of 16 and 32-bit values, A the most significant byte. None: the trigger's `order`."""
    scale: Positive | None = None
    """The PLC holds the value times this. None: the signal's own, 100 for severity and 1 for the rest."""
    length: Annotated[int, Meta(ge=1, le=200)] = 16
    """Characters of a text."""


PlcTag = str | TagSettings


class PlcInputs(_Settings, frozen=True, kw_only=True):
    """What the PLC tells the station. What is not mapped is not used."""

    trigger: PlcTag
    """Rises once a part."""
    part_id: PlcTag | None = None
    """The part's number or name, valid before the trigger rises."""
    recipe: PlcTag | None = None
    """Which of [recipes] the next parts are judged by."""
    acknowledge: PlcTag | None = None
    """High: the PLC has taken the result."""
    reset_fault: PlcTag | None = None
    """Its rise clears fault and overrun."""
    enable: PlcTag | None = None
    """Low: the station is not to be triggered, and a trigger means nothing."""
    encoder: PlcTag | None = None
    """A count that grows as the belt moves; for [trigger.pulse]."""


class PlcOutputs(_Settings, frozen=True, kw_only=True):
    """What the station tells the PLC. What is not mapped is not told."""

    ready: PlcTag | None = None
    trigger_acknowledge: PlcTag | None = None
    busy: PlcTag | None = None
    result_valid: PlcTag | None = None
    accept: PlcTag | None = None
    reject: PlcTag | None = None
    fault: PlcTag | None = None
    fault_code: PlcTag | None = None
    result_part_id: PlcTag | None = None
    result_count: PlcTag | None = None
    severity: PlcTag | None = None
    overrun: PlcTag | None = None
    heartbeat: PlcTag | None = None


class PulseSettings(_Settings, frozen=True, kw_only=True):
    """For lines without acknowledge: the verdict's output is high for a while, some time or way behind the trigger."""

    width_ms: Positive = 50.0
    delay_ms: NonNegative | None = None
    """From the trigger's edge to the pulse. Exactly one of this and `encoder_counts`."""
    encoder_counts: PositiveInt | None = None
    """From the trigger's edge to the pulse, as inputs.encoder counts."""


class _PlcTrigger(_Settings, frozen=True, kw_only=True):
    """Common to all PLCs: the handshake of edge_runtime.plc.handshake over named tags."""

    inputs: PlcInputs
    outputs: PlcOutputs = PlcOutputs()
    poll_ms: Positive = 2.0
    timeout_ms: Positive = 500.0
    """Of one request; a PLC that does not answer for that long counts as lost and is reconnected to."""
    acknowledge_timeout_ms: Positive = 5000.0
    """A result that is not acknowledged for that long is a fault; only with inputs.acknowledge."""
    results: Annotated[int, Meta(ge=1, le=8)] = 8
    """Results that may wait for their acknowledge; with so many `ready` is low."""
    heartbeat_ms: Positive = 500.0
    """outputs.heartbeat toggles that often, while the station works."""
    order: ByteOrder = "ABCD"
    """Byte order of tags that say none."""
    pulse: PulseSettings | None = None


class ModbusTrigger(_PlcTrigger, frozen=True, kw_only=True, tag="modbus", tag_field="kind"):
    """A PLC that is a Modbus TCP server. Addresses: "coil:0", "discrete:0", "holding:0", "input:0", and "holding:0.3" for a bit (0 is the
    least significant); counted from 0, as they go over the wire."""

    host: str = "127.0.0.1"
    port: Port = 502
    unit: Annotated[int, Meta(ge=0, le=255)] = 1


class OpcuaTrigger(_PlcTrigger, frozen=True, kw_only=True, tag="opcua", tag_field="kind"):
    """A PLC that is an OPC UA server. Addresses are node ids: "ns=2;s=Station.Trigger", "ns=4;i=17"."""

    endpoint: Annotated[str, Meta(pattern=OPCUA_ENDPOINT)]
    """"opc.tcp://192.168.0.10:4840"."""
    security: Literal["none", "Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"] = "none"
    mode: Literal["Sign", "SignAndEncrypt"] = "SignAndEncrypt"
    certificate: Path | None = None
    """This station's own certificate (DER or PEM), which the PLC must trust."""
    private_key: Path | None = None
    server_certificate: Path | None = None
    """The PLC's certificate: with it, no other server is spoken to."""
    user: str | None = None
    password_file: Path | None = None
    """A file that holds the password alone, readable by the station's user only."""
    publishing_ms: Positive = 1.0
    """Asked of the server's subscription; it may grant a longer one, which `lineside check` tells."""


class S7Trigger(_PlcTrigger, frozen=True, kw_only=True, tag="s7", tag_field="kind"):
    """A Siemens S7 PLC (300, 400, 1200, 1500 with PUT/GET allowed, data blocks without optimized access). Addresses: "DB10.DBX0.0",
    "DB10.DBW2", "DB10.DBD4", "DB10.DBB8" (texts), "M0.0", "MW2", "MD4", "I0.0", "Q0.0"."""

    host: str
    port: Port = 102
    rack: Annotated[int, Meta(ge=0, le=7)] = 0
    slot: Annotated[int, Meta(ge=0, le=31)] = 1
    """1 for S7-1200 and S7-1500, 2 for S7-300."""


class EthernetipTrigger(_PlcTrigger, frozen=True, kw_only=True, tag="ethernetip", tag_field="kind"):
    """A Rockwell ControlLogix or CompactLogix PLC over EtherNet/IP. Addresses are tag names: "Vision.Trigger", "Program:Main.Trigger"."""

    host: str
    port: Port = 44818
    slot: Annotated[int, Meta(ge=0, le=17)] = 0


_OPCUA_FILES = ("certificate", "private_key", "server_certificate", "password_file")
PlcTrigger = ModbusTrigger | OpcuaTrigger | S7Trigger | EthernetipTrigger
Trigger = TimerTrigger | ZeromqTrigger | ModbusTrigger | OpcuaTrigger | S7Trigger | EthernetipTrigger

# --- sinks -------------------------------------------------------------------------------------------------------


class PublisherSettings(_Settings, frozen=True, kw_only=True):
    """The ZeroMQ sockets of the station (see edge_runtime.wire)."""

    endpoint: Endpoint = "tcp://127.0.0.1:5560"
    """PUB, binds: topics `decision` and `health`."""
    replay: Endpoint | None = "tcp://127.0.0.1:5561"
    """ROUTER, binds: answers a subscriber's request for decisions that it missed, out of the journal."""


class JournalSettings(_Settings, frozen=True, kw_only=True):
    """The SQLite journal, one row a decision."""

    path: Path = Path("journal.sqlite")
    keep_days: Positive = 400.0
    commit_timeout_ms: Positive = 50.0
    """How long a decision waits for its row to be committed before it is told all the same and the journal is reported as late."""
    durable: bool = False
    """Wait for the disk itself at each commit, so that a power cut loses no decision that was told; costs one disk sync a part."""


class ArchiveSettings(_Settings, frozen=True, kw_only=True):
    """Images kept on disk, lossless, dropped oldest first beyond the quota."""

    path: Path = Path("archive")
    quota_mb: Positive = 10_000.0
    every_nth_accept: Annotated[int, Meta(ge=0)] = 0
    """Keep every N-th accepted part as well; 0 keeps none."""


class PreviewSettings(_Settings, frozen=True, kw_only=True):
    """A small picture of each decided part for the overlay window."""

    endpoint: Endpoint = "tcp://127.0.0.1:5562"
    """PUB, binds: topic `preview`."""
    max_fps: Positive = 15.0
    long_side_px: Annotated[int, Meta(ge=64, le=4096)] = 960


class Camera(_Settings, frozen=True, kw_only=True):
    """One of several cameras: a `[[camera]]` block."""

    name: Name
    source: Source
    recipe: Path
    recipes: dict[str, Path] = {}
    """The same keys at each camera: the PLC asks for a product, not for a camera's recipe."""


class StationConfig(_Settings, frozen=True, kw_only=True):
    """One station: this machine."""

    name: Name
    recipe: Path | None = None
    """What a trigger gets that names no recipe."""
    recipes: dict[str, Path] = {}
    """What a trigger gets that names one, by what the PLC calls it: `7 = "gadget.toml"`. All are opened and proved at start, and each
    bundle stays in memory."""
    source: Source | None = None
    camera: tuple[Camera, ...] = ()
    """Several cameras that look at the same part, instead of the three above."""
    trigger: Trigger
    device: str | list[str] = "CPU"
    """An OpenVINO device (CPU, GPU, NPU), or a list in order of preference. A missing device is an error unless a later one is listed."""
    threads: Annotated[int, Meta(ge=0)] = 0
    """Inference threads on the CPU; 0: as many as there are cores among the CPUs that this process may use (CPUAffinity= of its unit)."""
    queue: Annotated[int, Meta(ge=1, le=64)] = 8
    """Triggers that may wait for their turn; one more is an overrun and becomes a FAULT."""
    keep_warm_ms: NonNegative = 200.0
    """Run the model on the last frame when no part came for that long, so that idle gaps do not slow the next verdict;
    0 switches it off."""
    publisher: PublisherSettings = PublisherSettings()
    journal: JournalSettings = JournalSettings()
    archive: ArchiveSettings | None = None
    preview: PreviewSettings | None = None
    golden_tolerance_scale: Annotated[float, Meta(ge=1, le=100)] = 1.0
    """Multiplies the bundle's golden-sample tolerance on this device (another instruction set rounds differently);
    echoed by `lineside check`."""

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """Of either form of the file; the only one of a station has no name."""
        if self.source is None or self.recipe is None:
            return self.camera
        return (Camera(name="", source=self.source, recipe=self.recipe, recipes=self.recipes),)


class Recipe(_Settings, frozen=True, kw_only=True):
    """One product: what is judged and how strictly."""

    name: Name
    bundle: Path
    threshold: Positive | None = None
    """Overrides the bundle's threshold on the raw score; the map's threshold follows in proportion."""
    min_defect_px: Annotated[int, Meta(ge=0)] = 0
    """Regions smaller than this many frame pixels are no defect; a part whose regions are all smaller is accepted."""
    deadline_ms: Positive = 500.0
    """From the trigger's edge to the decision's telling."""
    roi: Annotated[list[Annotated[int, Meta(ge=0)]], Meta(min_length=4, max_length=4)] | None = None
    """[x, y, width, height] in this station's frames, where the camera is mounted otherwise than in training;
    same aspect as the bundle's."""
    golden: Annotated[int, Meta(ge=1)] | None = None
    """How many of the bundle's golden samples to run at start; None runs them all."""

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
    base = path.resolve().parent
    changes: dict[str, Any] = {"journal": msgspec.structs.replace(config.journal, path=base / config.journal.path)}
    if config.archive is not None:
        changes["archive"] = msgspec.structs.replace(config.archive, path=base / config.archive.path)
    if isinstance(config.trigger, OpcuaTrigger):
        files = {key: base / path for key in _OPCUA_FILES if (path := getattr(config.trigger, key)) is not None}
        changes["trigger"] = msgspec.structs.replace(config.trigger, **files)
    if config.camera:
        changes["camera"] = tuple(_camera_at(base, camera) for camera in config.camera)
    else:
        only = _camera_at(base, config.cameras[0])
        changes |= {"source": only.source, "recipe": only.recipe, "recipes": only.recipes}
    return msgspec.structs.replace(config, **changes)


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
    return None


def _keys(keys: set[str]) -> str:
    return ", ".join(sorted(keys)) or "none"


def _camera_at(base: Path, camera: Camera) -> Camera:
    source = camera.source
    if isinstance(source, FolderSource | VideoSource):
        source = msgspec.structs.replace(source, path=base / source.path)
    elif isinstance(source, GenicamSource):
        source = msgspec.structs.replace(source, producer=base / source.producer)
    recipes = {key: base / recipe for key, recipe in camera.recipes.items()}
    return msgspec.structs.replace(camera, source=source, recipe=base / camera.recipe, recipes=recipes)


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file; the bundle's path comes back absolute. Raises ConfigError."""
    recipe = _load(path, Recipe)
    return msgspec.structs.replace(recipe, bundle=path.resolve().parent / recipe.bundle)


def _load(path: Path, kind: type[_T]) -> _T:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise ConfigError(f"{path}: expected a {_noun(kind)} file, could not read it: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: is not valid TOML: {e}") from e
    bad = not_finite(raw)
    if bad is not None:
        raise ConfigError(f"{path}: {bad}: expected a finite number, found {look_up(raw, bad)}")
    try:
        return msgspec.convert(raw, type=kind, dec_hook=_decode_path)
    except msgspec.ValidationError as e:
        raise ConfigError(f"{path}: {explain(str(e), raw, kind)}") from e


def _noun(kind: type[msgspec.Struct]) -> str:
    return "recipe" if kind is Recipe else "station"


def _decode_path(wanted: type, value: Any) -> Any:
    if wanted is Path and isinstance(value, str):
        return Path(value)
    raise TypeError("expected a path in quotes")
