"""What the labels of a table mean: words in any language, 0 and 1, or the names of kinds of defects."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_runtime.images.names import is_unsettled, known_words, nearly_good, plain, says_good
from training.data.layout import BAD, GOOD
from training.data.names import half_good

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
    if (word := half_good(label)) is not None:
        return None, f"its label {label!r} says {word} and more; write good, or the name of a kind of defect without {word}"
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


def contradiction(is_good: bool, cells: Mapping[str, str]) -> str:
    """What further columns of a row say against its label, for people; empty where they do not. `cells`: by column.

    One that states what 1 means counts either way. Another may speak of something else (a status "ok" of a picture of a bad part), so it
    counts only where it calls a good part bad.
    """
    for column, cell in cells.items():
        word = plain(cell.removesuffix(".0"))
        if column in GOOD_COLUMNS or column in BAD_COLUMNS:
            known = word in _YES or (word in _NO and word != "")
            says = (word in _YES) == (column in GOOD_COLUMNS) if known else None
        else:
            says = None if says_good(cell) or not is_good else says_good(cell)
        if says is not None and says != is_good:
            return f"while {column} says {cell}"
    return ""


def _count(words: Sequence[str]) -> dict[str, int]:
    return {w: list(words).count(w) for w in dict.fromkeys(words)}
