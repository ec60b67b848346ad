"""Cameras that run on a developer's machine: Basler's emulation, Aravis' fake GigE Vision camera, the genicam wheel's GenTL producer."""

import ctypes
import importlib.util
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["PYLON_CAMEMU"] = "2"  # read when pypylon is loaded, which no test has done yet
_CLONE_NEWNET = 0x40000000
_PACKAGES = "bash deploy/testbench.sh installs it"


@pytest.fixture
def pylon_camera() -> str:
    """Serial number of an emulated camera."""
    if importlib.util.find_spec("pypylon") is None:
        pytest.skip("needs pypylon: pip install 'lineside[cameras]'")
    return "0815-0000"


@pytest.fixture
def producer() -> Path:
    """A .cti file with three virtual cameras."""
    found = importlib.util.find_spec("genicam")
    if found is None or found.origin is None or importlib.util.find_spec("harvesters") is None:
        pytest.skip("needs harvesters and genicam: pip install 'lineside[cameras]'")
    return Path(found.origin).parent / "viky.cti"


@pytest.fixture
def own_network() -> Iterator[None]:
    """A network namespace with only a loopback for this thread and those that it starts: looking for GigE cameras is a broadcast."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as before:
        if libc.unshare(_CLONE_NEWNET) != 0:
            pytest.skip(f"needs root for a network of its own: {os.strerror(ctypes.get_errno())}")
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            assert libc.setns(before.fileno(), _CLONE_NEWNET) == 0


class GigeCamera:
    """Aravis' fake camera: real GVCP and GVSP over UDP on the loopback."""

    address = "127.0.0.1"

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, lost_per_mille: int = 0) -> None:
        """Returns when it answers."""
        command = ["arv-fake-gv-camera-0.8", "-i", self.address, "-r", str(lost_per_mille)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 5
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.connect((self.address, 3956))
            s.settimeout(0.1)
            while time.monotonic() < until:
                try:
                    s.send(bytes.fromhex("4201000200000001"))  # GVCP: who is there?
                    s.recv(1000)
                    return
                except OSError:
                    time.sleep(0.02)
        raise AssertionError("the fake camera does not answer")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def gige_camera(own_network: None) -> Iterator[GigeCamera]:
    """It runs; start and kill it as you like."""
    try:
        ctypes.CDLL("libaravis-0.8.so.0")
    except OSError:
        pytest.skip(f"needs libaravis-0.8-0: {_PACKAGES}")
    if shutil.which("arv-fake-gv-camera-0.8") is None:
        pytest.skip(f"needs arv-fake-gv-camera-0.8: {_PACKAGES}")
    camera = GigeCamera()
    camera.start()
    yield camera
    camera.kill()
