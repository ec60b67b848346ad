"""Decisions as rows of the journal, and back; and what else is written into its chain.

`views` is JSON, a list with one object a camera; it is empty where the only view says what the row says already, and is then made of that
when it is read. `cause` is a FAULT's number (records.Cause), `source` the picture's file, where it was one.
"""

import math
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from edge_runtime.records import Cause, Decision, Delivery, Region, Stamps, Trigger, Verdict, View
from edge_runtime.security.chain import Value

COLUMNS = (
    "seq", "wall_time", "station", "part_id", "verdict", "reason", "score", "threshold", "severity", "regions", "frame_width",
    "frame_height", "bundle_id", "recipe", "fired_ns", "captured_ns", "grabbed_ns", "predicted_ns", "decided_ns", "told_ns", "views",
    "cause", "source",
)  # fmt: skip
"""In the order of `Row`, and of the values that the chain's hash covers."""

AMENDED = ("verdict", "reason", "score", "severity", "regions", "told_ns", "wall_time", "cause", "views")
"""Columns of a decision that what was told instead may change."""

LATER = {"views": ("TEXT", "'[]'"), "cause": ("INTEGER", "0"), "source": ("TEXT", "''")}
"""Columns that journals of the first versions lack: type and default."""

UNREADABLE = (sqlite3.Error, msgspec.DecodeError, ValueError, TypeError, OverflowError)
"""What a damaged file raises; text that is none, and values that no decision holds, are among them."""

MOST = 1 << 62
"""The largest number of a row or a decision: no station counts so far, and what is one more still fits into SQLite's 64 bits."""

AHEAD = 10**10
"""So many numbers may be missing in a row, where an older journal was put there or rows were taken: ten years at thirty a second. A few
numbers of that kind that somebody has made up do not reach the end of what SQLite counts to."""

Row = tuple[Value, ...]
"""One decision as the columns of the table."""

_Typed = tuple[
    int, str, str, str, Verdict, str, float | None, float, float | None, str, int, int, str, str,
    int, int, int, int, int, int, str, int, str,
]  # fmt: skip
_regions = msgspec.json.Decoder(tuple[Region, ...])
_views = msgspec.json.Decoder(tuple[View, ...])
_json = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Entry:
    """What waits to be written: a row of the chain, and the decision's values where it is one."""

    kind: str
    seq: int | None
    body: str = ""
    row: Row = ()
    written: bool = False
    synced: bool | None = None
    """Whether the disk has it by now; None where nobody waits for that."""
    ticket: int = 0
    """A decision's place among all that were put."""


def row_of(d: Decision) -> Row:
    """The row of a decision."""
    s = d.stamps
    alone = _only_view(d.verdict, d.reason, d.score, d.threshold, d.severity, d.regions, d.frame_wh, d.bundle_id, d.recipe, s, d.source)
    return (
        d.seq, d.wall_time, d.station, d.part_id, d.verdict.value, d.reason, _real(d.score), _real(d.threshold), _real(d.severity),
        msgspec.json.encode(d.regions).decode(), *d.frame_wh, d.bundle_id, d.recipe,
        s.fired_ns, s.captured_ns, s.grabbed_ns, s.predicted_ns, s.decided_ns, s.told_ns,
        "[]" if d.views == (alone,) else msgspec.json.encode(d.views).decode(), int(d.cause), d.source,
    )  # fmt: skip


def decision_of(row: tuple[Any, ...]) -> Decision:
    """The decision of a row. Raises what is in `UNREADABLE` where it holds none."""
    seq, wall_time, station, part_id, verdict, reason, score, threshold, severity, regions, width, height, *more = msgspec.convert(
        row, _Typed
    )
    bundle_id, recipe, *stamps, views, cause, source = more
    shared = verdict, reason, score, threshold, severity, _regions.decode(regions), (width, height), bundle_id, recipe
    times = Stamps(*stamps)
    seen = _views.decode(views) or (_only_view(*shared, times, source),)
    return Decision(station, seq, part_id, *shared, times, wall_time, seen, Cause(cause), source)


def announced(trigger: Trigger) -> Entry:
    """That a part was announced."""
    said = {"part_id": trigger.part_id, "recipe": trigger.recipe, "refused": trigger.refused, "fired_ns": trigger.fired_ns}
    return Entry("announced", trigger.seq, _json(said).decode())


def delivered(delivery: Delivery) -> Entry:
    """What became of a decision at one of its receivers."""
    said = {"to": delivery.to, "outcome": delivery.outcome, "at_ns": delivery.at_ns, "wall_time": wall_time(), "detail": delivery.detail}
    return Entry("delivery", delivery.seq, _json(said).decode())


def about(kind: str, seq: int | None = None, /, **said: Any) -> Entry:
    """A row about the journal itself, or what somebody says of it or of the decision `seq`."""
    return Entry(kind, seq, _json(said).decode())


def wall_time() -> str:
    """Now, as decisions have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _real(value: float | None) -> float | None:
    """As SQLite gives it back: it knows no NaN, and one zero alone."""
    return None if value is None or math.isnan(value) else float(value) + 0.0


def _only_view(
    verdict: Verdict, reason: str, score: float | None, threshold: float, severity: float | None, regions: tuple[Region, ...],
    frame_wh: tuple[int, int], bundle_id: str, recipe: str, stamps: Stamps, source: str,
) -> View:  # fmt: skip
    """What the only camera saw where its judgement is the part's."""
    times = stamps.captured_ns, stamps.grabbed_ns, stamps.predicted_ns
    return View("", verdict, reason, score, threshold, severity, regions, frame_wh, bundle_id, recipe, *times, source)
