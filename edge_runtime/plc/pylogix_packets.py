"""pylogix with its packets in our hands: all that is known here of its insides.

Its own receiving waits for each piece anew, for ever for those that a closed connection will not bring, and takes the answer to any
request for the last one's; and it takes half of a poll to decode what it has decoded before. Why: deploy/decisions/0038.
"""

import contextlib
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edge_runtime.dial import addresses_of
from edge_runtime.plc.deadline import Deadline
from edge_runtime.plc.link import hang_up, tune

_HEAD = 24
_CONNECTED = b"\x70\x00"
"""The command of a packet that belongs to a connection: each has a number, one more than the last, which the answer repeats."""
_CIP_AT = 46
"""Where the controller's answer begins in a packet of a connection: behind the head of 24 bytes, two items and the number."""
_PACKET, _WRITE, _TEXT = 10, 32, 82
"""What pylogix reckons for a packet of writes, for each tag in it beside its name, and for a text's characters; at most."""
SMALL = 504
"""Bytes of a packet where the controller takes no larger ones, or is not asked yet."""
MISREAD = (OSError, struct.error, UnicodeError, IndexError, KeyError, TypeError)
"""What pylogix makes of an answer that is cut short."""


class Answer(Protocol):
    """What the controller said of one tag."""

    Status: str
    """"Success", or what is wrong, in pylogix' words."""
    Value: Any


@dataclass(frozen=True, slots=True)
class _Read:
    """What pylogix asked for some tags, the controller's part of what came, and what pylogix made of it."""

    packets: Sequence[tuple[bytes, bytes]]
    answers: Sequence[Answer]


class Controller:
    """One connection to one controller. What each call asks, in however many packets, is answered within one time, and each packet answers
    the last question."""

    def __init__(self, host: str, port: int, slot: int, timeout_s: float) -> None:
        """Touches no network. Raises ImportError without pylogix."""
        from pylogix import PLC

        self._host, self._timeout_s = host, timeout_s
        self._plc: Any = PLC(host, slot=slot, port=port, timeout=timeout_s)
        self._plc.StringEncoding = "latin-1"
        conn = self._plc.conn
        conn.msg_socket.close()  # of a feature that is not used here; nothing else would close it
        self._send, conn.send = conn.send, self._exchange
        conn.receive_data = self._receive
        self._deadline = Deadline(timeout_s)
        self._number: int | None = None
        self._heard: list[tuple[bytes, Any]] = []
        self._ahead: list[tuple[bytes, Any]] = []
        self._reads: dict[tuple[str, ...], _Read] = {}
        self.late = False
        """The time was over before an answer was there."""
        self.why = ""
        """What was wrong with the last packet, where that is known."""

    @property
    def connected(self) -> bool:
        """False from the first packet on that did not come as it should."""
        return bool(self._plc.conn.SocketConnected)

    @property
    def size(self) -> int:
        """Bytes of the longest packet."""
        return int(self._plc.ConnectionSize)

    def open(self) -> tuple[bool, object]:
        """Connect, and open a class 3 connection; else what is wrong: an OSError, or pylogix' words. Raises OSError, struct.error."""
        self._deadline = Deadline(2 * self._timeout_s)  # an old controller refuses a large connection before it takes a small one
        try:
            self._plc.IPAddress = addresses_of(self._host, self._timeout_s)[0]
        except OSError as e:
            return False, e
        opened, why = self._plc.conn.connect()
        if opened:
            tune(self._plc.conn.Socket, self._timeout_s)
        return opened, why

    def read(self, addresses: Sequence[str], within_s: float | None = None) -> Sequence[Answer]:
        """An answer a tag, all within the timeout or `within_s`; the very sequence of the last time where the controller said the same as
        then, byte for byte, as it does to most polls. Fewer answers where `connected` is False then. Raises MISREAD."""
        self._deadline = Deadline(self._timeout_s if within_s is None else within_s)
        key = tuple(addresses)
        known = self._reads.get(key)
        self._ahead = []
        if known is not None:
            self._ahead = self._again(known)
            if not self.connected:
                return []
            if all(answer[_CIP_AT:] == kept for (_, (_, answer)), (_, kept) in zip(self._ahead, known.packets, strict=True)):
                return known.answers
        self._heard = []
        answers: Sequence[Answer] = self._plc.Read(list(key))
        if self.connected:
            self._reads[key] = _Read([(request, answer[_CIP_AT:]) for request, (_, answer) in self._heard], answers)
        return answers

    def write(self, pairs: Sequence[tuple[str, Any]], deadline: Deadline) -> Sequence[Answer]:
        """An answer a tag, in one packet where `fits` says so. Raises MISREAD."""
        self._deadline = deadline
        self._ahead = []
        answers: Sequence[Answer] = self._plc.Write(list(pairs))
        return answers

    def fits(self, names: Sequence[tuple[str, bool]]) -> bool:
        """True when one packet writes these (address, whether it is a text): where not all fit, pylogix leaves some out and writes later
        ones first."""
        return _PACKET + sum(_WRITE + len(address) + (_TEXT if text else 0) for address, text in names) <= self.size

    def type_of(self, address: str) -> tuple[int, str]:
        """CIP's code for the type of a tag that was read, and its name."""
        base = re.sub(r"\[[\d,]+\]$", "", re.sub(r"\.\d+$", "", address))  # pylogix remembers it without its bit and its last index
        code: int = self._plc.KnownTags[base][0]
        return code, self._plc.CIPTypes.get(code, (0, f"type 0x{code:02X}"))[1]

    def close(self) -> None:
        """Say goodbye, which the controller may not hear any more."""
        self._deadline = Deadline(self._timeout_s)
        with contextlib.suppress(OSError, struct.error, TypeError):
            self._plc.Close()
        self.drop()

    def drop(self) -> None:
        """Cut the connection, so that a late answer is never taken for another's."""
        hang_up(self._plc.conn.Socket)

    def _again(self, known: _Read) -> list[tuple[bytes, Any]]:
        """The packets of that read, sent again, and what `send` returned for each."""
        packets = []
        for request, _ in known.packets:
            packets.append((request, self._send(request)))
            if not self.connected:
                break
        return packets

    def _exchange(self, request: bytes, connected: bool = True, slot: int | None = None) -> Any:
        """In place of pylogix' own `send`: the answer that is here already, or the controller's."""
        if self._ahead and self._ahead[0][0] == request:
            answer = self._ahead.pop(0)[1]
        else:
            self._ahead = []
            answer = self._send(request, connected, slot)
        self._heard.append((request, answer))
        return answer

    def _receive(self) -> bytes | None:
        """In place of pylogix' own `receive_data`: one packet, whole within the deadline, or None."""
        sock, data = self._plc.conn.Socket, b""
        try:
            while len(data) < _HEAD or len(data) < _HEAD + int.from_bytes(data[2:4], "little"):
                data += self._deadline.receive(sock)
        except TimeoutError:
            self.late = True
            return None
        except OSError:
            return None
        if len(data) != _HEAD + int.from_bytes(data[2:4], "little"):
            self.why = "answered with something that is not EtherNet/IP"
            return None
        if data[:2] == _CONNECTED:
            number = int.from_bytes(data[_CIP_AT - 2 : _CIP_AT], "little")
            if self._number is not None and number != (self._number + 1) % 65_536:
                self.why = "answered another request"
                return None
            self._number = number
        return data
