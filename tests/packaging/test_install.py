"""deploy/: the installer says what it would do and refuses what it cannot; every example file loads."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from edge_runtime.config.files import load_recipe, load_station
from tests.packaging.machine import Machine

pytestmark = pytest.mark.timeout(900)  # builds and installs

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "deploy/examples").glob("*.toml"))


def install(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", ROOT / "deploy/install.sh", "--python", sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "LC_ALL": "C"})


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda f: f.name)
def test_every_example_loads(file: Path) -> None:
    if "trigger" in tomllib.loads(file.read_text()):
        config = load_station(file)
        for camera in config.cameras:
            assert {camera.recipe, *camera.recipes.values()} <= set(EXAMPLES)
        assert config.name == file.stem, "systemd's instance, the file and the station's folder share one name"
        assert str(config.journal.path).startswith(f"/var/lib/lineside/{config.name}/"), "where the unit lets the station write"
    else:
        load_recipe(file)


def test_what_a_recipe_leaves_commented_out_loads_too(tmp_path: Path) -> None:
    text = (ROOT / "deploy/examples/recipe.toml").read_text()
    lines = [line.removeprefix("# ") if line.startswith("# ") and " = " in line else line for line in text.splitlines()]
    (tmp_path / "recipe.toml").write_text("\n".join(lines))
    recipe = load_recipe(tmp_path / "recipe.toml")
    assert recipe.roi is not None
    assert recipe.threshold is not None


def test_the_examples_can_run_side_by_side() -> None:
    stations = [load_station(f) for f in EXAMPLES if "trigger" in tomllib.loads(f.read_text())]
    ports = [e for s in stations for e in (s.publisher.endpoint, s.publisher.replay, s.preview.endpoint if s.preview else None)]
    assert len(set(ports)) == len(ports) == 3 * len(stations)


def test_a_dry_run_changes_nothing_and_names_every_step(tmp_path: Path) -> None:
    done = install("--dry-run", "--prefix", tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    for step in ("-m venv", "--require-hashes", "lineside@.service", "station.toml", "lineside check"):
        assert step in done.stdout


def test_a_dry_run_on_the_system_would_make_the_user() -> None:
    done = install("--dry-run")
    assert done.returncode == 0, done.stderr
    assert "usermod" in done.stdout


def test_headless_never_has_both_wheels() -> None:
    said = install("--dry-run", "--headless").stdout
    assert "less opencv-python\n" in said
    assert "--no-deps" in said
    assert "libgl1" not in said
    assert "less opencv-python\n" in install("--dry-run", "--headless", "--unpinned").stdout


def test_files_of_the_user_are_never_overwritten(tmp_path: Path) -> None:
    mine = tmp_path / "etc/lineside/station.toml"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    said = install("--dry-run", "--prefix", tmp_path).stdout
    assert f"/examples/station.toml {mine}\n" not in said
    assert f"/examples/recipe.toml {mine.with_name('recipe.toml')}\n" in said


def test_it_can_be_started_by_its_name() -> None:
    scripts = list((ROOT / "deploy").glob("*.sh"))
    assert ROOT / "deploy/install.sh" in scripts
    assert [s for s in scripts if not os.access(s, os.X_OK)] == []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_what_root_installs_can_be_entered_by_the_service_whatever_root_s_umask(machine: Machine) -> None:
    """A machine without systemctl, such as an image that is being built, gets everything, too."""
    done = machine.install(umask="077")
    assert done.returncode == 0, done.stderr
    made = [p for p in machine.root.rglob("*") if not p.is_symlink()]
    assert machine.root / "etc/lineside/station.toml" in made
    assert all(p.stat().st_mode & 0o004 for p in made)
    assert all(p.stat().st_mode & 0o001 for p in made if p.is_dir())


def test_an_upgrade_can_be_taken_back_and_taken_again(machine: Machine) -> None:
    for version in ("1", "2", "3"):
        machine.upgrade(version)
    assert machine.runs() == "3"
    assert machine.releases() == 2, "the one in use and the one before it"
    for version in ("2", "3"):
        done = machine.install("--rollback")
        assert done.returncode == 0, done.stderr
        assert version in done.stdout
        assert machine.runs() == version


def test_a_release_that_does_not_start_changes_nothing(machine: Machine) -> None:
    machine.upgrade("1")
    machine.version.write_text("broken")
    done = machine.install()
    assert done.returncode != 0
    assert "libGL" in done.stderr
    assert machine.runs() == "1"
    assert machine.releases() == 1


def test_the_first_release_has_none_to_go_back_to(machine: Machine) -> None:
    machine.upgrade("1")
    done = machine.install("--rollback")
    assert done.returncode == 2
    assert "no release before this one" in done.stderr
    assert machine.runs() == "1"


def test_a_station_that_still_runs_keeps_its_files(machine: Machine) -> None:
    machine.upgrade("1")
    one = (machine.opt / "venv").resolve()
    running = ["bash", "-c", "read -r _", one / "bin/lineside"]
    with subprocess.Popen(running, stdin=subprocess.PIPE) as station:
        for version in ("2", "3"):
            machine.upgrade(version)
        assert one.exists()
        station.communicate(b"end\n")
    machine.upgrade("4")
    assert not one.exists()


def test_an_environment_from_before_releases_were_kept_is_the_first_of_them(machine: Machine) -> None:
    machine.upgrade("1")
    venv = machine.opt / "venv"
    release = venv.resolve()
    venv.unlink()
    release.rename(venv)
    machine.upgrade("2")
    assert machine.runs() == "2"
    assert machine.install("--rollback").returncode == 0
    assert machine.runs() == "1"


def test_an_upgrade_keeps_the_extras_and_the_opencv_that_were_chosen(machine: Machine, tmp_path: Path) -> None:
    choices = {"pypylon", "opencv-python", "opencv-python-headless"}

    def chosen() -> set[str]:
        lines = (machine.opt / "venv/lineside-requirements.txt").read_text().splitlines()
        return choices & {line.split("==")[0] for line in lines if "==" in line}

    machine.upgrade("1", "--headless", "--extras", "cameras")
    machine.upgrade("2")
    assert chosen() == {"pypylon", "opencv-python-headless"}
    unpinned = machine.install("--unpinned", "--dry-run").stdout
    assert "dependencies of lineside[plc,cameras,headless] less opencv-python" in unpinned
    machine.upgrade("3", "--window", "--extras", "")
    assert chosen() == {"opencv-python"}
    machine.upgrade("4", "--extras", "train")
    assert (tmp_path / "pip").read_text().splitlines()[-1].endswith("[plc,train]"), "which is never pinned"


def test_a_folder_of_wheels_is_enough_and_nothing_else_is_asked(machine: Machine, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "lineside-9.9-py3-none-any.whl").touch()
    offline, own = f"--isolated --no-index --find-links {wheels}", f"{wheels}/lineside-9.9-py3-none-any.whl"
    machine.upgrade("1", "--wheels", str(wheels))
    pinned, last = (tmp_path / "pip").read_text().splitlines()
    assert f"{offline} --require-hashes -r " in pinned
    assert last.endswith(f"--no-deps {own}")
    machine.upgrade("2", "--wheels", str(wheels), "--unpinned")
    assert (tmp_path / "pip").read_text().splitlines()[-1].endswith(f"{offline} {own}[plc]")


def test_a_slip_in_the_arguments_is_a_sentence() -> None:
    for arguments, message in (
        (["--hedless"], "unknown option --hedless"),
        (["--wheel"], "needs a value"),
        (["--wheel", "/no.whl"], "found no file"),
        (["--wheels", "/no"], "expected one lineside-*.whl in /no, found 0"),
        (["--dry-run", "--extras", "gpu"], "expected cameras"),
    ):
        done = install(*arguments)
        assert done.returncode == 2
        assert message in done.stderr


@pytest.fixture
def bare_machine(tmp_path: Path) -> Path:
    """A folder of programs: a Python whose cv2 wants libGL until `apt-get install` ran, and an `id` that says who calls."""

    def program(name: str, text: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)

    program("python", f'test -e {tmp_path}/installed || {{ echo "ImportError: libGL.so.1: cannot open shared object file" >&2; exit 1; }}')
    program("apt-get", f'echo "$@" >> {tmp_path}/asked; case "$*" in *install*) touch {tmp_path}/installed;; esac')
    program("apt-cache", "exit 1")
    program("id", f"cat {tmp_path}/uid")
    return tmp_path


def system_libraries(machine: Path, uid: int) -> subprocess.CompletedProcess[str]:
    (machine / "uid").write_text(str(uid))
    environment = {**os.environ, "PATH": f"{machine}:{os.environ['PATH']}"}
    command = ["bash", ROOT / "deploy/opencv_libs.sh", machine / "python"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment)


def test_a_bare_machine_s_root_gets_what_opencv_needs(bare_machine: Path) -> None:
    done = system_libraries(bare_machine, uid=0)
    assert done.returncode == 0, done.stderr
    assert "install -y --no-install-recommends libgl1 libglib2.0-0" in (bare_machine / "asked").read_text()


def test_on_a_bare_machine_anybody_else_is_told_the_one_command(bare_machine: Path) -> None:
    done = system_libraries(bare_machine, uid=1000)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "sudo apt-get install libgl1 libglib2.0-0" in done.stderr
    assert not (bare_machine / "asked").exists()


def test_a_cv2_that_is_broken_otherwise_is_not_blamed_on_libraries(bare_machine: Path) -> None:
    (bare_machine / "python").write_text('#!/bin/sh\necho "ImportError: numpy is too old" >&2; exit 1\n')
    done = system_libraries(bare_machine, uid=0)
    assert done.returncode == 1
    assert "numpy is too old" in done.stderr
    assert not (bare_machine / "asked").exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_demo_and_test_set_themselves_up(tmp_path: Path) -> None:
    """In a clone nothing is there yet: both targets begin with the environment."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    for target, last in (("demo", "-m export.demo"), ("test", "-m pytest")):
        planned = subprocess.run(["make", "-n", target], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        assert planned.index("-m venv") < planned.index("pip install") < planned.index("opencv_libs.sh") < planned.index(last)
