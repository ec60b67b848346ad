"""`lineside-train`: verbs -> calls -> exit codes. Importable without torch: what needs it is imported inside the verbs."""

import importlib.util
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from edge_runtime.console import run_app
from edge_runtime.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from training.evaluate import Report

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Teach a detector from photographs of good parts, calibrate it, evaluate it."
)
NEEDED = ("torch", "timm", "sklearn", "scipy", "safetensors")


@app.command()
def fit(
    data: Annotated[Path, typer.Argument(help="Folder in MVTec's layout (train/good, …), or a plain folder of good images.")],
    method: Annotated[str, typer.Option(help="padim, patchcore or mvg.")],
    out: Annotated[Path, typer.Option(help="Run directory to write.")],
    backbone: Annotated[str, typer.Option(help="timm's model name.")] = "efficientnet_lite0",
    weights: Annotated[
        Path | None, typer.Option(help="State dict of the backbone (.safetensors, .pth); default: installed or downloaded.")
    ] = None,
    image_size: Annotated[str, typer.Option(help="Model input: N, HxW, or auto (keeps the parts' aspect).")] = "256",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same scores.")] = 0,
    roi: Annotated[str | None, typer.Option(help="Region of interest X,Y,W,H in image pixels.")] = None,
    ignore_mask: Annotated[Path | None, typer.Option(help="Image of the parts' size; what is not black is ignored.")] = None,
    preset: Annotated[str, typer.Option(help="fast or fine (finer map, slower).")] = "fast",
    false_reject_rate: Annotated[
        float | None, typer.Option(help="Stated share of good parts rejected; default 0.01 or what the images support.")
    ] = None,
    bad: Annotated[Path | None, typer.Option(help="Bad images: the threshold is then that of maximum F1.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Masks of the bad images.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Parameter of the method, key=value; may be repeated.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing run.")] = False,
) -> None:
    """Fit a detector on good images and calibrate its threshold on held-out ones."""
    _need_extra()
    from training.calibrate import Rule
    from training.data import load_dataset
    from training.run import check_free
    from training.teach import Lesson, resolve, teach

    started = time.monotonic()
    rule = None
    if false_reject_rate is not None:
        if bad is not None:
            raise ConfigError("bad: these images play no part with --false-reject-rate; leave one of the two out")
        rule = Rule(kind="false_reject_rate", target=false_reject_rate)
    elif bad is not None:
        rule = Rule(kind="max_f1", bad=str(bad.resolve()), masks=str(masks.resolve()) if masks else None)
    lesson = Lesson(method, preset, _parameters(set_ or []), backbone, weights, seed, rule)
    check_free(out, force)
    resolve(lesson)
    with _bars() as progress:
        dataset = load_dataset(data, roi=_roi(roi), ignore_mask=ignore_mask, bad=bad, masks=masks, image_size=image_size, progress=progress)
        for note in dataset.notes:
            _say(f"note: {note}")
        run = teach(dataset, lesson, out, force=force, progress=progress, say=_say)
    _say(f"threshold {run.info.threshold.value:.4g}: {run.info.threshold.rule}")
    _say(f"wrote {out} in {time.monotonic() - started:.0f} s")


@app.command()
def calibrate(
    run_path: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    false_reject_rate: Annotated[float | None, typer.Option(help="Stated share of good parts rejected, from held-out good images.")] = None,
    max_f1: Annotated[bool, typer.Option("--max-f1", help="Largest F1 over good and bad images.")] = False,
    recall: Annotated[float | None, typer.Option(help="Lowest false-reject rate that still rejects this share of the bad images.")] = None,
    bad: Annotated[Path | None, typer.Option(help="Folder of bad images.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Masks of the bad images; an export compares precisions by them.")] = None,
    from_test: Annotated[bool, typer.Option("--from-test", help="Use the data's test split. Figures measured on it then flatter.")] = False,
    data: Annotated[Path | None, typer.Option(help="Where the data lies now, for --from-test.")] = None,
) -> None:
    """Set the threshold of a run by another rule."""
    _need_extra()
    from training.calibrate import Rule
    from training.recalibrate import recalibrate
    from training.run import load_run

    if [false_reject_rate is not None, max_f1, recall is not None].count(True) != 1:
        raise ConfigError("calibrate: expected exactly one of --false-reject-rate R, --max-f1, --recall R")
    if bad is not None and (from_test or false_reject_rate is not None):
        raise ConfigError("bad: these images play no part with " + ("--from-test" if from_test else "--false-reject-rate"))
    if bad is None and not from_test and false_reject_rate is None:
        raise ConfigError("calibrate: --max-f1 and --recall need bad images: --bad FOLDER (or --from-test)")
    kind = "max_f1" if max_f1 else "recall" if recall is not None else "false_reject_rate"
    target = recall if recall is not None else false_reject_rate
    if masks is not None and bad is None:
        raise ConfigError("masks: they belong to the images of --bad, which is not given")
    rule = Rule(
        kind=kind,  # type: ignore[arg-type]
        target=target,
        bad=str(bad.resolve()) if bad else None,
        masks=str(masks.resolve()) if masks else None,
        from_test_split=from_test,
    )
    with _bars() as progress:
        run = recalibrate(load_run(run_path), rule, data, progress)
    _say(f"threshold {run.info.threshold.value:.4g}: {run.info.threshold.rule}")


