"""From a station file's recipes to opened models: every recipe of every camera, proved on this device before the station says READY."""

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.config.files import Recipe, StationConfig, load_recipe
from edge_runtime.errors import BundleError, ConfigError, LinesideError
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.model.released import check_release, release_of
from edge_runtime.model.signature import TrustedKey, load_keys, open_released
from edge_runtime.model.store import BundleStore
from edge_runtime.records import Release
from edge_runtime.station import in_effect
from edge_runtime.station.in_effect import FROM_FILE
from edge_runtime.station.judge import limits_of
from edge_runtime.station.model_thread import Model, ModelThread
from edge_runtime.station.products import Job, Product

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One recipe that the station file names."""

    camera: int
    """Its camera, counted from 0 in the station file's order."""
    key: str
    """Its key in [recipes]; empty for the recipe of triggers that name none."""
    where: str
    """What the station file calls it; empty for the recipe of the only camera."""
    recipe: Recipe
    """What the file says, with the bundle and threshold that are in effect."""
    file: Path
    """The recipe's file."""
    origin: str = FROM_FILE
    """Where its bundle and threshold come from, for people."""
    overruled: bool = False
    """Whether something was deployed for it, and the file was changed by hand since."""


@dataclass(frozen=True, slots=True)
class OpenRecipe:
    """An entry with the model that judges by it: compiled, warm, its golden samples as where it was built."""

    entry: Entry
    predictor: OpenvinoPredictor
    """Shared by those recipes of a camera that look with the same bundle at the same region."""


def load_recipes(config: StationConfig) -> list[Entry]:
    """All recipe files that a station names, camera by camera, with what was deployed for them. Raises ConfigError."""
    entries = []
    chosen = in_effect.read(config.store)
    for i, camera in enumerate(config.cameras):
        for key, path in {"": camera.recipe, **camera.recipes}.items():
            where = " ".join(word for word in (camera.name and f"camera {camera.name}", key and f"recipes.{key}") if word)
            with named(where):
                recipe, origin, overruled = in_effect.resolved(load_recipe(path), chosen.get((camera.name, key)), config.store)
                entries.append(Entry(i, key, where, recipe, path, origin, overruled))
    return entries


def open_recipes(config: StationConfig, stack: contextlib.ExitStack, check_stop: Callable[[], None] = lambda: None) -> list[OpenRecipe]:
    """Verify, compile, warm up and prove all of them; `stack` closes those that are in the list by then. `check_stop` is called between two
    steps, and may raise.

    Raises ConfigError, BundleError, GoldenMismatch, DeviceError, each beginning with the key of the recipe.
    """
    bundles: dict[Path, tuple[ModelBundle, str | None]] = {}
    opened: list[OpenRecipe] = []
    stack.callback(_close, opened)
    keys = load_keys(config.trusted_keys)
    for entry in load_recipes(config):
        path = entry.recipe.bundle
        check_stop()
        with named(entry.where):
            bundle, signer = bundles[path] = bundles.get(path) or open_bundle(config, path, keys)
            check_stop()
            one = open_recipe(config, entry, bundle, opened)
        opened.append(one)
        log_opened(one, signer)
    return opened


def open_recipe(
    config: StationConfig, entry: Entry, bundle: ModelBundle, opened: Iterable[OpenRecipe], before_each: Callable[[], None] = lambda: None
) -> OpenRecipe:
    """Compile, warm up and prove one bundle for a recipe; a model that `opened` has already is shared.

    `before_each`: called before each of the golden samples.

    Raises ConfigError, BundleError, GoldenMismatch, DeviceError.
    """
    recipe = entry.recipe
    check_release(release_of(bundle.manifest, recipe), config.require_release)
    limits_of(bundle.manifest, recipe)
    what = (entry.camera, bundle.id, recipe.region)
    predictor = next((o.predictor for o in opened if (o.entry.camera, o.predictor.bundle.id, o.entry.recipe.region) == what), None)
    with contextlib.ExitStack() as unless_taken:
        if predictor is None:
            predictor = unless_taken.enter_context(OpenvinoPredictor(bundle, config.device, config.threads, recipe.region))
            predictor.run_golden(config.golden_tolerance_scale, before_each)
        check_area(recipe, predictor)
        unless_taken.pop_all()
    return OpenRecipe(entry, predictor)


