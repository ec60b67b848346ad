"""The ZeroMQ contract between a station and whoever listens: topics, schema, encoding.

A published message has three parts: topic, the station's name, a msgpack payload. The payload is one of the structs below; each begins with
the schema's number, so that a listener of another version says so instead of misreading. `run` names one life of the station's process and
`first_seq` the first decision that it would make: with both a listener tells a repeated number from a restarted station.

The replay socket (ROUTER) takes one `ReplayRequest` a message from a DEALER and answers each with one `ReplayReply`; a request of another
schema with the number of its own alone, which is enough for whoever asked to say so. The control socket (ROUTER) takes one `ControlRequest`
a message from a DEALER and answers each with one `ControlReply`, another schema as above; who asks, the connection says, never the message.

Schema 2, the present one: a decision holds a view a camera, also where there is one camera; a preview holds a picture a view; health names
recipes and bundles as lists, one a camera. In schema 1 a station with one camera sent no views, a preview set the deciding picture apart
from the others, and health joined the names with commas.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np

from edge_runtime.errors import ConfigError, SchemaError, WireError
from edge_runtime.records import Affine, Decision, Health, ReleaseState, ScoreMap

__all__ = [
    "DECISION",
    "HEALTH",
    "PREVIEW",
    "REPLAY_PAGE",
    "SCHEMA",
    "ControlReply",
    "ControlRequest",
    "DecisionMessage",
    "HealthMessage",
    "Preview",
    "ReplayReply",
    "ReplayRequest",
    "Shown",
    "affine_of",
    "check_access",
    "connectable",
    "decode",
    "decode_control",
    "decode_control_reply",
    "decode_decision",
    "decode_health",
    "decode_preview",
    "decode_reply",
    "decode_request",
    "encode_control",
    "encode_decision",
    "encode_health",
    "encode_preview",
    "encode_refusal",
    "encode_replay",
    "flat_affine",
    "map_of",
    "pack_map",
    "request_of",
]

SCHEMA = 2
"""Number of the message format. A listener refuses messages of another one with a sentence (SchemaError)."""
DECISION = b"decision"
"""Topic of decisions."""
HEALTH = b"health"
"""Topic of a station's health, once a second."""
PREVIEW = b"preview"
"""Topic of the small pictures for the operator's window, on a socket of its own."""

REPLAY_PAGE = 100
"""Decisions in one reply: small, because the station encodes it beside the loop."""


class _Message(msgspec.Struct, frozen=True, kw_only=True):
    """What all payloads begin with."""

    schema: int = SCHEMA
    """Number of the message format."""
    run: str = ""
    """Names one life of the station's process: another one means that it was started again."""
    first_seq: int = 1
    """The seq of the first decision that this run makes."""


class DecisionMessage(_Message, frozen=True, kw_only=True):
    """Topic `decision`: one decision, as it is made."""

    decision: Decision


class HealthMessage(_Message, frozen=True, kw_only=True):
    """Topic `health`, once a second; `health.last_seq` lets a listener notice that the last decision was lost."""

    health: Health


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """The picture of one view, reduced for looking at, never for judging."""

    image: bytes
    """The frame, reduced, as JPEG (gray or BGR, 8 bits); empty when there was no frame."""
    score_map: bytes
    """float16, C order, `map_hw`; raw scores (clipped to float16's range); empty when there was no prediction."""
    map_hw: tuple[int, int]
    """Rows and columns of the map; (0, 0) when there was no prediction."""
    grid_to_frame: tuple[float, float, float, float, float, float]
    """The (2, 3) affine from the map's grid to pixels of the *full* frame, row by row; scale by the image's size / the view's frame_wh."""
    display_low: float
    """The product's fixed colour scale begins here, in raw map values,"""
    display_high: float
    """and ends here."""


class Preview(_Message, frozen=True, kw_only=True):
    """Topic `preview`: what the operator's window draws."""

    decision: Decision
    shown: list[Shown]
    """One a view, in the order of `decision.views`; that of the deciding view is larger."""
    counts: dict[str, int]
    """Verdicts since the station's start, as in `Health.counts`; empty when the station gives none here."""
    release: ReleaseState | None = None
    """The state of what judged this part; None for a part that nothing judged, and from a station that does not tell."""


class ReplayRequest(_Message, frozen=True, kw_only=True):
    """What a listener asks the replay socket (DEALER -> ROUTER): the decisions after a number."""

    request: int
    """Chosen by the listener, echoed in the reply."""
    after_seq: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None
    """Send decisions with a larger seq, oldest first; None asks only where the station is."""


