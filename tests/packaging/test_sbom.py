"""The document of what a station is made of: all that is pinned, with version and hashes, and valid for whoever reads such documents."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from edge_runtime import __version__

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_what_a_station_is_made_of_is_written_down_whole_and_valid(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "deploy/sbom.py", "--out", tmp_path / "sbom.json"], check=True, capture_output=True)
    text = (tmp_path / "sbom.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    made = json.loads(text)
    assert (made["metadata"]["component"]["name"], made["metadata"]["component"]["version"]) == ("lineside", __version__)
    command = ["bash", ROOT / "deploy/pinned.sh", sys.executable, "no", "plc"]
    pinned = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert {(c["name"], c["version"]) for c in made["components"]} == set(re.findall(r"^([\w.-]+)==([\w.+-]+)", pinned, re.MULTILINE))
    assert all(c["externalReferences"][0]["hashes"] for c in made["components"])
    assert "serialNumber" not in made, "nor anything else that differs from machine to machine"
    assert "timestamp" not in made["metadata"]
