"""Modbus addresses, what is refused, and an independent server and client (libmodbus, mbpoll)."""

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from edge_runtime.config.files import PlcInputs, PlcOutputs, TagConfig, TagType
from edge_runtime.errors import ConfigError, TagError, TriggerError
from edge_runtime.plc.defaults import default_trigger
from edge_runtime.plc.line import PlcLine
from edge_runtime.plc.modbus import ModbusPort, ModbusTriggerConfig, parse
from edge_runtime.plc.port import PlcLost, TooLate
from edge_runtime.plc.signals import tags_of
from edge_runtime.plc.tags import Tag
from tests.support.ports import free_port
from tests.support.raw_modbus import RawModbus

SERVER = r"""
#include <modbus.h>
#include <stdlib.h>
#include <stdio.h>
int main(int argc, char **argv) {
    modbus_t *plc = modbus_new_tcp("127.0.0.1", atoi(argv[1]));
    modbus_mapping_t *memory = modbus_mapping_new(200, 200, 200, 200);
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    memory->tab_input_bits[3] = 1;
    memory->tab_input_registers[5] = 4711;
    memory->tab_registers[20] = 0x0001; memory->tab_registers[21] = 0xE240;
    int listening = modbus_tcp_listen(plc, 1), got;
    puts("listening"); fflush(stdout);
    for (;;) {
        modbus_tcp_accept(plc, &listening);
        while ((got = modbus_receive(plc, query)) >= 0)
            if (got > 0) modbus_reply(plc, query, got, memory);
        modbus_close(plc);
    }
}
"""


def tag(address: str, kind: TagType = "bool", name: str = "x", writable: bool = False, length: int = 0) -> Tag:
    return Tag(name, f"trigger.{'outputs' if writable else 'inputs'}.{name}", address, kind, writable, length=length)


def port_of(*tags: Tag, number: int = 502) -> ModbusPort:
    return ModbusPort(ModbusTriggerConfig(port=number, timeout_ms=1000, inputs=PlcInputs(trigger="coil:0")), tags)


@pytest.mark.parametrize(
    ("address", "kind", "place"),
    [
        ("coil:0", "bool", ("coil", 0, 1, 0)), ("discrete:65535", "bool", ("discrete", 65_535, 1, 0)),
        ("holding:7.15", "bool", ("holding", 7, 1, 15)), ("input:7.0", "bool", ("input", 7, 1, 0)),
        ("holding:7", "uint16", ("holding", 7, 1, None)), ("input:65534", "float32", ("input", 65_534, 2, None)),
        ("holding:7", "text", ("holding", 7, 3, None)),
    ],
)  # fmt: skip
def test_addresses(address: str, kind: TagType, place: tuple[str, int, int, int | None]) -> None:
    found = parse(tag(address, kind, length=5))
    assert (found.area, found.start, found.count, found.bit) == place


@pytest.mark.parametrize(
    ("address", "kind", "writable", "says"),
    [
        ("40001", "uint16", False, "holding:0"), ("coil:x", "bool", False, "coil:0"), ("Coil:1", "bool", False, "coil:0"),
        ("coil:-1", "bool", False, "coil:0"), ("coil:65536", "bool", False, "0 to 65535"), ("holding:65535", "uint32", False, "65536"),
        ("holding:1", "bool", False, "holding:1.0"), ("holding:1.16", "bool", False, "0 to 15"), ("coil:1.2", "bool", False, "0 to 15"),
        ("coil:1", "uint16", False, "holding:1"), ("holding:1.2", "int32", False, "holding:1"), ("discrete:1", "bool", True, "coil"),
        ("input:1", "uint16", True, "holding register"), ("coil:٣", "bool", False, "coil:0"), ("", "bool", False, "coil:0"),
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_is_named(address: str, kind: TagType, writable: bool, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        port_of(tag(address, kind, writable=writable))
    message = str(caught.value)
    assert message.startswith(f"trigger.{'outputs' if writable else 'inputs'}.x: ") and says in message and repr(address) in message


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("coil:1", "bool", True), ("coil:1", "bool", True)), (("coil:1", "bool", False), ("coil:1", "bool", True)),
        (("holding:1", "uint32", True), ("holding:2", "uint16", False)), (("holding:1.3", "bool", True), ("holding:1.4", "bool", False)),
        (("holding:1.3", "bool", True), ("holding:1", "uint16", True)), (("holding:1.3", "bool", True), ("holding:1.3", "bool", True)),
    ],
)  # fmt: skip
def test_an_output_shares_its_place_with_nothing(one: tuple[str, TagType, bool], other: tuple[str, TagType, bool]) -> None:
    a, b = tag(one[0], one[1], "a", one[2]), tag(other[0], other[1], "b", other[2])
    with pytest.raises(ConfigError) as caught:
        port_of(a, b)
    assert a.key in str(caught.value) and b.key in str(caught.value)


