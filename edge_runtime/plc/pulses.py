"""Results as pulses, each when its part passes the ejector; and which of the two ways a station file asks for."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge_runtime.plc.results import FALLEN, NOTHING, Edge, Presented, Result, shown
from edge_runtime.plc.settings import PlcConfig
from edge_runtime.plc.signals import StationFault
from edge_runtime.plc.tags import Tag
from edge_runtime.plc.transitions import PULSE, Do, Machine, PulseEvent, PulseState
from edge_runtime.records import Outcome, Verdict


@dataclass(slots=True)
class _Passing:
    part_id: str
    edge: Edge
    result: Result | None = None
    due: bool = False
    """It was at the ejector in time for its pulse, which may wait for the end of another."""

    @property
    def is_good(self) -> bool:
        """Known to be."""
        return self.result is not None and self.result.verdict is Verdict.ACCEPT


class Pulsed:
    """Each part's verdict is a pulse when it passes the ejector: `reject` for whatever is not known to be good by then."""

    def __init__(
        self, *, width_ms: float, delay_ms: float | None, encoder_counts: int | None, modulus: int, limit: int, poll_ms: float = 0.0
    ) -> None:
        """Exactly one of `delay_ms` and `encoder_counts`; the encoder's count wraps round at `modulus`. Up to `limit` parts on the way.
        `poll_ms`: jitter that whoever set it counts with."""
        self.outputs = NOTHING
        self.fault: StationFault | None = None
        self.parts_at_once = limit
        self.acknowledged = False
        self._width_ns, self._off_ns = round(width_ms * 1e6), round((width_ms + poll_ms) * 1e6)
        self._delay_ns = None if delay_ms is None else round(delay_ms * 1e6)
        self._counts, self._modulus = encoder_counts or 0, modulus
        self.news: list[tuple[int, Outcome]] = []
        self._machine = Machine(PULSE, PulseState.NONE)
        self._way: dict[int, _Passing] = {}
        self._unsure: list[_Passing] = []
        """Being ejected, for as long as they may be at the ejector."""
        self._until_ns = 0
        self._count = 0

    @property
    def until_ns(self) -> int:
        """As in Results: a pulse that comes later than it ends meets the next part."""
        return self._until_ns

    @property
    def full(self) -> bool:
        """True with as many parts between trigger and ejector as the station keeps."""
        return len(self._way) >= self.parts_at_once

    def expect(self, seq: int, part_id: str, edge: Edge) -> None:
        """The part is on its way."""
        self._way[seq] = _Passing(part_id, edge)

    def add(self, seq: int, result: Result, *, refused: bool) -> None:
        """The result of a part that is on its way; of one that has been ejected already it comes too late."""
        if seq in self._way:
            self._way[seq].result = result

    def next_due_ns(self, now_ns: int) -> int | None:
        """When, from `now_ns` on, the next pulse begins or the one that is shown ends; None when nothing will, or the encoder tells.

        What was due before is shown already, or waits for the end of what is.
        """
        due = [self._until_ns] if self.outputs["result_valid"] else []
        if self._delay_ns is not None:
            due += [ns + self._delay_ns for p in self._way.values() for ns in (p.edge.since_ns, p.edge.seen_ns)]
        return min((ns for ns in due if ns >= now_ns), default=None)

    def step(self, acknowledge: bool, encoder: int, now_ns: int, polled_ns: int) -> None:
        """Ends the pulse that is over, or begins the one that is due: never both, so that the PLC sees `result_valid` low between two.

        Of two parts nearer than a pulse is wide, a bad one cuts the pulse before it short, a good one waits for a reject's end.
        """
        self._see_who_passes(encoder, now_ns, polled_ns)
        due = next((seq for seq, part in self._way.items() if part.due), None)
        over = now_ns >= self._until_ns
        if due is None:
            event = PulseEvent.OVER if over else PulseEvent.RUNS
        elif self._way[due].is_good:
            event = PulseEvent.GOOD_AFTER if over else PulseEvent.GOOD_WITHIN
        else:
            event = PulseEvent.BAD
        match self._machine.on(event):
            case Do.FALL:
                self.outputs = {**self.outputs, **FALLEN}
            case Do.SHOW if due is not None:
                self._eject(self._way.pop(due), now_ns)
                self.news.append((due, Outcome.TOLD))

    def _see_who_passes(self, encoder: int, now_ns: int, polled_ns: int) -> None:
        """Whoever passed longer ago than a pulse is wide, while the station stood still or the PLC did not answer, gets none: it would meet
        the next part. By the encoder that is known from one poll to the next.

        A bad part whose edge nobody saw to within a pulse's width is ejected from when it may be there until it must have gone.
        """
        for seq, part in list(self._way.items()):
            if part.due:
                continue
            must_be_there = self._passes(part.edge.seen_ns, part.edge.encoder, encoder, now_ns)
            unsure = part.result is not None and not part.is_good and part.edge.seen_ns - part.edge.since_ns > self._off_ns
            if must_be_there:
                since_ns = polled_ns if self._delay_ns is None else part.edge.seen_ns + self._delay_ns
                if now_ns - since_ns > self._off_ns:
                    self.fault = StationFault.PASSED_UNTOLD
                    self._count = (self._count + 1) % 65_536
                    self.news += [(seq, Outcome.FAILED)] if part.result is not None else []
                    del self._way[seq]
                    continue
            elif unsure and self._passes(part.edge.since_ns, part.edge.encoder_since, encoder, now_ns):
                self._unsure.append(part)
            else:
                continue
            part.due = True
        self._unsure = [p for p in self._unsure if not self._passes(p.edge.seen_ns, p.edge.encoder, encoder, now_ns)]
        if any(part not in self._way.values() for part in self._unsure):
            self._until_ns = now_ns + self._width_ns

    def _eject(self, part: _Passing, now_ns: int) -> None:
        result = part.result
        if result is None:  # fail closed: whoever is not known to be good is ejected
            self.fault = StationFault.LATE_FOR_PULSE
            result = Result(part.part_id, Verdict.FAULT, 0.0, StationFault.LATE_FOR_PULSE)
        self._count = (self._count + 1) % 65_536
        out = shown(result, self._count)
        self.outputs = {**out, "reject": result.verdict is not Verdict.ACCEPT}
        self._until_ns = now_ns + self._width_ns

    def expire(self, now_ns: int) -> bool:
        """A pulse comes when its part is at the ejector, not sooner."""
        return False

    def next_trigger(self) -> None:
        """Parts follow each other."""

    def forgive(self) -> None:
        """The late part is gone."""
        self.fault = None

    @property
    def idle(self) -> bool:
        """No part is on its way, and no result is shown."""
        return not self._way and not self.outputs["result_valid"]

    def clear(self, *, passing: bool = False) -> None:
        """The connection was lost: where the parts are by now, nobody can tell; that there were some, the PLC must hear."""
        self.fault = StationFault.PASSED_UNTOLD if self._way or passing else None
        self._count = (self._count + len(self._way)) % 65_536
        self.news += [(seq, Outcome.FAILED) for seq, part in self._way.items() if part.result is not None]
        self._way.clear()
        self._unsure.clear()
        self._machine.on(PulseEvent.BACK)
        self.outputs = {**self.outputs, **FALLEN}

    def _passes(self, from_ns: int, from_encoder: int, encoder: int, now_ns: int) -> bool:
        """It is at the ejector, or beyond, if its trigger rose then and there."""
        if self._delay_ns is not None:
            return now_ns >= from_ns + self._delay_ns
        moved = (encoder - from_encoder) % self._modulus
        return self._counts <= moved < self._modulus // 2  # beyond that, the belt has moved back a little


def results_of(settings: PlcConfig, inputs: Sequence[Tag]) -> Presented | Pulsed:
    """The way that the station file asks for."""
    pulse = settings.pulse
    if pulse is None:
        return Presented(
            acknowledged=settings.inputs.acknowledge is not None, timeout_ms=settings.acknowledge_timeout_ms, limit=settings.results
        )
    encoder = next((t for t in inputs if t.name == "encoder"), None)
    modulus = 2 ** (16 if encoder is not None and encoder.type.endswith("16") else 32)
    return Pulsed(
        width_ms=pulse.width_ms,
        delay_ms=pulse.delay_ms,
        encoder_counts=pulse.encoder_counts,
        modulus=modulus,
        limit=settings.results,
        poll_ms=settings.poll_ms,
    )
