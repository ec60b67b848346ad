"""The words of `--accept`: read as what they say, or refused with what is wrong in them and how it is written right."""

import dataclasses
import difflib
import re
from dataclasses import dataclass

from edge_runtime.errors import ConfigError
from training.calibrate.bounds import percent
from training.judging.acceptance import Criteria

EXAMPLE = "misses <= 2 %, rejects <= 1 %, confidence 95 %"
LARGEST_SHARE = 0.1
"""A number below 1 without a per cent sign is a share up to here (0.01 is 1 %); 0.5 may as well be meant as half a per cent."""

_NAMES = {"misses": "misses", "missed": "misses", "miss": "misses", "rejects": "rejects", "rejected": "rejects", "reject": "rejects",
          "false accepts": "misses", "false rejects": "rejects", "confidence": "confidence"}  # fmt: skip
_COMMA = re.compile(r"(?<![\d.])(\d+),(\d+)(?![\d,.])")
_TOKEN = re.compile(
    r"\s*(?:"
    r"(?P<number>-?\d+(?:\.\d+)?(?![\d.]))"
    r"|(?P<percent>%|percent\b|per\s+cent\b)"
    r"|(?P<most><=|=<|≤|==?|:|\bat\s+most\b|\bof\b)"
    r"|(?P<other>[<>]=?|≥)"
    r"|(?P<between>[,;&]|\band\b|\bat\b|\bwith\b)"
    r"|(?P<word>[^\W\d_]+)"
    r"|(?P<unknown>\S+))",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class _Clause:
    """One limit as it was written."""

    name: str
    """misses, rejects, confidence; "" where no word says of what."""
    digits: str
    percent: bool
    sign: str = ""
    """What stands between the two and is no "at most"."""

    @property
    def words(self) -> str:
        return f"{self.digits}{' %' if self.percent else ''}"


def parse_accept(text: str) -> Criteria:
    """`misses <= 2 %, rejects <= 1 %, confidence 95 %`: in any order, either of the two alone, with or without confidence.

    Numbers have a point. A share (0.01) is read where it cannot be meant as per cent. Raises ConfigError.

    >>> parse_accept("misses <= 2 %, rejects <= 1 %")
    Criteria(max_missed=0.02, max_rejected=0.01, confidence=None, granted=0)
    """
    if (comma := _COMMA.search(text)) is not None:
        raise _wrong("numbers with a point", f"{comma[0]} with a decimal comma", text, _right(text))
    clauses = _clauses(text)
    _check_order(clauses, text)
    found: dict[str, float] = {}
    for clause in clauses:
        if clause.name in found:
            raise _wrong(f"{clause.name} once", "it twice", text, EXAMPLE)
        found[clause.name] = _number(clause, clauses, text)
    if not {"misses", "rejects"} & set(found):
        raise _wrong("misses, rejects or both", repr(text.strip()) if not found else "a confidence alone", text, EXAMPLE)
    confidence = found.get("confidence")
    if confidence is not None and not 0.5 <= confidence < 1:
        right = _write([c for c in clauses if c.name != "confidence"] + [_Clause("confidence", "95", True)])
        raise _wrong("a confidence of at least 50 % and below 100 %", percent(confidence), text, right)
    return Criteria(found.get("misses", 1.0), found.get("rejects", 1.0), confidence)


def _clauses(text: str) -> list[_Clause]:
    """What was written, limit by limit. Raises ConfigError for what is no limit."""
    tokens = [_Token(str(m.lastgroup), " ".join(m[str(m.lastgroup)].lower().split())) for m in _TOKEN.finditer(text.rstrip(" ,;.\t\n"))]
    clauses: list[_Clause] = []
    while tokens:
        while tokens and tokens[0].kind == "between":
            tokens.pop(0)
        name = _name(tokens, text)
        sign = tokens.pop(0).text if tokens and tokens[0].kind == "other" else ""
        if tokens and tokens[0].kind == "most":
            tokens.pop(0)
        if not tokens or tokens[0].kind != "number":
            if not tokens and not name:
                break
            found = repr(tokens[0].text) if tokens else "nothing"
            raise _wrong(f"a number after {name}" if name else "misses, rejects or confidence", found, text, _example_of(name))
        digits = tokens.pop(0).text
        percent = bool(tokens) and tokens[0].kind == "percent"
        if percent:
            tokens.pop(0)
        if not name and tokens and tokens[0].text == "confidence":
            name = tokens.pop(0).text
        clauses.append(_Clause(name, digits, percent, sign))
    return clauses


def _name(tokens: list[_Token], text: str) -> str:
    """What the words at the beginning say; "" where there are none. They are taken off. Raises ConfigError for others."""
    words = []
    while tokens and tokens[0].kind == "word":
        words.append(tokens.pop(0).text)
    said = " ".join(words)
    if not said or said in _NAMES:
        return _NAMES.get(said, "")
    if words[0] in _NAMES:  # "misses two per cent"
        raise _wrong(f"a number after {words[0]}", repr(" ".join(words[1:])), text, _example_of(_NAMES[words[0]]))
    near = difflib.get_close_matches(said, _NAMES, 1)
    limit = next((t.text for t in tokens if t.kind == "number"), None)
    right = EXAMPLE if limit is None or not near else _write([_Clause(_NAMES[near[0]], limit, True)])
    raise _wrong("misses, rejects or confidence", repr(said), text, right)


def _check_order(clauses: list[_Clause], text: str) -> None:
    """Raises ConfigError for numbers that nothing is said of, and for signs that set no upper limit."""
    for i, clause in enumerate(clauses):
        if not clause.name and i == 0:
            raise _wrong("a word that says of what", f"{clause.words} alone", text, _write([_Clause("misses", clause.digits, True)]))
        if not clause.name:
            before = clauses[i - 1]
            rest = clauses[i + 1 :]
            ways = []
            if not before.percent and "." not in before.digits + clause.digits:
                ways.append(_write([*clauses[: i - 1], _Clause(before.name, f"{before.digits}.{clause.digits}", True), *rest]))
            if free := [n for n in ("misses", "rejects") if n not in {c.name for c in clauses}]:
                ways.append(_write([*clauses[:i], _Clause(free[0], clause.digits, True), *rest]))
            ways = ways or [_write([*clauses[:i], *rest])]
            raise _wrong(f"one number after {before.name}", f"two, {before.words} and {clause.words}", text, *ways)
        if clause.sign:
            raise _wrong(f"<= (at most) after {clause.name}", clause.sign, text, _write(clauses))


def _number(clause: _Clause, clauses: list[_Clause], text: str) -> float:
    value = float(clause.digits)
    if value < 0 or value > 100:
        raise _wrong(f"{clause.name} of 0 to 100 %", clause.words, text, _example_of(clause.name))
    if clause.percent:
        return value / 100
    if value >= 1 or (clause.name != "confidence" and value > LARGEST_SHARE):
        ways = [_write(clauses)]
        if value < 1:
            ways.append(_write([_Clause(c.name, f"{100 * value:g}", True) if c is clause else c for c in clauses]))
        raise _wrong(f"{clause.name} in per cent", f"{clause.digits} without a per cent sign", text, *ways)
    return value


def _right(text: str) -> str:
    """The same with points for commas, if that is right; else as much of it as can be guessed."""
    points = _COMMA.sub(r"\1.\2", text).strip()
    try:
        parse_accept(points)
        return points
    except ConfigError:
        pass
    try:
        clauses = _clauses(points)
    except ConfigError:
        return EXAMPLE
    return _write([dataclasses.replace(c, name=c.name or "misses") for c in clauses])


def _write(clauses: list[_Clause]) -> str:
    """As `parse_accept` reads it; a number that is no share gets its sign."""
    parts = []
    for c in clauses:
        value = float(c.digits)
        is_share = not c.percent and (value <= LARGEST_SHARE or (c.name == "confidence" and value < 1))
        parts.append(f"{c.name} {'' if c.name == 'confidence' else '<= '}{c.digits}{'' if is_share else ' %'}")
    return ", ".join(parts)


def _example_of(name: str) -> str:
    return "misses <= 2 %, confidence 95 %" if name == "confidence" else f"{name or 'misses'} <= 2 %"


def _wrong(expected: str, found: str, text: str, *ways: str) -> ConfigError:
    where = f" in {text.strip()!r}" if text.strip() else ""
    return ConfigError(f"accept: expected {expected}, found {found}{where}; write {' or '.join(f'{w!r}' for w in ways)}")
