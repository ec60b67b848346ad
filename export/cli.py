"""`lineside-export`: build a bundle from a run, verify a bundle. Arguments in, sentences out; the work is done elsewhere.

`verify` needs only what a device has; torch and NNCF are imported by `build` alone.
"""

import sys
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from edge_runtime.console import run_app
from edge_runtime.errors import BundleError, CalibrationError, ExportError, MissingExtra
from edge_runtime.model.manifest import Metrics
from edge_runtime.model.signature import load_keys, open_released
from edge_runtime.station.reach import brittle, narrow, promise
from export.child import golden_in_child
from export.release import load_private, make_keys, sign
from training.commands.console import bars, say
from training.commands.options import number

if TYPE_CHECKING:
    from export.build.outcome import BuildReport, Outcome

app = typer.Typer(
    name="lineside-export", help="Turn a taught detector into a bundle for the device.", no_args_is_help=True, add_completion=False
)


def _part(option: str) -> Any:
    return number(option, "0 to 1", lambda v: 0 <= v <= 1)


def _score(option: str) -> Any:
    return number(option, "a float32", lambda v: abs(v) <= 3.4e38)


class Precision(StrEnum):
    """Precision of the backbone; the head's is always float."""

    AUTO = "auto"
    INT8 = "int8"
    FP32 = "fp32"


@app.command()
def build(
    run: Annotated[Path, typer.Argument(help="A run that lineside-train fit made.")],
    out: Annotated[Path, typer.Option(help="The bundle to write: a folder that does not exist yet.")],
    precision: Annotated[
        Precision,
        typer.Option(help="int8 is faster, fp32 computes what was taught; auto: INT8, else with some layers in float, else FP32."),
    ] = Precision.AUTO,
    data: Annotated[Path | None, typer.Option(help="Where the run's images are now, if they moved.")] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write detector.onnx: the FP32 detector as it was taught.")] = False,
    zipped: Annotated[bool, typer.Option("--zip", help="Also write the bundle as one file, BUNDLE.zip.")] = False,
    band: Annotated[
        float | None, typer.Option(**_part("--band"), help="How far from 1.0 a severity may lie for its verdict to turn wrong by INT8.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(**_part("--budget"), help="How far AUROC may fall by INT8, beside what few images explain.")
    ] = None,
    accept: Annotated[
        str | None,
        typer.Option(
            help='What is asked, such as "misses <= 2 %, rejects <= 1 %, confidence 95 %". Default: misses <= 5 % of bad parts'
            " (50 % of painted ones), rejects <= 2 % or twice the stated rate."
        ),
    ] = None,
    envelope: Annotated[bool, typer.Option("--envelope/--no-envelope", help="Measure how far light, lens and parts may stray.")] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a bundle that is there already; build one that does not meet --accept, marked so.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="One JSON object on stdout, nothing else: every precision tried, a row an image, also where it is refused."
        ),
    ] = False,
) -> None:
    """Convert, quantize, refit, compare with the detector, judge whether it is fit for release, and pack a bundle.

    Exit code 86 when it misses or rejects more than is asked for, 81 when the named precision judges otherwise than what was taught.
    """
    try:
        from export.build import build as builder
        from export.build import parity
        from export.build.accept import Asked
        from export.build.options import BuildOptions
        from export.build.outcome import outcome_of
        from export.build.trial import Trial
        from training.judging.asked import parse_accept
        from training.runs import load_run
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] in ("edge_runtime", "training", "export"):
            raise
        raise MissingExtra("lineside-export build", "train") from e
    criteria = None if accept is None else parse_accept(accept)
    taught = load_run(run)
    if (precision is not Precision.FP32 and find_spec("nncf") is None) or (onnx and find_spec("onnx") is None):
        raise MissingExtra(f"lineside-export build --{'onnx' if onnx else f'precision {precision}'}", "train")
    options = BuildOptions(
        precision=precision.value,
        onnx=onnx,
        zipped=zipped,
        band=parity.DEFAULT_BAND if band is None else band,
        budget=parity.DEFAULT_BUDGET if budget is None else budget,
        force=force,
        accept=Asked(criteria, force),
        envelope=envelope,
    )
    console = Console(highlight=False, soft_wrap=True)
    tried: list[Trial] = []
    refused: list[BuildReport] = []

    def show_refused(pack: Path, found: "BuildReport") -> None:
        refused.append(found)
        if not as_json:
            show_report(found, console)

    try:
        with bars() as progress:
            report = builder.build(taught, out, data, options, progress, say=say, refused=show_refused, tried=tried.extend)
    except (BundleError, CalibrationError, ExportError) as e:
        if as_json:
            _print_json(outcome_of(out, tried, refused[0] if refused else None, e))
        raise
    if as_json:
        _print_json(outcome_of(out, tried, report))
    else:
        show_report(report, console)


