"""What every trigger line promises: timer, ZeroMQ, and a PLC over each protocol (edge_runtime.sim)."""

import datetime
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import zmq

from edge_runtime.config import files as c
from edge_runtime.errors import TriggerError
from edge_runtime.plc import kinds
from edge_runtime.plc.defaults import default_trigger
from edge_runtime.records import Trigger
from edge_runtime.sim.plc import SimulatedPlc
from edge_runtime.triggers import TriggerLine, open_trigger


@contextmanager
def sender(port: int) -> Iterator["zmq.Socket[bytes]"]:
    with zmq.Context() as context, context.socket(zmq.PUSH) as push:
        push.setsockopt(zmq.LINGER, 0)
        push.connect(f"tcp://127.0.0.1:{port}")
        yield push


@contextmanager
def _timer(port: int) -> Iterator[tuple[TriggerLine, Callable[[int], None]]]:
    yield open_trigger(c.TimerTriggerConfig(period_ms=5), 41), lambda part: None


@contextmanager
def _zeromq(port: int) -> Iterator[tuple[TriggerLine, Callable[[int], None]]]:
    with sender(port) as push:
        line = open_trigger(c.ZeromqTriggerConfig(endpoint=f"tcp://127.0.0.1:{port}"), 41)
        yield line, lambda part: push.send(json.dumps({"part_id": str(part)}).encode())


def _plc(kind: str) -> Callable[[int], AbstractContextManager[tuple[TriggerLine, Callable[[int], None]]]]:
    @contextmanager
    def begin(port: int) -> Iterator[tuple[TriggerLine, Callable[[int], None]]]:
        settings = default_trigger(kind, port=port)
        with SimulatedPlc(settings, count=0) as plc:
            timers: list[threading.Timer] = []

            def announce(part: int) -> None:
                plc.server.set({"trigger": False, "part_id": part, "enable": True})
                later = threading.Timer(0.1, plc.server.set, ({"trigger": True},))  # the line must be polling to see it low
                later.start()
                timers.append(later)

            try:
                yield open_trigger(settings, 41), announce
            finally:
                for timer in timers:
                    timer.join()

    return begin


KINDS = {"timer": _timer, "zeromq": _zeromq} | {kind: _plc(kind) for kind in kinds.KINDS}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _next(line: TriggerLine) -> Trigger:
    for _ in range(20):
        trigger = line.wait(0.1)
        if trigger is not None:
            return trigger
    raise AssertionError(f"no trigger: {line.problem}")


def test_triggers_count_from_the_given_number_and_carry_when_they_fired(kind: str, free_port: int) -> None:
    with KINDS[kind](free_port) as (line, announce), line:
        triggers = []
        before = time.monotonic_ns()
        for part in (70_001, 70_002, 70_003):
            announce(part)
            triggers.append(_next(line))
        assert line.problem is None and not line.exhausted
    assert [t.seq for t in triggers] == [41, 42, 43]
    assert before < triggers[0].fired_ns < triggers[1].fired_ns < triggers[2].fired_ns <= time.monotonic_ns()
    assert [t.part_id for t in triggers] == ([""] * 3 if kind == "timer" else ["70001", "70002", "70003"])


def test_waiting_ends_in_time_when_nothing_comes(kind: str, free_port: int) -> None:
    with KINDS[kind](free_port) as (line, _), line:
        if kind == "timer":
            line = open_trigger(c.TimerTriggerConfig(period_ms=60_000), 1)
        began = time.monotonic()
        assert line.wait(0.1) is None
        assert 0.09 < time.monotonic() - began < 0.3


def test_a_line_can_be_opened_again(kind: str, free_port: int) -> None:
    with KINDS[kind](free_port) as (line, announce):
        for part in (1, 2):
            with line:
                announce(part)
                assert _next(line).fired_ns > 0


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
            time.sleep(0.5)  # the sender reconnects, as the station opens its cameras
            line.begin()
            push.send(b'{"part_id": "B"}')
            time.sleep(0.1)  # it has come before anybody waits for it, and yet after the station was ready
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
