"""How far a line may stray from what was taught before its verdicts' promise breaks: light, blur, position, noise and JPEG, in seconds.

A sample of good and bad images is distorted as the camera would give it (training.judging.distort), prepared as ever, and scored by
whatever is given: an export gives the very graph that ships (training.judging.strayed). Then strengths between those that held and those
that did not are tried, too, of the same images, until each limit is one that was tried and held (training.judging.promise, which says what
counts as held).

Good images are those of the test split where it has enough of them. Else images of the training set stand in, which the detector has seen.

Why: deploy/decisions/0028.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from edge_runtime.model.manifest import Envelope, InputSpec, Placement, Wander
from edge_runtime.model.placement import Shrinker
from training.judging.acceptance import Criteria
from training.judging.distort import CLEAN, CONDITIONS, Condition, origin_of
from training.judging.placed import mean_of, watched_axes
from training.judging.promise import Limit, Promise, Scores
from training.judging.strayed import Array, Budget, Judge, Seen, Shot, Strayed, columns

MOST_GOOD, MOST_BAD = 48, 24
LEAST_GOOD = 8
"""Fewer tell nothing."""
ENOUGH_GOOD, ENOUGH_BAD = 20, 10
"""Before so many, the time that was given is overdrawn."""
LEAST_REAL = 3
"""With fewer real bad images, painted ones stand in."""
BUDGET_S = 25.0
"""Seconds of CPU time, all threads together: on two free cores half of it passes."""
_FIRST = 0.7
"""Share of it for the conditions that are tried anyway; the rest for those in between."""
_ROUNDS = 3
"""A strength that was proposed and does not hold is followed by a lesser one."""
_SIDES: dict[str, tuple[str, int]] = {
    "light_low": ("light", -1), "light_high": ("light", 1), "gamma_low": ("gamma", -1), "gamma_high": ("gamma", 1), "blur": ("blur", 1),
    "shift": ("shift", 1), "turn": ("turn", 1), "noise": ("noise", 1), "jpeg": ("jpeg", -1),
}  # fmt: skip
"""Ways of straying, and on which side of a picture that does not stray they lie."""


@dataclass(frozen=True, slots=True)
class Good:
    """A good image."""

    path: Path
    held_out: float | None = None
    """Its held-out score where the detector was taught it; None where it was not."""


def measure_envelope(
    judge: Judge,
    spec: InputSpec,
    ignored: npt.NDArray[np.uint8] | None,
    good: Sequence[Good],
    bad: Sequence[Path],
    threshold: float,
    asked: Criteria,
    *,
    placed: bool = True,
    seed: int = 0,
    budget_s: float = BUDGET_S,
    reference: Path | None = None,
) -> Envelope | None:
    """Measure all of CONDITIONS on a sample of the images, and what lies between them; None with fewer than LEAST_GOOD good ones, or with
    tiles too many for the time.

    Args:
        judge: scores model inputs; called with those of one image under all conditions.
        spec, ignored: of the product, as for Preprocessor.
        good: see Good.
        bad: real bad images that were not learnt from; with fewer than LEAST_REAL, defects are painted into the good ones.
        threshold: a part is rejected when its score is larger.
        asked: what the verdicts promise (training.judging.acceptance.promised).
        placed: its score is that of its map's highest cells; False: of the whole picture, of which a seam is little.
        seed: of the sample, of the directions and of what is painted.
        budget_s: after so many seconds of CPU time no further image is begun; with enough time the result does not depend on it.
        reference: the file to write the mean picture of good parts to, where it tells where they lie; None: nobody asks for that.

    Raises:
        DataError: an image that cannot be read.
    """
    if len(good) < LEAST_GOOD:
        return None
    rng = np.random.default_rng(seed)
    real = len(bad) >= LEAST_REAL
    chosen = [good[i] for i in rng.permutation(len(good))[:MOST_GOOD]]
    if real:
        defects = [Shot(bad[i], None, False, n) for n, i in enumerate(rng.permutation(len(bad))[:MOST_BAD])]
    else:
        defects = [Shot(chosen[n % len(chosen)].path, None, True, n) for n in range(MOST_BAD)]
    goods = [Shot(g.path, g.held_out, None, n) for n, g in enumerate(chosen)]
    shots = _interleaved(goods, defects)
    shrink = Shrinker(spec, ignored) if reference is not None and Shrinker.suits(spec) else None
    enough = lambda n_good, n_bad: n_good >= ENOUGH_GOOD and n_bad >= ENOUGH_BAD  # noqa: E731
    budget = Budget(_FIRST * budget_s, enough, LEAST_GOOD * len(shots) / len(goods))
    seen = Strayed(judge, spec, ignored, placed=placed, seed=seed, shrink=shrink).look(shots, CONDITIONS, budget)
    if sum(s.shot.painted is None for s in seen) < LEAST_GOOD:
        return None
    again = Strayed(judge, spec, ignored, placed=placed, seed=seed)
    found = _summed_up(seen, again, threshold, asked, "real" if real else "painted")
    if shrink is None or reference is None:
        return found
    small = [s.small for s in seen if s.small is not None]
    axes = watched_axes(small, shrink.ignored, found.shift_limit, found.turn_limit)
    if not axes:
        return found
    _, png = cv2.imencode(".png", mean_of(small))
    reference.write_bytes(png.tobytes())
    return msgspec.structs.replace(found, placement=Placement(reference=reference.name, axes=axes))


def _interleaved(good: Sequence[Shot], bad: Sequence[Shot]) -> list[Shot]:
    """In proportion, so that both are there whenever time is up."""
    places = [((i + 0.5) / len(shots), k, shot) for k, shots in enumerate((good, bad)) for i, shot in enumerate(shots)]
    return [shot for _, _, shot in sorted(places, key=lambda p: p[:2])]


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known of the images under all conditions that were tried until now."""

    scores: Scores
    bright: Mapping[Condition, float]
    """Median brightness of the good images, relative to the clean ones'."""
    sharp: Mapping[Condition, float]

    @classmethod
    def of(cls, seen: Sequence[Seen], conditions: Sequence[Condition]) -> "_Found":
        at = columns(conditions)
        goods, bads = ([s for s in seen if (s.shot.painted is None) is good] for good in (True, False))
        good = np.stack([s.scores for s in goods])
        bad = np.stack([s.scores for s in bads]) if bads else np.empty((0, len(conditions)))
        bright, sharp = (
            np.median([np.array(values) / max(values[0], 1e-6) for values in of], axis=0)
            for of in ([[x.brightness for x in s.sights] for s in goods], [[x.sharpness for x in s.sights] for s in goods])
        )
        return cls(
            Scores({c: good[:, rows] for c, rows in at.items()}, {c: bad[:, rows[0]] for c, rows in at.items()}),
            {c: float(bright[rows[0]]) for c, rows in at.items()},
            {c: float(sharp[rows[0]]) for c, rows in at.items()},
        )

    def __or__(self, more: "_Found") -> "_Found":
        return _Found(self.scores | more.scores, {**self.bright, **more.bright}, {**self.sharp, **more.sharp})


