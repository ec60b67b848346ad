"""GigE Vision and USB3 Vision cameras of any make through Aravis' C library, called with ctypes.

Not through its Python binding: that one (gi) is Debian's own for Debian's own Python, and in a virtual environment has to be compiled.
"""

import ctypes as ct
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from edge_runtime.config.files import AravisSourceConfig
from edge_runtime.errors import MissingExtra, SourceError
from edge_runtime.sources.driver import Kind, Node, RawFrame

_LIBRARY = "libaravis-0.8.so.0"
_INSTALL = "sudo apt-get install libaravis-0.8-0   (0.8.23 or newer: Debian 12, Ubuntu 24.04)"
_READ_ONLY = 0
_STATUS = {1: "cleared", 2: "timeout", 3: "packets are missing", 4: "wrong packet", 5: "wrong size", 6: "not filled", 7: "aborted"}


class _GError(ct.Structure):
    _fields_ = (("domain", ct.c_uint32), ("code", ct.c_int), ("message", ct.c_char_p))


_P, _S, _I, _U, _L, _D, _N = ct.c_void_p, ct.c_char_p, ct.c_int, ct.c_uint, ct.c_int64, ct.c_double, None
_E = ct.POINTER(ct.POINTER(_GError))
_PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "arv_update_device_list": (_N, ()),
    "arv_get_n_devices": (_U, ()),
    "arv_get_device_id": (_S, (_U,)),
    "arv_get_device_address": (_S, (_U,)),
    "arv_camera_new": (_P, (_S, _E)),
    "arv_camera_get_device": (_P, (_P,)),
    "arv_camera_get_payload": (_U, (_P, _E)),
    "arv_camera_create_stream": (_P, (_P, _P, _P, _E)),
    "arv_camera_start_acquisition": (_N, (_P, _E)),
    "arv_camera_stop_acquisition": (_N, (_P, _E)),
    "arv_device_get_feature": (_P, (_P, _S)),
    "arv_device_is_feature_available": (_I, (_P, _S, _E)),
    "arv_device_execute_command": (_N, (_P, _S, _E)),
    "arv_device_set_boolean_feature_value": (_N, (_P, _S, _I, _E)),
    "arv_device_set_integer_feature_value": (_N, (_P, _S, _L, _E)),
    "arv_device_set_float_feature_value": (_N, (_P, _S, _D, _E)),
    "arv_device_set_string_feature_value": (_N, (_P, _S, _S, _E)),
    "arv_device_get_boolean_feature_value": (_I, (_P, _S, _E)),
    "arv_device_get_integer_feature_value": (_L, (_P, _S, _E)),
    "arv_device_get_float_feature_value": (_D, (_P, _S, _E)),
    "arv_device_get_string_feature_value": (_S, (_P, _S, _E)),
    "arv_device_get_integer_feature_bounds": (_N, (_P, _S, ct.POINTER(_L), ct.POINTER(_L), _E)),
    "arv_device_get_float_feature_bounds": (_N, (_P, _S, ct.POINTER(_D), ct.POINTER(_D), _E)),
    "arv_device_get_integer_feature_increment": (_L, (_P, _S, _E)),
    "arv_device_dup_available_enumeration_feature_values_as_strings": (_P, (_P, _S, ct.POINTER(_U), _E)),
    "arv_gv_device_get_type": (ct.c_size_t, ()),
    "arv_gv_device_is_controller": (_I, (_P,)),
    "arv_gc_feature_node_get_actual_access_mode": (_I, (_P,)),
    "arv_gc_feature_node_is_locked": (_I, (_P, _E)),
    "arv_stream_push_buffer": (_N, (_P, _P)),
    "arv_stream_timeout_pop_buffer": (_P, (_P, ct.c_uint64)),
    "arv_stream_try_pop_buffer": (_P, (_P,)),
    "arv_buffer_new_allocate": (_P, (ct.c_size_t,)),
    "arv_buffer_get_status": (_I, (_P,)),
    "arv_buffer_get_image_data": (_P, (_P, ct.POINTER(ct.c_size_t))),
    "arv_buffer_get_image_width": (_I, (_P,)),
    "arv_buffer_get_image_height": (_I, (_P,)),
    "arv_buffer_get_image_pixel_format": (ct.c_uint32, (_P,)),
    "arv_buffer_get_image_padding": (_N, (_P, ct.POINTER(_I), ct.POINTER(_I))),
    "arv_buffer_get_timestamp": (ct.c_uint64, (_P,)),
    "arv_buffer_get_frame_id": (ct.c_uint64, (_P,)),
    "g_object_unref": (_N, (_P,)),
    "g_error_free": (_N, (ct.POINTER(_GError),)),
    "g_free": (_N, (_P,)),
    "g_type_check_instance_is_a": (_I, (_P, ct.c_size_t)),
}
_TYPES: tuple[tuple[str, Kind], ...] = (  # enumerations and booleans are integers as well, so these come first
    ("enumeration", "enumeration"), ("boolean", "boolean"), ("command", "command"),
    ("integer", "integer"), ("float", "float"), ("string", "string"),
)  # fmt: skip


