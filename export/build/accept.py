"""Whether what an export has built is fit for release: which good and bad parts it is judged on, and what becomes of one that is not."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import CalibrationError, NotAccepted
from edge_runtime.model.manifest import Acceptance, Metrics, Threshold
from export.build.gate import Judged
from training.calibrate.bounds import clopper_pearson, percent
from training.calibrate.gap import left_out
from training.calibrate.rules import Rule, Scores, apply_rule, stated_rate
from training.data.dataset import Dataset
from training.judging.acceptance import LEAST_REAL, Basis, Criteria, default_criteria, forced, judge_acceptance, rejects_evidence
from training.judging.telling import SETS, Better, Told

PAINTED = 100
"""Defects painted into held-out good images where there are no bad parts to judge by."""
PAINTED_SEED = 1_000_003
"""Added to the run's: not the pictures that a rule with painted defects has set the threshold by."""
_SURE = 0.975
"""Confidence of a share's lower bound: one that lies above what is asked is no chance."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a build."""

    criteria: Criteria | None = None
    """None: the defaults (training.judging.acceptance)."""
    force: bool = False
    """Build one that fails, and say so in it for ever."""


def wants_painted(dataset: Dataset) -> bool:
    """Whether there are too few bad parts to judge by."""
    return sum(not s.is_good for s in dataset.scored) < LEAST_REAL


def accept(
    asked: Asked,
    rule: Rule,
    threshold: Threshold,
    judged: Judged,
    held_out: Scores,
    painted: Scores | None,
    apart: int = 0,
) -> Acceptance:
    """The verdict, marked where it is built in spite of it.

    Args:
        asked: what is asked.
        rule: how the threshold came about: bad images that have set it judge it only as if each had been left out.
        threshold: of the model that ships.
        judged: that model on the images of the gate.
        held_out: scores of good training images by heads that did not see them.
        painted: likewise of defects painted into them; None where real ones count.
        apart: good images that were set apart as odd (`apply_rule`).
    """
    bad, basis, of_bad, missed = _bad(rule, judged, held_out, painted, apart)
    criteria = asked.criteria or default_criteria(threshold.false_reject_rate, basis)
    good, of_good = rejects_evidence(judged.scores_of("test", True).score, held_out.score, criteria.max_rejected, threshold.value)
    remark = ""
    if rule.from_test_split:
        of_bad, remark = "", "the threshold was set on the test split, so these figures flatter"
    if apart:
        were = f"{apart} good image{'s were' if apart > 1 else ' was'}"
        out = f"{were} set apart as unlike the others and not counted: parts that are so by right would be rejected (odd.txt, --keep-odd)"
        remark = "; ".join(filter(None, (remark, out)))
    found = judge_acceptance(criteria, good, bad, threshold.value, basis, of_good=of_good, remark=remark, of_bad=of_bad, missed=missed)
    found = msgspec.structs.replace(found, apart=apart)
    return forced(found) if found.state == "failed" and asked.force else found


def hopeless(asked: Asked, rule: Rule, threshold: Threshold, judged: Judged, held_out: Scores, apart: int, band: float) -> str | None:
    """What an FP32 model fails by, where no other precision of it can be fit for release; None where one may. See `accept`.

    More parts are judged wrongly than is asked for, beyond what chance explains, and still more without those in the `band` round the
    threshold within which verdicts of precisions may differ (a share of it). Bad parts that have set the threshold are left to `accept`.
    """
    if rule.bad is not None or rule.from_test_split:
        return None
    found = accept(Asked(asked.criteria), rule, threshold, judged, held_out, None, apart)
    if found.state != "failed":
        return None
    bad = _bad(rule, judged, held_out, None, apart)[0]
    good, _ = rejects_evidence(judged.scores_of("test", True).score, held_out.score, found.max_rejected, threshold.value)
    sides = (
        (found.missed, int((bad <= (1 - band) * threshold.value).sum()), found.n_bad, found.max_missed),
        (found.rejected, int((good > (1 + band) * threshold.value).sum()), found.n_good, found.max_rejected),
    )
    clear = any(n and clopper_pearson(k, n, _SURE)[0] > limit and surely > limit * n for k, surely, n, limit in sides)
    return found.sentence if clear else None


def is_refused(found: Acceptance | None) -> bool:
    """Whether no bundle comes of it."""
    return found is not None and found.state == "failed" and not found.forced


