"""The PLC protocols that the contract suite runs over: their settings, their addresses of the suite's tags, their port and server."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edge_runtime.config import files as c
from edge_runtime.plc.port import TagPort, TagServer
from edge_runtime.plc.tags import Tag

_NO_INPUTS = c.PlcInputs(trigger="unused")  # ports and servers take their tags apart from the settings

TAGS = (
    Tag("trigger", "trigger.inputs.trigger", "", "bool", False),
    Tag("acknowledge", "trigger.inputs.acknowledge", "", "bool", False),
    Tag("enable", "trigger.inputs.enable", "", "bool", False),
    Tag("part_id", "trigger.inputs.part_id", "", "uint32", False),
    Tag("in_int16", "trigger.inputs.in_int16", "", "int16", False),
    Tag("in_uint16", "trigger.inputs.in_uint16", "", "uint16", False, scale=10.0),
    Tag("in_int32", "trigger.inputs.in_int32", "", "int32", False),
    Tag("in_float32", "trigger.inputs.in_float32", "", "float32", False),
    Tag("in_text", "trigger.inputs.in_text", "", "text", False, length=12),
    Tag("result_part_id", "trigger.outputs.result_part_id", "", "uint32", True),
    Tag("severity", "trigger.outputs.severity", "", "uint16", True, scale=100.0),
    Tag("out_int16", "trigger.outputs.out_int16", "", "int16", True),
    Tag("out_int32", "trigger.outputs.out_int32", "", "int32", True),
    Tag("out_float32", "trigger.outputs.out_float32", "", "float32", True),
    Tag("out_text", "trigger.outputs.out_text", "", "text", True, length=12),
    Tag("accept", "trigger.outputs.accept", "", "bool", True),
    Tag("reject", "trigger.outputs.reject", "", "bool", True),
    Tag("ready", "trigger.outputs.ready", "", "bool", True),
    Tag("heartbeat", "trigger.outputs.heartbeat", "", "bool", True),
    Tag("result_valid", "trigger.outputs.result_valid", "", "bool", True),
)
"""All types both ways; the addresses are the protocol's."""


@dataclass(frozen=True)
class Plc:
    """One protocol on one TCP port of this machine."""

    settings: Any
    new_port: Callable[[Any, Sequence[Tag]], TagPort]
    new_server: Callable[[Any, Sequence[Tag]], TagServer]
    addresses: dict[str, str]
    missing: str
    """A writable bool's address that a server of these tags does not have."""

    def tags(self, **changes: Any) -> list[Tag]:
        return [replace(tag, address=self.addresses[tag.name], **changes) for tag in TAGS]

    def port(self, tags: Sequence[Tag] | None = None) -> TagPort:
        return self.new_port(self.settings, self.tags() if tags is None else tags)

    def server(self, tags: Sequence[Tag] | None = None) -> TagServer:
        return self.new_server(self.settings, self.tags() if tags is None else tags)


def modbus(port: int, timeout_ms: float = 1000.0) -> Plc:
    from edge_runtime.plc.modbus import ModbusPort
    from edge_runtime.sim.modbus_server import ModbusServer

    addresses = {
        "trigger": "coil:0", "acknowledge": "discrete:1", "enable": "holding:40.9", "part_id": "holding:0", "in_int16": "holding:2",
        "in_uint16": "input:3", "in_int32": "input:8", "in_float32": "holding:10", "in_text": "holding:20", "result_part_id": "holding:100",
        "severity": "holding:102", "out_int16": "holding:103", "out_int32": "holding:104", "out_float32": "holding:120",
        "out_text": "holding:130", "accept": "coil:100", "reject": "coil:101", "ready": "holding:50.0", "heartbeat": "holding:50.15",
        "result_valid": "coil:102",
    }  # fmt: skip
    settings = c.ModbusTriggerConfig(port=port, timeout_ms=timeout_ms, inputs=_NO_INPUTS)
    return Plc(settings, ModbusPort, ModbusServer, addresses, "coil:4000")


def s7(port: int, timeout_ms: float = 1000.0) -> Plc:
    from edge_runtime.plc.s7 import S7Port
    from edge_runtime.sim.s7_server import S7Server

    addresses = {
        "trigger": "DB10.DBX0.0", "acknowledge": "M3.7", "enable": "I0.1", "part_id": "DB10.DBD2", "in_int16": "DB10.DBW6",
        "in_uint16": "EW4", "in_int32": "MD8", "in_float32": "DB10.DBD12", "in_text": "DB10.DBB16", "result_part_id": "DB11.DBD0",
        "severity": "DB11.DBW4", "out_int16": "DB11.DBW6", "out_int32": "MD20", "out_float32": "DB11.DBD8", "out_text": "DB11.DBB20",
        "accept": "DB11.DBX12.0", "reject": "DB11.DBX12.1", "ready": "Q0.0", "heartbeat": "A0.7", "result_valid": "DB11.DBX12.7",
    }  # fmt: skip
    settings = c.S7TriggerConfig(host="127.0.0.1", port=port, timeout_ms=timeout_ms, inputs=_NO_INPUTS)
    return Plc(settings, S7Port, S7Server, addresses, "DB99.DBX0.0")


def opcua(port: int, timeout_ms: float = 1000.0) -> Plc:
    from edge_runtime.plc.opcua import OpcuaPort
    from edge_runtime.sim.opcua_server import OpcuaServer

    names = [
        "trigger", "acknowledge", "enable", "part_id", "in_int16", "in_uint16", "in_int32", "in_float32", "in_text", "result_part_id",
        "severity", "out_int16", "out_int32", "out_float32", "out_text", "accept", "reject", "ready", "heartbeat", "result_valid",
    ]  # fmt: skip
    addresses = {name: f"ns=2;s=Station.{name}" for name in names} | {"trigger": "ns=3;i=17", "accept": "ns=3;i=4000000000"}
    settings = c.OpcuaTriggerConfig(endpoint=f"opc.tcp://127.0.0.1:{port}", timeout_ms=timeout_ms, inputs=_NO_INPUTS)
    return Plc(settings, OpcuaPort, OpcuaServer, addresses, "ns=2;s=Station.Missing")


def ethernetip(port: int, timeout_ms: float = 1000.0) -> Plc:
    from edge_runtime.plc.ethernetip import EthernetipPort
    from edge_runtime.sim.ethernetip_server import EthernetipServer

    addresses = {
        "trigger": "Program:Main.Trigger", "acknowledge": "Vision.In.0", "enable": "Vision.In.31", "part_id": "Vision.PartId",
        "in_int16": "Words[3]", "in_uint16": "Words16", "in_int32": "Grid[1,2]", "in_float32": "Speed", "in_text": "Names[0].Text",
        "result_part_id": "Program:Main.Result.Id", "severity": "Severity", "out_int16": "OutInt", "out_int32": "OutDint",
        "out_float32": "OutReal", "out_text": "OutText", "accept": "Vision.Out.0", "reject": "Vision.Out.1", "ready": "Vision.Out.31",
        "heartbeat": "Heartbeat", "result_valid": "ResultValid",
    }  # fmt: skip
    settings = c.EthernetipTriggerConfig(host="127.0.0.1", port=port, timeout_ms=timeout_ms, inputs=_NO_INPUTS)
    return Plc(settings, EthernetipPort, EthernetipServer, addresses, "Missing")


KINDS = {"modbus": modbus, "s7": s7, "opcua": opcua, "ethernetip": ethernetip}
