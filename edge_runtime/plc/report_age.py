"""How long ago what an OPC UA server reports came to be, by its own stamps: its clock may differ from ours, and may be stepped."""

from collections import deque

_KEPT = 256
"""Reports by which the two clocks are compared: seconds to minutes."""
_NO_STAMP_S = 0.1
_NO_STAMPS = 3
"""A source all of whose stamps, so many at least, lie further behind than the server's pace and this has a clock of its own."""


class ReportAges:
    """Seconds; ours are of the monotonic clock, the server's of whatever it has. Not thread-safe."""

    def __init__(self, pace_s: float) -> None:
        """`pace_s`: what a change may wait in a server that is well: one sampling and one publishing interval."""
        self._pace_s = pace_s
        self._heard_s: float | None = None
        self._published_s: float | None = None
        self._apart: deque[float] = deque(maxlen=_KEPT)
        """By how much our clock was before the server's, a report each."""
        self._behind: deque[float] = deque(maxlen=_KEPT)
        """By how much the source's stamp was before the report's, a change each."""
        self._late_s = self._most_s = 0.0

    def heard(self, received_s: float, published_s: float | None) -> None:
        """A report has come, be it empty; `published_s`: the server's stamp on it, if there is one."""
        since_s = 0.0 if self._heard_s is None else received_s - self._heard_s
        # The report before showed the tags as they were when it was sent: no change in this one is older.
        self._most_s = since_s + self._late_s + self._pace_s
        self._heard_s, self._published_s, self._late_s = received_s, published_s, 0.0
        if published_s is None:
            return
        apart = received_s - published_s
        late_s = apart - min(self._apart, default=apart)
        if late_s > self._most_s:  # nothing is on its way for so long: the server's clock was set back
            self._apart.clear()
            late_s = 0.0
        self._apart.append(apart)
        self._late_s = late_s

    def age_s(self, stamp_s: float | None) -> float:
        """How old a change of the report that was heard last was when that came; `stamp_s`: the source's stamp on it, if there is one."""
        behind_s = 0.0
        if stamp_s is not None and self._published_s is not None:
            behind_s = self._published_s - stamp_s
            self._behind.append(behind_s)
            least_s = min(self._behind)
            if len(self._behind) >= _NO_STAMPS and least_s > self._pace_s + _NO_STAMP_S:
                behind_s -= least_s
        return min(max(behind_s, 0.0) + self._late_s, self._most_s)
