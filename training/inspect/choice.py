"""What `fit` takes where nothing is named: the method by how parts lie, the input's size by their aspect, known defects and a budget.

Why: deploy/decisions/0029.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from edge_runtime.images.read import read_image
from edge_runtime.model.preprocess import Preprocessor
from training.core.backbones import DEFAULT_BACKBONE, resolve_name
from training.core.base import Progress, silent
from training.data.dataset import Dataset, inputs
from training.data.facts import small_of
from training.data.layout import Sample
from training.inspect.pose import LEAST, LOOKED_AT, Pose, Smalls, advise, describe, pose_of, spread
from training.inspect.size import MOST_PX, SIDE, Size, choose_size, regions_wh, resized, smallest_defect
from training.inspect.speed import ms_per_megapixel
from training.methods.table import METHODS

AUTO = "auto"
SHARED_SIDE = 640
"""What padim shared wants: without places, only detail tells. On deeppcb 0.83 at 256 pixels, 0.98 at 640."""
SHARED_PX = 450_000
"""Pixels for it where no budget is stated: 50 ms in FP32 on two cores of a server CPU."""

OVER = 1.1
"""Times the budget: sides are whole multiples of a stride."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be taught, and the data at the size that was chosen."""

    method: str
    preset: str
    dataset: Dataset
    pose: Pose | None
    size: Size | None
    """None: the user named it."""
    said: tuple[str, ...]
    """Sentences for the user."""


def decide(
    dataset: Dataset, *, method: str = AUTO, preset: str = "fast", image_size: str = AUTO, budget_ms: float | None = None,
    backbone: str = DEFAULT_BACKBONE, progress: Progress = silent,
) -> Choice:  # fmt: skip
    """Choose what is "auto"; what is named stays. Reads at most LOOKED_AT images (a second or two). Raises DataError with the path.

    `dataset`: loaded with this `image_size`. `budget_ms`: model time on this machine that the size may take; None is the method's number of
    pixels. `backbone`: which will be taught; the time is that of the default one.
    """
    if AUTO not in (method, image_size):
        return Choice(method, preset, dataset, None, None, ())
    said: list[str] = []
    smalls, frames = look_at(dataset.train, dataset.preprocessor(), progress=progress)
    pose = pose_of(smalls) if len(smalls) >= LEAST else None
    views = dataset.preprocessor().views
    if method == AUTO:
        if pose is None:
            method, preset = "padim", "fast"  # fit itself says that these are too few
        else:
            method, preset, why = advise(pose, len(dataset.train), views)
            said += [why, describe(pose)]
    size = None
    if image_size == AUTO:
        shared = (method, preset) == ("padim", "shared")
        precision = METHODS[method].precision(preset)
        progress("how fast this machine is", 0, 1)
        size = choose_size(
            regions_wh(dataset, frames), smallest_defect(dataset), ms_per_megapixel=ms_per_megapixel(method, precision),
            budget_ms=budget_ms, views=views, least_side=SHARED_SIDE if shared else SIDE, most_px=SHARED_PX if shared else MOST_PX,
        )  # fmt: skip
        progress("how fast this machine is", 1, 1)
        dataset = resized(dataset, size)
        of = "" if resolve_name(backbone) == DEFAULT_BACKBONE else f" with EfficientNet-Lite0 (another time with {backbone})"
        said.append(
            f"input {size.width}x{size.height}: {size.why}; by estimate about {size.ms:g} ms of model time in {precision.upper()}{of}"
            " when nothing else runs, as a network of the backbone's shape took here; the build measures the model itself"
        )
        if budget_ms is not None and size.ms > OVER * budget_ms:
            said.append(f"that is more than the {budget_ms:g} ms of --budget-ms: no input of fewer pixels than 128x128 is chosen")
        if shared and budget_ms is None:
            said.append(f"padim shared wants detail: up to {SHARED_PX:,} pixels where no --budget-ms says otherwise")
        said += [size.advice] if size.advice else []
    return Choice(method, preset, dataset, pose, size, tuple(said))


def look_at(
    samples: Sequence[Sample], prepare: Preprocessor, limit: int = LOOKED_AT, progress: Progress = silent
) -> tuple[Smalls, list[tuple[int, int]]]:
    """((N, 32, 32) of what the model will see, tile by tile, and the (width, height) of each frame) of `limit` samples at most.

    They are spread evenly over all. Raises DataError with the path.
    """
    chosen = spread(samples, limit)

    def small(sample: Sample) -> tuple[list[Smalls], tuple[int, int]]:
        wh = prepare.spec.frame_wh
        if wh is None:
            height, width = read_image(sample.path).shape[:2]
            wh = (width, height)
        return [small_of(picture) for picture in inputs([sample], prepare)], wh

    smalls: list[Smalls] = []
    sizes: list[tuple[int, int]] = []
    with ThreadPoolExecutor(4) as pool:  # decoding releases the GIL
        for i, (pictures, wh) in enumerate(pool.map(small, chosen)):
            smalls += pictures
            sizes.append(wh)
            progress("how parts lie", i + 1, len(chosen))
    return np.stack(smalls), sizes
