"""A decision to send, write, show or count; a test names what it is about, the rest is here."""

from pathlib import Path
from typing import Any

from edge_runtime.records import Decision, Stamps, Verdict, View

SCHEMA_1 = Path(__file__).with_name("schema1")
"""What the last version before schema 2 wrote and sent: the journal of a station with one camera and, from part 5 on, two (top, side),
files of their archives, and a message of each topic."""
_PLAIN: dict[str, Any] = {
    "station": "cell-3", "seq": 1, "part_id": "A-1", "verdict": Verdict.REJECT, "reason": "1 place above the limit", "score": 31.25,
    "threshold": 20.0, "severity": 1.5625, "regions": (), "frame_wh": (640, 480), "bundle_id": "a" * 64, "recipe": "cells",
    "stamps": Stamps(1), "wall_time": "2026-11-21T10:00:00.000+00:00", "source": "",
}  # fmt: skip


_SHARED = ("verdict", "reason", "score", "threshold", "severity", "regions", "frame_wh", "bundle_id", "recipe", "source")
"""What the only view of a part says as well."""


def decision_with(**changes: Any) -> Decision:
    """A reject of a part of cell-3, with `changes` of its fields; without `views` it has that of the only camera, which says the same."""
    values = _PLAIN | changes
    return Decision(**({"views": (view_with(**{name: values[name] for name in _SHARED}, **_stages(values["stamps"])),)} | values))


def view_with(**changes: Any) -> View:
    """What the only camera saw of that part, with `changes`."""
    return View(**({name: _PLAIN[name] for name in _SHARED} | {"camera": ""} | changes))


def _stages(stamps: Stamps) -> dict[str, int]:
    return {"captured_ns": stamps.captured_ns, "grabbed_ns": stamps.grabbed_ns, "predicted_ns": stamps.predicted_ns}
