"""Keys at real sockets: a stranger reads and writes nothing and is counted, whoever has the right key notices nothing of them."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import zmq

from edge_runtime import wire
from edge_runtime.client import DecisionClient
from edge_runtime.commands.status import health_of
from edge_runtime.config.files import PublisherConfig, ZeromqTriggerConfig
from edge_runtime.credentials import Credentials, Role
from edge_runtime.errors import ConfigError, Refused
from edge_runtime.overlay.window import snapshot
from edge_runtime.records import Decision
from edge_runtime.security.access import Access
from edge_runtime.sinks.publisher import Publisher
from edge_runtime.triggers.zeromq import ZeromqLine
from tests.support.decisions import decision_with
from tests.support.keys import Keys
from tests.support.waiting import until


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys")


@pytest.fixture
def access(keys: Keys) -> Access:
    return Access(keys.ring.folder, everywhere=True)


@contextmanager
def connected(kind: int, endpoint: str, who: Credentials | None) -> Iterator["zmq.Socket[bytes]"]:
    with zmq.Context() as context, context.socket(kind) as sock:
        sock.linger = 0
        sock.reconnect_ivl = 20
        # Not where messages of several parts are read: libzmq 4.3.5 aborts where a connection ends between two parts (fq.cpp, !_more).
        sock.immediate = kind != zmq.SUB
        if who is not None:
            who.apply(sock)
        if kind == zmq.SUB:
            sock.subscribe(b"")
        sock.connect(endpoint)
        yield sock


@contextmanager
def publishing(endpoints: PublisherConfig, access: Access) -> Iterator[Publisher]:
    """A decision every 5 ms."""
    over = threading.Event()

    def put() -> None:
        seq = 0
        while not over.wait(0.005):
            seq += 1
            publisher.put(decision_with(seq=seq))

    with Publisher(endpoints, "s", None, access) as publisher:
        thread = threading.Thread(target=put)
        thread.start()
        try:
            yield publisher
        finally:
            over.set()
            thread.join()


def reads(endpoint: str, who: Credentials | None, wait_ms: int = 10_000) -> bool:
    with connected(zmq.SUB, endpoint, who) as sub:
        return bool(sub.poll(wait_ms))


def asks(endpoint: str, who: Credentials | None, wait_ms: int = 10_000) -> bool:
    with connected(zmq.DEALER, endpoint, who) as dealer:
        if not dealer.poll(wait_ms, zmq.POLLOUT):
            return False
        dealer.send(wire.encode_replay(wire.ReplayRequest(request=1, after_seq=0)))
        return bool(dealer.poll(wait_ms))


def test_a_stranger_reads_and_asks_nothing_and_is_counted(endpoints: PublisherConfig, keys: Keys, access: Access) -> None:
    right, cell = keys.client("hmi", Role.OBSERVE), keys.client("cell", Role.TRIGGER)
    strangers = {**keys.strangers([right]), "cell": cell}
    assert endpoints.replay is not None
    with publishing(endpoints, access) as publisher:
        assert reads(endpoints.endpoint, right)
        assert asks(endpoints.replay, right)
        assert access.tallies == {"strangers": 0}
        for name, who in strangers.items():
            for kind, endpoint in ((zmq.SUB, endpoints.endpoint), (zmq.DEALER, endpoints.replay)):
                before = access.tallies["strangers"]
                with connected(kind, endpoint, who) as sock:  # who is refused comes again, until the test has seen it counted
                    until(lambda before=before: access.tallies["strangers"] > before)
                    assert not sock.poll(300, zmq.POLLIN if kind == zmq.SUB else zmq.POLLIN | zmq.POLLOUT), name
        assert "strangers were refused" in str(publisher.problem)
        assert reads(endpoints.endpoint, right)


@pytest.mark.parametrize("abruptly", [False, True])
def test_a_stranger_that_hangs_up_before_it_has_said_how_it_speaks_is_counted(
    endpoints: PublisherConfig, access: Access, abruptly: bool
) -> None:
    """As libzmq does where it reads of the other's mechanism first; a reset takes what it had said with it."""
    host, port = endpoints.endpoint.removeprefix("tcp://").split(":")
    with publishing(endpoints, access):
        for begun, count in ((b"", 0), (b"\xff" + bytes(8) + b"\x7f\x03", 1)):
            with socket.create_connection((host, int(port)), timeout=20) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", abruptly, 0))
                sock.sendall(begun)
                heard = b""
                while begun and len(heard) < 64:
                    heard += sock.recv(64)
            until(lambda count=count: access.tallies["strangers"] == count)


