"""Every method on one product: taught, built into a bundle, run by the device's predictor, and laid side by side; and which one to take.

`python -m export.compare` is what `lineside-train compare` and `lineside-train fit --method auto` start, since teaching does not import
exporting. All methods learn from four fifths of the good images. The last fifth, with defects painted into it (or with bad images that were
given), decides which one to take: the test split never does. Of enough bad images, half teach the methods that learn from such.
"""

import dataclasses
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from edge_runtime.bundle import ModelBundle
from edge_runtime.errors import ConfigError, DataError, LinesideError
from edge_runtime.predictor import OpenvinoPredictor
from edge_runtime.preprocess import Preprocessor
from export.build import Options, build
from export.package import workplace
from export.workshop import SharedWorkshop
from training.backbones import DEFAULT_BACKBONE
from training.data import Dataset, inputs
from training.layout import Sample
from training.learn import hold_out
from training.lesson import Lesson, check_enough, learns, resolve
from training.material import painted_pictures
from training.methods.base import Progress, silent
from training.methods.exposure import LEAST_BAD
from training.methods.table import METHODS
from training.teach import teach

PAINTED = 4
"""Synthetic defects to choose by, for each image that is held back."""
LATENCY_RUNS = 100
TORCH_IMAGES = 32
"""On which a bundle's FP32 graph is compared with torch: the conversion is right or wrong, whatever the picture."""
SLOW = "efficientad"
"""Distils a teacher first, which takes longer than all other methods together."""
ENOUGH_BAD = 2 * LEAST_BAD
"""Bad images that were given, from which on half of them teach and the other half choose; fewer all choose."""
CLOSE = 0.003
"""AUROCs that differ by less are the same, and the faster method is taken: so much another seed moves them."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One method, as its bundle turned out."""

    method: str
    preset: str
    precision: str
    choosing_auroc: float
    """Image AUROC on the good images that were held back and the defects to choose by."""
    test_auroc: float | None
    """On the data's own test split, where it has one with both classes."""
    pixel_auroc: float | None
    aupro: float | None
    fp32_auroc: float | None
    """What the test AUROC was before quantization."""
    latency_ms: float
    """Median of a whole decision on this device: preprocess, inference, post-processing."""
    latency_p99_ms: float
    memory_mb: float
    """Peak of a process that only runs the bundle."""
    bundle_mb: float
    teach_s: float
    build_s: float
    on_frontier: bool = False
    """No other method is both better and faster."""
    within_budget: bool = True


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What compare.json holds."""

    data: str
    backbone: str
    n_learnt: int
    n_held_back: int
    n_bad_learnt: int
    """Of the bad images that were given: what fcdd and devnet learnt from."""
    chosen_by: str
    """What the choice rests on, in words."""
    budget_ms: float | None
    best: str | None
    """`method/preset`; None where none is within the budget."""
    rows: list[Row]
    failed: dict[str, str]
    """Method -> why it has no row."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be compared."""

    methods: Sequence[str]
    """`method` or `method/preset`."""
    budget_ms: float | None = None
    backbone: str = DEFAULT_BACKBONE
    weights: Path | None = None
    seed: int = 0
    minutes: float = 0.75
    """For each method that learns by gradient steps."""


@dataclass(frozen=True, slots=True)
class _Choosing:
    """What decides: model inputs of good images that no method learnt from, and of bad ones."""

    good: npt.NDArray[np.uint8]
    """(N, views, H, W, 3)"""
    bad: npt.NDArray[np.uint8]
    what: str


def fast_methods(dataset: Dataset) -> list[str]:
    """Every method that this data set can teach, with its fast preset. EfficientAD is compared by name only: its teacher takes long."""
    n = len(hold_out(len(dataset.train), 0)[0])
    bad = [s for s in dataset.bad if s.split == "train"] or share_bad(dataset, 0)[0]
    return [m for m, known in METHODS.items() if known.least_images <= n and (known.outliers != "required" or bad) and m != SLOW]


