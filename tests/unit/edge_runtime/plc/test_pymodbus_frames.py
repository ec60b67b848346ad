"""What is known of pymodbus' insides holds for the pymodbus that is installed: its frames are those of the Modbus specification."""

import pytest

from edge_runtime.plc.pymodbus_frames import Frames

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


def test_an_answer_is_taken_when_it_is_whole_and_has_the_questions_number() -> None:
    frames = Frames()
    for some in range(len(READ)):
        assert frames.answer(READ[:some], 7, 9) == (0, None)
    used, answer = frames.answer(READ, 7, 9)
    assert answer is not None and (used, answer.function_code, answer.registers, answer.isError()) == (len(READ), 3, [1, 57_920], False)
    other = READ[:1] + b"\x08" + READ[2:]
    assert frames.answer(other, 7, 9) == (len(READ), None)
    assert frames.answer(READ, 6, 9) == (len(READ), None)
    used, answer = frames.answer(other + READ, 7, 9)
    assert answer is not None and (used, answer.registers) == (2 * len(READ), [1, 57_920])


def test_bits_come_least_significant_first_and_filled_up() -> None:
    answer = Frames().answer(bytes.fromhex("0009 0000 0005 07 01 02 05 02"), 7, 9)[1]
    assert answer is not None and list(answer.bits) == [i in (0, 2, 9) for i in range(16)]


def test_an_error_has_its_number_and_what_is_no_modbus_is_said_to_be_none() -> None:
    frames = Frames()
    answer = frames.answer(bytes.fromhex("0009 0000 0003 07 83 02"), 7, 9)[1]
    assert answer is not None and (answer.isError(), answer.exception_code) == (True, 2)
    with pytest.raises(frames.misread):
        frames.answer(bytes.fromhex("0009 0000 0003 07 63 02"), 7, 9)
