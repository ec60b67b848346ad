"""What every sink must keep: an error at start or none, every kind of decision taken quickly from any thread, its resource given back."""

import dataclasses
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np

from edge_runtime.protocols import Sink
from edge_runtime.records import Decision, Frame, Picture, Prediction, Region, Stamps, Verdict, View

_PUT_S = 0.05
_LEAVE_S = 2.0


def a_decision(seq: int, verdict: Verdict) -> Decision:
    """A decision of one camera; a part's name may hold anything."""
    view = _view("", verdict)
    return Decision(
        station="cell-3", seq=seq, part_id=f"Ä/{seq}", verdict=verdict, reason=view.reason, score=view.score, threshold=view.threshold,
        severity=view.severity, regions=view.regions, frame_wh=view.frame_wh, bundle_id=view.bundle_id, recipe=view.recipe,
        stamps=Stamps(1, 2, 3, 4, 5, 6), wall_time=datetime.now(UTC).isoformat(timespec="milliseconds"), views=(view,),
    )  # fmt: skip


def _view(camera: str, verdict: Verdict) -> View:
    score, severity, regions = (None, None, ()) if verdict is Verdict.FAULT else (3.0, 1.5, (Region(0, 0, 4, 4, 9, 3.0),))
    return View(camera, verdict, "why", score, 2.0, severity, regions, (48, 32), "b", "r")


_FRAME = Frame(1, 1, "test", np.zeros((32, 48, 3), np.uint8))
_PREDICTION = Prediction(3.0, np.ones((4, 6), np.float32), np.array([[8.0, 0, 0], [0, 8.0, 0]]))
PARTS = [
    (a_decision(1, Verdict.ACCEPT), (Picture("", _FRAME, _PREDICTION),)),
    (a_decision(2, Verdict.REJECT), (Picture("", _FRAME, _PREDICTION),)),
    (a_decision(3, Verdict.FAULT), (Picture("", _FRAME, None),)),
    (a_decision(4, Verdict.FAULT), (Picture("", None, None),)),
    (a_decision(5, Verdict.FAULT), ()),
    (
        dataclasses.replace(a_decision(6, Verdict.REJECT), views=(_view("top", Verdict.REJECT), _view("side", Verdict.FAULT))),
        (Picture("top", _FRAME, _PREDICTION), Picture("side", None, None)),
    ),
]
"""Every kind of decision with its pictures, as `Sink.put` gets them: accepted, rejected, faults with and without a picture, two cameras."""


class SinkContract:
    """Derive a test class and give it a fixture `make`: a function that makes a sink, not entered yet, each time on the same resource."""

    def test_it_takes_every_kind_of_decision(self, make: Callable[[], Sink]) -> None:
        """And does not complain afterwards."""
        with make() as sink:
            for part in PARTS:
                sink.put(*part)
            assert sink.problem is None

    def test_it_may_be_told_from_another_thread_than_the_one_that_opened_it(self, make: Callable[[], Sink]) -> None:
        """A station opens all its parts in one thread and tells them in another."""
        raised: list[BaseException] = []

        def tell(sink: Sink) -> None:
            try:
                for part in PARTS:
                    sink.put(*part)
            except BaseException as e:
                raised.append(e)

        with make() as sink:
            thread = threading.Thread(target=tell, args=(sink,))
            thread.start()
            thread.join()
            assert raised == []
            assert sink.problem is None

    def test_it_does_not_keep_its_caller(self, make: Callable[[], Sink]) -> None:
        """The median: a loaded test machine may stop any single call for long."""
        with make() as sink:
            times = []
            for seq in range(100, 150):
                began = time.perf_counter()
                sink.put(a_decision(seq, Verdict.REJECT), PARTS[1][1])
                times.append(time.perf_counter() - began)
        assert sorted(times)[25] < _PUT_S

    def test_what_it_held_is_free_again_after_it_was_left(self, make: Callable[[], Sink]) -> None:
        """Also after something inside went wrong, which comes out as it was."""
        for _ in range(3):
            with make() as sink:
                assert sink.problem is None
        try:
            with make():
                raise KeyError("what happens inside comes out")
        except KeyError:
            pass
        else:
            raise AssertionError("expected `__exit__` to let an exception out, found that it kept it")
        with make():
            pass

    def test_leaving_takes_a_moment_only(self, make: Callable[[], Sink]) -> None:
        """A station that stops waits for it."""
        with make() as sink:
            for part in PARTS:
                sink.put(*part)
            began = time.perf_counter()
        assert time.perf_counter() - began < _LEAVE_S
