"""Which precision a bundle gets: INT8, INT8 with the layers that hurt in float, FP32; each only where the one before was refused."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from edge_runtime.errors import CalibrationError, ExportError
from edge_runtime.model.manifest import Metrics, Threshold
from export.build import noise, parity
from export.build.gate import Gate, Judged
from training.calibrate.rules import percent
from training.methods.table import METHODS
from training.runs import RunInfo

T = TypeVar("T")
WHAT = "INT8 against FP32"


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
            notes.append("refused: " + " ".join([cause, *(line.strip() for line in more[:1] if line.startswith("  "))]))
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
    notes = parity.check_metrics(what, before.metrics, after.metrics, budget, chance)
    scored = before.judged.scored
    severities = [side.judged.scored.scores.score / side.threshold for side in (before, after)]
    widened = noise.widen(band, max(before.error, after.error))
    names = gate.names_of(scored.samples)
    flips = parity.check_verdicts(what, names, scored.is_good, severities[0], severities[1], band, widened)
    if flips.gains:
        some = "1 part that FP32 judges wrong is" if len(flips.gains) == 1 else f"{len(flips.gains)} parts that FP32 judges wrong are"
        notes.append(f"{some} judged right in INT8: {flips.gains[0]}")
    return flips, notes


def flips_of(gate: Gate, before: Side, after: Side) -> parity.Flips:
    """Verdicts that differ, whatever the gate says of them."""
    scored = before.judged.scored
    severities = [side.judged.scored.scores.score / side.threshold for side in (before, after)]
    return parity.flips(gate.names_of(scored.samples), scored.is_good, severities[0], severities[1])


def set_anew(before: Threshold, after: Threshold) -> Threshold:
    """A threshold of INT8's own, whose sentence says why its promise is another than that which `fit` stated; the same where it is not."""
    was, now = (_share(t.false_reject_upper) for t in (before, after))
    if was is None or now is None or was == now:
        return after
    why = f"set anew on the INT8 model's own scores of the same images; FP32, as taught, at {before.value:.4g} promised at most {was}"
    return msgspec.structs.replace(after, rule=f"{after.rule}; {why}")


def _share(upper: float | None) -> str | None:
    return None if upper is None else percent(upper, up=True)


def costs(times: Mapping[str, float], built: str) -> list[str]:
    """A sentence on milliseconds where the graph `built` is not plain INT8. `times`: by the graph's name, run in turns."""
    if built == "int8" or len(times) < 2:
        return []
    words = {"fp32": "FP32", "int8": "INT8 throughout"} | ({} if built == "fp32" else {built: "as built"})
    told = ", ".join(f"{word} {times[name]:.1f} ms" for name, word in words.items() if name in times)
    return [f"what that costs here, a picture, the graphs run in turns: {told}"]
