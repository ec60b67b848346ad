"""Whether a line still scores like the good parts that the detector was calibrated on; watches, and never touches a verdict.

Two counts over sliding windows, against limits that come with the bundle (bundle.Drift):

up      among the last accepted parts, those above what nine in ten good parts stay below: dirt, wear, less light, another material.
        Accepted parts only, so that a run of bad parts is no drift.
down    among the last judged parts, those below what nine in ten good parts exceed: a cap on the lens, a camera that shows nothing.
        All judged parts: bad ones score high, so they cannot be taken for it.

Why: deploy/decisions/0012.
"""

import logging
from collections import deque

import numpy as np

from edge_runtime.model.manifest import Drift
from edge_runtime.records import DriftState, Trend

log = logging.getLogger(__name__)


class DriftWatch:
    """Watches the scores of one model at one camera for drift.

    Fed with every judged part, in order. Not for two threads at once: whoever owns it locks.
    """

    def __init__(self, limits: Drift) -> None:
        self._limits = limits
        self._scores: deque[float] = deque(maxlen=limits.window)
        self._above: deque[bool] = deque(maxlen=limits.window)
        self._below: deque[bool] = deque(maxlen=limits.window)
        self._n_above = self._n_below = 0
        self._trend = Trend.OK
        expected = limits.share * limits.window
        # An alarm ends half-way back to what is usual, so that a count at its limit does not come and go with every part.
        self._calm_above, self._calm_below = (limits.max_above + expected) / 2, (limits.max_below + expected) / 2

    def add(self, score: float, accepted: bool) -> None:
        """Take one judged part (no FAULT): its raw score and whether it was accepted. Logs when a drift begins or ends."""
        limits = self._limits
        if accepted:
            self._scores.append(score)
            self._n_above += _push(self._above, score > limits.high)
        self._n_below += _push(self._below, score < limits.low)
        trend = self._judge()
        if trend is not self._trend:
            self._trend = trend
            log.warning("%s", self.problem or "the scores are those of good parts again")

    @property
    def problem(self) -> str | None:
        """A sentence for the operator while scores drift."""
        limits = self._limits
        if self._trend is Trend.UP:
            return (
                f"Scores drift up: {self._n_above} of the last {len(self._above)} accepted parts score above {limits.high:.4g},"
                f" on a healthy line at most {limits.max_above} do. Look at the light, the lens and the material."
            )
        if self._trend is Trend.DOWN:
            return (
                f"Scores drift down: {self._n_below} of the last {len(self._below)} parts score below {limits.low:.4g},"
                f" on a healthy line at most {limits.max_below} do. Look whether the camera still sees the part."
            )
        return None

    @property
    def state(self) -> DriftState:
        """What it counted, for the health message."""
        return DriftState(
            trend=self._trend,
            above=self._n_above,
            below=self._n_below,
            accepted=len(self._above),
            judged=len(self._below),
            median=round(float(np.median(self._scores)), 6) if self._scores else None,
            usual_median=self._limits.median,
        )

    def _judge(self) -> Trend:
        limits = self._limits
        if self._n_above > (self._calm_above if self._trend is Trend.UP else limits.max_above):
            return Trend.UP
        if self._n_below > (self._calm_below if self._trend is Trend.DOWN else limits.max_below):
            return Trend.DOWN
        return Trend.OK


def _push(window: deque[bool], value: bool) -> int:
    """Append; returns by how much the window's count of True changes."""
    gone = window[0] if len(window) == window.maxlen else False
    window.append(value)
    return value - gone
