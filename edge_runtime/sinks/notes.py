"""What people said of a station's decisions and alarms: rows of the journal's chain, so that none can be changed or taken out unseen.

Stations of before wrote them into a file beside the journal, a line each; what stands there is still read, and no hash covers it.

Why: deploy/decisions/0047.
"""

from pathlib import Path
from typing import Literal

import msgspec

from edge_runtime.errors import SinkError
from edge_runtime.files import read_whole
from edge_runtime.sinks.journal_file import reading
from edge_runtime.sinks.journal_said import RARE

_MOST_BYTES = 128 << 20
LABEL = "label"
"""The kind of a row that says how a verdict was wrong."""
ALARM = "alarm"
"""The kind of a row that says that an alarm was taken note of."""
Kind = Literal["false_reject", "missed_defect", "acknowledged"]


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody said."""

    kind: Kind
    who: str
    """The key that it was said with, or the user of this machine."""
    person: str = ""
    """Who it was, as told; where several share a key."""
    why: str = ""
    wall_time: str = ""
    """UTC, RFC 3339."""
    seq: int | None = None
    """The decision that it is about."""
    part_id: str = ""
    problem: str = ""
    """The alarm that it is about."""

    @property
    def by(self) -> str:
        """For people."""
        return f"{self.person} ({self.who})" if self.person else self.who


def read_notes(journal: Path) -> list[Note]:
    """All of a journal's, oldest first. One that cannot be understood is none: `lineside journal verify` names it. Raises SinkError."""
    return [*_of_before(journal.with_name(journal.name + ".notes")), *_in_chain(journal)]


def labels_of(journal: Path) -> dict[int, Note]:
    """The last label of each decision that has one. Raises SinkError."""
    return {note.seq: note for note in read_notes(journal) if note.seq is not None and note.kind != "acknowledged"}


def _in_chain(journal: Path) -> list[Note]:
    if not journal.exists():
        return []
    with reading(journal) as connection:
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'chain'").fetchone():
            return []
        rows = connection.execute(f"SELECT seq, body FROM chain WHERE kind IN (?, ?) AND {RARE} ORDER BY n", (LABEL, ALARM)).fetchall()
    notes = []
    for seq, body in rows:
        note = _decoded(body)
        if note is not None:
            notes.append(msgspec.structs.replace(note, seq=seq if isinstance(seq, int) else None))
    return notes


def _of_before(path: Path) -> list[Note]:
    try:
        lines = read_whole(path, _MOST_BYTES).splitlines() if path.exists() else []
    except OSError as e:
        raise SinkError(f"{path}: could not be read: {e.strerror}") from e
    return [note for line in lines if (note := _decoded(line)) is not None]


def _decoded(text: object) -> Note | None:
    try:
        return msgspec.json.decode(text, type=Note) if isinstance(text, str | bytes) else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
