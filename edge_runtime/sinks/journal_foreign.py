"""Whether a journal's file holds the tables that a station makes, word by word, and nothing else.

What else stands there could show other values to whoever reads it, or change what is written. Why: deploy/decisions/0045.
"""

import contextlib
import functools
import re
import sqlite3

from edge_runtime.sinks.journal_file import COMPUTED, created
from edge_runtime.sinks.journal_rows import COLUMNS, LATER

_SQLITES_OWN = {
    "table": re.compile(r"sqlite_sequence|sqlite_stat[1-4]").fullmatch,
    "index": re.compile(r"sqlite_autoindex_.+").fullmatch,
}
"""Names that SQLite itself gives, and no statement of anybody else may."""


def foreign(connection: sqlite3.Connection) -> list[str]:
    """What stands in the file that no station of this version or an earlier one makes, in sentences."""
    found = []
    schema = [tuple(map(str, row)) for row in connection.execute("SELECT type, name, sql FROM sqlite_schema")]
    known = _known()
    other = []
    for kind, name, sql in schema:
        if (kind, name) not in known:
            if not (kind in _SQLITES_OWN and _SQLITES_OWN[kind](name)):
                found.append(f"the file holds a {kind} {name} that no station makes")
        elif _words(sql) not in known[kind, name]:
            other.append((kind, name))
    loose = {name for name, strict in connection.execute("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'") if not strict}
    found += [f"the table {name} is not as a station makes it: it holds values of any type" for _, name in other if name in loose]
    columns = {name for (name,) in connection.execute("SELECT name FROM pragma_table_xinfo('decisions')")}
    more = [f"the table decisions has a column {name} that no station makes" for name in sorted(columns - {*COLUMNS, *COMPUTED})]
    text = _words(next((sql for _, name, sql in schema if name == "decisions"), ""))
    changed = [name for name, how in COMPUTED.items() if name in columns and f"{name} REAL AS ({how}) VIRTUAL" not in text]
    more += [f"the column {name} of the table decisions is not computed as a station computes it" for name in changed]
    for kind, name in other:
        if name not in loose and not (name == "decisions" and more):
            found.append(f"the {kind} {name} is not as a station makes it: the words that it was created with are others")
    return found + more


@functools.cache
def _known() -> dict[tuple[str, str], set[str]]:
    """By type and name: the text of each table and index, as this version or an earlier one made it and SQLite noted it."""
    known: dict[tuple[str, str], set[str]] = {}
    for later in range(len(LATER) + 1):  # the columns that the version that made it knew; the others came when it was opened again
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            created(connection, later)
            for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL"):
                known.setdefault((kind, name), set()).add(_words(sql))
    return known


def _words(sql: str) -> str:
    return " ".join(sql.split())
