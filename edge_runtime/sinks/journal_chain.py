"""The chain's end, as the journal's one writer knows it: rows are linked to it, signed, and cut off when they are old.

Why: deploy/decisions/0045.
"""

import contextlib
import itertools
import json
import re
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from edge_runtime import __version__
from edge_runtime.errors import SinkError
from edge_runtime.files import read_whole
from edge_runtime.security.chain import GENESIS, Purpose, Value, hash_of, signed_text
from edge_runtime.security.signing import PublicKey, SigningKey
from edge_runtime.sinks.journal_clock import BEHIND_S, JournalClock, journal_clock
from edge_runtime.sinks.journal_file import select_of
from edge_runtime.sinks.journal_rows import AHEAD, COLUMNS, MOST, Entry, about, wall_time
from edge_runtime.sinks.journal_said import RARE

SIGN_EVERY = 100
"""Rows, about thirty parts; also what is left when no part comes for a second, and at each stop."""
_KEPT_ROWS = 1000
"""The last rows stay, however large the file is: the station goes on counting from them."""
AMENDED = ("verdict", "reason", "score", "severity", "regions", "told_ns", "wall_time", "cause", "views")
"""Columns of a decision that what was told instead may change."""

_HEADS_LOOKED_AT = 100
"""Signatures that are not the station's are passed over; who puts there more has the station sign anew."""

_INSERT = f"INSERT INTO decisions ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
_LINK = "INSERT INTO chain (n, kind, seq, at_s, body, hash) VALUES (?, ?, ?, ?, ?, ?)"
_SIGN = "INSERT OR REPLACE INTO heads (n, purpose, hash, signature) VALUES (?, ?, ?, ?)"


_HASH = re.compile("[0-9a-f]{64}").fullmatch
_SIGNATURE = re.compile("[0-9a-f]{128}").fullmatch


