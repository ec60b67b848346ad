"""Whoever can write the journal's file, computes hashes as the station does, and has no key: what he does is found, and which row."""

import json
import re
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from edge_runtime.commands.journal import verified
from edge_runtime.errors import SinkError
from edge_runtime.records import Delivery, Outcome, Trigger, Verdict
from edge_runtime.security.chain import GENESIS, hash_of
from edge_runtime.sinks import journal_order
from edge_runtime.sinks.journal import Journal, read_decisions
from edge_runtime.sinks.journal_file import seqs_between
from edge_runtime.sinks.journal_numbers import last_seq
from edge_runtime.sinks.journal_rows import COLUMNS
from tests.unit.edge_runtime.sinks.journals import a_decision, changed, decide_and_tell, settings, tampered


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty parts, each decided and told, of one run that ended in good order: row 2 n is decision n - 1, row 123 the stop."""
    path = tmp_path_factory.mktemp("journal") / "j.sqlite"
    with Journal(settings(path), "s") as journal:
        decide_and_tell(journal, range(1, 61))
    return path


def row_of_decision(path: Path, seq: int) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT n FROM chain WHERE kind = 'decision' AND seq = ?", (seq,)).fetchone()[0])


def added(path: Path, rows: Sequence[tuple[str, int | None, dict[str, object]]]) -> None:
    """At the chain's end, with hashes that fit."""
    with closing(sqlite3.connect(path)) as connection:
        n, at_s, end = connection.execute("SELECT n, at_s, hash FROM chain ORDER BY n DESC LIMIT 1").fetchone()
        for kind, seq, body in rows:
            n += 1
            text = json.dumps(body, separators=(",", ":"))
            values = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM decisions WHERE seq = ?", (seq,)).fetchone()
            end = hash_of(end, n, kind, seq, at_s, text, values if kind == "amended" else ())
            connection.execute("INSERT INTO chain VALUES (?, ?, ?, ?, ?, ?)", (n, kind, seq, at_s, text, end))
        connection.commit()


def accepted(path: Path, seq: int) -> tuple[str, int | None, dict[str, object]]:
    """Makes a decision an ACCEPT; the row that would explain it."""
    return told_instead(path, seq, "ACCEPT")


def told_instead(path: Path, seq: int, verdict: str) -> tuple[str, int | None, dict[str, object]]:
    """Gives a decision another verdict; the row that would explain it."""
    was = "verdict", "reason", "score", "severity", "regions", "told_ns", "wall_time", "cause", "views"
    with closing(sqlite3.connect(path)) as connection:
        values = connection.execute(f"SELECT {', '.join(was)} FROM decisions WHERE seq = ?", (seq,)).fetchone()
        connection.execute("UPDATE decisions SET verdict = ? WHERE seq = ?", (verdict, seq))
        connection.commit()
    return "amended", seq, {"was": dict(zip(was, values, strict=True))}


_START = ("started", None, {"wall_time": "2026-11-29T00:00:00.000+00:00", "version": "0.1.0", "station": "s", "signed": True})
_OLD_START = ("started", None, {"wall_time": "2026-11-29T00:00:00.000+00:00", "version": "0.0.9"})
_CLEARED = (
    "cleared",
    None,
    {"who": "M. Huber", "why": "nothing", "findings": ["decision 7 (row 15) was changed, or does not belong there"]},
)


def test_a_verdict_that_is_told_otherwise_afterwards_is_found(journal: Path) -> None:
    """Also when a station has signed the rows over it since."""
    added(journal, [accepted(journal, 7)])
    assert "(amended) follows a stop, and no station had started: it was put there" in str(verified(journal).findings)
    with Journal(settings(journal), "s") as station:
        assert "it was put there" in str(station.problem)
        station.put(a_decision(61))
    assert "(amended) follows a stop, and no station had started: it was put there" in str(verified(journal).findings)


@pytest.mark.parametrize("start", [_START, _OLD_START])
def test_a_start_that_was_made_up_is_found(journal: Path, start: tuple[str, None, dict[str, object]]) -> None:
    added(journal, [start, accepted(journal, 7), _CLEARED])
    with Journal(settings(journal), "s"):
        pass
    findings = verified(journal).unacknowledged
    assert "says that a station started, and no signature by it covers that: it was put there" in str(findings)


