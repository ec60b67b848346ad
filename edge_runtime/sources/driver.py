"""What a vendor's path to a camera must do, and how the station file's settings become GenICam nodes: the same for all of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from edge_runtime.config.files import IndustrialSourceConfig
from edge_runtime.errors import ConfigError, SourceError
from edge_runtime.sources.pixels import format_named

NodeValue = bool | int | float | str
Kind = Literal["integer", "float", "enumeration", "boolean", "command", "string"]


@dataclass(frozen=True, slots=True)
class RawFrame:
    """One buffer of a camera, copied out of the driver."""

    data: npt.NDArray[np.uint8]
    """(n,) uint8; empty when the frame is not complete."""
    pixel_format: int
    """PFNC value."""
    width: int
    height: int
    arrived_ns: int
    """CLOCK_MONOTONIC, when the driver handed it out."""
    ticks: int | None = None
    """The camera's clock; None when it has none."""
    block_id: int | None = None
    """The camera's own count; None when it has none."""
    padding_x: int = 0
    """Bytes after each row."""
    complete: bool = True
    why: str = ""
    """What is wrong with a frame that is not complete."""


@dataclass(frozen=True, slots=True)
class Node:
    """One feature of the camera. `write` and `read` raise SourceError with what the driver said."""

    kind: Kind
    writable: bool
    write: Callable[[Any], None]
    read: Callable[[], Any]
    low: float | None = None
    high: float | None = None
    step: float | None = None
    entries: tuple[str, ...] = field(default=())


class Driver(Protocol):
    """One camera through one vendor's library; all calls come from one thread, and any of them may hang.

    Nothing here is retried or timed out beyond what the library offers: edge_runtime.sources.guarded does that for all.
    """

    @property
    def name(self) -> str:
        """For messages: model and serial number; before `open`, what the station file says."""

    @property
    def tick_ns(self) -> float:
        """Nanoseconds of one tick of `RawFrame.ticks`."""

    def open(self) -> None:
        """Connect. Raises MissingExtra, ConfigError, SourceError: no such camera (naming those there are), or in use by another program."""

    def node(self, name: str) -> Node | None:
        """The camera's feature of that name, None when it has none. Raises SourceError."""

    def start(self) -> None:
        """Queue buffers and acquire. Raises SourceError."""

    def stop(self) -> None:
        """End acquiring and drop every buffer that was filled. Raises SourceError."""

    def fire(self, timeout_s: float) -> None:
        """Wait until the camera can take a trigger and trigger it. Raises SourceError."""

    def fetch(self, timeout_s: float) -> RawFrame | None:
        """The next buffer, None when none came in time. Raises SourceError when the camera is lost."""

    def check(self) -> None:
        """Raises SourceError when the camera is lost."""

    def close(self) -> None:
        """Stop and let go of the camera; never raises, may be called at any time."""


def set_node(driver: Driver, name: str, value: NodeValue, key: str) -> None:
    """Write one node. Raises ConfigError naming `key` of the station file, the node, and what it allows; SourceError for a lost camera."""
    node = driver.node(name)
    if node is None:
        raise ConfigError(f"{key}: the camera {driver.name} has no node {name}; leave it out, or look up its name in the camera's manual")
    wrong = _wrong(node, value)
    if wrong:
        raise ConfigError(f"{key}: expected {wrong} (node {name} of {driver.name}), found {value!r}")
    if not node.writable:
        raise ConfigError(f"{key}: node {name} of {driver.name} cannot be written: it is read-only, or another setting locks it")
    try:
        node.write(float(value) if node.kind == "float" else value)
    except SourceError as e:
        driver.check()  # the cable, not the value
        raise ConfigError(f"{key}: {driver.name} refused {name} = {value!r}: {e}") from e


def _wrong(node: Node, value: NodeValue) -> str:
    """What was expected instead of `value`; empty when it may be written."""
    match node.kind:
        case "boolean":
            return "" if isinstance(value, bool) else "true or false"
        case "command":
            return "" if value is True else "true, which executes the command"
        case "enumeration":
            return "" if value in node.entries else f"one of {', '.join(node.entries)}"
        case "string":
            return "" if isinstance(value, str) else "a text in quotes"
        case _:
            whole = node.kind == "integer"
            if isinstance(value, bool | str) or (whole and not isinstance(value, int)):
                return "a whole number" if whole else "a number"
            low, high = node.low, node.high
            allowed = f"{_number(low)} to {_number(high)}" if low is not None and high is not None else "another value"
            step = node.step if whole and node.step and node.step > 1 else None
            steps = "" if step is None else f" in steps of {_number(step)}"
            outside = (low is not None and value < low) or (high is not None and value > high)
            uneven = step is not None and low is not None and (value - low) % step != 0
            return f"{allowed}{steps}" if outside or uneven else ""


