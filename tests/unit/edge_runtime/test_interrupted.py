"""A command that is ended from outside says so in a sentence, and with the code that a shell expects."""

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


def test_every_console_script_begins_where_nothing_heavy_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["scripts"]
    for script in scripts.values():
        module = script.partition(":")[0]
        loaded = f"import sys, {module}; print(sorted({{'typer', 'numpy', 'cv2', 'rich'}} & set(sys.modules)))"
        assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True).stdout == "[]\n", module
        started: list[str] = []
        monkeypatch.setattr(f"{module}.start", started.append)
        import_module(module).main()
        assert callable(import_module(started[0]).main)
