"""Binds each trigger to its own frame, in a thread that may hang without stopping the line."""

import time
from collections.abc import Mapping

import numpy as np

from edge_runtime.capture.grabbing import FreeRun, OnDemand, Paired, Shot
from edge_runtime.errors import FrameError, SourceError, SourceExhausted
from edge_runtime.handoff import Reply
from edge_runtime.protocols import Source
from edge_runtime.records import Frame, Image, Trigger

_HANGS_AFTER_S = 3.0
_KEPT_EDGES = 64
_STEP_PX = 64


class Capture:
    """Gets each trigger the frame that belongs to it, from one source.

    On demand, `grab` is called once an ordered trigger, in order. In free run `grab` is called all the time and a trigger gets
    the first frame captured at or after its edge. Where the PLC's wire triggers the camera, frames and triggers are paired
    (edge_runtime.capture.pairing). What comes too late for its trigger is dropped, never given to another.
    """

    def __init__(self, source: Source, timeout_s: float) -> None:
        """`source` is entered already; a picture that takes longer than `timeout_s` (the recipe's deadline) is of no use."""
        self._source = source
        self._timeout_s = timeout_s
        self._shots: dict[int, Reply[Shot]] = {}
        self._ended = False
        self._lost: str | None = None
        self._last: Image | None = None
        window_ns = source.trigger_window_ns
        self._oldest_ns = 0 if window_ns is None else window_ns[0]
        self._one_part_stands_there = window_ns is None and (not source.on_demand or source.live)
        """Whatever is exposed after the next part's edge shows the next part."""
        self._edges: tuple[int, ...] = ()
        """The edges of all triggers, also of those that get no picture. Replaced as a whole: one thread orders, another collects."""
        self._grabber: OnDemand | FreeRun | Paired
        if window_ns is not None:
            self._grabber = Paired(source.grab, window_ns, lambda: source.lost)
        else:
            self._grabber = OnDemand(self._grab, timeout_s) if source.on_demand else FreeRun(self._grab)

    @property
    def exhausted(self) -> bool:
        """True when no later trigger can be served: the source came to its end."""
        return self._ended or (self._grabber.pending == 0 and self._source.remaining == 0)

    @property
    def can_serve(self) -> bool:
        """False when every image that the source has left is ordered already: wait whether that was the end of it."""
        pending = self._grabber.pending  # read first: in between, a grab may end, which then counts as one too few, never one too many
        remaining = self._source.remaining
        return remaining is None or remaining > pending

    @property
    def problem(self) -> str | None:
        """A sentence for the operator while the source is lost or its driver hangs."""
        if self._grabber.busy_s > self._timeout_s + _HANGS_AFTER_S:
            return f"The camera's driver has not answered for {self._grabber.busy_s:.0f} s."
        return self._lost or self._source.problem or self._grabber.problem

    @property
    def tallies(self) -> Mapping[str, int]:
        """What happened to the source's connection since the start: `reconnects`, `incomplete_frames`; empty for one that has none."""
        return self._source.tallies

    def check(self) -> None:
        """Raise what ended the capture thread, if it has ended: nobody may be waiting for a frame to hear of it."""
        self._grabber.check()

    def order(self, trigger: Trigger) -> None:
        """Ask for the trigger's frame; never waits."""
        self._see_edge(trigger)
        self._shots[trigger.seq] = self._grabber.order(trigger)

    def dismiss(self, trigger: Trigger) -> None:
        """Leave the trigger without a picture: where the PLC's wire made one all the same, it is this trigger's and nobody else's.

        Never waits.

        Its part stands before the camera all the same, so that no earlier part's picture can be made any more.
        """
        self._see_edge(trigger)
        if isinstance(self._grabber, Paired):
            self._grabber.dismiss(trigger)

    def collect(self, trigger: Trigger, until_ns: int) -> Shot:
        """The frame of an ordered trigger, waiting until `until_ns` (CLOCK_MONOTONIC) at most.

        Raises:
            SourceError: there is none, with the reason for the operator.
            FrameError: the source gave one that is older than the trigger, or younger than the next one, or an uncompressed live one
                the very picture that the part before got.
        """
        reply = self._shots.pop(trigger.seq)
        try:
            shot = reply.result((until_ns - time.monotonic_ns()) / 1e9)
        except TimeoutError:
            reply.unwanted = True
            waited_ms = (time.monotonic_ns() - trigger.fired_ns) / 1e6
            raise SourceError(f"No picture within {waited_ms:.0f} ms: {self.problem or 'the camera did not answer.'}") from None
        if shot.frame.captured_ns < trigger.fired_ns - self._oldest_ns:
            age_ms = (trigger.fired_ns - shot.frame.captured_ns) / 1e6
            raise FrameError(f"The picture is {age_ms:.1f} ms older than its trigger: it may show another part.")
        if self._one_part_stands_there and any(trigger.fired_ns < edge <= shot.frame.captured_ns for edge in self._edges):
            raise FrameError("The camera took no picture between this part's trigger and the next one's: it is too slow for this line.")
        # Behind an encoder that smooths an unmoved scene two pictures may be alike, and stored ones are.
        before, self._last = self._last, shot.frame.image if self._source.live and self._source.lossy is False else None
        if before is not None and self._last is not None and _same(before, self._last):
            raise FrameError(
                "The camera gave the very picture of the part before, to the last pixel: it stands still, or sees nothing at all. Check its"
                " light and lens, and switch it off and on."
            )
        return shot

    def _see_edge(self, trigger: Trigger) -> None:
        self._edges = (*self._edges[1 - _KEPT_EDGES :], trigger.fired_ns)

    def close(self) -> bool:
        """End the thread. False when the driver hangs in it: the source must then be left alone."""
        return self._grabber.close()

    def _grab(self, timeout_s: float) -> Frame:
        try:
            frame = self._source.grab(timeout_s)
        except SourceExhausted:
            self._ended = True
            raise
        except SourceError as e:
            self._lost = None if self._source.guarded else str(e)
            raise
        self._lost = None
        return frame


def _same(one: Image, other: Image) -> bool:
    """To the last pixel; a sensor's noise tells after some pixels of any two pictures that were taken."""
    few = (slice(None, None, _STEP_PX),) * 2
    return one.shape == other.shape and np.array_equal(one[few], other[few]) and np.array_equal(one, other)


__all__ = ["Capture", "Shot"]