@pytest.mark.parametrize("stays", [Role.OPERATE, Role.ENGINEER, Role.DEPLOY])
def test_whoever_may_do_more_may_observe(endpoints: PublisherConfig, keys: Keys, access: Access, stays: Role) -> None:
    with publishing(endpoints, access):
        assert reads(endpoints.endpoint, keys.client("somebody", stays))


def test_a_key_that_is_added_comes_in_and_one_that_is_revoked_does_not_stay(endpoints: PublisherConfig, keys: Keys, access: Access) -> None:
    """Also over the connections that stand: to listen, and to ask."""
    assert endpoints.replay is not None
    with publishing(endpoints, access), ExitStack() as stack:
        gone, stays = keys.client("gone", Role.OBSERVE), keys.client("stays", Role.OPERATE)
        listens = {who.name: stack.enter_context(connected(zmq.SUB, endpoints.endpoint, who)) for who in (gone, stays)}
        asking = stack.enter_context(connected(zmq.DEALER, endpoints.replay, gone))
        asking.send(wire.encode_replay(wire.ReplayRequest(request=1, after_seq=0)))
        for sock in (*listens.values(), asking):
            assert sock.poll(10_000)
        asking.recv()
        keys.ring.revoke("gone")
        began = time.monotonic()
        while listens["gone"].poll(1000):  # nothing for a second
            listens["gone"].recv_multipart()
            assert time.monotonic() - began < 20
        assert time.monotonic() - began < 5, "within seconds"
        asking.send(wire.encode_replay(wire.ReplayRequest(request=2, after_seq=0)))
        assert not asking.poll(500)
        while listens["stays"].poll(0):
            listens["stays"].recv_multipart()
        assert listens["stays"].poll(10_000), "whoever may come in came again"


def announces(endpoint: str, who: Credentials | None, access: Access) -> None:
    """Until it was counted as a stranger."""
    before = access.tallies["strangers"]
    with connected(zmq.PUSH, endpoint, who) as push:
        until(lambda: access.tallies["strangers"] > before)
        if push.poll(300, zmq.POLLOUT):
            push.send(b'{"part_id": "forged"}')
            time.sleep(0.2)


def test_a_stranger_announces_no_part(free_port: int, keys: Keys, access: Access) -> None:
    """Nor does whoever may only look, or whose key was revoked while his connection stands."""
    endpoint = f"tcp://127.0.0.1:{free_port}"
    right, looks = keys.client("cell", Role.TRIGGER), keys.client("hmi", Role.DEPLOY, Role.ENGINEER)
    with ZeromqLine(ZeromqTriggerConfig(endpoint=endpoint), 1, access) as line, connected(zmq.PUSH, endpoint, right) as push:
        line.begin()
        push.send(b'{"part_id": "honest"}')
        trigger = line.wait(10)
        assert trigger is not None
        assert (trigger.seq, trigger.part_id, trigger.refused) == (1, "honest", "")
        for name, who in {**keys.strangers([right]), "hmi": looks}.items():
            announces(endpoint, who, access)
            assert line.wait(0.1) is None, name
        keys.ring.revoke("cell")
        time.sleep(1.5)
        push.send(b'{"part_id": "revoked"}')
        assert line.wait(0.5) is None
        assert "revoked" in str(line.problem)


