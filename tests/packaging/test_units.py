"""systemd's opinion of the unit files, and what they must say about exit codes."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_runtime import errors
from edge_runtime.cli import app
from edge_runtime.records import Verdict
from edge_runtime.sinks.journal import read_decisions
from tests.support import sandbox
from tests.support.ports import free_ports

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


STATION = (
    'name = "s"\nrecipe = "r.toml"\n[source]\n{source}\n[trigger]\nkind = "modbus"\nhost = "192.168.0.10"\ninputs.trigger = "coil:0"\n'
    '[publisher]\nendpoint = "tcp://*:5560"\n[security]\nplain = true\n{security}'
)


def drop_in_of(tmp_path: Path, source: str, security: str) -> str:
    file = tmp_path / "station.toml"
    file.write_text(STATION.format(source=source, security=security))
    done = CliRunner().invoke(app, ["unit", str(file)])
    assert done.exit_code == 0, done.output
    return done.stdout


@systemd
@pytest.mark.parametrize(
    ("source", "allowed", "exposure"),
    [
        ('kind = "camera"\ndevice = "rtsp://192.168.0.20/stream"', ["localhost", "192.168.0.10", "192.168.0.20", "192.168.7.0/24"], 11),
        ('kind = "camera"\ndevice = 0', ["localhost", "192.168.0.10", "192.168.7.0/24"], 15),
        ('kind = "pylon"', ["localhost", "192.168.0.10", "192.168.7.0/24"], 15),
    ],
)
def test_the_service_talks_to_what_its_station_names_and_is_locked_up(
    tmp_path: Path, source: str, allowed: list[str], exposure: int
) -> None:
    text = drop_in_of(tmp_path, source, 'networks = ["192.168.7.0/24"]\n')
    assert re.findall("IPAddressAllow=(.*)", text) == allowed
    assert "IPAddressDeny=any" in text
    unit = tmp_path / "lineside@line-1.service"
    unit.write_text((UNITS / "lineside@.service").read_text().replace("/opt/lineside/venv/bin/lineside", "/bin/true"))
    folder = tmp_path / "lineside@line-1.service.d"
    folder.mkdir()
    (folder / "station.conf").write_text(text)
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=one", unit], capture_output=True, text=True, timeout=60
    )
    assert (said.returncode, said.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={exposure}", unit]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0


def test_what_the_unit_cannot_know_is_said(tmp_path: Path) -> None:
    text = drop_in_of(tmp_path, 'kind = "pylon"', "")
    assert "# publisher.endpoint tcp://*:5560: nobody beyond this machine reaches it" in text
    assert "# a GigE camera is reached through [security] networks alone" in text
    assert "PrivateDevices" not in text


@pytest.mark.skipif(sandbox.missing() is not None, reason=str(sandbox.missing()))
def test_a_station_runs_under_the_unit_s_system_calls_and_its_view_of_proc(station_dir: Path) -> None:
    """OpenVINO, OpenCV, SQLite and the door find all that they need; what the filter denies is denied."""
    ports = free_ports(2)
    (station_dir / "station.toml").write_text(
        'name = "s"\nrecipe = "recipe.toml"\n[source]\nkind = "folder"\npath = "parts"\n[trigger]\nkind = "timer"\nperiod_ms = 50\n'
        f'[publisher]\nendpoint = "tcp://127.0.0.1:{ports[0]}"\nreplay = "tcp://127.0.0.1:{ports[1]}"\n[preview]\n'
        f'endpoint = "ipc://{station_dir}/p"\n[archive]\npath = "archive"\nquota_mb = 10\n[control]\nendpoint = "ipc://{station_dir}/c"\n'
    )
    recipe = station_dir / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("deadline_ms = 500", "deadline_ms = 10000"))
    under = [sys.executable, "-m", "tests.support.sandbox", UNITS / "lineside@.service", sys.executable]
    inside = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 200}
    denied = subprocess.run([*under, "-c", "import os; os.path.exists('/proc/cpuinfo') or os.chown('/', 0, 0)"], **inside)
    assert "Operation not permitted" in denied.stderr
    done = subprocess.run([*under, "-m", "edge_runtime.cli", "run", station_dir / "station.toml"], **inside)
    assert done.returncode == 0, done.stderr
    verdicts = [d.verdict for d in read_decisions(station_dir / "journal.sqlite", 0, 100)]
    assert verdicts.count(Verdict.ACCEPT) == 4 and verdicts.count(Verdict.REJECT) == 2
