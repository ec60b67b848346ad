"""A trigger at a fixed pace: for benches and demonstrations."""

import time
from typing import Self

from edge_runtime.config.files import TimerTriggerConfig
from edge_runtime.protocols import TriggerLine
from edge_runtime.records import Trigger


class TimerLine(TriggerLine):
    """Trigger n is due at start + n * period and carries that time, however late it is fetched: a real line would not wait either."""

    def __init__(self, settings: TimerTriggerConfig, first_seq: int) -> None:
        self._period_ns = round(settings.period_ms * 1e6)
        self._count = settings.count
        self._first_seq = first_seq
        self._fired = 0
        self._start_ns: int | None = None

    def __enter__(self) -> Self:
        self._fired, self._start_ns = 0, None
        return self

    @property
    def exhausted(self) -> bool:
        """True after the last of `count` triggers."""
        return self._count is not None and self._fired >= self._count

    def wait(self, timeout_s: float) -> Trigger | None:
        """The clock starts with the first call, not while the station still opens its devices."""
        now = time.monotonic_ns()
        if self._start_ns is None:
            self._start_ns = now
        if self.exhausted:
            time.sleep(timeout_s)
            return None
        due = self._start_ns + (self._fired + 1) * self._period_ns
        if due - now > timeout_s * 1e9:
            time.sleep(timeout_s)
            return None
        time.sleep(max(due - now, 0) / 1e9)
        trigger = Trigger(seq=self._first_seq + self._fired, fired_ns=due, part_id="")
        self._fired += 1
        return trigger
