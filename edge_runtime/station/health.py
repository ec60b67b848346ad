"""How a station is: counts, latency quantiles and problems, told once a second, and the word to systemd that the loop is alive."""

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from edge_runtime.errors import ConfigError, LinesideError
from edge_runtime.records import Decision, Health, ReleaseState, ShadowState, State, Verdict
from edge_runtime.station.drift import DriftWatch
from edge_runtime.station.rejects import RejectWatch
from edge_runtime.station.wander import SightWatches

log = logging.getLogger(__name__)

_PERIOD_S = 1.0
_WINDOW = 1000
_MANAGER_TIMEOUT_S = 0.1
_STAGES = ("grab", "predict", "overhead", "total")


class HasProblem(Protocol):
    """What can go wrong without raising, and tells health of it."""

    @property
    def problem(self) -> str | None:
        """A sentence for the operator, or None."""


class Waits(Protocol):
    """What keeps others' things until their turn comes."""

    @property
    def waiting(self) -> int:
        """How many."""


class Connected(HasProblem, Protocol):
    """What has a connection that may break: a camera, the PLC."""

    @property
    def tallies(self) -> Mapping[str, int]:
        """What happened to the connection since the start; empty for one that cannot break."""


class ServiceManager:
    """systemd's notification protocol (sd_notify(3)) over the socket that it names; without one, nothing is sent."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        own = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = os.environ.get("WATCHDOG_USEC", "")
        self.watchdog_s = int(usec) / 1e6 if own and usec.isdigit() else None
        """How long systemd waits for a sign of life; None when it does not ask for one."""

    def tell(self, message: str) -> None:
        """Send READY=1, STATUS=…, WATCHDOG=1 or STOPPING=1."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(_MANAGER_TIMEOUT_S)
                sock.sendto(message.encode(), self._address)
        except OSError as e:
            log.warning("systemd's socket took no message: %s", e)


