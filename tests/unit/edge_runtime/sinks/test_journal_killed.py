"""A process that is killed at each step of what is done to a journal beside parts: the chain verifies, and nothing is half there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

_CODE = """
import json, os, shutil, signal, sys, time
from pathlib import Path
from edge_runtime.commands.journal import backup, verified
from edge_runtime.commands.journal_export import export
from edge_runtime.files import put_file
from edge_runtime.records import Delivery, Outcome, Trigger
from edge_runtime.security.signing import open_key
from edge_runtime.sinks import journal_file
from edge_runtime.sinks.journal_chain import Limits
from edge_runtime.sinks.journal_file import read_decisions
from edge_runtime.sinks.journal_heads import beside
from edge_runtime.sinks.journal_read import Reader
from edge_runtime.sinks.journal_rows import Entry, announced, delivered, row_of
from edge_runtime.sinks.journal_start import go_on
from tests.unit.edge_runtime.sinks.journals import a_decision

home, what = Path(sys.argv[1]), sys.argv[2]
STEPS = {"execute", "executemany", "backup", "commit", "close", "replace", "rename", "fsync", "fdatasync", "unlink", "write", "open"}


def entries(first, last):
    for seq in range(first, last + 1):
        yield announced(Trigger(seq, 1000 * seq, f"A-{seq}"))
        yield Entry("decision", seq, row=row_of(a_decision(seq)))
        yield delivered(Delivery(seq, "plc", Outcome.TOLD, 1000 * seq, "REJECT"))


def opened(path):
    connection = journal_file.open_for_writing(path, False, "w")
    return connection, go_on(path, connection, open_key(beside(path, "key")), "w", looks=True, had_key=True)


def write(path):
    connection, chain = opened(path)
    for first in range(1, 101, 10):
        chain.insert(connection, entries(first, first + 9), "w", sign=True)
    journal_file.checkpoint(connection)
    put_file(beside(path, "head"), chain.outside)
    connection.close()


def upkeep(path):
    connection, chain = opened(path)
    chain.insert(connection, entries(101, 103), "w", sign=True)
    journal_file.checkpoint(connection)
    put_file(beside(path, "head"), chain.outside)
    for at_once in (120, 60):
        chain.prune(connection, Limits(-100, at_once=at_once), "w")
    chain.insert(connection, entries(104, 104), "w", sign=True)
    journal_file.checkpoint(connection)
    put_file(beside(path, "head"), chain.outside)
    connection.close()


def saved(path):
    backup(path, path.parent / "copy" / "b.sqlite")


def exported(path):
    export(Reader(path), path.parent / "copy" / "out.csv")


def killed(path, step):
    if (pid := os.fork()) == 0:
        steps = 0
        def profile(frame, event, argument):
            nonlocal steps
            if event == "c_call" and argument.__name__ in STEPS:
                steps += 1
                if steps == step:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.setprofile(profile)
        {"upkeep": upkeep, "backup": saved, "export": exported}[what](path)
        sys.setprofile(None)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


base = home / "base"
base.mkdir()
write(base / "j.sqlite")
wrong, step, was = [], 0, True
while was:
    step += 1
    folder = home / str(step)
    shutil.copytree(base, folder)
    (folder / "copy").mkdir()
    path = folder / "j.sqlite"
    was = killed(path, step)
    connection, chain = opened(path)
    wrong += [f"{step}: {problem}" for problem in chain.problems]
    chain.insert(connection, entries(1000, 1000), "w", sign=True)
    first = connection.execute("SELECT min(n) FROM chain").fetchone()[0]
    said = connection.execute("SELECT max(json_extract(body, '$.rows_to')) FROM chain WHERE kind = 'pruned'").fetchone()[0]
    if (said or 0) != first - 1:
        wrong.append(f"{step}: the chain begins with row {first}, and says that rows to {said} were deleted")
    connection.close()
    wrong += [f"{step}: {finding}" for finding in verified(path).findings]
    seqs = [d.seq for d in read_decisions(path, 0, 10_000)]
    if seqs[-1] != 1000 or seqs[:-1] != list(range(seqs[0], seqs[-2] + 1)) or seqs[-2] < 100:
        wrong.append(f"{step}: decisions {seqs}")
    out = folder / "copy" / ("b.sqlite" if what == "backup" else "out.csv")
    if what == "backup":
        if not out.exists():
            backup(path, out)
        found = verified(out)
        wrong += [f"{step}: the copy: {finding}" for finding in found.findings]
        if found.decisions < 100 or not beside(out, "head").exists():
            wrong.append(f"{step}: the copy is not whole")
    elif what == "export" and out.exists() and len(out.read_text().splitlines()) != 101:
        wrong.append(f"{step}: half a file")
    shutil.rmtree(folder)
print(json.dumps([step, wrong]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["upkeep", "backup", "export"])
def test_a_kill_at_any_step_leaves_a_chain_that_verifies(tmp_path: Path, what: str) -> None:
    """`upkeep`: a start, rows, a signature, the write-ahead log moved into its file, the head beside it, old rows deleted twice."""
    done = subprocess.run([sys.executable, "-c", _CODE, str(tmp_path), what], capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    steps, wrong = json.loads(done.stdout)
    assert wrong == [] and steps > 8
