"""How far a line may stray from what was taught before its verdicts' promise breaks: light, blur, position, noise and JPEG, in seconds.

A sample of good and bad images is distorted as the camera would give it (training.judging.distort), prepared as ever, and scored by
whatever is given: an export gives the very graph that ships.

The promise
    Of the good parts no more than three times the stated rate may be rejected, or the stated upper bound where that is larger: the rate is
    itself an estimate, and what a line engineer is promised is the bound. Where the clean pictures show more than the stated rate, twice
    the stated rate above what they show. Of the bad parts at most ten points more may be missed than of the clean pictures. One image
    more than of the clean pictures never breaks it: 48 images cannot tell 1 % from 2 %. Good images are shifted and turned every way, and
    the worst way counts: a fixture that wears moves all parts alike. The worst of several ways is granted one image more, as that of four
    draws is further out than one by chance alone.

What a shift brings into view from beyond the frame is made up (training.judging.distort), and its seam is no part's: where the detector's
map can have seen it, what it says of the undistorted picture stands, and the score follows the map. So a texture whose place means nothing
keeps its verdicts, and an outline that has moved is seen wherever it was photographed.

Good images are those of the test split where it has enough of them. Else images of the training set stand in, which the detector has seen:
what it says of the clean picture is then brought to that image's held-out score, and what it says of a distorted one by as much. All
scores here are distances, and a distortion adds to a distance as a leg to a hypotenuse, so the difference is taken of the squares: a
difference of the scores themselves would count what was seen twice, and their ratio has no bound where a bank remembers the very image.

Limits lie between the measured amounts where linear interpolation of each image's score says that the promise breaks. Scores rise ever
more steeply with a distortion, so a straight line between two points lies above them: limits err on the early side.

Why: deploy/decisions/0028.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from edge_runtime.errors import DataError
from edge_runtime.model.manifest import Envelope, InputSpec, Placement, Threshold, Wander
from edge_runtime.model.placement import Shrinker, Small
from edge_runtime.model.sight import Sight, SightMeter
from training.data.facts import load_frame
from training.judging.distort import CONDITIONS, Directions, Stage
from training.judging.placed import mean_of, watched_axes

Array = npt.NDArray[np.float64]
Judge = Callable[[npt.NDArray[np.uint8]], tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]]
"""(N, H, W, 3) uint8 BGR model inputs -> (N,) raw scores and (N, gh, gw) raw maps."""
Breaks = Literal["", "rejects", "misses", "both"]

_ONE_WAY = Directions(1, 1, 1, 0)
_OTHER_WAYS = tuple(
    (i, Directions(x, y, turn, 0))
    for i, c in enumerate(CONDITIONS)
    for x, y, turn in {"shift": ((1, -1, 1), (-1, 1, 1), (-1, -1, 1)), "turn": ((1, 1, -1),)}.get(c.what, ())
)
"""Good images are moved every way, each way for itself: a fixture that has shifted has shifted one way, and that may be the worst."""

MOST_GOOD, MOST_BAD = 48, 24
LEAST_GOOD = 8
"""Fewer tell nothing."""
ENOUGH_GOOD, ENOUGH_BAD = 20, 10
"""Before so many, the time that was given is overdrawn."""
_OVERDRAWN = 3.0
"""At most so many times."""
_CHUNK = 64
"""Pictures that are prepared at once."""
LEAST_REAL = 3
"""With fewer real bad images, painted ones stand in."""
BUDGET_S = 20.0
"""Seconds of CPU time, all threads together: on two free cores half of it passes. By the clock, the figures would depend on who else
computes."""
_DEFAULT_RATE = 0.01
_MORE_MISSED = 0.10
_REACH_PX, _REACH = 40, 1 / 6
"""Pixels of the model's input around what a distortion made up, at most this share of its side, whose map cells may have seen it: of a seam
mirrored into an unmoved texture, two and a half cells of stride 16 further a cell differs by a fifth as much as beside it."""
_HIGHEST = 5
"""Cells of a map whose mean stands for its score; detectors' own scores are the mean of so many, or of one."""
_STEPS = 50
"""Between two measured amounts."""


