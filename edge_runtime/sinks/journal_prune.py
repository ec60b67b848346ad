"""Which rows at the chain's beginning may be deleted: those that are old by what the station itself has signed, and nobody's word else.

Hashes are computed again, up to a row that bears a signature of the station's own key: a time that somebody has written into an old row
makes it no older. What does not verify stays, and is said, until somebody has acknowledged it.

Why: deploy/decisions/0060.
"""

import itertools
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from edge_runtime.security.chain import GENESIS, Purpose, hash_of
from edge_runtime.security.signing import PublicKey
from edge_runtime.sinks.journal_heads import vouched
from edge_runtime.sinks.journal_rows import AMENDED, COLUMNS
from edge_runtime.sinks.journal_said import RARE, plain, said

AT_ONCE = 1200
"""Rows of the chain that are looked at in one step, for a part may be waiting: more than a station leaves between two signatures, and than
lie between a decision and what was told instead of it."""
_AMENDED_WITHIN = 1000
_STARTS_LOOKED_AT = 20
_FIRST = 3
"""Rows that a station writes and signs in one step where a chain begins: that it does, what was found wrong, that it starts."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Rows up to this one may go."""

    n: int
    hash: bytes
    decisions: list[int]
    """Their numbers."""
    damaged: bool
    """Whether a row that says what was found wrong with the journal is among them."""
    rows: int
    more: bool
    """Whether there may be more of them."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows that are old and do not verify."""

    finding: str
    cut: Cut
    """What goes once somebody has acknowledged that."""


@dataclass(frozen=True, slots=True)
class _Row:
    n: Any
    kind: Any
    seq: Any
    at_s: Any
    body: Any
    hash: Any
    values: tuple[Any, ...]

    @property
    def name(self) -> str:
        return f"row {self.n}" if self.kind != "decision" else f"decision {self.seq} (row {self.n})"


def oldest(
    connection: sqlite3.Connection, keys: Sequence[PublicKey], *, until: int, before_s: float, ahead_s: int, all_: bool, at_once: int
) -> Cut | Kept | None:
    """What may go of the first `at_once` rows, none behind `until`; None where none is old.

    `before_s`: what is older may go; `ahead_s`: what is dated after that is as old as what follows it. `all_`: young ones go as well.
    """
    rows = _first_rows(connection, until, at_once)
    fit = _fitting(connection, rows)
    sure = rows[: _covered(connection, keys, rows[:fit])]  # whether rows are old is for these alone to say
    old = len(sure) if all_ else _old(connection, keys, sure, before_s, ahead_s)
    goes = _covered(connection, keys, sure[:old])
    while goes and (split := _split_from_what_was_told(connection, sure, goes)) is not None:
        goes = _covered(connection, keys, sure[:split])
    if goes:
        return _cut(sure[:goes], more=goes < len(rows) or len(rows) == at_once)
    rest = rows[: fit + 1]
    by_their_word = len(rest) if all_ else _old(connection, keys, rest, before_s, ahead_s)
    if sure or not by_their_word:
        return None
    due = _cut(rest[:by_their_word], more=True)
    if fit < len(rows):
        finding = f"{rows[fit].name}, which is old enough to be deleted, was changed, or does not belong there: it stays, and all after it"
        return Kept(plain(finding), due)
    if len(rows) < at_once:
        return None  # not signed yet
    last = _last_without(connection, keys, rows[-1].n)
    finding = f"rows up to {last}, which are old enough to be deleted, bear no signature by the key beside the journal: they stay"
    return Kept(finding, due)


def acknowledged_here(connection: sqlite3.Connection, keys: Sequence[PublicKey], finding: str) -> bool:
    """Whether the chain says that somebody has, in a row that the station has signed: another one might be anybody's."""
    for n, body in connection.execute(f"SELECT n, body FROM chain WHERE kind = 'cleared' AND {RARE} ORDER BY n DESC").fetchall():
        try:
            if finding in json.loads(body)["findings"] and _is_signed(connection, keys, n):
                return True
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    return False


def old_before_the_chain(
    connection: sqlite3.Connection, keys: Sequence[PublicKey], before_s: float, at_once: int, all_: bool
) -> list[int]:  # fmt: skip
    """Decisions from before the chain that are old by their date. Which those are the chain's first row says, if it verifies."""
    if connection.execute("SELECT 1 FROM chain WHERE n = 1 AND kind = 'begun'").fetchone() is None:
        return []
    rows = _first_rows(connection, _FIRST, _FIRST)
    if not _covered(connection, keys, rows[: _fitting(connection, rows)]):
        return []
    last = json.loads(rows[0].body)["decisions_before"]
    before = datetime.fromtimestamp(max(before_s, 0), UTC).isoformat(timespec="milliseconds")
    found = connection.execute("SELECT seq, wall_time FROM decisions WHERE seq <= ? ORDER BY seq LIMIT ?", (last, at_once)).fetchall()
    return [seq for seq, _ in itertools.takewhile(lambda row: all_ or row[1] < before, found)]


def _first_rows(connection: sqlite3.Connection, until: int, at_once: int) -> list[_Row]:
    select = (
        f"SELECT c.n, c.kind, c.seq, c.at_s, c.body, c.hash, {', '.join(f'd.{name}' for name in COLUMNS)} FROM chain c "
        "LEFT JOIN decisions d ON c.kind IN ('decision', 'amended') AND d.seq = c.seq WHERE c.n BETWEEN 1 AND ? ORDER BY c.n LIMIT ?"
    )
    return [
        _Row(n, kind, seq, at_s, body, hash_, tuple(values) if kind in ("decision", "amended") else ())
        for n, kind, seq, at_s, body, hash_, *values in connection.execute(select, (until, at_once))
    ]