def test_without_an_answer_to_who_somebody_is_nobody_comes_in(
    endpoints: PublisherConfig, keys: Keys, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fail closed: the thread that answers has ended."""
    right = keys.client("hmi", Role.OBSERVE)

    def ends(self: Access, request: list[bytes]) -> list[bytes]:
        raise zmq.ContextTerminated

    monkeypatch.setattr(Access, "_judge", ends)
    with publishing(endpoints, access):
        assert not reads(endpoints.endpoint, right, 1000)


def test_a_file_that_is_no_key_keeps_out_its_holder_alone(endpoints: PublisherConfig, keys: Keys, access: Access) -> None:
    right = keys.client("hmi", Role.OBSERVE)
    (keys.ring.allowed / "torn.pub").write_text('name = "torn"\nroles = ["obs')
    with publishing(endpoints, access):
        assert reads(endpoints.endpoint, right)
        until(lambda: "torn.pub" in str(access.problem))
        keys.ring.allowed.chmod(0o777)
        until(lambda: not reads(endpoints.endpoint, right, 300))  # anybody could have put a key there


@pytest.mark.parametrize("endpoint", ["tcp://*:5560", "tcp://0.0.0.0:5560", "tcp://192.0.2.7:5560", "tcp://[::]:5560", "tcp://eth77:5560"])
def test_a_socket_beyond_this_machine_is_not_opened_without_keys(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="would let anybody in"), Publisher(PublisherConfig(endpoint=endpoint), "s", None):
        pass


def test_this_machine_s_own_sockets_ask_for_no_key_unless_the_station_says_so(keys: Keys, tmp_path: Path) -> None:
    keyed, everywhere, none = Access(keys.ring.folder), Access(keys.ring.folder, everywhere=True), Access()
    for own in ("tcp://127.0.0.1:5560", "tcp://[::1]:5560", "tcp://lo:5560", f"ipc://{tmp_path}/s"):
        assert not keyed.demands(own, "")
        assert not none.demands(own, "")
        assert everywhere.demands(own, "")
    assert keyed.demands("tcp://*:5560", "")
    assert not Access(plain=True).demands("tcp://*:5560", "")


def test_a_subscriber_with_a_key_misses_nothing_and_one_that_is_not_let_in_is_told_why(
    endpoints: PublisherConfig, keys: Keys, access: Access
) -> None:
    """Also when somebody else's key is revoked, for which all connections are cut."""
    right, other = keys.client("hmi", Role.OBSERVE), keys.client("other", Role.OBSERVE)
    with publishing(endpoints, access), DecisionClient(endpoints.endpoint, endpoints.replay, after_seq=0, key=right) as client:
        seen = []
        while len(seen) < 300:
            if isinstance(item := client.receive(1), Decision):
                seen.append(item.seq)
            if len(seen) == 50:
                keys.ring.revoke("other")
        assert seen == list(range(1, 301))
        for who, why in ((None, "the station demands a key: --key FILE"), (other, "never did, or it was revoked")):
            with pytest.raises(Refused, match=why), DecisionClient(endpoints.endpoint, endpoints.replay, key=who) as refused:
                refused.receive(20)
        with pytest.raises(Refused, match="demands a key"):
            snapshot(endpoints.endpoint, endpoints.endpoint, Path("/tmp/never.png"))
        keys.ring.revoke("hmi")
        with pytest.raises(Refused, match="it was revoked"):
            for _ in range(10_000):
                client.receive(1)
    with DecisionClient(endpoints.endpoint, endpoints.replay, connect_s=0.2, key=right) as nobody:
        assert nobody.receive(0.5) is None
        assert nobody.doubt == ""


def test_a_key_for_another_station_or_where_none_is_asked_for_is_told_apart(endpoints: PublisherConfig, keys: Keys, access: Access) -> None:
    right = keys.client("hmi", Role.OBSERVE)
    lost = keys.strangers([right])["hmi at another station"]
    with publishing(endpoints, access), pytest.raises(Refused, match="this is not the station that it is for"):
        health_of(endpoints.endpoint, key=lost)
    with publishing(endpoints, Access()), pytest.raises(Refused, match="asks for no key here"):
        health_of(endpoints.endpoint, key=right)
