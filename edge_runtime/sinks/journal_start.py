"""How a station finds its journal when it starts: its last rows are held against their chain, which then goes on.

What is found is said, and stops no line. Why: deploy/decisions/0045.
"""

import sqlite3
import time
from pathlib import Path

from edge_runtime.errors import SinkError
from edge_runtime.security.signing import SigningKey
from edge_runtime.sinks.journal_chain import Chain, OutsideHead, outside_head
from edge_runtime.sinks.journal_verify import EMPTY, TAIL, acknowledged, damage, verify


def go_on(path: Path, connection: sqlite3.Connection, key: SigningKey, writer: str, *, looks: bool, had_key: bool) -> Chain:
    """The chain of a file that was just opened, with a row that says so. `looks`: hold its last rows against it first;
    `had_key`: a station has written here before.

    Raises what SQLite raises where the disk takes nothing.
    """
    outside: OutsideHead | None = None
    found: list[str] = []
    try:
        outside = outside_head(path)
    except SinkError as e:
        found.append(str(e))
    chain = Chain(connection, key, int(time.time()), outside.n if outside is not None else 0)
    if looks and chain.is_new and had_key and connection.execute("SELECT 1 FROM decisions").fetchone():
        found.append(EMPTY)
    elif looks and not chain.is_new:
        try:
            found += verify(path, [key.public], outside, TAIL).findings
        except SinkError as e:
            found.append(str(e))
    chain.damage = damage(connection)
    known = {*chain.damage, *acknowledged(connection)}
    chain.begin(connection, writer, [finding for finding in found if finding not in known][:_MOST])
    return chain


_MOST = 50
"""Findings that are kept in the chain; `lineside journal verify` finds all."""
