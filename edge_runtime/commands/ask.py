"""Asks a running station, over its control socket, to change what judges: `lineside deploy`, `rollback`, `tune` and so on."""

from pathlib import Path
from typing import Any

from edge_runtime.config.files import load_station
from edge_runtime.control import ControlClient
from edge_runtime.credentials import read_key_file
from edge_runtime.errors import ConfigError

_MOST_S = 600.0
"""A large model on a slow disk; a station that does not answer at all is said to after `ControlClient`'s own time."""


def ask(station: Path, verb: str, arguments: dict[str, Any], *, who: str, why: str, key: Path | None) -> str:
    """The station's sentence of what it has done.

    Raises ConfigError where the station file names no control socket, Refused with the station's own sentence where nothing was changed,
    WireError where none answers.
    """
    control = load_station(station).control
    if control is None:
        raise ConfigError(f"{station}: expected a [control] to ask the station at, found none; write it, and restart the station once")
    with ControlClient(control.endpoint, read_key_file(key) if key is not None else None) as client:
        client.ask("status")
        return str(client.ask(verb, {k: v for k, v in arguments.items() if v}, why=why, person=who, timeout_s=_MOST_S)["done"])
