"""A part's pictures on the screen: the deciding camera's large, those of the others in a row below it."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.overlay import picture, style, text
from edge_runtime.overlay.style import Unit
from edge_runtime.overlay.text import BOLD, MEDIUM, Canvas
from edge_runtime.records import Affine, Region, ScoreMap, Verdict

Box = tuple[int, int, int, int]
"""x, y, width, height."""
_ROW_SHARE = 0.24
"""Share of the height that the others' pictures take."""
_WIDEST = 4
"""Few pictures do not grow beyond a quarter of the row."""


@dataclass(frozen=True, slots=True)
class Pane:
    """One view of the part as it is painted: its picture, decoded, and what was found in it."""

    image: npt.NDArray[np.uint8] | None
    """The frame, maybe reduced: (H, W) or (H, W, 3) BGR; None when there was none."""
    score_map: ScoreMap | None
    grid_to_frame: Affine | None
    """(2, 3), to pixels of the full frame."""
    display_low: float
    display_high: float
    frame_wh: tuple[int, int]
    """Width and height of the full frame."""
    regions: tuple[Region, ...]
    camera: str = ""
    """Painted above the picture with the verdict; empty at a station with one camera, where the band says it all."""
    verdict: Verdict | None = None


def paint_part(canvas: Canvas, box: Box, main: Pane, others: Sequence[Pane], u: Unit, gray: bool) -> None:
    """All pictures, in place. `gray`: what is shown is old."""
    x, y, w, h = box
    if not others:
        return _one(canvas, box, main, u, gray, u(44), "No picture of this part")
    row, gap = round(h * _ROW_SHARE), u(20)
    _one(canvas, (x, y, w, h - row - gap), main, u, gray, u(44), "No picture of this part")
    cell = (w + gap) // max(len(others), _WIDEST) - gap
    for i, pane in enumerate(others):
        _one(canvas, (x + i * (cell + gap), y + h - row, cell, row), pane, u, gray, u(26), "No picture")
    return None


def _one(canvas: Canvas, box: Box, pane: Pane, u: Unit, gray: bool, size: int, nothing: str) -> None:
    x, y, w, h = box
    if pane.camera and h > u(80):
        _label(canvas, (x, y, w), pane, u)
        y, h = y + u(44), h - u(44)
    if pane.image is None or w < 8 or h < 8:
        cv2.rectangle(canvas, (x, y), (x + w, y + h), style.PANEL, -1)
        text.centred(canvas, (x, y, w, h), nothing, size, style.QUIET)
        return
    ih, iw = pane.image.shape[:2]
    scale = min(w / iw, h / ih)
    pw, ph = max(round(iw * scale), 1), max(round(ih * scale), 1)
    resized = cv2.resize(pane.image, (pw, ph), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    part = picture.as_bgr(np.asarray(resized, dtype=np.uint8))
    fw, fh = pane.frame_wh
    if fw > 0 and fh > 0:
        to_canvas = (pw / fw, ph / fh)
        if pane.score_map is not None and pane.grid_to_frame is not None:
            share = picture.scale_share(pane.score_map, pane.display_low, pane.display_high)
            picture.paint_heat(part, share, np.diag(to_canvas) @ pane.grid_to_frame)
        picture.paint_regions(part, pane.regions, to_canvas, pane.display_high / 2, u.scale)
    if gray:
        part = np.asarray(cv2.cvtColor(cv2.cvtColor(part, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), dtype=np.uint8)
    px, py = x + (w - pw) // 2, y + (h - ph) // 2
    canvas[py : py + ph, px : px + pw] = part
    cv2.rectangle(canvas, (px - 1, py - 1), (px + pw, py + ph), style.LINE, 1)


def _label(canvas: Canvas, at: tuple[int, int, int], pane: Pane, u: Unit) -> None:
    """The camera's name, behind a chip with its own verdict."""
    x, y, w = at
    if pane.verdict is not None:
        ground, ink = style.BAND[pane.verdict]
        chip = text.width_of(pane.verdict.value, u(22), BOLD) + u(20)
        canvas[y : y + u(36), x : x + chip] = ground
        text.draw(canvas, pane.verdict.value, (x + u(10), y + u(26)), u(22), ink, BOLD)
        x, w = x + chip + u(14), w - chip - u(14)
    text.draw(canvas, text.elide(pane.camera, u(28), MEDIUM, max(w, 0)), (x, y + u(28)), u(28), style.INK, MEDIUM)
