"""The journal: what was acknowledged is there after a kill, and a disk that takes nothing stops no decision."""

import dataclasses
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from edge_runtime.errors import SinkError
from edge_runtime.records import Region, Stamps, Verdict, View
from edge_runtime.sinks import journal as journal_module
from edge_runtime.sinks import journal_file
from edge_runtime.sinks.journal import Journal, read_decisions
from edge_runtime.sinks.journal_numbers import last_seq
from tests.support.decisions import SCHEMA_1
from tests.support.small_disk import run_in_small_disk
from tests.support.waiting import until
from tests.unit.edge_runtime.sinks.journals import a_decision, settings

A_VIEW = View(
    camera="top", verdict=Verdict.REJECT, reason="1 place above the limit", score=31.25, threshold=20.0, severity=1.5625,
    regions=(Region(1, 2, 30, 40, 500, 33.0),), frame_wh=(640, 480), bundle_id="a" * 64, recipe="cells", captured_ns=2, grabbed_ns=3,
    predicted_ns=4,
)  # fmt: skip


def test_every_decision_comes_back_equal_and_in_order(tmp_path: Path) -> None:
    decisions = [
        a_decision(1),
        a_decision(2, verdict=Verdict.ACCEPT, score=1.5, severity=0.075, regions=()),
        a_decision(3, verdict=Verdict.FAULT, score=None, severity=None, regions=(), frame_wh=(0, 0), stamps=Stamps(7), part_id=""),
        a_decision(8, views=(A_VIEW, dataclasses.replace(A_VIEW, camera="side", verdict=Verdict.FAULT, score=None, severity=None))),
        a_decision(9, source="C:/Teile/part_0.png", score=float("inf"), reason="Prüfling „Ä“ — zu hell"),
    ]
    with Journal(settings(tmp_path / "new folder" / "j.sqlite"), "cell-3") as journal:
        for decision in decisions:
            journal.put(decision)
            assert read_decisions(journal.path, decision.seq - 1) == [decision], "committed when put() is back"
        assert journal.problem is None
        assert journal.last_seq() == 9
        assert read_decisions(journal.path) == decisions
        assert read_decisions(journal.path, after_seq=1, limit=2) == decisions[1:3]


@pytest.mark.parametrize("column", ["views", "source"])
def test_a_journal_from_before_it_had_a_column_is_read_and_goes_on(tmp_path: Path, column: str) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "s") as journal:
        journal.put(first := a_decision(1))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"ALTER TABLE decisions DROP COLUMN {column}")
        connection.commit()
    assert read_decisions(path) == [first], "its view is made of what the row says of the part"
    with Journal(settings(path), "s") as journal:
        journal.put(several := a_decision(2, views=(A_VIEW,), source="parts/1.png"))
        assert read_decisions(path) == [first, several]


def test_two_names_of_one_journal_have_one_writer(tmp_path: Path) -> None:
    with Journal(settings(tmp_path / "j.sqlite"), "s"):
        (tmp_path / "link.sqlite").symlink_to(tmp_path / "j.sqlite")
        with pytest.raises(SinkError, match="expected to be its only writer"), Journal(settings(tmp_path / "link.sqlite"), "s"):
            pass


def test_a_second_writer_that_came_in_all_the_same_fences_the_first_off(tmp_path: Path) -> None:
    """Its lock was removed. Two that go on would give the same number to different parts."""
    path = tmp_path / "j.sqlite"
    first = Journal(settings(path), "s").__enter__()
    first.put(a_decision(1))
    path.with_name("j.sqlite.lock").unlink()
    with Journal(settings(path), "s") as second:
        first.put(a_decision(2, part_id="of the first"))
        assert "another station has opened it and writes it now" in str(first.problem)
        second.put(a_decision(2, part_id="of the second"))
        assert [d.part_id for d in read_decisions(path)] == ["A-1", "of the second"]
    with pytest.raises(SinkError, match="another station"):
        first.__exit__(None, None, None)


def test_one_row_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "s") as journal:
        for seq in range(1, 31):
            journal.put(a_decision(seq))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE decisions SET regions = '[{' WHERE seq IN (7, 9)")
        connection.commit()
    page, lost = journal_file.read_page(path, 3, 10)
    assert [d.seq for d in page] == [4, 5, 6, 8, 10, 11, 12, 13, 14, 15]
    assert lost.startswith("rows 7 to 9 (2 of them) cannot be read")
    assert journal_file.read_page(path, 10, 5) == (read_decisions(path, 10, 5), "")


