"""Work that gives way to the loop, and what becomes of the threads that it started."""

import contextlib
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.station.background import give_way, giving_way

_KEPT_FROM_RISING = """
import ctypes, os, resource, threading
from edge_runtime.station.background import giving_way
resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
os.setgid(65534), os.setuid(65534)
with giving_way():
    print(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) - int(os.environ["USUAL"]))
"""


def priorities() -> dict[int, int]:
    found = {}
    for thread in (int(path.name) for path in Path("/proc/self/task").iterdir()):
        with contextlib.suppress(ProcessLookupError):  # it has ended
            found[thread] = os.getpriority(os.PRIO_PROCESS, thread)
    return found


def in_a_thread(do: object) -> None:
    thread = threading.Thread(target=do)  # type: ignore[arg-type]
    thread.start()
    thread.join()


def test_a_model_that_is_compiled_meanwhile_runs_at_the_usual_priority_afterwards(tiny_bundle: Path) -> None:
    """OpenVINO's threads inherit the priority of the one that compiles: a model that judges with them would be starved."""
    usual, seen, before = os.getpriority(os.PRIO_PROCESS, 0), [], priorities()
    opened: list[OpenvinoPredictor] = []

    def prove() -> None:
        with giving_way():
            opened.append(OpenvinoPredictor(ModelBundle.open(tiny_bundle)).__enter__())
            seen.append(max(nice for thread, nice in priorities().items() if thread not in before))
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    in_a_thread(prove)
    if os.geteuid() == 0 or resource.getrlimit(resource.RLIMIT_NICE)[0] >= 20 - usual:
        assert seen[0] > usual
    assert seen[1] == usual
    assert {nice for thread, nice in priorities().items() if thread not in before} == {usual}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user that may not raise a priority again")
def test_nothing_is_lowered_that_could_not_be_raised_again() -> None:
    usual = str(os.getpriority(os.PRIO_PROCESS, 0))
    environment = os.environ | {"USUAL": usual, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", _KEPT_FROM_RISING], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == "0\n", done.stderr


def test_what_gives_way_for_good_keeps_what_it_starts_low() -> None:
    usual, seen = os.getpriority(os.PRIO_PROCESS, 0), []

    def work() -> None:
        give_way()
        in_a_thread(lambda: seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))

    in_a_thread(work)
    assert seen == [min(usual + 10, 19)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == usual
