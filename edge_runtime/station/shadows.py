"""The models of a station that look on: proved, begun, counted and ended, one a camera and recipe.

Why: deploy/decisions/0051.
"""

import logging
from collections.abc import Callable
from typing import Protocol, get_args

import msgspec

from edge_runtime.config.files import ArchiveConfig, StationConfig
from edge_runtime.errors import DeviceError, SinkError
from edge_runtime.handoff import Helper
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.records import ShadowState
from edge_runtime.sinks.archive import Archive
from edge_runtime.sinks.journal_read import last_said
from edge_runtime.station.background import give_way
from edge_runtime.station.health import HealthMonitor
from edge_runtime.station.in_effect import Kind, OnTrial
from edge_runtime.station.judge import limits_of
from edge_runtime.station.observers import Observers, ShadowThread
from edge_runtime.station.recipes import Entry
from edge_runtime.station.shadow import Disagreements, Shadow

log = logging.getLogger(__name__)

_CLOSE_S = 2.0
COUNTS = "shadow counts"
"""The journal's row that says how one has judged so far."""
_COUNTED = ("judged", "accepts", "rejects", "skipped")


class Event(Protocol):
    """Where it is written down what was done to a station, for whoever asks later."""

    def __call__(self, kind: str, **said: object) -> None: ...


class Shadows:
    """By camera and recipe key. For one thread, but `states`, which any may ask."""

    def __init__(self, config: StationConfig, observers: Observers, monitor: HealthMonitor, event: Event) -> None:
        self._config, self._observers, self._monitor, self._event = config, observers, monitor, event
        self._names = [camera.name for camera in config.cameras]
        self._there: dict[tuple[str, str], tuple[Shadow, ShadowThread]] = {}
        self._archive: Archive | None = None
        self._disagreements: Disagreements | None = None

    @property
    def states(self) -> tuple[ShadowState, ...]:
        """How the models that look on would have judged."""
        return tuple(shadow.state for shadow, _ in tuple(self._there.values()))

    def close(self) -> None:
        """What they were given is compared, or left behind."""
        for shadow, thread in self._there.values():
            self._observers.leave(thread, _CLOSE_S)
            shadow.note()
        if self._archive is not None:
            self._archive.__exit__(None, None, None)

    def proved(self, entry: Entry, bundle: ModelBundle, trial: OnTrial, before_each: Callable[[], None], most_s: float) -> Shadow:
        """One with a single inference thread: it must not take the cores from what judges. Raises LinesideError.

        `before_each`: called before each golden sample, and may wait.
        """
        recipe = msgspec.structs.replace(entry.recipe, bundle=bundle.directory, threshold=None)
        limits = limits_of(bundle.manifest, recipe)
        predictor = OpenvinoPredictor(bundle, self._config.device, 1, recipe.region)

        def prove(_: None) -> None:
            give_way()  # for good: its inference threads inherit that
            predictor.__enter__()
            predictor.run_golden(self._config.golden_tolerance_scale, before_each)

        proving: Helper[None, None] = Helper(prove, "shadow")
        try:
            proving.call(None).result(most_s)
        except TimeoutError:
            raise DeviceError(f"bundle {bundle.id[:12]}: its model does not answer") from None
        finally:
            proving.leave()
        key = self._names[entry.camera], entry.key

        def note(state: ShadowState) -> None:
            self._event(COUNTS, camera=key[0], recipe=key[1], bundle=trial.bundle, **{name: getattr(state, name) for name in _COUNTED})

        return Shadow(key[0], recipe.name, predictor, limits, trial.every, self._kept, note)

    def go_on(self, key: tuple[str, str], shadow: Shadow) -> None:
        """Count on from what the journal says, unless something else has begun to judge, or to look on, since that was written."""
        where = {"camera": key[0], "recipe": key[1]}
        try:
            found = last_said(self._config.journal.path, (COUNTS, "shadow", "shadow verdict", *get_args(Kind)), where)
        except SinkError as e:
            return log.warning("shadow: counts anew: %s", e)
        if found is not None and found[0] == COUNTS and found[1].get("bundle") == shadow.predictor.bundle.id:
            counts = [n for name in _COUNTED if isinstance(n := found[1].get(name), int)]
            if len(counts) == len(_COUNTED):
                shadow.go_on(*counts)
        return None

    def begin(self, key: tuple[str, str], shadow: Shadow, every: int) -> None:
        """It looks on from the next part on."""
        name = " ".join(word for word in ("shadow", *key) if word)
        self._there = {**self._there, key: (shadow, self._observers.add_shadow(name, shadow, every))}

    def another_judges(self, key: tuple[str, str], bundle_id: str, who: str, why: str) -> None:
        """Another model judges: a shadow that is this one has ended, any other is compared anew."""
        if key not in self._there:
            return
        shadow, _ = self._there[key]
        if shadow.predictor.bundle.id == bundle_id:
            self.end(key, who, why)
        else:
            self._tell(key, shadow, who, why)
            shadow.begin_anew()

    def end(self, key: tuple[str, str], who: str, why: str) -> str:
        """The shadow's last word, for whoever asked."""
        if key not in self._there:
            return ""
        shadow, thread = self._there[key]
        self._there = {k: v for k, v in self._there.items() if k != key}
        self._observers.leave(thread, _CLOSE_S)
        self._monitor.trouble(thread.name, None)
        self._tell(key, shadow, who, why)
        return f": {shadow.state.sentence}"

    def _tell(self, key: tuple[str, str], shadow: Shadow, who: str, why: str) -> None:
        s = shadow.state
        self._event(
            "shadow verdict", who=who, why=why, camera=key[0], recipe=key[1], bundle=s.bundle_id, every=s.every, judged=s.judged,
            accepts=s.accepts, rejects=s.rejects, skipped=s.skipped,
        )  # fmt: skip

    def _kept(self) -> Disagreements:
        """Opened at the first disagreement."""
        if self._disagreements is None:
            archive = self._config.archive
            beside = archive.path.with_name(f"{archive.path.name}-shadow") if archive is not None else self._config.store / "shadow"
            opened = Archive(ArchiveConfig(path=beside, quota_mb=self._config.models.shadow_mb))
            opened.__enter__()
            self._archive, self._disagreements = opened, Disagreements(opened)
        return self._disagreements
