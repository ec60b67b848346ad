"""A command that is ended from outside says so in a sentence, and with the code that a shell expects."""

import signal
import subprocess
import sys

import pytest

_COMMAND = """
import time, typer
from edge_runtime.console import run_app
app = typer.Typer()

@app.command()
def work() -> None:
    print("begun", flush=True)
    time.sleep(60)

run_app(app, [])
"""


@pytest.mark.parametrize(("number", "code", "said"), [(signal.SIGINT, 130, "interrupted; "), (signal.SIGTERM, -15, "ended by SIGTERM; ")])
def test_it_says_what_ended_it(number: signal.Signals, code: int, said: str) -> None:
    with subprocess.Popen([sys.executable, "-c", _COMMAND], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert err == f"{said}what was finished is kept, what was not is taken away\n"
