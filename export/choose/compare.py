"""Several methods on one product, laid side by side, and which one to take: `lineside-train compare`, `fit --method compare`.

All methods learn from four fifths of the good images. The last fifth, with defects painted into it (or with bad images that were given),
decides which one to take: the test split never does. Of enough bad images, half teach the methods that learn from such.

Why: deploy/decisions/0014.
"""

import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ConfigError, DataError, LinesideError
from edge_runtime.model.preprocess import Preprocessor
from export.choose import choosing
from export.choose.candidates import CandidateBench, Measured
from export.choose.pace import Pace, busy, pace
from export.package import workplace
from training.core.backbones import DEFAULT_BACKBONE
from training.core.base import LEAST_BAD, Progress, silent
from training.core.learn import hold_out
from training.data.dataset import Dataset, inputs, refuse_alike
from training.data.facts import load_frame
from training.data.layout import Sample
from training.fitting.estimate import COST_S, QUANTIZE_S, REFERENCE_S
from training.fitting.options import FitOptions, check_enough, learns, resolve
from training.methods.table import METHODS
from training.pictures.material import painted_pictures

PAINTED, MOST_PAINTED = 4, 300
"""Synthetic defects to choose by, for each image that is held back, and at most: the noise is that of the good images by then."""
FAST = ("padim/fast", "mvg/fast", "patchcore/fast", "devnet/fast", "fastflow/fast", "padim/shared", "fcdd/fast")
"""Compared unless others are named, the cheapest first (FP32 needs features anew). Networks that start from nothing (stfpm, efficientad,
autoencoder) do not pay on CPUs: they are compared by name alone."""
DEFAULT = "padim/fast"
ENOUGH_BAD = 2 * LEAST_BAD
"""Bad images that were given, from which on half of them teach and the other half choose; fewer all choose."""
MINUTES = 6.0
"""For the whole comparison."""
PACE_S = 20.0
"""Seconds of `--minutes` that the latencies at the end take."""
LEAST_MINUTES = 0.25
"""For a method that learns by steps."""
_START_S, _CANDIDATE_S = 5.0, 2.0
"""Starting children; converting a head and saving its graph."""

Say = Callable[[str], None]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One method."""

    method: str
    preset: str
    precision: str
    error: float
    """Mean of false rejects and misses at the threshold that would ship, on the images to choose by."""
    choosing_auroc: float
    """Image AUROC on the same."""
    behind: float
    """How much worse than the default its figure is, the mean of `error` and 1 - AUROC; negative is better."""
    noise: float
    """Standard error of `behind`."""
    test_error: float | None
    """On the data's own test split, where it has one with both classes; never chosen by."""
    test_auroc: float | None
    latency_ms: float
    """Median of preprocess and inference on this device, all rows in turns in one process."""
    latency_p99_ms: float
    memory_mb: float
    """Resident, of a process that only runs it."""
    graph_mb: float
    teach_s: float
    within_budget: bool = True
    partial: bool = False
    """It learnt from painted defects, and painted ones choose: its figures flatter, and it is not taken by them."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What compare.json holds."""

    data: str
    backbone: str
    input_hw: tuple[int, int]
    n_learnt: int
    n_held_back: int
    n_bad_learnt: int
    """How many of the bad images that were given fcdd and devnet learnt from."""
    chosen_by: str
    """What the choice rests on, in words."""
    budget_ms: float | None
    default: str
    """What is taken unless another is better by more than chance explains."""
    best: str
    """`method/preset` to take."""
    why: str
    fits: bool
    """Whether `best` is within the budget."""
    busy: str | None
    """What is to be said of the milliseconds, where the machine did something else meanwhile."""
    rows: list[Row]
    """The best first."""
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
    minutes: float = MINUTES
    """For the whole comparison: what would take longer is left out, and said to be."""
    default: str = DEFAULT
    """What is taken where nothing is surely better."""


@dataclass(frozen=True, slots=True)
class _Choosing:
    """What decides: model inputs of good images that no method learnt from, and of bad ones."""

    good: npt.NDArray[np.uint8]
    """(N, views, H, W, 3)"""
    bad: npt.NDArray[np.uint8]
    sources: npt.NDArray[np.intp] | None
    """Which good image each painted defect was painted into."""
    what: str


def fast_methods(dataset: Dataset) -> list[str]:
    """What is compared unless others are named: all of FAST that these images can teach."""
    n = len(hold_out(len(dataset.train), 0)[0])
    bad = [s for s in dataset.bad if s.split == "train"] or share_bad(dataset, 0)[0]
    known = ((name, METHODS[name.partition("/")[0]]) for name in FAST)
    return [name for name, m in known if m.least_images <= n and (m.outliers != "required" or bad)]


