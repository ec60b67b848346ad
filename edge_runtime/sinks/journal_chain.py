"""The chain's end, as the journal's one writer knows it: rows are linked to it, signed, and cut off when they are old.

Why: deploy/decisions/0045.
"""

import contextlib
import json
import logging
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

import msgspec

from edge_runtime import __version__
from edge_runtime.errors import SinkError
from edge_runtime.security.chain import GENESIS, Purpose, Value, hash_of, signed_text
from edge_runtime.security.signing import SigningKey
from edge_runtime.sinks.journal_clock import BEHIND_S, JournalClock, journal_clock
from edge_runtime.sinks.journal_file import select_of
from edge_runtime.sinks.journal_heads import OutsideHead, highest, newest_signed
from edge_runtime.sinks.journal_numbers import last_number
from edge_runtime.sinks.journal_prune import AT_ONCE, Kept, acknowledged_here, old_before_the_chain, oldest
from edge_runtime.sinks.journal_rows import AMENDED, COLUMNS, Entry, about, wall_time
from edge_runtime.sinks.journal_said import as_it_is

SIGN_EVERY = 100
"""Rows, about thirty parts; also what is left when no part comes for a second, and at each stop."""
_KEPT_ROWS = 1000
"""The last rows stay, however large the file is: the station goes on counting from them."""
_INSERT = f"INSERT INTO decisions ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
_LINK = "INSERT INTO chain (n, kind, seq, at_s, body, hash) VALUES (?, ?, ?, ?, ?, ?)"
_SIGN = "INSERT OR REPLACE INTO heads (n, purpose, hash, signature) VALUES (?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept."""

    keep_s: float
    """Older rows are deleted."""
    most_bytes: float = float("inf")
    """The oldest rows of a larger file are deleted."""
    at_once: int = AT_ONCE
    """Rows of the chain."""


_Head = tuple[int, str, bytes, bytes]
"""Row, purpose, hash, signature."""
_Added = tuple[int, bytes, _Head | None]
"""The chain's last row, its hash, and the signature over it, where there is a new one."""
_log = logging.getLogger(__name__)


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
        self.last_seq = last_number(connection, [key.public], least_n)
        """The last decision's number; one that somebody else has put there moves it nowhere."""
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
            entries.append(about("begun", journal=uuid.uuid4().hex, decisions_before=self.last_seq))
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
        entries = list(entries)
        given = [entry.seq for entry in entries if entry.kind == "decision" and entry.seq is not None and entry.seq > self.last_seq]
        with _transaction(connection, writer):
            if given and (finding := _make_way(connection, min(given), max(given))):
                entries.append(about("damaged", findings=[finding]))
            else:
                finding = ""
            added = self._add(connection, entries, sign)
        self._went_on(*added)
        self.last_seq = max(self.last_seq, *given, 0)
        if finding:
            _log.error("journal: %s", finding)
            self.damage.append(finding)

    def _add(self, connection: sqlite3.Connection, entries: Iterable[Entry], sign: bool = False) -> _Added:
        n, end = self._link(connection, entries)
        if not sign and n - self._signed_n < SIGN_EVERY:
            return n, end, None
        head = self._head_of(n, end)
        connection.execute(_SIGN, head)
        return n, end, head

    def _head_of(self, n: int, end: bytes) -> _Head:
        return n, Purpose.HEAD.value, end, self._key.sign(signed_text(Purpose.HEAD, n, end))

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
        """Delete some old rows that verify: (rows of the file that were deleted, whether there may be more).

        The cut is signed, and the chain says that it was made; or what does not verify and stays.

        By the journal's own time, while that is not ahead of the machine's clock: a row is no older than the last one is younger than it,
        so that a standstill empties no journal. A row that is dated ahead of the machine's clock goes with those after it. Rows
        from before the chain go by their date, and no later than the first row of the chain.
        """
        connection.text_factory = as_it_is
        try:
            with _transaction(connection, writer):  # what is looked at is what is deleted
                rows, more, added = self._prune(connection, limits)
        finally:
            connection.text_factory = str
        if added is not None:
            self._went_on(*added)
        return rows, more

    def _prune(self, connection: sqlite3.Connection, limits: Limits) -> tuple[int, bool, _Added | None]:
        wall_s, keys = int(time.time()), [self._key.public]
        now_s = self.clock.ages_by(wall_s)
        before_s = float("-inf") if now_s is None else min(now_s, _newest(connection)) - limits.keep_s
        over = self.too_large(connection, limits)
        until = self.n - (_KEPT_ROWS if over else 1)
        found = oldest(
            connection, keys, until=until, before_s=before_s, ahead_s=wall_s + BEHIND_S, all_=over, at_once=limits.at_once
        )  # fmt: skip
        legacy = old_before_the_chain(connection, keys, before_s, limits.at_once, over or found is not None)
        if legacy:
            connection.execute("DELETE FROM decisions WHERE seq <= ?", (legacy[-1],))
            return len(legacy), True, None
        if isinstance(found, Kept):
            if not acknowledged_here(connection, keys, found.finding):
                return 0, False, self._keep(connection, found.finding)
            found = found.cut
        if found is None:
            return 0, False, None
        why, seqs = "size" if over else "age", [seq for seq in found.decisions if isinstance(seq, int)]
        said = [about("pruned", why=why, rows_to=found.n, decisions=len(seqs), last_decision=max(seqs, default=0))]
        if self.damage and found.damaged:
            said.append(about("damaged", findings=self.damage))  # until somebody acknowledges it
        connection.execute("DELETE FROM decisions WHERE seq IN (SELECT seq FROM chain WHERE kind = 'decision' AND n <= ?)", (found.n,))
        connection.execute("DELETE FROM chain WHERE n <= ?", (found.n,))
        connection.execute("DELETE FROM heads WHERE n <= ?", (found.n,))
        anchor = self._key.sign(signed_text(Purpose.ANCHOR, found.n, found.hash))
        connection.execute(_SIGN, (found.n, Purpose.ANCHOR.value, found.hash, anchor))
        return found.rows + len(seqs), found.more, self._add(connection, said)

    def _keep(self, connection: sqlite3.Connection, finding: str) -> _Added | None:
        """Say what does not verify, once."""
        if finding in self.damage:
            return None
        _log.error("journal: %s", finding)
        added = self._add(connection, [about("damaged", findings=[finding])])
        self.damage.append(finding)
        return added

    def too_large(self, connection: sqlite3.Connection, limits: Limits) -> bool:
        """Whether `prune` has something to do for the file's size."""
        return _bytes_used(connection) > limits.most_bytes

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
            if entry.kind == "cleared":  # that somebody has seen what is wrong would otherwise be anybody's word
                connection.execute(_SIGN, self._head_of(n, end))
        connection.executemany(_INSERT, rows)
        connection.executemany(_LINK, links)
        return n, end


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


def _make_way(connection: sqlite3.Connection, first: int, last: int) -> str:
    """Take out what stands where the station's own next decisions belong, which nobody else numbers; a finding, or ""."""
    there = [seq for (seq,) in connection.execute("SELECT seq FROM decisions WHERE seq BETWEEN ? AND ?", (first, last))]
    if not there:
        return ""
    connection.execute("DELETE FROM decisions WHERE seq BETWEEN ? AND ?", (first, last))
    which = f"decision {there[0]}" if len(there) == 1 else f"{len(there)} decisions from {there[0]} to {there[-1]}"
    return f"{which} stood there before the station gave that number: put there by somebody else, and taken out for the station's own"


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
