"""OPC UA and EtherNet/IP for the contract suite: see plc_kinds."""

from edge_runtime import config as c
from tests.contract.plc_kinds import Plc

_NO_INPUTS = c.PlcInputs(trigger="unused")


def opcua(port: int, timeout_ms: float = 1000.0) -> Plc:
    from edge_runtime.plc.opcua import OpcuaPort
    from edge_runtime.sim.opcua_server import OpcuaServer

    names = [
        "trigger", "acknowledge", "enable", "part_id", "in_int16", "in_uint16", "in_int32", "in_float32", "in_text", "result_part_id",
        "severity", "out_int16", "out_int32", "out_float32", "out_text", "accept", "reject", "ready", "heartbeat", "result_valid",
    ]  # fmt: skip
    addresses = {name: f"ns=2;s=Station.{name}" for name in names} | {"trigger": "ns=3;i=17", "accept": "ns=3;i=4000000000"}
    settings = c.OpcuaTrigger(endpoint=f"opc.tcp://127.0.0.1:{port}", timeout_ms=timeout_ms, inputs=_NO_INPUTS)
    return Plc(settings, OpcuaPort, OpcuaServer, addresses, "ns=2;s=Station.Missing", False)


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
    settings = c.EthernetipTrigger(host="127.0.0.1", port=port, timeout_ms=timeout_ms, inputs=_NO_INPUTS)
    return Plc(settings, EthernetipPort, EthernetipServer, addresses, "Missing", False)
