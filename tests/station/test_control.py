"""The control socket: who asks is known by his connection, does what his role allows, and never costs the loop anything."""

import json
import os
import pwd
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from typer.testing import CliRunner

from edge_runtime import wire
from edge_runtime.cli import app
from edge_runtime.config.files import ControlConfig
from edge_runtime.control import ControlClient
from edge_runtime.credentials import Credentials, Role
from edge_runtime.errors import EXIT_BUSY, ConfigError, Refused, WireError
from edge_runtime.records import Verdict
from edge_runtime.security.access import Access
from edge_runtime.security.signing import read_public
from edge_runtime.sinks.journal import Journal, JournalConfig, read_decisions
from edge_runtime.sinks.journal_read import Reader
from edge_runtime.sinks.journal_verify import verify
from edge_runtime.sinks.notes import read_notes
from edge_runtime.station.control import Caller, ControlServer, Verb
from edge_runtime.station.health import HealthMonitor
from edge_runtime.station.verbs import Nothing, Operating
from tests.support.decisions import decision_with
from tests.support.keys import Keys
from tests.support.ports import free_ports
from tests.support.waiting import until


class Count(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    number: int


def echo(asked: Count, caller: Caller) -> dict[str, Any]:
    return {"number": asked.number, "by": caller.name, "roles": sorted(caller.roles), "why": caller.why}


def breaks(_: Nothing, caller: Caller) -> None:
    raise RuntimeError("a bug")


VERBS = [Verb(f"as_{role}", role, Count, echo) for role in Role if role is not Role.TRIGGER]


STATION = """
import sys, time
from edge_runtime.config.files import ControlConfig
from edge_runtime.credentials import Role
from edge_runtime.security.access import Access
from edge_runtime.station.control import ControlServer, Verb
from edge_runtime.station.verbs import Nothing

def long(asked, caller):
    print("begun", flush=True)
    time.sleep(600)

with ControlServer(ControlConfig(endpoint=sys.argv[1]), Access(), [Verb("long", Role.OBSERVE, Nothing, long, slow=True)]):
    print("listens", flush=True)
    time.sleep(600)
"""


@contextmanager
def asking(endpoint: str, key: Credentials | None = None, timeout_s: float = 20.0) -> Iterator[ControlClient]:
    with ControlClient(endpoint, key, timeout_s) as client:
        yield client


def allowed(endpoint: str, key: Credentials | None = None) -> set[str]:
    """The verbs that are answered."""
    done = set()
    with asking(endpoint, key) as client:
        for verb in VERBS:
            try:
                client.ask(verb.name, {"number": 1})
                done.add(verb.name.removeprefix("as_"))
            except Refused as e:
                assert "demands the role" in str(e)
                assert e.exit_code == 77
    return done


@pytest.mark.parametrize(
    ("roles", "may"),
    [
        ({Role.OBSERVE}, {"observe"}),
        ({Role.OPERATE}, {"observe", "operate"}),
        ({Role.ENGINEER}, {"observe", "operate", "engineer"}),
        ({Role.DEPLOY}, {"observe", "deploy"}),
        ({Role.TRIGGER, Role.OPERATE}, {"observe", "operate"}),
    ],
)
def test_a_key_does_what_its_roles_allow_and_nothing_else(tmp_path: Path, free_port: int, roles: set[Role], may: set[str]) -> None:
    keys = Keys(tmp_path / "keys")
    endpoint = f"tcp://127.0.0.1:{free_port}"
    with ControlServer(ControlConfig(endpoint=endpoint), Access(keys.ring.folder, everywhere=True), VERBS):
        assert allowed(endpoint, keys.client("somebody", *roles)) == may


def test_a_stranger_is_told_why_and_asks_nothing(tmp_path: Path, free_port: int) -> None:
    keys = Keys(tmp_path / "keys")
    endpoint = f"tcp://127.0.0.1:{free_port}"
    right, cell = keys.client("hmi", Role.OBSERVE), keys.client("cell", Role.TRIGGER)
    said = {"plain": "demands a key", "unknown": "never did, or it was revoked", "hmi at another station": "not the station that it is for"}
    access = Access(keys.ring.folder, everywhere=True)
    with ControlServer(ControlConfig(endpoint=endpoint), access, VERBS):
        for name, who in {**keys.strangers([right]), "cell": cell}.items():
            with asking(endpoint, who, 3) as client, pytest.raises(Refused, match=said.get(name, "lacks the role")):
                client.ask("as_observe", {"number": 1})
        with asking(endpoint, right) as client:
            assert client.ask("as_observe", {"number": 7}, why="because") == {
                "number": 7, "by": "hmi", "roles": ["observe"], "why": "because",
            }  # fmt: skip
            keys.ring.revoke("hmi")
            until(lambda: access.tallies["strangers"] >= 4)
            time.sleep(1)
            with pytest.raises(Refused, match="revoked"):
                client.ask("as_observe", {"number": 7})
    with asking(endpoint, right, 0.5) as client, pytest.raises(WireError, match="nobody answers there"):
        client.ask("as_observe", {"number": 7})


def test_on_a_unix_socket_the_system_says_who_asks(tmp_path: Path) -> None:
    """Also where the message says otherwise; root and the station's own user may do all."""
    endpoint = f"ipc://{tmp_path}/control.sock"
    with ControlServer(ControlConfig(endpoint=endpoint), Access(), VERBS):
        assert stat.S_IMODE((tmp_path / "control.sock").stat().st_mode) == 0o660
        assert allowed(endpoint) == {"observe", "operate", "engineer", "deploy"}
        with asking(endpoint) as client:
            assert client.ask("as_deploy", {"number": 1}, person="Anna")["by"] == pwd.getpwuid(os.geteuid()).pw_name


AS_NOBODY = """
import os, sys
from edge_runtime.control import ControlClient
from edge_runtime.errors import Refused
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with ControlClient(sys.argv[1], timeout_s=20) as client:
    for verb in sys.argv[2:]:
        try:
            print(client.ask(verb, {"number": 1})["by"])
        except Refused as e:
            print("refused")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
@pytest.mark.parametrize(
    ("groups", "engineer"), [({}, "refused"), ({"nogroup": [Role.ENGINEER]}, "nobody"), ({"root": [Role.DEPLOY]}, "refused")]
)
def test_another_user_of_this_machine_operates_and_what_his_groups_allow(groups: dict[str, list[Role]], engineer: str) -> None:
    folder = Path("/tmp") / f"lineside-test-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir(mode=0o755)
    endpoint = f"ipc://{folder}/control.sock"
    try:
        with ControlServer(ControlConfig(endpoint=endpoint, groups=groups), Access(), VERBS):
            (folder / "control.sock").chmod(0o666)
            said = subprocess.run(
                [sys.executable, "-c", AS_NOBODY, endpoint, "as_operate", "as_engineer", "as_deploy"],
                capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=True,
            ).stdout.split()  # fmt: skip
        assert said == ["nobody", engineer, "refused"]
    finally:
        folder.rmdir()


def test_over_loopback_whoever_works_on_this_machine_observes_and_operates_whatever_he_says_he_is(free_port: int) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port}"
    with ControlServer(ControlConfig(endpoint=endpoint), Access(), VERBS):
        assert allowed(endpoint) == {"observe", "operate"}
        with zmq.Context() as context, context.socket(zmq.DEALER) as forger:
            forger.linger = 0
            forger.setsockopt_string(zmq.METADATA, "X-Lineside-Uid:0")
            forger.setsockopt_string(zmq.METADATA, "X-Lineside-Gid:0")
            forger.connect(endpoint)
            forger.send(wire.encode_control(wire.ControlRequest(request=1, verb="as_deploy", arguments={"number": 1})))
            assert forger.poll(20_000)
            assert "demands the role deploy" in wire.decode_control_reply(forger.recv()).refused


def test_a_forged_user_on_a_unix_socket_counts_for_nothing(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/control.sock"
    with ControlServer(ControlConfig(endpoint=endpoint), Access(), VERBS), zmq.Context() as context, context.socket(zmq.DEALER) as forger:
        forger.linger = 0
        forger.setsockopt_string(zmq.METADATA, "X-Lineside-Uid:65534")
        forger.connect(endpoint)
        forger.send(wire.encode_control(wire.ControlRequest(request=1, verb="as_observe", arguments={"number": 1})))
        assert forger.poll(20_000)
        assert wire.decode_control_reply(forger.recv()).result["by"] != "nobody"


@pytest.mark.parametrize("access", [Access(), Access(plain=True)])
def test_beyond_this_machine_nobody_controls_a_station_without_a_key(access: Access) -> None:
    with pytest.raises(ConfigError, match="keys"), ControlServer(ControlConfig(endpoint="tcp://*:5563"), access, VERBS):
        pass


def test_what_is_asked_wrongly_is_refused_and_a_bug_ends_nothing(free_port: int) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port}"
    with (
        ControlServer(ControlConfig(endpoint=endpoint), Access(), [*VERBS, Verb("breaks", Role.OBSERVE, Nothing, breaks)]),
        asking(endpoint) as client,
    ):
        for verb, arguments, code, why in (
            ("dance", {}, 2, "knows no such verb"),
            ("as_observe", {"number": "many"}, 2, "Expected `int`"),
            ("as_observe", {"number": 1, "uid": 0}, 2, "unknown field"),
            ("breaks", {}, 70, "a bug in Lineside"),
        ):
            with pytest.raises(Refused, match=why) as refused:
                client.ask(verb, arguments)
            assert refused.value.exit_code == code
        assert client.ask("as_observe", {"number": 1})["number"] == 1


def test_one_of_another_version_is_told_so(free_port: int) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port}"
    with ControlServer(ControlConfig(endpoint=endpoint), Access(), VERBS), zmq.Context() as context, context.socket(zmq.DEALER) as old:
        old.linger = 0
        old.connect(endpoint)
        old.send(msgspec.msgpack.encode({"schema": wire.SCHEMA + 1, "question": "?"}))
        assert old.poll(20_000)
        assert msgspec.msgpack.decode(old.recv()) == {"schema": wire.SCHEMA}, "by which any version says that it is another"


def test_a_request_that_cannot_be_read_is_answered_where_it_has_a_number_and_never_sent_by_ours(free_port: int) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port}"
    with ControlServer(ControlConfig(endpoint=endpoint), Access(), VERBS):
        with zmq.Context() as context, context.socket(zmq.DEALER) as foreign:
            foreign.linger = 0
            foreign.connect(endpoint)
            asked = wire.ControlRequest(request=7, verb="as_observe", why="x" * 10_000)
            foreign.send(wire.encode_control(asked))
            assert foreign.poll(20_000)
            reply = wire.decode_control_reply(foreign.recv())
            assert (reply.request, "why" in reply.refused) == (7, True)
        with asking(endpoint) as client, pytest.raises(ConfigError, match="length <= 1000"):
            client.ask("as_observe", {"number": 1}, why="x" * 10_000)


def test_names_that_are_no_text_end_nothing(free_port: int) -> None:
    """A file's name may hold any bytes."""
    endpoint = f"tcp://127.0.0.1:{free_port}"

    def refuses(_: Nothing, caller: Caller) -> None:
        raise ConfigError("bundle: \udcff.png is not listed")

    def names(_: Nothing, caller: Caller) -> dict[str, Any]:
        return {"done": ["\udcff.png"]}

    odd = [Verb("refuses", Role.OBSERVE, Nothing, refuses), Verb("names", Role.OBSERVE, Nothing, names)]
    with ControlServer(ControlConfig(endpoint=endpoint), Access(), odd), asking(endpoint) as client:
        with pytest.raises(Refused, match=r"bundle: \?\.png is not listed"):
            client.ask("refuses")
        assert client.ask("names") == {"done": ["?.png"]}
        with pytest.raises(ConfigError, match="expected text in UTF-8"):
            client.ask("names", why="\udcff")


def test_whoever_waits_for_a_station_that_ends_is_told_so_at_once(free_port: int) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port}"
    with subprocess.Popen([sys.executable, "-c", STATION, endpoint], stdout=subprocess.PIPE) as station, asking(endpoint) as client:
        out = station.stdout
        assert out is not None
        out.readline()
        ending = threading.Thread(target=lambda: (out.readline(), station.kill()))
        ending.start()
        began = time.monotonic()
        with pytest.raises(WireError, match="ended the connection before it answered: it may have done it all the same"):
            client.ask("long", timeout_s=600)
        assert time.monotonic() - began < 60
        ending.join()