def share_bad(dataset: Dataset, seed: int) -> tuple[list[Sample], list[Sample]]:
    """(teach, choose): the bad images that were given (--bad), each kind halved; where they are few all choose."""
    given = [s for s in dataset.bad if s.split == "bad"]
    if len(given) < ENOUGH_BAD:
        return [], given
    order = np.random.default_rng(seed).permutation(len(given))
    by_kind = sorted((given[int(i)] for i in order), key=lambda s: s.kind)
    return by_kind[::2], by_kind[1::2]


def compare(dataset: Dataset, request: Request, out: Path, progress: Progress = silent, say: Say = lambda text: None) -> Comparison:
    """Teach and measure each method, recommend one; compare.json stays in `out`.

    Bad images given with the data (`dataset.bad`, split "bad") are what is chosen by (see `share_bad`); else defects are painted. A
    method that cannot be taught, or for which no time is left, is listed with its reason, and the others go on. Raises ConfigError,
    DataError when nothing can be compared.
    """
    began, load = time.monotonic(), os.getloadavg()[0]
    candidates = {f"{options.method}/{options.preset}": options for options in (_options(name, request) for name in request.methods)}
    if not candidates:
        found = len(dataset.train)
        raise ConfigError(
            "methods: expected at least one to compare, found none"
            + (f" that can be taught: of {found} good images a fifth is held back to choose by" if found else "")
        )
    if out.exists():
        raise ConfigError(f"out: {out} exists already; choose another place")
    refuse_alike(dataset)
    learnt, held = hold_out(len(dataset.train), request.seed)
    for options in candidates.values():
        try:
            check_enough(options.method, len(learnt))
        except DataError as e:
            raise DataError(f"{e}. Of {len(dataset.train)} good images {len(held)} are held back to choose by") from e
    teaching, judging = share_bad(dataset, request.seed)
    taught = dataclasses.replace(
        dataset,
        train=tuple(dataset.train[int(i)] for i in learnt),
        sha256=tuple(dataset.sha256[int(i)] for i in learnt),
        bad=(*(s for s in dataset.bad if s.split == "train"), *(dataclasses.replace(s, split="train") for s in teaching)),
    )
    images = _choosing(dataset, held, judging, request.seed)
    with workplace(out) as part:
        work = part / "work"
        work.mkdir()
        bench = CandidateBench(taught, images.good, images.bad, list(candidates.values()), request.weights, request.seed, work, progress)
        measured, failed = _measure_in_time(bench, _in_order(candidates, request), request, began, progress, say)
        if not measured:
            raise DataError("compare: no method came through:" + "".join(f"\n  {name}: {why}" for name, why in failed.items()))
        progress("latency, in turns", 0, 1)
        frame = load_frame(dataset.train[int(held[0])].path, dataset.spec)
        paces = pace({name: m.graph for name, m in measured.items()}, dataset.spec, frame, dataset.ignore, work, seconds=PACE_S)
        judged = {name: m.judged for name, m in measured.items()}
        # What has learnt painted defects finds painted defects: on magnetic tiles its error on them is 0.21 where PaDiM's is 0.38, at the
        # same AUROC on real ones.
        learnt_painted = images.sources is not None and not any(s.split == "train" for s in taught.bad)
        partial = [n for n in measured if learnt_painted and METHODS[candidates[n].method].outliers != "none"]
        latency = {name: p.median_ms for name, p in paces.items()}
        taken = choosing.take(judged, latency, request.default, request.budget_ms, images.sources, request.seed, partial)
        rows = [
            _row(candidates[name], m, paces[name], taken.behind[name], request.budget_ms, name in partial) for name, m in measured.items()
        ]
        shutil.rmtree(work)
        comparison = Comparison(
            data=str(dataset.path),
            backbone=request.backbone,
            input_hw=(dataset.spec.height, dataset.spec.width),
            n_learnt=len(learnt),
            n_held_back=len(held),
            n_bad_learnt=len(teaching),
            chosen_by=images.what,
            budget_ms=request.budget_ms,
            default=request.default,
            best=taken.name,
            why=taken.why,
            fits=taken.fits,
            busy=busy(paces, load),
            rows=sorted(rows, key=lambda r: r.behind),
            failed=failed,
            seconds=round(time.monotonic() - began, 1),
        )
        (part / "compare.json").write_bytes(msgspec.json.format(msgspec.json.encode(comparison), indent=2) + b"\n")
        part.chmod(0o755)  # also for others to read
        part.rename(out)
    return comparison


