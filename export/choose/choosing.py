"""Which of several detectors to take, and how sure that is: paired on the same images, with the noise of having so few of them.

Choosing the best of many by a noisy figure comes out below a fixed choice: the winner is the luckiest. So one candidate is the default
(what follows from how the parts lie), and another is taken only where it is better by more than the noise of their difference explains.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

MARGIN = 2.5
"""Standard errors by which a candidate must beat the default: with five rivals that are no better, one passes in some 3 % of cases."""
RESAMPLES = 400


@dataclass(frozen=True, slots=True)
class Judged:
    """What one candidate says of the images to choose by."""

    good: Array
    """(N,) scores of good parts that it did not learn from."""
    bad: Array
    """(M,)"""
    threshold: float
    """The one that it would ship with."""

    @property
    def error(self) -> float:
        """Mean of false rejects and misses at the threshold that ships."""
        return float(((self.good > self.threshold).mean() + (self.bad <= self.threshold).mean()) / 2)

    @property
    def auroc(self) -> float:
        """Image AUROC of good against bad, whatever the threshold."""
        return float(_wins(self).mean())

    @property
    def figure(self) -> float:
        """What is ranked by, lower is better: the mean of `error` and 1 - AUROC. The first is what a station will do, the second is
        steadier: it does not hang on where one threshold fell."""
        return (self.error + 1 - self.auroc) / 2


@dataclass(frozen=True, slots=True)
class Taken:
    """The recommendation."""

    name: str
    why: str
    behind: Mapping[str, tuple[float, float]]
    """For each candidate, how much worse its figure is than the default's, and the standard error of that."""
    fits: bool
    """Whether it is within the budget."""


def resampled(judged: Mapping[str, Judged], sources: npt.NDArray[np.intp] | None, seed: int = 0) -> dict[str, Array]:
    """(RESAMPLES,) figures of each candidate on the same resamples of the images (bootstrap; Efron 1979).

    `sources`: (M,) for painted defects, which good image each was painted into: they come and go with it. None: bad images of their own.
    """
    some = next(iter(judged.values()))
    n, m = len(some.good), len(some.bad)
    rng = np.random.default_rng(seed)
    good = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(np.float64)
    bad = rng.multinomial(m, np.full(m, 1 / m), RESAMPLES).astype(np.float64) if sources is None else good[:, sources]
    bad[bad.sum(axis=1) == 0] = 1.0  # of very few images, a resample may hold none with a defect in it
    total_good, total_bad = good.sum(axis=1), bad.sum(axis=1)
    found = {}
    for name, j in judged.items():
        auroc = ((good @ _wins(j)) * bad).sum(axis=1) / (total_good * total_bad)
        rejects = good @ (j.good > j.threshold) / total_good
        misses = bad @ (j.bad <= j.threshold) / total_bad
        found[name] = ((rejects + misses) / 2 + 1 - auroc) / 2
    return found


def take(
    judged: Mapping[str, Judged], latency_ms: Mapping[str, float], default: str, budget_ms: float | None,
    sources: npt.NDArray[np.intp] | None = None, seed: int = 0, partial: Collection[str] = (),
) -> Taken:  # fmt: skip
    """Recommend one of `judged`: always one, also where none is within the budget.

    Where the default is too slow, or did not come through, the best of those within the budget stands for it. `partial`: candidates that
    the images to choose by flatter, as they learnt from the like; they are taken only where there is no other.
    """
    draws = resampled(judged, sources, seed)
    able = [name for name in judged if budget_ms is None or latency_ms[name] <= budget_ms]
    able = [name for name in able if name not in partial] or able
    if not able:
        fastest = min(judged, key=lambda name: latency_ms[name])
        behind = _behind(judged, draws, fastest)
        why = f"nothing fits {budget_ms:g} ms here; fastest is {fastest}, {latency_ms[fastest]:.1f} ms"
        return Taken(fastest, why, behind, False)
    stand_in = default not in able
    reference = min(able, key=lambda name: judged[name].figure) if stand_in else default
    behind = _behind(judged, draws, reference)
    better = [name for name in able if -behind[name][0] > MARGIN * behind[name][1] and behind[name][0] < 0]
    if better:
        name = min(better, key=lambda n: judged[n].figure)
        gain, se = -behind[name][0], behind[name][1]
        return Taken(name, f"{name} is better than {reference} by {gain:.3f} ± {se:.3f}, more than chance explains", behind, True)
    if stand_in:
        # All within the budget are rivals on one footing: of those that nobody can tell from the best, the fastest.
        alike = [n for n in able if behind[n][0] <= MARGIN * behind[n][1]]
        name = min(alike, key=lambda n: latency_ms[n])
        said = "too slow for the budget" if default in judged else "not among those compared"
        return Taken(
            name, f"{default} is {said}; of the others none is surely better than {name}, and it is the fastest such", behind, True
        )
    return Taken(reference, f"none is better than {reference}, which suits how the parts lie, by more than chance explains", behind, True)


def _behind(judged: Mapping[str, Judged], draws: Mapping[str, Array], reference: str) -> dict[str, tuple[float, float]]:
    return {name: (j.figure - judged[reference].figure, float((draws[name] - draws[reference]).std(ddof=1))) for name, j in judged.items()}


def _wins(j: Judged) -> Array:
    """(N, M): 1 where the bad image scores higher, 0.5 where they tie."""
    return np.asarray(np.sign(j.bad[None] - j.good[:, None]) / 2 + 0.5)
