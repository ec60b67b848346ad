"""A variable that the shell does not know leaves an empty word; it is no folder."""

from pathlib import Path
from typing import Annotated

import pytest
import typer

from edge_runtime.console import run_app

app = typer.Typer()
inner = typer.Typer()
app.add_typer(inner, name="sim")


@app.command()
def fit(
    data: Path,
    out: Annotated[Path, typer.Option()],
    bad: Annotated[Path | None, typer.Option("--bad", "-b")] = None,
    note: str = "",
    more: Annotated[list[Path] | None, typer.Argument(metavar="MORE...")] = None,
    force: Annotated[bool, typer.Option("--force")] = False,
) -> None:
    raise SystemExit(f"ran with {note!r}")


@inner.command("plc")
def play(station: Annotated[Path, typer.Argument(metavar="STATION.toml")]) -> None:
    raise SystemExit("ran")


@pytest.mark.parametrize(
    ("line", "name"),
    [(["fit", "", "--out", "x"], "DATA"), (["fit", "--force", " ", "--out", "x"], "DATA"), (["fit", "d", "--out", ""], "--out"),
     (["fit", "d", "--out="], "--out"), (["fit", "d", "--out", "x", "-b", ""], "-b"), (["fit", "--out", "x", "d", "e", ""], "MORE..."),
     (["sim", "plc", ""], "STATION.toml")],
)  # fmt: skip
def test_an_empty_path_is_told_by_its_name(line: list[str], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        run_app(app, line)
    assert e.value.code == 2
    assert capsys.readouterr().err == f"error: {name} is empty: expected a path, found nothing; is a variable of the shell not set?\n"


def test_an_empty_text_is_left_alone() -> None:
    with pytest.raises(SystemExit, match="ran with ''"):
        run_app(app, ["fit", "d", "--out", "x", "--note", ""])


def test_the_usage_line_calls_the_program_as_its_users_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_app(app, ["--help"], name="lineside-train thing")
    assert "Usage: lineside-train thing" in capsys.readouterr().out
