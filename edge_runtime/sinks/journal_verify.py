"""Whether a journal is what the station wrote: each row against the hash chain, and the chain against the signatures over it.

Why: deploy/decisions/0045.
"""

import contextlib
import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edge_runtime.security.chain import GENESIS, Purpose, hash_of
from edge_runtime.security.signing import PublicKey
from edge_runtime.sinks.journal_chain import SIGN_EVERY
from edge_runtime.sinks.journal_damaged import named, numbers
from edge_runtime.sinks.journal_file import columns_of, expect_journal, reading, too_long, unkeyed
from edge_runtime.sinks.journal_foreign import foreign
from edge_runtime.sinks.journal_heads import OutsideHead, highest, newest_signed, other_head, vouched
from edge_runtime.sinks.journal_order import Order
from edge_runtime.sinks.journal_rows import COLUMNS, LATER, MOST, UNREADABLE
from edge_runtime.sinks.journal_said import RARE, acknowledged, as_it_is, damage, plain, said

_PAGE = 500
_MOST_UNSIGNED = 2 * SIGN_EVERY
"""Rows in a row without a signature: a station leaves fewer, also when it is killed."""
_MOST_FINDINGS = 1000
EMPTY = "the chain is empty: all of its rows were removed"
_ANY = MOST
TAIL = 1000
"""Rows of the chain that a start and `lineside check` look at: some hundred parts, in about 50 ms."""


@dataclass(slots=True)
class Verified:
    """What was found, and of how much that can be said."""

    findings: list[str] = field(default_factory=list)
    """A sentence each; empty: the journal is what was written."""
    acknowledged: dict[str, str] = field(default_factory=dict)
    """By finding: who has seen it, and why it is so."""
    rows: int = 0
    """How many rows of the chain were read."""
    decisions: int = 0
    last_n: int = 0
    """The chain's last row."""
    last_hash: bytes = GENESIS
    last_at_s: int | None = None
    """Its time."""
    signed_n: int = 0
    """The last row that a signature covers."""
    notes: list[str] = field(default_factory=list)
    """What no finding is and limits what was said."""

    @property
    def unacknowledged(self) -> list[str]:
        """Findings that nobody has acknowledged."""
        return [finding for finding in self.findings if finding not in self.acknowledged]


def verify(path: Path, keys: Sequence[PublicKey], outside: OutsideHead | None = None, tail: int | None = None) -> Verified:
    """Read the journal against its chain. `keys`: the station's, now and before; `outside`: a head that was kept elsewhere.

    `tail`: only the last so many rows of the chain. Raises SinkError for a file that is no journal, or cannot be read at all.
    """
    expect_journal(path)
    with reading(path) as connection:
        connection.text_factory = as_it_is
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'chain'").fetchone():
            missing = "it has no chain: a version of Lineside from before the chain wrote it, or the chain was removed"
            return Verified([missing], notes=["nothing can be said of any decision in it"])
        lacks = unkeyed(connection)
        if lacks and too_long(connection):  # the walk takes the square of their rows
            return Verified(foreign(connection) + lacks, notes=["nothing can be said of any row in it: none can be found by its number"])
        run = _Run(connection, keys)
        run.found.findings += foreign(connection) + lacks
        try:
            run.go(tail)
        except (ArithmeticError, AttributeError, TypeError, ValueError) as e:
            run.found.findings.append(f"it holds values that no station writes, and cannot be read to its end: {plain(e)}")
        if outside is not None:
            run.compare(outside)
        run.found.acknowledged = acknowledged(connection)
        run.found.findings += [f for f in damage(connection) if f not in run.found.findings]  # at a start; nothing may be left of it
        return run.found


def has_chain(path: Path) -> bool:
    """False for a journal from before the chain. Raises SinkError where it cannot be read."""
    with reading(path) as connection:
        return connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'chain'").fetchone() is not None


