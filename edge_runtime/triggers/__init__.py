"""What announces parts: a file a kind; `open_trigger` picks by the station file's `kind`, and imports no other."""

from edge_runtime.config import files as c
from edge_runtime.plugins import made
from edge_runtime.protocols import TriggerLine
from edge_runtime.security.access import Access


def open_trigger(settings: c.AnyTrigger, first_seq: int, access: Access | None = None) -> TriggerLine:
    """The trigger line that the station file describes; its triggers count from `first_seq`. `access`: who may announce parts.

    A line to a PLC is an ActuatorLine: the same PLC gets the results. Raises MissingExtra.
    """
    match settings:
        case c.TimerTriggerConfig():
            from edge_runtime.triggers.timer import TimerLine

            return TimerLine(settings, first_seq)
        case c.ZeromqTriggerConfig():
            from edge_runtime.triggers.zeromq import ZeromqLine

            return ZeromqLine(settings, first_seq, access)
        case c.PluginSettings():
            line: TriggerLine = made(settings, first_seq)
            return line
        case _:
            from edge_runtime.plc.line import PlcLine

            return PlcLine(settings, first_seq)


__all__ = ["TriggerLine", "open_trigger"]
