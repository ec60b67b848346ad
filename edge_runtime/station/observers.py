"""Whoever only looks on (archive, preview, sinks of installed packages): told after the verdict, in threads of their own, never waited for.

Why one thread for ours and one each for the others: deploy/decisions/0041.
"""

import abc
import logging
import threading
import time
from collections.abc import Callable, Mapping

from edge_runtime.errors import HandoffFull, SinkError
from edge_runtime.handoff import Lane
from edge_runtime.protocols import Sink
from edge_runtime.records import Decision, Delivery, Outcome, Picture
from edge_runtime.station.background import give_way
from edge_runtime.station.health import HealthMonitor

log = logging.getLogger(__name__)

_WAITING = 8
_ROUND_S = 0.05
_ASK_S = 1.0
_HANGS_AFTER_S = 3.0
_Delivered = Callable[[Delivery], None]
_Item = tuple[Decision, tuple[Picture, ...]]


class Observers:
    """A bounded lane and a thread for Lineside's own, and one of each for every other. What does not fit is counted as `dropped_<name>`."""

    def __init__(
        self,
        sinks: Mapping[str, Sink],
        monitor: HealthMonitor,
        watches: Mapping[str, Sink] | None = None,
        delivered: _Delivered = lambda delivery: None,
    ) -> None:
        """`sinks`, `watches`: by the plural of what they keep, such as "archives"; what a watch did not see is missed by nobody.

        `delivered` writes down what one of them was not given; never waits.
        """
        own = {**sinks, **(watches or {})}
        self._monitor, self._delivered = monitor, delivered
        self._observers = [_ObserverThread("observers", own, tuple(sinks), monitor, delivered)] if own else []

    def add(self, name: str, sink: Sink, label: str) -> None:
        """An entered sink of an installed package, called `label` where it fails. It is told, asked and left in a thread of its own."""
        self._monitor.count(f"dropped_{name}", 0)
        self._observers.append(_PluginThread(name, sink, label, self._monitor, self._delivered))

    def add_shadow(self, name: str, shadow: "ShadowSink", every: int) -> "ShadowThread":
        """Show every so many-th of the parts that it wants to `shadow`, in a thread of its own."""
        shadowing = ShadowThread(name, shadow, every, self._monitor)
        self._observers = [*self._observers, shadowing]
        return shadowing

    def leave(self, shadowing: "ShadowThread", timeout_s: float) -> None:
        """Show it nothing more."""
        self._observers = [one for one in self._observers if one is not shadowing]
        shadowing.closing = True
        shadowing.thread.join(timeout_s)

    @property
    def problem(self) -> str | None:
        """A sentence for the operator while one of the threads hangs."""
        return next((problem for observer in self._observers if (problem := observer.problem) is not None), None)

    @property
    def waiting(self) -> int:
        """Decisions that one or the other of the threads has not taken yet: the most."""
        return max((observer.waiting for observer in self._observers), default=0)

    def show(self, decision: Decision, pictures: tuple[Picture, ...]) -> None:
        """Hand on one decision with its pictures; never waits."""
        for observer in self._observers:
            observer.show((decision, pictures))

    def close(self, timeout_s: float) -> None:
        """Let what waits be kept, for so long at most."""
        until = time.monotonic() + timeout_s
        for observer in self._observers:
            observer.closing = True
        for observer in self._observers:
            observer.thread.join(max(until - time.monotonic(), 0))
            if observer.thread.is_alive():
                log.warning("%s: still busy; left behind", observer.name)


