"""What tests of the journal share."""

import itertools
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_runtime.commands.journal import verified
from edge_runtime.config.files import JournalConfig
from edge_runtime.records import Decision, Delivery, Outcome, Region, Stamps, Verdict
from edge_runtime.sinks.journal import Journal
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


def decide_and_tell(journal: Journal, seqs: Iterable[int]) -> None:
    """Rejects, each decided and told to the PLC; all are in the file when this returns."""
    for seq in seqs:
        journal.begin(a_decision(seq, verdict=Verdict.REJECT))
        journal.delivered(Delivery(seq, "plc", Outcome.TOLD, 1000 * seq, "REJECT"))
    assert journal.settled(60)


@contextmanager
def written_on(journal: Journal, first: int = 1) -> Iterator[None]:
    """A part after another is decided meanwhile, as by a station that runs: `first` and those after it."""
    over = threading.Event()

    def write() -> None:
        for seq in itertools.count(first):
            if over.is_set():
                return
            journal.put(a_decision(seq))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()


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
