"""Which PLC protocols there are: the one table that station files, commands, examples and the simulated PLC look into."""

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edge_runtime.plc.settings import PlcConfig

if TYPE_CHECKING:
    from edge_runtime.plc.port import Kind, TagPort
    from edge_runtime.plc.tags import Tag

KINDS: Mapping[str, str] = {
    "modbus": "edge_runtime.plc.modbus",
    "opcua": "edge_runtime.plc.opcua",
    "s7": "edge_runtime.plc.s7",
    "ethernetip": "edge_runtime.plc.ethernetip",
}
"""`kind` of a station file -> the module whose `KIND` it is. It is imported when a station file names it: no station waits for another
one's protocol."""


def kind_named(name: str) -> "Kind":
    """What the row's module says of its protocol. `name`: one of KINDS."""
    kind: Kind = importlib.import_module(KINDS[name]).KIND
    return kind


def kind_of(settings: PlcConfig) -> "Kind":
    """The protocol that these settings are of."""
    return kind_named(str(settings.__struct_config__.tag))


def open_port(settings: PlcConfig, tags: "Sequence[Tag]") -> "TagPort":
    """The port of the trigger's protocol, not connected yet. Raises ConfigError for an address that it does not have, MissingExtra."""
    return kind_of(settings).port(settings, tags)
