"""`lineside-train`'s verbs of teaching -> calls -> exit codes. Importable without torch: what needs it is imported inside the verbs."""

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from edge_runtime.console import run_app
from edge_runtime.errors import ConfigError
from training.commands import measure
from training.commands.console import bars, input_options, load_extra, need_extra, say
from training.commands.options import (
    DEFAULT_BACKBONE,
    MOST_PAINTED,
    MOST_SEED,
    RATE,
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
    Masks,
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
    number,
    share,
)

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Teach a detector from photographs of good parts, calibrate it, evaluate it."
)
COST_RATIO = number(
    "--cost-ratio", "a number above 0 and up to 1,000,000 (50: a false accept costs 50 false rejects)", lambda v: 0 < v <= 1_000_000
)


@dataclass(frozen=True, slots=True)
class Recommended:
    """The method that a comparison takes, for the fit that follows it."""

    method: str
    preset: str
    image_size: str
    """WxH, as it was compared at."""
    learnt_bad: bool
    """Whether bad images that were given taught there, where a method learns from such."""
    why: str
    """What it was chosen by, and why."""


class Recommend(Protocol):
    """Compares methods on a data set as `compare` does, and takes one.

    It needs exporting, which teaching does not import: whoever assembles the whole command line (export/train.py) hands it to `fit` as the
    context's object.
    """

    def __call__(
        self, data: Path, reading: dict[str, Any], *, budget_ms: float | None, backbone: str, weights: Path | None, bad: Path | None,
        seed: int, allow_duplicates: bool,
    ) -> Recommended:  # fmt: skip
        """`reading`: as `input_options` gives it. Raises what `compare` raises."""


