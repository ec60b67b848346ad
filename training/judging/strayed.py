"""Images as a line that strays would give them, and what a detector says of them; each under many conditions at once, in chunks.

What a shift brings into view from beyond the frame is made up (training.judging.distort), and its seam is no part's: where the detector's
map can have seen it, what it says of the undistorted picture stands, and the score follows the map. So a texture whose place means nothing
keeps its verdicts, and an outline that has moved is seen wherever it was photographed.

Images that the detector was taught stand in for good ones that it was not: what it says of the clean picture is then brought to that
image's held-out score, and what it says of a distorted one by as much. All scores here are distances, and a distortion adds to a distance
as a leg to a hypotenuse, so the difference is taken of the squares: a difference of the scores themselves would count what was seen twice,
and their ratio has no bound where a bank remembers the very image.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import DataError
from edge_runtime.model.manifest import InputSpec
from edge_runtime.model.placement import Shrinker, Small
from edge_runtime.model.sight import Sight, SightMeter
from training.data.facts import load_frame
from training.judging.distort import Condition, Directions, Stage

Array = npt.NDArray[np.float64]
Judge = Callable[[npt.NDArray[np.uint8]], tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]]
"""(N, H, W, 3) uint8 BGR model inputs -> (N,) raw scores and (N, gh, gw) raw maps."""

_ONE_WAY = Directions(1, 1, 1, 0)
_OTHER_WAYS = {"shift": ((1, -1, 1), (-1, 1, 1), (-1, -1, 1)), "turn": ((1, 1, -1),)}
"""Good images are moved every way, each way for itself: a fixture that has shifted has shifted one way, and that may be the worst."""
_CHUNK = 64
"""Pictures that are prepared at once."""
_REACH_PX, _REACH = 40, 1 / 6
"""Pixels of the model's input around what a distortion made up, at most this share of its side, whose map cells may have seen it: of a seam
mirrored into an unmoved texture, two and a half cells of stride 16 further a cell differs by a fifth as much as beside it."""
_HIGHEST = 5
"""Cells of a map whose mean stands for its score; detectors' own scores are the mean of so many, or of one."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One image, and what is known of it."""

    path: Path
    held_out: float | None
    """The held-out score of a good image that the detector was taught; None where it was not."""
    painted: bool | None
    """Whether a bad one's defect is to be painted; None for a good image."""
    number: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of one."""

    shot: Shot
    scores: Array
    """(conditions,), of a good image those of further ways behind them."""
    sights: Sequence[Sight]
    """As many, of the reduced frames."""
    own: Sight
    """The frame's own."""
    small: Small | None
    """A good image's, where it is asked for."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One image under some of the conditions: under all of them, a tiled one would fill the memory."""

    shot: Shot
    first: int
    """Which of the conditions is the first."""
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


@dataclass(frozen=True, slots=True)
class Budget:
    """When to stop."""

    seconds: float
    """CPU time, all threads together: by the clock, the figures would depend on who else computes."""
    enough: Callable[[int, int], bool]
    """Whether so many good and bad images are enough once they are over."""
    needed: float
    """Images without which it is in vain: nothing more is tried where they cannot be had in time."""
    overdrawn: float = 3.0
    """So many times the seconds at most, where there are not enough yet."""


