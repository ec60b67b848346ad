"""A contact sheet: what a data set looks like, on one picture. Pure drawing; every row is one kind in one split."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ConfigError, DataError
from edge_runtime.files import put_file
from edge_runtime.images.read import read_image
from edge_runtime.overlay.text import BOLD, MEDIUM, REGULAR, Canvas, Color, draw, draw_right, elide, fit
from training.core.places import prove
from training.data.facts import bits_for
from training.data.layout import Sample, first_of
from training.data.masks import truth
from training.data.promise import UNMEASURED
from training.inspect.inspect import Count, Inspection, outline

WIDTH = 1600
COLUMNS = 8
ROWS = 16
"""Kinds beyond that are counted, not shown."""
_MARGIN, _GAP, _LABEL = 40, 12, 190
_ROW_LEAST = 140  # what is written at the left of a row
_PAPER: Color = (250, 250, 248)
_CARD: Color = (238, 236, 233)
_INK: Color = (40, 34, 30)
_QUIET: Color = (128, 120, 112)
_GREEN: Color = (72, 128, 40)
_RED: Color = (48, 40, 196)
_LINE: Color = (214, 210, 205)


def draw_sheet(inspection: Inspection) -> Canvas:
    """(H, 1600, 3) uint8 BGR: a row a kind, up to eight evenly spread images in each, defects outlined, what was found below."""
    summary = inspection.summary
    shown = summary.counts[:ROWS]
    cell_w = (WIDTH - 2 * _MARGIN - _LABEL - (COLUMNS - 1) * _GAP) // COLUMNS
    # Cells take the shape of the parts, within reason.
    aspects = [h / w for w, h in summary.sizes_wh] or [1.0]
    cell_h = round(cell_w * min(max(float(np.median(aspects)), 0.5), 1.4))
    row_h = max(cell_h + 40, _ROW_LEAST)
    lines = _lines(inspection)
    height = 128 + len(shown) * row_h + (30 if len(summary.counts) > ROWS else 0) + 28 + 26 * len(lines) + _MARGIN
    page: Canvas = np.full((height, WIDTH, 3), _PAPER, dtype=np.uint8)
    _head(page, inspection)
    y = 128
    for count in shown:
        _row(page, y, inspection, count, cell_w, cell_h)
        y += row_h
    if len(summary.counts) > ROWS:
        draw(page, f"and {len(summary.counts) - ROWS} more kinds", (_MARGIN, y + 18), 17, _QUIET)
        y += 30
    cv2.line(page, (_MARGIN, y + 4), (WIDTH - _MARGIN, y + 4), _LINE, 1)
    y += 34
    for text, indent, color, weight in lines:
        draw(page, elide(text, 17, weight, WIDTH - 2 * _MARGIN - indent), (_MARGIN + indent, y), 17, color, weight)
        y += 26
    return page


def check_name(out: Path) -> None:
    """Refuse a file that could not be written, before any work. Raises ConfigError."""
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ConfigError(f"out: expected a name that ends in .png or .jpg, found {out.name}")
    if not out.parent.is_dir():
        raise ConfigError(f"out: expected an existing folder, found none at {out.parent}")
    if out.is_dir():
        raise ConfigError(f"out: expected a file, found a folder at {out}")
    prove(out.absolute().parent)


def save_sheet(inspection: Inspection, out: Path) -> None:
    """Write the sheet as an image file; nothing half-written stays. Raises ConfigError where that is impossible."""
    check_name(out)
    _, encoded = cv2.imencode(out.suffix, draw_sheet(inspection))
    try:
        put_file(out, encoded.tobytes())
    except OSError as e:
        raise ConfigError(f"out: {out} cannot be written: {e.strerror}") from e


def _head(page: Canvas, inspection: Inspection) -> None:
    summary = inspection.summary
    sizes = summary.sizes_wh
    small, large = (f"{w}x{h}" for w, h in (min(sizes, key=_area), max(sizes, key=_area))) if sizes else ("–", "–")
    size = small if len(sizes) == 1 else f"{len(sizes)} sizes, {small} to {large}"
    kind = "gray" if not summary.colour else "colour" if not summary.gray else "gray and colour"
    bits = " and ".join(str(b) for b in summary.bits)
    total = sum(c.images for c in summary.counts)
    draw(page, elide(Path(summary.data).resolve().name, 34, BOLD, WIDTH - 500), (_MARGIN, 62), 34, _INK, BOLD)
    draw(page, f"{summary.format} · {total} images · {size} · {kind}, {bits} bits", (_MARGIN, 94), 18, _QUIET)
    wrong, lacking = sum(len(f.items) for f in summary.findings), any(UNMEASURED in r for r in summary.remarks)
    verdict, color = (
        (f"{wrong} findings" if wrong != 1 else "1 finding", _RED)
        if wrong
        else ("no full test split" if lacking else "files can be read, none twice", _GREEN)
    )
    draw_right(page, verdict, (WIDTH - _MARGIN, 62), 24, color, BOLD)
    cv2.line(page, (_MARGIN, 112), (WIDTH - _MARGIN, 112), _LINE, 1)


def _row(page: Canvas, top: int, inspection: Inspection, count: Count, cell_w: int, cell_h: int) -> None:
    members = [s for s in inspection.samples if (s.split, s.kind) == (count.split, count.kind)]
    good = members[0].is_good
    size = fit(count.kind, 22, BOLD, _LABEL - 16, 0.65)
    draw(page, elide(count.kind, size, BOLD, _LABEL - 16), (_MARGIN, top + 26), size, _GREEN if good else _RED, BOLD)
    draw(page, count.split, (_MARGIN, top + 50), 17, _QUIET)
    draw(page, f"{count.images} images" if count.images != 1 else "1 image", (_MARGIN, top + 76), 17, _INK, MEDIUM)
    if not good:
        masks = "no masks" if not count.masks else f"{count.masks} masks" if count.masks != 1 else "1 mask"
        draw(page, masks, (_MARGIN, top + 98), 17, _QUIET)
    if count.empty_masks:
        draw(page, f"{count.empty_masks} of them empty", (_MARGIN, top + 120), 17, _RED)
    picks = np.unique(np.linspace(0, len(members) - 1, COLUMNS).round().astype(int))
    for column, pick in enumerate(picks):
        x = _MARGIN + _LABEL + column * (cell_w + _GAP)
        sample = members[pick]
        page[top : top + cell_h, x : x + cell_w] = _CARD
        picture = _picture(sample, cell_w, cell_h)
        if picture is not None:
            h, w = picture.shape[:2]
            y0, x0 = top + (cell_h - h) // 2, x + (cell_w - w) // 2
            page[y0 : y0 + h, x0 : x0 + w] = picture
        label = "empty mask" if sample.path in inspection.empty else sample.path.stem
        color = _RED if sample.path in inspection.empty else _QUIET
        draw(page, elide(label, 13, REGULAR, cell_w), (x, top + cell_h + 17), 13, color)


def _picture(sample: Sample, cell_w: int, cell_h: int) -> npt.NDArray[np.uint8] | None:
    """Fitted into the cell, in 8 bits, its defect outlined; None where the file went away since."""
    try:
        image = read_image(sample.path)
        mask = truth(sample, (image.shape[1], image.shape[0]))
    except DataError:
        return None
    scale = min(cell_w / image.shape[1], cell_h / image.shape[0])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    if small.dtype == np.uint16:
        small = cv2.convertScaleAbs(small, alpha=255.0 / ((1 << bits_for(int(image.max()))) - 1))
    out = np.asarray(cv2.cvtColor(small, cv2.COLOR_GRAY2BGR) if small.ndim == 2 else small, dtype=np.uint8)
    if mask is not None and mask.shape == image.shape[:2]:
        contours = outline(mask, size)
        # Two lines: a light one beneath keeps the outline visible on dark and on red parts.
        cv2.drawContours(out, contours, -1, (255, 255, 255), 3, cv2.LINE_AA)
        cv2.drawContours(out, contours, -1, _RED, 1, cv2.LINE_AA)
    return out


def _lines(inspection: Inspection) -> list[tuple[str, int, Color, int]]:
    """(text, indent in pixels, colour, weight)."""
    lines: list[tuple[str, int, Color, int]] = []
    for finding in inspection.summary.findings:
        lines.append((f"{len(finding.items)} × {finding.what}", 0, _RED, MEDIUM))
        shown = first_of(finding.items)
        lines += [(_short(item, inspection), 24, _INK, REGULAR) for item in shown]
        if len(finding.items) > len(shown):
            lines.append((f"… and {len(finding.items) - len(shown)} more", 24, _QUIET, REGULAR))
    lines += [(_short(remark, inspection), 0, _QUIET, REGULAR) for remark in inspection.summary.remarks]
    return lines or [("every image and mask can be read, and no picture is there twice", 0, _GREEN, MEDIUM)]


def _short(text: str, inspection: Inspection) -> str:
    return text.replace(f"{inspection.summary.data.rstrip('/')}/", "")


def _area(wh: tuple[int, int]) -> int:
    return wh[0] * wh[1]
