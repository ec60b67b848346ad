"""Whether labels of the test split are the wrong way round, all or single ones, by small pictures: asked before anything is taught.

The score is the distance to the nearest picture to learn from. On magnetic_tile, elpv (mono and poly), deeppcb and drawn rings bad images
lie farther away, or as far as good ones (deeppcb, whose layouts differ); with good and bad swapped, all but deeppcb are asked about. Two
views of the pictures must both say it, so that a lamp that was moved between two sessions does not.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from training.calibrate.suspects import Mask, suspects
from training.inspect.pose import COARSE, Smalls

LEAST = 5
"""Good ones, and bad ones."""
MOST = 400
"""Images of each kind that are looked at."""
SURE = 2.58
"""Standard errors: one in two hundred by chance (rank-sum test, one-sided; Mann and Whitney 1947)."""


def say_swapped(learn: Smalls, good: Smalls, bad: Smalls) -> str | None:
    """A sentence where bad images of the test split are surely more like the pictures to learn from than its good ones; None else."""
    if min(len(good), len(bad)) < LEAST or len(learn) < LEAST:
        return None
    found = [_rank(_nearest(view(learn), view(good)), _nearest(view(learn), view(bad))) for view in (_level, _fine)]
    if not all(away < -SURE for _, away in found):
        return None
    return (
        "bad images look more like those to learn from than good ones do (image AUROC of the distance to the nearest of these"
        f" {max(auroc for auroc, _ in found):.2f}, surely below 0.5): are good and bad swapped among the images to test by?"
    )


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
