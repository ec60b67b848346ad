"""Strangers at a station's sockets: whatever they send, the loop's thread does not wait, memory does not grow, and nobody honest loses."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import zmq

from edge_runtime.client import DecisionClient
from edge_runtime.config.files import PublisherConfig, ZeromqTriggerConfig
from edge_runtime.errors import SinkError
from edge_runtime.records import Decision
from edge_runtime.sinks.publisher import Publisher
from edge_runtime.triggers.zeromq import ZeromqLine
from tests.support.waiting import until

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16) + bytes(32)
READY = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"

# Puts a decision every 5 ms, as a loop would, until its standard input ends; then says how long the longest took, and what it holds.
PUBLISHES = """
import json, resource, sys, threading, time
from edge_runtime.config.files import PublisherConfig
from edge_runtime.sinks.publisher import Publisher
from tests.support.decisions import decision_with

settings = PublisherConfig(endpoint=sys.argv[1], replay=sys.argv[2])
longest, seq, over = 0.0, 0, threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
with Publisher(settings, "s", None) as publisher:
    keeper = publisher._door._keeper
    print(json.dumps({"door": keeper._process.pid, "folder": str(keeper.folder)}), flush=True)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while not over.is_set():
        seq += 1
        began = time.perf_counter()
        publisher.put(decision_with(seq=seq))
        longest = max(longest, time.perf_counter() - began)
        time.sleep(0.005)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
    print(json.dumps({"longest_s": longest, "grown_kb": grown, "seq": seq, "problem": publisher.problem}), flush=True)
"""


class Publishing:
    """A publisher in a process of its own: libzmq may abort it."""

    def __init__(self, endpoints: PublisherConfig) -> None:
        assert endpoints.replay is not None
        self.process = subprocess.Popen(
            [sys.executable, "-c", PUBLISHES, endpoints.endpoint, endpoints.replay],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert self.process.stdout is not None
        said = json.loads(self.process.stdout.readline())
        self.door, self.folder = said["door"], Path(said["folder"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> dict[str, Any]:
        said, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        return json.loads(said.splitlines()[-1])  # type: ignore[no-any-return]


def port_of(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return host, int(port)


@contextlib.contextmanager
def strangers(attack: Callable[[], None], count: int) -> Iterator[None]:
    """So many that do it again and again."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                attack()

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    yield
    over.set()
    for thread in threads:
        thread.join(10)


def raw(endpoint: str, what: bytes, times: int) -> Callable[[], None]:
    """Speaks ZMTP by hand, as fast as it may, until it is cut."""

    def attack() -> None:
        with socket.create_connection(port_of(endpoint), timeout=1) as sock:
            sock.sendall(GREETING + READY)
            for _ in range(times):
                sock.sendall(what)

    return attack


def subscribes(endpoint: str) -> Callable[[], None]:
    """50 MB of small subscriptions."""
    counter = iter(range(1 << 40))

    def attack() -> None:
        with socket.create_connection(port_of(endpoint), timeout=1) as sock:
            sock.sendall(GREETING + READY)
            for _ in range(200):
                topics = b"".join(b"\x00\x09\x01%08d" % next(counter) for _ in range(1000))
                sock.sendall(topics)

    return attack


def floods_and_closes(endpoint: str) -> Callable[[], None]:
    """An ordinary peer that asks without reading and goes: with heartbeats, libzmq aborts the process that it asks."""

    def attack() -> None:
        with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.linger = 0
            dealer.sndhwm = 0
            dealer.connect(endpoint)
            for _ in range(20_000):
                dealer.send(bytes(64))
            time.sleep(0.05)

    return attack


ATTACKS: dict[str, Callable[[PublisherConfig], Callable[[], None]]] = {
    "subscriptions without end": lambda e: subscribes(e.endpoint),
    "a message without end to subscribe": lambda e: raw(e.endpoint, b"\x01\x40" + bytes(64), 10_000_000),
    "a message without end to ask": lambda e: raw(str(e.replay), b"\x01\x40" + bytes(64), 10_000_000),
    "questions without end": lambda e: floods_and_closes(str(e.replay)),
    "no greeting": lambda e: raw(e.endpoint, b"", 0),
}


