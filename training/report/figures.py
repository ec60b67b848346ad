"""Drawings of a report as inline SVG: histograms over one axis of scores, and curves. Colours come from the page's style sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

WIDTH = 960
LEFT, RIGHT = 148, 846
"""Ends of the histograms' plot, in drawing units; names stand to its left, counts to its right."""
_TOP, _ROW, _FOOT = 30, 54, 46
_BINS = 74
_LOG_FROM = 5.0
_SIDE, _PAD = 340, 46


@dataclass(frozen=True, slots=True)
class Axis:
    """Scores -> drawing units, linear or logarithmic; what lies outside is drawn at the edge."""

    low: float
    high: float
    log: bool

    @classmethod
    def over(cls, scores: Array, threshold: float) -> "Axis":
        """All of the scores and the threshold; logarithmic where they are positive and far apart."""
        low, high = min(float(scores.min()), threshold), max(float(scores.max()), threshold)
        log = low > 0 and high / low > _LOG_FROM
        if log:
            return cls(low / 1.05, high * 1.05, True)
        high = min(high, max(4 * threshold, float(np.quantile(scores, 0.99))))  # one wild score must not flatten the rest
        pad = 0.03 * (high - low) or 0.1 * abs(high) or 1.0
        return cls(low - pad, high + pad, False)

    def share(self, values: Array | float) -> Array:
        """0..1 along the axis."""
        v = np.clip(values, self.low, self.high)
        if self.log:
            return np.asarray(np.log(v / self.low) / math.log(self.high / self.low))
        return np.asarray((v - self.low) / (self.high - self.low))

    def x(self, value: float) -> float:
        """Where a value stands, in drawing units."""
        return LEFT + (RIGHT - LEFT) * float(self.share(value))

    def ticks(self) -> list[float]:
        """Round numbers inside, about six."""
        if self.log:
            marks = [m * 10.0**e for e in range(-12, 13) for m in (1, 2, 5)]
            inside = [m for m in marks if self.low <= m <= self.high]
            if len(inside) < 4:
                inside = [m * 10.0**e for e in range(-12, 13) for m in (1, 1.5, 2, 3, 4, 5, 7) if self.low <= m * 10.0**e <= self.high]
            return inside if len(inside) <= 9 else [m for m in inside if f"{m:e}"[0] == "1"]
        step = 10 ** math.floor(math.log10((self.high - self.low) / 3))
        step *= 2 if (self.high - self.low) / step > 12 else 1
        return [float(t) for t in np.arange(math.ceil(self.low / step), math.floor(self.high / step) + 1) * step]


@dataclass(frozen=True, slots=True)
class Group:
    """Images of one sort."""

    name: str
    good: bool
    scores: Array
    """(N,) raw."""


def histograms(groups: Sequence[Group], axis: Axis, stated: float, line: float) -> str:
    """A row a group, each as high as its fullest bin; wrong verdicts are hatched. `line` can be moved by the page's script."""
    height = _TOP + _ROW * len(groups) + _FOOT
    bottom = height - _FOOT
    out = [
        f'<svg class="histograms" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Histograms of scores by kind of image">',
        '<defs><pattern id="hatch-good" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect class="wrong-ground" width="5" height="5"/><rect class="good" width="2.4" height="5"/></pattern>'
        '<pattern id="hatch-bad" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect class="wrong-ground" width="5" height="5"/><rect class="bad" width="2.4" height="5"/></pattern>'
        f'<clipPath id="below"><rect id="below-rect" x="0" y="0" width="{axis.x(line):.2f}" height="{height}"/></clipPath>'
        f'<clipPath id="above"><rect id="above-rect" x="{axis.x(line):.2f}" y="0" width="{WIDTH}" height="{height}"/></clipPath></defs>',
    ]
    for tick in axis.ticks():
        x = axis.x(tick)
        out.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        out.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{tick:g}</text>')
    scale = "raw score, logarithmic" if axis.log else "raw score"
    out.append(f'<text class="quiet" x="{(LEFT + RIGHT) / 2}" y="{height - 8}" text-anchor="middle">{scale}</text>')
    for i, group in enumerate(groups):
        floor = _TOP + _ROW * (i + 1)
        shape = _steps(group.scores, axis, floor)
        sort = "good" if group.good else "bad"
        right, wrong = ("below", "above") if group.good else ("above", "below")
        over = int((group.scores > line).sum())
        share = f"{100 * over / len(group.scores):.1f}".removesuffix(".0")
        out += [
            f'<path class="{sort}" d="{shape}" clip-path="url(#{right})"/>',
            f'<path class="wrong" fill="url(#hatch-{sort})" d="{shape}" clip-path="url(#{wrong})"/>',
            f'<line class="floor" x1="{LEFT}" x2="{RIGHT}" y1="{floor}" y2="{floor}"/>',
            f'<text x="{LEFT - 12}" y="{floor - 15}" text-anchor="end">{escape(_short(group.name))}</text>',
            f'<text class="quiet" x="{LEFT - 12}" y="{floor - 1}" text-anchor="end">{len(group.scores):,} images</text>',
            f'<text x="{RIGHT + 14}" y="{floor - 15}" data-over="{i}">{over:,} rejected</text>',
            f'<text class="quiet" x="{RIGHT + 14}" y="{floor - 1}" data-share="{i}">{share} %</text>',
        ]
    if stated != line:
        out.append(f'<line class="stated" x1="{axis.x(stated):.2f}" x2="{axis.x(stated):.2f}" y1="{_TOP - 6}" y2="{bottom}"/>')
    x = axis.x(line)
    out += [
        f'<g id="line"><line class="threshold" x1="{x:.2f}" x2="{x:.2f}" y1="{_TOP - 8}" y2="{bottom}"/>',
        f'<text class="threshold-label" x="{x:.2f}" y="{_TOP - 14}" text-anchor="middle">'
        f'<tspan class="side">accept ◂ </tspan>{line:.4g}<tspan class="side"> ▸ reject</tspan></text></g>',
        "</svg>",
    ]
    return "".join(out)


