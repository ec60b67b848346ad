"""What plugs into a station: complete base classes, each with one thing that must be written.

All else that a station may ask has a default here, and nothing else is ever asked. Why: deploy/decisions/0035.

A context manager acquires on `__enter__` (opening a camera, binding a port) and raises the error of its branch there, so that a station
that cannot work says so before it says READY. A default is overridden by a property, or by an attribute that the class's body declares.
"""

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self

import msgspec

from edge_runtime.records import Decision, Delivery, Frame, Picture, Prediction, Trigger

if TYPE_CHECKING:
    _default = property
else:

    class _default:  # noqa: N801
        """A property that may be set all the same: a real one would refuse what its class has not said it sets."""

        def __init__(self, get):
            self._get, self.__doc__ = get, get.__doc__

        def __get__(self, thing, owner=None):
            return self if thing is None else self._get(thing)


class _Managed(abc.ABC):  # noqa: B024
    def __enter__(self) -> Self:
        """Acquire what it needs: open a camera, bind a port. By default there is nothing to acquire."""
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:  # noqa: B027
        """Give it back; by default there is nothing. Must work after a failure, and leave the thing ready to be entered again."""


class _Watched(_Managed):
    settings_type: ClassVar[type[msgspec.Struct] | None] = None
    """What a plug-in's settings are: what may stand in its table of the station file beside `kind`. It is made as `Class(settings)`, a
    trigger line as `Class(settings, first_seq)`, and opens nothing before `__enter__`. How to write one: deploy/developing/plugins.md."""

    @_default
    def problem(self) -> str | None:
        """A sentence for the operator while something is wrong; None when all is well. Asked once a second, from another thread."""
        return None


class _Connected(_Watched):
    @_default
    def tallies(self) -> Mapping[str, int]:
        """What happened to the connection since it was entered, such as `reconnects`; empty for one that cannot break."""
        return {}


@dataclass(frozen=True, slots=True)
class StationLink:
    """What a station offers to the line that announces its parts; safe from any thread of the line's own."""

    prepare: Callable[[str], None]
    """Has the models of a recipe warmed and makes it the current one; returns when they are. Raises LinesideError when that cannot be."""
    deadlines_ns: Mapping[str, int]
    """By a decision's recipe, from its trigger to its telling: what comes later, as after a pause of the machine, is no verdict."""
    alive: Callable[[], bool]
    """Whether the station's threads come round: while they do not, nobody may be told that it is ready."""
    announced: Callable[[Trigger], None] = lambda trigger: None
    """Writes a part down, before its other side is told that it was taken: one that a kill takes then has its FAULT at the next start."""
    delivered: Callable[[Delivery], None] = lambda delivery: None
    """Writes down what the line's other side was told, and whether it has acknowledged it; never waits."""


class TriggerLine(_Connected):
    """Where triggers come from: a PLC, a timer, a socket. Announces each part that is to be judged."""

    @abc.abstractmethod
    def wait(self, timeout_s: float) -> Trigger | None:
        """The next trigger, or None when `timeout_s` passed without one. Raises TriggerError when the line is lost for good.

        Triggers count up by one from the number that the line was made with.
        """

    @_default
    def exhausted(self) -> bool:
        """True when no trigger will ever come again: the station ends cleanly."""
        return False

    @_default
    def answer_timeout_ms(self) -> float:
        """How long the other side may keep `wait` or `put` beyond what was asked of them; 0 where nobody is asked."""
        return 0.0

    def attach(self, station: StationLink) -> None:
        """Called once, after `__enter__` and before the first `wait`: the station that the parts are announced to."""

    def begin(self) -> None:
        """The station says that it is ready after this: what is announced from now on is looked at."""

    def end(self) -> bool:
        """Take no further part. True when `wait(0)` may still give parts that came before; they are then asked for."""
        return False


