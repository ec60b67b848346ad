"""What plugs into a station: four protocols, each one method beside the context manager, and the line that is two of them.

A context manager acquires on `__enter__` (opening a camera, binding a port) and raises the error of its branch
there, so that a station that cannot work says so before it says READY.
"""

from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from edge_runtime.records import Decision, Frame, Picture, Prediction, Trigger


class _Managed(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None: ...


class TriggerLine(_Managed, Protocol):
    """Announces parts."""

    def wait(self, timeout_s: float) -> Trigger | None:
        """The next trigger, or None when `timeout_s` passed without one. Raises TriggerError when the line is lost for good."""


class Source(_Managed, Protocol):
    """Delivers frames.

    `on_demand` tells how it is driven: True (folder, software-triggered camera): each `grab` makes one new frame, so it is called
    once a trigger. False (free run): `grab` is called all the time, and each trigger gets the first frame captured after it.
    """

    on_demand: bool

    def grab(self, timeout_s: float) -> Frame:
        """The next frame. Raises SourceError when none came within `timeout_s` or the source is lost; a later call may succeed."""


class Predictor(_Managed, Protocol):
    """Scores frames."""

    def predict(self, frame: Frame) -> Prediction:
        """Raw score and map. Raises FrameError for a frame that the model was not made for, DeviceError when inference fails."""


class Sink(_Managed, Protocol):
    """Receives decisions. Called in the loop's thread for what must be told, in the observer's thread for what may be dropped."""

    def put(self, decision: Decision, pictures: tuple[Picture, ...]) -> None:
        """Take one decision. Must not block; raises SinkError when it failed.

        `pictures`: one a camera, that of the deciding view first; empty when no camera was asked.
        """


@runtime_checkable
class ActuatorLine(TriggerLine, Sink, Protocol):
    """A trigger line that takes the results as well: the PLC. Without it no verdict reaches the part."""

    def unreachable(self, trigger: Trigger) -> str | None:
        """Why the result of this part will not reach it, also if others do again; None when it should."""


__all__ = ["ActuatorLine", "Predictor", "Sink", "Source", "TriggerLine"]
