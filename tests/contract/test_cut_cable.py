"""A cable that is pulled out and put back: what the station wrote meanwhile is not read by the PLC's next part."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.plc_kinds import KINDS


def _run(kind: str, end: str) -> str:
    """What tests/contract/cut_cable.py printed; skipped without a network of its own, which wants root."""
    if subprocess.run(["unshare", "-n", "ip", "link", "set", "lo", "up"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs root for a network of its own, and iproute2")
    command = ["unshare", "-n", sys.executable, "-m", "tests.contract.cut_cable", kind, end]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env=os.environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("end", ["close", "kill", "late"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_while_the_cable_was_out_never_arrives(kind: str, end: str) -> None:
    assert _run(kind, end) == "nothing"


def test_a_device_that_serves_one_connection_lets_go_of_the_one_that_a_cut_left_it() -> None:
    assert _run("modbus", "again") == "connected"