def test_what_the_only_camera_saw_of_a_part_that_was_judged_late_is_kept_and_nothing_is_kept_twice(tmp_path: Path) -> None:
    seen = dataclasses.replace(A_VIEW, camera="")
    late = a_decision(1, verdict=Verdict.FAULT, reason="too late", score=None, severity=None, regions=(), views=(seen,))
    with Journal(settings(tmp_path / "j.sqlite"), "s") as journal:
        journal.put(late)
        journal.put(usual := a_decision(2))
    assert read_decisions(tmp_path / "j.sqlite") == [late, usual]
    with closing(sqlite3.connect(tmp_path / "j.sqlite")) as connection:
        assert connection.execute("SELECT json_array_length(views) FROM decisions ORDER BY seq").fetchall() == [(1,), (0,)]


def test_a_journal_of_schema_1_is_read_and_goes_on(tmp_path: Path) -> None:
    """Written by the last version before schema 2, at a station with one camera and, from part 5 on, two."""
    path = tmp_path / "j.sqlite"
    shutil.copy(SCHEMA_1 / "journal.sqlite", path)
    decisions = read_decisions(path)
    assert [d.seq for d in decisions] == list(range(1, 9))
    assert [d.verdict.value[0] for d in decisions] == list("ARAFARRF")
    assert [[v.camera for v in d.views] for d in decisions] == [[""]] * 4 + [["top", "side"]] * 4
    for d in decisions:
        deciding, s = d.deciding, d.stamps
        assert deciding.verdict is d.verdict and d.reason.endswith(deciding.reason)
        for name in ("score", "threshold", "severity", "regions", "frame_wh", "bundle_id", "recipe"):
            assert getattr(deciding, name) == getattr(d, name)
        assert (deciding.captured_ns, deciding.grabbed_ns, deciding.predicted_ns) == (s.captured_ns, s.grabbed_ns, s.predicted_ns)
    assert decisions[1].views[0].regions and decisions[3].views[0].score is None
    with Journal(settings(path), "st") as journal:
        assert journal.last_seq() == 8
        journal.put(a_decision(9))
        assert [d.seq for d in read_decisions(path)] == list(range(1, 10))
        assert read_decisions(path)[:8] == decisions


def test_the_last_number_survives_a_restart(tmp_path: Path) -> None:
    with Journal(settings(tmp_path / "j.sqlite"), "s") as journal:
        assert journal.last_seq() == 0
        for seq in range(1, 21):
            journal.put(a_decision(seq))
    with Journal(settings(tmp_path / "j.sqlite"), "s") as journal:
        assert journal.last_seq() == 20


def test_a_person_with_any_sqlite_tool_sees_times_in_milliseconds(tmp_path: Path) -> None:
    with Journal(settings(tmp_path / "j.sqlite"), "s") as journal:
        journal.put(a_decision(1))
        journal.put(a_decision(2, verdict=Verdict.FAULT, stamps=Stamps(1_000_000, told_ns=3_000_000)))
    connection = sqlite3.connect(tmp_path / "j.sqlite")
    rows = connection.execute("SELECT verdict, grab_ms, predict_ms, total_ms FROM decisions ORDER BY seq").fetchall()
    connection.close()
    assert rows == [("REJECT", 2.5, 5.5, 8.2), ("FAULT", None, None, 2.0)]


@pytest.mark.parametrize(("durable", "synchronous"), [(False, 1), (True, 2)])
def test_a_durable_journal_syncs_the_disk_at_each_commit(tmp_path: Path, durable: bool, synchronous: int) -> None:
    with closing(journal_file.open_for_writing(tmp_path / "k.sqlite", durable)) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (synchronous,)
    with Journal(settings(tmp_path / "j.sqlite", durable=durable), "s") as journal:
        journal.put(a_decision(1))
        assert [d.seq for d in read_decisions(journal.path)] == [1]


def test_a_missing_journal_has_no_decisions(tmp_path: Path) -> None:
    assert read_decisions(tmp_path / "none.sqlite") == []
    assert last_seq(tmp_path / "none.sqlite") == 0


_WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from edge_runtime.config.files import JournalConfig
from edge_runtime.records import Decision, Stamps, Verdict, View
from edge_runtime.sinks.journal import Journal
with Journal(JournalConfig(path=Path(sys.argv[1]), commit_timeout_ms=60_000), "s") as journal:
    seq = journal.last_seq()
    while True:
        seq += 1
        now = datetime.now(UTC).isoformat()
        view = View("", Verdict.ACCEPT, "", 1.0, 2.0, 0.5, (), (4, 4), "b", "r")
        journal.put(Decision("s", seq, f"A-{seq}", Verdict.ACCEPT, "", 1.0, 2.0, 0.5, (), (4, 4), "b", "r", Stamps(1), now, (view,)))
        print(seq, flush=True)
