"""A decision to send, write, show or count; a test names what it is about, the rest is here."""

from typing import Any

from edge_runtime.records import Decision, Stamps, Verdict

_PLAIN: dict[str, Any] = {
    "station": "cell-3", "seq": 1, "part_id": "A-1", "verdict": Verdict.REJECT, "reason": "1 place above the limit", "score": 31.25,
    "threshold": 20.0, "severity": 1.5625, "regions": (), "frame_wh": (640, 480), "bundle_id": "a" * 64, "recipe": "cells",
    "stamps": Stamps(1), "wall_time": "2026-11-21T10:00:00.000+00:00",
}  # fmt: skip


def decision_with(**changes: Any) -> Decision:
    """A reject of a part of cell-3, with `changes` of its fields."""
    return Decision(**(_PLAIN | changes))
