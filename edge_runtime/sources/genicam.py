"""Cameras of any make through their vendor's GenTL producer (a .cti file) and harvesters."""

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from edge_runtime.config.files import GenicamSourceConfig
from edge_runtime.errors import ConfigError, MissingExtra, SourceError
from edge_runtime.sources.driver import Kind, Node, RawFrame

_KINDS: dict[str, Kind] = {
    "IInteger": "integer", "IFloat": "float", "IEnumeration": "enumeration",
    "IBoolean": "boolean", "ICommand": "command", "IString": "string",
}  # fmt: skip
_READABLE, _WRITABLE = (3, 4), (2, 4)
"""GenApi's EAccessMode: NI 0, NA 1, WO 2, RO 3, RW 4."""


class GenicamDriver:
    """One camera. Each buffer is copied and queued again at once: one that is kept would be one less for the camera."""

    def __init__(self, settings: GenicamSourceConfig) -> None:
        self._settings = settings
        self.name = settings.camera or settings.producer.name
        self.tick_ns = 1.0
        self._harvester: Any = None
        self._camera: Any = None
        self._map: Any = None
        self._errors_of: tuple[type[Exception], ...] = ()

    def open(self) -> None:
        try:
            from genicam import genapi, gentl
            from harvesters.core import Harvester
        except ImportError as e:
            raise MissingExtra('kind = "genicam"', "cameras") from e
        logging.getLogger("harvesters").setLevel(logging.CRITICAL)  # what it logs as errors is raised here
        self._gentl = gentl
        self._errors_of = (gentl.GenericException, genapi.GenericException)
        producer = self._settings.producer
        if not producer.is_file():
            raise ConfigError(f"source.producer: expected a GenTL producer (.cti file), found none at {producer}")
        self._harvester = Harvester()
        with self._errors(f"source.producer: {producer} could not be loaded"):
            try:
                self._harvester.add_file(str(producer), check_validity=True)
            except OSError as e:
                raise ConfigError(f"source.producer: expected a GenTL producer (.cti file), {producer} is none: {e}") from e
            self._harvester.update()
        info = self._choose(self._harvester.device_info_list)
        self.name = " ".join(str(info.property_dict[k]) for k in ("model", "serial_number") if info.property_dict.get(k)) or info.id_
        try:
            self._camera = self._harvester.create({"id_": info.id_})
        except (gentl.ResourceInUseException, gentl.AccessDeniedException) as e:
            raise SourceError(f"camera {self.name}: is there but in use by another program ({_words(e)})") from e
        except self._errors_of as e:
            raise SourceError(f"camera {self.name}: could not be opened: {_words(e)}") from e
        self._map = self._camera.remote_device.node_map

    def node(self, name: str) -> Node | None:
        with self._errors():
            if not self._map.has_node(name):
                return None
            node = self._map.get_node(name)
            kind = _KINDS.get(type(node).__name__)
            mode = node.get_access_mode()
            if kind is None or mode < min(_WRITABLE):
                return None

            def write(value: Any) -> None:
                with self._errors():
                    if kind == "command":
                        node.execute()
                    elif kind == "enumeration":
                        node.from_string(value)
                    else:
                        node.value = value

            def read() -> Any:
                with self._errors():
                    return node.to_string() if kind == "enumeration" else node.is_done() if kind == "command" else node.value

            low = high = step = None
            if kind in ("integer", "float") and mode in _READABLE:
                low, high = node.min, node.max
                step = node.inc if kind == "integer" else None
            entries = tuple(node.symbolics) if kind == "enumeration" else ()
            return Node(kind, mode in _WRITABLE, write, read, low, high, step, entries)

    def start(self) -> None:
        with self._errors():
            self._camera.num_buffers = max(self._settings.buffers, self._camera.min_num_buffers)
            self._camera.start()

    def stop(self) -> None:
        with self._errors():
            self._camera.stop()

    def fire(self, timeout_s: float) -> None:
        node = self.node("TriggerSoftware")
        if node is None:
            raise SourceError(f"camera {self.name}: has no node TriggerSoftware")
        node.write(True)

    def fetch(self, timeout_s: float) -> RawFrame | None:
        with self._errors():
            try:
                buffer = self._camera.fetch(timeout=max(timeout_s, 0.001), is_raw=True)  # 0 would wait for ever
            except self._gentl.TimeoutException:
                return None
            arrived_ns = time.monotonic_ns()
            try:
                return self._copied(buffer, arrived_ns)
            finally:
                buffer.parent.queue_buffer(buffer)

    def check(self) -> None:
        node = self.node("Width")
        if node is None:
            raise SourceError(f"camera {self.name}: does not answer any more: unplugged, or without power or network?")
        node.read()

    def close(self) -> None:
        camera, harvester = self._camera, self._harvester
        self._camera = self._harvester = None
        for step in ((camera.stop, camera.destroy) if camera is not None else ()) + ((harvester.reset,) if harvester is not None else ()):
            with contextlib.suppress(*self._errors_of):
                step()

    def _copied(self, buffer: Any, arrived_ns: int) -> RawFrame:
        complete = bool(buffer.is_complete())
        block_id, ticks = self._told(buffer, "frame_id"), self._ticks(buffer)
        if not complete:
            return RawFrame(np.empty(0, np.uint8), 0, 0, 0, arrived_ns, ticks, block_id, complete=False, why="the producer says incomplete")
        data = np.frombuffer(buffer.raw_buffer, dtype=np.uint8)  # `raw_buffer` is a copy already
        filled, offset = self._told(buffer, "size_filled"), self._told(buffer, "image_offset") or 0
        return RawFrame(
            data[offset : filled or data.size], int(buffer.pixel_format), int(buffer.width), int(buffer.height),
            arrived_ns, ticks, block_id, self._told(buffer, "padding_x") or 0,
        )  # fmt: skip

    def _ticks(self, buffer: Any) -> int | None:
        ns = self._told(buffer, "timestamp_ns")
        if ns:
            return ns
        ticks = self._told(buffer, "timestamp")
        frequency = self._told(buffer.parent.parent, "timestamp_frequency") if ticks else None
        self.tick_ns = 1e9 / frequency if frequency else 1.0
        return ticks if frequency else None

    def _told(self, thing: Any, what: str) -> int | None:
        """A figure that a producer need not know."""
        try:
            return int(getattr(thing, what))
        except self._errors_of:
            return None

    def _choose(self, found: Any) -> Any:
        wanted = self._settings.camera
        matching = [
            d for d in found if wanted is None or wanted in (d.id_, *map(d.property_dict.get, ("serial_number", "user_defined_name")))
        ]
        if len(matching) == 1:
            return matching[0]
        there = ", ".join(f"{d.id_} (serial {d.property_dict.get('serial_number')})" for d in found)
        there = there or f"none behind {self._settings.producer.name} (is it connected and free?)"
        what = "exactly one camera" if wanted is None else f"one camera {wanted!r}"
        raise SourceError(f"source.camera: expected {what}, found {there}; name one by id, serial number or user-defined name")

    @contextlib.contextmanager
    def _errors(self, what: str = "") -> Iterator[None]:
        try:
            yield
        except self._errors_of as e:
            raise SourceError(f"{what or f'camera {self.name}'}: {_words(e)}") from e


def _words(e: Exception) -> str:
    """The producer's own words."""
    text = (str(e).splitlines() or [""])[0].strip()
    return text or type(e).__name__
