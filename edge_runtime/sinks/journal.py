"""The journal: one committed row a decision before anybody is told of it, and decisions go on when the disk does not."""

import itertools
import logging
import sqlite3
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from edge_runtime.config.files import JournalConfig
from edge_runtime.errors import SinkError
from edge_runtime.files import put_file
from edge_runtime.protocols import Sink
from edge_runtime.records import Decision, Delivery, Picture, Trigger, Verdict
from edge_runtime.security.signing import SigningKey, open_key
from edge_runtime.sinks import journal_file
from edge_runtime.sinks.journal_chain import Chain, Limits
from edge_runtime.sinks.journal_clock import journal_clock
from edge_runtime.sinks.journal_file import read_decisions
from edge_runtime.sinks.journal_heads import beside
from edge_runtime.sinks.journal_lock import WriterLock
from edge_runtime.sinks.journal_rows import Entry, about, announced, delivered, row_of, wall_time
from edge_runtime.sinks.journal_start import go_on
from edge_runtime.words import one_line

BACKLOG = 10_000
"""Decisions kept in memory while the disk takes none (about 10 MB); beyond that the oldest are lost, and `problem` says how many."""
RETRY_S = 1.0
LATE_SHOWN_S = 10.0
"""How long a late commit stays in `problem`: health goes out once a second and must not miss it."""
CLOSE_S = 5.0
_NOTED_S = 3.0
"""How long whoever asks waits for the disk: less than an answer of the control socket is waited for."""
_TELL_S = 0.005
"""What is left of the deadline for the PLC's write, once the disk has been waited for; of short deadlines half of what the loop itself
leaves, a tenth (edge_runtime.station.loop)."""
_LEAST_S = 0.001
_BATCH = 500
_CHECKPOINT_ROWS = 500
"""A power cut may lose what was written since; of a durable journal nothing, and whoever waits for its syncs is held up less often."""
_DURABLE_CHECKPOINT_ROWS = 2000
_HELD_BYTES = 32_000_000
_PRUNE_EVERY_S = 3600.0
_LINGER_S = 0.25
"""What no part waits for is written with the next decision, or after so long."""
_SIGN_AFTER_S = 1.0

_ROW_ERRORS = (
    sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.DataError, ValueError, OverflowError,
)  # fmt: skip
"""What one impossible row raises; every other sqlite3.Error is the file's or the disk's."""

_log = logging.getLogger(__name__)


