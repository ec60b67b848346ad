"""Which way a line strays from what was taught: its pictures grow dark, bright or blurred. Watches, and never touches a verdict.

The limits come with the bundle (bundle.Envelope), measured where it was built: from there on good parts are rejected or bad ones missed.
A warning begins 70 % of the way there, so that a lamp is changed before it costs parts. What is compared is the median of the last parts,
whatever their verdicts: in the dark all of them may be rejects.

Why: deploy/decisions/0028.
"""

import logging
import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from edge_runtime.images.read import read_mask
from edge_runtime.model.manifest import Envelope, Wander
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.model.sight import SightMeter
from edge_runtime.protocols import Sink
from edge_runtime.records import Decision, Image, Picture, SightState

log = logging.getLogger(__name__)

WINDOW = 50
"""Parts whose median counts."""
LEAST = 15
"""Parts before anything is said."""
_WARN, _CALM = 0.7, 0.6
"""Shares of the way to the limit: where a warning begins, and where it ends."""
_NEARER = 0.9
"""A limit that was passed counts as passed until so much of the way is left again."""
_SURE = 4.0
"""A median must differ from what was taught by so many of its standard errors: parts differ among themselves."""

_HALF = 0.5
_LITTLE = 0.05
"""No lamp and no lens is kept as steady as this."""
_UNSTEADY: dict[str, tuple[float, str]] = {
    "shift": (0.01, "parts that lie less than {:g} % of the picture elsewhere spoil verdicts (to learn them: --augment shift=PIXELS)"),
    "turn": (1.0, "parts that are turned by less than {:g}° spoil verdicts (to learn them: --augment rotate=DEGREES; 180 for all ways)"),
    "noise": (2.0, "noise of less than {:g} gray levels of 255 (standard deviation), as of a camera's gain, spoils verdicts"),
    "jpeg": (90.0, "JPEG of quality {:g} spoils verdicts: teach and run with the same kind of files, better with .png"),
}
"""What no fixture, camera or codec is kept within, where the promise breaks at it. Not gamma: it stands still once it is set, and
the least that is tried is far."""
_LEAST = {
    "light": ("light {:g} times what was taught", 1.0),
    "gamma": ("gamma {:g}", 1.0),
    "blur": ("blur {:g} px", 0.0),
    "shift": ("shift {:g} %", 0.0),
    "turn": ("turn {:g}°", 0.0),
    "noise": ("noise of {:g} gray levels of 255 (standard deviation)", 0.0),
    "jpeg": ("JPEG quality {:g}", 100.0),
}
"""Ways of straying in words, and the amount of a picture that does not stray."""

Way = Literal["dark", "bright", "blurred"]
_CAUSES: dict[Way, str] = {
    "dark": "Look at the lamp, the lens and the exposure time.",
    "bright": "Look at the lamp, the exposure time and light from outside.",
    "blurred": "Look at the lens, its focus, and whether it is dirty.",
}


@dataclass(frozen=True, slots=True)
class _Limit:
    way: Way
    at: float
    """Relative to what was taught."""
    breaks: str

    def way_gone(self, ratio: float) -> float:
        """0 as taught, 1 at the limit."""
        return (1 - ratio) / (1 - self.at)


class SightWatch:
    """Watches how the pictures of one product at one camera differ from those taught.

    Not for two threads at once, but may be asked from another.
    """

    def __init__(self, envelope: Envelope, meter: SightMeter) -> None:
        self._envelope, self._meter = envelope, meter
        self._brightness: deque[float] = deque(maxlen=WINDOW)
        self._sharpness: deque[float] = deque(maxlen=WINDOW)
        e = envelope
        # A limit on the wrong side, or at 1, says that the promise does not hold where it was taught: no wandering is to blame.
        self._light = [_Limit("dark", e.light_low, e.light_low_breaks)] if e.light_low is not None and e.light_low < 1 else []
        self._light += [_Limit("bright", e.light_high, e.light_high_breaks)] if e.light_high is not None and e.light_high > 1 else []
        self._blur = [_Limit("blurred", e.blur_low, e.blur_breaks)] if e.blur_low is not None and e.blur_low < 1 else []
        self._levels: dict[Way, int] = {limit.way: 0 for limit in (*self._light, *self._blur)}
        self._problem: str | None = None
        self._state: SightState | None = None

    @property
    def problem(self) -> str | None:
        """A sentence for the operator, for each way that the pictures stray."""
        return self._problem

    @property
    def state(self) -> SightState | None:
        """The medians, for the health message; None before the first picture."""
        return self._state

    def add(self, image: Image) -> None:
        """Take one judged part's frame. Logs when the pictures begin to stray, pass a limit, or are again as they were."""
        sight = self._meter(image)
        self._brightness.append(sight.brightness / self._envelope.brightness)
        self._sharpness.append(sight.sharpness / self._envelope.sharpness)
        brightness, sharpness = statistics.median(self._brightness), statistics.median(self._sharpness)
        n = len(self._brightness)
        self._state = SightState(round(brightness, 4), round(sharpness, 4), n)
        if n < LEAST:
            return
        sentences, levels = [], dict(self._levels)
        for limits, ratio, spread in (
            (self._light, brightness, self._envelope.brightness_spread),
            (self._blur, sharpness, self._envelope.sharpness_spread),
        ):
            noise = _SURE * math.sqrt(math.pi / 2 / n) * spread  # a median's standard error, of normal values
            for limit in limits:
                level = levels[limit.way] = self._level(limit, ratio, noise)
                if level:
                    sentences.append(_sentence(limit, ratio, level))
        self._problem = " ".join(sentences) or None
        if levels != self._levels:
            self._levels = levels
            log.warning("%s", self._problem or "the pictures are again as bright and as sharp as they were taught")

    def _level(self, limit: _Limit, ratio: float, noise: float) -> int:
        """0 as taught, 1 on the way to the limit, 2 beyond it."""
        before, gone = self._levels[limit.way], limit.way_gone(ratio)
        if gone >= (_NEARER if before == 2 else 1):
            return 2 if before == 2 or abs(ratio - 1) > noise else 0
        if gone >= (_CALM if before else _WARN):
            return 1 if before or abs(ratio - 1) > noise else 0
        return 0


