"""What a station may be asked to judge: for each recipe of its file, how each camera's picture is judged."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edge_runtime.errors import ConfigError
from edge_runtime.model.released import JobKey, worst
from edge_runtime.records import ReleaseState
from edge_runtime.station.judge import Limits
from edge_runtime.station.model_thread import Model

ProductKey = tuple[tuple[str, ...], tuple[str, ...]]
"""Names of the recipes and ids of the bundles, one a camera."""


@dataclass(frozen=True, slots=True)
class Job:
    """How one camera's picture of a product is judged."""

    recipe: str
    """The recipe's name, as every view repeats it."""
    bundle_id: str
    limits: Limits
    model: Model
    origin: str = ""
    """Where bundle and threshold come from, for people."""


@dataclass(frozen=True, slots=True)
class Product:
    """What one key of [recipes] stands for: how each camera's picture is judged, and by when."""

    key: str
    """As in the station file; empty for the station's own `recipe`."""
    jobs: tuple[Job, ...]
    """One a camera, in the cameras' order."""
    deadline_ms: float

    @property
    def deadline_ns(self) -> int:
        """From the trigger's edge to the decision's telling."""
        return round(self.deadline_ms * 1e6)

    @property
    def models(self) -> tuple[Model, ...]:
        """Those that a part of this product needs."""
        return tuple(job.model for job in self.jobs)

    @property
    def recipes(self) -> tuple[str, ...]:
        """Names of its recipes, one a camera."""
        return tuple(job.recipe for job in self.jobs)

    @property
    def bundle_ids(self) -> tuple[str, ...]:
        """The ids of its bundles, one a camera."""
        return tuple(job.bundle_id for job in self.jobs)

    @property
    def origins(self) -> tuple[str, ...]:
        """Where bundle and threshold come from, one a camera."""
        return tuple(job.origin for job in self.jobs)


def find(products: Mapping[str, Product], key: str) -> Product:
    """The product of a recipe's key. Raises ConfigError that names the key and the known ones: never a guess, never the default instead."""
    try:
        return products[key]
    except KeyError:
        known = ", ".join(k for k in products if k) or "none, as the station file has no [recipes]"
        raise ConfigError(f"Recipe {key!r} is not known here; known are {known}.") from None


def by_product(jobs: Mapping[JobKey, ReleaseState], products: Iterable[Product]) -> dict[ProductKey, ReleaseState]:
    """Release states by product, as health asks for them: the worst of its cameras."""
    return {(p.recipes, p.bundle_ids): worst(jobs[job.recipe, job.bundle_id] for job in p.jobs) for p in products}
