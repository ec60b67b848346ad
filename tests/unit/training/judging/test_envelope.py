"""How far a line may stray: limits that a detector of known sensitivity must have, promises, held-out scores, and painted defects."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.errors import DataError
from edge_runtime.model.manifest import Envelope, InputSpec, TileSpec
from edge_runtime.station.reach import reach
from training.judging import envelope as e
from training.judging.acceptance import Criteria, default_criteria, promised
from training.judging.distort import CLEAN, CONDITIONS, Condition
from training.judging.envelope import Good, measure_envelope
from training.judging.envelope_figure import envelope_chart, envelope_sentences
from training.judging.promise import Promise, Scores
from training.judging.strayed import Judge, as_held_out, columns

pytestmark = pytest.mark.slow  # each tries many strengths on many pictures

SIDE = 48
SPEC = InputSpec(height=SIDE, width=SIDE, channels=1, frame_wh=(SIDE, SIDE))
ASKED = default_criteria(0.01)
"""With a threshold of 1."""
FURTHER = sum(len(rows) - 1 for rows in columns(CONDITIONS).values())
"""Ways beside the first one."""


def part(seed: int, bad: bool = False) -> npt.NDArray[np.uint8]:
    image = np.random.default_rng(seed).integers(80, 120, (SIDE, SIDE), dtype=np.uint8)
    if bad:
        image[20:28, 20:28] = 160
    return image


CLEAN_GRAIN = float(cv2.Laplacian(part(0).astype(np.float64), cv2.CV_64F).std())
"""The grain of a part as it is."""


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Good], list[Path]]:
    """30 good ones of mean 100, 12 bad ones with a bright spot."""
    root = tmp_path_factory.mktemp("parts")
    for i in range(42):
        cv2.imwrite(str(root / f"{i:02d}.png"), part(i, i >= 30))
    paths = sorted(root.iterdir())
    return [Good(p) for p in paths[:30]], paths[30:]


Score = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float64]]


def whole(score: Score) -> Judge:
    """A judge of whole pictures: a score, and the same all over its map."""

    def judge(pictures: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        found = score(pictures)
        return found, np.broadcast_to(found[:, None, None], (len(found), 6, 6))

    return judge


def spot(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """(N,) gray levels by which the brightest place exceeds the picture's mean."""
    return np.array([float(cv2.blur(p[:, :, 0], (8, 8)).max()) - float(p.mean()) for p in pictures.astype(np.float32)])


