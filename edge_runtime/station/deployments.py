"""Other models, thresholds and recipes while the station runs: proved beside what judges, then put in its place between two parts.

All is done in a thread of its own, for whoever asks from any thread but the loop's; what fails leaves everything as it was.

Why: deploy/decisions/0051.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from edge_runtime.config.files import StationConfig, load_recipe
from edge_runtime.errors import BundleError, ConfigError, DeviceError, LinesideError, SinkError, printable
from edge_runtime.handoff import Helper
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.signature import load_keys
from edge_runtime.model.store import BundleStore
from edge_runtime.records import ShadowState
from edge_runtime.station import in_effect
from edge_runtime.station.background import giving_way
from edge_runtime.station.in_effect import FROM_FILE, Change, Chosen, InEffect, Judges, Kind, OnTrial, Said
from edge_runtime.station.loop import Station
from edge_runtime.station.opened import Opened, threshold_of
from edge_runtime.station.recipes import Entry, OpenRecipe, log_opened, named
from edge_runtime.station.shadow import Shadow
from edge_runtime.station.shadows import Shadows

log = logging.getLogger(__name__)

_MOST_S = 600.0
_CLOSE_S = 2.0
_GRACE_S = 1.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be changed, by whom, and why."""

    who: str
    why: str
    recipe: str = ""
    """Its key in [recipes]; empty for the recipe of triggers that name none."""
    camera: str = ""
    """Its name; empty for the only one."""


