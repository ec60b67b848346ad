"""`lineside journal`: what a person is told of a journal, and the exit codes."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edge_runtime.cli import app
from edge_runtime.console import run_app
from edge_runtime.security.signing import open_key, read_public
from edge_runtime.sinks.journal import Journal
from edge_runtime.sinks.journal_verify import verify
from tests.unit.edge_runtime.sinks.journals import a_decision, settings, written_on


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "cell-3") as written:
        for seq in range(1, 31):
            written.put(a_decision(seq))
    return path


def lineside(*args: object) -> Result:
    return CliRunner().invoke(app, ["journal", *map(str, args)])


def tamper(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE decisions SET verdict = 'ACCEPT' WHERE seq = 7")
        connection.commit()


def test_a_whole_journal_is_said_to_be_whole_and_by_whose_key(journal: Path) -> None:
    said = lineside("verify", journal)
    assert said.exit_code == 0, said.output
    fingerprint = open_key(journal.with_name("j.sqlite.key")).public.fingerprint
    assert f"30 decisions in 33 rows, signed up to row 33 of 33 by {fingerprint}" in said.output
    assert f"fingerprint {fingerprint}" in lineside("key", journal).output


def test_a_tampered_row_is_named_until_and_after_somebody_has_acknowledged_it(journal: Path) -> None:
    tamper(journal)
    said = lineside("verify", journal)
    assert said.exit_code == 1 and "✗ decision 7 (row 9) was changed" in said.output
    assert lineside("acknowledge", journal, "--who", "M. Huber", "--why", "ticket 77").exit_code == 0
    said = lineside("verify", journal, "--json")
    assert said.exit_code == 1, "it is not what was written, whoever knows"
    assert list(json.loads(said.output)["acknowledged"].values()) == ["M. Huber: ticket 77"]


def test_an_auditor_needs_the_file_the_public_key_and_a_head_that_was_noted(journal: Path, tmp_path: Path) -> None:
    said = json.loads(lineside("verify", journal, "--json").output)
    alone = tmp_path / "two years later"
    alone.mkdir()
    copy, key = journal.rename(alone / "copy.sqlite"), journal.with_name("j.sqlite.key.pub")
    assert lineside("verify", copy, "--public-key", key, "--head", said["head"]).exit_code == 0
    with closing(sqlite3.connect(copy)) as connection:
        connection.executescript("DELETE FROM chain WHERE n > 30; DELETE FROM heads WHERE n > 30; DELETE FROM decisions WHERE seq > 28;")
    assert lineside("verify", copy, "--public-key", key).exit_code == 0
    missed = lineside("verify", copy, "--public-key", key, "--head", said["head"])
    assert missed.exit_code == 1 and "rows 31 to 33 were removed" in missed.output


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        (["verify", "nothing.sqlite"], 78, "expected a station file (.toml) or a journal, found nothing"),
        (["verify", "other"], 73, "expected a Lineside journal, found another SQLite database"),
        (["verify", "text"], 73, "cannot be read: file is not a database"),
        (["verify", "other", "--public-key", "other"], 78, "expected an Ed25519 public key (PEM), found something else"),
        (["verify", "text", "--public-key", "j.sqlite.key.pub"], 73, "cannot be read: file is not a database"),
        (["verify", "other", "--public-key", "j.sqlite.key.pub"], 73, "expected a Lineside journal, found another SQLite database"),
        (["verify", "j.sqlite", "--head", "12"], 78, "--head: expected N:HASH as a station logs it when it stops, found '12'"),
        (["verify", "j.sqlite", f"--head=-{'9' * 26}:{'0' * 64}"], 78, "--head: expected N:HASH as a station logs it when it stops"),
        (["stats", "j.sqlite", "--to", "9999-12-31T23:59:59-1400"], 78, "--to: expected a time from the year 1 to 9999 in UTC, found 9999"),
        (["export", "j.sqlite", "-", "--format=csv", "--from", "0001-01-01T00:00:00+1400"], 78, "--from: expected a time from the year 1"),
    ],
)
def test_what_cannot_be_verified_or_counted_is_said_in_a_sentence(
    journal: Path, args: list[str], code: int, sentence: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(journal.parent)
    Path("text").write_text("seq;verdict\n" * 1000)
    with closing(sqlite3.connect("other")) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    monkeypatch.setattr("sys.argv", ["lineside", "journal", *args])
    with pytest.raises(SystemExit) as end:
        run_app(app)
    assert (end.value.code, sentence in capfd.readouterr().err) == (code, True)


def test_a_running_stations_journal_is_not_acknowledged_behind_its_back(journal: Path) -> None:
    with Journal(settings(journal), "cell-3"):
        said = lineside("acknowledge", journal, "--who", "M. Huber", "--why", "x")
    assert said.exit_code != 0 and "its station runs: name the station's file" in str(said.exception)


@pytest.mark.slow
def test_a_backup_of_a_journal_that_is_written_on_and_on_comes_to_its_end(tmp_path: Path) -> None:
    """It is of one moment: copied in several steps, it began anew at each row that came meanwhile."""
    path = tmp_path / "j.sqlite"
    with Journal(settings(path), "s") as journal:
        for seq in range(1, 1001):
            journal.begin(a_decision(seq, reason="x" * 40_000))
        assert journal.settled(60)
        with written_on(journal, 1001):
            done = subprocess.Popen([sys.executable, "-m", "edge_runtime.cli", "journal", "backup", str(path), str(tmp_path / "b.sqlite")])
            try:
                assert done.wait(120) == 0
            finally:
                done.kill()
    assert verify(tmp_path / "b.sqlite", [read_public(tmp_path / "b.sqlite.key.pub")]).decisions >= 1000
