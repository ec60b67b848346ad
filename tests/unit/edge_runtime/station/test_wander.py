"""A line that strays is told which way: dark, bright or blurred; before its limit as a warning, and not for parts that differ anyway."""

import logging

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.model.manifest import Envelope, InputSpec, Wander
from edge_runtime.model.sight import SightMeter
from edge_runtime.records import Decision, Frame, Picture, Prediction
from edge_runtime.station.wander import LEAST, WINDOW, SightWatch, SightWatches, brittle, narrow, reach
from tests.support.decisions import decision_with

SPEC = InputSpec(height=64, width=64, channels=1)
METER = SightMeter(SPEC)


def part(seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(60, 140, (64, 64), dtype=np.uint8)


def row(what: str, amount: float, holds: bool) -> Wander:
    return Wander(what=what, amount=amount, image_auroc=1.0, rejected=0.0 if holds else 1.0, missed=0.0, holds=holds)  # type: ignore[arg-type]


ENVELOPE = Envelope(
    rows=(
        row("clean", 0, True), row("light", 0.7, False), row("light", 1.3, True), row("blur", 1, False), row("shift", 0.01, True),
        row("shift", 0.02, False), row("turn", 1, False), row("noise", 2, True), row("jpeg", 90, True), row("jpeg", 40, True),
    ),
    basis="real", n_good=60, n_bad=40, brightness=METER(part()).brightness, sharpness=METER(part()).sharpness,
    light_low=0.91, light_low_breaks="rejects", light_high=1.2, light_high_breaks="misses", blur_low=0.6, blur_breaks="both",
)  # fmt: skip


def feed(watch: SightWatch, gain: float = 1.0, count: int = WINDOW, blur: float = 0.0) -> None:
    for seed in range(count):
        image = (part(seed) * gain).astype(np.uint8)
        watch.add(cv2.GaussianBlur(image, (0, 0), blur) if blur else image)  # type: ignore[arg-type]


def test_a_dark_picture_is_told_as_dark_with_its_limit() -> None:
    watch = SightWatch(ENVELOPE, METER)
    feed(watch)
    assert watch.problem is None and watch.state is not None and watch.state.brightness == pytest.approx(1, abs=0.01)
    feed(watch, 0.88)
    assert watch.problem is not None
    assert "12 % darker than taught; from 9 % on good parts are rejected." in watch.problem and "blurred" not in watch.problem


def test_a_bright_picture_misses_bad_parts_here() -> None:
    watch = SightWatch(ENVELOPE, METER)
    feed(watch, 1.25)
    assert watch.problem is not None and "25 % brighter than taught; from 20 % on bad parts are missed." in watch.problem


def test_a_blurred_picture_is_told_as_blurred() -> None:
    watch = SightWatch(ENVELOPE, METER)
    feed(watch, blur=0.8)
    assert watch.problem is not None and "The picture is blurred: its sharpness is 0." in watch.problem
    assert "from 0.60 on good parts are rejected and bad ones missed." in watch.problem and "darker" not in watch.problem


def test_a_warning_comes_before_the_limit_and_each_change_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = SightWatch(ENVELOPE, METER)
    with caplog.at_level(logging.WARNING):
        feed(watch, 0.95)
        assert watch.problem is None
        feed(watch, 0.93)
        assert watch.problem is not None and "still within its limit; from 9 % on" in watch.problem
        feed(watch, 0.88)
        assert watch.problem is not None and "still" not in watch.problem
        feed(watch, 0.93)
        feed(watch)
        assert watch.problem is None
    assert len(caplog.records) == 4 and "again" in caplog.records[-1].message


def test_few_parts_say_nothing_yet() -> None:
    watch = SightWatch(ENVELOPE, METER)
    feed(watch, 0.5, LEAST - 1)
    assert watch.problem is None
    feed(watch, 0.5, 1)
    assert watch.problem is not None


def test_parts_that_differ_among_themselves_need_a_clearer_word() -> None:
    """15 parts of 20 % spread have a median that is uncertain by 6.5 %: 10 % less is nothing yet."""
    watch = SightWatch(msgspec.structs.replace(ENVELOPE, brightness_spread=0.2), METER)
    feed(watch, 0.9, LEAST)
    assert watch.problem is None
    feed(watch, 0.7, WINDOW)
    assert watch.problem is not None and "darker" in watch.problem


def test_without_limits_nothing_is_said() -> None:
    watch = SightWatch(msgspec.structs.replace(ENVELOPE, light_low=None, light_high=None, blur_low=None), METER)
    feed(watch, 0.3, blur=2)
    assert watch.problem is None and watch.state is not None and watch.state.brightness < 0.5


def decision(recipe: str, bundle_id: str) -> Decision:
    return decision_with(recipe=recipe, bundle_id=bundle_id)


def pictures(gain: float, judged: bool = True) -> tuple[Picture, ...]:
    found = Prediction(1.0, np.zeros((1, 1), np.float32), np.eye(2, 3)) if judged else None
    return (Picture("", Frame(1, 0, "test", (part() * gain).astype(np.uint8)), found),)


def test_only_the_product_that_is_judged_now_is_told_of_and_only_judged_parts_count() -> None:
    watches = SightWatches({("", "r", "b"): SightWatch(ENVELOPE, METER), ("", "q", "c"): SightWatch(ENVELOPE, METER)})
    for _ in range(WINDOW):
        watches.put(decision("r", "b"), pictures(0.5, judged=False))
    assert watches.state is None
    for _ in range(WINDOW):
        watches.put(decision("r", "b"), pictures(0.5))
    assert watches.problem is not None and "50 % darker" in watches.problem
    watches.put(decision("q", "c"), pictures(1.0))
    assert watches.problem is None
    watches.put(decision("r", "b"), pictures(0.5))
    assert watches.problem is not None
    watches.put(decision("x", "without an envelope"), pictures(0.5))
    assert watches.problem is None and watches.state is None


def test_the_reach_is_one_sentence() -> None:
    assert reach(ENVELOPE) == (
        "light 0.91 to 1.20 of what was taught, sharpness down to 0.60 of what was taught, shift 1 %, turn below 1°, noise 2 or more"
        " (standard deviation, gray levels of 255), JPEG quality 40 or less"
    )
    free = msgspec.structs.replace(ENVELOPE, light_low=None, light_high=None, rows=(row("light", 0.7, True), row("light", 1.3, True)))
    assert reach(free).startswith("light 0.7 or less to 1.3 or more of what was taught")


def test_the_reach_tells_gamma_on_either_side() -> None:
    for held, said in (
        ((True, True), "0.7 or less to 1.4 or more"),
        ((False, True), "above 0.7 to 1.4 or more"),
        ((True, False), "0.7 or less to below 1.4"),
    ):
        rows = (row("gamma", 0.7, held[0]), row("gamma", 1.4, held[1]))
        assert reach(msgspec.structs.replace(ENVELOPE, rows=rows)).startswith(f"gamma {said}, sharpness")


def test_what_no_station_can_be_kept_within_is_named() -> None:
    steady = tuple(r for r in ENVELOPE.rows if r.what != "turn")
    assert narrow(msgspec.structs.replace(ENVELOPE, rows=steady)) == []
    tight = msgspec.structs.replace(ENVELOPE, rows=steady, light_low=0.99, light_high=1.0, blur_low=0.99)
    assert narrow(tight) == [
        "a lamp that is 1 % dimmer spoils verdicts",
        "light that is 0 % brighter spoils verdicts",
        "so does a lens that is hardly out of focus",
    ]


def test_a_fixture_camera_or_codec_that_cannot_be_kept_so_steady_is_named_once() -> None:
    least = (("shift", 0.01), ("turn", 1.0), ("noise", 2.0), ("jpeg", 90.0))
    tight = msgspec.structs.replace(ENVELOPE, rows=tuple(row(what, amount, False) for what, amount in least))
    said = narrow(tight)
    assert [
        any(part in s for s in said) for part in ("less than 1 % of the picture", "less than 1°", "less than 2 gray", "quality 90")
    ] == [True] * 4
    assert "rotate=DEGREES" in said[1] and "shift" not in said[1]
    assert narrow(tight, known=brittle(tight)) == []
    assert narrow(msgspec.structs.replace(ENVELOPE, rows=tuple(row(what, 2 * amount, False) for what, amount in least))) == []


def test_what_spoils_most_verdicts_at_the_least_that_was_tried_is_said() -> None:
    said = brittle(ENVELOPE)
    assert said == [f"{what}, the least that was tried: 100 % of the good parts are rejected" for what in (
        "light 0.7 times what was taught", "blur 1 px", "turn 1°"
    )]  # fmt: skip
