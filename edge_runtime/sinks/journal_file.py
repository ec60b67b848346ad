"""The journal's file: its SQLite schema, and decisions to rows and back. Anybody may read it while a station writes.

WAL with synchronous=NORMAL: a killed process loses nothing that was committed; a power cut may lose the last moments before it, never
the file. `durable` asks for synchronous=FULL: each commit then waits until the disk has it (about 6 ms a part), and a power cut loses
nothing that was told either. Times of the stages stand in generated columns (`grab_ms`, `predict_ms`, `total_ms`), so that any SQLite
tool shows them. `views` is JSON, a list with one object a camera; it is empty where the only view says what the row says already, and is
then made of that when it is read. `cause` is a FAULT's number (records.Cause), `source` the picture's file, where it was one. A journal
from before it had these columns gets them when it is opened for writing, and stays readable for the version that wrote it.
"""

import contextlib
import datetime
import itertools
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from edge_runtime.errors import SinkError
from edge_runtime.records import Cause, Decision, Region, Stamps, Verdict, View

APPLICATION_ID = 0x4C534A31  # "LSJ1": tells a journal from any other SQLite file
SCHEMA = 1

_LATER = {"views": ("TEXT", "'[]'"), "cause": ("INTEGER", "0"), "source": ("TEXT", "''")}
"""Columns that journals of the first versions lack: type and default."""
_ADDED = [f"{name} {kind} NOT NULL DEFAULT {default}" for name, (kind, default) in _LATER.items()]
_CREATE = f"""
BEGIN IMMEDIATE;
CREATE TABLE decisions (
    seq INTEGER PRIMARY KEY,
    wall_time TEXT NOT NULL,
    station TEXT NOT NULL,
    part_id TEXT NOT NULL,
    verdict TEXT NOT NULL,
    reason TEXT NOT NULL,
    score REAL,
    threshold REAL NOT NULL,
    severity REAL,
    regions TEXT NOT NULL,
    frame_width INTEGER NOT NULL,
    frame_height INTEGER NOT NULL,
    bundle_id TEXT NOT NULL,
    recipe TEXT NOT NULL,
    fired_ns INTEGER NOT NULL,
    captured_ns INTEGER NOT NULL,
    grabbed_ns INTEGER NOT NULL,
    predicted_ns INTEGER NOT NULL,
    decided_ns INTEGER NOT NULL,
    told_ns INTEGER NOT NULL,
    {", ".join(_ADDED)},
    grab_ms REAL AS ((nullif(grabbed_ns, 0) - fired_ns) / 1e6) VIRTUAL,
    predict_ms REAL AS ((nullif(predicted_ns, 0) - nullif(grabbed_ns, 0)) / 1e6) VIRTUAL,
    total_ms REAL AS ((nullif(told_ns, 0) - fired_ns) / 1e6) VIRTUAL
) STRICT;
CREATE TABLE upkeep (id INTEGER PRIMARY KEY CHECK (id = 1), checkpoints INTEGER NOT NULL) STRICT;
INSERT INTO upkeep VALUES (1, 0);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA};
COMMIT;
"""

_COLUMNS = (
    "seq, wall_time, station, part_id, verdict, reason, score, threshold, severity, regions, frame_width, frame_height, "
    "bundle_id, recipe, fired_ns, captured_ns, grabbed_ns, predicted_ns, decided_ns, told_ns, views, cause, source"
)
_INSERT = f"INSERT INTO decisions ({_COLUMNS}) VALUES ({', '.join('?' * 23)})"
_SELECT = f"SELECT {_COLUMNS} FROM decisions WHERE seq > ? ORDER BY seq LIMIT ?"

_UNREADABLE = (sqlite3.Error, msgspec.DecodeError, ValueError)
_ONE_BY_ONE = 2000
"""Rows that are looked at where one cannot be read."""

_WAL_BYTES = 16_000_000
"""What the write-ahead log shrinks to once it was larger."""

_Value = int | float | str | None
_regions = msgspec.json.Decoder(tuple[Region, ...])
_views = msgspec.json.Decoder(tuple[View, ...])

Row = tuple[_Value, ...]
"""One decision as the columns of the table."""


