"""`[journal] required`: no accept without its row, whatever the disk does; and no number is given twice."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from edge_runtime.config.files import JournalConfig
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.records import Cause, Decision
from edge_runtime.security.signing import read_public
from edge_runtime.sinks.journal import Journal, read_decisions
from edge_runtime.sinks.journal_rows import Entry
from edge_runtime.sinks.journal_verify import verify
from tests.station.rig import A, F, Line, Parts, R, every, rig


class Held(Journal):
    """Another program holds the journal while these parts are told."""

    def __init__(self, settings: JournalConfig, parts: tuple[int, ...]) -> None:
        super().__init__(settings, "s", {"r": 1_000_000_000})
        self._parts = parts

    def begin(self, decision: Decision) -> Entry:
        if decision.seq in self._parts:
            self._other = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            self._other.execute("BEGIN IMMEDIATE")
        return super().begin(decision)

    def commit(self, decision: Decision, begun: Entry | None = None) -> bool:
        try:
            return super().commit(decision, begun)
        finally:
            if decision.seq in self._parts:
                self._other.close()


@pytest.mark.parametrize(("required", "ahead"), [(True, False), (False, False), (True, True)])
def test_a_part_whose_row_is_not_there_in_time_is_no_accept(tmp_path: Path, model: OpenvinoPredictor, required: bool, ahead: bool) -> None:
    """Law 2. Without `required` it is told all the same, as it always was."""
    path = tmp_path / "j.sqlite"
    settings = JournalConfig(path=path, commit_timeout_ms=100.0, required=required)
    with (
        Held(settings, (2, 4)) as journal,
        rig(
            Line(every(700, 5)), Parts(bad=[4]), model, tellers=[journal],
            required=journal if required else None, ahead=journal if ahead else None,
        ) as r,
    ):  # fmt: skip
        assert r.station.run() == 0
        journal.settled(10)
    told = r.heard.decisions
    assert [d.verdict for d in told] == [A, F if required else A, A, R, A], "a reject takes its part out, with or without a row"
    assert read_decisions(path) == told, "what was told is what is written"
    assert verify(path, [read_public(tmp_path / "j.sqlite.key.pub")]).findings == []
    if required:
        assert told[1].cause is Cause.JOURNAL and "accepts no part without one" in told[1].reason
        assert told[1].views[0].verdict is A, "what the camera saw is kept"


def test_a_journal_that_is_gone_accepts_nothing(tmp_path: Path, model: OpenvinoPredictor) -> None:
    journal = Journal(JournalConfig(path=tmp_path / "j.sqlite", required=True), "s")
    with rig(Line(every(20, 3)), Parts(bad=[2]), model, tellers=[journal], required=journal) as r:
        assert r.station.run() == 0
    assert r.heard.verdicts == [F, R, F]


_ON_A_FULL_DISK = """
import json, os, signal, subprocess, sys, time
from edge_runtime.commands.journal import verified
from edge_runtime.records import Cause, Verdict
from edge_runtime.sinks.journal import read_decisions
from tests.station.test_process import RUN, Subscriber
from tests.support.ports import free_port
from tests.support.waiting import until
import zmq
home, port, trigger = Path(sys.argv[1]), free_port(), free_port()
station = home / "station.toml"
station.write_text(f'''
name = "st"
recipe = "recipe.toml"
source = {{ kind = "folder", path = "parts", loop = true }}
trigger = {{ kind = "zeromq", endpoint = "tcp://127.0.0.1:{trigger}" }}
publisher = {{ endpoint = "tcp://127.0.0.1:{port}", replay = "tcp://127.0.0.1:{free_port()}" }}
journal = {{ path = "{disk}/journal.sqlite", required = {sys.argv[2]}, commit_timeout_ms = 5000 }}
''')

def fire(push, heard, n):
    had = len(heard.decisions)
    for i in range(n):
        push.send(b"{}")
        until(lambda: len(heard.decisions) == had + i + 1)
    return heard.decisions[had:]

def fill():
    with (disk / "ballast").open("ab", buffering=0) as f:
        try:
            while f.write(bytes(4096)): pass
        except OSError: pass

def run():
    process = subprocess.Popen([*RUN, str(station)], stderr=subprocess.DEVNULL)
    until(lambda: any(h.state.value == "READY" or h.problems for h in heard.health))
    time.sleep(0.5)
    return process

with zmq.Context() as context, context.socket(zmq.PUSH) as push, Subscriber(port) as heard:
    push.setsockopt(zmq.LINGER, 0)
    push.setsockopt(zmq.RECONNECT_IVL, 20)
    push.connect(f"tcp://127.0.0.1:{trigger}")
    process = run()
    before = fire(push, heard, 6)
    fill()
    full = fire(push, heard, 24)
    process.kill()
    process.wait()
    refused = subprocess.run([*RUN, str(station)], stderr=subprocess.PIPE, text=True)
    (disk / "ballast").unlink()
    heard.health.clear()
    process = run()
    after = fire(push, heard, 6)
    process.send_signal(signal.SIGTERM)
    process.wait()
