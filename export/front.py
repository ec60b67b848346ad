"""`lineside-train release`: from a folder of photographs to a bundle and one page about it, in one command.

Looks, chooses method and size, teaches, sets the threshold, quantizes behind the gate, packs, and writes the report; every step is the
function that the single commands call, on one data set that is read once.
"""

import dataclasses
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.text import Text

from edge_runtime.errors import ConfigError, ExportError, NotAccepted
from edge_runtime.model.bundle import ModelBundle, file_sha256
from edge_runtime.model.manifest import Metrics
from export.build import kept
from export.build.accept import Asked
from export.build.build import build
from export.build.features import openvino_backbone
from export.build.options import BuildOptions
from export.build.outcome import BuildReport
from export.package import check_out
from training.calibrate.rules import Rule
from training.core.backbones import DEFAULT_BACKBONE, Backbone, build_backbone
from training.core.base import Progress, silent
from training.core.places import check_free
from training.data.dataset import Dataset, load_dataset, read_names, refuse_alike, refuse_none_left
from training.fitting.estimate import ALONE, about, build_seconds, fit_seconds, pace_of, slower
from training.fitting.heads import BackboneFn
from training.fitting.options import FitOptions, learns, outlier_source, resolve
from training.fitting.proof import prove
from training.fitting.remedies import steadied
from training.fitting.teach import teach, tools
from training.inspect.choice import AUTO, decide
from training.inspect.inspect import Inspection, Summary, inspect_data
from training.inspect.speed import graph_threads
from training.judging.acceptance import Criteria
from training.judging.envelope import BUDGET_S
from training.methods.table import METHODS
from training.pictures.augment import parse_augment
from training.pictures.material import OutlierSource
from training.report.page import write_report
from training.runs import Run, load_run

STEPS = ("look at the images", "choose method and size", "teach", "quantize, compare, pack", "report")
GATE_IMAGES = 32
"""On which the FP32 graph is compared with torch: the conversion is right or wrong, whatever the picture."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a release is to be made of, beside the data."""

    out: Path
    method: str = AUTO
    """A method, `method/preset`, or "auto"."""
    image_size: str = AUTO
    budget_ms: float | None = None
    false_reject_rate: float | None = None
    bad: Path | None = None
    masks: Path | None = None
    backbone: str = DEFAULT_BACKBONE
    weights: Path | None = None
    seed: int = 0
    minutes: float | None = None
    allow_duplicates: bool = False
    force: bool = False
    accept: Criteria | None = None
    """What is asked; None: the defaults."""
    keep_light: bool = False
    """Judge pictures as bright as they come."""
    leave_out: Path | None = None
    """Names of good images that are not to be learnt."""
    augment: str = AUTO
    """Variations that are learnt, too: "auto", "none", or as `parse_augment` takes them."""
    keep_odd: bool = False
    """Learn good images that look unlike the others, however many."""
    reading: dict[str, Any] = field(default_factory=dict)
    """More arguments of `load_dataset`: roi, ignore_mask, tiles, bayer, bits."""

    @property
    def run(self) -> Path:
        """Where what was taught is kept: `calibrate` and `lineside-export build` go on from there."""
        return self.out.with_name(f"{self.out.name}.run")

    @property
    def page(self) -> Path:
        """The report."""
        return self.out.with_name(f"{self.out.name}.html")


@dataclass(frozen=True, slots=True)
class Released:
    """What came of it."""

    bundle: Path
    page: Path
    run: Path
    precision: str
    metrics: Metrics
    summary: Summary
    seconds: float


def make_release(
    data: Path, request: Request, progress: Progress = silent, say: Callable[[str | Text], None] = lambda text: None,
    show: Callable[[BuildReport], None] = lambda built: None, inspection: Inspection | None = None,
) -> Released:  # fmt: skip
    """Do it; `say` gets sentences for the user, `show` what the build came to. `inspection`: of these very images, where there is one.

    What is refused still gets its page: of the very model where it is not fit for release, else of what was taught. Raises ConfigError,
    DataError, CalibrationError, ExportError.
    """
    began = time.monotonic()
    _check_places(request)
    prove(FitOptions("padim", backbone=request.backbone, weights=request.weights))  # whatever is chosen: all take the same
    fit_options = _fit_options(request)

    _step(say, 1)
    inspection = inspection or inspect_data(
        data, bad=request.bad, masks=request.masks, few_good=bool(request.reading.get("few_good")),
        told=lambda done, total: progress("check images", done, total),
    )  # fmt: skip
    dataset = load_dataset(
        data, bad=request.bad, masks=request.masks, image_size=request.image_size, allow_duplicates=request.allow_duplicates,
        known=inspection.facts, progress=progress, **request.reading,
    )  # fmt: skip
    for note in dataset.notes:
        say(f"   {note}")
    for finding in inspection.summary.findings:
        more = "; lineside-train inspect DATA --json names all" if len(finding.items) > 1 else ""
        say(f"   {len(finding.items)} × {finding.what}, the first: {finding.items[0]}{more}")
    names = () if request.leave_out is None else read_names(request.leave_out, dataset)
    dataset = dataset.leave_out(names)
    if names:
        say(f"   left out, as {request.leave_out} says: {len(names)} good images; {len(dataset.train)} are learnt from")
    refuse_none_left(dataset)
    refuse_alike(dataset)
    outlier_source(fit_options, sum(s.split == "train" for s in dataset.bad))

    indented = lambda text: say(f"   {text}")  # noqa: E731
    asked = _asked(request, dataset)
    expected_s: float | None = None
    if request.force and kept.is_taught(request.run, asked):
        run = load_run(request.run)
        dataset = dataclasses.replace(dataset, spec=run.info.input)
        say(f"   {request.run} was taught and refused by this very request, of these very images: it is not taught again")
    else:
        dataset, run, expected_s = _teach(request, dataset, fit_options, names, progress, say)

    _step(say, 4)
    options = BuildOptions(force=request.force, torch_images=GATE_IMAGES, accept=Asked(request.accept, request.force))

    def refused(pack: Path, found: BuildReport) -> None:
        kept.remember(run, asked)
        show(found)
        write_report(pack, data, request.page, dataset=dataset, progress=progress)

    try:
        built = build(run, request.out, None, options, progress, dataset=dataset, say=indented, refused=refused, expected_s=expected_s)
    except NotAccepted:
        held = (request.run / kept.REFUSED).is_dir()
        again = " and this model: the same command with --force packs it, without teaching and measuring again" if held else ""
        say(f"   refused; {request.page} shows the very model that is refused, and {request.run} holds what was taught{again}")
        raise
    except ExportError:
        write_report(request.run, data, request.page, dataset=dataset, progress=progress)
        say(f"   refused; {request.run} holds what was taught, and {request.page} shows it, before it was quantized")
        raise
    precision = built.precision
    show(built)

    _step(say, 5)
    progress("measuring for the report", 0, 1)
    write_report(request.out, data, request.page, dataset=dataset, progress=progress)
    return Released(
        request.out, request.page, request.run, precision, built.metrics[precision], inspection.summary, time.monotonic() - began
    )


def _teach(
    request: Request,
    dataset: Dataset,
    fit_options: FitOptions,
    names: tuple[str, ...],
    progress: Progress,
    say: Callable[[str | Text], None],
) -> tuple[Dataset, Run, float | None]:
    """Steps 2 and 3: the data set as it is read for what was chosen, what was taught, and the seconds that the rest will take, told by
    how long that took."""
    _step(say, 2)
    choice = decide(
        dataset, method=request.method.partition("/")[0], preset=fit_options.preset, image_size=request.image_size,
        budget_ms=request.budget_ms, backbone=request.backbone, progress=progress,
    )  # fmt: skip
    for sentence in choice.said:
        say(f"   {sentence}")
    dataset, made, sentences = steadied(choice.dataset, choice.method, choice.preset, keep_light=request.keep_light, progress=progress)
    for sentence in sentences[: None if request.augment == AUTO else 1]:
        say(f"   {sentence}")
    augment = made if request.augment == AUTO else fit_options.augment
    weighed = request.augment == AUTO
    fit_options = dataclasses.replace(fit_options, method=choice.method, preset=choice.preset, augment=augment, weigh=weighed)
    backbone_fn = openvino_backbone(dataset)
    expected, rest = None, 0.0
    if METHODS[fit_options.method].network is None:
        expected, rest = _expected(dataset, fit_options, backbone_fn, progress)
        say(f"   all that follows: {about(expected + rest)} here {ALONE}; it is said again before each part")

    _step(say, 3)
    began = time.monotonic()
    run = teach(
        dataset, fit_options, request.run, force=request.force, progress=progress, say=lambda text: say(f"   {text}"),
        backbone_fn=backbone_fn, left_out=names,
    )  # fmt: skip
    found = run.info.threshold
    say(f"   threshold {found.value:.4g} of the model as taught (FP32); an INT8 one gets its own below: {found.rule}")
    return dataset, run, None if expected is None else rest * slower(expected, time.monotonic() - began)