@dataclass(frozen=True, slots=True)
class Good:
    """A good image."""

    path: Path
    held_out: float | None = None
    """Its held-out score where the detector was taught it; None where it was not."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What may become of the verdicts."""

    threshold: float
    max_rejected: float
    """Share of good parts."""
    max_missed: float
    """Share of bad parts."""

    @classmethod
    def of(cls, threshold: Threshold, clean_rejected: float, clean_missed: float) -> "Promise":
        """The promise that these figures must keep: see the module's text."""
        stated = threshold.false_reject_rate or _DEFAULT_RATE
        most = max(max(stated, clean_rejected) + 2 * stated, threshold.false_reject_upper or 0.0)
        return cls(threshold.value, min(most, 1.0), min(clean_missed + _MORE_MISSED, 1.0))

    def breaks(self, good: Array, bad: Array, clean_good: Array, clean_bad: Array, ways: int = 1) -> Breaks:
        """What of it scores of good and bad images break, "" where it holds; `ways`: of so many, `good` are the worst."""
        rejects = _over(good > self.threshold, clean_good > self.threshold, self.max_rejected, 1 if ways == 1 else 2)
        misses = len(bad) > 0 and _over(bad <= self.threshold, clean_bad <= self.threshold, self.max_missed)
        return "both" if rejects and misses else "rejects" if rejects else "misses" if misses else ""


def _over(now: npt.NDArray[np.bool_], clean: npt.NDArray[np.bool_], most: float, granted: int = 1) -> bool:
    count = int(now.sum())
    return count > most * len(now) + 1e-9 and count > int(clean.sum()) + granted


def measure_envelope(
    judge: Judge,
    spec: InputSpec,
    ignored: npt.NDArray[np.uint8] | None,
    good: Sequence[Good],
    bad: Sequence[Path],
    threshold: Threshold,
    *,
    placed: bool = True,
    seed: int = 0,
    budget_s: float = BUDGET_S,
    reference: Path | None = None,
) -> Envelope | None:
    """Measure all of CONDITIONS on a sample of the images; None with fewer than LEAST_GOOD good ones, or with tiles too many for the time.

    Args:
        judge: scores model inputs; called with those of one image under all conditions.
        spec, ignored: of the product, as for Preprocessor.
        good: see Good.
        bad: real bad images that were not learnt from; with fewer than LEAST_REAL, defects are painted into the good ones.
        threshold: of the same detector.
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
        defects = [_Shot(bad[i], None, False, n) for n, i in enumerate(rng.permutation(len(bad))[:MOST_BAD])]
    else:
        defects = [_Shot(chosen[n % len(chosen)].path, None, True, n) for n in range(MOST_BAD)]
    goods = [_Shot(g.path, g.held_out, None, n) for n, g in enumerate(chosen)]
    shots = _interleaved(goods, defects)
    needed = LEAST_GOOD * len(shots) / len(goods)
    shrink = Shrinker(spec, ignored) if reference is not None and Shrinker.suits(spec) else None
    seen = _look_at_all(judge, _chunks(spec, ignored, shots, seed, placed, shrink), len(shots), needed, budget_s)
    if sum(s.shot.painted is None for s in seen) < LEAST_GOOD:
        return None
    found = _summed_up(seen, threshold, "real" if real else "painted")
    if shrink is None or reference is None:
        return found
    small = [s.small for s in seen if s.small is not None]
    axes = watched_axes(small, shrink.ignored, found.shift_limit, found.turn_limit)
    if not axes:
        return found
    _, png = cv2.imencode(".png", mean_of(small))
    reference.write_bytes(png.tobytes())
    return msgspec.structs.replace(found, placement=Placement(reference=reference.name, axes=axes))


@dataclass(frozen=True, slots=True)
class _Shot:
    path: Path
    held_out: float | None
    painted: bool | None
    """None for a good image."""
    number: int


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One image under some of the conditions: under all of them, a tiled one would fill the memory."""

    shot: _Shot
    first: int
    """Which of CONDITIONS is the first."""
    pictures: npt.NDArray[np.uint8]
    """(n x views, H, W, 3) model inputs, condition by condition."""
    invented: Sequence[npt.NDArray[np.bool_] | None]
    """(n,) which pixels of these are made up: (views, H, W) each."""
    sights: Sequence[Sight]
    """(n,) of the reduced frames."""
    own: Sight
    """The frame's own, as the device will measure it."""
    total: int
    """Conditions in all, those of further ways included."""
    small: Small | None
    """A good image's, where it is asked for."""


