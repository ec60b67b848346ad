"""The example of a plug-in, installed as its user installs it: its own suite, `lineside check`, a station, and teaching with its method."""

import csv
import os
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import cv2
import pytest

from edge_runtime.sinks.journal import read_decisions
from tests.conftest import good_image
from tests.support.ports import free_ports

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "deploy" / "examples" / "plugin"
COMMANDS = {"lineside": ("edge_runtime.entry", "main"), "lineside-train": ("export.entry", "train")}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that sees what this one has, and the example besides."""
    directory = tmp_path_factory.mktemp("plugin") / "venv"
    venv.create(directory, with_pip=False, symlinks=True)
    packages = next((directory / "lib").glob("python3*")) / "site-packages"
    (packages / "outside.pth").write_text("\n".join([str(ROOT), *site.getsitepackages()]) + "\n")
    own = directory / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", own, "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--no-index", "--no-deps", "--no-build-isolation", EXAMPLE])
    return own


def run(command: Sequence[str | Path], cwd: Path = Path("/"), ok: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, cwd=cwd, timeout=600, env=environment)
    assert not ok or done.returncode == 0, done.stdout + done.stderr
    return done


def command(python: Path, name: str, *arguments: str | Path) -> list[str | Path]:
    module, function = COMMANDS[name]
    return [python, "-c", f"import sys; sys.argv[0] = {name!r}; from {module} import {function}; {function}()", *arguments]


def write(folder: Path, more: str = "", sink: str = 'kind = "csv"\npath = "decisions.csv"') -> Path:
    ports = free_ports(2)
    file = folder / "station.toml"
    file.write_text(
        'name = "s"\nrecipe = "recipe.toml"\n[source]\nkind = "card"\nside = 64\nspot_every = 3\n' + more + "[trigger]\n"
        f'kind = "timer"\nperiod_ms = 100\ncount = 9\n[[sink]]\n{sink}\n'
        f'[publisher]\nendpoint = "tcp://127.0.0.1:{ports[0]}"\nreplay = "tcp://127.0.0.1:{ports[1]}"\n'
    )
    return file


def test_the_example_is_short() -> None:
    files = [f for f in EXAMPLE.rglob("*") if f.suffix in (".py", ".toml")]
    assert len(files) == 5
    assert sum(bool(line.strip()) for f in files for line in f.read_text().splitlines()) < 100


def test_its_author_runs_the_suite_that_ships(python: Path, tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "test_example.py", tmp_path)
    done = run([python, "-m", "pytest", "-p", "no:cacheprovider", "test_example.py"], tmp_path)
    assert "17 passed" in done.stdout


def test_a_station_runs_with_it_and_check_says_where_it_comes_from(python: Path, station_dir: Path) -> None:
    file = write(station_dir)
    checked = run(command(python, "lineside", "check", file), station_dir).stdout
    for part in ('source "card" of lineside-example 0.1.0', 'sink "csv" of lineside-example 0.1.0'):
        assert part in " ".join(checked.split())
    run(command(python, "lineside", "run", file), station_dir)
    lines = (station_dir / "decisions.csv").read_text().splitlines()
    told = [(int(seq), verdict) for _, seq, _, verdict in csv.reader(lines)]
    assert told == [(d.seq, d.verdict.value) for d in read_decisions(station_dir / "journal.sqlite", 0, 100)]
    assert [verdict for _, verdict in told] == ["ACCEPT", "ACCEPT", "REJECT"] * 3


def test_a_mistake_in_its_table_is_one_line_with_the_key(python: Path, station_dir: Path) -> None:
    file = write(station_dir, more="sides = 3\n")
    done = run(command(python, "lineside", "run", file), station_dir, ok=False)
    assert done.returncode == 78
    assert done.stderr.strip().endswith(f"{file}: source.sides: unknown key; did you mean source.side?")
    assert "Traceback" not in done.stderr
    file = write(station_dir, sink='kind = "csv"\npath = "nowhere/decisions.csv"')
    done = run(command(python, "lineside", "run", file), station_dir, ok=False)
    assert done.returncode == 73 and "expected a file to write to, found: No such file" in done.stderr


def test_its_method_is_taught(python: Path, tmp_path: Path) -> None:
    for split, first, n in (("train/good", 0, 12), ("test/good", 100, 4)):
        (tmp_path / "parts" / split).mkdir(parents=True)
        for i in range(n):
            cv2.imwrite(str(tmp_path / "parts" / split / f"{i}.png"), good_image(seed=first + i))
    run(command(python, "lineside-train", "fit", "parts", "--method", "spread", "--image-size", "64", "--out", "run"), tmp_path)
    about = (tmp_path / "run" / "run.json").read_text()
    assert '"method": "spread"' in about and '"lineside-example": "0.1.0"' in about
