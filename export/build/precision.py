"""Which precision a bundle gets: INT8, INT8 with the layers that hurt in float, FP32; each only where the one before was refused."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from edge_runtime.errors import CalibrationError, ExportError
from edge_runtime.model.manifest import Metrics, Threshold
from export.build import noise, parity
from export.build.gate import Gate, Judged
from training.calibrate.bounds import percent
from training.methods.table import METHODS
from training.runs import RunInfo

T = TypeVar("T")
WHAT = "INT8 against FP32"
BUSY = 2.0
"""Load a core from which on milliseconds are said to be a busy machine's."""


@dataclass(frozen=True, slots=True)
class Side:
    """One precision before the gate."""

    judged: Judged
    threshold: float
    error: float
    """Relative standard error of the threshold."""
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Attempt(Generic[T]):
    """One precision to try."""

    what: str
    run: Callable[[], T]
    """Raises ExportError, CalibrationError where it is refused."""


def first_that_passes(attempts: Iterable[Attempt[T]], last: T) -> tuple[T, list[str]]:
    """The first attempt that is not refused, or `last`, which is FP32; and sentences that say which and why.

    An iterator of attempts is asked for the next one only after a refusal, and may itself be refused (ExportError).
    """
    notes: list[str] = []
    todo = iter(attempts)
    while True:
        try:
            attempt = next(todo, None)
            if attempt is None:
                break
            passed = attempt.run()
        except (ExportError, CalibrationError) as e:
            # Of a refusal the cause and the first image: what it advises is done here.
            cause, *more = str(e).removeprefix("parity, ").splitlines()
            notes.append("tried and not taken: " + " ".join([cause, *(line.strip() for line in more[:1] if line.startswith("  "))]))
            continue
        return passed, [*notes, f"built as {attempt.what}, which the gate passes"] if notes else []
    return last, [*notes, "built in FP32, since the gate refuses what is faster"]


def known_to_lose(info: RunInfo) -> str | None:
    """A sentence where the method's preset is known to lose by INT8: a fall is then never put down to chance."""
    if METHODS[info.method].precision(info.preset) == "int8":
        return None
    return f"INT8 is known to cost preset {info.preset} of {info.method} more than others"


def compare(gate: Gate, before: Side, after: Side, band: float, budget: float, doubted: bool) -> tuple[parity.Flips, list[str]]:
    """INT8 behind the gate: its flips, and sentences for the user. Raises ParityError.

    `doubted`: a fall is believed, however few images show it.
    """
    chance: Callable[[str], float] = (lambda key: 0.0) if doubted else gate.chance(before.judged, after.judged)
    what = f"{WHAT} on {gate.judged_on}"
    notes = []
    for part in (_order, _pixels):
        notes += parity.check_metrics(what, part(before), part(after), budget, chance)
    # Good parts that were taught must not hide that those which were not are told apart no more.
    parity.check_metrics(f"{WHAT} on the test split", _unlearnt(before), _unlearnt(after), budget, lambda key: noise.MOST_FALL)
    widened = noise.widen(band, max(before.error, after.error))
    flips = parity.check_verdicts(what, *_verdicts(gate, before, after), band, widened)
    if flips.gains:
        some = "1 part that FP32 judges wrong is" if len(flips.gains) == 1 else f"{len(flips.gains)} parts that FP32 judges wrong are"
        notes.append(f"{some} judged right in INT8: {flips.gains[0]}")
    return flips, notes


def flips_of(gate: Gate, before: Side, after: Side) -> parity.Flips:
    """Verdicts that differ, whatever the gate says of them."""
    return parity.flips(*_verdicts(gate, before, after))


def _verdicts(gate: Gate, before: Side, after: Side) -> tuple[list[str], npt.NDArray[np.bool_], parity.Severities, parity.Severities]:
    """Names, which are good, and severities before and after, of all that are compared."""
    compared = before.judged.compared
    severities = [side.judged.compared.score / side.threshold for side in (before, after)]
    return gate.names_of(compared.samples), compared.is_good, severities[0], severities[1]


def _order(side: Side) -> Metrics:
    """How well all that are compared are told apart; None where there are no good or no bad ones."""
    good, score = side.judged.compared.is_good, side.judged.compared.score
    both = good.any() and not good.all()
    n_good = int(good.sum())
    return Metrics(image_auroc=float(roc_auc_score(~good, score)) if both else None, n_good=n_good, n_bad=len(good) - n_good)


def _unlearnt(side: Side) -> Metrics:
    """How well the test split's are told apart."""
    m = side.metrics
    return Metrics(image_auroc=m.image_auroc, n_good=m.n_good, n_bad=m.n_bad)


def _pixels(side: Side) -> Metrics:
    """Pixels of the pictures whose maps count."""
    m = side.metrics
    return Metrics(pixel_auroc=m.pixel_auroc, aupro=m.aupro, n_good=m.n_good, n_bad=m.n_bad)


def set_anew(before: Threshold, after: Threshold) -> Threshold:
    """A threshold of INT8's own, whose sentence says what `fit` or `calibrate` said of the model as taught, where that is another."""
    was, now = (_share(t.false_reject_upper) for t in (before, after))
    if f"{before.value:.4g}" == f"{after.value:.4g}" and was == now:
        return after
    promised = "" if was is None or was == now else f", which promised at most {was}"
    why = f"set on the INT8 model's own scores; the model as taught (FP32) has {before.value:.4g}{promised}"
    return msgspec.structs.replace(after, rule=f"{after.rule}; {why}")


def _share(upper: float | None) -> str | None:
    return None if upper is None else percent(upper, up=True)


def costs(times: Mapping[str, float], built: str, load: float, cores: int) -> list[str]:
    """Sentences on milliseconds: where the graph `built` is not plain INT8, and where the machine does something else beside.

    `times`: by the graph's name, run in turns; `load`: the load average of these minutes, of which a build itself is `cores`.
    """
    busy = (
        [f"this machine is busy (load {load:.0f} on {cores} cores): the order of the milliseconds holds, their size is that of now"]
        if load > BUSY * cores
        else []
    )
    if built == "int8" or len(times) < 2:
        return busy
    words = {"fp32": "FP32", "int8": "INT8 throughout"} | ({} if built == "fp32" else {built: "as built"})
    told = ", ".join(f"{word} {times[name]:.1f} ms" for name, word in words.items() if name in times)
    return [f"what that costs here, a picture, the graphs run in turns: {told}", *busy]