class ReplayReply(_Message, frozen=True, kw_only=True):
    """What the replay socket answers (ROUTER -> DEALER): a page of decisions, and where the station is."""

    request: int
    uptime_s: float
    last_seq: int
    """Last decision that was told. What is at most this and not in the reply, and not beyond a cut page, cannot be had any more."""
    decisions: list[Decision]
    """At most REPLAY_PAGE, by seq."""
    more: bool
    """The page was cut: ask again after its last seq."""
    problem: str = ""
    """Why the journal could not be read: what is missing may yet come."""
    lost: str = ""
    """Which rows of the journal can never be read again, and why."""


class ControlRequest(_Message, frozen=True, kw_only=True):
    """What somebody asks of the control socket (DEALER -> ROUTER). Which verbs there are, and for whom: deploy/security.md."""

    request: int
    """Chosen by whoever asks, echoed in the reply."""
    verb: Annotated[str, msgspec.Meta(max_length=64)]
    """What is asked for, such as `status`."""
    arguments: dict[str, Any] = {}
    """What the verb takes."""
    why: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    """For the journal, in the words of whoever asks."""
    person: Annotated[str, msgspec.Meta(max_length=100)] = ""
    """Who sits before it, where several share a key: written down as told, and believed in nothing."""


class ControlReply(_Message, frozen=True, kw_only=True):
    """What the control socket answers (ROUTER -> DEALER)."""

    request: int
    result: dict[str, Any] = {}
    """What the verb gives; empty where it was refused."""
    refused: str = ""
    """A sentence: why nothing was done; empty where it was."""
    code: int = 0
    """The exit code of the error behind `refused` (edge_runtime.errors)."""


_Any = TypeVar("_Any", bound=_Message)
_encoder = msgspec.msgpack.Encoder()


class _Schema(msgspec.Struct):
    schema: int


class _Numbered(msgspec.Struct):
    request: int


def encode_decision(decision: Decision, run: str = "", first_seq: int = 1) -> list[bytes]:
    """The three parts of a decision's message."""
    return [DECISION, decision.station.encode(), _encoder.encode(DecisionMessage(run=run, first_seq=first_seq, decision=decision))]


def encode_health(health: Health, run: str = "", first_seq: int = 1) -> list[bytes]:
    """The three parts of a health message."""
    return [HEALTH, health.station.encode(), _encoder.encode(HealthMessage(run=run, first_seq=first_seq, health=health))]


def encode_preview(preview: Preview) -> list[bytes]:
    """The three parts of a preview."""
    return [PREVIEW, preview.decision.station.encode(), _encoder.encode(preview)]


def encode_replay(message: ReplayRequest | ReplayReply) -> bytes:
    """The one part of a request or a reply.

    >>> asked = encode_replay(ReplayRequest(request=1, after_seq=41))
    >>> decode_request(asked).after_seq
    41
    """
    return _encoder.encode(message)


def encode_control(message: ControlRequest | ControlReply) -> bytes:
    """The one part of what is asked of the control socket, or of its answer.

    >>> decode_control(encode_control(ControlRequest(request=1, verb="status"))).verb
    'status'
    """
    return _encoder.encode(message)


def encode_refusal() -> bytes:
    """What answers a request of another schema: the number of this one, for which any version says that it is another."""
    return _encoder.encode(_Schema(schema=SCHEMA))


def decode(parts: Sequence[bytes]) -> DecisionMessage | HealthMessage | Preview:
    """Any published message, told apart by its topic. Raises WireError; SchemaError for one of another version.

    >>> decode([b"weather", b"station", b""])
    Traceback (most recent call last):
    ...
    edge_runtime.errors.WireError: expected the topic decision, health or preview, found b'weather': this is not a station's PUB socket
    """
    if len(parts) != 3:
        raise WireError(f"expected a message of 3 parts (topic, station, payload), found {len(parts)}: this is not a station's PUB socket")
    topic = bytes(parts[0])
    if topic == DECISION:
        return _payload(parts[2], DecisionMessage)
    if topic == HEALTH:
        return _payload(parts[2], HealthMessage)
    if topic == PREVIEW:
        return _checked(_payload(parts[2], Preview))
    raise WireError(f"expected the topic decision, health or preview, found {topic[:40]!r}: this is not a station's PUB socket")


def decode_decision(parts: Sequence[bytes]) -> Decision:
    """The decision in a message of that topic. Raises WireError."""
    message = decode(parts)
    if not isinstance(message, DecisionMessage):
        raise WireError(f"expected a decision, found a message of topic {bytes(parts[0]).decode()}")
    return message.decision


def decode_health(parts: Sequence[bytes]) -> Health:
    """The health record in a message of that topic. Raises WireError."""
    message = decode(parts)
    if not isinstance(message, HealthMessage):
        raise WireError(f"expected health, found a message of topic {bytes(parts[0]).decode()}")
    return message.health


def decode_preview(parts: Sequence[bytes]) -> Preview:
    """The preview in a message of that topic. Raises WireError."""
    message = decode(parts)
    if not isinstance(message, Preview):
        raise WireError(f"expected a preview, found a message of topic {bytes(parts[0]).decode()}")
    return message


