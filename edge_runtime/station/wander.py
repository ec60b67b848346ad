"""Which way a line strays from what was taught: dark, bright, blurred or noisy pictures, parts that lie elsewhere.

It watches, and never touches a verdict.
The limits come with the bundle (bundle.Envelope), measured where it was built: up to there verdicts were tried and held, and beyond good
parts are rejected or bad ones missed.
A warning begins 70 % of the way there, so that a lamp is changed before it costs parts. What is compared is the median of the last parts,
whatever their verdicts: in the dark all of them may be rejects.

Why: deploy/decisions/0028, and 0052 for where parts lie.
"""

import logging
import math
import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edge_runtime.images.read import read_image, read_mask
from edge_runtime.model.manifest import Envelope
from edge_runtime.model.placement import PlacementMeter, Shrinker
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.model.sight import SightMeter
from edge_runtime.protocols import Sink
from edge_runtime.records import Decision, Image, Picture, SightState
from edge_runtime.station.placed import PlaceWatch
from edge_runtime.station.straying import LEAST, WINDOW, broken, level_of, surely

log = logging.getLogger(__name__)

PLACE_EVERY = 4
"""One of so many parts is looked at for where it lies: that takes a millisecond and more, and fixtures wear slowly."""
Way = Literal["dark", "bright", "blurred", "noisy"]
_CAUSES: dict[Way, str] = {
    "dark": "Look at the lamp, the lens and the exposure time.",
    "bright": "Look at the lamp, the exposure time and light from outside.",
    "blurred": "Look at the lens, its focus, and whether it is dirty.",
    "noisy": "Look at the camera's gain and exposure time.",
}


@dataclass(frozen=True, slots=True)
class _Limit:
    way: Way
    at: float
    """Relative to what was taught."""
    breaks: str

    def way_gone(self, ratio: float) -> float:
        """0 as taught, 1 at the limit."""
        if self.way == "noisy":  # independent noises add as squares
            return math.sqrt(max(ratio**2 - 1, 0.0) / (self.at**2 - 1))
        return (1 - ratio) / (1 - self.at)


class SightWatch:
    """Watches how the pictures of one product at one camera differ from those taught.

    Not for two threads at once, but may be asked from another.
    """

    def __init__(self, envelope: Envelope, meter: SightMeter, place: PlaceWatch | None = None) -> None:
        """`place`: told of every so many-th part, too."""
        self._envelope, self._meter, self._place = envelope, meter, place
        self._brightness: deque[float] = deque(maxlen=WINDOW)
        self._sharpness: deque[float] = deque(maxlen=WINDOW)
        self._noise: deque[float] = deque(maxlen=WINDOW)
        e = envelope
        # A limit on the wrong side, or at 1, says that the promise does not hold where it was taught: no wandering is to blame.
        self._light = [_Limit("dark", e.light_low, e.light_low_breaks)] if e.light_low is not None and e.light_low < 1 else []
        self._light += [_Limit("bright", e.light_high, e.light_high_breaks)] if e.light_high is not None and e.light_high > 1 else []
        self._blur = [_Limit("blurred", e.blur_low, e.blur_breaks)] if e.blur_low is not None and e.blur_low < 1 else []
        self._grain = self._of_noise()
        self._levels: dict[str, int] = {}
        self._seen = 0
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
        if self._place is not None and self._seen % PLACE_EVERY == 0:
            self._place.add(image)
        self._seen += 1
        if self._envelope.noise > 0:
            self._noise.append(sight.noise / self._envelope.noise)
        brightness, sharpness = statistics.median(self._brightness), statistics.median(self._sharpness)
        noise = statistics.median(self._noise) if self._noise else None
        n = len(self._brightness)
        off = {} if self._place is None else {way: round(value, 5) for way, value in self._place.off.items()}
        self._state = SightState(round(brightness, 4), round(sharpness, 4), n, off, None if noise is None else round(noise, 4))
        if n < LEAST:
            return
        said, levels = list[str](), dict[str, int]()
        for limits, ratio, spread in (
            (self._light, brightness, self._envelope.brightness_spread),
            (self._blur, sharpness, self._envelope.sharpness_spread),
            (self._grain, noise or 1.0, self._envelope.noise_spread),
        ):
            sure = abs(ratio - 1) > surely(spread, n)
            for limit in limits:
                level = levels[limit.way] = level_of(self._levels.get(limit.way, 0), limit.way_gone(ratio), sure)
                if level:
                    said.append(_sentence(limit, ratio, level, self._envelope.noise))
        if self._place is not None:
            for way, level, sentence in self._place.judge(self._levels):
                levels[way] = level
                said += [sentence] if level else []
        self._problem = " ".join(said) or None
        if any(levels[way] != self._levels.get(way, 0) for way in levels):
            log.warning("%s", self._problem or "the pictures are again as they were taught")
        self._levels = levels

    def _of_noise(self) -> list[_Limit]:
        """What the noise of the frames comes to with as much added as held."""
        e = self._envelope
        if not e.noise_limit or not e.noise > 0:
            return []
        return [_Limit("noisy", math.hypot(1, e.noise_limit / e.noise), e.noise_breaks)]


def _sentence(limit: _Limit, ratio: float, level: int, noise: float) -> str:
    what = broken(limit.breaks)
    if limit.way == "blurred":
        found, border = f"The picture is blurred: its sharpness is {ratio:.2f} of what was taught", f"below {limit.at:.2f} {what}."
    elif limit.way == "noisy":
        found = f"The picture is noisier than taught: noise of {ratio * noise:.1f} gray levels for {noise:.1f}"
        border = f"beyond {limit.at * noise:.1f} {what}."
    else:
        word = "darker" if limit.way == "dark" else "brighter"
        found = f"The picture is {100 * abs(1 - ratio):.0f} % {word} than taught"
        border = f"beyond {100 * abs(1 - limit.at):.0f} % {what}."
    return f"{found}{'' if level == 2 else ', still within its limit'}; {border} {_CAUSES[limit.way]}"


def watch_of(predictor: OpenvinoPredictor) -> SightWatch | None:
    """A watch for the pictures that this predictor judges; None for a bundle whose envelope was not measured. Raises DataError."""
    bundle = predictor.bundle
    spec, envelope = bundle.manifest.input, bundle.manifest.envelope
    if envelope is None:
        return None
    # With a region of the recipe's own there is no mask: Preprocessor refuses the two together.
    mask = read_mask(bundle.directory / spec.ignore_mask) if spec.ignore_mask else None
    place = None
    if envelope.placement is not None and predictor.preprocessor.roi == spec.roi:  # elsewhere in the frame the mean picture means nothing
        shrink = Shrinker(spec, mask)
        reference = read_image(bundle.directory / envelope.placement.reference)
        place = PlaceWatch(envelope, shrink, PlacementMeter(reference, shrink.ignored))
    return SightWatch(envelope, SightMeter(spec, predictor.preprocessor.roi, mask), place)


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
        """By camera, recipe and bundle, as they were given last."""
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
