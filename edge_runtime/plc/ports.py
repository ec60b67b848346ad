"""Which protocol a station file means: its tag port, by the trigger's `kind`."""

from collections.abc import Callable, Sequence
from typing import Any

from edge_runtime.config import files as c
from edge_runtime.plc.ethernetip import EthernetipPort
from edge_runtime.plc.modbus import ModbusPort
from edge_runtime.plc.opcua import OpcuaPort
from edge_runtime.plc.port import TagPort
from edge_runtime.plc.s7 import S7Port
from edge_runtime.plc.tags import Tag

_KINDS: dict[type, Callable[[Any, Sequence[Tag]], TagPort]] = {
    c.ModbusTriggerConfig: ModbusPort,
    c.OpcuaTriggerConfig: OpcuaPort,
    c.S7TriggerConfig: S7Port,
    c.EthernetipTriggerConfig: EthernetipPort,
}


def open_port(settings: c.PlcTrigger, tags: Sequence[Tag]) -> TagPort:
    """The port of the trigger's protocol, not connected yet. Raises ConfigError for an address that it does not have, MissingExtra."""
    return _KINDS[type(settings)](settings, tags)
