"""What a build tried, a row a precision, and what became of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from edge_runtime.model.manifest import Metrics, Threshold
from export.build.int8 import Built
from export.build.parity import Flip, Flips
from training.judging.evaluation import ImageFigures, image_figures


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One precision that was tried. Keys are only ever added."""

    precision: Literal["fp32", "int8", "mixed"]
    """mixed: INT8 with `floats` left in float."""
    floats: str | None
    """Which convolutions stayed float."""
    taken: bool
    """Whether it is the one that was chosen; a bundle came of it unless the whole was refused."""
    refused: str | None
    """Why it was not good enough; None: nothing spoke against it."""
    threshold: Threshold | None
    """Its own; None, as all that follows, where it was refused before it gave any score."""
    threshold_error: float | None
    """Relative standard error of the threshold."""
    metrics: Metrics | None
    """At that threshold, of the test split; where there is none, of all `images`."""
    missed: int | None
    """Bad images of those that `metrics` counts which it accepts."""
    rejected: int | None
    """Good images of those that it rejects."""
    gains: list[Flip] | None
    """Images that FP32 judges wrong and it judges right, by severity before and after; None for FP32."""
    losses: list[Flip] | None
    """The other way round."""
    latency_ms: float | None
    """Median, of one picture (a tile, where an image is cut into several), all graphs run in turns here."""
    images: list[ImageFigures]
    """A row an image by which it was compared with FP32; those of split "train" were taught and have their held-out scores."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One precision before the milliseconds are known; arguments of `Trial`."""

    precision: Literal["fp32", "int8", "mixed"]
    floats: str | None = None
    built: Built | None = None
    metrics: Metrics | None = None
    flips: Flips | None = None
    refused: str | None = None

    def trial(self, times: Mapping[str, float], chosen: Built | None) -> Trial:
        """`times`: milliseconds by the name of the graph's file; `chosen`: what was taken."""
        built, m = self.built, self.metrics
        compared = None if built is None else built.judged.compared
        missed, rejected = (None if m is None else _count(rate, n) for rate, n in _rates(m))
        return Trial(
            precision=self.precision, floats=self.floats, refused=self.refused,
            taken=built is not None and chosen is not None and built.ir == chosen.ir,
            threshold=None if built is None else built.threshold, threshold_error=None if built is None else built.uncertain,
            metrics=m, missed=missed, rejected=rejected,
            gains=None if self.flips is None else list(self.flips.gains), losses=None if self.flips is None else list(self.flips.losses),
            latency_ms=None if built is None else times.get(built.ir.stem),
            images=[] if built is None or compared is None else image_figures(compared.samples, compared.score, built.threshold.value),
        )  # fmt: skip


def _rates(m: Metrics | None) -> tuple[tuple[float | None, int], ...]:
    return ((None, 0), (None, 0)) if m is None else ((m.false_accept_rate, m.n_bad), (m.false_reject_rate, m.n_good))


def _count(rate: float | None, n: int) -> int | None:
    return None if rate is None else round(rate * n)
