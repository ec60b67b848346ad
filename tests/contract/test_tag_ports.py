"""What every tag port promises, against a real server of its protocol."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from edge_runtime.errors import TagError, TriggerError
from edge_runtime.plc import kinds
from edge_runtime.plc.port import PlcLost, TagPort, TagServer, bits_first
from edge_runtime.plc.tags import Value
from tests.contract.plc_kinds import KINDS, TAGS, Plc
from tests.support.ports import free_port
from tests.support.reconnects import held, reconnects, settled
from tests.support.tcp_proxy import TcpProxy

INPUTS: dict[str, Value] = {
    "trigger": True, "acknowledge": True, "enable": True, "part_id": 4_000_000_001, "in_int16": -12_345, "in_uint16": 6553.4,
    "in_int32": -2_000_000_001, "in_float32": -0.15625, "in_text": "Part 17/b",
}  # fmt: skip
OUTPUTS: dict[str, Value] = {
    "result_part_id": 4_000_000_002, "severity": 123.45, "out_int16": -32_768, "out_int32": 2_000_000_002, "out_float32": 1e-3,
    "out_text": "ABCDEFGHIJKL", "accept": True, "reject": True, "ready": True, "heartbeat": True, "result_valid": True,
}  # fmt: skip
_SLACK_S = 1.5
"""Over the timeout: other work on a busy machine."""


def _none(values: dict[str, Value]) -> dict[str, Value]:
    return {name: "" if isinstance(v, str) else type(v)() for name, v in values.items()}


def _changed() -> None:
    """For ports that push; nothing in this suite waits for it."""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def plc(kind: str) -> Plc:
    return KINDS[kind](free_port())


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """No thread and no socket outlives a test."""
    before = held()
    yield
    after = settled(before)
    assert after.threads <= before.threads and after.files <= before.files, [t.name for t in threading.enumerate()]


@contextlib.contextmanager
def connected(plc: Plc) -> Iterator[tuple[TagPort, TagServer]]:
    with plc.server() as server:
        port = plc.port()
        try:
            port.connect(_changed)
            yield port, server
        finally:
            port.close()


def _lost_within(port: TagPort, timeout_ms: float, call: Callable[[], object]) -> str:
    began = time.monotonic()
    with pytest.raises(PlcLost) as caught:
        call()
    assert time.monotonic() - began < timeout_ms / 1e3 + _SLACK_S
    return str(caught.value)


# --- values ------------------------------------------------------------------------------------------------------


# The other protocols say themselves how a number lies in memory.
ORDERS = [
    (name, o) for name in kinds.KINDS for o in (("ABCD", "CDAB", "BADC", "DCBA") if kinds.kind_named(name).manual.byte_order else ("ABCD",))
]


@pytest.mark.parametrize(("kind", "order"), ORDERS)
def test_every_type_arrives_as_it_was_written_both_ways(kind: str, order: str) -> None:
    plc = KINDS[kind](free_port())
    tags = plc.tags(order=order)
    with plc.server(tags) as server:
        port = plc.port(tags)
        port.connect(_changed)
        try:
            for values in (INPUTS, _none(INPUTS), INPUTS):
                server.set(values)
                assert port.read(list(values)) == pytest.approx(values)
            for values in (OUTPUTS, _none(OUTPUTS), OUTPUTS):
                port.write(values)
                assert server.get(list(values)) == pytest.approx(values)
                assert port.read(list(values)) == pytest.approx(values)
        finally:
            port.close()


def test_one_tag_changes_nothing_beside_it(plc: Plc) -> None:
    with connected(plc) as (port, server):
        port.write(OUTPUTS)
        expected = dict(OUTPUTS)
        for name, value in _none(OUTPUTS).items():
            port.write({name: value})
            expected[name] = value
            assert server.get(list(expected)) == pytest.approx(expected), name


def test_connecting_changes_no_output(plc: Plc) -> None:
    with connected(plc) as (port, server):
        port.write(OUTPUTS)
        port.connect(_changed)
        assert server.get(list(OUTPUTS)) == pytest.approx(OUTPUTS)
        port.write({"heartbeat": False})
        assert server.get(list(OUTPUTS)) == pytest.approx(OUTPUTS | {"heartbeat": False})


def test_a_number_out_of_range_is_held_at_its_end_and_a_long_text_is_cut(plc: Plc) -> None:
    with connected(plc) as (port, server):
        port.write({"severity": 1e9, "out_int16": 40_000, "out_int32": -3e9, "result_part_id": -1, "out_text": "A-very-long-part-id"})
        assert server.get(["severity", "out_int16", "out_int32", "result_part_id", "out_text"]) == {
            "severity": 655.35, "out_int16": 32_767, "out_int32": -(2**31), "result_part_id": 0, "out_text": "A-very-long-",
        }  # fmt: skip
        port.write({"severity": float("nan"), "result_part_id": "17", "out_text": "x"})
        assert server.get(["severity", "result_part_id", "out_text"]) == {"severity": 0.0, "result_part_id": 17, "out_text": "x"}


def test_polling_tells_what_the_plc_has_now(plc: Plc) -> None:
    with connected(plc) as (port, server):
        names = ["trigger", "acknowledge", "enable"]
        for high in (True, False, True):
            server.set({"trigger": high})
            until = time.monotonic() + 5
            while True:
                snapshots = port.poll(names)
                assert all(list(s) == names for s in snapshots)
                assert port.pushes or len(snapshots) == 1
                if snapshots and snapshots[-1]["trigger"] is high:
                    break
                assert time.monotonic() < until
                if not port.pushes:
                    pytest.fail(f"polled {snapshots}, expected trigger {high}")
                time.sleep(0.001)


def test_each_reading_tells_what_the_plc_has_now_whatever_was_read_before_it(plc: Plc) -> None:
    readings = [["trigger"], ["trigger", "part_id"], ["part_id"], ["part_id", "trigger", "enable"]]
    with connected(plc) as (port, server):
        for part in range(1, 13):
            values: dict[str, Value] = {"trigger": part % 2 == 0, "part_id": part // 2, "enable": part % 3 == 0}
            server.set(values)
            for names in (*readings, *readings):
                assert port.read(names) == {name: values[name] for name in names}
            port.write({"result_part_id": part})


# --- order -------------------------------------------------------------------------------------------------------


def test_a_number_is_never_older_than_the_bit_that_was_read_before_it(plc: Plc) -> None:
    names = [n for n in bits_first(plc.tags()) if n in ("trigger", "part_id")]
    assert names == ["trigger", "part_id"]
    with connected(plc) as (port, server):
        stop, seen, fallen = threading.Event(), threading.Event(), threading.Event()

        def program() -> None:
            part = 0
            while not stop.is_set():
                part += 1
                time.sleep(part % 10 * 1e-4)  # comes at any time of the other side's reads
                server.set({"part_id": part, "trigger": True})
                seen.wait(5)
                seen.clear()
                server.set({"trigger": False})
                server.set({"part_id": 0})
                fallen.set()

        with _running(program, stop, seen):
            parts: list[Value] = []
            until = time.monotonic() + 30
            while len(parts) < 100 and time.monotonic() < until:
                values = port.read(names)
                if values["trigger"]:
                    parts.append(values["part_id"])
                    seen.set()
                    assert fallen.wait(5)
                    fallen.clear()
    assert parts == list(range(1, 101))


def test_a_result_is_complete_before_it_is_valid(plc: Plc) -> None:
    def result(part: int) -> dict[str, Value]:
        return {"result_part_id": part, "severity": float(part % 100), "accept": part % 2 == 0, "reject": part % 2 == 1}

    names = [*result(0), "result_valid"]
    with connected(plc) as (port, server):
        stop, wrong, valid = threading.Event(), [], set()

        def program() -> None:
            while not stop.wait(0.0002):  # a pause: the port in the same process must get its turn
                found = server.get(names)
                if found.pop("result_valid"):
                    part = int(found["result_part_id"])
                    valid.add(part)
                    if found != result(part):
                        wrong.append(found)

        with _running(program, stop):
            for part in range(1, 151):
                port.write({"result_valid": False})
                port.write(result(part) | {"result_valid": True})
                time.sleep(0.0005)
    assert not wrong
    assert len(valid) > 20, "the PLC's program saw too little to tell"


@contextlib.contextmanager
def _running(program: Callable[[], None], stop: threading.Event, *wakes: threading.Event) -> Iterator[None]:
    thread = threading.Thread(target=program)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        for wake in wakes:
            wake.set()
        thread.join()


# --- closing, losing, coming back --------------------------------------------------------------------------------


def test_closing_is_allowed_at_any_time(plc: Plc) -> None:
    port = plc.port()
    port.close()
    port.close()
    with plc.server():
        port.connect(_changed)
        port.close()
        port.close()
        with pytest.raises(PlcLost):
            port.read(["trigger"])
        with pytest.raises(PlcLost):
            port.write({"ready": True})
    port.close()


def test_nobody_there_is_told_in_time(kind: str) -> None:
    plc = KINDS[kind](free_port(), 300.0)
    port = plc.port()
    reason = _lost_within(port, 300, lambda: port.connect(_changed))
    assert reason and "Errno" not in reason and port.where.startswith("PLC ")


def test_a_plc_that_goes_away_is_lost_and_comes_back(kind: str) -> None:
    plc = KINDS[kind](free_port(), 500.0)
    server, port = plc.server(), plc.port()
    with server:
        port.connect(_changed)
        server.set({"part_id": 1})
        assert port.read(["part_id"]) == {"part_id": 1}
    _lost_within(port, 500, lambda: [port.read(["part_id"]), time.sleep(0.01), port.read(["part_id"])])
    _lost_within(port, 500, lambda: port.write({"ready": True}))
    _lost_within(port, 500, lambda: port.connect(_changed))
    with server:
        port.connect(_changed)
        assert port.read(["part_id"]) == {"part_id": 1}, "its memory is kept, as with a battery"
        server.set({"part_id": 2})
        assert port.read(["part_id"]) == {"part_id": 2}
        port.close()


@pytest.mark.alone
def test_a_plc_that_hangs_is_lost_in_time_and_its_late_answer_is_not_taken(kind: str) -> None:
    number = free_port()
    with KINDS[kind](number).server() as server, TcpProxy(number) as proxy:
        plc = KINDS[kind](proxy.port, 300.0)
        port = plc.port()
        port.connect(_changed)
        server.set({"part_id": 1})
        assert port.read(["part_id"]) == {"part_id": 1}
        proxy.pause()
        assert "300 ms" in _lost_within(port, 300, lambda: port.read(["part_id"]))
        server.set({"part_id": 2})
        proxy.go_on()
        time.sleep(0.05)
        with pytest.raises(PlcLost):
            port.read(["part_id"])
        port.connect(_changed)
        assert port.read(["part_id"]) == {"part_id": 2}
        proxy.pause()
        _lost_within(port, 300, lambda: port.write({"ready": True}))
        _lost_within(port, 3 * 300, lambda: port.connect(_changed))
        proxy.go_on()
        port.close()


def test_a_hundred_connections_leave_nothing_behind(kind: str) -> None:
    before, after = reconnects(kind, 100)
    assert (after.threads, after.files) == (before.threads, before.files)
    assert after.rss_kib - before.rss_kib < 8 * 1024


# --- what is wrong is named --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["acknowledge", "ready"])
def test_a_tag_that_the_plc_does_not_have_is_named_with_its_key(plc: Plc, name: str) -> None:
    with plc.server():
        tags = [replace(t, address=plc.missing) if t.name == name else t for t in plc.tags()]
        port = plc.port(tags)
        with pytest.raises(TagError) as caught:
            port.connect(_changed)
        key = next(t.key for t in TAGS if t.name == name)
        assert str(caught.value).startswith(f"{key}: ") and plc.missing in str(caught.value)
        with pytest.raises(PlcLost):
            port.read(["trigger"])


def test_a_server_says_that_its_port_is_in_use(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = int(taken.getsockname()[1])
        with pytest.raises(TriggerError, match=str(number)), KINDS[kind](number).server():
            pass
    with KINDS[kind](number).server(), pytest.raises(TriggerError, match=str(number)), KINDS[kind](number).server():
        pass


def test_a_server_counts_what_it_is_asked_for(plc: Plc) -> None:
    with connected(plc) as (port, server):
        before = server.requests
        for i in range(5):
            port.write({"heartbeat": bool(i % 2)})
        assert before > 0 and server.requests - before >= 5
        names = [t.name for t in plc.tags() if not t.writable]
        before = server.requests
        port.read(names)
        assert server.requests - before >= port.trips(names) >= 1  # a keep-alive may come in between
