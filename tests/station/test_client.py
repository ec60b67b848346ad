"""Decisions over real sockets: whatever is lost on the way, a client gets each one once and in order, or is told of the gap."""

import contextlib
import dataclasses
import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import pytest
import zmq

from edge_runtime import wire
from edge_runtime.client import DecisionClient, Gap
from edge_runtime.config.files import JournalConfig, PublisherConfig
from edge_runtime.errors import ConfigError, SchemaError, SinkError, WireError
from edge_runtime.records import Decision, Health, State, Verdict
from edge_runtime.sinks import publisher as publisher_module
from edge_runtime.sinks import replay_server
from edge_runtime.sinks.journal import Journal
from edge_runtime.sinks.publisher import Publisher
from tests.support.decisions import SCHEMA_1, decision_with
from tests.support.waiting import until


def a_decision(seq: int, reason: str = "") -> Decision:
    return decision_with(
        recipe="r", bundle_id="b",
        seq=seq, part_id=f"A-{seq}", verdict=Verdict.ACCEPT, reason=reason, score=1.0, threshold=2.0, severity=0.5,
        wall_time=datetime.now(UTC).isoformat(),
    )  # fmt: skip


def some_health(last_seq: int = 0) -> Health:
    return Health("cell-3", State.READY, (), ("b",), ("r",), "CPU", 1.0, {}, {}, last_seq, "2026-11-21T10:00:00+00:00")


class Told:
    """A journal and a publisher, told in the loop's order."""

    def __init__(self, path: Path, endpoints: PublisherConfig) -> None:
        self.journal = Journal(JournalConfig(path=path, commit_timeout_ms=5000.0), "cell-3")
        self.publisher = Publisher(endpoints, "cell-3", path)

    def __enter__(self) -> Self:
        self.journal.__enter__()
        try:
            self.publisher.__enter__()
        except SinkError:
            self.journal.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.publisher.__exit__(None, None, None)
        self.journal.__exit__(None, None, None)

    def tell(self, first: int, last: int) -> None:
        for seq in range(first, last + 1):
            self.journal.put(a_decision(seq))
            self.publisher.put(a_decision(seq))

    def lose(self, first: int, last: int) -> None:
        """Told, but no subscriber hears it: what a full buffer or a torn cable does."""
        for seq in range(first, last + 1):
            self.journal.put(a_decision(seq))
            assert self.publisher._replay is not None
            self.publisher._replay.remember(a_decision(seq))
            self.publisher._told_seq = seq


def numbers(client: DecisionClient, count: int, timeout_s: float = 60.0) -> list[int | Gap]:
    """The next `count` items: decisions as their seq."""
    got: list[int | Gap] = []
    until = time.monotonic() + timeout_s
    while len(got) < count and time.monotonic() < until:
        item = client.receive(0.2)
        if item is not None:
            got.append(item.seq if isinstance(item, Decision) else item)
    return got


def test_a_fresh_client_misses_nothing_from_where_it_was_entered(tmp_path: Path, endpoints: PublisherConfig) -> None:
    with Told(tmp_path / "j.sqlite", endpoints) as station:
        station.tell(1, 3)
        with DecisionClient(endpoints.endpoint, endpoints.replay, connect_s=30.0) as client:
            station.tell(4, 30)  # at once, while the subscription may still be on its way
            assert numbers(client, 27) == list(range(4, 31))
            assert client.receive(0.1) is None


def test_a_client_that_was_there_first_gets_the_first_decision(tmp_path: Path, endpoints: PublisherConfig) -> None:
    with DecisionClient(endpoints.endpoint, endpoints.replay, connect_s=0.05) as client, Told(tmp_path / "j.sqlite", endpoints) as station:
        station.tell(1, 20)
        assert numbers(client, 20) == list(range(1, 21))


def test_a_gap_in_the_middle_is_filled_before_what_follows(tmp_path: Path, endpoints: PublisherConfig) -> None:
    with Told(tmp_path / "j.sqlite", endpoints) as station, DecisionClient(endpoints.endpoint, endpoints.replay, connect_s=30.0) as client:
        station.tell(1, 2)
        assert numbers(client, 2) == [1, 2]
        station.lose(3, 260)  # more than two pages of the replay socket
        station.tell(261, 263)
        assert numbers(client, 261) == list(range(3, 264))


