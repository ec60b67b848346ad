"""Draws the operator's screen: pure, from a part to a picture. Made to be read from two metres away, and by colour-blind people.

Everything is laid out on 1920x1080 and scaled by one `unit`. Verdicts differ in word, sign, brightness and pattern, not only in colour.
"""

import re
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime import wire
from edge_runtime.errors import WireError
from edge_runtime.overlay import picture, text
from edge_runtime.overlay.cameras import Pane, paint_part
from edge_runtime.overlay.style import AMBER, BACKGROUND, BAND, BLACK, GRAY, INK, PANEL, QUIET, Unit
from edge_runtime.overlay.text import BOLD, MEDIUM, REGULAR, Canvas, Color
from edge_runtime.records import Decision, Release, Verdict, View

_FOLDERS = re.compile(r"(?<![^\s(\"'])/(?:[^\s/:]+/)+")
"""The folders of a path. They are in the journal and the log; here they would push the cause off the screen."""
FADE = 0.5
"""Brightness of what is shown although it is old."""


@dataclass(frozen=True, slots=True)
class Screen:
    """All that one screen shows of a part."""

    decision: Decision
    main: Pane
    """The deciding view."""
    others: tuple[Pane, ...] = ()
    """The other views, in the station file's order."""
    counts: dict[str, int] | None = None
    problems: tuple[str, ...] = ()
    """What health says is wrong; empty when all is well."""


def screen_of(preview: wire.Preview, problems: tuple[str, ...] = (), counts: dict[str, int] | None = None) -> Screen:
    """What one screen shows of a message. `counts`: newer ones, out of health. Raises WireError for an image that cannot be decoded."""
    d = preview.decision
    deciding, named = d.deciding, len(d.views) > 1
    panes = [(view is deciding, _pane(view, shown, named)) for view, shown in zip(d.views, preview.shown, strict=True)]
    main = next(pane for decides, pane in panes if decides)
    return Screen(d, main, tuple(pane for decides, pane in panes if not decides), counts or preview.counts, problems)


def _pane(view: View, shown: wire.Shown, named: bool) -> Pane:
    image, score_map, affine = _decoded(shown.image), wire.map_of(shown), wire.affine_of(shown)
    label = (view.camera, view.verdict) if named else ("", None)
    return Pane(image, score_map, affine, shown.display_low, shown.display_high, view.frame_wh, view.regions, *label)


def _decoded(jpeg: bytes) -> npt.NDArray[np.uint8] | None:
    if not jpeg:
        return None
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint8:
        raise WireError("expected a JPEG in a preview, could not decode it")
    return np.asarray(image, dtype=np.uint8)


def paint(
    screen: Screen | None, size_wh: tuple[int, int], *, stale_s: float | None = None, age_s: float | None = None, waiting: str = "",
    release: Release | None = None,
) -> Canvas:  # fmt: skip
    """One screen.

    Args:
        screen: the part; None when none was seen yet.
        size_wh: of the picture; at least 320x180.
        stale_s: seconds since the station was last heard of, when that is too long: the verdict is then no longer shown as current.
        age_s: seconds since the decision.
        waiting: what is waited for, shown while no part was seen.
        release: whether what judges is released: what is not says so in a corner at all times.

    Returns:
        (height, width, 3) uint8 BGR.
    """
    width, height = size_wh
    unit = min(width / 1920, height / 1080)
    canvas = np.full((height, width, 3), BACKGROUND, dtype=np.uint8)
    u = Unit(unit)
    _screen(canvas, screen, u, stale_s, age_s, waiting)
    _release(canvas, release, u)
    return canvas


def _screen(canvas: Canvas, screen: Screen | None, u: Unit, stale_s: float | None, age_s: float | None, waiting: str) -> None:
    height, width = canvas.shape[:2]
    margin, band = u(40), u(216)
    side = u(540)
    top = band + u(36)
    column = (width - margin - side, top, side, height - top - margin)
    if screen is None:
        words = waiting or "Waiting for the first part."
        _band(canvas, band, u, "WAITING" if stale_s is None else "NO DATA", None, GRAY, INK, "", "")
        text.centred(canvas, (margin, top, width - 2 * margin, height - top - margin), words, u(44), QUIET)
        return
    d = screen.decision
    part = d.part_id or f"#{d.seq}"
    if stale_s is not None:
        last = f"Last: {d.verdict} · part {part}"
        _band(canvas, band, u, "NO DATA", None, GRAY, INK, f"for {_duration(stale_s)}", last)
    else:
        ground, ink = BAND[d.verdict]
        _band(canvas, band, u, str(d.verdict), d.verdict, ground, ink, part, "PART" if age_s is None else f"PART · {_ago(age_s)}")
    paint_part(canvas, (margin, top, column[0] - margin - u(40), column[3]), screen.main, screen.others, u, gray=stale_s is not None)
    _column(canvas, column, screen, u)
    if stale_s is not None:
        canvas[band:] = (canvas[band:] * FADE).astype(np.uint8)