def curve(
    x: Array,
    y: Array,
    *,
    name: str,
    labels: tuple[str, str],
    title: str,
    points: Sequence[tuple[str, float, float]],
    chance: tuple[tuple[float, float], tuple[float, float]],
) -> str:
    """A curve in the unit square, thinned to what can be seen. `points`: (class, x, y) marks on it; `chance`: the line of a coin's toss."""
    keep = np.unique(np.round(np.linspace(0, len(x) - 1, 600)).astype(int)) if len(x) > 600 else np.arange(len(x))
    size, whole = _SIDE - 2 * _PAD + 24, _SIDE
    left, top = _PAD, 22

    def at(px: float, py: float) -> str:
        return f"{left + size * px:.1f},{top + size * (1 - py):.1f}"

    out = [f'<svg class="curve" viewBox="0 0 {whole} {whole}" role="img" aria-label="{escape(title)}" data-curve="{name}">']
    for t in (0.0, 0.25, 0.5, 0.75, 1.0):
        a, b, c, d = at(t, 0), at(t, 1), at(0, t), at(1, t)
        for p, q in ((a, b), (c, d)):
            (x1, y1), (x2, y2) = p.split(","), q.split(",")
            out.append(f'<line class="grid" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
        out.append(f'<text class="tick" x="{a.split(",")[0]}" y="{top + size + 16}" text-anchor="middle">{t:g}</text>')
        out.append(f'<text class="tick" x="{left - 7}" y="{float(c.split(",")[1]) + 4:.1f}" text-anchor="end">{t:g}</text>')
    out.append(f'<polyline class="chance" points="{at(*chance[0])} {at(*chance[1])}"/>')
    out.append(f'<polyline class="path" points="{" ".join(at(float(x[i]), float(y[i])) for i in keep)}"/>')
    for sort, px, py in points:
        cx, cy = at(px, py).split(",")
        out.append(f'<circle class="{sort}" cx="{cx}" cy="{cy}" r="6"/>')
    middle = left + size / 2
    out.append(f'<text class="quiet" x="{middle}" y="{top + size + 33}" text-anchor="middle">{escape(labels[0])}</text>')
    turned = f"rotate(-90 12 {top + size / 2})"
    out.append(f'<text class="quiet" x="12" y="{top + size / 2}" text-anchor="middle" transform="{turned}">{escape(labels[1])}</text>')
    out.append("</svg>")
    return "".join(out)


CURVE_FRAME = {"left": _PAD, "top": 22, "size": _SIDE - 2 * _PAD + 24}
"""Where the unit square lies in a curve's drawing: the page's script moves the mark."""


def _steps(scores: Array, axis: Axis, floor: float) -> str:
    counts, _ = np.histogram(axis.share(scores), bins=_BINS, range=(0.0, 1.0))
    step = (RIGHT - LEFT) / _BINS
    heights = (_ROW - 14) * counts / max(int(counts.max()), 1)
    # One image must still be seen beside a thousand.
    heights = np.where(counts > 0, np.maximum(heights, 2.0), 0.0)
    path = [f"M{LEFT} {floor}"]
    for i, h in enumerate(heights):
        path.append(f"V{floor - h:.1f}H{LEFT + step * (i + 1):.1f}")
    return "".join(path) + f"V{floor}Z"


def _short(name: str) -> str:
    return name if len(name) <= 20 else name[:19] + "…"