def test_while_one_thing_takes_long_the_others_are_answered_and_too_many_are_refused(free_port: int) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port}"
    go_on, begun = threading.Event(), threading.Event()

    def long(_: Nothing, caller: Caller) -> dict[str, bool]:
        begun.set()
        return {"done": go_on.wait(60)}

    def ask() -> None:
        with asking(endpoint, timeout_s=60) as slow:
            results.append(slow.ask("long"))

    results: list[dict[str, Any]] = []
    verbs = [*VERBS, Verb("long", Role.OBSERVE, Nothing, long, slow=True)]
    with ControlServer(ControlConfig(endpoint=endpoint), Access(), verbs) as server:
        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        assert begun.wait(60)
        until(lambda: len(server._pending) == len(threads))
        with asking(endpoint) as client:
            with pytest.raises(Refused, match="too many wait") as busy:
                client.ask("long")
            assert busy.value.exit_code == EXIT_BUSY
            assert client.ask("as_observe", {"number": 3})["number"] == 3
        go_on.set()
        for thread in threads:
            thread.join(60)
    assert results == [{"done": True}] * 5


@pytest.fixture
def operated(tmp_path: Path, free_port: int) -> Iterator[tuple[str, HealthMonitor, Path]]:
    """A station's control socket with the verbs of its own; its journal holds 1 REJECT, 2 ACCEPT."""
    settings = JournalConfig(path=tmp_path / "journal.sqlite")
    with Journal(settings, "s", {}) as journal:
        journal.put(decision_with(seq=1, verdict=Verdict.REJECT))
        journal.put(decision_with(seq=2, verdict=Verdict.ACCEPT))
        monitor = HealthMonitor(station="s", recipes=("r",), bundle_ids=("b",), device="CPU")
        endpoint = f"tcp://127.0.0.1:{free_port}"
        with ControlServer(ControlConfig(endpoint=endpoint), Access(), Operating(monitor, journal).verbs()):
            yield endpoint, monitor, settings.path


