"""deploy/deb.sh: what dpkg does with the package that it makes. dpkg itself installs, upgrades and removes it, below a folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.machine import ROOT, Machine

pytestmark = [
    pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="a Debian package is built on Debian or Ubuntu"),
    pytest.mark.timeout(900),  # builds and installs
]


def deb(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", ROOT / "deploy/deb.sh", "--python", sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "LC_ALL": "C"}, check=False)


def build(folder: Path, version: str, *arguments: str) -> Path:
    wheels = folder / f"wheels-{version}"
    wheels.mkdir()
    (wheels / f"lineside-{version}-py3-none-any.whl").touch()
    done = deb("--wheels", wheels, "--unpinned", "--out", folder / "dist", *arguments)
    assert done.returncode == 0, done.stderr
    return next((folder / "dist").glob(f"lineside_{version}_*.deb"))


def field(package: Path, name: str) -> str:
    return subprocess.run(["dpkg-deb", "-f", package, name], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    (machine.tools / f"python3.{sys.version_info.minor}").symlink_to(machine.python)
    database = machine.root / "var/lib/dpkg"
    for name in ("info", "updates", "triggers"):
        (database / name).mkdir(parents=True)
    (database / "status").touch()
    return machine


def dpkg(machine: Machine, *arguments: str | Path) -> str:
    forced = ["not-root", "depends", "bad-path", "script-chrootless"]
    command = ["dpkg", f"--root={machine.root}", f"--log={machine.root}/log", *(f"--force-{f}" for f in forced), *arguments]
    environment = {**os.environ, "PATH": f"{machine.tools}:{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_is_for_the_python_that_its_wheels_are_for(tmp_path: Path) -> None:
    minor = sys.version_info.minor
    package = build(tmp_path, "1.0")
    assert field(package, "Version") == "1.0"
    needs = field(package, "Depends")
    assert f"python3 (>= 3.{minor}), python3 (<< 3.{minor + 1}), python3-venv" in needs
    assert "libgl1" in needs
    assert "libgl1" not in field(build(tmp_path, "2.0", "--headless"), "Depends")


def test_apt_installs_upgrades_and_removes_a_station_and_keeps_what_is_the_users(machine: Machine, tmp_path: Path) -> None:
    for version in ("1.0", "1.1"):
        machine.version.write_text(version)
        dpkg(machine, "--install", build(tmp_path, version, "--extras", "cameras"))
        assert machine.runs() == version
        assert (tmp_path / "pip").read_text().strip().endswith(f"lineside-{version}-py3-none-any.whl[plc,cameras]")
    assert machine.releases() == 2, "the way back is there"
    station = machine.root / "etc/lineside/station.toml"
    assert station.is_file()
    unit = machine.root / "etc/systemd/system/lineside@.service"
    assert unit.is_file()
    dpkg(machine, "--remove", "lineside")
    assert not machine.opt.exists()
    assert not unit.exists()
    assert "etc/lineside stays as it is" in dpkg(machine, "--purge", "lineside")
    assert station.is_file()
    assert (machine.root / "var/lib/lineside").is_dir()


def test_an_upgrade_that_fails_leaves_the_release_in_use(machine: Machine, tmp_path: Path) -> None:
    machine.version.write_text("1.0")
    dpkg(machine, "--install", build(tmp_path, "1.0"))
    machine.version.write_text("broken")
    with pytest.raises(AssertionError, match=r"libGL\.so\.1"):
        dpkg(machine, "--install", build(tmp_path, "1.1"))
    assert machine.runs() == "1.0"
    machine.version.write_text("1.1")
    dpkg(machine, "--configure", "lineside")
    assert machine.runs() == "1.1"


def test_a_slip_in_the_arguments_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "other-1.whl").touch()
    for arguments, message in (
        (["--hedless"], "unknown option --hedless"),
        (["--out"], "needs a value"),
        (["--extras", "gpu"], "expected cameras"),
        (["--wheels", "/no"], "found no wheels in /no"),
        (["--wheels", tmp_path], "expected one wheel of lineside among the wheels, found 0"),
    ):
        done = deb(*arguments)
        assert done.returncode == 2
        assert message in done.stderr