@app.command()
def fit(
    context: typer.Context,
    data: Annotated[Path, typer.Argument(help="Good images: MVTec AD, VisA, BTAD, KolektorSDD, a .csv, or a plain folder.")],
    out: Annotated[Path, typer.Option(help="Run directory to write.")],
    method: Annotated[
        str,
        typer.Option(
            help="padim, patchcore, mvg, fastflow, fcdd, devnet, stfpm, efficientad, autoencoder. auto: by how the parts lie, in seconds;"
            " compare: the one that `compare` takes, in minutes."
        ),
    ] = "auto",
    backbone: BackboneName = DEFAULT_BACKBONE,
    weights: Weights = None,
    image_size: ImageSize = "auto",
    seed: Seed = 0,
    roi: Roi = None,
    ignore_mask: IgnoreMask = None,
    tiles: Tiles = None,
    tile_size: TileSize = None,
    overlap: Overlap = None,
    bayer: Bayer = None,
    bits: Bits = None,
    preset: Annotated[str, typer.Option(help="fast or fine (finer map, slower); padim also shared (any layout).")] = "fast",
    false_reject_rate: FalseRejectRate = None,
    bad: Annotated[
        Path | None,
        typer.Option(help="Bad images, 3 or more. fcdd and devnet learn from them; for others the threshold goes between good and bad."),
    ] = None,
    masks: Masks = None,
    synthetic: Annotated[
        int | None, typer.Option(min=0, max=MOST_PAINTED, help="Defects to paint into good parts, for fcdd and devnet.")
    ] = None,
    augment: Variations = "auto",
    brightness: Brightness = "auto",
    leave_out: LeaveOut = None,
    keep_odd: KeepOdd = False,
    minutes: Annotated[
        float | None,
        typer.Option(
            **at_least("--minutes", 0.01, "minutes"),
            help="Time that a method which learns by steps may take; with compare, the one that was chosen.",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted or shorter fit to this place ended.")] = False,
    budget_ms: Annotated[
        float | None,
        typer.Option(
            **at_least("--budget-ms", 0.01, "milliseconds"),
            help="Time of a decision here: --image-size auto keeps to it by this machine's speed, --method compare by measuring.",
        ),
    ] = None,
    conformal: Annotated[
        bool, typer.Option("--conformal", help="Place the threshold by order statistics alone: no model of the tail, and more images.")
    ] = False,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Parameter of the method, key=value; may be repeated.")] = None,
    allow_duplicates: AllowDuplicates = False,
    few_good: FewGood = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing run.")] = False,
) -> None:
    """Fit a detector on good images and calibrate its threshold on held-out ones."""
    need_extra()
    from training.core.places import check_free
    from training.inspect.precheck import precheck

    started = time.monotonic()
    if method in ("auto", "compare"):
        _refuse_with_auto(method, preset, resume, masks is not None and bad is None, **{"--set": set_, "--synthetic": synthetic})
    else:
        check_method(method, "auto, compare")
    reading = input_options(roi, ignore_mask, image_size, tiles, tile_size, overlap, bayer, bits, few_good)
    check_brightness(brightness)
    if method != "compare" and image_size != "auto" and budget_ms is not None:
        raise ConfigError("budget: --budget-ms only counts together with --image-size auto or --method compare")
    check_free(out, force or resume)
    with bars() as progress:
        inspection = precheck(
            data, reading, bad=bad, masks=masks, allow_duplicates=allow_duplicates, leave_out=leave_out, least=least_good([method]),
            progress=progress,
        )  # fmt: skip
    load_extra()
    from training.calibrate.rules import Rule
    from training.data.dataset import load_dataset, read_names, refuse_alike, refuse_none_left
    from training.fitting.options import FitOptions, learns
    from training.fitting.proof import prove
    from training.fitting.remedies import steadied
    from training.fitting.teach import teach
    from training.inspect.choice import decide
    from training.judging.telling import show, tell_run
    from training.methods.table import METHODS
    from training.pictures.augment import parse_augment
    from training.pictures.material import OutlierSource

    varied = None if augment in ("auto", "none") else parse_augment(augment)
    if method == "compare":
        recommend: Recommend | None = context.obj
        if recommend is None:
            raise ConfigError("method: compare needs exporting as well, which these verbs alone lack; start it as lineside-train")
        taken = recommend(
            data, reading, budget_ms=budget_ms, backbone=backbone, weights=weights, bad=bad, seed=seed, allow_duplicates=allow_duplicates
        )
        say(f"taking {taken.method} ({taken.preset}), chosen by {taken.why}")
        method, preset, image_size = taken.method, taken.preset, taken.image_size
        minutes = minutes if learns(method) else None
        # As it was compared: enough bad images teach a method that learns from such, else they only choose and calibrate.
        learns_bad = taken.learnt_bad and METHODS[method].outliers != "none"
    else:
        learns_bad = method in METHODS and METHODS[method].outliers != "none"
    bad_path, mask_path = (str(p.resolve()) if p else None for p in (bad, masks))
    rule, source = None, None
    if learns_bad and (bad is not None or synthetic is not None):
        source = OutlierSource(bad=bad_path, masks=mask_path, synthetic=synthetic or 0)
        bad = masks = None  # what is learnt from cannot also calibrate
    elif synthetic is not None:
        raise ConfigError(f"synthetic: {method} learns from good images only; leave it out, or take fcdd or devnet")
    if conformal and (bad is not None or false_reject_rate is None):
        raise ConfigError("conformal: it needs a stated rate, --false-reject-rate R, and no --bad")
    if bad is not None:
        rule = Rule(kind="gap", target=false_reject_rate, bad=bad_path, masks=mask_path)
    elif false_reject_rate is not None:
        rule = Rule(kind="conformal" if conformal else "false_reject_rate", target=false_reject_rate)
    some = "padim" if method == "auto" else method  # until the images were seen; auto takes a method that is computed as padim is
    options = FitOptions(
        some, preset, _parameters(set_ or []), backbone, weights, seed, rule,
        augment=varied, outliers=source, minutes=minutes, resume=resume, keep_odd=keep_odd,
    )  # fmt: skip
    prove(options)
    with bars() as progress:
        dataset = load_dataset(
            data, **reading, bad=bad, masks=masks, allow_duplicates=allow_duplicates, known=inspection.facts, progress=progress
        )  # fmt: skip
        for note in dataset.notes:
            say(f"note: {note}")
        names = () if leave_out is None else read_names(leave_out, dataset)
        dataset = dataset.leave_out(names)
        if names:
            say(f"left out, as {leave_out} says: {len(names)} good images; {len(dataset.train)} are learnt from")
        refuse_none_left(dataset)
        refuse_alike(dataset)
        choice = decide(
            dataset, method=method, preset=preset, image_size=image_size, budget_ms=budget_ms, backbone=backbone, progress=progress
        )  # fmt: skip
        dataset, made, sentences = steadied(
            choice.dataset, choice.method, choice.preset, keep_light=brightness == "keep", progress=progress
        )
        if augment == "auto":
            varied = made
        for sentence in (*choice.said, *sentences[: None if augment == "auto" else 1]):
            say(sentence)
        options = dataclasses.replace(options, method=choice.method, preset=choice.preset, augment=varied, weigh=augment == "auto")
        run = teach(dataset, options, out, force=force or resume, progress=progress, say=say, left_out=names)
        told = tell_run(run, dataset, progress)
    if (learning := run.info.learning) is not None:
        why = {"steps": "all steps were taken", "time": "the time was over", "patience": "held-out images gained no more"}[learning.ended]
        say(f"learnt {learning.steps} steps in {learning.seconds:.0f} s, best at {learning.best_step}; {why}")
    say(f"threshold {run.info.threshold.value:.4g} of the model as taught (FP32): {run.info.threshold.rule}")
    show(told, run.info.threshold.false_reject_rate, say)
    say(f"wrote {out} in {time.monotonic() - started:.0f} s")


@app.command()
def calibrate(
    run_path: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    false_reject_rate: Annotated[
        float | None,
        typer.Option(**share("--false-reject-rate", 0.5, RATE), help="Stated share of good parts rejected, from held-out good images."),
    ] = None,
    conformal: Annotated[bool, typer.Option("--conformal", help="With --false-reject-rate: by order statistics alone.")] = False,
    gap: Annotated[
        bool,
        typer.Option("--gap", help="Between good and bad images, within --false-reject-rate (default 0.01 or what the images support)."),
    ] = False,
    max_f1: Annotated[bool, typer.Option("--max-f1", help="Largest F1 over good and bad images.")] = False,
    recall: Annotated[
        float | None,
        typer.Option(
            **share("--recall", 1, "0.95 is 95 %"), help="Lowest false-reject rate that still rejects this share of the bad images."
        ),
    ] = None,
    cost_ratio: Annotated[
        float | None, typer.Option(**COST_RATIO, help="Lowest cost, where a false accept costs this many false rejects.")
    ] = None,
    defect_rate: Annotated[
        float | None,
        typer.Option(
            **share("--defect-rate", 1, "0.01: one part in a hundred is bad", itself=False),
            help="With --cost-ratio: share of the line's parts that are bad; 0.01 is assumed.",
        ),
    ] = None,
    bad: Annotated[Path | None, typer.Option(help="Folder of bad images.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Masks of the bad images; an export compares precisions by them.")] = None,
    synthetic: Annotated[
        int, typer.Option(min=0, max=MOST_PAINTED, help="Defects to paint into held-out good images, where no bad part exists yet.")
    ] = 0,
    from_test: Annotated[bool, typer.Option("--from-test", help="Use the data's test split. Figures measured on it then flatter.")] = False,
    data: Annotated[Path | None, typer.Option(help="Where the data lies now, for --from-test and --synthetic.")] = None,
) -> None:
    """Set the threshold of a run by another rule."""
    need_extra()
    from training.calibrate.rules import Rule
    from training.core.places import prove
    from training.fitting.recalibrate import recalibrate
    from training.runs import load_run

    rate_alone = false_reject_rate is not None and not gap
    if [rate_alone, gap, max_f1, recall is not None, cost_ratio is not None].count(True) != 1:
        raise ConfigError("calibrate: expected exactly one of --false-reject-rate R, --gap, --max-f1, --recall R, --cost-ratio C")
    if defect_rate is not None and cost_ratio is None:
        raise ConfigError("defect rate: it belongs to --cost-ratio, which is not given")
    if bad is not None and (from_test or rate_alone):
        raise ConfigError("bad: these images play no part with " + ("--from-test" if from_test else "--false-reject-rate"))
    if synthetic and (from_test or rate_alone):
        raise ConfigError("synthetic: these defects play no part with " + ("--from-test" if from_test else "--false-reject-rate"))
    if bad is None and not from_test and not rate_alone and not synthetic:
        raise ConfigError(
            "calibrate: --gap, --max-f1, --recall and --cost-ratio need bad images: --bad FOLDER (or --synthetic N, --from-test)"
        )
    if conformal and not rate_alone:
        raise ConfigError("conformal: it belongs to --false-reject-rate alone")
    of_bad = {"gap": gap, "max_f1": max_f1, "recall": recall is not None, "cost": cost_ratio is not None}
    kind = next((name for name, asked in of_bad.items() if asked), "conformal" if conformal else "false_reject_rate")
    target = recall if recall is not None else false_reject_rate
    if masks is not None and bad is None:
        raise ConfigError("masks: they belong to the images of --bad, which is not given")
    rule = Rule(
        kind=kind,  # type: ignore[arg-type]
        target=target,
        cost_ratio=cost_ratio,
        defect_rate=defect_rate,
        bad=str(bad.resolve()) if bad else None,
        masks=str(masks.resolve()) if masks else None,
        synthetic=synthetic,
        from_test_split=from_test,
    )
    with bars() as progress:
        taught = load_run(run_path)
        prove(run_path, "calibrate")
        run = recalibrate(taught, rule, data, progress)
    say(f"threshold {run.info.threshold.value:.4g} of the model as taught (FP32): {run.info.threshold.rule}")
    say("bundles that were built of this run before keep theirs; build it again: an INT8 model gets its own threshold by the same rule")


app.command("inspect")(measure.inspect_)
app.command()(measure.evaluate)
app.command()(measure.report)


def _refuse_with_auto(method: str, preset: str, resume: bool, lone_masks: bool, **of_one_method: Any) -> None:
    """What would only fail, or count for nothing, once a method was chosen. Raises ConfigError."""
    if lone_masks:
        raise ConfigError("masks: they belong to the images of --bad, which is not given")
    if preset != "fast":
        raise ConfigError(f"preset: --method {method} chooses the preset, found {preset!r}; leave it out, or name the method")
    given = [name for name, value in of_one_method.items() if value not in (None, [])] + (["--resume"] if resume else [])
    if given:
        raise ConfigError(
            f"{given[0].removeprefix('--')}: {given[0]} counts for one method; leave it out, or name the method, not {method}"
        )


@app.command()
def distil(
    images: Annotated[Path, typer.Option(help="Folder of any pictures, searched with all folders below it.")],
    out: Annotated[Path, typer.Option(help="Teacher to write (.safetensors), for fit --method efficientad --weights.")],
    backbone: Annotated[str, typer.Option(help="What it is to repeat: timm's model name.")] = DEFAULT_BACKBONE,
    weights: Annotated[Path | None, typer.Option(help="State dict of the backbone; default: installed or downloaded.")] = None,
    size: Annotated[str, typer.Option(help="small or medium: PDN-S or PDN-M; presets fast and fine of efficientad.")] = "small",
    channels: Annotated[int, typer.Option(min=1, max=4096, help="Channels of the teacher.")] = 128,
    width: Annotated[
        float | None,
        typer.Option(
            **share("--width", 1, "0.25"),
            help="Share of the paper's channels inside. Default: as efficientad's preset has it, 0.25 or 0.5.",
        ),
    ] = None,
    image_size: Annotated[int, typer.Option(min=32, max=4096, help="Side of the square that pictures are brought to.")] = 256,
    minutes: Annotated[float | None, typer.Option(**at_least("--minutes", 0.01, "minutes"), help="Time that it may take.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted or shorter run of distil ended.")] = False,
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="The same seed gives the same teacher.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing teacher.")] = False,
) -> None:
    """Make a teacher for efficientad: a small network that repeats a backbone's features, learnt on any pictures."""
    need_extra()
    from training.methods.distil import WIDTHS, PdnSpec
    from training.methods.distil import distil as run

    if image_size % 4:
        raise ConfigError(f"image size: expected a side divisible by 4, found {image_size}")
    if out.is_dir():
        raise ConfigError(f"out: expected a file to write, found the folder {out}")
    if out.exists() and not (force or resume):
        raise ConfigError(f"out: {out} exists already; choose another place or add --force to replace it")
    spec = PdnSpec(size, channels, WIDTHS.get(size, 1.0) if width is None else width)
    with bars() as progress:
        outcome = run(
            images, out, spec, backbone=backbone, weights=weights, image_size=image_size, seed=seed,
            minutes=minutes, resume=resume, progress=progress,
        )  # fmt: skip
    missed = f"{100 * outcome.best:.0f} % of the variance of unseen pictures"
    say(f"learnt {outcome.steps} steps in {outcome.seconds:.0f} s; the teacher misses {missed}")
    say(f"wrote {out}")


def main() -> None:
    """The verbs of teaching alone. `lineside-train` has more: export/train.py."""
    run_app(app)


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


if __name__ == "__main__":
    main()
