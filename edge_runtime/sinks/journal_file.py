"""The journal's file: its SQLite schema, and reading it. Anybody may read it while a station writes.

WAL with synchronous=NORMAL: a killed process loses nothing that was committed; a power cut may lose the last moments before it, never
the file. `durable` asks for synchronous=FULL: each commit then waits until the disk has it (about 6 ms a part), and a power cut loses
nothing that was told either. Times of the stages stand in generated columns (`grab_ms`, `predict_ms`, `total_ms`), so that any SQLite
tool shows them. Beside `decisions` stands `chain`, a row for each of them and for what else happened (edge_runtime.security.chain), and
`heads`, the signatures over it. A journal of an earlier version gets what it lacks when it is opened for writing; its chain begins there.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from edge_runtime.errors import SinkError
from edge_runtime.files import what_is
from edge_runtime.records import Decision
from edge_runtime.sinks.journal_damaged import named, numbers
from edge_runtime.sinks.journal_rows import COLUMNS, LATER, MOST, UNREADABLE, decision_of

APPLICATION_ID = 0x4C534A31  # "LSJ1": tells a journal from any other SQLite file
SCHEMA = 2
"""2: with a chain."""

COMPUTED = {
    "grab_ms": "(nullif(grabbed_ns, 0) - fired_ns) / 1e6",
    "predict_ms": "(nullif(predicted_ns, 0) - nullif(grabbed_ns, 0)) / 1e6",
    "total_ms": "(nullif(told_ns, 0) - fired_ns) / 1e6",
}
"""Columns that SQLite computes, for people; no hash covers them, and their names and formulas are checked instead."""
_ADDED = [f"{name} {kind} NOT NULL DEFAULT {default}" for name, (kind, default) in LATER.items()]
_RARE_INDEX = "CREATE INDEX chain_rare ON chain (kind, n) WHERE kind NOT IN ('decision', 'announced', 'delivery')"
_CHAIN = f"""
CREATE TABLE chain (
    n INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    seq INTEGER,
    at_s INTEGER NOT NULL,
    body TEXT NOT NULL,
    hash BLOB NOT NULL
) STRICT;
{_RARE_INDEX};
CREATE TABLE heads (
    n INTEGER NOT NULL,
    purpose TEXT NOT NULL,
    hash BLOB NOT NULL,
    signature BLOB NOT NULL,
    PRIMARY KEY (n, purpose)
) STRICT, WITHOUT ROWID;
"""
_CREATE = """
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
    {columns}
) STRICT;
CREATE TABLE upkeep (id INTEGER PRIMARY KEY CHECK (id = 1), checkpoints INTEGER NOT NULL) STRICT;
INSERT INTO upkeep VALUES (1, 0);
{chain}
PRAGMA application_id = {application};
PRAGMA user_version = {schema};
COMMIT;
"""

_MIGRATE = f"BEGIN IMMEDIATE; {_CHAIN} PRAGMA user_version = {SCHEMA}; COMMIT;"
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM decisions WHERE seq > ? ORDER BY seq LIMIT ?"

_COUNT = f"UPDATE upkeep SET checkpoints = checkpoints + iif(checkpoints < {MOST}, 1, -1)"
"""A write that says nothing. A number that nobody has counted to stays one: the column takes no larger one."""

_KEYED = {"decisions": ["seq"], "chain": ["n"], "heads": ["n", "purpose"]}
"""Tables and their primary keys: without these each look for a row reads all of them, and a number may be given twice."""

_MOST_UNKEYED = 5000
"""Rows of tables without keys that are walked all the same: a second or two."""

_ONE_BY_ONE = 2000
"""Rows that are looked at where one cannot be read, and more until one can."""

_WAL_BYTES = 16_000_000
"""What the write-ahead log shrinks to once it was larger."""


def open_for_writing(path: Path, durable: bool = False, writer: str = "") -> sqlite3.Connection:
    """Create the journal or open it again. A file that is damaged, of a newer schema, or no journal at all is refused, never replaced.

    `writer`: who writes from now on; `insert` of anybody before raises then. `durable`: sync the disk at each commit. The connection is in
    autocommit mode and may be used from another thread. Raises SinkError.
    """
    refuse_folder(path)
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
        connection.execute(f"{_COUNT}, writer = ?", (writer,))
    except sqlite3.Error as e:
        connection.close()
        raise SinkError(
            f"journal {path}: expected a journal that can be read and written, found: {e}; "
            "make room or give write permission; if it is damaged, move it aside (keep its -wal and .head files with it) and start again"
        ) from e
    except SinkError:
        connection.close()
        raise
    return connection


def unkeyed(connection: sqlite3.Connection) -> list[str]:
    """What is no table of a journal that a row is found in at once, in sentences: one without its key, a view."""
    found = []
    for name, kind in connection.execute("SELECT name, type FROM pragma_table_list WHERE schema = 'main'").fetchall():
        if (key := _KEYED.get(name)) is None:
            continue
        info = connection.execute("SELECT name FROM pragma_table_info(?) WHERE pk ORDER BY pk", (name,)) if kind == "table" else ()
        if [column for (column,) in info] != key:
            found.append(f"the {kind} {name} lacks its primary key, {', '.join(key)}: somebody has made it anew")
    return found


def too_long(connection: sqlite3.Connection) -> bool:
    """Whether one of the tables has more rows than can each be looked for among all, or stands for as many as somebody likes: a view."""
    kinds = dict(connection.execute("SELECT name, type FROM pragma_table_list WHERE schema = 'main'").fetchall())
    if any(kinds.get(name, "table") != "table" for name in _KEYED):
        return True
    counted = (f"SELECT count(*) FROM (SELECT 1 FROM {name} LIMIT {_MOST_UNKEYED + 1})" for name in _KEYED if name in kinds)
    return any(connection.execute(count).fetchone()[0] > _MOST_UNKEYED for count in counted)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if tables == 0 and application == 0:
        _create(connection, len(LATER))
    elif application != APPLICATION_ID:
        raise SinkError(f"journal {path}: expected a Lineside journal, found another SQLite database; give [journal] another path")
    elif version == 1:
        connection.executescript(_MIGRATE)
    elif version != SCHEMA:
        raise SinkError(
            f"journal {path}: expected schema {SCHEMA} or 1, found {version}: another version of Lineside wrote it; "
            "install that version, or move the file aside and start a new journal"
        )
    if lacks := unkeyed(connection):
        raise SinkError(
            f"journal {path}: expected a journal as a station makes it, found that {'; '.join(lacks)}; "
            "move it aside (keep its -wal and .head files with it) and start again"
        )
    _add_what_it_lacks(connection)
    # Both ends of the table: a whole check of a year's journal would keep the line waiting for a minute. Whether what stands there is text
    # is not asked: that is for the chain to say, and no reason to stand still.
    connection.text_factory = bytes
    connection.execute(_SELECT, (0, 20)).fetchall()
    connection.execute(f"SELECT {', '.join(COLUMNS)} FROM decisions ORDER BY seq DESC LIMIT 200").fetchall()
    connection.execute("SELECT n, hash FROM chain ORDER BY n DESC LIMIT 200").fetchall()
    connection.text_factory = str


def created(connection: sqlite3.Connection, later: int) -> None:
    """An empty file's tables as a version made them that knew the first `later` of the later columns, opened again by this one."""
    _create(connection, later)
    _add_what_it_lacks(connection)


