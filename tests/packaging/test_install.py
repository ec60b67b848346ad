"""deploy/: the installer says what it would do and refuses what it cannot; every example file loads."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from edge_runtime.config import load_recipe, load_station

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
    assert recipe.golden is not None


def test_the_examples_can_run_side_by_side() -> None:
    stations = [load_station(f) for f in EXAMPLES if "trigger" in tomllib.loads(f.read_text())]
    ports = [e for s in stations for e in (s.publisher.endpoint, s.publisher.replay, s.preview.endpoint if s.preview else None)]
    assert len(set(ports)) == len(ports) == 3 * len(stations)


def test_a_dry_run_changes_nothing_and_names_every_step(tmp_path: Path) -> None:
    done = install("--dry-run", "--prefix", tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    for step in ("-m venv", "[plc]".replace("[", "\\[").replace("]", "\\]"), "lineside@.service", "station.toml", "lineside check"):
        assert step in done.stdout


def test_a_dry_run_on_the_system_would_make_the_user() -> None:
    done = install("--dry-run")
    assert done.returncode == 0, done.stderr
    assert "usermod" in done.stdout


def test_headless_never_has_both_wheels() -> None:
    said = install("--dry-run", "--headless").stdout
    assert "less opencv-python" in said
    assert "--no-deps" in said
    assert "libgl1" not in said


def test_files_of_the_user_are_never_overwritten(tmp_path: Path) -> None:
    mine = tmp_path / "etc/lineside/station.toml"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    said = install("--dry-run", "--prefix", tmp_path).stdout
    assert f"/examples/station.toml {mine}\n" not in said
    assert f"/examples/recipe.toml {mine.with_name('recipe.toml')}\n" in said


def test_it_can_be_started_by_its_name() -> None:
    for script in (ROOT / "deploy").glob("*.sh"):
        assert os.access(script, os.X_OK), script


def test_what_root_installs_can_be_entered_by_the_service_whatever_root_s_umask(tmp_path: Path) -> None:
    """A machine without systemctl, such as an image that is being built, gets everything, too."""
    bin_, fake = tmp_path / "root/opt/lineside/venv/bin", tmp_path / "python3"  # stands for a Python whose pip and venv work
    fake.write_text(
        f'#!/bin/sh\ncase "$*" in\n*venv*) mkdir -p {bin_}; cp "$0" {bin_}/python; printf "#!/bin/sh\\n" > {bin_}/lineside;'
        f" chmod +x {bin_}/lineside;;\n*show*) exit 1;;\nesac\n"
    )
    fake.chmod(0o755)
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "dirname", "basename", "install", "sed", "mkdir", "cp", "chmod", "sh", "cat", "env"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    script = f"umask 077; exec {tools}/bash {ROOT}/deploy/install.sh --prefix {tmp_path}/root --python {fake}"
    command = [tools / "bash", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={"PATH": str(tools)}, check=False)
    assert done.returncode == 0, done.stderr
    made = [p for p in (tmp_path / "root").rglob("*") if not p.is_symlink()]
    assert tmp_path / "root/etc/lineside/station.toml" in made
    assert all(p.stat().st_mode & 0o004 for p in made)
    assert all(p.stat().st_mode & 0o001 for p in made if p.is_dir())


def test_a_slip_in_the_arguments_is_a_sentence() -> None:
    for arguments, message in (
        (["--hedless"], "unknown option --hedless"),
        (["--wheel"], "needs a value"),
        (["--wheel", "/no.whl"], "found no file"),
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