class AravisDriver:
    """One camera. Buffers that Aravis could not fill are handed out as not complete."""

    tick_ns = 1.0  # Aravis has turned the camera's ticks into nanoseconds

    def __init__(self, settings: AravisSourceConfig) -> None:
        self._settings = settings
        self.name = settings.camera or "(aravis)"
        self._lib: Any = None
        self._camera: int | None = None
        self._device: int | None = None
        self._stream: int | None = None

    def open(self) -> None:
        self._lib = _library()
        wanted = self._settings.camera
        if wanted is None:
            found = self._list()
            if len(found) != 1:
                raise SourceError(f"source.camera: expected exactly one camera, found {_listed(found)}; say which")
            wanted = found[0][0]
        try:
            self._camera = self._call("arv_camera_new", wanted.encode())
        except SourceError as e:
            there = _listed(self._list())
            if wanted in there:
                raise SourceError(f"camera {wanted}: is there but could not be opened: does another program use it? ({e})") from e
            raise SourceError(f"source.camera: expected a camera {wanted!r}, found {there}") from e
        self._device = self._lib.arv_camera_get_device(self._camera)
        parts = [self._text(n) for n in ("DeviceVendorName", "DeviceModelName", "DeviceID", "DeviceSerialNumber")]
        self.name = " ".join(p for p in dict.fromkeys(parts) if p) or wanted
        if not self._controls():
            raise SourceError(f"camera {self.name}: is there but cannot be controlled: another program uses it")

    def node(self, name: str) -> Node | None:
        feature = self._feature(name)
        key = name.encode()
        if not feature or not self._device_call("is_feature_available", key):
            return None
        lib = self._lib
        is_a = lib.g_type_check_instance_is_a
        kind = next((k for part, k in _TYPES if is_a(feature, getattr(lib, f"arv_gc_{part}_get_type")())), None)
        if kind is None:
            return None
        mode = lib.arv_gc_feature_node_get_actual_access_mode(feature)
        writable = mode != _READ_ONLY and not self._call("arv_gc_feature_node_is_locked", feature)
        word = {"enumeration": "string"}.get(kind, kind)

        def write(value: Any) -> None:
            if kind == "command":
                self._device_call("execute_command", key)
            else:
                self._device_call(f"set_{word}_feature_value", key, value.encode() if isinstance(value, str) else value)

        def read() -> Any:
            value = None if kind == "command" else self._device_call(f"get_{word}_feature_value", key)
            return value.decode() if isinstance(value, bytes) else bool(value) if kind == "boolean" else value

        low = high = step = None
        if kind in ("integer", "float"):
            number: Any = _L if kind == "integer" else _D
            lowest, highest = number(), number()
            self._device_call(f"get_{kind}_feature_bounds", key, ct.byref(lowest), ct.byref(highest))
            low, high = lowest.value, highest.value
            step = self._device_call("get_integer_feature_increment", key) if kind == "integer" else None
        return Node(kind, writable, write, read, low, high, step, self._entries(key) if kind == "enumeration" else ())

    def start(self) -> None:
        payload = self._call("arv_camera_get_payload", self._camera)
        self._stream = self._call("arv_camera_create_stream", self._camera, None, None)
        for _ in range(self._settings.buffers):
            self._lib.arv_stream_push_buffer(self._stream, self._lib.arv_buffer_new_allocate(payload))
        self._call("arv_camera_start_acquisition", self._camera)

    def stop(self) -> None:
        try:
            self._call("arv_camera_stop_acquisition", self._camera)
        finally:
            stream, self._stream = self._stream, None
            if stream:
                self._lib.g_object_unref(stream)  # with all its buffers: nothing of before can come out of the next one

    def fire(self, timeout_s: float) -> None:
        self._device_call("execute_command", b"TriggerSoftware")

    def fetch(self, timeout_s: float) -> RawFrame | None:
        lib, stream = self._lib, self._stream
        wait_us = round(timeout_s * 1e6)
        buffer = lib.arv_stream_timeout_pop_buffer(stream, wait_us) if wait_us else lib.arv_stream_try_pop_buffer(stream)
        if not buffer:
            return None
        try:
            return self._copied(buffer, time.monotonic_ns())
        finally:
            lib.arv_stream_push_buffer(stream, buffer)

    def check(self) -> None:
        if not self._controls():
            raise SourceError(f"camera {self.name}: control is lost: unplugged, without power, or taken over by another program")
        try:
            self._device_call("get_integer_feature_value", b"Width")
        except SourceError as e:
            raise SourceError(f"camera {self.name}: does not answer any more: unplugged, or without power or network? ({e})") from e

    def close(self) -> None:
        try:
            if self._stream:
                self.stop()
        except SourceError:
            pass  # it is gone
        finally:
            camera, self._camera, self._device = self._camera, None, None
            if camera:
                self._lib.g_object_unref(camera)

    def _copied(self, buffer: int, arrived_ns: int) -> RawFrame:
        lib = self._lib
        status = lib.arv_buffer_get_status(buffer)
        frame_id = int(lib.arv_buffer_get_frame_id(buffer))
        ticks = int(lib.arv_buffer_get_timestamp(buffer)) or None
        if status != 0:
            return RawFrame(np.empty(0, np.uint8), 0, 0, 0, arrived_ns, ticks, frame_id, 0, False, _STATUS.get(status, f"status {status}"))
        size, padding_x, padding_y = ct.c_size_t(), _I(), _I()
        address = lib.arv_buffer_get_image_data(buffer, ct.byref(size))
        lib.arv_buffer_get_image_padding(buffer, ct.byref(padding_x), ct.byref(padding_y))
        data = np.ctypeslib.as_array((ct.c_uint8 * size.value).from_address(address)).copy()
        return RawFrame(
            data, int(lib.arv_buffer_get_image_pixel_format(buffer)), int(lib.arv_buffer_get_image_width(buffer)),
            int(lib.arv_buffer_get_image_height(buffer)), arrived_ns, ticks, frame_id, padding_x.value,
        )  # fmt: skip

    def _controls(self) -> bool:
        """Only one program can control a GigE camera, and only for as long as its heartbeat comes through."""
        lib, device = self._lib, self._device
        return not lib.g_type_check_instance_is_a(device, lib.arv_gv_device_get_type()) or bool(lib.arv_gv_device_is_controller(device))

    def _feature(self, name: str) -> int | None:
        found: int | None = self._lib.arv_device_get_feature(self._device, name.encode())
        return found

    def _text(self, name: str) -> str:
        node = self.node(name)
        return str(node.read()) if node is not None and node.kind == "string" else ""

    def _entries(self, key: bytes) -> tuple[str, ...]:
        count = _U()
        array = self._device_call("dup_available_enumeration_feature_values_as_strings", key, ct.byref(count))
        names = tuple((s or b"").decode() for s in ct.cast(array, ct.POINTER(_S))[: count.value])
        self._lib.g_free(array)
        return names

    def _list(self) -> list[tuple[str, str]]:
        """(id, address) of every camera that answers."""
        lib = self._lib
        lib.arv_update_device_list()
        return [
            (lib.arv_get_device_id(i).decode(), (lib.arv_get_device_address(i) or b"").decode()) for i in range(lib.arv_get_n_devices())
        ]

    def _device_call(self, name: str, *arguments: Any) -> Any:
        return self._call(f"arv_device_{name}", self._device, *arguments)

    def _call(self, name: str, *arguments: Any) -> Any:
        """A function whose last parameter is a GError. Raises SourceError with Aravis' own words."""
        error = ct.POINTER(_GError)()
        function: Callable[..., Any] = getattr(self._lib, name)
        result = function(*arguments, ct.byref(error))
        if error:
            words = (error.contents.message or b"").decode(errors="replace")
            self._lib.g_error_free(error)
            raise SourceError(words)
        return result


def _listed(found: list[tuple[str, str]]) -> str:
    return ", ".join(f"{name} ({address})" if address else name for name, address in found) or "none"


def _library() -> Any:
    """The shared library with its prototypes. Raises MissingExtra."""
    try:
        lib = ct.CDLL(_LIBRARY)
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
        for part, _ in _TYPES:
            getattr(lib, f"arv_gc_{part}_get_type").restype = ct.c_size_t
    except (OSError, AttributeError) as e:
        raise MissingExtra('kind = "aravis"', "cameras", install=_INSTALL) from e
    return lib