@pytest.mark.parametrize("words", [" ", "\n", "a\nb", "a\x1b[2Jb", "a\u202eb", "x" * 501])
def test_who_and_why_are_one_line_of_printable_text_whatever_asks(tmp_path: Path, words: str) -> None:
    endpoint = f"ipc://{tmp_path / 'c.sock'}"
    with ControlServer(ControlConfig(endpoint=endpoint), Access(), VERBS), asking(endpoint) as client:
        assert client.ask("as_operate", {"number": 1})["why"] == ""
        for said in ({"why": words}, {"person": words} if len(words) <= 100 else {"why": words}):
            with pytest.raises(Refused, match=r"--(why|as): expected one line of printable text .* found ") as e:
                client.ask("as_operate", {"number": 1}, **said)
            assert e.value.exit_code == 78


def test_an_alarm_that_is_acknowledged_says_by_whom_and_is_another_one_when_it_comes_again(
    operated: tuple[str, HealthMonitor, Path],
) -> None:
    endpoint, monitor, journal = operated
    monitor.trouble("disk", "The disk is full.")
    with asking(endpoint) as client:
        client.ask("acknowledge", {"problem": "The disk is full."}, person="Anna", why="called IT")
        assert client.ask("status")["acknowledged"] == {"The disk is full.": "Anna"}
        with pytest.raises(Refused, match="expected one of the station's problems"):
            client.ask("acknowledge", {"problem": "All is well."})
        monitor.trouble("disk", None)
        assert client.ask("status")["acknowledged"] == {}
        monitor.trouble("disk", "The disk is full.")
        assert client.ask("status")["acknowledged"] == {}
    (note,) = read_notes(journal)
    assert (note.kind, note.problem, note.person, note.why) == ("acknowledged", "The disk is full.", "Anna", "called IT")
    assert note.wall_time.endswith("+00:00")


