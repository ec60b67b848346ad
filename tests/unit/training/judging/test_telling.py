"""What a threshold does to known parts is said in one sentence, red where it is bad, with the kinds that are missed most."""

import io
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.text import Text

from training.calibrate.rules import Rule
from training.data.layout import Sample
from training.judging.acceptance import Criteria
from training.judging.telling import CAP, SETS, best_within, stratified, tell, with_setter

LIMITS = Criteria(0.05, 0.02)


def samples(**kinds: int) -> list[Sample]:
    return [Sample(Path(f"{kind}{i}"), kind, kind == "good", None, "test") for kind, n in kinds.items() for i in range(n)]


def drawn(lines: list[Text], terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=300, highlight=False, _environ={"TERM": "xterm"})
    for line in lines:
        console.print(line)
    return out.getvalue()


def test_a_threshold_that_misses_most_bad_parts_says_so_in_red_and_what_another_would_do() -> None:
    """Good ones score 1..120, the threshold lies at 118; scratches score 110 to 121.5, dents 60 to 65, one hole 200."""
    parts = samples(good=120, scratch=24, dent=6, hole=1)
    score = np.concatenate([np.arange(1, 121), np.arange(24) / 2 + 110, np.arange(60, 66), [200]]).astype(float)
    told = tell(parts, score, 118.0, 0.02)
    assert told is not None
    lines = told.lines(LIMITS)
    assert lines[0].plain == "test split: rejects 2 of 120 good (1.7 %), misses 23 of 31 bad (74 %)"
    assert lines[1].plain == "  missed most: dent 6 of 6, scratch 17 of 24", "the worst kind first, none that is found"
    assert lines[2].plain.startswith("  no threshold tells dent (AUROC 0.52) from good parts: if they are small"), "not the scratches"
    assert lines[3].plain == "  good images that are rejected: /good119 (1.02x), /good118 (1.01x)", "the worst first"
    assert (
        lines[4].plain.startswith("  bad images that score like good parts: /dent0 (0.51x), /dent1 (0.52x), ")
        and " more, all on the report's page" in lines[4].plain
    )
    assert len(lines) == 5, "2 % of these are 2 images: no threshold within the rate misses fewer"
    assert "\x1b[1;31mmisses 23 of 31 bad (74 %)" in drawn(lines, terminal=True)
    assert "\x1b[1;31mrejects" not in drawn(lines, terminal=True)
    assert "\x1b" not in drawn(lines, terminal=False), "plain text into a pipe"


def test_a_better_threshold_within_the_rate_is_named() -> None:
    parts = samples(good=100, scratch=10)
    score = np.concatenate([np.arange(100), np.arange(110, 120)]).astype(float)
    told = tell(parts, score, 115.0, 0.01)
    assert told is not None and told.better is not None
    assert (
        told.lines(LIMITS)[-1].plain
        == f"  a threshold of 104.5 (0.91x) would miss 0 % and reject 0 % of these images, by which it was found; {SETS}"
    )
    assert "calibrate RUN --gap" in SETS and "--bad" in SETS and "lineside tune" in SETS
    fine = tell(parts, score, 105.0, 0.01)
    assert fine is not None and fine.better is None
    assert [line.plain for line in fine.lines(LIMITS)] == ["test split: rejects 0 of 100 good (0 %), misses 0 of 10 bad (0 %)"]


def test_a_better_threshold_is_named_beside_a_kind_that_none_tells_and_where_few_are_missed() -> None:
    """Slubs score like good parts, holes just below the threshold: what catches the holes for nothing is said all the same."""
    parts = samples(good=40, hole=12, slub=12)
    score = np.concatenate([np.linspace(5, 15, 40), np.linspace(17, 22, 12), np.linspace(5.01, 14.5, 12)])
    said = [line.plain for line in tell(parts, score, 18.5, 0.01).lines(LIMITS)]  # type: ignore[union-attr]
    assert any("no threshold tells slub" in line for line in said)
    assert any("a threshold of 16 (0.86x) would miss 50 % and reject 0 % of these" in line for line in said)
    one = tell(samples(good=40, hole=40), np.concatenate([np.linspace(5, 15, 40), np.linspace(17, 56, 40)]), 17.5, 0.01)
    assert one is not None and 0 < one.missed <= LIMITS.max_missed * one.n_bad
    assert any("a threshold of 16 (0.91x) would miss 0 % and reject 0 %" in line.plain for line in one.lines(LIMITS))


def test_of_thresholds_that_miss_the_same_the_one_that_rejects_the_fewest_is_named() -> None:
    """The table of the page had it for nothing, and the head named one that rejects 1 of 32."""
    better = best_within(np.arange(32.0), np.array([20.5, 29.5, 31.5, 40.0]), 0.01)
    assert better is not None and (better.value, better.rejected, better.missed) == (31.25, 0.0, 0.5)


