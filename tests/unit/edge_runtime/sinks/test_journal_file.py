"""The journal's file: what is none is refused, and its log does not grow without end."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edge_runtime.errors import SinkError
from edge_runtime.sinks import journal as journal_module
from edge_runtime.sinks.journal import Journal
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
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    with pytest.raises(SinkError, match=r"expected schema 2 or 1, found 3"), Journal(settings(path), "s"):
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


def test_the_write_ahead_log_does_not_grow_without_end(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "s") as journal:
        for seq in range(1, 1601):
            journal.put(a_decision(seq))
        wal = Path(f"{path}-wal").stat().st_size
    assert wal < 1100 * 2 * 4120, "1,600 rows of two pages each were moved into the database on the way"
