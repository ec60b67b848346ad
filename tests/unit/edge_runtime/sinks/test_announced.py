"""What was announced is in a file before anybody is told; what was decided leaves it."""

import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from edge_runtime.errors import SinkError
from edge_runtime.records import Cause, Delivery, Outcome, Trigger, Verdict
from edge_runtime.security.signing import read_public
from edge_runtime.sinks import announced as module
from edge_runtime.sinks.announced import Announced
from edge_runtime.sinks.journal import Journal, read_decisions
from edge_runtime.sinks.journal_verify import verify
from edge_runtime.station.launch import _answer_what_a_kill_left
from tests.unit.edge_runtime.sinks.journals import a_decision, settings
from tests.unit.edge_runtime.sinks.test_journal import in_small_disk


def part(seq: int) -> Trigger:
    return Trigger(seq, 1000 + seq, f"Ä/{seq}", recipe="7", since_ns=900)


def test_what_was_noted_is_found_by_the_next_run_once_and_in_order(tmp_path: Path) -> None:
    with Announced(tmp_path / "j.sqlite", lambda: 0) as announced:
        for seq in (1, 2, 2, 3):
            announced.note(part(seq))
    with Announced(tmp_path / "j.sqlite", lambda: 0) as announced:
        assert announced.left() == [part(1), part(2), part(3)]
        announced.forget()
        assert announced.left() == []
        announced.note(part(4))
        assert announced.left() == [part(4)]


def test_a_killed_process_loses_nothing_that_was_noted(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from edge_runtime.records import Trigger
from edge_runtime.sinks.announced import Announced
with Announced(Path({str(tmp_path / "j.sqlite")!r}), lambda: 0) as announced:
    for seq in range(1, 501):
        announced.note(Trigger(seq, 1, ""))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert [t.seq for t in Announced(tmp_path / "j.sqlite", lambda: 0).left()] == list(range(1, 501))


def test_a_torn_line_hides_no_other(tmp_path: Path) -> None:
    with Announced(tmp_path / "j.sqlite", lambda: 0) as announced:
        announced.note(part(1))
        with announced.path.open("r+b") as file:
            file.seek(announced._at)
            file.write(b'{"seq": 2, "fired_n')
        assert announced.left() == [part(1)]


def test_the_file_keeps_those_that_are_open_and_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BYTES", 2000)
    decided = 0
    with Announced(tmp_path / "j.sqlite", lambda: decided) as announced:
        for seq in range(1, 1001):
            announced.note(part(seq))
            decided = seq - 3
            assert announced.path.stat().st_size == 2000
        assert [t.seq for t in announced.left()][-3:] == [998, 999, 1000]
        assert announced.problem is None


def test_a_disk_that_fills_up_later_takes_no_line_from_it(tmp_path: Path) -> None:
    """More than both halves hold, and none of them decided: the newest numbers are what the next start must know."""
    body = """
from edge_runtime.records import Trigger
from edge_runtime.sinks.announced import Announced
with Announced(disk / "j.sqlite", lambda: 0) as announced:
    try:
        with (disk / "ballast").open("wb", buffering=0) as f:
            while f.write(bytes(4096)): pass
    except OSError: pass
    for seq in range(1, 3001):
        announced.note(Trigger(seq, 1000 + seq, f"A/{seq}"))
        assert announced.problem is None, announced.problem
    print([t.seq for t in announced.left()][-300:] == list(range(2701, 3001)))
"""
    assert in_small_disk(body, tmp_path).strip() == "True"


def test_a_disk_that_is_full_at_start_is_refused(tmp_path: Path) -> None:
    (tmp_path / "j.sqlite.announced").symlink_to("/dev/full")
    with pytest.raises(SinkError, match="No space left"), Announced(tmp_path / "j.sqlite", lambda: 0):
        pass


def test_a_line_that_cannot_be_written_is_said_and_costs_no_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Announced(tmp_path / "j.sqlite", lambda: 0) as announced:
        with monkeypatch.context() as patch, Path("/dev/full").open("wb") as full:
            patch.setattr(announced, "_file", full.fileno())
            announced.note(part(1))
        assert "No space left" in str(announced.problem)
        announced.note(part(2))
        assert announced.problem is None


def test_a_station_that_has_decided_all_leaves_the_last_alone(tmp_path: Path) -> None:
    """The PLC may still wait for one of them; a journal that is moved aside must not get hundreds of FAULTs for the others."""
    decided = 0
    with Announced(tmp_path / "j.sqlite", lambda: decided) as announced:
        for seq in range(1, 101):
            announced.note(part(seq))
        decided = 100
    assert [t.seq for t in Announced(tmp_path / "j.sqlite", lambda: 0).left()] == list(range(85, 101))


def test_a_place_that_cannot_be_written_is_refused_at_start(tmp_path: Path) -> None:
    with (
        pytest.raises(SinkError, match=r"j\.sqlite\.announced: cannot be written"),
        Announced(tmp_path / "nowhere" / "j.sqlite", lambda: 0),
    ):
        pass


def test_what_was_told_without_a_row_has_one_after_the_next_start_that_says_the_same(tmp_path: Path) -> None:
    """A kill with three told and not written, one of them whose row came too late; and one that nobody was told of."""
    path = tmp_path / "j.sqlite"
    late = a_decision(2, verdict=Verdict.FAULT, cause=Cause.JOURNAL, score=None)
    with Journal(settings(path), "s") as journal, Announced(path, lambda: 0) as announced:
        for seq in range(1, 6):
            announced.note(part(seq))
        for seq in (1, 2):
            journal.put(a_decision(seq, verdict=Verdict.ACCEPT))
        for told in (a_decision(2, verdict=Verdict.ACCEPT), late, a_decision(3, verdict=Verdict.ACCEPT, score=7.5), a_decision(4)):
            announced.unwritten(told)
    with Journal(settings(path), "s") as journal, Announced(path, journal.last_seq) as announced:
        _answer_what_a_kill_left("s", announced, journal, {}, [""])
    rows = read_decisions(path)
    assert [(d.seq, d.part_id, d.verdict, d.cause) for d in rows] == [
        (1, "A-1", Verdict.ACCEPT, Cause.NONE), (2, "A-2", Verdict.FAULT, Cause.JOURNAL), (3, "Ä/3", Verdict.ACCEPT, Cause.NONE),
        (4, "Ä/4", Verdict.REJECT, Cause.NONE), (5, "Ä/5", Verdict.FAULT, Cause.ENDED),
    ]  # fmt: skip
    assert rows[2].score == 7.5 and "no more is known of it than this, taken from" in rows[2].reason and "not signed" in rows[2].reason
    assert verify(path, [read_public(tmp_path / "j.sqlite.key.pub")]).findings == []


def test_a_line_that_contradicts_what_the_plc_was_told_amends_nothing_and_is_said(tmp_path: Path) -> None:
    """By somebody who can write the file while the station is stopped: an ACCEPT becomes no FAULT by that."""
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "s") as journal, Announced(path, lambda: 0) as announced:
        for seq in (1, 2):
            announced.note(part(seq))
            journal.put(a_decision(seq, verdict=Verdict.ACCEPT))
            announced.unwritten(a_decision(seq, verdict=Verdict.FAULT, cause=Cause.JOURNAL, score=None))
        journal.delivered(Delivery(1, "plc", Outcome.TOLD, 5, "ACCEPT"))
        journal.delivered(Delivery(2, "plc", Outcome.TOLD, 5, "FAULT, code 10"))
    with Journal(settings(path), "s") as journal, Announced(path, journal.last_seq) as announced:
        _answer_what_a_kill_left("s", announced, journal, {}, [""])
        assert "no station writes what stood in 1 of its lines" in str(announced.problem)
    assert [d.verdict for d in read_decisions(path)] == [Verdict.ACCEPT, Verdict.FAULT]
    assert verify(path, [read_public(tmp_path / "j.sqlite.key.pub")]).findings == []


