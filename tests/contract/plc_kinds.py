"""The PLC protocols that the contract suite runs over: every row of the table, with the addresses of the suite's tags."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec

from edge_runtime.plc import kinds
from edge_runtime.plc.defaults import default_trigger
from edge_runtime.plc.port import TagPort, TagServer
from edge_runtime.plc.settings import PlcConfig, PlcInputs
from edge_runtime.plc.tags import Tag
from edge_runtime.sim.plc import server_of

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


class Addresses(NamedTuple):
    """What the tags of the suite are called in one protocol."""

    of: Mapping[str, str]
    """Tag -> its address."""
    missing: str
    """A writable bool's address that a server of these tags does not have."""


ADDRESSES = {
    "modbus": Addresses(
        {
            "trigger": "coil:0", "acknowledge": "discrete:1", "enable": "holding:40.9", "part_id": "holding:0", "in_int16": "holding:2",
            "in_uint16": "input:3", "in_int32": "input:8", "in_float32": "holding:10", "in_text": "holding:20",
            "result_part_id": "holding:100", "severity": "holding:102", "out_int16": "holding:103", "out_int32": "holding:104",
            "out_float32": "holding:120", "out_text": "holding:130", "accept": "coil:100", "reject": "coil:101", "ready": "holding:50.0",
            "heartbeat": "holding:50.15", "result_valid": "coil:102",
        }, "coil:4000"
    ),
    "s7": Addresses(
        {
            "trigger": "DB10.DBX0.0", "acknowledge": "M3.7", "enable": "I0.1", "part_id": "DB10.DBD2", "in_int16": "DB10.DBW6",
            "in_uint16": "EW4", "in_int32": "MD8", "in_float32": "DB10.DBD12", "in_text": "DB10.DBB16", "result_part_id": "DB11.DBD0",
            "severity": "DB11.DBW4", "out_int16": "DB11.DBW6", "out_int32": "MD20", "out_float32": "DB11.DBD8", "out_text": "DB11.DBB20",
            "accept": "DB11.DBX12.0", "reject": "DB11.DBX12.1", "ready": "Q0.0", "heartbeat": "A0.7", "result_valid": "DB11.DBX12.7",
        }, "DB99.DBX0.0"
    ),
    "opcua": Addresses(
        {t.name: f"ns=2;s=Station.{t.name}" for t in TAGS} | {"trigger": "ns=3;i=17", "accept": "ns=3;i=4000000000"},
        "ns=2;s=Station.Missing",
    ),
    "ethernetip": Addresses(
        {
            "trigger": "Program:Main.Trigger", "acknowledge": "Vision.In.0", "enable": "Vision.In.31", "part_id": "Vision.PartId",
            "in_int16": "Words[3]", "in_uint16": "Words16", "in_int32": "Grid[1,2]", "in_float32": "Speed", "in_text": "Names[0].Text",
            "result_part_id": "Program:Main.Result.Id", "severity": "Severity", "out_int16": "OutInt", "out_int32": "OutDint",
            "out_float32": "OutReal", "out_text": "OutText", "accept": "Vision.Out.0", "reject": "Vision.Out.1", "ready": "Vision.Out.31",
            "heartbeat": "Heartbeat", "result_valid": "ResultValid",
        }, "Missing"
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Plc:
    """One protocol on one TCP port of this machine."""

    settings: PlcConfig
    addresses: Mapping[str, str]
    missing: str

    def tags(self, **changes: Any) -> list[Tag]:
        return [replace(tag, address=self.addresses[tag.name], **changes) for tag in TAGS]

    def port(self, tags: Sequence[Tag] | None = None) -> TagPort:
        return kinds.open_port(self.settings, self.tags() if tags is None else tags)

    def server(self, tags: Sequence[Tag] | None = None) -> TagServer:
        return server_of(self.settings, self.tags() if tags is None else tags)


def _on(kind: str) -> Callable[..., Plc]:
    def plc(port: int, timeout_ms: float = 1000.0) -> Plc:
        inputs = PlcInputs(trigger="unused")  # ports and servers take their tags apart from the settings
        settings = msgspec.structs.replace(default_trigger(kind, port=port), timeout_ms=timeout_ms, inputs=inputs)
        return Plc(settings, *ADDRESSES[kind])

    return plc


KINDS = {kind: _on(kind) for kind in kinds.KINDS}