@pytest.mark.parametrize("kind", ATTACKS)
def test_no_stranger_delays_the_loop_grows_its_memory_or_takes_a_decision_from_a_subscriber(kind: str, endpoints: PublisherConfig) -> None:
    """Law 4, for observers that nobody asked in. Before: 34 s of standstill, 3 GB, or the end of the process."""
    seen: list[int] = []
    with (
        Publishing(endpoints) as publishing,
        DecisionClient(endpoints.endpoint, endpoints.replay, after_seq=0) as client,
        strangers(ATTACKS[kind](endpoints), 3),
    ):
        began = time.monotonic()
        while (waited_s := time.monotonic() - began) < 3 or (len(seen) <= 20 and waited_s < 60):
            if isinstance(item := client.receive(0.1), Decision):
                seen.append(item.seq)
        report = publishing.end()
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) > 20
    assert report["longest_s"] < 1.0
    assert report["grown_kb"] < 60_000
    if kind not in ("no greeting", "questions without end"):
        assert "connections were cut" in report["problem"]


def test_connections_that_are_only_held_keep_nobody_out(endpoints: PublisherConfig) -> None:
    with Publishing(endpoints) as publishing, contextlib.ExitStack() as held:
        for endpoint in (endpoints.endpoint, str(endpoints.replay)):
            for _ in range(80):
                sock = held.enter_context(socket.create_connection(port_of(endpoint), timeout=5))
                sock.sendall(GREETING + READY)
        with DecisionClient(endpoints.endpoint, endpoints.replay, connect_s=30.0) as client:
            until = time.monotonic() + 20
            seen: list[int] = []
            while len(seen) < 20 and time.monotonic() < until:
                if isinstance(item := client.receive(0.1), Decision):
                    seen.append(item.seq)
        assert len(seen) == 20
        publishing.end()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_stays_when_a_station_is_gone(endpoints: PublisherConfig, how: signal.Signals) -> None:
    with Publishing(endpoints) as publishing:
        folder = publishing.folder
        assert folder.is_dir()
        publishing.process.send_signal(how)
        publishing.process.wait(10)
        until(lambda: not folder.exists())


def test_a_door_that_is_killed_is_replaced_and_nobody_loses_a_decision(endpoints: PublisherConfig) -> None:
    seen: list[object] = []
    with Publishing(endpoints) as publishing, DecisionClient(endpoints.endpoint, endpoints.replay, after_seq=0, give_up_s=30) as client:
        while len(seen) < 20:
            seen.append(client.receive(None))
        os.kill(publishing.door, signal.SIGKILL)
        while len(seen) < 200:
            seen.append(client.receive(None))
        report = publishing.end()
    assert [d.seq for d in seen if isinstance(d, Decision)] == list(range(1, 201))
    assert "ended (-9) and was started again" in report["problem"]


def test_a_door_goes_with_its_station(endpoints: PublisherConfig) -> None:
    with Publishing(endpoints) as publishing:
        publishing.process.kill()
    until(lambda: not Path(f"/proc/{publishing.door}").exists())


@contextlib.contextmanager
def announcing(port: int) -> Iterator[tuple[ZeromqLine, zmq.Socket[bytes]]]:
    """A line that has begun, and the socket of whoever announces its parts."""
    endpoint = f"tcp://127.0.0.1:{port}"
    with ZeromqLine(ZeromqTriggerConfig(endpoint=endpoint), 1) as line, zmq.Context() as context, context.socket(zmq.PUSH) as push:
        push.linger = 0
        line.begin()
        push.connect(endpoint)
        yield line, push


