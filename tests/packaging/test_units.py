"""systemd's opinion of the unit files, and what they must say about exit codes."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edge_runtime import errors

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "systemd"

systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this machine has no systemd-analyze")


def verify(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", root / "deploy/verify_units.sh"], capture_output=True, text=True, timeout=60)


@systemd
def test_systemd_accepts_the_units_and_finds_them_locked_up() -> None:
    done = verify(ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "systemd units: verified\n"


@systemd
@pytest.mark.parametrize(
    ("unit", "old", "new"),
    [
        ("lineside@.service", "WatchdogSec=10", "WatchdogSecs=10"),
        ("lineside@.service", "Restart=on-failure", "Restart=sometimes"),
        ("lineside@.service", "CapabilityBoundingSet=\n", "PrivateTmp=no\n"),
        ("lineside-overlay@.service", "RestartSec=3", "RestartSec=soon"),
        ("lineside.target", "[Install]", "[Instal]"),
        ("lineside-metrics@.service", "CapabilityBoundingSet=\n", "SystemCallFilter=\n"),
        ("../deploy/examples/cpus.conf", "CPUAffinity=2-3", "CPUAffinity=two"),
    ],
)
def test_a_slip_in_a_unit_is_found(tmp_path: Path, unit: str, old: str, new: str) -> None:
    for part in ("systemd", "deploy"):
        shutil.copytree(ROOT / part, tmp_path / part)
    text = (tmp_path / "systemd" / unit).read_text()
    assert old in text
    (tmp_path / "systemd" / unit).write_text(text.replace(old, new, 1))
    assert verify(tmp_path).returncode != 0


def test_what_trying_again_cannot_mend_is_not_tried_again() -> None:
    text = (UNITS / "lineside@.service").read_text()
    listed = re.search(r"^RestartPreventExitStatus=(.*)$", text, re.MULTILINE)
    assert listed is not None
    hopeless = {2, errors.ConfigError.exit_code, errors.BundleError.exit_code, errors.MissingExtra.exit_code}
    assert {int(code) for code in listed[1].split()} == hopeless


def test_a_lost_camera_or_plc_is_tried_again() -> None:
    text = (UNITS / "lineside@.service").read_text()
    assert "Restart=on-failure" in text
    assert "StartLimitIntervalSec=0" in text
    assert "Type=notify" in text
