"""The document of what a station is made of: all that is pinned, with version and hashes, and valid for whoever reads such documents."""

import json
import re
import subprocess
import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from edge_runtime import __version__

ROOT = Path(__file__).resolve().parents[2]


def test_what_a_station_is_made_of_is_written_down_whole_valid_and_the_same_twice(tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        subprocess.run([sys.executable, ROOT / "deploy/sbom.py", "--out", tmp_path / name], check=True, capture_output=True, timeout=120)
        texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(texts[0]) is None
    made = json.loads(texts[0])
    assert (made["metadata"]["component"]["name"], made["metadata"]["component"]["version"]) == ("lineside", __version__)
    command = ["bash", ROOT / "deploy/pinned.sh", sys.executable, "no", "plc"]
    pinned = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert {(c["name"], c["version"]) for c in made["components"]} == set(re.findall(r"^([\w.-]+)==([\w.+-]+)", pinned, re.MULTILINE))
    assert all(c["externalReferences"][0]["hashes"] for c in made["components"])