def test_a_verdict_that_was_wrong_is_written_down_with_who_and_why(operated: tuple[str, HealthMonitor, Path]) -> None:
    """In the chain, beside what a station of before has written into a file."""
    endpoint, _, journal = operated
    before = b'{"kind":"false_reject","who":"hmi","seq":1,"why":"of before"}\n{"kind": "torn by a ki'
    journal.with_name("journal.sqlite.notes").write_bytes(before)
    with asking(endpoint) as client:
        client.ask("label", {"seq": 1, "kind": "false_reject"}, why="dust", person="Anna")
        client.ask("label", {"seq": 2, "kind": "missed_defect"}, why="scratch")
        for wrong, why in (({"seq": 3, "kind": "false_reject"}, "not there"), ({"seq": 1, "kind": "missed_defect"}, "found 1 is REJECT")):
            with pytest.raises(Refused, match=why) as refused:
                client.ask("label", wrong)
            assert refused.value.exit_code == ConfigError.exit_code
    assert [(n.seq, n.kind, n.why, n.person, n.who) for n in read_notes(journal)] == [
        (1, "false_reject", "of before", "", "hmi"),
        (1, "false_reject", "dust", "Anna", "somebody on this machine"), (2, "missed_defect", "scratch", "", "somebody on this machine"),
    ]  # fmt: skip
    assert journal.with_name("journal.sqlite.notes").read_bytes() == before, "nothing is taken away"
    assert [told.label_why for _, told in Reader(journal)] == ["dust", "scratch"], "the last word"
    with closing(sqlite3.connect(journal)) as connection:
        connection.execute("UPDATE chain SET body = replace(body, 'dust', 'good') WHERE kind = 'label'")
        connection.commit()
    (finding,) = verify(journal, [read_public(journal.with_name("journal.sqlite.key.pub"))]).findings
    assert "(label 1) was changed" in finding