def left_by_a_kill(path: Path) -> None:
    """As if the station had been killed: the last ten rows without a signature, and no stop."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM chain WHERE kind = 'stopped'")
        connection.execute("DELETE FROM heads WHERE n > 110")
        connection.commit()
    path.with_name("j.sqlite.head").unlink()


@pytest.mark.parametrize(
    ("was", "now"), [("REJECT", "ACCEPT"), ("REJECT", "FAULT"), ("ACCEPT", "REJECT"), ("ACCEPT", "ACCEPT"), ("FAULT", "ACCEPT")]
)
def test_a_verdict_that_becomes_what_no_station_makes_of_it_is_found(tmp_path: Path, was: str, now: str) -> None:
    """Whatever else: an ACCEPT whose row was late was told as a FAULT. Also once a station has signed the rows over it."""
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "s") as station:
        for seq in range(1, 61):
            station.begin(a_decision(seq, verdict=Verdict(was)))
            station.delivered(Delivery(seq, "plc", Outcome.TOLD, 1000 * seq, was))
        assert station.settled(60)
    left_by_a_kill(path)
    added(path, [told_instead(path, 7, now)])
    assert f"makes decision 7 {now}, which was {was}" in str(verified(path).findings)
    with Journal(settings(path), "s") as station:
        assert f"makes decision 7 {now}, which was {was}" in str(station.problem)
    assert f"makes decision 7 {now}, which was {was}" in str(verified(path).findings)


@pytest.mark.parametrize(("shown", "found"), [("ACCEPT", True), ("FAULT, code 10", False)])
def test_an_accept_that_was_told_to_the_plc_is_no_fault_that_was_told_instead(tmp_path: Path, shown: str, found: bool) -> None:
    """After a kill its row can be amended as a station would; what the PLC was told is signed already."""
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "s") as station:
        for seq in range(1, 61):
            station.begin(a_decision(seq, verdict=Verdict.ACCEPT))
            station.delivered(Delivery(seq, "plc", Outcome.TOLD, 1000 * seq, shown))
        assert station.settled(60)
    left_by_a_kill(path)
    added(path, [told_instead(path, 7, "FAULT")])
    said = "decision 7 was amended to FAULT, and row 16 says that the PLC was told ACCEPT: no station does that"
    assert verified(path).findings == ([said] if found else [])
    with Journal(settings(path), "s") as station:
        station.put(a_decision(61))
    assert (said in verified(path).findings) is found


def test_a_part_that_an_amended_row_gives_another_name_is_found(journal: Path) -> None:
    """It may say what the verdict was, and not what the part was."""
    left_by_a_kill(journal)
    kind, seq, body = told_instead(journal, 7, "REJECT")
    with closing(sqlite3.connect(journal)) as connection:
        connection.execute("UPDATE decisions SET part_id = 'B-7' WHERE seq = 7")
        connection.commit()
    was = body["was"]
    assert isinstance(was, dict)
    added(journal, [(kind, seq, {"was": was | {"part_id": "A-7"}})])
    assert "decision 7 (row 15) was changed, or does not belong there" in verified(journal).findings


def test_a_verdict_that_is_amended_long_after_is_found_and_rows_that_a_kill_left_unsigned_are_named(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill the last rows bear no signature: they can be written anew, and nothing that stands long before them."""
    monkeypatch.setattr(journal_order, "AMENDED_WITHIN", 50)
    left_by_a_kill(journal)
    added(journal, [accepted(journal, 7)])
    with Journal(settings(journal), "s"):
        pass
    found = verified(journal)
    assert [f for f in found.findings if "another verdict than decision 7 was told" in f and "too late" in f]
    assert "were not signed yet when the station was killed or lost its power" in str(found.notes)