@dataclass(frozen=True, slots=True)
class _Seen:
    shot: _Shot
    scores: Array
    """(conditions,), of a good image those of further ways behind them."""
    sights: Sequence[Sight]
    """As many, of the reduced frames."""
    own: Sight
    """The frame's own."""
    small: Small | None


def _interleaved(good: Sequence[_Shot], bad: Sequence[_Shot]) -> list[_Shot]:
    """In proportion, so that both are there whenever time is up."""
    places = [((i + 0.5) / len(shots), k, shot) for k, shots in enumerate((good, bad)) for i, shot in enumerate(shots)]
    return [shot for _, _, shot in sorted(places, key=lambda p: p[:2])]


def _look_at_all(judge: Judge, chunks: Iterator[_Chunk], count: int, needed: float, budget_s: float) -> list[_Seen]:
    """Score the chunks of `count` images until time is up; at once where not even `needed` of them could be scored in time."""
    began = time.process_time()
    found: list[_Seen] = []
    scores, sights = np.empty(len(CONDITIONS)), list[Sight]()
    clean = np.empty((0, 0, 0))  # the unmoved picture's (views, gh, gw) maps
    for chunk in _one_ahead(chunks):
        spent, shot = time.process_time() - began, chunk.shot
        if chunk.first == 0:
            bad = sum(s.shot.painted is not None for s in found)
            enough = len(found) - bad >= ENOUGH_GOOD and bad >= ENOUGH_BAD
            if (spent > budget_s and enough) or (found and spent * min(needed, count) / len(found) > _OVERDRAWN * budget_s):
                break
            scores, sights = np.empty(chunk.total), []
        if spent > _OVERDRAWN * budget_s:
            break
        n = len(chunk.sights)
        judged, maps = (np.asarray(values, np.float64) for values in judge(chunk.pictures))
        judged, maps = judged.reshape(n, -1), maps.reshape(n, -1, *maps.shape[1:])
        clean = maps[0] if chunk.first == 0 else clean
        for i, pixels in enumerate(chunk.invented):
            if pixels is not None:
                judged[i] *= unseen(maps[i], clean, pixels)
        # A frame's score is the largest of its tiles'.
        scores[chunk.first : chunk.first + n] = judged.max(axis=1)
        sights += chunk.sights
        if len(sights) == chunk.total:
            if not np.isfinite(scores).all():
                raise DataError(f"{shot.path}: the detector gives no finite score for it under every condition; its weights are broken")
            found.append(_Seen(shot, _as_held_out(scores, shot.held_out), sights, chunk.own, chunk.small))
    return found


def unseen(moved: Array, clean: Array, invented: npt.NDArray[np.bool_]) -> Array:
    """(views, gh, gw) maps of a moved and of the unmoved picture, (views, H, W) pixels of the former that are made up -> (views,) by how
    much the score changes where the unmoved picture's cells stand in for those that may have seen such pixels."""
    wide, high = (2 * min(_REACH_PX, int(_REACH * side)) + 1 for side in invented.shape[:0:-1])
    near = [cv2.dilate(view.astype(np.uint8), np.ones((high, wide), np.uint8)).astype(np.float32) for view in invented]
    cells = np.stack([cv2.resize(view, moved.shape[:0:-1], interpolation=cv2.INTER_AREA) for view in near]) > 0
    if cells.all():  # a map so coarse tells nothing apart
        return np.ones(len(moved))
    highest = min(_HIGHEST, moved[0].size)
    top = [np.sort(m.reshape(len(m), -1))[:, -highest:].mean(axis=1) for m in (np.where(cells, clean, moved), moved)]
    return np.where(top[1] > 0, top[0] / np.maximum(top[1], 1e-12), 1.0)


