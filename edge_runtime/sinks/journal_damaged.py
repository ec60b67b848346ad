"""Which rows a table has where pages of its file are damaged: the numbers that are there, and ranges of which nothing can be read.

It takes as long as there are rows and damaged pages: numbers that nobody has written cost nothing, however many lie between two rows.
"""

import sqlite3
from collections.abc import Iterator

from edge_runtime.sinks.journal_rows import MOST, UNREADABLE


def numbers(connection: sqlite3.Connection, table: str, key: str, after: int) -> Iterator[int | range]:
    """In order, of rows with a larger `key` than `after`: each number, and ranges of numbers in which no page of the table can be read.

    The last range ends with MOST where nothing more can be read.
    """
    at = after + 1
    while at <= MOST:
        found, readable = _from(connection, table, key, at)
        if readable and found is None:
            return
        if found is None:
            end = _next_page(connection, table, key, at)
            yield range(at, end)
            at = end
        else:
            yield found
            at = found + 1


def _from(connection: sqlite3.Connection, table: str, key: str, at: int) -> tuple[int | None, bool]:
    """(the first number from here on, or None; whether that can be known). By the table alone, for which number leads to one page."""
    select = f"SELECT {key} FROM {table} WHERE {key} BETWEEN ? AND {MOST} AND typeof({key}) = 'integer' ORDER BY {key} LIMIT 1"
    try:
        found = connection.execute(select, (at,)).fetchone()
    except UNREADABLE:
        return None, False
    if found is not None and found[0] < at:  # of a page whose numbers are in no order
        return None, False
    return (None if found is None else int(found[0])), True


def _next_page(connection: sqlite3.Connection, table: str, key: str, at: int) -> int:
    """The first number behind a page that cannot be read; MOST + 1 where there is none. In steps that double, then by halves.

    A page of a chain holds less than a hundred rows. Where large steps pass over one that can be read, many numbers before it lead to
    pages that cannot; its rows are then among those that are said to be unreadable.
    """
    bad, step = at, 1
    while True:
        good = min(bad + step, MOST + 1)
        if good > MOST or _from(connection, table, key, good)[1]:
            break
        bad, step = good, step if good - at < 1000 else 2 * step
    while good - bad > 1:
        middle = (good + bad) // 2
        if _from(connection, table, key, middle)[1]:
            good = middle
        else:
            bad = middle
    return good


def named(lost: list[range]) -> str:
    """Some ranges for people, at least one."""
    first, last, count = lost[0].start, lost[-1].stop - 1, sum(r.stop - r.start for r in lost)
    if last >= MOST:
        return f"rows from {first} on"
    return f"row {first}" if count == 1 else f"rows {first} to {last} ({count} of them)"