def test_a_lost_last_decision_is_noticed_by_the_next_health_message(tmp_path: Path, endpoints: PublisherConfig) -> None:
    with Told(tmp_path / "j.sqlite", endpoints) as station, DecisionClient(endpoints.endpoint, endpoints.replay, connect_s=30.0) as client:
        station.tell(1, 1)
        assert numbers(client, 1) == [1]
        station.lose(2, 3)
        assert client.receive(0.2) is None
        station.publisher.send_health(some_health())
        assert numbers(client, 2) == [2, 3]
        assert client.health is not None
        assert client.health.last_seq == 3


def test_health_never_names_a_decision_that_was_not_published_before_it(tmp_path: Path, endpoints: PublisherConfig) -> None:
    with Told(tmp_path / "j.sqlite", endpoints) as station, DecisionClient(endpoints.endpoint, endpoints.replay, connect_s=30.0) as client:
        station.tell(1, 1)
        station.publisher.send_health(some_health(last_seq=99))
        assert numbers(client, 1) == [1]
        until(lambda: client.receive(0.1) is None and client.health is not None)
        assert client.health is not None and client.health.last_seq == 1


def test_what_neither_journal_nor_memory_has_is_reported_as_a_gap(tmp_path: Path, endpoints: PublisherConfig) -> None:
    with Told(tmp_path / "j.sqlite", endpoints) as station, DecisionClient(endpoints.endpoint, endpoints.replay, connect_s=30.0) as client:
        station.tell(1, 1)
        station.tell(5, 6)
        station.tell(9, 9)
        first, gap, *rest = numbers(client, 6)
        assert first == 1
        assert gap == Gap(2, 4, "the station has them neither in its journal nor in memory")
        assert rest == [5, 6, Gap(7, 8, "the station has them neither in its journal nor in memory"), 9]


def test_without_a_replay_socket_a_gap_is_reported_at_once(endpoints: PublisherConfig) -> None:
    with Publisher(endpoints, "cell-3", None) as publisher, DecisionClient(endpoints.endpoint) as client:
        seq = 0
        first = None
        while first is None:  # nobody says when a subscription has arrived
            seq += 1
            publisher.put(a_decision(seq))
            first = client.receive(0.05)
        while client.receive(0.1) is not None:
            pass
        publisher.put(a_decision(seq + 5))
        assert numbers(client, 2) == [Gap(seq + 1, seq + 4, "not received, and the client was given no replay socket to ask"), seq + 5]


def test_a_subscriber_goes_on_after_the_last_decision_that_it_handled(tmp_path: Path, endpoints: PublisherConfig) -> None:
    with Told(tmp_path / "j.sqlite", endpoints) as station:
        station.tell(1, 5)
    with Told(tmp_path / "j.sqlite", endpoints) as station:
        station.tell(6, 7)
        with DecisionClient(endpoints.endpoint, endpoints.replay, after_seq=2) as client:
            assert numbers(client, 5) == [3, 4, 5, 6, 7], "without waiting for the next decision or health message"


def test_a_station_that_starts_again_is_followed_without_a_gap(tmp_path: Path, endpoints: PublisherConfig) -> None:
    with Told(tmp_path / "j.sqlite", endpoints) as station, DecisionClient(endpoints.endpoint, endpoints.replay, connect_s=30.0) as client:
        station.tell(1, 3)
        assert numbers(client, 3) == [1, 2, 3]
        station.__exit__()
        station.__init__(tmp_path / "j.sqlite", endpoints)  # type: ignore[misc]
        station.__enter__()
        station.tell(4, 6)  # before the client is connected again
        station.publisher.send_health(some_health())
        stop = threading.Event()

        def healthy() -> None:
            while not stop.wait(0.1):
                station.publisher.send_health(some_health())

        beats = threading.Thread(target=healthy)
        beats.start()
        try:
            assert numbers(client, 3) == [4, 5, 6]
        finally:
            stop.set()
            beats.join()


