"""A journal after a night: it verifies as it is, and whatever is changed in it is found."""

import contextlib
import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

from edge_runtime.errors import EXIT_FINDINGS, SinkError
from edge_runtime.sinks.journal_file import read_decisions

MOST = 10_000_000
"""Decisions that are read at most: all."""


def changed_rows(journal: Path, chance: random.Random) -> list[str]:
    """The journal verifies as it is, and does not once any one row of it says something else."""
    code, said = _verify(journal)
    wrong = [] if code == 0 else [f"lineside journal verify: {said}"]
    last = max((d.seq for d in read_decisions(journal, limit=MOST)), default=0)
    for seq in chance.sample(range(1, last + 1), min(last, 5)):
        with contextlib.closing(sqlite3.connect(journal)) as connection:
            before = connection.execute("SELECT reason FROM decisions WHERE seq = ?", (seq,)).fetchone()[0]
            for reason in (before + " ", before):
                with connection:
                    connection.execute("UPDATE decisions SET reason = ? WHERE seq = ?", (reason, seq))
                if reason != before and _verify(journal)[0] != EXIT_FINDINGS:
                    wrong.append(f"decision {seq} was changed, and lineside journal verify did not notice")
    return wrong


def changed_bytes(journal: Path, chance: random.Random) -> list[str]:
    """A byte that rots anywhere in the file is found, or changes nothing that is read."""
    copy = journal.parent.parent / "damaged" / journal.name
    shutil.copytree(journal.parent, copy.parent)
    whole, decisions, wrong = copy.read_bytes(), read_decisions(journal, limit=MOST), []
    for at in (chance.randrange(len(whole)) for _ in range(8)):
        copy.write_bytes(whole[:at] + bytes([whole[at] ^ chance.randrange(1, 256)]) + whole[at + 1 :])
        code, said = _verify(copy)
        if code == 0 and read_decisions(copy, limit=MOST) != decisions:
            wrong.append(f"byte {at} of the journal was changed, and lineside journal verify did not notice")
        if code not in (0, EXIT_FINDINGS, SinkError.exit_code):
            wrong.append(f"byte {at} of the journal was changed, and lineside journal verify ended with {code}: {said}")
    return wrong


def _verify(journal: Path) -> tuple[int, str]:
    command = [str(Path(sys.executable).with_name("lineside")), "journal", "verify", str(journal)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr
