"""How old a part may be: when its trigger had not risen yet, and until when its verdict counts."""

from collections.abc import Mapping

from edge_runtime.plc.results import Result
from edge_runtime.records import Decision, Verdict

_PUSHED_NS = 100_000_000
"""A PLC that pushes wakes the thread at once: only what is longer than its own polls says that the thread stood still."""


class PartAges:
    """Not thread-safe: the thread that polls the PLC asks."""

    def __init__(self) -> None:
        self.deadlines_ns: Mapping[str, int] = {}
        """By recipe, from the edge to the telling; a recipe that is not there has none."""
        self._polled_ns = 0
        self._since_ns: dict[int, int] = {}
        """By seq, of parts that are not decided."""

    @property
    def polled_ns(self) -> int:
        """When the last poll began; 0: there was none."""
        return self._polled_ns

    def connected(self, now_ns: int, *, goes_on: bool = False) -> None:
        """The PLC is polled from now on, and knows nothing of the parts before, unless it `goes_on` with the last."""
        self._polled_ns = now_ns
        if not goes_on:
            self._since_ns.clear()

    def polled(self, began_ns: int) -> None:
        """A poll of the PLC has been stepped: what it showed low had not risen when it began."""
        self._polled_ns = began_ns

    def not_before(self, seen_ns: int, pushes: bool) -> int:
        """When an edge that was seen at `seen_ns` was not there yet; `pushes`: the PLC reports changes by itself."""
        still_ns = seen_ns - self._polled_ns
        return seen_ns if pushes and still_ns < _PUSHED_NS else self._polled_ns

    def patience_ns(self, timeout_s: float) -> int:
        """How long a part may wait, after its edge, for what the PLC has no value for at the moment: its picture is made afterwards."""
        deadline_ns = min(self.deadlines_ns.values(), default=0)
        return min(round(timeout_s * 1e9), deadline_ns // 4 or round(timeout_s * 1e9))

    def too_old(self, unseen_ns: int) -> str:
        """Why a part that may have been announced so long before it was seen is not judged (its picture may show another); else empty."""
        deadline_ns = min(self.deadlines_ns.values(), default=0)
        if not deadline_ns or unseen_ns <= deadline_ns // 2:
            return ""
        unseen = f"The station saw the trigger up to {unseen_ns / 1e6:.0f} ms late"
        return f"{unseen}: when the part was announced is not known, and it may have gone."

    def announced(self, seq: int, since_ns: int) -> None:
        """Part `seq` counts from `since_ns`."""
        self._since_ns[seq] = since_ns

    def decided(self, decision: Decision) -> int:
        """From when the decided part counts; it is asked once a part, and forgotten."""
        return min(self._since_ns.pop(decision.seq, decision.stamps.fired_ns), decision.stamps.fired_ns)

    def result(self, decision: Decision, since_ns: int) -> Result:
        """As the PLC reads it, until its deadline; after that its part may have gone."""
        if decision.verdict is Verdict.FAULT:
            return Result(decision.part_id, Verdict.FAULT, 0.0, int(decision.cause))
        deadline_ns = self.deadlines_ns.get(decision.recipe)
        until_ns = 0 if deadline_ns is None else since_ns + deadline_ns
        return Result(decision.part_id, decision.verdict, decision.severity or 0.0, 0, until_ns)
