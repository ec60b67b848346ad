"""How long teaching and building will take on this machine, before they begin: by counts of pictures, and by what one of them takes now."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from training.inspect.speed import alone_s

REFERENCE_S = 0.0065
"""A picture through the FP32 backbone at 256x256 on the machine on which these costs were taken; all else grows with it."""
COST_S = {
    "padim/fast": 0.024, "padim/shared": 0.006, "padim": 0.08, "patchcore": 0.035, "mvg": 0.008, "fcdd": 0.04, "devnet": 0.02,
    "fastflow": 0.035,
}  # fmt: skip
"""Seconds of a fit, its cross-fit and its scores, for each image that is learnt from, without variations."""
VARIED = 0.45
"""What each variation of an image adds to that, as a share of it (padim/fast, 91 images with 3 variations)."""
QUANTIZE_S = 2.0
"""NNCF's correction of biases; three lite0 at 256x256 to 480x480 took 0.5 to 1, beside their pictures."""
_SCREEN_S, _WEIGH_S = 0.028, 0.017
"""Looking for odd images, and weighing whether variations pay, for each image."""
RANGE = 1.5
"""What may come of an estimate on a machine that does nothing else: so many times as long."""
ALONE = "when nothing else runs, longer beside other work"
"""What stands beside an estimate."""
_LEAST_FACTOR, _MOST_FACTOR = 0.5, 20.0
_ELSE_S = 10.0
"""The rest of a build: starting children, converting, packing, golden samples."""
TORCH = 3
"""A picture in torch, in pictures of the graph."""
_RUNS, _WATCHED_S, _SHARE = 3, 0.5, 10
"""At least so many pictures, and as many as fit into that time, but no more than a tenth of those to come. In CPU time, since that of the
clock says what else the machine does now: an estimate by it was two to four times what came of it."""


def pace_of(
    run: Callable[[npt.NDArray[np.uint8]], Sequence[npt.NDArray[np.float32]]], height: int, width: int, n_pictures: int, threads: int
) -> float:
    """Seconds that a picture takes through a backbone here when nothing else runs, by its CPU time on so many `threads`; `n_pictures` are
    to go through it."""
    picture = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    run(picture)
    over, runs, began = time.perf_counter() + _WATCHED_S, 0, time.process_time()
    while runs < _RUNS or (runs < n_pictures // _SHARE and time.perf_counter() < over):
        run(picture)
        runs += 1
    return alone_s((time.process_time() - began) / runs, threads)


def fit_seconds(name: str, n_images: int, n_pictures: int, views: int, pace_s: float, pictures_by: float = 1.0) -> float:
    """Seconds for the features, odd images, fit and held-out scores of `name` (method/preset); `n_pictures` with all variations.

    `pace_s`: of a picture through the FP32 graph; `pictures_by`: in how many times that theirs are computed (TORCH, where torch does it).
    """
    cost = COST_S.get(name, COST_S.get(name.partition("/")[0], 0.1))
    own = n_images * views
    varied = max(n_pictures - own, 0)
    heads = cost * (own + VARIED * varied) + _SCREEN_S * own + (_WEIGH_S * own if varied else 0.0)
    return n_pictures * pictures_by * pace_s + heads * pace_s / REFERENCE_S


def build_seconds(name: str, n_images: int, n_taught: int, n_gate: int, n_torch: int, views: int, pace_s: float, int8: bool) -> float:
    """Seconds of conversion, both graphs, quantization and refit, without the envelope. `n_taught`, `n_gate`: pictures."""
    exact = _ELSE_S + n_gate * pace_s + n_torch * TORCH * pace_s
    if not int8:
        return exact
    quantized = 2 * min(300, n_taught) * pace_s + QUANTIZE_S * pace_s / REFERENCE_S + n_gate * pace_s
    return exact + quantized + fit_seconds(name, n_images, n_taught, views, pace_s)


def slower(expected_s: float, took_s: float) -> float:
    """By how much what is still to come takes longer than expected, told by what is done: the same machine does both."""
    return min(max(took_s / max(expected_s, 1e-9), _LEAST_FACTOR), _MOST_FACTOR)


def about(seconds: float) -> str:
    """A range, since no more can be promised: 20 to 30 s, 3 to 5 min."""
    ends = [(max(5, 5 * round(s / 5)), "s") if s < 90 else (round(s / 60), "min") for s in (seconds, RANGE * seconds)]
    (low, unit), (high, last) = ends
    if ends[0] == ends[1]:
        return f"{low} {unit}"
    return f"{low} to {high} {unit}" if unit == last else f"{low} {unit} to {high} {last}"
