"""The table of PLC protocols: each row stands under its own name, and brings nobody else's package."""

import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime.config.files import load_station
from edge_runtime.plc.defaults import default_trigger, trigger_toml
from edge_runtime.plc.kinds import KINDS, kind_named, kind_of
from edge_runtime.plc.signals import INPUTS, OUTPUTS

PACKAGES = {"modbus": "pymodbus", "opcua": "asyncua", "s7": "snap7", "ethernetip": "pylogix"}


@pytest.mark.parametrize("name", KINDS)
def test_a_row_is_complete_and_found_by_its_settings(name: str) -> None:
    row = kind_named(name)
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


def _station(home: Path, trigger: str) -> Path:
    file = home / "station.toml"
    file.write_text(f'name = "a"\nrecipe = "recipe.toml"\n[source]\nkind = "folder"\npath = "parts"\n{trigger}')
    return file


@pytest.mark.parametrize("name", ["timer", *KINDS])
def test_a_station_loads_the_protocol_that_its_file_names_and_no_other(name: str, tmp_path: Path) -> None:
    file = _station(tmp_path, trigger_toml(default_trigger(name)) if name in KINDS else '[trigger]\nkind = "timer"\n')
    code = f"""
import sys
from pathlib import Path
import edge_runtime.station.launch
from edge_runtime.config.files import load_station
before = {{m for m in sys.modules if m.startswith("edge_runtime.plc.")}}
load_station(Path({str(file)!r}))
print(sorted(before), sorted({set(KINDS.values())} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    named = [KINDS[name]] if name in KINDS else []
    assert done.stdout == f"{['edge_runtime.plc.kinds', 'edge_runtime.plc.settings']} {named}\n"


def test_a_file_that_is_read_twice_says_the_same(tmp_path: Path) -> None:
    file = _station(tmp_path, trigger_toml(default_trigger("s7")))
    assert load_station(file) == load_station(file)
