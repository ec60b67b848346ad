"""The cameras' share of the loop: each one's picture of a part, what the model says of it, and its judgement; never later than its time."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_runtime.capture.capture import Capture
from edge_runtime.errors import DeviceError, FrameError, SourceError, printable
from edge_runtime.handoff import Helper
from edge_runtime.records import Cause, Frame, Prediction, Trigger, Verdict, View
from edge_runtime.station.judge import Judgement, fault, judge
from edge_runtime.station.products import Job, Product

_CAUSES = {SourceError: Cause.CAMERA, FrameError: Cause.FRAME, DeviceError: Cause.MODEL}
_NO_VERDICT = tuple(_CAUSES)
_CLOSE_TIMEOUT_S = 0.05


@dataclass(frozen=True, slots=True)
class Inspection:
    """One camera's picture of a part with its judgement, as far as it came; 0 and None where a stage was never reached."""

    camera: str
    job: Job
    judgement: Judgement
    frame: Frame | None = None
    prediction: Prediction | None = None
    grabbed_ns: int = 0
    predicted_ns: int = 0
    grab_ns: int = 0
    """What the camera took, in nanoseconds."""
    predict_ns: int = 0
    """What the model took, in nanoseconds."""

    @property
    def frame_wh(self) -> tuple[int, int]:
        """Width and height of the frame; (0, 0) without one."""
        return _size(self.frame) if self.frame else (0, 0)

    @property
    def view(self) -> View:
        """The record of it that stands in the decision."""
        j = self.judgement
        return View(
            camera=self.camera, verdict=j.verdict, reason=j.reason,
            score=self.prediction.score if self.prediction and j.verdict is not Verdict.FAULT else None,
            threshold=self.job.limits.threshold, severity=j.severity, regions=j.regions, frame_wh=self.frame_wh,
            bundle_id=self.job.bundle_id, recipe=self.job.recipe, captured_ns=self.frame.captured_ns if self.frame else 0,
            grabbed_ns=self.grabbed_ns, predicted_ns=self.predicted_ns, source=self.frame.source if self.frame else "",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Viewpoint:
    """One camera of the station: collects its picture of each part and judges it."""

    name: str
    """Empty at a station with one camera."""
    capture: Capture

    @property
    def problem(self) -> str | None:
        """A sentence for the operator while no pictures come; with its name where there are several."""
        problem = self.capture.problem
        return f"{self.name}: {problem}" if problem and self.name else problem

    @property
    def tallies(self) -> Mapping[str, int]:
        """What happened to the connection of its source since the start."""
        return self.capture.tallies

    def inspect(self, trigger: Trigger, job: Job, until_ns: int) -> Inspection:
        """Judge the picture of an ordered trigger by `until_ns`, or say why that cannot be: a FAULT. An exception is a bug."""
        try:
            shot = self.capture.collect(trigger, until_ns)
        except _NO_VERDICT as e:
            return Inspection(self.name, job, _fault(e))
        grabbed_ns, frame = time.monotonic_ns(), shot.frame
        try:
            prediction, predict_ns = job.model.predict(frame, trigger, until_ns)
        except _NO_VERDICT as e:
            return Inspection(self.name, job, _fault(e), frame, None, grabbed_ns, 0, shot.waited_ns)
        predicted_ns = time.monotonic_ns()
        judgement = judge(prediction, job.limits, _size(frame))
        return Inspection(self.name, job, judgement, frame, prediction, grabbed_ns, predicted_ns, shot.waited_ns, predict_ns)


def _fault(e: Exception) -> Judgement:
    return fault(printable(str(e)), next(cause for kind, cause in _CAUSES.items() if isinstance(e, kind)))


_Call = tuple[Viewpoint, Trigger, Job, int]


def _inspect(call: _Call) -> Inspection:
    camera, trigger, job, until_ns = call
    return camera.inspect(trigger, job, until_ns)


class Viewpoints:
    """All cameras of a station, each inspecting the same part in a thread of its own; a single one does in the loop's."""

    def __init__(self, cameras: Sequence[Viewpoint]) -> None:
        """Their captures are open already and are closed by whoever opened them."""
        self._cameras = tuple(cameras)
        self._captures = [camera.capture for camera in cameras]
        several = cameras if len(cameras) > 1 else ()
        self._threads: list[Helper[_Call, Inspection]] = [Helper(_inspect, f"view-{camera.name}") for camera in several]

    @property
    def names(self) -> tuple[str, ...]:
        """The cameras' names, in their order; ("",) where there is one."""
        return tuple(camera.name for camera in self._cameras)

    @property
    def exhausted(self) -> bool:
        """True when no later trigger can be served: a source came to its end."""
        return any(capture.exhausted for capture in self._captures)

    @property
    def can_serve(self) -> bool:
        """False when every image that a source has left is ordered already: wait whether that was the end of it."""
        return all(capture.can_serve for capture in self._captures)

    def check(self) -> None:
        """Raise what ended a capture thread."""
        for capture in self._captures:
            capture.check()

    def order(self, trigger: Trigger) -> None:
        """Ask all of them for the trigger's frame; never waits."""
        for capture in self._captures:
            capture.order(trigger)

    def dismiss(self, trigger: Trigger) -> None:
        """Tell all cameras that the part is refused: none is asked for its picture."""
        for capture in self._captures:
            capture.dismiss(trigger)

    def inspect(self, trigger: Trigger, product: Product, until_ns: int, at_last_ns: int) -> tuple[Inspection, ...]:
        """The part's inspections by all cameras, in their order: each by `until_ns`; one that does not come is left at `at_last_ns`."""
        if not self._threads:
            return (self._cameras[0].inspect(trigger, product.jobs[0], until_ns),)
        asked = list(zip(self._cameras, product.jobs, self._threads, strict=True))
        replies = [thread.call((camera, trigger, job, until_ns)) for camera, job, thread in asked]
        inspections = []
        for (camera, job, _), reply in zip(asked, replies, strict=True):
            try:
                inspections.append(reply.result((at_last_ns - time.monotonic_ns()) / 1e9))
            except TimeoutError:
                inspections.append(Inspection(camera.name, job, fault("It did not answer in time.", Cause.CAMERA)))
        return tuple(inspections)

    def close(self) -> None:
        """End the threads."""
        for thread in self._threads:
            thread.close(_CLOSE_TIMEOUT_S)


def _size(frame: Frame) -> tuple[int, int]:
    return frame.image.shape[1], frame.image.shape[0]
