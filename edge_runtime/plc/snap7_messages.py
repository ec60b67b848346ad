"""python-snap7's messages as bytes, and bytes as what they say: all that is known here of its insides.

Its client does the same behind a socket of its own, whose timeout of 5 s cannot be changed. Why: deploy/decisions/0038.
"""

import logging
from collections.abc import Sequence
from typing import Any

_PDU_BYTES = "pdu_length"


class Misread(Exception):
    """What was answered is no S7 message."""


class ErrorCode(Exception):
    """The PLC refuses the whole request."""

    def __init__(self, code: int, said: str) -> None:
        """`code`: error class and code of the message's head; `said`: snap7's words for it."""
        super().__init__(said)
        self.code = code


class Messages:
    """S7 without a socket. The number in bytes 4 and 5 of a request is snap7's own, and may be replaced."""

    def __init__(self) -> None:
        """Raises ImportError without python-snap7."""
        from snap7.datatypes import S7Area, S7WordLen
        from snap7.error import S7ProtocolError
        from snap7.s7protocol import S7Protocol

        logging.getLogger("snap7").setLevel(logging.CRITICAL)  # what it complains of is raised, once, and with the reason
        self._protocol, self._area, self._byte, self._error = S7Protocol(), S7Area, S7WordLen.BYTE, S7ProtocolError

    def setup(self, pdu_bytes: int) -> bytes:
        """How long may a message be: `pdu_bytes` at most."""
        return self._protocol.build_setup_communication_request(1, 1, pdu_bytes)

    def reading(self, items: Sequence[tuple[int, int, int, int]]) -> bytes:
        """Items: area, data block (0 elsewhere), first byte, count of bytes."""
        return self._protocol.build_multi_read_request(list(items))

    def writing(self, area: int, block: int, start: int, cells: bytes) -> bytes:
        """One item, from byte `start` on."""
        return self._protocol.build_write_request(self._area(area), block, start, self._byte, cells)

    def agreed(self, answer: bytes) -> int | None:
        """Bytes of the longest message that the PLC takes and gives; None where it says nothing of it. Raises ErrorCode, Misread."""
        parameters = self._parsed(answer)["parameters"]
        return int(parameters[_PDU_BYTES]) if parameters and _PDU_BYTES in parameters else None

    def data(self, answer: bytes) -> bytes:
        """What the items say, one after another as the PLC sent them; b"" for none. Raises ErrorCode, Misread."""
        return bytes(self._parsed(answer).get("raw_data", b""))

    def _parsed(self, answer: bytes) -> dict[str, Any]:
        try:
            return self._protocol.parse_response(answer)
        except self._error as e:
            if e.error_code is None:
                raise Misread(str(e)) from e
            raise ErrorCode(e.error_code, str(e)) from e
