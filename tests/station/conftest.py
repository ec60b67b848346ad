"""Shared by the tests of the loop."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.predictor import OpenvinoPredictor


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Iterator[OpenvinoPredictor]:
    with OpenvinoPredictor(ModelBundle.open(tiny_bundle)) as predictor:
        yield predictor


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Path, tuple[str, ...]]]:
    """A tmpfs of 8 MB in a mount namespace of its own: its path inside, its path from here, and what to put before a command."""
    inside = tmp_path / "disk"
    inside.mkdir()
    script = f"mount -t tmpfs -o size=8m none {inside} && echo mounted && exec sleep 600"
    with subprocess.Popen(["unshare", "-m", "bash", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stderr is not None
            if holder.stdout.readline() != "mounted\n":
                pytest.skip(f"a private file system cannot be mounted here: {holder.stderr.read().strip()}")
            yield inside, Path(f"/proc/{holder.pid}/root{inside}"), ("nsenter", "-t", str(holder.pid), "-m")
        finally:
            holder.kill()