def test_whoever_announces_more_parts_than_any_line_is_cut_and_the_line_s_own_go_on(free_port: int) -> None:
    """What waited would be answered by the picture of another part, so it is not kept back."""
    endpoint = f"tcp://127.0.0.1:{free_port}"

    def attack() -> None:
        with zmq.Context() as context, context.socket(zmq.PUSH) as push:
            push.linger = 0
            push.connect(endpoint)
            for _ in range(5000):  # more than any line makes
                push.send(b'{"part_id": "forged"}')
            time.sleep(0.2)

    came: list[str] = []
    with announcing(free_port) as (line, push):
        push.send(b'{"part_id": "honest"}')
        trigger = line.wait(30)
        assert trigger is not None
        with strangers(attack, 2):
            until = time.monotonic() + 3
            sent_at = 0.0
            while time.monotonic() < until:
                if time.monotonic() - sent_at > 0.1:
                    sent_at = time.monotonic()
                    push.send(b'{"part_id": "honest"}')
                if (trigger := line.wait(0.05)) is not None:
                    came.append(trigger.part_id)
        assert came.count("honest") > 10
        assert came.count("forged") < 5000, "a tenth of what was sent"
        assert line.problem is not None
        assert "connections were cut" in line.problem


def test_what_a_sender_kept_while_the_station_was_away_comes_in_whole(free_port: int) -> None:
    """As many as ZeroMQ keeps; each is a part that has gone by, and is refused by name instead of lost."""
    endpoint = f"tcp://127.0.0.1:{free_port}"
    with zmq.Context() as context, context.socket(zmq.PUSH) as push:
        push.linger = 0
        push.connect(endpoint)
        for i in range(1000):
            push.send(b'{"part_id": "%d", "sent": "2026-01-01T00:00:00Z"}' % i, zmq.NOBLOCK)
        with ZeromqLine(ZeromqTriggerConfig(endpoint=endpoint), 1) as line:
            line.begin()
            got = [line.wait(20) for _ in range(1000)]
            assert [t.part_id for t in got if t is not None] == [str(i) for i in range(1000)]
            assert all(t is not None and t.refused for t in got)
            assert line.problem is None


def pid_of(line: ZeromqLine) -> int:
    assert line._door is not None
    return line._door._keeper._process.pid


def test_a_part_that_waited_in_a_door_that_stood_still_is_refused(free_port: int) -> None:
    """Law 3: the next frame shows another part. One that is announced when all is well again is judged."""
    with announcing(free_port) as (line, push):
        push.send(b'{"part_id": "first"}')
        first = line.wait(30)
        os.kill(pid_of(line), signal.SIGSTOP)
        push.send(b'{"part_id": "waited"}')
        assert line.wait(0.8) is None
        os.kill(pid_of(line), signal.SIGCONT)
        waited = line.wait(30)
        time.sleep(2.1)
        push.send(b'{"part_id": "last"}')
        last = line.wait(30)
    assert first is not None
    assert waited is not None
    assert last is not None
    assert [(t.part_id, bool(t.refused)) for t in (first, waited, last)] == [("first", False), ("waited", True), ("last", False)]
    assert "stood still" in waited.refused


def test_a_door_that_stands_still_for_good_is_replaced(free_port: int) -> None:
    with announcing(free_port) as (line, push):
        stopped = pid_of(line)
        os.kill(stopped, signal.SIGSTOP)
        until = time.monotonic() + 60
        while (trigger := line.wait(0.1)) is None and time.monotonic() < until:
            push.send(b'{"part_id": "A-17"}')
        assert trigger is not None
        assert pid_of(line) != stopped
        assert "stood still and was started again" in str(line.problem)


def test_a_door_that_stands_still_keeps_no_port_from_the_next_start(endpoints: PublisherConfig) -> None:
    with Publishing(endpoints) as publishing:
        with DecisionClient(endpoints.endpoint, endpoints.replay, after_seq=0) as client:
            assert client.receive(60) is not None
        os.kill(publishing.door, signal.SIGSTOP)
        time.sleep(0.1)
        publishing.process.kill()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with contextlib.suppress(SinkError), Publisher(endpoints, "s", None):
            return
        time.sleep(0.05)
    os.kill(publishing.door, signal.SIGKILL)
    pytest.fail("the port was held")
