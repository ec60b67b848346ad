"""How far a line may stray, in words: what an envelope comes to, and what of it no station can be kept within.

Why: deploy/decisions/0028.
"""

from collections.abc import Sequence

from edge_runtime.model.manifest import Acceptance, Envelope, Wander

_HALF = 0.5
_LITTLE = 0.05
"""No lamp and no lens is kept as steady as this."""
_UNSTEADY: dict[str, tuple[float, str, str]] = {
    "shift": (0.01, "parts that lie {} elsewhere spoil verdicts", "to learn them: --augment shift=PIXELS"),
    "turn": (1.0, "parts that are turned by {} spoil verdicts", "to learn them: --augment rotate=DEGREES; 180 for all ways"),
    "noise": (2.0, "noise of {}, as of a camera's gain, spoils verdicts", ""),
    "jpeg": (90.0, "JPEG of {} spoils verdicts", "teach and run with the same kind of files, better with .png"),
}
"""What no fixture, camera or codec is kept within, where the promise breaks at it. Not gamma: it stands still once it is set, and
the least that is tried is far."""
_LEAST = {
    "light": ("light at {:.0f} % of what was taught", 1.0),
    "gamma": ("a gamma of {:g}", 1.0),
    "blur": ("a blur of {:g} px of the model's input", 0.0),
    "shift": ("a shift of {:g} % of the picture's side", 0.0),
    "turn": ("a turn of {:g}°", 0.0),
    "noise": ("noise of {:g} gray levels of 255", 0.0),
    "jpeg": ("JPEG of quality {:g}", 100.0),
}
"""Ways of straying in words, and the amount of a picture that does not stray."""


def promise(envelope: Envelope, acceptance: Acceptance | None) -> str:
    """What an envelope comes to, on how many images, for people, without a full stop; of a detector that is not fit for release, whose
    verdicts do not hold at all, how far it becomes no worse than that."""
    e = envelope
    images = (
        f"{e.n_good} good and {e.n_bad} {'painted bad' if e.basis == 'painted' else 'bad'} images" if e.n_bad else f"{e.n_good} good images"
    )
    on = f"measured on {images}"
    if acceptance is None or acceptance.state != "failed":
        return f"verdicts hold with {reach(e)}; {on}"
    return f"verdicts do not hold as it is (not fit for release); they get no worse than that with {reach(e)}; {on}"


def reach(envelope: Envelope) -> str:
    """What verdicts hold with, for people, without a full stop: "light from 91 % up to at least 130 % of what was taught, …"."""
    e = envelope
    rows: dict[str, list[Wander]] = {}
    for row in e.rows:
        rows.setdefault(row.what, []).append(row)
    parts = []
    if light := rows.get("light"):
        parts.append(f"light {_between(light, e.light_low, e.light_high, '{:.0f} %', 100)} of what was taught")
    if gamma := rows.get("gamma"):
        parts.append(f"gamma {_between(gamma, e.gamma_low, e.gamma_high, '{:.2f}', 1)}")
    if e.blur_low is not None:
        parts.append(f"sharpness down to {100 * e.blur_low:.0f} % of what was taught")
    elif blur := rows.get("blur"):
        parts.append(f"blur {_up_to(blur, None, '{:g} px')}")
    for what, limit, words in (
        ("shift", e.shift_limit, "{:.2g} % of the picture further than taught parts differ"),
        ("turn", e.turn_limit, "{:.2g}°"),
        ("noise", e.noise_limit, "{:.2g} gray levels"),
    ):
        if what in rows:
            parts.append(f"{what} {_up_to(rows[what], limit, words)}")
    if jpeg := rows.get("jpeg"):
        held = _held(sorted(jpeg, key=lambda r: -r.amount))
        if not held:
            parts.append(f"no JPEG (quality {max(r.amount for r in jpeg):g} spoils verdicts)")
        else:
            parts.append(f"JPEG down to {'at least ' if len(held) == len(jpeg) else ''}quality {held[-1].amount:g}")
    return ", ".join(parts)


def watched(envelope: Envelope) -> str:
    """Which of it the station watches while it runs, for people, without a full stop."""
    e = envelope
    axes = {axis.way for axis in e.placement.axes} if e.placement is not None else set[str]()
    sides = [word for way, word in (("x", "sideways"), ("y", "up and down")) if way in axes]
    parts = ["brightness"] if (e.light_low, e.light_high) != (None, None) else []
    parts += ["sharpness"] if e.blur_low is not None else []
    parts += ["noise"] if e.noise_limit and e.noise else []
    parts += [f"where parts lie ({' and '.join(sides)})"] if sides else []
    parts += ["how they are turned"] if "turn" in axes else []
    blind = [
        word
        for word, limit, seen in (("where parts lie", e.shift_limit, bool(sides)), ("how they are turned", e.turn_limit, "turn" in axes))
        if limit is not None and not seen
    ]
    said = f"watched: {', '.join(parts)}" if parts else "nothing of it need be watched"
    return said + (f"; not watched, as the pictures do not tell it: {' and '.join(blind)}" if blind else "")


