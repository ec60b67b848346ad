"""Work beside the loop that gives way to it: threads of a lower priority, and back again where the system lets a process do that.

Threads inherit their priority from the one that starts them, and OpenVINO starts some for each model that it compiles.

Why: deploy/decisions/0051.
"""

import contextlib
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

_LOWER = 10
_CAP_SYS_NICE = 1 << 23


def give_way() -> None:
    """From now on this thread, and what it starts, waits for the others; there may be no way back."""
    me = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, me, min(os.getpriority(os.PRIO_PROCESS, me) + _LOWER, 19))


@contextlib.contextmanager
def giving_way() -> Iterator[None]:
    """Meanwhile this thread and what it starts waits for the others; afterwards they are as before. Nothing where there is no way back."""
    me = threading.get_native_id()
    usual = os.getpriority(os.PRIO_PROCESS, me)
    if not _may_return_to(usual):
        yield
        return
    before = _threads()
    give_way()
    lowered = os.getpriority(os.PRIO_PROCESS, me)
    try:
        yield
    finally:
        for thread in (me, *(_threads() - before)):
            with contextlib.suppress(OSError):  # it has ended
                if os.getpriority(os.PRIO_PROCESS, thread) == lowered:
                    os.setpriority(os.PRIO_PROCESS, thread, usual)


def _threads() -> set[int]:
    return {int(path.name) for path in Path("/proc/self/task").iterdir()}


def _may_return_to(nice: int) -> bool:
    soft, _ = resource.getrlimit(resource.RLIMIT_NICE)
    if soft == resource.RLIM_INFINITY or soft >= 20 - nice:
        return True
    status = Path("/proc/self/status").read_text()
    return bool(int(status.partition("CapEff:")[2].split()[0], 16) & _CAP_SYS_NICE)