def open_for_writing(path: Path, durable: bool = False, writer: str = "") -> sqlite3.Connection:
    """Create the journal or open it again. A file that is damaged, of a newer schema, or no journal at all is refused, never replaced.

    `writer`: who writes from now on; `insert` of anybody before raises then. `durable`: sync the disk at each commit. The connection is in
    autocommit mode and may be used from another thread. Raises SinkError.
    """
    _refuse_folder(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=0.5, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as e:
        raise SinkError(f"journal {path}: cannot be created or opened: {e}; give [journal] a path that the station may write to") from e
    try:
        _check(connection, path)
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}").fetchone()
        # Checkpoints sync the disk: the writer runs them itself, when no decision is waiting.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        # Opened read-only or on a full disk it would fail at the first part: find out now.
        connection.execute("UPDATE upkeep SET checkpoints = checkpoints + 1, writer = ?", (writer,))
    except sqlite3.Error as e:
        connection.close()
        raise SinkError(
            f"journal {path}: expected a journal that can be read and written, found: {e}; "
            "make room or give write permission; if it is damaged, move it aside (keep its -wal file with it) and start again"
        ) from e
    except SinkError:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if tables == 0 and application == 0:
        connection.executescript(_CREATE)
    elif application != APPLICATION_ID:
        raise SinkError(f"journal {path}: expected a Lineside journal, found another SQLite database; give [journal] another path")
    elif version != SCHEMA:
        raise SinkError(
            f"journal {path}: expected schema {SCHEMA}, found {version}: another version of Lineside wrote it; "
            "install that version, or move the file aside and start a new journal"
        )
    there = _columns(connection)
    for name, column in zip(_LATER, _ADDED, strict=True):
        if name not in there:
            connection.execute(f"ALTER TABLE decisions ADD COLUMN {column}")
    if "writer" not in {name for (name,) in connection.execute("SELECT name FROM pragma_table_info('upkeep')")}:
        connection.execute("ALTER TABLE upkeep ADD COLUMN writer TEXT NOT NULL DEFAULT ''")
    # Both ends of the table: a whole check of a year's journal would keep the line waiting for a minute.
    connection.execute(_SELECT, (0, 20)).fetchall()
    connection.execute(f"SELECT {_COLUMNS} FROM decisions ORDER BY seq DESC LIMIT 200").fetchall()


def _columns(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM pragma_table_xinfo('decisions')")}


def insert(connection: sqlite3.Connection, rows: Iterable[Row], writer: str = "") -> None:
    """Write rows in one transaction: all of them are committed when this returns, none when it raises sqlite3.Error.

    Raises SinkError where another than `writer` has opened the journal since: two would give the same numbers to different parts.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        if connection.execute("SELECT writer FROM upkeep").fetchone()[0] != writer:
            raise SinkError("another station has opened it and writes it now; stop one of them, or give [journal] another path")
        connection.executemany(_INSERT, rows)
        connection.execute("COMMIT")
    except BaseException:
        # After a full disk SQLite may have rolled back by itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def prune(
    connection: sqlite3.Connection, now: datetime.datetime, keep: datetime.timedelta, at_most: int, found_seq: int, run: datetime.timedelta
) -> int:
    """Delete up to `at_most` of the first rows, those older than `keep`; how many were deleted.

    None that follows a younger one, whatever its date says: the clock was behind when it was written.

    `found_seq`: the last row when the station started, `run` ago; later ones are no older than that, whatever their date says.

    Older than the newest row, where `now` is later than that, and than the last row of the run before plus this run: neither a standstill
    nor a clock that is years ahead empties a journal, from whose last row the station goes on counting. Rows dated in the future are as old
    as the first one after them that is not.
    """
    newest_at, found_at = _last_time(connection, None), _last_time(connection, found_seq)
    if newest_at is None:
        return 0
    before = (min(now, newest_at, newest_at if found_at is None else found_at + run) - keep).isoformat(timespec="milliseconds")
    ahead = 0
    if now >= newest_at:  # with a clock that is behind, all that is right would look as if it were ahead
        dated = (newest_at.isoformat(timespec="milliseconds"),)
        first = connection.execute("SELECT seq, wall_time FROM decisions WHERE wall_time <= ? ORDER BY seq LIMIT 1", dated).fetchone()
        ahead = first[0] if first is not None and first[1] < before else 0
    first_rows = connection.execute(
        "SELECT seq, wall_time FROM decisions WHERE ? OR seq <= ? ORDER BY seq LIMIT ?", (run >= keep, found_seq, at_most)
    ).fetchall()
    old = list(itertools.takewhile(lambda row: row[1] < before or row[0] < ahead, first_rows))
    if not old:
        return 0
    return connection.execute("DELETE FROM decisions WHERE seq <= ?", (old[-1][0],)).rowcount


def _last_time(connection: sqlite3.Connection, up_to_seq: int | None) -> datetime.datetime | None:
    """The date of the last row, or of the last up to that one; None where there is none. Raises ValueError for a date that is none."""
    row = connection.execute(
        "SELECT wall_time FROM decisions WHERE ?1 IS NULL OR seq <= ?1 ORDER BY seq DESC LIMIT 1", (up_to_seq,)
    ).fetchone()
    return None if row is None else datetime.datetime.fromisoformat(row[0])


def checkpoint(connection: sqlite3.Connection) -> int:
    """Move the WAL into the database; the bytes that could not be, because another program is in the middle of reading them."""
    _, pages, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
    # The first write after a checkpoint syncs the WAL's new header: let it be this one, not a part's.
    connection.execute("UPDATE upkeep SET checkpoints = checkpoints + 1")
    return int((pages - moved) * page_bytes)


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise SinkError(f"journal {path}: expected a file, or none yet, found a folder; give [journal] another path")


def last_seq(path: Path) -> int:
    """The last decision's seq; 0 for an empty or a missing journal. Raises SinkError when it cannot be read."""
    _refuse_folder(path)
    if not path.exists():
        return 0
    with _reading(path) as connection:
        return int(connection.execute("SELECT coalesce(max(seq), 0) FROM decisions").fetchone()[0])


def read_decisions(path: Path, after_seq: int = 0, limit: int = 1000) -> list[Decision]:
    """Up to `limit` decisions with a larger seq, oldest first; empty when there is no journal yet. Raises SinkError.

    A NaN score was stored as NULL and comes back as None.
    """
    if not path.exists():
        return []
    with _reading(path) as connection:
        select = _select_of(connection)
        return [_decision(row) for row in connection.execute(select, (after_seq, limit))] if select else []


def read_page(path: Path, after_seq: int, limit: int) -> tuple[list[Decision], str]:
    """As `read_decisions`, row by row where one of them, or a page of the file, cannot be read; and which were those, or "".

    Raises SinkError for a file of which nothing can be read.
    """
    try:
        return read_decisions(path, after_seq, limit), ""
    except SinkError as whole:
        rows: list[Decision] = []
        lost: list[int] = []
        try:
            with _reading(path) as connection:
                select = _select_of(connection)
                last = connection.execute("SELECT max(seq) FROM decisions").fetchone()[0] or 0
                for seq in range(after_seq + 1, min(last, after_seq + _ONE_BY_ONE) + 1):
                    try:
                        found = connection.execute(select, (seq - 1, 1)).fetchone()
                        if found is not None and found[0] == seq:
                            rows.append(_decision(found))
                    except _UNREADABLE:
                        lost.append(seq)
                    if len(rows) == limit:
                        break
        except SinkError:
            raise whole from None
        return rows, f"rows {lost[0]} to {lost[-1]} ({len(lost)} of them) cannot be read: {whole}" if lost else ""


def _select_of(connection: sqlite3.Connection) -> str:
    """The columns of this version, whichever wrote the file; empty while a station is just creating it."""
    select, there = _SELECT, _columns(connection)
    for name, (_, default) in _LATER.items():
        select = select if name in there else select.replace(f", {name}", f", {default}")
    return select if there else ""


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=0.5)) as connection:
            yield connection
    except _UNREADABLE as e:
        raise SinkError(f"journal {path}: cannot be read: {e}") from e