def _release(canvas: Canvas, release: Release | None, u: Unit) -> None:
    """In the lower left corner, below the picture: black on amber where it is not released, a quiet word where nobody knows."""
    if release is None or release is Release.RELEASED:
        return
    height = canvas.shape[0]
    x, y, size = u(40), height - u(10), max(u(24), 9)
    if release is Release.REFUSED:
        word, pad = "NOT RELEASED", u(12)
        canvas[height - u(37) : height - u(2), x : x + text.width_of(word, size, BOLD) + 2 * pad] = AMBER
        text.draw(canvas, word, (x + pad, y), size, BLACK, BOLD)
    else:
        text.draw(canvas, release.value, (x, y), size, QUIET)


def _band(
    canvas: Canvas, height: int, u: Unit, word: str, verdict: Verdict | None, ground: Color, ink: Color, right: str, above_right: str
) -> None:
    width = canvas.shape[1]
    canvas[:height] = ground
    if verdict is not Verdict.ACCEPT:
        edge = INK if verdict is Verdict.REJECT else BLACK
        _stripes(canvas[: u(20)], edge, u)
        _stripes(canvas[height - u(20) : height], edge, u)
    middle, x = height // 2, u(56)
    if verdict is not None:
        _sign(canvas, (x + u(62), middle), u(62), verdict, ink, ground)
        x += u(124) + u(44)
    size = u(168)
    text.draw(canvas, word, (x, middle + round(size * text.CAP_HEIGHT / 2)), size, ink, BOLD)
    x += text.width_of(word, size, BOLD) + u(60)
    room = width - u(56) - x
    big = text.fit(right, u(84), BOLD, room)
    text.draw_right(canvas, text.elide(above_right, u(32), MEDIUM, room), (width - u(56), middle - u(28)), u(32), ink, MEDIUM)
    text.draw_right(canvas, text.elide(right, big, BOLD, room), (width - u(56), middle + u(52)), big, ink, BOLD)