"""


@pytest.mark.slow
def test_kill_9_loses_no_acknowledged_decision(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    acknowledged = 0
    for round_ in range(6):
        with subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            # Another number of rows each time, once beyond the checkpoint, so that the kill comes at another place of the file.
            for _ in range((1, 7, 40, 600, 3, 90)[round_]):
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            for line in writer.stdout:
                acknowledged = int(line) if line.endswith("\n") else acknowledged
        rows = read_decisions(path, 0, 10**6)
        assert [d.seq for d in rows[:acknowledged]] == list(range(1, acknowledged + 1))
        assert len(rows) - acknowledged in (0, 1), "at most the row that was not acknowledged yet"
        acknowledged = len(rows)


# --- a disk that takes nothing ---------------------------------------------------------------------------------------


def in_small_disk(body: str, tmp_path: Path) -> str:
    """Run Python code with `disk`, a folder on a tmpfs of 1 MB of its own, in a private mount namespace; its output."""
    mount = tmp_path / "disk"
    mount.mkdir()
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom pathlib import Path\ndisk = Path({str(mount)!r})\n{body}"
    return run_in_small_disk(code, mount)


_FULL = """
import test_journal as t, time
from edge_runtime.sinks.journal import Journal, read_decisions
ballast = disk / "ballast"
with Journal(t.settings(disk / "j.sqlite", commit_timeout_ms=50), "s") as journal:
    journal.put(t.a_decision(1))
    assert journal.problem is None
    with ballast.open("wb", buffering=0) as f:
        try:
            while f.write(bytes(4096)): pass
        except OSError: pass
    slowest = 0.0
    for seq in range(2, 302):
        began = time.perf_counter()
        journal.put(t.a_decision(seq))
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < 0.5, slowest
    print(journal.problem)
    assert "full" in journal.problem and "wait in memory" in journal.problem, journal.problem
    assert [d.seq for d in read_decisions(journal.path)][0] == 1
    ballast.unlink()
    t.until(lambda: journal.problem is None)
    assert [d.seq for d in read_decisions(journal.path)] == list(range(1, 302))
    journal.put(t.a_decision(302))
assert len(read_decisions(disk / "j.sqlite")) == 302
"""


@pytest.mark.slow
def test_on_a_full_disk_decisions_go_on_and_are_written_when_there_is_room_again(tmp_path: Path) -> None:
    assert "full" in in_small_disk(_FULL, tmp_path)


def test_a_full_disk_at_start_is_refused_and_named(tmp_path: Path) -> None:
    body = """
import test_journal as t
from edge_runtime.errors import SinkError
from edge_runtime.sinks.journal import Journal
try:
    (disk / "ballast").write_bytes(bytes(2_000_000))
except OSError: pass
try:
    Journal(t.settings(disk / "j.sqlite"), "s").__enter__()
except SinkError as e:
    print(e)
"""
    out = in_small_disk(body, tmp_path)
    assert "j.sqlite" in out
    assert "full" in out or "No space" in out or "disk I/O" in out


class Blocker:
    """Another program in the middle of a write: the database is locked."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, *_: object) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


def test_a_disk_that_hangs_delays_a_decision_by_the_commit_timeout_only(tmp_path: Path) -> None:
    with Journal(settings(tmp_path / "j.sqlite", commit_timeout_ms=40), "s") as journal:
        with Blocker(journal.path):
            began = time.perf_counter()
            journal.put(a_decision(1))
            took = time.perf_counter() - began
            assert 0.035 < took < 0.45, "less than SQLite itself waits for a lock"
            assert journal.problem is not None
            assert "1 decisions" in journal.problem
        until(lambda: journal.last_seq() == 1)
        assert journal.problem is not None, "a late commit stays visible for a while"
        assert "40 ms" in journal.problem
        assert [d.seq for d in read_decisions(journal.path)] == [1]


def test_a_disk_that_hangs_makes_no_verdict_late(tmp_path: Path) -> None:
    with Journal(settings(tmp_path / "j.sqlite", commit_timeout_ms=250), "s", {"cells": 60_000_000}) as journal, Blocker(journal.path):
        now = time.monotonic_ns()
        stamps = Stamps(now, now, now, now, now, now)
        journal.put(a_decision(1, stamps=stamps))
        assert 0.04 < (time.monotonic_ns() - now) / 1e9 < 0.2
        assert journal.problem is not None
        began = time.perf_counter()
        journal.put(a_decision(2, stamps=stamps, verdict=Verdict.FAULT))
        assert time.perf_counter() - began > 0.2, "a fault has no deadline to keep: its row may be waited for"


