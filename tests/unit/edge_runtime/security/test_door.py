"""What a peer sends is counted as ZMTP, handed on whole, and never held beyond its quota; who sends more is cut."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.security.door.quota import Quota
from edge_runtime.security.door.talk import Allowance, Over, Talk

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16) + bytes(32)
QUOTA = Quota(message_bytes=100, parts=3, topics=2)


def frame(payload: bytes, flags: int = 0) -> bytes:
    if len(payload) > 255 or flags & 2:
        return bytes([flags | 2]) + len(payload).to_bytes(8, "big") + payload
    return bytes([flags, len(payload)]) + payload


def command(name: bytes, rest: bytes = b"") -> bytes:
    return frame(bytes([len(name)]) + name + rest, 4)


def greeted(quota: Quota = QUOTA) -> Talk:
    talk = Talk(quota)
    assert b"".join(talk.feed(GREETING)) == GREETING
    return talk


def test_a_greeting_s_version_is_handed_on_at_once_for_each_side_waits_for_the_other_s_and_the_rest_whole() -> None:
    talk = Talk(QUOTA)
    pieces = [b"".join(talk.feed(GREETING[i : i + 10])) for i in range(0, 70, 10)]
    assert pieces == [GREETING[:10], GREETING[10:12], b"", b"", b"", b"", GREETING[12:]]


def test_who_comes_with_a_key_where_none_is_asked_for_is_handed_on_no_further_than_his_version() -> None:
    """He hears that none is, instead of a station that hangs up."""
    talk = Talk(QUOTA)
    assert b"".join(talk.feed(CURVE + command(b"HELLO", bytes(194)))) == CURVE[:12]
    assert talk.held == 0


@pytest.mark.parametrize("begin", [b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00", b"\xff" + bytes(8) + b"\x7e", b"\xff" + bytes(8) + b"\x7f\x01"])
def test_what_is_no_zmtp_3_is_cut(begin: bytes) -> None:
    with pytest.raises(Over, match="no ZMTP 3"):
        Talk(QUOTA).feed(begin)


def test_a_message_is_handed_on_with_all_of_its_parts_or_not_at_all() -> None:
    talk = greeted()
    first = frame(b"one", 1)
    assert talk.feed(first + frame(b"tw")[:3]) == []
    assert talk.feed(b"w"[:0] + frame(b"tw")[3:]) == [first + frame(b"tw")]


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (frame(bytes(101)), "a message of more than 100 bytes"),
        (bytes([2]) + (1 << 62).to_bytes(8, "big"), "a message of more than 100 bytes"),
        (frame(bytes(60), 1) + frame(bytes(41)), "a message of more than 100 bytes"),
        (frame(b"", 1) * 4, "a message of more than 3 parts"),
        (command(b"READY", bytes(3000)), "a command of more than 2,048 bytes"),
        (b"".join(command(b"SUBSCRIBE", b"%d" % i) for i in range(3)), "more than 2 subscriptions"),
        (b"".join(frame(b"\x01%d" % i) for i in range(3)), "more than 2 subscriptions"),
        (command(b"SUBSCRIBE", bytes(101)), "a subscription of more than 100 bytes"),
        (b"\x08\x00", "no ZMTP 3"),
    ],
)
def test_who_sends_more_than_the_quota_is_cut_before_it_is_held(sent: bytes, why: str) -> None:
    talk = greeted()
    with pytest.raises(Over, match=why):
        talk.feed(sent)
    assert talk.held <= 2 * len(sent)


def test_topics_that_are_given_back_do_not_count() -> None:
    talk = greeted()
    for i in range(50):
        talk.feed(command(b"SUBSCRIBE", b"%d" % i))
        given_back = command(b"CANCEL", b"%d" % i) if i % 2 else frame(b"\x00%d" % i)
        assert talk.feed(given_back) == [given_back], "it is handed on, and nobody is cut"


@given(st.lists(st.lists(st.binary(max_size=30), min_size=1, max_size=3), max_size=8), st.data())
def test_however_bytes_are_cut_up_the_same_messages_come_out(messages: list[list[bytes]], data: Any) -> None:
    quota = Quota(message_bytes=100, parts=3)
    wire = [b"".join(frame(part, i < len(parts) - 1) for i, part in enumerate(parts)) for parts in messages]
    rest, talk, out = GREETING + b"".join(wire), Talk(quota), []
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        out += talk.feed(rest[:size])
        rest = rest[size:]
    assert b"".join(out) == GREETING + b"".join(wire)
    assert out[-len(wire) :] == wire or not wire
    assert talk.held == 0


@given(st.lists(st.binary(max_size=200), max_size=30))
def test_any_bytes_end_in_a_cut_or_are_held_within_the_quota(pieces: list[bytes]) -> None:
    talk = greeted()
    try:
        for piece in pieces:
            talk.feed(piece)
            assert talk.held <= 2048 + 9 + 100 + 9 * 3 + 200
    except Over:
        pass


def test_an_allowance_comes_back_with_time_and_what_was_taken_too_early_is_owed() -> None:
    allowance = Allowance(rate=10, burst=5, now=0.0)
    assert allowance.take(5, 0.0) == 0
    assert allowance.take(2, 0.0) == pytest.approx(0.2)
    assert allowance.take(0, 1.0) == 0
    assert allowance.take(5, 100.0) == 0, "it never grows beyond the burst"
    assert allowance.take(1, 100.0) == pytest.approx(0.1)


CURVE = GREETING.replace(b"NULL" + bytes(16), b"CURVE" + bytes(15))
KEYED = Quota(message_bytes=100, parts=3, topics=2, curve=True)


def test_who_speaks_without_a_key_where_one_is_demanded_is_handed_on_no_further_than_his_version() -> None:
    talk = Talk(KEYED)
    assert b"".join(talk.feed(GREETING[:20])) == GREETING[:12]
    assert b"".join(talk.feed(GREETING[20:] + command(b"READY") + frame(b"decision"))) == b""
    assert talk.plain
    assert talk.feed(frame(bytes(5000))) == []
    assert talk.held == 0


def test_a_handshake_with_a_key_passes_and_what_follows_is_counted_by_size() -> None:
    hello, initiate, message = command(b"HELLO", bytes(194)), command(b"INITIATE", bytes(400)), frame(b"\x07MESSAGE" + bytes(120))
    talk = Talk(KEYED)
    assert b"".join(talk.feed(CURVE + hello)) == CURVE + hello
    with pytest.raises(Over, match="before its handshake"):
        talk.feed(message)
    talk = Talk(KEYED)
    assert b"".join(talk.feed(CURVE + hello + initiate + message)) == CURVE + hello + initiate + message
    assert not talk.plain
    with pytest.raises(Over, match="more than 164 bytes"):
        talk.feed(frame(bytes(165)))


def said(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value


@pytest.mark.parametrize("name", [b"X-Lineside-Uid", b"x-lineside-UID", b"X-Lineside-Gid", b"X-Lineside-Pid"])
@pytest.mark.parametrize("user", [None, (1000, 100, 77)])
def test_what_a_peer_says_that_the_system_says_is_taken_out(name: bytes, user: tuple[int, int, int] | None) -> None:
    kept = said(b"Socket-Type", b"DEALER")
    talk = Talk(QUOTA, user)
    talk.feed(GREETING)
    (ready,) = talk.feed(command(b"READY", said(name, b"0") + kept + said(name, b"0")))
    own = b"".join(said(f"X-Lineside-{n}".encode(), str(v).encode()) for n, v in zip(("Uid", "Gid", "Pid"), user or (), strict=False))
    assert ready == command(b"READY", kept + own)


@pytest.mark.parametrize("rest", [b"\x05abc", b"\x03abc\x00\x00\x00\x09ab", b"\xff"])
def test_a_handshake_that_cannot_be_read_is_cut(rest: bytes) -> None:
    talk = greeted()
    with pytest.raises(Over, match="no ZMTP 3"):
        talk.feed(command(b"READY", rest))


def test_the_bare_interpreter_loads_these_files_and_little_of_the_standard_library() -> None:
    root = Path(__file__).parents[4]
    code = (
        f"import sys; sys.path.append({str(root)!r}); import edge_runtime.security.door.serving\n"
        "print(*sorted(m for m in sys.modules if 'edge_runtime' in m or m in ('dataclasses', 'inspect', 'typing', 'shutil')))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    door = "edge_runtime.security.door"
    assert done.stdout.split() == ["edge_runtime", "edge_runtime.security", door, *(f"{door}.{m}" for m in ("clock", "serving", "talk"))]
