"""The EtherNet/IP port: tag names, types, and servers that answer late, with something else, or not at all."""

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from edge_runtime.config.files import PlcInputs
from edge_runtime.errors import ConfigError, MissingExtra, TagError, TriggerError
from edge_runtime.plc.ethernetip import EthernetipPort, EthernetipTriggerConfig
from edge_runtime.plc.port import PlcLost
from edge_runtime.plc.tags import Tag, Value
from edge_runtime.sim.ethernetip_server import EthernetipServer
from tests.support.ports import free_ports

TIMEOUT_MS = 300.0


def settings(port: int = 44818, slot: int = 0) -> EthernetipTriggerConfig:
    return EthernetipTriggerConfig(host="127.0.0.1", port=port, slot=slot, timeout_ms=TIMEOUT_MS, inputs=PlcInputs(trigger="T"))


def tag(address: str, kind: Any = "bool", writable: bool = False, name: str = "trigger", **more: Any) -> Tag:
    return Tag(name, f"trigger.{'outputs' if writable else 'inputs'}.{name}", address, kind, writable, **more)


@pytest.mark.parametrize("address", ["T", "Vision.Trigger", "Program:Main.Trigger", "Parts[3].Id", "M[1,2,3]", "Flags.31", "_a.b_[0].3"])
def test_tag_names_of_all_kinds_are_taken(address: str) -> None:
    assert EthernetipPort(settings(), [tag(address)]).trips(["trigger"]) == 1


@pytest.mark.parametrize(
    "address", ["", "3T", "T.", "T..A", "T[", "T[]", "T[1,2,3,4]", "T.32", "Program:Main", "coil:0", "ns=2;s=T", "T U", "Ä"]
)
def test_what_is_no_tag_name_is_named_with_its_key(address: str) -> None:
    with pytest.raises(ConfigError, match=r"trigger\.inputs\.trigger: expected a tag name") as caught:
        EthernetipPort(settings(), [tag(address)])
    assert f'found "{address}"' in str(caught.value)


@pytest.mark.parametrize(("first", "second"), [("Out", "out"), ("Out.3", "Out"), ("Out", "OUT.0"), ("A.B[2]", "a.b[2]"), ("W.1", "W.1")])
def test_outputs_that_share_memory_are_named_with_both_keys(first: str, second: str) -> None:
    with pytest.raises(ConfigError, match=r"trigger\.outputs\.reject.*trigger\.outputs\.accept"):
        EthernetipPort(settings(), [tag(first, writable=True, name="accept"), tag(second, writable=True, name="reject")])


def test_bits_of_one_tag_and_inputs_of_one_tag_are_no_overlap() -> None:
    EthernetipPort(settings(), [tag("W.0", writable=True, name="accept"), tag("W.1", writable=True, name="reject")])
    port = EthernetipPort(settings(), [tag("W.0"), tag("W", "int32", name="part_id")])
    assert port.trips(["trigger", "part_id"]) == 1


def test_a_bit_is_a_bool() -> None:
    with pytest.raises(ConfigError, match=r'trigger\.inputs\.trigger: expected type "bool" for the bit "W\.0", found "uint16"'):
        EthernetipPort(settings(), [tag("W.0", "uint16")])


def test_without_pylogix_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pylogix", None)
    with pytest.raises(MissingExtra, match=r"lineside\[plc\]"):
        EthernetipPort(settings(), [tag("T")])


def test_bits_of_one_word_are_written_alone(free_port: int) -> None:
    tags = [tag("W.0", writable=True, name="accept"), tag("W.31", writable=True, name="reject"), tag("W.5", writable=True, name="fault")]
    port = EthernetipPort(settings(free_port), tags)
    with EthernetipServer(settings(free_port), tags) as server:
        server.set({"fault": True})
        port.connect(lambda: None)
        port.write({"accept": True, "reject": True})
        assert server.get(["accept", "reject", "fault"]) == {"accept": True, "reject": True, "fault": True}
        port.write({"reject": False})
        assert server.get(["accept", "reject", "fault"]) == {"accept": True, "reject": False, "fault": True}
        assert port.read(["fault", "accept"]) == {"fault": True, "accept": True}
        port.close()


