"""The journal: one committed row a decision before anybody is told of it, and decisions go on when the disk does not."""

import datetime
import fcntl
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
from typing import IO, Self

from edge_runtime.config.files import JournalConfig
from edge_runtime.errors import SinkError
from edge_runtime.protocols import Sink
from edge_runtime.records import Decision, Picture, Verdict
from edge_runtime.sinks import journal_file
from edge_runtime.sinks.journal_file import Row, read_decisions

BACKLOG = 10_000
"""Decisions kept in memory while the disk takes none (about 10 MB); beyond that the oldest are lost, and `problem` says how many."""
RETRY_S = 1.0
LATE_SHOWN_S = 10.0
"""How long a late commit stays in `problem`: health goes out once a second and must not miss it."""
CLOSE_S = 5.0
_TELL_S = 0.005
"""What is left of the deadline for the PLC's write, once the disk has been waited for; of short deadlines half of what the loop itself
leaves, a tenth (edge_runtime.station.loop)."""
_LEAST_S = 0.001
_BATCH = 500
_CHECKPOINT_ROWS = 500
_HELD_BYTES = 32_000_000
_PRUNE_ROWS = 200
_PRUNE_EVERY_S = 3600.0

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
    """

    def __init__(self, settings: JournalConfig, station: str, deadlines_ns: Mapping[str, int] | None = None) -> None:
        """`deadlines_ns`: by a decision's recipe, from its trigger to the moment at which all must be told."""
        self.path: Path = settings.path
        self._timeout_s = settings.commit_timeout_ms / 1e3
        self._keep = datetime.timedelta(days=settings.keep_days)
        self._durable = settings.durable
        self._writer = uuid.uuid4().hex
        self._station = station
        self._deadlines_ns = deadlines_ns or {}
        self._lock_file: IO[bytes] | None = None
        self._thread: threading.Thread | None = None
        # All below is guarded by this one condition; put() and the writer wait on it for each other.
        self._changed = threading.Condition()
        self._waiting: deque[Row] = deque()
        self._in_hand = 0
        self._taken = 0
        self._done = 0
        self._failure: str | None = None
        self._upkeep_failure: str | None = None
        self._held: str | None = None
        self._refused: str | None = None
        self._gone: str | None = None
        self._connection: sqlite3.Connection | None = None
        """The writer's, once it runs."""
        self._file: tuple[int, int] | None = None
        self._wal: tuple[int, int] | None = None
        """SQLite's write-ahead log, which holds the last rows; None before this connection has written."""
        self._lost = 0
        self._late_until = self._waited_s = 0.0
        self._closing = False
        self._last_seq = 0

    def __enter__(self) -> Self:
        """Open or create the file. Raises SinkError when it is damaged, not writable, of another schema, or another station's."""
        try:
            self._open()
            self._last_seq = journal_file.last_seq(self.path)
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
        lost = f"{self.problem}; they are lost now" if self._waiting or self._in_hand else ""
        if lost:
            _log.error("%s", lost)
        self._unlock()
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
            held = len(self._waiting) + self._in_hand
            said = []
            if self._failure is not None:
                said.append(f"{self._failure}; {held} decisions wait in memory (at most {BACKLOG}) until it can be written again")
            elif held and time.monotonic() < self._late_until:
                said.append(f"{held} decisions are waiting for the disk")
            elif time.monotonic() < self._late_until:
                said.append(f"a decision was told before its row was committed: the disk took longer than {self._waited_s * 1e3:.0f} ms")
            if self._lost:
                said.append(f"{self._lost} decisions were told but never written")
            if self._thread is not None and not self._thread.is_alive():
                said.append("its writer ended unexpectedly; restart the station")
            said += [text for text in (self._gone, self._refused, self._held, self._upkeep_failure) if text is not None]
        return f"journal {self.path}: {'; '.join(said)}" if said else None

    def put(self, decision: Decision, pictures: tuple[Picture, ...] = ()) -> None:
        """Commit one decision; `pictures` are not kept."""
        row = journal_file.row_of(decision)
        patience_s = self._patience_s(decision)
        with self._changed:
            if self._closing or self._thread is None:
                raise SinkError(f"journal {self.path}: is closed; decision {decision.seq} was not written")
            if len(self._waiting) >= BACKLOG:
                self._waiting.popleft()
                self._lost += 1
                self._done += 1
            self._waiting.append(row)
            self._taken += 1
            ticket = self._taken
            self._changed.notify_all()
            if self._failure is None and not self._changed.wait_for(lambda: self._done >= ticket or self._failure is not None, patience_s):
                self._late_until, self._waited_s = time.monotonic() + LATE_SHOWN_S, patience_s

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
        prune_at = began = time.monotonic()
        found_seq = self._last_seq
        while True:
            batch = self._next_batch(until=prune_at)
            if batch:
                unmoved += self._commit(batch)
            if self._closing and not (batch and self._failure is None):
                break
            if self._waiting or self._failure is not None:
                continue
            # Nobody waits for what follows, and a part that comes meanwhile waits for one small step at most.
            connection = self._connection
            if connection is None:
                continue
            try:
                if unmoved >= _CHECKPOINT_ROWS:
                    held = journal_file.checkpoint(connection)
                    unmoved = 0
                    where = f"{self.path.name}-wal"
                    self._held = (
                        f"{held / 1e6:.3g} MB wait in {where}: another program reads on and on; close it" if held > _HELD_BYTES else None
                    )
                elif time.monotonic() >= prune_at:
                    now, run = datetime.datetime.now(datetime.UTC), datetime.timedelta(seconds=time.monotonic() - began)
                    pruned = journal_file.prune(connection, now, self._keep, _PRUNE_ROWS, found_seq, run)
                    unmoved += pruned
                    prune_at = time.monotonic() + (0.0 if pruned == _PRUNE_ROWS else _PRUNE_EVERY_S)
                else:
                    continue
                self._upkeep_failure = None
            except (sqlite3.Error, ValueError, TypeError) as e:  # also a row's time that is none
                self._upkeep_failure = f"upkeep failed: {e}"
                unmoved, prune_at = 0, time.monotonic() + 60.0
        self._close()

    def _next_batch(self, until: float) -> list[Row]:
        """Rows to write, in order; empty when upkeep is due or the journal closes."""
        with self._changed:
            if self._failure is not None:
                # Further parts do not hasten the next try: a failing disk is not to be hammered.
                self._changed.wait_for(lambda: self._closing, RETRY_S)
            else:
                self._changed.wait_for(lambda: bool(self._waiting) or self._closing, max(until - time.monotonic(), 0.0))
            batch = list(itertools.islice(self._waiting, _BATCH))
            for _ in batch:
                self._waiting.popleft()
            self._in_hand = len(batch)
            return batch

    def _commit(self, batch: list[Row]) -> int:
        """Write a batch or put it back; how many rows were written."""
        failure = refused = None
        handled = written = 0
        try:
            connection = self._file_that_is_there()
            journal_file.insert(connection, batch, self._writer)
            self._wal = _identity(self._wal_path)
            handled = written = len(batch)
        except _ROW_ERRORS:
            # A row that SQLite will never take (a seq that is there already) must not stop all that follow.
            for row in batch:
                try:
                    journal_file.insert(connection, [row], self._writer)
                    written += 1
                except _ROW_ERRORS as e:
                    refused = f"decision {row[0]} was refused: {e}"
                except (sqlite3.Error, SinkError) as e:
                    failure = str(e)
                    break
                handled += 1
        except (sqlite3.Error, SinkError) as e:
            failure = str(e)
        if failure is not None and self._failure is None:
            _log.error("journal %s: %s", self.path, failure)
        if refused is not None:
            _log.error("journal %s: %s", self.path, refused)
        with self._changed:
            self._waiting.extendleft(reversed(batch[handled:]))
            self._in_hand = 0
            self._done += handled
            self._lost += handled - written
            self._last_seq = max(self._last_seq, *(int(row[0] or 0) for row in batch[:handled]), 0)
            self._failure = failure
            self._refused = refused or self._refused
            self._changed.notify_all()
        return written

    def _file_that_is_there(self) -> sqlite3.Connection:
        """The open file, or another one if that was taken away: SQLite would go on writing into one that nobody can find any more."""
        if self._connection is not None and self._file == _identity(self.path):
            if self._wal is None or self._wal == _identity(self._wal_path):
                return self._connection
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

    @property
    def _wal_path(self) -> Path:
        return self.path.with_name(self.path.name + "-wal")

    def _open(self) -> sqlite3.Connection:
        self._lock()
        try:
            self._connection = journal_file.open_for_writing(self.path, self._durable, self._writer)
        except SinkError:
            self._unlock()
            raise
        self._file, self._wal = _identity(self.path), None
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._unlock()

    # --- one writer a file ---------------------------------------------------------------------------------------

    def _lock(self) -> None:
        # Beside the database, not on it: closing any handle on the database itself would drop SQLite's own locks.
        real = self.path.resolve()  # by whatever link it is named
        path = real.with_name(real.name + ".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_file = path.open("ab")
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise SinkError(
                f"journal {self.path}: expected to be its only writer, found another station writing it; "
                "stop that one or give [journal] another path"
            ) from e
        except OSError as e:
            raise SinkError(
                f"journal {self.path}: cannot be created or opened: {e.strerror}; give [journal] a path that the station may write to"
            ) from e

    def _unlock(self) -> None:
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


__all__ = ["Journal", "read_decisions"]