def test_numbers_that_go_back_are_reported_and_followed(tmp_path: Path, endpoints: PublisherConfig) -> None:
    with DecisionClient(endpoints.endpoint, endpoints.replay, connect_s=0.05) as client:
        with Told(tmp_path / "old.sqlite", endpoints) as station:
            station.tell(1, 5)
            assert numbers(client, 5) == [1, 2, 3, 4, 5]
        with Told(tmp_path / "new.sqlite", endpoints) as station:
            until = time.monotonic() + 10
            while client.health is None and time.monotonic() < until:
                station.publisher.send_health(some_health())
                gap = client.receive(0.1)
            station.tell(1, 2)
            assert isinstance(gap, Gap)
            assert (gap.first_seq, gap.last_seq) == (1, 5)
            assert "went back" in gap.reason
            assert numbers(client, 2) == [1, 2]


def test_a_station_that_was_away_longer_than_a_client_has_patience_costs_it_nothing(tmp_path: Path, endpoints: PublisherConfig) -> None:
    """What is in the journal comes when the station does."""
    with DecisionClient(endpoints.endpoint, endpoints.replay, after_seq=0, give_up_s=0.3) as client:
        with Told(tmp_path / "j.sqlite", endpoints) as station:
            station.tell(1, 2)
            assert numbers(client, 2) == [1, 2]
            client._known = 4  # it heard that there are more, and the station was killed
        assert client.receive(1.5) is None
        with Told(tmp_path / "j.sqlite", endpoints) as station:
            station.tell(3, 4)
            assert numbers(client, 2) == [3, 4]


def test_a_row_that_cannot_be_read_is_a_gap_that_says_so_and_hides_no_other(tmp_path: Path, endpoints: PublisherConfig) -> None:
    with Told(tmp_path / "j.sqlite", endpoints) as station:
        station.tell(1, 5)
    with contextlib.closing(sqlite3.connect(tmp_path / "j.sqlite")) as connection:
        connection.execute("UPDATE decisions SET regions = '[{' WHERE seq = 3")
        connection.commit()
    with Told(tmp_path / "j.sqlite", endpoints) as station:
        with DecisionClient(endpoints.endpoint, endpoints.replay, after_seq=0) as client:
            assert numbers(client, 2) == [1, 2]
            gap = client.receive(10)
            assert isinstance(gap, Gap)
            assert (gap.first_seq, gap.last_seq) == (3, 3)
            assert "row 3 cannot be read" in gap.reason
            assert numbers(client, 2) == [4, 5]
        assert "cannot be read" in str(station.publisher.problem)


def test_a_replay_socket_that_is_away_ends_in_a_gap_not_in_silence(tmp_path: Path, endpoints: PublisherConfig) -> None:
    with (
        Publisher(PublisherConfig(endpoint=endpoints.endpoint, replay=None), "cell-3", None) as publisher,
        DecisionClient(endpoints.endpoint, endpoints.replay, after_seq=0, give_up_s=0.5) as client,
    ):
        seq = 10
        item = None
        until = time.monotonic() + 10
        while item is None and time.monotonic() < until:
            seq += 1
            publisher.put(a_decision(seq))
            item = client.receive(0.1)
        assert isinstance(item, Gap)
        assert item.first_seq == 1
        assert "did not give them within 0.5 s" in item.reason
        assert numbers(client, 1) == [item.last_seq + 1]