rows = read_decisions(disk / "journal.sqlite", 0, 10_000)
print(json.dumps({
    "before": [d.verdict for d in before], "full": [(d.verdict, d.cause) for d in full], "after": [d.verdict for d in after],
    "refused": [refused.returncode, refused.stderr],
    "told": [d.seq for d in [*before, *full, *after]], "rows": [(d.seq, d.verdict, d.cause, d.reason) for d in rows],
    "findings": verified(disk / "journal.sqlite").findings,
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("required", ["true", "false"])
def test_after_a_kill_on_a_full_disk_each_row_says_what_was_told_and_no_number_is_given_twice(
    station_dir: Path, tmp_path: Path, required: str
) -> None:
    """Law 2: with `required` nothing is accepted while the disk takes no row."""
    (station_dir / "recipe.toml").write_text((station_dir / "recipe.toml").read_text().replace("deadline_ms = 500", "deadline_ms = 9000"))
    said = in_private_disk(_ON_A_FULL_DISK, tmp_path, station_dir, required)
    assert said["before"] == said["after"] == [A, A, R, A, A, R]
    if required == "true":
        first_full = said["full"].index([F, Cause.JOURNAL])
        assert first_full < 15, "until the last free page is used"
        assert {verdict for verdict, _ in said["full"][first_full:]} == {R, F}
    else:
        assert [verdict for verdict, _ in said["full"]] == [A, A, R, A, A, R] * 4
    assert said["refused"][0] in (71, 73) and "journal.sqlite" in said["refused"][1], "on a full disk a station does not even start"
    assert said["told"] == list(range(1, 37)), "numbers go on where they were told, not where rows end"
    rows = {seq: [verdict, cause] for seq, verdict, cause, _ in said["rows"]}
    assert sorted(rows) == list(range(1, 37))
    assert [rows[seq] for seq in range(7, 31)] == said["full"]
    late = [seq for seq, _, _, reason in said["rows"] if "before the disk had its row" in reason]
    assert late and late == list(range(late[0], 31)), "and those that were written afterwards say that no more is known"
    assert said["findings"] == []


def in_private_disk(body: str, tmp_path: Path, *args: object) -> dict[str, list[object]]:
    """As `test_journal.in_small_disk`, with JSON on its last line."""
    mount = tmp_path / "disk"
    mount.mkdir()
    shell = f'mount -t tmpfs -o size=2m none {mount} || exit 97; exec "$@"'
    code = f"from pathlib import Path\ndisk = Path({str(mount)!r})\n{body}"
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", shell, "_", sys.executable, "-c", code, *map(str, args)],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    if done.returncode in (1, 97) and ("unshare:" in done.stderr or "mount:" in done.stderr):
        pytest.skip(f"a private file system cannot be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    found: dict[str, list[object]] = json.loads(done.stdout.splitlines()[-1])
    return found


_SLOW = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/types.h>
static void wait_while_slow(void) { for (int i = 0; i < 400 && access(getenv("SLOW_WHILE"), F_OK) == 0; i++) usleep(10000); }
ssize_t pwrite64(int fd, const void *data, size_t n, off_t at) {
  static ssize_t (*real)(int, const void *, size_t, off_t);
  if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
  char link[64], name[512]; ssize_t len;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  len = readlink(link, name, sizeof name - 1);
  if (len > 4 && !memcmp(name + len - 4, "-wal", 4)) wait_while_slow();
  return real(fd, data, n, at);
}
"""

_ON_A_SLOW_DISK = """
import sys, time
from pathlib import Path
from edge_runtime.config.files import JournalConfig
from edge_runtime.records import Verdict
from edge_runtime.sinks.journal import Journal
from tests.unit.edge_runtime.sinks.journals import a_decision
path, slow = Path(sys.argv[1]), Path(sys.argv[2])
with Journal(JournalConfig(path=path, commit_timeout_ms=50, required=True), "s") as journal:
    print(journal.commit(a_decision(1)))
    slow.touch()
    began = time.monotonic()
    print(journal.commit(a_decision(2, verdict=Verdict.ACCEPT)), time.monotonic() - began < 1)
    told = a_decision(2, verdict=Verdict.FAULT, reason="told instead")
    journal.amend(told)
    slow.unlink()
    print(journal.settled(20), journal.commit(a_decision(3)))
"""


@pytest.mark.slow
def test_a_row_that_a_slow_disk_takes_too_late_is_amended(tmp_path: Path) -> None:
    """Slow where SQLite writes: the row is in its hands, and comes."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    (tmp_path / "slow.c").write_text("#include <stdio.h>\n" + _SLOW)
    subprocess.run(["cc", "-shared", "-fPIC", "-w", "-o", tmp_path / "slow.so", tmp_path / "slow.c", "-ldl"], check=True)
    path, slow = tmp_path / "j.sqlite", tmp_path / "slow"

    done = subprocess.run(
        [sys.executable, "-c", _ON_A_SLOW_DISK, str(path), str(slow)], capture_output=True, text=True, check=False, timeout=100,
        env={**os.environ, "LD_PRELOAD": str(tmp_path / "slow.so"), "SLOW_WHILE": str(slow)},
    )  # fmt: skip
    assert done.stdout.split() == ["True", "False", "True", "True", "True"], done.stdout + done.stderr
    assert [d.reason for d in read_decisions(path)] == ["1 place above the limit", "told instead", "1 place above the limit"]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM chain WHERE kind = 'amended'").fetchone() == (1,)
    assert verify(path, [read_public(tmp_path / "j.sqlite.key.pub")]).findings == []