@app.command()
def evaluate(
    detector: Annotated[Path, typer.Argument(metavar="RUN_OR_BUNDLE")],
    data: Annotated[Path, typer.Argument(help="MVTec's layout (its test split counts), or a plain folder of good images.")],
    bad: Annotated[Path | None, typer.Option(help="Folder of bad images.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Masks of the bad images.")] = None,
    device: Annotated[str, typer.Option(help="Inference device for a bundle.")] = "CPU",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")] = False,
) -> None:
    """Measure a run or a bundle on images that it was not taught on."""
    _need_extra()
    from edge_runtime.bundle import ModelBundle
    from edge_runtime.preprocess import read_mask
    from training.data import load_dataset
    from training.evaluate import evaluate_bundle, evaluate_run
    from training.run import INFO, load_run

    with _bars() as progress:
        if (detector / INFO).is_file():
            run = load_run(detector)
            dataset = load_dataset(data, bad=bad, masks=masks, spec=run.info.input, ignore=run.ignore, progress=progress)
            report = evaluate_run(run, dataset, progress)
        else:
            bundle = ModelBundle.open(detector)
            spec = bundle.manifest.input
            ignore = read_mask(bundle.directory / spec.ignore_mask) if spec.ignore_mask else None
            dataset = load_dataset(data, bad=bad, masks=masks, spec=spec, ignore=ignore, progress=progress)
            report = evaluate_bundle(bundle, dataset, device, progress)
    for note in report.notes:
        _say(f"note: {note}")
    if as_json:
        sys.stdout.write(msgspec.json.encode(report.metrics).decode() + "\n")
    else:
        _print_report(report)


def main() -> None:
    """Entry point of `lineside-train`."""
    run_app(app)


def _need_extra() -> None:
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        raise MissingExtra("lineside-train", "train")


def _roi(text: str | None) -> tuple[int, int, int, int] | None:
    if text is None:
        return None
    try:
        x, y, w, h = (int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"roi: expected X,Y,W,H in pixels (40,0,512,480), found {text!r}") from None
    if x < 0 or y < 0 or w < 1 or h < 1:
        raise ConfigError(f"roi: expected X and Y of at least 0, W and H of at least 1, found {text}")
    return x, y, w, h


def _parameters(pairs: list[str]) -> dict[str, Any]:
    """key=value, the value as JSON where it is that (3, 0.5, true, null), else as text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"set: expected key=value, found {pair!r}")
        try:
            found[key] = json.loads(value.lower() if value in ("True", "False") else "null" if value in ("None", "none") else value)
        except json.JSONDecodeError:
            found[key] = value
    return found


def _say(text: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(text)


@contextmanager
def _bars() -> Iterator[Any]:
    """A training Progress drawn on stderr, with the time left; silent where stderr is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total, visible=done < total)

        yield progress


def _print_report(report: "Report") -> None:
    m = report.metrics
    table = Table(title=None, box=None, pad_edge=False)
    for name, justify in (("kind", "left"), ("images", "right"), ("rejected", "right"), ("AUROC", "right"), ("regions found", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    if m.false_reject_rate is not None:
        table.add_row("good", str(m.n_good), _share(round(m.false_reject_rate * m.n_good), m.n_good), "", "")
    for row in report.kinds:
        found = _share(row.hits, row.regions) if row.regions else ""
        table.add_row(row.kind, str(row.n), _share(row.rejected, row.n), _figure(row.auroc), found)
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"image AUROC {_figure(m.image_auroc)}  AP {_figure(m.image_ap)}  F1 {_figure(m.f1)} at threshold {m.threshold:.4g}\n"
        f"false rejects {_percent(m.false_reject_rate)}  false accepts {_percent(m.false_accept_rate)}\n"
        f"pixel AUROC {_figure(m.pixel_auroc)}  AUPRO (to 30 % FPR) {_figure(m.aupro)}",
        soft_wrap=True,
    )


def _share(part: int, whole: int) -> str:
    return f"{part} ({100 * part / whole:.1f} %)"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


if __name__ == "__main__":
    main()
