"""`lineside-train compare`: reads the data, compares, prints and saves the frontier. lineside-train starts it as a process."""

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from edge_runtime.console import run_app
from edge_runtime.errors import ConfigError
from training.backbones import DEFAULT_BACKBONE
from training.console import bars, input_options, say

WIDE = 130
app = typer.Typer(add_completion=False)


@app.command()
def compare(
    data: Annotated[Path, typer.Argument(help="Folder or .csv of good images; a test split with bad ones is measured, never chosen by.")],
    methods: Annotated[str | None, typer.Option(help="padim,patchcore/fine,…; default: all that these images can teach, fast.")] = None,
    budget_ms: Annotated[float | None, typer.Option(min=0.01, help="A whole decision may take this long here.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write: the bundles, compare.json.")] = Path("compare"),
    backbone: Annotated[str, typer.Option(help="timm's model name.")] = DEFAULT_BACKBONE,
    weights: Annotated[Path | None, typer.Option(help="State dict of the backbone.")] = None,
    image_size: Annotated[str, typer.Option(help="Model input: N, HxW, or auto.")] = "256",
    roi: Annotated[str | None, typer.Option(help="Region of interest X,Y,W,H in image pixels.")] = None,
    ignore_mask: Annotated[Path | None, typer.Option(help="What is not black is ignored.")] = None,
    tiles: Annotated[str | None, typer.Option(help="Cut each image into COLUMNSxROWS tiles.")] = None,
    tile_size: Annotated[str | None, typer.Option(help="Or into tiles of at most WIDTHxHEIGHT pixels.")] = None,
    overlap: Annotated[str | None, typer.Option(help="Share of a tile that its neighbour sees, too.")] = None,
    bayer: Annotated[str | None, typer.Option(help="Images are a raw mosaic: RGGB, BGGR, GRBG or GBRG.")] = None,
    bits: Annotated[int | None, typer.Option(help="Significant bits of 16-bit files: 10, 12, 14 or 16. Default: what they use.")] = None,
    bad: Annotated[Path | None, typer.Option(help="Bad images to choose by; of 10 or more, half teach fcdd and devnet.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    minutes: Annotated[float, typer.Option(min=0.01, help="For each method that learns by steps.")] = 0.75,
    allow_duplicates: Annotated[bool, typer.Option("--allow-duplicates", help="Training images may be test images, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")] = False,
) -> None:
    """Teach, build and measure methods side by side, and say which one to take.

    Chosen by good images that were held back and by synthetic defects (or by the images of --bad), never by the test split.
    """
    from export.compare import Request, fast_methods
    from export.compare import compare as run
    from export.package import check_out
    from training.data import load_dataset

    if out.exists():  # not check_out's words: there is no --force here
        raise ConfigError(f"out: {out} exists already; choose another place")
    check_out(out, zipped=False, force=False)

    with bars() as progress:
        dataset = load_dataset(
            data,
            **input_options(roi, ignore_mask, image_size, tiles, tile_size, overlap, bayer, bits),
            bad=bad,
            allow_duplicates=allow_duplicates,
            progress=progress,
        )
        for note in dataset.notes:
            say(f"note: {note}")
        wanted = fast_methods(dataset) if methods is None else [m.strip() for m in methods.split(",") if m.strip()]
        found = run(dataset, Request(wanted, budget_ms, backbone, weights, seed, minutes), out, progress)
    for name, reason in found.failed.items():
        say(f"note: {name} is not in the table: {reason}")
    if as_json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        _show(found, out)
    if found.best is None and budget_ms is not None and found.rows:
        fastest = found.rows[0]
        raise ConfigError(
            f"budget: expected a decision within {budget_ms:g} ms, the fastest method here, {fastest.method}, takes"
            f" {fastest.latency_ms:.1f} ms; allow more, or a smaller --image-size"
        )


def _show(found, out: Path) -> None:  # type: ignore[no-untyped-def]
    table = Table(box=None, pad_edge=False)
    columns = ("method", "to choose by", "test AUROC", "AUPRO", "FP32", "ms (p99)", "MB run", "MB file", "teach s", "build s", "")
    for name in columns:
        table.add_column(name, justify="left" if name == "method" else "right", overflow="fold")
    for r in found.rows:
        name = f"{r.method} {r.preset}"
        mark = "take this" if f"{r.method}/{r.preset}" == found.best else "frontier" if r.on_frontier else ""
        style = "bold" if mark == "take this" else None
        figures = (f"{r.choosing_auroc:.3f}", _figure(r.test_auroc), _figure(r.aupro), _figure(r.fp32_auroc))
        costs = (f"{r.latency_ms:.1f} ({r.latency_p99_ms:.1f})", *(f"{v:.0f}" for v in (r.memory_mb, r.bundle_mb, r.teach_s, r.build_s)))
        table.add_row(name, *figures, *costs, mark if r.within_budget else "too slow", style=style)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)  # a file has no edge to wrap at
    console.print(table)
    console.print(f"to choose by: image AUROC on {found.chosen_by}. {found.seconds:.0f} s; {out / 'compare.json'}", soft_wrap=True)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def main() -> None:
    """Entry point of `python -m export.choose`, which lineside-train starts."""
    run_app(app, name="lineside-train compare")


if __name__ == "__main__":
    main()
