"""Tags over EtherNet/IP, of ControlLogix and CompactLogix PLCs: all inputs in one packet, all outputs in one.

Addresses are tag names as the PLC's program has them: "Vision.Trigger", "Program:Main.Trigger", "Parts[3].Id", and "Vision.Flags.3" for a
bit of an integer. A bool needs a BOOL, an element of a BOOL array or a bit; a number any of SINT to LINT, their unsigned kin, REAL and
LREAL, in whose range it is held; a text a STRING (82 characters).
"""

import contextlib
import functools
import math
import re
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from edge_runtime.errors import ConfigError, MissingExtra, TagError
from edge_runtime.plc.areas import batches
from edge_runtime.plc.port import Manual, PlcLost
from edge_runtime.plc.settings import PlcConfig, PlcTag, TagConfig
from edge_runtime.plc.signals import INPUTS, OUTPUTS, Signal
from edge_runtime.plc.tags import FLOAT_MAX, RANGES, Tag, Value, from_plc, to_plc, whole
from edge_runtime.values import Host, Port

_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,39}"
_PART = rf"{_NAME}(\[\d+(,\d+){{0,2}}\])?"
_ADDRESS = re.compile(rf"(?P<base>(Program:{_NAME}\.)?{_PART}(\.{_PART})*)(\.(?P<bit>\d+))?")

_BOOL, _BOOLS, _STRUCT = 0xC1, 0xD3, 0xA0
_WHOLE = {
    0xC2: (-(2**7), 2**7 - 1), 0xC3: RANGES["int16"], 0xC4: RANGES["int32"], 0xC5: (-(2**63), 2**63 - 1), 0xC6: (0, 2**8 - 1),
    0xC7: RANGES["uint16"], 0xC8: RANGES["uint32"], 0xC9: (0, 2**64 - 1),
}  # fmt: skip
_REAL, _LREAL = 0xCA, 0xCB
_SHORT_STRINGS = (0xDA, 0xD0)
_TEXT = 82

_NO_TAG = ("Path segment error", "Path destination unknown", "Object does not exist", "Invalid member ID")
_NO_WRITE = ("Privilege violation", "Attribute not settable", "Member not settable", "Object state conflict")
_HEAD = 24
_CONNECTED = b"\x70\x00"
"""The command of a packet that belongs to a connection: each has a number, one more than the last, which the answer repeats."""
_CIP_AT = 46
"""Where the controller's answer begins in a packet of a connection: behind the head of 24 bytes, two items and the number."""
_OVERHEAD = 12
"""Bytes of a request beside the tag's name, about."""
_PACKET, _WRITE = 10, 32
"""What pylogix reckons for a packet of writes and for each tag in it, beside its name and a text's characters; at most."""


class EthernetipTriggerConfig(PlcConfig, frozen=True, kw_only=True, tag="ethernetip", tag_field="kind"):
    """A Rockwell ControlLogix or CompactLogix PLC over EtherNet/IP. Addresses are tag names: "Vision.Trigger", "Program:Main.Trigger"."""

    text_length: ClassVar[int] = _TEXT
    host: Host
    """The PLC's address or name."""
    port: Port = 44818
    """TCP."""
    slot: Annotated[int, Meta(ge=0, le=17)] = 0
    """The CPU's slot in the chassis; 0 for CompactLogix."""


def _named(signals: Mapping[str, Signal]) -> dict[str, PlcTag]:
    """Most Logix controllers have no unsigned types."""
    addresses = {name: f"LS_{name.title().replace('_', '')}" for name in signals}
    return {n: a if signals[n].type == "bool" else TagConfig(address=a, type="int32") for n, a in addresses.items()}


