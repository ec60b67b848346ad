"""A protocol more is one row and one file: what deploy/developing/plc.md says is done in a copy of the project, and tested there."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOW_TO = ROOT / "deploy" / "developing" / "plc.md"
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", HOW_TO.read_text(), re.DOTALL)


def _add(file: Path, entry: str, table: str) -> None:
    """A row at the end of the table that begins with that line."""
    before, begin, after = file.read_text().partition(f"\n{table}\n")
    rows, end, rest = after.partition("\n}")
    assert begin and end, f"{file}: expected the table {table}"
    file.write_text(f"{before}{begin}{rows}\n{entry.strip(chr(10))}{end}{rest}")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for folder in ("edge_runtime", "tests", "deploy", "export", "training"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=LEFT_OUT)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def _run(home: Path, *command: str) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(home), "PATH": path}
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"{command}: {done.stdout[-4000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.slow
def test_what_the_how_to_says_makes_a_protocol_that_keeps_every_promise(copied: Path) -> None:
    files, suite, trigger = _blocks("sh")
    row, addresses = _blocks("python")
    _run(copied, "bash", "-ec", files)
    _add(copied / "edge_runtime" / "plc" / "kinds.py", row, "KINDS: Mapping[str, str] = {")
    _add(copied / "tests" / "contract" / "plc_kinds.py", addresses, "ADDRESSES = {")
    said = _run(copied, "bash", "-ec", suite)
    passed = re.search(r"(\d+) passed", said)
    assert passed is not None and int(passed[1]) > 20 and "skipped" not in said, said[-2000:]
    trigger_table = _run(copied, "bash", "-ec", trigger)
    assert tomllib.loads(trigger_table)["trigger"]["kind"] == "jsonline"
    _run(copied, sys.executable, "-m", "pytest", "-q", "tests/unit/edge_runtime/config", "tests/unit/edge_runtime/plc/test_kinds.py")
    untouched = [p for p in (ROOT / "edge_runtime").rglob("*.py") if p.name != "kinds.py"]
    assert all((copied / p.relative_to(ROOT)).read_bytes() == p.read_bytes() for p in untouched)
