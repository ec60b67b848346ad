"""What a PLC may answer, for tests/fuzz.py: whole ports read from a wire that was recorded from a real server, and changed since."""

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import msgspec

from edge_runtime.plc import areas
from edge_runtime.plc.deadline import Deadline
from edge_runtime.plc.ethernetip import EthernetipPort, EthernetipTriggerConfig
from edge_runtime.plc.modbus import ModbusPort, ModbusTriggerConfig
from edge_runtime.plc.port import PlcLost, TagPort
from edge_runtime.plc.s7 import S7Port, S7TriggerConfig
from edge_runtime.plc.settings import PlcInputs
from edge_runtime.plc.tags import Tag, Value
from edge_runtime.sim.plc import server_of
from tests.support.ports import free_port

_TYPES = {"trigger": "bool", "part_id": "uint32", "recipe": "text", "encoder": "int16", "speed": "float32"}
_NAMES = list(_TYPES)
_INPUTS = PlcInputs(trigger="unused")
_HELD: dict[str, Value] = {"trigger": True, "part_id": 70_001, "recipe": "R7", "encoder": -5, "speed": 0.5}


def _tags(*addresses: str) -> list[Tag]:
    return [
        Tag(name, f"trigger.inputs.{name}", address, kind, False, length=8 if kind == "text" else 0)  # type: ignore[arg-type]
        for (name, kind), address in zip(_TYPES.items(), addresses, strict=True)
    ]


class Wire:
    """A socket to a PLC that says what was written down: `size` tells how long the packet is that some bytes begin with."""

    def __init__(self, said: bytes, size: Callable[[bytes], int]) -> None:
        self._left, self._size = said, size

    def recv(self, most: int) -> bytes:
        size = min(max(self._size(self._left), 1), most)
        piece, self._left = self._left[:size], self._left[size:]
        return piece

    def sendall(self, data: bytes) -> None:
        pass

    def send(self, data: bytes) -> int:
        return len(data)

    def settimeout(self, timeout_s: float) -> None:
        pass

    def setsockopt(self, *option: int) -> None:
        pass

    def fileno(self) -> int:
        return -1  # no connection that the kernel knows, and so none that is still delivering

    def close(self) -> None:
        pass


def _of(port: TagPort) -> None:
    """All reads that the pieces are enough for. Raises PlcLost."""
    areas._log.disabled = True  # that it asks in another way from now on
    try:
        _read(port)
    finally:
        areas._log.disabled = False


def _read(port: TagPort) -> None:
    for _ in range(3):
        found = port.read(_NAMES)
        assert found.keys() | port.missing.keys() == set(_NAMES), "neither told nor missing"
        for name, value in found.items():
            kinds: dict[str, tuple[type, ...]] = {"bool": (bool,), "text": (str,), "float32": (int, float)}
            assert type(value) in kinds.get(_TYPES[name], (int,)), f"{name} is {value!r}"


@contextlib.contextmanager
def _recorded(monkeyed: type[Deadline]) -> Iterator[list[bytes]]:
    """Everything that is received while it lasts."""
    said: list[bytes] = []
    receive = monkeyed.receive

    def noted(self: Deadline, sock: socket.socket) -> bytes:
        data = receive(self, sock)
        said.append(data)
        return data

    monkeyed.receive = noted  # type: ignore[method-assign]
    try:
        yield said
    finally:
        monkeyed.receive = receive  # type: ignore[method-assign]


def _said(port: Any, settings: Any, tags: Sequence[Tag]) -> bytes:
    """By a real server to three reads of which each finds something else."""
    with server_of(settings, tags) as server:
        port.connect(lambda: None)
        port._number = 0
        with _recorded(Deadline) as said:
            for held in (_HELD, dict.fromkeys(_HELD, 0) | {"recipe": ""}, _HELD):
                server.set(held)
                port.read(_NAMES)
        port.close()
    return b"".join(said)


def _patient(settings: Any) -> Any:
    """What a port is meant to read is recorded once, and on a busy machine a server takes its time."""
    return msgspec.structs.replace(settings, timeout_ms=20_000.0)


@cache
def _modbus() -> tuple[Callable[[], ModbusPort], bytes]:
    tags = _tags("coil:3", "holding:0", "holding:2", "holding:8", "holding:10")
    settings = ModbusTriggerConfig(port=free_port(), inputs=_INPUTS)

    def new(settings: ModbusTriggerConfig = settings) -> ModbusPort:
        return ModbusPort(settings, tags)

    return new, _said(new(_patient(settings)), settings, tags)