def test_a_subscriber_that_never_reads_hurts_neither_the_station_nor_the_others(
    tmp_path: Path, endpoints: PublisherConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "SNDHWM", 50)  # reached within this test, after the kernel's buffers
    big = "a long sentence " * 400
    with (
        zmq.Context() as context,
        context.socket(zmq.SUB) as lazy,
        context.socket(zmq.SUB) as lazier,
        Told(tmp_path / "j.sqlite", endpoints) as station,
        DecisionClient(endpoints.endpoint, endpoints.replay, connect_s=30.0) as eager,
    ):
        for sock in (lazy, lazier):
            sock.set(zmq.RCVHWM, 1)
            sock.set(zmq.RCVBUF, 4096)
            sock.linger = 0
            sock.subscribe(b"")
            sock.connect(endpoints.endpoint)
            while not sock.poll(50):
                station.publisher.send_health(some_health())
        got: list[int | Gap] = []
        reader = threading.Thread(target=lambda: got.extend(numbers(eager, 3000, 30.0)))
        reader.start()
        slowest = 0.0
        for seq in range(1, 3001):
            decision = dataclasses.replace(a_decision(seq), reason=big)
            station.journal.put(decision)
            began = time.perf_counter()
            station.publisher.put(decision)
            slowest = max(slowest, time.perf_counter() - began)
        while reader.is_alive():
            station.publisher.send_health(some_health(3000))  # as each second: that the last ones were lost is seen by it alone
            reader.join(0.2)
        assert got == list(range(1, 3001))
        assert slowest < 0.25
        left = 0
        while lazy.poll(200):
            lazy.recv_multipart()
            left += 1
        assert left < 2500, "what it did not read was dropped, not piled up in the station's memory"
        began = time.perf_counter()
        station.publisher.__exit__(None, None, None)
        assert time.perf_counter() - began < 2.0, "it does not keep the station from ending"


def test_the_last_decisions_leave_before_the_socket_closes(endpoints: PublisherConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "LINGER_MS", 5000)  # these are more than a station has at its end, on a busy test machine
    publisher = Publisher(PublisherConfig(endpoint=endpoints.endpoint, replay=None), "cell-3", None)
    with DecisionClient(endpoints.endpoint) as client, publisher:
        seq = 0
        while (first := client.receive(0.05)) is None:  # nobody says when a subscription has arrived
            seq += 1
            publisher.put(a_decision(seq))
        for _ in range(400):
            seq += 1
            publisher.put(dataclasses.replace(a_decision(seq), reason="a long sentence " * 2500))
        publisher.__exit__(None, None, None)
        assert isinstance(first, Decision)
        assert numbers(client, seq - first.seq)[-1] == seq


@pytest.mark.parametrize("takes_s", [0.01, 0.7])
def test_a_journal_that_is_read_slowly_or_fails_once_costs_no_decision(
    tmp_path: Path, endpoints: PublisherConfig, monkeypatch: pytest.MonkeyPatch, takes_s: float
) -> None:
    """Slower than a question is repeated; and what the station then has in memory alone says nothing of what is missing in it."""
    reads = []

    def read(path: Path, after_seq: int, limit: int) -> list[Decision]:
        reads.append(after_seq)
        time.sleep(takes_s)
        if len(reads) == 1:
            raise SinkError("journal: database is locked")
        return read_decisions(path, after_seq, limit)

    monkeypatch.setattr(replay_server, "REMEMBERED", 200)
    read_decisions = replay_server.journal_file.read_decisions
    with Told(tmp_path / "j.sqlite", endpoints) as station, DecisionClient(endpoints.endpoint, endpoints.replay, connect_s=30.0) as client:
        monkeypatch.setattr(replay_server.journal_file, "read_decisions", read)
        station.lose(1, 700)
        station.tell(701, 701)
        assert numbers(client, 701, timeout_s=30) == list(range(1, 702))
        assert len(reads) <= 12, "asked again and again for what was on its way"


def test_decisions_that_come_twice_are_handed_on_once(tmp_path: Path, endpoints: PublisherConfig) -> None:
    with Told(tmp_path / "j.sqlite", endpoints) as station, DecisionClient(endpoints.endpoint, endpoints.replay, connect_s=30.0) as client:
        station.tell(1, 3)
        for seq in (1, 2, 3, 2, 6):
            station.publisher.put(a_decision(seq))
        assert numbers(client, 5) == [1, 2, 3, Gap(4, 5, "the station has them neither in its journal nor in memory"), 6]
        assert client.receive(0.2) is None


def test_an_address_that_zeromq_does_not_understand_is_named() -> None:
    with pytest.raises(ConfigError, match="found 'station:5560'"), DecisionClient("station:5560"):
        pass


@pytest.fixture
def dealer(endpoints: PublisherConfig) -> Iterator["zmq.Socket[bytes]"]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.linger = 0
        assert endpoints.replay is not None
        sock.connect(endpoints.replay)
        yield sock


