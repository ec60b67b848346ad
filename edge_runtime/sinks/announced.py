"""Parts that are announced and not decided yet, in a file beside the journal: what a kill takes, the next start answers.

A line is written before the PLC sees its acknowledge. It goes to the system's page cache, as the journal's rows do: a killed process loses
none, a power cut may lose the last. The file has its size from the start and is written over, half by half, so that a disk which fills up
later takes no line from it: numbers that were given are known at the next start. A verdict that is told before the disk has taken its row
is written down here as well, before anybody is told: the row that the next start writes for it says the same.

No line is signed. One that no station writes is left out, and health says so: a number that SQLite cannot hold would have the journal
refuse each decision that follows it.

Why: deploy/decisions/0044 and deploy/decisions/0055.
"""

import contextlib
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from edge_runtime.errors import SinkError
from edge_runtime.files import opened
from edge_runtime.records import Cause, Decision, Stamps, Trigger, Verdict, View
from edge_runtime.sinks.journal_rows import AHEAD

_BYTES = 1 << 18
"""The size of both halves, each for some twelve hundred parts, or three hundred that are told without a row."""
KEPT = 16
"""So many parts stay at an end at which all are decided: the PLC may still wait for one of them."""
_LONGEST = 65_536
"""Characters of a name: no trigger line takes a longer announcement."""
_BIGGEST = (1 << 63) - 1


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a decision whose row was not there when it was told."""

    seq: int
    verdict: Verdict
    cause: Cause
    wall_time: str
    score: float | None
    threshold: float
    severity: float | None
    bundle_id: str
    recipe: str

    def decision(self, station: str, trigger: Trigger) -> Decision:
        """As the row that the next start writes."""
        reason = (
            f"Told {self.verdict.value} before the disk had its row; the station ended before it was written, "
            "so no more is known of it than this, taken from the list of announced parts (.announced), which is not signed."
        )
        shared = self.verdict, reason, self.score, self.threshold, self.severity, (), (0, 0), self.bundle_id, self.recipe
        stamps = Stamps(trigger.fired_ns, 0, 0, 0, 0, 0)
        return Decision(station, self.seq, trigger.part_id, *shared, stamps, self.wall_time, (View("", *shared),), self.cause)


class _Line(msgspec.Struct, frozen=True):
    told: Told


_log = logging.getLogger(__name__)
_LINES = re.compile(rb"[^\0\n]+")
"""Most of the file is zeros, over which this goes at once: a hundred thousand empty lines take a station's start a tenth of a second."""
_T = TypeVar("_T")
_decoder = msgspec.json.Decoder(Trigger)
_told_decoder = msgspec.json.Decoder(_Line)
_encoder = msgspec.json.Encoder()


