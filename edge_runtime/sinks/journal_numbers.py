"""Which number the last part had: what the chain proves, whatever else somebody has put into the file.

A decision that is in no row of the chain, or in one that was put there after a stop, moves no number; `lineside journal verify` names it.
Why: deploy/decisions/0045.
"""

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from edge_runtime.errors import LinesideError
from edge_runtime.security.signing import PublicKey, read_public
from edge_runtime.sinks.journal_file import reading, refuse_folder
from edge_runtime.sinks.journal_heads import beside, highest, newest_signed
from edge_runtime.sinks.journal_rows import AHEAD, MOST, UNREADABLE

_ROWS = 1000
"""The last rows of the chain, before and after the last signature: decisions need not stand in the order of their numbers."""
_MOST_ROWS = 100_000


def last_seq(path: Path) -> int:
    """The last decision's seq; 0 for an empty or a missing journal. Raises SinkError when it cannot be read."""
    refuse_folder(path)
    if not path.exists():
        return 0
    keys: list[PublicKey] = []
    with contextlib.suppress(LinesideError):  # without one no signature counts, and all else does
        keys.append(read_public(beside(path, "key.pub")))
    with reading(path) as connection:
        return last_number(connection, keys)


def last_number(connection: sqlite3.Connection, keys: Sequence[PublicKey], least_n: int = 0) -> int:
    """The last decision's seq, 0 where there is none. `least_n`: the last row of the chain that is known from elsewhere.

    Where rows of the chain are missing, also a decision counts that is in none of them: no number is to be given twice. None counts that no
    station reaches. Raises sqlite3.Error.
    """
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'chain'").fetchone():  # from before there was one
        return _highest(connection, AHEAD)
    signed = newest_signed(connection, keys)
    end = connection.execute("SELECT max(n) FROM chain WHERE n BETWEEN 1 AND ?", (highest(signed),)).fetchone()[0] or 0
    proven = 0
    whole = end >= max(signed, least_n, 1)
    if whole:
        try:
            whole, proven = _proven(connection, signed or end, end)
        except UNREADABLE:  # a page among them; a start does not stop for it
            whole = False
    return proven if whole and proven else max(proven, _highest(connection, max(signed, end, least_n) + AHEAD))


def _proven(connection: sqlite3.Connection, signed: int, end: int) -> tuple[bool, int]:
    """(Whether no row is missing among the last ones, the largest seq of their decisions)."""
    select = "SELECT n, kind, seq FROM chain WHERE n BETWEEN ? AND ? ORDER BY n"
    # The signed ones first: rows without end behind the last signature must not push them out of sight.
    after = connection.execute(f"{select} LIMIT ?", (signed + 1, end, _ROWS)).fetchall()
    for back in (_ROWS, _MOST_ROWS):  # of a station that starts and stops, and sees no part, all of the last rows may say that
        rows = [*connection.execute(select, (signed - back, signed)), *after]
        proven, stopped = 0, False
        for n, kind, seq in rows:
            stopped = kind == "stopped" or (stopped and kind != "started")
            if kind == "decision" and not stopped and isinstance(seq, int) and 1 <= seq <= n + AHEAD:
                proven = max(proven, seq)
        if proven:
            break
    return bool(rows) and rows[-1][0] - rows[0][0] == len(rows) - 1, proven


def _highest(connection: sqlite3.Connection, most: int) -> int:
    found = connection.execute("SELECT max(seq) FROM decisions WHERE seq BETWEEN 0 AND ?", (min(most, MOST),)).fetchone()
    return int(found[0] or 0)
