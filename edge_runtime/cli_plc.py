"""`lineside plc` and `lineside sim`: the line as its PLC sees it -> calls -> exit codes, nothing else."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_runtime.cli_options import MOST, AsJson, StationFile
from edge_runtime.errors import EXIT_FINDINGS, EXIT_OK

if TYPE_CHECKING:
    from edge_runtime.sim.score import PartResult

sim = typer.Typer(help="Stand-ins for a line that is not there.", no_args_is_help=True, rich_markup_mode=None)


def plc(
    station: StationFile,
    as_map: Annotated[bool, typer.Option("--map", help="Print the tag map for the PLC programmer, and ask no PLC.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="With --map: as CSV instead of Markdown.")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="SIGNAL=VALUE", help="Write an output of the station by hand; repeat it for more.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With --set: do not ask.")] = False,
    trace: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="Record every change.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0, max=MOST, help="End after that long. Default: with Ctrl-C.")] = None,
    once: Annotated[bool, typer.Option("--once", help="One reading, and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the PLC's tags as they change.

    Only reads, so it may run beside the station; --set writes, and only while the station does not run.
    """
    from edge_runtime.commands import plc as m
    from edge_runtime.commands.plc_map import as_csv as csv_of
    from edge_runtime.commands.plc_map import as_markdown
    from edge_runtime.plc.tags import named

    config, settings = m.plc_of(station)
    if as_map or as_csv:
        m.check_addresses(settings)
        typer.echo(csv_of(settings) if as_csv else as_markdown(settings), nl=False)
        return
    values = m.parse_settings(settings, set_ or [])
    if values:
        typer.echo(f"This writes {named(values)} into the PLC, which may act on it: move an ejector, start a belt.", err=True)
        if not yes:
            typer.confirm("Write it?", abort=True, err=True)
        m.write_by_hand(config, settings, values)
    line_of = m.json_of if as_json else m.line_of
    with m.PlcWatcher(settings) as monitor:
        if once or values or as_json or not sys.stdout.isatty():
            m.watch(
                monitor, lambda c: print(line_of(c), flush=True) if c.values or c.problem else None, 0 if once or values else seconds, trace
            )
            return
        with m.Screen(monitor) as screen:
            m.watch(monitor, screen.add, seconds, trace)


@sim.command("plc")
def sim_plc(
    station: Annotated[
        Path | None, typer.Argument(metavar="STATION.toml", help="Play the PLC of this station's [trigger].", show_default=False)
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="A PLC's kind (modbus, s7 …), with the example's addresses; without a station file.")
    ] = "modbus",
    host: Annotated[str, typer.Option(help="Listen here; without a station file.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Listen here; without a station file. Default: the protocol's, plus 1000 below 1024.",
            show_default=False,
        ),
    ] = None,
    parts_per_minute: Annotated[float, typer.Option(min=0.1, max=60_000, help="The line's pace.")] = 60.0,
    count: Annotated[int | None, typer.Option(min=1, max=MOST, help="End after that many parts. Default: go on.")] = None,
) -> None:
    """Play a line as a PLC, over any protocol that a station speaks.

    Announces parts, reads and acknowledges the results; exit code 1 when a part got no answer or the station broke the handshake.
    """
    from edge_runtime.commands.plc import plc_of
    from edge_runtime.plc.defaults import trigger_to_play
    from edge_runtime.sim.plc import run_sim_plc

    settings = plc_of(station)[1] if station else trigger_to_play(protocol, host, port)
    results, violations = run_sim_plc(
        settings,
        parts_per_minute=parts_per_minute,
        count=count,
        told=lambda r: print(_result_line(r), flush=True),
        started=lambda where: typer.echo(f"playing a PLC at {where}; Ctrl-C ends it", err=True),
    )
    for sentence in violations:
        typer.secho(f"✗ {sentence}", fg="red", err=True)
    raise typer.Exit(EXIT_FINDINGS if violations or any(r.verdict is None for r in results.values()) else EXIT_OK)


def _result_line(result: "PartResult") -> str:
    if result.verdict is None:
        return f"part {result.part}: no result in time"
    more = (
        f", severity {result.severity:.2f}" if result.severity is not None else f", code {result.fault_code}" if result.fault_code else ""
    )
    return f"part {result.part}: {result.verdict}{more}, {result.latency_ms:.1f} ms"
