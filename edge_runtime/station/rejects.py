"""More rejects than a line lives with: bad parts one after the other, or good ones whose picture is no longer what was taught.

The watches beside this one compare pictures and accepted parts' scores with what was taught (wander, drift); what neither can name still
rejects parts, and must not do so in silence. It watches, and never touches a verdict. Why: deploy/decisions/0012.
"""

import logging
from collections import deque

from edge_runtime.records import Verdict

log = logging.getLogger(__name__)

WINDOW = 30
"""Parts of which the rejected ones are counted."""


class RejectWatch:
    """Counts rejects among the last parts. Not for two threads at once: whoever owns it locks."""

    def __init__(self, alarm: int) -> None:
        """`alarm`: so many rejects among the last WINDOW parts are a problem, until they are half as many; 0: never."""
        self._alarm = alarm
        self._rejected: deque[bool] = deque(maxlen=WINDOW)
        self._raised = False

    def add(self, verdict: Verdict) -> None:
        """Take one decided part; a FAULT says nothing of the part. Logs when it begins and ends."""
        if verdict is Verdict.FAULT or not self._alarm:
            return
        self._rejected.append(verdict is Verdict.REJECT)
        count = sum(self._rejected)
        raised = count >= self._alarm or (self._raised and 2 * count > self._alarm)
        if raised is not self._raised:
            self._raised = raised
            log.warning("%s", self.problem or "most parts are accepted again")

    def forget(self) -> None:
        """Parts are judged otherwise from now on."""
        self._rejected.clear()
        self._raised = False

    @property
    def problem(self) -> str | None:
        """A sentence for the operator, while too many are rejected."""
        if not self._raised:
            return None
        return (
            f"{sum(self._rejected)} of the last {len(self._rejected)} parts are rejected. Look at the parts; if they are good, at the"
            " light, the lens, the camera's settings and how parts lie: something is not as it was taught."
        )
