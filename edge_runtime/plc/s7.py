"""Tags of a Siemens S7 PLC: bits, words and texts of data blocks, flags, inputs and outputs, over PUT/GET."""

import contextlib
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from edge_runtime.errors import ConfigError, MissingExtra
from edge_runtime.plc import iso_frames
from edge_runtime.plc.areas import AreaPort, Refused
from edge_runtime.plc.cells import Place, Span
from edge_runtime.plc.deadline import Deadline
from edge_runtime.plc.link import Dialler, hang_up
from edge_runtime.plc.port import Kind, Manual, PlcLost
from edge_runtime.plc.settings import PlcConfig
from edge_runtime.plc.snap7_messages import ErrorCode, Messages, Misread
from edge_runtime.plc.tags import Tag
from edge_runtime.values import Host, Port

_ADDRESS = re.compile(r"(?:DB(\d{1,5})\.DB([XBWD])|([MIEQA])([BWD]?))(\d{1,5})(?:\.(\d))?", re.ASCII | re.IGNORECASE)
_MOST_PDU_BYTES = 480
_MAX_ITEMS = 20
_ITEM_READ_BYTES, _READ_HEADER_BYTES = 12, 14
_WRITE_HEADER_BYTES = 28
_GAP = 32
_NUMBER = slice(4, 6)
"""Where in an S7 message its number stands, which the answer repeats."""
_PUT_GET = "allow PUT/GET communication in the CPU's properties (Protection & Security)"
_ITEM_ANSWERS = {
    0x01: "hardware fault",
    0x03: f"access refused; {_PUT_GET}",
    0x05: "address out of range",
    0x06: "data type not supported",
    0x07: "data type inconsistent",
    0x0A: "there is no such block",
}
_NO_RESOURCES = 0x83
"""Class of errors that end by themselves."""
_ANSWERS = {
    0x8104: f"the CPU does not offer this service; {_PUT_GET}",
    0x8404: "error in its protection level or no such block",
    0xD241: f"access refused; {_PUT_GET}",
}


class S7TriggerConfig(PlcConfig, frozen=True, kw_only=True, tag="s7", tag_field="kind"):
    """A Siemens S7 PLC (300, 400, 1200, 1500 with PUT/GET allowed, data blocks without optimized access). Addresses: "DB10.DBX0.0",
    "DB10.DBW2", "DB10.DBD4", "DB10.DBB8" (texts), "M0.0", "MW2", "MD4", "I0.0", "Q0.0"."""

    host: Host
    """The PLC's address or name."""
    port: Port = 102
    """TCP."""
    rack: Annotated[int, Meta(ge=0, le=7)] = 0
    """The CPU's rack."""
    slot: Annotated[int, Meta(ge=0, le=31)] = 1
    """1 for S7-1200 and S7-1500, 2 for S7-300."""


MANUAL = Manual(
    102,
    {
        "trigger": "DB10.DBX0.0", "acknowledge": "DB10.DBX0.1", "reset_fault": "DB10.DBX0.2", "enable": "DB10.DBX0.3",
        "part_id": "DB10.DBD2", "recipe": "DB10.DBW6", "encoder": "DB10.DBD8",
    },
    {
        "result_part_id": "DB11.DBD0", "result_count": "DB11.DBW4", "severity": "DB11.DBW6", "fault_code": "DB11.DBW8",
        "accept": "DB11.DBX10.0", "reject": "DB11.DBX10.1", "fault": "DB11.DBX10.2", "trigger_acknowledge": "DB11.DBX10.3",
        "busy": "DB11.DBX10.4", "ready": "DB11.DBX10.5", "overrun": "DB11.DBX10.6", "heartbeat": "DB11.DBX10.7",
        "result_valid": "DB11.DBX11.0",
    },
    types={
        "bool": "Bool", "int16": "Int", "uint16": "UInt", "int32": "DInt", "uint32": "UDInt", "float32": "Real", "text": "Array of Char",
    },
    byte_order=True,
)  # fmt: skip


