"""pymodbus' messages as bytes, and bytes as its messages: all that is known here of its insides.

Its client does the same behind its own socket, and takes a quarter to a half of a poll more for it. Why: deploy/decisions/0038.
"""

import logging
from collections.abc import Sequence
from typing import Any, Protocol

BITS = ("coil", "discrete")


class Answer(Protocol):
    """What the PLC said."""

    bits: list[bool]
    """Coils or discrete inputs, filled up to whole bytes."""
    registers: list[int]
    exception_code: int
    """Where `isError()` is true: Modbus' number for what is wrong."""
    function_code: int

    def isError(self) -> bool: ...  # noqa: N802 (pymodbus' own name)


class Frames:
    """Modbus TCP without a socket."""

    def __init__(self) -> None:
        """Raises ImportError without pymodbus."""
        from pymodbus.exceptions import ModbusException
        from pymodbus.framer import FramerSocket
        from pymodbus.pdu import DecodePDU, bit_message, register_message

        logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)  # what it complains of is raised, once, and with the reason
        self.misread: type[Exception] = ModbusException
        """Raised by `answer` for what is no Modbus."""
        self._framer: Any = FramerSocket(DecodePDU(is_server=False))
        self._readers: dict[str, Any] = {
            "coil": bit_message.ReadCoilsRequest, "discrete": bit_message.ReadDiscreteInputsRequest,
            "holding": register_message.ReadHoldingRegistersRequest, "input": register_message.ReadInputRegistersRequest,
        }  # fmt: skip
        self._write_bits: Any = bit_message.WriteMultipleCoilsRequest
        self._write_registers: Any = register_message.WriteMultipleRegistersRequest

    def reading(self, area: str, start: int, count: int, unit: int) -> tuple[int, bytes]:
        """The function's code, and the frame with the number 0 in its first two bytes."""
        return self._frame(self._readers[area](address=start, count=count, dev_id=unit))

    def writing(self, area: str, start: int, cells: Sequence[int], unit: int) -> tuple[int, bytes]:
        """The same, for coils and holding registers."""
        if area == "coil":
            return self._frame(self._write_bits(address=start, bits=[bool(c) for c in cells], dev_id=unit))
        return self._frame(self._write_registers(address=start, registers=list(cells), dev_id=unit))

    def answer(self, data: bytes, unit: int, number: int) -> tuple[int, Answer | None]:
        """The frame with this unit and number out of what has come, and how many bytes are done with; None: it is not whole yet. Others
        are passed over. Raises `misread`."""
        used, message = self._framer.handleFrame(data, unit, number)
        return used, message

    def _frame(self, message: Any) -> tuple[int, bytes]:
        return message.function_code, self._framer.buildFrame(message)
