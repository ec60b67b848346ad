"""A PLC that speaks EtherNet/IP, for simulation and tests: the tags of a station file behind the services that Logix controllers answer.

Encapsulation: RegisterSession, SendRRData, SendUnitData. CIP: Forward Open (both sizes) and Close; Read Tag, Write Tag, Read-Modify-Write
and the Multiple Service Packet of Rockwell's "Logix 5000 Controllers Data Access" (1756-PM020).
"""

import contextlib
import re
import selectors
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from edge_runtime.errors import TriggerError
from edge_runtime.plc.ethernetip import EthernetipTriggerConfig
from edge_runtime.plc.tags import Tag, Value, from_plc, to_plc

_CODES = {"bool": 0xC1, "int16": 0xC3, "int32": 0xC4, "uint16": 0xC7, "uint32": 0xC8, "float32": 0xCA, "text": 0x02A0}
_FORMATS = {0xC1: "<B", 0xC3: "<h", 0xC4: "<i", 0xC7: "<H", 0xC8: "<I", 0xCA: "<f"}
_DINT, _STRING = 0xC4, 0x02A0
_STRING_ID = 0x0FCE
_MANAGER, _ROUTER = b"\x20\x06\x24\x01", b"\x20\x02\x24\x01"
_NO_TAG, _NO_SERVICE, _NOT_ALLOWED, _BROKEN = b"\x05\x00", b"\x08\x00", b"\x0f\x00", b"\x13\x00"
_WRONG_TYPE = b"\xff\x01\x07\x21"
_NO_SLOT = b"\x01\x01\x12\x03"
"""General status, words of extended status, extended status."""


@dataclass(slots=True)
class _Place:
    """A tag of the PLC; bits of it may be signals of their own."""

    code: int
    value: Value
    writable: bool


@dataclass(slots=True)
class _Client:
    sock: socket.socket
    received: bytes = b""
    connections: dict[int, int] = field(default_factory=dict)
    """O->T connection id -> T->O."""


class _Refused(Exception):
    """The status that a CIP request is answered with."""

    def __init__(self, status: bytes) -> None:
        super().__init__(status.hex())
        self.status = status