def modbus(data: bytes) -> None:
    """Raises PlcLost."""
    port = _modbus()[0]()
    port._socket = Wire(data, lambda left: 6 + int.from_bytes(left[4:6], "big"))  # type: ignore[assignment]
    _of(port)


@cache
def _s7() -> tuple[Callable[[], S7Port], bytes]:
    tags = _tags("DB1.DBX0.3", "DB1.DBD2", "DB1.DBB6", "DB1.DBW14", "MD4")
    settings = S7TriggerConfig(host="127.0.0.1", port=free_port(), inputs=_INPUTS)

    def new(settings: S7TriggerConfig = settings) -> S7Port:
        port = S7Port(settings, tags)
        port._pdu_bytes = 480  # as the server allows
        return port

    return new, _said(new(_patient(settings)), settings, tags)


def s7(data: bytes) -> None:
    """Raises PlcLost."""
    port = _s7()[0]()
    port._socket = Wire(data, lambda left: int.from_bytes(left[2:4], "big"))  # type: ignore[assignment]
    _of(port)


@cache
def _ethernetip() -> tuple[EthernetipTriggerConfig, list[Tag], bytes]:
    tags = _tags("Trig", "Part[3]", "Name", "Count", "Speed")
    settings = EthernetipTriggerConfig(host="127.0.0.1", port=free_port(), inputs=_INPUTS)
    with _recorded(Deadline) as said, server_of(settings, tags) as server:
        port = EthernetipPort(_patient(settings), tags)
        server.set(_HELD)
        port.connect(lambda: None)
        for held in (_HELD, dict.fromkeys(_HELD, 0) | {"recipe": ""}, _HELD):
            server.set(held)
            port.read(_NAMES)
        port._drop()
    return settings, tags, b"".join(said)


def ethernetip(data: bytes) -> None:
    """Also while the connection is made, and types are asked for. Raises PlcLost, TagError."""
    settings, tags, _ = _ethernetip()
    port = EthernetipPort(settings, tags)
    wire = Wire(data, lambda left: 24 + int.from_bytes(left[2:4], "little"))
    wire.connect = lambda address: None  # type: ignore[attr-defined]
    real, socket.socket = socket.socket, lambda *a: wire  # type: ignore[assignment, misc]  # pylogix makes its own
    try:
        port.connect(lambda: None)
        _of(port)
    finally:
        socket.socket = real  # type: ignore[misc]


def opcua(data: bytes) -> None:
    """A node's value as it comes in an answer and in a report, for a tag of each type. Raises NoValue where it is none of them."""
    from asyncua import ua
    from asyncua.common.utils import Buffer
    from asyncua.ua.ua_binary import struct_from_binary

    from edge_runtime.plc.opcua_values import NoValue, from_node

    if data[1:2] > b"\x7f" and int.from_bytes(data[2:6], "little") > len(data):
        raise PlcLost("more values than bytes, for which asyncua takes half a minute: the session is lost meanwhile")
    try:
        value = struct_from_binary(ua.DataValue, Buffer(data))
    except Exception as e:  # asyncua's own reading, whose errors the session takes as a lost PLC
        raise PlcLost(f"not OPC UA: {e}") from e
    fits = 0
    for tag in _tags("i=1", "i=2", "i=3", "i=4", "i=5"):
        try:
            found = from_node(tag, value)
        except NoValue as e:
            why = e
            continue
        fits += 1
        kinds: dict[str, tuple[type, ...]] = {"bool": (bool,), "text": (str,), "float32": (int, float)}
        assert type(found) in kinds.get(tag.type, (int,)), f"{tag.name} is {found!r}"
    if not fits:
        raise why


def opcua_seeds() -> list[bytes]:
    from asyncua import ua
    from asyncua.ua.ua_binary import struct_to_binary

    values = [True, 7, "R7", 0.5, [1, 2], None, b"x", ua.NodeId(3, 2), ua.LocalizedText("x")]
    return [struct_to_binary(ua.DataValue(ua.Variant(v))) for v in values]


def said(kind: str) -> bytes:
    """What the port is meant to read."""
    match kind:
        case "modbus":
            return _modbus()[1]
        case "s7":
            return _s7()[1]
        case _:
            return _ethernetip()[2]