def _checked(preview: Preview) -> Preview:
    """A picture a view, and maps of the bytes that their shapes say. Raises WireError."""
    views = len(preview.decision.views)
    if len(preview.shown) != views:
        raise WireError(f"expected a picture for each of the {views} views in a preview, found {len(preview.shown)}")
    for shown in preview.shown:
        height, width = shown.map_hw
        if min(height, width) < 0 or height * width * 2 != len(shown.score_map):
            raise WireError(f"expected {height}x{width} float16 in a preview's map, found {len(shown.score_map)} bytes")
    return preview


def decode_request(payload: bytes) -> ReplayRequest:
    """The request in a message to the replay socket. Raises WireError."""
    return _payload(payload, ReplayRequest)


def decode_reply(payload: bytes) -> ReplayReply:
    """The answer in a message of the replay socket. Raises WireError."""
    return _payload(payload, ReplayReply)


def decode_control(payload: bytes) -> ControlRequest:
    """The request in a message to the control socket. Raises WireError."""
    return _payload(payload, ControlRequest)


def request_of(payload: bytes) -> int | None:
    """The number of a request that cannot be understood otherwise, for the answer that says so; None where it has none.

    >>> request_of(b"no request") is None
    True
    """
    try:
        return msgspec.msgpack.decode(payload, type=_Numbered).request
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def decode_control_reply(payload: bytes) -> ControlReply:
    """The answer in a message of the control socket. Raises WireError."""
    return _payload(payload, ControlReply)


def pack_map(score_map: ScoreMap) -> bytes:
    """(h, w) float32 -> float16 bytes. Scores beyond float16's range are clipped: a preview is painted, never judged.

    >>> len(pack_map(np.zeros((32, 24), np.float32)))
    1536
    """
    limit = float(np.finfo(np.float16).max)
    return np.clip(score_map, -limit, limit).astype(np.float16).tobytes()


def map_of(shown: Shown) -> ScoreMap | None:
    """(h, w) float32, or None when there was no prediction."""
    if not shown.score_map:
        return None
    return np.frombuffer(shown.score_map, dtype=np.float16).reshape(shown.map_hw).astype(np.float32)


def flat_affine(a: Affine) -> tuple[float, float, float, float, float, float]:
    """(2, 3) -> its six numbers, row by row.

    >>> flat_affine(np.array([[8.0, 0.0, 100.0], [0.0, 8.0, 50.0]]))
    (8.0, 0.0, 100.0, 0.0, 8.0, 50.0)
    """
    return (float(a[0, 0]), float(a[0, 1]), float(a[0, 2]), float(a[1, 0]), float(a[1, 1]), float(a[1, 2]))


def affine_of(shown: Shown) -> Affine:
    """(2, 3) float64, grid to pixels of the full frame."""
    return np.array(shown.grid_to_frame, dtype=np.float64).reshape(2, 3)


def connectable(endpoint: str) -> str:
    """The address to connect to for one that a station binds: `tcp://*:5560` is reached at `tcp://127.0.0.1:5560` from the same machine.

    >>> connectable("tcp://*:5560"), connectable("tcp://192.168.0.7:5560")
    ('tcp://127.0.0.1:5560', 'tcp://192.168.0.7:5560')
    """
    for anywhere in ("tcp://*:", "tcp://0.0.0.0:"):
        if endpoint.startswith(anywhere):
            return "tcp://127.0.0.1:" + endpoint.removeprefix(anywhere)
    return endpoint


def check_access(endpoint: str) -> None:
    """Raises ConfigError for a Unix socket that is there and that this user may not connect to: ZeroMQ would only stay silent."""
    path = Path(endpoint.removeprefix("ipc://"))
    if endpoint.startswith("ipc:///") and path.exists() and not os.access(path, os.R_OK | os.W_OK):
        try:
            group = path.group()
        except (KeyError, NotImplementedError):  # one without a name
            group = str(path.stat().st_gid)
        raise ConfigError(f"{endpoint}: this user may not connect to it; make him a member of its group, {group}, and log in anew")


def _payload(payload: bytes, kind: type[_Any]) -> _Any:
    try:
        schema = msgspec.msgpack.decode(payload, type=_Schema).schema
        if schema != SCHEMA:
            older, newer = ("the other side", "this one") if schema < SCHEMA else ("this side", "the other one")
            raise SchemaError(
                f"expected messages of schema {SCHEMA}, found schema {schema}: {older} runs an older version of Lineside than {newer}; "
                f"update {older}, so that station and listener are of one version"
            )
        return msgspec.msgpack.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise WireError(f"expected a {kind.__name__} in msgpack, found {len(payload)} bytes that are none: {e}") from e