def test_inputs_may_share_and_output_bits_may_share_a_register() -> None:
    port = port_of(tag("holding:1", "uint32", "a"), tag("holding:1.3", "bool", "b"), tag("coil:1", "bool", "c"), tag("coil:1", "bool", "d"))
    assert port.trips(["a", "b"]) == port.trips(["c", "d"]) == 1
    port_of(tag("holding:1.3", "bool", "a", True), tag("holding:1.4", "bool", "b", True))


@pytest.mark.parametrize(
    ("addresses", "trips"),
    [
        (["coil:0", "coil:3", "coil:40"], 1), (["coil:0", "coil:900"], 2), (["coil:0", "discrete:0"], 2),
        (["coil:0", "holding:1.0", "coil:1"], 3), (["coil:9", "coil:0"], 1), (["holding:0.0", "holding:60.1", "holding:120.1"], 1),
        (["holding:0.0", "holding:60.1", "holding:125.1"], 2),
    ],
)  # fmt: skip
def test_tags_near_each_other_are_one_request_and_the_order_is_kept(addresses: list[str], trips: int) -> None:
    tags = [tag(address, "bool", f"t{i}") for i, address in enumerate(addresses)]
    assert port_of(*tags).trips([t.name for t in tags]) == trips


# --- independent peers -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def libmodbus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The TCP port of a server on Debian's libmodbus."""
    if shutil.which("gcc") is None or shutil.which("pkg-config") is None:
        pytest.skip("no C compiler: apt-get install gcc pkg-config")
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "libmodbus"], capture_output=True, text=True)
    if flags.returncode:
        pytest.skip("libmodbus is not installed: apt-get install libmodbus-dev")
    folder: Path = tmp_path_factory.mktemp("libmodbus")
    (folder / "plc.c").write_text(SERVER)
    subprocess.run(["gcc", "plc.c", "-o", "plc", *flags.stdout.split()], cwd=folder, check=True)
    number = free_port()
    with subprocess.Popen([folder / "plc", str(number)], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None and server.stdout.readline() == b"listening\n"
        yield number
        server.kill()


def test_libmodbus_is_read_and_mbpoll_reads_what_was_written(libmodbus: int) -> None:
    inputs = [tag("discrete:3", "bool", "enable"), tag("input:5", "uint16", "recipe"), tag("holding:20", "uint32", "part_id")]
    outputs = [
        tag("holding:100", "uint32", "result_part_id", True), tag("holding:102", "uint16", "severity", True),
        tag("holding:103.2", "bool", "heartbeat", True), tag("coil:50", "bool", "accept", True),
        tag("coil:51", "bool", "result_valid", True),
    ]  # fmt: skip
    port = port_of(*inputs, *outputs, number=libmodbus)
    try:
        port.connect(lambda: None)
        assert port.read(["enable", "recipe", "part_id"]) == {"enable": True, "recipe": 4711, "part_id": 123_456}
        port.write({"result_part_id": 123_456, "severity": 250, "heartbeat": True, "accept": False, "result_valid": True})
        assert port.read([t.name for t in outputs]) == {
            "result_part_id": 123_456, "severity": 250, "heartbeat": True, "accept": False, "result_valid": True,
        }  # fmt: skip
    finally:
        port.close()
    with pytest.raises(TagError, match=r"trigger.inputs.enable: .*coil:200.*illegal data address"):  # it serves one client at a time
        port_of(tag("coil:200", name="enable"), number=libmodbus).connect(lambda: None)
    if shutil.which("mbpoll") is None:
        pytest.skip("mbpoll is not installed: apt-get install mbpoll")
    common = ["mbpoll", "-m", "tcp", "-p", str(libmodbus), "-0", "-1", "-a", "1"]
    registers = subprocess.run([*common, "-t", "4:hex", "-r", "100", "-c", "4", "127.0.0.1"], capture_output=True, text=True, timeout=10)
    coils = subprocess.run([*common, "-t", "0", "-r", "50", "-c", "2", "127.0.0.1"], capture_output=True, text=True, timeout=10)
    assert [line.split()[-1] for line in registers.stdout.splitlines() if line.startswith("[")] == ["0x0001", "0xE240", "0x00FA", "0x0004"]
    assert [line.split()[-1] for line in coils.stdout.splitlines() if line.startswith("[")] == ["0", "1"]


def test_what_lies_between_tags_may_be_missing(caplog: pytest.LogCaptureFixture) -> None:
    """A PLC that refuses a request over a gap is read without the gap."""
    from edge_runtime.sim.modbus_server import ModbusServer

    tags = [tag("holding:0", "uint16", "a"), tag("holding:9", "uint16", "b")]
    number = free_port()
    settings = ModbusTriggerConfig(port=number, timeout_ms=1000, inputs=PlcInputs(trigger="coil:0"))

    class Holes(ModbusServer):
        def _count(self, sending: bool, pdu: object) -> object:
            if not sending and getattr(pdu, "count", 0) > 1:
                pdu.address = 60_000  # type: ignore[attr-defined]  # answered as an address that is not there
            return super()._count(sending, pdu)

    with Holes(settings, tags) as server:
        server.set({"a": 1, "b": 2})
        port = ModbusPort(settings, tags)
        port.connect(lambda: None)
        assert port.trips(["a", "b"]) == 1
        assert port.read(["a", "b"]) == {"a": 1, "b": 2}
        assert port.trips(["a", "b"]) == 2 and "refused to read holding:0..9" in caplog.text
        port.close()


def test_a_wrong_unit_is_named() -> None:
    from edge_runtime.sim.modbus_server import ModbusServer

    tags = [replace(tag("coil:0"), name="trigger")]
    number = free_port()
    settings = ModbusTriggerConfig(port=number, timeout_ms=1000, inputs=PlcInputs(trigger="coil:0"))
    other = ModbusTriggerConfig(port=number, unit=9, timeout_ms=1000, inputs=PlcInputs(trigger="coil:0"))
    with ModbusServer(settings, tags):
        port = ModbusPort(other, tags)
        with pytest.raises(TagError, match=r"unit 9 refused to read coil:0: .*trigger.unit"):
            port.connect(lambda: None)


def coils(number: bytes, value: int) -> bytes:
    """The answer to a request for one coil."""
    return number + b"\0\0\0\4\1\1\1" + bytes([value])


@contextlib.contextmanager
def answering(answer: Callable[[bytes], Iterator[bytes]]) -> Iterator[ModbusPort]:
    """A port to a PLC that sends what `answer` makes of each request's number, piece by piece."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as peer:
                while asked := peer.recv(100):
                    for piece in answer(asked[:2]):
                        peer.sendall(piece)
                        time.sleep(0.02)

        thread = threading.Thread(target=serve)
        thread.start()
        settings = ModbusTriggerConfig(inputs=PlcInputs(trigger="coil:0"), port=server.getsockname()[1], timeout_ms=500.0)
        port = ModbusPort(settings, [tag("coil:0")])
        try:
            port.connect(lambda: None)
            yield port
        finally:
            port.close()
            thread.join(5)


def test_an_answer_may_come_in_pieces_and_behind_one_that_was_given_up() -> None:
    values = iter([0, 1, 1, 0, 0, 1])

    def answer(number: bytes) -> Iterator[bytes]:
        whole = coils(number, next(values))
        stale = coils(bytes([number[0] ^ 0x80, number[1]]), 1)
        yield stale[:2]
        yield stale[2:] + whole[:5]
        yield whole[5:]

    with answering(answer) as port:
        assert [port.read(["x"])["x"] for _ in range(5)] == [True, True, False, False, True]


def test_an_answer_that_repeats_is_the_same_and_a_stale_one_that_looks_like_it_is_passed_over() -> None:
    stale = [False, False, False, True, False]

    def answer(number: bytes) -> Iterator[bytes]:
        if len(stale) == 5:  # the very first answer: its number alone at first
            yield number
            stale.pop(0)
            yield coils(number, 1)[2:]
        elif stale and stale.pop(0):
            yield coils(b"\xff\xff", 1)
            yield coils(number, 0)
        else:
            yield coils(number, 1)

    with answering(answer) as port:
        assert [port.read(["x"])["x"] for _ in range(5)] == [True, True, False, True, True]


@pytest.mark.parametrize(
    ("then", "said"),
    [
        (lambda n: n + b"\0\0\0\3\1\1", "did not answer in 500 ms"),  # half of it, and no more
        (lambda n: n + b"\0\0\0\3\1\x6f\1", "not Modbus"),
        (lambda n: n + b"\0\0\0\5\1\3\2\0\1", "answered function 3, asked was 1"),
        (lambda n: n + b"\0\0\0\3\x09\x81\6", "as unit 9: if that is the PLC, set trigger.unit = 9"),
        (lambda n: coils(b"\xff\xff", 1) * 20, "17 answers to requests that it was not asked"),
        (lambda n: coils(b"\0\0", 1), "did not answer in 500 ms"),  # a number that was never asked
    ],
)
def test_what_is_no_answer_loses_the_plc_and_is_never_taken_for_the_last_one(then: Callable[[bytes], bytes], said: str) -> None:
    answers = iter([coils, coils])

    def answer(number: bytes) -> Iterator[bytes]:
        known = next(answers, None)
        yield known(number, 1) if known else then(number)

    with answering(answer) as port:
        assert port.read(["x"]) == {"x": True}
        with pytest.raises(PlcLost, match=said):
            port.read(["x"])
        with pytest.raises(PlcLost, match="not connected"):
            port.read(["x"])


# --- devices that lack something ---------------------------------------------------------------------------------


def line_of(device: RawModbus, **more: object) -> ModbusTriggerConfig:
    """All signals, as the example programs have them; the text is longer than some devices let be read."""
    settings = default_trigger("modbus", port=device.port)
    return msgspec.structs.replace(settings, **{"timeout_ms": 500.0} | more)  # type: ignore[return-value,arg-type]


@contextlib.contextmanager
def port_to(device: RawModbus, **more: object) -> Iterator[ModbusPort]:
    settings = line_of(device, **more)
    port = ModbusPort(settings, [t for tags in tags_of(settings) for t in tags])
    port.connect(lambda: None)
    yield port
    port.close()


RESULT = {
    "result_part_id": "70001", "result_count": 7, "severity": 1.5, "fault_code": 0, "accept": True, "reject": False, "fault": False,
    "trigger_acknowledge": True, "busy": False, "ready": True, "overrun": False, "heartbeat": True, "result_valid": True,
}  # fmt: skip


@pytest.mark.parametrize("too_much", [2, 3])
@pytest.mark.parametrize("most", [2, 4, 10])
def test_a_device_that_allows_few_cells_a_request_is_asked_for_fewer(most: int, too_much: int) -> None:
    with RawModbus(most_read=most, most_write=most, too_much=too_much) as device, port_to(device) as port:
        device.registers[0:3] = [1, 4465, 3]
        device.coils[0:4] = [1, 0, 0, 1]
        names = ["trigger", "acknowledge", "reset_fault", "enable", "part_id", "recipe"]
        assert port.read(names) == {"trigger": 1, "acknowledge": 0, "reset_fault": 0, "enable": 1, "part_id": 70_001, "recipe": 3}
        port.write(RESULT)
        assert port.read(list(RESULT)) == RESULT | {"result_part_id": 70_001}
        assert device.connections == 1
        before = device.requests
        port.read(names)
        assert device.requests - before == port.trips(names), "it is not asked for too much again"


def test_a_device_that_writes_one_at_a_time_gets_numbers_before_valid() -> None:
    """No function 15 and 16: many small remote I/O stations."""
    with RawModbus(functions="single") as device, port_to(device) as port:
        device.writes.clear()
        port.write(RESULT)
        order = [(area, at) for area, at, _ in device.writes]
        assert order[-1] == ("coil", 24), "result_valid"
        assert {("holding", n) for n in (16, 17, 18, 19, 20)} | {("coil", n) for n in range(16, 25)} == set(order)
        assert max(i for i, (area, _) in enumerate(order) if area == "holding") < min(i for i, (a, _) in enumerate(order) if a == "coil")
        assert (device.registers[16:21], device.coils[16:25]) == ([1, 4465, 7, 150, 0], [1, 0, 0, 1, 0, 1, 0, 1, 1])
        device.writes.clear()
        port.write({"result_valid": False, "accept": False})
        assert device.writes == [("coil", 24, [0]), ("coil", 16, [0])]
        assert "one coil at a time" in port.note and "one holding at a time" in port.note


def test_output_bits_that_lie_the_other_way_round_are_written_one_by_one_in_their_order() -> None:
    """What one request would write together must not be written by address where it takes several."""
    outputs = PlcOutputs(result_valid="coil:16", accept="coil:17", reject="coil:18")
    with RawModbus(functions="single") as device, port_to(device, outputs=outputs) as port:
        device.writes.clear()
        port.write({"accept": True, "reject": False, "result_valid": True})
        assert [at for _, at, _ in device.writes] == [17, 18, 16]


def test_a_device_that_answers_as_another_unit_is_told_with_the_setting() -> None:
    with (
        RawModbus(unit=255) as device,
        pytest.raises(TriggerError, match=r"it answers as unit 255: if that is the PLC, set trigger.unit = 255"),
        PlcLine(line_of(device), 1),
    ):
        pass
    with RawModbus(unit=255) as device, port_to(device, unit=255) as port:
        assert port.read(["trigger"]) == {"trigger": False}


def test_one_tag_that_is_too_long_for_the_device_is_told_with_what_to_do() -> None:
    inputs = PlcInputs(trigger="coil:0", part_id=TagConfig(address="holding:0", type="text", length=20))
    with (
        RawModbus(most_read=8) as device,
        pytest.raises(TagError, match=r"^trigger.inputs.part_id: .*may take fewer than 10 registers in a request: give the tag a length"),
        port_to(device, inputs=inputs, outputs=PlcOutputs(accept="coil:16", result_valid="coil:24")),
    ):
        pass


@pytest.mark.parametrize("function", [1, 3])
def test_a_device_that_is_busy_leaves_out_what_it_has_no_value_for_and_keeps_the_connection(function: int) -> None:
    with RawModbus() as device, port_to(device) as port:
        port.read(["trigger", "part_id"])
        device.busy[function] = 3
        left, there = ("trigger", "part_id") if function == 1 else ("part_id", "trigger")
        for _ in range(3):
            assert set(port.read(["trigger", "part_id"])) == {there}
            assert port.missing == {left: "busy (Modbus exception 6)"}
        assert port.read(["trigger", "part_id"]) == {"trigger": False, "part_id": 0}
        assert (port.missing, device.connections) == ({}, 1)


def test_a_device_that_is_busy_is_not_asked_again_for_what_means_nothing_by_then() -> None:
    with RawModbus() as device, port_to(device, timeout_ms=5000.0) as port:
        port.write({"accept": False, "result_valid": False})
        device.busy = {15: 10_000}
        began = time.monotonic()
        with pytest.raises(TooLate):
            port.write({"accept": True, "result_valid": True}, 0.1)
        assert time.monotonic() - began < 3
        device.busy = {}
        assert not any(device.coils)
        port.write({"accept": False, "fault": True, "result_valid": True})  # on the same connection
        assert device.connections == 1


def test_a_device_that_is_busy_when_a_result_is_written_or_a_connection_is_made_is_asked_again() -> None:
    with RawModbus() as device:
        device.busy = {1: 3, 3: 3, 15: 3, 16: 3}
        with port_to(device) as port:
            device.busy = {15: 3, 16: 3}
            port.write(RESULT)
            assert port.read(list(RESULT)) == RESULT | {"result_part_id": 70_001}
            assert device.connections == 1
            device.busy = {15: 10_000}
            began = time.monotonic()
            with pytest.raises(PlcLost, match="busy"):
                port.write({"result_valid": False})
            assert time.monotonic() - began < 2
