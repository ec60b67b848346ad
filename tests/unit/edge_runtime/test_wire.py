"""The wire contract: what is encoded comes back equal, and what is not ours is refused with a sentence."""

import dataclasses
import math
import os
import socket
import tempfile
from dataclasses import asdict
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_runtime import wire
from edge_runtime.errors import ConfigError, SchemaError, WireError
from edge_runtime.records import Decision, Health, Region, Stamps, State, Verdict, View
from tests.support.decisions import SCHEMA_1, decision_with, view_with


def a_decision(**changes: object) -> Decision:
    regions = (Region(1, 2, 30, 40, 500, 33.0), Region(5, 6, 7, 8, 4, 21.0))
    values: dict[str, object] = {"seq": 17, "part_id": "Ä-17", "regions": regions, "stamps": Stamps(1, 2, 3, 4, 5, 6)}
    return decision_with(**(values | changes))


def a_preview(**changes: object) -> wire.Preview:
    return wire.Preview(**({"decision": a_decision(), "shown": [a_picture()], "counts": {"ACCEPT": 3}} | changes))  # type: ignore[arg-type]


def a_picture(**changes: object) -> wire.Shown:
    score_map = np.arange(12, dtype=np.float32).reshape(3, 4)
    values: dict[str, object] = {
        "image": b"jpeg", "score_map": wire.pack_map(score_map), "map_hw": (3, 4),
        "grid_to_frame": (8.0, 0.0, 10.0, 0.0, 9.0, 20.0), "display_low": 1.0, "display_high": 40.0,
    }  # fmt: skip
    return wire.Shown(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "decision",
    [a_decision(), a_decision(verdict=Verdict.FAULT, score=None, severity=None, regions=(), frame_wh=(0, 0), part_id="", stamps=Stamps(1))],
    ids=["reject", "fault"],
)
def test_a_decision_comes_back_equal(decision: Decision) -> None:
    parts = wire.encode_decision(decision)
    assert parts[:2] == [b"decision", b"cell-3"]
    assert wire.decode_decision(parts) == decision


def test_a_score_that_is_no_number_is_carried_as_it_is() -> None:
    back = wire.decode_decision(wire.encode_decision(a_decision(score=math.nan, severity=math.inf)))
    assert back.score is not None
    assert math.isnan(back.score)
    assert back.severity == math.inf


A_VIEW = View("top", Verdict.REJECT, "why", 31.25, 20.0, 1.5625, (Region(1, 2, 30, 40, 500, 33.0),), (640, 480), "a" * 64, "cells", 2, 3, 4)


def test_a_decision_of_several_cameras_comes_back_equal_and_one_without_a_view_is_no_decision() -> None:
    several = a_decision(views=(A_VIEW, A_VIEW))
    assert wire.decode_decision(wire.encode_decision(several)) == several
    with pytest.raises(ValueError, match="at least one view"):
        a_decision(views=())
    for views in ({}, {"views": []}):
        message = {"schema": wire.SCHEMA, "decision": {k: v for k, v in asdict(several).items() if k != "views"} | views}
        with pytest.raises(WireError, match="view"):
            wire.decode([wire.DECISION, b"cell-3", msgspec.msgpack.encode(message)])


@pytest.mark.parametrize(
    ("verdicts", "decides"),
    [("AAA", 1), ("ARA", 1), ("RAR", 0), ("FAR", 2), ("AFA", 1), ("FFA", 0)],
)
def test_the_view_that_decides_is_a_reject_else_a_fault_else_the_worst_accept(verdicts: str, decides: int) -> None:
    of = {"A": (Verdict.ACCEPT, 0.5), "R": (Verdict.REJECT, 1.5), "F": (Verdict.FAULT, None)}
    views = [view_with(camera=str(i), verdict=of[v][0], severity=of[v][1]) for i, v in enumerate(verdicts)]
    if verdicts == "AAA":
        views[1] = view_with(camera="1", verdict=Verdict.ACCEPT, severity=0.75)
    assert a_decision(views=tuple(views)).deciding is views[decides]


def test_a_preview_carries_a_picture_a_view_and_all_maps_are_checked() -> None:
    views = (A_VIEW, dataclasses.replace(A_VIEW, camera="side"))
    other = a_picture(score_map=wire.pack_map(np.ones((2, 2), np.float32)), map_hw=(2, 2))
    back = wire.decode_preview(wire.encode_preview(a_preview(decision=a_decision(views=views), shown=[a_picture(), other])))
    assert back.shown == [a_picture(), other]
    broken = msgspec.structs.replace(other, map_hw=(3, 3))
    with pytest.raises(WireError, match="3x3 float16"):
        wire.decode(wire.encode_preview(a_preview(decision=a_decision(views=views), shown=[a_picture(), broken])))
    with pytest.raises(WireError, match="each of the 2 views in a preview, found 1"):
        wire.decode(wire.encode_preview(a_preview(decision=a_decision(views=views))))


def test_health_comes_back_equal() -> None:
    judges = ("a" * 64, "b" * 64), ("cells", "cells")
    health = Health("cell-3", State.DEGRADED, ("camera lost",), *judges, "CPU", 3.5, {"ACCEPT": 2}, {"grab": (1.0, 2.0)}, 9, "2026")
    assert wire.decode_health(wire.encode_health(health)) == health