def written_anew(path: Path, from_n: int) -> None:
    """Each REJECT from this row on an ACCEPT, with hashes that fit; no signature over any of it is left, nor the head beside it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "UPDATE decisions SET verdict = 'ACCEPT', reason = '' WHERE seq IN (SELECT seq FROM chain WHERE kind = 'decision' AND n >= ?)",
            (from_n,),
        )
        end = next((h for (h,) in connection.execute("SELECT hash FROM chain WHERE n = ?", (from_n - 1,))), GENESIS)
        for n, kind, seq, at_s, body in connection.execute(
            "SELECT n, kind, seq, at_s, body FROM chain WHERE n >= ? ORDER BY n", (from_n,)
        ).fetchall():
            values = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM decisions WHERE seq = ?", (seq,)).fetchone()
            end = hash_of(end, n, kind, seq, at_s, body, values if kind == "decision" else ())
            connection.execute("UPDATE chain SET hash = ? WHERE n = ?", (end, n))
        connection.execute("DELETE FROM heads WHERE n >= ?", (from_n,))
        connection.commit()
    path.with_name("j.sqlite.head").unlink()


@pytest.mark.parametrize("from_n", [1, 3, 103])
def test_rows_that_were_written_anew_without_a_key_are_found_however_few_they_are(journal: Path, from_n: int) -> None:
    written_anew(journal, from_n)
    assert "no signature by it covers that" in str(verified(journal).findings)
    with Journal(settings(journal), "s") as station:
        assert "no signature by it covers that" in str(station.problem)
    assert "no signature by it covers that" in str(verified(journal).findings), "nor does the next start's signature cover it"


def test_a_journal_without_any_signature_is_found(journal: Path) -> None:
    with closing(sqlite3.connect(journal)) as connection:
        connection.execute("DELETE FROM chain WHERE kind IN ('begun', 'started', 'stopped')")
        connection.execute("UPDATE chain SET n = n - 2")
        connection.commit()
    written_anew(journal, 1)
    assert "no row carries a signature" in str(verified(journal).findings)
    with Journal(settings(journal), "s") as station:
        assert "no row carries a signature" in str(station.problem)


def test_never_are_more_rows_unsigned_than_it_takes_to_sign_them(journal: Path) -> None:
    """However many come at once, and at a kill."""
    with Journal(settings(journal), "s") as station:
        for seq in range(61, 400):
            station.put(a_decision(seq))
            if seq % 40 == 0:
                found = verified(journal)
                assert found.last_n - found.signed_n < 100
                assert found.findings == []


def test_a_decision_that_stands_there_twice_is_found(journal: Path) -> None:
    findings = tampered(
        journal,
        "ALTER TABLE decisions RENAME TO was",
        f"CREATE TABLE decisions ({', '.join(COLUMNS)})",
        f"INSERT INTO decisions SELECT {', '.join(COLUMNS)} FROM was",
        f"INSERT INTO decisions SELECT {', '.join(COLUMNS)} FROM was WHERE seq = 7",
        "UPDATE decisions SET verdict = 'ACCEPT' WHERE rowid = (SELECT max(rowid) FROM decisions)",
        "DROP TABLE was",
    )
    n = row_of_decision(journal, 7)
    assert f"row {n} (decision 7) stands there more than once: one of them was put there" in findings
    assert "the table decisions is not as a station makes it: it holds values of any type" in findings


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("threshold", "CAST(threshold AS INTEGER)"), ("seq", "CAST(seq AS TEXT)"), ("fired_ns", "CAST(fired_ns AS REAL)"),
        ("part_id", "CAST(part_id AS BLOB)"), ("verdict", "verdict || char(0)"), ("source", "NULL"), ("score", "''"), ("cause", "0.0"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_that_looks_the_same_is_found(journal: Path, column: str, value: str) -> None:
    findings = tampered(
        journal,
        "ALTER TABLE decisions RENAME TO was",
        f"CREATE TABLE decisions ({', '.join(COLUMNS)})",
        f"INSERT INTO decisions SELECT {', '.join(COLUMNS)} FROM was",
        f"UPDATE decisions SET {column} = {value} WHERE seq = 7",
        "DROP TABLE was",
    )
    n = row_of_decision(journal, 7)
    assert any(f"decision 7 (row {n}) was changed" in f or f"decision 7 (row {n}) was removed" in f for f in findings) or (
        column == "seq" and "decision 7 is in no row of the chain: it was inserted" in findings
    )


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("UPDATE chain SET hash = zeroblob(31) WHERE n = {n} - 1", "decision 7 (row {n}) was changed"),
        (
            "DELETE FROM chain WHERE n = {n} - 1",
            "decision 7 (row {n}) follows rows that are missing: whether it was changed cannot be told",
        ),
    ],
)
def test_a_decision_behind_a_damaged_row_is_named_as_well(journal: Path, before: str, said: str) -> None:
    n = row_of_decision(journal, 7)
    findings = tampered(journal, before.format(n=n), "UPDATE decisions SET verdict = 'ACCEPT' WHERE seq = 7")
    assert any(finding.startswith(said.format(n=n)) for finding in findings), findings


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("CREATE TRIGGER t AFTER INSERT ON decisions BEGIN DELETE FROM decisions WHERE seq = 1; END", "a trigger t that no station makes"),
        ("CREATE TRIGGER sqlite1 BEFORE INSERT ON heads BEGIN SELECT 1; END", "a trigger sqlite1 that no station makes"),
        ("CREATE VIEW accepted AS SELECT * FROM decisions", "a view accepted that no station makes"),
        ("ALTER TABLE decisions ADD COLUMN checked TEXT", "a column checked that no station makes"),
        (
            "ALTER TABLE decisions DROP COLUMN total_ms; ALTER TABLE decisions ADD COLUMN total_ms REAL AS (1.0) VIRTUAL",
            "the column total_ms of the table decisions is not computed as a station computes it",
        ),
    ],
)
def test_what_no_station_makes_in_the_file_is_found_also_at_a_start(journal: Path, statement: str, said: str) -> None:
    assert said in str(tampered(journal, statement))
    with Journal(settings(journal), "s") as station:
        assert said in str(station.problem)


def created_otherwise(path: Path, name: str, old: str, new: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema = 1")
        (sql,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
        assert old in sql
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (sql.replace(old, new), name))
        connection.commit()


_TOTAL = "total_ms REAL AS ((nullif(told_ns, 0) - fired_ns) / 1e6) VIRTUAL"


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("decisions", "verdict TEXT NOT NULL", "verdict TEXT NOT NULL CHECK (verdict <> 'REJECT')", "the words that it was created with"),
        ("decisions", _TOTAL, f"total_ms REAL AS (1.0) VIRTUAL /* {_TOTAL} */", "the words that it was created with are others"),
        ("chain", ") STRICT", ") -- STRICT", "the table chain is not as a station makes it: it holds values of any type"),
        ("chain_rare", "'delivery'", "'delivery', 'damaged'", "the index chain_rare is not as a station makes it"),
    ],
)
def test_a_table_that_was_created_with_other_words_is_found(journal: Path, name: str, old: str, new: str, said: str) -> None:
    """Wherever the right words stand."""
    created_otherwise(journal, name, old, new)
    assert said in str(verified(journal).findings)


@pytest.mark.parametrize("with_its_head", [False, True])
def test_an_older_copy_is_told_by_the_head_beside_it_or_by_one_that_was_noted(journal: Path, tmp_path: Path, with_its_head: bool) -> None:
    """It is whole itself: with the head of its time it takes one that somebody has noted since."""
    old = tmp_path / "old"
    old.mkdir()
    for name in ("j.sqlite", "j.sqlite.head"):
        shutil.copy(journal.with_name(name), old)
    with Journal(settings(journal), "s") as station:
        station.put(a_decision(61))
    noted = verified(journal)
    shutil.copy(old / "j.sqlite", journal)
    if with_its_head:
        shutil.copy(old / "j.sqlite.head", journal.with_name("j.sqlite.head"))
    found = verified(journal).findings
    said = "rows 124 to 126 were removed"
    assert found == ([] if with_its_head else [said])
    assert said in verified(journal, head=f"{noted.last_n}:{noted.last_hash.hex()}").findings
    with Journal(settings(journal), "s") as station:
        assert station.damage == ([] if with_its_head else [said])


def test_a_head_that_was_taken_away_is_missed(journal: Path) -> None:
    journal.with_name("j.sqlite.head").unlink()
    found = verified(journal)
    assert found.findings == [] and "rows that were cut off its end are not missed without --head" in str(found.notes)
    with Journal(settings(journal), "s") as station:
        assert "the head beside the journal (.head) is missing" in str(station.problem)


def test_the_journal_of_another_station_is_named_with_its_key_or_without(journal: Path, tmp_path: Path) -> None:
    with Journal(settings(journal), "line-2") as station:
        assert "station 's' wrote it, and this one is 'line-2'" in str(station.problem)
    other = tmp_path / "other" / "j.sqlite"
    other.parent.mkdir()
    with Journal(settings(other), "s") as own:
        own.put(a_decision(1))
    shutil.copy(journal, other)  # over it, with its key and head as they were
    with Journal(settings(other), "s") as station:
        assert "is not by a key that is given" in str(station.damage)


_LINK = "INSERT INTO chain SELECT {}, kind, seq, at_s, body, hash FROM chain WHERE n = 3"
_AT_THE_END = "INSERT INTO chain SELECT max(n) + 1, '{}', NULL, at_s, '{}', hash FROM chain"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE chain SET body = '{\"decisions_before\":1' || printf('%030d', 0) || '}' WHERE n = 1", "row 1 (begun) was changed"),
        ("UPDATE chain SET body = '{\"decisions_before\":9223372036854775807}' WHERE n = 1", "row 1 (begun) was changed"),
        (_LINK.format("9223372036854775807"), "row 9223372036854775807 stands there, and no station counts so"),
        (_LINK.format("-9223372036854775807 - 1"), "row -9223372036854775808 stands there, and no station counts so"),
        (
            "INSERT INTO heads SELECT 9223372036854775807, purpose, hash, signature FROM heads LIMIT 1",
            "a signature over row 9223372036854775807 stands there",
        ),
        ("UPDATE decisions SET seq = 9223372036854775807 WHERE seq = 60", "decision 9223372036854775807 stands there"),
        ("UPDATE decisions SET seq = -5 WHERE seq = 60", "decision -5 stands there, and no station counts so"),
        ("UPDATE chain SET at_s = 9223372036854775807 WHERE n = 122", "row 122 (delivery 60) was changed"),
        ("UPDATE chain SET body = CAST(x'ff' AS TEXT) WHERE kind = 'started'", "row 2 (started) was changed"),
        ("UPDATE chain SET kind = CAST(x'ff' AS TEXT) WHERE n = 122", "row 122 (\\udcff 60) was changed"),
        (_AT_THE_END.format("damaged", '{"findings":["\\ud800"]}'), "(damaged) was changed"),
        (_AT_THE_END.format("lost", '{"first":{"a":1},"last":"\\ud800"}'), "(lost) was changed"),
        (_AT_THE_END.format("amended", '{"was":[]}'), "decision None (row 124) was removed"),
        ("DELETE FROM upkeep", "the table upkeep is not as a station leaves it"),
        ("UPDATE upkeep SET checkpoints = 9223372036854775807", "the table upkeep is not as a station leaves it"),
    ],
)
def test_a_value_that_no_station_writes_is_found_and_stops_no_start(journal: Path, statement: str, said: str) -> None:
    assert said in "; ".join(tampered(journal, statement))
    with Journal(settings(journal), "s") as station:
        assert station.problem is not None
        station.put(a_decision(61))
        assert station.settled(10), station.problem
    assert json.dumps(verified(journal).findings).encode()


@pytest.mark.parametrize(
    "head",
    [
        '{"n":123,"hash":"HASH","signature":""}', '{"n":-9,"hash":"","signature":""}',
        '{"n":-9223372036854775809,"hash":"","signature":""}',
        '{"n":9223372036854775808,"hash":"HASH","signature":"00"}', '{"n":9223372036854775807,"hash":"00","signature":""}',
    ],
)  # fmt: skip
def test_a_head_beside_the_journal_that_bears_no_signature_is_none(journal: Path, head: str) -> None:
    with closing(sqlite3.connect(journal)) as connection:
        hash_ = connection.execute("SELECT hash FROM chain WHERE n = 123").fetchone()[0].hex()
    journal.with_name("j.sqlite.head").write_text(head.replace("HASH", hash_))
    assert "expected the journal's last signed head" in str(verified(journal).findings)
    with Journal(settings(journal), "s") as station:
        assert "expected the journal's last signed head" in str(station.problem)


def test_a_part_that_was_announced_and_has_no_decision_is_found_once_a_station_has_started_and_stopped_since(tmp_path: Path) -> None:
    """Until then it may be in flight, or be answered by the next start."""
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "s") as station:
        station.announced(Trigger(1, 1_000_000, "A-1"))
        station.put(a_decision(1))
        station.announced(Trigger(2, 2_000_000, "A-2"))
        station.announced(Trigger(3, 3_000_000, "A-3"))
    assert verified(path).findings == []
    with Journal(settings(path), "s") as station:
        station.event("lost", first=3, last=3)
    assert verified(path).findings == ["part 2 was announced, and no row says what was decided of it"]


# --- numbers that somebody has made up -------------------------------------------------------------------------------

_FAR = 1 << 61


def a_head(n: int) -> str:
    return json.dumps({"n": n, "hash": "ab" * 32, "signature": "cd" * 64})


def last_row(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT max(n) FROM chain WHERE n < ?", (_FAR,)).fetchone()[0])


@pytest.mark.parametrize("n", [124, 5000, _FAR, 1 << 62])
def test_a_head_that_was_made_up_is_found_and_moves_no_number(journal: Path, n: int) -> None:
    journal.with_name("j.sqlite.head").write_text(a_head(n))
    said = f"the head beside the journal, of row {n}, was changed, or is not by a key that is given"
    assert said in verified(journal).findings
    with Journal(settings(journal), "s") as station:
        assert station.damage == [said]
        station.put(a_decision(61))
        assert station.settled(10), station.problem
    assert last_row(journal) == 127, "123 and what was found, the start, the decision, the stop"
    assert verified(journal).findings == [said], "what a start has found, and nothing is missing"


def test_a_head_that_was_made_up_beside_a_journal_that_is_not_there_is_found(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    path.with_name("j.sqlite.head").write_text(a_head(77))
    with Journal(settings(path), "s") as station:
        assert "the head beside the journal, of row 77, was changed" in str(station.problem)
    assert last_row(path) < 10


@pytest.mark.parametrize("n", [5000, _FAR, 1 << 62])
def test_a_signature_that_was_made_up_moves_no_number(journal: Path, n: int) -> None:
    said = f"signature over row {n}"
    assert said in str(tampered(journal, f"INSERT INTO heads SELECT {n}, purpose, hash, signature FROM heads LIMIT 1"))
    for seq in (61, 62):
        with Journal(settings(journal), "s") as station:
            assert said in str(station.problem)
            station.put(a_decision(seq))
            assert station.settled(10), station.problem
    assert last_row(journal) < 140


@pytest.mark.parametrize("n", [_FAR, 1 << 62])
def test_a_row_that_was_put_far_away_stops_no_later_start_and_moves_no_number(journal: Path, n: int) -> None:
    said = f"row {n} stands there, and no station counts so: it was put there"
    assert tampered(journal, _LINK.format(n)) == [said]
    for seq in (61, 62, 63):
        with Journal(settings(journal), "s") as station:
            assert station.damage == [said]
            station.put(a_decision(seq))
            assert station.settled(10), station.problem
    assert last_row(journal) < 140 and verified(journal).findings == [said]


@pytest.mark.parametrize("seq", [61, 64, 10_000, 10**9, 1 << 62])
def test_a_decision_that_was_put_there_moves_no_number(journal: Path, seq: int) -> None:
    """It is named, and the station's own decision takes the place where it stands in its way."""
    changed(journal, f"INSERT INTO decisions SELECT {seq}, {', '.join(COLUMNS[1:])} FROM decisions WHERE seq = 7")
    assert last_seq(journal) == 60
    with Journal(settings(journal), "s") as station:
        assert f"decision {seq} is in no row of the chain: it was inserted" in str(station.problem)
        assert (station.last_seq(), last_seq(journal)) == (60, 60)
        for mine in range(61, 66):
            assert station.commit(a_decision(mine))
        assert station.last_seq() == 65
    assert [d.part_id for d in read_decisions(journal, 60, 5)] == [f"A-{mine}" for mine in range(61, 66)]
    assert any(str(seq) in finding for finding in verified(journal).findings)


