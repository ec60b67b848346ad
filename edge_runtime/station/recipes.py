"""From a station file's recipes to opened models: every recipe of every camera, proved on this device before the station says READY."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.config.files import Recipe, StationConfig, load_recipe
from edge_runtime.errors import ConfigError, LinesideError
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.model.released import check_release, release_of
from edge_runtime.model.signature import load_keys, open_released
from edge_runtime.records import Release
from edge_runtime.station.judge import limits_of
from edge_runtime.station.model_thread import Model, ModelThread
from edge_runtime.station.products import Job, Product

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One recipe that the station file names."""

    camera: int
    """Its place among the station's cameras."""
    key: str
    """Its key in [recipes]; empty for the recipe of triggers that name none."""
    where: str
    """What the station file calls it; empty for the recipe of the only camera."""
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class OpenRecipe:
    """An entry with the model that judges by it: compiled, warm, its golden samples as where it was built."""

    entry: Entry
    predictor: OpenvinoPredictor
    """Shared by those recipes of a camera that look with the same bundle at the same region."""


def load_recipes(config: StationConfig) -> list[Entry]:
    """All recipe files that a station names, camera by camera. Raises ConfigError."""
    entries = []
    for i, camera in enumerate(config.cameras):
        for key, path in {"": camera.recipe, **camera.recipes}.items():
            where = " ".join(word for word in (camera.name and f"camera {camera.name}", key and f"recipes.{key}") if word)
            with named(where):
                entries.append(Entry(i, key, where, load_recipe(path)))
    return entries


def open_recipes(config: StationConfig, stack: contextlib.ExitStack, look: Callable[[], None] = lambda: None) -> list[OpenRecipe]:
    """Verify, compile, warm up and prove all of them; `stack` closes them. `look` is called between two steps, and may raise.

    Raises ConfigError, BundleError, GoldenMismatch, DeviceError, each beginning with the key of the recipe.
    """
    bundles: dict[Path, tuple[ModelBundle, str | None]] = {}
    predictors: dict[tuple[int, str, tuple[int, int, int, int] | None], OpenvinoPredictor] = {}
    proved: set[OpenvinoPredictor] = set()
    opened = []
    keys = load_keys(config.trusted_keys)
    for entry in load_recipes(config):
        recipe = entry.recipe
        look()
        with named(entry.where):
            bundle, signer = bundles[recipe.bundle] = bundles.get(recipe.bundle) or open_released(recipe.bundle, keys)
            release = release_of(bundle.manifest, recipe)
            check_release(release, config.require_release)
            what = (entry.camera, bundle.id, recipe.region)
            if what not in predictors:
                predictors[what] = stack.enter_context(OpenvinoPredictor(bundle, config.device, config.threads, recipe.region))
            predictor = predictors[what]
            look()
            check_area(recipe, predictor)
            if predictor not in proved:
                predictor.run_golden(config.golden_tolerance_scale)
                proved.add(predictor)
        opened.append(OpenRecipe(entry, predictor))
        m = bundle.manifest
        device = predictor.device_used + (f", {predictor.threads_used} inference threads" if predictor.threads_used else "")
        released = f", released by {signer}" if signer else ""
        log.info("%s %s: bundle %s %s%s, %d golden samples agree on %s",
            entry.where or "recipe", recipe.name, m.name, m.version, released, len(m.golden), device)  # fmt: skip
        level = logging.WARNING if release.word is Release.REFUSED else logging.INFO
        log.log(level, "%s %s: %s: %s", entry.where or "recipe", recipe.name, release.word.upper(), release.why)
    return opened


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
        job = Job(entry.recipe.name, predictor.bundle.id, limits_of(predictor.bundle.manifest, entry.recipe), models[predictor])
        before = products.get(entry.key, Product(entry.key, (), entry.recipe.deadline_ms))
        # One decision for all views: the strictest deadline is that of the part.
        products[entry.key] = Product(entry.key, (*before.jobs, job), min(before.deadline_ms, entry.recipe.deadline_ms))
    return products


@contextlib.contextmanager
def named(where: str) -> Iterator[None]:
    """Makes errors raised inside begin with `where`, what the station file calls it; empty adds nothing."""
    try:
        yield
    except LinesideError as e:
        if where:
            e.args = (f"{where}: {e}",)  # the same error: not every branch is made from a sentence alone
        raise
