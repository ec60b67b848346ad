"""Runs a command under a unit's own system call filter, and its view of /proc, where there is no systemd that would: as root.

    python -m tests.support.sandbox UNIT COMMAND ...

Which calls a group stands for, systemd says; libseccomp, which systemd itself uses, keeps them.
"""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

_ALLOW, _EPERM = 0x7FFF0000, 0x00050001


def missing() -> str | None:
    """What this machine lacks for it."""
    if os.geteuid() != 0:
        return "only root may have a /proc of its own"
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return "this machine has no libseccomp"
    return None if shutil.which("systemd-analyze") and shutil.which("unshare") else "this machine has no systemd-analyze, or no unshare"


def _members(group: str) -> set[str]:
    """A group's system calls, those of the groups in it included."""
    said = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True).stdout
    words = {word for line in said.splitlines()[1:] if (word := line.strip()) and not word.startswith("#")}
    return set().union(*(_members(word) if word.startswith("@") else {word} for word in words))


def allowed(unit: Path) -> set[str]:
    """The system calls that the lines SystemCallFilter= of a unit leave; the first one is a list of what is allowed."""
    calls = _members("@default")
    for line in unit.read_text().splitlines():
        if line.startswith("SystemCallFilter="):
            words = line.partition("=")[2]
            each = set().union(*(_members(w) if w.startswith("@") else {w} for w in words.lstrip("~").split()))
            calls = calls - each if words.startswith("~") else calls | each
    return calls


def main() -> None:
    """The command takes this process's place."""
    unit, command = Path(sys.argv[1]), sys.argv[2:]
    if os.environ.pop("LINESIDE_INSIDE", "") == "":
        own = [sys.executable, *sys.orig_argv[1:]]
        os.environ["LINESIDE_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "--mount", "--pid", "--fork", "--kill-child", *own])
    if "ProcSubset=pid" in unit.read_text():
        subprocess.run(["mount", "-t", "proc", "-o", "subset=pid", "proc", "/proc"], check=True)
    calls = allowed(unit)
    lib = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    lib.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(lib.seccomp_init(_EPERM))
    for call in calls:
        if (number := lib.seccomp_syscall_resolve_name(call.encode())) >= 0:
            assert lib.seccomp_rule_add(context, _ALLOW, number, 0) == 0
    assert lib.seccomp_load(context) == 0
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
