"""`lineside journal`: its verbs -> calls -> exit codes, nothing else."""

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.cli_options import KeyFile, ServerKey, as_line, credentials_of
from edge_runtime.errors import EXIT_FINDINGS, EXIT_OK

app = typer.Typer(help="A station's decisions, and the proof that they are whole.", no_args_is_help=True, rich_markup_mode=None)

_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]
AJournal = Annotated[
    Path, typer.Argument(metavar="STATION.toml|JOURNAL", help="The station's file, or the journal itself.", show_default=False)
]
PublicKeys = Annotated[
    list[Path] | None, typer.Option(help="The station's, now and before; repeat it. Default: JOURNAL.key.pub.", show_default=False)
]


Since = Annotated[datetime | None, typer.Option("--from", formats=_TIMES, help="Not before, in this machine's time.", show_default=False)]
Until = Annotated[datetime | None, typer.Option("--to", formats=_TIMES, help="Before this.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command("verify")
def journal_verify(
    journal: AJournal,
    public_key: PublicKeys = None,
    head: Annotated[str | None, typer.Option(metavar="N:HASH", help="A head that was noted elsewhere, as stations log it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find what was changed, removed, inserted or moved since the station wrote it.

    Also while it runs. Exit code 1 when something was, acknowledged or not; 73 when the file cannot be read.
    """
    from edge_runtime.commands.journal import journal_of, keys_of, verified
    from edge_runtime.errors import printable

    path = journal_of(journal).path
    found = verified(path, public_key or (), head)
    if as_json:
        said = {"findings": found.findings, "acknowledged": found.acknowledged, "notes": found.notes, "decisions": found.decisions}
        print(json.dumps({**said, "rows": found.rows, "signed": found.signed_n, "head": f"{found.last_n}:{found.last_hash.hex()}"}))
        raise typer.Exit(EXIT_FINDINGS if found.findings else EXIT_OK)
    for finding in found.findings:
        seen = found.acknowledged.get(finding)
        mark = typer.style("!", fg="yellow", bold=True) if seen else typer.style("✗", fg="red", bold=True)
        typer.echo(printable(f"{finding} (acknowledged by {seen})" if seen else finding).join((f"{mark} ", "")))
    for note in found.notes:
        typer.echo(f"  {note}")
    keys = " or ".join(key.fingerprint for key in keys_of(path, public_key or ()))
    typer.echo(f"{found.decisions} decisions in {found.rows} rows, signed up to row {found.signed_n} of {found.last_n} by {keys}")
    if not found.findings:
        typer.echo("all of them are as they were written")
    raise typer.Exit(EXIT_FINDINGS if found.findings else EXIT_OK)


@app.command("key")
def journal_key(journal: AJournal) -> None:
    """Print the public key that a station signs its journal with, and its fingerprint."""
    from edge_runtime.commands.journal import journal_of, keys_of

    for key in keys_of(journal_of(journal).path):
        typer.echo(key.pem.decode(), nl=False)
        typer.echo(f"fingerprint {key.fingerprint}")


@app.command("acknowledge")
def journal_acknowledge(
    journal: AJournal,
    who: Annotated[str, typer.Option(help="Your name.", show_default=False, callback=as_line)],
    why: Annotated[str, typer.Option(help="What has happened, for whoever reads it in two years.", show_default=False, callback=as_line)],
    key: KeyFile = None,
    server_key: ServerKey = None,
) -> None:
    """Write into the chain that you have seen what is wrong with a journal, or that the machine's clock is right after all.

    Its station then works without that problem; `journal verify` goes on saying it, with your name. A station that runs is asked to,
    over its control socket (role engineer; exit code 77 when it refuses): name its file then.
    """
    from edge_runtime.commands.journal import acknowledge

    findings = acknowledge(journal, who, why, credentials_of(key, server_key))
    for finding in findings:
        typer.echo(finding)
    typer.echo(f"acknowledged by {who}: {len(findings)} findings")


@app.command("export")
def journal_export(
    journal: AJournal,
    out: Annotated[Path, typer.Argument(help="A .csv, .jsonl or .parquet file, or - for standard output.", show_default=False)],
    since: Since = None,
    until: Until = None,
    kind: Annotated[str | None, typer.Option("--format", help="csv, jsonl or parquet. Default: by the file's name.")] = None,
) -> None:
    """Write decisions to a file, each with what the PLC was told of it.

    Exit code 1 when rows could not be read; they are named. Parquet needs the extra `parquet`.
    """
    from edge_runtime.commands.journal import journal_of
    from edge_runtime.commands.journal_export import Format, export
    from edge_runtime.errors import ConfigError
    from edge_runtime.sinks.journal_read import Reader

    if kind is not None and kind not in list(Format):
        raise ConfigError(f"--format: expected csv, jsonl or parquet, found {kind}")
    reader = Reader(journal_of(journal).path, since, until)
    count = export(reader, out, Format(kind) if kind is not None else None)
    for lost in reader.lost:
        typer.secho(f"✗ {lost}", fg="red", err=True)
    typer.echo(f"{count} decisions", err=True)
    raise typer.Exit(EXIT_FINDINGS if reader.lost else EXIT_OK)


@app.command("stats")
def journal_stats(journal: AJournal, since: Since = None, until: Until = None, as_json: AsJson = False) -> None:
    """Count: yield, rejects by hour and reason, faults by cause, times.

    Exit code 1 when rows could not be read; they are named.
    """
    import msgspec

    from edge_runtime.commands.journal import journal_of
    from edge_runtime.commands.journal_stats import lines_of, stats_of
    from edge_runtime.errors import printable
    from edge_runtime.sinks.journal_read import Reader

    reader = Reader(journal_of(journal).path, since, until)
    found = stats_of(reader)
    if as_json:
        print(msgspec.json.encode(found).decode())
    else:
        for line in lines_of(found):
            typer.echo(printable(line))
    for lost in reader.lost:
        typer.secho(f"✗ {lost}", fg="red", err=True)
    raise typer.Exit(EXIT_FINDINGS if reader.lost else EXIT_OK)


@app.command("backup")
def journal_backup(
    journal: AJournal,
    out: Annotated[Path, typer.Argument(help="The new file; its public key and last head are laid beside it.", show_default=False)],
) -> None:
    """Copy a journal, also while its station writes, and verify the copy.

    Exit code 1 when the copy, and so the journal, is not what the station wrote; the copy is kept.
    """
    from edge_runtime.commands.journal import backup, journal_of

    found = backup(journal_of(journal).path, out)
    for finding in found.findings:
        typer.secho(f"✗ {finding}", fg="red")
    typer.echo(f"{found.decisions} decisions in {out}, signed up to row {found.signed_n} of {found.last_n}")
    raise typer.Exit(EXIT_FINDINGS if found.findings else EXIT_OK)
