"""`lineside`: verbs -> calls -> exit codes, nothing else. Imports wait until a verb needs them: `--help` must be quick."""

import enum
import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from edge_runtime import cli_change, cli_journal, cli_keys, cli_plc
from edge_runtime.cli_options import AsJson, KeyFile, ServerKey, StationFile, credentials_of
from edge_runtime.console import leave, run_app
from edge_runtime.entry import loading
from edge_runtime.errors import EXIT_FINDINGS, EXIT_OK

app = typer.Typer(
    help="An inspection station: a trigger in, a frame, a verdict out. Start with: lineside check STATION.toml",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # it would take "[publisher]" for markup
)
app.add_typer(cli_plc.sim, name="sim")
for verb in (*cli_change.VERBS, cli_plc.plc):
    app.command()(verb)
app.add_typer(cli_keys.app, name="keys")
app.add_typer(cli_journal.app, name="journal")

MaybeStationFile = Annotated[
    Path | None, typer.Argument(metavar="STATION.toml", help="Take the addresses from this file.", show_default=False)
]
Device = Annotated[list[str] | None, typer.Option("--device", help="CPU, GPU or NPU; repeat it for an order of preference. Default: CPU.")]


def main() -> None:
    """The console script."""
    # `import openvino` would load its model converter, too: a twentieth of a station's start, and no verb here converts a model. OpenVINO
    # goes on without.
    sys.modules["openvino.tools.ovc"] = None  # type: ignore[assignment]
    try:
        run_app(app)
    except SystemExit as e:
        leave(e.code)


def _version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit(EXIT_OK)


@app.callback()
def _lineside(
    version_: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


@app.command()
def run(station: StationFile) -> None:
    """Run a station: one decision for every trigger.

    Ends with SIGTERM, Ctrl-C, its terminal or the last of its images; parts in flight are decided first.
    """
    # Kept from here to the end of the process: the threads of libraries that are loaded below must not take them, and one that comes while
    # the process ends is no failure any more.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    from edge_runtime.station.process import stopping_on_signals

    with stopping_on_signals() as stop:
        with loading():
            from edge_runtime.station.launch import run_station

        code = run_station(station, stop)
    raise typer.Exit(code)


@app.command()
def check(station: StationFile) -> None:
    """See whether all that a station needs is there.

    A line each ("!": it may run, and a person should know); exit code 1 when something is not. For the user that runs the station, while
    it does not run.
    """
    from edge_runtime.commands.check import check_station

    failed = 0
    for finding in check_station(station):
        failed += not finding.ok
        mark, colour = ("! ", "yellow") if finding.warns else ("✓ ", "green") if finding.ok else ("✗ ", "red")
        typer.secho(mark, fg=colour, bold=True, nl=False)
        typer.echo(f"{finding.what:<15} {finding.sentence}")
    raise typer.Exit(EXIT_FINDINGS if failed else EXIT_OK)


@app.command()
def tail(
    station: MaybeStationFile = None,
    endpoint: Annotated[str | None, typer.Option(help="The station's [publisher] endpoint.")] = None,
    replay: Annotated[str | None, typer.Option(help="The station's [publisher] replay: fetches what was missed.")] = None,
    key: KeyFile = None,
    server_key: ServerKey = None,
    as_json: AsJson = False,
) -> None:
    """Show decisions as they are made.

    In order and without gaps; Ctrl-C ends it.
    """
    from rich.console import Console

    from edge_runtime.client import DecisionClient
    from edge_runtime.commands.tail import json_of, line_of
    from edge_runtime.config.files import PublisherConfig, load_station

    publisher = load_station(station).publisher if station else PublisherConfig()
    # An endpoint of one's own without a replay socket: the default one would be another station's.
    replay = replay or (None if endpoint else publisher.replay)
    console = Console(highlight=False)
    try:
        with DecisionClient(endpoint or publisher.endpoint, replay, key=credentials_of(key, server_key)) as decisions:
            for item in decisions:
                if as_json:
                    print(json_of(item), flush=True)
                else:
                    console.print(line_of(item), soft_wrap=True)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_OK) from None