class Strayed:
    """Looks at images of one product with one detector."""

    def __init__(
        self,
        judge: Judge,
        spec: InputSpec,
        ignored: npt.NDArray[np.uint8] | None,
        *,
        placed: bool,
        seed: int,
        shrink: Shrinker | None = None,
    ) -> None:
        """`judge`: called with the model inputs of one image under all conditions. `placed`: its score is that of its map's highest cells;
        False: of the whole picture, of which a seam is little. `shrink`: of good images, once asked for."""
        self._judge, self._spec, self._ignored, self._placed, self._seed, self._shrink = judge, spec, ignored, placed, seed, shrink

    def look(self, shots: Sequence[Shot], conditions: Sequence[Condition], budget: Budget | None = None) -> list[Seen]:
        """Score images under all conditions, of which the first is CLEAN; those alone of which a defect could be painted, until time is up.

        Raises DataError for an image that cannot be read, or that gets no finite score.
        """
        began = time.process_time()
        found: list[Seen] = []
        scores, sights = np.empty(len(conditions)), list[Sight]()
        clean = np.empty((0, 0, 0))  # the unmoved picture's (views, gh, gw) maps
        for chunk in _one_ahead(self._chunks(shots, conditions)):
            spent, shot = time.process_time() - began, chunk.shot
            if chunk.first == 0:
                bad = sum(s.shot.painted is not None for s in found)
                if budget is not None and (
                    (spent > budget.seconds and budget.enough(len(found) - bad, bad))
                    or (found and spent * min(budget.needed, len(shots)) / len(found) > budget.overdrawn * budget.seconds)
                ):
                    break
                scores, sights = np.empty(chunk.total), []
            if budget is not None and spent > budget.overdrawn * budget.seconds:
                break
            n = len(chunk.sights)
            judged, maps = (np.asarray(values, np.float64) for values in self._judge(chunk.pictures))
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
                found.append(Seen(shot, as_held_out(scores, shot.held_out), sights, chunk.own, chunk.small))
        return found

    def _chunks(self, shots: Sequence[Shot], conditions: Sequence[Condition]) -> Iterator[_Chunk]:
        stage, meter = Stage(self._spec, self._ignored), SightMeter(self._spec, ignored=self._ignored)
        for shot in shots:
            frame = load_frame(shot.path, self._spec)
            reduced, plan = stage.reduce(frame)
            image = stage.paint(reduced, plan, self._seed, shot.number) if shot.painted else reduced
            if image is None:
                continue
            own = Directions.of(self._seed, shot.number)
            good = shot.painted is None
            moves = [(c, replace(_ONE_WAY, seed=own.seed) if good else own) for c in conditions]
            moves += [(conditions[i], way) for i, way in _further(conditions)] if good else []
            step = max(1, _CHUNK // plan.prepare.views)
            for first in range(0, len(moves), step):
                some = moves[first : first + step]
                frames = [stage.distort(image, plan, *move) for move in some]
                pictures = np.concatenate([plan.prepare.split(f) for f in frames])
                invented = [stage.invented(plan, *move) if self._placed else None for move in some]
                small = self._shrink(frame) if good and self._shrink is not None else None
                yield _Chunk(shot, first, pictures, invented, [plan.meter(f) for f in frames], meter(frame), len(moves), small)


def columns(conditions: Sequence[Condition]) -> dict[Condition, list[int]]:
    """Where the scores of a good image stand under each condition, its own way first; of a bad image, the first of them alone."""
    found = {c: [i] for i, c in enumerate(conditions)}
    for k, (i, _) in enumerate(_further(conditions)):
        found[conditions[i]].append(len(conditions) + k)
    return found


def _further(conditions: Sequence[Condition]) -> list[tuple[int, Directions]]:
    """(which condition, way) of the ways beside the first one."""
    return [(i, Directions(*way, 0)) for i, c in enumerate(conditions) for way in _OTHER_WAYS.get(c.what, ())]


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


def as_held_out(scores: Array, held_out: float | None) -> Array:
    """What the detector would say of the image if it had not been taught it; see the module's text."""
    seen = scores[0]
    if held_out is None or not held_out > seen > 0:
        return scores
    return np.asarray(np.sqrt(np.maximum(scores, 0.0) ** 2 + held_out**2 - seen**2))


def _one_ahead(chunks: Iterator[_Chunk]) -> Iterator[_Chunk]:
    """Prepare the next one while this one is scored."""
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(next, chunks, None)
        while (chunk := pending.result()) is not None:
            pending = pool.submit(next, chunks, None)
            yield chunk
