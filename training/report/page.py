"""One page that says how good a detector is, where its threshold lies, and why to believe it: a single HTML file, whole by itself.

Why: deploy/decisions/0031.
"""

import datetime
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jinja2
import msgspec
import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

import edge_runtime
from edge_runtime.commands.bench import BenchReport, run_bench
from edge_runtime.errors import ConfigError
from edge_runtime.files import put_file
from edge_runtime.model.compressed import say_lossy, say_measured
from edge_runtime.model.manifest import Metrics
from edge_runtime.station.reach import brittle
from training.calibrate.bounds import percent
from training.core.base import Progress, silent
from training.core.places import check_file
from training.data.dataset import Dataset, load_dataset
from training.judging.acceptance import LEAST_REAL, default_criteria, judge_acceptance
from training.judging.envelope_figure import envelope_chart, envelope_sentences
from training.judging.evaluate import EvaluationReport, Predict, Scored, measure
from training.judging.telling import SETS, Better, best_within
from training.report.cuts import Count, cut, measure_counts, threshold_table
from training.report.figures import CURVE_FRAME, LEFT, RIGHT, WIDTH, Axis, Group, curve, histograms
from training.report.gallery import Picks, Shot, as_shot, develop, heat_css, odd_samples, pick, shoot
from training.report.subject import Subject, open_subject

BENCH_RUNS = 200
_FLATTERS = "flatter"
"""In notes on images that had a say in what is measured on them."""
KINDS_DRAWN = 14
"""Kinds of defect with a histogram of their own; the rarer ones share one."""
_FIGURES = (
    ("image_auroc", "Image AUROC"),
    ("image_ap", "Average precision"),
    ("f1", "F1 at its threshold"),
    ("false_reject_rate", "False rejects"),
    ("false_accept_rate", "Misses"),
    ("pixel_auroc", "Pixel AUROC"),
    ("aupro", "AUPRO (to 30 % FPR)"),
)


@dataclass(frozen=True, slots=True)
class Banner:
    """What stands at the head of the page."""

    state: str
    words: str
    max_missed: float
    max_rejected: float


def write_report(
    detector: Path,
    data: Path,
    out: Path,
    *,
    threshold: float | None = None,
    bad: Path | None = None,
    masks: Path | None = None,
    device: str = "CPU",
    allow_duplicates: bool = False,
    dataset: Dataset | None = None,
    progress: Progress = silent,
) -> EvaluationReport:
    """Measure a run or a bundle on `data` and write the page to `out`, whole or not at all.

    Args:
        detector: run directory, or bundle (directory or zip).
        data: images that it was not taught on, as for `evaluate`.
        out: the .html file; one that is there is replaced.
        threshold: another threshold, shown beside the stated one with what it costs.
        bad, masks, allow_duplicates: as for `load_dataset`.
        device: inference device for a bundle.
        dataset: the images, where they are at hand already; `data`, `bad` and `masks` do not count then.
        progress: told of each image.

    Raises:
        ConfigError: a place that cannot be written, or a threshold that is none.
        DataError, BundleError, DeviceError: as for evaluating.
    """
    check_file(out, ".html", ".htm")
    if threshold is not None and not 0 < threshold <= float(np.finfo(np.float32).max):
        raise ConfigError(f"threshold: expected a raw score, a float32 above 0, found {threshold}")
    subject = open_subject(detector, device)
    dataset = dataset or load_dataset(
        data, bad=bad, masks=masks, spec=subject.spec, ignore=subject.ignore, allow_duplicates=allow_duplicates, progress=progress
    )
    report = subject.evaluate(dataset, progress)
    scored = report.scored
    line = subject.threshold.value if threshold is None else threshold
    picks = pick(scored, line)
    with subject.predictor() as predict:
        shots = _shots(predict, subject, scored, picks, line, progress)
        margins = dict(zip(subject.dataset.odd, subject.dataset.odd_margins, strict=False))
        odd = [
            (develop(predict, s, subject.spec, subject.display, subject.threshold, line, own_scale=True), margins.get(dataset.name_of(s)))
            for s in odd_samples(dataset, subject.dataset.odd)
        ]
        shots["odd"] = [as_shot(part, margin) for part, margin in odd]
    bench = run_bench(detector, device=device, count=BENCH_RUNS) if subject.sort == "bundle" else None
    page = _render(subject, report, dataset, line, picks, shots, bench)
    try:
        put_file(out, page.encode())
    except OSError as e:
        raise ConfigError(f"out: {out} cannot be written: {e.strerror or e}") from e
    return report


