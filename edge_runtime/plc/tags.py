"""Named tags: what a PLC's address holds, and how a value becomes its bytes and back."""

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from edge_runtime.errors import printable
from edge_runtime.plc.settings import ByteOrder, TagType

Value = bool | int | float | str
"""What a tag holds, after scaling: a signal's own unit."""

_WHOLE = re.compile(r"-?\d+", re.ASCII)
_FORMATS = {"int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "float32": ">f"}
FLOAT_MAX = 3.4028234663852886e38
"""The largest number of a float32."""
RANGES = {"int16": (-(2**15), 2**15 - 1), "uint16": (0, 2**16 - 1), "int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1)}


@dataclass(frozen=True, slots=True)
class Tag:
    """One signal of the handshake at one address of the PLC."""

    name: str
    """The signal: "trigger", "result_valid" …"""
    key: str
    """Where it stands in the station file, for messages: "trigger.inputs.part_id"."""
    address: str
    """As the PLC's protocol writes it: "coil:0", "DB10.DBX0.0", "ns=2;s=Station.Trigger", "Line.Trigger"."""
    type: TagType
    writable: bool
    """True for outputs of the station: it writes them and nobody else does."""
    order: ByteOrder = "ABCD"
    scale: float = 1.0
    """The PLC holds the signal's value times this."""
    length: int = 0
    """Characters that the PLC keeps room for in a text; 0 for other types."""

    wraps: bool = False
    """A count that goes on from its type's other end."""

    def counts_in(self, low_high: tuple[int, int] | None) -> bool:
        """False where what the PLC holds (whole numbers from `low` to `high`; None: others) wraps round before this tag's type does."""
        if not self.wraps or self.writable:  # what is written is made to wrap round where the PLC does
            return True
        low, high = RANGES[self.type]
        return low_high is not None and low_high[1] - low_high[0] >= high - low

    @property
    def size(self) -> int:
        """Bytes in the PLC; 0 for a bool, which is one bit."""
        return {"bool": 0, "int16": 2, "uint16": 2, "text": self.length + self.length % 2}.get(self.type, 4)


def to_plc(tag: Tag, value: Value) -> Value:
    """A signal's value as the PLC holds it: scaled, rounded, and held at the ends of the type's range; a count wraps round."""
    if tag.type == "text":
        return str(value)[: tag.length]
    if tag.type == "bool":
        return bool(value)
    number = _number(value) * tag.scale
    if tag.type == "float32":
        return min(max(float(number), -FLOAT_MAX), FLOAT_MAX) if math.isfinite(number) else number
    return whole(tag, number, RANGES[tag.type])


def whole(tag: Tag, number: float, low_high: tuple[int, int]) -> int:
    """Rounded, and held at the ends of the range; a count goes on from the range's other end."""
    if not math.isfinite(number):
        return 0
    low, high = low_high
    if tag.wraps:
        return (round(number) - low) % (high - low + 1) + low
    return min(max(round(number), low), high)


def is_of_type(tag: Tag, raw: object) -> bool:
    """What a library made of the PLC's answer can be this tag's."""
    wanted: tuple[type, ...] = {"bool": (bool,), "text": (str,)}.get(tag.type, (int, float))
    return isinstance(raw, wanted) and (bool in wanted or not isinstance(raw, bool))


def from_plc(tag: Tag, raw: Value) -> Value:
    """The other way: what the PLC holds as the signal's value. Whole numbers stay whole where the scale is 1."""
    if tag.type == "text":
        return str(raw)[: tag.length].rstrip("\0 ")
    if tag.type == "bool":
        return bool(raw)
    number = _number(raw)
    return number / tag.scale if tag.scale != 1.0 else number


def to_bytes(tag: Tag, value: Value) -> bytes:
    """The `tag.size` bytes of a value, in the tag's byte order; not for bools."""
    raw = to_plc(tag, value)
    if tag.type == "text":
        return _reorder(str(raw).encode("ascii", "replace").ljust(tag.size, b"\0"), tag)
    return _reorder(struct.pack(_FORMATS[tag.type], raw), tag)


def from_bytes(tag: Tag, data: bytes) -> Value:
    """The value that `tag.size` bytes of the PLC hold; not for bools."""
    data = _reorder(data, tag)
    if tag.type == "text":
        return from_plc(tag, data[: tag.length].split(b"\0")[0].decode("ascii", "replace"))
    value: int | float = struct.unpack(_FORMATS[tag.type], data)[0]
    return from_plc(tag, value)


def _reorder(data: bytes, tag: Tag) -> bytes:
    """To and from big-endian: each of the four orders is its own inverse."""
    if tag.order in ("BADC", "DCBA"):
        data = b"".join(data[i + 1 : i + 2] + data[i : i + 1] for i in range(0, len(data), 2))
    if tag.order in ("CDAB", "DCBA") and tag.type != "text":
        data = b"".join(data[i : i + 2] for i in range(len(data) - 2, -1, -2))
    return data


def _number(value: Value) -> int | float:
    if isinstance(value, str):
        text = value.strip()
        return int(text) if _WHOLE.fullmatch(text) else 0
    return int(value) if isinstance(value, bool) else value


def named(values: Mapping[str, Value]) -> str:
    """For messages and traces, on one line: `trigger=1 part_id=17`."""
    return printable(" ".join(f"{name}={int(v) if isinstance(v, bool) else v}" for name, v in values.items()))
