"""`lineside tail`: one line a decision."""

import json
from dataclasses import replace

from edge_runtime.client import Gap
from edge_runtime.commands.tail import json_of, line_of
from edge_runtime.records import Decision, Stamps, Verdict
from tests.support.decisions import decision_with


def decision(verdict: Verdict, severity: float | None) -> Decision:
    return decision_with(
        station="s", recipe="r", bundle_id="b",
        seq=7, part_id="A-17", verdict=verdict, reason="Why.", score=None if severity is None else severity * 2, threshold=2.0,
        severity=severity, stamps=Stamps(1_000_000, decided_ns=13_500_000), wall_time="2026-01-01T12:00:00.250+00:00",
    )  # fmt: skip


def test_a_line_reads_from_left_to_right() -> None:
    words = line_of(decision(Verdict.REJECT, 1.5)).plain.split()
    assert words[0].endswith(":00.250")
    assert words[1:] == ["7", "A-17", "REJECT", "1.50", "12.5", "ms", "Why."]


def test_a_picture_that_has_a_name_is_named_and_moves_no_terminal() -> None:
    said = line_of(replace(decision(Verdict.REJECT, 1.5), source="/parts/monday/part_0\n.png")).plain
    assert said.isprintable()
    assert said.endswith("ms  part_0�.png  Why.")


def test_a_fault_has_no_severity() -> None:
    assert line_of(decision(Verdict.FAULT, None)).plain.split()[3:5] == ["FAULT", "-"]


def test_each_verdict_has_its_own_colour() -> None:
    styles = {str(line_of(decision(v, 1.0)).spans[2].style) for v in Verdict}
    assert len(styles) == 3


def test_a_gap_is_never_silent() -> None:
    gap = Gap(3, 5, "the journal was pruned")
    assert "3 to 5 are lost: the journal was pruned" in line_of(gap).plain
    assert json.loads(json_of(gap)) == {"gap": {"first_seq": 3, "last_seq": 5, "reason": "the journal was pruned"}}


def test_json_holds_the_whole_decision() -> None:
    found = json.loads(json_of(decision(Verdict.REJECT, 1.5)))
    assert (found["seq"], found["verdict"], found["score"], found["stamps"]["decided_ns"]) == (7, "REJECT", 3.0, 13_500_000)


def test_a_part_s_name_moves_no_terminal() -> None:
    said = line_of(replace(decision(Verdict.ACCEPT, 0.5), part_id="A\n\x1b[2J")).plain
    assert said.isprintable()