@pytest.mark.parametrize(
    ("there", "asked", "message"),
    [
        (tag("T", "int32"), tag("T"), "expected a BOOL, found DINT"),
        (tag("T"), tag("T", "int32"), 'expected a number for type "int32", found BOOL'),
        (tag("T", "float32"), tag("T", "text", length=8), "expected a STRING .* found REAL"),
        (tag("T", "text", length=8), tag("T", "uint16"), "expected a number .* found STRING"),
        (tag("T", "int16"), tag("T", "int32", wraps=True), 'expected a whole number of at least the range of "int32".* found INT'),
        (tag("T", "float32"), tag("T", "uint16", wraps=True), "expected a whole number .* found REAL"),
        (tag("T"), tag("T.3"), "expected an integer for a bit of it, found BOOL"),
        (tag("T"), tag("U"), 'expected the tag "U" .* found none'),
        (tag("T"), tag("T", writable=True), "expected a tag that may be written, .*External Access"),
    ],
)
def test_a_tag_that_does_not_fit_is_told_with_its_key(free_port: int, there: Tag, asked: Tag, message: str) -> None:
    port = EthernetipPort(settings(free_port), [asked])
    with EthernetipServer(settings(free_port), [there]), pytest.raises(TagError, match=rf"^{asked.key}: .*{message}"):
        port.connect(lambda: None)


def test_a_wrong_slot_is_named(free_port: int) -> None:
    port = EthernetipPort(settings(free_port, slot=4), [tag("T")])
    with EthernetipServer(settings(free_port), [tag("T")]), pytest.raises(PlcLost, match=r"slot 4.*trigger\.slot"):
        port.connect(lambda: None)


def test_a_server_without_a_free_port_says_so(free_port: int) -> None:
    with EthernetipServer(settings(free_port), [tag("T")]), pytest.raises(TriggerError, match="cannot listen"):
        EthernetipServer(settings(free_port), [tag("T")]).__enter__()


def test_what_changes_in_one_packet_of_several_is_seen(free_port: int) -> None:
    tags = [tag(f"Station_with_a_long_name_of_its_own_{n:03}", "uint32", name=f"n{n}") for n in range(120)]
    names = [t.name for t in tags]
    port = EthernetipPort(settings(free_port), tags)
    with EthernetipServer(settings(free_port), tags) as server:
        port.connect(lambda: None)
        assert port.trips(names) > 1
        expected: dict[str, Value] = dict.fromkeys(names, 0)
        for changed in ([], ["n119"], [], ["n0"], ["n60", "n119"], []):
            expected |= {name: int(str(expected[name])) + 1 for name in changed}
            server.set(expected)
            assert port.read(names) == expected
        port.close()


def test_outputs_that_take_several_packets_arrive_in_their_order(free_port: int) -> None:
    """On the small connections of old controllers."""
    base = "Program:MainProgram.Vision_Station_1."
    names = [f"n{n}" for n in range(4)] + [f"b{n}" for n in range(8)] + ["result_valid"]
    tags = [tag(f"{base}Number_{n}", "uint32", True, f"n{n}") for n in range(4)]
    tags += [tag(f"{base}Status_Word.{n}", "bool", True, f"b{n}") for n in range(8)] + [tag("RV", "bool", True, "result_valid")]
    patient = msgspec.structs.replace(settings(free_port), timeout_ms=10_000)
    port = EthernetipPort(patient, tags)
    with EthernetipServer(patient, tags, large_connections=False) as server:
        port.connect(lambda: None)
        stop, seen = threading.Event(), []

        def look() -> None:
            while not stop.is_set():
                seen.append(tuple(server.get(names).values()))

        thread = threading.Thread(target=look)
        thread.start()
        for n in range(1, 40):
            port.write({name: n if name[0] == "n" else n % 2 == 1 for name in names})
        stop.set()
        thread.join()
        port.close()
    half = [s for s in seen if len({int(v) % 2 for v in s}) > 1]
    assert half, "one packet was enough for all"
    assert all(s[-1] is not (s[0] % 2 == 1) for s in half), "result_valid was there before all that it stands for"


