"""What tests of the journal share."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_runtime.commands.journal import verified
from edge_runtime.config.files import JournalConfig
from edge_runtime.records import Decision, Region, Stamps
from tests.support.decisions import decision_with


def a_decision(seq: int, **changes: Any) -> Decision:
    values: dict[str, Any] = {
        "seq": seq, "part_id": f"A-{seq}", "regions": (Region(1, 2, 30, 40, 500, 33.0),),
        "wall_time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "stamps": Stamps(1_000_000, 2_000_000, 3_500_000, 9_000_000, 9_100_000, 9_200_000),
    }  # fmt: skip
    return decision_with(**(values | changes))


def settings(path: Path, **changes: Any) -> JournalConfig:
    # A loaded test machine must not make a commit late where lateness is not the point.
    return JournalConfig(**({"path": path, "commit_timeout_ms": 5000.0} | changes))


def changed(path: Path, *statements: str) -> None:
    """Somebody with the sqlite3 tool was there."""
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.executescript(statement)
        connection.commit()


def tampered(path: Path, *statements: str) -> list[str]:
    """What is found after somebody with the sqlite3 tool was there."""
    changed(path, *statements)
    return verified(path).findings