def banner(subject: Subject, scored: Scored) -> Banner:
    """What was found when the bundle was built; where nobody asked then, what the defaults say of these very images."""
    usual = default_criteria(subject.threshold.false_reject_rate)
    if (found := subject.acceptance) is not None:
        how = "by the build, which wrote no bundle" if subject.refused else "when it was built" + ", which was done by force" * found.forced
        words = f"{found.why}. So it was found {how}."
    else:
        good, bad = scored.pick(True).score, scored.pick(False).score
        bad = bad if len(bad) >= LEAST_REAL else bad[:0]
        found = judge_acceptance(usual, good, bad, subject.threshold.value, "real")
        words = f"{found.why}; judged on the images of this page, by what is asked where nobody asks ({usual.words})."
    max_missed = found.max_missed if found.basis == "real" else usual.max_missed  # what was asked of painted ones is another thing
    return Banner(found.state, words[0].upper() + words[1:], max_missed, found.max_rejected)


def better_of(subject: Subject, scored: Scored) -> Better | None:
    """Another threshold that rejects the stated share of these good images, where it misses fewer."""
    c = cut(scored, subject.threshold.value)
    if not (c.good and c.bad):
        return None
    rate = subject.threshold.false_reject_rate
    found = best_within(scored.pick(True).score, scored.pick(False).score, c.good.k / c.good.n if rate is None else rate)
    return found if found is not None and found.missed < c.bad.k / c.bad.n else None


def groups_of(subject: Subject, scored: Scored) -> list[Group]:
    """Rows of the histogram: held-out good, good, then each kind of defect."""
    score = scored.scores.score
    groups = [Group("held-out good", True, subject.held_out)] if len(subject.held_out) else []
    if scored.is_good.any():
        groups.append(Group("good", True, score[scored.is_good]))
    kinds: dict[str, list[int]] = {}
    for i in np.flatnonzero(~scored.is_good):
        kinds.setdefault(scored.samples[i].kind, []).append(int(i))
    drawn = sorted(kinds, key=lambda kind: -len(kinds[kind]))
    if len(drawn) > KINDS_DRAWN:
        rare = drawn[KINDS_DRAWN - 1 :]
        kinds[f"{len(rare)} rarer kinds"] = [i for kind in rare for i in kinds[kind]]
        drawn = [*drawn[: KINDS_DRAWN - 1], f"{len(rare)} rarer kinds"]
    return groups + [Group(kind, False, score[kinds[kind]]) for kind in sorted(drawn)]


def _shots(predict: Predict, subject: Subject, scored: Scored, picks: Picks, line: float, progress: Progress) -> dict[str, list[Shot]]:
    found: dict[str, list[Shot]] = {}
    rows = {"false_rejects": picks.false_rejects, "false_accepts": picks.false_accepts, "typical": picks.typical}
    total = sum(map(len, rows.values()))
    for name, wanted in rows.items():
        found[name] = []
        for row in wanted:
            found[name] += shoot(predict, scored, [row], subject.spec, subject.display, subject.threshold, line)
            progress("draw pictures", sum(map(len, found.values())), total)
    return found