def parse(tag: Tag) -> Place:
    """Where a tag lies: "DB10.DBX0.0", "DB10.DBB8" (texts), "DB10.DBW2", "DB10.DBD4", and M, I, Q for flags, inputs and outputs: "M0.0",
    "MB8", "MW2", "MD4". E and A are the German I and Q. A text is an array of characters, not a STRING with its two bytes of length.

    Raises ConfigError, with the tag's key, for an address that S7 does not have or that does not fit the tag's type or direction.
    """
    match = _ADDRESS.fullmatch(tag.address)
    size = "" if match is None else (match[2] or match[4] or "").upper().replace("X", "")
    if match is None or (size == "") != (match[6] is not None):
        raise ConfigError(
            f'{tag.key}: expected an S7 address such as "DB10.DBX0.0", "DB10.DBW2", "DB10.DBD4", "DB10.DBB8", "M0.0", "MW2", "I0.0" or '
            f'"Q0.0", found {tag.address!r}'
        )
    block, letter, number, bit = match[1], match[3], int(match[5]), None if match[6] is None else int(match[6])
    if bit is not None and bit > 7:
        raise ConfigError(f"{tag.key}: expected a bit from 0 to 7, found {tag.address!r}")
    if block is not None and not 1 <= int(block) <= 65_535:
        raise ConfigError(f"{tag.key}: expected a data block from 1 to 65535, found {tag.address!r}")
    area = f"DB{int(block)}" if block else {"E": "I", "A": "Q"}.get(letter.upper(), letter.upper())
    wanted = {"bool": "", "text": "B", "int16": "W", "uint16": "W"}.get(tag.type, "D")
    if size != wanted:
        stem = f"{area}.DB{wanted or 'X'}{number}" if block else f"{area}{wanted}{number}"
        raise ConfigError(
            f'{tag.key}: a tag of type {tag.type} needs an address such as "{stem}{"" if wanted else ".0"}", found {tag.address!r}'
        )
    count = max(tag.size, 1)
    if number + count - 1 > 65_535:
        raise ConfigError(f"{tag.key}: expected bytes from 0 to 65535, found {tag.address!r}")
    if tag.writable and area == "I":
        raise ConfigError(
            f"{tag.key}: the station writes its outputs, expected a data block, flag or output, found the input {tag.address!r}"
        )
    return Place(area, number, count, bit)


@dataclass(slots=True)
class _Read:
    """A request for some spans, and what the PLC answered last, without its number. Most polls find the same again, byte for byte: only
    what differs is decoded."""

    message: bytes
    received: bytes = b""
    cells: Sequence[Sequence[int] | Refused] = ()


