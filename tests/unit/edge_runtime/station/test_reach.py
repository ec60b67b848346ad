"""What a line engineer reads of an envelope: how far, what is narrow, and what spoils most verdicts at once."""

import msgspec

from edge_runtime.model.manifest import Acceptance, Axis, Placement
from edge_runtime.station.reach import brittle, narrow, promise, reach, watched
from tests.unit.edge_runtime.station import envelopes
from tests.unit.edge_runtime.station.envelopes import row

ENVELOPE = msgspec.structs.replace(envelopes.ENVELOPE, shift_limit=0.014, turn_limit=0.42)


def test_the_reach_is_one_sentence() -> None:
    assert reach(ENVELOPE) == (
        "light from 91 % up to 120 % of what was taught, sharpness down to 60 % of what was taught, shift up to 1.4 % of the picture"
        " further than taught parts differ, turn up to 0.42°, noise up to at least 2 gray levels, JPEG down to at least quality 40"
    )
    free = msgspec.structs.replace(ENVELOPE, light_low=None, light_high=None, rows=(row("light", 0.7, True), row("light", 1.3, True)))
    assert reach(free).startswith("light from at most 70 % up to at least 130 % of what was taught")


def test_what_the_station_watches_of_it_and_what_it_cannot_is_said() -> None:
    axes = tuple(Axis(way=way, usual=0.0, spread=0.001, gain=1.0) for way in ("x", "y"))  # type: ignore[arg-type]
    some = msgspec.structs.replace(ENVELOPE, noise=2.0, noise_limit=3.0, placement=Placement(reference="reference.png", axes=axes))
    assert watched(some) == (
        "watched: brightness, sharpness, noise, where parts lie (sideways and up and down); not watched, as"
        " the pictures do not tell it: how they are turned"
    )
    assert watched(msgspec.structs.replace(ENVELOPE, rows=())).endswith("not tell it: where parts lie and how they are turned")


def test_a_bundle_of_before_tells_the_amounts_that_were_tried() -> None:
    before = msgspec.structs.replace(ENVELOPE, shift_limit=None, turn_limit=None, rows=(*ENVELOPE.rows, row("jpeg", 95, False)))
    assert "shift up to 1 % of the picture further than taught parts differ, turn less than 1°" in reach(before)
    assert reach(before).endswith("no JPEG (quality 95 spoils verdicts)")


def test_the_reach_tells_gamma_on_either_side() -> None:
    for held, limits, said in (
        ((True, True), (None, None), "from at most 0.70 up to at least 1.40"),
        ((False, True), (0.83, None), "from 0.83 up to at least 1.40"),
        ((True, False), (None, 1.26), "from at most 0.70 up to 1.26"),
        ((False, False), (None, None), "from more than 0.70 up to less than 1.40"),
    ):
        rows = (row("gamma", 0.7, held[0]), row("gamma", 1.4, held[1]))
        envelope = msgspec.structs.replace(ENVELOPE, rows=rows, gamma_low=limits[0], gamma_high=limits[1])
        assert reach(envelope).startswith(f"gamma {said}, sharpness")


def test_what_no_station_can_be_kept_within_is_named() -> None:
    steady = tuple(r for r in ENVELOPE.rows if r.what != "turn")
    assert narrow(msgspec.structs.replace(ENVELOPE, rows=steady)) == []
    tight = msgspec.structs.replace(ENVELOPE, rows=steady, light_low=0.99, light_high=1.0, blur_low=0.99)
    assert narrow(tight) == [
        "a lamp that is 1 % dimmer spoils verdicts",
        "light that is 0 % brighter spoils verdicts",
        "a lens that is hardly out of focus spoils verdicts",
    ]


def test_a_fixture_camera_or_codec_that_cannot_be_kept_so_steady_is_named_once() -> None:
    least = (("shift", 0.01), ("turn", 1.0), ("noise", 2.0), ("jpeg", 90.0))
    tight = msgspec.structs.replace(ENVELOPE, rows=tuple(row(what, amount, False) for what, amount in least))
    said = narrow(tight)
    assert [
        any(part in s for s in said)
        for part in ("lie more than 1.4 % of the picture elsewhere", "turned by more than 0.42°", "noise of 2 gray", "quality 90")
    ] == [True] * 4
    assert "rotate=DEGREES" in said[1] and "shift" not in said[1]
    assert narrow(tight, known=brittle(tight)) == []
    assert narrow(msgspec.structs.replace(ENVELOPE, rows=tuple(row(what, 2 * amount, False) for what, amount in least))) == []


def test_what_spoils_most_verdicts_at_the_least_that_was_tried_is_said() -> None:
    assert brittle(ENVELOPE) == [
        f"with {what}, the only one that was tried, 100 % of the good parts are rejected"
        for what in ("light at 70 % of what was taught", "a blur of 1 px of the model's input", "a turn of 1°")
    ]
    two = msgspec.structs.replace(ENVELOPE, rows=(row("gamma", 1.4, False), row("gamma", 1.1, False)))
    assert brittle(two) == ["with a gamma of 1.1, the least that was tried, 100 % of the good parts are rejected"]


def test_what_is_not_fit_for_release_has_no_envelope_that_holds_and_the_images_are_counted() -> None:
    found = Acceptance(state="passed", sentence="fit for release: …", basis="real", max_missed=0.05, max_rejected=0.02)
    for asked in (None, found):
        assert promise(ENVELOPE, asked) == f"verdicts hold with {reach(ENVELOPE)}; measured on 60 good and 40 bad images"
    failed = promise(ENVELOPE, msgspec.structs.replace(found, state="failed"))
    assert failed.startswith("verdicts do not hold as it is (not fit for release); they get no worse than that with light")
    painted = msgspec.structs.replace(ENVELOPE, basis="painted", n_bad=24)
    assert promise(painted, found).endswith("60 good and 24 painted bad images")


def test_taught_parts_that_lie_further_apart_than_verdicts_hold_are_a_warning() -> None:
    wide = msgspec.structs.replace(ENVELOPE, rows=(), shift_limit=0.0042, parts_shift=0.007)
    assert narrow(wide)[0].startswith(
        "taught parts themselves lie further apart than verdicts hold: half of them lie 0.7 % of the picture or more off their usual place,"
        " and parts may lie only 0.42 % further off than that"
    )
    assert narrow(msgspec.structs.replace(wide, parts_shift=0.004)) == []


def test_what_breaks_beyond_a_limit_is_said_with_it_and_once() -> None:
    """A strength that held, found between those that are always tried, is the limit; what the next one costs stands beside it."""
    noise = (row("noise", 0.7, True), row("noise", 2, False), row("noise", 5, False))
    told = msgspec.structs.replace(ENVELOPE, rows=noise, noise_limit=0.7)
    assert reach(told).endswith("noise up to 0.7 gray levels") and brittle(told) == []
    assert narrow(told) == [
        "noise of more than 0.7 gray levels, as of a camera's gain, spoils verdicts: at 2 gray levels, 100 % of the good parts are rejected"
    ]
    nothing = msgspec.structs.replace(told, rows=noise[1:], noise_limit=0.0)
    assert reach(nothing).endswith("noise less than 2 gray levels")
    assert narrow(nothing, known=[]) == [
        "noise of 2 gray levels, as of a camera's gain, spoils verdicts: 100 % of the good parts are rejected"
    ]
