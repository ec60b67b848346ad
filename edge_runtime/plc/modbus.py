"""Tags of a PLC that is a Modbus TCP server: coils, discrete inputs, holding and input registers, and bits of registers."""

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from edge_runtime.errors import ConfigError, MissingExtra
from edge_runtime.plc.areas import AreaPort, Refused
from edge_runtime.plc.cells import Place, Span
from edge_runtime.plc.link import Dialler, hang_up
from edge_runtime.plc.port import Kind, Manual, PlcLost
from edge_runtime.plc.pymodbus_frames import BITS, Answer, Frames, NoModbus, first_frame
from edge_runtime.plc.settings import PlcConfig
from edge_runtime.plc.tags import Tag
from edge_runtime.values import Host, Port

_ADDRESS = re.compile(r"(coil|discrete|holding|input):(\d{1,6})(?:\.(\d{1,3}))?", re.ASCII)
_READ_ONLY = ("discrete", "input")
_READ_LIMIT = {"coil": 2000, "discrete": 2000, "holding": 125, "input": 125}
_WRITE_LIMIT = {"coil": 1968, "holding": 123}
_GAP = 64
_FOREIGN = 16
"""Answers to other requests that are passed over while one is awaited."""
_NO_FUNCTION, _NO_ADDRESS, _TOO_MUCH, _BUSY = 1, 2, (2, 3), (5, 6, 10, 11)
_ANSWERS = {
    1: "illegal function: it has no such kind of address",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure; is trigger.unit right?",
    5: "busy, will answer later",
    6: "busy",
    10: "the gateway cannot reach it; is trigger.unit right?",
    11: "the gateway says that it does not answer; is trigger.unit right?",
}


class ModbusTriggerConfig(PlcConfig, frozen=True, kw_only=True, tag="modbus", tag_field="kind"):
    """A PLC that is a Modbus TCP server. Addresses: "coil:0", "discrete:0", "holding:0", "input:0", and "holding:0.3" for a bit (0 is the
    least significant); counted from 0, as they go over the wire."""

    host: Host = "127.0.0.1"
    """The PLC's address or name."""
    port: Port = 502
    """TCP."""
    unit: Annotated[int, Meta(ge=0, le=255)] = 1
    """The Modbus unit identifier; only gateways look at it."""


MANUAL = Manual(
    502,
    {
        "trigger": "coil:0", "acknowledge": "coil:1", "reset_fault": "coil:2", "enable": "coil:3",
        "part_id": "holding:0", "recipe": "holding:2", "encoder": "holding:4",
    },
    {
        "result_part_id": "holding:16", "result_count": "holding:18", "severity": "holding:19", "fault_code": "holding:20",
        "accept": "coil:16", "reject": "coil:17", "fault": "coil:18", "trigger_acknowledge": "coil:19", "busy": "coil:20",
        "ready": "coil:21", "overrun": "coil:22", "heartbeat": "coil:23", "result_valid": "coil:24",
    },
    types={
        "bool": "bit", "int16": "1 register, signed", "uint16": "1 register", "int32": "2 registers, signed", "uint32": "2 registers",
        "float32": "2 registers, IEEE 754", "text": "2 characters a register",
    },
    byte_order=True,
)  # fmt: skip