def test_who_may_engineer_acknowledges_a_changed_journal_while_its_station_runs(tmp_path: Path) -> None:
    """The findings of whoever looked, and no others; the station shows them no longer, `verify` goes on with the name."""
    path, endpoint = tmp_path / "journal.sqlite", f"ipc://{tmp_path}/control.sock"
    station = tmp_path / "station.toml"
    station.write_text(
        f'name = "s"\nrecipe = "r.toml"\n[source]\nkind = "folder"\npath = "parts"\n[trigger]\nkind = "timer"\nperiod_ms = 50\n'
        f'[control]\nendpoint = "{endpoint}"\n'
    )
    with Journal(JournalConfig(path=path), "s") as journal:
        for seq in range(1, 4):
            journal.put(decision_with(seq=seq, verdict=Verdict.REJECT))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE decisions SET verdict = 'ACCEPT' WHERE seq = 2")
        connection.commit()
    words = ("journal", "acknowledge", station, "--who", "M. Huber", "--why", "ticket 77")
    with Journal(JournalConfig(path=path), "s") as journal:
        assert "decision 2" in str(journal.problem)
        with pytest.raises(ConfigError, match="its station runs: name the station's file"):
            said("journal", "acknowledge", path, *words[3:])
        monitor = HealthMonitor(station="s", recipes=("r",), bundle_ids=("b",), device="CPU")
        with ControlServer(ControlConfig(endpoint=endpoint), Access(), Operating(monitor, journal).verbs()):
            assert "acknowledged by M. Huber: 1 findings" in said(*words)
            assert journal.problem is None
            with asking(endpoint) as client, pytest.raises(Refused, match="--why: expected one line of printable text"):
                client.ask("acknowledge_journal", {"findings": ["decision 9"]})
    found = verify(path, [read_public(tmp_path / "journal.sqlite.key.pub")])
    assert found.unacknowledged == [] and [seen[:8] for seen in found.acknowledged.values()] == ["M. Huber"]


def said(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_a_station_that_runs_is_asked_and_told_with_a_key(station_dir: Path) -> None:
    """The whole of it, as a process: keys made and revoked while it runs, and it ends cleanly."""
    ports = free_ports(3)
    station = station_dir / "station.toml"
    station.write_text(
        f'name = "st"\nrecipe = "recipe.toml"\n[source]\nkind = "folder"\npath = "parts"\nloop = true\n'
        f'[trigger]\nkind = "timer"\nperiod_ms = 50\n[publisher]\nendpoint = "tcp://127.0.0.1:{ports[0]}"\n'
        f'replay = "tcp://127.0.0.1:{ports[1]}"\n[control]\nendpoint = "tcp://127.0.0.1:{ports[2]}"\n'
        '[security]\nkeys = "keys"\neverywhere = true\n'
    )
    said("keys", "make", station)
    for name, role in (("anna", "operate"), ("hmi", "observe")):
        said("keys", "add", station, name, "--role", role, "--out", station_dir / f"{name}.key")
    anna, hmi = ("--key", station_dir / "anna.key"), ("--key", station_dir / "hmi.key")
    process = subprocess.Popen([sys.executable, "-m", "edge_runtime.cli", "run", str(station)])
    try:

        def rejected() -> list[int]:
            return [d.seq for d in read_decisions(station_dir / "journal.sqlite", 0) if d.verdict is Verdict.REJECT]

        until(rejected)
        seq = rejected()[0]
        assert "noted as false reject" in said("label", station, seq, "false-reject", "--why", "dust", "--as", "Anna", *anna)
        with pytest.raises(Refused, match="label demands the role operate, and hmi has observe"):
            said("label", station, seq, "false-reject", *hmi)
        with pytest.raises(Refused, match="demands a key"):
            said("label", station, seq, "false-reject")
        (note,) = read_notes(station_dir / "journal.sqlite")
        assert (note.who, note.person, note.seq, note.why) == ("anna", "Anna", seq, "dust")

        def status() -> dict[str, Any]:
            found: dict[str, Any] = json.loads(said("status", station, "--json", *hmi))
            return found

        def taken_note_of() -> bool:
            """Their number stands in the sentence, and may still rise."""
            problem = next((p for p in status()["problems"] if "strangers were refused; of the last, it spoke without a key" in p), "")
            if problem:
                said("acknowledge", station, problem, *anna)
            return status()["acknowledged"].get(problem) == "anna"

        until(lambda: status()["connections"]["sockets"]["strangers"] >= 1)
        until(taken_note_of)
        said("keys", "revoke", station, "anna")
        with pytest.raises(Refused, match="revoked"):
            said("label", station, seq, "false-reject", *anna)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
