"""One camera's share of the loop: its picture of a part, what the model says of it, and the judgement; never later than its time."""

import time
from dataclasses import dataclass

from edge_runtime.capture import Capture
from edge_runtime.errors import DeviceError, FrameError, SourceError
from edge_runtime.judge import Judgement, fault, judge
from edge_runtime.products import Job
from edge_runtime.records import Cause, Frame, Prediction, Trigger

_CAUSES = {SourceError: Cause.CAMERA, FrameError: Cause.FRAME, DeviceError: Cause.MODEL}
_NO_VERDICT = tuple(_CAUSES)


@dataclass(frozen=True, slots=True)
class Look:
    """How far a camera came with a part; 0 and None where a stage was never reached."""

    job: Job
    judgement: Judgement
    frame: Frame | None = None
    prediction: Prediction | None = None
    grabbed_ns: int = 0
    predicted_ns: int = 0
    grab_ns: int = 0
    """What the camera took."""
    predict_ns: int = 0
    """What the model took."""


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera of the station."""

    name: str
    """Empty at a station with one camera."""
    capture: Capture

    def look(self, trigger: Trigger, job: Job, until_ns: int) -> Look:
        """Judge the picture of an ordered trigger by `until_ns`, or say why that cannot be: a FAULT. An exception is a bug."""
        try:
            shot = self.capture.collect(trigger, until_ns)
        except _NO_VERDICT as e:
            return Look(job, _fault(e))
        grabbed_ns, frame = time.monotonic_ns(), shot.frame
        try:
            prediction, predict_ns = job.model.predict(frame, trigger, until_ns)
        except _NO_VERDICT as e:
            return Look(job, _fault(e), frame, None, grabbed_ns, 0, shot.waited_ns)
        predicted_ns = time.monotonic_ns()
        judgement = judge(prediction, job.limits, size_of(frame))
        return Look(job, judgement, frame, prediction, grabbed_ns, predicted_ns, shot.waited_ns, predict_ns)


def _fault(e: Exception) -> Judgement:
    return fault(str(e), next(cause for kind, cause in _CAUSES.items() if isinstance(e, kind)))


def size_of(frame: Frame) -> tuple[int, int]:
    """(width, height), pixels."""
    return frame.image.shape[1], frame.image.shape[0]
