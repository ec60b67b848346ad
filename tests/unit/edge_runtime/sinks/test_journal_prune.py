"""Old rows are deleted for what the station has signed: whoever writes into the file, without its key, has none deleted, and is noticed."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from edge_runtime.commands.journal import acknowledge, verified
from edge_runtime.records import Cause, Trigger, Verdict
from edge_runtime.security.chain import Purpose, hash_of
from edge_runtime.security.signing import open_key
from edge_runtime.sinks import journal_file
from edge_runtime.sinks.journal import Journal, read_decisions
from edge_runtime.sinks.journal_chain import Chain, Limits
from edge_runtime.sinks.journal_heads import beside
from edge_runtime.sinks.journal_prune import acknowledged_here
from edge_runtime.sinks.journal_rows import COLUMNS, Entry, about, announced, row_of
from edge_runtime.sinks.journal_start import go_on
from tests.support.waiting import until
from tests.unit.edge_runtime.sinks.journals import a_decision, changed, decide_and_tell, settings

DAY_S = 86_400
REAL = time.time
SHORT = {"keep_days": 10}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred parts of twenty days ago, a hundred of five days ago, and one of today."""
    path = tmp_path_factory.mktemp("journal") / "j.sqlite"
    for days, first, last in ((20, 1, 100), (5, 101, 200), (0, 201, 201)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time", lambda days=days: REAL() - days * DAY_S)
            with Journal(settings(path), "s") as journal:
                decide_and_tell(journal, range(first, last + 1))
    return path


def seqs(path: Path) -> list[int]:
    return [d.seq for d in read_decisions(path)]


def pruned(path: Path, steps: int = 20, **limits: float) -> tuple[int, list[str]]:
    """What a station deletes when it has the time to, and what it says."""
    connection = journal_file.open_for_writing(path, False, "w")
    with closing(connection):
        chain = go_on(path, connection, open_key(beside(path, "key")), "w", looks=False, had_key=True)
        deleted = 0
        for _ in range(steps):
            rows, more = chain.prune(connection, Limits(**({"keep_s": 10 * DAY_S} | limits)), "w")
            deleted += rows
            if not more:
                break
        return deleted, chain.damage


@contextmanager
def begun_long_ago(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[sqlite3.Connection, Chain, Callable[[int], None]]]:
    """A chain that begins fifty days ago, and `later(s)`: from now on it is that long after its beginning."""
    start = REAL() - 50 * DAY_S
    with closing(journal_file.open_for_writing(path, False, "w")) as connection:
        monkeypatch.setattr(time, "time", lambda: start)
        chain = go_on(path, connection, open_key(beside(path, "key")), "w", looks=False, had_key=False)

        def later(s: int) -> None:
            monkeypatch.setattr(time, "time", lambda: start + s)
            chain.clock = type(chain.clock)(int(start) + s)

        yield connection, chain, later


def test_what_is_old_and_verifies_goes(journal: Path) -> None:
    deleted, said = pruned(journal)
    assert (deleted > 200, said, seqs(journal)) == (True, [], list(range(101, 202)))
    assert verified(journal).findings == []


def test_where_rows_were_cut_off_the_end_once_and_the_station_went_on_rows_are_deleted_all_the_same(journal: Path) -> None:
    """That is known already, and the row behind the gap is the station's."""
    changed(journal, *(f"DELETE FROM {table} WHERE n > 400" for table in ("chain", "heads")))
    with Journal(settings(journal, keep_days=3650), "s") as station:
        assert "rows 401 to 409 were removed" in station.damage
        for seq in range(202, 232):
            station.put(a_decision(seq))
    _, damage = pruned(journal, keep_s=-DAY_S)
    assert "rows 401 to 409 were removed" in damage and "old enough to be deleted" not in str(damage)
    with closing(sqlite3.connect(journal)) as connection:
        assert connection.execute("SELECT min(n) FROM chain").fetchone()[0] > 409


def test_what_is_old_is_deleted_up_to_a_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of the minutes before the cut stay until a signature covers them that is old, too."""
    path = tmp_path / "j.sqlite"
    with begun_long_ago(path, monkeypatch) as (connection, chain, later):
        for seq in range(1, 331):
            later(seq * 1000)
            chain.insert(connection, [Entry("decision", seq, row=row_of(a_decision(seq)))], "w")
        heads = [n for (n,) in connection.execute("SELECT n FROM heads ORDER BY n")]
        assert heads == [2, 102, 202, 302]
        chain.prune(connection, Limits(keep_s=330_000 - 250_500), "w")
        first = connection.execute("SELECT min(n) FROM chain").fetchone()[0]
    assert first == 203, "250 decisions are old: rows to 252"
    assert verified(path).findings == []


TIMES = f"UPDATE chain SET at_s = at_s - {30 * DAY_S} WHERE n {{}}"
_OLD_DATES = "UPDATE decisions SET wall_time = '2001-01-01T00:00:00.000+00:00'"


def with_hashes(path: Path, first: int) -> None:
    """From this row on as whoever knows how, and has no key, makes them."""
    with closing(sqlite3.connect(path)) as connection:
        (end,) = connection.execute("SELECT hash FROM chain WHERE n = ?", (first - 1,)).fetchone()
        for n, kind, seq, at_s, body in connection.execute("SELECT n, kind, seq, at_s, body FROM chain WHERE n >= ?", (first,)).fetchall():
            values = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM decisions WHERE seq = ?", (seq,)).fetchone()
            end = hash_of(end, n, kind, seq, at_s, body, values if kind == "decision" else ())
            connection.execute("UPDATE chain SET hash = ? WHERE n = ?", (end, n))
        connection.commit()


def by_times(path: Path) -> None:
    changed(path, TIMES.format("BETWEEN 204 AND 405"))


def by_times_and_hashes(path: Path) -> None:
    by_times(path)
    with_hashes(path, 204)


def by_times_and_signatures(path: Path) -> None:
    by_times_and_hashes(path)
    changed(path, "UPDATE heads SET hash = (SELECT hash FROM chain c WHERE c.n = heads.n)")


def by_numbers_that_make_rows_older_than_the_chain(path: Path) -> None:
    changed(path, "UPDATE chain SET seq = 500 WHERE kind = 'decision'", _OLD_DATES)


def by_a_first_row_that_says_that_the_chain_began_later(path: Path) -> None:
    changed(path, "UPDATE chain SET body = json_set(body, '$.decisions_before', 200) WHERE n = 1", _OLD_DATES)


def by_another_row_in_place_of_one(path: Path) -> None:
    by_times(path)
    changed(path, "DELETE FROM chain WHERE n = 300", "UPDATE chain SET n = n - 1 WHERE n > 300")


@pytest.mark.parametrize(
    "attack",
    [
        by_times, by_times_and_hashes, by_times_and_signatures,
        by_numbers_that_make_rows_older_than_the_chain, by_a_first_row_that_says_that_the_chain_began_later, by_another_row_in_place_of_one,
    ],
)  # fmt: skip
def test_no_row_that_is_young_goes_whatever_is_written_into_the_file(journal: Path, attack: Callable[[Path], None]) -> None:
    attack(journal)
    pruned(journal)
    there = set(seqs(journal))
    assert there >= set(range(101, 202))
    assert verified(journal).findings


@pytest.mark.parametrize("parts", [50, 1400])
def test_rows_that_were_dated_ahead_go_no_earlier_by_a_start_that_was_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    """Whether it is among those that are looked at in one step, or behind them."""
    path = tmp_path / "j.sqlite"
    monkeypatch.setattr(time, "time", lambda: REAL() + 500 * DAY_S)
    with Journal(settings(path), "s") as station:
        for seq in range(1, parts + 1):
            station.begin(a_decision(seq))
        assert station.settled(60)
    monkeypatch.setattr(time, "time", REAL)
    with Journal(settings(path), "s") as station:
        station.acknowledge("M. Huber", "the clock is right now", [])
        station.put(a_decision(parts + 1))
    old = int(REAL()) - 30 * DAY_S
    changed(path, f"UPDATE chain SET at_s = {old} WHERE kind IN ('started', 'stopped', 'cleared') AND n > {parts}")
    pruned(path)
    assert len(read_decisions(path, 0, 2000)) == parts + 1


def test_what_does_not_verify_stays_and_is_said_until_somebody_has_acknowledged_it(journal: Path) -> None:
    changed(journal, "UPDATE decisions SET verdict = 'ACCEPT' WHERE seq = 20")
    said = "decision 20 (row 41), which is old enough to be deleted, was changed, or does not belong there: it stays, and all after it"
    for seq in (202, 203):
        with Journal(settings(journal, **SHORT), "s") as station:
            until(lambda station=station: said in station.damage)
            assert station.problem is not None and seqs(journal)[0] == 1
            station.put(a_decision(seq))
    with closing(sqlite3.connect(journal)) as connection:
        (times,) = connection.execute("SELECT count(*) FROM chain WHERE kind = 'damaged' AND instr(body, ?)", (said,)).fetchone()
    assert times == 1
    assert said in verified(journal).unacknowledged
    assert said in acknowledge(journal, "M. Huber", "a repair by hand, ticket 77")
    with Journal(settings(journal, **SHORT), "s") as station:
        until(lambda: seqs(journal)[0] == 101)
        assert station.problem is None
    assert verified(journal).unacknowledged == []


def test_that_somebody_has_acknowledged_it_is_taken_of_the_station_alone(journal: Path) -> None:
    changed(journal, "UPDATE decisions SET verdict = 'ACCEPT' WHERE seq = 20")
    said = "decision 20 (row 41), which is old enough to be deleted, was changed, or does not belong there: it stays, and all after it"
    body = json.dumps({"who": "M. Huber", "why": "nothing", "findings": [said]})
    with closing(sqlite3.connect(journal)) as connection:
        connection.execute("UPDATE chain SET kind = 'cleared', seq = NULL, body = ? WHERE n = 300", (body,))
        connection.commit()
    with_hashes(journal, 300)
    deleted, damage = pruned(journal)
    assert deleted < 5 and damage == [said] and seqs(journal)[0] == 1


def test_that_somebody_has_acknowledged_it_counts_also_among_other_rows_of_one_step(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    connection, key = journal_file.open_for_writing(path, False, "w"), open_key(beside(path, "key"))
    with closing(connection):
        chain = go_on(path, connection, key, "w", looks=False, had_key=False)
        cleared = about("cleared", who="M. Huber", why="seen", findings=["row 7 was changed"])
        chain.insert(connection, [announced(Trigger(1, 1, "")), cleared, announced(Trigger(2, 2, ""))], "w")
        assert acknowledged_here(connection, [key.public], "row 7 was changed")
        assert not acknowledged_here(connection, [key.public], "row 8 was changed")
        assert not acknowledged_here(connection, [open_key(tmp_path / "other").public], "row 7 was changed")
    assert verified(path).findings == []


def test_rows_of_a_key_that_is_gone_stay_until_somebody_has_acknowledged_that(journal: Path) -> None:
    """All of them by one sentence."""
    for name in ("key", "key.pub"):
        beside(journal, name).unlink()
    with Journal(settings(journal, keep_days=3650), "s") as station:
        station.put(a_decision(202))
    _, (*_, said) = pruned(journal, at_once=150)
    assert "which are old enough to be deleted, bear no signature by the key beside the journal: they stay" in said
    assert seqs(journal)[0] == 1
    with Journal(settings(journal, keep_days=3650), "s") as station:
        station.acknowledge("M. Huber", "the disk with the key was lost", [said])
    pruned(journal, at_once=150)
    assert 1 < seqs(journal)[0] <= 101 and 202 in seqs(journal)


def test_a_decision_and_what_was_told_instead_of_it_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j.sqlite"
    with begun_long_ago(path, monkeypatch) as (connection, chain, later):
        for seq in range(1, 301):
            later(seq * 1000)
            entries = [Entry("decision", seq, row=row_of(a_decision(seq, verdict=Verdict.ACCEPT)))]
            if seq == 205:
                told = a_decision(198, verdict=Verdict.FAULT, cause=Cause.JOURNAL, reason="no row in time")
                entries.append(Entry("amended", 198, row=row_of(told)))
            chain.insert(connection, entries, "w", sign=seq % 50 == 0)
        chain.prune(connection, Limits(keep_s=300_000 - 201_500), "w")
        assert connection.execute("SELECT min(n) FROM chain").fetchone()[0] == 153, "not 203, between both"
        assert verified(path).findings == []
        chain.prune(connection, Limits(keep_s=0), "w")
    assert seqs(path)[0] > 205 and verified(path).findings == []


def test_a_signature_that_says_that_rows_were_deleted_covers_none(journal: Path) -> None:
    """An anchor of before, put where a head should be."""
    pruned(journal)
    changed(
        journal, f"DELETE FROM heads WHERE purpose = '{Purpose.HEAD}'",
        f"INSERT INTO heads SELECT n + 100, '{Purpose.HEAD}', hash, signature FROM heads",
    )  # fmt: skip
    first = seqs(journal)[0]
    pruned(journal, keep_s=DAY_S)
    assert seqs(journal)[0] == first