def share_bad(dataset: Dataset, seed: int) -> tuple[list[Sample], list[Sample]]:
    """(teach, choose): the bad images that were given (--bad), each kind halved; where they are few all choose."""
    given = [s for s in dataset.bad if s.split == "bad"]
    if len(given) < ENOUGH_BAD:
        return [], given
    order = np.random.default_rng(seed).permutation(len(given))
    by_kind = sorted((given[int(i)] for i in order), key=lambda s: s.kind)
    return by_kind[::2], by_kind[1::2]


def compare(dataset: Dataset, request: Request, out: Path, progress: Progress = silent) -> Comparison:
    """Teach, build and measure each method; the bundles stay in `out`/bundles, compare.json beside them.

    Bad images given with the data (`dataset.bad`, split "bad") are what is chosen by (see `share_bad`); else defects are painted. A
    method that cannot be taught or built is listed with its reason, and the others go on. Raises ConfigError, DataError when nothing can
    be compared.
    """
    began = time.monotonic()
    lessons = [_lesson(name, request) for name in request.methods]
    if not lessons:
        found = len(dataset.train)
        raise ConfigError(
            "methods: expected at least one to compare, found none"
            + (f" that can be taught: of {found} good images a fifth is held back to choose by" if found else "")
        )
    if out.exists():
        raise ConfigError(f"out: {out} exists already; choose another place")
    learnt, held = hold_out(len(dataset.train), request.seed)
    for lesson in lessons:
        try:
            check_enough(lesson.method, len(learnt))
        except DataError as e:
            raise DataError(f"{e}. Of {len(dataset.train)} good images {len(held)} are held back to choose by") from e
    teaching, judging = share_bad(dataset, request.seed)
    taught = dataclasses.replace(
        dataset,
        train=tuple(dataset.train[int(i)] for i in learnt),
        sha256=tuple(dataset.sha256[int(i)] for i in learnt),
        bad=(*(s for s in dataset.bad if s.split == "train"), *(dataclasses.replace(s, split="train") for s in teaching)),
    )
    choosing = _choosing(dataset, held, judging, request.seed)
    with workplace(out) as part:
        (part / "bundles").mkdir()
        frozen = {s for lesson in lessons if METHODS[lesson.method].network is None for s in resolve(lesson)[0]}
        spec = dataset.spec
        work = part / "work"
        work.mkdir()
        shop = SharedWorkshop(request.backbone, sorted(frozen or {16}), request.weights, spec.height, spec.width, work)
        rows: list[Row] = []
        failed: dict[str, str] = {}
        for done, lesson in enumerate(lessons):
            name = f"{lesson.method}/{lesson.preset}"
            progress(f"comparing {name}", done, len(lessons))
            try:
                rows.append(_measure(taught, lesson, request, shop, choosing, part, progress))
            except LinesideError as e:
                failed[name] = str(e)
        shutil.rmtree(work)
        if not rows:
            raise DataError("compare: no method came through:" + "".join(f"\n  {name}: {why}" for name, why in failed.items()))
        found = Comparison(
            data=str(dataset.path),
            backbone=request.backbone,
            n_learnt=len(learnt),
            n_held_back=len(held),
            n_bad_learnt=len(teaching),
            chosen_by=choosing.what,
            budget_ms=request.budget_ms,
            best=None,
            rows=rows,
            failed=failed,
            seconds=round(time.monotonic() - began, 1),
        )
        comparison = _choose(found)
        (part / "compare.json").write_bytes(msgspec.json.format(msgspec.json.encode(comparison), indent=2) + b"\n")
        part.chmod(0o755)  # a station's own user reads the bundles
        part.rename(out)
    return comparison


def _lesson(name: str, request: Request) -> Lesson:
    method, _, preset = name.partition("/")
    if method not in METHODS:
        raise ConfigError(f"methods: expected some of {', '.join(METHODS)}, found {method!r}")
    minutes = request.minutes if learns(method) else None
    lesson = Lesson(method, preset or "fast", {}, request.backbone, None, request.seed, minutes=minutes)
    if METHODS[method].network is None:
        lesson = dataclasses.replace(lesson, weights=request.weights)
    resolve(lesson)
    return lesson


