"""Peers that do not do what a PLC does: a real server of each protocol behind a proxy that turns hostile."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest

from edge_runtime.plc.defaults import default_trigger
from edge_runtime.plc.line import PlcLine
from edge_runtime.plc.port import PlcLost
from edge_runtime.plc.signals import tags_of
from edge_runtime.plc.tags import Value
from edge_runtime.records import Trigger
from edge_runtime.sim import ethernetip_server as eip
from edge_runtime.sim.opcua_server import OpcuaServer
from tests.contract.plc_kinds import KINDS
from tests.support.hostile_proxy import HostileProxy, Manner
from tests.support.ports import free_port
from tests.support.waiting import until

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


class BusyEthernetip(eip.EthernetipServer):
    """Says "resource unavailable" to whoever reads `busy`."""

    busy = ""

    def _read(self, path: bytes, data: bytes) -> bytes:
        if self.busy and eip._name(path) == self.busy.lower():
            raise eip._Refused(b"\x02\x00")
        return super()._read(path, data)


class BusyOpcua(OpcuaServer):
    """Reports `busy` as bad."""

    busy = ""

    async def _set(self, values: Mapping[str, Value]) -> None:
        await super()._set(values)
        from asyncua import ua

        for tag in self._tags.values():
            if tag.address == self.busy:
                bad = ua.DataValue(StatusCode=ua.StatusCode(ua.StatusCodes.BadResourceUnavailable))
                await self._server.iserver.aspace.write_attribute_value(ua.NodeId.from_string(tag.address), ua.AttributeIds.Value, bad)


@pytest.mark.parametrize(("kind", "server"), [("ethernetip", BusyEthernetip), ("opcua", BusyOpcua)])
def test_a_part_whose_number_the_plc_cannot_tell_for_a_moment_is_announced_with_it(kind: str, server: Any) -> None:
    """Modbus: tests/unit/edge_runtime/plc/test_modbus.py, S7: test_s7.py. The connection is kept."""
    settings = msgspec.structs.replace(default_trigger(kind, port=free_port()), timeout_ms=5000.0)
    inputs, outputs = tags_of(settings)
    address = next(t.address for t in inputs if t.name == "part_id")
    with server(settings, [*inputs, *outputs]) as plc, PlcLine(settings, 1) as line:
        plc.set({"enable": True, "part_id": 17})
        until(lambda: line.wait(0.01) is None and plc.get(["ready"])["ready"])
        plc.busy = address
        plc.set({"trigger": True})
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            assert line.wait(0.01) is None
        assert plc.get(["trigger_acknowledge"]) == {"trigger_acknowledge": False}
        plc.busy = ""
        plc.set({"part_id": 18})
        found: list[Trigger] = []
        until(lambda: (trigger := line.wait(0.01)) is not None and found.append(trigger) is None)
        assert (found[0].part_id, found[0].refused) == ("18", "")
        until(lambda: plc.get(["trigger_acknowledge"])["trigger_acknowledge"])
        assert (line.lost, line.tallies["reconnects"]) == (None, 0)