def log_opened(one: OpenRecipe, signer: str | None) -> None:
    """What was proved, by whom it was released, and whether it is fit for that."""
    m, where, predictor = one.predictor.bundle.manifest, one.entry.where or "recipe", one.predictor
    device = predictor.device_used + (f", {predictor.threads_used} inference threads" if predictor.threads_used else "")
    released = f", released by {signer}" if signer else ""
    origin = f" ({one.entry.origin})" if one.entry.origin != FROM_FILE else ""
    log.info("%s %s: bundle %s %s%s, %d golden samples agree on %s%s",
        where, one.entry.recipe.name, m.name, m.version, released, len(m.golden), device, origin)  # fmt: skip
    release = release_of(m, one.entry.recipe)
    log.log(logging.WARNING if release.word is Release.REFUSED else logging.INFO, "%s %s: %s: %s",
        where, one.entry.recipe.name, release.word.upper(), release.why)  # fmt: skip

    roi, taught_wh = one.entry.recipe.region, m.input.frame_wh
    if roi is not None and taught_wh is not None and (roi[0] + roi[2] > taught_wh[0] or roi[1] + roi[3] > taught_wh[1]):
        log.warning("%s %s: roi: %s reaches beyond the %dx%d frames that the bundle was taught on: every part is a FAULT where this "
            "camera's frames are no larger", where, one.entry.recipe.name, list(roi), *taught_wh)  # fmt: skip


def _close(opened: list[OpenRecipe]) -> None:
    for one in opened:
        one.predictor.__exit__(None, None, None)


def open_bundle(
    config: StationConfig, path: Path, keys: Sequence[TrustedKey], private: bool | None = None
) -> tuple[ModelBundle, str | None]:
    """A recipe's bundle, or a deployed one, with the name of the key that signed it. `private`: as `open_released`.

    Raises BundleError, DeviceError.
    """
    if path.parent != config.store:
        return open_released(path, keys, private)
    try:
        return BundleStore(config.store, config.models.keep, keys).open(path.name)
    except BundleError as e:
        e.args = (f"{e}. It was deployed; without {config.store / in_effect.FILE} the station runs what its recipe files say",)
        raise


def check_area(recipe: Recipe, predictor: OpenvinoPredictor) -> None:
    """Refuse a smallest defect that is as large as all that is judged: no part could ever be rejected. Raises ConfigError."""
    roi = predictor.preprocessor.roi
    judged_wh = roi[2:] if roi else predictor.bundle.manifest.input.frame_wh
    if judged_wh is None:
        return  # frames may have any size
    w, h = judged_wh
    if recipe.min_defect_px >= w * h:
        raise ConfigError(
            f"min_defect_px: expected less than the {w * h:,} pixels ({w}x{h}) that are judged, found {recipe.min_defect_px:,}:"
            " no part could be rejected"
        )


def products_of(opened: Sequence[OpenRecipe], threads: Sequence[ModelThread]) -> dict[str, Product]:
    """The products of a station, by key. The models of camera i run in thread i modulo their number: one thread runs all in turn."""
    models: dict[OpenvinoPredictor, Model] = {}
    products: dict[str, Product] = {}
    for one in opened:  # camera by camera
        entry, predictor = one.entry, one.predictor
        if predictor not in models:
            models[predictor] = Model(predictor, threads[entry.camera % len(threads)], predictor.blank())
        job = job_of(one, models[predictor])
        before = products.get(entry.key, Product(entry.key, (), entry.recipe.deadline_ms))
        # One decision for all views: the strictest deadline is that of the part.
        products[entry.key] = Product(entry.key, (*before.jobs, job), min(before.deadline_ms, entry.recipe.deadline_ms))
    return products


def job_of(one: OpenRecipe, model: Model) -> Job:
    """How a camera's picture is judged by an opened recipe. Raises ConfigError for its threshold."""
    entry, bundle = one.entry, one.predictor.bundle
    return Job(entry.recipe.name, bundle.id, limits_of(bundle.manifest, entry.recipe), model, entry.origin)


@contextlib.contextmanager
def named(where: str) -> Iterator[None]:
    """Makes errors raised inside begin with `where`, what the station file calls it; empty adds nothing."""
    try:
        yield
    except LinesideError as e:
        if where:
            e.args = (f"{where}: {e}",)  # the same error: not every branch is made from a sentence alone
        raise
