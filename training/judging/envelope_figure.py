"""The envelope in a report: a small chart a way of straying, as inline SVG, and sentences. Colours come from the page's style sheet."""

import math
from collections.abc import Sequence

from edge_runtime.model.manifest import Envelope, Wander
from training.calibrate.bounds import percent

_WIDE, _HIGH = 240, 190
_LEFT, _RIGHT, _TOP, _FOOT = 48, 14, 30, 40
_COLUMNS = 4
_SHARES = (0.0, 0.01, 0.05, 0.2, 0.5, 1.0)
_WAYS: dict[str, tuple[str, str, float]] = {
    "light": ("Light", "times as bright", 1.0),
    "gamma": ("Gamma", "exponent", 1.0),
    "blur": ("Blur", "pixels of the model's input", 0.0),
    "shift": ("Shift", "of the picture's side", 0.0),
    "turn": ("Turn", "degrees", 0.0),
    "noise": ("Noise", "standard deviation, gray levels of 255", 0.0),
    "jpeg": ("JPEG", "quality", 100.0),
}
"""Title, unit, and the amount of a picture that does not stray."""


def envelope_chart(envelope: Envelope) -> str:
    """Shares of good parts rejected and of bad parts missed against each way of straying; the ground is marked where the promise breaks."""
    ways = [what for what in _WAYS if any(r.what == what for r in envelope.rows)]
    lines = math.ceil(len(ways) / _COLUMNS)
    width, height = _WIDE * min(_COLUMNS, max(len(ways), 1)), _HIGH * lines
    out = [f'<svg class="envelope" viewBox="0 0 {width} {height}" role="img" aria-label="Verdicts when the line strays">']
    clean = [r for r in envelope.rows if r.what == "clean"]
    for i, what in enumerate(ways):
        rows = [r for r in envelope.rows if r.what == what]
        out.append(f'<g transform="translate({_WIDE * (i % _COLUMNS)} {_HIGH * (i // _COLUMNS)})">{_panel(what, rows, clean)}</g>')
    return "".join([*out, "</svg>"])


def envelope_sentences(envelope: Envelope) -> list[str]:
    """What the charts come to, for people: how far each way was tried and held, and what breaks at the next amount that was tried."""
    e = envelope
    found = []
    for what, sign, word, limit in (
        ("light", -1, "Light may fall to", e.light_low),
        ("light", 1, "Light may rise to", e.light_high),
        ("gamma", -1, "Gamma may fall to", e.gamma_low),
        ("gamma", 1, "Gamma may rise to", e.gamma_high),
        ("blur", 1, "The picture's sharpness may fall to", e.blur_low),
        ("shift", 1, "Parts may lie further off than taught parts do by", e.shift_limit),
        ("turn", 1, "Parts may be turned by", e.turn_limit),
        ("noise", 1, "Noise may grow by", e.noise_limit),
        ("jpeg", -1, "JPEG may be of quality", None),
    ):
        rows = _further(e.rows, what, sign)
        first = next((i for i, r in enumerate(rows) if not r.holds), None)
        if not rows:
            continue
        held = rows[-1] if first is None else rows[first - 1] if first else None
        if first is None:
            found.append(f"{word} {_said(what, rows[-1].amount)}, as far as was tried.")
        elif held is None:
            least = "least that" if len(rows) > 1 else "only one that"
            found.append(f"{_NOUNS[what]} {_said(what, rows[first].amount)}, the {least} was tried, {_broken(rows[first])}.")
        else:
            said = f"{limit:.2f} of what was taught ({_said(what, held.amount)})" if what == "blur" else _said(what, held.amount)
            found.append(f"{word} {said}; at {_short(what, rows[first].amount)}, {_broken(rows[first])}.")
    return found


_NOUNS = {
    "light": "With light of", "gamma": "With a gamma of", "blur": "With", "shift": "With a shift of", "turn": "With a turn of",
    "noise": "With noise of", "jpeg": "With JPEG of quality",
}  # fmt: skip