class S7Port(AreaPort):
    """A TagPort. All tags of all areas are one request as far as the PLC's PDU reaches; adjacent outputs are one request.

    A byte that holds output bits belongs to the station: bits of it that no tag maps are written as 0.
    """

    cell = "byte"
    width = 1
    gap = _GAP

    def __init__(self, settings: S7TriggerConfig, tags: Sequence[Tag]) -> None:
        """Raises ConfigError for a tag's address, MissingExtra without python-snap7."""
        try:
            self._messages = Messages()
        except ImportError as e:
            raise MissingExtra("the s7 trigger", "plc") from e
        super().__init__(tags, settings.timeout_ms / 1e3)
        self.where = f"PLC {settings.host}:{settings.port} rack {settings.rack} slot {settings.slot}"
        self._settings = settings
        self._dialler = Dialler(settings.host, settings.port, self._timeout_s)
        self._socket: socket.socket | None = None
        self._pdu_bytes = 240
        self._number = 0
        self._asked: dict[tuple[Span, ...], _Read] = {}

    def _parse(self, tag: Tag) -> Place:
        return parse(tag)

    def _open(self) -> None:
        s, within = self._settings, f"{self._settings.timeout_ms:g} ms"
        try:
            self._socket = sock = self._dialler.dial()
        except OSError as e:
            why = f"does not answer in {within}" if isinstance(e, TimeoutError) else e.strerror or str(e)
            raise PlcLost(f"cannot be connected to: {why}; it may be off, or at another address") from e
        try:
            iso_frames.connect(sock, 0x0100 | s.rack << 5 | s.slot, Deadline(self._timeout_s))
        except TimeoutError as e:
            raise self._lost(f"takes the connection, but does not answer as an S7 PLC in {within}") from e
        except iso_frames.NoFrame as e:
            raise self._lost("takes the connection, and answers with something that is not S7") from e
        except (OSError, iso_frames.ConnectionRefusedByPlc) as e:
            raise self._lost(
                f"refuses rack {s.rack} slot {s.slot}; expected slot 1 for S7-1200 and S7-1500, 2 for S7-300: see trigger.slot"
            ) from e
        self._deadline = Deadline(self._timeout_s)
        try:
            pdu_bytes = min(self._guarded(self._negotiated), _MOST_PDU_BYTES)
        except Refused as e:
            raise self._lost(f"refuses to communicate: {e}") from e
        if pdu_bytes != self._pdu_bytes:
            self._pdu_bytes = pdu_bytes
            self._forget_plans()

    def _negotiated(self) -> int:
        """Bytes of the longest message that the PLC takes and gives."""
        with _said():
            agreed = self._messages.agreed(self._ask(self._messages.setup(_MOST_PDU_BYTES)))
        if agreed is None:
            raise PlcLost("answered something else when it was asked how long a message may be")
        return agreed

    def close(self) -> None:
        """As in TagPort."""
        sock, self._socket = self._socket, None
        if sock is not None:
            hang_up(sock)

    def _fits(self, spans: Sequence[Span]) -> bool:
        answer = _READ_HEADER_BYTES + sum(4 + s.count + s.count % 2 for s in spans)
        question = _READ_HEADER_BYTES + _ITEM_READ_BYTES * len(spans)
        return len(spans) <= _MAX_ITEMS and max(answer, question) <= self._pdu_bytes

    def _fits_write(self, span: Span) -> bool:
        return _WRITE_HEADER_BYTES + span.count <= self._pdu_bytes

    def _read_cells(self, spans: Sequence[Span]) -> Sequence[Sequence[int] | Refused]:
        key = tuple(spans)
        if key not in self._asked:
            self._asked[key] = _Read(self._messages.reading([(*_area(s.area), s.start, s.count) for s in spans]))
        asked = self._asked[key]
        answer = self._ask(asked.message)
        received = answer[: _NUMBER.start] + answer[_NUMBER.stop :]
        if received != asked.received:
            with _said():
                asked.cells = self._cells(spans, self._messages.data(answer))
            asked.received = received
        return asked.cells

    def _cells(self, spans: Sequence[Span], data: bytes) -> Sequence[Sequence[int] | Refused]:
        cells: list[Sequence[int] | Refused] = []
        at = 0
        for span in spans:
            length = int.from_bytes(data[at + 2 : at + 4], "big") // (8 if data[at + 1] in (3, 4, 5) else 1)
            if data[at] != 0xFF:
                cells.append(_item_refused(data[at]))
            else:
                got = data[at + 4 : at + 4 + span.count]
                if len(got) != span.count or length != span.count:
                    raise PlcLost(f"answered with {len(got)} bytes, expected {span.count}")
                cells.append(got)
            at += 4 + length + length % 2
        return cells

    def _write_cells(self, span: Span, cells: Sequence[int]) -> None:
        answer = self._ask(self._messages.writing(*_area(span.area), span.start, bytes(cells)))
        with _said():
            code = (self._messages.data(answer) or b"\0")[0]
        if code != 0xFF:
            raise _item_refused(code)

    def _hint(self, tag: Tag, refused: Refused) -> str:
        if not refused.no_such_place:
            return ""
        return "; check the block's number and length" + (
            ", and that it is without optimized block access" if tag.address[:2] == "DB" else ""
        )

    def _ask(self, message: bytes) -> bytes:
        """The S7 message that answers this one, which comes whole within the deadline. Raises PlcLost."""
        if self._socket is None:
            raise PlcLost("not connected")
        self._number = self._number % 65_535 + 1
        number = self._number.to_bytes(2, "big")
        try:
            answer = iso_frames.exchange(self._socket, message[: _NUMBER.start] + number + message[_NUMBER.stop :], self._deadline)
        except TimeoutError as e:
            raise PlcLost(f"did not answer in {self._settings.timeout_ms:g} ms") from e
        except OSError as e:
            raise PlcLost("the connection was lost: closed by the PLC") from e
        except iso_frames.NoFrame as e:
            raise PlcLost("answered with something that is not S7") from e
        if answer[_NUMBER] != number:
            raise PlcLost("answered another request")
        return answer


@contextlib.contextmanager
def _said() -> Iterator[None]:
    """Raises Refused or PlcLost for an answer that is a refusal or no S7."""
    try:
        yield
    except Misread as e:
        raise PlcLost(f"answered with something that is not S7: {e}") from e
    except ErrorCode as e:
        raise Refused(f"{_ANSWERS.get(e.code, e)} (S7 error 0x{e.code:04X})", not_now=e.code >> 8 == _NO_RESOURCES) from e


def _item_refused(code: int) -> Refused:
    return Refused(f"{_ITEM_ANSWERS.get(code, 'error')} (S7 item code 0x{code:02X})", no_such_place=code in (0x05, 0x0A))


def _area(name: str) -> tuple[int, int]:
    """S7's number of an area, and the data block's."""
    return (0x84, int(name[2:])) if name.startswith("DB") else ({"I": 0x81, "Q": 0x82, "M": 0x83}[name], 0)


KIND = Kind(S7TriggerConfig, S7Port, MANUAL, "edge_runtime.sim.s7_server:S7Server")
