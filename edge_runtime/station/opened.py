"""What a station has open, and how another model joins it: proved beside those that judge, then made known to whoever counts by bundle."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from edge_runtime.config.files import StationConfig
from edge_runtime.errors import BundleError, FrameError
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.model.released import JobKey, by_job
from edge_runtime.protocols import Source
from edge_runtime.records import ReleaseState
from edge_runtime.sinks.preview import Display, PreviewSink
from edge_runtime.sources import check_depth
from edge_runtime.station.drift import DriftWatch
from edge_runtime.station.health import HealthMonitor
from edge_runtime.station.judge import limits_of
from edge_runtime.station.model_thread import Model, ModelThread
from edge_runtime.station.observers import Observers
from edge_runtime.station.products import Product, by_product
from edge_runtime.station.recipes import Entry, OpenRecipe, job_of, open_recipe
from edge_runtime.station.shadows import Event
from edge_runtime.station.wander import SightWatch, SightWatches, watch_of

_TRIES = 3
_PATIENCE_S = 0.5
_LOOK_S = 0.002


@dataclass(frozen=True, slots=True)
class Opened:
    """The pieces of an open station that take part in a change of its models."""

    config: StationConfig
    recipes: list[OpenRecipe]
    """What judges; entries are replaced in place."""
    threads: Sequence[ModelThread]
    sources: Sequence[Source]
    """One a camera."""
    monitor: HealthMonitor
    observers: Observers
    sights: SightWatches
    preview: PreviewSink | None
    event: Event

    def proved(self, entry: Entry, bundle: ModelBundle, products: Mapping[str, Product]) -> OpenRecipe:
        """Compiled, proved by its golden samples beside what judges, and able to judge what this camera shows in time.

        `products`: what the station judges by now, here and below. Raises LinesideError.
        """
        check_depth(self.sources[entry.camera], bundle.manifest.input.bits)
        frame = products[entry.key].jobs[entry.camera].model.last_frame
        if frame is not None and frame.source != "blank":
            try:  # before a model is opened, which warms up on a frame as large as the recipe's region demands
                OpenvinoPredictor(bundle, roi=entry.recipe.region).preprocessor.check(frame.image)
            except FrameError as e:
                raise BundleError(f"bundle {bundle.manifest.name}: it cannot judge what this camera shows: {e}") from e
        one = open_recipe(self.config, entry, bundle, self.recipes, self.until_idle)
        if one.predictor not in {o.predictor for o in self.recipes}:
            blank, wanted_ms = one.predictor.blank(), entry.recipe.deadline_ms
            taken_ms = min(self._timed_ms(lambda: one.predictor.predict(blank)) for _ in range(_TRIES))
            if taken_ms >= wanted_ms:
                m = bundle.manifest
                raise BundleError(
                    f"bundle {m.name}: expected an answer within the recipe's {wanted_ms:g} ms, it takes {taken_ms:.3g} ms here"
                )
        return one

    @property
    def busy(self) -> bool:
        """A part is being judged, or waits for it."""
        return any(thread.pending for thread in self.threads)

    def until_idle(self) -> None:
        """Two inferences at once take longer than one after the other: begin none while a part is being judged, within reason."""
        until = time.monotonic() + _PATIENCE_S
        while self.busy and time.monotonic() < until:
            time.sleep(_LOOK_S)

    def _timed_ms(self, do: Callable[[], object]) -> float:
        self.until_idle()
        began = time.perf_counter()
        do()
        return (time.perf_counter() - began) * 1e3

    def product_with(self, one: OpenRecipe, products: Mapping[str, Product]) -> Product:
        """The product that is judged now, with one camera's job replaced."""
        entry = one.entry
        sharing = next((o.entry for o in self.recipes if o.predictor is one.predictor), None)
        if sharing is not None:
            model = products[sharing.key].jobs[sharing.camera].model
        else:
            model = Model(one.predictor, self.threads[entry.camera % len(self.threads)], one.predictor.blank())
        before = products[entry.key]
        jobs = [job_of(one, model) if i == entry.camera else job for i, job in enumerate(before.jobs)]
        return replace(before, jobs=tuple(jobs))

    def know(self, products: Mapping[str, Product], besides: Sequence[OpenRecipe] = (), further: Product | None = None) -> None:
        """Tell health, drift, the watch on pictures and the preview, which count by bundle, what is open; in a switch `besides`, too."""
        names = [camera.name for camera in self.config.cameras]
        opened = [*besides, *self.recipes]
        releases = _releases(besides) | _releases(self.recipes)
        judged = [*products.values(), *([further] if further is not None else [])]
        drifts: dict[tuple[str, str], DriftWatch] = {}
        watches: dict[tuple[str, str, str], SightWatch] = {}
        for o in opened:
            camera, m, id_ = names[o.entry.camera], o.predictor.bundle.manifest, o.predictor.bundle.id
            if m.drift is not None:
                drifts[camera, id_] = self.monitor.drifts.get((camera, id_)) or DriftWatch(m.drift)
            key = (camera, o.entry.recipe.name, id_)
            watch = watches.get(key) or self.sights.watches.get(key) or watch_of(o.predictor)
            if watch is not None:
                watches[key] = watch
        self.monitor.know(drifts, by_product(releases, judged))
        self.sights.know(watches)
        if self.preview is not None:
            shown = {o.predictor.bundle.id: o.predictor.bundle.manifest for o in opened}
            self.preview.know({id_: Display(m.display, m.input.bits, m.threshold.value) for id_, m in shown.items()}, releases)


def threshold_of(one: OpenRecipe) -> float:
    """The threshold that an opened recipe judges by."""
    return limits_of(one.predictor.bundle.manifest, one.entry.recipe).threshold


def _releases(opened: Sequence[OpenRecipe]) -> dict[JobKey, ReleaseState]:
    return by_job([(o.predictor.bundle.manifest, o.predictor.bundle.id, o.entry.recipe) for o in opened])
