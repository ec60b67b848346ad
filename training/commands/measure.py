"""The verbs of lineside-train that look and tell: at images before teaching, at a run or a bundle after it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from edge_runtime.errors import EXIT_FINDINGS, EXIT_OK, ConfigError
from edge_runtime.files import put_file
from training.commands.console import bars, need_extra, say
from training.commands.options import AllowDuplicates, BadImages, FewGood, Masks, positive
from training.core.places import check_file

if TYPE_CHECKING:
    from edge_runtime.model.manifest import Metrics
    from training.judging.evaluate import EvaluationReport


def evaluate(
    detector: Annotated[Path, typer.Argument(metavar="RUN_OR_BUNDLE")],
    data: Annotated[Path, typer.Argument(help="Images in any layout that fit reads; the test split counts where there is one.")],
    bad: BadImages = None,
    masks: Masks = None,
    device: Annotated[str, typer.Option(help="Inference device for a bundle.")] = "CPU",
    allow_duplicates: AllowDuplicates = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout, nothing else: figures, a row a kind, a row an image.")
    ] = False,
    as_table: Annotated[Path | None, typer.Option("--csv", help="Write a row an image into this .csv file.")] = None,
) -> None:
    """Measure a run or a bundle on images that it was not taught on."""
    need_extra()
    if as_table is not None:
        check_file(as_table, ".csv")
    from edge_runtime.images.read import read_mask
    from edge_runtime.model.bundle import ModelBundle
    from training.data.dataset import load_dataset
    from training.judging.evaluate import evaluate_bundle, evaluate_run
    from training.judging.evaluation import as_csv, evaluation_of
    from training.runs import INFO, load_run

    with bars() as progress:
        given = {"bad": bad, "masks": masks, "allow_duplicates": allow_duplicates, "progress": progress}
        if (detector / INFO).is_file():
            run = load_run(detector)
            dataset = load_dataset(data, **given, spec=run.info.input, ignore=run.ignore, taught=run.info.dataset)
            report = evaluate_run(run, dataset, progress)
        else:
            bundle = ModelBundle.open(detector)
            spec = bundle.manifest.input
            ignore = read_mask(bundle.directory / spec.ignore_mask) if spec.ignore_mask else None
            dataset = load_dataset(data, **given, spec=spec, ignore=ignore, taught=bundle.manifest.dataset)
            report = evaluate_bundle(bundle, dataset, device, progress)
    for note in report.notes:
        say(f"note: {note}")
    found = evaluation_of(report)
    if as_table is not None:
        try:
            put_file(as_table, as_csv(found).encode())
        except OSError as e:
            raise ConfigError(f"csv: {as_table} cannot be written: {e.strerror or e}") from e
        say(f"wrote {as_table}")
    if as_json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        _print_report(report)


def report(
    detector: Annotated[Path, typer.Argument(metavar="RUN_OR_BUNDLE")],
    data: Annotated[Path, typer.Argument(help="Images that it was not taught on, as for evaluate.")],
    out: Annotated[Path, typer.Option(help="The page to write, .html; one that is there is replaced.")],
    threshold: Annotated[
        float | None,
        typer.Option(
            **positive("--threshold", "a raw score, a float32 above 0"),
            help="Another threshold, shown beside the stated one with what it costs.",
        ),
    ] = None,
    bad: BadImages = None,
    masks: Masks = None,
    device: Annotated[str, typer.Option(help="Inference device for a bundle.")] = "CPU",
    allow_duplicates: AllowDuplicates = False,
) -> None:
    """Write one page, whole by itself, that says how good a run or a bundle is and why to believe it."""
    need_extra()
    from training.report.page import write_report

    with bars() as progress:
        found = write_report(
            detector,
            data,
            out,
            threshold=threshold,
            bad=bad,
            masks=masks,
            device=device,
            allow_duplicates=allow_duplicates,
            progress=progress,
        )
    for note in found.notes:
        say(f"note: {note}")
    say(f"wrote {out}")


def inspect_(
    data: Annotated[Path, typer.Argument(help="Folder or .csv file: MVTec AD, VisA, BTAD, KolektorSDD (1, 2), a table, or good images.")],
    out: Annotated[Path | None, typer.Option(help="Draw a contact sheet into this .png or .jpg.")] = None,
    bad: BadImages = None,
    masks: Masks = None,
    run: Annotated[
        Path | None, typer.Option(help="Of a run taught on these images: name the good ones that look unlike the others, and draw them.")
    ] = None,
    few_good: FewGood = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")] = False,
) -> None:
    """Look at every image and mask before teaching: counts, sizes, copies, empty masks, unreadable files.

    Exit code 1 when something is wrong.
    """
    from training.inspect.inspect import inspect_data, show
    from training.inspect.sheet import check_name, save_sheet

    if out is not None:
        check_name(out)
    if run is not None:
        _show_odd(run, data, out, as_json)
        return
    with bars() as progress:
        found = inspect_data(data, bad=bad, masks=masks, few_good=few_good, told=lambda done, total: progress("check images", done, total))
    if as_json:
        sys.stdout.write(msgspec.json.encode(found.summary).decode() + "\n")
    else:
        show(found.summary, Console(highlight=False, markup=False, soft_wrap=True))
    if out is not None:
        save_sheet(found, out)
        say(f"wrote {out}")
    raise typer.Exit(EXIT_FINDINGS if found.summary.findings else EXIT_OK)


def _show_odd(run_path: Path, data: Path, out: Path | None, as_json: bool) -> None:
    """The odd ones of a run, by name and, with `out`, as pictures."""
    need_extra()
    from training.data.dataset import load_dataset
    from training.fitting.odd import say_alike
    from training.report.odd_sheet import save_odd_sheet
    from training.runs import load_run

    taught = load_run(run_path)
    odd, n = taught.info.odd, taught.info.dataset.n_good + taught.info.apart
    if as_json:
        sys.stdout.write(
            msgspec.json.encode(
                {
                    "odd": odd,
                    "margins": taught.info.dataset.odd_margins,
                    "alike": taught.info.alike,
                    "apart": taught.info.apart,
                    "n_good": n,
                }
            ).decode()
            + "\n"
        )
    else:
        console = Console(highlight=False, markup=False, soft_wrap=True)
        console.print(f"{len(odd)} of {n} good images look unlike the others{': bad, oddly placed, or rare?' if odd else ''}")
        margins = taught.info.dataset.odd_margins
        for i, name in enumerate(odd):
            console.print(f"  {name}" + (f"  {margins[i]:.2f}x as unlike as the most unlike of the others" if i < len(margins) else ""))
        if taught.info.alike:
            console.print(say_alike(taught.info.alike, taught.info.left_out))
    if out is not None and odd:
        with bars() as progress:
            dataset = load_dataset(data, spec=taught.info.input, ignore=taught.ignore, allow_duplicates=True, progress=progress)
            drawn = save_odd_sheet(taught, dataset, out, progress)
        say(f"wrote {out}: {drawn} of them, each as it is and with its heat map")


def _print_report(report: "EvaluationReport") -> None:
    m = report.metrics
    table = Table(title=None, box=None, pad_edge=False)
    for name, justify in (("kind", "left"), ("images", "right"), ("rejected", "right"), ("AUROC", "right"), ("regions found", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    if m.false_reject_rate is not None:
        table.add_row("good", str(m.n_good), _share(round(m.false_reject_rate * m.n_good), m.n_good), "", "")
    for row in report.kinds:
        found = _share(row.hits, row.regions) if row.regions else ""
        kind = f"{row.kind} (learnt from others)" if row.learnt else row.kind
        table.add_row(kind, str(row.n), _share(row.rejected, row.n), _figure(row.auroc), found)
    console = Console(highlight=False)
    console.print(table)
    if report.learnt_auroc is not None or report.unseen_auroc is not None:
        console.print(
            f"image AUROC on kinds that it learnt from {_figure(report.learnt_auroc)}, on unseen kinds {_figure(report.unseen_auroc)}"
        )
    for line in figures_of(m):
        console.print(line, soft_wrap=True)


def figures_of(m: "Metrics") -> list[str]:
    """A line each for the order of the images, the threshold, and the pixels; what cannot be measured says for want of what."""
    lines = [f"threshold {m.threshold:.4g}: rejects {_of(m.false_reject_rate, 'good')}, misses {_of(m.false_accept_rate, 'bad')}"]
    if m.image_auroc is not None:
        lines.insert(0, f"image AUROC {_figure(m.image_auroc)}  AP {_figure(m.image_ap)}  F1 {_figure(m.f1)}")
    if m.pixel_auroc is not None or m.aupro is not None:
        lines.append(f"pixel AUROC {_figure(m.pixel_auroc)}  AUPRO (to 30 % FPR) {_figure(m.aupro)}")
    else:
        lines.append("no masks: how well places are found was not measured")
    return lines


def _of(rate: float | None, kind: str) -> str:
    from training.calibrate.bounds import percent

    return f"– (no {kind} images)" if rate is None else f"{percent(rate)} of the {kind} ones"


def _share(part: int, whole: int) -> str:
    from training.calibrate.bounds import percent

    return f"{part} ({percent(part / whole)})"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
