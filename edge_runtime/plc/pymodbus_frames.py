"""pymodbus' messages as bytes, and bytes as its messages: all that is known here of its insides.

Its client does the same behind its own socket, and takes a quarter to a half of a poll more for it. Why: deploy/decisions/0038.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

BITS = ("coil", "discrete")
_HEAD = 7
"""Number (2 bytes), protocol 0 (2), length of what follows (2), unit (1): MODBUS Messaging on TCP/IP 1.0b, 3.1.3."""
_LONGEST = 254
"""The most that the length counts: the unit and 253 bytes."""


class Answer(Protocol):
    """What the PLC said."""

    bits: list[bool]
    """Coils or discrete inputs, filled up to whole bytes."""
    registers: list[int]
    exception_code: int
    """Where `isError()` is true: Modbus' number for what is wrong."""
    function_code: int

    def isError(self) -> bool: ...  # noqa: N802 (pymodbus' own name)


class NoModbus(Exception):
    """What came is no Modbus; why, as text."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message as it came."""

    number: int
    unit: int
    message: bytes
    """The function's code and what follows."""
    size: int
    """Bytes of all of it."""


def first_frame(data: bytes) -> Frame | None:
    """The frame that `data` begins with; None while it is not whole. Raises NoModbus as soon as that can be told."""
    if any(data[2:4]):
        raise NoModbus(f"its frame is of protocol {int.from_bytes(data[2:4], 'big')}, expected 0")
    if len(data) < 6:
        return None
    length = int.from_bytes(data[4:6], "big")
    if not 2 <= length <= _LONGEST:
        raise NoModbus(f"its frame is {length} bytes long, expected 2 to {_LONGEST}")
    if length == 2 and len(data) > _HEAD and data[_HEAD] & 0x80:
        length = 3  # some devices do not count the code of an error
    if len(data) < 6 + length:
        return None
    return Frame(int.from_bytes(data[:2], "big"), data[6], data[_HEAD : 6 + length], 6 + length)


class Frames:
    """Modbus TCP without a socket."""

    def __init__(self) -> None:
        """Raises ImportError without pymodbus."""
        from pymodbus.framer import FramerSocket
        from pymodbus.pdu import DecodePDU, bit_message, register_message

        logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)  # what it complains of is raised, once, and with the reason
        self._decoder: Any = DecodePDU(is_server=False)
        self._framer: Any = FramerSocket(self._decoder)
        self._readers: dict[str, Any] = {
            "coil": bit_message.ReadCoilsRequest, "discrete": bit_message.ReadDiscreteInputsRequest,
            "holding": register_message.ReadHoldingRegistersRequest, "input": register_message.ReadInputRegistersRequest,
        }  # fmt: skip
        self._write_bits: Any = bit_message.WriteMultipleCoilsRequest
        self._write_registers: Any = register_message.WriteMultipleRegistersRequest
        self._write_bit: Any = bit_message.WriteSingleCoilRequest
        self._write_register: Any = register_message.WriteSingleRegisterRequest

    def reading(self, area: str, start: int, count: int, unit: int) -> tuple[int, bytes]:
        """A request to read cells: the function's code, and the frame with the number 0 in its first two bytes."""
        return self._frame(self._readers[area](address=start, count=count, dev_id=unit))

    def writing(self, area: str, start: int, cells: Sequence[int], unit: int) -> tuple[int, bytes]:
        """A request to write coils or holding registers, as `reading` gives one."""
        if area == "coil":
            return self._frame(self._write_bits(address=start, bits=[bool(c) for c in cells], dev_id=unit))
        return self._frame(self._write_registers(address=start, registers=list(cells), dev_id=unit))

    def writing_one(self, area: str, at: int, cell: int, unit: int) -> tuple[int, bytes]:
        """A request to write one coil or register, by the function that writes no more; as `reading` gives one."""
        if area == "coil":
            return self._frame(self._write_bit(address=at, bits=[bool(cell)], dev_id=unit))
        return self._frame(self._write_register(address=at, registers=[cell], dev_id=unit))

    def answer(self, message: bytes) -> Answer:
        """What a frame's message says. Raises NoModbus."""
        answer: Answer | None = self._decoder.decode(message)
        if answer is None:
            raise NoModbus(f"its function {message[0]} is none, or its answer is not as long as it says")
        return answer

    def _frame(self, message: Any) -> tuple[int, bytes]:
        return message.function_code, self._framer.buildFrame(message)
