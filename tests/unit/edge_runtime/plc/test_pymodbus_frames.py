"""What is known of pymodbus' insides holds for the pymodbus that is installed: its frames are those of the Modbus specification."""

import pytest

from edge_runtime.plc.pymodbus_frames import Frame, Frames, NoModbus, first_frame

READ = bytes.fromhex("0009 0000 0007 07 03 04 0001 e240")
"""MODBUS Application Protocol 1.1b3, 6.3, with the head of MODBUS Messaging on TCP/IP 1.0b: number 9, unit 7, two holding registers."""


@pytest.mark.parametrize(
    ("area", "frame"),
    [
        ("coil", "0000 0000 0006 07 01 0010 0003"), ("discrete", "0000 0000 0006 07 02 0010 0003"),
        ("holding", "0000 0000 0006 07 03 0010 0003"), ("input", "0000 0000 0006 07 04 0010 0003"),
    ],
)  # fmt: skip
def test_a_question_is_the_specifications(area: str, frame: str) -> None:
    wanted = bytes.fromhex(frame)
    assert Frames().reading(area, 16, 3, 7) == (wanted[7], wanted)


def test_a_write_is_the_specifications() -> None:
    assert Frames().writing("coil", 5, [1, 0, 1], 7) == (15, bytes.fromhex("0000 0000 0008 07 0f 0005 0003 01 05"))
    assert Frames().writing("holding", 16, [1, 2], 7) == (16, bytes.fromhex("0000 0000 000b 07 10 0010 0002 04 0001 0002"))


def test_a_write_of_one_is_the_specifications() -> None:
    assert Frames().writing_one("coil", 5, 1, 7) == (5, bytes.fromhex("0000 0000 0006 07 05 0005 ff00"))
    assert Frames().writing_one("holding", 16, 258, 7) == (6, bytes.fromhex("0000 0000 0006 07 06 0010 0102"))


def test_a_frame_is_taken_when_it_is_whole() -> None:
    assert [first_frame(READ[:some]) for some in range(len(READ))] == [None] * len(READ)
    frame = first_frame(READ + b"more")
    assert frame == Frame(9, 7, READ[7:], len(READ))
    answer = Frames().answer(frame.message)
    assert (answer.function_code, answer.registers, answer.isError()) == (3, [1, 57_920], False)


@pytest.mark.parametrize("head", ["0009 0001", "0009 0000 0001", "0009 0000 00ff", "4854 5450"])
def test_what_cannot_become_a_frame_is_none_at_once(head: str) -> None:
    with pytest.raises(NoModbus):
        first_frame(bytes.fromhex(head))


def test_bits_come_least_significant_first_and_filled_up() -> None:
    answer = Frames().answer(bytes.fromhex("01 02 05 02"))
    assert list(answer.bits) == [i in (0, 2, 9) for i in range(16)]


@pytest.mark.parametrize("frame", ["0009 0000 0003 07 83 02", "0009 0000 0002 07 83 02"])
def test_an_error_has_its_number_also_where_its_length_is_counted_wrong(frame: str) -> None:
    found = first_frame(bytes.fromhex(frame))
    assert found is not None
    answer = Frames().answer(found.message)
    assert (answer.isError(), answer.exception_code) == (True, 2)


@pytest.mark.parametrize("message", ["63 02", "80", "83", "03 04 0001"])
def test_a_message_that_says_nothing_is_said_to_be_no_modbus(message: str) -> None:
    with pytest.raises(NoModbus):
        Frames().answer(bytes.fromhex(message))
