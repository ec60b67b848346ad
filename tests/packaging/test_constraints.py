"""deploy/constraints: what pyproject.toml asks for is pinned, and a file that is not the very one is refused by a real pip."""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.packaging.machine import ROOT

pytestmark = pytest.mark.timeout(900)  # builds and installs

FILES = sorted((ROOT / "deploy/constraints").glob("py3*.txt"))
EXTRAS = ("plc", "cameras", "stream", "headless")


def pinned(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))


def test_each_python_that_is_supported_has_its_file() -> None:
    assert [f.name for f in FILES] == ["py311.txt", "py312.txt", "py313.txt"]


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_what_is_pinned_is_what_is_asked_for(file: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = pinned(file.read_text())
    extras = project["optional-dependencies"]
    for line in (*project["dependencies"], *(line for extra in EXTRAS for line in extras[extra])):
        asked = Requirement(line)
        assert versions[asked.name] in asked.specifier, f"{asked}: run make constraints"


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_everything_pinned_has_hashes_and_says_nothing_of_where_it_came_from(file: Path) -> None:
    text = file.read_text()
    entries = text.replace("\\\n", " ").splitlines()
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+( +--hash=sha256:[0-9a-f]{64})+", e) for e in entries if e), "one entry a line, with hashes"
    assert "://" not in text


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_a_station_gets_one_opencv_and_the_cameras_it_asked_for(file: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {file.stem.removeprefix('py3')}\n")
    python.chmod(0o755)

    def chosen(*arguments: str) -> set[str]:
        command = [ROOT / "deploy/pinned.sh", python, *arguments]
        return set(pinned(subprocess.run(command, capture_output=True, text=True, check=True).stdout))

    everything = set(pinned(file.read_text()))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    cameras, stream = ({Requirement(line).name for line in extras[extra]} for extra in ("cameras", "stream"))
    assert chosen() == everything - {"opencv-python-headless"} - cameras - stream
    assert chosen("yes") == everything - {"opencv-python"} - cameras - stream
    assert chosen("no", "cameras,stream") == everything - {"opencv-python-headless"}


def wheel(folder: Path, name: str, module: str, version: str = "1.0", text: str = "") -> Path:
    """A small but whole one."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    files = {
        f"{module}.py": f"{text}\ndef main(): print('{name} {version}')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {module}:main\n",
    }
    record = ""
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(content)}\n"
    out = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(out, "w") as archive:
        for path, content in {**files, f"{info}/RECORD": record + f"{info}/RECORD,,\n"}.items():
            archive.writestr(path, content)
    return out


PARTS = {"opencv-python": "cv2", "opencv-python-headless": "cv2", "openvino": "openvino", "pyzmq": "zmq"}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A checkout whose `deploy/constraints` pins small wheels; they lie in `wheels`, with Lineside's own."""
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy", ignore=shutil.ignore_patterns("constraints"))
    shutil.copytree(ROOT / "systemd", tmp_path / "systemd")
    for name in ("README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "deploy/constraints").mkdir()
    lines = ""
    for name, module in PARTS.items():
        made = hashlib.sha256(wheel(tmp_path / "wheels", name, module).read_bytes()).hexdigest()
        lines += f"{name}==1.0 \\\n    --hash=sha256:{'0' * 64} \\\n    --hash=sha256:{made}\n"
    (tmp_path / f"deploy/constraints/py3{sys.version_info.minor}.txt").write_text(lines)
    wheel(tmp_path / "wheels", "lineside", "lineside_command", "9.9")
    return tmp_path


def script(shop: Path, name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", shop / "deploy" / name, "--wheels", shop / "wheels", "--python", sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env={**os.environ, "LC_ALL": "C"}, check=False)


def install(shop: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return script(shop, "install.sh", "--prefix", shop / "root", *arguments)


def installed(shop: Path) -> dict[str, str]:
    found = (shop / "root/opt/lineside/venv/lib").glob("python3*/site-packages/*.dist-info")
    versions = dict(path.name.removesuffix(".dist-info").split("-") for path in found)
    return {name.replace("_", "-"): version for name, version in versions.items() if name not in {"pip", "setuptools"}}


def test_the_very_wheels_are_installed_offline_and_a_tampered_one_changes_nothing(shop: Path) -> None:
    wheel(shop / "wheels", "openvino", "openvino", "2.0")  # newer, and not what was pinned
    done = install(shop, "--headless")
    assert done.returncode == 0, done.stdout + done.stderr
    before = installed(shop)
    assert before == {"opencv-python-headless": "1.0", "openvino": "1.0", "pyzmq": "1.0", "lineside": "9.9"}
    wheel(shop / "wheels", "pyzmq", "zmq", text="print('somebody else was here')")
    done = install(shop)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert "pyzmq" in done.stderr
    assert len(list((shop / "root/opt/lineside/releases").iterdir())) == 1
    assert installed(shop) == before


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="a Debian package is built on Debian or Ubuntu")
def test_a_package_that_machines_would_refuse_is_not_made(shop: Path) -> None:
    done = script(shop, "deb.sh", "--out", shop / "dist")
    assert done.returncode == 0, done.stdout + done.stderr
    package = next((shop / "dist").glob("*.deb"))
    subprocess.run(["dpkg-deb", "-x", package, shop / "unpacked"], check=True)
    carried = shop / "unpacked/usr/share/lineside"
    done = script(carried, "install.sh", "--prefix", shop / "root")
    assert done.returncode == 0, done.stdout + done.stderr
    assert installed(shop)["openvino"] == "1.0"
    wheel(shop / "wheels", "openvino", "openvino", text="print('somebody else was here')")
    done = script(shop, "deb.sh", "--out", shop / "again")
    assert done.returncode == 2
    assert "expected the very wheels that deploy/constraints pins" in done.stderr
    assert not (shop / "again").exists()
    assert script(shop, "deb.sh", "--out", shop / "again", "--unpinned").returncode == 0, "who knows better may say so"
