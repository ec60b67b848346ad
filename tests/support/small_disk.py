"""A file system of a megabyte, to fill it: a tmpfs in a private mount namespace."""

import functools
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest


@functools.cache
def _why_not() -> str:
    with tempfile.TemporaryDirectory() as folder:
        command = ["unshare", "-m", "mount", "-t", "tmpfs", "none", folder]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stderr.strip()


def run_in_small_disk(code: str, disk: Path, options: str = "size=1m") -> str:
    """The output of a Python program with a disk of its own at `disk`, an empty folder and the program's only argument.

    Skipped where none can be mounted, and only there.
    """
    if why := _why_not():
        pytest.skip(f"a private file system cannot be mounted here: {why}")
    shell = f'mount -t tmpfs -o {options} none {disk} && exec "$@"'
    command = ["unshare", "-m", "bash", "-c", shell, "_", sys.executable, "-c", code, str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
