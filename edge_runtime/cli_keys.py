"""`lineside keys`: its verbs -> calls -> exit codes, nothing else."""

import json
from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.cli_options import AsJson, StationFile
from edge_runtime.errors import EXIT_FINDINGS, EXIT_OK

app = typer.Typer(help="Who may come in at a station's sockets.", no_args_is_help=True, rich_markup_mode=None)


@app.command("make")
def keys_make(station: StationFile) -> None:
    """Make the station's own key.

    In the folder that its [security] names. As the station's user, or as root: then the folder's owner owns it.
    """
    from edge_runtime.commands.keys import ring_of

    public = ring_of(station).make_server()
    typer.echo(f"the station's public key: {public}\nnow let clients in: lineside keys add {station} NAME --role observe")


@app.command("add")
def keys_add(
    station: StationFile,
    name: Annotated[str, typer.Argument(help="Who holds it.", show_default=False)],
    role: Annotated[list[str], typer.Option(help="observe, trigger, operate, engineer or deploy; repeat it for more.", show_default=False)],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where its secret is written to. Default: NAME.key.")] = None,
    public: Annotated[str | None, typer.Option(metavar="KEY", help="Let in a key that its holder has made; no secret is written.")] = None,
) -> None:
    """Let a key in.

    Makes it, and writes its secret to a file for whoever is to have it: nobody else may read that. A station that runs lets it in at once.
    """
    from edge_runtime.commands.keys import add_key

    file, key = add_key(station, name, role, out or Path(f"{name}.key"), public)
    typer.echo(f"{key.fingerprint}  {key.name}  {', '.join(sorted(key.roles))}")
    if file is not None:
        typer.echo(f"its secret: {file}; hand it over, and keep no copy")


@app.command("list")
def keys_list(station: StationFile, as_json: AsJson = False) -> None:
    """List who may come in.

    Fingerprint, roles, name; then what was revoked. Exit code 1 when a file there is no key.
    """
    from edge_runtime.commands.keys import listed

    rows, wrong, public = listed(station)
    if as_json:
        print(json.dumps({"station": public, "keys": rows, "wrong": wrong}))
    else:
        typer.echo(f"the station's public key: {public}")
        for row in rows:
            gone = f"  revoked {row['revoked']}" if row["revoked"] else ""
            typer.echo(f"{row['fingerprint']}  {', '.join(row['roles']):<20}  {row['name']}{gone}")
        for sentence in wrong:
            typer.secho(f"✗ {sentence}", fg="red", err=True)
    raise typer.Exit(EXIT_FINDINGS if wrong else EXIT_OK)


@app.command("revoke")
def keys_revoke(
    station: StationFile,
    which: Annotated[str, typer.Argument(metavar="NAME", help="Its name or fingerprint.", show_default=False)],
) -> None:
    """Let a key in no more.

    A station that runs cuts its holder off within seconds.
    """
    from edge_runtime.commands.keys import ring_of

    key = ring_of(station).revoke(which)
    typer.echo(f"{key.fingerprint}  {key.name}: revoked")
