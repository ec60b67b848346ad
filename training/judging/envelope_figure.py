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
_BREAKS = {
    "rejects": "more than {} of good parts are rejected",
    "misses": "ten in a hundred bad parts more than in clean pictures are missed",
    "both": "more than {} of good parts are rejected, and ten in a hundred bad parts more than in clean pictures are missed",
}


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
    """What the charts come to, for people."""
    e = envelope
    most = percent(e.max_rejected, up=True)
    found = []
    light = [r.amount for r in e.rows if r.what == "light"]
    for limit, breaks, verb, tried in (
        (e.light_low, e.light_low_breaks, "fall", min(light, default=None)),
        (e.light_high, e.light_high_breaks, "rise", max(light, default=None)),
    ):
        if limit is not None:
            found.append(f"Light may {verb} to {limit:.2f} of what was taught; from there on {_BREAKS[breaks or 'both'].format(most)}.")
        elif tried is not None:
            found.append(f"Light may {verb} to {tried:g} times what was taught, as far as was tried.")
    if e.blur_low is not None:
        broken = _BREAKS[e.blur_breaks or "both"].format(most)
        found.append(f"The picture's sharpness may fall to {e.blur_low:.2f} of what was taught; from there on {broken}.")
    for limit, verb in ((e.gamma_low, "fall"), (e.gamma_high, "rise")):
        if limit is not None:
            found.append(f"Gamma may {verb} to {limit:.2f}; from there on more of the verdicts go wrong than was promised.")
    limits = {"shift": e.shift_limit, "turn": e.turn_limit, "noise": e.noise_limit}
    for what, word in (
        *((("gamma", "A gamma"),) if (e.gamma_low, e.gamma_high) == (None, None) else ()),
        ("blur", "A blur"),
        ("shift", "A shift"),
        ("turn", "A turn"),
        ("noise", "Noise"),
        ("jpeg", "JPEG"),
    ):
        first = next((r for r in _further(e.rows, what) if not r.holds), None)
        if first is not None and not (what == "blur" and e.blur_low is not None):
            least = limits.get(what)
            said, broken = _said(what, first.amount if least is None else least), _BREAKS[first.breaks or "both"].format(most)
            found.append(f"{word} of {said} breaks the promise: {broken}.")
    return found


def _further(rows: Sequence[Wander], what: str) -> list[Wander]:
    """From the clean picture outwards."""
    return sorted((r for r in rows if r.what == what), key=lambda r: abs(r.amount - _WAYS[what][2]))


def _said(what: str, amount: float) -> str:
    return {
        "shift": f"{100 * amount:.2g} %", "turn": f"{amount:.2g}°", "jpeg": f"quality {amount:g}",
        "noise": f"{amount:.2g} gray levels of 255 (standard deviation)", "blur": f"{amount:g} px",
    }.get(what, f"{amount:g}")  # fmt: skip


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