def row_of(d: Decision) -> Row:
    """The row of a decision, as `insert` takes it."""
    s = d.stamps
    alone = _only_view(d.verdict, d.reason, d.score, d.threshold, d.severity, d.regions, d.frame_wh, d.bundle_id, d.recipe, s, d.source)
    return (
        d.seq, d.wall_time, d.station, d.part_id, d.verdict.value, d.reason, d.score, d.threshold, d.severity,
        msgspec.json.encode(d.regions).decode(), *d.frame_wh, d.bundle_id, d.recipe,
        s.fired_ns, s.captured_ns, s.grabbed_ns, s.predicted_ns, s.decided_ns, s.told_ns,
        "[]" if d.views == (alone,) else msgspec.json.encode(d.views).decode(), int(d.cause), d.source,
    )  # fmt: skip


def _decision(row: tuple[Any, ...]) -> Decision:
    seq, wall_time, station, part_id, verdict, reason, score, threshold, severity, regions, width, height, *more = row
    bundle_id, recipe, *stamps, views, cause, source = more
    shared = Verdict(verdict), reason, score, threshold, severity, _regions.decode(regions), (width, height), bundle_id, recipe
    times = Stamps(*stamps)
    seen = _views.decode(views) or (_only_view(*shared, times, source),)
    return Decision(station, seq, part_id, *shared, times, wall_time, seen, Cause(cause), source)


def _only_view(
    verdict: Verdict, reason: str, score: float | None, threshold: float, severity: float | None, regions: tuple[Region, ...],
    frame_wh: tuple[int, int], bundle_id: str, recipe: str, stamps: Stamps, source: str,
) -> View:  # fmt: skip
    """What the only camera saw where its judgement is the part's."""
    times = stamps.captured_ns, stamps.grabbed_ns, stamps.predicted_ns
    return View("", verdict, reason, score, threshold, severity, regions, frame_wh, bundle_id, recipe, *times, source)
