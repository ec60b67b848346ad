"""Old rows go, and none that is young, whatever the machine's clock says."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge_runtime.security.signing import open_key, read_public
from edge_runtime.sinks import journal_clock
from edge_runtime.sinks.journal import Journal, read_decisions
from edge_runtime.sinks.journal_verify import verify
from tests.support.decisions import SCHEMA_1
from tests.support.waiting import until
from tests.unit.edge_runtime.sinks.journals import a_decision, settings

DAY_S = 86_400
REAL = time.time


def at(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    """From now on the machine's clock is so many days ahead of what it is."""
    monkeypatch.setattr(time, "time", lambda: REAL() + days * DAY_S)


def seqs(path: Path) -> list[int]:
    return [d.seq for d in read_decisions(path)]


def run(path: Path, *numbers: int, **changes: object) -> str | None:
    """A station that runs, writes these decisions, is given the time to delete old rows, and ends; its problem."""
    with Journal(settings(path, **changes), "s") as journal:
        for seq in numbers:
            journal.put(a_decision(seq))
        threading.Event().wait(0.1)  # faketime has no sleep
        return journal.problem


def test_rows_older_than_keep_days_go_and_younger_ones_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j.sqlite"
    for days, numbers in ((-25, range(1, 501)), (-9, range(501, 511)), (0, range(511, 512))):
        at(monkeypatch, days)
        run(path, *numbers)
    with Journal(settings(path, keep_days=10), "s") as journal:
        until(lambda: len(read_decisions(path)) == 11)
        journal.put(a_decision(512))
        assert seqs(path) == list(range(501, 513))
        assert journal.last_seq() == 512
    found = verify(path, [read_public(tmp_path / "j.sqlite.key.pub")])
    assert found.findings == [], "what was cut off is signed for"
    assert "were deleted by the station" in found.notes[0]


def test_a_clock_that_is_500_days_ahead_makes_no_row_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At one start, and at the next, whose last row is dated so far ahead itself."""
    path = tmp_path / "j.sqlite"
    run(path, 1, 2)
    for seq in (3, 4, 5):
        at(monkeypatch, 500)
        problem = run(path, seq, keep_days=10)
        assert "the machine's clock is 500 days ahead of the journal's last row: no row ages by that" in str(problem)
        assert seqs(path) == list(range(1, seq + 1))
    at(monkeypatch, 0)
    assert run(path, 6, keep_days=10) is None, "the clock is right again"
    assert seqs(path) == [1, 2, 3, 4, 5, 6]


def test_rows_that_are_dated_years_ahead_in_the_file_make_no_row_old(tmp_path: Path) -> None:
    """By somebody who can write it and has no key: the journal's time at the next start is what stands in it."""
    path = tmp_path / "j.sqlite"
    run(path, 1, 2)
    run(path, 3)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE chain SET at_s = at_s + {4000 * DAY_S} WHERE seq = 3 OR n = (SELECT max(n) FROM chain)")
        connection.commit()
    for seq in (4, 5):
        assert "the machine's clock is 4000 days behind the journal's last row: no row ages by that" in str(run(path, seq, keep_days=10))
    assert seqs(path) == [1, 2, 3, 4, 5]