def _sentence(limit: _Limit, ratio: float, level: int) -> str:
    what = {"rejects": "good parts are rejected", "misses": "bad parts are missed"}.get(
        limit.breaks, "good parts are rejected and bad ones missed"
    )
    if limit.way == "blurred":
        found, border = f"The picture is blurred: its sharpness is {ratio:.2f} of what was taught", f"from {limit.at:.2f} on {what}."
    else:
        word = "darker" if limit.way == "dark" else "brighter"
        found = f"The picture is {100 * abs(1 - ratio):.0f} % {word} than taught"
        border = f"from {100 * abs(1 - limit.at):.0f} % on {what}."
    return f"{found}{'' if level == 2 else ', still within its limit'}; {border} {_CAUSES[limit.way]}"


def watch_of(predictor: OpenvinoPredictor) -> SightWatch | None:
    """A watch for the pictures that this predictor judges; None for a bundle whose envelope was not measured. Raises DataError."""
    bundle = predictor.bundle
    spec, envelope = bundle.manifest.input, bundle.manifest.envelope
    if envelope is None:
        return None
    # With a region of the recipe's own there is no mask: Preprocessor refuses the two together.
    mask = read_mask(bundle.directory / spec.ignore_mask) if spec.ignore_mask else None
    return SightWatch(envelope, SightMeter(spec, predictor.preprocessor.roi, mask))


class SightWatches(Sink):
    """The watches of a station's cameras and products, told of every decision in the observers' thread."""

    def __init__(self, watches: Mapping[tuple[str, str, str], SightWatch]) -> None:
        """By the camera's name (empty for the only one), the recipe's, and the bundle's id."""
        self._watches = dict(watches)
        self._current: dict[str, SightWatch] = {}

    def know(self, watches: Mapping[tuple[str, str, str], SightWatch]) -> None:
        """Other models may judge from now on: what takes the place of the `watches` of the beginning."""
        self._watches = dict(watches)

    @property
    def watches(self) -> Mapping[tuple[str, str, str], SightWatch]:
        """As they were given."""
        return self._watches

    def put(self, decision: Decision, pictures: tuple[Picture, ...]) -> None:
        """Take every picture of the part that a model judged."""
        judged = {v.camera: (v.recipe, v.bundle_id) for v in decision.views}
        for picture in pictures:
            if picture.frame is None or picture.prediction is None or picture.camera not in judged:
                continue
            watch = self._watches.get((picture.camera, *judged[picture.camera]))
            if watch is None:
                # Of a product whose envelope is not known. Never changed in place: the health thread may be reading.
                self._current = {camera: w for camera, w in self._current.items() if camera != picture.camera}
                continue
            if self._current.get(picture.camera) is not watch:
                self._current = {**self._current, picture.camera: watch}
            watch.add(picture.frame.image)

    def __bool__(self) -> bool:
        """False where there is nothing to look at."""
        return bool(self._watches)

    @property
    def problem(self) -> str | None:
        """A sentence for the operator about the products that are judged now; with the camera's name where there are several."""
        found = [f"{camera}: {p}" if camera else p for camera, watch in self._current.items() if (p := watch.problem)]
        return " ".join(found) or None

    @property
    def state(self) -> SightState | None:
        """The medians of the first camera whose pictures stray, else of the first one."""
        watches = sorted(self._current.values(), key=lambda w: w.problem is None)
        return watches[0].state if watches else None


