"""What a start loads: a station's PC is slow, and everything that is imported is waited for after each power cut."""

import subprocess
import sys
from pathlib import Path

import pytest

LOADED = "import sys, edge_runtime.{0}; print(*sorted({1!r} & set(sys.modules)))"
OTHERS = {
    "asyncio", "ssl", "typer", "rich", "numpy.random", "edge_runtime.security.door.serving",
    *(f"edge_runtime.sources.{name}" for name in ("aravis", "camera", "folder", "genicam", "guarded", "pylon", "synthetic", "video")),
    *(f"edge_runtime.station.{name}" for name in ("control", "engineering", "verbs")),
    "edge_runtime.plc.line", "edge_runtime.plc.handshake", "edge_runtime.triggers.zeromq",
}  # fmt: skip
"""What only some stations have, and what only commands need."""


@pytest.mark.parametrize(("module", "others"), [("station.launch", OTHERS), ("client", {"asyncio", "ssl", "numpy.ma", "cv2"})])
def test_nothing_is_loaded_that_not_every_station_or_subscriber_needs(module: str, others: set[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LOADED.format(module, others)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_command_loads_openvino_without_its_model_converter() -> None:
    code = (
        "import sys, edge_runtime.cli as cli\ncli.run_app = lambda app: None\ncli.main()\nimport edge_runtime.station.launch, openvino\n"
        "others = {'openvino.tools.ovc.cli_parser', 'importlib.metadata'}\n"
        "print(*sorted(others & set(sys.modules)), openvino.Core().available_devices)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "['CPU']\n"


def test_modules_are_loaded_without_the_garbage_collector_which_runs_again_afterwards(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import gc\nprint(gc.isenabled())\ndef main(): print(gc.isenabled(), gc.get_freeze_count() > 1000)\n")
    code = f"import sys; sys.path.append({str(tmp_path)!r}); from edge_runtime.entry import start; start('slow')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\nTrue True\n"