class Deployments:
    """What may be done to the models of a running station, one thing at a time. For any thread but the loop's."""

    def __init__(self, config: StationConfig, opened: Opened) -> None:
        self._config, self._opened = config, opened
        self._names = [camera.name for camera in config.cameras]
        self._store = BundleStore(config.store, config.models.keep, load_keys(config.trusted_keys))
        self._chosen: InEffect = in_effect.read(config.store)
        self._station: Station | None = None
        self._asking = threading.Lock()
        self._under_way = ""
        self._helper: Helper[Callable[[], str], str] = Helper(lambda do: do(), "models")
        self._shadows = Shadows(config, opened.observers, opened.monitor, opened.event)
        self._closing = threading.Event()

    def begin(self, station: Station) -> None:
        """The station is open, and about to judge by what it opened. Shadows begin to look on by and by."""
        self._station = station
        self._store.sweep()
        self._opened.know(self._running.products)
        self._settle()
        if any(chosen.shadow is not None for chosen in self._chosen.values()):
            self._helper.call(self._resume_shadows)

    def close(self) -> None:
        """Whatever is under way is left behind: what is in effect is what stands on the disk."""
        self._closing.set()
        self._helper.close(_CLOSE_S)
        self._shadows.close()

    @property
    def shadows(self) -> tuple[ShadowState, ...]:
        """How the models that look on would have judged."""
        return self._shadows.states

    # --- what may be asked; each returns one sentence and raises LinesideError with one where nothing was changed ---------------------

    def deploy(self, path: Path, wish: Wish, shadow: int = 0) -> str:
        """Judge by the bundle at `path`, a directory or zip file of this machine, at its own threshold.

        `shadow`: it only looks on, at every so many-th part.
        """
        return self._do(wish, lambda: self._begin_shadow(path, wish, shadow) if shadow else self._deploy(path, wish))

    def promote(self, wish: Wish) -> str:
        """Judge by the shadow."""
        return self._do(wish, lambda: self._promote(wish))

    def rollback(self, wish: Wish) -> str:
        """Judge by the bundle and threshold that were in effect before."""
        return self._do(wish, lambda: self._rollback(wish))

    def end_shadow(self, wish: Wish) -> str:
        """Have the shadow look on no longer."""
        return self._do(wish, lambda: self._withdraw_shadow(wish))

    def tune(self, threshold: float, wish: Wish) -> str:
        """Judge by another threshold on the score, within what the bundle's manifest allows."""
        return self._do(wish, lambda: self._tune(threshold, wish))

    def reload(self, wish: Wish) -> str:
        """Judge by the recipe file as it is now: bundle, threshold, smallest defect, region."""
        return self._do(wish, lambda: self._reload(wish))

    def _do(self, wish: Wish, what: Callable[[], str]) -> str:
        in_effect.change("deploy", wish.who, wish.why)  # before anything is begun
        with self._asking:
            if self._under_way:
                raise ConfigError(
                    f"expected one change at a time, found one that {self._under_way} asked for under way; ask again when it is done"
                )
            self._under_way = wish.who
            reply = self._helper.call(lambda: self._one(what))
        try:
            return reply.result(_MOST_S)
        except TimeoutError:
            raise DeviceError(f"the station has not done it within {_MOST_S:.0f} s; `lineside status` says what judges") from None
        except LinesideError as e:
            log.warning("asked by %s: %s", wish.who, printable(str(e)))
            raise

    def _one(self, what: Callable[[], str]) -> str:
        try:
            return what()
        finally:
            self._under_way = ""

    # --- the thread of its own --------------------------------------------------------------------------------------------------------

    def _deploy(self, path: Path, wish: Wish) -> str:
        i = self._place(wish)
        bundle, _ = self._take_in(path)
        now = self._now(i)
        if now == Judges(bundle=bundle.id):
            return f"{_short(bundle)} judges already; nothing was changed"
        dropped = f"; the threshold of before, {now.threshold:g}, belonged to the model of before" if now.threshold is not None else ""
        return self._take_effect(i, bundle, Judges(bundle=bundle.id), "deploy", wish) + dropped

    def _promote(self, wish: Wish) -> str:
        i = self._place(wish)
        trial = self._trial(i)
        bundle, _ = self._store.open(trial.bundle)
        return self._take_effect(i, bundle, Judges(bundle=bundle.id), "promote", wish)

    def _rollback(self, wish: Wish) -> str:
        i = self._place(wish)
        chosen = self._chosen.get(self._key(i))
        if chosen is None or chosen.before is None:
            raise ConfigError(
                f"{self._called(i)}: expected something that was in effect before, found nothing: it is as its recipe file says"
            )
        bundle, _ = self._store.open(chosen.before.bundle)
        return self._take_effect(i, bundle, chosen.before, "rollback", wish)

    def _tune(self, threshold: float, wish: Wish) -> str:
        i = self._place(wish)
        bundle, now = self._opened.recipes[i].predictor.bundle, self._now(i)
        if not 0 < threshold < float("inf"):
            raise ConfigError(f"--threshold: expected a positive number, found {threshold:g}")
        if threshold == now.threshold:
            return f"the threshold is {threshold:g} already; nothing was changed"
        return self._take_effect(i, bundle, Judges(bundle=bundle.id, threshold=threshold), "tune", wish)

    def _reload(self, wish: Wish) -> str:
        i = self._place(wish)
        entry = self._opened.recipes[i].entry
        recipe = load_recipe(entry.file)
        for key in ("name", "deadline_ms"):
            was, found = getattr(entry.recipe, key), getattr(recipe, key)
            if was != found:
                raise ConfigError(f"{entry.file}: {key}: expected {was} as when the station started, found {found}; this takes a restart")
        bundle, _ = self._take_in(recipe.bundle)
        judges = Judges(bundle=bundle.id, threshold=recipe.threshold)
        if recipe == msgspec.structs.replace(entry.recipe, bundle=recipe.bundle, threshold=recipe.threshold) and judges == self._now(i):
            return f"{entry.file} says what judges already; nothing was changed"
        return self._take_effect(i, bundle, judges, "reload", wish, replace(entry, recipe=recipe))

    def _take_effect(self, i: int, bundle: ModelBundle, judges: Judges, kind: Kind, wish: Wish, entry: Entry | None = None) -> str:
        """Prove it, write it down, and have it judge from the next part on; else everything is as it was."""
        opened, station, old, key = self._opened, self._running, self._opened.recipes[i], self._key(i)
        change, before = in_effect.change(kind, wish.who, wish.why), self._now(i)
        way_back = self._kept_copy(old.predictor.bundle)
        path = self._store.path_of(bundle.id)
        if not path.exists():
            raise BundleError(f"bundle {bundle.directory}: was replaced on the disk since the station opened it; deploy it, or restart")
        recipe = msgspec.structs.replace((entry or old.entry).recipe, bundle=path, threshold=judges.threshold)
        with named(old.entry.where), giving_way():  # no longer than this: no part waits for it yet
            one = opened.proved(replace(old.entry, recipe=recipe, origin=change.origin, overruled=False), bundle, station.products)
        product = opened.product_with(one, station.products)
        if one.predictor is not old.predictor:
            station.warm(product)
        was = self._chosen.get(key)
        shadow = was.shadow if was is not None and (was.shadow is None or was.shadow.bundle != bundle.id) else None
        chosen = {**self._chosen, key: Chosen(
            camera=key[0], recipe=key[1], now=judges, change=change, before=before if way_back else None, file=self._said(one.entry),
            shadow=shadow,
        )}  # fmt: skip
        opened.know(station.products, [one], product)
        try:
            in_effect.write(self._config.store, chosen)  # a kill from here on, and the next start judges by it
            try:
                station.switch(product)
            except DeviceError:
                in_effect.write(self._config.store, self._chosen)
                raise
        except LinesideError:
            opened.know(station.products)
            raise
        self._chosen, opened.recipes[i] = chosen, one
        opened.know(station.products, [old])
        opened.event(
            kind, who=wish.who, why=wish.why, camera=key[0], recipe=key[1], old=before.bundle, new=bundle.id,
            old_threshold=threshold_of(old), new_threshold=threshold_of(one),
        )  # fmt: skip
        log_opened(one, None)
        self._shadows.another_judges(key, bundle.id, wish.who, wish.why)
        self._helper.call(lambda: self._let_go(old))
        back = f"; before: bundle {before.bundle[:12]}, threshold {threshold_of(old):.6g}" if way_back else "; there is no way back"
        return f"{self._called(i)}: {_short(bundle)}, threshold {threshold_of(one):.6g}, judges from now on{back}"

    def _take_in(self, path: Path) -> tuple[ModelBundle, str | None]:
        with giving_way():
            return self._store.take_in(path)

    def _kept_copy(self, bundle: ModelBundle) -> bool:
        """So that there is a way back whatever becomes of the place where it came from. Raises DeviceError where there is no room."""
        if self._store.path_of(bundle.id).exists():
            return True
        try:
            return self._take_in(bundle.directory)[0].id == bundle.id
        except BundleError as e:
            log.warning("what judges could not be kept: %s", e)
            return False

    # --- shadows ----------------------------------------------------------------------------------------------------------------------

    def _begin_shadow(self, path: Path, wish: Wish, every: int) -> str:
        i = self._place(wish)
        key = self._key(i)
        bundle, _ = self._take_in(path)
        if bundle.id == self._now(i).bundle:
            raise ConfigError(f"{self._called(i)}: expected another bundle than the one that judges, found {_short(bundle)}")
        change = in_effect.change("deploy", wish.who, wish.why)
        trial = OnTrial(bundle=bundle.id, every=every, change=change)
        entry = self._opened.recipes[i].entry
        shadow = self._shadow(entry, bundle, trial)
        was = self._chosen.get(key) or Chosen(camera=key[0], recipe=key[1], now=self._now(i), file=self._said(entry))
        chosen = {**self._chosen, key: msgspec.structs.replace(was, shadow=trial)}
        in_effect.write(self._config.store, chosen)
        self._shadows.end(key, wish.who, wish.why)
        self._chosen = chosen
        self._shadows.begin(key, shadow, every)
        self._opened.event(
            "shadow", who=wish.who, why=wish.why, camera=key[0], recipe=key[1], old=self._now(i).bundle, new=bundle.id, every=every
        )
        self._prune()
        return f"{self._called(i)}: {_short(bundle)} looks on from now on, at {'each part' if every == 1 else f'one part in {every}'}"

    def _withdraw_shadow(self, wish: Wish) -> str:
        i = self._place(wish)
        trial, key = self._trial(i), self._key(i)
        chosen = {**self._chosen, key: msgspec.structs.replace(self._chosen[key], shadow=None)}
        in_effect.write(self._config.store, chosen)
        self._chosen = chosen
        return f"{self._called(i)}: bundle {trial.bundle[:12]} looks on no longer{self._shadows.end(key, wish.who, wish.why)}"

    def _resume_shadows(self) -> str:
        """After a restart."""
        for i, one in enumerate(self._opened.recipes):
            chosen = self._chosen.get(self._key(i))
            if chosen is None or chosen.shadow is None:
                continue
            try:
                bundle, _ = self._store.open(chosen.shadow.bundle)
                shadow = self._shadow(one.entry, bundle, chosen.shadow)
                if chosen.now == self._now(i) and not one.entry.overruled:
                    self._shadows.go_on(self._key(i), shadow)
                self._shadows.begin(self._key(i), shadow, chosen.shadow.every)
            except LinesideError as e:
                self._opened.monitor.trouble("shadow", f"shadow: {e}")
        return ""

    def _shadow(self, entry: Entry, bundle: ModelBundle, trial: OnTrial) -> Shadow:
        return self._shadows.proved(entry, bundle, trial, self._opened.until_idle, _MOST_S)

    # --- what is known ----------------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Recipe files that were changed by hand win for good; and what is in effect is told to the journal at each start."""
        chosen = dict(self._chosen)
        for i, one in enumerate(self._opened.recipes):
            was = chosen.get(self._key(i))
            if one.entry.overruled and was is not None:
                change = Change(kind="file", who="", why="", at=in_effect.change("file", "-", "-").at)
                log.warning("%s: %s; bundle %s was in effect before", self._called(i), one.entry.origin, was.now.bundle[:12])
                chosen[self._key(i)] = msgspec.structs.replace(
                    was, now=self._now(i), before=was.now, change=change, file=self._said(one.entry)
                )  # fmt: skip
            if one.entry.origin != FROM_FILE:
                self._opened.event(
                    "in effect", camera=self._key(i)[0], recipe=self._key(i)[1], bundle=one.predictor.bundle.id,
                    threshold=threshold_of(one), origin=one.entry.origin,
                )  # fmt: skip
        if chosen != self._chosen:
            try:
                in_effect.write(self._config.store, chosen)
            except SinkError as e:
                log.warning("%s", e)  # the next start finds the same
            self._chosen = chosen

    @property
    def _running(self) -> Station:
        assert self._station is not None, "begin() comes before anything that may be asked"
        return self._station

    def _place(self, wish: Wish) -> int:
        """Which of what is open is meant. Raises ConfigError that names the known ones."""
        if not wish.camera and len(self._names) > 1:
            raise ConfigError(f"--camera: expected one of {', '.join(self._names)}, found none: each judges by a model of its own")
        if wish.camera and wish.camera not in self._names:
            raise ConfigError(
                f"--camera: expected {' or '.join(filter(None, self._names)) or 'none, as there is one'}, found {wish.camera!r}"
            )
        for i, one in enumerate(self._opened.recipes):
            if (self._names[one.entry.camera], one.entry.key) == (wish.camera, wish.recipe):
                return i
        known = ", ".join(one.entry.key for one in self._opened.recipes if one.entry.key and one.entry.camera == 0) or "none"
        raise ConfigError(f"--recipe: expected a key of [recipes] (known are {known}), found {wish.recipe!r}")

    def _key(self, i: int) -> tuple[str, str]:
        entry = self._opened.recipes[i].entry
        return self._names[entry.camera], entry.key

    def _called(self, i: int) -> str:
        entry = self._opened.recipes[i].entry
        return " ".join(word for word in (entry.where, f"recipe {entry.recipe.name}") if word)

    def _now(self, i: int) -> Judges:
        one = self._opened.recipes[i]
        return Judges(bundle=one.predictor.bundle.id, threshold=one.entry.recipe.threshold)

    def _trial(self, i: int) -> OnTrial:
        chosen = self._chosen.get(self._key(i))
        if chosen is None or chosen.shadow is None:
            raise ConfigError(f"{self._called(i)}: expected a shadow, found none; `lineside deploy --shadow N` begins one")
        return chosen.shadow

    def _said(self, entry: Entry) -> Said:
        """What the recipe's file says now, or where that cannot be read what it said last."""
        try:
            return in_effect.said_by(load_recipe(entry.file))
        except ConfigError:
            chosen = self._chosen.get((self._names[entry.camera], entry.key))
            return chosen.file if chosen is not None else in_effect.said_by(entry.recipe)

    def _let_go(self, old: OpenRecipe) -> str:
        """The last of a model is freed in this thread, and not where a part waits: after the parts that it may still be judging."""
        until = time.monotonic() + self._running.slowest_s + _GRACE_S
        several = len(self._names) > 1  # their parts may still be on their way to the models' threads
        while not self._closing.wait(_GRACE_S / 10) and time.monotonic() < until:
            if not several and not self._opened.busy:
                break
        self._opened.know(self._running.products)
        self._prune()
        return ""

    def _prune(self) -> None:
        needed = {id_ for chosen in self._chosen.values() for id_ in chosen.bundles}
        needed |= {o.predictor.bundle.id for o in self._opened.recipes}
        try:
            self._store.prune(needed)
        except OSError as e:
            log.warning("%s: old bundles could not be removed: %s", self._store.folder, e.strerror)


def _short(bundle: ModelBundle) -> str:
    m = bundle.manifest
    return f"bundle {m.name} {m.version} ({bundle.id[:12]})"
