"""What is known of python-snap7's insides holds for the python-snap7 that is installed: its messages are those that S7 CPUs take and give.

Siemens publishes none of them; the bytes are those that Wireshark's dissector of S7 communication names.
"""

import pytest

from edge_runtime.plc.snap7_messages import ErrorCode, Messages, Misread


def told(message: bytes) -> str:
    """Without its number."""
    return (message[:4] + b"\0\0" + message[6:]).hex(" ", 2)


def said(text: str) -> bytes:
    return bytes.fromhex(text)


def test_a_setup_asks_for_the_length_of_messages() -> None:
    assert told(Messages().setup(480)) == said("3201 0000 0000 0008 0000 f000 0001 0001 01e0").hex(" ", 2)


def test_a_read_names_each_item_by_area_block_and_bit() -> None:
    items = [(0x84, 10, 2, 4), (0x83, 0, 5, 1)]
    wanted = "3201 0000 0000 001a 0000 0402 120a 1002 0004 000a 8400 0010 120a 1002 0001 0000 8300 0028"
    assert told(Messages().reading(items)) == said(wanted).hex(" ", 2)


def test_a_write_carries_its_bytes_with_their_length_in_bits() -> None:
    wanted = "3201 0000 0000 000e 0007 0501 120a 1002 0003 000b 8400 0050 0004 0018 0102 03"
    assert told(Messages().writing(0x84, 11, 10, b"\1\2\3")) == said(wanted).hex(" ", 2)


def test_the_number_stands_in_bytes_4_and_5_and_changes_nothing_else() -> None:
    messages = Messages()
    one, two = messages.setup(480), messages.setup(480)
    assert one[4:6] != two[4:6] and told(one) == told(two)


def test_an_answer_says_how_long_messages_may_be() -> None:
    messages = Messages()
    assert messages.agreed(said("3203 0000 0001 0008 0000 0000 f000 0001 0001 00f0")) == 240
    assert messages.agreed(said("3203 0000 0001 0000 0000 0000")) is None


def test_an_answer_s_items_come_as_they_were_sent() -> None:
    items = "ff04 0010 abcd 0a00 0000 ff04 0008 01"
    assert Messages().data(said(f"3203 0000 0001 0002 000f 0000 0402 {items}")) == said(items)
    assert Messages().data(said("3203 0000 0001 0002 0001 0000 0501 ff")) == b"\xff"


def test_a_refusal_has_its_class_and_code_and_what_is_no_s7_is_said_to_be_none() -> None:
    messages = Messages()
    with pytest.raises(ErrorCode) as e:
        messages.data(said("3202 0000 0001 0000 0000 8104"))
    assert e.value.code == 0x8104
    for wrong in ("", "3203", "ff03 0000 0001 0002 0001 0000 0501 ff"):
        with pytest.raises(Misread):
            messages.data(said(wrong))