def _old(connection: sqlite3.Connection, keys: Sequence[PublicKey], rows: list[_Row], before_s: float, ahead_s: int) -> int:
    """How many of these rows, the first of the chain, are old by what stands in them.

    What is dated after `ahead_s` is as old as what follows it: a clock that was once years ahead would otherwise keep all later rows for
    years.
    """
    if not rows:
        return 0
    old = 0
    for i, row in enumerate(rows, 1):
        if row.at_s < before_s:
            old = i
        elif row.at_s <= ahead_s:
            return old
    if old < len(rows):
        after = f"SELECT n, at_s FROM chain WHERE kind = 'started' AND {RARE} AND n > ? AND at_s <= ? ORDER BY n LIMIT ?"
        starts = connection.execute(after, (rows[-1].n, ahead_s, _STARTS_LOOKED_AT)).fetchall()
        first = next((at_s for n, at_s in starts if _is_signed(connection, keys, n)), None)
        old = len(rows) if first is not None and first < before_s else old
    return old


def _fitting(connection: sqlite3.Connection, rows: list[_Row]) -> int:
    """How many of the chain's first rows have the hash that they should. Behind a gap where its end was cut off once, they do."""
    first = rows[0].n
    before = connection.execute("SELECT hash FROM heads WHERE n = ? AND purpose = ?", (first - 1, Purpose.ANCHOR.value)).fetchone()
    # Whoever put that one there: no other than the right one makes the next row's hash.
    end = GENESIS if first == 1 else before[0] if before is not None else None
    amended = ((seq, body.get("was")) for seq, body in said(connection, "amended", first - 1, rows[-1].n + _AMENDED_WITHIN))
    was = {seq: old for seq, old in amended if isinstance(old, dict) and old.keys() == set(AMENDED)}
    for i, row in enumerate(rows):
        contents = [row.values]
        if row.kind == "decision" and row.seq in was:
            contents.append(tuple(was[row.seq].get(name, value) for name, value in zip(COLUMNS, row.values, strict=True)))
        if not any(_has_hash(row, end, values) for values in contents):
            return i
        end = row.hash
    return len(rows)


def _has_hash(row: _Row, previous: Any, values: tuple[Any, ...]) -> bool:
    try:
        return bool(hash_of(previous, row.n, row.kind, row.seq, row.at_s, row.body, values) == row.hash)
    except (ValueError, TypeError, OverflowError):
        return False


def _covered(connection: sqlite3.Connection, keys: Sequence[PublicKey], rows: list[_Row]) -> int:
    """How many of these rows, whose hashes fit, a signature covers."""
    if not rows:
        return 0
    at = {row.n: i for i, row in enumerate(rows, 1)}
    heads = connection.execute(
        "SELECT n, hash, signature FROM heads WHERE purpose = ? AND n BETWEEN ? AND ? ORDER BY n DESC",
        (Purpose.HEAD.value, rows[0].n, rows[-1].n),
    )
    for n, hash_, signature in heads:
        if n in at and rows[at[n] - 1].hash == hash_ and vouched(keys, Purpose.HEAD, n, hash_, signature):
            return at[n]
    return 0


def _split_from_what_was_told(connection: sqlite3.Connection, rows: list[_Row], covered: int) -> int | None:
    """The first of these rows that is a decision of which a row behind the cut says what was told instead; None where none is."""
    last = rows[covered - 1].n
    told = {seq for seq, _ in said(connection, "amended", last, last + _AMENDED_WITHIN)}
    return next((i for i, row in enumerate(rows[:covered]) if row.kind == "decision" and row.seq in told), None) if told else None


def _cut(rows: list[_Row], more: bool) -> Cut:
    decisions = [row.seq for row in rows if row.kind == "decision"]
    return Cut(rows[-1].n, rows[-1].hash, decisions, any(row.kind == "damaged" for row in rows), len(rows), more)


def _last_without(connection: sqlite3.Connection, keys: Sequence[PublicKey], n: int) -> int:
    """The last row before the first start behind row `n` that one of these keys has signed."""
    starts = connection.execute(f"SELECT n FROM chain WHERE kind = 'started' AND {RARE} AND n > ? ORDER BY n", (n,)).fetchall()
    return next((start - 1 for (start,) in starts if _is_signed(connection, keys, start)), n)


def _is_signed(connection: sqlite3.Connection, keys: Sequence[PublicKey], n: int) -> bool:
    """Whether one of these keys has signed just this row: it is then what the station wrote, whatever was done to all others."""
    row = connection.execute("SELECT n, kind, seq, at_s, body, hash FROM chain WHERE n = ?", (n,)).fetchone()
    before = connection.execute("SELECT hash FROM chain WHERE n = ?", (n - 1,)).fetchone()
    head = connection.execute("SELECT hash, signature FROM heads WHERE n = ? AND purpose = ?", (n, Purpose.HEAD.value)).fetchone()
    if row is None or head is None or (before is None and n != 1):
        return False
    there = _Row(row[0], row[1], row[2], row[3], row[4], row[5], ())
    return (
        _has_hash(there, GENESIS if before is None else before[0], ())
        and bool(there.hash == head[0])
        and vouched(keys, Purpose.HEAD, n, *head)
    )