def test_nothing_is_told_of_good_parts_alone() -> None:
    assert tell(samples(good=5), np.arange(5.0), 3.0, 0.01) is None


def test_of_many_images_the_same_share_of_each_kind_is_scored_and_that_is_said() -> None:
    many = samples(good=2000, scratch=1000, hole=3)
    few = stratified(many, CAP, 0)
    counts = {kind: sum(s.kind == kind for s in few) for kind in ("good", "scratch", "hole")}
    assert len(few) <= CAP + 3
    assert (counts["good"], counts["scratch"], counts["hole"]) == (266, 133, 1)
    assert stratified(many[:100], CAP, 0) == many[:100]
    told = tell(few, np.zeros(len(few)), 1.0, 0.01, of_all=len(many))
    assert told is not None
    assert told.lines(LIMITS)[0].plain.startswith("test split (400 of its 3003 images, of all kinds alike): rejects 0 of 266 good")


def test_labels_that_their_scores_speak_against_are_named() -> None:
    rng = np.random.default_rng(0)
    score = np.concatenate([rng.normal(10, 1, 40), rng.normal(40, 5, 20)])
    score[[3, 45]] = score[[45, 3]]
    told = tell(samples(good=40, scratch=20), score, 15.0, 0.01)
    assert told is not None and told.doubtful is not None
    assert told.lines(LIMITS)[-1].plain == f"  {told.doubtful}"
    assert "called good, and score as bad ones do: /good3 (2.56x);" in told.doubtful
    assert "score as good ones do: /scratch5 (0.67x);" in told.doubtful


def test_two_rows_that_were_swapped_are_named_however_few_bad_ones_there_are() -> None:
    score = np.concatenate([np.linspace(8, 12, 20), [40.0, 42.0, 45.0]])
    score[[3, 21]] = score[[21, 3]]
    told = tell(samples(good=20, scratch=3), score, 15.0, 0.01)
    assert told is not None and told.doubtful is None, "too few to doubt a label by"
    said = [line.plain for line in told.lines(LIMITS)]
    assert (
        "  good images that are rejected: /good3 (2.80x)" in said and "  bad images that score like good parts: /scratch1 (0.58x)" in said
    )


def test_bad_images_that_set_no_threshold_say_what_makes_them() -> None:
    rule, parts = Rule(kind="false_reject_rate", target=0.01), samples(good=20)
    beside = [Sample(Path(f"parts/NG/{i}.png"), "bad", False, None, "test") for i in range(4)]
    told = tell([*parts, *beside], np.arange(24.0), 30.0, 0.01)
    assert told is not None and told.unset is None
    set_by = with_setter(told, rule, [*parts, *beside])
    assert set_by.unset is not None and set_by.unset.startswith("the 4 bad images tell how good this is and did not set the threshold;")
    assert set_by.unset.endswith("--bad parts/NG") and set_by.lines(LIMITS)[-1].plain == f"  {set_by.unset}"
    few = with_setter(told, rule, [*parts, *beside[:2]]).unset
    assert few is not None and few.endswith("; that takes 3 of them or more")
    kinds = [*beside, Sample(Path("parts/scratch/1.png"), "scratch", False, None, "test")]
    said = with_setter(told, rule, kinds).unset
    assert said is not None and said.endswith("lineside-train calibrate RUN --gap --from-test"), "no folder holds them all"
    mixed = [*beside, Sample(Path("parts/NG/9.png"), "good", True, None, "test")]
    said = with_setter(told, rule, mixed).unset
    assert said is not None and said.endswith("--gap --from-test"), "a table calls some of this folder good"
    assert with_setter(told, Rule(kind="gap", bad="parts/NG"), [*parts, *beside]) == told == with_setter(told, rule, parts)


def test_a_folder_that_holds_other_pictures_than_the_bad_ones_is_not_advised(tmp_path: Path) -> None:
    """Those that a table calls good and that are learnt from are not among the images that are scored."""
    parts = [Sample(tmp_path / f"{i}.png", "bad", False, None, "test") for i in range(4)]
    for sample in parts:
        cv2.imwrite(str(sample.path), np.zeros((16, 16), np.uint8))
    told = tell([*samples(good=20), *parts], np.arange(24.0), 30.0, 0.01)
    assert told is not None
    rule = Rule(kind="false_reject_rate", target=0.01)
    assert f"--bad {tmp_path}" in (with_setter(told, rule, parts).unset or "")
    cv2.imwrite(str(tmp_path / "learnt.png"), np.zeros((16, 16), np.uint8))
    assert "--gap --from-test" in (with_setter(told, rule, parts).unset or "")
