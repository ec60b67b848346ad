"""Whether parts lie elsewhere in the picture than those taught, and by how much: along the axes that good parts have proved (bundle.Axis).

Why: deploy/decisions/0052.
"""

import statistics
from collections import deque
from collections.abc import Iterator, Mapping

from edge_runtime.model.manifest import Axis, Envelope
from edge_runtime.model.placement import PlacementMeter, Shrinker
from edge_runtime.records import Image
from edge_runtime.station.straying import LEAST, WINDOW, broken, level_of, surely

_OUTER = 1.645
"""Standard deviations: of twenty parts one lies further to one side of their mean."""
_CAUSE = "Look at the fixture, the trigger's moment and the camera's mounting."


class PlaceWatch:
    """The medians of where the last parts lay, and what is said of them."""

    def __init__(self, envelope: Envelope, shrink: Shrinker, meter: PlacementMeter) -> None:
        """`envelope` with a placement."""
        self._shrink, self._meter = shrink, meter
        limits = {
            "x": (envelope.shift_limit, envelope.shift_breaks),
            "y": (envelope.shift_limit, envelope.shift_breaks),
            "turn": (envelope.turn_limit, envelope.turn_breaks),
        }
        self._axes: list[tuple[Axis, float, str]] = []
        for axis in envelope.placement.axes if envelope.placement is not None else ():
            limit, breaks = limits[axis.way]
            if limit is not None and limit > 0:
                self._axes.append((axis, limit, breaks))
        self._values: dict[str, deque[float]] = {axis.way: deque(maxlen=WINDOW) for axis, _, _ in self._axes}

    def add(self, image: Image) -> None:
        """Take one part's frame; one whose place cannot be found says nothing."""
        lie = self._meter(self._shrink(image))
        if lie is not None:
            for axis, _, _ in self._axes:
                self._values[axis.way].append((getattr(lie, axis.way) - axis.usual) / axis.gain)

    @property
    def off(self) -> Mapping[str, float]:
        """Axis -> the median of the last parts: x and y in shares of the side, turn in degrees; empty before enough parts."""
        return {way: statistics.median(values) for way, values in self._values.items() if len(values) >= LEAST}

    def judge(self, before: Mapping[str, int]) -> Iterator[tuple[str, int, str]]:
        """Axis, level and sentence of each axis of which enough is known; `before`: the levels until now."""
        for way, value in self.off.items():
            axis, limit, breaks = next(a for a in self._axes if a[0].way == way)
            sure = abs(value) > surely(axis.spread / axis.gain, len(self._values[way]))
            level = level_of(before.get(way, 0), abs(value) / limit, sure)
            yield way, level, _sentence(way, value, limit, breaks, level, statistics.stdev(self._values[way]))


def _sentence(way: str, value: float, limit: float, breaks: str, level: int, spread: float) -> str:
    """`spread`: standard deviation of the last parts, in the unit of `value`."""
    within = "" if level == 2 else ", still within the limit"
    if level != 2 and abs(value) + _OUTER * spread > limit:
        differ = f"{spread:.1f}°" if way == "turn" else f"{100 * spread:.1f} %"
        within += f", but parts differ by {differ}: some are beyond it already"
    if way == "turn":
        found = f"Parts lie turned by {abs(value):.1f}° {'counterclockwise' if value > 0 else 'clockwise'} against those taught"
        return f"{found}{within}; beyond {limit:.1f}° {broken(breaks)}. {_CAUSE}"
    side, where = ("width", ("right", "left")) if way == "x" else ("height", ("down", "up"))
    found = f"Parts lie {100 * abs(value):.1f} % of the picture's {side} further {where[value < 0]} than those taught"
    return f"{found}{within}; beyond {100 * limit:.1f} % {broken(breaks)}. {_CAUSE}"