def _broken(row: Wander) -> str:
    """What breaks at it."""
    rejects = f"{percent(row.rejected)} of good parts are rejected"
    if row.missed is None or row.breaks == "rejects":
        return rejects
    misses = f"{percent(row.missed)} of bad parts are missed"
    return misses if row.breaks == "misses" else f"{rejects} and {misses}"


def _further(rows: Sequence[Wander], what: str, sign: int) -> list[Wander]:
    """One side of a way, from the clean picture outwards."""
    origin = _WAYS[what][2]
    return sorted((r for r in rows if r.what == what and (r.amount - origin) * sign > 0), key=lambda r: abs(r.amount - origin))


def _said(what: str, amount: float) -> str:
    return {
        "light": f"{amount:.3g} times what was taught", "shift": f"{100 * amount:.2g} % of the picture's side", "turn": f"{amount:.2g}°",
        "noise": f"{amount:.2g} gray levels of 255 (standard deviation)", "blur": f"a blur of {amount:.2g} px of the model's input",
    }.get(what, f"{amount:.3g}")  # fmt: skip


def _short(what: str, amount: float) -> str:
    """The same, where its unit was just said."""
    return {
        "light": f"{amount:.3g} times", "shift": f"{100 * amount:.2g} %", "turn": f"{amount:.2g}°", "noise": f"{amount:.2g}",
        "blur": f"a blur of {amount:.2g} px",
    }.get(what, f"{amount:.3g}")  # fmt: skip


def _panel(what: str, rows: Sequence[Wander], clean: Sequence[Wander]) -> str:
    title, unit, origin = _WAYS[what]
    points = sorted([(r.amount, r) for r in rows] + [(origin, r) for r in clean], key=lambda p: p[0])
    amounts = [a for a, _ in points]
    low, high = min(amounts), max(amounts)
    right, bottom = _WIDE - _RIGHT, _HIGH - _FOOT

    def x(amount: float) -> float:
        share = (amount - low) / ((high - low) or 1.0)
        # A JPEG's quality falls from left to right, as all else gets worse.
        return _LEFT + (right - _LEFT) * (1 - share if what == "jpeg" else share)

    def y(share: float) -> float:
        return bottom - (bottom - _TOP) * math.sqrt(share)  # one in a hundred must still be seen

    out = [f'<text x="{_LEFT}" y="{_TOP - 12}">{title}</text>']
    for i, (amount, row) in enumerate(points):
        if not row.holds:
            edges = [(amount + amounts[j]) / 2 if 0 <= j < len(amounts) else amount for j in (i - 1, i + 1)]
            a, b = sorted((x(edges[0]), x(edges[1])))
            out.append(f'<rect class="broken" x="{a:.1f}" y="{_TOP}" width="{max(b - a, 2):.1f}" height="{bottom - _TOP}"/>')
    for share in _SHARES:
        out.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y(share):.1f}" y2="{y(share):.1f}"/>')
        out.append(f'<text class="tick" x="{_LEFT - 6}" y="{y(share) + 4:.1f}" text-anchor="end">{100 * share:g} %</text>')
    last = -math.inf
    for amount in sorted(set(amounts), key=x):
        if x(amount) - last >= 26:  # room for a number
            last = x(amount)
            said = f"{100 * amount:g} %" if what == "shift" else "none" if what == "jpeg" and amount == origin else f"{amount:g}"
            out.append(f'<text class="tick" x="{last:.1f}" y="{bottom + 15}" text-anchor="middle">{said}</text>')
    out.append(f'<text class="quiet" x="{(_LEFT + right) / 2}" y="{bottom + 31}" text-anchor="middle">{unit}</text>')
    for sort, dash, shares in (
        ("bad", "6 3", [(x(a), y(r.missed)) for a, r in points if r.missed is not None]),
        ("good", "", [(x(a), y(r.rejected)) for a, r in points]),
    ):
        if shares:
            line = " ".join(f"{px:.1f},{py:.1f}" for px, py in shares)
            dashed = f' stroke-dasharray="{dash}"' if dash else ""
            out.append(f'<polyline class="way {sort}-way" points="{line}"{dashed}/>')
            out += [f'<circle class="{sort}" cx="{px:.1f}" cy="{py:.1f}" r="2.8"/>' for px, py in shares]
    return "".join(out)
