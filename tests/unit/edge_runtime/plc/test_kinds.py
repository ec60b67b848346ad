"""The table of PLC protocols: each row stands under its own name, and brings nobody else's package."""

import subprocess
import sys

import pytest

from edge_runtime.plc.defaults import default_trigger
from edge_runtime.plc.kinds import KINDS, kind_of
from edge_runtime.plc.signals import INPUTS, OUTPUTS

PACKAGES = {"modbus": "pymodbus", "opcua": "asyncua", "s7": "snap7", "ethernetip": "pylogix"}


@pytest.mark.parametrize("name", KINDS)
def test_a_row_is_complete_and_found_by_its_settings(name: str) -> None:
    row = KINDS[name]
    assert row.settings.__struct_config__.tag == name
    assert set(row.manual.inputs) == set(INPUTS) and set(row.manual.outputs) == set(OUTPUTS)
    signals = {**INPUTS, **OUTPUTS}.values()
    assert {s.type for s in signals} | {"text"} <= set(row.manual.types)
    assert kind_of(default_trigger(name)) is row
    assert 0 < row.settings.text_length <= 200


@pytest.mark.parametrize("name", PACKAGES)
def test_a_station_imports_the_package_of_its_own_plc_alone(name: str) -> None:
    code = f"""
import sys
from edge_runtime.config.files import load_station
from edge_runtime.plc.defaults import default_trigger
from edge_runtime.triggers import open_trigger
before = {{m for m in {tuple(PACKAGES.values())} if m in sys.modules}}
open_trigger(default_trigger("{name}"), 1)
print(*sorted(before), "|", *sorted(m for m in {tuple(PACKAGES.values())} if m in sys.modules))
print(*sorted(m for m in sys.modules if m.startswith("edge_runtime.sim")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == f"| {PACKAGES[name]}\n\n"
