"""The tag maps: the default one fits its protocol, and what is printed is what stands in the files for the PLC programmer."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edge_runtime.commands.plc_map import FAULTS, as_csv, as_markdown
from edge_runtime.config.files import PulseConfig, TagConfig, load_station
from edge_runtime.plc.defaults import default_trigger, trigger_toml
from edge_runtime.plc.kinds import KINDS, open_port
from edge_runtime.plc.line import PlcLine
from edge_runtime.plc.opcua_settings import OpcuaTriggerConfig
from edge_runtime.plc.signals import INPUTS, OUTPUTS, StationFault, tags_of
from edge_runtime.records import Cause

DEPLOY = Path(__file__).resolve().parents[4] / "deploy"
EXAMPLES = {"modbus": "line", "opcua": "line_opcua", "s7": "line_s7", "ethernetip": "line_ethernetip"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pulse", [None, PulseConfig(encoder_counts=10)])
def test_a_default_map_has_every_signal_and_fits_its_protocol(kind: str, pulse: PulseConfig | None) -> None:
    settings = default_trigger(kind, pulse=pulse)
    inputs, outputs = tags_of(settings)
    open_port(settings, [*inputs, *outputs])
    PlcLine(settings, 1)
    assert {t.name for t in outputs} == set(OUTPUTS)
    assert {t.name for t in inputs} == set(INPUTS) - {"encoder" if pulse is None else "acknowledge"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_trigger_is_written_as_a_station_file_reads_it(kind: str, tmp_path: Path) -> None:
    settings = default_trigger(kind, "192.168.7.7", 1234, pulse=PulseConfig(delay_ms=3.5))
    file = tmp_path / "station.toml"
    file.write_text(f'name = "s"\nrecipe = "r.toml"\n[source]\nkind = "synthetic"\n{trigger_toml(settings)}')
    assert load_station(file).trigger == settings


@pytest.mark.parametrize("kind", EXAMPLES)
def test_the_example_stations_have_the_default_maps(kind: str) -> None:
    assert load_station(DEPLOY / "examples" / f"{EXAMPLES[kind]}.toml").trigger == default_trigger(kind, "192.168.0.10")


@pytest.mark.parametrize(("kind", "file"), [("s7", "siemens_tags.csv"), ("ethernetip", "rockwell_tags.csv")])
def test_the_tag_files_are_what_the_command_prints(kind: str, file: str, lineside: Callable[..., str]) -> None:
    said = lineside("plc", "--map", "--csv", DEPLOY / "examples" / f"{EXAMPLES[kind]}.toml")
    assert (DEPLOY / "plc" / file).read_text() == said


def test_a_map_tells_byte_order_type_and_scale_where_they_mean_something() -> None:
    settings = default_trigger("modbus")
    part = TagConfig(address="holding:0", type="text", length=6, order="BADC")
    back = TagConfig(address="holding:30", type="text", length=6, order="CDAB")
    settings = type(settings)(
        inputs=type(settings.inputs)(trigger="coil:0", part_id=part, recipe=TagConfig(address="holding:10", type="uint32")),
        outputs=msgspec.structs.replace(settings.outputs, result_part_id=back), host="10.0.0.1", order="CDAB",
    )  # fmt: skip
    table = {row["signal"]: row for row in csv.DictReader(io.StringIO(as_csv(settings)))}
    assert (table["part_id"]["type"], table["part_id"]["byte order"]) == ("text of 6", "BA")
    assert (table["recipe"]["type"], table["recipe"]["byte order"]) == ("uint32", "CDAB")
    assert (table["severity"]["byte order"], table["severity"]["scale"]) == ("AB", "100")
    assert (table["ready"]["byte order"], table["ready"]["scale"], table["ready"]["direction"]) == ("", "", "station -> PLC")
    assert "acknowledge" not in table, "what is not mapped is not in the map"


def test_a_map_that_the_station_would_refuse_is_not_printed(tmp_path: Path, lineside: Callable[..., str]) -> None:
    file = tmp_path / "station.toml"
    text = (DEPLOY / "examples" / "line.toml").read_text()
    assert text.count('"holding:18"') == 1, "the example's result_count"
    for wrong in ("holding:16", "holding:-1", "coil:40"):
        file.write_text(text.replace('"holding:18"', f'"{wrong}"'))
        with pytest.raises(AssertionError, match="78"):
            lineside("plc", "--map", file)


def test_every_fault_code_is_explained_to_the_plc_programmer() -> None:
    assert set(FAULTS) == {*Cause, *StationFault}
    said = as_markdown(default_trigger("opcua"))
    assert all(f"| {int(code)} " in said for code in FAULTS)
    assert len({len(line) for line in said.split("\n\n")[0].splitlines()}) == 1, "columns are aligned"
    assert isinstance(default_trigger("opcua"), OpcuaTriggerConfig)


@pytest.fixture
def lineside(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    from edge_runtime.cli import app
    from edge_runtime.console import run_app

    def run(*arguments: str | Path) -> str:
        with pytest.raises(SystemExit) as e:
            run_app(app, [str(a) for a in arguments])
        assert not e.value.code
        return capfd.readouterr().out

    return run
