"""Drawn parts with known defects, one a trigger: for trying a station without a camera."""

import time
from typing import Self

from edge_runtime.config.files import SyntheticSourceConfig
from edge_runtime.protocols import Source
from edge_runtime.records import Frame
from edge_runtime.sources.drawn import Line


class Synthetic(Source):
    """Part after part of `edge_runtime.sources.drawn`. The truth stands in the frame's source: "synthetic:good", "synthetic:scratch" …"""

    live = False
    lossy = False

    def __init__(self, settings: SyntheticSourceConfig) -> None:
        self._line = Line(settings.width, settings.height, settings.defect_rate, settings.seed)
        self._seq = 0

    def __enter__(self) -> Self:
        self._seq = 0
        return self

    def grab(self, timeout_s: float) -> Frame:
        """The next part; part n is the same for the same seed."""
        began = time.monotonic_ns()
        part = self._line.part(self._seq)
        self._seq += 1
        return Frame(seq=self._seq, captured_ns=began, source=f"synthetic:{part.kind}", image=part.image)