def test_a_decision_that_is_put_there_while_the_station_runs_makes_way(journal: Path) -> None:
    with Journal(settings(journal), "s") as station:
        changed(journal, f"INSERT INTO decisions SELECT 62, {', '.join(COLUMNS[1:])} FROM decisions WHERE seq = 7")
        assert station.commit(a_decision(61)) and station.commit(a_decision(62))
        assert "decision 62 stood there before the station gave that number" in str(station.problem)
    assert read_decisions(journal, 61, 1)[0].part_id == "A-62"
    assert ["decision 62 stood there" in finding for finding in verified(journal).findings] == [True]


@pytest.mark.parametrize("stopped", [True, False])
def test_a_row_of_the_chain_that_was_put_there_reaches_no_last_number(journal: Path, stopped: bool) -> None:
    """After a kill it cannot be told from the station's own, but for a number that no station reaches."""
    if not stopped:
        left_by_a_kill(journal)
    for seq in (1 << 62, 70):
        changed(journal, f"INSERT INTO decisions SELECT {seq}, {', '.join(COLUMNS[1:])} FROM decisions WHERE seq = 7")
        added(journal, [("decision", seq, {})])
    with Journal(settings(journal), "s") as station:
        assert station.last_seq() == (60 if stopped else 70)
    assert last_seq(journal) == (60 if stopped else 70)


