"""Decisions of a journal for people and programs: those of some time, each with what the PLC was told of it."""

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_runtime.errors import ConfigError, SinkError
from edge_runtime.records import Decision, Outcome
from edge_runtime.sinks.journal_file import expect_journal, read_page, reading
from edge_runtime.sinks.journal_rows import MOST, UNREADABLE
from edge_runtime.sinks.journal_said import RARE
from edge_runtime.sinks.notes import labels_of

_PAGE = 1000
_LAST_ROWS = 5000
_AHEAD = 2000
"""So many parts further on it is looked for what became of a decision."""


@dataclass(slots=True)
class Told:
    """What the PLC was told of a part, and what people said of it afterwards; empty where there is no PLC, or nothing was."""

    plc_told: str = ""
    """The verdict that it was shown; why it was not."""
    plc_told_at: str = ""
    """ISO 8601, UTC."""
    plc_acknowledged_at: str = ""
    label: str = ""
    """How somebody said that the verdict was wrong: false_reject, missed_defect."""
    label_by: str = ""
    label_at: str = ""
    label_why: str = ""


@dataclass(slots=True)
class Reader:
    """Iterate over it; `lost` then says what could not be read. Raises ConfigError for a time that no calendar of UTC has."""

    path: Path
    since: datetime | None = None
    until: datetime | None = None
    """None of that time and later."""
    lost: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, moment in (("--from", self.since), ("--to", self.until)):
            try:
                _text(moment)
            except (ValueError, OverflowError, OSError) as e:
                raise ConfigError(f"{name}: expected a time from the year 1 to 9999 in UTC, found {moment}; leave it out instead") from e

    def __iter__(self) -> Iterator[tuple[Decision, Told]]:
        expect_journal(self.path)
        since, until = _text(self.since), _text(self.until)
        told, labels = _Deliveries(self.path), labels_of(self.path)
        with closing(told.rows):
            after = 0
            while True:
                page, lost = read_page(self.path, after, _PAGE)
                self.lost += [lost] if lost else []
                for decision in page:
                    of_it = told.of(decision.seq)
                    if (label := labels.get(decision.seq)) is not None:
                        of_it.label, of_it.label_by, of_it.label_at, of_it.label_why = label.kind, label.by, label.wall_time, label.why
                    if (not since or decision.wall_time >= since) and (not until or decision.wall_time < until):
                        yield decision, of_it
                if not page:
                    self.lost += [told.lost] if told.lost else []
                    return
                after = page[-1].seq


def last_said(journal: Path, kinds: Sequence[str], about: Mapping[str, str]) -> tuple[str, dict[str, Any]] | None:
    """(kind, body) of the last of the chain's rows of these kinds whose body says `about`. None where there is none. Raises SinkError."""
    if not journal.exists():
        return None
    with reading(journal) as connection:
        rows = connection.execute(
            f"SELECT kind, body FROM chain WHERE {RARE} AND kind IN ({', '.join('?' * len(kinds))}) ORDER BY n DESC", tuple(kinds)
        )
        for kind, body in rows:
            try:
                said = json.loads(body)
            except (ValueError, RecursionError):
                continue  # `verify` names it
            if isinstance(said, dict) and all(said.get(name) == value for name, value in about.items()):
                return kind, said
    return None


def plc_was_told(journal: Path, seq: int) -> str:
    """What the PLC was shown of one of the last parts; empty where no row says that. Raises SinkError."""
    told = Told()
    with reading(journal) as connection:
        select = "SELECT body FROM chain WHERE kind = 'delivery' AND seq = ? AND n > (SELECT max(n) FROM chain WHERE n <= ?) - ? ORDER BY n"
        for (body,) in connection.execute(select, (seq, MOST, _LAST_ROWS)):
            _add(told, body)
    return told.plc_told


class _Deliveries:
    """Read along with the decisions, some way ahead of them: the chain is in the order in which things happened."""

    def __init__(self, path: Path) -> None:
        self.rows = _deliveries(path)
        self._found: dict[int, Told] = {}
        self._at = 0
        self.lost = ""

    def of(self, seq: int) -> Told:
        """Also of a part of which nothing is known."""
        while self._at < seq + _AHEAD:
            try:
                row = next(self.rows, None)
            except SinkError as e:
                row, self.lost = None, f"what the PLC was told after decision {self._at}: {e}"
            if row is None:
                self._at = 1 << 63
                break
            self._at = max(self._at, row[0])
            _add(self._found.setdefault(row[0], Told()), row[1])
        return self._found.pop(seq, None) or Told()


def _deliveries(path: Path) -> Generator[tuple[int, str], None, None]:
    with reading(path) as connection:
        if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'chain'").fetchone():
            yield from connection.execute("SELECT seq, body FROM chain WHERE kind = 'delivery' AND seq IS NOT NULL ORDER BY n")


def _add(told: Told, body: str) -> None:
    try:
        said = json.loads(body)
        to, outcome, at, detail = (str(said.get(key, "")) for key in ("to", "outcome", "wall_time", "detail"))
    except (*UNREADABLE, AttributeError, RecursionError):
        return  # `verify` names it
    if to != "plc":
        return
    if outcome == Outcome.TOLD:
        told.plc_told, told.plc_told_at = detail, at
    elif outcome == Outcome.ACKNOWLEDGED:
        told.plc_acknowledged_at = at
    elif outcome == Outcome.FAILED and not told.plc_told:
        told.plc_told = f"not told: {detail}"


def _text(moment: datetime | None) -> str:
    """As `wall_time` is written; a time without a zone is this machine's."""
    return "" if moment is None else moment.astimezone(UTC).isoformat(timespec="milliseconds")
