"""ISO transport on TCP (RFC 1006, ISO 8073 class 0), as far as an S7 PLC needs it: connecting, and messages in frames of their own."""

import socket

from edge_runtime.plc.deadline import Deadline

_DATA = b"\x02\xf0\x80"
"""Between a frame's length and the message: it carries data, and all of them."""
_CONFIRM, _DISCONNECT = 0xD0, 0x80
_OUR_TSAP, _SIZE = 0x0100, 0x0A
"""The station's own name, and two to the power of its largest packet."""


class NoFrame(Exception):
    """What came is none."""


class ConnectionRefusedByPlc(Exception):
    """The PLC's transport layer does not take the connection."""


def connect(sock: socket.socket, tsap: int, deadline: Deadline) -> None:
    """To the part of the PLC that `tsap` names. Raises ConnectionRefusedByPlc, NoFrame, TimeoutError, OSError."""
    parameters = b"\xc0\x01" + bytes([_SIZE]) + b"\xc1\x02" + _OUR_TSAP.to_bytes(2, "big") + b"\xc2\x02" + tsap.to_bytes(2, "big")
    fixed = b"\xe0\x00\x00\x00\x01\x00"
    deadline.send(sock, _framed(bytes([len(fixed) + len(parameters)]) + fixed + parameters))
    answer = _receive(sock, deadline)
    if len(answer) < 2 or answer[1] & 0xF0 != _CONFIRM:
        if len(answer) > 1 and answer[1] & 0xF0 == _DISCONNECT:
            raise ConnectionRefusedByPlc
        raise NoFrame


def exchange(sock: socket.socket, message: bytes, deadline: Deadline) -> bytes:
    """Send a message, and the next one that comes. Raises NoFrame, TimeoutError, OSError."""
    deadline.send(sock, _framed(_DATA + message))
    answer = _receive(sock, deadline)
    if answer[:3] != _DATA:
        raise NoFrame
    return answer[3:]


def _framed(packet: bytes) -> bytes:
    return b"\x03\x00" + (4 + len(packet)).to_bytes(2, "big") + packet


def _receive(sock: socket.socket, deadline: Deadline) -> bytes:
    data = b""
    while len(data) < 4 or len(data) < int.from_bytes(data[2:4], "big"):
        data += deadline.receive(sock)
        if data[0] != 3:
            raise NoFrame
    if len(data) != int.from_bytes(data[2:4], "big"):
        raise NoFrame  # of two frames one would be the answer to another request
    return data[4:]
