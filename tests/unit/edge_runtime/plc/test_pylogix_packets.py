"""What is known of pylogix' insides holds for the pylogix that is installed: its packets come by here, and are what they are taken for."""

from collections.abc import Iterator

import pytest

from edge_runtime.config.files import PlcInputs
from edge_runtime.plc.deadline import Deadline
from edge_runtime.plc.ethernetip import EthernetipTriggerConfig
from edge_runtime.plc.pylogix_packets import _CIP_AT, SMALL, Controller
from edge_runtime.plc.tags import Tag
from edge_runtime.sim.ethernetip_server import EthernetipServer

_MULTIPLE_SERVICE_REPLY = 0x8A
TAGS = [
    Tag("part", "trigger.inputs.part", "Parts[3]", "int32", True),
    Tag("flag", "trigger.inputs.flag", "Vision.In.2", "bool", True),
    Tag("name", "trigger.inputs.name", "Name", "text", True, length=20),
]
ADDRESSES = [t.address for t in TAGS]


@pytest.fixture
def server(free_port: int) -> Iterator[EthernetipServer]:
    settings = EthernetipTriggerConfig(host="127.0.0.1", port=free_port, timeout_ms=500, inputs=PlcInputs(trigger="T"))
    with EthernetipServer(settings, TAGS) as server:
        yield server


@pytest.fixture
def controller(server: EthernetipServer, free_port: int) -> Iterator[Controller]:
    controller = Controller("127.0.0.1", free_port, 0, 0.5)
    assert controller.open() == (True, "Success")
    controller.read(ADDRESSES[::-1])  # asks for the tags' types, a packet each
    yield controller
    controller.close()


def test_what_the_controller_said_stands_where_it_is_looked_for(controller: Controller, server: EthernetipServer) -> None:
    server.set({"part": 70_001, "flag": True, "name": "A-17"})
    assert [a.Value for a in controller.read(ADDRESSES)] == [70_001, True, "A-17"]
    assert {a.Status for a in controller.read(ADDRESSES)} == {"Success"}
    kept = controller._reads[tuple(ADDRESSES)].packets
    assert [said[0] for _, said in kept] == [_MULTIPLE_SERVICE_REPLY], f"byte {_CIP_AT} is where the controller's answer begins"


def test_the_same_answer_is_not_decoded_again_and_another_is(controller: Controller, server: EthernetipServer) -> None:
    controller.read(ADDRESSES)
    first = controller.read(ADDRESSES)
    before = server.requests
    assert controller.read(ADDRESSES) is first and server.requests == before + 1
    server.set({"part": 2})
    changed = controller.read(ADDRESSES)
    assert changed is not first and [a.Value for a in changed] == [2, False, ""]


def test_every_packet_of_the_connection_is_counted(controller: Controller) -> None:
    controller.read(ADDRESSES)
    number = controller._number
    assert number is not None
    controller.read(ADDRESSES)
    assert controller._number == (number + 1) % 65_536
    controller._number = number  # as if an answer to a question before had come
    assert controller.read(ADDRESSES) == [] and not controller.connected and controller.why == "answered another request"


def test_types_and_writes_are_told(controller: Controller, server: EthernetipServer) -> None:
    controller.read(ADDRESSES)
    assert [controller.type_of(a) for a in ADDRESSES[:2]] == [(0xC4, "DINT"), (0xC4, "DINT")]
    pairs = [("Parts[3]", 9), ("Vision.In.2", True), ("Name", "B")]
    assert controller.fits([(a, a == "Name") for a, _ in pairs])
    before = server.requests
    assert [a.Status for a in controller.write(pairs, Deadline(5.0))] == ["Success"] * 3
    assert server.requests == before + 1, "what fits is one packet"
    assert server.get(["part", "flag", "name"]) == {"part": 9, "flag": True, "name": "B"}


def test_as_many_writes_as_fit_are_one_packet_and_not_all_of_many_are(free_port: int) -> None:
    settings = EthernetipTriggerConfig(host="127.0.0.1", port=free_port, timeout_ms=500, inputs=PlcInputs(trigger="T"))
    tags = [Tag(f"t{i}", f"trigger.outputs.t{i}", f"Line.Station.Output{i:02}", "int32", True) for i in range(30)]
    with EthernetipServer(settings, tags, large_connections=False) as server:
        controller = Controller("127.0.0.1", free_port, 0, 0.5)
        assert controller.open()[0] and controller.size == SMALL
        controller.read([t.address for t in tags])
        fitting = max(n for n in range(1, 31) if controller.fits([(t.address, False) for t in tags[:n]]))
        assert 5 < fitting < 30
        before = server.requests
        controller.write([(t.address, i) for i, t in enumerate(tags[:fitting], 1)], Deadline(5.0))
        assert server.requests == before + 1
        assert list(server.get([t.name for t in tags[:fitting]]).values()) == list(range(1, fitting + 1))
        controller.close()


def test_no_socket_is_left(controller: Controller) -> None:
    conn = controller._plc.conn
    assert conn.msg_socket.fileno() == -1
    controller.close()
    assert conn.Socket.fileno() == -1
