"""What every trigger line promises: timer, ZeroMQ, and a PLC over each protocol (edge_runtime.sim)."""

import datetime
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import zmq

from edge_runtime.config import files as c
from edge_runtime.errors import TriggerError
from edge_runtime.plc import kinds
from edge_runtime.plc.defaults import default_trigger
from edge_runtime.records import Trigger
from edge_runtime.sim.plc import SimulatedPlc
from edge_runtime.testing import FIRST_SEQ, TriggerContract
from edge_runtime.triggers import TriggerLine, open_trigger
from edge_runtime.triggers.zeromq import ZeromqLine
from tests.support.waiting import until


@contextmanager
def sender(port: int) -> Iterator["zmq.Socket[bytes]"]:
    with zmq.Context() as context, context.socket(zmq.PUSH) as push:
        push.setsockopt(zmq.LINGER, 0)
        push.connect(f"tcp://127.0.0.1:{port}")
        yield push


Announce = Callable[[int], object]
Begun = tuple[TriggerLine, Announce]


@pytest.fixture
def line(begun: Begun) -> TriggerLine:
    return begun[0]


@pytest.fixture
def announce(begun: Begun) -> Announce:
    return begun[1]


class TestTimer(TriggerContract):
    tells_part_ids = False

    @pytest.fixture
    def begun(self) -> Begun:
        return open_trigger(c.TimerTriggerConfig(period_ms=5), FIRST_SEQ), lambda part: None

    def test_waiting_ends_in_time_when_nothing_comes(self, line: TriggerLine) -> None:
        with line:
            super().test_waiting_ends_in_time_when_nothing_comes(open_trigger(c.TimerTriggerConfig(period_ms=60_000), 1))


class TestZeromq(TriggerContract):
    @pytest.fixture
    def begun(self, free_port: int) -> Iterator[Begun]:
        with sender(free_port) as push:
            line = open_trigger(c.ZeromqTriggerConfig(endpoint=f"tcp://127.0.0.1:{free_port}"), FIRST_SEQ)
            yield line, lambda part: push.send(json.dumps({"part_id": str(part)}).encode())


class TestEveryPlc(TriggerContract):
    @pytest.fixture(params=kinds.KINDS)
    def begun(self, request: pytest.FixtureRequest, free_port: int) -> Iterator[Begun]:
        settings = default_trigger(request.param, port=free_port)
        with SimulatedPlc(settings, count=0) as plc:
            timers: list[threading.Timer] = []

            def announce(part: int) -> None:
                plc.server.set({"trigger": False, "part_id": part, "enable": True})
                later = threading.Timer(0.1, plc.server.set, ({"trigger": True},))  # the line must be polling to see it low
                later.start()
                timers.append(later)

            try:
                yield open_trigger(settings, FIRST_SEQ), announce
            finally:
                for timer in timers:
                    timer.join()


def _next(line: TriggerLine) -> Trigger:
    for _ in range(20):
        trigger = line.wait(0.1)
        if trigger is not None:
            return trigger
    raise AssertionError(f"no trigger: {line.problem}")


def test_the_timer_keeps_its_pace_however_late_it_is_asked() -> None:
    with open_trigger(c.TimerTriggerConfig(period_ms=10, count=8), 1) as line:
        fired = []
        while not line.exhausted:
            trigger = line.wait(0.1)
            assert trigger is not None
            fired.append(trigger.fired_ns)
            if len(fired) == 3:
                time.sleep(0.035)
        assert line.wait(0.01) is None
    assert {b - a for a, b in itertools.pairwise(fired)} == {10_000_000}


def test_a_message_that_announces_nothing_is_reported_and_the_next_one_counts(free_port: int, caplog: pytest.LogCaptureFixture) -> None:
    with sender(free_port) as push, open_trigger(c.ZeromqTriggerConfig(endpoint=f"tcp://127.0.0.1:{free_port}"), 1) as line:
        bad: list[list[bytes]] = [
            [b"not json"],
            [b"\xff\xfe"],
            [b"[]"],
            [b""],
            [b"{}", b"{}"],
            [b'{"more": "' + b"x" * 70_000 + b'"}'],
            [b'{"more": ' + b"[" * 5000 + b"]" * 5000 + b"}"],
        ]
        assert line.wait(0.01) is None
        for parts in bad:
            push.send_multipart(parts)
        push.send(b'{"part_id": "A-17", "shift": 2}')
        push.send(b"{}")
        first, second = _next(line), _next(line)
        assert (first.seq, first.part_id, second.seq, second.part_id) == (1, "A-17", 2, "")
        assert line.problem is not None and f"{len(bad)} messages" in line.problem
        assert len(caplog.records) == len(bad)


