"""What announces parts: a file a kind; `open_trigger` picks by the station file's `kind`."""

from collections.abc import Callable
from typing import Any, Protocol

from edge_runtime import protocols
from edge_runtime.config import files as c
from edge_runtime.plc.line import PlcLine
from edge_runtime.triggers.timer import TimerLine
from edge_runtime.triggers.zeromq import ZeromqLine


class TriggerLine(protocols.TriggerLine, Protocol):
    """What every trigger line here also tells."""

    @property
    def exhausted(self) -> bool:
        """True when no trigger will ever come again: the station ends cleanly."""

    @property
    def problem(self) -> str | None:
        """A sentence for the operator while the line is lost or misbehaves; None when all is well."""


_KINDS: dict[type, Callable[[Any, int], TriggerLine]] = {
    c.TimerTriggerConfig: TimerLine,
    c.ZeromqTriggerConfig: ZeromqLine,
    c.ModbusTriggerConfig: PlcLine,
    c.OpcuaTriggerConfig: PlcLine,
    c.S7TriggerConfig: PlcLine,
    c.EthernetipTriggerConfig: PlcLine,
}


def open_trigger(settings: c.Trigger, first_seq: int) -> TriggerLine:
    """The trigger line that the station file describes; its triggers count from `first_seq`.

    A line to a PLC is an ActuatorLine: the same PLC gets the results. One whose PLC chooses the recipe has a method `on_recipe(callback)`;
    the callback has the named recipe's models warmed and raises LinesideError when that cannot be. One that others send parts to has
    `end()`: it takes no further part from then on, and `wait(0)` gives those that came before. Raises MissingExtra.
    """
    return _KINDS[type(settings)](settings, first_seq)


__all__ = ["PlcLine", "TriggerLine", "open_trigger"]