def _stripes(strip: Canvas, color: Color, u: Unit) -> None:
    """Diagonal bars, as on a guard rail."""
    y, x = np.mgrid[0 : strip.shape[0], 0 : strip.shape[1]]
    strip[((x + y) // u(28)) % 2 == 0] = color


def _sign(canvas: Canvas, centre: tuple[int, int], r: int, verdict: Verdict, ink: Color, ground: Color) -> None:
    """Tick in a disc, cross in an octagon, exclamation mark in a triangle: three outlines."""
    c = np.array(centre)

    def points(*xy: tuple[float, float]) -> npt.NDArray[np.int32]:
        return np.asarray(np.round((c + np.array(xy) * r) * 16), dtype=np.int32)

    def strokes(thick: float, *lines: npt.NDArray[np.int32]) -> None:
        for line in lines:
            cv2.polylines(canvas, [line], False, ground, max(round(thick * r), 2), cv2.LINE_AA, shift=4)

    if verdict is Verdict.ACCEPT:
        cv2.circle(canvas, centre, r, ink, -1, cv2.LINE_AA)
        strokes(0.22, points((-0.45, 0.05), (-0.12, 0.38), (0.48, -0.32)))
    elif verdict is Verdict.REJECT:
        turns = np.pi / 8 + np.arange(8) * np.pi / 4
        cv2.fillPoly(canvas, [points(*zip(1.06 * np.cos(turns), 1.06 * np.sin(turns), strict=True))], ink, cv2.LINE_AA, shift=4)
        strokes(0.24, points((-0.4, -0.4), (0.4, 0.4)), points((0.4, -0.4), (-0.4, 0.4)))
    else:
        cv2.fillPoly(canvas, [points((0, -1.0), (1.1, 0.9), (-1.1, 0.9))], ink, cv2.LINE_AA, shift=4)
        strokes(0.2, points((0, -0.35), (0, 0.3)))
        cv2.circle(canvas, (centre[0], centre[1] + round(0.62 * r)), max(round(0.12 * r), 1), ground, -1, cv2.LINE_AA)


def _column(canvas: Canvas, box: tuple[int, int, int, int], screen: Screen, u: Unit) -> None:
    x, y, w, h = box
    d = screen.decision
    baseline = y + u(34)
    lines = (4 if screen.problems else 5) + (0 if d.severity is not None else 2)
    for line in text.wrap(d.reason, u(38), MEDIUM, w, lines):
        text.draw(canvas, line, (x, baseline), u(38), INK, MEDIUM)
        baseline += u(50)
    bottom = y + h
    foot = _foot(canvas, (x, bottom, w), d, u)
    counts = _counts(canvas, (x, foot - u(34), w), screen.counts or {}, u)
    top = _severity(canvas, (x, baseline + u(14), w), d, u) if d.severity is not None else baseline
    if screen.problems:
        _problems(canvas, (x, top + u(20), w, counts - top - u(50)), screen.problems, u)


def _severity(canvas: Canvas, at: tuple[int, int, int], d: Decision, u: Unit) -> int:
    """A bar whose middle is the threshold, in the heat map's own colours; returns the y below."""
    x, y, w = at
    severity = d.severity if d.severity is not None else 0.0
    text.draw(canvas, "SEVERITY", (x, y + u(38)), u(24), QUIET, MEDIUM)
    text.draw_right(canvas, f"{severity:.2f}×" if severity < 1000 else f"{severity:.0f}×", (x + w, y + u(40)), u(60), INK, BOLD)
    y += u(62)
    h = u(40)
    ramp = picture.heat_table()[np.linspace(0, 255, w).astype(int), :3]
    filled = min(round(w * min(severity / 2, 1.0)), w)
    canvas[y : y + h, x : x + w] = PANEL
    canvas[y : y + h, x : x + filled] = ramp[:filled] if severity > 1 else (150, 190, 120)
    if severity > 2:  # beyond the scale: an arrow head says that it goes on
        tip = np.array([[x + w - u(14), y], [x + w, y + h // 2], [x + w - u(14), y + h], [x + w + 1, y + h], [x + w + 1, y]])
        cv2.fillPoly(canvas, [tip.astype(np.int32)], BACKGROUND)
    middle = x + w // 2
    cv2.line(canvas, (middle, y - u(8)), (middle, y + h + u(8)), INK, u(4))
    y += h + u(40)
    label = f"limit {d.threshold:.4g}"
    text.draw(canvas, label, (middle - text.width_of(label, u(24), MEDIUM) // 2, y), u(24), QUIET, MEDIUM)
    text.draw(canvas, f"score {d.score:.4g}" if d.score is not None else "", (x, y), u(24), QUIET)
    return y + u(16)


def _counts(canvas: Canvas, at: tuple[int, int, int], counts: dict[str, int], u: Unit) -> int:
    """Three cells that stand on `at`; returns their top."""
    x, bottom, w = at
    h, gap = u(128), u(14)
    cell = (w - 2 * gap) // 3
    for i, verdict in enumerate(Verdict):
        left, top = x + i * (cell + gap), bottom - h
        canvas[top:bottom, left : left + cell] = PANEL
        canvas[top : top + u(8), left : left + cell] = BAND[verdict][0]
        number = f"{counts[verdict.value]:,}".replace(",", " ") if verdict.value in counts else "–"
        size = text.fit(number, u(54), BOLD, cell - u(28), least=0.3)
        text.draw(canvas, number, (left + u(14), top + u(68)), size, INK, BOLD)
        text.draw(canvas, f"{verdict.value.lower()}", (left + u(14), top + u(108)), u(26), QUIET, MEDIUM)
    return bottom - h


def _foot(canvas: Canvas, at: tuple[int, int, int], d: Decision, u: Unit) -> int:
    """Who and how fast, standing on `at`; returns its top."""
    x, bottom, w = at
    s = d.stamps
    took = f" · {(s.told_ns - s.fired_ns) / 1e6:.0f} ms" if s.told_ns > s.fired_ns > 0 else ""
    text.draw(canvas, text.elide(f"{d.wall_time[11:19]} UTC · #{d.seq}{took}", u(24), REGULAR, w), (x, bottom - u(6)), u(24), QUIET)
    text.draw(canvas, text.elide(f"{d.station} · {d.recipe}", u(32), MEDIUM, w), (x, bottom - u(44)), u(32), INK, MEDIUM)
    return bottom - u(76)


def _problems(canvas: Canvas, box: tuple[int, int, int, int], problems: tuple[str, ...], u: Unit) -> None:
    """An amber panel in the room that is left; as many lines as fit."""
    x, y, w, h = box
    size, leading, pad = u(26), u(36), u(16)
    lines = (h - 2 * pad) // leading
    if lines < 1:
        return
    first = _FOLDERS.sub("…/", problems[0])
    first = f"{len(problems)} problems: {first}" if len(problems) > 1 else first
    wrapped = text.wrap(first, size, MEDIUM, w - u(8) - 2 * pad, lines)
    h = 2 * pad + len(wrapped) * leading
    canvas[y : y + h, x : x + w] = PANEL
    canvas[y : y + h, x : x + u(8)] = AMBER
    for i, line in enumerate(wrapped):
        text.draw(canvas, line, (x + u(8) + pad, y + pad + i * leading + u(27)), size, AMBER, MEDIUM)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _ago(seconds: float) -> str:
    return "now" if seconds < 2 else f"{_duration(seconds)} ago"