class HealthMonitor:
    """Collects what happens, publishes it, and stops the sign of life when a thread that matters stops coming round."""

    def __init__(
        self,
        *,
        station: str,
        recipes: tuple[str, ...],
        bundle_ids: tuple[str, ...],
        device: str,
        cameras: tuple[str, ...] = ("",),
        send: Callable[[Health], None] | None = None,
        alive_within_s: float = 5.0,
        last_seq: int = 0,
        drifts: Mapping[tuple[str, str], DriftWatch] | None = None,
        inference: str = "",
        releases: Mapping[tuple[tuple[str, ...], tuple[str, ...]], ReleaseState] | None = None,
        origins: tuple[str, ...] = (),
        alarm_rejects: int = 0,
    ) -> None:
        """Begin in state STARTING.

        Args:
            station: its name.
            recipes: names of those that are judged by, one a camera.
            bundle_ids: of the models that judge, one a camera.
            device: the inference device that is really used.
            cameras: their names, in the station file's order; empty for the only one.
            send: gets a Health record once a second, and at once when the state changes, in the monitor's thread.
            alive_within_s: a thread that called `beat` once and then not for so long counts as dead.
            last_seq: of the last decision before this start.
            drifts: told of every judged part, by the camera's name (empty for the only one) and the id of the bundle that judged it.
            inference: how the models of several cameras run.
            releases: whether what judges is released, by recipes and bundles as `judging` has them.
            origins: where bundles and thresholds come from, one a camera.
            alarm_rejects: so many rejects among the last parts are a problem; 0: never.
        """
        self._station, self._cameras, self._device = station, cameras, device
        self._judging = recipes, bundle_ids, origins
        self._send = send
        self._alive_within_s = alive_within_s
        self._last_seq = last_seq
        self._drifts = dict(drifts or {})
        self._rejects = RejectWatch(alarm_rejects)
        self._inference = inference
        self._releases = dict(releases or {})
        self._began = time.monotonic()
        self._state = State.STARTING
        self._lock = threading.Lock()
        self._counts = {**{v.value: 0 for v in Verdict}, "overruns": 0, "dropped_previews": 0, "dropped_archives": 0}
        self._times: deque[tuple[float, float, float, float]] = deque(maxlen=_WINDOW)
        self._troubles: dict[str, str] = {}
        self._acknowledged: dict[str, str] = {}
        self._watched: Sequence[HasProblem] = ()
        self._connections: Mapping[str, Connected] = {}
        self._sights: SightWatches | None = None
        self._shadows: Callable[[], tuple[ShadowState, ...]] = tuple
        self._queues: Mapping[str, Waits] = {}
        self._beats: dict[str, float] = {}
        self._manager = ServiceManager()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._closing = True
        self._wake.set()
        self._thread.join(timeout=2.0)

    def watch(
        self,
        parts: Sequence[HasProblem],
        connections: Mapping[str, Connected] | None = None,
        sights: SightWatches | None = None,
        queues: Mapping[str, Waits] | None = None,
        shadows: Callable[[], tuple[ShadowState, ...]] = tuple,
    ) -> None:
        """Ask these for problems from now on; `connections`, by name, for their tallies too, `sights` for how the pictures look, `queues`,
        by name, for what waits there, `shadows` for models that look on."""
        self._shadows = shadows
        self._connections, self._sights, self._queues = dict(connections or {}), sights, dict(queues or {})
        self._watched = (*parts, *self._connections.values(), *([sights] if sights is not None else []))

    def ready(self) -> None:
        """Tell that every trigger gets its verdict from now on."""
        self._state = State.READY
        self._manager.tell("READY=1")
        self._wake.set()

    def judging(self, recipes: tuple[str, ...], bundle_ids: tuple[str, ...], origins: tuple[str, ...] = ()) -> None:
        """Tell that parts are judged by other recipes and models from now on; one a camera each."""
        with self._lock:
            self._judging = recipes, bundle_ids, origins
        log.info("recipe %s, bundle %s", ", ".join(dict.fromkeys(recipes)), ", ".join(id_[:12] for id_ in dict.fromkeys(bundle_ids)))

    def know(
        self, drifts: Mapping[tuple[str, str], DriftWatch], releases: Mapping[tuple[tuple[str, ...], tuple[str, ...]], ReleaseState]
    ) -> None:
        """Other models may judge from now on: what takes the place of the `drifts` and `releases` of the beginning."""
        with self._lock:
            self._drifts, self._releases = dict(drifts), dict(releases)
            self._rejects.forget()

    @property
    def drifts(self) -> Mapping[tuple[str, str], DriftWatch]:
        """What is told of judged parts, by camera and bundle."""
        return self._drifts

    def stopping(self) -> None:
        """Tell that no further trigger is taken."""
        self._state = State.STOPPING
        self._manager.tell("STOPPING=1")
        self._wake.set()

    def beat(self, thread: str) -> None:
        """Note that `thread` has come round."""
        self._beats[thread] = time.monotonic()

    @property
    def alive(self) -> bool:
        """False when a thread stopped coming round."""
        now = time.monotonic()
        return all(now - beat < self._alive_within_s for beat in tuple(self._beats.values()))

    def decided(self, decision: Decision, grab_ns: int, predict_ns: int, done_ns: int) -> None:
        """Count a decision that everybody was told by `done_ns`; `grab_ns` and `predict_ns` of it were the camera's and the model's."""
        total = done_ns - decision.stamps.fired_ns
        with self._lock:
            self._counts[decision.verdict.value] += 1
            self._last_seq = decision.seq
            self._rejects.add(decision.verdict)
            if decision.verdict is not Verdict.FAULT:  # a fault has no latency worth knowing but its deadline
                self._times.append((grab_ns, predict_ns, total - grab_ns - predict_ns, total))
            for view in decision.views:
                if view.score is not None and (drift := self._drifts.get((view.camera, view.bundle_id))) is not None:
                    drift.add(view.score, view.verdict is Verdict.ACCEPT)

    def count(self, what: str, more: int = 1) -> None:
        """So many more of `overruns`, `dropped_previews`, `dropped_archives`, or whatever else is to stand in `Health.counts`."""
        with self._lock:
            self._counts[what] = self._counts.get(what, 0) + more

    def counts(self) -> dict[str, int]:
        """Verdicts and drops since the start, as in `Health.counts`."""
        with self._lock:
            return dict(self._counts)

    def trouble(self, where: str, what: str | None) -> None:
        """Show a sentence about `where` among the problems from now on; None takes it away. Logged when it changes."""
        if what is None and where not in self._troubles:
            return
        with self._lock:
            before = self._troubles.pop(where, None)
            if what is not None:
                self._troubles[where] = what
        if what != before:
            log.warning("%s: %s", where, what or "works again")

    def acknowledge(self, problem: str, who: str) -> None:
        """Somebody has taken note of a problem. Raises ConfigError for a sentence that is none of the present ones."""
        if problem not in (present := self.snapshot().problems):
            raise ConfigError(f"expected one of the station's problems, found {problem!r}; they are: {'; '.join(present) or 'none'}")
        with self._lock:
            self._acknowledged[problem] = who

    def snapshot(self) -> Health:
        """The health record of this moment."""
        with self._lock:
            counts, times, troubles, last_seq = dict(self._counts), list(self._times), list(self._troubles.values()), self._last_seq
            recipes, bundle_ids, origins = self._judging
            watched = {camera: self._drifts.get((camera, id_)) for camera, id_ in zip(self._cameras, bundle_ids, strict=True)}
            drifts = {camera: drift for camera, drift in watched.items() if drift is not None}
            drifting = {camera: drift for camera, drift in drifts.items() if drift.problem}
            troubles += [f"{camera}: {drift.problem}" if camera else str(drift.problem) for camera, drift in drifting.items()]
            troubles += [self._rejects.problem] if self._rejects.problem is not None else []
            drift_state = next((drift.state for drift in (*drifting.values(), *drifts.values())), None)
        problems = tuple(dict.fromkeys([p for part in self._watched if (p := part.problem)] + troubles))
        with self._lock:
            self._acknowledged = {problem: who for problem, who in self._acknowledged.items() if problem in problems}
            acknowledged = dict(self._acknowledged)
        state = State.DEGRADED if self._state is State.READY and problems else self._state
        stages: dict[str, tuple[float, float]] = {}
        if times:
            median, p99 = np.percentile(np.array(times), [50, 99], axis=0) / 1e6
            stages = {name: (round(float(median[i]), 3), round(float(p99[i]), 3)) for i, name in enumerate(_STAGES)}
        return Health(
            station=self._station, state=state, problems=problems, bundle_ids=bundle_ids, recipes=recipes, device=self._device,
            uptime_s=round(time.monotonic() - self._began, 3), counts=counts, stages_ms=stages, last_seq=last_seq,
            wall_time=datetime.now(UTC).isoformat(timespec="milliseconds"), drift=drift_state, inference=self._inference,
            connections={name: dict(tallies) for name, part in self._connections.items() if (tallies := part.tallies)},
            release=self._releases.get((recipes, bundle_ids)),
            sight=self._sights.state if self._sights else None, acknowledged=acknowledged, origins=origins, shadows=self._shadows(),
            queues={name: queue.waiting for name, queue in self._queues.items()},
        )  # fmt: skip

    def _run(self) -> None:
        watchdog_s = self._manager.watchdog_s
        period_s = min(_PERIOD_S, watchdog_s / 2) if watchdog_s else _PERIOD_S
        due = time.monotonic() + 0.9 * _PERIOD_S
        was_alive, closing = True, False
        while not closing:
            changed = self._wake.wait(period_s)
            self._wake.clear()
            closing = self._closing
            if watchdog_s is not None and self.alive:
                self._manager.tell("WATCHDOG=1")
            if was_alive and not self.alive:
                log.critical("the loop or the trigger line has stopped coming round")
            was_alive = self.alive
            # A change of state is told at once: a run shorter than a period would never be seen, its end not told.
            if changed or time.monotonic() >= due:
                due = time.monotonic() + 0.9 * _PERIOD_S
                self._publish()

    def _publish(self) -> None:
        health = self.snapshot()
        c = health.counts
        problems = f"; {health.problems[0]}" if health.problems else ""
        self._manager.tell(f"STATUS={health.state}: {c['ACCEPT']} accepted, {c['REJECT']} rejected, {c['FAULT']} faults{problems}")
        if self._send is not None:
            try:
                self._send(health)
            except LinesideError as e:
                self.trouble("health", str(e))
            else:
                self.trouble("health", None)
