"""`lineside unit`: what a station's file says of its service's sandbox."""

from pathlib import Path

import msgspec

from edge_runtime.commands.unit import drop_in
from edge_runtime.config.files import PlcConfig, load_station


class SerialPlc(PlcConfig, frozen=True, kw_only=True):
    """As a plug-in's, whose PLC has neither host nor endpoint."""

    device: str


def test_a_plc_without_an_address_adds_none(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('name = "s"\nrecipe = "r.toml"\n[source]\nkind = "folder"\npath = "p"\n[trigger]\nkind = "timer"\n')
    plain = load_station(file)
    trigger = msgspec.convert({"device": "/dev/ttyS0", "inputs": {"trigger": "a"}}, SerialPlc)
    assert drop_in(msgspec.structs.replace(plain, trigger=trigger))[0] == drop_in(plain)[0]