def parse(tag: Tag) -> Place:
    """Where a tag lies: "coil:N", "discrete:N", "holding:N", "input:N"; "holding:N.B" or "input:N.B" for bit B, 0 the least significant.

    Raises ConfigError, with the tag's key, for an address that Modbus does not have or that does not fit the tag's type or direction.
    """
    match = _ADDRESS.fullmatch(tag.address)
    if match is None:
        raise ConfigError(
            f'{tag.key}: expected a Modbus address such as "coil:0", "discrete:0", "holding:0", "input:0" or "holding:0.3", '
            f"found {tag.address!r}"
        )
    area, number, bit = match[1], int(match[2]), None if match[3] is None else int(match[3])
    count = 1 if tag.type == "bool" else tag.size // 2
    if number + count - 1 > 65_535:
        end = f"; it ends at {area}:{number + count - 1}" if count > 1 else ""
        raise ConfigError(f"{tag.key}: expected an address from 0 to 65535, found {tag.address!r}{end}")
    if bit is not None and (area in BITS or bit > 15):
        raise ConfigError(f"{tag.key}: expected a bit from 0 to 15 of a holding or input register, found {tag.address!r}")
    if tag.type == "bool" and bit is None and area not in BITS:
        raise ConfigError(f'{tag.key}: a bool needs a coil, a discrete input or a bit such as "{area}:{number}.0", found {tag.address!r}')
    if tag.type != "bool" and (bit is not None or area in BITS):
        raise ConfigError(f'{tag.key}: a tag of type {tag.type} needs registers such as "holding:{number}", found {tag.address!r}')
    if tag.writable and area in _READ_ONLY:
        raise ConfigError(f"{tag.key}: the station writes its outputs, expected a coil or a holding register, found {tag.address!r}")
    return Place(area, number, count, 0 if area in BITS else bit)


@dataclass(slots=True)
class _Request:
    """A function's frame without the two bytes of its number, and what the PLC said last. Most polls find the same again, byte for byte:
    only what differs is decoded."""

    function: int
    frame: bytes
    received: bytes = b""
    answer: Answer | None = None


