"""A complete [trigger] for each protocol: what simulated PLC, example stations and the PLC programmer's files begin with."""

import json
from typing import Any

import msgspec

from edge_runtime.errors import ConfigError
from edge_runtime.plc.kinds import KINDS, kind_named
from edge_runtime.plc.settings import PlcConfig, PulseConfig


def default_trigger(kind: str, host: str = "127.0.0.1", port: int | None = None, *, pulse: PulseConfig | None = None) -> PlcConfig:
    """The [trigger] of a station whose PLC has the addresses of the example programs. `port`: None is the protocol's own.

    Every signal is mapped, except those that mean nothing: `encoder` without `pulse`, `acknowledge` with it.
    """
    settings, _, manual, _ = kind_named(kind)
    unused = "acknowledge" if pulse is not None else "encoder"
    inputs = {name: tag for name, tag in manual.inputs.items() if name != unused}
    reached = manual.reached_at(host, port or manual.tcp_port)
    return msgspec.convert({"kind": kind, **reached, "inputs": inputs, "outputs": dict(manual.outputs), "pulse": pulse}, type=settings)


def trigger_to_play(kind: str, host: str, port: int | None) -> PlcConfig:
    """What `lineside sim plc` plays without a station file; `port`: None is one that needs no root. Raises ConfigError."""
    if kind not in KINDS:
        raise ConfigError(f'--protocol: expected one of {", ".join(KINDS)}, found "{kind}"')
    usual = kind_named(kind).manual.tcp_port
    return default_trigger(kind, host, port or usual + (1000 if usual < 1024 else 0))


def trigger_toml(settings: PlcConfig) -> str:
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
