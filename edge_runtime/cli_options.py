"""What several verbs of `lineside` take, and how a key is read."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_runtime.words import one_line

if TYPE_CHECKING:
    from edge_runtime.credentials import Credentials

StationFile = Annotated[Path, typer.Argument(metavar="STATION.toml", help="The station's file.", show_default=False)]


def as_line(param: typer.CallbackParam, value: str | None) -> str | None:
    """For an option whose words stand in the journal: refused here, before a station is asked. Raises ConfigError."""
    return None if value is None else one_line(param.opts[-1], value)


MOST = 1_000_000_000
"""The most that may be counted or measured on a command line: what is more is a slip."""
PartNumber = Annotated[int, typer.Argument(min=1, max=2**63 - 1, help="The decision's number.", show_default=False)]
"""As the journal counts."""
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
KeyFile = Annotated[Path | None, typer.Option("--key", metavar="FILE", help="Your key file, where the station demands one.")]
ServerKey = Annotated[
    str | None,
    typer.Option("--server-key", metavar="KEY", help="The station's public key, or a file with it. Default: your key file's."),
]


def credentials_of(key: Path | None, server_key: str | None) -> "Credentials | None":
    """What --key and --server-key name; None without a key. Raises ConfigError."""
    from edge_runtime.credentials import read_key_file
    from edge_runtime.errors import ConfigError

    if key is None and server_key is not None:
        raise ConfigError("--server-key: expected --key as well, for the station asks who you are")
    return read_key_file(key, server_key) if key is not None else None
