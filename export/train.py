"""`lineside-train`, whole: the verbs of teaching, and those that need exporting as well, assembled where both may be imported.

Verbs -> calls -> exit codes. Imports wait until a verb needs them: `--help` must be quick. Why: deploy/decisions/0014.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edge_runtime.console import run_app
from edge_runtime.errors import ConfigError
from export.choose import cli as choose
from training.commands import cli as teaching
from training.commands.console import bars, input_options, load_extra, need_extra, say
from training.commands.options import (
    DEFAULT_BACKBONE,
    AllowDuplicates,
    BackboneName,
    Bayer,
    Bits,
    Brightness,
    FalseRejectRate,
    FewGood,
    IgnoreMask,
    ImageSize,
    KeepOdd,
    LeaveOut,
    Overlap,
    Roi,
    Seed,
    Tiles,
    TileSize,
    Variations,
    Weights,
    at_least,
    check_brightness,
    check_method,
    least_good,
)

app = typer.Typer(add_completion=False, no_args_is_help=True, help=teaching.app.info.help)
app.registered_commands += teaching.app.registered_commands


@app.callback()
def _begin(context: typer.Context) -> None:
    context.obj = choose.recommend  # for `fit --method compare`


def release(
    data: Annotated[
        Path, typer.Argument(help="Folder or .csv of photographs: good ones to learn from; bad ones, where there are, to judge by.")
    ],
    out: Annotated[
        Path, typer.Option(help="The bundle to write; BUNDLE.html (the report) and BUNDLE.run (what was taught) come beside it.")
    ],
    method: Annotated[str, typer.Option(help="auto: by how the parts lie; or a method, or method/preset.")] = "auto",
    image_size: ImageSize = "auto",
    budget_ms: Annotated[
        float | None,
        typer.Option(**at_least("--budget-ms", 0.01, "milliseconds"), help="Model time that --image-size auto may take here, as measured."),
    ] = None,
    false_reject_rate: FalseRejectRate = None,
    bad: Annotated[Path | None, typer.Option(help="Folder of bad images, beside those of the data.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Masks of the images of --bad.")] = None,
    backbone: BackboneName = DEFAULT_BACKBONE,
    weights: Weights = None,
    roi: Roi = None,
    ignore_mask: IgnoreMask = None,
    tiles: Tiles = None,
    tile_size: TileSize = None,
    overlap: Overlap = None,
    bayer: Bayer = None,
    bits: Bits = None,
    seed: Seed = 0,
    minutes: Annotated[
        float | None, typer.Option(**at_least("--minutes", 0.01, "minutes"), help="For a method that learns by steps.")
    ] = None,
    allow_duplicates: AllowDuplicates = False,
    few_good: FewGood = False,
    accept: Annotated[
        str | None, typer.Option(help='What is asked, such as "misses <= 2 %, rejects <= 1 %"; default as of lineside-export build.')
    ] = None,
    brightness: Brightness = "auto",
    augment: Variations = "auto",
    leave_out: LeaveOut = None,
    keep_odd: KeepOdd = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what an earlier release has left at these places; build what does not meet --accept.")
    ] = False,
) -> None:
    """Look, choose, teach, set the threshold, quantize, compare, pack, and report: photographs in, a bundle for the station out."""
    need_extra()
    from training.inspect.precheck import precheck

    name = method.partition("/")[0]
    if name != "auto":
        check_method(name, "auto")
    check_brightness(brightness)
    reading = input_options(roi, ignore_mask, image_size, tiles, tile_size, overlap, bayer, bits, few_good)
    for place in (out, *(out.with_name(f"{out.name}{suffix}") for suffix in (".html", ".run"))):
        if place.exists() and not force:
            raise ConfigError(f"out: {place} exists already; choose another place or add --force to replace it")
    with bars() as progress:
        inspection = precheck(
            data, reading, bad=bad, masks=masks, allow_duplicates=allow_duplicates, leave_out=leave_out, least=least_good([name]),
            progress=progress,
        )  # fmt: skip
    load_extra()
    from export import front
    from export.cli import show_report
    from training.judging.asked import parse_accept

    reading.pop("image_size")
    request = front.Request(
        out, method=method, image_size=image_size, budget_ms=budget_ms, false_reject_rate=false_reject_rate, bad=bad, masks=masks,
        backbone=backbone, weights=weights, seed=seed, minutes=minutes, allow_duplicates=allow_duplicates, force=force,
        accept=None if accept is None else parse_accept(accept), keep_light=brightness == "keep", leave_out=leave_out, augment=augment,
        keep_odd=keep_odd, reading=reading,
    )  # fmt: skip
    console = Console(highlight=False, soft_wrap=True)
    with bars() as progress:
        released = front.make_release(data, request, progress, say, lambda built: show_report(built, console), inspection)
    for line in front.verdict(released):
        console.print(line, markup=False)


app.command()(release)
app.command()(choose.compare)


def main() -> None:
    """The command."""
    run_app(app)


if __name__ == "__main__":
    main()