def test_no_number_is_given_twice_where_rows_of_the_chain_are_missing(journal: Path) -> None:
    changed(journal, "DELETE FROM chain WHERE n > 60")
    with Journal(settings(journal), "s") as station:
        assert station.last_seq() == 60


def test_a_station_that_only_starts_and_stops_goes_on_from_its_last_part(journal: Path) -> None:
    with closing(sqlite3.connect(journal)) as connection:  # what two hundred restarts leave, had each written six rows
        connection.execute("DELETE FROM heads")
        n = connection.execute("SELECT max(n) FROM chain").fetchone()[0]
        connection.executemany("INSERT INTO chain VALUES (?, 'event', NULL, 1, '{}', x'00')", [(n + more,) for more in range(1, 1201)])
        connection.commit()
    changed(journal, f"INSERT INTO decisions SELECT 900, {', '.join(COLUMNS[1:])} FROM decisions WHERE seq = 7")
    assert last_seq(journal) == 60


def test_the_rows_of_a_fresh_journal_that_somebody_else_filled_move_no_part_out_of_sight(tmp_path: Path, journal: Path) -> None:
    """Parts that a kill left are told from those that were deleted for their age by the station's own first decision."""
    changed(journal, f"INSERT INTO decisions SELECT {1 << 62}, {', '.join(COLUMNS[1:])} FROM decisions WHERE seq = 7")
    changed(journal, f"INSERT INTO decisions SELECT 61, {', '.join(COLUMNS[1:])} FROM decisions WHERE seq = 7")
    changed(journal, "DELETE FROM decisions WHERE seq < 61")
    assert seqs_between(journal, 61, 62, 60) == (0, set())