@app.command()
def status(
    station: MaybeStationFile = None,
    endpoint: Annotated[str | None, typer.Option(help="The station's [publisher] endpoint.")] = None,
    key: KeyFile = None,
    server_key: ServerKey = None,
    as_json: AsJson = False,
) -> None:
    """Show how a running station is.

    State, problems, counts, times, reconnections. Exit code 1 when it is not READY, 84 when none answers.
    """
    from edge_runtime.commands.status import health_of, lines_of
    from edge_runtime.config.files import PublisherConfig, load_station
    from edge_runtime.records import State

    where = endpoint or (load_station(station).publisher if station else PublisherConfig()).endpoint
    health = health_of(where, key=credentials_of(key, server_key))
    if as_json:
        import msgspec

        print(msgspec.json.encode(health).decode())
    else:
        from rich.console import Console

        console = Console(highlight=False)
        for line in lines_of(health):
            console.print(line, soft_wrap=True)
    raise typer.Exit(EXIT_OK if health.state is State.READY else EXIT_FINDINGS)


@app.command()
def metrics(station: StationFile, key: KeyFile = None, server_key: ServerKey = None) -> None:
    """Offer a station's figures to Prometheus, at the address of its [metrics].

    A process of its own, which subscribes and looks at this machine's disks; Ctrl-C or SIGTERM ends it.
    """
    import threading

    from edge_runtime.commands.metrics import serve
    from edge_runtime.config.files import load_station

    config = load_station(station)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    serve(config, stop, credentials_of(key, server_key))