class Announced:
    """A context manager. `note` is for any thread, and never raises: a part is decided all the same, and `problem` says what it costs."""

    def __init__(self, journal: Path, last_seq: Callable[[], int], noted: Callable[[Trigger], None] = lambda trigger: None) -> None:
        """`journal`: the journal's file; `last_seq`: the last decision that is in it; `noted`: called once for each part, never waits."""
        self.path = journal.with_name(journal.name + ".announced")
        self._unwritten: str | None = None
        self._odd = 0
        self._decided, self._tell = last_seq, noted
        self._lock = threading.Lock()
        self._open: deque[tuple[int, bytes]] = deque(maxlen=1000)
        self._last: deque[bytes] = deque(maxlen=KEPT)
        self._noted = self._at = 0
        self._half = _BYTES // 2
        self._file = -1

    def __enter__(self) -> Self:
        """Open the file and take its room. Raises SinkError where it cannot be written."""
        try:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o640)
            taken = os.fstat(self._file).st_size
            if taken < _BYTES:  # zeros that are written, for what is only reserved may still want room when it is
                os.pwrite(self._file, bytes(_BYTES - taken), taken)
        except OSError as e:
            self._close()
            raise self._unwritable(e) from e
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        with contextlib.suppress(SinkError):
            if self._decided() >= self._noted and self._last:
                self.forget()
                self._write(b"".join(self._last))
        self._close()

    @property
    def problem(self) -> str | None:
        """A sentence for health."""
        if self._unwritten is not None or not self._odd:
            return self._unwritten
        return (
            f"{self.path}: no station writes what stood in {self._odd} of its lines, such as a number far from the last part's; left out: "
            "somebody else has written to it; see who may, and start the station again"
        )

    def left(self) -> list[Trigger]:
        """What stood here when the last run ended, by seq; the journal knows which of them were decided. A torn line is none."""
        found, self._odd = dict[int, Trigger](), 0
        for trigger in self._read(_decoder):
            if self._is_ours(trigger.seq, trigger.part_id, trigger.recipe, trigger.refused, trigger.fired_ns, trigger.since_ns):
                found[trigger.seq] = trigger
            else:
                self._leave_out(trigger.seq)
        return [found[seq] for seq in sorted(found)]

    def told(self) -> dict[int, Told]:
        """What was told before its row was there, by seq: the last word of each."""
        found: dict[int, Told] = {}
        for told in (line.told for line in self._read(_told_decoder)):
            if self._is_ours(told.seq, told.bundle_id, told.recipe) and _is_a_time(told.wall_time):
                found[told.seq] = told
            else:
                self._leave_out(told.seq)
        return found

    def _read(self, decoder: msgspec.json.Decoder[_T]) -> Iterator[_T]:
        with contextlib.suppress(OSError):
            for line in self._lines():
                with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                    yield decoder.decode(line)

    def _is_ours(self, seq: int, *values: str | int) -> bool:
        """Whether a station may have written a line with these names and times."""
        return 1 <= seq <= min(self._decided() + AHEAD, _BIGGEST >> 1) and all(
            len(value) <= _LONGEST if isinstance(value, str) else 0 <= value <= _BIGGEST for value in values
        )

    def contradicted(self, seq: int) -> None:
        """What a line says was told of a part is not what its journal says that the PLC was told: no station writes that."""
        self._odd += 1
        _log.error("%s: a line about part %d was left out: the PLC was told something else, as the journal says", self.path, seq)

    def _leave_out(self, seq: int) -> None:
        self._odd += 1
        if self._odd == 1:
            _log.error("%s: a line about part %s was left out: no station writes such a one after part %d", self.path, seq, self._decided())

    def _lines(self) -> list[bytes]:
        """Raises OSError. What lies beyond both halves was never written here."""
        with opened(self.path) as file:
            return _LINES.findall(file.read(_BYTES))

    def forget(self) -> None:
        """All of them have their decisions. Raises SinkError."""
        try:
            os.pwrite(self._file, bytes(_BYTES), 0)
            os.truncate(self._file, _BYTES)
        except OSError as e:
            raise self._unwritable(e) from e
        self._at, self._half = 0, _BYTES // 2

    def note(self, trigger: Trigger) -> None:
        """Write one part down, once."""
        with self._lock:
            if trigger.seq <= self._noted or self._file < 0:
                return
            self._noted = trigger.seq
            self._tell(trigger)
            line = _encoder.encode(trigger) + b"\n"
            self._last.append(line)
            self._add(trigger.seq, line)

    def unwritten(self, decision: Decision) -> None:
        """Write down what is about to be told of a part although its row is not there yet."""
        d = decision
        told = Told(
            seq=d.seq, verdict=d.verdict, cause=d.cause, wall_time=d.wall_time, score=d.score, threshold=d.threshold, severity=d.severity,
            bundle_id=d.bundle_id, recipe=d.recipe,
        )  # fmt: skip
        with self._lock:
            if self._file >= 0:
                self._add(d.seq, _encoder.encode(_Line(told)) + b"\n")

    def _add(self, seq: int, line: bytes) -> None:
        decided = self._decided()
        while self._open and self._open[0][0] <= decided:
            self._open.popleft()
        self._open.append((seq, line))
        try:
            if self._at + len(line) > self._half:
                self._turn(len(line))
            self._write(line)
            self._unwritten = None
        except OSError as e:
            self._unwritten = f"{self.path}: {e.strerror}: a part that a kill takes would have no decision"

    def _turn(self, room: int) -> None:
        """Go on in the other half, with those that are open: the newest, where not all have room. What this half holds stays until then."""
        self._at, self._half = (_BYTES // 2, _BYTES) if self._half != _BYTES else (0, _BYTES // 2)
        os.pwrite(self._file, bytes(_BYTES // 2), self._at)
        open_ = [line for _, line in self._open][:-1]
        while open_ and sum(map(len, open_)) > _BYTES // 4 - room:
            del open_[: len(open_) // 2 + 1]
        self._write(b"".join(open_))

    def _write(self, data: bytes) -> None:
        self._at += os.pwrite(self._file, data, self._at)

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _unwritable(self, e: OSError) -> SinkError:
        return SinkError(f"{self.path}: cannot be written: {e.strerror}; give [journal] a path that the station may write to")


def _is_a_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