class OutsideHead(msgspec.Struct, frozen=True):
    """The last head, in a file beside the journal: what is missing at its end is missed all the same. Hex."""

    n: int
    hash: str
    signature: str

    def is_by(self, keys: Sequence[PublicKey]) -> bool:
        """Whether one of the keys has signed it."""
        try:
            return vouched(keys, Purpose.HEAD, self.n, bytes.fromhex(self.hash), bytes.fromhex(self.signature))
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept."""

    keep_s: float
    """Older rows are deleted."""
    most_bytes: float = float("inf")
    """The oldest rows of a larger file are deleted."""
    at_once: int = 600
    """Rows of the chain, for a part may be waiting."""


_Head = tuple[int, str, bytes, bytes]
"""Row, purpose, hash, signature."""


class Chain:
    """Belongs to the writer's thread, and to one open file."""

    def __init__(self, connection: sqlite3.Connection, key: SigningKey, wall_s: int, least_n: int = 0) -> None:
        """Go on after the last row that is there; `least_n`: the last row that is known from elsewhere, whether it is there or not.

        No number counts that stands far behind the last that the station has signed: no station counts so.
        """
        signed = newest_signed(connection, [key.public])
        select = "SELECT n, at_s, hash FROM chain WHERE n BETWEEN 1 AND ? ORDER BY n DESC LIMIT 1"
        last = connection.execute(select, (highest(signed),)).fetchone()
        self._key = key
        self.n: int = 0 if last is None else last[0]
        self._hash: bytes = GENESIS if last is None else last[2]
        self.clock: JournalClock = journal_clock(_last_time(connection) if last is None else last[1], wall_s)
        self._signed_n: int = signed
        self._last_head: _Head | None = None
        self.damage: list[str] = []
        """What was found wrong with it and nobody has acknowledged, in sentences."""
        self.is_new = last is None and not least_n and not connection.execute("SELECT 1 FROM heads").fetchone()
        self.n = max(self.n, signed, least_n)  # where rows are missing, none takes their place

    @property
    def head(self) -> str:
        """The last row as `lineside journal verify --head` takes it."""
        return f"{self.n}:{self._hash.hex()}"

    @property
    def problems(self) -> list[str]:
        """Sentences for health, until somebody acknowledges them."""
        said = []
        if self.damage:
            more = f" and {len(self.damage) - 1} more" if len(self.damage) > 1 else ""
            said.append(
                f"is not what was written: {self.damage[0]}{more}; see `lineside journal verify`, then `lineside journal acknowledge`"
            )
        if (doubt := self.clock.doubt(int(time.time()))) is not None:
            said.append(f"{doubt}; set the clock, or `lineside journal acknowledge` that it is right")
        return said

    @property
    def is_signed(self) -> bool:
        """Whether the file's last row is."""
        return self._signed_n == self.n

    def begin(self, connection: sqlite3.Connection, writer: str, found: list[str], station: str = "") -> None:
        """Say in the chain that it begins, where it does, and that a station starts; `found`: what is newly found wrong with it."""
        entries = []
        if self.is_new:
            before = connection.execute("SELECT coalesce(max(seq), 0) FROM decisions WHERE seq BETWEEN 0 AND ?", (MOST,)).fetchone()[0]
            entries.append(about("begun", journal=uuid.uuid4().hex, decisions_before=before))
        if found:
            entries.append(about("damaged", findings=found))
            self.damage += found
        # Signed in the same step: who has no key cannot make it look as if a station had started, and written what he has added.
        said = {"wall_time": wall_time(), "version": __version__, "public_key": self._key.public.raw.hex(), "station": station}
        entries.append(about("started", **said, signed=True))
        self.insert(connection, entries, writer, sign=True)

    def end(self, connection: sqlite3.Connection, writer: str) -> None:
        """Say that the station stops, signed in the same step: rows that somebody puts in their place afterwards lack that signature."""
        self.insert(connection, [about("stopped", wall_time=wall_time(), signed=True)], writer, sign=True)

    def insert(self, connection: sqlite3.Connection, entries: Iterable[Entry], writer: str = "", sign: bool = False) -> None:
        """Write rows in one transaction: all of them are committed when this returns, none when it raises sqlite3.Error or ValueError.

        `sign`: the last row, and thereby all. They are signed in any case once SIGN_EVERY of them are not.

        Raises SinkError where another than `writer` has opened the journal since: two would give the same numbers to different parts.
        """
        with _transaction(connection, writer):
            added = self._add(connection, entries, sign)
        self._went_on(*added)

    def _add(self, connection: sqlite3.Connection, entries: Iterable[Entry], sign: bool = False) -> tuple[int, bytes, _Head | None]:
        n, end = self._link(connection, entries)
        if not sign and n - self._signed_n < SIGN_EVERY:
            return n, end, None
        head = n, Purpose.HEAD.value, end, self._key.sign(signed_text(Purpose.HEAD, n, end))
        connection.execute(_SIGN, head)
        return n, end, head

    def _went_on(self, n: int, end: bytes, head: _Head | None) -> None:
        self.n, self._hash = n, end
        if head is not None:
            self._last_head, self._signed_n = head, n

    @property
    def outside(self) -> bytes | None:
        """The last head that is in the file, for `OutsideHead`; None before the first. Write it once the disk has the file."""
        if self._last_head is None:
            return None
        n, _, hash_, signature = self._last_head
        return msgspec.json.encode(OutsideHead(n, hash_.hex(), signature.hex())) + b"\n"

    def prune(self, connection: sqlite3.Connection, limits: Limits, writer: str) -> tuple[int, bool]:
        """Delete some old rows: (rows of the file that were deleted, whether there may be more).

        The cut is signed, and the chain says that it was made.

        By the journal's own time, while that is not ahead of the machine's clock: a row is no older than the last one is younger than it,
        so that a standstill empties no journal. A row that is dated ahead of the machine's clock goes with those after it. Rows
        from before the chain go by their date, and no later than the first row of the chain.
        """
        wall_s = int(time.time())
        now_s = self.clock.ages_by(wall_s)
        before_s = float("-inf") if now_s is None else min(now_s, _newest(connection)) - limits.keep_s
        over = self.too_large(connection, limits)
        step = self.n - (_KEPT_ROWS if over else 1), limits.at_once
        rows = connection.execute("SELECT n, kind, seq, at_s, hash FROM chain WHERE n <= ? ORDER BY n LIMIT ?", step).fetchall()
        old = rows if over else rows[: _old(connection, [(n, at_s) for n, _, _, at_s, _ in rows], before_s, wall_s + BEHIND_S)]
        legacy = self._old_before_the_chain(connection, before_s, limits.at_once, over or bool(old))
        if legacy:
            with _transaction(connection, writer):
                connection.execute("DELETE FROM decisions WHERE seq <= ?", (legacy[-1],))
            return len(legacy), True
        if not old:
            return 0, False
        n, hash_ = old[-1][0], old[-1][4]
        gone = [seq for _, kind, seq, _, _ in old if kind == "decision"]
        why = "size" if over else "age"
        anchor = self._key.sign(signed_text(Purpose.ANCHOR, n, hash_))
        said = [about("pruned", why=why, rows_to=n, decisions=len(gone), last_decision=max(gone, default=0))]
        if self.damage and any(kind == "damaged" for _, kind, *_ in old):
            said.append(about("damaged", findings=self.damage))  # until somebody acknowledges it
        with _transaction(connection, writer):
            connection.execute("DELETE FROM decisions WHERE seq IN (SELECT seq FROM chain WHERE kind = 'decision' AND n <= ?)", (n,))
            connection.execute("DELETE FROM chain WHERE n <= ?", (n,))
            connection.execute("DELETE FROM heads WHERE n <= ?", (n,))
            connection.execute(_SIGN, (n, Purpose.ANCHOR.value, hash_, anchor))
            added = self._add(connection, said)
        self._went_on(*added)
        return len(old) + len(gone), len(old) == limits.at_once

    def too_large(self, connection: sqlite3.Connection, limits: Limits) -> bool:
        """Whether `prune` has something to do for the file's size."""
        return _bytes_used(connection) > limits.most_bytes

    def _old_before_the_chain(self, connection: sqlite3.Connection, before_s: float, at_once: int, all_: bool) -> list[int]:
        first = connection.execute("SELECT min(seq) FROM chain WHERE kind = 'decision'").fetchone()[0]
        if first is None:
            first = connection.execute("SELECT max(seq) FROM decisions").fetchone()[0] or 0  # the last one stays
        before = datetime.fromtimestamp(max(before_s, 0), UTC).isoformat(timespec="milliseconds")
        rows = connection.execute("SELECT seq, wall_time FROM decisions WHERE seq < ? ORDER BY seq LIMIT ?", (first, at_once)).fetchall()
        return [seq for seq, _ in itertools.takewhile(lambda row: all_ or row[1] < before, rows)]

    def _link(self, connection: sqlite3.Connection, entries: Iterable[Entry]) -> tuple[int, bytes]:
        n, end, at_s = self.n, self._hash, self.clock.now_s
        rows: list[tuple[Value, ...]] = []
        links: list[tuple[Value | bytes, ...]] = []
        for entry in entries:
            body, values = entry.body, entry.row
            if entry.kind == "decision":
                rows.append(values)
            elif entry.kind == "amended":
                connection.executemany(_INSERT, rows)
                rows.clear()
                body = _amend(connection, entry)
            n += 1
            end = hash_of(end, n, entry.kind, entry.seq, at_s, body, values)
            links.append((n, entry.kind, entry.seq, at_s, body, end))
        connection.executemany(_INSERT, rows)
        connection.executemany(_LINK, links)
        return n, end