def brittle(envelope: Envelope) -> list[str]:
    """What spoils at least half of the verdicts at the least that was tried, a sentence a way of straying, without a full stop."""
    clean = next((r for r in envelope.rows if r.what == "clean"), None)
    found = []
    for what, (word, origin) in _LEAST.items():
        rows = sorted((r for r in envelope.rows if r.what == what), key=lambda r: abs(r.amount - origin))
        sides = [[r for r in rows if r.amount < origin], [r for r in rows if r.amount > origin]]
        for row, least in ((side[0], "least that" if len(side) > 1 else "only one that") for side in sides if side):
            said = [f"{100 * row.rejected:.0f} % of the good parts are rejected"] if row.rejected >= _HALF else []
            if row.missed is not None and row.missed >= _HALF and (clean is None or (clean.missed or 0.0) < _HALF):
                said.append(f"{100 * row.missed:.0f} % of the bad parts are missed")
            if said and not row.holds:
                amount = row.amount * (100 if what in ("light", "shift") else 1)
                found.append(f"with {word.format(amount)}, the {least} was tried, {' and '.join(said)}")
    return found


def narrow(envelope: Envelope, known: Sequence[str] = ()) -> list[str]:
    """What a station can hardly be kept within, a sentence a way of straying, without a full stop.

    `known`: sentences of `brittle` that were said already; a way of straying that they name by its amounts is not named again.
    """
    found = []
    e = envelope
    if e.light_low is not None and e.light_low > 1 - _LITTLE:
        found.append(f"a lamp that is {100 * (1 - min(e.light_low, 1)):.0f} % dimmer spoils verdicts")
    if e.light_high is not None and e.light_high < 1 + _LITTLE:
        found.append(f"light that is {100 * (max(e.light_high, 1) - 1):.0f} % brighter spoils verdicts")
    if e.blur_low is not None and e.blur_low > 1 - _LITTLE:
        found.append("a lens that is hardly out of focus spoils verdicts")
    if (own := e.parts_shift) is not None and e.shift_limit is not None and e.shift_limit < own:
        found.append(
            f"taught parts themselves lie further apart than verdicts hold: half of them lie {100 * own:.1f} % of the picture or more off"
            f" their usual place, and parts may lie only {100 * e.shift_limit:.2g} % further off than that (teach more parts, or hold them"
            " more steadily)"
        )
    limits = {
        "shift": (e.shift_limit, "{:.2g} % of the picture"),
        "turn": (e.turn_limit, "{:.2g}°"),
        "noise": (e.noise_limit, "{:.2g} gray levels"),
    }
    for what, (least, words, advice) in _UNSTEADY.items():
        said = _LEAST[what][0].partition("{")[0]
        if any(r.what == what and r.amount == least and not r.holds for r in e.rows) and not any(said in k for k in known):
            limit, unit = limits.get(what, (None, "quality {:g}"))
            first = min((r for r in e.rows if r.what == what and not r.holds), key=lambda r: abs(r.amount - _LEAST[what][1]))
            at, held = (unit.format((value or 0) * (100 if what == "shift" else 1)) for value in (first.amount, limit))
            amount, where = (f"more than {held}", f"at {at}, ") if limit else (at, "")
            found.append(f"{words.format(amount)}: {where}{_spoilt(first)}{f' ({advice})' if advice else ''}")
    return found


def _spoilt(row: Wander) -> str:
    """What becomes of verdicts at an amount that did not hold."""
    shares = [f"{100 * row.rejected:.0f} % of the good parts are rejected"] if row.breaks != "misses" else []
    if row.missed is not None and row.breaks in ("misses", "both"):
        shares.append(f"{100 * row.missed:.0f} % of the bad parts are missed")
    return " and ".join(shares)


def _held(rows: Sequence[Wander]) -> list[Wander]:
    """Those up to which the promise held at every step; `rows` from the clean picture outwards."""
    return list(rows[: next((i for i, r in enumerate(rows) if not r.holds), len(rows))])


def _up_to(rows: list[Wander], limit: float | None, words: str) -> str:
    """For a way of straying that begins at 0."""
    rows = sorted(rows, key=lambda r: r.amount)
    held, unit = _held(rows), 100 if rows[0].what == "shift" else 1
    if limit:
        return "up to " + words.format(limit * unit)
    if not held:
        return "less than " + words.format(rows[0].amount * unit)
    return ("up to at least " if len(held) == len(rows) else "up to ") + words.format(held[-1].amount * unit)


def _between(rows: list[Wander], low: float | None, high: float | None, words: str, unit: float) -> str:
    """For a factor or an exponent, of which 1 is as taught."""
    below, above = (sorted((r for r in rows if (r.amount < 1) is less), key=lambda r: abs(r.amount - 1)) for less in (True, False))

    def end(side: list[Wander], limit: float | None, further: str, nearer: str) -> str:
        held = _held(side)
        if limit is not None:
            return words.format(limit * unit)
        if not side:
            return words.format(unit)
        if not held:
            return f"{nearer} {words.format(side[0].amount * unit)}"
        return (f"{further} " if len(held) == len(side) else "") + words.format(held[-1].amount * unit)

    return f"from {end(below, low, 'at most', 'more than')} up to {end(above, high, 'at least', 'less than')}"
