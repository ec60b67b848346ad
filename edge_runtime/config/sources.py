"""[source] and [camera.source] of a station file: a table a kind of camera."""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, field

from edge_runtime.values import NonNegative, Positive, PositiveInt, Region, Settings, Side, check_region, check_size


class FolderSourceConfig(Settings, frozen=True, kw_only=True, tag="folder", tag_field="kind"):
    """Images of a folder in sorted order, one a trigger."""

    path: Path
    """The folder; sub-folders do not count."""
    loop: bool = False
    """Begin again at the end; otherwise the end of the folder ends the station cleanly."""


class VideoSourceConfig(Settings, frozen=True, kw_only=True, tag="video", tag_field="kind"):
    """Frames of a video file, one a trigger."""

    path: Path
    """The file; what FFmpeg reads, which needs the extra `stream`."""
    loop: bool = False
    """Begin again at the end; otherwise the end of the video ends the station cleanly."""
    mono: bool = False
    """Deliver one channel."""


class LiveSourceConfig(Settings, frozen=True, kw_only=True, tag="camera", tag_field="kind"):
    """A V4L2 device, or a stream over RTSP or HTTP. Runs free; a trigger gets the first whole frame captured after it."""

    device: int | str
    """A V4L2 index such as 0, or a URL such as rtsp://192.168.0.20/stream, which needs the extra `stream`."""
    width: Side | None = None
    """Asked of the driver, in pixels; another one that is delivered is an error. None leaves it."""
    height: Side | None = None
    """As `width`."""
    fps: Positive | None = None
    """Asked of the driver. None leaves it."""
    exposure: float | None = None
    """In the driver's own unit (CAP_PROP_EXPOSURE); None leaves it."""
    mono: bool = False
    """Deliver one channel: for a gray camera whose driver hands out three equal ones."""
    latency_ms: NonNegative = 0.0
    """Time from exposure to arrival that the driver or network adds; a frame counts as that much older than its arrival."""
    open_timeout_ms: Positive = 5000.0
    """How long opening may take."""
    read_timeout_ms: Positive = 2000.0
    """How long a frame may take before the camera counts as lost."""

    def __post_init__(self) -> None:
        check_size(self.width or 1, self.height or 1)


class SyntheticSourceConfig(Settings, frozen=True, kw_only=True, tag="synthetic", tag_field="kind"):
    """Drawn parts with known defects (edge_runtime.sources.drawn): for trying a station without a camera."""

    width: Side = 320
    """Width of the picture, in pixels."""
    height: Side = 320
    """Height of the picture, in pixels."""
    defect_rate: Annotated[float, Meta(ge=0, le=1)] = 0.2
    """The share of parts that have a defect."""
    seed: int = 0
    """The same seed draws the same parts."""

    def __post_init__(self) -> None:
        check_size(self.width, self.height)


PixelFormat = Literal[
    "Mono8", "Mono10", "Mono12", "Mono16", "Mono10p", "Mono12p", "Mono10Packed", "Mono12Packed",
    "BayerGR8", "BayerRG8", "BayerGB8", "BayerBG8", "BayerGR10", "BayerRG10", "BayerGB10", "BayerBG10",
    "BayerGR12", "BayerRG12", "BayerGB12", "BayerBG12", "BayerGR16", "BayerRG16", "BayerGB16", "BayerBG16",
    "BayerGR10p", "BayerRG10p", "BayerGB10p", "BayerBG10p", "BayerGR12p", "BayerRG12p", "BayerGB12p", "BayerBG12p",
    "BayerGR10Packed", "BayerRG10Packed", "BayerGB10Packed", "BayerBG10Packed",
    "BayerGR12Packed", "BayerRG12Packed", "BayerGB12Packed", "BayerBG12Packed", "RGB8", "BGR8",
]  # fmt: skip


class IndustrialSourceConfig(Settings, frozen=True, kw_only=True):
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
    """Node ExposureTime, in microseconds."""
    gain_db: float | None = None
    """Node Gain, in decibels."""
    roi: Region | None = None
    """[x, y, width, height] on the sensor: only this is read out and sent."""
    pixel_format: PixelFormat | None = None
    """By the GenICam naming convention. More than 8 bits become uint16, unpacked; colour becomes BGR."""
    demosaic: bool = True
    """Make colours of a Bayer mosaic. false for a bundle that was taught on raw mosaics."""
    packet_bytes: PositiveInt | None = None
    """GigE: size of a packet; 8000 or so where every switch and the network card pass jumbo frames."""
    buffers: Annotated[int, Meta(ge=2, le=256)] = 8
    """Pictures that may wait in the driver."""
    strobe_line: str | None = None
    """The camera's output that is on while it exposes, by its own name (node LineSelector)."""
    latency_ms: NonNegative = 0.0
    """What even the fastest frame takes from the exposure's end to its arrival (readout, transfer); a frame counts as that much older."""
    nodes: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Any other GenICam node by name, written in this order before the settings above; `true` executes a command."""
    open_timeout_ms: Positive = 5000.0
    """How long opening may take."""
    read_timeout_ms: Positive = 2000.0
    """Free run: a camera that delivers nothing for so long counts as lost. Otherwise: how long one call into the driver may take."""

    def __post_init__(self) -> None:
        check_region(self.roi)


class PylonSourceConfig(IndustrialSourceConfig, frozen=True, kw_only=True, tag="pylon", tag_field="kind"):
    """A Basler camera, through pypylon. Without any of the following the only one that is there."""

    serial: str | None = None
    """The serial number on its label."""
    ip: str | None = None
    """The address of a GigE camera."""
    user_name: str | None = None
    """The name that was stored in the camera."""


class AravisSourceConfig(IndustrialSourceConfig, frozen=True, kw_only=True, tag="aravis", tag_field="kind"):
    """A GigE Vision or USB3 Vision camera of any make, through Aravis: no vendor's software."""

    camera: str | None = None
    """Its id as `arv-tool-0.8` lists it, or its IP address; None takes the only one that is there."""


class GenicamSourceConfig(IndustrialSourceConfig, frozen=True, kw_only=True, tag="genicam", tag_field="kind"):
    """Any camera whose vendor ships a GenTL producer (a .cti file), through harvesters."""

    producer: Path
    """The .cti file."""
    camera: str | None = None
    """Its id, serial number or user-defined name; None takes the only one that is there."""


Source = (
    FolderSourceConfig
    | VideoSourceConfig
    | LiveSourceConfig
    | SyntheticSourceConfig
    | PylonSourceConfig
    | AravisSourceConfig
    | GenicamSourceConfig
)
