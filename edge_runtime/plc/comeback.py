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
        self.left: Mapping[str, tuple[int, bool]] = {}
        """Names of the parts that the last run announced last, each with its seq and whether it was decided then; empty once the first poll
        was made."""

    def goes_on(self, inputs: Inputs, *, seen: bool) -> bool:
        """The trigger stands high over a part that was announced already: no other, and no new one. `seen`: it was acknowledged."""
        if not inputs.trigger or not _is_name(inputs.part_id):
            return False
        return inputs.part_id in self.left or (seen and inputs.part_id == self.last)

    def waits_since_a_kill(self, inputs: Inputs, busy: Callable[[], bool]) -> int | None:
        """The seq of the part that the last run took, if the PLC shows it and waits for its result. `busy`: the output, as it was left."""
        seq, decided = self.left.get(inputs.part_id, (0, True))
        if not seq or not _is_name(inputs.part_id):
            return None
        waits = (not decided or busy()) if inputs.trigger else (not inputs.acknowledge and busy())
        return seq if waits else None


def _is_name(part_id: str) -> bool:
    """0 is what a register holds that nobody has written."""
    return part_id not in ("", "0")
