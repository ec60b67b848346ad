"""The schema for editors takes what a station takes, refuses what one key alone makes wrong, and explains every key."""

import json
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from edge_runtime.cli import app
from edge_runtime.config import files
from edge_runtime.config.schema import meanings, schema_of
from edge_runtime.errors import ConfigError
from tests.support.packages import install

EXAMPLES = sorted((Path(__file__).resolve().parents[4] / "deploy" / "examples").glob("*.toml"))
STATION = 'name = "a"\nrecipe = "r.toml"\n[source]\nkind = "folder"\npath = "parts"\n[trigger]\nkind = "timer"\n'
TABLES = {k for k in vars(files).values() if isinstance(k, type) and issubclass(k, msgspec.Struct)} - {files.PluginSettings}
"""All but those of installed packages, whose authors explain them."""


@pytest.fixture(scope="module")
def printed() -> dict[str, dict[str, Any]]:
    """File's kind -> what `lineside schema` prints."""
    return {kind: json.loads(CliRunner().invoke(app, ["schema", kind]).stdout) for kind in ("station", "recipe")}


def test_what_is_printed_is_a_schema(printed: dict[str, dict[str, Any]]) -> None:
    for schema in printed.values():
        Draft202012Validator.check_schema(schema)
        assert "name" in schema["required"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.stem)
def test_an_example_names_the_schema_that_it_is_valid_by(example: Path, printed: dict[str, dict[str, Any]]) -> None:
    kind = "recipe" if example.stem == "recipe" else "station"
    text = example.read_text()
    assert text.startswith(f"#:schema {kind}.schema.json\n")
    Draft202012Validator(printed[kind]).validate(tomllib.loads(text))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (STATION + "[publischer]\n", []),
        (STATION.replace("path =", "pfad ="), ["source"]),
        (STATION.replace('"folder"', '"folders"'), ["source"]),
        (STATION.replace('kind = "timer"\n', ""), ["trigger"]),
        (STATION + "period_ms = 0\n", ["trigger"]),
        (STATION + "[journal]\nkeep_days = 0\n", ["journal", "keep_days"]),
        (STATION + '[publisher]\nendpoint = "tcp://127.0.0.1:70000"\n', ["publisher", "endpoint"]),
        (STATION + "[preview]\nlong_side_px = 960.5\n", ["preview", "long_side_px"]),
        ("queue = 65\n" + STATION, ["queue"]),
        ("device = 0\n" + STATION, ["device"]),
        ("trusted_keys = [1]\n" + STATION, ["trusted_keys", 0]),
        (STATION.replace('recipe = "r.toml"', "recipes.7 = 7"), ["recipes", "7"]),
        (STATION.replace('name = "a"\n', ""), []),
    ],
)
def test_what_a_station_refuses_is_marked_at_its_key(
    tmp_path: Path, printed: dict[str, dict[str, Any]], text: str, key: list[str | int]
) -> None:
    file = tmp_path / "station.toml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        files.load_station(file)
    (error,) = Draft202012Validator(printed["station"]).iter_errors(tomllib.loads(text))
    assert list(error.absolute_path) == key


@pytest.mark.parametrize("table", sorted(TABLES, key=lambda t: t.__name__), ids=lambda t: t.__name__)
def test_every_key_is_explained(table: type) -> None:
    assert [key for key, meaning in meanings(table).items() if not meaning] == []


def test_a_table_s_keys_carry_default_bounds_and_meaning() -> None:
    class Base(msgspec.Struct, kw_only=True):
        near_px: int = 3
        """How
        near."""

    class Table(Base, kw_only=True, forbid_unknown_fields=True):
        """A table."""

        far: Path | None = None

    schema = schema_of(Table, "t")
    assert schema["properties"] == {"near_px": {"type": "integer", "description": "How near.", "default": 3}, "far": {"type": "string"}}
    assert schema["required"] == []
    assert schema["additionalProperties"] is False


def test_a_setting_that_toml_cannot_hold_is_not_passed_over() -> None:
    class Table(msgspec.Struct):
        what: complex

    with pytest.raises(TypeError, match="expected a type that TOML has"):
        schema_of(Table, "t")


PACKAGE = """
import datetime, enum, msgspec
from pathlib import Path
from edge_runtime.protocols import Sink, Source, TriggerLine

class Tint(enum.Enum):
    RED = "red"

class Lamp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    level: int = 1

class Settings(msgspec.Struct, frozen=True):
    path: Path = Path("here")
    lamp: Lamp = Lamp()
    since: datetime.date | None = None
    tint: Tint = Tint.RED

class Mirror(Source):
    settings_type = Settings
    def grab(self, timeout_s): ...

class Bell(TriggerLine):
    settings_type = Settings
    def wait(self, timeout_s): ...

class Log(Sink):
    settings_type = Lamp
    def put(self, decision, pictures): ...
"""
OF_PACKAGES = (
    'name = "a"\n[trigger]\nkind = "bell"\nlamp = {level = 2}\n[[sink]]\nkind = "log"\n[[camera]]\nname = "top"\nrecipe = "r.toml"\n'
    'source = {kind = "mirror", path = "x", tint = "red", since = 2026-01-01}\n[[camera]]\nname = "side"\nrecipe = "r.toml"\n'
    'source = {kind = "folder", path = "parts"}\n'
)


def test_the_kinds_of_installed_packages_are_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {"sources": {"mirror": "{m}:Mirror"}, "triggers": {"bell": "{m}:Bell"}, "sinks": {"log": "{m}:Log"}}
    install(tmp_path, monkeypatch, "lineside-mirror", entries, PACKAGE)
    file = tmp_path / "station.toml"
    schema = json.loads(CliRunner().invoke(app, ["schema", "station"]).stdout)
    for text in (OF_PACKAGES, STATION, STATION.replace('kind = "folder"\npath = "parts"', 'kind = "mirror"')):
        file.write_text(text)
        files.load_station(file)
        assert list(Draft202012Validator(schema).iter_errors(msgspec.to_builtins(tomllib.loads(text)))) == []
    for wrong in (("level = 2", 'level = "two"'), ('kind = "log"', 'kind = "lug"'), ('path = "x"', 'pfad = "x"'), ("level", "levels")):
        file.write_text(text := OF_PACKAGES.replace(*wrong))
        with pytest.raises(ConfigError):
            files.load_station(file)
        assert list(Draft202012Validator(schema).iter_errors(msgspec.to_builtins(tomllib.loads(text)))) != [], wrong


def test_a_package_that_is_broken_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "lineside-broken", {"sources": {"broken": "{m}:Nothing"}, "sinks": {"journal": "{m}:Other"}})
    result = CliRunner().invoke(app, ["schema", "station"])
    assert result.exit_code == 0
    assert "broken" not in result.stdout
    first, second = result.stderr.splitlines()
    assert first.startswith('left out: source "broken" of lineside-broken 1.2') and "AttributeError" in first
    assert second.startswith('left out: sink "journal" of lineside-broken 1.2') and "of Lineside itself" in second
