"""What the labels of a table mean: words in any language, 0 and 1, or the names of kinds of defects."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edge_runtime.images import is_unsettled, known_words, nearly_good, plain, says_good
from training.layout import BAD, GOOD

LABEL = "label"
GOOD_COLUMNS = ("good", "is_good", "ok", "is_ok", "pass", "passed")
BAD_COLUMNS = ("bad", "is_bad", "defect", "is_defect", "defective", "is_defective", "anomaly", "is_anomaly", "ng", "nok", "faulty")
"""Columns whose name states what 1 means."""
_YES, _NO = frozenset({"1", "true", "yes", "y", "ja", "si", "oui", "x"}), frozenset({"0", "false", "no", "n", "nein", "non", "nie", ""})
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?")


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of all rows, understood together."""

    kinds: tuple[str | None, ...]
    """"good", "bad" or a kind of defect, for each row; None where `problems` says why not."""
    problems: dict[int, str]
    """What is wrong, by row."""
    refused: str = ""
    """What makes the table as a whole unusable."""


def understand(labels: Sequence[str], column: str = LABEL) -> Labels:
    """One label a row, without blanks around it; an empty one is a problem of its row, unless the column asks yes or no."""
    if column != LABEL:
        return _yes_or_no(labels, column)
    numbers = {label for label in labels if _NUMBER.fullmatch(label)}
    values = {float(n.replace(",", ".")) for n in numbers}
    problems: dict[int, str] = {}
    kinds: list[str | None] = []
    for i, label in enumerate(labels):
        kind, problem = _one(label, values)
        kinds.append(kind)
        if problem:
            problems[i] = problem
    good, bad = (sum(k == GOOD for k in kinds), sum(k is not None and k != GOOD for k in kinds))
    refused = ""
    if numbers and values <= {0, 1} and 0 < good < bad and all(_NUMBER.fullmatch(label) for label in labels if label):
        refused = (
            f"by 0 = good only {good} of {good + bad} images would be good, and on a line it is the other way round. Name the column"
            f" good (1 = good) or bad (1 = bad) instead of {LABEL}, or write good and bad in it"
        )
    elif labels and not good and not problems:
        found = ", ".join(f"{n} × {word}" for word, n in sorted(_count(labels).items(), key=lambda c: -c[1])[:5])
        refused = f"expected good images to learn from, found no label that says good ({found}). Known words, good | bad: {known_words()}"
    return Labels(tuple(kinds), problems, refused)


def _one(label: str, values: set[float]) -> tuple[str | None, str]:
    if not label:
        return None, "has no label; expected good or the name of a kind of defect"
    if _NUMBER.fullmatch(label):
        value = float(label.replace(",", "."))
        if "," in label:
            return None, f"expected a word, or 0 and 1, found {label!r}: a decimal comma? Decide from which value on a part is bad"
        if value != int(value):
            return None, f"expected a word, or 0 and 1, found {label}: decide from which value on a part is bad"
        if -1 in values:
            return None, f"labels -1 and 1 leave open which is good, found {label}; write good and bad"
        return (GOOD if value == 0 else BAD if value == 1 else str(int(value))), ""
    if (good := says_good(label)) is not None:
        return (GOOD if good else BAD), ""
    if is_unsettled(label):
        return None, f"its label {label!r} leaves open whether the part is good; write good, bad, the name of a kind of defect, or no row"
    if (meant := nearly_good(label)) is not None:
        return None, f"its label {label!r} looks like a slip of the pen: write {meant} if the part is good"
    return label, ""


def _yes_or_no(labels: Sequence[str], column: str) -> Labels:
    kinds: list[str | None] = []
    problems: dict[int, str] = {}
    for i, label in enumerate(labels):
        word = plain(label.removesuffix(".0"))
        yes = word in _YES
        if not yes and word not in _NO:
            problems[i] = f"expected 1 or 0, yes or no in the column {column}, found {label!r}"
            kinds.append(None)
        else:
            kinds.append(GOOD if yes == (column in GOOD_COLUMNS) else BAD)
    return Labels(tuple(kinds), problems)


def _count(words: Sequence[str]) -> dict[str, int]:
    return {w: list(words).count(w) for w in dict.fromkeys(words)}
