"""A handshake stepped by hand, as a PLC that looks every 2 ms would see it."""

from dataclasses import dataclass, field, replace

from edge_runtime.plc.handshake import Announced, Handshake, Inputs
from edge_runtime.plc.results import Edge, Presented, Result, Results
from edge_runtime.records import Verdict

MS = 1_000_000
ACCEPT = Result("17", Verdict.ACCEPT, 0.4, 0)
REJECT = Result("18", Verdict.REJECT, 2.5, 0)
FAULT = Result("19", Verdict.FAULT, 0.0, 1)


@dataclass
class Plc:
    """Steps a handshake, 2 ms a poll, and remembers what came."""

    results: Results = field(default_factory=lambda: Presented(acknowledged=True, timeout_ms=1000, limit=8))
    has_reset: bool = True
    now: int = 1000 * MS
    inputs: Inputs = field(default_factory=Inputs)
    seq: int = 0
    announced: list[Announced] = field(default_factory=list)
    recipes: list[str] = field(default_factory=list)
    alive: bool = True

    def __post_init__(self) -> None:
        self.handshake = Handshake(self.results, heartbeat_ms=500, has_reset=self.has_reset)
        self.handshake.resume(self.inputs)
        self.poll()

    def poll(self, ms: float = 2.0, **inputs: object) -> dict[str, object]:
        looked, before = self.now, self.inputs.encoder
        self.now += round(ms * MS)
        self.inputs = replace(self.inputs, **inputs)  # type: ignore[arg-type]
        step = self.handshake.step(self.inputs, self.now, self.alive, looked)
        if step.announced is not None:
            self.seq += 1
            self.announced.append(step.announced)
            self.handshake.announce(self.seq, step.announced, Edge(looked, self.now, before, self.inputs.encoder))
        if step.recipe is not None:
            self.recipes.append(step.recipe)
        return dict(self.handshake.outputs())

    def decide(self, result: Result, seq: int | None = None) -> bool:
        return self.handshake.result(seq or self.seq, result)

    def high(self) -> set[str]:
        """Names of the bits that are high, but for the heartbeat."""
        return {n for n, v in self.handshake.outputs().items() if v is True} - {"heartbeat"}
