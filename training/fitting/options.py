"""What a user asks for when a detector is to be taught, and whether that makes sense before any work is done."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edge_runtime.errors import ConfigError, DataError
from training.calibrate.rules import Rule
from training.core.backbones import DEFAULT_BACKBONE
from training.core.base import LEAST_BAD
from training.core.learn import TrainedHead
from training.methods.table import METHODS, make_params
from training.pictures.augment import Augment
from training.pictures.material import SYNTHETIC, OutlierSource


@dataclass(frozen=True, slots=True)
class FitOptions:
    """What to teach, beside the data."""

    method: str
    preset: str = "fast"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the method that replace the preset's."""
    backbone: str = DEFAULT_BACKBONE
    weights: Path | None = None
    seed: int = 0
    rule: Rule | None = None
    """None: `calibrate.default_rule`."""
    augment: Augment | None = None
    weigh: bool = False
    """Leave `augment` out where it costs more than it may (training/fitting/weigh.py): nobody asked for it by name."""
    outliers: OutlierSource | None = None
    """Bad parts to learn from. None: synthetic ones where the method can learn from such."""
    minutes: float | None = None
    """Time that the gradient steps may take."""
    resume: bool = False
    """Go on where an interrupted, or a shorter, fit ended."""
    keep_odd: bool = False
    """Learn good images that look unlike the others even where they are more than good parts explain."""


def learns(method: str) -> bool:
    """Whether the method takes gradient steps, and so holds images out for good."""
    known = METHODS[method]
    return known.network is not None or issubclass(known.head, TrainedHead)


def check_enough(method: str, n_good: int) -> None:
    """Raises DataError for fewer good images than the method can use."""
    least = METHODS[method].least_images
    if n_good < least:
        others = ", ".join(name for name, m in METHODS.items() if m.least_images <= n_good)
        way = f"add images, or take a method that does with so few: {others}" if others else "add images"
        raise DataError(f"{method}: expected at least {least} good images, found {n_good}; {way}")


def outlier_source(options: FitOptions, own: int = 0) -> OutlierSource | None:
    """What bad parts a fit learns from; `own`: how many its data hold in their training split.

    Raises ConfigError where it takes none, DataError where it needs some.
    """
    takes = METHODS[options.method].outliers
    source = options.outliers
    if takes == "none":
        if source is not None:
            raise ConfigError(f"{options.method}: learns from good images only; leave out the bad ones, or take fcdd or devnet")
        return None
    if takes == "required" and not own and (source is None or source.bad is None):
        raise DataError(f"{options.method}: needs at least {LEAST_BAD} bad images to learn from, found none; give them with --bad FOLDER")
    return source or OutlierSource(synthetic=0 if own else SYNTHETIC)


def resolve(options: FitOptions) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Strides and full parameters of a options. Raises ConfigError for a method, preset or parameter that does not exist."""
    make_params(options.method, options.overrides)
    presets = METHODS[options.method].presets
    if options.preset not in presets:
        raise ConfigError(f"preset: {options.method} has {', '.join(presets)}, found {options.preset!r}")
    strides, params = presets[options.preset]
    values = {**asdict(params), **options.overrides}
    make_params(options.method, values)
    if not learns(options.method) and (options.minutes is not None or options.resume):
        raise ConfigError(f"{options.method}: is computed, not learnt by steps; leave out --minutes and --resume")
    return strides, values
