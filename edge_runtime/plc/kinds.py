"""Which PLC protocols there are: the one table that station files, commands, examples and the simulated PLC look into."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from edge_runtime.plc import ethernetip, modbus, opcua, s7
from edge_runtime.plc.opcua_settings import OpcuaTriggerConfig
from edge_runtime.plc.port import Manual, TagPort
from edge_runtime.plc.settings import PlcConfig
from edge_runtime.plc.tags import Tag


class Kind(NamedTuple):
    """One row of the table below."""

    settings: type[PlcConfig]
    """[trigger] of a station file; its tag is the row's name."""
    port: Callable[[Any, Sequence[Tag]], TagPort]
    """Built as port(settings, tags). Its package is imported then and not before: no station waits for another one's."""
    manual: Manual
    server: str | None = None
    """The simulated PLC, a TagServer built as server(settings, tags): "module:class", as nothing here may see `edge_runtime.sim`."""


KINDS: Mapping[str, Kind] = {
    "modbus": Kind(modbus.ModbusTriggerConfig, modbus.ModbusPort, modbus.MANUAL, "edge_runtime.sim.modbus_server:ModbusServer"),
    "opcua": Kind(OpcuaTriggerConfig, opcua.OpcuaPort, opcua.MANUAL, "edge_runtime.sim.opcua_server:OpcuaServer"),
    "s7": Kind(s7.S7TriggerConfig, s7.S7Port, s7.MANUAL, "edge_runtime.sim.s7_server:S7Server"),
    "ethernetip": Kind(
        ethernetip.EthernetipTriggerConfig, ethernetip.EthernetipPort, ethernetip.MANUAL,
        "edge_runtime.sim.ethernetip_server:EthernetipServer",
    ),
}  # fmt: skip


def kind_of(settings: PlcConfig) -> Kind:
    """The row that these settings are of."""
    return KINDS[str(settings.__struct_config__.tag)]


def open_port(settings: PlcConfig, tags: Sequence[Tag]) -> TagPort:
    """The port of the trigger's protocol, not connected yet. Raises ConfigError for an address that it does not have, MissingExtra."""
    return kind_of(settings).port(settings, tags)
