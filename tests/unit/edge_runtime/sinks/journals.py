"""What tests of the journal share."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_runtime.config.files import JournalConfig
from edge_runtime.records import Decision, Region, Stamps
from tests.support.decisions import decision_with


def a_decision(seq: int, **changes: Any) -> Decision:
    values: dict[str, Any] = {
        "seq": seq, "part_id": f"A-{seq}", "regions": (Region(1, 2, 30, 40, 500, 33.0),),
        "wall_time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "stamps": Stamps(1_000_000, 2_000_000, 3_500_000, 9_000_000, 9_100_000, 9_200_000),
    }  # fmt: skip
    return decision_with(**(values | changes))


def settings(path: Path, **changes: Any) -> JournalConfig:
    # A loaded test machine must not make a commit late where lateness is not the point.
    return JournalConfig(**({"path": path, "commit_timeout_ms": 5000.0} | changes))