class Source(_Connected):
    """Where frames come from: a camera, a video, a folder."""

    @abc.abstractmethod
    def grab(self, timeout_s: float) -> Frame:
        """The next frame. Raises SourceError when none came within `timeout_s` or the source is lost (a later call may succeed),
        SourceExhausted when none will ever come, LostFrame for a picture that must not be judged."""

    def expect(self, most_px: int) -> None:
        """Told once, after `__enter__`: frames of more pixels are never judged, so a source that decodes files need not begin with them."""

    @_default
    def on_demand(self) -> bool:
        """How it is driven. True (folder, software trigger): each `grab` makes one new frame, so it is called once a trigger. False (free
        run): `grab` is called all the time, and each trigger gets the first frame captured after it. Asked once, after `__enter__`."""
        return True

    @_default
    def live(self) -> bool:
        """Whether a frame shows what stands before the camera now: after the next part's trigger, the next part. False only for stored
        pictures, which wait for whoever asks."""
        return True

    @_default
    def trigger_window_ns(self) -> tuple[int, int] | None:
        """Set where the PLC's wire triggers the camera: how long before and after the moment at which the edge was seen an exposure may
        have begun. Frames are then counted without gaps in `Frame.seq` and paired with triggers. Asked once, after `__enter__`."""
        return None

    @_default
    def lost(self) -> bool:
        """With `trigger_window_ns`: whether the camera is gone just now, so that what it counts begins anew."""
        return False

    @_default
    def guarded(self) -> bool:
        """True where `problem` tells how the camera is now; else what the last `grab` raised is shown until one succeeds."""
        return False

    @_default
    def remaining(self) -> int | None:
        """Images left; 0 means that the next `grab` raises SourceExhausted. None: no end, or not known."""
        return None

    @_default
    def bits(self) -> int | None:
        """Significant bits of a pixel, once entered, to be compared with what the bundle was taught on; None: not known."""
        return None

    @_default
    def lossy(self) -> bool | None:
        """Whether its pictures were compressed with loss (JPEG, video) on their way, once entered, to be compared with what the bundle was
        taught on; None: not known, or some are."""
        return None

    @_default
    def latency_ms(self) -> float:
        """What is taken off a frame's arrival to tell when it was captured; 0 where it counts as captured when it came."""
        return 0.0

    @_default
    def open_timeout_ms(self) -> float:
        """How long `__enter__` may take before `lineside check` calls it hung."""
        return 5000.0

    @_default
    def read_timeout_ms(self) -> float:
        """How long `lineside check` waits for the first frame."""
        return 2000.0


class Predictor(_Managed):
    """What scores frames: a model that was opened for a device."""

    @abc.abstractmethod
    def predict(self, frame: Frame) -> Prediction:
        """Raw score and map. Raises FrameError for a frame that the model was not made for, DeviceError when inference fails."""


class Sink(_Watched):
    """A receiver of decisions. Called in the loop's thread for what must be told, in the observer's thread for what may be dropped."""

    @abc.abstractmethod
    def put(self, decision: Decision, pictures: tuple[Picture, ...]) -> None:
        """Take one decision. Must not block; raises SinkError when it failed.

        `pictures`: one a view, in the order of `decision.views`; without a frame where there was none.
        """


class ActuatorLine(TriggerLine, Sink):
    """A trigger line that takes the results as well: the PLC. Without it no verdict reaches the part."""

    @abc.abstractmethod
    def unreachable(self, trigger: Trigger) -> str | None:
        """Why the result of this part will not reach it, also if others do again; None when it should."""

    def left(self, parts: Mapping[str, tuple[int, bool]]) -> None:
        """Called before `__enter__`: what the last run of the station had announced last, by name, each with its seq and whether it was
        decided then. All have their decisions in the journal by now; one that still waits for its result may be told FAULT."""


__all__ = ["ActuatorLine", "Predictor", "Sink", "Source", "StationLink", "TriggerLine"]