@app.command()
def adopt(
    model: Annotated[Path, typer.Argument(help="model.xml that anomalib 2 or OpenVINO Training Extensions exported, its .bin beside it.")],
    out: Annotated[Path, typer.Option(help="The bundle to write: a folder that does not exist yet.")],
    golden: Annotated[
        Path | None, typer.Option(help="Frames of the camera, in good/ and other subfolders: golden samples are chosen from them.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The bundle's name; default: the model's file.")] = None,
    threshold: Annotated[
        float | None,
        typer.Option(**_score("--threshold"), help="Reject above it, on the model's own scale; default: as the model says."),
    ] = None,
    map_threshold: Annotated[float | None, typer.Option(**_score("--map-threshold"), help="Likewise for places of the map.")] = None,
    image_size: Annotated[str | None, typer.Option(help="Model input, N or WxH: where the model takes any size and does not say.")] = None,
    mono: Annotated[bool, typer.Option("--mono", help="The camera is gray; known from --golden where that is given.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there already.")] = False,
) -> None:
    """Take a model of another tool as it is, prove it, and pack it as a bundle for the device."""
    from export.adopt import adopt as adopter

    hw = None if image_size is None else adopter.parse_hw(image_size)
    options = adopter.Options(golden, name, threshold, map_threshold, hw, mono, force)
    report = adopter.adopt(model, out, options)
    m, console = report.manifest, Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{report.out}[/bold]  {report.bundle_id[:12]}…  {report.size_bytes / 1e6:.1f} MB  in {report.seconds:.0f} s")
    console.print(f"  {m.params['exporter']}, {m.precision}, {m.input.width}x{m.input.height}: {report.latency_ms:.1f} ms an image here")
    console.print(f"  threshold {m.threshold.value:.4g}: {m.threshold.rule}")
    for note in report.notes:
        console.print(f"  note: {note}")


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle: folder or zip.")],
    key: Annotated[list[Path] | None, typer.Option(help="A public key: one of those given must have signed it. May be repeated.")] = None,
) -> None:
    """Check every byte of a bundle, and run its golden samples with the device's own predictor. Ends with 0, or 65 and the reason."""
    console = Console(highlight=False, soft_wrap=True)
    opened, signer = open_released(bundle, load_keys(key or []), private=False)
    manifest = opened.manifest
    console.print(f"manifest   ok  schema {manifest.schema}, {manifest.name} {manifest.version}, {manifest.method}, {manifest.precision}")
    if manifest.clamped:
        console.print("scores     ok  end at 0 and 1: the model was adopted from a tool that clamps them")
    if (acceptance := manifest.acceptance) is not None:
        state = "ok     " if acceptance.state == "passed" else "NOT RELEASED" if acceptance.forced else "unknown"
        console.print(f"acceptance {state}  {acceptance.sentence}")
    console.print(f"files      ok  {len(manifest.files)} files match their sha256")
    if signer is not None:
        console.print(f"signature  ok  by {signer}")
    try:
        results = golden_in_child(opened.directory)
    except ExportError as e:  # here a crash is a property of the bundle
        raise BundleError(str(e)) from e
    for r in results:
        state = "ok" if r.ok else "DIFFERS"
        console.print(
            f"golden     {state}  {r.image}: score {r.score:.6g}, expected {r.expected_score:.6g}"
            f" (within {r.difference:.1e} of {r.allowed:g})"
        )
    wrong = [r for r in results if not r.ok]
    if wrong:
        raise BundleError(
            f"bundle {bundle}: {len(wrong)} of {len(results)} golden samples differ on this machine; do not run it here, build it again"
        )
    if manifest.envelope is not None:
        console.print(f"envelope   ok  {promise(manifest.envelope, manifest.acceptance)}")
    console.print(f"bundle     ok  id {opened.id}")


@app.command()
def keygen(
    key: Annotated[Path, typer.Argument(help="The private key to write, such as release.key; release.pub comes beside it.")],
    password: Annotated[bool, typer.Option(help="Ask for a password to encrypt it with.")] = True,
) -> None:
    """Make the keys with which bundles are released: the private one stays with whoever releases, stations get the public one."""
    word = typer.prompt("Password of the new key", hide_input=True, confirmation_prompt=True) if password else ""
    public = make_keys(key, word)
    Console(highlight=False, soft_wrap=True).print(f'{key} and {public}. On a station: trusted_keys = ["{public.name}"]')