def _chunks(
    spec: InputSpec, ignored: npt.NDArray[np.uint8] | None, shots: Sequence[_Shot], seed: int, placed: bool, shrink: Shrinker | None
) -> Iterator[_Chunk]:
    stage, meter = Stage(spec, ignored), SightMeter(spec, ignored=ignored)
    for shot in shots:
        frame = load_frame(shot.path, spec)
        reduced, plan = stage.reduce(frame)
        image = stage.paint(reduced, plan, seed, shot.number) if shot.painted else reduced
        if image is None:
            continue
        own = Directions.of(seed, shot.number)
        good = shot.painted is None
        moves = [(c, replace(_ONE_WAY, seed=own.seed) if good else own) for c in CONDITIONS]
        moves += [(CONDITIONS[i], way) for i, way in _OTHER_WAYS] if good else []
        step = max(1, _CHUNK // plan.prepare.views)
        for first in range(0, len(moves), step):
            some = moves[first : first + step]
            frames = [stage.distort(image, plan, *move) for move in some]
            pictures = np.concatenate([plan.prepare.split(f) for f in frames])
            invented = [stage.invented(plan, *move) if placed else None for move in some]
            small = shrink(frame) if good and shrink is not None else None
            yield _Chunk(shot, first, pictures, invented, [plan.meter(f) for f in frames], meter(frame), len(moves), small)


def _one_ahead(chunks: Iterator[_Chunk]) -> Iterator[_Chunk]:
    """Prepare the next one while this one is scored."""
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(next, chunks, None)
        while (chunk := pending.result()) is not None:
            pending = pool.submit(next, chunks, None)
            yield chunk


def _as_held_out(scores: Array, held_out: float | None) -> Array:
    """What the detector would say of the image if it had not been taught it; see the module's text."""
    seen = scores[0]
    if held_out is None or not held_out > seen > 0:
        return scores
    return np.asarray(np.sqrt(np.maximum(scores, 0.0) ** 2 + held_out**2 - seen**2))


def _summed_up(seen: Sequence[_Seen], threshold: Threshold, basis: Literal["real", "painted"]) -> Envelope:
    goods, bads = [s for s in seen if s.shot.painted is None], [s for s in seen if s.shot.painted is not None]
    good = np.stack([s.scores for s in goods])
    bad = np.stack([s.scores for s in bads]) if bads else np.empty((0, len(CONDITIONS)))
    promise = Promise.of(threshold, float((good[:, 0] > threshold.value).mean()), _share(bad[:, 0] <= threshold.value) or 0.0)
    labels = np.repeat([False, True], [len(good), len(bad)])
    rows = []
    for i, condition in enumerate(CONDITIONS):
        worst, ways = _worst_way(good, i, threshold.value)
        breaks = promise.breaks(worst, bad[:, i], good[:, 0], bad[:, 0], ways)
        rows.append(
            Wander(
                what=condition.what,  # type: ignore[arg-type]
                amount=condition.amount,
                image_auroc=float(roc_auc_score(labels, np.concatenate([worst, bad[:, i]]))) if len(bad) else None,
                rejected=float((worst > threshold.value).mean()),
                missed=_share(bad[:, i] <= threshold.value),
                holds=not breaks,
                breaks=breaks,
            )
        )
    bright, sharp = (
        np.median([np.array(values) / max(values[0], 1e-6) for values in of], axis=0)
        for of in ([[x.brightness for x in s.sights] for s in goods], [[x.sharpness for x in s.sights] for s in goods])
    )
    light = {c.amount: i for i, c in enumerate(CONDITIONS) if c.what == "light"}
    low, low_breaks = _limit(promise, good, bad, bright, [0, *(light[a] for a in sorted(light, reverse=True) if a < 1)])
    high, high_breaks = _limit(promise, good, bad, bright, [0, *(light[a] for a in sorted(light) if a > 1)])
    blur, blur_breaks = _limit(promise, good, bad, sharp, [0, *(i for i, c in enumerate(CONDITIONS) if c.what == "blur")])
    gamma = {c.amount: i for i, c in enumerate(CONDITIONS) if c.what == "gamma"}
    exponents = np.array([c.amount if c.what == "gamma" else 1.0 for c in CONDITIONS])
    gamma_low, _ = _limit(promise, good, bad, exponents, [0, *(gamma[a] for a in sorted(gamma, reverse=True) if a < 1)])
    gamma_high, _ = _limit(promise, good, bad, exponents, [0, *(gamma[a] for a in sorted(gamma) if a > 1)])
    noise, noise_breaks = _limit_of(promise, good, bad, "noise")
    shift, shift_breaks = _limit_of(promise, good, bad, "shift")
    turn, turn_breaks = _limit_of(promise, good, bad, "turn")
    brightness, brightness_spread = _middle([s.own.brightness for s in goods])
    sharpness, sharpness_spread = _middle([s.own.sharpness for s in goods])
    return Envelope(
        rows=tuple(rows), basis=basis if len(bad) else "none", n_good=len(good), n_bad=len(bad), brightness=brightness,
        sharpness=sharpness, brightness_spread=brightness_spread, sharpness_spread=sharpness_spread, light_low=low, light_high=high,
        blur_low=blur, light_low_breaks=low_breaks, light_high_breaks=high_breaks, blur_breaks=blur_breaks,
        gamma_low=gamma_low, gamma_high=gamma_high, shift_limit=shift, shift_breaks=shift_breaks, turn_limit=turn, turn_breaks=turn_breaks,
        noise_limit=noise, noise_breaks=noise_breaks, max_rejected=promise.max_rejected,
        held_out=all(s.shot.held_out is None for s in goods),
    )  # fmt: skip


def _worst_way(good: Array, i: int, threshold: float) -> tuple[Array, int]:
    """(n,) scores of the good images under a condition; of those that were moved, the way that costs most, and of how many."""
    ways = [good[:, i], *(good[:, len(CONDITIONS) + k] for k, (of, _) in enumerate(_OTHER_WAYS) if of == i)]
    return max(ways, key=lambda scores: (int((scores > threshold).sum()), float(scores.mean()))), len(ways)


def _share(values: npt.NDArray[np.bool_]) -> float | None:
    return float(values.mean()) if len(values) else None


def _limit_of(promise: Promise, good: Array, bad: Array, what: str) -> tuple[float | None, Breaks]:
    """The amount from which on the promise breaks, the worst way, and what breaks it."""
    rows = [i for i, c in enumerate(CONDITIONS) if c.what == what]
    others = [[len(CONDITIONS) + k for k, (of, _) in enumerate(_OTHER_WAYS) if of == i] for i in rows]
    ways = [rows, *(list(way) for way in zip(*others, strict=True))]
    amounts = np.array([0.0, *(CONDITIONS[i].amount for i in rows)])
    path = range(len(amounts))
    limits = [_limit(promise, good[:, [0, *way]], bad[:, [0, *rows]], amounts, path, len(ways)) for way in ways]
    broken = [(at, breaks) for at, breaks in limits if at is not None]
    return min(broken, key=lambda found: found[0], default=(None, ""))


def _limit(promise: Promise, good: Array, bad: Array, ratios: Array, path: Sequence[int], ways: int = 1) -> tuple[float | None, Breaks]:
    """What of `ratios` (such as the brightness, relative to the clean pictures') at which the promise first breaks along `path` (columns of
    the scores, the clean one first), and what breaks it; None where it holds to the end. `ways`: as of `Promise.breaks`.

    Where too many good parts are rejected at one amount, and at all further ones, two or more, they are not, that was chance: the amount
    is passed over.
    """
    found = [promise.breaks(good[:, i], bad[:, i], good[:, 0], bad[:, 0], ways) for i in path]
    chance = [n for n, breaks in enumerate(found) if breaks == "rejects" and len(found) - n > 2 and not any(found[n + 1 :])]
    for a, b in pairwise(i for n, i in enumerate(path) if n not in chance):
        for t in np.linspace(0, 1, _STEPS + 1)[1:]:
            between = [scores[:, a] + t * (scores[:, b] - scores[:, a]) for scores in (good, bad)]
            if breaks := promise.breaks(between[0], between[1], good[:, 0], bad[:, 0], ways):
                before = t - 1 / _STEPS  # up to there it held
                return round(float(ratios[a] + before * (ratios[b] - ratios[a])), 4), breaks
    return None, ""


def _middle(values: Sequence[float]) -> tuple[float, float]:
    """Median, and the standard deviation relative to it, from the median absolute deviation: odd parts do not count."""
    median = max(float(np.median(values)), 1e-6)
    return round(median, 6), round(1.4826 * float(np.median(np.abs(np.array(values) - median))) / median, 6)