def _summed_up(seen: Sequence[Seen], again: Strayed, threshold: float, asked: Criteria, basis: Literal["real", "painted"]) -> Envelope:
    found = _Found.of(seen, CONDITIONS)
    promise = Promise.of(threshold, asked, found.scores, basis == "painted")
    shots = [s.shot for s in seen]
    for _ in range(_ROUNDS):
        limits = _limits(promise, found.scores)
        between = [x.between for x in limits.values() if x.between is not None and x.held in (CLEAN, *CONDITIONS)]
        if not between:
            break
        tried = (CLEAN, *between)
        found |= _Found.of(again.look(shots, tried), tried)
    limits = _limits(promise, found.scores)
    goods = [s for s in seen if s.shot.painted is None]
    n_bad = len(seen) - len(goods)
    rows = tuple(_rows(promise, found.scores, {c for x in limits.values() for c in x.chance}, n_bad))
    brightness, brightness_spread = _middle([s.own.brightness for s in goods])
    sharpness, sharpness_spread = _middle([s.own.sharpness for s in goods])
    noise, noise_spread = _middle([s.own.noise for s in goods])

    def at(side: str, values: Mapping[Condition, float] | None = None) -> float | None:
        """The furthest that held, as an amount or by what it makes of the pictures; None where it held as far as was tried."""
        limit = limits[side]
        if not limit.breaks:
            return None
        if values is not None:
            return round(values[limit.held], 4)
        return origin_of(_SIDES[side][0]) if limit.held == CLEAN else limit.held.amount

    return Envelope(
        rows=rows, basis=basis if n_bad else "none", n_good=len(goods), n_bad=n_bad, brightness=brightness, sharpness=sharpness,
        brightness_spread=brightness_spread, sharpness_spread=sharpness_spread, noise=noise, noise_spread=noise_spread,
        light_low=at("light_low", found.bright), light_high=at("light_high", found.bright), blur_low=at("blur", found.sharp),
        light_low_breaks=limits["light_low"].breaks, light_high_breaks=limits["light_high"].breaks, blur_breaks=limits["blur"].breaks,
        gamma_low=at("gamma_low"), gamma_high=at("gamma_high"), shift_limit=at("shift"), shift_breaks=limits["shift"].breaks,
        turn_limit=at("turn"), turn_breaks=limits["turn"].breaks, noise_limit=at("noise"), noise_breaks=limits["noise"].breaks,
        max_rejected=promise.max_rejected, max_missed=promise.max_missed, held_out=all(s.shot.held_out is None for s in goods),
    )  # fmt: skip


