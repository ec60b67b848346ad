"""The journal's file: what is none is refused, old rows go, and none that is young."""

import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge_runtime.errors import SinkError
from edge_runtime.sinks import journal as journal_module
from edge_runtime.sinks import journal_file
from edge_runtime.sinks.journal import Journal, read_decisions
from tests.support.waiting import until
from tests.unit.edge_runtime.sinks.journals import a_decision, settings

# --- files that are no journal ---------------------------------------------------------------------------------------


def test_another_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(SinkError, match="another SQLite database"), Journal(settings(path), "s"):
        pass
    assert path.read_bytes() == before


def test_a_journal_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "s"):
        pass
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(SinkError, match=r"expected schema 1, found 2"), Journal(settings(path), "s"):
        pass


@pytest.mark.parametrize("damage", ["text", "end overwritten", "truncated"])
def test_a_damaged_journal_is_refused_and_not_replaced(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "s") as journal:
        for seq in range(1, 301):
            journal.put(a_decision(seq))
    content = bytearray(path.read_bytes())
    if damage == "text":
        content = bytearray(b"seq;verdict\n1;ACCEPT\n" * 500)
    elif damage == "truncated":
        content = content[: len(content) // 2]
    else:
        content[-8192:] = b"\xa5" * 8192
    path.write_bytes(content)
    with pytest.raises(SinkError, match=r"journal .*j\.sqlite.*move it aside"), Journal(settings(path), "s"):
        pass
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match=r"file/j\.sqlite"), Journal(settings(tmp_path / "file" / "j.sqlite"), "s"):
        pass


def test_two_stations_cannot_share_a_journal(tmp_path: Path) -> None:
    with (
        Journal(settings(tmp_path / "j.sqlite"), "one"),
        pytest.raises(SinkError, match="another station"),
        Journal(settings(tmp_path / "j.sqlite"), "two"),
    ):
        pass
    with Journal(settings(tmp_path / "j.sqlite"), "two") as journal:
        assert journal.last_seq() == 0


# --- upkeep ----------------------------------------------------------------------------------------------------------


def test_rows_older_than_keep_days_go_and_younger_ones_stay(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    old = (datetime.now(UTC) - timedelta(days=11)).isoformat(timespec="milliseconds")
    young = (datetime.now(UTC) - timedelta(days=9)).isoformat(timespec="milliseconds")
    with Journal(settings(path), "s") as journal:
        for seq in range(1, 501):
            journal.put(a_decision(seq, wall_time=old))
        for seq in range(501, 511):
            journal.put(a_decision(seq, wall_time=young))
        journal.put(a_decision(511, wall_time=datetime.now(UTC).isoformat(timespec="milliseconds")))
    with Journal(settings(path, keep_days=10), "s") as journal:
        until(lambda: len(read_decisions(path)) == 11)
        journal.put(a_decision(512))
        assert [d.seq for d in read_decisions(path)] == list(range(501, 513))
        assert journal.last_seq() == 512


def test_neither_a_standstill_nor_a_clock_far_ahead_empties_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "s") as journal:
        for seq, days in ((1, 120), (2, 105), (3, 100)):
            journal.put(a_decision(seq, wall_time=(datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds")))
    with Journal(settings(path, keep_days=10), "s"):
        until(lambda: [d.seq for d in read_decisions(path)] == [2, 3])
    with Journal(settings(path, keep_days=10), "s") as journal:
        time.sleep(0.2)  # upkeep runs at once
        assert [d.seq for d in read_decisions(path)] == [2, 3]
        assert journal.last_seq() == 3


def test_rows_of_a_clock_that_was_years_behind_stay_as_long_as_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PC whose clock's battery is flat starts in the past, until the network tells it the time."""
    monkeypatch.setattr(journal_module, "_PRUNE_EVERY_S", 0.02)
    path = tmp_path / "j.sqlite"
    with Journal(settings(path, keep_days=10), "s") as journal:
        journal.put(a_decision(1, wall_time="2020-01-01T00:00:00.000+00:00"))
        journal.put(a_decision(2))
        time.sleep(0.3)  # upkeep runs many times
        assert [d.seq for d in read_decisions(path)] == [1, 2]


def test_rows_dated_in_the_future_go_with_those_after_them(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "s") as journal:
        for seq, days in ((1, -900), (2, -900), (3, 20), (4, 5), (5, -900), (6, 0)):
            journal.put(a_decision(seq, wall_time=(datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds")))
    with Journal(settings(path, keep_days=10), "s"):
        until(lambda: [d.seq for d in read_decisions(path)] == [4, 5, 6])


def test_a_program_that_reads_on_and_on_is_said_before_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_CHECKPOINT_ROWS", 5)
    monkeypatch.setattr(journal_module, "_HELD_BYTES", 10_000)
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "s") as journal, closing(sqlite3.connect(path, isolation_level=None)) as reader:
        journal.put(a_decision(1))
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM decisions").fetchone()
        for seq in range(2, 60):
            journal.put(a_decision(seq))
        until(lambda: "another program reads on and on" in (journal.problem or ""))
        reader.execute("COMMIT")
        for seq in range(60, 75):
            journal.put(a_decision(seq))
        until(lambda: journal.problem is None)


def pruned(path: Path, now: datetime, days: list[float], run: timedelta = timedelta(0), found: int | None = None) -> list[int]:
    """Which rows, of so many days before today, remain of those that are kept for ten."""
    with Journal(settings(path), "s") as journal:
        for seq, ago in enumerate(days, 1):
            journal.put(a_decision(seq, wall_time=(datetime.now(UTC) - timedelta(days=ago)).isoformat(timespec="milliseconds")))
    with closing(sqlite3.connect(path)) as connection:
        journal_file.prune(connection, now, timedelta(days=10), 200, len(days) if found is None else found, run)
        connection.commit()
    return [d.seq for d in read_decisions(path)]


def test_a_clock_that_is_behind_makes_no_row_old(tmp_path: Path) -> None:
    """The rows that are right seem to be ahead of it. The one dated wrongly is no older than those before it."""
    long_ago = datetime.now(UTC) - timedelta(days=2000)
    assert pruned(tmp_path / "j.sqlite", long_ago, [5, 4, 9000, 3, 2]) == [1, 2, 3, 4, 5]


def test_a_clock_that_jumps_ahead_while_the_station_runs_makes_no_row_old(tmp_path: Path) -> None:
    ahead = datetime.now(UTC) + timedelta(days=20_000)
    run = timedelta(hours=1)
    assert pruned(tmp_path / "j.sqlite", ahead, [12, 5, 4, 0, -20_000], run, found=4) == [2, 3, 4, 5]


def test_the_write_ahead_log_does_not_grow_without_end(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "s") as journal:
        for seq in range(1, 1601):
            journal.put(a_decision(seq))
        wal = Path(f"{path}-wal").stat().st_size
    assert wal < 1100 * 4120, "1,600 rows of a page each were moved into the database on the way"