def vouched(keys: Sequence[PublicKey], purpose: Purpose, n: Any, hash_: Any, signature: Any) -> bool:
    """Whether one of the keys has signed that, whatever stands in the file."""
    if not (isinstance(n, int) and isinstance(hash_, bytes) and isinstance(signature, bytes)):
        return False
    return any(key.verifies(signature, signed_text(purpose, n, hash_)) for key in keys)


def newest_signed(connection: sqlite3.Connection, keys: Sequence[PublicKey]) -> int:
    """The last row that one of the keys has signed; 0 where none has. Numbers that somebody else has put there are passed over."""
    heads = connection.execute(
        "SELECT purpose, n, hash, signature FROM heads WHERE n BETWEEN 1 AND ? ORDER BY n DESC LIMIT ?", (MOST, _HEADS_LOOKED_AT)
    )
    return next((int(n) for purpose, n, *signed in heads if purpose in list(Purpose) and vouched(keys, Purpose(purpose), n, *signed)), 0)


def highest(signed_n: int) -> int:
    """The largest number that a row may have: `signed_n` is the last that is signed, 0 where none is."""
    return min(signed_n + AHEAD, MOST) if signed_n else MOST


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, writer: str) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if connection.execute("SELECT writer FROM upkeep").fetchone()[0] != writer:
            raise SinkError("another station has opened it and writes it now; stop one of them, or give [journal] another path")
        yield
        connection.execute("COMMIT")
    except BaseException:
        # After a full disk SQLite may have rolled back by itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _amend(connection: sqlite3.Connection, entry: Entry) -> str:
    """Put what was told in the place of what was written; what was written becomes the body of the chain's row. Raises ValueError."""
    values = dict(zip(COLUMNS, entry.row, strict=True))
    same = (entry.seq, values["part_id"], values["fired_ns"])  # and no other part's, should a number have been given twice
    select = f"SELECT {', '.join(AMENDED)} FROM decisions WHERE seq = ? AND part_id = ? AND fired_ns = ?"
    if (found := connection.execute(select, same).fetchone()) is None:
        raise ValueError(f"decision {entry.seq} is not there")
    changes = ", ".join(f"{name} = ?" for name in AMENDED)
    connection.execute(f"UPDATE decisions SET {changes} WHERE seq = ?", (*(values[name] for name in AMENDED), entry.seq))
    return json.dumps({"was": dict(zip(AMENDED, found, strict=True))})  # knows infinities, unlike JSON


