"""What the chain's rare rows say: all but decisions, announced parts and deliveries. Texts of the file, also those that are none."""

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

from edge_runtime.sinks.journal_rows import MOST

RARE = "kind NOT IN ('decision', 'announced', 'delivery')"
"""Word by word as the partial index `chain_rare` asks for it."""


def said(connection: sqlite3.Connection, kind: str, after: int = 0, until: int = MOST) -> Iterator[tuple[int | None, dict[str, Any]]]:
    """What rows of a kind say, oldest first: (seq, body). Of a kind that is rare. `after`, `until`: only rows between these numbers."""
    between = () if (after, until) == (0, MOST) else (after, until)
    where = f"kind = ? AND {RARE}{' AND n > ? AND n <= ?' if between else ''}"
    for seq, body in connection.execute(f"SELECT seq, body FROM chain WHERE {where} ORDER BY n", (kind, *between)):
        try:
            found = json.loads(body)
        except (ValueError, TypeError, RecursionError):
            continue  # the chain has its own finding for it
        if isinstance(found, dict):
            yield seq, found


def acknowledged(connection: sqlite3.Connection) -> dict[str, str]:
    """By finding: who acknowledged it, and why."""
    cleared = [body for _, body in said(connection, "cleared")]
    return {plain(f): plain(f"{body.get('who')}: {body.get('why')}") for body in cleared for f in _listed(body.get("findings"))}


def damage(connection: sqlite3.Connection) -> list[str]:
    """What a start has found and nobody acknowledged."""
    cleared = acknowledged(connection)
    found = [plain(f) for _, body in said(connection, "damaged") for f in _listed(body.get("findings"))]
    return [f for f in dict.fromkeys(found) if f not in cleared]


def as_it_is(data: bytes) -> str:
    """A text of the file, also one that is none: no other text becomes the same, and no hash can be made of it."""
    return data.decode("utf-8", "surrogateescape")


def plain(said: object) -> str:
    """As text that can be written anywhere."""
    return str(said).encode("utf-8", "backslashreplace").decode()


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
