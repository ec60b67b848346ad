"""What the journal's chain costs: `python -m tests.bench_journal`, part of `make bench`. Not a test: nothing here passes or fails.

Both arms in one run, in turn, on the same disk: a row a decision alone, and what a station writes of a part (announced, decided, told,
acknowledged, each linked; signatures in their turn). Then whole decisions, from `put` to the committed row, at the pace of a fast line.
"""

import json
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.config.files import JournalConfig
from edge_runtime.protocols import Sink
from edge_runtime.records import Decision, Delivery, Outcome, Picture, Stamps, Trigger, Verdict, View
from edge_runtime.security.signing import open_key
from edge_runtime.sinks import journal_file
from edge_runtime.sinks.journal import Journal
from edge_runtime.sinks.journal_chain import Chain
from edge_runtime.sinks.journal_rows import COLUMNS, Entry, announced, delivered, row_of, wall_time
from edge_runtime.station.health import HealthMonitor
from edge_runtime.station.observers import Observers
from edge_runtime.station.telling import Telling, Told

_PLAIN = f"INSERT INTO decisions ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"

_TURNS = 5


def main(
    folder: Annotated[Path, typer.Option(help="On the disk to measure.")] = Path(),
    parts: Annotated[int, typer.Option(help="Of each arm.")] = 2000,
    sync_ms: Annotated[float, typer.Option(help="So much longer takes each commit of a durable journal, as on a slower disk.")] = 0.0,
) -> None:
    """Print the figures as JSON."""
    print(json.dumps(measure(folder, parts, sync_ms), indent=2))


def measure(folder: Path, parts: int = 2000, sync_ms: float = 0.0) -> dict[str, float]:
    """Milliseconds, by what they are of."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=folder) as inside:
        for durable in (False, True):
            word = "durable" if durable else "not_durable"
            count = parts // 5 if durable else parts
            figures |= {f"{word}_{k}": v for k, v in _paired(Path(inside) / word, durable, count).items()}
            figures |= {f"{word}_{k}": v for k, v in _inspected_meanwhile(Path(inside) / word, durable, count, sync_ms * durable).items()}
            for per_s in (20, 200):
                figures |= {
                    f"{word}_{per_s}_a_second_put_ms_{k}": v
                    for k, v in _paced(Path(inside) / f"{word}{per_s}", durable, per_s, 400).items()
                }
    return {name: round(value, 4) for name, value in figures.items()}


def _decision(seq: int) -> Decision:
    now = time.monotonic_ns()
    reason = "Within limits: 0.42 of the threshold."
    view = View("", Verdict.ACCEPT, reason, 8.5, 20.0, 0.425, (), (1280, 1024), "a" * 64, "cells", now, now, now)
    stamps = Stamps(now, now, now, now, now, now)
    shared = Verdict.ACCEPT, reason, 8.5, 20.0, 0.425, (), (1280, 1024), "a" * 64, "cells"
    return Decision("line", seq, f"A-{seq}", *shared, stamps, wall_time(), (view,))


def _of_a_part(seq: int) -> list[Entry]:
    told = Delivery(seq, "plc", Outcome.TOLD, time.monotonic_ns(), "ACCEPT")
    taken = Delivery(seq, "plc", Outcome.ACKNOWLEDGED, time.monotonic_ns())
    part = Trigger(seq, time.monotonic_ns(), f"A-{seq}")
    return [announced(part), Entry("decision", seq, row=row_of(_decision(seq))), delivered(told), delivered(taken)]


def _paired(folder: Path, durable: bool, parts: int) -> dict[str, float]:
    """A transaction a part, alone and with its chain."""
    folder.mkdir()
    plain_ms, chain_ms = [], []
    with (
        closing(journal_file.open_for_writing(folder / "plain.sqlite", durable)) as plain,
        closing(journal_file.open_for_writing(folder / "chain.sqlite", durable)) as chained,
    ):
        chain = Chain(chained, open_key(folder / "key"), int(time.time()))
        chain.begin(chained, "", [])
        for seq in range(1, parts + 1):
            row, entries = row_of(_decision(seq)), _of_a_part(seq)
            began = time.perf_counter()
            plain.execute("BEGIN IMMEDIATE")
            plain.execute("SELECT writer FROM upkeep").fetchone()
            plain.execute(_PLAIN, row)
            plain.execute("COMMIT")
            between = time.perf_counter()
            chain.insert(chained, entries)
            plain_ms.append((between - began) * 1e3)
            chain_ms.append((time.perf_counter() - between) * 1e3)
            if seq % 400 == 0:
                _move(plain)
                _move(chained)
    more = [c - p for p, c in zip(plain_ms, chain_ms, strict=True)]
    return {
        "row_alone_ms": statistics.median(plain_ms),
        "with_chain_ms": statistics.median(chain_ms),
        "chain_costs_ms": statistics.median(more),
        "chain_costs_ms_p95": statistics.quantiles(more, n=20)[-1],
    }


def _move(connection: sqlite3.Connection) -> None:
    journal_file.checkpoint(connection)


def _inspected_meanwhile(folder: Path, durable: bool, parts: int, sync_ms: float) -> dict[str, float]:
    """A station that always has a next part, camera and model of 3 ms: told in the loop's thread, and in one of its own, in turns."""
    took_s = {False: 0.0, True: 0.0}
    waited_ms: dict[bool, list[float]] = {False: [], True: []}
    at_once = parts // _TURNS
    monitor = HealthMonitor(station="line", recipes=("r",), bundle_ids=("b",), device="CPU")
    syncs = {False: 0, True: 0}
    with _Counts(JournalConfig(path=folder / "meanwhile.sqlite", durable=durable, commit_timeout_ms=5000.0), "line") as journal:
        journal.sync_s = sync_ms / 1e3
        seq = 0
        for turn in range(2 * _TURNS):
            ahead = bool(turn % 2)
            heard = _Heard(waited_ms[ahead])
            telling = Telling([journal, heard], Observers({}, monitor), monitor, ahead=journal if ahead else None)
            began, before = time.perf_counter(), journal.commits
            for _ in range(at_once):
                seq += 1
                journal.announced(Trigger(seq, time.monotonic_ns(), f"A-{seq}"))
                time.sleep(0.003)
                telling.tell(Told(_decision(seq), (), (0, 0)))
                journal.delivered(Delivery(seq, "plc", Outcome.TOLD, time.monotonic_ns(), "ACCEPT"))
            telling.close()
            took_s[ahead] += time.perf_counter() - began
            syncs[ahead] += journal.commits - before
    figures = {}
    for ahead, name in ((False, "in_turn"), (True, "meanwhile")):
        figures[f"{name}_parts_a_second"] = at_once * _TURNS / took_s[ahead]
        figures[f"{name}_commits_a_part"] = syncs[ahead] / (at_once * _TURNS)
        figures[f"{name}_decided_to_told_ms"] = statistics.median(waited_ms[ahead])
        figures[f"{name}_decided_to_told_ms_p99"] = statistics.quantiles(waited_ms[ahead], n=100)[-1]
    return figures