class _ObserverThread:
    """One thread and its lane."""

    def __init__(
        self, name: str, sinks: Mapping[str, Sink], counted: tuple[str, ...], monitor: HealthMonitor, delivered: _Delivered
    ) -> None:
        self.name, self.closing = name, False
        self._sinks, self._counted, self._monitor, self._delivered = sinks, counted, monitor, delivered
        self._lane: Lane[_Item] = Lane(_WAITING)
        self._busy_since = 0.0
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    @property
    def problem(self) -> str | None:
        since = self._busy_since
        busy_s = time.monotonic() - since if since else 0.0
        return f"{self.name}: no answer for {busy_s:.0f} s; parts are decided without." if busy_s > _HANGS_AFTER_S else None

    @property
    def waiting(self) -> int:
        return len(self._lane)

    def show(self, item: _Item) -> None:
        try:
            self._lane.put(item)
        except HandoffFull:
            for name in self._counted:
                self._monitor.count(f"dropped_{name}")
                self._failed_to(name, item, "dropped: those before it were not done yet")

    def _run(self) -> None:
        self._begin()
        while not (self.closing and not len(self._lane)):
            item = self._lane.get(_ROUND_S)
            self._busy_since = time.monotonic()
            if item is None:
                self._idle()
            else:
                for name, sink in self._sinks.items():
                    self._tell(name, sink, item)
            self._busy_since = 0.0
            del item
        self._end()

    def _failed_to(self, name: str, item: _Item, why: str) -> None:
        if name in self._counted:
            self._delivered(Delivery(item[0].seq, name, Outcome.FAILED, time.monotonic_ns(), why))

    def _tell(self, name: str, sink: Sink, item: _Item) -> None:
        try:
            sink.put(*item)
        except SinkError as e:
            self._monitor.trouble(name, str(e))
            self._failed_to(name, item, str(e))
        except Exception as e:  # a bug in an observer must not cost a verdict; it is logged and stays in sight
            log.exception("%s failed", name)
            self._monitor.trouble(name, f"{name}: internal error: {e}")
            self._failed_to(name, item, f"{type(e).__name__}: {e}")
        else:
            self._monitor.trouble(name, None)

    def _begin(self) -> None:
        """The thread's first act."""

    def _idle(self) -> None:
        """The thread's act while nothing comes."""

    def _end(self) -> None:
        """The thread's last act."""


class ShadowSink(Sink):
    """A model that scores parts after their verdict, and counts how it would have judged."""

    @abc.abstractmethod
    def wants(self, decision: Decision) -> bool:
        """Whether it is a part that it would judge; asked in the loop's thread."""

    @abc.abstractmethod
    def skip(self) -> None:
        """It was busy with another part; told in the loop's thread."""


class ShadowThread(_ObserverThread):
    """The thread of a model that looks on: one part in hand, and none that waits."""

    def __init__(self, name: str, shadow: ShadowSink, every: int, monitor: HealthMonitor) -> None:
        self._shadow, self._every, self._seen, self._in_hand = shadow, every, 0, False
        super().__init__(name, {name: shadow}, (), monitor, lambda delivery: None)

    def show(self, item: _Item) -> None:
        if not self._shadow.wants(item[0]):
            return
        self._seen += 1
        if self._seen % self._every:
            return
        if self._in_hand:
            self._shadow.skip()
        else:
            self._in_hand = True
            self._lane.note(item)

    def _begin(self) -> None:
        give_way()

    def _tell(self, name: str, sink: Sink, item: _Item) -> None:
        super()._tell(name, sink, item)
        self._in_hand = False


class _PluginThread(_ObserverThread):
    """A single sink that somebody else wrote: nothing of it is called in any thread but this one."""

    def __init__(self, name: str, sink: Sink, label: str, monitor: HealthMonitor, delivered: _Delivered) -> None:
        self._sink, self._label = sink, label
        self._asked = time.monotonic()
        self._said: str | None = None
        super().__init__(name, {name: sink}, (name,), monitor, delivered)

    def _tell(self, name: str, sink: Sink, item: _Item) -> None:
        try:
            sink.put(*item)
            self._ask()
        except SinkError as e:
            self._said = str(e)
            self._monitor.trouble(name, f"{name}: {e}")
            self._failed_to(name, item, str(e))
        except (Exception, SystemExit) as e:
            self._failed(e)
            self._failed_to(name, item, f"{type(e).__name__}: {e}")

    def _idle(self) -> None:
        """Ask, unless the last part was not taken: whether it works again, the next one tells."""
        if time.monotonic() - self._asked > _ASK_S and self._said is None:
            try:
                self._ask()
            except (Exception, SystemExit) as e:
                self._failed(e)

    def _end(self) -> None:
        try:
            self._sink.__exit__(None, None, None)
        except (Exception, SystemExit) as e:
            self._failed(e)

    def _ask(self) -> None:
        """What it says of itself becomes the station's; what it raised before is over."""
        self._asked, self._said = time.monotonic(), None
        problem = self._sink.problem
        self._monitor.trouble(self.name, f"{self.name}: {problem}" if problem else None)

    def _failed(self, e: BaseException) -> None:
        said = f"{self._label}: {type(e).__name__}: {e}"
        if said != self._said:  # its traceback once, not a part
            log.error("%s failed", self.name, exc_info=e)
        self._said = said
        self._monitor.trouble(self.name, said)
