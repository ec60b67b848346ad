"""A station whose journal syncs the disk at each commit: parts are inspected meanwhile, and nobody hears of one before its row is there."""

import threading
import time
from pathlib import Path

from edge_runtime.errors import EXIT_BUG
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.protocols import Sink
from edge_runtime.records import Decision, Picture
from edge_runtime.sinks.journal import Journal, read_decisions
from edge_runtime.sinks.journal_rows import Entry
from edge_runtime.station.telling import _AHEAD
from tests.station.rig import A, F, Failing, Line, Parts, R, Wrapped, every, rig
from tests.support.waiting import until
from tests.unit.edge_runtime.sinks.journals import settings


class SlowDisk(Journal):
    """Each commit takes as long as a disk's sync."""

    sync_s = 0.05

    def __init__(self, path: Path) -> None:
        super().__init__(settings(path), "s", {"r": 20_000_000_000})
        self.shared: list[int] = []
        """Decisions a commit."""

    def _commit(self, batch: list[Entry]) -> int:
        time.sleep(self.sync_s)
        self.shared.append(sum(entry.kind == "decision" for entry in batch))
        return super()._commit(batch)


class Asks(Sink):
    """Whether the row is there when a part is told."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.there: list[bool] = []

    def put(self, decision: Decision, pictures: tuple[Picture, ...]) -> None:
        self.there.append([d.seq for d in read_decisions(self._path, decision.seq - 1, 1)] == [decision.seq])


def test_parts_that_are_inspected_while_the_disk_syncs_share_the_next_sync(tmp_path: Path, model: OpenvinoPredictor) -> None:
    """Law 1: in order, each row before its part is told."""
    asks = Asks(tmp_path / "j.sqlite")
    with (
        SlowDisk(tmp_path / "j.sqlite") as journal,
        rig(
            Line(every(10, 24)), Parts(bad=[4]), model, tellers=[journal, asks], deadline_ms=20_000, ahead=journal, queue=64
        ) as r,
    ):  # fmt: skip
        assert r.station.run() == 0
    assert r.heard.decisions == read_decisions(tmp_path / "j.sqlite")
    assert r.heard.verdicts == [A, A, A, R, *[A] * 20]
    assert asks.there == [True] * 24
    syncs = [n for n in journal.shared if n]
    assert sum(syncs) == 24 and len(syncs) <= 12, "one each without sharing"


def test_as_many_parts_as_may_wait_to_be_told_hold_up_the_loop(tmp_path: Path, model: OpenvinoPredictor) -> None:
    """What waits has a bound: a receiver that takes nothing fills no memory with pictures."""
    let_go = threading.Event()
    counting = Wrapped(model, lambda n: None)

    class Holds(Sink):
        def put(self, decision: Decision, pictures: tuple[Picture, ...]) -> None:
            if not let_go.is_set():
                until(lambda: counting.calls > _AHEAD)
                time.sleep(0.2)  # for those that must not come
                inspected.append(counting.calls)
                let_go.set()

    inspected: list[int] = []
    with (
        Journal(settings(tmp_path / "j.sqlite"), "s") as journal,
        rig(Line(every(1, 40)), Parts(), counting, tellers=[journal, Holds()], deadline_ms=20_000, ahead=journal, queue=64) as r,
    ):
        assert r.station.run() == 0
    assert inspected[0] <= _AHEAD + 2 and r.heard.seqs == list(range(1, 41))


def test_a_bug_in_who_is_told_ends_the_station_when_all_that_were_taken_have_their_answer(tmp_path: Path, model: OpenvinoPredictor) -> None:
    with (
        Journal(settings(tmp_path / "j.sqlite"), "s") as journal,
        rig(
            Line(every(5, 30)),
            Parts(),
            model,
            tellers=[journal, Failing(RuntimeError("a bug"))],
            deadline_ms=20_000,
            ahead=journal,
            queue=64,
        ) as r,
    ):
        assert r.station.run() == EXIT_BUG
    assert r.heard.seqs == list(range(1, len(r.heard.seqs) + 1)) and 0 < len(r.heard.seqs) <= 30
    assert set(r.heard.verdicts) <= {A, F}
    assert [d.seq for d in read_decisions(tmp_path / "j.sqlite")] == r.heard.seqs
