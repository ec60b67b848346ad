"""Decisions as they are made, a line each: for people in colour, for programs as JSON."""

from datetime import datetime
from pathlib import Path

import msgspec
from rich.text import Text

from edge_runtime.client import Gap
from edge_runtime.errors import printable
from edge_runtime.records import Decision, Verdict

_COLOURS = {Verdict.ACCEPT: "bold green", Verdict.REJECT: "bold red", Verdict.FAULT: "bold black on yellow"}


def line_of(item: Decision | Gap) -> Text:
    """Local time, number, part, verdict, severity, trigger-to-decision time, the picture's file where it is one, reason."""
    if isinstance(item, Gap):
        return Text(f"decisions {item.first_seq} to {item.last_seq} are lost: {item.reason}", style="bold black on yellow")
    clock = datetime.fromisoformat(item.wall_time).astimezone().strftime("%H:%M:%S.%f")[:-3]
    took_ms = (item.stamps.decided_ns - item.stamps.fired_ns) / 1e6
    severity = "     -" if item.severity is None else f"{item.severity:6.2f}"
    part_id = printable(item.part_id)
    picture = f"{printable(Path(item.source).name)}  " if item.source else ""
    return Text.assemble(
        (clock, "dim"), f" {item.seq:>7} ", (f"{part_id:<12.12} ", "cyan"), (f" {item.verdict:<6} ", _COLOURS[item.verdict]),
        f" {severity} {took_ms:6.1f} ms  ", (picture, "dim"), printable(item.reason),
    )  # fmt: skip


def json_of(item: Decision | Gap) -> str:
    """One object on one line: a decision as in edge_runtime.records, or {"gap": {"first_seq", "last_seq", "reason"}}."""
    return msgspec.json.encode({"gap": item} if isinstance(item, Gap) else item).decode()
