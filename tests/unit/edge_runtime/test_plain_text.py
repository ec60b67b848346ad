"""Output and input that are written otherwise than here: other encodings, backslashes, decimal commas."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from edge_runtime.config.files import load_recipe
from edge_runtime.console import as_ascii, refuse_decimal_commas, run_app
from edge_runtime.errors import ConfigError, DataError

PROGRAM = """
import typer
from edge_runtime.console import run_app
from edge_runtime.errors import DataError
app = typer.Typer()
@app.command()
def say():
    print("Prüfling × 3 • 良品 \\udce4")
    raise DataError("Ausschuß … ≥ 2")
run_app(app, [])
"""


@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict", "latin-1", "cp1252", "utf-8"])
def test_no_encoding_of_the_terminal_ends_in_a_traceback(encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode == 66 and b"Traceback" not in done.stderr
    if encoding.startswith("ascii"):
        assert done.stdout.strip() == b"Prufling x 3 * ?? ?" and done.stderr.strip() == b"error: Ausschuss ... >= 2"


def test_what_a_message_quotes_moves_no_cursor() -> None:
    app = typer.Typer()

    @app.command()
    def say() -> None:
        raise DataError("two parts:\n  a\x1b[2J.png\n  b\r.png")

    with pytest.raises(SystemExit), contextlib.redirect_stderr(io.StringIO()) as said:
        run_app(app, [])
    assert said.getvalue() == "error: two parts:\n  a\ufffd[2J.png\n  b\ufffd.png\n"


def test_signs_are_spelt_and_accents_go() -> None:
    assert as_ascii("défaut → 2 µm ± 1 °, łódź") == "defaut -> 2 um +- 1  deg, lodz" and as_ascii("不良") == "??"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            'bundle = "C:\\Users\\line\\bundle"',
            r"not valid TOML.*A backslash in double quotes begins a code: write Windows paths in single",
        ),
        ('bundle = "C:\\temp\\new"', r"bundle: expected a path, found '\\t' in it: .*single quotes"),
        ("bundle = 'b'\ndeadline_ms = 0,5", r"line 3.*A decimal comma\? Write 0\.5"),
        ("bundle = 'b'\ndeadline_ms = \"0,5\"", r'deadline_ms: expected a number.*found "0,5"; write 0\.5, without quotes'),
        ("bundle = 'b'\ndeadline_ms = = 5", r"not valid TOML: [^?]*$"),
    ],
)
def test_a_slip_in_a_settings_file_is_told_with_its_remedy(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(f"name = 'lid'\n{line}\n")
    with pytest.raises(ConfigError, match=message):
        load_recipe(path)


def test_windows_paths_in_single_quotes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("name = 'lid'\nbundle = 'C:\\temp\\new'\ndeadline_ms = 5\n")
    assert load_recipe(path).bundle.name.endswith("new")


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        (["fit", "d", "--false-reject-rate", "0,01"], "0.01"),
        (["--false-reject-rate=0,01"], "0.01"),
        (["--augment", "shift=8,brightness=0,1,copies=2"], "shift=8,brightness=0.1,copies=2"),
        (["--set", "lr=0,5"], "lr=0.5"),
        (["--overlap", "12,5%"], "12.5%"),
    ],
)
def test_a_decimal_comma_on_the_command_line_is_told(arguments: list[str], written: str) -> None:
    with pytest.raises(ConfigError, match=f"decimal comma; write {written}$"):
        refuse_decimal_commas(arguments)


@pytest.mark.parametrize("option", ["--image-size", "--tiles", "--tile-size"])
def test_two_whole_numbers_with_a_comma_are_told_as_such(option: str) -> None:
    with pytest.raises(ConfigError, match="found 256,192; write 256x192"):
        refuse_decimal_commas(["fit", "d", option, "256,192"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--accept", "misses <= 2 %,rejects <= 1 %"],
        ["fit", "0,01"],
        ["--roi", "1,2,3,4"],
        ["--augment", "shift=8,rotate=3"],
        ["--methods", "padim,mvg"],
        ["--", "--x", "1,2"],
        ["--out", "a,1"],
    ],
)
def test_other_commas_are_left_alone(arguments: list[str]) -> None:
    refuse_decimal_commas(arguments)
