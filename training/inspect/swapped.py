"""Whether labels are the wrong way round, all or single ones, by small pictures: asked before anything is taught.

Of a test split the score is the distance to the nearest picture to learn from. On magnetic_tile, elpv (mono and poly) and drawn rings bad
images lie farther away; with good and bad swapped, all are asked about. Two views of the pictures must both say it, so that a lamp that was
moved between two sessions does not.

Where good ones are the fewer ones, whose labels are wrong is asked otherwise (`say_few_good`), since the pictures to learn from may be bad
ones themselves: of as many good as bad pictures, which ones have a place that looks like that place in no other? Bad parts differ from good
ones and from each other, good ones are alike. Measured with 20 to 40 of each on sets whose labels are right, in standard errors: drawn caps
6.1, labels 2.7 to 4.7, lids 4.5, connectors 2.2 to 3.5, washers 3.1 to 4.5, blisters 2.0 to 2.7; elpv mono 4.3 to 5.6, poly 1.5 to 4.1;
with labels swapped it is the same with the other sign. Where parts lie anyhow (magnetic_tile, deeppcb) it tells nothing, and is not asked.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.images.names import says_good
from edge_runtime.images.read import read_image
from training.calibrate.suspects import Mask, suspects
from training.data.facts import gray_of
from training.data.layout import Sample
from training.inspect.pose import ANYHOW, COARSE, Smalls, pose_of, spread

LEAST = 5
"""Good ones, and bad ones."""
MOST = 400
"""Images of each kind that are looked at."""
SURE = 2.58
"""Standard errors: one in two hundred by chance (rank-sum test, one-sided; Mann and Whitney 1947)."""
FEW = 0.5
"""Good images for each bad one, below which labels are questioned that the pictures do not speak for. Real sets that call bad ones by one
word have more: magnetic_tile's test split alone 0.73, elpv 1.9 and 2.3, deeppcb 1.8."""
OF_EACH = 40
"""Good images, and bad ones, that are compared place by place: two seconds."""
IN_PLACE = 0.3
"""Explained share of all pictures (training/inspect/pose.py) from which on a place of one can be compared with that of another: 0.5 and
more of the sets above, 0.12 to 0.18 of magnetic_tile, where odd is whatever is cropped otherwise."""
_CELLS, _CELL = 32, 5
"""Places a side, and pixels of each."""
_ODDEST = 3
"""Places of a picture that count: defects are small."""


def say_swapped(learn: Smalls, good: Smalls, bad: Smalls) -> str | None:
    """A sentence where bad images of the test split are surely more like the pictures to learn from than its good ones; None else.

    Nor where parts lie anyhow: of deeppcb, whose layouts differ, the nearest picture is that of the same layout, be it good or bad.
    """
    if min(len(good), len(bad)) < LEAST or len(learn) < LEAST or pose_of(learn).explained < ANYHOW:
        return None
    found = [_rank(_nearest(view(learn), view(good)), _nearest(view(learn), view(bad))) for view in (_level, _fine)]
    if not all(away < -SURE for _, away in found):
        return None
    return (
        "bad images look more like those to learn from than good ones do (image AUROC of the distance to the nearest of these"
        f" {max(auroc for auroc, _ in found):.2f}, surely below 0.5): are good and bad swapped among the images to test by?"
    )


def say_few_good(samples: Sequence[Sample], smalls: Smalls, *, by_table: bool) -> str | None:
    """A sentence where fewer images are called good than bad, and good and bad may stand for each other; None else.

    Not where bad ones have names of kinds, or marks: both say more than a word does.

    Args:
        samples: (N,) all images.
        smalls: (N, 32, 32) of them.
        by_table: somebody wrote the words beside each name; a table is questioned only where the pictures contradict it.
    """
    good, bad = ([s for s in samples if s.is_good == side] for side in (True, False))
    if not 0 < len(good) < len(bad) or any(says_good(s.kind) is not False or s.has_truth for s in bad):
        return None
    few = f"only {len(good)} of {len(samples)} images are called good (as {_named(good[0])}) and {len(bad)} bad (as {_named(bad[0])})"
    away = _odder(spread(good, OF_EACH), spread(bad, OF_EACH)) if _lie_alike(samples, smalls) else 0.0
    if away < -SURE:
        why = "and those called bad look alike, while those called good look unlike them and each other: are good and bad swapped?"
    elif away <= SURE and len(good) < FEW * len(bad) and not by_table:
        why = "which on a line is the other way round, and the pictures do not tell which are sound: are good and bad swapped?"
    else:
        return None
    apart = good[0].path.parent != bad[0].path.parent
    how = "exchange the words in the table" if by_table else "give each folder the other one's name" if apart else "rename the files"
    return f"{few}, {why} If so, {how}; if they are right as they are, add --few-good"


