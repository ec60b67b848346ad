"""What a node of an OPC UA server holds: which types fit a tag, and values to and from the node's own type."""

import math
from typing import Any

from asyncua import ua

from edge_runtime.errors import TagError
from edge_runtime.plc.tags import FLOAT_MAX, RANGES, Tag, Value, from_plc, is_of_type, to_plc, whole

_WHOLE = {
    "SByte": (-(2**7), 2**7 - 1), "Byte": (0, 2**8 - 1), "Int16": RANGES["int16"], "UInt16": RANGES["uint16"], "Int32": RANGES["int32"],
    "UInt32": RANGES["uint32"], "Int64": (-(2**63), 2**63 - 1), "UInt64": (0, 2**64 - 1),
}  # fmt: skip
_FITS = {"bool": ("Boolean",), "text": ("String",)}
_NUMBER = (*_WHOLE, "Float", "Double")

_WRITE_BIT = 2
"""CurrentWrite of an AccessLevel."""


def type_of(tag: Tag, where: str, value: Any, access: Any, data_type: Any) -> Any:
    """The node's VariantType. Raises TagError."""
    node = f'the node "{tag.address}" on the {where}'
    if value.StatusCode is not None and value.StatusCode.name in ("BadNodeIdUnknown", "BadNodeIdInvalid"):
        raise TagError(f"{tag.key}: expected {node}, found none ({value.StatusCode.name}); compare with the PLC's address space")
    if value.StatusCode is not None and value.StatusCode.name in ("BadNotReadable", "BadUserAccessDenied", "BadAttributeIdInvalid"):
        raise TagError(f"{tag.key}: expected a variable that can be read, found {node}, which says {value.StatusCode.name}")
    fits = _FITS.get(tag.type, _NUMBER)
    kind = value.Value.VariantType if value.Value is not None else ua.VariantType.Null
    if kind is ua.VariantType.Null and data_type.Value is not None and data_type.Value.Value is not None:
        declared = data_type.Value.Value  # nothing was written yet; the built-in types have their own numbers as node ids
        kind = ua.VariantType(declared.Identifier) if declared.NamespaceIndex == 0 and declared.Identifier in range(1, 26) else kind
    found = f"an array of {kind.name}" if value.Value is not None and value.Value.is_array else kind.name
    if found not in fits:
        expected = "a number" if fits is _NUMBER else fits[0]
        raise TagError(f'{tag.key}: expected {expected} for type "{tag.type}", found {found}, {node}')
    if not tag.counts_in(_WHOLE.get(found)):
        raise TagError(
            f'{tag.key}: expected a whole number of at least the range of "{tag.type}", in which it wraps round, found {found}, {node}'
        )
    if tag.writable and access.Value is not None and isinstance(access.Value.Value, int) and not access.Value.Value & _WRITE_BIT:
        raise TagError(f"{tag.key}: expected a node that this station may write, found {node}, which is read-only for it")
    return kind


class NoValue(Exception):
    """What the PLC says of a node that has none just now, as text."""


def from_node(tag: Tag, data: Any) -> Value:
    """The signal's value of a DataValue; a node that nobody has written holds nothing. Raises NoValue where the PLC says it is bad, or it
    is of another type than when the connection was made."""
    if data.StatusCode is not None and data.StatusCode.is_bad():
        raise NoValue(data.StatusCode.name)
    raw = data.Value.Value if data.Value is not None else None
    if raw is None:
        return "" if tag.type == "text" else from_plc(tag, 0)
    if not is_of_type(tag, raw):
        raise NoValue(f"is {type(raw).__name__}, expected {tag.type}")
    if isinstance(raw, float) and tag.type in RANGES:
        raw = round(raw) if math.isfinite(raw) else 0
    return from_plc(tag, raw)


def to_node(tag: Tag, kind: Any, value: Value) -> Any:
    """A DataValue of the node's own type, without status and timestamps: some PLCs refuse a write that sets them."""
    raw = to_plc(tag, value)
    if kind.name in _WHOLE and not isinstance(raw, bool | str):
        raw = whole(tag, raw, _WHOLE[kind.name])
    elif kind.name == "Float" and math.isfinite(float(raw)):
        raw = min(max(float(raw), -FLOAT_MAX), FLOAT_MAX)
    elif kind.name == "Double":
        raw = float(raw)
    return ua.DataValue(Value=ua.Variant(raw, kind), StatusCode=None)