class _Counts(Journal):
    commits = 0
    sync_s = 0.0

    def _commit(self, batch: list[Entry]) -> int:
        self.commits += 1
        time.sleep(self.sync_s)
        return super()._commit(batch)


class _Heard(Sink):
    def __init__(self, waited_ms: list[float]) -> None:
        self._waited_ms = waited_ms

    def put(self, decision: Decision, pictures: tuple[Picture, ...]) -> None:
        self._waited_ms.append((time.monotonic_ns() - decision.stamps.decided_ns) / 1e6)


def _paced(folder: Path, durable: bool, per_s: int, parts: int) -> dict[str, float]:
    """Decisions at a line's pace: how long each waits for its row."""
    took_ms = []
    with Journal(JournalConfig(path=folder / "j.sqlite", durable=durable, commit_timeout_ms=5000.0), "line") as journal:
        due = time.perf_counter()
        for seq in range(1, parts + 1):
            journal.announced(Trigger(seq, time.monotonic_ns(), f"A-{seq}"))
            decision = _decision(seq)
            began = time.perf_counter()
            journal.put(decision)
            took_ms.append((time.perf_counter() - began) * 1e3)
            journal.delivered(Delivery(seq, "plc", Outcome.TOLD, time.monotonic_ns(), "ACCEPT"))
            journal.delivered(Delivery(seq, "plc", Outcome.ACKNOWLEDGED, time.monotonic_ns()))
            due += 1 / per_s
            time.sleep(max(due - time.perf_counter(), 0))
    return {"median": statistics.median(took_ms), "p99": statistics.quantiles(took_ms, n=100)[-1]}


if __name__ == "__main__":
    typer.run(main)
