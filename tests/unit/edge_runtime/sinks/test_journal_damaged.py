"""A journal whose pages are damaged: what can be read is read, what cannot is named, and numbers that nobody wrote take no time."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edge_runtime.commands.journal import verified
from edge_runtime.sinks.journal import Journal
from edge_runtime.sinks.journal_damaged import numbers
from edge_runtime.sinks.journal_read import Reader
from edge_runtime.sinks.journal_rows import MOST
from tests.unit.edge_runtime.sinks.journals import changed, decide_and_tell, settings

FAR = 1 << 61
_FAR_ROW = "INSERT INTO chain SELECT {}, kind, seq, at_s, body, hash FROM chain WHERE n = 3"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("journal") / "j.sqlite"
    with Journal(settings(path), "s") as journal:
        decide_and_tell(journal, range(1, 401))
    return path


def pages_of(path: Path, table: str) -> list[int]:
    """The file's pages that hold its rows, in their order."""
    with closing(sqlite3.connect(path)) as connection:
        return [n for (n,) in connection.execute("SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY path", (table,))]


def overwritten(path: Path, *pages: int) -> None:
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * 4096)
            file.write(b"\xa5" * 4096)


def readable(path: Path, table: str, key: str) -> set[int]:
    """The numbers that SQLite gives one by one."""
    found = set()
    with closing(sqlite3.connect(path)) as connection:
        for n in range(1, 1001):
            try:
                found |= {n for (n,) in connection.execute(f"SELECT {key} FROM {table} WHERE {key} = ?", (n,))}
            except sqlite3.Error:
                continue
    return found


def walked(path: Path, table: str, key: str) -> tuple[list[int], list[range]]:
    with closing(sqlite3.connect(path)) as connection:
        found = list(numbers(connection, table, key, 0))
    return [n for n in found if isinstance(n, int)], [r for r in found if isinstance(r, range)]


@pytest.mark.parametrize("which", [[0], [5], [3, 4, 9], [-1], [0, 2, 4, -2, -1]])
@pytest.mark.parametrize(("table", "key"), [("chain", "n"), ("decisions", "seq")])
def test_each_row_that_can_be_read_is_and_the_others_are_in_a_range(journal: Path, table: str, key: str, which: list[int]) -> None:
    whole = readable(journal, table, key)
    pages = pages_of(journal, table)
    overwritten(journal, *(pages[i] for i in which))
    there = readable(journal, table, key)
    assert 0 < len(there) < len(whole)
    found, lost = walked(journal, table, key)
    assert found == sorted(there)
    assert all(any(n in r for r in lost) for n in whole - there)
    assert not any(n in r for r in lost for n in there)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("far", "said"),
    [
        (9 * 10**9, "rows 804 to 8999999999 were removed"),
        (FAR, f"row {FAR} stands there, and no station counts so: it was put there"),
    ],
)
def test_a_damaged_page_and_a_row_far_away_are_named_and_verify_comes_to_its_end(journal: Path, far: int, said: str) -> None:
    pages = pages_of(journal, "chain")
    changed(journal, _FAR_ROW.format(far))
    overwritten(journal, pages[6])
    lost = set(range(1, 804)) - readable(journal, "chain", "n")
    findings = verified(journal).findings
    assert f"rows {min(lost)} to {max(lost)} ({len(lost)} of them) of the chain, or the decisions they are about, cannot be read" in str(
        findings
    )
    assert said in findings
    with Journal(settings(journal), "s") as station:  # its start comes to its end, too
        assert said in station.damage


@pytest.mark.timeout(60)
def test_a_row_far_away_on_the_page_that_is_damaged_is_among_those_that_cannot_be_read(journal: Path) -> None:
    changed(journal, _FAR_ROW.format(9 * 10**9))
    overwritten(journal, pages_of(journal, "chain")[-1])
    first = max(readable(journal, "chain", "n")) + 1
    (finding,) = verified(journal).findings
    assert f"rows from {first} on of the chain, or the decisions they are about, cannot be read" in finding


@pytest.mark.timeout(60)
def test_all_that_follows_is_unreadable_where_nothing_can_be_read(journal: Path) -> None:
    pages = pages_of(journal, "chain")
    overwritten(journal, *pages[4:])
    _, lost = walked(journal, "chain", "n")
    assert lost == [range(max(readable(journal, "chain", "n")) + 1, MOST + 1)]
    findings = verified(journal).findings
    assert f"rows from {lost[0].start} on of the chain, or the decisions they are about, cannot be read" in str(findings)
    assert not [f for f in findings if "removed" in f], "nobody knows that"


@pytest.mark.timeout(60)
def test_decisions_behind_many_damaged_pages_are_exported(journal: Path) -> None:
    """However many numbers lie between."""
    changed(journal, f"UPDATE decisions SET seq = {FAR} WHERE seq = 400")
    pages = pages_of(journal, "decisions")
    overwritten(journal, *pages[3:9])
    there = readable(journal, "decisions", "seq") | {FAR}
    reader = Reader(journal)
    assert [d.seq for d, _ in reader] == sorted(there)
    assert "cannot be read" in str(reader.lost)
