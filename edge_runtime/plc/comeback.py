"""Which part the PLC may still wait for when the connection is there (again): told by the part's name, or not at all.

Why: deploy/decisions/0044, 0048.
"""

from collections.abc import Callable, Mapping

from edge_runtime.plc.handshake import Inputs


class Comeback:
    """What is known of the parts before. Not thread-safe."""

    def __init__(self) -> None:
        self.last = ""
        """The name of the part that this process announced last."""
        self.left: Mapping[str, bool] = {}
        """Names of the parts that the last run announced last, and whether they were decided then; empty once the first look was made."""

    def goes_on(self, inputs: Inputs, *, seen: bool) -> bool:
        """The trigger stands high over a part that was announced already: no other, and no new one. `seen`: it was acknowledged."""
        if not inputs.trigger or not _is_name(inputs.part_id):
            return False
        return inputs.part_id in self.left or (seen and inputs.part_id == self.last)

    def waits_since_a_kill(self, inputs: Inputs, busy: Callable[[], bool]) -> bool:
        """The PLC shows a part that the last run took, and waits for its result. `busy`: the output, as the last run left it."""
        decided = self.left.get(inputs.part_id)
        if decided is None or not _is_name(inputs.part_id):
            return False
        if inputs.trigger:
            return not decided or busy()
        return not inputs.acknowledge and busy()


def _is_name(part_id: str) -> bool:
    """0 is what a register holds that nobody has written."""
    return part_id not in ("", "0")
