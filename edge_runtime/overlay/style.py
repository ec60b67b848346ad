"""What the whole screen has in common: its colours, verdicts differing in brightness as well, and the unit that it is laid out in."""

from edge_runtime.overlay.text import Color
from edge_runtime.records import Verdict

BACKGROUND: Color = (30, 26, 24)
PANEL: Color = (46, 41, 38)
LINE: Color = (84, 77, 72)
INK: Color = (240, 240, 240)
QUIET: Color = (178, 172, 168)
GREEN: Color = (74, 140, 22)
RED: Color = (42, 30, 204)
AMBER: Color = (24, 178, 255)
GRAY: Color = (96, 90, 86)
BLACK: Color = (18, 16, 16)
BAND = {Verdict.ACCEPT: (GREEN, INK), Verdict.REJECT: (RED, INK), Verdict.FAULT: (AMBER, BLACK)}
"""Ground and ink."""


class Unit:
    """Layout pixels of a 1080p screen -> pixels of this one."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, px: float) -> int:
        """At least one."""
        return max(round(px * self.scale), 1)
