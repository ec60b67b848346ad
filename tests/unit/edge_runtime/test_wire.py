"""The wire contract: what is encoded comes back equal, and what is not ours is refused with a sentence."""

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
from edge_runtime.errors import ConfigError, WireError
from edge_runtime.records import Decision, Health, Region, Stamps, State, Verdict, View
from tests.support.decisions import decision_with


def a_decision(**changes: object) -> Decision:
    regions = (Region(1, 2, 30, 40, 500, 33.0), Region(5, 6, 7, 8, 4, 21.0))
    values: dict[str, object] = {"seq": 17, "part_id": "Ä-17", "regions": regions, "stamps": Stamps(1, 2, 3, 4, 5, 6)}
    return decision_with(**(values | changes))


def a_preview(**changes: object) -> wire.Preview:
    score_map = np.arange(12, dtype=np.float32).reshape(3, 4)
    values: dict[str, object] = {
        "decision": a_decision(), "image": b"jpeg", "score_map": wire.pack_map(score_map), "map_hw": (3, 4),
        "grid_to_frame": (8.0, 0.0, 10.0, 0.0, 9.0, 20.0), "display_low": 1.0, "display_high": 40.0, "counts": {"ACCEPT": 3},
    }  # fmt: skip
    return wire.Preview(**(values | changes))  # type: ignore[arg-type]


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


def test_listeners_of_both_ages_understand_a_station_with_several_cameras_and_one_with_one() -> None:
    several = a_decision(views=(A_VIEW, A_VIEW))
    assert wire.decode_decision(wire.encode_decision(several)) == several
    old = asdict(several)
    del old["views"], old["source"]
    message = {"schema": wire.SCHEMA, "run": "", "first_seq": 1, "decision": old}
    assert wire.decode_decision([wire.DECISION, b"cell-3", msgspec.msgpack.encode(message)]) == a_decision()

    class OldDecision(msgspec.Struct):
        """What an older listener knows of a decision, as far as it matters here."""

        seq: int
        verdict: Verdict
        wall_time: str

    class OldMessage(msgspec.Struct):
        schema: int
        decision: OldDecision

    assert msgspec.msgpack.decode(wire.encode_decision(several)[2], type=OldMessage).decision.seq == 17


def test_a_preview_carries_the_other_cameras_pictures_and_their_maps_are_checked_too() -> None:
    other = wire.PreviewOther(
        camera="side", image=b"jpeg", score_map=wire.pack_map(np.ones((2, 2), np.float32)), map_hw=(2, 2),
        grid_to_frame=(8.0, 0.0, 0.0, 0.0, 8.0, 0.0), display_low=1.0, display_high=40.0,
    )  # fmt: skip
    back = wire.decode_preview(wire.encode_preview(a_preview(camera="top", others=[other])))
    assert back.others == [other]
    broken = msgspec.structs.replace(other, map_hw=(3, 3))
    with pytest.raises(WireError, match="3x3 float16"):
        wire.decode_preview(wire.encode_preview(a_preview(others=[broken])))


def test_health_comes_back_equal() -> None:
    health = Health(
        "cell-3", State.DEGRADED, ("camera lost",), "a" * 64, "cells", "CPU", 3.5, {"ACCEPT": 2}, {"grab": (1.0, 2.0)}, 9, "2026"
    )
    assert wire.decode_health(wire.encode_health(health)) == health


def test_a_preview_carries_the_map_and_its_place_in_the_frame() -> None:
    back = wire.decode_preview(wire.encode_preview(a_preview()))
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
        wire.decode_preview(wire.encode_preview(a_preview(map_hw=map_hw)))


def test_a_message_of_another_schema_says_which_version_is_needed() -> None:
    payload = msgspec.msgpack.encode({"schema": 2, "something": "new"})
    with pytest.raises(WireError, match=r"schema 1, found 2.*install the same"):
        wire.decode_decision([b"decision", b"cell-3", payload])


@pytest.mark.parametrize(
    "parts",
    [
        [b"decision", b"cell-3"],
        [b"weather", b"cell-3", b""],
        [b"decision", b"cell-3", b""],
        [b"decision", b"cell-3", b"\xff\xfe not msgpack"],
        [b"decision", b"cell-3", msgspec.msgpack.encode({"schema": 1, "decision": {"seq": "seventeen"}})],
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
