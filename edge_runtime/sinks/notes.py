"""What people said of a station's decisions and alarms: a file beside the journal, a line each, on the disk when they are told that it is.

Lines are only added. Why: deploy/decisions/0047.
"""

import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from edge_runtime.errors import SinkError
from edge_runtime.files import read_whole

_MOST_BYTES = 64 << 20
Kind = Literal["false_reject", "missed_defect", "acknowledged"]


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """One line."""

    kind: Kind
    who: str
    """The key that it was said with, or the user of this machine."""
    person: str = ""
    """Who it was, as told; where several share a key."""
    why: str = ""
    wall_time: str = ""
    """UTC, RFC 3339; set when it is written."""
    seq: int | None = None
    """The decision that it is about."""
    part_id: str = ""
    problem: str = ""
    """The alarm that it is about."""


class Notes:
    """The file of one station; safe from any thread."""

    def __init__(self, journal: Path) -> None:
        """`journal`: the journal's file."""
        self.path = journal.with_name(journal.name + ".notes")
        self._lock = threading.Lock()

    def add(self, note: Note) -> Note:
        """Write one down; as it was written. Raises SinkError, and then it is not there."""
        note = msgspec.structs.replace(note, wall_time=datetime.now(UTC).isoformat(timespec="milliseconds"))
        line = msgspec.json.encode(note) + b"\n"
        with self._lock:
            try:
                file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
                try:
                    self._append(file, line)
                finally:
                    os.close(file)
            except OSError as e:
                raise SinkError(f"{self.path}: could not be written, so nothing was noted: {e.strerror}") from e
        return note

    def _append(self, file: int, line: bytes) -> None:
        size = os.fstat(file).st_size
        if size + len(line) > _MOST_BYTES:
            raise SinkError(f"{self.path}: expected at most {_MOST_BYTES >> 20} MB, found that much: move it away")
        torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"  # by a kill, or a full disk
        if os.write(file, b"\n" * torn + line) < len(line) + torn:
            os.ftruncate(file, size)
            raise OSError(28, "no space left on the disk")
        os.fdatasync(file)

    def read(self) -> list[Note]:
        """All of them, oldest first; a torn line is none. Raises SinkError."""
        try:
            lines = read_whole(self.path, 2 * _MOST_BYTES).splitlines() if self.path.exists() else []
        except OSError as e:
            raise SinkError(f"{self.path}: could not be read: {e.strerror}") from e
        notes = []
        for line in lines:
            try:
                notes.append(msgspec.json.decode(line, type=Note))
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
        return notes