def _limits(promise: Promise, scores: Scores) -> dict[str, Limit]:
    return {side: promise.limit(scores, list(_path(scores.good, what, sign))) for side, (what, sign) in _SIDES.items()}


def _path(tried: Mapping[Condition, Array], what: str, sign: int) -> Iterator[Condition]:
    """What was tried of one side of a way of straying, from the least on."""
    side = [c for c in tried if c.what == what and (c.amount - origin_of(what)) * sign > 0]
    yield from sorted(side, key=lambda c: abs(c.amount - origin_of(what)))


def _rows(promise: Promise, scores: Scores, chance: set[Condition], n_bad: int) -> Iterator[Wander]:
    """A row a condition, the clean pictures first; what breaks by chance alone holds."""
    order = list(dict.fromkeys(c.what for c in CONDITIONS))
    for condition in sorted(scores.good, key=lambda c: (order.index(c.what), abs(c.amount - origin_of(c.what)), c.amount)):
        worst, bad = promise.worst(scores.good[condition]), scores.bad[condition]
        breaks = "" if condition in chance else promise.broken(scores, condition)
        labels = np.repeat([False, True], [len(worst), len(bad)])
        yield Wander(
            what=condition.what,  # type: ignore[arg-type]
            amount=condition.amount,
            image_auroc=float(roc_auc_score(labels, np.concatenate([worst, bad]))) if n_bad else None,
            rejected=float((worst > promise.threshold).mean()),
            missed=float((bad <= promise.threshold).mean()) if n_bad else None,
            holds=not breaks,
            breaks=breaks,
        )


def _middle(values: Sequence[float]) -> tuple[float, float]:
    """Median, and the standard deviation relative to it, from the median absolute deviation: odd parts do not count."""
    median = max(float(np.median(values)), 1e-6)
    return round(median, 6), round(1.4826 * float(np.median(np.abs(np.array(values) - median))) / median, 6)