class EthernetipServer:
    """TagServer. All services of one packet see one moment; inputs of the station are read-only for it."""

    def __init__(self, settings: EthernetipTriggerConfig, tags: Sequence[Tag], *, large_connections: bool = True) -> None:
        """`large_connections`: False is a controller of before 2012 or so, whose packets have 504 bytes at most."""
        self._large_connections = large_connections
        self._settings, self._tags = settings, {t.name: t for t in tags}
        self.where = f"{settings.host}:{settings.port}"
        self._places: dict[str, _Place] = {}
        for tag in tags:
            base, bit = _split(tag.address)
            code = _DINT if bit is not None else _CODES[tag.type]
            place = self._places.setdefault(base, _Place(code, "" if code == _STRING else 0, False))
            place.writable |= tag.writable
        self._lock = threading.Lock()
        self._requests = 0
        self._next_id = 0x1000
        self._thread: threading.Thread | None = None
        self._wake: tuple[socket.socket, socket.socket] | None = None

    @property
    def requests(self) -> int:
        return self._requests

    def __enter__(self) -> Self:
        s = self._settings
        try:
            listener = socket.create_server((s.host, s.port), reuse_port=False)
        except OSError as e:
            raise TriggerError(
                f"simulated PLC: cannot listen on {self.where}: {e.strerror or e}. Is the port in use, or below 1024? Choose another"
            ) from e
        self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, args=(listener, self._wake[0]), name="ethernetip-server", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._thread is not None and self._wake is not None:
            self._wake[1].close()
            self._thread.join()
            self._thread = self._wake = None

    def get(self, names: Sequence[str]) -> dict[str, Value]:
        with self._lock:
            return {name: self._get(self._tags[name]) for name in names}

    def set(self, values: Mapping[str, Value]) -> None:
        with self._lock:
            for name, value in values.items():
                base, bit = _split(self._tags[name].address)
                place, raw = self._places[base], to_plc(self._tags[name], value)
                place.value = raw if bit is None else _with_bit(place.value, bit, bool(raw))

    def _get(self, tag: Tag) -> Value:
        base, bit = _split(tag.address)
        value = self._places[base].value
        return from_plc(tag, value if bit is None else bool(int(value) >> bit & 1))

    def _serve(self, listener: socket.socket, wake: socket.socket) -> None:
        clients: dict[socket.socket, _Client] = {}
        with selectors.DefaultSelector() as selector, listener, wake:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    sock: Any = key.fileobj
                    if sock is wake:
                        for client in clients.values():
                            client.sock.close()
                        return
                    if sock is listener:
                        new, _address = listener.accept()
                        new.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        new.settimeout(1.0)
                        clients[new] = _Client(new)
                        selector.register(new, selectors.EVENT_READ)
                    elif not self._receive(clients[sock]):
                        selector.unregister(sock)
                        clients.pop(sock).sock.close()

    def _receive(self, client: _Client) -> bool:
        """Answer what has come; False at the end of the connection."""
        try:
            data = client.sock.recv(65536)
            client.received += data
            while len(client.received) >= 24:
                command, length = struct.unpack_from("<HH", client.received)
                if len(client.received) < 24 + length:
                    break
                header, body = client.received[:24], client.received[24 : 24 + length]
                client.received = client.received[24 + length :]
                if command == 0x66:  # UnregisterSession
                    return False
                answer = self._answer(client, command, body)
                session = 0x1234 if command == 0x65 else struct.unpack_from("<I", header, 4)[0]
                status = 0 if answer is not None else 1
                client.sock.sendall(struct.pack("<HHII", command, len(answer or b""), session, status) + header[12:24] + (answer or b""))
        except (OSError, struct.error, IndexError, UnicodeError):
            return False
        return bool(data)

    def _answer(self, client: _Client, command: int, body: bytes) -> bytes | None:
        if command == 0x65:  # RegisterSession
            return body
        if command not in (0x6F, 0x70):  # SendRRData, SendUnitData
            return None
        self._requests += 1
        items = _items(body[6:])
        if command == 0x6F:
            answer = self._unconnected(client, items[0xB2])
            return body[:6] + struct.pack("<HHHHH", 2, 0, 0, 0xB2, len(answer)) + answer
        to_client = client.connections.get(struct.unpack("<I", items[0xA1])[0])
        if to_client is None:
            return None
        with self._lock:
            answer = items[0xB1][:2] + self._cip(items[0xB1][2:])
        return body[:6] + struct.pack("<HHHIHH", 2, 0xA1, 4, to_client, 0xB1, len(answer)) + answer

    def _unconnected(self, client: _Client, request: bytes) -> bytes:
        service, path, data = _request(request)
        if path == _MANAGER and service == 0x5B and not self._large_connections:
            return _reply(service, _NO_SERVICE)
        if path == _MANAGER and service in (0x54, 0x5B):
            return self._forward_open(client, service, data)
        if path == _MANAGER and service == 0x4E:  # Forward Close
            client.connections.clear()
            return _reply(service) + data[2:10] + b"\0\0"
        with self._lock:
            return self._cip(request)

    def _forward_open(self, client: _Client, service: int, data: bytes) -> bytes:
        _, to_client, serial, vendor, originator = struct.unpack_from("<IIHHI", data, 2)
        large = service == 0x5B
        sizes = "<IIIIBB" if large else "<IHIHBB"
        interval, _, back, _, _, words = struct.unpack_from(sizes, data, 22)
        start = 22 + struct.calcsize(sizes)
        path = data[start : start + 2 * words]
        if path[:2] != bytes((1, self._settings.slot)) or path[2:] != _ROUTER:
            return _reply(service, _NO_SLOT) + struct.pack("<HHIBB", serial, vendor, originator, 0, 0)
        self._next_id += 1
        client.connections[self._next_id] = to_client
        return _reply(service) + struct.pack("<IIHHIIIBB", self._next_id, to_client, serial, vendor, originator, interval, back, 0, 0)

    def _cip(self, request: bytes) -> bytes:
        """The answer to a message for the controller itself."""
        service, path, data = _request(request)
        if service == 0x0A and path == _ROUTER:
            return self._multiple(data)
        try:
            if service == 0x4C:
                return _reply(service) + self._read(path, data)
            if service == 0x4D:
                self._write(path, data)
            elif service == 0x4E:
                self._modify(path, data)
            else:
                raise _Refused(_NO_SERVICE)
        except _Refused as e:
            return _reply(service, e.status)
        except struct.error:
            return _reply(service, _BROKEN)
        return _reply(service)

    def _multiple(self, data: bytes) -> bytes:
        count = struct.unpack_from("<H", data)[0]
        at = [*struct.unpack_from(f"<{count}H", data, 2), len(data)]
        answers = [self._cip(data[at[i] : at[i + 1]]) for i in range(count)]
        failed = any(answer[2] for answer in answers)
        offsets, offset = [], 2 + 2 * count
        for answer in answers:
            offsets.append(offset)
            offset += len(answer)
        return _reply(0x0A, b"\x1e\x00" if failed else b"\0\0") + struct.pack(f"<{count + 1}H", count, *offsets) + b"".join(answers)

    def _place(self, path: bytes) -> _Place:
        name = _name(path)
        place = self._places.get(name) or next((p for n, p in self._places.items() if n.startswith(f"{name}[")), None)
        if place is None:
            raise _Refused(_NO_TAG)
        return place

    def _read(self, path: bytes, data: bytes) -> bytes:
        place = self._place(path)
        if place.code == _STRING:
            text = str(place.value).encode("ascii", "replace")[:82]
            return struct.pack("<HHI", _STRING, _STRING_ID, len(text)) + text.ljust(84, b"\0")
        return struct.pack("<H", place.code) + struct.pack(_FORMATS[place.code], place.value)

    def _write(self, path: bytes, data: bytes) -> None:
        place = self._place(path)
        if not place.writable:
            raise _Refused(_NOT_ALLOWED)
        code = struct.unpack_from("<H", data)[0]
        if code != place.code:
            raise _Refused(_WRONG_TYPE)
        if code == _STRING:
            kind, _count, length = struct.unpack_from("<HHI", data, 2)
            if kind != _STRING_ID:
                raise _Refused(_WRONG_TYPE)
            place.value = data[10 : 10 + length].decode("ascii", "replace")
        else:
            value = struct.unpack_from(_FORMATS[code], data, 4)[0]
            place.value = int(bool(value)) if code == 0xC1 else value

    def _modify(self, path: bytes, data: bytes) -> None:
        place = self._place(path)
        if not place.writable:
            raise _Refused(_NOT_ALLOWED)
        size = struct.unpack_from("<H", data)[0]
        code = _FORMATS.get(place.code)
        if code is None or place.code == 0xCA or size != struct.calcsize(code):
            raise _Refused(_WRONG_TYPE)
        set_bits, keep_bits = (int.from_bytes(data[2 + i * size : 2 + (i + 1) * size], "little") for i in (0, 1))
        value = (int(place.value) | set_bits) & keep_bits & (2 ** (8 * size) - 1)
        place.value = struct.unpack(code, value.to_bytes(size, "little"))[0]