@pytest.mark.parametrize(("table", "key"), [("chain", "n"), ("decisions", "seq"), ("heads", "n, purpose")])
def test_a_table_without_its_key_is_named_and_a_long_one_is_not_walked(journal: Path, table: str, key: str) -> None:
    """Each row of it would be looked for among all: the square of a year's rows. A station refuses it, for numbers might be given twice."""
    changed(journal, f"CREATE TABLE anew AS SELECT * FROM {table}; DROP TABLE {table}; ALTER TABLE anew RENAME TO {table}")
    said = f"the table {table} lacks its primary key, {key}: somebody has made it anew"
    assert said in verified(journal).findings and verified(journal).rows > 0
    many = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c LIMIT 6000) SELECT i FROM c"
    changed(journal, f"INSERT INTO {table} SELECT t.* FROM {table} t, ({many})")
    found = verified(journal)
    assert said in found.findings and found.rows == 0
    with pytest.raises(SinkError, match=re.escape(said)), Journal(settings(journal), "s"):
        pass


def test_a_view_without_end_in_the_place_of_a_table_holds_up_nobody(journal: Path) -> None:
    endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n, 'HEAD' purpose, x'00' hash, x'00' signature FROM c"
    changed(journal, f"DROP TABLE heads; CREATE VIEW heads AS {endless}")
    assert "the view heads lacks its primary key, n, purpose: somebody has made it anew" in verified(journal).findings
    with pytest.raises(SinkError, match="the view heads lacks its primary key"), Journal(settings(journal), "s"):
        pass


def test_the_index_of_the_rare_rows_is_made_anew_by_the_next_start(journal: Path) -> None:
    changed(journal, "DROP INDEX chain_rare")
    with Journal(settings(journal), "s"):
        pass
    with closing(sqlite3.connect(journal)) as connection:
        assert connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'chain_rare'").fetchone()
    assert verified(journal).findings == []
