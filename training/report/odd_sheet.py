"""The good images that looked unlike the others when a run was taught, on one picture: each as it is and with its heat map."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import DataError
from edge_runtime.files import put_file
from edge_runtime.overlay.text import BOLD, Canvas, Color, draw, elide
from training.core.base import Progress, silent
from training.data.dataset import Dataset
from training.report.gallery import develop, odd_samples
from training.runs import Run

MOST = 24
_COLUMNS, _SIDE, _GAP, _LINE = 2, 320, 16, 30
_PAPER: Color = (250, 250, 248)
_INK: Color = (40, 34, 30)


def save_odd_sheet(run: Run, dataset: Dataset, out: Path, progress: Progress = silent) -> int:
    """Write the picture of up to MOST of them, the oddest first; returns how many. Raises DataError where there are none there."""
    if not run.info.odd:
        raise DataError(f"odd images: {run.directory} was taught on good images of which none looks unlike the others; nothing to draw")
    samples = odd_samples(dataset, run.info.odd, MOST)
    if not samples:
        raise DataError(f"odd images: expected {run.info.odd[0]} and others in {dataset.path}, found none of them there")
    predict, info = run.predictor(), run.info
    cells: list[npt.NDArray[np.uint8]] = []
    margins = dict(zip(info.dataset.odd, info.dataset.odd_margins, strict=False))
    for i, sample in enumerate(samples):
        part = develop(predict, sample, info.input, info.display, info.threshold, info.threshold.value, own_scale=True)
        name = dataset.name_of(sample)
        cell: Canvas = np.full((_SIDE + _LINE, 2 * _SIDE + _GAP, 3), _PAPER, dtype=np.uint8)
        for k, picture in enumerate((part.plain, part.painted)):
            h, w = picture.shape[:2]
            cell[_LINE : _LINE + h, k * (_SIDE + _GAP) : k * (_SIDE + _GAP) + w] = picture
        draw(
            cell,
            elide(
                f"{i + 1}. {name}{_beyond(margins.get(name))}{'  one of those alike' if name in info.alike else ''}", 17, BOLD, 2 * _SIDE
            ),
            (0, 20),
            17,
            _INK,
            BOLD,
        )
        cells.append(np.pad(cell, ((_GAP, 0), (_GAP, 0), (0, 0)), constant_values=250))
        progress("draw pictures", i + 1, len(samples))
    while len(cells) % _COLUMNS:
        cells.append(np.full_like(cells[0], 250))
    page = np.vstack([np.hstack(cells[i : i + _COLUMNS]) for i in range(0, len(cells), _COLUMNS)])
    try:
        put_file(out, cv2.imencode(out.suffix, page)[1].tobytes())
    except OSError as e:
        raise DataError(f"odd images: {out} cannot be written: {e.strerror or e}") from e
    return len(samples)


def _beyond(margin: float | None) -> str:
    """How unlike the others, where the run says it."""
    return "" if margin is None else f"  {margin:.2f}x as unlike as the others go"
