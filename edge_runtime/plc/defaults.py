"""A complete tag map for each protocol: what simulated PLC, example stations and the PLC programmer's files begin with."""

import json
from typing import Any, Literal

import msgspec

from edge_runtime.config import files as c
from edge_runtime.errors import ConfigError
from edge_runtime.plc.signals import INPUTS, OUTPUTS

Kind = Literal["modbus", "opcua", "s7", "ethernetip"]

_MODBUS = (
    {
        "trigger": "coil:0", "acknowledge": "coil:1", "reset_fault": "coil:2", "enable": "coil:3",
        "part_id": "holding:0", "recipe": "holding:2", "encoder": "holding:4",
    },
    {
        "result_part_id": "holding:16", "result_count": "holding:18", "severity": "holding:19", "fault_code": "holding:20",
        "accept": "coil:16", "reject": "coil:17", "fault": "coil:18", "trigger_acknowledge": "coil:19", "busy": "coil:20",
        "ready": "coil:21", "overrun": "coil:22", "heartbeat": "coil:23", "result_valid": "coil:24",
    },
)  # fmt: skip
_S7 = (
    {
        "trigger": "DB10.DBX0.0", "acknowledge": "DB10.DBX0.1", "reset_fault": "DB10.DBX0.2", "enable": "DB10.DBX0.3",
        "part_id": "DB10.DBD2", "recipe": "DB10.DBW6", "encoder": "DB10.DBD8",
    },
    {
        "result_part_id": "DB11.DBD0", "result_count": "DB11.DBW4", "severity": "DB11.DBW6", "fault_code": "DB11.DBW8",
        "accept": "DB11.DBX10.0", "reject": "DB11.DBX10.1", "fault": "DB11.DBX10.2", "trigger_acknowledge": "DB11.DBX10.3",
        "busy": "DB11.DBX10.4", "ready": "DB11.DBX10.5", "overrun": "DB11.DBX10.6", "heartbeat": "DB11.DBX10.7",
        "result_valid": "DB11.DBX11.0",
    },
)  # fmt: skip
_PORTS = {"modbus": 502, "opcua": 4840, "s7": 102, "ethernetip": 44818}
KINDS: tuple[Kind, ...] = ("modbus", "opcua", "s7", "ethernetip")


def default_trigger(kind: Kind, host: str = "127.0.0.1", port: int | None = None, *, pulse: c.PulseConfig | None = None) -> c.PlcTrigger:
    """The [trigger] of a station whose PLC has the addresses of the example programs. `port`: None is the protocol's own.

    Every signal is mapped, except those that mean nothing: `encoder` without `pulse`, `acknowledge` with it.
    """
    inputs, outputs = _map(kind)
    inputs.pop("acknowledge" if pulse is not None else "encoder")
    port = port or _PORTS[kind]
    trigger: c.PlcTrigger = msgspec.convert(
        {"kind": kind, **({"endpoint": f"opc.tcp://{host}:{port}"} if kind == "opcua" else {"host": host, "port": port}),
         "inputs": inputs, "outputs": outputs, "pulse": pulse},
        type=c.PlcTrigger,
    )  # fmt: skip
    return trigger


def trigger_to_play(kind: str, host: str, port: int | None) -> c.PlcTrigger:
    """What `lineside sim plc` plays without a station file; `port`: None is one that needs no root. Raises ConfigError."""
    known = next((k for k in KINDS if k == kind), None)
    if known is None:
        raise ConfigError(f'--protocol: expected one of {", ".join(KINDS)}, found "{kind}"')
    return default_trigger(known, host, port or _PORTS[known] + (1000 if _PORTS[known] < 1024 else 0))


def _map(kind: Kind) -> tuple[dict[str, c.PlcTag], dict[str, c.PlcTag]]:
    if kind == "modbus":
        return dict(_MODBUS[0]), dict(_MODBUS[1])
    if kind == "s7":
        return dict(_S7[0]), dict(_S7[1])
    named: tuple[dict[str, c.PlcTag], dict[str, c.PlcTag]] = ({}, {})
    for signals, table in zip((INPUTS, OUTPUTS), named, strict=True):
        for name, signal in signals.items():
            words = name.title().replace("_", "")
            if kind == "opcua":
                table[name] = f"ns=2;s=Lineside.{words}"
            else:
                # Most Logix controllers have no unsigned types.
                table[name] = f"LS_{words}" if signal.type == "bool" else c.TagConfig(address=f"LS_{words}", type="int32")
    return named


def trigger_toml(settings: c.PlcTrigger) -> str:
    """The [trigger] of a station file with the settings that differ from their defaults."""
    given = msgspec.to_builtins(settings)
    tables = {name: given.pop(name) for name in ("inputs", "outputs", "pulse")}
    usual = {f.name: f.default for f in msgspec.structs.fields(settings)}
    lines = ["[trigger]", *(f"{key} = {json.dumps(value)}" for key, value in given.items() if key == "kind" or value != usual[key])]
    for name, table in tables.items():
        entries = [f"{key} = {_inline(value)}" for key, value in (table or {}).items() if value is not None]
        lines += ["", f"[trigger.{name}]", *entries] if entries else []
    return "\n".join(lines) + "\n"


def _inline(value: Any) -> str:
    if not isinstance(value, dict):
        return json.dumps(value)
    kept = {key: v for key, v in value.items() if v is not None and not (key == "length" and value.get("type") != "text")}
    return "{ " + ", ".join(f"{key} = {json.dumps(v)}" for key, v in kept.items()) + " }"