def _create(connection: sqlite3.Connection, later: int) -> None:
    columns = [*_ADDED[:later], *(f"{name} REAL AS ({how}) VIRTUAL" for name, how in COMPUTED.items())]
    connection.executescript(_CREATE.format(columns=", ".join(columns), chain=_CHAIN, application=APPLICATION_ID, schema=SCHEMA))


def _add_what_it_lacks(connection: sqlite3.Connection) -> None:
    there = columns_of(connection)
    for name, column in zip(LATER, _ADDED, strict=True):
        if name not in there:
            connection.execute(f"ALTER TABLE decisions ADD COLUMN {column}")
    if "writer" not in {name for (name,) in connection.execute("SELECT name FROM pragma_table_info('upkeep')")}:
        connection.execute("ALTER TABLE upkeep ADD COLUMN writer TEXT NOT NULL DEFAULT ''")
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'chain_rare'").fetchone():
        connection.execute(_RARE_INDEX)  # somebody dropped it: each question for a rare row would read the whole chain


def columns_of(connection: sqlite3.Connection) -> set[str]:
    """Those of `decisions`; none where there is no such table."""
    return {name for (name,) in connection.execute("SELECT name FROM pragma_table_xinfo('decisions')")}


def checkpoint(connection: sqlite3.Connection) -> int:
    """Move the WAL into the database; the bytes that could not be, because another program is in the middle of reading them."""
    _, pages, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
    # The first write after a checkpoint syncs the WAL's new header: let it be this one, not a part's.
    connection.execute(_COUNT)
    return int((pages - moved) * page_bytes)


