"""S7 addresses and what is refused. python-snap7's own server is the only S7 server to be had: there is no independent peer."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from edge_runtime.config.files import PlcInputs, TagType
from edge_runtime.errors import ConfigError, TagError
from edge_runtime.plc.port import PlcLost
from edge_runtime.plc.s7 import S7Port, S7TriggerConfig, parse
from edge_runtime.plc.tags import Tag
from edge_runtime.sim.s7_server import S7Server
from tests.support.ports import free_port


def tag(address: str, kind: TagType = "bool", name: str = "x", writable: bool = False, length: int = 0) -> Tag:
    return Tag(name, f"trigger.{'outputs' if writable else 'inputs'}.{name}", address, kind, writable, length=length)


def settings(number: int = 102, slot: int = 1) -> S7TriggerConfig:
    return S7TriggerConfig(host="127.0.0.1", port=number, slot=slot, timeout_ms=1000, inputs=PlcInputs(trigger="M0.0"))


@pytest.mark.parametrize(
    ("address", "kind", "place"),
    [
        ("DB10.DBX0.7", "bool", ("DB10", 0, 1, 7)), ("db10.dbx3.0", "bool", ("DB10", 3, 1, 0)), ("DB1.DBW2", "int16", ("DB1", 2, 2, None)),
        ("DB1.DBD4", "float32", ("DB1", 4, 4, None)), ("DB1.DBB8", "text", ("DB1", 8, 6, None)), ("M0.0", "bool", ("M", 0, 1, 0)),
        ("MW2", "uint16", ("M", 2, 2, None)), ("MD4", "uint32", ("M", 4, 4, None)), ("E0.1", "bool", ("I", 0, 1, 1)),
        ("IW4", "uint16", ("I", 4, 2, None)), ("A0.1", "bool", ("Q", 0, 1, 1)), ("QD4", "int32", ("Q", 4, 4, None)),
        ("MB8", "text", ("M", 8, 6, None)),
    ],
)  # fmt: skip
def test_addresses(address: str, kind: TagType, place: tuple[str, int, int, int | None]) -> None:
    found = parse(tag(address, kind, length=5))
    assert (found.area, found.start, found.count, found.bit) == place


@pytest.mark.parametrize(
    ("address", "kind", "writable", "says"),
    [
        ("coil:0", "bool", False, "DB10.DBX0.0"), ("DB10.DBX0", "bool", False, "DB10.DBX0.0"),
        ("DB10.DBW0.1", "uint16", False, "DB10.DBX0.0"),
        ("M0", "bool", False, "M0.0"), ("MW0.1", "uint16", False, "M0.0"), ("DB10.DBX0.8", "bool", False, "0 to 7"),
        ("DB0.DBX0.0", "bool", False, "1 to 65535"), ("DB10.DBD65533", "int32", False, "0 to 65535"),
        ("DB10.DBW2", "bool", False, "DB10.DBX2.0"),
        ("DB10.DBX2.0", "uint16", False, '"DB10.DBW2"'), ("DB10.DBW2", "uint32", False, '"DB10.DBD2"'), ("MW2", "text", False, '"MB2"'),
        ("I0.0", "bool", True, "input"), ("", "bool", False, "DB10.DBX0.0"), ("DB1.DBX٣.0", "bool", False, "DB10.DBX0.0"),
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_is_named(address: str, kind: TagType, writable: bool, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        S7Port(settings(), [tag(address, kind, writable=writable, length=4)])
    message = str(caught.value)
    assert message.startswith(f"trigger.{'outputs' if writable else 'inputs'}.x: ") and says in message and repr(address) in message


@pytest.mark.parametrize(
    ("one", "other", "fine"),
    [
        (("M0.0", "bool", True), ("M0.1", "bool", True), True), (("M0.0", "bool", True), ("M0.1", "bool", False), False),
        (("M0.0", "bool", True), ("M0.0", "bool", True), False), (("DB1.DBD0", "int32", True), ("DB1.DBW2", "int16", False), False),
        (("DB1.DBD0", "int32", True), ("DB2.DBW2", "int16", False), True), (("Q0.0", "bool", True), ("A0.0", "bool", True), False),
        (("DB1.DBD0", "int32", False), ("DB1.DBX0.0", "bool", False), True),
    ],
)  # fmt: skip
def test_an_output_shares_its_place_with_nothing(one: tuple[str, TagType, bool], other: tuple[str, TagType, bool], fine: bool) -> None:
    a, b = tag(one[0], one[1], "a", one[2]), tag(other[0], other[1], "b", other[2])
    if fine:
        S7Port(settings(), [a, b])
        return
    with pytest.raises(ConfigError) as caught:
        S7Port(settings(), [a, b])
    assert a.key in str(caught.value) and b.key in str(caught.value)


def test_inputs_of_all_areas_are_one_request_as_far_as_the_pdu_reaches() -> None:
    tags = [tag("DB1.DBX0.0", name="a"), tag("M5.0", name="b"), tag("I0.0", name="c"), tag("DB2.DBB0", "text", "d", length=200)]
    number = free_port()
    with S7Server(settings(number), tags) as server:
        port = S7Port(settings(number), tags)
        port.connect(lambda: None)
        before = server.requests
        assert port.read(["a", "b", "c", "d"]) == {"a": False, "b": False, "c": False, "d": ""}
        assert server.requests - before == port.trips(["a", "b", "c", "d"]) == 1
        port.close()


@pytest.mark.parametrize(("address", "says"), [("DB7.DBX0.0", "there is no such block"), ("DB1.DBX50.0", "address out of range")])
def test_a_block_that_is_missing_or_too_short_is_named(address: str, says: str) -> None:
    number = free_port()
    with (
        S7Server(settings(number), [tag("DB1.DBX0.0")]),
        pytest.raises(TagError, match=rf"^trigger.inputs.x: PLC 127.0.0.1:{number} .*{address}: {says}.*optimized block access"),
    ):
        S7Port(settings(number), [tag(address)]).connect(lambda: None)


@contextmanager
def answering(*answers: bytes) -> Iterator[int]:
    """A PLC that gives these answers, one a request, and then closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                for answer in answers:
                    client.recv(1000)
                    client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
        thread.join()


