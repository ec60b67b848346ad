"""What the PLC's inputs hold, also through moments in which it has no value for some of them. Why: deploy/decisions/0048."""

from collections.abc import Collection, Mapping, Sequence

from edge_runtime.plc.settings import PlcConfig
from edge_runtime.plc.tags import Tag, Value

_NEEDED = ("trigger", "acknowledge", "enable")


class Known:
    """`values` holds what each input said last; what it does not say just now is `absent`. Not thread-safe."""

    def __init__(self, settings: PlcConfig, inputs: Sequence[Tag]) -> None:
        by_way = settings.pulse is not None and settings.pulse.encoder_counts is not None
        self._needed = {*_NEEDED, "encoder"} if by_way else set(_NEEDED)
        self._keys = {t.name: t.key for t in inputs}
        self._within_s = settings.timeout_ms / 1e3
        self.values: dict[str, Value] = {}
        self._absent: dict[str, tuple[float, str]] = {}
        """Since when, in seconds, and why."""
        self._now_s = 0.0

    def forget(self) -> None:
        """Another connection: what was known says nothing."""
        self.values.clear()
        self._absent.clear()

    def brings_nothing(self, snapshot: Mapping[str, Value], asked: Collection[str]) -> bool:
        """The PLC says of `asked` what it said before."""
        return not self._absent and len(snapshot) == len(asked) and snapshot.items() <= self.values.items()

    def take(self, snapshot: Mapping[str, Value], asked: Collection[str], why: Mapping[str, str], now_s: float) -> None:
        """What the PLC says of `asked`; what it leaves out keeps its value and is absent, for the reason in `why`."""
        self._now_s = now_s
        self.values.update(snapshot)
        if self._absent or len(snapshot) < len(asked):
            for name in asked:
                if name in snapshot:
                    self._absent.pop(name, None)
                else:
                    since_s, _ = self._absent.get(name, (now_s, ""))
                    self._absent[name] = since_s, why.get(name, "no value")

    def absent(self, *names: str) -> list[str]:
        """Those of `names` that the PLC has no value for just now, each with its key and the reason, for messages."""
        return [f"{self._keys[n]} ({self._absent[n][1]})" for n in names if n in self._absent]

    @property
    def cannot_be_done_without(self) -> list[str]:
        """As `absent`: inputs without which there is no handshake."""
        return self.absent(*sorted(self._needed))

    def lost(self, now_s: float) -> str | None:
        """Why the PLC counts as lost: an input that there is no handshake without was absent for longer than `timeout_ms`."""
        too_long = [n for n in sorted(self._needed & self._absent.keys()) if now_s - self._absent[n][0] > self._within_s]
        return f"has no value for {', '.join(self.absent(*too_long))}" if too_long else None

    @property
    def problem(self) -> str | None:
        """A sentence while one of the others is absent for as long."""
        for name, (since_s, _) in self._absent.items():
            if name not in self._needed and self._now_s - since_s > self._within_s:
                costs = {"part_id": "parts are judged without it", "recipe": "no part can be judged"}.get(name, "it counts as unchanged")
                return f"The PLC has no value for {', '.join(self.absent(name))}: {costs}."
        return None