def test_a_preview_carries_the_map_and_its_place_in_the_frame() -> None:
    (back,) = wire.decode_preview(wire.encode_preview(a_preview())).shown
    score_map = wire.map_of(back)
    assert score_map is not None
    assert score_map.dtype == np.float32
    assert np.array_equal(score_map, np.arange(12, dtype=np.float32).reshape(3, 4))
    assert np.array_equal(wire.affine_of(back), [[8, 0, 10], [0, 9, 20]])


def test_scores_beyond_float16_stay_finite_in_a_preview() -> None:
    packed = wire.pack_map(np.array([[1e9, -1e9]], dtype=np.float32))
    assert np.frombuffer(packed, dtype=np.float16).tolist() == [65504.0, -65504.0]


@pytest.mark.parametrize("map_hw", [(3, 5), (-3, -4), (0, 0)])
def test_a_preview_whose_map_is_not_as_large_as_it_says_is_refused(map_hw: tuple[int, int]) -> None:
    with pytest.raises(WireError, match="float16"):
        wire.decode_preview(wire.encode_preview(a_preview(shown=[a_picture(map_hw=map_hw)])))


def test_a_message_of_a_newer_schema_says_which_side_is_to_be_updated() -> None:
    payload = msgspec.msgpack.encode({"schema": 3, "something": "new"})
    with pytest.raises(SchemaError, match=r"schema 2, found schema 3: this side runs an older version .*; update this side"):
        wire.decode_decision([b"decision", b"cell-3", payload])


@pytest.mark.parametrize("topic", ["decision", "health", "preview"])
def test_a_message_that_a_station_of_schema_1_sent_says_that_the_station_is_to_be_updated(topic: str) -> None:
    message = [topic.encode(), b"st", (SCHEMA_1 / f"{topic}.msgpack").read_bytes()]
    with pytest.raises(SchemaError, match=r"schema 2, found schema 1: the other side runs an older version .*; update the other side"):
        wire.decode(message)


def test_a_request_of_schema_1_is_refused_with_a_number_that_its_sender_understands() -> None:
    with pytest.raises(SchemaError, match="found schema 1"):
        wire.decode_request((SCHEMA_1 / "request.msgpack").read_bytes())
    assert msgspec.msgpack.decode(wire.encode_refusal()) == {"schema": 2}


@pytest.mark.parametrize(
    "parts",
    [
        [b"decision", b"cell-3"],
        [b"weather", b"cell-3", b""],
        [b"decision", b"cell-3", b""],
        [b"decision", b"cell-3", b"\xff\xfe not msgpack"],
        [b"decision", b"cell-3", msgspec.msgpack.encode({"schema": wire.SCHEMA, "decision": {"seq": "seventeen"}})],
        [b"decision", b"cell-3", wire.encode_decision(a_decision())[2][:-5]],
        [b"health", b"cell-3", wire.encode_decision(a_decision())[2]],
        [b"decision", b"cell-3", msgspec.msgpack.encode([1, 2])],
    ],
    ids=["two parts", "topic", "empty", "garbage", "type", "truncated", "other payload", "no map"],
)
def test_what_is_no_message_of_a_station_is_refused(parts: list[bytes]) -> None:
    with pytest.raises(WireError, match="expected"):
        wire.decode(parts)


def test_asking_for_one_kind_and_getting_another_is_refused() -> None:
    with pytest.raises(WireError, match="expected health"):
        wire.decode_health(wire.encode_decision(a_decision()))


def test_replay_messages_come_back_equal() -> None:
    request = wire.ReplayRequest(request=4, after_seq=None)
    assert wire.decode_request(wire.encode_replay(request)) == request
    reply = wire.ReplayReply(request=4, run="r", first_seq=3, uptime_s=1.5, last_seq=17, decisions=[a_decision()], more=False)
    assert wire.decode_reply(wire.encode_replay(reply)) == reply
    with pytest.raises(WireError, match="ReplayRequest"):
        wire.decode_request(b"hello")


@pytest.mark.parametrize(
    ("bound", "reached"),
    [("tcp://*:5560", "tcp://127.0.0.1:5560"), ("tcp://0.0.0.0:1", "tcp://127.0.0.1:1"), ("ipc:///run/x", "ipc:///run/x")],
)
def test_an_endpoint_bound_everywhere_is_reached_on_this_machine(bound: str, reached: str) -> None:
    assert wire.connectable(bound) == reached


def test_a_socket_that_a_user_may_not_connect_to_is_said() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        Path(folder).chmod(0o755)
        listener.bind(f"{folder}/pub")
        wire.check_access(f"ipc://{folder}/pub")
        wire.check_access(f"ipc://{folder}/none")  # of a station that does not run yet
        Path(folder, "pub").chmod(0o000)
        child = os.fork()
        if child == 0:  # root may do everything: somebody else tries
            code = 1
            try:
                if os.geteuid() == 0:
                    os.setuid(65534)
                wire.check_access(f"ipc://{folder}/pub")
            except ConfigError as e:
                code = 0 if "make him a member of its group" in str(e) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
