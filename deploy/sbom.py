"""Writes what a station is made of, as a CycloneDX document (cyclonedx.org): `python deploy/sbom.py [--out FILE]`.

Read off the pinned versions and hashes that installer and Debian package take (deploy/constraints/), not off what is installed here, so
that two machines write the same file. Why they are pinned: deploy/decisions/0042.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def document(headless: str = "no", extras: str = "plc") -> dict[str, Any]:
    """For this Python. Raises CalledProcessError where the pinned versions cannot be read, or cyclonedx-bom is missing."""
    pinned = subprocess.run(
        ["bash", ROOT / "deploy/pinned.sh", sys.executable, headless, extras], check=True, capture_output=True
    ).stdout  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "pinned.txt"
        requirements.write_bytes(pinned)
        made = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements", requirements, "--pyproject", ROOT / "pyproject.toml",
             "--output-reproducible", "--output-format", "JSON"],
            check=True, capture_output=True,
        ).stdout  # fmt: skip
    found: dict[str, Any] = json.loads(made)
    version = re.search(r'^__version__ = "(.*)"$', (ROOT / "edge_runtime/__init__.py").read_text(), re.MULTILINE)
    assert version is not None
    lineside = found["metadata"]["component"]
    lineside |= {"version": version[1], "purl": f"pkg:pypi/lineside@{version[1]}"}
    for component in found["components"]:
        component.pop("description", None)  # the line that it was read from
    found["dependencies"] = [
        {"ref": lineside["bom-ref"], "dependsOn": sorted(c["bom-ref"] for c in found["components"])},
        *({"ref": c["bom-ref"]} for c in found["components"]),
    ]
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Write what a station is made of, as CycloneDX.")
    parser.add_argument("--out", type=Path, help="Default: dist/lineside-VERSION.cdx.json")
    parser.add_argument("--headless", choices=["yes", "no"], default="no")
    parser.add_argument("--extras", default="plc", help="Those of the station, with commas.")
    asked = parser.parse_args()
    made = document(asked.headless, asked.extras)
    out = asked.out or ROOT / "dist" / f"lineside-{made['metadata']['component']['version']}.cdx.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")
    print(f"{out}: {len(made['components'])} components")


if __name__ == "__main__":
    main()