def _render(
    subject: Subject,
    report: EvaluationReport,
    dataset: Dataset,
    line: float,
    picks: Picks,
    shots: dict[str, list[Shot]],
    bench: BenchReport | None,
) -> str:
    scored, stated = report.scored, subject.threshold.value
    groups = groups_of(subject, scored)
    axis = Axis.over(np.concatenate([g.scores for g in groups]), stated)
    now = datetime.datetime.now(datetime.UTC)
    release, stated_cut = banner(subject, scored), cut(scored, stated)
    better = better_of(subject, scored)
    alarm = {
        "bad": stated_cut.bad is not None and stated_cut.bad.k > release.max_missed * stated_cut.bad.n,
        # One part alone says little of a small share.
        "good": stated_cut.good is not None and stated_cut.good.k > max(release.max_rejected * stated_cut.good.n, 1),
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "percent": percent,
        "at_most": partial(percent, up=True),
        "at_least": partial(percent, down=True),
        "figure": figure,
        "difference": difference,
    }
    return environment.get_template("report.html").render(
        s=subject,
        m=report.metrics,
        report=report,
        line=line,
        moved=line != stated,
        stated_cut=stated_cut,
        release=release,
        alarm=alarm,
        better=better,
        sets=SETS,
        line_cut=cut(scored, line),
        line_metrics=measure(scored, line),
        prices=threshold_table(scored, stated, line, None if better is None else better.value),
        histogram=histograms(groups, axis, stated, line),
        curves=_curves(scored, report.metrics, stated, line),
        regions=Count(int(scored.hits.sum()), int(scored.regions.sum())) if scored.regions.sum() else None,
        kinds=[(row, Count(row.rejected, row.n)) for row in report.kinds],
        shots=shots,
        picks=picks,
        slider=(100 * LEFT / WIDTH, 100 * (RIGHT - LEFT) / WIDTH),
        heat=heat_css(),
        bench=bench,
        envelope=envelope_chart(subject.envelope) if subject.envelope else "",
        straying=envelope_sentences(subject.envelope) if subject.envelope else [],
        brittle=brittle(subject.envelope) if subject.envelope else [],
        figures=_FIGURES,
        caveats=_caveats(subject, report),
        notes=[n for n in (*report.notes, say_lossy(subject.dataset)) if n and _FLATTERS not in n],  # those are caveats
        compressed=say_measured(subject.dataset),
        data_name=dataset.name,
        data_test=bool(dataset.test),
        written=now.strftime("%Y-%m-%d %H:%M UTC"),
        version=edge_runtime.__version__,
        script={
            "groups": [
                {"name": g.name, "good": g.good, "own": g.name != "held-out good", "scores": np.sort(g.scores).tolist()} for g in groups
            ],
            "axis": msgspec.to_builtins({"low": axis.low, "high": axis.high, "log": axis.log, "left": LEFT, "right": RIGHT}),
            "curve": CURVE_FRAME,
            "stated": stated,
            "line": line,
        },
    )


def _curves(scored: Scored, m: Metrics, stated: float, line: float) -> list[tuple[str, str, float | None]]:
    """(title, drawing, area) of the ROC and the precision-recall curve; none without both classes."""
    if not (m.n_good and m.n_bad):
        return []
    bad, score = ~scored.is_good, scored.scores.score
    fpr, tpr, _ = roc_curve(bad, score)
    precision, recall, _ = precision_recall_curve(bad, score)

    def at(value: float) -> tuple[float, float, float]:
        (fr, n_good), (fa, n_bad) = measure_counts(scored, value)
        caught = n_bad - fa
        return fr / n_good, caught / n_bad, caught / (caught + fr) if caught + fr else 1.0

    marks = [("stated", at(stated)), ("line", at(line))] if line != stated else [("line", at(line))]
    share = m.n_bad / (m.n_good + m.n_bad)
    roc = curve(
        fpr, tpr, name="roc", title="ROC curve", labels=("good parts rejected", "bad parts rejected"),
        points=[(sort, x, y) for sort, (x, y, _) in marks], chance=((0, 0), (1, 1)),
    )  # fmt: skip
    pr = curve(
        recall[::-1], precision[::-1], name="pr", title="Precision-recall curve", labels=("bad parts rejected (recall)", "precision"),
        points=[(sort, y, p) for sort, (_, y, p) in marks], chance=((0, share), (1, share)),
    )  # fmt: skip
    return [("ROC", roc, m.image_auroc), ("Precision and recall", pr, m.image_ap)]


def _caveats(subject: Subject, report: EvaluationReport) -> list[tuple[str, str]]:
    """(badge, sentence) of what makes figures at the threshold flatter, or rest on what is no photograph."""
    t = subject.threshold
    found = []
    if t.n_synthetic:
        some = "all" if t.n_synthetic >= t.n_bad else f"{t.n_synthetic} of {t.n_bad}"
        found.append(
            ("rests on synthetic defects", f"The threshold was set with painted defects ({some} of its bad images), not with photographs of"
             " real ones. Every figure marked so rests on them; figures without the mark do not."),
        )  # fmt: skip
    if t.from_test_split:
        found.append(
            ("flatters", "The threshold was calibrated on the test split: figures marked so flatter if these are the same images.")
        )
    else:
        found += [("flatters", f"{note[0].upper()}{note[1:]}.") for note in report.notes if _FLATTERS in note]
    return found


def figure(value: float | None) -> str:
    """Four digits, or a dash."""
    return "–" if value is None else f"{value:.4f}"


def difference(after: float | None, before: float | None) -> str:
    """With its sign, or a dash."""
    return "–" if after is None or before is None else f"{after - before:+.4f}".replace("-", "−")