def expect_journal(path: Path) -> None:
    """Raises SinkError for what is no journal, or none yet."""
    if (found := what_is(path)) != "a file":
        raise SinkError(f"journal {path}: expected a journal, found {found}")
    if path.stat().st_size == 0:
        raise SinkError(f"journal {path}: expected a journal, found an empty file")
    with reading(path) as connection:
        if not columns_of(connection):
            raise SinkError(f"journal {path}: expected a Lineside journal, found another SQLite database")


def sync(connection: sqlite3.Connection) -> None:
    """Have the disk take what is committed."""
    connection.execute("PRAGMA synchronous = FULL")
    try:
        connection.execute(_COUNT)
    finally:
        connection.execute("PRAGMA synchronous = NORMAL")


def refuse_folder(path: Path) -> None:
    """Raises SinkError."""
    if path.is_dir():
        raise SinkError(f"journal {path}: expected a file, or none yet, found a folder; give [journal] another path")


def seqs_between(path: Path, first: int, last: int, most: int) -> tuple[int, set[int]]:
    """The seq before the journal's first decision, and those of its decisions that lie in this range. `most`: the last decision that is
    known to be the station's; none after it counts. Raises SinkError."""
    with reading(path) as connection:
        begins = connection.execute("SELECT coalesce(min(seq), 1) FROM decisions WHERE seq BETWEEN 1 AND ?", (most,)).fetchone()[0]
        found = connection.execute("SELECT seq FROM decisions WHERE seq BETWEEN ? AND ?", (first, min(last, most)))
        return int(begins) - 1, {int(seq) for (seq,) in found}


def read_decisions(path: Path, after_seq: int = 0, limit: int = 1000) -> list[Decision]:
    """Up to `limit` decisions with a larger seq, oldest first; empty when there is no journal yet. Raises SinkError.

    A NaN score was stored as NULL and comes back as None.
    """
    if not path.exists():
        return []
    with reading(path) as connection:
        select = select_of(connection)
        return [decision_of(row) for row in connection.execute(select, (after_seq, limit))] if select else []


def read_page(path: Path, after_seq: int, limit: int) -> tuple[list[Decision], str]:
    """As `read_decisions`, row by row where one of them, or a page of the file, cannot be read; and which were those, or "".

    Raises SinkError for a file of which nothing can be read.
    """
    try:
        return read_decisions(path, after_seq, limit), ""
    except SinkError as whole:
        rows: list[Decision] = []
        lost: list[range] = []
        try:
            with reading(path) as connection:
                select = select_of(connection).replace("seq > ?", "seq >= ?")
                for looked, found in enumerate(numbers(connection, "decisions", "seq", after_seq)):
                    if isinstance(found, range):
                        lost.append(found)
                        continue
                    try:
                        rows.append(decision_of(connection.execute(select, (found, 1)).fetchone()))
                    except UNREADABLE:
                        lost.append(range(found, found + 1))
                    if len(rows) == limit or (rows and looked > _ONE_BY_ONE):
                        break
        except SinkError:
            raise whole from None
        return rows, f"{named(lost)} cannot be read: {whole}" if lost else ""


def select_of(connection: sqlite3.Connection) -> str:
    """The columns of this version, whichever wrote the file; empty while a station is just creating it."""
    select, there = _SELECT, columns_of(connection)
    for name, (_, default) in LATER.items():
        select = select if name in there else select.replace(f", {name}", f", {default}")
    return select if there else ""


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, for reading. Raises SinkError for whatever the block raises of a damaged file."""
    try:
        real = path.resolve()
        # SQLite would make files beside it. Where it cannot, nobody else can, either.
        alone = not os.access(real.parent, os.W_OK) and not real.with_name(real.name + "-wal").exists()
        address = f"{real.as_uri()}?mode=ro{'&immutable=1' if alone else ''}"
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=0.5)) as connection:
            yield connection
    except UNREADABLE as e:
        raise SinkError(f"journal {path}: cannot be read: {e}") from e
