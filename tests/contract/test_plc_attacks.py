"""Peers that do not do what a PLC does: a real server of each protocol behind a proxy that turns hostile."""

import threading
import time
from collections.abc import Callable

import pytest

from edge_runtime.plc.port import PlcLost
from tests.contract.plc_kinds import KINDS
from tests.support.hostile_proxy import HostileProxy, Manner
from tests.support.ports import free_port

TIMEOUT_MS = 300.0
SLACK_S = 1.5
"""Other work on a busy machine; what waits for each piece anew takes for ever."""


def lost_in_time(call: Callable[[], object], within_s: float = TIMEOUT_MS / 1e3) -> str:
    began, busy = time.monotonic(), time.thread_time()
    with pytest.raises(PlcLost) as caught:
        call()
    assert time.monotonic() - began < within_s + SLACK_S
    assert time.thread_time() - busy < within_s / 2, "it was busy all the while"
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("manner", ["drips", "repeats"])
def test_a_peer_that_never_comes_to_its_answer_is_lost_when_the_time_of_the_request_is_over(kind: str, manner: Manner) -> None:
    number = free_port()
    with KINDS[kind](number).server() as server, HostileProxy(number) as proxy:
        port = KINDS[kind](proxy.port, TIMEOUT_MS).port()
        port.connect(lambda: None)
        try:
            server.set({"part_id": 7})
            assert port.read(["part_id"]) == {"part_id": 7}
            assert port.read(["trigger", "part_id"]) == {"trigger": False, "part_id": 7}
            proxy.manner = manner
            lost_in_time(lambda: port.read(["part_id"]))
            proxy.manner = "honest"
            port.connect(lambda: None)
            proxy.manner = manner
            lost_in_time(lambda: port.write({"ready": True}))
        finally:
            proxy.manner = "honest"
            port.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_peer_that_drips_from_the_first_byte_on_does_not_hold_the_start(kind: str) -> None:
    """Also while the connection is being made, which takes some requests."""
    number = free_port()
    with KINDS[kind](number).server(), HostileProxy(number) as proxy:
        proxy.manner = "drips"
        proxy.pause_s = 0.2
        port = KINDS[kind](proxy.port, TIMEOUT_MS).port()
        try:
            lost_in_time(lambda: port.connect(lambda: None), 4 * TIMEOUT_MS / 1e3)
        finally:
            port.close()
    assert not [t for t in threading.enumerate() if t.name == "opcua"]