def test_parts_that_were_told_and_of_which_nothing_is_left_are_named(tmp_path: Path) -> None:
    """A disk that was full for longer than there is room for."""
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "s") as journal, Announced(path, lambda: 0) as announced:
        journal.put(a_decision(1))
        for seq in (40, 41):
            announced.note(part(seq))
    with Journal(settings(path), "s") as journal, Announced(path, journal.last_seq) as announced:
        _answer_what_a_kill_left("s", announced, journal, {}, [""])
    (note,) = verify(path, [read_public(tmp_path / "j.sqlite.key.pub")]).notes
    assert note.startswith("decisions 2 to 39 were missing at a start: told while the disk took no row, or an older journal")


@pytest.mark.parametrize(
    "odd",
    [
        part((1 << 63) - 1), part(-3), part(0), part(10**15), part(1 << 70),
        Trigger(3, 1 << 63, ""), Trigger(3, -1, ""), Trigger(3, 1, "", since_ns=1 << 64), Trigger(3, 1, "x" * 70_000),
    ],
    ids=lambda odd: f"{odd.seq}",
)  # fmt: skip
def test_a_line_that_no_station_writes_is_left_out_and_said_and_the_journal_goes_on(tmp_path: Path, odd: Trigger) -> None:
    """By somebody who can write the file: a number at the end of what SQLite holds would have it refuse all that follow."""
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "s") as journal:
        journal.put(a_decision(1))
    lines = msgspec.json.encode(part(2)) + b"\n" + msgspec.json.encode(odd) + b"\n"
    path.with_name("j.sqlite.announced").write_bytes(lines.ljust(1 << 18, b"\0"))
    with Journal(settings(path), "s") as journal, Announced(path, journal.last_seq) as announced:
        _answer_what_a_kill_left("s", announced, journal, {}, [""])
        assert "no station writes what stood in 1 of its lines" in str(announced.problem)
        journal.put(a_decision(journal.last_seq() + 1))
    assert [d.seq for d in read_decisions(path)] == [1, 2, 3]


def test_what_was_told_at_no_time_is_left_out(tmp_path: Path) -> None:
    with Announced(tmp_path / "j.sqlite", lambda: 0) as announced:
        announced.unwritten(a_decision(1, wall_time="2026-11-29"))
        announced.unwritten(a_decision(2))
        assert list(announced.told()) == [2]