def reach(envelope: Envelope) -> str:
    """How far the line may wander, for people, without a full stop: "light 0.91 to 1.3 or more of what was taught, … shift 1 %"."""
    rows: dict[str, list[Wander]] = {}
    for row in envelope.rows:
        rows.setdefault(row.what, []).append(row)
    parts = []
    if light := [r.amount for r in rows.get("light", [])]:
        low = f"{min(light):g} or less" if envelope.light_low is None else f"{envelope.light_low:.2f}"
        high = f"{max(light):g} or more" if envelope.light_high is None else f"{envelope.light_high:.2f}"
        parts.append(f"light {low} to {high} of what was taught")
    if gamma := rows.get("gamma"):
        parts.append(_gamma(gamma))
    if envelope.blur_low is not None:
        parts.append(f"sharpness down to {envelope.blur_low:.2f} of what was taught")
    for what, word in (
        ("blur", "blur {:g} px"),
        ("shift", "shift {:g} %"),
        ("turn", "turn {:g}°"),
        ("noise", "noise {:g}"),
        ("jpeg", "JPEG quality {:g}"),
    ):
        if what in rows and not (what == "blur" and envelope.blur_low is not None):
            parts.append(_farthest(rows[what], word) + (" (standard deviation, gray levels of 255)" if what == "noise" else ""))
    return ", ".join(parts)


def brittle(envelope: Envelope) -> list[str]:
    """What spoils at least half of the verdicts at the very least that was tried, a sentence a way of straying, without a full stop."""
    clean = next((r for r in envelope.rows if r.what == "clean"), None)
    found = []
    for what, (word, origin) in _LEAST.items():
        rows = sorted((r for r in envelope.rows if r.what == what), key=lambda r: abs(r.amount - origin))
        sides = [[r for r in rows if r.amount < origin], [r for r in rows if r.amount > origin]]
        for row in (side[0] for side in sides if side):
            said = [f"{100 * row.rejected:.0f} % of the good parts are rejected"] if row.rejected >= _HALF else []
            if row.missed is not None and row.missed >= _HALF and (clean is None or (clean.missed or 0.0) < _HALF):
                said.append(f"{100 * row.missed:.0f} % of the bad parts are missed")
            if said and not row.holds:
                amount = row.amount * (100 if what == "shift" else 1)
                found.append(f"{word.format(amount)}, the least that was tried: {' and '.join(said)}")
    return found


def narrow(envelope: Envelope, known: Sequence[str] = ()) -> list[str]:
    """What a station can hardly be kept within, a sentence a way of straying, without a full stop.

    `known`: sentences of `brittle` that were said already; a way of straying that they name by its amounts is not named again.
    """
    found = []
    low, high = envelope.light_low, envelope.light_high
    if low is not None and low > 1 - _LITTLE:
        found.append(f"a lamp that is {100 * (1 - min(low, 1)):.0f} % dimmer spoils verdicts")
    if high is not None and high < 1 + _LITTLE:
        found.append(f"light that is {100 * (max(high, 1) - 1):.0f} % brighter spoils verdicts")
    if envelope.blur_low is not None and envelope.blur_low > 1 - _LITTLE:
        found.append("so does a lens that is hardly out of focus" if found else "a lens that is hardly out of focus spoils verdicts")
    for what, (least, words) in _UNSTEADY.items():
        said = _LEAST[what][0].partition(" ")[0]
        if any(r.what == what and r.amount == least and not r.holds for r in envelope.rows) and not any(k.startswith(said) for k in known):
            found.append(words.format(least * (100 if what == "shift" else 1)))
    return found


def _gamma(rows: list[Wander]) -> str:
    """The exponents on either side of 1 up to which the promise held at every step."""
    ends = []
    for side, more, before in (
        (sorted((r for r in rows if r.amount < 1), key=lambda r: -r.amount), "less", "above"),
        (sorted((r for r in rows if r.amount > 1), key=lambda r: r.amount), "more", "below"),
    ):
        held = next((i for i, r in enumerate(side) if not r.holds), len(side))
        if side:
            ends.append(f"{before} {side[0].amount:g}" if not held else f"{side[held - 1].amount:g}" + f" or {more}" * (held == len(side)))
    return "gamma " + " to ".join(ends)


def _farthest(rows: list[Wander], word: str) -> str:
    """The amount up to which the promise held at every step."""
    finer = rows[0].what == "jpeg"  # a lower quality strays further
    rows = sorted(rows, key=lambda r: -r.amount if finer else r.amount)
    held = next((i for i, r in enumerate(rows) if not r.holds), len(rows))
    said = word.format(rows[max(held - 1, 0)].amount * (100 if rows[0].what == "shift" else 1))
    if held == 0:
        return said.replace(" ", " above " if finer else " below ", 1)
    return said + (" or less" if finer else " or more") if held == len(rows) else said
