"""`lineside-train compare` and `fit --method compare`: the data is read, methods are compared, and what was found is said.

Importable without torch, as the command line is.
"""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from edge_runtime.errors import ConfigError
from training.commands.cli import Recommended
from training.commands.console import bars, input_options, load_extra, need_extra, say
from training.commands.options import (
    DEFAULT_BACKBONE,
    AllowDuplicates,
    BackboneName,
    Bayer,
    Bits,
    FewGood,
    IgnoreMask,
    ImageSize,
    Overlap,
    Roi,
    Seed,
    Tiles,
    TileSize,
    Weights,
    at_least,
    least_good,
)

if TYPE_CHECKING:
    from export.choose.compare import Comparison
    from training.data.facts import Facts

WIDE = 150
MINUTES = 6.0
"""For the whole comparison, as in export.choose.compare, which loads torch."""


def compare(
    data: Annotated[Path, typer.Argument(help="Folder or .csv of good images; a test split with bad ones is measured, never chosen by.")],
    methods: Annotated[str | None, typer.Option(help="padim,patchcore/fine,…; default: the fast ones that these images can teach.")] = None,
    budget_ms: Annotated[
        float | None, typer.Option(**at_least("--budget-ms", 0.01, "milliseconds"), help="A whole decision may take this long here.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write: compare.json.")] = Path("compare"),
    backbone: BackboneName = DEFAULT_BACKBONE,
    weights: Weights = None,
    image_size: ImageSize = "auto",
    roi: Roi = None,
    ignore_mask: IgnoreMask = None,
    tiles: Tiles = None,
    tile_size: TileSize = None,
    overlap: Overlap = None,
    bayer: Bayer = None,
    bits: Bits = None,
    bad: Annotated[Path | None, typer.Option(help="Bad images to choose by; of 10 or more, half teach fcdd and devnet.")] = None,
    seed: Seed = 0,
    minutes: Annotated[
        float, typer.Option(**at_least("--minutes", 0.01, "minutes"), help="For the whole comparison; what would take longer is left out.")
    ] = MINUTES,
    allow_duplicates: AllowDuplicates = False,
    few_good: FewGood = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")] = False,
) -> None:
    """Teach and measure methods side by side, and say which one to take.

    Chosen by good images that were held back and by synthetic defects (or by the images of --bad), never by the test split. Another than
    the one that suits how the parts lie is taken only where it is better by more than chance explains. Where nothing is within the
    budget, the fastest is recommended and said to be too slow; the exit code is 0.
    """
    need_extra()
    from training.inspect.precheck import precheck

    named = None if methods is None else [m.strip() for m in methods.split(",") if m.strip()]
    reading = input_options(roi, ignore_mask, image_size, tiles, tile_size, overlap, bayer, bits, few_good)
    if out.exists():  # not check_out's words: there is no --force here
        raise ConfigError(f"out: {out} exists already; choose another place")
    least = least_good(m.partition("/")[0] for m in named or ())
    with bars() as progress:
        inspection = precheck(data, reading, bad=bad, masks=None, allow_duplicates=allow_duplicates, least=least, progress=progress)
    load_extra()
    found = _compared(
        data, reading, out, methods=named, budget_ms=budget_ms, backbone=backbone, weights=weights, bad=bad, seed=seed, minutes=minutes,
        allow_duplicates=allow_duplicates, known=inspection.facts,
    )  # fmt: skip
    if as_json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        _show(found, out)


def recommend(
    data: Path, reading: dict[str, Any], *, budget_ms: float | None, backbone: str, weights: Path | None, bad: Path | None, seed: int,
    allow_duplicates: bool,
) -> Recommended:  # fmt: skip
    """What `compare` would take of the fast methods; a training.commands.cli.Recommend."""
    with tempfile.TemporaryDirectory(prefix="lineside-compare-") as scratch:
        found = _compared(
            data, reading, Path(scratch) / "compared", methods=None, budget_ms=budget_ms, backbone=backbone, weights=weights, bad=bad,
            seed=seed, minutes=MINUTES, allow_duplicates=allow_duplicates,
        )  # fmt: skip
    method, _, preset = found.best.partition("/")
    height, width = found.input_hw
    return Recommended(method, preset, f"{width}x{height}", found.n_bad_learnt > 0, f"{found.chosen_by}: {found.why}")


