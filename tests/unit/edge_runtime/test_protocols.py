"""What the base classes of sources, lines and sinks promise to whoever writes the one method that must be written."""

import time

import numpy as np
import pytest

from edge_runtime.capture.capture import Capture
from edge_runtime.protocols import ActuatorLine, Predictor, Sink, Source, TriggerLine
from edge_runtime.records import Frame, Trigger


class Plain(Source):
    def grab(self, timeout_s: float) -> Frame:
        return Frame(1, time.monotonic_ns(), "plain", np.zeros((4, 4), np.uint8))


class Ailing(Plain):
    def __init__(self) -> None:
        self.problem = "the lamp is off"  # type: ignore[misc]  # as an author without a type checker writes it


@pytest.mark.parametrize(
    ("kind", "missing"),
    [(Source, "grab"), (TriggerLine, "wait"), (Sink, "put"), (Predictor, "predict"), (ActuatorLine, "put.*unreachable.*wait")],
)
def test_what_must_be_written_is_named_when_it_is_not(kind: type, missing: str) -> None:
    with pytest.raises(TypeError, match=missing):
        kind()


def test_a_source_that_writes_grab_alone_serves_a_station() -> None:
    with Plain() as source:
        capture = Capture(source, 0.5)
        try:
            trigger = Trigger(1, time.monotonic_ns(), "")
            capture.order(trigger)
            assert capture.collect(trigger, time.monotonic_ns() + 2_000_000_000).frame.source == "plain"
            assert (capture.problem, dict(capture.tallies), capture.exhausted) == (None, {}, False)
        finally:
            capture.close()


def test_a_default_may_simply_be_set() -> None:
    capture = Capture(Ailing(), 0.5)
    try:
        assert capture.problem == "the lamp is off"
        assert Plain().problem is None
    finally:
        capture.close()
