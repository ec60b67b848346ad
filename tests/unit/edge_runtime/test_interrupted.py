"""A command that is ended from outside, or that nobody listens to, ends with a sentence or none, and with the code that a shell expects."""

import os
import signal
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

_COMMAND = """
import time, typer
from edge_runtime.console import run_app
app = typer.Typer()

@app.command()
@app.command("tail")
def work() -> None:
    print("begun", flush=True)
    time.sleep(60)

run_app(app)
"""
_KEPT = "; what was finished is kept, what was not is taken away"


@pytest.mark.parametrize(
    ("verb", "number", "code", "said"),
    [
        ("work", signal.SIGINT, 130, f"interrupted{_KEPT}"),
        ("work", signal.SIGTERM, -15, f"ended by SIGTERM{_KEPT}"),
        ("tail", signal.SIGINT, 130, "interrupted"),  # it shows, and makes nothing
    ],
)
def test_it_says_what_ended_it_and_what_becomes_of_its_work(verb: str, number: signal.Signals, code: int, said: str) -> None:
    with subprocess.Popen([sys.executable, "-c", _COMMAND, verb], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert err == f"{said}\n"


def test_while_its_modules_load_it_ends_with_a_sentence_too(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        'import time\nprint("begun", flush=True)\ntry:\n    time.sleep(60)\nexcept BaseException:\n    raise ImportError'
    )
    command = f"import sys; sys.path.append({str(tmp_path)!r}); from edge_runtime.entry import start; start('slow')"
    with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "interrupted; nothing was begun\n")


@pytest.mark.parametrize(
    "code",
    [
        "def main():\n    print('begun', flush=True)\n    time.sleep(60)", "def main():\n    atexit.register(end)\n    sys.exit(3)",
        "def main():\n    threading.Thread(target=end).start()",
    ],
    ids=["before it has begun", "at its end", "while it waits for a thread"],
)  # fmt: skip
def test_at_no_moment_it_ends_with_a_traceback(tmp_path: Path, code: str) -> None:
    """What SIGINT itself ends is 130 to a shell as well."""
    end = "def end():\n    print('begun', flush=True)\n    time.sleep(60)"
    (tmp_path / "slow.py").write_text(f"import atexit, sys, threading, time\n{end}\n{code}\n")
    command = f"import sys; sys.path.append({str(tmp_path)!r}); from edge_runtime.entry import start; start('slow')"
    with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) in {(130, "interrupted\n"), (-signal.SIGINT, "")}


def test_every_console_script_begins_where_nothing_heavy_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["scripts"]
    for script in scripts.values():
        module = script.partition(":")[0]
        loaded = f"import sys, {module}; print(sorted({{'typer', 'numpy', 'cv2', 'rich', 'contextlib', 'typing'}} & set(sys.modules)))"
        assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True).stdout == "[]\n", module
        started: list[str] = []
        monkeypatch.setattr(f"{module}.start", started.append)
        import_module(module).main()
        assert callable(import_module(started[0]).main)


@pytest.mark.parametrize("arguments", [["--nope"], ["--help"], ["check", "none.toml"], ["status", "none.toml"]])
@pytest.mark.parametrize("to", ["a pipe that nobody reads", "/dev/full", "nothing"])
def test_nobody_who_listens_is_no_bug(tmp_path: Path, arguments: list[str], to: str) -> None:
    """And what is said of a mistake goes nowhere else: standard output may be a file of decisions."""
    run = [sys.executable, "-c", "from edge_runtime.entry import main; main()", *arguments]
    if to == "a pipe that nobody reads":
        read, write = os.pipe()
        os.close(read)
        code = subprocess.run(run, stdout=write, stderr=write, cwd=tmp_path, check=False).returncode
        os.close(write)
        assert code in ({78} if "status" in arguments else {1})
        return
    redirected = {"/dev/full": "2>/dev/full", "nothing": "2>&-"}[to]
    done = subprocess.run(["bash", "-c", f'"$@" {redirected}', "bash", *run], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode in {0, 1, 2, 71, 78} and "Traceback" not in done.stdout
    if "status" in arguments:
        assert (done.returncode, done.stdout) == (78, "")