def _lie_alike(samples: Sequence[Sample], smalls: Smalls) -> bool:
    rows = [i for side in (True, False) for i in _some([j for j, s in enumerate(samples) if s.is_good == side])]
    return len(rows) > LEAST and pose_of(smalls[rows]).explained >= IN_PLACE


def _some(rows: list[int]) -> list[int]:
    return [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, min(OF_EACH, len(rows))).round().astype(int))]


def _named(sample: Sample) -> str:
    return f"{sample.path.parent.name}/{sample.path.name}"


def _odder(good: Sequence[Sample], bad: Sequence[Sample]) -> float:
    """Standard errors by which bad pictures are odder than good ones, of as many of each; below 0 where good ones are."""
    n = min(len(good), len(bad))
    if n < LEAST:
        return 0.0
    odd = _oddness(np.stack([_places(s) for s in (*spread(good, n), *spread(bad, n))]))
    return float(_rank(odd[:n], odd[n:])[1])


def _places(sample: Sample) -> npt.NDArray[np.float32]:
    """(32, 32, 6) what each place shows: its level beside its surroundings, edges of four directions, fine texture."""
    side = _CELLS * _CELL
    gray = np.asarray(cv2.resize(gray_of(read_image(sample.path)), (side, side), interpolation=cv2.INTER_AREA), np.float32)
    gray *= 128 / max(float(gray.mean()), 8.0)
    soft = cv2.GaussianBlur(gray, (0, 0), 1.0)
    across, down = (cv2.Sobel(soft, cv2.CV_32F, x, 1 - x) / 8 for x in (1, 0))
    level = cv2.GaussianBlur(gray, (0, 0), 2.0) - cv2.GaussianBlur(gray, (0, 0), 12.0)
    strong = (across, down, across + down, across - down, soft - cv2.GaussianBlur(gray, (0, 0), 2.5))
    maps = [level, *(cv2.GaussianBlur(np.abs(m), (0, 0), 2.0) for m in strong)]
    return np.stack(maps, axis=-1)[_CELL // 2 :: _CELL, _CELL // 2 :: _CELL]


def _oddness(places: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(N,) how unlike any other picture the oddest places of each are, at this place or one beside it."""
    places = places / (places.std(axis=(0, 1, 2)) + 1e-3)
    around = np.pad(places, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1e3)
    found = []
    for i, own in enumerate(places):
        nearest = np.full((_CELLS, _CELLS), np.inf, np.float32)
        for y, x in np.ndindex(3, 3):
            apart = ((around[:, y : y + _CELLS, x : x + _CELLS] - own) ** 2).sum(axis=-1)
            apart[i] = np.inf
            nearest = np.minimum(nearest, apart.min(axis=0))
        found.append(np.sqrt(np.sort(nearest, axis=None)[-_ODDEST:]).mean())
    return np.asarray(found, np.float64)


def doubtful(learn: Smalls, others: Smalls, is_good: Mask, kinds: Sequence[str] = ()) -> Mask:
    """(N,) which single labels of N images of the test split are doubtful, by both views of the pictures together."""
    away = sum(np.log(np.maximum(_nearest(view(learn), view(others)), 1e-6)) for view in (_level, _fine))
    return suspects(np.asarray(away, np.float64), is_good, kinds)


def _level(smalls: Smalls) -> Smalls:
    return np.asarray(smalls - smalls.mean(axis=(1, 2), keepdims=True), np.float32)


def _fine(smalls: Smalls) -> Smalls:
    fine = _level(np.stack([s - cv2.GaussianBlur(s, (0, 0), COARSE) for s in smalls]))
    return np.asarray(fine / np.maximum(fine.std(axis=(1, 2), keepdims=True), 1e-3), np.float32)


def _nearest(learn: Smalls, others: Smalls) -> npt.NDArray[np.float64]:
    """(N,) squared distances."""
    a, b = (s.reshape(len(s), -1).astype(np.float64) for s in (learn, others))
    return np.asarray(((b**2).sum(axis=1)[:, None] + (a**2).sum(axis=1) - 2 * b @ a.T).min(axis=1), np.float64)


def _rank(good: npt.NDArray[np.float64], bad: npt.NDArray[np.float64]) -> tuple[float, float]:
    """(AUROC, standard errors from 0.5)."""
    n, m = len(good), len(bad)
    auroc = float((np.sign(bad[None] - good[:, None]) / 2 + 0.5).mean())
    return auroc, (auroc - 0.5) / np.sqrt((n + m + 1) / (12 * n * m))
