"""From a station file's recipes to opened models: every recipe of every camera, proved on this device before the station says READY."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.bundle import ModelBundle
from edge_runtime.config import Recipe, StationConfig, load_recipe
from edge_runtime.errors import LinesideError
from edge_runtime.inference import Model, ModelThread
from edge_runtime.judge import limits_of
from edge_runtime.predictor import OpenvinoPredictor
from edge_runtime.products import Job, Product

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One recipe that the station file names."""

    key: str
    """In [recipes]; empty for the station's own."""
    where: str
    """Its key's path in the station file."""
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class OpenRecipe:
    """An entry with the model that judges by it: compiled, warm, its golden samples as where it was built."""

    entry: Entry
    predictor: OpenvinoPredictor
    """Shared by the recipes that look with the same bundle at the same region."""


def load_recipes(config: StationConfig) -> list[Entry]:
    """All recipe files that a station names, its own first. Raises ConfigError."""
    entries = []
    for key, path in {"": config.recipe, **config.recipes}.items():
        where = f"recipes.{key}" if key else "recipe"
        with _named(where if key else ""):
            entries.append(Entry(key, where, load_recipe(path)))
    return entries


def open_recipes(config: StationConfig, stack: contextlib.ExitStack) -> list[OpenRecipe]:
    """Verify, compile, warm up and prove all of them; `stack` closes them.

    Raises ConfigError, BundleError, GoldenMismatch, DeviceError, each beginning with the key of the recipe.
    """
    bundles: dict[Path, ModelBundle] = {}
    predictors: dict[tuple[str, tuple[int, int, int, int] | None], OpenvinoPredictor] = {}
    proved: dict[tuple[str, tuple[int, int, int, int] | None], int] = {}
    opened = []
    for entry in load_recipes(config):
        recipe = entry.recipe
        with _named(entry.where if entry.key else ""):
            bundle = bundles.get(recipe.bundle) or ModelBundle.open(recipe.bundle)
            bundles[recipe.bundle] = bundle
            what = (bundle.id, recipe.region)
            if what not in predictors:
                predictors[what] = stack.enter_context(OpenvinoPredictor(bundle, config.device, config.threads, recipe.region))
            predictor = predictors[what]
            wanted = len(bundle.manifest.golden[: recipe.golden])
            if wanted > proved.get(what, -1):
                predictor.run_golden(recipe.golden, config.golden_tolerance_scale)
                proved[what] = wanted
        opened.append(OpenRecipe(entry, predictor))
        m = bundle.manifest
        log.info("%s: %s: bundle %s %s, %d golden samples agree on %s",
            entry.where, recipe.name, m.name, m.version, wanted, predictor.device_used)  # fmt: skip
    return opened


def products_of(opened: list[OpenRecipe], thread: ModelThread) -> dict[str, Product]:
    """What each key stands for; the models run in `thread`."""
    models: dict[int, Model] = {}
    products = {}
    for one in opened:
        recipe, predictor = one.entry.recipe, one.predictor
        model = models.setdefault(id(predictor), Model(predictor, thread, predictor.blank()))
        job = Job(recipe.name, predictor.bundle.id, limits_of(predictor.bundle.manifest, recipe), model)
        products[one.entry.key] = Product(one.entry.key, (job,), recipe.deadline_ms)
    return products


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    """Errors begin with the key; those of a station's only recipe need none."""
    try:
        yield
    except LinesideError as e:
        if not where:
            raise
        raise type(e)(f"{where}: {e}") from e
