"""`lineside journal export`, `stats`, `backup`: decisions out of a journal, and figures that agree with them."""

import csv
import json
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edge_runtime.cli import app
from edge_runtime.errors import ConfigError
from edge_runtime.records import Cause, Delivery, Outcome, Stamps, Verdict
from edge_runtime.sinks.journal import Journal, read_decisions
from edge_runtime.sinks.journal_heads import outside_head
from tests.unit.edge_runtime.sinks.journals import a_decision, settings, written_on
from tests.unit.edge_runtime.sinks.test_journal import in_small_disk

START = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A part every ten minutes: every third a reject, every tenth a fault; the last was not acknowledged."""
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "cell-3") as written:
        for seq in range(1, 31):
            verdict = Verdict.FAULT if seq % 10 == 0 else Verdict.REJECT if seq % 3 == 0 else Verdict.ACCEPT
            at = (START + timedelta(minutes=10 * seq)).isoformat(timespec="milliseconds")
            more = {"score": None, "severity": None, "cause": Cause.CAMERA, "stamps": Stamps(1_000_000)} if verdict is Verdict.FAULT else {}
            stamps = Stamps(1_000_000, 2_000_000, 3_000_000, 5_000_000, 6_000_000, (seq + 1) * 1_000_000)
            reason = f"{seq} places above the limit of {seq / 2}"
            written.put(a_decision(seq, **({"verdict": verdict, "wall_time": at, "reason": reason, "stamps": stamps} | more)))
            written.delivered(Delivery(seq, "plc", Outcome.TOLD, 1, verdict.value))
            if seq < 30:
                written.delivered(Delivery(seq, "plc", Outcome.ACKNOWLEDGED, 2))
        written.delivered(Delivery(4, "archives", Outcome.FAILED, 3, "dropped"))
    return path


def lineside(*args: object) -> Result:
    return CliRunner().invoke(app, ["journal", *map(str, args)])


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_every_decision_is_in_the_file_with_what_the_plc_was_told(journal: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / f"out.{kind}"
    said = lineside("export", journal, out)
    assert said.exit_code == 0 and "30 decisions" in said.stderr, said.output
    if kind == "csv":
        rows = list(csv.DictReader(out.read_text().splitlines()))
    elif kind == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        rows = pytest.importorskip("pyarrow.parquet").read_table(out).to_pylist()
    decisions = read_decisions(journal)
    assert [int(r["seq"]) for r in rows] == [d.seq for d in decisions]
    assert [r["verdict"] for r in rows] == [d.verdict for d in decisions]
    assert [float(r["score"]) if r["score"] else None for r in rows] == [d.score for d in decisions]
    assert [r["plc_told"] for r in rows] == [d.verdict for d in decisions]
    assert [bool(r["plc_acknowledged_at"]) for r in rows] == [True] * 29 + [False]
    assert not list(tmp_path.glob("*.part")) and not list(tmp_path.glob(".*.part"))


def test_from_and_to_are_this_machines_time_and_to_is_not_in_it(journal: Path) -> None:
    def local(minutes: int) -> str:
        return (START + timedelta(minutes=minutes)).astimezone().strftime("%Y-%m-%dT%H:%M")

    said = lineside("export", journal, "-", "--format", "csv", "--from", local(50), "--to", local(80))
    assert [row["seq"] for row in csv.DictReader(said.stdout.splitlines())] == ["5", "6", "7"]


def test_the_figures_are_those_of_the_decisions(journal: Path) -> None:
    said = json.loads(lineside("stats", journal, "--json").stdout)
    decisions = read_decisions(journal)
    assert said["verdicts"] == {v: sum(d.verdict is v for d in decisions) for v in Verdict} == {"ACCEPT": 18, "REJECT": 9, "FAULT": 3}
    assert said["accepted_share"] == 18 / 27
    assert said["rejects_by_reason"] == {"# places above the limit of #": 9}
    assert said["faults_by_cause"] == {"CAMERA": 3}
    assert sum(hour["REJECT"] for hour in said["by_hour"].values()) == 9 and len(said["by_hour"]) == 6
    assert said["percentiles_ms"]["total_ms"]["max"] == 29 and said["percentiles_ms"]["grab_ms"]["p50"] == 2
    assert said["not_acknowledged"] == 1
    text = lineside("stats", journal).stdout
    assert "30 parts" in text and "66.67% of those judged accepted" in text and "       9 # places above" in text


def test_a_row_that_cannot_be_read_is_named_and_the_others_are_there(journal: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(journal)) as connection:
        connection.execute("UPDATE decisions SET regions = '[{' WHERE seq = 7")
        connection.commit()
    said = lineside("export", journal, tmp_path / "out.csv")
    assert said.exit_code == 1 and "row 7 cannot be read" in said.stderr and "29 decisions" in said.stderr


def test_parquet_without_its_package_says_what_to_install(journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    said = lineside("export", journal, tmp_path / "out.parquet")
    assert "lineside[parquet]" in str(said.exception)
    assert "expected a name that ends with .csv, .jsonl or .parquet" in str(lineside("export", journal, tmp_path / "out.xls").exception)


def test_a_backup_is_made_while_the_station_writes_and_can_be_verified_alone(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "s") as journal:
        for seq in range(10_000, 10_200):
            journal.put(a_decision(seq))
        with written_on(journal):
            said = lineside("backup", path, tmp_path / "kept" / "b.sqlite")
    assert said.exit_code == 0, said.output
    copy = tmp_path / "kept" / "b.sqlite"
    assert len(read_decisions(copy, 0, 100_000)) >= 200
    assert sorted(p.name for p in copy.parent.iterdir()) == ["b.sqlite", "b.sqlite.head", "b.sqlite.key.pub"]
    assert lineside("verify", copy).exit_code == 0
    assert outside_head(copy) is not None
    again = lineside("backup", path, copy)
    assert "a backup replaces none" in str(again.exception)


def test_a_backup_of_a_tampered_journal_says_so(journal: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(journal)) as connection:
        connection.execute("UPDATE decisions SET verdict = 'ACCEPT' WHERE seq = 9")
        connection.commit()
    said = lineside("backup", journal, tmp_path / "b.sqlite")
    assert said.exit_code == 1 and "decision 9 (row" in said.output


@pytest.mark.parametrize("beside", ["b.sqlite.key.pub", "b.sqlite.head"])
def test_a_backup_replaces_no_file_beside_it_either(journal: Path, tmp_path: Path, beside: str) -> None:
    (tmp_path / beside).write_text("another station's")
    before = sorted(p.name for p in tmp_path.iterdir())
    said = lineside("backup", journal, tmp_path / "b.sqlite")
    assert isinstance(said.exception, ConfigError) and f"{beside}: expected the name of a new file, found one" in str(said.exception)
    assert sorted(p.name for p in tmp_path.iterdir()) == before and (tmp_path / beside).read_text() == "another station's"


def test_a_backup_to_a_full_disk_names_the_disk_that_is_full(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "s") as journal:
        for seq in range(1, 30):
            journal.begin(a_decision(seq, reason="x" * 60_000))
        assert journal.settled(20)
    body = f"""
from edge_runtime.commands.journal import backup
try:
    backup(Path({str(path)!r}), disk / "b.sqlite")
except Exception as e:
    print(type(e).__name__, e, [p.name for p in disk.iterdir()])
"""
    said = in_small_disk(body, tmp_path)
    assert said.startswith(f"SinkError {tmp_path}/disk/b.sqlite: the journal could not be copied there: ")
    assert "make room there" in said and said.strip().endswith("[]")
