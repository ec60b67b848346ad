"""What a strict PLC programmer would object to in a station's outputs, said in sentences."""

from collections.abc import Mapping

from edge_runtime.config.files import PlcTrigger
from edge_runtime.plc.tags import Value

_LASTING_S = 2.0
"""A signal that the station owes: it may take a loaded machine that long."""
_TOGETHER_S = 0.05
"""Two signals of one step may be two requests apart."""
_BEATS = 3
_RESULT = ("result_part_id", "result_count", "severity", "accept", "reject")


class Watch:
    """Looks at each scan; `violations` are kept in the order in which they were seen, each once while it lasts."""

    def __init__(self, settings: PlcTrigger) -> None:
        self.violations: list[str] = []
        self._pulse = settings.pulse is not None
        self._acknowledged = settings.inputs.acknowledge is not None
        self._beat_limit_s = _BEATS * settings.heartbeat_ms / 1e3
        self._since: dict[str, float] = {}
        self._said: set[str] = set()
        self._beat: Value | None = None
        self._beats = False
        self._beat_at = 0.0
        self._shown: dict[str, Value] | None = None
        self._count: int | None = None

    @property
    def alive(self) -> bool:
        """The heartbeat toggles, or there is none to see."""
        return self._beats or self._beat is None

    def forget(self) -> None:
        """The PLC was off: what it has missed says nothing."""
        self._since.clear()
        self._said.clear()
        self._shown, self._beats, self._count = None, False, None

    def scan(self, told: Mapping[str, Value], given: Mapping[str, Value], now: float) -> None:
        """`told`: the station's outputs, `given`: its inputs as the program has written them; `now` in seconds."""
        self._heartbeat(told, now)
        valid, acknowledge = bool(told.get("result_valid")), bool(given.get("acknowledge"))
        both = bool(told.get("ready")) and bool(told.get("busy")) and not self._pulse
        self._lasts("ready and busy are high together", both, _TOGETHER_S, now)
        idle = given.get("enable", True) is False and bool(told.get("ready"))
        self._lasts("ready is high though enable is low", idle and self.alive, _LASTING_S, now)
        seen = bool(told.get("trigger_acknowledge")) and not given.get("trigger")
        self._lasts("trigger_acknowledge stays high though trigger has fallen", seen and self.alive, _LASTING_S, now)
        taken = valid and acknowledge and self._acknowledged
        self._lasts("result_valid stays high though the result was acknowledged", taken and self.alive, _LASTING_S, now)
        self._unchanged(told, valid, acknowledge)
        # A station that has just started counts anew; a memory that is empty because this PLC has just started says nothing of it.
        if not valid and told.get("result_count") == 0 and (self._count is not None or any(v is True for v in told.values())):
            self._count = 0

    def result(self, told: Mapping[str, Value], part: str) -> None:
        """A result has come, of `part` ("part 7")."""
        accept, reject, fault = (bool(told.get(n)) for n in ("accept", "reject", "fault"))
        if accept and reject:
            self.violations.append(f"accept and reject are both high over the result of {part}")
        if not (accept or reject or fault) and {"accept", "reject", "fault"} <= set(told):
            self.violations.append(f"neither accept, reject nor fault is high over the result of {part}")
        if "result_count" in told:
            count = int(told["result_count"])
            if self._count is not None and count != (self._count + 1) % 65_536:
                self.violations.append(f"result_count went from {self._count} to {count} at {part}: a result was missed, or told twice")
            self._count = count

    def _heartbeat(self, told: Mapping[str, Value], now: float) -> None:
        beat = told.get("heartbeat")
        if self._beat is not None and beat != self._beat:
            self._beats, self._beat_at = True, now
        self._beat = beat
        if self._beats and now - self._beat_at > self._beat_limit_s:
            self._beats = False
            self.violations.append(f"heartbeat has stood still for more than {self._beat_limit_s:g} s")

    def _unchanged(self, told: Mapping[str, Value], valid: bool, acknowledge: bool) -> None:
        shown = {name: told[name] for name in _RESULT if name in told} if valid and "result_valid" in told else None
        if shown is not None and self._shown is not None and shown != self._shown and not acknowledge and self._acknowledged:
            changed = ", ".join(name for name in shown if shown[name] != self._shown[name])
            self.violations.append(f"the result changed under result_valid: {changed}")
        self._shown = shown

    def _lasts(self, sentence: str, holds: bool, limit_s: float, now: float) -> None:
        if not holds:
            self._since.pop(sentence, None)
            self._said.discard(sentence)
        elif now - self._since.setdefault(sentence, now) > limit_s and sentence not in self._said:
            self._said.add(sentence)
            self.violations.append(f"{sentence}, for more than {limit_s * 1e3:g} ms")
