"""The journal's chain: what is changed, removed, inserted or moved in it is found, and said which it was."""

import hashlib
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from edge_runtime.commands.journal_stats import Stats, stats_of
from edge_runtime.errors import SinkError
from edge_runtime.records import Cause, Delivery, Outcome, Trigger, Verdict
from edge_runtime.security.signing import PublicKey, open_key, read_public
from edge_runtime.sinks import journal_chain
from edge_runtime.sinks.journal import Journal, read_decisions
from edge_runtime.sinks.journal_heads import outside_head
from edge_runtime.sinks.journal_read import Reader
from edge_runtime.sinks.journal_verify import Verified, head_of, verify
from tests.support.decisions import SCHEMA_1
from tests.support.waiting import until
from tests.unit.edge_runtime.sinks.journals import a_decision, settings, tampered, written_on
from tests.unit.edge_runtime.sinks.test_journal import in_small_disk


def key_of(path: Path) -> PublicKey:
    return read_public(path.with_name(path.name + ".key.pub"))


def checked(path: Path, tail: int | None = None) -> Verified:
    return verify(path, [key_of(path)], outside_head(path), tail)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of 400 parts, each announced, decided, told and acknowledged, of two runs."""
    path = tmp_path_factory.mktemp("journal") / "j.sqlite"
    for first in (1, 201):
        with Journal(settings(path), "s") as journal:
            for seq in range(first, first + 200):
                journal.announced(Trigger(seq, 1000 * seq, f"A-{seq}"))
                journal.put(a_decision(seq, verdict=Verdict.ACCEPT if seq % 3 else Verdict.REJECT))
                journal.delivered(Delivery(seq, "plc", Outcome.TOLD, 1000 * seq + 5, "ACCEPT"))
                journal.delivered(Delivery(seq, "plc", Outcome.ACKNOWLEDGED, 1000 * seq + 9))
    return path


def test_what_the_station_wrote_is_what_is_there(journal: Path) -> None:
    found = checked(journal)
    assert (found.findings, found.notes) == ([], [])
    assert found.decisions == 400
    assert found.rows == 400 * 4 + 5, "with what was begun, started twice and stopped twice"
    assert found.signed_n == found.last_n == found.rows
    assert [checked(journal, tail).findings for tail in (1, 100, 5000)] == [[], [], []]


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (["UPDATE decisions SET verdict = 'ACCEPT' WHERE seq = 57 OR seq = 300"], ["decision 57 (row", "decision 300 (row"]),
        (["UPDATE decisions SET told_ns = told_ns + 1 WHERE seq = 57"], ["decision 57 (row"]),
        (["UPDATE decisions SET score = NULL WHERE seq = 57"], ["decision 57 (row"]),
        (["DELETE FROM decisions WHERE seq = 57"], ["decision 57 (row 228) was removed"]),
        (["DELETE FROM decisions WHERE seq = 57", "DELETE FROM chain WHERE kind = 'decision' AND seq = 57"], ["row 228 was removed"]),
        (["DELETE FROM chain WHERE n BETWEEN 300 AND 320"], ["rows 300 to 320 were", *(f"decision {s} is in" for s in range(75, 80))]),
        (["UPDATE decisions SET seq = 1000 WHERE seq = 57"], ["decision 57 (row 228) was removed", "decision 1000 is in no row"]),
        (
            ["UPDATE decisions SET seq = -1 WHERE seq = 57", "UPDATE decisions SET seq = 57 WHERE seq = 58",
             "UPDATE decisions SET seq = 58 WHERE seq = -1"],
            ["decision 57 (row 228) was changed, or does not belong there", "decision 58 (row 232) was changed, or does not belong there"],
        ),
        (["UPDATE chain SET body = replace(body, 'A-9', 'B-9') WHERE kind = 'announced' AND seq = 9"], ["(announced 9) was changed"]),
        (["UPDATE chain SET body = replace(body, 'told', 'tolt') WHERE kind = 'delivery' AND seq = 9"], ["(delivery 9) was changed"]),
        (["UPDATE chain SET at_s = at_s - 1 WHERE n = 70"], ["row 70 ("]),
        (["UPDATE chain SET hash = zeroblob(32) WHERE n = 228"], ["decision 57 (row 228) was changed"]),
        (["UPDATE chain SET n = 99999 WHERE n = 70"], ["row 70 was removed", "rows 1606 to 99998 were removed"]),
        (["UPDATE heads SET signature = zeroblob(64) WHERE n = (SELECT min(n) FROM heads)"], ["the signature over row"]),
        (["DELETE FROM chain WHERE n > 1500", "DELETE FROM decisions WHERE seq > 375"], ["rows 1501 to 15", "to 1605 were removed"]),
        (
            ["DELETE FROM chain WHERE n > 1500", "DELETE FROM decisions WHERE seq > 375", "DELETE FROM heads WHERE n > 1500"],
            ["rows 1501 to 1605 were removed"],
        ),
        (["DELETE FROM chain WHERE n <= 100", "DELETE FROM decisions WHERE seq <= 25"], ["rows 1 to 100 were removed"]),
        (["DELETE FROM chain"], ["the chain is empty", "rows 1 to 1605 were removed"]),
        (["DROP TABLE chain"], ["it has no chain"]),
    ],
)  # fmt: skip
def test_what_somebody_did_to_it_is_found_and_named(journal: Path, statements: list[str], said: list[str]) -> None:
    findings = tampered(journal, *statements)
    for sentence in said:
        assert any(sentence in finding for finding in findings), findings
    assert len(findings) <= len(said) + 4, "and the rest is not accused"


def test_a_chain_that_is_written_anew_from_a_row_on_is_not_the_one_that_was_signed(journal: Path) -> None:
    """Whoever can compute SHA-256 can make the hashes fit; without the station's key they cannot sign them."""
    with closing(sqlite3.connect(journal)) as connection:
        connection.execute("UPDATE decisions SET verdict = 'ACCEPT' WHERE seq = 57")
        columns = connection.execute("SELECT group_concat(name) FROM pragma_table_info('decisions')").fetchone()[0]
        previous = connection.execute("SELECT hash FROM chain WHERE n = 227").fetchone()[0]
        for n, kind, seq, at_s, body in connection.execute(
            "SELECT n, kind, seq, at_s, body FROM chain WHERE n >= 228 ORDER BY n"
        ).fetchall():
            values = connection.execute(f"SELECT {columns} FROM decisions WHERE seq = ?", (seq,)).fetchone() if kind == "decision" else ()
            previous = hashlib.sha256(previous + msgspec.msgpack.encode([n, kind, seq, at_s, body, *values])).digest()
            connection.execute("UPDATE chain SET hash = ? WHERE n = ?", (previous, n))
        connection.commit()
    findings = checked(journal).findings
    assert "are not those that the station signed: they were written anew" in findings[0]
    first, last = (int(word) for word in findings[0].split() if word.isdigit())
    assert first <= 228 <= last and last - first < 2 * journal_chain.SIGN_EVERY + 500