MANUAL = Manual(
    44818, _named(INPUTS), _named(OUTPUTS),
    types={
        "bool": "BOOL", "int16": "INT", "uint16": "UINT", "int32": "DINT", "uint32": "UDINT", "float32": "REAL", "text": "STRING",
    },
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Read:
    """What pylogix asked for some tags, what the PLC answered, and the values in it. Most polls find the same again, byte for byte: only
    what differs is decoded."""

    packets: Sequence[tuple[bytes, bytes]]
    values: Mapping[str, Value]


class EthernetipPort:
    """TagPort over pylogix. A connection that failed once is dropped, so that a late answer is never taken for another's."""

    pushes = False
    ordered = False
    note = ""

    def __init__(self, settings: EthernetipTriggerConfig, tags: Sequence[Tag]) -> None:
        """Raises ConfigError for a name that is none, a bit that is no bool, and a place of two tags; MissingExtra without pylogix."""
        try:
            import pylogix  # noqa: F401
        except ImportError as e:
            raise MissingExtra("the ethernetip trigger", "plc") from e
        self._settings = settings
        self.where = f"PLC {settings.host}:{settings.port} slot {settings.slot}"
        self._tags = {t.name: t for t in tags}
        check_addresses(tags)
        self._types: dict[str, int] = {}
        self._plc: Any = None
        self._send: Any = None
        self._heard: list[tuple[bytes, Any]] = []
        self._ahead: list[tuple[bytes, Any]] = []
        self._reads: dict[tuple[str, ...], _Read] = {}
        self._number: int | None = None
        self._why = ""
        self._timeout_s = settings.timeout_ms / 1e3
        self._late = f"did not answer in {settings.timeout_ms:g} ms"

    def connect(self, changed: Callable[[], None]) -> None:
        from pylogix import PLC

        self.close()
        s = self._settings
        self._plc = plc = PLC(s.host, slot=s.slot, port=s.port, timeout=self._timeout_s)
        plc.conn.msg_socket.close()  # of a feature that is not used here; nothing else would close it
        plc.StringEncoding = "latin-1"
        self._send, plc.conn.send = plc.conn.send, self._exchange
        plc.conn.receive_data = lambda: self._receive(plc.conn)
        self._reads.clear()
        self._number, self._why = None, ""
        try:
            self._open()
            self._look()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        plc, self._plc = self._plc, None
        if plc is not None:
            with contextlib.suppress(OSError, struct.error, TypeError):  # it says goodbye to one that may be gone
                plc.Close()
            plc.conn.Socket.close()

    def read(self, names: Sequence[str]) -> dict[str, Value]:
        if not names:
            return {}
        key = tuple(names)
        known = self._reads.get(key)
        ahead: list[tuple[bytes, Any]] = []
        if known is not None:
            ahead = self._ask(lambda _: self._repeat(known), len(known.packets))
            if all(_cip(answer) == kept for (_, (_, answer)), (_, kept) in zip(ahead, known.packets, strict=True)):
                return dict(known.values)
        answers = self._ask(lambda plc: plc.Read([self._tags[n].address for n in names]), len(names), ahead)
        values = {name: self._value(name, answer) for name, answer in zip(names, answers, strict=True)}
        self._reads[key] = _Read([(request, _cip(answer)) for request, (_, answer) in self._heard], values)
        return values

    def _repeat(self, known: _Read) -> list[tuple[bytes, Any]]:
        """The packets of that read, sent again, and what `send` returned for each."""
        packets = []
        for request, _ in known.packets:
            packets.append((request, self._send(request)))
            if not self._plc.conn.SocketConnected:
                break
        return packets

    def _exchange(self, request: bytes, connected: bool = True, slot: int | None = None) -> Any:
        """In place of pylogix' own `send`: the answer that is here already, or the PLC's."""
        if self._ahead and self._ahead[0][0] == request:
            answer = self._ahead.pop(0)[1]
        else:
            self._ahead = []
            answer = self._send(request, connected, slot)
        self._heard.append((request, answer))
        return answer

    def poll(self, names: Sequence[str]) -> Sequence[dict[str, Value]]:
        return [self.read(names)]

    def write(self, values: Mapping[str, Value]) -> None:
        if not values:
            return
        for name, answer in self._write_all({n: self._raw(n, v) for n, v in values.items()}).items():
            if answer.Status != "Success":
                self._drop()
                raise PlcLost(f"refused to write {self._tags[name].key} ({self._tags[name].address}): {answer.Status}")

    def trips(self, names: Sequence[str]) -> int:
        size = self._plc.ConnectionSize if self._plc is not None else 504
        return max(1, math.ceil(sum(len(self._tags[n].address) + _OVERHEAD + self._tags[n].length for n in names) / size))

    def _open(self) -> None:
        s, conn = self._settings, self._plc.conn
        began = time.monotonic()
        try:
            connected, why = conn.connect()
        except (OSError, struct.error) as e:
            raise PlcLost(f"answered with something that is not EtherNet/IP: {e}") from e
        if connected:
            conn.Socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        elif isinstance(why, ConnectionRefusedError):
            raise PlcLost("refused the connection: no EtherNet/IP there, or its port is another") from why
        elif isinstance(why, OSError):
            raise PlcLost(
                "did not answer in time" if isinstance(why, TimeoutError) else f"cannot be reached: {why.strerror or why}"
            ) from why
        elif "open" in str(why) and time.monotonic() - began < self._timeout_s:
            raise PlcLost(f"has no controller in slot {s.slot} that accepts a connection; check trigger.slot, and its connections in use")
        else:
            raise PlcLost(self._late)

    def _look(self) -> None:
        """Read every tag, which tells its type, and write the outputs' own values back: Logix says in no other way what may be written."""
        names = list(self._tags)
        answers = self._ask(lambda plc: plc.Read([t.address for t in self._tags.values()]), len(names))
        found = {}
        for name, answer in zip(names, answers, strict=True):
            tag = self._tags[name]
            if answer.Status in _NO_TAG:
                raise TagError(f'{tag.key}: expected the tag "{tag.address}" in the {self.where}, found none ({answer.Status})')
            if answer.Status != "Success":
                raise TagError(f'{tag.key}: the {self.where} does not tell "{tag.address}": {answer.Status}')
            self._types[name] = self._type_of(tag, answer.Value)
            found[name] = answer.Value
        outputs = [name for name in names if self._tags[name].writable]
        if not outputs:
            return
        for name, answer in self._write_all({n: found[n] for n in outputs}).items():
            if answer.Status != "Success":
                tag = self._tags[name]
                why = "its External Access is not Read/Write" if answer.Status in _NO_WRITE else answer.Status
                raise TagError(f'{tag.key}: expected a tag that may be written, found "{tag.address}" in the {self.where}: {why}')

    def _write_all(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """In their order, a packet for as many as fit into one: where not all do, pylogix leaves some out and writes later ones first."""
        size = self._plc.ConnectionSize if self._plc is not None else 504

        def fits(names: Sequence[str]) -> bool:
            tags = [self._tags[n] for n in names]
            return _PACKET + sum(_WRITE + len(t.address) + (_TEXT if t.type == "text" else 0) for t in tags) <= size

        answers: dict[str, Any] = {}
        for group in batches(list(values), fits):
            write = functools.partial(_written, pairs=[(self._tags[n].address, values[n]) for n in group])
            answers |= zip(group, self._ask(write, len(group)), strict=True)
        return answers

    def _type_of(self, tag: Tag, value: Any) -> int:
        """Raises TagError for a type that does not fit the tag."""
        code: int = self._plc.KnownTags[_base(tag.address)][0]
        name = self._plc.CIPTypes.get(code, (0, f"type 0x{code:02X}"))[1]
        if code == _STRUCT:
            name = "STRING" if isinstance(value, str) else "a structure"
        elif code in _SHORT_STRINGS:
            name = "a string of another kind"
        found = f'{name}, the tag "{tag.address}" in the {self.where}'
        has_bit = _match(tag)["bit"] is not None
        if tag.type == "bool":
            fits = code in _WHOLE if has_bit else code == _BOOL or (code == _BOOLS and tag.address.endswith("]"))
            if not fits:
                expected = "an integer for a bit of it" if has_bit else "a BOOL"
                raise TagError(f"{tag.key}: expected {expected}, found {found}")
        elif tag.type == "text":
            if code != _STRUCT or not isinstance(value, str):
                raise TagError(f'{tag.key}: expected a STRING for type "text", found {found}')
        elif code not in (*_WHOLE, _REAL, _LREAL):
            raise TagError(f'{tag.key}: expected a number for type "{tag.type}", found {found}')
        elif not tag.counts_in(_WHOLE.get(code)):
            raise TagError(
                f'{tag.key}: expected a whole number of at least the range of "{tag.type}", in which it wraps round, found {found}'
            )
        return code

    def _ask(self, request: Callable[[Any], list[Any]], count: int, ahead: Sequence[tuple[bytes, Any]] = ()) -> list[Any]:
        """`count` answers to the request, for which those to the packets in `ahead` have come already. Raises PlcLost, and drops the
        connection, for anything less."""
        plc = self._plc
        if plc is None or not plc.conn.SocketConnected:
            raise PlcLost("not connected")
        began = time.monotonic()
        self._heard, self._ahead = [], list(ahead)
        try:
            answers = request(plc)
        except (OSError, struct.error, UnicodeError, IndexError, KeyError, TypeError) as e:
            # What pylogix makes of an answer that is cut short.
            self._drop()
            raise PlcLost(f"answered with something else than was asked: {e}") from e
        if not plc.conn.SocketConnected:
            self._drop()
            raise PlcLost(self._why or (self._late if time.monotonic() - began > self._timeout_s else "closed the connection"))
        if len(answers) != count:
            self._drop()
            raise PlcLost(f"answered for {len(answers)} tags of {count}")
        return answers

    def _receive(self, conn: Any) -> bytes | None:
        """One packet, whole within `timeout_ms`, or None.

        In place of pylogix' own, which waits for each piece anew, for ever for those that a closed connection will not bring, and takes the
        answer to any request for the last one's.
        """
        until = time.monotonic() + self._timeout_s
        data = b""
        try:
            while len(data) < _HEAD or len(data) < _HEAD + int.from_bytes(data[2:4], "little"):
                conn.Socket.settimeout(max(until - time.monotonic(), 1e-3))
                piece = conn.Socket.recv(4096)
                if not piece:
                    return None
                data += piece
            conn.Socket.settimeout(self._timeout_s)
        except OSError:
            return None
        if len(data) != _HEAD + int.from_bytes(data[2:4], "little"):
            self._why = "answered with something that is not EtherNet/IP"
            return None
        if data[:2] == _CONNECTED:
            number = int.from_bytes(data[_CIP_AT - 2 : _CIP_AT], "little")
            if self._number is not None and number != (self._number + 1) % 65_536:
                self._why = "answered another request"
                return None
            self._number = number
        return data

    def _drop(self) -> None:
        plc, self._plc = self._plc, None
        if plc is not None:
            plc.conn.Socket.close()

    def _value(self, name: str, answer: Any) -> Value:
        tag, raw = self._tags[name], answer.Value
        if answer.Status != "Success" or raw is None:
            self._drop()
            raise PlcLost(f"refused to read {tag.key} ({tag.address}): {answer.Status}")
        if isinstance(raw, float) and tag.type in RANGES:
            raw = round(raw) if math.isfinite(raw) else 0
        return from_plc(tag, raw)

    def _raw(self, name: str, value: Value) -> Value:
        tag, code = self._tags[name], self._types.get(name, 0)
        raw = to_plc(tag, value)
        if isinstance(raw, str):
            return raw.encode("ascii", "replace").decode()[:_TEXT]
        if code in _WHOLE and not isinstance(raw, bool):
            return whole(tag, raw, _WHOLE[code])
        return min(max(float(raw), -FLOAT_MAX), FLOAT_MAX) if code == _REAL and math.isfinite(raw) else raw


def _written(plc: Any, pairs: list[tuple[str, Any]]) -> list[Any]:
    answers: list[Any] = plc.Write(pairs)
    return answers


def _cip(answer: bytes) -> bytes:
    """What the controller said, without the packet's head and number, which differ each time."""
    return answer[_CIP_AT:]


def check_addresses(tags: Sequence[Tag]) -> None:
    """Raises ConfigError for what is no tag name, a bit that is no bool, and a place of two tags one of which is written."""
    seen: list[tuple[str, str | None, Tag]] = []
    for tag in tags:
        match = _match(tag)
        base, bit = match["base"].lower(), match["bit"]
        if bit is not None and tag.type != "bool":
            raise ConfigError(f'{tag.key}: expected type "bool" for the bit "{tag.address}", found "{tag.type}"')
        for other_base, other_bit, other in seen:
            shared = base == other_base and (bit == other_bit or bit is None or other_bit is None)
            if shared and (tag.writable or other.writable):
                raise ConfigError(
                    f'{tag.key}: expected a tag of its own, found "{tag.address}", which shares memory with {other.key} ("{other.address}")'
                )
        seen.append((base, bit, tag))


def _match(tag: Tag) -> re.Match[str]:
    match = _ADDRESS.fullmatch(tag.address)
    if match is None or int(match["bit"] or 0) > 31:
        raise ConfigError(
            f'{tag.key}: expected a tag name such as "Vision.Trigger", "Program:Main.Trigger" or, for a bit, "Vision.Flags.3" (0 to 31), '
            f'found "{tag.address}"'
        )
    return match


def _base(address: str) -> str:
    """Under which pylogix remembers a tag's type: without its bit and its last index."""
    return re.sub(r"\[[\d,]+\]$", "", re.sub(r"\.\d+$", "", address))