@pytest.mark.parametrize(
    "message", [b'{"part_id": ["A"]}', b'{"part_id": "' + b"x" * 201 + b'"}', b'{"part_id": "A", "sent": "2026-03-01T06:30:00"}']
)
def test_a_part_whose_message_cannot_be_read_is_announced_and_refused(free_port: int, message: bytes) -> None:
    """Law 1: somebody announced it, so it gets a decision."""
    with sender(free_port) as push, open_trigger(c.ZeromqTriggerConfig(endpoint=f"tcp://127.0.0.1:{free_port}"), 1) as line:
        assert line.wait(0.01) is None
        push.send(message)
        push.send(b'{"part_id": 17}')
        refused, good = _next(line), _next(line)
        assert (refused.seq, good.seq, good.part_id, good.refused) == (1, 2, "17", "")
        assert refused.refused.startswith("Its message could not be read: ")
        assert line.problem is not None and "1 messages could not be read" in line.problem


def test_a_message_may_name_the_recipe(free_port: int) -> None:
    with sender(free_port) as push, open_trigger(c.ZeromqTriggerConfig(endpoint=f"tcp://127.0.0.1:{free_port}"), 1) as line:
        assert line.wait(0.01) is None
        push.send(b'{"part_id": "A", "recipe": "7"}')
        push.send(b'{"part_id": "B"}')
        assert [_next(line).recipe, _next(line).recipe] == ["7", ""]


def test_parts_that_were_announced_while_nobody_listened_are_refused(free_port: int) -> None:
    with sender(free_port) as push:
        push.send(b'{"part_id": "A"}')
        with open_trigger(c.ZeromqTriggerConfig(endpoint=f"tcp://127.0.0.1:{free_port}"), 1) as line:
            assert isinstance(line, ZeromqLine) and line._socket is not None
            has_come = partial(line._socket.poll, 0, zmq.POLLIN)
            until(has_come)  # the sender reconnects, as the station opens its cameras
            line.begin()
            push.send(b'{"part_id": "B"}')
            until(has_come)  # before anybody waits for it, and yet after the station was ready
            early, fresh = _next(line), _next(line)
            assert (early.part_id, "before the station was ready" in early.refused) == ("A", True)
            assert (fresh.part_id, fresh.refused) == ("B", "")


def test_a_message_that_says_when_it_was_sent_is_refused_when_its_part_has_gone(free_port: int) -> None:
    with (
        sender(free_port) as push,
        open_trigger(c.ZeromqTriggerConfig(endpoint=f"tcp://127.0.0.1:{free_port}", max_age_ms=5000), 1) as line,
    ):
        assert line.wait(0.01) is None
        began = time.monotonic_ns()
        for ago_s in (1.0, 90.0, -90.0):
            sent = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=ago_s)
            push.send(json.dumps({"sent": sent.isoformat()}).encode())
        fresh, old, ahead = _next(line), _next(line), _next(line)
    assert fresh.refused == ""
    assert fresh.fired_ns > began, "no picture from before it was read may be its own, whatever the sender's clock says"
    assert "s ago: its message has waited" in old.refused
    assert "in the future" in ahead.refused


def test_a_port_in_use_is_named(free_port: int) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port}"
    with (
        open_trigger(c.ZeromqTriggerConfig(endpoint=endpoint), 1),
        pytest.raises(TriggerError, match=endpoint),
        open_trigger(c.ZeromqTriggerConfig(endpoint=endpoint), 1),
    ):
        pass


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_a_plc_that_is_not_there_is_an_error_on_entering(kind: str, free_port: int) -> None:
    line = open_trigger(default_trigger(kind, port=free_port), 1)
    with pytest.raises(TriggerError, match=rf"127.0.0.1:{free_port}.*Check \[trigger\]"), line:
        pass