class ModbusPort(AreaPort):
    """A TagPort. The tags of one area that are near each other are one request; adjacent outputs are one request.

    A register that holds output bits belongs to the station: bits of it that no tag maps are written as 0.
    """

    cell = "register"
    width = 2
    gap = _GAP

    def __init__(self, settings: ModbusTriggerConfig, tags: Sequence[Tag]) -> None:
        """Raises ConfigError for a tag's address, MissingExtra without pymodbus."""
        try:
            self._frames = Frames()
        except ImportError as e:
            raise MissingExtra("the modbus trigger", "plc") from e
        self._read_limit, self._write_limit = dict(_READ_LIMIT), dict(_WRITE_LIMIT)
        self._one_by_one: set[str] = set()
        """Areas of which the PLC takes one cell a request."""
        super().__init__(tags, settings.timeout_ms / 1e3)
        self.where = f"PLC {settings.host}:{settings.port} unit {settings.unit}"
        self._settings = settings
        self._dialler = Dialler(settings.host, settings.port, self._timeout_s)
        self._socket: socket.socket | None = None
        self._number = 0
        self._rest = b""
        """What came behind the last answer."""
        self._asked: dict[Span, _Request] = {}

    def _parse(self, tag: Tag) -> Place:
        return parse(tag)

    def _open(self) -> None:
        s = self._settings
        try:
            self._socket = self._dialler.dial()
        except OSError as e:
            why = f"does not answer in {s.timeout_ms:g} ms" if isinstance(e, TimeoutError) else e.strerror or str(e)
            raise PlcLost(f"cannot be connected to: {why}; it may be off, or at another address") from e

    def close(self) -> None:
        """As in TagPort."""
        if self._socket is not None:
            hang_up(self._socket)
        self._socket, self._rest = None, b""

    @property
    def note(self) -> str:
        """As in TagPort."""
        less = [f"{n} {area} cells" for area, n in self._read_limit.items() if n < _READ_LIMIT[area]]
        said = [f"it lets {' and '.join(less)} at most be read at once"] if less else []
        said += [f"it lets one {area} at a time be written" for area in sorted(self._one_by_one)]
        return "; ".join(said)

    def _fits(self, spans: Sequence[Span]) -> bool:
        return len(spans) == 1 and spans[0].count <= self._read_limit[spans[0].area]

    def _fits_write(self, span: Span) -> bool:
        return span.count <= (1 if span.area in self._one_by_one else self._write_limit[span.area])

    def _shrunk(self, span: Span, *, writing: bool) -> bool:
        limits = self._write_limit if writing else self._read_limit
        if span.count > 1:
            limits[span.area] = span.count // 2
        return span.count > 1

    def _simplified(self, area: str) -> bool:
        known = area in self._one_by_one
        self._one_by_one.add(area)
        return not known

    def _hint(self, tag: Tag, refused: Refused) -> str:
        place = self._places[tag.name]
        if refused.no_such_place or not refused.too_much or place.count == 1:
            return super()._hint(tag, refused)
        return f"; it may take fewer than {place.count} registers in a request" + (": give the tag a length" if tag.length else "")

    def _read_cells(self, spans: Sequence[Span]) -> Sequence[Sequence[int] | Refused]:
        (span,) = spans
        if span not in self._asked:
            function, frame = self._frames.reading(span.area, span.start, span.count, self._settings.unit)
            self._asked[span] = _Request(function, frame[2:])
        answer = self._ask(self._asked[span])
        bits = span.area in BITS
        cells: Sequence[int] = answer.bits[: span.count] if bits else answer.registers
        if len(cells) != span.count:
            raise PlcLost(f"answered with {len(cells)} {'bits' if bits else 'registers'}, expected {span.count}")
        return [cells]

    def _write_cells(self, span: Span, cells: Sequence[int]) -> None:
        unit = self._settings.unit
        if span.area in self._one_by_one:
            for at, cell in enumerate(cells, span.start):
                function, frame = self._frames.writing_one(span.area, at, cell, unit)
                self._ask(_Request(function, frame[2:]))
            return
        function, frame = self._frames.writing(span.area, span.start, cells, unit)
        self._ask(_Request(function, frame[2:]))

    def _ask(self, request: _Request) -> Answer:
        """The PLC's answer, which comes whole within the deadline. Raises PlcLost, Refused."""
        if self._socket is None:
            raise PlcLost("not connected")
        self._number = self._number % 65_535 + 1
        try:
            answer = self._answer(self._socket, request, self._number)
        except TimeoutError as e:
            raise PlcLost(f"did not answer in {self._settings.timeout_ms:g} ms") from e
        except OSError as e:
            raise PlcLost(f"the connection was lost: {e.strerror or e}") from e
        except NoModbus as e:
            raise PlcLost(f"answered with something that is not Modbus: {e}") from e
        if answer.function_code & 0x7F != request.function:
            raise PlcLost(f"answered function {answer.function_code & 0x7F}, asked was {request.function}")
        if answer.isError():
            code = answer.exception_code
            raise Refused(
                f"{_ANSWERS.get(code, 'error')} (Modbus exception {code})",
                no_such_place=code == _NO_ADDRESS, too_much=code in _TOO_MUCH, no_such_request=code == _NO_FUNCTION,
                not_now=code in _BUSY,
            )  # fmt: skip
        return answer

    def _answer(self, sock: socket.socket, request: _Request, number: int) -> Answer:
        """The frame with the request's number; a few others, of requests that were given up, are passed over."""
        head, foreign = number.to_bytes(2, "big"), 0
        self._deadline.send(sock, head + request.frame)
        data = self._rest or self._deadline.receive(sock)
        if request.answer is not None and request.received and data[:2] == head and data[2:] == request.received:
            self._rest = b""
            return request.answer
        while True:
            frame = first_frame(data)
            if frame is None:
                data += self._deadline.receive(sock)
                continue
            if frame.number == number:
                break
            foreign += 1
            if foreign > _FOREIGN:
                raise NoModbus(f"{foreign} answers to requests that it was not asked")
            data = data[frame.size :] or self._deadline.receive(sock)
        if frame.unit != self._settings.unit:
            raise NoModbus(f"it answers as unit {frame.unit}: if that is the PLC, set trigger.unit = {frame.unit}")
        answer = self._frames.answer(frame.message)
        self._rest = data[frame.size :]
        request.received, request.answer = b"" if self._rest else data[2:], answer
        return answer


KIND = Kind(ModbusTriggerConfig, ModbusPort, MANUAL, "edge_runtime.sim.modbus_server:ModbusServer")
