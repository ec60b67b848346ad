"""Says what is wrong with a settings file the way a person would: the key's path, what was expected, what was found."""

import difflib
import math
import re
import types
import typing
from typing import Any

import msgspec

REMOVED = {
    "golden": "no longer a setting: all of a bundle's golden samples are run at every start, for a model that is only partly proved is not"
    " proved. Remove the line"
}
"""Keys that files of before may hold, and what to do."""

_TYPES = {
    "float": "a number",
    "int": "a whole number",
    "str": "text in quotes",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}
_BOUNDS = {">": "above", ">=": "of at least", "<": "below", "<=": "of at most"}
_EXPECTED = re.compile(
    r"Expected `(?P<type>[^`]+)`(?: matching regex '(?P<regex>.+)')?(?P<length> of length)?(?: (?P<op>[<>]=?) (?P<bound>\S+))?(?:, got .*)?"
)


def explain(message: str, raw: Any, kind: type[msgspec.Struct]) -> str:
    """One line for a msgspec.ValidationError.

    Args:
        message: its text, such as "Expected `float` > 0.0 - at `$.trigger.period_ms`".
        raw: the document as parsed, before validation: what was found is looked up there.
        kind: the record that it was validated against: "did you mean" and the known kinds come from there.
    """
    match = re.fullmatch(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>[^`]*)`)?", message, re.DOTALL)
    assert match is not None
    what, where = match["what"], match["where"] or ""
    if unknown := re.search(r"unknown field `(.+?)`", what):
        key = f"{where}.{unknown[1]}" if where else unknown[1]
        if key in REMOVED:
            return f"{key}: {REMOVED[key]}"
        return f"{key}: unknown key{_did_you_mean(where, unknown[1], kind, look_up(raw, f'{where}.kind'))}"
    if missing := re.search(r"missing required field `(.+?)`", what):
        key = f"{where}.{missing[1]}" if where else missing[1]
        return f"{key}: missing{_kinds_hint(key, kind, 'one of')}"
    where = _named(raw, where)
    found = look_up(raw, where)
    if what.startswith("Invalid enum value"):
        return f"{where}: expected one of {', '.join(map(show, _choices(where, kind)))}, found {show(found)}"
    if what.startswith("Invalid value"):
        return f"{where}: expected{_kinds_hint(where, kind, ' one of').lstrip(';')}, found {show(found)}"
    if wanted := _EXPECTED.fullmatch(what):
        comma = isinstance(found, str) and "number" in _wanted(wanted, where, kind) and re.fullmatch(r"\s*[+-]?\d+([.,]\d+)?\s*", found)
        hint = f"; write {found.strip().replace(',', '.')}, without quotes" if comma else ""
        return f"{where or 'file'}: expected {_wanted(wanted, where, kind)}, found {show(found)}{hint}"
    named = re.match(r"(\w+): ", what)  # a table's own check begins with the key
    if named and any(
        named[1] == f.encode_name for table in (_tables(kind, where) if where else [kind]) for f in msgspec.structs.fields(table)
    ):
        where, what = f"{where}.{named[1]}".lstrip("."), what[named.end() :]
        found = look_up(raw, where)
    return f"{where or 'file'}: {what[:1].lower()}{what[1:]}" + ("" if ", found" in what else f", found {show(found)}")


WINDOWS_PATHS = "write Windows paths in single quotes ('C:\\Users\\line') or with / (\"C:/Users/line\")"


def likely_cause(text: str, message: str) -> str:
    """What was probably meant in the line of a TOML file at which its reader stopped, to put behind its message; "" for any other."""
    at = re.search(r"at line (\d+)", message)
    lines = text.splitlines()
    line = lines[min(int(at[1]), len(lines)) - 1] if at and lines else lines[-1] if lines else ""
    if re.search(r'"[^"]*\\', line):
        return f". A backslash in double quotes begins a code: {WINDOWS_PATHS}"
    if number := re.match(r"\s*[\w.\-\"]+\s*=\s*([+-]?\d+),(\d+)\s*(#.*)?$", line):
        return f". A decimal comma? Write {number[1]}.{number[2]}"
    return ""


def not_finite(raw: Any, where: str = "") -> str | None:
    """The path of the first number that is NaN or infinite, or None: TOML allows them, no setting does."""
    if isinstance(raw, float):
        return None if math.isfinite(raw) else where
    items = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    for key, value in items:
        deeper = f"{where}[{key}]" if isinstance(raw, list) else f"{where}.{key}" if where else str(key)
        if (bad := not_finite(value, deeper)) is not None:
            return bad
    return None


def look_up(raw: Any, where: str) -> Any:
    """The value at a path such as `trigger.period_ms` or `roi[2]`."""
    for part in re.findall(r"[^.\[\]]+", where):
        if isinstance(raw, dict):
            raw = raw.get(part)
        elif isinstance(raw, list) and part.isdigit():
            raw = raw[int(part)]
    return raw


def _named(raw: Any, where: str) -> str:
    """msgspec says `recipes[...]` for a bad value in a free table; the key is found again where only one can be meant."""
    table = look_up(raw, where.removesuffix("[...]"))
    bad = [key for key, value in table.items() if not isinstance(value, str)] if isinstance(table, dict) else []
    return f"{where.removesuffix('[...]')}.{bad[0]}" if where.endswith("[...]") and len(bad) == 1 else where


def show(value: Any) -> str:
    """A value as it would stand in the file, shortened."""
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _wanted(match: re.Match[str], where: str, kind: type[msgspec.Struct]) -> str:
    if match["regex"]:
        regex = match["regex"].replace("\\\\", "\\")  # msgspec shows it as Python would write it
        said = (meta.description for f in _fields(where, kind) for meta in _metas(f.type) if meta.pattern == regex)
        return next(said, None) or f"text like {regex}"
    text = " or ".join(_TYPES.get(t.strip(), t.strip()) for t in match["type"].split("|") if t.strip() != "null")
    bound = f"{_BOUNDS[match['op']]} {match['bound']}" if match["op"] else ""
    return f"{text} {bound}{' entries' if match['length'] else ''}".rstrip()


def _did_you_mean(where: str, key: str, kind: type[msgspec.Struct], tag: Any) -> str:
    """Look in the same table first, of the kind `tag` where it comes in several, then in the whole file: a key in the wrong table is a
    common slip."""
    tables = _tables(kind, where) if where else [kind]
    tables = [t for t in tables if t.__struct_config__.tag == tag] or tables
    here = [f"{where}.{f.encode_name}" if where else f.encode_name for table in tables for f in msgspec.structs.fields(table)]
    names = [name for name in _all_keys(kind) if name in here or not where or name.rpartition(".")[0] != where]
    by_name = {name.rpartition(".")[2]: name for name in here}
    near = [by_name[n] for n in difflib.get_close_matches(key, sorted(by_name), n=1, cutoff=0.75)]
    if not near:
        by_last = {n.rpartition(".")[2]: n for n in names}
        near = [by_last[n] for n in difflib.get_close_matches(key, sorted(by_last), n=1, cutoff=0.75)]
    return f"; did you mean {near[0]}?" if near else ""


def _kinds_hint(where: str, kind: type[msgspec.Struct], lead: str) -> str:
    """`; one of "folder", "video"` where `where` is the `kind` of a table that comes in several."""
    tags = [t.__struct_config__.tag for t in _tables(kind, where.removesuffix(".kind")) if t.__struct_config__.tag is not None]
    return f"; {lead.strip()} {', '.join(show(t) for t in sorted(map(str, tags)))}" if tags and where.endswith("kind") else ""


def _choices(where: str, kind: type[msgspec.Struct]) -> tuple[Any, ...]:
    """What a key that is a Literal may be."""
    for f in _fields(where, kind):
        hints = (f.type, *typing.get_args(f.type))
        return next((typing.get_args(h) for h in hints if typing.get_origin(h) is typing.Literal), ())
    return ()


def _fields(where: str, kind: type[msgspec.Struct]) -> list[msgspec.structs.FieldInfo]:
    """What may stand at a path such as `trigger.host`: one of each kind of table that has such a key."""
    table, _, key = where.rpartition(".")
    return [f for struct in (_tables(kind, table) if table else [kind]) for f in msgspec.structs.fields(struct) if f.encode_name == key]


def _metas(hint: Any) -> list[msgspec.Meta]:
    return [hint] if isinstance(hint, msgspec.Meta) else [meta for arg in typing.get_args(hint) for meta in _metas(arg)]


def structs_in(hint: Any) -> list[type[msgspec.Struct]]:
    """The records of a type such as `A | B | None` or `tuple[A, ...]`."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return [hint]
    if typing.get_origin(hint) in (typing.Union, types.UnionType, typing.Annotated, tuple):
        return [s for arg in typing.get_args(hint) for s in structs_in(arg)]
    return []


def _tables(kind: type[msgspec.Struct], where: str) -> list[type[msgspec.Struct]]:
    """The records that may stand at a path such as `source` or `camera[1].source`."""
    found = [kind]
    for name in re.sub(r"\[\d+\]", "", where).split("."):
        found = [s for table in found for f in msgspec.structs.fields(table) if f.encode_name == name for s in structs_in(f.type)]
    return found


def _all_keys(kind: type[msgspec.Struct]) -> list[str]:
    names = {f.encode_name for f in msgspec.structs.fields(kind)}
    for top in sorted(names):
        names |= {f"{top}.{f.encode_name}" for table in _tables(kind, top) for f in msgspec.structs.fields(table)}
    return sorted(names)
