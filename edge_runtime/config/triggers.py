"""[trigger] of a station file: a table a kind of trigger."""

from typing import TYPE_CHECKING

from edge_runtime.plc.settings import PlcConfig
from edge_runtime.values import Endpoint, Positive, PositiveInt, Settings


class TimerTriggerConfig(Settings, frozen=True, kw_only=True, tag="timer", tag_field="kind"):
    """A trigger every `period_ms`; for benches and demonstrations."""

    period_ms: Positive = 1000.0
    """From one trigger to the next."""
    count: PositiveInt | None = None
    """End the station cleanly after that many."""


class ZeromqTriggerConfig(Settings, frozen=True, kw_only=True, tag="zeromq", tag_field="kind"):
    """A PULL socket that binds; each message is JSON such as {"part_id": "A-17"}, with "recipe" where it is to be another one.

    A trigger counts from when its message is read. A message may have waited in the sender while the station was down: with "sent" (RFC
    3339, such as 2026-03-01T06:30:00.125Z) such a one is known by its age. Or have the sender keep none (ZMQ_IMMEDIATE, and NOBLOCK).

    At SIGTERM what has come into the socket by then is still taken, for up to 2 s, and decided: judged, or a FAULT where it waited too long
    or too many parts wait. What has not come in stays with its sender; the next start gets it and refuses what has gone. In the moment in
    which the socket closes a message can be lost, neither decided nor refused: ZeroMQ tells no sender of it. Where each part must have its
    decision, stop the sender first.
    """

    endpoint: Endpoint = "tcp://127.0.0.1:5555"
    """PULL, binds: whoever announces parts connects a PUSH socket."""
    max_age_ms: Positive = 250.0
    """A message that was sent longer ago, or as far in the future, is a FAULT: its part is no longer before the camera."""


PlcTrigger = PlcConfig
"""That of any row of `edge_runtime.plc.kinds`."""
if TYPE_CHECKING:
    Trigger = TimerTriggerConfig | ZeromqTriggerConfig | PlcTrigger
else:  # `foreign.widened` adds that of the PLC that a file names
    Trigger = TimerTriggerConfig | ZeromqTriggerConfig
