"""The verbs of `lineside` that ask a running station for something -> calls -> exit codes, nothing else."""

import enum
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_runtime.cli_options import MOST, KeyFile, PartNumber, ServerKey, StationFile, as_line, credentials_of

_WHY = typer.Option(help="For the journal, in a few words.", show_default=False, callback=as_line)
Why = Annotated[str, _WHY]
MaybeWhy = Annotated[str | None, _WHY]
Person = Annotated[str | None, typer.Option("--as", metavar="NAME", help="Who says so, where several share a key.", callback=as_line)]
RecipeKey = Annotated[
    str, typer.Option("--recipe", metavar="KEY", help="Its key in [recipes]. Default: the station's own recipe.", show_default=False)
]
CameraName = Annotated[str, typer.Option("--camera", metavar="NAME", help="Which of several cameras.", show_default=False)]


class Wrong(enum.StrEnum):
    """How a verdict was wrong."""

    FALSE_REJECT = "false-reject"
    MISSED_DEFECT = "missed-defect"


def deploy(
    bundle: Annotated[Path, typer.Argument(help="The bundle, a directory or a .zip that the station's user may read.", show_default=False)],
    station: StationFile,
    why: Why,
    recipe: RecipeKey = "",
    camera: CameraName = "",
    shadow: Annotated[
        int, typer.Option(min=0, max=1_000_000, metavar="N", help="It only looks on, at every N-th part, and is promoted later.")
    ] = 0,
    person: Person = None,
    key: KeyFile = None,
    server_key: ServerKey = None,
) -> None:
    """Have a running station judge by another bundle.

    It is copied, verified and proved beside the model that judges, and takes its place between two parts; what fails changes nothing.
    """
    _change(
        station,
        "deploy",
        {"bundle": str(bundle.absolute()), "recipe": recipe, "camera": camera, "shadow": shadow},
        why,
        person,
        key,
        server_key,
    )


def promote(
    station: StationFile,
    why: Why,
    recipe: RecipeKey = "",
    camera: CameraName = "",
    person: Person = None,
    key: KeyFile = None,
    server_key: ServerKey = None,
) -> None:
    """Have a running station judge by the bundle that looked on (`lineside deploy --shadow`)."""
    _change(station, "promote", {"recipe": recipe, "camera": camera}, why, person, key, server_key)


def rollback(
    station: StationFile,
    why: Why,
    recipe: RecipeKey = "",
    camera: CameraName = "",
    shadow: Annotated[bool, typer.Option("--shadow", help="Only have the shadow look on no longer.")] = False,
    person: Person = None,
    key: KeyFile = None,
    server_key: ServerKey = None,
) -> None:
    """Have a running station judge by the bundle and threshold of before."""
    _change(station, "rollback", {"recipe": recipe, "camera": camera, "shadow": shadow}, why, person, key, server_key)


def tune(
    station: StationFile,
    threshold: Annotated[
        float,
        typer.Option(min=0, max=MOST, help="On the raw score; within what the bundle allows.", show_default=False),
    ],
    why: Why,
    recipe: RecipeKey = "",
    camera: CameraName = "",
    person: Person = None,
    key: KeyFile = None,
    server_key: ServerKey = None,
) -> None:
    """Have a running station judge by another threshold."""
    _change(station, "tune", {"threshold": threshold, "recipe": recipe, "camera": camera}, why, person, key, server_key)


def reload(
    station: StationFile,
    why: Why,
    recipe: RecipeKey = "",
    camera: CameraName = "",
    person: Person = None,
    key: KeyFile = None,
    server_key: ServerKey = None,
) -> None:
    """Have a running station judge by its recipe file as it is now."""
    _change(station, "reload", {"recipe": recipe, "camera": camera}, why, person, key, server_key)


def label(
    station: StationFile,
    seq: PartNumber,
    wrong: Annotated[Wrong, typer.Argument(help="A good part was rejected, or a bad one accepted.", show_default=False)],
    why: MaybeWhy = None,
    person: Person = None,
    key: KeyFile = None,
    server_key: ServerKey = None,
) -> None:
    """Say that a verdict was wrong.

    The station writes it down with who, when and why; the verdict stays as it is. Exit code 77 when it refuses.
    """
    _ask(station, "label", {"seq": seq, "kind": wrong.replace("-", "_")}, why, person, key, server_key)
    typer.echo(f"decision {seq}: noted as {wrong.replace('-', ' ')}")


def acknowledge(
    station: StationFile,
    problem: Annotated[
        str | None, typer.Argument(help="The sentence, as `lineside status` shows it. Default: all present ones.", show_default=False)
    ] = None,
    why: MaybeWhy = None,
    person: Person = None,
    key: KeyFile = None,
    server_key: ServerKey = None,
) -> None:
    """Take note of a station's alarms.

    It goes on; health says who has taken note. Exit code 77 when it refuses.
    """
    present = [problem] if problem is not None else _ask(station, "status", {}, None, None, key, server_key)["problems"]
    for each in present:
        _ask(station, "acknowledge", {"problem": each}, why, person, key, server_key)
        typer.echo(f"noted: {each}")


def _ask(
    station: Path, verb: str, arguments: dict[str, Any], why: str | None, person: str | None, key: Path | None, server_key: str | None
) -> dict[str, Any]:
    from edge_runtime.commands.keys import control_of
    from edge_runtime.control import ControlClient

    with ControlClient(control_of(station), credentials_of(key, server_key)) as control:
        return control.ask(verb, arguments, why=why or "", person=person or "")


def _change(
    station: Path, verb: str, arguments: dict[str, Any], why: str, person: str | None, key: Path | None, server_key: str | None
) -> None:
    """Ask for what may take as long as a large model on a slow disk, and say what was done."""
    from edge_runtime.commands.keys import control_of
    from edge_runtime.control import ControlClient

    with ControlClient(control_of(station), credentials_of(key, server_key)) as control:
        control.ask("status")  # a station that does not answer is said to be away at once
        given = {name: value for name, value in arguments.items() if value}
        typer.echo(control.ask(verb, given, why=why, person=person or "", timeout_s=600.0)["done"])


VERBS = (deploy, promote, rollback, tune, reload, label, acknowledge)