def verdict(released: Released) -> list[str]:
    """What a person reads last: what it is worth, where it lies, and what to do next."""
    m = released.metrics
    acceptance = ModelBundle.open(released.bundle).manifest.acceptance
    if acceptance is not None:
        worth = acceptance.sentence
    elif m.n_bad and m.false_accept_rate is not None:
        missed, rejected = round(m.false_accept_rate * m.n_bad), round((m.false_reject_rate or 0) * m.n_good)
        worth = f"at its threshold it misses {missed} of {m.n_bad} bad parts and rejects {rejected} of {m.n_good} good ones"
    else:
        worth = "no bad part was at hand, so nobody knows yet what it misses: photograph some, and run this again with --bad FOLDER"
    return [
        "",
        worth,
        f"bundle {released.bundle} ({released.precision}), report {released.page}, taught {released.run}; {released.seconds:.0f} s",
        f'next: bundle = "{released.bundle.resolve()}" in the recipe, then `lineside check STATION.toml`',
    ]


def _expected(
    dataset: Dataset, fit_options: FitOptions, backbone_fn: Callable[[Backbone], BackboneFn], progress: Progress
) -> tuple[float, float]:
    """Seconds of teaching, and of building and the report, by counts and by what a picture takes now."""
    spec, n, views = dataset.spec, len(dataset.train), dataset.preprocessor().views
    progress("estimating the time: reading the backbone", 0, 1)
    backbone = build_backbone(fit_options.backbone, resolve(fit_options)[0], fit_options.weights)
    taught, gate = n * views * (1 + (fit_options.augment.copies if fit_options.augment else 0)), len(dataset.scored) * views
    progress("estimating the time: converting the backbone", 0, 1)
    run_backbone = backbone_fn(backbone)
    progress("estimating the time: timing a picture", 0, 1)
    pace = pace_of(run_backbone, spec.height, spec.width, taught, graph_threads())
    progress("estimating the time: timing a picture", 1, 1)
    name = f"{fit_options.method}/{fit_options.preset}"
    built = build_seconds(name, n, taught, gate, GATE_IMAGES * views, views, pace, int8=True) + BUDGET_S
    return fit_seconds(name, n, taught, views, pace), built + 2 * gate * pace


def _fit_options(request: Request) -> FitOptions:
    """With a method that stands for "auto" until the images were seen. Raises ConfigError."""
    name, _, preset = request.method.partition("/")
    if name != AUTO and name not in METHODS:
        raise ConfigError(f"method: expected auto or one of {METHODS.names}, found {request.method!r}")
    if name == AUTO and preset:
        raise ConfigError(f"method: auto chooses the preset, found {request.method!r}")
    if request.budget_ms is not None and request.image_size != AUTO:
        raise ConfigError("budget: --budget-ms only counts together with --image-size auto")
    method = "padim" if name == AUTO else name
    bad, masks = (str(p.resolve()) if p else None for p in (request.bad, request.masks))
    rule = None if request.false_reject_rate is None else Rule(kind="false_reject_rate", target=request.false_reject_rate)
    source = None
    if METHODS[method].outliers != "none":
        source = OutlierSource(bad=bad, masks=masks) if bad is not None else None
    elif bad is not None:
        rule = Rule(kind="gap", target=request.false_reject_rate, bad=bad, masks=masks)
    varied = None if request.augment in (AUTO, "none") else parse_augment(request.augment)
    fit_options = FitOptions(
        method, preset or "fast", {}, request.backbone, request.weights, request.seed, rule, augment=varied,
        outliers=source, minutes=request.minutes if learns(method) else None, keep_odd=request.keep_odd,
    )  # fmt: skip
    resolve(fit_options)
    return fit_options


def _asked(request: Request, dataset: Dataset) -> str:
    """One hash of a request and of what it found: what it would teach."""
    left = ("out", "force", "accept", "reading", "weights")  # accept is the build's; what is read so, the input and the images say
    chosen = {f.name: getattr(request, f.name) for f in dataclasses.fields(request) if f.name not in left}
    ignored = None if dataset.ignore is None else hashlib.sha256(dataset.ignore.tobytes()).hexdigest()
    weights = None if request.weights is None else file_sha256(request.weights)
    found = {"images": kept.images(dataset), "input": dataset.spec, "ignored": ignored, "weights": weights, "tools": tools()}
    return kept.digest({**chosen, **found})


def _check_places(request: Request) -> None:
    """Raises ConfigError before minutes of work, where something is in the way."""
    check_out(request.out, zipped=False, force=request.force)
    check_free(request.run, request.force)
    if request.page.is_dir() or (request.page.exists() and not request.force):
        raise ConfigError(f"out: {request.page} exists already; choose another place or add --force to replace it")


def _step(say: Callable[[str | Text], None], number: int) -> None:
    say(f"{number}/{len(STEPS)} {STEPS[number - 1]}")
