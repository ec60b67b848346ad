"""What a device gets: the wheel, its base dependencies, no torch. Every module imports, both commands answer."""

import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(900)  # builds and installs

ROOT = Path(__file__).resolve().parents[2]
TEACHERS = ("torch", "torchvision", "timm", "nncf", "onnx", "sklearn", "safetensors")

IMPORT_ALL = """
import importlib, pkgutil, sys
import edge_runtime
names = [m.name for m in pkgutil.walk_packages(edge_runtime.__path__, "edge_runtime.")]
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as e:
        if e.name != "asyncua":  # its session is a module that is imported where the extra is known to be there
            raise
print(len(names), *sorted(set(sys.argv[1:]) & set(sys.modules)))
"""


def run(command: Sequence[str | Path], ok: bool = True, cwd: Path = Path("/")) -> subprocess.CompletedProcess[str]:
    """Outside of the checkout, so that only what is installed can be imported."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, cwd=cwd, timeout=900)
    assert not ok or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT])
    return next(out.glob("lineside-*.whl"))


@pytest.fixture(scope="module")
def device(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new environment that holds the wheel and its base dependencies."""
    directory = tmp_path_factory.mktemp("device") / "venv"
    venv.create(directory, with_pip=True)
    run([directory / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", wheel])
    return directory / "bin"


def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split("/")[0] for n in names if ".dist-info/" not in n} == {"edge_runtime", "training", "export"}
    assert "edge_runtime/py.typed" in names
    assert any(n.endswith("licenses/LICENSE") for n in names)


def test_no_link_of_the_wheel_s_description_leads_nowhere(wheel: Path) -> None:
    packed = zipfile.ZipFile(wheel)
    (metadata,) = (packed.read(n).decode() for n in packed.namelist() if n.endswith(".dist-info/METADATA"))
    assert "Description-Content-Type: text/markdown" in metadata
    assert "## A first station in ten minutes" in metadata
    headings = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", metadata, re.MULTILINE)}
    nowhere = [
        to for to in re.findall(r"\]\(([^)]+)\)", metadata) if not to.startswith("https://") and to.removeprefix("#") not in headings
    ]
    assert nowhere == []


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive, unpacked."""
    out = tmp_path_factory.mktemp("sdist")
    run([sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", out, ROOT])
    with tarfile.open(next(out.glob("lineside-*.tar.gz"))) as packed:
        packed.extractall(out, filter="data")
    return next(p for p in out.iterdir() if p.is_dir())


@pytest.mark.slow
def test_the_source_archive_holds_all_that_its_pages_speak_of(archive: Path, tmp_path: Path) -> None:
    for page in ("README.md", "CONTRIBUTING.md", "SECURITY.md"):
        text = (archive / page).read_text()
        named = re.findall(r"`((?:deploy|systemd|training|edge_runtime|tests)/[\w/.@-]+)`", text) + re.findall(
            r"\]\((?!https?:|#)([^)]+)\)", text
        )
        assert [path for path in named if not (archive / path).exists()] == [], page
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, archive])  # with the hook that it carries
    assert list(tmp_path.glob("lineside-*.whl"))


def test_importing_the_whole_device_loads_nothing_that_teaches() -> None:
    done = run([sys.executable, "-c", IMPORT_ALL, *TEACHERS], cwd=ROOT)
    count, *loaded = done.stdout.split()
    assert int(count) > 20
    assert loaded == []


@pytest.mark.slow
def test_every_module_of_the_device_imports_without_torch(device: Path) -> None:
    done = run([device / "python", "-c", IMPORT_ALL, *TEACHERS])
    assert int(done.stdout.split()[0]) > 20
    for name in TEACHERS:
        assert run([device / "python", "-c", f"import {name}"], ok=False).returncode == 1, f"{name} came along"


@pytest.mark.slow
def test_the_device_s_command_answers(device: Path) -> None:
    assert "check" in run([device / "lineside", "--help"]).stdout
    assert run([device / "lineside", "--version"]).stdout.startswith("lineside 0.")


@pytest.mark.slow
@pytest.mark.parametrize("command", [("lineside-train", "fit", "/nowhere", "--method", "padim", "--out", "/nowhere/run")])
def test_teaching_without_its_extra_says_so_in_one_line(device: Path, command: Sequence[str]) -> None:
    done = run([device / command[0], *command[1:]], ok=False)
    assert done.returncode == 83
    assert done.stderr.count("\n") == 1
    assert "pip install 'lineside[train]'" in done.stderr


@pytest.mark.slow
def test_a_modbus_station_without_its_extra_says_so_in_one_line(device: Path, station_dir: Path) -> None:
    station = station_dir / "station.toml"
    station.write_text(
        'name = "s"\nrecipe = "recipe.toml"\n[source]\nkind = "folder"\npath = "parts"\n[trigger]\nkind = "modbus"\n'
        '[trigger.inputs]\ntrigger = "coil:0"\n[trigger.outputs]\nreject = "coil:1"\n'
        '[publisher]\nendpoint = "ipc:///tmp/lineside-wheel-test"\n'
    )
    done = run([device / "lineside", "run", station], ok=False)
    assert done.returncode == 83
    assert "pip install 'lineside[plc]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_missing_system_library_is_one_sentence_with_the_command(device: Path, tmp_path: Path) -> None:
    """A machine without libGL: cv2's extension module cannot be loaded, and says so in the loader's words."""
    (tmp_path / "cv2.py").write_text('raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")\n')
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from edge_runtime import cli; cli.main()"
    done = run([device / "python", "-c", code, "bench", "/nowhere"], ok=False)
    assert done.returncode == 69
    assert "libGL.so.1" in done.stderr
    assert "apt-get install libgl1" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("first", ["edge_runtime.model.predictor", "edge_runtime.client", "export.package", "export.cli"])
def test_nothing_is_reported_to_anybody(first: str) -> None:
    """`import openvino` would otherwise look its makers' host up and send them a report."""
    code = (
        f"import sys, {first}, openvino, openvino.tools.ovc\n"
        "assert not [m for m, loaded in sys.modules.items() if m.startswith('openvino_telemetry') and loaded is not None]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_nothing_is_reported_by_the_tests_either() -> None:
    """They would fork for each report: a third of the CPU time of an export."""
    assert not [m for m, loaded in sys.modules.items() if m.startswith("openvino_telemetry") and loaded is not None]
