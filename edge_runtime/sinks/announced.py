"""Parts that are announced and not decided yet, in a file beside the journal: what a kill takes, the next start answers.

A line is written before the PLC sees its acknowledge. It goes to the system's page cache, as the journal's rows do: a killed process loses
none, a power cut may lose the last.

Why: deploy/decisions/0044.
"""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from edge_runtime.errors import SinkError
from edge_runtime.records import Trigger

_MOST_BYTES = 1 << 20
_decoder = msgspec.json.Decoder(Trigger)
_encoder = msgspec.json.Encoder()


class Announced:
    """A context manager. `note` is for any thread, and never raises: a part is decided all the same, and `problem` says what it costs."""

    def __init__(self, journal: Path, last_seq: Callable[[], int], noted: Callable[[Trigger], None] = lambda trigger: None) -> None:
        """`journal`: the journal's file; `last_seq`: the last decision that is in it; `noted`: called once for each part, never waits."""
        self.path = journal.with_name(journal.name + ".announced")
        self.problem: str | None = None
        """A sentence for health."""
        self._decided, self._tell = last_seq, noted
        self._lock = threading.Lock()
        self._open: deque[tuple[int, bytes]] = deque()
        self._noted = self._bytes = 0
        self._file = -1

    def __enter__(self) -> Self:
        """Open the file. Raises SinkError where it cannot be written."""
        try:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        except OSError as e:
            raise SinkError(f"{self.path}: cannot be written: {e.strerror}; give [journal] a path that the station may write to") from e
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self._file)
        self._file = -1

    def left(self) -> list[Trigger]:
        """What stood here when the last run ended, by seq; the journal knows which of them were decided. A torn line is none."""
        found: dict[int, Trigger] = {}
        with contextlib.suppress(OSError):
            for line in self.path.read_bytes().splitlines():
                with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                    trigger = _decoder.decode(line)
                    found[trigger.seq] = trigger
        return [found[seq] for seq in sorted(found)]

    def forget(self) -> None:
        """All of them have their decisions. Raises SinkError."""
        try:
            os.truncate(self.path, 0)
        except OSError as e:
            raise SinkError(f"{self.path}: cannot be written: {e.strerror}") from e

    def note(self, trigger: Trigger) -> None:
        """Write one part down, once."""
        with self._lock:
            if trigger.seq <= self._noted or self._file < 0:
                return
            self._noted = trigger.seq
            self._tell(trigger)
            line = _encoder.encode(trigger) + b"\n"
            decided = self._decided()
            while self._open and self._open[0][0] <= decided:
                self._open.popleft()
            self._open.append((trigger.seq, line))
            try:
                if self._bytes > _MOST_BYTES:
                    self._begin_anew()
                else:
                    self._bytes += os.write(self._file, line)
                self.problem = None
            except OSError as e:
                self.problem = f"{self.path}: {e.strerror}: a part that a kill takes would have no decision"

    def _begin_anew(self) -> None:
        """With those that are open alone."""
        lines = b"".join(line for _, line in self._open)
        part = self.path.with_name(self.path.name + ".part")  # not `replacing`: nobody waits for the disk here
        part.write_bytes(lines)
        part.replace(self.path)
        os.close(self._file)
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._bytes = len(lines)
