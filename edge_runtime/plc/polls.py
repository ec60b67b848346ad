"""What is read of the PLC, and when: all inputs at each poll where that costs no more, else the bits, and the rest as the trigger rises."""

import time
from collections.abc import Sequence

from edge_runtime.plc.deadline import ASK_AGAIN_S
from edge_runtime.plc.known import Known
from edge_runtime.plc.port import PlcLost, TagPort, bits_first
from edge_runtime.plc.settings import PlcConfig
from edge_runtime.plc.tags import Tag


class Polls:
    """The inputs of one PLC: which of them are read when, and in `known` what they hold. Not thread-safe."""

    def __init__(self, port: TagPort, settings: PlcConfig, inputs: Sequence[Tag]) -> None:
        self._port = port
        self._timeout_s = settings.timeout_ms / 1e3
        self._names = bits_first(inputs)
        self._at_least = [t.name for t in inputs if t.type == "bool" or (t.name == "encoder" and settings.pulse)]
        self.known = Known(settings, inputs)
        self.polled: list[str] = []
        """Read at each poll."""
        self.late: list[str] = []
        """Read when the trigger rises."""

    def begin(self) -> None:
        """Another connection: all inputs are read; those that there is no handshake without are waited for. Raises PlcLost."""
        port, known = self._port, self.known
        # All at each poll where that costs no more than the bits alone, and tells what belongs together.
        whole = port.ordered if port.pushes else port.trips(self._names) == port.trips(self._at_least)
        self.polled = self._names if whole else self._at_least
        self.late = [n for n in self._names if n not in self.polled]
        known.forget()
        until = time.monotonic() + self._timeout_s
        while True:
            known.take(port.read(self._names), self._names, port.missing, time.monotonic())
            needed = known.cannot_be_done_without
            if not needed:
                return
            if time.monotonic() >= until:
                raise PlcLost(f"has no value for {', '.join(needed)}")
            time.sleep(ASK_AGAIN_S)

    def read_late(self) -> None:
        """What is read when the trigger rises, now. Raises PlcLost."""
        if self.late:
            self.known.take(self._port.read(self.late), self.late, self._port.missing, time.monotonic())
