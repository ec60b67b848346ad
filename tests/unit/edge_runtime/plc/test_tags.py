"""A value and its bytes in the PLC."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.config.files import ByteOrder, TagType
from edge_runtime.plc.tags import FLOAT_MAX, RANGES, Tag, Value, from_bytes, from_plc, named, to_bytes, to_plc

ORDERS: tuple[ByteOrder, ...] = ("ABCD", "CDAB", "BADC", "DCBA")


def tag(kind: TagType, order: ByteOrder = "ABCD", scale: float = 1.0, length: int = 0) -> Tag:
    return Tag("x", "trigger.inputs.x", "", kind, False, order, scale, length)


@pytest.mark.parametrize(
    ("kind", "value", "bytes_by_order"),
    [
        ("uint32", 0x01020304, ["01020304", "03040102", "02010403", "04030201"]),
        ("int32", -2, ["fffffffe", "fffeffff", "fffffeff", "feffffff"]),
        ("float32", 1.5, ["3fc00000", "00003fc0", "c03f0000", "0000c03f"]),
        ("uint16", 0x0102, ["0102", "0102", "0201", "0201"]),
        ("int16", -2, ["fffe", "fffe", "feff", "feff"]),
        ("text", "ABCDE", ["414243444500", "414243444500", "424144430045", "424144430045"]),
    ],
)
def test_the_four_byte_orders(kind: TagType, value: Value, bytes_by_order: list[str]) -> None:
    for order, expected in zip(ORDERS, bytes_by_order, strict=True):
        t = tag(kind, order, length=5)
        assert to_bytes(t, value).hex() == expected
        assert from_bytes(t, bytes.fromhex(expected)) == value


@given(st.sampled_from(sorted(RANGES)), st.sampled_from(ORDERS), st.data())
def test_whole_numbers_come_back(kind: TagType, order: ByteOrder, data: st.DataObject) -> None:
    value = data.draw(st.integers(*RANGES[kind]))
    found = from_bytes(tag(kind, order), to_bytes(tag(kind, order), value))
    assert found == value and isinstance(found, int)


@given(st.sampled_from(ORDERS), st.floats(width=32, allow_nan=False))
def test_floats_come_back(order: ByteOrder, value: float) -> None:
    assert from_bytes(tag("float32", order), to_bytes(tag("float32", order), value)) == value


@given(st.sampled_from(ORDERS), st.integers(1, 20), st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20))
def test_texts_come_back_as_far_as_there_is_room(order: ByteOrder, length: int, value: str) -> None:
    t = tag("text", order, length=length)
    assert len(to_bytes(t, value)) == t.size and t.size % 2 == 0
    assert from_bytes(t, to_bytes(t, value)) == value[:length]


@pytest.mark.slow
@given(st.sampled_from(sorted(RANGES)), st.floats() | st.integers() | st.text() | st.booleans(), st.sampled_from([1.0, 0.1, 100.0]))
def test_nothing_wraps_round(kind: TagType, value: Value, scale: float) -> None:
    low, high = RANGES[kind]
    assert low <= int(to_plc(tag(kind, scale=scale), value)) <= high


@pytest.mark.parametrize(
    ("kind", "value", "raw"),
    [
        ("uint16", 1e9, 65_535), ("uint16", -5, 0), ("int16", -1e9, -32_768), ("uint16", math.nan, 0), ("int32", math.inf, 0),
        ("uint32", "17", 17), ("uint32", "A-17", 0), ("uint32", "", 0), ("uint16", 12.6, 13), ("bool", 2, True), ("text", "ABC", "AB"),
        ("float32", 1e39, FLOAT_MAX), ("float32", -1e300, -FLOAT_MAX),
    ],
)  # fmt: skip
def test_values_that_do_not_fit(kind: TagType, value: Value, raw: Value) -> None:
    assert to_plc(tag(kind, length=2), value) == raw
    if kind != "bool":
        to_bytes(tag(kind, length=2), value)


@pytest.mark.parametrize(("kind", "raw"), [("int16", [32_767, -32_768, -1, 0]), ("uint16", [32_767, 32_768, 65_535, 0])])
def test_a_count_goes_on_from_the_other_end_of_its_type(kind: TagType, raw: list[int]) -> None:
    count = Tag("result_count", "k", "a", kind, True, wraps=True)
    assert [to_plc(count, n) for n in (32_767, 32_768, 65_535, 65_536)] == raw
    assert [from_bytes(count, to_bytes(count, n)) for n in (32_767, 32_768, 65_535, 65_536)] == raw


def test_a_scale_is_undone_when_read() -> None:
    t = tag("uint16", scale=100.0)
    assert to_bytes(t, 1.25).hex() == "007d" and from_bytes(t, bytes.fromhex("007d")) == 1.25
    assert to_bytes(replace(t, scale=1.0), 125).hex() == "007d"


def test_a_text_ends_at_its_first_zero_and_what_is_not_ascii_is_a_question_mark() -> None:
    t = tag("text", length=6)
    assert from_bytes(t, b"AB\0CD\0") == "AB"
    assert from_bytes(t, b"AB    ") == "AB"
    assert to_bytes(t, "Stück") == b"St?ck\0"


def test_values_as_one_line() -> None:
    assert named({"trigger": True, "part_id": 17}) == "trigger=1 part_id=17"


@pytest.mark.parametrize("text", ["--5", "5-", "", "A-17", "1e3", "\u0661"])
def test_a_text_that_is_no_number_is_zero_as_one(text: str) -> None:
    assert to_plc(tag("uint32"), text) == 0


def test_texts_are_as_long_in_both_directions() -> None:
    told = from_plc(tag("text", length=6), "ORDER-2026")
    assert (told, to_plc(tag("text", length=6), told)) == ("ORDER-", "ORDER-")