def test_an_answer_that_ends_in_the_middle_is_a_lost_plc() -> None:
    outside, inside = free_ports(2)
    tags = [tag("T"), tag("P", "uint32", name="part_id")]
    with EthernetipServer(settings(inside), tags), between(outside, inside) as network:
        port = EthernetipPort(settings(outside), tags)
        port.connect(lambda: None)
        network.cut = 30
        began = time.monotonic()
        with pytest.raises(PlcLost, match="closed the connection"):
            port.read(["part_id"])
        assert time.monotonic() - began < 1
        port.close()


def test_an_answer_that_comes_twice_is_not_taken_for_the_next_one() -> None:
    outside, inside = free_ports(2)
    tags = [tag("P", "uint32", name="part_id")]
    with EthernetipServer(settings(inside), tags) as server, between(outside, inside) as network:
        port = EthernetipPort(settings(outside), tags)
        port.connect(lambda: None)
        network.twice = True
        with pytest.raises(PlcLost):
            for part in range(1, 4):
                server.set({"part_id": part})
                assert port.read(["part_id"]) == {"part_id": part}
                time.sleep(0.05)
        port.close()


@dataclass
class Network:
    """What becomes of the PLC's packets on their way to the station."""

    delay_s: float = 0.0
    cut: int | None = None
    """So many bytes of the next one arrive, and then the connection ends."""
    twice: bool = False

    def carry(self, source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(65536):
            time.sleep(self.delay_s)
            sink.sendall((data + data if self.twice else data)[: self.cut])
            if self.cut is not None:
                return


@contextmanager
def between(listen: int, target: int) -> Iterator[Network]:
    network = Network()
    socks: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def carry(source: socket.socket, sink: socket.socket, late: bool) -> None:
        with suppress(OSError):
            (network if late else Network()).carry(source, sink)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", target))
            socks.extend((client, server))
            for args in ((client, server, False), (server, client, True)):
                threads.append(threading.Thread(target=carry, args=args))
                threads[-1].start()

    listener = socket.create_server(("127.0.0.1", listen))
    acceptor = threading.Thread(target=accept, args=(listener,))
    acceptor.start()
    try:
        yield network
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for sock in socks:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in threads:
            thread.join()


def test_an_answer_that_comes_too_late_is_never_taken_for_the_next_one() -> None:
    outside, inside = free_ports(2)
    tags = [tag("T"), tag("P", "uint32", name="part_id")]
    with EthernetipServer(settings(inside), tags) as server, between(outside, inside) as network:
        port = EthernetipPort(settings(outside), tags)
        port.connect(lambda: None)
        server.set({"part_id": 1})
        network.delay_s = 1.5 * TIMEOUT_MS / 1e3
        began = time.monotonic()
        with pytest.raises(PlcLost, match="300 ms"):
            port.read(["part_id"])
        assert time.monotonic() - began < 1.3 * TIMEOUT_MS / 1e3 + 0.5
        with pytest.raises(PlcLost, match="not connected"):
            port.read(["part_id"])
        network.delay_s = 0.0
        server.set({"part_id": 2})
        port.connect(lambda: None)
        assert port.read(["part_id"]) == {"part_id": 2}
        port.close()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x65\x00\x04\x00" + bytes(24), bytes(8)])
def test_a_server_that_is_something_else_is_a_lost_plc_in_time(free_port: int, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", free_port)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.settimeout(5)
                while client.recv(4096):
                    client.sendall(answer)
                    if not answer:
                        return

        thread = threading.Thread(target=lambda: _quietly(serve))
        thread.start()
        port = EthernetipPort(settings(free_port), [tag("T")])
        began = time.monotonic()
        with pytest.raises(PlcLost):
            port.connect(lambda: None)
        assert time.monotonic() - began < 5 * TIMEOUT_MS / 1e3 + 1
        port.close()
        thread.join()


def _quietly(work: Callable[[], None]) -> None:
    with suppress(OSError):
        work()


def test_a_float_that_is_no_number_does_not_reach_an_integer_tag(free_port: int) -> None:
    tags = [tag("S", "float32", True, name="severity")]
    port = EthernetipPort(settings(free_port), [tag("S", "uint16", True, name="severity")])
    with EthernetipServer(settings(free_port), tags) as server:
        port.connect(lambda: None)
        server.set({"severity": float("nan")})
        assert port.read(["severity"]) == {"severity": 0}
        port.write({"severity": 70_000})
        assert server.get(["severity"]) == {"severity": 65_535.0}
        port.close()