class _Run:
    """One walk along the chain."""

    def __init__(self, connection: sqlite3.Connection, keys: Sequence[PublicKey]) -> None:
        self.found = Verified()
        self._connection, self._keys = connection, keys
        self._most = highest(newest_signed(connection, keys))
        """The largest number that a row may have."""
        there = columns_of(connection)
        self._values = ", ".join(f"d.{name}" if name in there else LATER.get(name, ("", "NULL"))[1] for name in COLUMNS)
        self._n = 0
        self._hash: bytes | None = GENESIS
        """That of the row before; None where it is not known."""
        self._instead: bytes | None = None
        """What the hash of the row before should be, where another stands there."""
        self._order = Order(connection, self._say)
        self._heads: dict[int, bytes] = {}
        """Signed hashes at and near the page that is read."""
        self._headed: set[int] = set()
        """Rows there that have a signature, whether it is right or not."""
        self._unreadable: list[range] = []
        """Rows that could not be read, in order."""
        self._start = 0
        """The row before the first that is looked at."""
        self._more = 0

    def go(self, tail: int | None) -> None:
        self._out_of_range()
        first = self._first()
        if first is None:
            self._say(EMPTY)
            return
        decisions_from = self._begin(first, None if tail is None else self._last() - tail)
        after, heads_after = self._start, self._start if tail else 0
        while True:
            self._connection.execute("BEGIN")  # rows and signatures of one moment
            try:
                rows = list(self._page(after))
                until = rows[-1][0] if len(rows) >= _PAGE else _ANY
                heads = self._heads_between(heads_after, until)
                for row in rows:
                    self._row(*row)
                    while heads and heads[0][0] <= self._n:
                        self._head(*heads.pop(0))
                for head in heads:
                    self._head(*head)
            finally:
                self._connection.execute("ROLLBACK")  # nothing was written; COMMIT says again that a page could not be read
            if until == _ANY:
                break
            after = heads_after = until
        self.found.last_n, self.found.last_hash = self._n, self._hash or GENESIS
        if self._n - self.found.signed_n > _MOST_UNSIGNED:
            self._say(
                f"rows {self.found.signed_n + 1} to {self._n} carry no signature: signatures were removed, or the rows were put there"
            )
        elif not self._connection.execute("SELECT 1 FROM heads").fetchone():
            self._say("no row carries a signature: all of them were removed, or the rows were written anew")
        elif self._n > self.found.signed_n:
            self.found.notes.append(
                f"rows {self.found.signed_n + 1} to {self._n} carry no signature yet: the station runs, or was killed, and who could write "
                "the file since could have changed them"
            )
        self._inserted(decisions_from)
        if tail is None:
            self._unanswered()
        if unsigned := self._order.left_unsigned:
            left = f"{', '.join(unsigned[:5])}{' and others' if len(unsigned) > 5 else ''}"
            self.found.notes.append(
                f"rows {left} were not signed yet when the station was killed or lost its power: who could write the file before its next "
                "start could have changed them"
            )
        for _, body in said(self._connection, "lost"):
            first, last = body.get("first"), body.get("last")
            self.found.notes.append(
                f"decisions {first} to {last} were missing at a start: told while the disk took no row, or an older journal was put there"
            )
        if self._more:
            self.found.findings.append(f"and {self._more} more")

    def _out_of_range(self) -> None:
        for table, what in (("chain", "row"), ("heads", "a signature over row"), ("decisions", "decision")):
            number, most = ("seq", MOST) if table == "decisions" else ("n", self._most)
            for outside in ("< 1", f"> {most}"):
                with contextlib.suppress(sqlite3.DatabaseError):  # the walk names the page that cannot be read
                    for (n,) in self._connection.execute(f"SELECT {number} FROM {table} WHERE {number} {outside}").fetchmany(_PAGE):
                        self._say(f"{what} {n} stands there, and no station counts so: it was put there")
        if [n for (n,) in self._connection.execute("SELECT checkpoints BETWEEN 0 AND ? FROM upkeep", (MOST - 2,))] != [1]:
            self._say("the table upkeep is not as a station leaves it: it holds no row, or a number that no station counts to")

    def _first(self) -> int | None:
        """The row that the chain begins with, or should where that cannot be read; None where there is none."""
        try:
            first = self._connection.execute(f"SELECT min(n) FROM chain WHERE n BETWEEN 1 AND {self._most}").fetchone()[0]
        except UNREADABLE:
            deleted = "SELECT max(n) FROM heads WHERE purpose = ? AND n BETWEEN 0 AND ?"
            first = (self._connection.execute(deleted, (Purpose.ANCHOR.value, self._most - 1)).fetchone()[0] or 0) + 1
        return None if first is None else int(first)

    def _last(self) -> int:
        return int(self._connection.execute(f"SELECT max(n) FROM chain WHERE n <= {self._most}").fetchone()[0])

    def _begin(self, first: int, tail_after: int | None) -> int:
        """Find the row after which the walk begins. Decisions from the seq that is given back on must be in the chain."""
        anchors = self._connection.execute(
            "SELECT n, hash, signature FROM heads WHERE purpose = ? AND n BETWEEN 1 AND ?", (Purpose.ANCHOR.value, self._most)
        ).fetchall()
        for n, *_ in anchors:
            if n != first - 1:
                self._say(f"a signature says that rows up to {n} were deleted for their age, and the chain begins with row {first}")
        if tail_after is not None and tail_after >= first:
            row = self._connection.execute("SELECT n, hash FROM chain WHERE n <= ? ORDER BY n DESC LIMIT 1", (tail_after,)).fetchone()
            self._n, self._hash = row
            self._start = self.found.signed_n = self._n
            found = self._connection.execute("SELECT min(seq) FROM chain WHERE kind = 'decision' AND n > ?", (self._n,)).fetchone()[0]
            return found if isinstance(found, int) else _ANY
        if first == 1:
            begun = next((body for _, body in said(self._connection, "begun")), {})
            before = begun.get("decisions_before", 0)
            if not isinstance(before, int) or not 0 <= before <= MOST:
                self._say("the chain's first row does not say how many decisions there were before it: it was changed")
                return 1
            if before:
                self.found.notes.append(f"the chain begins after decision {before}: nothing can be said of those before")
            return before + 1
        anchor = next((a for a in anchors if a[0] == first - 1), None)
        if anchor is None:
            self._say(f"{_rows(1, first - 1)} removed")
        elif not vouched(self._keys, Purpose.ANCHOR, *anchor):
            self._say(f"the signature that says that rows up to {first - 1} were deleted for their age is not by a key that is given")
        else:
            self.found.notes.append(f"rows up to {first - 1} of the chain were deleted by the station, for their age or the file's size")
        self._start = self._n = self.found.signed_n = first - 1
        self._hash = anchor[1] if anchor is not None and vouched(self._keys, Purpose.ANCHOR, *anchor) else None
        return -_ANY

    def _page(self, after: int) -> Iterator[tuple[Any, ...]]:
        select = (
            f"SELECT c.n, c.kind, c.seq, c.at_s, c.body, c.hash, d.seq IS NOT NULL, {self._values} FROM chain c "
            "LEFT JOIN decisions d ON c.kind IN ('decision', 'amended') AND d.seq = c.seq "
            "WHERE c.n {} ORDER BY c.n LIMIT ?"
        )
        try:
            yield from self._connection.execute(select.format(f"> ? AND c.n <= {self._most}"), (after, _PAGE)).fetchall()
        except UNREADABLE as e:
            yield from self._one_by_one(select.format("= ?"), after, str(e))

    def _one_by_one(self, select: str, after: int, why: str) -> Iterator[tuple[Any, ...]]:
        """Around what cannot be read."""
        lost: list[range] = []
        count = 0
        for found in numbers(self._connection, "chain", "n", after):
            if isinstance(found, range):
                lost.append(found)
                continue
            if found > self._most:
                break
            try:
                rows = self._connection.execute(select, (found, _PAGE)).fetchall()
            except UNREADABLE:
                lost.append(range(found, found + 1))
                continue
            yield from rows
            count += len(rows)
            if count >= _PAGE:
                break
        if lost:
            self._unreadable += lost
            self._say(f"{named(lost)} of the chain, or the decisions they are about, cannot be read: {why}")

    def _removed(self, first: int, last: int) -> str:
        """A sentence about the rows that are not there; empty where all of them are among those that cannot be read."""
        for lost in self._unreadable:
            if first in lost:
                first = lost.stop
        return f"{_rows(first, last)} removed" if first <= last else ""

    def _row(self, n: Any, kind: Any, seq: Any, at_s: Any, body: Any, hash_: Any, there: int, *values: Any) -> None:
        if n <= self._n and self.found.rows:
            self._say(f"row {n} ({kind}{'' if seq is None else f' {seq}'}) stands there more than once: one of them was put there")
            return
        gap = n != self._n + 1
        if gap:
            self._say(self._removed(self._n + 1, n - 1))
            self._hash, self._instead = self._heads.get(n - 1, self._hash), None
        self._n = n
        self.found.rows += 1
        whole = isinstance(hash_, bytes) and len(hash_) == 32
        of_decision = kind in ("decision", "amended")
        self.found.decisions += kind == "decision"
        if of_decision and not there:
            self._say(f"decision {seq} (row {n}) was removed")
        elif self._hash is not None and not self._fits(n, kind, seq, at_s, body, hash_, values if of_decision else ()):
            what = f"decision {seq} (row {n})" if of_decision else f"row {n} ({kind}{'' if seq is None else f' {seq}'})"
            after = "follows rows that are missing: whether it was changed cannot be told"
            self._say(f"{what} {after}" if gap else f"{what} was changed, or does not belong there")
        self._hash = hash_ if whole else self._instead
        self.found.last_at_s = at_s if isinstance(at_s, int) else None
        self._order.row(n, kind, seq, body, headed=self._headed, signed_n=self.found.signed_n)
        if kind == "amended":
            self._order.amendment(n, seq, body, values, self._start)

    def _fits(self, n: int, kind: str, seq: Any, at_s: Any, body: Any, hash_: Any, values: tuple[Any, ...]) -> bool:
        contents = [values]
        if kind == "decision" and isinstance(seq, int) and (was := self._order.was(seq)) is not None:
            contents.append(tuple(was.get(name, value) for name, value in zip(COLUMNS, values, strict=True)))
        previous = [self._hash] if self._instead is None else [self._hash, self._instead]
        self._instead = None
        try:
            for before, content in itertools.product(previous, contents):
                if hash_of(before or GENESIS, n, kind, seq, at_s, body, content) == hash_:
                    return True
            self._instead = hash_of(self._hash or GENESIS, n, kind, seq, at_s, body, values)
        except (ValueError, TypeError, OverflowError):  # bytes where text was, or text that is none
            return False
        return False

    def _heads_between(self, after: int, until: int) -> list[tuple[Any, ...]]:
        rows = self._connection.execute(
            "SELECT n, hash, signature FROM heads WHERE purpose != ? AND n > ? AND n <= ? ORDER BY n", (Purpose.ANCHOR.value, after, until)
        ).fetchall()
        self._headed = {n for n, _, _ in rows}
        self._heads = {n: hash_ for n, hash_, signature in rows if vouched(self._keys, Purpose.HEAD, n, hash_, signature)}
        return rows

    def _head(self, n: int, hash_: bytes, signature: bytes) -> None:
        """Once the chain has been walked up to row `n`."""
        if n not in self._heads:
            self._say(f"the signature over row {n} was changed, or is not by a key that is given")
        elif n > self._n:
            if removed := self._removed(self._n + 1, n):
                self._say(removed)
            else:
                self.found.signed_n = n
            self._n = n
        elif n <= self._start:
            self._say(f"there is a signature over row {n}, and the chain begins after it")
        elif n == self._n and self._hash is not None:
            if hash_ != self._hash:
                self._say(f"rows {self.found.signed_n + 1} to {n} are not those that the station signed: they were written anew")
            self.found.signed_n = n

    def compare(self, outside: OutsideHead) -> None:
        """With a head from elsewhere: a signed one, or one that is known by itself."""
        n, hash_ = outside.n, outside.hash
        if outside.signature and not outside.is_by(self._keys):
            return self._say(other_head(outside))
        if n > self._n:
            sentence = self._removed(self._n + 1, n)
            return None if sentence in self.found.findings else self._say(sentence)
        try:
            row = self._connection.execute("SELECT hash FROM chain WHERE n = ?", (n,)).fetchone()
        except UNREADABLE:
            return None  # a finding already
        if row is not None and (not isinstance(row[0], bytes) or row[0].hex() != hash_):
            self._say(f"row {n} is another one than that whose head was kept outside the journal")
        return None

    def _inserted(self, from_seq: int) -> None:
        try:
            extra = self._connection.execute(
                "SELECT seq FROM decisions WHERE seq >= max(?, 1) EXCEPT SELECT seq FROM chain WHERE kind = 'decision'", (from_seq,)
            ).fetchmany(_MOST_FINDINGS)
        except UNREADABLE:
            return  # a finding already
        for (seq,) in extra:
            self._say(f"decision {seq} is in no row of the chain: it was inserted")

    def _unanswered(self) -> None:
        """Parts that were announced and never decided: a start makes each a FAULT, or names it as lost, long before it stops."""
        started = (
            f"SELECT max(n) FROM chain WHERE kind = 'started' AND {RARE} "
            f"AND n < (SELECT max(n) FROM chain WHERE kind = 'stopped' AND {RARE})"
        )
        until = max(self._n - TAIL, self._connection.execute(started).fetchone()[0] or 0)
        undecided = "SELECT seq FROM chain WHERE kind = 'announced' AND n <= ? EXCEPT SELECT seq FROM chain WHERE kind = 'decision'"
        lost = [(body.get("first"), body.get("last")) for _, body in said(self._connection, "lost")]
        named = [(first, last) for first, last in lost if isinstance(first, int) and isinstance(last, int)]
        try:
            seqs = self._connection.execute(undecided, (until,)).fetchmany(_MOST_FINDINGS)
        except UNREADABLE:
            return  # a finding already
        for (seq,) in seqs:
            if not (isinstance(seq, int) and any(first <= seq <= last for first, last in named)):
                self._say(f"part {seq} was announced, and no row says what was decided of it")

    def _say(self, finding: str) -> None:
        if not finding:
            return
        if len(self.found.findings) < _MOST_FINDINGS:
            self.found.findings.append(plain(finding))
        else:
            self._more += 1


def _rows(first: int, last: int) -> str:
    return f"row {first} was" if first == last else f"rows {first} to {last} were"


def head_of(text: str) -> OutsideHead:
    """`N:HASH`, as a station logs it when it stops. Raises ValueError."""
    n, _, hash_ = text.partition(":")
    if len(bytes.fromhex(hash_)) != 32 or not (n.isascii() and n.isdecimal() and len(n) < 20 and 1 <= int(n) <= MOST):
        raise ValueError("expected N:HASH, the number of a row and its hash in hex")
    return msgspec.convert({"n": int(n), "hash": hash_.lower(), "signature": ""}, OutsideHead)