def _split(address: str) -> tuple[str, int | None]:
    """The tag's name as the PLC compares it, and the bit."""
    match = re.fullmatch(r"(.+?)(?:\.(\d+))?", address)
    assert match is not None
    return match[1].lower().replace(",", "]["), None if match[2] is None else int(match[2])


def _with_bit(value: Value, bit: int, high: bool) -> int:
    bits = int(value) & 0xFFFFFFFF
    bits = bits | 1 << bit if high else bits & ~(1 << bit)
    return bits - 2**32 if bits >= 2**31 else bits


def _items(data: bytes) -> dict[int, bytes]:
    """The items of a common packet format, by their type."""
    found, at = {}, 2
    for _ in range(struct.unpack_from("<H", data)[0]):
        kind, length = struct.unpack_from("<HH", data, at)
        found[kind] = data[at + 4 : at + 4 + length]
        at += 4 + length
    return found


def _request(message: bytes) -> tuple[int, bytes, bytes]:
    """Service, path, data."""
    end = 2 + 2 * message[1]
    return message[0], message[2:end], message[end:]


def _reply(service: int, status: bytes = b"\0\0") -> bytes:
    return bytes((service | 0x80, 0)) + status


def _name(path: bytes) -> str:
    """A symbolic path as a tag's name, lower case."""
    name, at = "", 0
    with contextlib.suppress(IndexError):
        while at < len(path):
            kind, size = path[at], path[at + 1]
            if kind == 0x91:
                name += ("." if name else "") + path[at + 2 : at + 2 + size].decode("ascii", "replace").lower()
                at += 2 + size + size % 2
            elif kind in (0x28, 0x29, 0x2A):
                width = {0x28: 1, 0x29: 2, 0x2A: 4}[kind]
                start = at + (1 if width == 1 else 2)
                name += f"[{int.from_bytes(path[start : start + width], 'little')}]"
                at = start + width
            else:
                return ""
    return name
