"""Whoever only looks on (archive, preview): told after the verdict, in a thread of their own, and never waited for."""

import logging
import threading
from collections.abc import Mapping

from edge_runtime.errors import HandoffFull, SinkError
from edge_runtime.handoff import Lane
from edge_runtime.protocols import Sink
from edge_runtime.records import Decision, Picture
from edge_runtime.station.health import HealthMonitor

log = logging.getLogger(__name__)

_WAITING = 8
_Item = tuple[Decision, tuple[Picture, ...]]


class Observers:
    """Hands decisions to slow sinks in one thread, over one bounded lane. What does not fit is dropped and counted as `dropped_<name>`."""

    def __init__(self, sinks: Mapping[str, Sink], monitor: HealthMonitor, watches: Mapping[str, Sink] | None = None) -> None:
        """`sinks` by the plural of what they keep: "archives", "previews"; `watches` likewise, but nobody misses what they did not see."""
        self._counted = tuple(sinks)
        self._sinks = {**sinks, **(watches or {})}
        self._monitor = monitor
        self._lane: Lane[_Item] = Lane(_WAITING)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="observers", daemon=True)
        self._thread.start()

    def show(self, decision: Decision, pictures: tuple[Picture, ...]) -> None:
        """Hand on one decision with its pictures; never waits."""
        if not self._sinks:
            return
        try:
            self._lane.put((decision, pictures))
        except HandoffFull:
            for name in self._counted:
                self._monitor.count(f"dropped_{name}")

    def close(self, timeout_s: float) -> None:
        """End the thread after what waits, for so long at most."""
        self._closing = True
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not (self._closing and not len(self._lane)):
            item = self._lane.get(0.05)
            if item is None:
                continue
            for name, sink in self._sinks.items():
                try:
                    sink.put(*item)
                except SinkError as e:
                    self._monitor.trouble(name, str(e))
                except Exception as e:  # a bug in an observer must not cost a verdict; it is logged and stays in sight
                    log.exception("%s failed", name)
                    self._monitor.trouble(name, f"{name}: internal error: {e}")
                else:
                    self._monitor.trouble(name, None)
            del item
