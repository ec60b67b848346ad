"""Pictures and triggers of a wire, as a table: who gets what. Times in ms; the window is 20 before to 5 after."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from edge_runtime.capture.pairing import Answer, Pairing
from edge_runtime.errors import FrameError, LostFrame, SourceError
from edge_runtime.records import Frame, Trigger

MS = 1_000_000
IMAGE = np.zeros((2, 2), np.uint8)


@dataclass
class Case:
    name: str
    events: list[tuple[str, int, int, int]]
    """("T", seen at, seq, 0), ("F", arrives at, camera's count, exposed at), ("L", …) a lost one, ("X", at, 0, 0) the camera was lost,
    ("D", at, seq, 0) a part that is refused."""
    answers: dict[int, int | str]
    """Trigger -> the picture's count, or a word of why not; those left out wait on."""
    problem: str = ""
    answered_at: dict[int, int] = field(default_factory=dict)


CASES = [
    Case("one and one", [("T", 100, 1, 0), ("F", 112, 1, 98)], {1: 1}),
    Case("the picture is here before its trigger", [("F", 101, 1, 90), ("T", 103, 1, 0)], {1: 1}, answered_at={1: 108}),
    Case("not before the window is over", [("T", 100, 1, 0), ("F", 101, 1, 99)], {1: 1}, answered_at={1: 105}),
    Case("a row of parts", [e for i in range(1, 6) for e in (("T", 100 * i, i, 0), ("F", 100 * i + 9, i, 100 * i - 2))],
         {i: i for i in range(1, 6)}),
    Case("exposed long before its trigger was seen", [("F", 90, 1, 70), ("T", 100, 1, 0)], {}),
    Case("two pictures for one trigger", [("T", 100, 1, 0), ("F", 102, 1, 90), ("F", 104, 2, 99)], {1: "2 pictures"}),
    Case("and the next part is judged again", [("T", 100, 1, 0), ("F", 102, 1, 90), ("F", 104, 2, 99), ("T", 200, 2, 0),
         ("F", 210, 3, 199)],
         {1: "2 pictures", 2: 3}),
    Case("a trigger without a picture", [("T", 100, 1, 0), ("T", 200, 2, 0), ("F", 210, 1, 199)], {1: "No picture", 2: 1}),
    Case("a picture without a trigger", [("F", 50, 1, 45), ("T", 400, 1, 0)], {}, "1 pictures came without a trigger"),
    Case("and it does not move the next ones", [("F", 50, 1, 45), ("T", 400, 1, 0), ("F", 410, 2, 399)], {1: 2}),
    Case("the count jumps: a picture that no trigger explains", [("T", 100, 1, 0), ("F", 110, 1, 99), ("T", 200, 2, 0),
         ("F", 210, 3, 199)],
         {1: 1, 2: "counted 1 pictures more"}),
    Case("it is one part's fault, not the rest's", [("T", 100, 1, 0), ("F", 110, 1, 99), ("T", 200, 2, 0), ("F", 210, 3, 199),
         ("T", 300, 3, 0), ("F", 310, 4, 299)], {1: 1, 2: "counted", 3: 4}),
    Case("the count jumps as a trigger's own picture was lost", [("T", 100, 1, 0), ("F", 110, 1, 99), ("T", 200, 2, 0), ("T", 300, 3, 0),
         ("F", 310, 3, 299)], {1: 1, 2: "No picture", 3: 3}),
    Case("a lost picture explains one of two", [("T", 100, 1, 0), ("F", 110, 1, 99), ("T", 200, 2, 0), ("T", 300, 3, 0),
         ("F", 310, 4, 299)],
         {1: 1, 2: "No picture", 3: "counted 1"}),
    Case("lost packets", [("T", 100, 1, 0), ("L", 130, 1, 130)], {1: "lost packets"}),
    Case("lost packets, and the next is judged", [("T", 100, 1, 0), ("L", 130, 1, 130), ("T", 200, 2, 0), ("F", 210, 2, 199)],
         {1: "lost packets", 2: 2}),
    Case("two pictures, the second with lost packets", [("T", 100, 1, 0), ("F", 102, 1, 90), ("L", 103, 2, 99)], {1: "2 pictures"}),
    Case("two pictures, the first with lost packets", [("T", 100, 1, 0), ("L", 102, 1, 90), ("F", 103, 2, 99)], {1: "lost packets"},
         "second picture"),
    Case("windows that overlap", [("T", 100, 1, 0), ("T", 110, 2, 0), ("F", 112, 1, 99), ("F", 120, 2, 109)],
         {1: "either of two", 2: "either of two"}),
    Case("a double edge, one picture", [("T", 100, 1, 0), ("T", 103, 2, 0), ("F", 110, 1, 99)], {1: "either of two", 2: "either of two"}),
    Case("the camera counts anew after it was lost", [("T", 100, 7, 0), ("F", 110, 70, 99), ("X", 150, 0, 0), ("T", 900, 8, 0),
         ("F", 910, 75, 899)],
         {7: 70, 8: 75}),
    Case("a late picture is not the next part's", [("T", 100, 1, 0), ("F", 190, 1, 99), ("T", 200, 2, 0), ("F", 210, 2, 199)],
         {1: 1, 2: 2}),
    Case("the picture of a refused part comes after it", [("D", 100, 1, 0), ("F", 112, 1, 98), ("T", 400, 2, 0), ("F", 410, 2, 399)],
         {2: 2}),
    Case("the picture of a refused part was there before it", [("F", 95, 1, 85), ("D", 100, 1, 0), ("T", 400, 2, 0), ("F", 410, 2, 399)],
         {2: 2}),
    Case("the picture of a refused part, twice", [("D", 100, 1, 0), ("D", 150, 2, 0), ("F", 160, 1, 99), ("F", 165, 2, 149),
         ("T", 400, 3, 0), ("F", 410, 3, 399)],
         {3: 3}),
    Case("a refused part explains no picture that never came", [("T", 100, 1, 0), ("F", 110, 1, 99), ("D", 200, 2, 0), ("T", 300, 3, 0),
         ("F", 310, 3, 299)],
         {1: 1, 3: "counted 1"}),
    Case("a whole picture and two with lost packets", [("T", 100, 1, 0), ("F", 101, 1, 90), ("L", 102, 2, 95), ("L", 103, 3, 98)],
         {1: "3 pictures"}),
    Case("a refused part's picture is not the next part's", [("D", 100, 1, 0), ("T", 103, 2, 0), ("F", 110, 1, 99)], {2: "either of two"}),
    Case("exposed at the very ends of the window", [("T", 100, 1, 0), ("F", 101, 1, 80), ("T", 200, 2, 0), ("F", 206, 2, 205)],
         {1: 1, 2: 2}),
    Case("a second picture that comes when the next part was judged", [("T", 100, 1, 0), ("F", 102, 1, 90), ("T", 200, 2, 0),
         ("F", 202, 2, 190), ("F", 240, 3, 99)], {1: 1, 2: 2}, "second picture came for part 1"),
    Case("a second picture that comes when the first was judged", [("T", 100, 1, 0), ("F", 102, 1, 90), ("F", 140, 2, 99)], {1: 1},
         "second picture"),
]  # fmt: skip


def play(case: Case, until_ms: int = 2000) -> tuple[Pairing, dict[int, tuple[Answer, int]]]:
    """Every millisecond: what happens then, and what is answered."""
    pairing, answers = Pairing((20 * MS, 5 * MS)), {}
    for now in range(until_ms):
        out: list[Answer] = []
        for what, at, seq, exposed in case.events:
            if at != now:
                continue
            if what == "T":
                pairing.trigger(Trigger(seq, now * MS, ""))
            elif what == "F":
                pairing.frame(Frame(seq, exposed * MS, "wire", IMAGE), now * MS)
            elif what == "D":
                pairing.dismiss(Trigger(seq, now * MS, ""))
            elif what == "L":
                out += pairing.lost(LostFrame("lost packets", seq, exposed * MS))
            else:
                pairing.begin_anew()
        for outcome in (*out, *pairing.settle(now * MS)):
            assert outcome.trigger.seq not in answers, "one trigger, one answer"
            answers[outcome.trigger.seq] = (outcome, now)
            failed = isinstance(outcome.picture, Exception)
        if pairing.strays == 0 and now in {at for _, at in answers.values()}:
            assert pairing.problem == (str(outcome.picture) if failed else None), "in health until a part is judged again"
    return pairing, answers


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_trigger_gets_its_own_picture_or_a_reason(case: Case) -> None:
    pairing, answers = play(case)
    assert set(answers) == set(case.answers)
    for seq, wanted in case.answers.items():
        picture = answers[seq][0].picture
        if isinstance(wanted, int):
            assert isinstance(picture, Frame) and picture.seq == wanted
        else:
            # Without any picture it is the source's fault, with one that cannot be told apart the frame's.
            kind = SourceError if wanted == "No picture" else FrameError
            assert isinstance(picture, kind) and wanted in str(picture)
    for seq, at in case.answered_at.items():
        assert answers[seq][1] == at
    if case.problem:
        assert pairing.problem is not None and case.problem in pairing.problem


@pytest.mark.parametrize("case", [c for c in CASES if c.name.startswith("the picture of a refused part")], ids=lambda c: c.name)
def test_a_refused_part_s_picture_is_no_stray_and_no_problem(case: Case) -> None:
    pairing, _ = play(case)
    assert (pairing.strays, pairing.problem) == (0, None)


def test_of_a_trigger_that_nobody_waits_for_a_late_picture_is_no_stray_and_no_other_s() -> None:
    pairing = Pairing((20 * MS, 5 * MS))
    pairing.trigger(gone := Trigger(1, 100 * MS, ""))
    pairing.forget(gone)
    pairing.forget(gone)
    assert pairing.settle(110 * MS) == []
    pairing.frame(Frame(1, 99 * MS, "wire", IMAGE), 190 * MS)
    pairing.trigger(Trigger(2, 200 * MS, ""))
    pairing.frame(Frame(2, 199 * MS, "wire", IMAGE), 201 * MS)
    (answer,) = pairing.settle(205 * MS)
    assert isinstance(answer.picture, Frame) and (answer.picture.seq, answer.arrived_ns) == (2, 201 * MS)
    pairing.settle(2000 * MS)
    assert (pairing.strays, pairing.problem) == (0, None)


def test_a_trigger_whose_picture_was_there_when_it_was_given_up_explains_no_missing_one() -> None:
    pairing = Pairing((20 * MS, 5 * MS))
    pairing.trigger(gone := Trigger(1, 100 * MS, ""))
    pairing.frame(Frame(1, 99 * MS, "wire", IMAGE), 101 * MS)
    pairing.forget(gone)
    pairing.trigger(Trigger(2, 200 * MS, ""))
    pairing.frame(Frame(3, 199 * MS, "wire", IMAGE), 201 * MS)
    (answer,) = pairing.settle(205 * MS)
    assert isinstance(answer.picture, FrameError) and "counted 1 pictures more" in str(answer.picture)


def test_what_the_count_lost_before_an_incomplete_picture_is_added_up() -> None:
    """Two never came before the first incomplete one, one before the second: three that no trigger explains."""
    pairing = Pairing((20 * MS, 5 * MS))
    pairing.frame(Frame(1, 10 * MS, "wire", IMAGE), 11 * MS)
    assert pairing.lost(LostFrame("lost packets", 4, 20 * MS)) == []
    assert pairing.lost(LostFrame("lost packets", 6, 30 * MS)) == []
    pairing.trigger(Trigger(1, 200 * MS, ""))
    pairing.frame(Frame(7, 199 * MS, "wire", IMAGE), 201 * MS)
    (answer,) = pairing.settle(205 * MS)
    assert "counted 3 pictures more" in str(answer.picture)


def test_it_is_looked_at_again_when_the_next_window_ends() -> None:
    pairing = Pairing((20 * MS, 5 * MS))
    assert pairing.due_s(0) == 1.0, "nothing to do until something comes"
    pairing.frame(Frame(1, 90 * MS, "wire", IMAGE), 91 * MS)
    assert pairing.due_s(92 * MS) == 0.1, "a picture that is to be given up"
    pairing.trigger(Trigger(1, 100 * MS, ""))
    pairing.trigger(Trigger(2, 102 * MS, ""))
    assert pairing.due_s(102 * MS) == pytest.approx(0.003)
    assert pairing.due_s(105 * MS) == pytest.approx(0.002), "the first one's window is over"
    assert pairing.due_s(107 * MS) == 0.1


@pytest.mark.slow
def test_no_picture_is_ever_given_twice_or_outside_its_window() -> None:
    rng = np.random.default_rng(3)
    pairs = 0
    for _ in range(150):
        count, events = 0, []
        for i in range(1, 12):
            edge = 60 * i + int(rng.integers(0, 30))
            if rng.random() < 0.9:
                events.append(("T", edge + int(rng.integers(0, 18)), i, 0))
            for _ in range(int(rng.choice([0, 1, 1, 1, 1, 1, 2]))):
                count += 1
                if rng.random() < 0.9:
                    events.append(("F", edge + int(rng.integers(3, 40)), count, edge))
        _, answers = play(Case("random", events, {}), 1200)
        given = [(o.trigger, o.picture, at) for o, at in answers.values() if isinstance(o.picture, Frame)]
        assert len({p.seq for _, p, _ in given}) == len(given)
        pairs += len(given)
        for trigger, picture, at in given:
            assert -20 * MS <= picture.captured_ns - trigger.fired_ns <= 5 * MS
            known = [e for e in events if e[0] == "F" and e[1] <= at]
            assert sum(-20 * MS <= e[3] * MS - trigger.fired_ns <= 5 * MS for e in known) == 1
    assert pairs > 500


def test_pictures_and_triggers_do_not_pile_up() -> None:
    pairing = Pairing((20 * MS, 5 * MS))
    for i in range(1, 2000):
        now = 50 * MS * i
        if i % 3:
            pairing.trigger(t := Trigger(i, now, ""))
        if i % 2:
            pairing.frame(Frame(i, now, "wire", IMAGE), now)
        elif i % 3:
            pairing.forget(t)
        pairing.settle(now + 6 * MS)
    assert len(pairing._pictures) < 60 and len(pairing._answered) <= 16 and len(pairing._waiting) < 3


def picture(seq: int, exposed_ms: int) -> Frame:
    return Frame(seq, exposed_ms * MS, "wire", IMAGE)


def test_a_picture_that_came_too_late_explains_no_other_that_never_came() -> None:
    pairing = Pairing((20 * MS, 5 * MS))
    assert pairing.problem is None
    pairing.trigger(gone := Trigger(1, 100 * MS, ""))
    pairing.forget(gone)
    pairing.frame(picture(1, 99), 190 * MS)
    pairing.trigger(Trigger(2, 200 * MS, ""))
    pairing.frame(picture(3, 199), 201 * MS)
    (answer,) = pairing.settle(205 * MS)
    assert "counted 1 pictures more" in str(answer.picture)


def test_what_is_missing_before_a_later_picture_is_the_later_part_s() -> None:
    """Both are settled at once, as after a station that stood still."""
    pairing = Pairing((20 * MS, 5 * MS))
    for seq, count in ((1, 1), (2, 3)):
        pairing.trigger(Trigger(seq, 100 * seq * MS, ""))
        pairing.frame(picture(count, 100 * seq - 1), (100 * seq + 1) * MS)
    first, second = pairing.settle(206 * MS)
    assert isinstance(first.picture, Frame)
    assert "counted 1 pictures more" in str(second.picture)


def test_pictures_without_a_trigger_and_what_is_missing_between_them_are_added_up() -> None:
    pairing = Pairing((20 * MS, 5 * MS))
    for count, exposed in ((1, 10), (3, 20), (5, 30)):
        pairing.frame(picture(count, exposed), (exposed + 1) * MS)
    assert pairing.settle(300 * MS) == []
    assert pairing.strays == 3
    assert pairing.problem == "3 pictures came without a trigger of the PLC: does the wire bounce, or is the window too short?"
    pairing.trigger(Trigger(1, 400 * MS, ""))
    pairing.frame(picture(6, 399), 401 * MS)
    (answer,) = pairing.settle(405 * MS)
    assert "counted 2 pictures more" in str(answer.picture)


def test_each_second_picture_of_a_part_is_counted() -> None:
    pairing = Pairing((20 * MS, 5 * MS))
    pairing.trigger(Trigger(1, 100 * MS, ""))
    pairing.frame(picture(1, 90), 102 * MS)
    pairing.settle(105 * MS)
    for strays, exposed in ((1, 95), (2, 99)):
        pairing.frame(picture(strays + 1, exposed), 140 * MS)
        assert pairing.strays == strays


def test_a_picture_is_kept_as_long_as_a_trigger_s_window_is_open() -> None:
    pairing = Pairing((20 * MS, 400 * MS))
    pairing.trigger(Trigger(1, 100 * MS, ""))
    pairing.frame(picture(1, 99), 101 * MS)
    assert pairing.settle(450 * MS) == []
    (answer,) = pairing.settle(500 * MS)
    assert isinstance(answer.picture, Frame)


def test_an_operator_is_told_in_whole_sentences_why_a_part_has_no_picture() -> None:
    pairing = Pairing((20 * MS, 5 * MS))
    pairing.trigger(Trigger(1, 100 * MS, ""))
    pairing.frame(picture(1, 199), 201 * MS)
    (missed,) = pairing.settle(202 * MS)
    assert str(missed.picture) == "No picture for this trigger, but a later one came: the camera missed the wire's edge."
    for seq in (2, 3):
        pairing.trigger(Trigger(seq, (200 + seq) * MS, ""))
    either, _ = pairing.settle(210 * MS)
    assert str(either.picture) == "The picture may belong to either of two triggers: they came too close together."
