"""A short night (tests/chaos): the histories of PLC, journal and subscribers agree; and each way in which they may not is found."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.records import Cause, Decision, Verdict
from tests.chaos.histories import broken_laws
from tests.support.decisions import decision_with

ROOT = Path(__file__).parents[2]
MS = 1_000_000
Histories = tuple[list[dict[str, Any]], list[Decision], dict[str, list[dict[str, Any]]]]


def sound() -> Histories:
    """Three parts, one of each verdict."""
    decisions = [
        decision_with(seq=n, part_id=str(n), verdict=verdict, source=f"pictures/{shows}_1.png")
        for n, verdict, shows in ((1, Verdict.ACCEPT, "good"), (2, Verdict.REJECT, "bad"), (3, Verdict.FAULT, "half"))
    ]
    events = []
    for n, decision in enumerate(decisions, start=1):
        events += [
            {"event": "raised", "part": n, "ns": n * 1000 * MS},
            {"event": "taken", "part": n, "ns": (n * 1000 + 5) * MS},
            {"event": "result", "part": n, "ns": (n * 1000 + 80) * MS, "verdicts": [decision.verdict.value]},
        ]
    handed = [{"seq": d.seq, "part_id": d.part_id, "verdict": d.verdict.value} for d in decisions]
    return events, decisions, {"subscriber": handed}


def broken(histories: Histories) -> list[str]:
    return broken_laws(*histories, deadline_ms=300)


def no_decision(h: Histories) -> None:
    h[1].pop()
    h[2]["subscriber"].pop()


def two_decisions(h: Histories) -> None:
    h[1].append(replace(h[1][0], seq=4))
    h[2]["subscriber"].append({"seq": 4, "part_id": "1", "verdict": "ACCEPT"})


def a_number_is_missing(h: Histories) -> None:
    h[1][2] = replace(h[1][2], seq=4)
    h[2]["subscriber"][2]["seq"] = 4


def told_otherwise(h: Histories) -> None:
    h[0][5]["verdicts"] = ["ACCEPT"]


def late_accept(h: Histories) -> None:
    h[0][2]["ns"] += 300 * MS


def two_verdicts(h: Histories) -> None:
    h[0][2]["verdicts"] = ["ACCEPT", "REJECT"]


def two_results(h: Histories) -> None:
    h[0].append(h[0][2])


def half_a_picture_judged(h: Histories) -> None:
    h[1][0] = replace(h[1][0], source="pictures/half_7.png")


def not_handed(h: Histories) -> None:
    del h[2]["subscriber"][1]


def handed_twice(h: Histories) -> None:
    h[2]["subscriber"].append(h[2]["subscriber"][2])


def a_gap(h: Histories) -> None:
    h[2]["subscriber"].append({"first_seq": 4, "last_seq": 6, "reason": "gone"})


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (no_decision, "part 3: acknowledged, and no decision"),
        (two_decisions, "part 1: 2 decisions"),
        (a_number_is_missing, "journal: 4 follows 2"),
        (told_otherwise, "part 2: the PLC read ACCEPT, the journal says REJECT"),
        (late_accept, "part 1: ACCEPT 380 ms after its edge"),
        (two_verdicts, "part 1: the PLC read ACCEPT and REJECT at once"),
        (two_results, "part 1: 2 results"),
        (half_a_picture_judged, "part 1: ACCEPT of pictures/half_7.png"),
        (not_handed, "subscriber: not handed [2]"),
        (handed_twice, "handed twice [3]"),
        (a_gap, "subscriber: lost 4 to 6"),
    ],
)
def test_each_law_that_is_broken_is_said(harm: Callable[[Histories], None], said: str) -> None:
    histories = sound()
    assert broken(histories) == []
    harm(histories)
    assert said in "\n".join(broken(histories))


def test_a_fault_that_the_plc_was_told_in_place_of_a_late_verdict_breaks_no_law() -> None:
    histories = sound()
    histories[0][2]["verdicts"] = ["FAULT"]
    assert broken(histories) == []


def test_a_reject_may_lose_its_row_to_a_kill_and_an_accept_may_not() -> None:
    """On a disk that is full: the reject is told as it is, an accept waits for its row."""
    for n, laws in (
        (0, ["part 1: the PLC read ACCEPT, the journal says FAULT", "subscriber: 1 was ACCEPT of part 1, the journal has another"]),
        (1, []),
    ):
        histories = sound()
        histories[1][n] = replace(histories[1][n], verdict=Verdict.FAULT, cause=Cause.ENDED)
        assert broken(histories) == laws


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_short_night_breaks_no_law(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.chaos", "--minutes", "1", "--seed", "17", "--keep", str(tmp_path / "kept")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"broken": 0' in done.stdout