def test_a_clock_that_was_ahead_and_was_set_back_makes_no_row_old_and_keeps_none_for_years(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more rows that are dated ahead than are looked at in one step."""
    path = tmp_path / "j.sqlite"
    at(monkeypatch, 500)
    run(path, *range(1, 701))
    with Journal(settings(path, keep_days=10), "s") as journal:
        at(monkeypatch, 0)
        assert "500 days behind" in str(journal.problem), "also while the station runs"
    assert "500 days behind" in str(run(path, 701, keep_days=10))
    with Journal(settings(path, keep_days=10), "s") as journal:
        journal.acknowledge("M. Huber", "the clock is right now", [])
        assert journal.problem is None
        journal.put(a_decision(702))
    run(path, 703, keep_days=10)
    assert len(read_decisions(path)) == 703
    at(monkeypatch, 20)
    run(path, 704)
    with Journal(settings(path, keep_days=10), "s"):
        until(lambda: seqs(path) == [704])
    assert verify(path, [open_key(tmp_path / "j.sqlite.key").public]).findings == []


def test_a_clock_that_starts_in_1970_makes_no_row_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PC whose clock's battery is flat starts there at every other start."""
    path = tmp_path / "j.sqlite"
    for seq in range(1, 9):
        at(monkeypatch, -20_000 if seq % 2 else 0)
        run(path, seq, keep_days=10)
    assert seqs(path) == list(range(1, 9))


def test_a_standstill_empties_no_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j.sqlite"
    run(path, 1, 2)
    at(monkeypatch, 30)
    assert run(path, keep_days=10) is None
    assert seqs(path) == [1, 2]


@pytest.mark.slow
def test_the_clock_of_a_whole_process_is_not_believed_either(tmp_path: Path) -> None:
    if shutil.which("faketime") is None:
        pytest.skip("faketime is not installed")
    path = tmp_path / "j.sqlite"
    run(path, 1, 2)
    code = (
        "import sys; from pathlib import Path; from tests.unit.edge_runtime.sinks.test_journal_age import run, seqs\n"
        "path = Path(sys.argv[1]); print(run(path, int(sys.argv[2]), keep_days=10)); print(seqs(path))"
    )
    for seq in (3, 4):
        ahead = subprocess.run(
            ["faketime", "-f", "+500d", sys.executable, "-c", code, str(path), str(seq)],
            capture_output=True, text=True, check=True, env={**os.environ, "FAKETIME_DONT_FAKE_MONOTONIC": "1"},
        )  # fmt: skip
        assert "500 days ahead" in ahead.stdout and str(list(range(1, seq + 1))) in ahead.stdout


def test_an_engineer_who_says_that_the_clock_is_right_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j.sqlite"
    run(path, 1, 2)
    at(monkeypatch, 90)
    with Journal(settings(path), "s") as journal:
        assert "90 days ahead" in str(journal.problem)
        journal.acknowledge("M. Huber", "the line stood still for a quarter", [])
        assert journal.problem is None
        journal.put(a_decision(3))
    assert run(path, 4, keep_days=10) is None
    assert seqs(path) == [3, 4]


def test_rows_from_before_the_chain_go_by_their_date_and_no_later_than_its_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j.sqlite"
    shutil.copy(SCHEMA_1 / "journal.sqlite", path)
    with closing(sqlite3.connect(path)) as connection:
        for seq, days in ((1, 50), (2, 45), (3, 5), (4, 50), (5, 4), (6, -900), (7, 3), (8, 2)):
            dated = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="milliseconds")
            connection.execute("UPDATE decisions SET wall_time = ? WHERE seq = ?", (dated, seq))
        connection.commit()
    run(path, 9, keep_days=10)
    assert seqs(path) == [3, 4, 5, 6, 7, 8, 9], "none that follows a younger one"
    at(monkeypatch, 9)
    run(path, 10)
    run(path, keep_days=10)
    assert seqs(path) == [6, 7, 8, 9, 10]
    at(monkeypatch, 18)
    run(path, 11)
    run(path, keep_days=10)
    assert seqs(path) == [10, 11]
    assert verify(path, [open_key(tmp_path / "j.sqlite.key").public]).findings == []


def test_a_file_that_grows_too_large_loses_its_oldest_rows(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(settings(path, keep_mb=2), "s") as journal:
        for seq in range(1, 3001):
            journal.put(a_decision(seq, reason="x" * 500))
        until(lambda: read_decisions(path, 0, 1)[0].seq > 500)
        assert journal.problem is None
    assert path.stat().st_size < 4e6
    assert journal.last_seq() == 3000
    found = verify(path, [read_public(tmp_path / "j.sqlite.key.pub")])
    assert found.findings == [] and found.decisions == len(read_decisions(path, 0, 10_000))


def test_what_a_line_may_stand_still_is_shorter_than_what_rows_are_kept_for() -> None:
    assert settings(Path("j")).keep_days * DAY_S > 10 * journal_clock.STANDSTILL_S


def test_a_head_beside_it_of_a_row_that_no_station_reaches_is_said_and_the_journal_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    run(path, 1)
    path.with_name("j.sqlite.head").write_text(f'{{"n": {(1 << 63) - 1}, "hash": "{"0" * 64}", "signature": "{"0" * 128}"}}')
    assert "is no station's" in str(run(path, 2))
    assert seqs(path) == [1, 2]