def test_garbage_on_the_replay_socket_is_ignored(tmp_path: Path, endpoints: PublisherConfig, dealer: "zmq.Socket[bytes]") -> None:
    with Told(tmp_path / "j.sqlite", endpoints) as station:
        station.tell(1, 2)
        dealer.send(b"\xff garbage")
        dealer.send_multipart([b"", b"too", b"many"])
        for nowhere in (2**63, -1):
            dealer.send(wire.encode_replay(wire.ReplayRequest(request=6, after_seq=nowhere)))
        dealer.send(wire.encode_replay(wire.ReplayRequest(request=7, after_seq=1)))
        assert dealer.poll(5000)
        reply = wire.decode_reply(dealer.recv())
        assert (reply.request, [d.seq for d in reply.decisions], reply.more) == (7, [2], False)
        assert station.publisher.problem is None


def test_decisions_that_the_journal_does_not_have_come_from_memory(endpoints: PublisherConfig, dealer: "zmq.Socket[bytes]") -> None:
    with Publisher(endpoints, "cell-3", None) as publisher:
        for seq in range(1, 4):
            publisher.put(a_decision(seq))
        dealer.send(wire.encode_replay(wire.ReplayRequest(request=1, after_seq=1)))
        assert dealer.poll(5000)
        assert [d.seq for d in wire.decode_reply(dealer.recv()).decisions] == [2, 3]


def test_a_publisher_that_is_no_station_is_an_error_for_the_listener(endpoints: PublisherConfig) -> None:
    with zmq.Context() as context, context.socket(zmq.PUB) as other, DecisionClient(endpoints.endpoint) as client:
        other.bind(endpoints.endpoint)

        def listen() -> None:
            until = time.monotonic() + 5
            while time.monotonic() < until:
                other.send_multipart([b"decision", b"weather", b"rain"])
                client.receive(0.05)

        with pytest.raises(WireError, match="msgpack"):
            listen()


def test_a_listener_of_schema_1_is_told_so_by_the_replay_socket(endpoints: PublisherConfig, tmp_path: Path) -> None:
    """Without an answer it would ask on and on, and report a gap in the end."""
    assert endpoints.replay is not None
    with Publisher(endpoints, "cell-3", tmp_path / "j.sqlite"), zmq.Context() as context, context.socket(zmq.DEALER) as old:
        old.linger = 0
        old.connect(endpoints.replay)
        old.send((SCHEMA_1 / "request.msgpack").read_bytes())
        assert old.poll(5000)
        with pytest.raises(SchemaError, match="expected messages of schema 2"):
            wire.decode_reply(old.recv().replace(b"\x02", b"\x01"))  # as that version reads it: any number but its own
        old.send(b"hello")
        assert not old.poll(200), "a stranger gets no answer"


@pytest.mark.parametrize("schema", [1, 3])
def test_a_station_of_another_schema_is_an_error_for_the_listener_at_once(endpoints: PublisherConfig, schema: int) -> None:
    """By its first answer, or by the first message that it publishes where its replay socket does not answer such requests, as schema 1."""
    assert endpoints.replay is not None
    began = time.monotonic()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.PUB) as pub:
        router.linger = pub.linger = 0
        router.bind(endpoints.replay)
        pub.bind(endpoints.endpoint)
        stop = threading.Event()

        def answer() -> None:
            while not stop.is_set():
                if schema == 1:
                    pub.send_multipart([b"health", b"st", (SCHEMA_1 / "health.msgpack").read_bytes()])
                    time.sleep(0.02)
                elif router.poll(20):
                    router.send_multipart([router.recv_multipart()[0], b"\x81\xa6schema\x03"])

        thread = threading.Thread(target=answer)
        thread.start()
        client = DecisionClient(endpoints.endpoint, endpoints.replay)
        try:
            with pytest.raises(SchemaError, match=f"schema 2, found schema {schema}"), client:
                while time.monotonic() < began + 10:
                    client.receive(0.1)
        finally:
            stop.set()
            thread.join()
    assert client._context is None, "it holds nothing open"