def _choosing(dataset: Dataset, held: npt.NDArray[np.intp], given: Sequence[Sample], seed: int) -> _Choosing:
    prepare = dataset.preprocessor()
    unseen = [dataset.train[int(i)] for i in held]
    good = _pictures(unseen, prepare)
    if given:
        what = f"{len(good)} good images that were held back and {len(given)} bad images that were given"
        return _Choosing(good, _pictures(given, prepare), what)
    bad, _ = painted_pictures(unseen, prepare, PAINTED * len(good), seed)
    what = f"{len(good)} good images that were held back and {len(bad)} synthetic defects painted into them: an estimate, no promise"
    return _Choosing(good, bad, what)


def _pictures(samples: Sequence[Sample], prepare: Preprocessor) -> npt.NDArray[np.uint8]:
    pictures = np.stack(list(inputs(samples, prepare)))
    return pictures.reshape(-1, prepare.views, *pictures.shape[1:])


def _measure(
    dataset: Dataset, lesson: Lesson, request: Request, shop: SharedWorkshop, choosing: _Choosing, place: Path, progress: Progress
) -> Row:
    name = f"{lesson.method}-{lesson.preset}"
    began = time.monotonic()
    run = teach(dataset, lesson, place / "work" / name, progress=progress, backbone_fn=shop.backbone_fn)
    taught = time.monotonic()
    # The gate is wide here: what quantization costs is a column of the table, and what is taken is built again behind the narrow one.
    options = Options(
        precision=METHODS[lesson.method].precision(lesson.preset), band=math.inf, budget=1.0, torch_images=TORCH_IMAGES, envelope=False
    )
    report = build(run, place / "bundles" / name, None, options, progress, workshop=shop, dataset=dataset)
    built = time.monotonic()
    bundle = ModelBundle.open(report.out)
    stages, memory_mb = _bench(report.out)
    manifest = bundle.manifest
    found = manifest.metrics[options.precision]
    return Row(
        method=lesson.method, preset=lesson.preset, precision=options.precision, choosing_auroc=_auroc(bundle, choosing),
        test_auroc=found.image_auroc, pixel_auroc=found.pixel_auroc, aupro=found.aupro, fp32_auroc=manifest.metrics["fp32"].image_auroc,
        latency_ms=stages["median"], latency_p99_ms=stages["p99"], memory_mb=memory_mb, bundle_mb=round(report.size_bytes / 1e6, 1),
        teach_s=round(taught - began, 1), build_s=round(built - taught, 1),
    )  # fmt: skip


def _auroc(bundle: ModelBundle, choosing: _Choosing) -> float:
    with OpenvinoPredictor(bundle) as predictor:
        good, bad = (
            [predictor.preprocessor.merge(*predictor.infer(pictures))[0] for pictures in some] for some in (choosing.good, choosing.bad)
        )
    scores = np.array(good + bad)
    if not np.isfinite(scores).all():
        raise DataError("some scores are no numbers")
    return float(roc_auc_score(np.arange(len(scores)) >= len(good), scores))


def _bench(bundle: Path) -> tuple[dict[str, float], float]:
    """Milliseconds of a whole decision, and megabytes, of a process that runs nothing but the bundle."""
    command = [sys.executable, "-m", "edge_runtime.cli", "bench", str(bundle), "--count", str(LATENCY_RUNS), "--json"]
    process = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if process.returncode:
        raise DataError(f"the device's bench ended with exit code {process.returncode}")
    report = msgspec.json.decode(process.stdout)
    return report["stages_ms"]["total"], round(report["memory_mb"] or 0)


def _choose(comparison: Comparison) -> Comparison:
    """Marks the frontier and the best within the budget."""
    rows = sorted(comparison.rows, key=lambda r: r.latency_ms)
    marked: list[Row] = []
    best_so_far = -1.0
    for row in rows:
        within = comparison.budget_ms is None or row.latency_ms <= comparison.budget_ms
        frontier = row.choosing_auroc > best_so_far
        best_so_far = max(best_so_far, row.choosing_auroc)
        marked.append(msgspec.structs.replace(row, on_frontier=frontier, within_budget=within))
    able = [r for r in marked if r.within_budget]
    best = max((r.choosing_auroc for r in able), default=None)
    taken = next((r for r in able if best is not None and r.choosing_auroc >= best - CLOSE), None)
    return msgspec.structs.replace(comparison, rows=marked, best=None if taken is None else f"{taken.method}/{taken.preset}")
