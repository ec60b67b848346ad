"""What the PLC reads: the handshake's outputs, written where they have changed and in the order that no half result is seen in."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from edge_runtime.plc.handshake import Handshake
from edge_runtime.plc.port import PlcLost, TagPort, TooLate
from edge_runtime.plc.results import Results
from edge_runtime.plc.tags import Value
from edge_runtime.records import Delivery, Outcome, Verdict

_log = logging.getLogger(__name__)
_UNTOLD = "the PLC was lost meanwhile, had no room for it, or its part had passed the ejector"


class Outputs:
    """Not thread-safe. What it writes it also has written down (`delivered`), as far as results are concerned."""

    def __init__(self, port: TagPort, names: Sequence[str], handshake: Handshake, results: Results) -> None:
        """`names`: those that are mapped, in the order of `signals.OUTPUTS`; `results`: the handshake's."""
        self._port, self._names, self._handshake, self._results = port, names, handshake, results
        self._written: dict[str, Value] = {}
        self.delivered: Callable[[Delivery], None] = lambda delivery: None
        self.moves = True
        """The last write changed something: the next step may change more, whatever the PLC does."""
        self.expired = False
        """A verdict became too late in a write; whoever looks sets it back."""

    def forget(self) -> None:
        """Another connection: nothing is known of what stands in the PLC."""
        self._written = {}

    def write(self, new: Mapping[str, Value] | None = None) -> None:
        """What has changed, or `new`. `result_valid` rises last and falls first, so that it is never high over half a result. Raises
        PlcLost."""
        new = new or self._handshake.outputs()
        changed = {n: new[n] for n in self._names if n not in self._written or new[n] != self._written[n]}
        self.moves = bool(changed)
        if not changed:
            return None
        if changed.get("result_valid") is False:
            changed = {"result_valid": False, **changed}
        elif changed.get("result_valid"):
            numbers = {n: v for n, v in changed.items() if not isinstance(v, bool)}
            if numbers and not self._port.pushes:
                # Two trips, also where one would do: what becomes too late during the first is no verdict in the second (decision 0018).
                self._port.write(numbers)
                self._written |= numbers
                changed = {n: v for n, v in changed.items() if n not in numbers}
            if self._handshake.expire(time.monotonic_ns()):
                self.expired = True
                _log.warning("%s: a verdict was too late for its part before the PLC could read it: it was told FAULT", self._port.where)
                return self.write()
            if until_ns := self._results.until_ns:
                return self._write_by(until_ns, changed)
        self._port.write(changed)
        self._written |= changed
        return self.report()

    def _write_by(self, until_ns: int, changed: Mapping[str, Value]) -> None:
        """A result that means another part later, whatever the PLC or the network does meanwhile."""
        try:
            self._port.write(changed, max(until_ns - time.monotonic_ns(), 0) / 1e9)
        except TooLate as e:
            for name in changed:
                self._written.pop(name, None)
            if not self._handshake.expire(max(time.monotonic_ns(), until_ns + 1)):
                raise PlcLost("did not take a pulse before its end") from e
            self.expired = True
            return self.write()
        self._written |= changed
        return self.report()

    def report(self, why: str = "") -> None:
        """Have written down what became of results, now that the PLC has them, or `why` it has not."""
        news, self._results.news = self._results.news, []
        for seq, outcome in news:
            detail = why or (_UNTOLD if outcome is Outcome.FAILED else "")
            if outcome is Outcome.TOLD:
                outcome, detail = (Outcome.FAILED, why) if why else (outcome, self._shown_verdict())
            self.delivered(Delivery(seq, "plc", outcome, time.monotonic_ns(), detail))

    def _shown_verdict(self) -> str:
        shown = self._results.outputs
        verdict = next((v for v in (Verdict.ACCEPT, Verdict.REJECT) if shown[v.value.lower()] and not shown["fault"]), Verdict.FAULT)
        return f"{verdict}, code {shown['fault_code']}" if verdict is Verdict.FAULT else verdict.value
