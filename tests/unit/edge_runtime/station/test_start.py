"""What a start loads: a station's PC is slow, and everything that is imported is waited for after each power cut."""

import subprocess
import sys

import pytest

LOADED = "import sys, edge_runtime.{0}; print(*sorted({1!r} & set(sys.modules)))"
OTHERS = {
    "asyncio", "ssl", "typer", "rich",
    *(f"edge_runtime.sources.{name}" for name in ("aravis", "camera", "folder", "genicam", "guarded", "pylon", "synthetic", "video")),
    *(f"edge_runtime.station.{name}" for name in ("control", "engineering", "verbs")),
    "edge_runtime.plc.line", "edge_runtime.plc.handshake", "edge_runtime.triggers.zeromq",
}  # fmt: skip
"""What only some stations have, and what only commands need."""


@pytest.mark.parametrize(("module", "others"), [("station.launch", OTHERS), ("client", {"asyncio", "ssl", "numpy.ma", "cv2"})])
def test_nothing_is_loaded_that_not_every_station_or_subscriber_needs(module: str, others: set[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LOADED.format(module, others)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
