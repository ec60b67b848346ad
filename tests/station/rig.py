"""A station of small real parts, without a process around it: what the loop's tests are made of."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from edge_runtime.capture.capture import Capture
from edge_runtime.protocols import Predictor, Sink, Source, TriggerLine
from edge_runtime.records import Decision, Delivery, Frame, Picture, Prediction, Trigger, Verdict
from edge_runtime.station.health import HealthMonitor
from edge_runtime.station.judge import Limits
from edge_runtime.station.loop import Station
from edge_runtime.station.model_thread import Model, model_thread
from edge_runtime.station.observers import Observers
from edge_runtime.station.products import Job, Product
from edge_runtime.station.views import Viewpoint, Viewpoints

MS = 1_000_000
BUSY_MS = 300
"""What a busy test machine may add to any time; what is tested would take far longer if it broke."""
A, R, F = Verdict.ACCEPT, Verdict.REJECT, Verdict.FAULT
LIMITS = Limits(20.0, 19.0)


class Line(TriggerLine):
    """Fires each trigger so many ms after the first call, then is exhausted, or raises `ends_with`."""

    def __init__(self, at_ms: Sequence[float], ends_with: Exception | None = None, endless: bool = False) -> None:
        self._at_ms, self._ends_with, self._endless = list(at_ms), ends_with, endless
        self._fired = 0
        self._start_ns = 0

    @property
    def exhausted(self) -> bool:
        return self._fired == len(self._at_ms) and self._ends_with is None and not self._endless

    def wait(self, timeout_s: float) -> Trigger | None:
        self._start_ns = self._start_ns or time.monotonic_ns()
        if self._fired == len(self._at_ms):
            if self._ends_with is not None:
                raise self._ends_with
            time.sleep(timeout_s)
            return None
        left_ns = self._start_ns + round(self._at_ms[self._fired] * MS) - time.monotonic_ns()
        if left_ns > timeout_s * 1e9:
            time.sleep(timeout_s)
            return None
        time.sleep(max(left_ns, 0) / 1e9)
        self._fired += 1
        return Trigger(self._fired, time.monotonic_ns(), f"part-{self._fired}")


class Parts(Source):
    """Frames on demand: bright parts where the number is in `bad`. `hang_at`: that grab waits for `release`."""

    on_demand: bool
    live = False

    def __init__(self, bad: Sequence[int] = (), hang_at: int = 0, age_ms: float = 0.0, side: int = 64, on_demand: bool = True) -> None:
        self.on_demand = on_demand
        self._bad, self._hang_at, self._age_ns, self._side = set(bad), hang_at, round(age_ms * MS), side
        self.grabs = 0
        self.release = threading.Event()

    def grab(self, timeout_s: float) -> Frame:
        began = time.monotonic_ns()
        self.grabs += 1
        n = self.grabs
        if n == self._hang_at:
            self.release.wait(20)
        if not self.on_demand:
            time.sleep(0.005)
        image = np.full((self._side, self._side), 80, np.uint8)
        if n in self._bad:
            image[16:32, 32:48] = 200
        return Frame(n, began - self._age_ns, "test", image)


class Wrapped(Predictor):
    """The real predictor; before its n-th call of a part, `before(n)` runs."""

    def __init__(self, inner: Predictor, before: Callable[[int], None]) -> None:
        self._inner, self._before = inner, before
        self.calls = 0

    def predict(self, frame: Frame) -> Prediction:
        self.calls += 1
        self._before(self.calls)
        return self._inner.predict(frame)


@dataclass
class Heard(Sink):
    """A receiver that remembers, with the time."""

    decisions: list[Decision] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)

    def put(self, decision: Decision, pictures: tuple[Picture, ...]) -> None:
        self.decisions.append(decision)
        self.late_ms.append((time.monotonic_ns() - decision.stamps.fired_ns) / 1e6)

    @property
    def verdicts(self) -> list[Verdict]:
        return [d.verdict for d in self.decisions]

    @property
    def seqs(self) -> list[int]:
        return [d.seq for d in self.decisions]


class Failing(Sink):
    """A receiver that raises."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def put(self, decision: Decision, pictures: tuple[Picture, ...]) -> None:
        raise self._error


@dataclass
class Recipe:
    predictor: Predictor
    limits: Limits = LIMITS
    deadline_ms: float = 1000


@dataclass
class Rig:
    station: Station
    monitor: HealthMonitor
    heard: Heard
    deliveries: list[Delivery]
    """What would be noted in the journal."""


@contextmanager
def rig(
    line: Line, source: Source, predictor: Predictor, *, tellers: Sequence[Sink] = (), watching: Mapping[str, Sink] | None = None,
    deadline_ms: float = 1000, warm_frame: Frame | None = None, recipes: Mapping[str, Recipe] | None = None, **more: object,
) -> Iterator[Rig]:  # fmt: skip
    """`recipes`: further ones, by key: a predictor, its limits, a deadline."""
    own = {"": Recipe(predictor, deadline_ms=deadline_ms)}
    with several(line, {"": (source, {**own, **(recipes or {})})}, tellers=tellers, watching=watching, warm_frame=warm_frame, **more) as r:
        yield r


@contextmanager
def several(
    line: Line, views: Mapping[str, tuple[Source, Mapping[str, Recipe]]], *, tellers: Sequence[Sink] = (),
    watching: Mapping[str, Sink] | None = None, warm_frame: Frame | None = None, together: bool = False, **more: object,
) -> Iterator[Rig]:  # fmt: skip
    """A station with several cameras, by name: a source, and its recipes by key, "" among them."""
    heard = Heard()
    monitor = HealthMonitor(
        station="s", recipes=("r",) * len(views), bundle_ids=("b",) * len(views), device="CPU", cameras=tuple(views),
    )  # fmt: skip
    deliveries: list[Delivery] = []
    observers = Observers(watching or {}, monitor, delivered=deliveries.append)
    threads = [model_thread() for _ in views]
    slowest_ms = max(recipe.deadline_ms for _, recipes in views.values() for recipe in recipes.values())
    cameras = [Viewpoint(name, Capture(source, slowest_ms / 1e3)) for name, (source, _) in views.items()]
    models: dict[tuple[int, int], Model] = {}
    products = {}
    for key in next(iter(views.values()))[1]:
        jobs, deadline_ms = [], slowest_ms
        for i, (_, recipes) in enumerate(views.values()):
            recipe, thread = recipes[key], threads[i if together else 0]
            model = models.setdefault((i, id(recipe.predictor)), Model(recipe.predictor, thread, warm_frame))
            jobs.append(Job(f"r{key}", f"b{key}", recipe.limits, model))
            deadline_ms = min(deadline_ms, recipe.deadline_ms)
        products[key] = Product(key, tuple(jobs), deadline_ms)
    viewpoints = Viewpoints(cameras)
    station = Station("s", line, viewpoints, products, [*tellers, heard], observers, monitor, **({"delivered": deliveries.append} | more))  # type: ignore[arg-type]
    monitor.watch([station, *cameras])
    try:
        yield Rig(station, monitor, heard, deliveries)
    finally:
        observers.close(1)
        viewpoints.close()
        for camera in cameras:
            camera.capture.close()
        for thread in threads:
            thread.close(0.05)
        for left in threading.enumerate():
            if left.name == "model":  # left behind by a test that made it hang: the next test uses the same model
                left.join(10)


def every(ms: float, n: int) -> list[float]:
    return [ms * i for i in range(n)]