def _compared(
    data: Path, reading: dict[str, Any], out: Path, *, methods: list[str] | None, budget_ms: float | None, backbone: str,
    weights: Path | None, bad: Path | None, seed: int, minutes: float, allow_duplicates: bool, known: "Mapping[Path, Facts] | None" = None,
) -> "Comparison":  # fmt: skip
    """What is wrong with the options is told before any image is read."""
    from export.choose.compare import Request, fast_methods
    from export.choose.compare import compare as run
    from export.package import check_out
    from training.data.dataset import load_dataset
    from training.fitting.options import FitOptions
    from training.fitting.proof import prove
    from training.fitting.remedies import with_brightness
    from training.inspect.choice import decide

    check_out(out, zipped=False, force=False)
    for method, _, preset in (m.partition("/") for m in methods or ()):
        prove(FitOptions(method, preset or "fast"))
    prove(FitOptions("padim", backbone=backbone, weights=weights))
    with bars() as progress:
        dataset = load_dataset(data, **reading, bad=bad, allow_duplicates=allow_duplicates, known=known, progress=progress)
        for note in dataset.notes:
            say(f"note: {note}")
        choice = decide(dataset, image_size=reading["image_size"], budget_ms=budget_ms, backbone=backbone, progress=progress)
        for sentence in choice.said:
            say(sentence)
        dataset, why = with_brightness(choice.dataset, progress)
        say(why)
        default = f"{choice.method}/{choice.preset}"
        wanted = fast_methods(dataset) if methods is None else methods
        found = run(dataset, Request(wanted, budget_ms, backbone, weights, seed, minutes, default), out, progress, say)
    for name, reason in found.failed.items():
        say(f"note: {name} is not in the table: {reason}")
    return found


def _show(found: "Comparison", out: Path) -> None:
    table = Table(box=None, pad_edge=False)
    columns = ("method", "error", "AUROC", "behind", "test error", "test AUROC", "ms (p99)", "MB run", "MB file", "s", "")
    for name in columns:
        table.add_column(name, justify="left" if name in ("method", "") else "right", overflow="fold")
    for r in found.rows:
        name = f"{r.method}/{r.preset}"
        mark = "take this" if name == found.best else "too slow" if not r.within_budget else "learnt painted ones" if r.partial else ""
        if name == found.default:
            mark = f"{mark}, suits how the parts lie".removeprefix(", ")
        table.add_row(
            f"{name} {r.precision}", f"{r.error:.3f}", f"{r.choosing_auroc:.3f}", f"{r.behind:+.3f} ± {r.noise:.3f}", _figure(r.test_error),
            _figure(r.test_auroc), f"{r.latency_ms:.1f} ({r.latency_p99_ms:.1f})", f"{r.memory_mb:.0f}", f"{r.graph_mb:.0f}",
            f"{r.teach_s:.0f}", mark, style="bold" if name == found.best else None,
        )  # fmt: skip
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)  # a file has no edge to wrap at
    console.print(table)
    console.print(
        f"error: mean of false rejects and misses at the threshold that would ship, on {found.chosen_by}. behind: mean of error and"
        " 1 - AUROC, less that of the first choice, with its standard error. The test split is shown, and never chosen by.",
        soft_wrap=True,
    )
    if found.busy is not None:
        console.print(f"note: {found.busy}", soft_wrap=True)
    console.print(f"[bold]take {found.best}[/]: {found.why}. {found.seconds:.0f} s; {out / 'compare.json'}", soft_wrap=True)
    if (more := after_the_default(found)) is not None:
        console.print(more, soft_wrap=True)


def after_the_default(found: "Comparison") -> str | None:
    """What is left to do where nothing better was found than what `fit` and `release` take unasked, which may have been refused."""
    if found.best != found.default:
        return None
    width, height = (3 * side // 2 // 32 * 32 for side in found.input_hw[::-1])
    return (
        "fit and release take this by themselves, so where it was refused the method is not to blame. Next: look at the parts that it gets"
        " wrong (report; a defect that nobody sees in the photograph takes other light), give it more pixels"
        f" (--image-size {width}x{height}, or --tiles for small defects), photograph more good parts as"
        " they vary, or give it bad ones to put the threshold by (--bad FOLDER, 3 or more)"
    )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
