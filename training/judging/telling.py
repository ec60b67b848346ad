"""What a threshold does to parts whose truth is known, in a sentence that a line engineer reads first."""

import dataclasses
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.text import Text
from sklearn.metrics import roc_auc_score

from training.calibrate.bounds import percent
from training.calibrate.gap import LEAST_BAD
from training.calibrate.rules import Rule
from training.calibrate.suspects import say_suspects, suspects
from training.core.base import Progress, silent
from training.data.dataset import Dataset
from training.data.layout import Sample, first_of, images_in
from training.data.taught import unlearnt
from training.fitting.recalibrate import score_samples
from training.judging.acceptance import Criteria, default_criteria
from training.judging.inverted import say_inverted
from training.runs import Run

CAP = 400
"""Images scored to tell: seconds in torch, and a share that is known to within a few per cent."""
WORST = 4
"""Kinds of defect that are named."""
BLIND = 0.75
"""AUROC of a kind of defect below which no threshold is of use against it."""
LEAST_OF_A_KIND, LEAST_GOOD = 5, 10
"""Images that such a sentence takes."""

SETS = "to set one like it: lineside-train calibrate RUN --gap with --from-test or --bad FOLDER, or lineside tune at a station"
"""What moves a threshold."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Better:
    """Another threshold, found on the images themselves."""

    value: float
    rejected: float
    missed: float


@dataclass(frozen=True, slots=True)
class Told:
    """Counts at a threshold."""

    what: str
    """Which images: "test split"."""
    threshold: float
    rejected: int
    n_good: int
    missed: int
    n_bad: int
    kinds: tuple[tuple[str, int, int], ...]
    """(kind, missed, images), the worst missed first; those alone that miss some."""
    of_all: int | None = None
    """How many images there are, where only some were scored."""
    better: Better | None = None
    """The lowest threshold within the stated rate, where it would miss fewer."""
    inverted: str | None = None
    """A sentence where bad images score lower than good ones."""
    blind: tuple[tuple[str, float], ...] = ()
    """(kind, AUROC) of those that score much like good images, the worst first."""
    doubtful: str | None = None
    """A sentence where single labels look wrong."""
    names: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    """Good images that are rejected, the highest score first, and bad ones that are missed, the lowest first; each with its score as a
    multiple of the threshold."""
    unset: str | None = None
    """A sentence where the bad images did not set the threshold and could."""
    between: Better | None = None
    """The threshold that `calibrate --gap --from-test` and another build would come to; None where that was not asked, or there is none."""

    def gap(self, limits: Criteria) -> Better | None:
        """The threshold between good and bad images, where there is one that keeps what is asked."""
        b = self.between
        return b if b is not None and b.missed <= limits.max_missed and b.rejected <= limits.max_rejected else None

    @property
    def unseen(self) -> str | None:
        """What the blind kinds mean, and what may help."""
        if not self.blind:
            return None
        names = ", ".join(f"{kind} (AUROC {value:.2f})" for kind, value in self.blind[:WORST])
        return (
            f"no threshold tells {names} from good parts: if they are small in the picture, give the model more pixels (--image-size,"
            " --tiles), else try another method (lineside-train compare)"
        )

    def lines(self, limits: Criteria) -> list[Text]:
        """For a terminal: what is beyond the limits in red."""
        parts = []
        if self.n_good:
            words = f"rejects {self.rejected} of {self.n_good} good ({percent(self.rejected / self.n_good)})"
            parts.append((words, "bold red" if self.rejected > max(limits.max_rejected * self.n_good, 1) else ""))
        bad = self.missed > limits.max_missed * self.n_bad
        if self.n_bad:
            parts.append((f"misses {self.missed} of {self.n_bad} bad ({percent(self.missed / self.n_bad)})", "bold red" if bad else ""))
        some = "" if self.of_all is None else f" ({self.n_good + self.n_bad} of its {self.of_all} images, of all kinds alike)"
        told = [Text.assemble(f"{self.what}{some}: ", *[piece for i, p in enumerate(parts) for piece in ((", " if i else ""), p)])]
        if self.kinds and (len(self.kinds) > 1 or self.n_bad > self.kinds[0][2]):
            worst = ", ".join(f"{kind} {k} of {n}" for kind, k, n in self.kinds[:WORST])
            told.append(Text(f"  missed most: {worst}", style="red" if bad else ""))
        if self.inverted is not None:
            told.append(Text(f"  {self.inverted}", style="bold red"))
        elif bad and self.unseen is not None:
            told.append(Text(f"  {self.unseen}", style="red"))
        for what, names in (("good images that are rejected", self.names[0]), ("bad images that score like good parts", self.names[1])):
            if names:
                rest = len(names) - len(first_of(names))
                told.append(
                    Text(f"  {what}: {', '.join(first_of(names))}" + (f" and {rest} more, all on the report's page" if rest else ""))
                )
        if self.doubtful is not None:
            told.append(Text(f"  {self.doubtful}", style="red"))
        if self.inverted is None and (b := self.better) is not None and (bad or b.rejected * self.n_good <= self.rejected + 1e-9):
            how = f"; {SETS}" if self.unset is None else ""  # else that is said next
            told.append(
                Text(
                    f"  a threshold of {b.value:.4g} ({b.value / self.threshold:.2f}x) would miss {percent(b.missed)} and reject"
                    f" {percent(b.rejected)} of these images, by which it was found{how}"
                )
            )
        if self.unset is not None:
            told.append(Text(f"  {self.unset}"))
        return told


def tell(
    samples: Sequence[Sample], score: Array, threshold: float, rate: float | None, *, what: str = "test split", of_all: int | None = None
) -> Told | None:
    """What `threshold` does to these images; None where none of them is bad.

    Args:
        samples: (N,) images.
        score: (N,) their scores.
        threshold: a part is rejected when its score is larger.
        rate: the stated false-reject rate, for `Told.better`; None: the one that is seen.
        what, of_all: see Told.
    """
    good = np.array([s.is_good for s in samples], dtype=bool)
    if good.all():
        return None
    missed = ~good & (score <= threshold)
    names = np.array([s.kind for s in samples])
    rows = [(str(kind), int((missed & (names == kind)).sum()), int((~good & (names == kind)).sum())) for kind in np.unique(names[~good])]
    kinds = tuple(sorted((row for row in rows if row[1]), key=lambda row: (-row[1] / row[2], -row[1], row[0])))
    rejected, n_good = int((good & (score > threshold)).sum()), int(good.sum())
    better = best_within(score[good], score[~good], rate if rate is not None else rejected / max(n_good, 1))
    if better is not None and better.missed >= missed.sum() / (~good).sum():
        better = None
    inverted = say_inverted(score[good], score[~good])
    called = [f"{s.path.parent.name}/{s.path.name}" for s in samples]
    wrong = good & (score > threshold)
    told = [f"{name} ({value / threshold:.2f}x)" for name, value in zip(called, score, strict=True)]
    named = (
        tuple(told[i] for i in np.argsort(-score, kind="stable") if wrong[i]),
        tuple(told[i] for i in np.argsort(score, kind="stable") if missed[i]),
    )
    blind = []
    for kind, _, n in kinds:
        if n >= LEAST_OF_A_KIND and n_good >= LEAST_GOOD:
            rows = good | (names == kind)
            value = float(roc_auc_score(~good[rows], score[rows]))
            blind += [(kind, value)] if value < BLIND else []
    doubted = suspects(score, good, names.tolist())
    return Told(
        what, threshold, rejected, n_good, int(missed.sum()), int((~good).sum()), kinds, of_all, better, inverted,
        tuple(sorted(blind, key=lambda row: row[1])), say_suspects(samples, doubted, times=(score / threshold).tolist()),
        named,
    )  # fmt: skip


def best_within(good: Array, bad: Array, rate: float) -> Better | None:
    """Among the thresholds that reject no more than the stated share of these good images, to the nearest image and at least one, one that
    misses the fewest bad ones, and of these rejects the fewest good ones; half-way to the next score. None without both.

    It is found on the images that it is told of: what another line would see is a little worse.
    """
    if not (len(good) and len(bad)):
        return None
    ordered = np.sort(good)[::-1]
    floor = float(ordered[min(max(round(rate * len(good)), 1), len(good) - 1)])
    found = bad[bad > floor]
    if not len(found):
        return Better(floor, float((good > floor).mean()), 1.0)
    lowest, scores = float(found.min()), np.concatenate([good, bad])
    value = (float(scores[scores < lowest].max(initial=floor)) + lowest) / 2
    return Better(value, float((good > value).mean()), float((bad <= value).mean()))


def tell_run(run: Run, dataset: Dataset, progress: Progress = silent) -> Told | None:
    """Score the data's test split (or the images of --bad) in torch and tell; None where nothing bad is there. Raises DataError."""
    samples = unlearnt(dataset.test or [s for s in dataset.bad if s.split == "bad"], run.info.dataset)
    if all(s.is_good for s in samples):
        return None
    few = stratified(samples, CAP, run.info.seed)
    score = score_samples(run.detector(), few, run.preprocessor(), progress).score
    what = "test split" if dataset.test else "the bad images"
    all_ = len(samples) if len(few) < len(samples) else None
    told = tell(few, score, run.info.threshold.value, run.info.threshold.false_reject_rate, what=what, of_all=all_)
    return None if told is None else with_setter(told, run.info.rule, samples)