def _number(x: float | None) -> str:
    return "?" if x is None else f"{x:.10g}"


def configure(driver: Driver, s: IndustrialSourceConfig) -> None:
    """Write the station file's settings into an opened camera: [source.nodes] first, in the file's order, then the named ones.

    Raises ConfigError naming the key, SourceError when the camera was lost meanwhile.
    """
    for name, value in s.nodes.items():
        set_node(driver, name, value, f"source.nodes.{name}")
    _offer(driver, "AcquisitionMode", "Continuous")
    if s.pixel_format is not None:
        node = driver.node("PixelFormat")
        old = f"{s.pixel_format}Packed"  # how it was called before the naming convention
        name = old if node is not None and s.pixel_format not in node.entries and old in node.entries else s.pixel_format
        set_node(driver, "PixelFormat", name, "source.pixel_format")
    if s.roi is not None:
        _region(driver, s.roi)
    if s.exposure_us is not None:
        _offer(driver, "ExposureAuto", "Off")
        set_node(driver, _first(driver, "ExposureTime", "ExposureTimeAbs"), s.exposure_us, "source.exposure_us")
    if s.gain_db is not None:
        _offer(driver, "GainAuto", "Off")
        if driver.node("Gain") is None and (raw := driver.node("GainRaw")) is not None:
            allowed = f"{_number(raw.low)} to {_number(raw.high)}"
            raise ConfigError(
                f"source.gain_db: the camera {driver.name} has no gain in dB; set its own scale instead: source.nodes.GainRaw = {allowed}"
            )
        set_node(driver, "Gain", s.gain_db, "source.gain_db")
    if s.packet_bytes is not None:
        set_node(driver, "GevSCPSPacketSize", s.packet_bytes, "source.packet_bytes")
    if s.strobe_line is not None:
        set_node(driver, "LineSelector", s.strobe_line, "source.strobe_line")
        _offer(driver, "LineMode", "Output")
        set_node(driver, "LineSource", "ExposureActive", "source.strobe_line")
    _trigger(driver, s)


def exposure_ns(driver: Driver) -> int:
    """How long the camera exposes; 0 when it does not tell."""
    node = driver.node(_first(driver, "ExposureTime", "ExposureTimeAbs"))
    return 0 if node is None else round(float(node.read()) * 1e3)


def bits_of(driver: Driver) -> int | None:
    """Significant bits of a pixel, None when the camera does not tell its format. Raises SourceError for a format that cannot be judged."""
    node = driver.node("PixelFormat")
    return None if node is None else format_named(str(node.read())).bits


def _first(driver: Driver, *names: str) -> str:
    return next((n for n in names if driver.node(n) is not None), names[0])


def _offer(driver: Driver, name: str, value: str) -> None:
    """Where there is such a node and it can be written."""
    node = driver.node(name)
    if node is not None and node.writable and value in node.entries:
        node.write(value)


def _region(driver: Driver, roi: list[int]) -> None:
    x, y, width, height = roi
    for name in ("OffsetX", "OffsetY"):  # an old offset would keep the new width out
        node = driver.node(name)
        if node is not None and node.writable:
            node.write(0)
    for name, value in (("Width", width), ("Height", height), ("OffsetX", x), ("OffsetY", y)):
        if value or driver.node(name) is not None:
            set_node(driver, name, value, "source.roi")


def _trigger(driver: Driver, s: IndustrialSourceConfig) -> None:
    """Every trigger off but the frame's own, and that one as `source.trigger` says."""
    selector = driver.node("TriggerSelector")
    for entry in selector.entries if selector is not None and selector.writable else ():
        if entry != "FrameStart":
            assert selector is not None
            selector.write(entry)
            _offer(driver, "TriggerMode", "Off")
    _offer(driver, "TriggerSelector", "FrameStart")
    if s.trigger == "free":
        _offer(driver, "TriggerMode", "Off")
        return
    if driver.node("TriggerMode") is None:
        raise ConfigError(f'source.trigger: the camera {driver.name} has no trigger; use "free"')
    set_node(driver, "TriggerMode", "On", "source.trigger")
    if s.trigger == "software":
        set_node(driver, "TriggerSource", "Software", "source.trigger")
    else:
        set_node(driver, "TriggerSource", s.trigger_line, "source.trigger_line")


__all__ = ["Driver", "Kind", "Node", "NodeValue", "RawFrame", "bits_of", "configure", "exposure_ns", "set_node"]
