"""What people give on command lines, of the device, teaching and exporting: numbers have bounds, words for the journal are one line."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from edge_runtime.cli import app as device
from edge_runtime.console import run_app
from edge_runtime.errors import ConfigError
from export.cli import app as exporting
from export.train import app as teaching

SELF_CHECKED = {"--bits"}
"""One of four numbers, as its own sentence says."""


def options() -> Iterator[tuple[str, Any]]:
    def below(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        for name, inner in getattr(command, "commands", {}).items():
            yield from below(inner, f"{path} {name}")
        if not hasattr(command, "commands"):
            yield from ((f"{path} {p.opts[-1]}", p) for p in command.params if hasattr(p, "type_descriptor"))

    for name, app in (("lineside", device), ("lineside-train", teaching), ("lineside-export", exporting)):
        yield from below(typer.main.get_command(app), name)


NUMBERS = {name: p for name, p in options() if p.type_descriptor.annotation in (int, float) and p.opts[-1] not in SELF_CHECKED}


@pytest.mark.parametrize("name", NUMBERS)
def test_each_number_has_bounds(name: str) -> None:
    option = NUMBERS[name]
    parser = option.type_descriptor.parameter_info.parser
    if parser is None:
        assert option.min is not None and option.max is not None
        return
    for text in ("1e300", "-1e300", "nan", "inf"):
        with pytest.raises(ConfigError, match="expected"):
            parser(text)


def test_some_were_found() -> None:
    assert {"lineside label seq", "lineside plc --seconds", "lineside-train fit --seed", "lineside-export adopt --threshold"} <= set(
        NUMBERS
    )


@pytest.mark.parametrize("number", ["0", "9223372036854775808", "18446744073709551616"])
def test_a_part_number_beyond_the_journals_is_a_usage_error(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        run_app(device, ["label", "s.toml", number, "missed-defect"])
    assert e.value.code == 2
    assert "Invalid value for 'seq': Input should be " in capsys.readouterr().err


TUNE = ["tune", "s.toml", "--threshold", "20"]
WORDS = {
    "deploy why": ["deploy", "b", "s.toml", "--why"], "promote why": ["promote", "s.toml", "--why"],
    "rollback why": ["rollback", "s.toml", "--why"], "reload why": ["reload", "s.toml", "--why"], "tune why": [*TUNE, "--why"],
    "label why": ["label", "s.toml", "3", "missed-defect", "--why"],
    "label as": ["label", "s.toml", "3", "missed-defect", "--as"], "acknowledge why": ["acknowledge", "s.toml", "--why"],
    "acknowledge as": ["acknowledge", "s.toml", "--as"], "tune as": ["tune", "s.toml", "--threshold", "2", "--why", "x", "--as"],
    "journal who": ["journal", "acknowledge", "s.toml", "--why", "x", "--who"],
    "journal why": ["journal", "acknowledge", "s.toml", "--who", "x", "--why"],
}  # fmt: skip


@pytest.mark.parametrize("words", ["", " ", "a\nb", "a\x1b[2J", "a\udcff"])
@pytest.mark.parametrize("line", WORDS.values(), ids=WORDS)
def test_who_and_why_are_one_printable_line(line: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        run_app(device, [*line, words])
    assert e.value.code == 78
    assert f"error: {line[-1]}: expected one line of printable text for whoever reads the journal later, found" in capsys.readouterr().err


def test_nan_is_no_pace(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        run_app(device, ["sim", "plc", "--parts-per-minute", "nan"])
    assert e.value.code == 2
    assert "'--parts-per-minute': Input should be" in capsys.readouterr().err