def with_setter(told: Told, rule: Rule, samples: Sequence[Sample]) -> Told:
    """Said, too, that known bad images have set no threshold, and what makes them; as it was where they have, or none is there."""
    bad = [s for s in samples if not s.is_good]
    if rule.bad is not None or rule.from_test_split or not bad:
        return told
    folders = {s.path.parent for s in bad}
    alone = len(folders) == 1 and _all_bad(next(iter(folders)), samples)
    how = f"--bad {shlex.quote(_from_here(folders.pop()))}" if alone else "lineside-train calibrate RUN --gap --from-test"
    few = f"; that takes {LEAST_BAD} of them or more" if len(bad) < LEAST_BAD else ""
    said = f"the {len(bad)} bad images tell how good this is and did not set the threshold; to put it between them and the good ones: {how}"
    return dataclasses.replace(told, unset=said + few)


def _all_bad(folder: Path, samples: Sequence[Sample]) -> bool:
    """Whether --bad may name it: one that a table describes holds good images, too, be they of the test split or not."""
    known = {s.path for s in samples if not s.is_good}
    return known.issuperset(images_in(folder)) and not any(s.is_good and s.path.is_relative_to(folder) for s in samples)


def _from_here(path: Path) -> str:
    """As short as it can be typed."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def stratified(samples: Sequence[Sample], cap: int, seed: int) -> list[Sample]:
    """At most about `cap` of them, the same share of every kind and at least one of each; all where they are few."""
    if len(samples) <= cap:
        return list(samples)
    rng = np.random.default_rng(seed)
    kinds: dict[tuple[bool, str], list[int]] = {}
    for i, sample in enumerate(samples):
        kinds.setdefault((sample.is_good, sample.kind), []).append(i)
    picks = [rng.permutation(rows)[: max(1, cap * len(rows) // len(samples))] for rows in kinds.values()]
    return [samples[int(i)] for i in np.sort(np.concatenate(picks))]


def show(told: Told | None, rate: float | None, console_print: Callable[[Text], None]) -> None:
    """Print it, coloured by the default limits."""
    for line in told.lines(default_criteria(rate)) if told is not None else ():
        console_print(line)
