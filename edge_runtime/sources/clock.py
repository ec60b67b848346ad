"""When a frame was taken: by the camera's ticks, or by its arrival where that was waited for. Pure."""

from collections import deque

_WINDOW_NS = 30_000_000_000
_MAX_DRIFT = 200e-6
"""Crystals of cameras and computers stay within 100 ppm each."""
_JUMP_NS = 100_000_000
_NO_WAIT_NS = 2_000_000
_STEPS = 16


class CameraClock:
    """Maps ticks to CLOCK_MONOTONIC by the lower envelope of (arrival - ticks) over the last 30 s.

    A frame can be late, never early: what was delayed least tells the offset between the clocks, and the envelope's slope their drift. The
    slope is that of the envelope's edge above the window's middle, which among all lines below the points is the one nearest to them
    (Moon, Skelly, Towsley: Estimation and removal of clock skew from network delay measurements, INFOCOM 1999).

    What even the fastest frame needs from exposure to arrival cannot be seen here: whoever knows it subtracts it.
    """

    def __init__(self, tick_ns: float) -> None:
        """`tick_ns`: nanoseconds of one tick."""
        self._tick_ns = tick_ns
        self._hull: deque[tuple[int, int]] = deque()
        self._first_tick = 0
        self._last_tick: int | None = None
        self._last_told_ns = 0
        self.resets = 0
        """How often the camera's clock ran backwards or jumped ahead: what was known of it is then forgotten."""
        self.error_ns = 0
        """How much too early the last told time may be for drift not yet seen."""

    def captured_ns(self, ticks: int, arrived_ns: int) -> int:
        """When the frame with `ticks` came to be; never after its arrival, never before the frame before it."""
        if self._last_tick is not None and ticks < self._last_tick:
            self._forget()
        told = self._fit(ticks, arrived_ns)
        self._last_tick = ticks
        self._last_told_ns = min(max(told, self._last_told_ns), arrived_ns)
        return self._last_told_ns

    def _fit(self, ticks: int, arrived_ns: int) -> int:
        if not self._hull:
            self._first_tick = ticks
        x = round((ticks - self._first_tick) * self._tick_ns)
        y = arrived_ns - x
        if self._hull and y < self._line(x) - _JUMP_NS:
            self._forget()
            return self._fit(ticks, arrived_ns)
        self._add(x, y)
        below = self._line(x)
        self.error_ns = max(round(min(b + _MAX_DRIFT * (x - a) for a, b in self._hull)) - below, 0)
        return x + below

    def _line(self, x: int) -> int:
        """The line below all points, at `x`."""
        hull = self._hull
        slope = 0.0
        if len(hull) > 1:
            middle = (hull[0][0] + hull[-1][0]) / 2
            a, b = next((p, q) for p, q in zip(hull, list(hull)[1:], strict=False) if q[0] >= middle)
            slope = min(max((b[1] - a[1]) / (b[0] - a[0]), -_MAX_DRIFT), _MAX_DRIFT)
        return min(b + round(slope * (x - a)) for a, b in hull)

    def _add(self, x: int, y: int) -> None:
        hull = self._hull
        if hull and hull[-1][0] == x:
            y = min(y, hull.pop()[1])
        while len(hull) > 1 and (hull[-1][1] - hull[-2][1]) * (x - hull[-2][0]) >= (y - hull[-2][1]) * (hull[-1][0] - hull[-2][0]):
            hull.pop()
        hull.append((x, y))
        while len(hull) > 1 and hull[0][0] < x - _WINDOW_NS:
            hull.popleft()

    def _forget(self) -> None:
        self._hull.clear()
        self.resets += 1


class Arrivals:
    """When pictures came that may have lain in a buffer: of the network, or because this process stood still."""

    def __init__(self, began_ns: int) -> None:
        """`began_ns`: nothing is older than that (CLOCK_MONOTONIC)."""
        self._since_ns = began_ns
        """When a read last began that had to wait: nothing lay in the buffer then."""
        self._lain = 0
        self._last_ns: int | None = None
        self._steps_ns: deque[int] = deque(maxlen=_STEPS)

    @property
    def lay(self) -> bool:
        """Whether the last one lay there."""
        return self._lain > 0

    def of(self, asked_ns: int, now_ns: int) -> int:
        """When a picture was exposed that was asked for at `asked_ns` and is here at `now_ns`; never later than it came."""
        if now_ns - asked_ns > _NO_WAIT_NS:
            if self._last_ns is not None and not self._lain:
                self._steps_ns.append(now_ns - self._last_ns)
            self._since_ns, self._last_ns, self._lain = asked_ns, now_ns, 0
            return now_ns
        # The picture before those that lay there may have come as soon as it was asked for; they followed it at the camera's pace.
        self._lain += 1
        pace_ns = sorted(self._steps_ns)[len(self._steps_ns) // 4] if len(self._steps_ns) == _STEPS else 0
        return min(self._since_ns + self._lain * pace_ns, now_ns)