def _framed(cotp: bytes) -> bytes:
    return struct.pack(">BBH", 3, 0, len(cotp) + 4) + cotp


CONFIRM = _framed(bytes.fromhex("11d00001000100c0010ac1020100c2020101"))
SETUP = _framed(bytes.fromhex("02f080320300000001000800000000f0000001000100f0"))


@pytest.mark.parametrize("refusal", [b"", _framed(bytes.fromhex("06800001000000"))], ids=["closes", "disconnect request"])
def test_a_wrong_slot_is_told(refusal: bytes) -> None:
    with answering(refusal) as number, pytest.raises(PlcLost, match=r"refuses rack 0 slot 2.*trigger.slot"):
        S7Port(settings(number, slot=2), [tag("M0.0")]).connect(lambda: None)


def test_a_cpu_without_put_get_is_told() -> None:
    denied = _framed(bytes.fromhex("02f080320300000002000000008104"))
    with answering(CONFIRM, SETUP, denied) as number, pytest.raises(TagError, match=r"^trigger.inputs.x: .*allow PUT/GET"):
        S7Port(settings(number), [tag("M0.0")]).connect(lambda: None)


def test_an_answer_to_another_request_is_not_taken() -> None:
    other = _framed(bytes.fromhex("02f0803203000000070002000500000401ff04000801"))
    with answering(CONFIRM, SETUP, other) as number, pytest.raises(PlcLost, match="another request"):
        S7Port(settings(number), [tag("M0.0")]).connect(lambda: None)


@contextmanager
def reading(delay_s: float, *pieces: bytes, after: Sequence[bytes] = ()) -> Iterator[S7Port]:
    """A port that reads M0.0, connected to a PLC whose answer to its next request comes in these pieces; `after`: to those after it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = S7Port(settings(listener.getsockname()[1]), [tag("M0.0")])

        def serve() -> None:
            client, _ = listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with client:
                for answer in (CONFIRM, SETUP, _bit(2, False)):
                    client.recv(1000)
                    client.sendall(answer)
                client.recv(1000)
                with contextlib.suppress(OSError):
                    for piece in pieces:
                        client.sendall(piece)
                        time.sleep(delay_s)
                    for answer in after:
                        client.recv(1000)
                        client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        port.connect(lambda: None)
        yield port
        port.close()
        thread.join()


def _bit(number: int, high: bool) -> bytes:
    return _framed(
        struct.pack(">7sH", bytes.fromhex("02f08032030000"), number) + bytes.fromhex("000200050000 0401 ff040008") + bytes([high])
    )


@pytest.mark.parametrize("cut", [1, 3, 4, 7, 13, 25])
def test_an_answer_in_pieces_is_put_together(cut: int) -> None:
    answer = _bit(3, True)
    with reading(0.02, answer[:cut], answer[cut:]) as port:
        assert port.read(["x"]) == {"x": True}


@pytest.mark.slow
def test_an_answer_that_trickles_is_lost_when_the_time_is_over() -> None:
    with reading(0.1, *(bytes([b]) for b in _bit(3, True))) as port:
        began = time.monotonic()
        with pytest.raises(PlcLost, match="1000 ms"):
            port.read(["x"])
        assert time.monotonic() - began < 1.5


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (_bit(2, False), "another request"), (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not S7"), (_bit(3, False) + b"\0", "not S7"),
        (_bit(3, False)[:12], "closed by the PLC"),
    ],
)  # fmt: skip
def test_what_only_begins_as_the_last_answer_did_is_not_taken_for_it(answer: bytes, says: str) -> None:
    with reading(0.0, answer) as port, pytest.raises(PlcLost, match=says):
        port.read(["x"])


def _item(number: int, code: int) -> bytes:
    """The answer that refuses the one item asked for."""
    return _framed(
        struct.pack(">7sH", bytes.fromhex("02f08032030000"), number) + bytes.fromhex("000200040000 0401") + bytes([code, 0, 0, 0])
    )


def _busy(number: int) -> bytes:
    """No resources available."""
    return _framed(struct.pack(">7sH", bytes.fromhex("02f08032030000"), number) + bytes.fromhex("000000008301"))


@pytest.mark.parametrize(("refusal", "said"), [(_item(3, 0x01), "hardware fault"), (_item(3, 0x0A), "no such block"), (_busy(3), "0x8301")])
def test_what_the_plc_has_no_value_for_now_is_left_out_and_asked_for_again_on_the_same_connection(refusal: bytes, said: str) -> None:
    with reading(0.0, refusal, after=[_bit(4, True)]) as port:
        assert port.read(["x"]) == {}
        assert said in port.missing["x"]
        assert port.read(["x"]) == {"x": True}
        assert port.missing == {}


def test_a_plc_without_resources_is_asked_again_while_it_is_connected_to() -> None:
    with answering(CONFIRM, SETUP, _busy(2), _busy(3), _bit(4, True), _bit(5, True)) as number:
        port = S7Port(settings(number), [tag("M0.0")])
        port.connect(lambda: None)
        assert port.read(["x"]) == {"x": True}
        port.close()