@pytest.mark.slow
def test_what_memory_cannot_hold_is_counted_as_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "BACKLOG", 5)
    with Journal(settings(tmp_path / "j.sqlite", commit_timeout_ms=1), "s") as journal:
        with Blocker(journal.path):
            until(lambda: journal.put(a_decision(journal_module.BACKLOG)) or "locked" in (journal.problem or ""))
            for seq in range(100, 120):
                journal.put(a_decision(seq))
        until(lambda: journal.last_seq() == 119)
        problem = journal.problem
        assert problem is not None
        assert "told but never written" in problem
        kept = [d.seq for d in read_decisions(journal.path)]
        assert kept[-4:] == [116, 117, 118, 119], "the latest are kept"


def test_a_number_that_is_there_already_is_reported_and_stops_nothing(tmp_path: Path) -> None:
    with Journal(settings(tmp_path / "j.sqlite"), "s") as journal:
        journal.put(a_decision(1, reason="first"))
        journal.put(a_decision(1, reason="second"))
        journal.put(a_decision(2))
        assert [(d.seq, d.reason) for d in read_decisions(journal.path)] == [(1, "first"), (2, "1 place above the limit")]
        assert journal.problem is not None
        assert "decision 1 was refused" in journal.problem


@pytest.mark.parametrize("taken", ["removed", "moved"])
def test_a_journal_that_is_taken_away_while_it_is_written_is_begun_anew_and_said_so(tmp_path: Path, taken: str) -> None:
    """SQLite alone would go on writing into a file that nobody can find any more."""
    folder = tmp_path / "state"
    with Journal(settings(folder / "j.sqlite"), "cell-3") as journal:
        journal.put(a_decision(1))
        if taken == "removed":
            shutil.rmtree(folder)
        else:
            folder.rename(tmp_path / "elsewhere")
        journal.put(a_decision(2))
        journal.put(a_decision(3))
        assert "removed or replaced while the station ran; a new one begins after decision 1" in (journal.problem or "")
        assert [d.seq for d in read_decisions(folder / "j.sqlite")] == [2, 3]
        with pytest.raises(SinkError, match="only writer"), Journal(settings(folder / "j.sqlite"), "cell-4"):
            pass
    if taken == "moved":
        assert [d.seq for d in read_decisions(tmp_path / "elsewhere" / "j.sqlite")] == [1]


def test_a_write_ahead_log_that_is_removed_while_it_is_written_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "cell-3") as journal:
        journal.put(a_decision(1))
        path.with_name("j.sqlite-wal").unlink()
        for seq in (2, 3):
            journal.put(a_decision(seq))
        assert "j.sqlite-wal was removed or replaced while the station ran; what it held was saved" in (journal.problem or "")
        assert [d.seq for d in read_decisions(path)] == [1, 2, 3]


def test_a_journal_whose_folder_cannot_be_made_again_waits_until_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "RETRY_S", 0.02)
    folder = tmp_path / "state"
    with Journal(settings(folder / "j.sqlite"), "cell-3") as journal:
        journal.put(a_decision(1))
        shutil.rmtree(folder)
        folder.write_text("in the way")
        journal.put(a_decision(2))
        assert "decisions wait in memory" in (journal.problem or "")
        folder.unlink()
        until(lambda: "wait in memory" not in (journal.problem or ""))
        assert [d.seq for d in read_decisions(folder / "j.sqlite")] == [2]


def test_what_waits_is_written_when_the_journal_closes(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(settings(path, commit_timeout_ms=1), "s") as journal:
        blocker = Blocker(path)
        blocker.__enter__()
        for seq in range(1, 11):
            journal.put(a_decision(seq))
        threading.Timer(0.2, blocker.__exit__).start()
    assert [d.seq for d in read_decisions(path)] == list(range(1, 11))


def test_a_journal_that_closes_before_all_is_written_is_no_clean_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "CLOSE_S", 0.1)
    path = tmp_path / "j.sqlite"
    journal = Journal(settings(path, commit_timeout_ms=1), "s")
    journal.__enter__()
    with Blocker(path):
        journal.put(a_decision(1))
        with pytest.raises(SinkError, match=r"1 decisions .* they are lost now"):
            journal.__exit__(None, None, None)


def test_a_closed_journal_says_so(tmp_path: Path) -> None:
    journal = Journal(settings(tmp_path / "j.sqlite"), "s")
    with pytest.raises(SinkError, match="closed"):
        journal.put(a_decision(1))


def test_a_disk_that_is_well_is_waited_for_however_short_the_deadline(tmp_path: Path) -> None:
    """The loop leaves a tenth of the deadline for telling: 2 ms of 20."""
    with Journal(settings(tmp_path / "j.sqlite"), "s", {"cells": 20_000_000}) as journal:
        for used_ms in (0, 16, 18, 25):
            fired = time.monotonic_ns() - used_ms * 1_000_000
            assert 0.001 <= journal._patience_s(a_decision(1, stamps=Stamps(fired))) <= 0.019
