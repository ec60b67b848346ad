"""What the words in a name say of the parts: good, bad, both, or something that is no kind of defect at all."""

import itertools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.images.names import NEGATIONS, plain, says_good
from edge_runtime.images.negation import FILLERS

_IDENTIFIER = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
"""Whose letters are no words."""
_WITHIN = re.compile(r"(?<=[a-z])(?=[A-Z]{2})|(?<=\d)(?=[A-Z]{2,}(?![A-Za-z]))")
"""Where a word begins without a sign between: partNG, 12NG."""
_BETWEEN = re.compile(r"[^\w!≠¬?+]+|_+")
_TOGETHER = 4
"""Words that may say something together: n. i. O., nicht in Ordnung."""
_MILD = frozenset({"fine", "clean", "normal"})
"""Words for good that are also said of defects: fine scratches, normal wear."""
_NO_KIND = """
    misc miscellaneous various diverse verschiedenes new neu folder ordner neuer nueva carpeta nouveau dossier nuova cartella nova pasta
    untitled copy kopie copie copia old alt backup backups archive archiv tmp temp overlay overlays heatmap heatmaps result results output
    outputs export exports screenshot screenshots preview previews vorschau unused trash papierkorb junk duplicate duplicates calibration
    kalibrierung golden reference referenz cam camera kamera day tag shift schicht lot batch station kw week image images pictures photos
    bilder
"""
_NO_KINDS = frozenset(_NO_KIND.split())
"""Names of folders that programs make, and people in a hurry."""


_LAST, _FIRST = re.compile(r"(?<!\d)([01])$"), re.compile(r"^([01])(?=[\s_.-].)")
"""A number of one digit."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What some words of a name say together."""

    good: bool
    words: str
    """Without what is between them."""


def tokens_of(stem: str) -> tuple[list[str], frozenset[int]]:
    """The words of a name without the numbers behind them, and which of them a number stood behind."""
    apart = _WITHIN.sub("_", _IDENTIFIER.sub("", unicodedata.normalize("NFC", stem)))
    tokens: list[str] = []
    ends: set[int] = set()
    for token in _BETWEEN.split(apart):
        word = token.rstrip("0123456789")
        if word != token and tokens and not word:
            ends.add(len(tokens) - 1)
        if word and plain(word) not in FILLERS.split():
            tokens.append(word)
            ends |= {len(tokens) - 1} if word != token else set()
    return tokens, frozenset(ends)


def claims_in(stem: str) -> list[Claim]:
    """What a name says of good and bad, from left to right: the longest that up to four words say together ("n.i.O.", "not_passed").

    Short words inside it are abbreviations of something else, ok and ng apart.
    """
    tokens, ends = tokens_of(stem)
    found: list[Claim] = []
    i = 0
    while i < len(tokens):
        for n in range(min(_TOGETHER, len(tokens) - i), 0, -1):
            text = tokens[i : i + n]
            inside = 0 < i < len(tokens) - 1 and text[0].isascii() and len(text[0]) < 3 and plain(text[0]) not in ("ok", "ng")
            if (n == 1 and inside) or any(j in ends for j in range(i, i + n - 1)):
                continue
            if (good := says_good(" ".join(text) if n > 1 else text[0])) is not None:
                found.append(Claim(good, "".join(text)))
                i += n - 1
                break
        i += 1
    return found


def denied_in(stem: str) -> set[str]:
    """Words that a name denies and that are none of those known, as `plain` writes them: "dent" of part_no_dent_7."""
    tokens, ends = tokens_of(stem)
    pairs = [(a, b) for i, (a, b) in enumerate(itertools.pairwise(tokens)) if i not in ends and len(b) > 2]
    return {plain(b) for a, b in pairs if NEGATIONS.is_one(a) and says_good(b) is None}


def word_in(stem: str) -> bool | None:
    """What a file's name says: good, bad where any of its words do, or nothing. See `claims_in`."""
    said = {c.good for c in claims_in(stem)}
    return None if not said else said == {True}


def say_zero_or_one(paths: Sequence[Path]) -> str | None:
    """A sentence where all names end, or begin, in exactly 0 or 1, and some in either: labels as likely as counters. None else."""
    for verb, pattern in (("end", _LAST), ("begin", _FIRST)):
        digits = [found[1] if (found := pattern.search(p.stem)) else "" for p in paths]
        if set(digits) == {"0", "1"}:
            zeros, ones = (digits.count(d) for d in "01")
            first = (next(p.name for p, d in zip(paths, digits, strict=True) if d == which) for which in "01")
            return (
                f"all names {verb} in 0 ({next(first)}; {zeros} in all) or 1 ({next(first)}; {ones} in all): read as numbers, so that all"
                f" {len(paths)} are good. If they are labels, move the good images into a folder good and the bad ones into bad beside it"
            )
    return None


def half_good(name: str) -> str | None:
    """The word for good in a name that says more than that, so that it is open what is meant: "good - Copy", "OK_alt"."""
    if says_good(name) is not None:
        return None
    return next((c.words for c in claims_in(name) if c.good and plain(c.words) not in _MILD), None)


def is_no_kind(name: str) -> bool:
    """Whether a folder is called as no defect is: "New folder (2)", misc, backup, overlays."""
    words = [plain(w) for w in tokens_of(name)[0]]
    return bool(words) and all(w in _NO_KINDS for w in words)