def test_the_chain_can_be_checked_without_lineside(journal: Path) -> None:
    """Two years later, by somebody else: what deploy/journal.md says, and nothing more."""
    with closing(sqlite3.connect(journal)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(decisions)")]
        previous, hashes = bytes(32), {}
        for n, kind, seq, at_s, body, stored in connection.execute(
            "SELECT n, kind, seq, at_s, body, hash FROM chain ORDER BY n"
        ).fetchall():
            row = connection.execute(f"SELECT {','.join(columns)} FROM decisions WHERE seq = ?", (seq,)).fetchone()
            values = row if kind == "decision" else ()
            previous = hashlib.sha256(previous + msgspec.msgpack.encode([n, kind, seq, at_s, body, *values])).digest()
            assert previous == stored
            hashes[n] = stored
        heads = connection.execute("SELECT n, signature FROM heads WHERE purpose = 'head'").fetchall()
    public = load_pem_public_key(journal.with_name("j.sqlite.key.pub").read_bytes())
    for n, signature in heads:
        public.verify(signature, f"lineside journal head {n} {hashes[n].hex()}".encode())  # type: ignore[union-attr, call-arg, arg-type]
    assert max(n for n, _ in heads) == max(hashes)


def test_another_stations_key_vouches_for_nothing(journal: Path, tmp_path: Path) -> None:
    other = open_key(tmp_path / "other").public
    *signatures, rows = verify(journal, [other]).findings
    assert signatures and all("is not by a key that is given" in finding for finding in signatures)
    assert "carry no signature" in rows
    assert verify(journal, [other, key_of(journal)]).findings == [], "keys of before and after"


def test_a_head_that_was_noted_elsewhere_proves_that_nothing_is_missing(journal: Path) -> None:
    found = checked(journal)
    noted = head_of(f"{found.last_n}:{found.last_hash.hex()}")
    assert verify(journal, [key_of(journal)], noted).findings == []
    tampered(journal, "DELETE FROM chain WHERE n > 1600", "DELETE FROM heads WHERE n > 1600")
    assert "to 1605 were removed" in str(verify(journal, [key_of(journal)], noted).findings)
    assert "to 1605 were removed" not in str(verify(journal, [key_of(journal)]).findings)


def test_the_key_is_its_users_alone_and_not_in_the_journal(journal: Path) -> None:
    key = journal.with_name("j.sqlite.key")
    assert key.stat().st_mode & 0o777 == 0o600
    secret = open_key(key)._key.private_bytes_raw()
    assert all(secret not in file.read_bytes() for file in journal.parent.iterdir())
    key.chmod(0o640)
    with pytest.raises(SinkError, match=r"its owner alone may read, found mode 640; chmod 600"), Journal(settings(journal), "s"):
        pass


def test_a_station_goes_on_with_a_tampered_journal_and_says_so_until_somebody_acknowledges(journal: Path) -> None:
    tampered(journal, "UPDATE decisions SET verdict = 'ACCEPT' WHERE seq = 399")
    for seq in range(401, 404):
        with Journal(settings(journal), "s") as station:
            station.put(a_decision(seq))
            assert "is not what was written: decision 399 (row" in str(station.problem)
    for seq in range(404, 404 + 1200):  # out of what a start looks at
        with_one = seq == 404
        if with_one:
            station = Journal(settings(journal), "s").__enter__()
        station.put(a_decision(seq))
    station.__exit__(None, None, None)
    with Journal(settings(journal), "s") as station:
        assert "decision 399" in str(station.problem)
        station.acknowledge("M. Huber", "a repair by hand, ticket 77", checked(journal).findings)
        assert station.problem is None
    with Journal(settings(journal), "s") as station:
        assert station.problem is None
    found = checked(journal)
    assert len(found.findings) == 1 and found.acknowledged == {found.findings[0]: "M. Huber: a repair by hand, ticket 77"}
    assert found.unacknowledged == []


def test_rows_that_were_cut_off_the_end_are_missed_at_the_next_start_and_their_places_are_not_taken(journal: Path) -> None:
    tampered(journal, "DELETE FROM chain WHERE n > 1500", "DELETE FROM decisions WHERE seq > 374", "DELETE FROM heads WHERE n > 1500")
    with Journal(settings(journal), "s") as station:
        assert "rows 1501 to 1605 were removed" in str(station.problem)
        station.put(a_decision(401))
    assert checked(journal).findings == ["rows 1501 to 1605 were removed"]


def test_a_chain_that_is_taken_away_while_the_station_stands_is_missed(journal: Path) -> None:
    tampered(journal, "DELETE FROM chain", "DELETE FROM heads")
    journal.with_name("j.sqlite.head").unlink()
    with Journal(settings(journal), "s") as station:
        assert "the chain is empty: all of its rows were removed" in str(station.problem)
    assert checked(journal).findings == ["the chain is empty: all of its rows were removed"], "also when it has begun anew"


def test_a_journal_from_before_the_chain_is_read_and_its_chain_begins_where_it_begins(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    shutil.copy(SCHEMA_1 / "journal.sqlite", path)
    before = read_decisions(path)
    assert verify(path, []).findings == ["it has no chain: a version of Lineside from before the chain wrote it, or the chain was removed"]
    with Journal(settings(path), "st") as journal:
        assert journal.problem is None
        journal.put(a_decision(9))
    found = checked(path)
    assert (found.findings, found.notes) == ([], ["the chain begins after decision 8: nothing can be said of those before"])
    assert found.decisions == 1 and read_decisions(path)[:8] == before
    assert "decision 9 (row" in tampered(path, "UPDATE decisions SET part_id = 'B' WHERE seq = 9")[0]


def test_what_was_told_instead_takes_a_decisions_place_and_the_chain_keeps_both(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    told = a_decision(1, verdict=Verdict.FAULT, score=None, severity=None, regions=(), reason="no row in time", cause=Cause.JOURNAL)
    with Journal(settings(path), "s") as journal:
        journal.put(a_decision(1, verdict=Verdict.ACCEPT, score=1.25, severity=0.0625))
        journal.amend(told)
        journal.put(a_decision(2))
        until(lambda: journal.settled(1))
        assert read_decisions(path) == [told, a_decision(2, wall_time=read_decisions(path)[1].wall_time)]
    assert checked(path).findings == []
    assert "decision 1" in tampered(path, "UPDATE chain SET body = replace(body, 'ACCEPT', 'REJECT') WHERE kind = 'amended'")[0]
    assert tampered(path, "UPDATE decisions SET verdict = 'ACCEPT' WHERE seq = 1") != []


@pytest.mark.parametrize("score", [0.0, -0.0, float("nan"), float("inf"), 5e-324, 1.7976931348623157e308, 3])
def test_every_number_and_text_that_is_taken_fits_its_hash(tmp_path: Path, score: float) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "s") as journal:
        journal.put(a_decision(1, score=score, severity=score, part_id="Ä\0\n\U0001f600", reason=""))
        journal.put(a_decision(1 << 62))
    assert checked(path).findings == []


def test_a_row_that_no_hash_can_be_made_of_stops_nothing(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "s") as journal:
        journal.put(a_decision(1, part_id="\ud800"))
        assert "decision 1 was refused" in str(journal.problem)
        journal.put(a_decision(2))
    assert [d.seq for d in read_decisions(path)] == [2] and checked(path).findings == []


def test_a_killed_station_leaves_a_whole_chain(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    code = """
import os, signal, sys
from pathlib import Path
from edge_runtime.records import Trigger
from tests.unit.edge_runtime.sinks.journals import a_decision, settings
from tests.unit.edge_runtime.sinks.test_journal import in_small_disk
from edge_runtime.sinks.journal import Journal
with Journal(settings(Path(sys.argv[1])), "s") as journal:
    for seq in range(journal.last_seq() + 1, journal.last_seq() + 151):
        journal.announced(Trigger(seq, 1, ""))
        journal.put(a_decision(seq))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    with Journal(settings(path), "s") as journal:
        assert journal.problem is None
    found = checked(path)
    assert found.findings == [] and found.decisions == 300


def test_it_can_be_verified_while_the_station_writes(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "s") as journal, written_on(journal):
        until(lambda: journal.last_seq() > 100)
        for _ in range(20):
            assert checked(path).findings == []


def test_a_journal_on_a_disk_that_cannot_be_written_is_verified(tmp_path: Path) -> None:
    """An auditor's copy, of a station that had stopped."""
    body = """
import subprocess, test_journal_chain as t
from edge_runtime.sinks.journal import Journal
with Journal(t.settings(disk / "j.sqlite"), "s") as journal:
    for seq in range(1, 6):
        journal.put(t.a_decision(seq))
subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
print(t.checked(disk / "j.sqlite").findings, t.checked(disk / "j.sqlite").decisions)
"""
    assert in_small_disk(body, tmp_path).strip() == "[] 5"


# --- any single bit --------------------------------------------------------------------------------------------------

_TABLES = ("SELECT * FROM decisions ORDER BY seq", "SELECT * FROM chain ORDER BY n", "SELECT * FROM heads ORDER BY n, purpose")


def content(path: Path) -> list[list[tuple[object, ...]]] | None:
    """All that stands in the rows, as SQLite gives it; None where it cannot."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            return [connection.execute(select).fetchall() for select in _TABLES]
    except sqlite3.Error:
        return None


def unnoticed(path: Path, bits: list[int]) -> tuple[list[int], int]:
    """Single bits are flipped: which changed what stands in a row and were not found; and how many changed it."""
    whole, before = path.read_bytes(), content(path)
    key, outside = key_of(path), outside_head(path)
    missed, changed = [], 0
    for bit in bits:
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        after = content(path)
        try:
            found = bool(verify(path, [key], outside).findings)
        except SinkError:
            found = True
        # repr: a float that became a NaN is not equal to itself, and 0 is not 0.0
        if repr(after) != repr(before):
            changed += 1
            missed += [] if found else [bit]
    path.write_bytes(whole)
    return missed, changed


@pytest.mark.slow
def test_any_single_bit_of_what_stands_in_a_row_is_missed(journal: Path) -> None:
    """The others carry no meaning: free space of a page, the file's counters, the index, `upkeep`."""
    size = journal.stat().st_size
    bits = random.Random(17).sample(range(4096 * 8, size * 8), 60)
    missed, changed = unnoticed(journal, bits)
    assert missed == []
    assert changed > 30


def figures(path: Path) -> Stats:
    return stats_of(Reader(path))


_ANY_READER: list[Callable[[Path], object]] = [read_decisions, checked, figures]


@pytest.mark.parametrize("reader", _ANY_READER)
@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_file_is_read_or_refused_in_a_sentence(journal: Path, reader: Callable[[Path], object], seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(journal.read_bytes())
    for _ in range(chance.choice((1, 20, 2000))):
        data[chance.randrange(100, len(data))] = chance.randrange(256)
    journal.write_bytes(data)
    try:
        reader(journal)
    except SinkError as e:
        assert "j.sqlite" in str(e)