def refusal(
    found: Acceptance, told: Told | None, precision: str, metrics: Mapping[str, Metrics], apart: int, odd: Sequence[str] = (),
    doubts: Sequence[str] = (),
) -> NotAccepted:  # fmt: skip
    """What is said of a model that is refused, all of it of the one that would have shipped.

    Args:
        found: the verdict.
        told: what the threshold does kind by kind.
        precision: of the model.
        metrics: by precision.
        apart: good images that were held for bad and not learnt.
        odd: names of those that look unlike the others, the oddest first.
        doubts: what of the data may be why good parts are rejected (`Dataset.doubts`).
    """
    limits = Criteria(found.max_missed, found.max_rejected)
    kinds = (
        []
        if told is None
        else [
            line.plain.strip().removesuffix(f"; {SETS}")
            for line in dataclasses.replace(
                told, doubtful=None, names=((), ()), unset=None, better=None if told.blind else told.better
            ).lines(limits)[1:]
        ]
    )
    other = unlike(metrics, precision)
    too_many = found.rejected > found.max_rejected * found.n_good
    why = [doubt[0].upper() + doubt[1:] for doubt in doubts] if too_many else []
    found_of = ". ".join([f"the {precision.upper()} model: {found.sentence}", *why, *kinds, *([other] if other else [])])
    # The surest first: what is measured to help, then what the images hint at, then what may help anybody.
    ways = []
    if told is not None and (gap := told.gap(limits)) is not None:
        ways.append(
            "put the threshold between the good and bad images of the test split (lineside-train calibrate RUN --gap --from-test, and build"
            f" again: the {precision.upper()} model's threshold would be {gap.value:.4g}, and miss {percent(gap.missed)} and reject"
            f" {percent(gap.rejected)} of these, which flatters from then on)"
        )
    if precision != "fp32" and found.confidence is None and _meets(metrics["fp32"], limits):
        ways.append(
            "build it in FP32, which keeps what is asked on these images and is slower (lineside-export build RUN --precision fp32)"
        )
    if apart and found.rejected:
        ways.append(f"look at the {apart} images that were held for bad: learn them if they are good (--keep-odd)")
    elif odd and too_many:
        some = f"{len(odd)} good images that look unlike the others ({odd[0]} first)"
        some = some if len(odd) > 1 else f"good image that looks unlike the others ({odd[0]})"
        ways.append(f"look at the {some}, and teach without those that are bad (--leave-out RUN/odd.txt)")
    ways += ["try another method or size (lineside-train compare)", "ask for less (--accept)"]
    advice = f"{', '.join(ways)}, or build it all the same with --force: it then says for ever that it was not released"
    labels = "" if told is None or told.doubtful is None else f"First look, {told.doubtful}. Then "
    return NotAccepted(f"{found_of}. {labels}{advice if labels else advice[0].upper() + advice[1:]}")


def between(good: Scores, bad: Scores) -> Better | None:
    """The threshold that `calibrate --gap --from-test` and another build of the run come to, by the very rule; None where there is none.

    `good`, `bad`: of the model that ships, on the test split.
    """
    try:
        threshold, _ = apply_rule(Rule(kind="gap", from_test_split=True), good, bad if len(bad) else None)
    except CalibrationError:
        return None
    return Better(threshold.value, float((good.score > threshold.value).mean()), float((bad.score <= threshold.value).mean()))


def _meets(metrics: Metrics, limits: Criteria) -> bool:
    """Whether shares that were seen keep what is asked; not where a share that counts was not measured."""
    shares = ((metrics.false_accept_rate, limits.max_missed), (metrics.false_reject_rate, limits.max_rejected))
    return all(limit >= 1 or (share is not None and share <= limit) for share, limit in shares)


def unlike(metrics: Mapping[str, Metrics], precision: str) -> str | None:
    """What FP32 would do otherwise than the model that ships, at its own threshold; None where the counts are the same."""
    here, exact = metrics[precision], metrics["fp32"]
    parts = []
    for key, count, verb, what in (
        ("false_reject_rate", exact.n_good, "reject", "good"),
        ("false_accept_rate", exact.n_bad, "miss", "bad"),
    ):
        before, now = getattr(exact, key), getattr(here, key)
        if before is not None and now is not None and round(before * count) != round(now * count):
            parts.append(f"{verb} {round(before * count)} instead of {round(now * count)} of {count} {what}")
    return f"FP32, before it was quantized, would {' and '.join(parts)}" if parts else None


def _bad(
    rule: Rule, judged: Judged, held_out: Scores, painted: Scores | None, apart: int
) -> tuple[npt.NDArray[np.float64], Basis, str, npt.NDArray[np.bool_] | None]:
    """(scores, basis, remark, which are missed if that is not told by the threshold)."""
    samples, score = judged.scored.samples, judged.scored.scores.score
    given = np.array([s.split == "bad" for s in samples], dtype=bool)
    others = ~judged.scored.is_good & ~given
    if others.sum() >= LEAST_REAL:
        return score[others], "real", "", None
    if given.sum() >= LEAST_REAL:
        if rule.kind == "gap" and rule.bad is not None:
            within = stated_rate(rule, len(held_out))
            base, _ = apply_rule(within, held_out, None, apart)
            assert within.target is not None
            missed = left_out(held_out.score, score[given], base.value, within.target)
            return score[given], "real", "these bad parts have set the threshold, so each is judged by the one that the others set", missed
        remark = "these bad parts have set the threshold, so the figures flatter" if rule.bad is not None else ""
        return score[given], "real", remark, None
    if painted is not None and len(painted):
        return painted.score, "painted", "real defects may score higher or lower than painted ones", None
    return np.empty(0), "none", "", None
