"""How a station finds its journal when it starts: its last rows are held against their chain, which then goes on.

What is found is said, and stops no line. Why: deploy/decisions/0045.
"""

import sqlite3
import time
from pathlib import Path

from edge_runtime.errors import SinkError
from edge_runtime.security.signing import SigningKey
from edge_runtime.sinks.journal_chain import Chain
from edge_runtime.sinks.journal_heads import OutsideHead, other_head, outside_head
from edge_runtime.sinks.journal_said import RARE, acknowledged, as_it_is, damage, plain, said
from edge_runtime.sinks.journal_verify import EMPTY, TAIL, verify


def go_on(
    path: Path, connection: sqlite3.Connection, key: SigningKey, writer: str, *, looks: bool, had_key: bool, station: str = ""
) -> Chain:  # fmt: skip
    """The chain of a file that was just opened, with a row that says so. `looks`: hold its last rows against it first;
    `had_key`: a station has written here before. `station`: whose journal it should be.

    Raises what SQLite raises where the disk takes nothing.
    """
    connection.text_factory = as_it_is
    outside: OutsideHead | None = None
    found: list[str] = []
    try:
        outside = outside_head(path)
    except SinkError as e:
        found.append(str(e))
    if outside is not None and not outside.is_by([key.public]):  # whoever made it up is not to move the numbers of rows
        found.append(other_head(outside))
        outside = None
    chain = Chain(connection, key, int(time.time()), outside.n if outside is not None else 0)
    if looks and chain.is_new and had_key and connection.execute("SELECT 1 FROM decisions").fetchone():
        found.append(EMPTY)
    elif looks and not chain.is_new:
        try:
            found += verify(path, [key.public], outside, TAIL).findings
        except SinkError as e:
            found.append(str(e))
    if looks and outside is None and not found and _has_stopped(connection):
        found.append("the head beside the journal (.head) is missing: rows that were cut off its end would not be missed")
    if looks and station and (other := _written_by(connection)) not in ("", station):
        found.append(
            f"station {other!r} wrote it, and this one is {station!r}: it is another station's journal, or this one has a new name"
        )
    chain.damage = damage(connection)
    known = {*chain.damage, *acknowledged(connection)}
    connection.text_factory = str
    connection.execute("INSERT OR IGNORE INTO upkeep (id, checkpoints, writer) VALUES (1, 0, ?)", (writer,))
    chain.begin(connection, writer, [finding for finding in map(plain, found) if finding not in known][:_MOST], station)
    return chain


def _has_stopped(connection: sqlite3.Connection) -> bool:
    """Whether a station has ended in good order, and so left a head beside the journal."""
    return connection.execute(f"SELECT 1 FROM chain WHERE kind = 'stopped' AND {RARE} LIMIT 1").fetchone() is not None


def _written_by(connection: sqlite3.Connection) -> str:
    """The station that started last; empty where nothing says so."""
    names = [str(body.get("station", "")) for _, body in said(connection, "started")]
    return next((name for name in reversed(names) if name), "")


_MOST = 50
"""Findings that are kept in the chain; `lineside journal verify` finds all."""
