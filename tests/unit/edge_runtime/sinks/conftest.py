"""Fixtures of the journal's tests."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def journal(written: Path, tmp_path: Path) -> Path:
    """A copy of the journal that the test's module has written, with all that lies beside it."""
    for file in written.parent.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path / written.name