class Journal(Sink):
    """Writes a row a decision, a Sink.

    `put` comes back when the row is committed, or after `commit_timeout_ms`, or in time for the part's deadline, or at once while the
    disk is known to fail.

    The decision is kept in memory in the last three cases and written as soon as that is possible; meanwhile `problem` says so.

    What is noted beside the decisions never waits, and no decision waits for it.
    """

    def __init__(self, settings: JournalConfig, station: str, deadlines_ns: Mapping[str, int] | None = None) -> None:
        """`deadlines_ns`: by a decision's recipe, from its trigger to the moment at which all must be told."""
        self.path: Path = settings.path
        # Made once: pathlib interns each part of a name, and a table of interned strings that is remade again and again grows the process.
        self._wal_path = self.path.with_name(self.path.name + "-wal")
        self._timeout_s = settings.commit_timeout_ms / 1e3
        self._limits = Limits(settings.keep_days * 86_400, settings.keep_mb * 1e6 if settings.keep_mb is not None else float("inf"))
        self._durable = settings.durable
        self._checkpoint_rows = _DURABLE_CHECKPOINT_ROWS if settings.durable else _CHECKPOINT_ROWS
        self._writer = uuid.uuid4().hex
        self._station = station
        self._deadlines_ns = deadlines_ns or {}
        self._lock = WriterLock(self.path)
        self._key: SigningKey | None = None
        self._thread: threading.Thread | None = None
        # All below is guarded by this one condition; put() and the writer wait on it for each other.
        self._changed = threading.Condition()
        self._waiting: deque[Entry] = deque()
        self._asked: list[Entry] = []
        """What somebody waits for until the disk has it, though no part does."""
        self._decisions = self._in_hand = 0
        """Decisions that wait, and those that are being written."""
        self._taken = 0
        self._done = 0
        self._failure: str | None = None
        self._upkeep_failure: str | None = None
        self._held: str | None = None
        self._refused: str | None = None
        self._gone: str | None = None
        self._connection: sqlite3.Connection | None = None
        """The writer's, once it runs; and `_chain`."""
        self._chain: Chain | None = None
        self._file: tuple[int, int] | None = None
        self._wal: tuple[int, int] | None = None
        """SQLite's write-ahead log, which holds the last rows; None before this connection has written."""
        self._lost = self._lost_notes = 0
        self._late_until = self._waited_s = 0.0
        self._closing = False
        self._last_seq = 0

    def __enter__(self) -> Self:
        """Open or create the file. Raises SinkError when it is damaged, not writable, of another schema, or another station's.

        What its chain says of its last rows is a `problem`, until somebody acknowledges it, and no error: a line does not stop for it.
        """
        try:
            self._last_seq = self._open(at_start=True)[1].last_seq
        except SinkError:
            self._close()
            raise
        self._closing = False
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Write what waits (one more try on a failing disk), then close. Raises SinkError for decisions that could not be written."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
            self._thread = None
        lost = f"{self.problem}; they are lost now" if self._decisions or self._in_hand else ""
        if lost:
            _log.error("%s", lost)
        self._lock.release()
        if lost and exc_type is None:
            raise SinkError(lost)

    def last_seq(self) -> int:
        """The largest seq in the journal; 0 when it is empty."""
        with self._changed:
            return self._last_seq

    @property
    def waiting(self) -> int:
        """Decisions that are not on the disk yet."""
        with self._changed:
            return len(self._waiting) + self._in_hand

    @property
    def problem(self) -> str | None:
        """A sentence for health; None when every decision is on disk."""
        with self._changed:
            held = self._decisions + self._in_hand
            said = []
            if self._failure is not None:
                said.append(f"{self._failure}; {held} decisions wait in memory (at most {BACKLOG}) until it can be written again")
            elif held and time.monotonic() < self._late_until:
                said.append(f"{held} decisions are waiting for the disk")
            elif time.monotonic() < self._late_until:
                took = f"the disk took longer than {self._waited_s * 1e3:.0f} ms"
                said.append(f"a decision was told before its row was committed: {took} (said for {LATE_SHOWN_S:g} s after the last)")
            if self._lost:
                said.append(f"{self._lost} decisions were told but never written")
            if self._lost_notes:
                said.append(f"{self._lost_notes} notes beside the decisions were never written")
            if self._chain is not None:
                said += self._chain.problems
            if self._thread is not None and not self._thread.is_alive():
                said.append("its writer ended unexpectedly; restart the station")
            said += [text for text in (self._gone, self._refused, self._held, self._upkeep_failure) if text is not None]
        return f"journal {self.path}: {'; '.join(said)}" if said else None

    def put(self, decision: Decision, pictures: tuple[Picture, ...] = ()) -> None:
        """Commit one decision; `pictures` are not kept."""
        self.commit(decision)

    def begin(self, decision: Decision) -> Entry:
        """Have its row written, and do not wait: rows that are begun while the disk syncs others share its next sync.

        Raises SinkError for a closed one.
        """
        entry = Entry("decision", decision.seq, row=row_of(decision))
        with self._changed:
            if self._closing or self._thread is None:
                raise SinkError(f"journal {self.path}: is closed; decision {decision.seq} was not written")
            if self._decisions >= BACKLOG:
                self._drop_the_oldest()
            self._waiting.append(entry)
            self._decisions += 1
            self._taken += 1
            entry.ticket = self._taken
            self._changed.notify_all()
        return entry

    def commit(self, decision: Decision, begun: Entry | None = None) -> bool:
        """As `put`; whether its row is in the journal. `begun`: what `begin` gave for it. Raises SinkError for a closed one."""
        entry = self.begin(decision) if begun is None else begun
        patience_s = self._patience_s(decision)
        with self._changed:
            if self._failure is None and not self._changed.wait_for(
                lambda: self._done >= entry.ticket or self._failure is not None, patience_s
            ):
                self._late_until, self._waited_s = time.monotonic() + LATE_SHOWN_S, patience_s
            return entry.written

    def amend(self, decision: Decision) -> None:
        """What was told of a part instead of a decision whose row was not there in time: it takes its place, and the chain keeps both."""
        row = row_of(decision)
        with self._changed:
            for entry in reversed(self._waiting):
                if entry.kind == "decision" and entry.seq == decision.seq:
                    entry.row = row
                    return
            self._note(Entry("amended", decision.seq, row=row))

    def announced(self, trigger: Trigger) -> None:
        """Note that a part was announced; from any thread, at once."""
        with self._changed:
            self._note(announced(trigger))

    def delivered(self, delivery: Delivery) -> None:
        """Note what became of a decision; from any thread, at once."""
        with self._changed:
            self._note(delivered(delivery))

    def event(self, kind: str, **said: object) -> None:
        """Note what somebody has done to the station; from any thread, at once."""
        with self._changed:
            self._note(about(kind, **said, wall_time=wall_time()))

    def write_down(self, kind: str, seq: int | None = None, /, **said: object) -> None:
        """Note what somebody says, of the decision `seq` where it is about one; the disk has it when this returns. No part waits for that.

        Raises SinkError where the disk does not take it.
        """
        entry = about(kind, seq, **said, wall_time=wall_time())
        entry.synced = False
        with self._changed:
            if self._closing or self._thread is None:
                raise SinkError(f"journal {self.path}: is closed; nothing was noted")
            self._waiting.append(entry)
            self._asked.append(entry)
            self._changed.notify_all()
            self._changed.wait_for(lambda: entry.synced or self._failure is not None, _NOTED_S)
            self._asked.remove(entry)
            if entry.synced:
                return
            if entry in self._waiting:
                self._waiting.remove(entry)
                why = self._failure or f"the disk took longer than {_NOTED_S:g} s"
                raise SinkError(f"journal {self.path}: {why}; nothing was noted")
        raise SinkError(f"journal {self.path}: the disk does not say that it has it; look whether it was noted before you ask again")

    @property
    def damage(self) -> list[str]:
        """What a start has found wrong with the journal and nobody has acknowledged."""
        with self._changed:
            return [] if self._chain is None else list(self._chain.damage)

    def acknowledge(self, who: str, why: str, findings: list[str]) -> None:
        """Note that somebody has seen what was found wrong with the journal, and that the machine's clock is right.

        Raises as `write_down`, and ConfigError for an empty name or reason, or one that is no single line.
        """
        self.write_down("cleared", who=one_line("--who", who), why=one_line("--why", why), findings=findings)
        with self._changed:
            if self._chain is not None:
                self._chain.clock = journal_clock(None, int(time.time()))
                self._chain.damage = [finding for finding in self._chain.damage if finding not in findings]

    def settled(self, timeout_s: float) -> bool:
        """Wait until every decision that was put is in the file; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._decisions and not self._in_hand, timeout_s) and not self._lost

    def _note(self, entry: Entry) -> None:
        if len(self._waiting) - self._decisions >= BACKLOG:
            self._lost_notes += 1
        else:
            self._waiting.append(entry)

    def _drop_the_oldest(self) -> None:
        while self._waiting.popleft().kind != "decision":
            self._lost_notes += 1
        self._decisions -= 1
        self._lost += 1
        self._done += 1

    def _patience_s(self, decision: Decision) -> float:
        """How long this decision may wait for the disk. A FAULT has nothing to gain by its deadline: it may wait."""
        deadline_ns = self._deadlines_ns.get(decision.recipe)
        if deadline_ns is None or decision.verdict is Verdict.FAULT:
            return self._timeout_s
        left_s = (decision.stamps.fired_ns + deadline_ns - time.monotonic_ns()) / 1e9
        return min(max(left_s - min(_TELL_S, deadline_ns / 20e9), _LEAST_S), self._timeout_s)

    # --- the writer's thread -------------------------------------------------------------------------------------

    def _write(self) -> None:
        unmoved = 0  # rows since the last checkpoint
        prune_at = busy_at = time.monotonic()
        while True:
            batch = self._next_batch(until=prune_at)
            if batch:
                unmoved += self._commit(batch)
                busy_at = time.monotonic()
            if self._closing and not (batch and self._failure is None):
                break
            if self._decisions or self._failure is not None:
                continue
            # Nobody waits for what follows, and a part that comes meanwhile waits for one small step at most.
            connection, chain = self._connection, self._chain
            if connection is None or chain is None:
                continue
            try:
                if self._asked:
                    self._sync(connection)
                if not chain.is_signed and not batch and time.monotonic() - busy_at > _SIGN_AFTER_S:
                    chain.insert(connection, [], self._writer, sign=True)
                if unmoved >= self._checkpoint_rows:
                    unmoved = 0
                    self._checkpoint(connection, chain)
                    if chain.too_large(connection, self._limits):
                        prune_at = time.monotonic()
                elif time.monotonic() >= prune_at:
                    pruned, more = chain.prune(connection, self._limits, self._writer)
                    unmoved += pruned
                    prune_at = time.monotonic() + (0.0 if more else _PRUNE_EVERY_S)
                else:
                    continue
                self._upkeep_failure = None
            except (sqlite3.Error, ValueError, TypeError, OSError, SinkError) as e:  # also a row's time that is none
                self._upkeep_failure = f"upkeep failed: {e}"
                unmoved, prune_at = 0, time.monotonic() + 60.0
        self._finish()
        self._close()

    def _sync(self, connection: sqlite3.Connection) -> None:
        with self._changed:
            written = [entry for entry in self._asked if entry.written and not entry.synced]
        if written:
            if not self._durable:
                journal_file.sync(connection)
            with self._changed:
                for entry in written:
                    entry.synced = True
                self._changed.notify_all()

    def _checkpoint(self, connection: sqlite3.Connection, chain: Chain) -> None:
        held = journal_file.checkpoint(connection)
        where = f"{self.path.name}-wal"
        self._held = f"{held / 1e6:.3g} MB wait in {where}: another program reads on and on; close it" if held > _HELD_BYTES else None
        if (head := chain.outside) is not None:  # the disk has its row by now
            put_file(beside(self.path, "head"), head)

    def _finish(self) -> None:
        """Sign the last row."""
        connection, chain = self._connection, self._chain
        if connection is None or chain is None or self._failure is not None:
            return
        try:
            chain.end(connection, self._writer)
            self._checkpoint(connection, chain)
        except (sqlite3.Error, OSError, SinkError) as e:
            _log.error("journal %s: its last rows carry no signature: %s", self.path, e)
        else:
            _log.info("journal %s: ends with row %s", self.path, chain.head)

    def _next_batch(self, until: float) -> list[Entry]:
        """Rows to write, in order; empty when upkeep is due or the journal closes."""
        with self._changed:
            if self._failure is not None:
                # Further parts do not hasten the next try: a failing disk is not to be hammered.
                self._changed.wait_for(lambda: self._closing, RETRY_S)
            else:
                patience_s = min(max(until - time.monotonic(), 0.0), _LINGER_S)
                self._changed.wait_for(lambda: self._decisions > 0 or self._asked or self._closing, patience_s)
            batch = list(itertools.islice(self._waiting, _BATCH))
            for _ in batch:
                self._waiting.popleft()
            self._in_hand = _decisions_of(batch)
            self._decisions -= self._in_hand
            return batch

    def _commit(self, batch: list[Entry]) -> int:
        """Write a batch or put back what the disk does not take; how many rows were written."""
        failure = refused = None
        handled: list[Entry] = []
        try:
            connection, chain = self._file_that_is_there()
            try:
                chain.insert(connection, batch, self._writer)
                handled = batch
                _written(batch)
            except _ROW_ERRORS:
                # A row that SQLite will never take (a seq that is there already) must not stop all that follow.
                for entry in batch:
                    try:
                        chain.insert(connection, [entry], self._writer)
                        _written([entry])
                    except _ROW_ERRORS as e:
                        refused = f"{entry.kind} {entry.seq} was refused: {e}"
                    handled.append(entry)
            self._wal = _identity(self._wal_path)
        except (sqlite3.Error, SinkError) as e:
            failure = str(e)
        if failure is not None and self._failure is None:
            _log.error("journal %s: %s", self.path, failure)
        if refused is not None:
            _log.error("journal %s: %s", self.path, refused)
        with self._changed:
            self._waiting.extendleft(reversed(batch[len(handled) :]))
            self._decisions += _decisions_of(batch[len(handled) :])
            self._in_hand = 0
            self._done += _decisions_of(handled)
            self._lost += sum(entry.kind == "decision" and not entry.written for entry in handled)
            self._last_seq = max(self._last_seq, *(entry.seq or 0 for entry in handled if entry.kind == "decision"), 0)
            self._failure = failure
            self._refused = refused or self._refused
            self._changed.notify_all()
        return len(handled)

    def _file_that_is_there(self) -> tuple[sqlite3.Connection, Chain]:
        """The open file, or another one if that was taken away: SQLite would go on writing into one that nobody can find any more."""
        if self._connection is not None and self._chain is not None and self._file == _identity(self.path):
            if self._wal is None or self._wal == _identity(self._wal_path):
                return self._connection, self._chain
            # Its rows are still there for who has it open: they go into the file before it is let go.
            journal_file.checkpoint(self._connection)
            self._gone = f"{self._wal_path.name} was removed or replaced while the station ran; what it held was saved"
            _log.error("journal %s: %s", self.path, self._gone)
            self._close()
        elif self._connection is not None:
            self._gone = f"its file was removed or replaced while the station ran; a new one begins after decision {self._last_seq}"
            _log.error("journal %s: %s", self.path, self._gone)
            self._close()
        return self._open()

    def _open(self, at_start: bool = False) -> tuple[sqlite3.Connection, Chain]:
        self._lock.take()
        try:
            connection = journal_file.open_for_writing(self.path, self._durable, self._writer)
        except SinkError:
            self._lock.release()
            raise
        self._connection = connection
        try:
            had_key = beside(self.path, "key").exists()
            self._key = self._key or open_key(beside(self.path, "key"))
            chain = go_on(self.path, connection, self._key, self._writer, looks=at_start, had_key=had_key, station=self._station)
        except (sqlite3.Error, ValueError, TypeError) as e:
            self._close()
            raise SinkError(f"journal {self.path}: expected a journal that can be read and written, found: {e}; make room") from e
        except SinkError:
            self._close()
            raise
        self._chain = chain
        self._file, self._wal = _identity(self.path), None
        return connection, chain

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = self._chain = None
        self._lock.release()


def _decisions_of(entries: list[Entry]) -> int:
    return sum(entry.kind == "decision" for entry in entries)


def _written(entries: list[Entry]) -> None:
    for entry in entries:
        entry.written = True


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


__all__ = ["Journal", "read_decisions"]
