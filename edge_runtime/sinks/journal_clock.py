"""How old the journal's rows are: a time of its own, which neither a wrong clock nor a step of the clock moves. Pure.

While a station runs, it goes on with CLOCK_MONOTONIC. At a start the clock is believed where it lies ahead of the last row by what a line
may stand still; a clock that is further ahead, or behind, moves nothing until an engineer has said that it is right.

The last row's time is only what stands in the file: whoever can write that can date it years ahead. So no row ages by a time of the
journal that is ahead of the machine's clock either: of the two the earlier counts.
"""

import time
from dataclasses import dataclass, field

STANDSTILL_S = 31 * 86_400
"""A line that stands still for longer: its rows are kept for that much longer."""
BEHIND_S = 86_400
"""A clock that was set back by less is no news."""


@dataclass(frozen=True, slots=True)
class JournalClock:
    """The time that rows are dated and pruned by."""

    start_s: int
    """Seconds since 1970, believed at the start."""
    problem: str | None = None
    """A sentence for health while the clock is not believed."""
    _began: float = field(default_factory=time.monotonic)

    @property
    def now_s(self) -> int:
        """Seconds since 1970."""
        return self.start_s + int(time.monotonic() - self._began)

    def ages_by(self, wall_s: int) -> int | None:
        """The time that rows are old by; None while the journal's is ahead of the machine's clock `wall_s`: then none is."""
        return None if self.now_s - wall_s > BEHIND_S else min(self.now_s, wall_s)

    def doubt(self, wall_s: int) -> str | None:
        """`problem`, also where the machine's clock was set back since the start."""
        if self.problem is None and self.ages_by(wall_s) is None:
            return f"the machine's clock is {(self.now_s - wall_s) / 86_400:.0f} days behind the journal's last row: no row ages by that"
        return self.problem


def journal_clock(last_s: int | None, wall_s: int) -> JournalClock:
    """The clock of a station that starts; `last_s`: its last row's time, `wall_s`: the machine's clock.

    >>> journal_clock(1_000_000, 1_000_900).start_s
    1000900
    >>> journal_clock(1_000_000, 1_000_000 + 500 * 86_400).problem
    "the machine's clock is 500 days ahead of the journal's last row: no row ages by that"
    """
    if last_s is None or 0 <= wall_s - last_s <= STANDSTILL_S:
        return JournalClock(wall_s)
    apart_s, where = abs(wall_s - last_s), "ahead of" if wall_s > last_s else "behind"
    if wall_s > last_s or apart_s > BEHIND_S:
        return JournalClock(
            last_s, f"the machine's clock is {apart_s / 86_400:.0f} days {where} the journal's last row: no row ages by that"
        )
    return JournalClock(last_s)
