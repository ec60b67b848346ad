"""The pages of reference leave nothing out: each is held against another reading of the code than the one that wrote it."""

import importlib
import json
import re

import pytest
import typer
from typer.testing import CliRunner

from deploy.docs import reference
from edge_runtime import cli, errors, wire
from edge_runtime.config.files import CameraConfig, Recipe, StationConfig
from edge_runtime.config.foreign import whole
from edge_runtime.config.schema import schema_of


@pytest.mark.parametrize("kind", [whole(StationConfig, CameraConfig), Recipe])
def test_every_key_of_the_schema_stands_in_the_settings(kind: type) -> None:
    page = reference.settings()
    keys = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    schema = schema_of(kind, "")
    wanted = {key for table in (schema, *schema["$defs"].values()) for key in table["properties"]} - {"kind"}
    assert wanted - keys == set()


def test_bounds_and_defaults_are_told_as_the_file_writes_them() -> None:
    page = reference.settings()
    assert "| `queue` | whole number, from 1, up to 64 | `8` |" in page
    assert "| `loop` | true or false | `false` |" in page
    assert "| `trigger_window_ms` | list of 2: (number, from 0), (number, from 0) | `[20.0, 5.0]` |" in page
    assert '| `path` | path | `"journal.sqlite"` |' in page


def test_every_code_that_a_command_can_end_with_has_a_row() -> None:
    raised = {e.exit_code for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.LinesideError)}
    plain = {code for name, code in vars(errors).items() if name.startswith("EXIT_")}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", reference.exit_codes(), re.MULTILINE)} == raised | plain


def test_every_record_that_a_message_names_has_its_table() -> None:
    page = reference.messages()
    linked = set(re.findall(r"\(#(\w+)\)", page))
    assert linked == {heading.lower() for heading in re.findall(r"^### (\w+)$", page, re.MULTILINE)}
    assert {t.decode() for t in (wire.DECISION, wire.HEALTH, wire.PREVIEW)} == set(re.findall(r"^\| `(\w+)` \| PUB", page, re.MULTILINE))


@pytest.mark.slow
def test_every_verb_and_option_that_help_shows_is_on_the_page() -> None:
    sections = re.split(r"^##+ ", reference.commands(), flags=re.MULTILINE)[1:]
    assert len(sections) > 20
    for section in sections:
        program, *verb = re.findall(r"[a-z-]+", re.split(r" [A-Z\[]|\n", section)[0])
        other = reference.OTHERS.get(" ".join([program, *verb]))
        app: typer.Typer = importlib.import_module(other or reference.APPS[program]).app
        shown = CliRunner().invoke(app, ["--help"] if other else [*verb, "--help"]).stdout
        options = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", shown)) - {"--help", "--version"}
        assert not verb or options - set(re.findall(r"--[a-z][\w-]+", section)) == set(), section


def test_every_verb_of_the_device_is_on_the_page() -> None:
    verbs = {c.name or c.callback.__name__ for c in cli.app.registered_commands if c.callback}
    groups = [(group.name, group.typer_instance) for group in cli.app.registered_groups if group.typer_instance]
    grouped = {f"{name} {c.name}" for name, app in groups for c in app.registered_commands}
    assert {name.removeprefix("lineside ") for name, _ in reference._verbs("lineside", cli.app)} == verbs | grouped
    assert json.loads(CliRunner().invoke(cli.app, ["schema", "recipe"]).stdout)["title"] == "Lineside recipe file"