def _old(connection: sqlite3.Connection, rows: list[tuple[int, float]], before_s: float, ahead_s: int) -> int:
    """How many of these rows, (n, at_s) and the first of the chain, are old. What is dated after `ahead_s` is as old as what follows it:
    a clock that was once years ahead would otherwise keep all later rows for years."""
    old = 0
    for i, (_, at_s) in enumerate(rows, 1):
        if at_s < before_s:
            old = i
        elif at_s <= ahead_s:
            return old
    if old < len(rows):
        after = connection.execute(
            f"SELECT at_s FROM chain WHERE {RARE} AND n > ? AND at_s <= ? ORDER BY n LIMIT 1", (rows[-1][0], ahead_s)
        ).fetchone()
        old = len(rows) if after is not None and after[0] < before_s else old
    return old


def _newest(connection: sqlite3.Connection) -> int:
    """The journal's time of its last decision."""
    row = connection.execute("SELECT at_s FROM chain WHERE kind = 'decision' ORDER BY n DESC LIMIT 1").fetchone()
    return _last_time(connection) or 0 if row is None else int(row[0])


def _last_time(connection: sqlite3.Connection) -> int | None:
    """When the last decision was made, by its date; None where there is none, or its date is none."""
    row = connection.execute(f"SELECT wall_time FROM ({select_of(connection).partition(' WHERE')[0]}) ORDER BY seq DESC LIMIT 1").fetchone()
    try:
        return None if row is None else int(datetime.fromisoformat(row[0]).timestamp())
    except (ValueError, TypeError, OverflowError):
        return None


def _bytes_used(connection: sqlite3.Connection) -> int:
    pages, free, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size"))
    return int((pages - free) * size)


def other_head(head: OutsideHead) -> str:
    """A finding."""
    return f"the head beside the journal, of row {head.n}, was changed, or is not by a key that is given"


def beside(journal: Path, what: str) -> Path:
    """A file that belongs to a journal: "key", "key.pub", "head"."""
    return journal.with_name(f"{journal.name}.{what}")


def outside_head(journal: Path) -> OutsideHead | None:
    """The head in the file beside the journal; None where there is none. Raises SinkError for a file that is none."""
    path = beside(journal, "head")
    try:
        head = msgspec.json.decode(read_whole(path), type=OutsideHead)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as e:
        raise SinkError(f"{path}: expected the journal's last signed head, cannot be read: {e}") from e
    if not (1 <= head.n <= MOST and _HASH(head.hash) and _SIGNATURE(head.signature)):
        raise SinkError(f"{path}: expected the journal's last signed head, found none: its number, hash or signature is no station's")
    return head