@app.command("sign")
def sign_(
    bundle: Annotated[Path, typer.Argument(help="A bundle: folder or zip.")],
    key: Annotated[Path, typer.Option(help="The private key that `keygen` made.")],
) -> None:
    """Release a bundle: sign it, so that stations with `trusted_keys` run it."""
    opened = sign(bundle, load_private(key, lambda: typer.prompt(f"Password of {key}", hide_input=True)))
    Console(highlight=False, soft_wrap=True).print(f"{bundle}: signed, id {opened.id}")


def show_report(report: "BuildReport", console: Console) -> None:
    """What a build came to, for people."""
    from export.build.accept import is_refused, unlike

    if is_refused(report.acceptance):
        console.print(f"[bold]{report.out}[/bold]  refused, not written; tried for {report.seconds:.0f} s")
    else:
        console.print(f"[bold]{report.out}[/bold]  {report.bundle_id[:12]}…  {report.size_bytes / 1e6:.1f} MB  in {report.seconds:.0f} s")
    of = "an image" if report.views == 1 else f"a tile ({report.views} an image; `lineside bench` times them all)"
    ships, times = report.precision, report.latency_ms
    on = f", on {report.measured_on}" if report.measured_on else ""
    console.print(
        f"  {ships.upper()}, which {'would ship' if is_refused(report.acceptance) else 'ships'}{on}: {_figures(report.metrics[ships])}"
    )
    console.print(f"  {times[ships]:.1f} ms of model time {of}, measured here{_against(report)}")
    flips = ""
    if report.flips is not None:
        lost, gained = len(report.flips.losses), len(report.flips.gains)
        near = ", all near the border," if lost else ""
        flips = (
            f"; of {report.n_compared} verdicts, on {report.compared}, {lost} turn wrong from FP32 to INT8{near} and {gained} turn right"
        )
    console.print(f"  parity: torch and FP32 differ by {report.score_difference:.0e} at most{flips}")
    console.print(f"  threshold {report.threshold.value:.4g} of the {report.precision.upper()} model: {report.threshold.rule}")
    if report.told is not None:
        from training.judging.acceptance import Criteria, default_criteria

        asked = report.acceptance  # of painted defects another share of misses is asked
        usual = default_criteria(report.threshold.false_reject_rate)
        limits = usual if asked is None or asked.basis != "real" else Criteria(asked.max_missed, asked.max_rejected)
        for line in report.told.lines(limits):
            console.print(Text("  ") + line)
        if (other := unlike(report.metrics, report.precision)) is not None:
            console.print(f"  {other}")
    if (acceptance := report.acceptance) is not None:
        style = {"passed": "bold green", "failed": "bold red", "not assessed": "bold yellow"}[acceptance.state]
        console.print(
            Text(f"  {acceptance.sentence}{'; built all the same (--force), and it says so' if acceptance.forced else ''}", style)
        )
    if report.envelope is not None:
        console.print(f"  {promise(report.envelope, report.acceptance)}")
        worst = brittle(report.envelope)
        for sentence in worst:
            console.print(Text(f"  {sentence}", "bold red"))
        for sentence in narrow(report.envelope, worst):
            console.print(Text(f"  {sentence}", "bold yellow"))
    for note in report.notes:
        console.print(f"  note: {note}")


def _against(report: "BuildReport") -> str:
    """How the model that ships differs from the one before it was quantized, as differences: two rows of figures get mixed up."""
    if report.precision == "fp32":
        return ""
    here, exact = report.metrics[report.precision], report.metrics["fp32"]
    pairs = (("image AUROC", here.image_auroc, exact.image_auroc), ("pixel AUROC", here.pixel_auroc, exact.pixel_auroc))
    parts = [f"{name} {now - before:+.4f}".replace("-", "−") for name, now, before in pairs if now is not None and before is not None]
    return "; against FP32: " + ", ".join([*parts, f"which takes {report.latency_ms['fp32']:.1f} ms"])


def _print_json(outcome: "Outcome") -> None:
    sys.stdout.write(msgspec.json.encode(outcome).decode() + "\n")
    sys.stdout.flush()


def _figures(metrics: Metrics) -> str:
    from training.calibrate.bounds import percent

    aurocs = (("image AUROC", metrics.image_auroc), ("pixel AUROC", metrics.pixel_auroc))
    shares = (("rejects", metrics.false_reject_rate, "good"), ("misses", metrics.false_accept_rate, "bad"))
    told = [f"{name} {value:.4f}" for name, value in aurocs if value is not None]
    return ", ".join([*told, *(f"{verb} {percent(value)} of the {kind} ones" for verb, value, kind in shares if value is not None)])


def main() -> None:
    """The command."""
    run_app(app)


if __name__ == "__main__":
    main()