def light_of(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """(N,) the mean, relative to 100."""
    return np.asarray(pictures.mean(axis=(1, 2, 3)) / 100)


def of_light(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Above its threshold from 8 % away on."""
    return np.asarray(np.abs(light_of(pictures) - 1) / 0.08 + (spot(pictures) > 20))


def measured(score: Score, parts: tuple[list[Good], list[Path]], **more: Any) -> Envelope:
    found = measure_envelope(whole(score), SPEC, None, *parts, 1.0, ASKED, budget_s=1e9, placed=False, **more)
    assert found is not None
    return found


def test_the_limits_of_a_detector_that_looks_at_brightness(parts: tuple[list[Good], list[Path]]) -> None:
    found = measured(of_light, parts)
    assert found.light_low == pytest.approx(0.92, abs=0.01) and found.light_high == pytest.approx(1.08, abs=0.01)
    assert (found.light_low_breaks, found.light_high_breaks, found.blur_low) == ("rejects", "rejects", None)
    rows = {(r.what, r.amount): r for r in found.rows}
    assert {(c.what, c.amount) for c in CONDITIONS} < set(rows)
    clean, dim = rows["clean", 0.0], rows["light", 0.9]
    assert (clean.image_auroc, clean.rejected, clean.missed, clean.holds, clean.breaks) == (1.0, 0.0, 0.0, True, "")
    assert (dim.rejected, dim.missed, dim.holds, dim.breaks) == (1.0, 0.0, False, "rejects")
    assert rows["light", 0.95].holds and rows["shift", 0.04].holds and not rows["gamma", 1.4].holds
    assert (found.basis, found.n_good, found.n_bad, found.held_out) == ("real", 30, 12, True)
    assert found.brightness == pytest.approx(99.5, abs=1) and 0 < found.brightness_spread < 0.01
    assert (found.max_rejected, found.max_missed) == (0.02, 0.05)


def test_a_detector_that_nothing_disturbs_has_no_limits(parts: tuple[list[Good], list[Path]]) -> None:
    found = measured(lambda p: np.asarray(spot(p) / light_of(p) / 20 + 0.0), parts)
    assert (found.light_low, found.light_high) == (None, None)


def test_of_parts_that_have_moved_the_worst_way_counts(tmp_path: Path) -> None:
    """A fixture that wears moves all parts alike: half of them, of parts that were moved here and there, would look like a promise kept."""
    for i in range(12):
        image = part(i)
        image[:, SIDE // 2 :] += 100
        cv2.imwrite(str(tmp_path / f"{i:02d}.png"), image)

    def judge(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Minds parts that lie further right, no others."""
        return np.asarray((pictures.mean(axis=(1, 3)) < 150).sum(axis=1) / (SIDE / 2))

    found = measured(judge, ([Good(p) for p in sorted(tmp_path.iterdir())], []))
    rows = {(r.what, r.amount): r for r in found.rows}
    assert rows["clean", 0.0].rejected == 0.0
    assert (rows["shift", 0.02].rejected, rows["shift", 0.02].breaks) == (1.0, "rejects")


def test_a_seam_that_the_distortion_made_is_no_parts(tmp_path: Path) -> None:
    """A leather has no place, so a detector of what leathers do not show finds a shifted one as good as any; a mirrored edge it minds."""
    side, spec = 120, InputSpec(height=120, width=120, channels=1, frame_wh=(120, 120))
    for i in range(12):
        texture = cv2.GaussianBlur(np.random.default_rng(i).standard_normal((side, side)), (0, 0), 1.0)
        cv2.imwrite(str(tmp_path / f"{i:02d}.png"), np.clip(128 + 100 * texture, 0, 255))
    good = [Good(p) for p in sorted(tmp_path.iterdir())]

    def mirrors(pictures: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Minds columns that repeat the next but one."""
        level = pictures[:, :, :, 0].astype(np.float64)
        same = (np.abs(level[:, :, :-2] - level[:, :, 2:]).max(axis=1) == 0).astype(np.float64)
        maps = np.repeat(np.pad(same, ((0, 0), (1, 1)))[:, None], 12, axis=1).reshape(-1, 12, 12, 10).max(axis=3) * 2
        return np.sort(maps.reshape(len(maps), -1))[:, -5:].mean(axis=1), maps

    def rejected(**more: Any) -> dict[tuple[str, float], float]:
        found = measure_envelope(mirrors, spec, None, good, [g.path for g in good[:3]], 1.0, ASKED, budget_s=1e9, **more)
        assert found is not None
        return {(r.what, r.amount): r.rejected for r in found.rows}

    assert rejected(placed=False)["shift", 0.02] == 1.0, "it does mind the seam"
    assert {rejected()["shift", a] for a in (0.01, 0.02, 0.04)} == {0.0}


def test_an_outline_that_has_moved_still_breaks_the_promise(tmp_path: Path) -> None:
    """The same detector that knows where a part's edge was: what has moved inside of the picture is no seam."""
    spec = InputSpec(height=120, width=120, channels=1, frame_wh=(120, 120))
    picture = np.full((120, 120), 40, np.uint8)
    picture[6:114, 6:114] = 180  # its outline lies within reach of what a shift makes up
    for i in range(12):
        cv2.imwrite(str(tmp_path / f"{i:02d}.png"), picture + np.random.default_rng(i).integers(0, 9, picture.shape).astype(np.uint8))
    good = [Good(p) for p in sorted(tmp_path.iterdir())]

    def outline(pictures: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        away = np.abs(pictures[:, :, :, 0].astype(np.float64) - picture)
        maps = away.reshape(-1, 12, 10, 12, 10).max(axis=(2, 4)) / 70
        return np.sort(maps.reshape(len(maps), -1))[:, -5:].mean(axis=1), maps

    found = measure_envelope(outline, spec, None, good, [g.path for g in good[:3]], 1.0, ASKED, budget_s=1e9)
    assert found is not None
    rows = {(r.what, r.amount): r for r in found.rows}
    assert rows["clean", 0.0].rejected == 0.0
    assert {(rows["shift", a].rejected, rows["shift", a].breaks) for a in (0.01, 0.02, 0.04)} == {(1.0, "rejects")}


def test_a_blur_that_hides_defects_breaks_by_misses(parts: tuple[list[Good], list[Path]]) -> None:
    """A score of the brightest pixel: blur levels it, and no good part is rejected for that."""

    def judge(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        relative = pictures[:, :, :, 0] / pictures.mean(axis=(1, 2, 3))[:, None, None]
        return np.asarray((relative.max(axis=(1, 2)) - 1) / 0.54)

    found = measured(judge, parts)
    assert found.blur_low is not None and 0 < found.blur_low < 1 and found.blur_breaks == "misses"
    assert found.light_low is None


@pytest.mark.slow
def test_taught_images_count_by_their_held_out_scores(parts: tuple[list[Good], list[Path]]) -> None:
    """What the detector says of pictures that it knows is far too low: 0.1, where 0.9 was held out."""
    good, bad = parts
    knows = [Good(g.path, 0.9) for g in good]

    def judge(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        return np.asarray(np.hypot(0.1, np.abs(light_of(pictures) / light_of(pictures[:1]) - 1) / 0.08) + 2 * (spot(pictures) > 20))

    as_seen, corrected = measured(judge, parts), measured(judge, (knows, bad))
    assert as_seen.held_out and not corrected.held_out
    assert as_seen.light_low is not None and corrected.light_low is not None
    # sqrt(0.9^2 - 0.1^2 + 0.1^2 + (d / 0.08)^2) = 1 at d = 0.035; a straight line between the measured 0 and 0.05 is there at 0.026.
    assert corrected.light_low == pytest.approx(1 - 0.026, abs=0.003) and as_seen.light_low == pytest.approx(0.92, abs=0.01)
    assert as_held_out(np.array([0.5, 0.7]), 0.4) == pytest.approx([0.5, 0.7]), "a lower one is chance, not knowledge"
    assert as_held_out(np.array([0.3, 0.4]), 0.5) == pytest.approx([0.5, math.sqrt(0.25 + 0.16 - 0.09)])


@pytest.mark.slow
def test_without_bad_images_defects_are_painted(parts: tuple[list[Good], list[Path]]) -> None:
    found = measured(of_light, (parts[0], []))
    assert (found.basis, found.n_bad) == ("painted", e.MOST_BAD)
    assert found.rows[0].missed is not None and found.rows[0].image_auroc is not None


def test_too_few_good_images_tell_nothing(parts: tuple[list[Good], list[Path]]) -> None:
    good, bad = parts
    assert measure_envelope(whole(of_light), SPEC, None, good[: e.LEAST_GOOD - 1], bad, 1.0, ASKED) is None


@pytest.mark.slow
def test_time_that_is_up_leaves_a_sample_that_is_enough(parts: tuple[list[Good], list[Path]]) -> None:
    def slow(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        sum(range(300_000))
        return of_light(pictures)

    found = measure_envelope(whole(slow), SPEC, None, *parts, 1.0, ASKED, budget_s=0.3)
    assert found is not None and e.LEAST_GOOD <= found.n_good < 30 and 0 < found.n_bad < 12


@pytest.mark.slow
def test_tiles_are_scored_in_chunks_and_what_could_not_be_done_in_time_is_not_begun(parts: tuple[list[Good], list[Path]]) -> None:
    spec = InputSpec(height=16, width=16, channels=1, frame_wh=(SIDE, SIDE), tiles=TileSpec(columns=4, rows=4))
    sizes: list[int] = []

    def judge(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        sizes.append(len(pictures))
        return np.asarray(np.abs(light_of(pictures) - 1))

    found = measure_envelope(whole(judge), spec, None, *parts, 1.0, ASKED, budget_s=1e9)
    assert found is not None and found.n_good == 30
    assert max(sizes) <= 64 and sum(sizes) == (42 * len(CONDITIONS) + 30 * FURTHER) * 16
    sizes.clear()
    assert measure_envelope(whole(judge), spec, None, *parts, 1.0, ASKED, budget_s=1e-3) is None
    assert sum(sizes) <= (len(CONDITIONS) + FURTHER) * 16


def test_a_score_that_is_no_number_names_the_image(parts: tuple[list[Good], list[Path]]) -> None:
    with pytest.raises(DataError, match=r"\.png: the detector gives no finite score"):
        measured(lambda p: np.full(len(p), np.nan), parts)


def promise(rejected: float = 0.0, missed: float = 0.0, asked: Criteria = ASKED, painted: bool = False) -> Promise:
    """A detector's that rejects and misses such shares of clean pictures."""
    clean = [
        np.array([over] * round(100 * share) + [0.5 if over > 1 else 2.0] * round(100 - 100 * share))
        for share, over in ((rejected, 1.5), (missed, 0.5))
    ]
    return Promise.of(1.0, asked, Scores({CLEAN: clean[0][:, None]}, {CLEAN: clean[1]}), painted)


def test_one_image_more_than_of_clean_pictures_breaks_nothing_and_two_do() -> None:
    kept = promise()
    clean, bad = np.full(30, 0.5), np.full(10, 2.0)
    for count, broken in ((1, ""), (2, "rejects")):
        now = clean.copy()
        now[:count] = 1.5
        assert kept.breaks(now, bad, clean, bad) == broken
    missing = bad.copy()
    missing[:2] = 0.5
    assert kept.breaks(clean, missing, clean, bad) == "misses"
    assert kept.breaks(np.full(30, 1.5), missing, clean, bad) == "both"


@pytest.mark.parametrize(
    ("rejected", "held", "chance"),
    [
        ([0, 0, 4, 1, 0], 0.7, (0.9,)),
        ([0, 0, 4, 1, 3], 0.95, ()),
        ([0, 0, 0, 4, 0], 0.9, ()),
        ([0, 2, 4, 8, 20], 1.0, ()),
        ([0, 0, 0, 0, 4], 0.8, ()),
    ],
)
def test_rejects_at_one_amount_and_at_no_further_one_are_no_limit(rejected: list[int], held: float, chance: tuple[float, ...]) -> None:
    """With 40 good parts at 100, 95, 90, 80 and 70 % of the light, of which one in a hundred is rejected anyway."""
    path = [Condition("light", a) for a in (0.95, 0.9, 0.8, 0.7)]
    good = {c: np.array([[1.5] * k + [0.5] * (40 - k)]).T for c, k in zip((CLEAN, *path), rejected, strict=True)}
    scores = Scores(good, {c: np.full(10, 2.0) for c in good})
    found = Promise.of(1.0, ASKED, scores, False).limit(scores, path)
    assert found.held == (CLEAN if held == 1 else Condition("light", held)) and bool(found.breaks) == (held != 0.7)
    assert tuple(c.amount for c in found.chance) == chance


def test_what_is_proposed_between_two_amounts_holds_by_straight_lines() -> None:
    """Scores of 0.5 as taught and 1.5 at a noise of 2: they meet a threshold of 1 halfway."""
    noise = Condition("noise", 2.0)
    scores = Scores({CLEAN: np.full((40, 1), 0.5), noise: np.full((40, 1), 1.5)}, {c: np.full(10, 2.0) for c in (CLEAN, noise)})
    found = Promise.of(1.0, ASKED, scores, False).limit(scores, [noise])
    assert (found.held, found.breaks) == (CLEAN, "rejects")
    assert found.between is not None and found.between.what == "noise" and 0.9 < found.between.amount <= 1.0


def test_the_worst_of_several_ways_is_granted_one_image_more() -> None:
    """In four draws of 20 parts, one in fifty of which is rejected, the worst shows two in every fifth case by chance alone."""
    clean, bad = np.full(20, 0.5), np.full(10, 2.0)
    for count, broken in ((2, ""), (3, "rejects")):
        now = clean.copy()
        now[:count] = 1.5
        assert promise().breaks(now, bad, clean, bad, ways=4) == broken


def test_the_promise_is_what_was_asked_of_the_release_and_no_bound() -> None:
    """However few images set the threshold and however little they can promise: what is held for kept is what was asked."""
    assert (promise().max_rejected, promise().max_missed) == (0.02, 0.05)
    strict = promised(Criteria(max_rejected=0.004), 0.01)
    assert (promise(asked=strict).max_rejected, promise(asked=strict).max_missed) == (0.004, 0.05), "of misses nobody asked"
    assert promised(None, 0.03) == default_criteria(0.03)


def test_a_promise_that_is_not_kept_where_it_was_taught_is_measured_from_there() -> None:
    assert promise(rejected=0.10).max_rejected == pytest.approx(0.10)
    assert promise(missed=0.3).max_missed == pytest.approx(0.3)
    assert promise(missed=0.3, painted=True).max_missed == pytest.approx(0.4), "painted defects are of all strengths"


def test_the_report_draws_every_way_and_says_where_it_breaks(parts: tuple[list[Good], list[Path]]) -> None:
    found = measured(of_light, parts)
    drawn = envelope_chart(found)
    assert drawn.count("<polyline") == 14 and drawn.count('class="broken"') == sum(not r.holds for r in found.rows)
    said = " ".join(envelope_sentences(found))
    assert found.gamma_low is not None and 0.7 < found.gamma_low < 1 and f"Gamma may fall to {found.gamma_low:.3g}; at 0.7, 100 %" in said
    tried = min(r.amount for r in found.rows if r.what == "light" and r.holds)
    assert f"Light may fall to {tried:.3g} times what was taught; at 0.9 times, 100 % of good parts are rejected." in said


def test_every_limit_is_a_strength_that_was_tried_and_held_and_the_page_says_it(parts: tuple[list[Good], list[Path]]) -> None:
    """A detector that minds grain: what it minds from 3 gray levels on is not said to begin at 5, and 3 is said because it was tried."""
    tried: list[int] = []

    def grain(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        tried.append(len(pictures))
        level = pictures[:, :, :, 0].astype(np.float64)
        return np.array([float(cv2.Laplacian(p, cv2.CV_64F).std()) for p in level]) / CLEAN_GRAIN / 1.05 + (spot(pictures) > 20)

    found = measured(grain, parts)
    rows = {(r.what, r.amount): r for r in found.rows}
    assert found.noise_limit is not None and 2 < found.noise_limit < 5 and found.noise_breaks == "rejects"
    assert rows["noise", found.noise_limit].holds and not rows["noise", 5.0].holds
    assert len(set(tried)) > 2, "images under more conditions than those that are always tried"
    limits = {"gamma": found.gamma_low, "shift": found.shift_limit, "turn": found.turn_limit, "noise": found.noise_limit}
    for what, limit in limits.items():
        assert limit is None or (what, limit) in rows, what
    assert any(s.startswith(f"Noise may grow by {found.noise_limit:.2g} gray levels of 255") for s in envelope_sentences(found))


def test_what_is_proposed_and_does_not_hold_is_no_limit(parts: tuple[list[Good], list[Path]]) -> None:
    """A detector that jumps at 0.5 gray levels of noise, where its scores at 0 and 2 say that 1.9 holds."""

    def jumps(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        away = np.array([float(cv2.Laplacian(p[:, :, 0].astype(np.float64), cv2.CV_64F).std()) for p in pictures]) / CLEAN_GRAIN - 1
        return np.where(away > 0.0009, 1.01, 0.0) + (spot(pictures) > 20)

    found = measured(jumps, parts)
    rows = {r.amount: r for r in found.rows if r.what == "noise"}
    assert len(rows) > 3 and found.noise_limit is not None
    assert found.noise_limit == max((a for a, r in rows.items() if r.holds), default=0.0)
    assert any(not r.holds for a, r in rows.items() if a < 2), "what straight lines proposed did not hold"


def test_what_is_rejected_by_chance_at_one_amount_holds_on_console_and_page_alike() -> None:
    """Two of 40 at 90 % of the light, and none from there on: both say that light may fall as far as was tried."""
    lights = [Condition("light", a) for a in (0.95, 0.9, 0.8, 0.7)]
    rejected = dict(zip((CLEAN, *lights), (0, 0, 2, 0, 0), strict=True))
    scores = Scores({c: np.array([[1.5] * k + [0.5] * (40 - k)]).T for c, k in rejected.items()}, {c: np.full(9, 2.0) for c in rejected})
    kept = Promise.of(1.0, ASKED, scores, False)
    rows = tuple(e._rows(kept, scores, set(kept.limit(scores, lights).chance), 9))
    envelope = Envelope(rows=rows, basis="real", n_good=40, n_bad=9, brightness=100.0, sharpness=0.5, max_rejected=0.02)
    assert reach(envelope).startswith(
        "light from at most 70 % up to"
    ) and "Light may fall to 0.7 times what was taught, as far as was tried." in envelope_sentences(envelope)