@app.command()
def replay(
    folder: Annotated[Path, typer.Argument(help="Images, in sub-folders or not.", show_default=False)],
    bundle: Annotated[Path, typer.Option(help="The model to judge them with.", show_default=False)],
    recipe: Annotated[Path | None, typer.Option(help="Thresholds and region from this recipe; its bundle is not used.")] = None,
    expect: Annotated[
        Path | None,
        typer.Option(help="CSV of path,verdict. Default: the archive's JSON beside the images, or sub-folders if one is called good."),
    ] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Judge stored images with the station's own loop.

    Exit code 1 when a verdict is not as expected, or a FAULT.
    """
    from edge_runtime.commands.replay import replay as replay_images
    from edge_runtime.config.files import load_recipe
    from edge_runtime.model.bundle import ModelBundle

    report = replay_images(folder, ModelBundle.open(bundle), load_recipe(recipe) if recipe else None, expect, device or "CPU")
    summary = report.summary()
    if as_json:
        print(json.dumps(summary))
    else:
        for o in report.disagreements:
            wanted = f"expected {o.expected}, found " if o.expected else ""
            typer.secho(f"✗ {o.path}: {wanted}{o.decision.verdict}: {o.decision.reason}", fg="red")
        typer.echo(
            f"{summary['images']} images on {report.device}: {summary['accepts']} accepted, {summary['rejects']} rejected, "
            f"{summary['faults']} faults; {summary['with_expectation']} with an expectation, {len(report.disagreements)} not as expected"
        )
    raise typer.Exit(EXIT_FINDINGS if report.disagreements else EXIT_OK)


@app.command()
def bench(
    bundle: Annotated[Path, typer.Argument(help="The model to measure.", show_default=False)],
    frames: Annotated[Path | None, typer.Option(help="Measure on the images of this folder. Default: the golden samples.")] = None,
    gap_ms: Annotated[float, typer.Option(min=0, max=3_600_000, help="Idle that long before each part, as a triggered line does.")] = 0.0,
    count: Annotated[int, typer.Option(min=1, max=1_000_000, help="Measurements.")] = 200,
    threads: Annotated[int, typer.Option(min=0, max=1024, help="Inference threads on the CPU; 0: those that this process may use.")] = 0,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Measure each stage on this device.

    Median and 99th percentile, one part in flight, after a warm-up.
    """
    from edge_runtime.commands.bench import run_bench

    report = run_bench(bundle, frames, device or "CPU", count, gap_ms, threads)
    if as_json:
        import msgspec

        print(msgspec.json.encode(report).decode())
        return
    gap = f", {gap_ms:g} ms idle before each" if gap_ms else ""
    typer.echo(f"{report.bundle} on {report.device}: {report.count} parts of {report.images} images{gap}")
    typer.echo(f"{'':<12} {'median':>10} {'p99':>10}")
    for stage, ms in report.stages_ms.items():
        typer.echo(f"{stage:<12} {ms['median']:>7.2f} ms {ms['p99']:>7.2f} ms")


@app.command()
def overlay(
    station: MaybeStationFile = None,
    endpoint: Annotated[str | None, typer.Option(help="The station's [publisher] endpoint.")] = None,
    preview: Annotated[str | None, typer.Option(help="The station's [preview] endpoint.")] = None,
    fullscreen: Annotated[bool, typer.Option("--fullscreen", help="Fill the screen.")] = False,
    snapshot: Annotated[Path | None, typer.Option(help="Write one picture to this file, without a screen, and end.")] = None,
    key: KeyFile = None,
    server_key: ServerKey = None,
) -> None:
    """Open the operator's window.

    Picture, heat map, verdict, counts. Keys: f full screen, q quit.
    """
    from edge_runtime.config.files import PreviewConfig, PublisherConfig, load_station
    from edge_runtime.errors import ConfigError
    from edge_runtime.overlay import window

    config = load_station(station) if station else None
    if config is not None and config.preview is None and preview is None:
        # The default address may be that of another station, whose parts would be shown as this one's.
        raise ConfigError(f"preview: expected a [preview] in {station}, found none, so this station shows no pictures; add it and restart")
    endpoint = endpoint or (config.publisher if config else PublisherConfig()).endpoint
    preview = preview or ((config.preview if config else None) or PreviewConfig()).endpoint
    if snapshot is not None:
        window.snapshot(endpoint, preview, snapshot, key=credentials_of(key, server_key))
    else:
        window.show(endpoint, preview, fullscreen=fullscreen, key=credentials_of(key, server_key))


@app.command()
def unit(station: StationFile) -> None:
    """Print what a station's file says of its service's sandbox.

    A drop-in for systemd: the addresses that it may talk to, and no devices where it needs none. As root:
    lineside unit /etc/lineside/NAME.toml > /etc/systemd/system/lineside@NAME.service.d/station.conf
    """
    from edge_runtime.commands.unit import drop_in
    from edge_runtime.config.files import load_station

    text, missing = drop_in(load_station(station))
    typer.echo(text, nl=False)
    for sentence in missing:
        typer.secho(f"! {sentence}", fg="yellow", err=True)


class SettingsFile(enum.StrEnum):
    """What `schema` describes."""

    STATION = "station"
    RECIPE = "recipe"


@app.command()
def schema(
    file: Annotated[SettingsFile, typer.Argument(help="Which of the two files.", show_default=False)],
) -> None:
    """Print the JSON Schema of station or recipe files.

    For editors, which then complete and explain keys: redirect it to station.schema.json beside the file, whose first line names it as the
    examples' do. The kinds of packages that are installed here are in it.
    """
    from edge_runtime.config.files import CameraConfig, Recipe, StationConfig
    from edge_runtime.config.foreign import widest
    from edge_runtime.config.schema import schema_of

    kind, left_out = widest(StationConfig, CameraConfig) if file is SettingsFile.STATION else (Recipe, [])
    for sentence in left_out:
        typer.echo(f"left out: {sentence}", err=True)
    typer.echo(json.dumps(schema_of(kind, f"Lineside {file} file"), indent=2))


@app.command()
def version() -> None:
    """Print the version."""
    from edge_runtime import __version__

    typer.echo(f"lineside {__version__}")


if __name__ == "__main__":
    main()