def _measure_in_time(
    bench: CandidateBench, candidates: dict[str, FitOptions], request: Request, began: float, progress: Progress, say: Say
) -> tuple[dict[str, Measured], dict[str, str]]:
    """Teach and judge while there is time: what is expected to take longer than is left is left out, but for the first."""
    pace_s = bench.seconds_a_picture()
    costs, seen = {}, set[str]()
    for name, options in candidates.items():
        costs[name] = _expected(name, bench, pace_s, request.minutes)
        if METHODS[options.method].network is None and (precision := METHODS[options.method].precision(options.preset)) not in seen:
            seen.add(precision)
            costs[name] += _features_cost(precision, bench, pace_s)
    total = sum(costs.values()) + PACE_S
    limit = 60 * request.minutes
    say(
        f"{len(candidates)} methods on {len(bench.dataset.train)} images: about {total / 60:.1f} min here, by {1e3 * pace_s:.0f} ms"
        " a picture" + (f"; --minutes {request.minutes:g} ends it, and the last ones may be left out" if total > limit else "")
    )
    measured: dict[str, Measured] = {}
    failed: dict[str, str] = {}
    started, expected = time.monotonic(), 0.0
    for done, (name, options) in enumerate(candidates.items()):
        left = limit - PACE_S - (time.monotonic() - began)
        # A machine that has become busy since the estimate takes longer for all that follows, too.
        slower = max(1.0, (time.monotonic() - started) / expected) if expected else 1.0
        needed = slower * costs[name]
        if measured and needed > left:
            failed[name] = f"no time for it: about {needed:.0f} s, and {max(left, 0):.0f} s are left of --minutes {request.minutes:g}"
            continue
        expected += costs[name]
        progress(f"comparing {name}", done, len(candidates))
        minutes = None
        if learns(options.method):
            waiting = [n for n in list(candidates)[done:] if learns(candidates[n].method)]
            minutes = max(LEAST_MINUTES, left / 60 / len(waiting))
        try:
            measured[name] = bench.measure(dataclasses.replace(options, minutes=minutes), minutes)
        except LinesideError as e:
            failed[name] = str(e)
    return measured, failed


def _in_order(candidates: dict[str, FitOptions], request: Request) -> dict[str, FitOptions]:
    """The default first, then as FAST has them, then the others as they were named."""
    known = [request.default, *FAST]
    order = sorted(candidates, key=lambda name: known.index(name) if name in known else len(known))
    return {name: candidates[name] for name in order}


def _expected(name: str, bench: CandidateBench, pace_s: float, minutes: float) -> float:
    """Seconds that one candidate takes, features aside. The first of each precision pays for these."""
    method = name.partition("/")[0]
    if METHODS[method].network is not None:
        return 60 * max(LEAST_MINUTES, minutes / 4)
    cost = COST_S.get(name, COST_S.get(method, 0.1))
    return _CANDIDATE_S + cost * len(bench.dataset.train) * bench.prepare.views * pace_s / REFERENCE_S


def _features_cost(precision: str, bench: CandidateBench, pace_s: float) -> float:
    """Seconds of all pictures through the backbone in one precision, quantization included."""
    quantized = min(300, len(bench.dataset.train)) * 2 * pace_s + QUANTIZE_S * pace_s / REFERENCE_S if precision == "int8" else 0.0
    return _START_S + bench.n_pictures * pace_s + quantized


def _options(name: str, request: Request) -> FitOptions:
    method, _, preset = name.partition("/")
    if method not in METHODS:
        raise ConfigError(f"methods: expected some of {METHODS.names}, found {method!r}")
    options = FitOptions(method, preset or "fast", {}, request.backbone, None, request.seed)
    if METHODS[method].network is None:
        options = dataclasses.replace(options, weights=request.weights)
    resolve(options)
    return options


def _choosing(dataset: Dataset, held: npt.NDArray[np.intp], given: Sequence[Sample], seed: int) -> _Choosing:
    prepare = dataset.preprocessor()
    unseen = [dataset.train[int(i)] for i in held]
    good = _pictures(unseen, prepare)
    if given:
        what = f"{len(good)} good images that were held back and {len(given)} bad images that were given"
        return _Choosing(good, _pictures(given, prepare), None, what)
    bad, sources = painted_pictures(unseen, prepare, min(PAINTED * len(good), MOST_PAINTED), seed)
    what = f"{len(good)} good images that were held back and {len(bad)} synthetic defects painted into them: an estimate, no promise"
    return _Choosing(good, bad, sources, what)


def _pictures(samples: Sequence[Sample], prepare: Preprocessor) -> npt.NDArray[np.uint8]:
    pictures = np.stack(list(inputs(samples, prepare)))
    return pictures.reshape(-1, prepare.views, *pictures.shape[1:])


def _row(options: FitOptions, measured: Measured, paced: Pace, behind: tuple[float, float], budget_ms: float | None, partial: bool) -> Row:
    judged, test = measured.judged, measured.test
    size = sum(measured.graph.with_suffix(suffix).stat().st_size for suffix in (".xml", ".bin"))
    return Row(
        method=options.method, preset=options.preset, precision=measured.precision, error=judged.error, choosing_auroc=judged.auroc,
        behind=behind[0], noise=behind[1], test_error=None if test is None else test.error,
        test_auroc=None if test is None else test.auroc, latency_ms=paced.median_ms, latency_p99_ms=paced.p99_ms,
        memory_mb=paced.memory_mb, graph_mb=round(size / 1e6, 1), teach_s=round(measured.seconds, 1),
        within_budget=budget_ms is None or paced.median_ms <= budget_ms, partial=partial,
    )  # fmt: skip
