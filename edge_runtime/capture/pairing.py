"""Which picture belongs to which trigger, where the PLC's wire triggers the camera: by time and by count, and never by a guess. Pure.

The camera exposes at the wire's edge; the station sees the same edge when it polls the PLC next. So a trigger seen at t owns the pictures
whose exposure began in [t - before, t + after], and is answered once that window is over:

    pictures in the window   the trigger gets
    exactly one, complete    it, if no other trigger's window holds it too, and if the camera's count shows no picture that never came
    two or more              a fault
    none                     a fault, as soon as a later picture came or its deadline passed

A picture that never came is explained by an earlier trigger that got none. A picture in nobody's window is told in `problem`.

Why: deploy/decisions/0015.
"""

from dataclasses import dataclass

from edge_runtime.errors import FrameError, LostFrame, SourceError
from edge_runtime.records import Frame, Trigger

_KEPT = 16
_ORPHAN_NS = 200_000_000
"""How long after its last chance a picture is given up: a trigger that is late for its own window may be told a little later still."""
_KEPT_NS = 1_000_000_000


@dataclass(slots=True)
class _Picture:
    frame: Frame
    arrived_ns: int
    gap: int
    """Pictures that the camera counted before it and that never came."""
    taken: bool = False


@dataclass(slots=True)
class _Answered:
    trigger: Trigger
    missing: bool
    dismissed: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a trigger gets: a frame, or why there is none."""

    trigger: Trigger
    picture: Frame | SourceError | FrameError
    arrived_ns: int = 0


class Pairing:
    """Pairs pictures with triggers as both come; for one thread."""

    def __init__(self, window_ns: tuple[int, int]) -> None:
        """`window_ns`: before and after the moment at which a trigger was seen."""
        self._before_ns, self._after_ns = window_ns
        self._waiting: list[Trigger] = []
        self._answered: list[_Answered] = []
        self._pictures: list[_Picture] = []
        self._incomplete_ns: list[int] = []
        """When the last incomplete ones were exposed."""
        self._last_seq: int | None = None
        self._unexplained = 0
        self.strays = 0
        """Pictures that came without a trigger."""
        self.problem: str | None = None

    def trigger(self, trigger: Trigger) -> None:
        """Take a trigger: the station saw an edge."""
        self._waiting.append(trigger)

    def forget(self, trigger: Trigger) -> None:
        """Give a trigger up: nobody waits for its picture any longer."""
        if trigger in self._waiting:
            self._waiting.remove(trigger)
            self._close(trigger, missing=not self._in_window(trigger))

    def dismiss(self, trigger: Trigger) -> None:
        """Give a trigger up whose part is refused: its picture, should the wire make one, is nobody else's and no stray."""
        for picture in self._in_window(trigger):
            picture.taken = True
        self._answered = [*self._answered[1 - _KEPT :], _Answered(trigger, missing=False, dismissed=True)]

    def frame(self, frame: Frame, arrived_ns: int) -> None:
        """Take a picture; `frame.seq` is the camera's count."""
        picture = _Picture(frame, arrived_ns, self._gap(frame.seq))
        self._pictures.append(picture)
        for answered in self._answered:
            if answered.dismissed and self._owns(answered.trigger, frame.captured_ns):
                picture.taken = True
            elif answered.missing and self._owns(answered.trigger, frame.captured_ns):
                answered.missing, picture.taken = False, True  # too late for its trigger, but it did come
            elif not picture.taken and self._owns(answered.trigger, frame.captured_ns):
                picture.taken = True  # whether the first was the part's cannot be told any more, but somebody must hear of it
                self.strays += 1
                self.problem = f"A second picture came for part {answered.trigger.seq}, after it was answered: does the wire bounce?"

    def lost(self, why: LostFrame) -> list[Answer]:
        """Take a picture that must not be judged: the fault of the one trigger that can be meant; with several, they wait on."""
        self._unexplained += self._gap(why.seq)
        self._incomplete_ns = [*self._incomplete_ns[1 - _KEPT :], why.captured_ns]
        bare = [t for t in self._waiting if not self._in_window(t)]
        return [self._fail(bare[0], str(why), missing=False)] if len(bare) == 1 else []

    def begin_anew(self) -> None:
        """Start anew, as the camera was lost: its count starts again, and what did not come meanwhile is known to be missing."""
        self._last_seq = None
        self._unexplained = 0

    def settle(self, now_ns: int) -> list[Answer]:
        """The answers that can be given now, in the order of the triggers."""
        out = []
        for trigger in tuple(self._waiting):
            if now_ns < trigger.fired_ns + self._after_ns:
                continue
            mine = self._in_window(trigger)
            if mine:
                out.append(self._answer(trigger, mine))
            elif any(p.frame.captured_ns > trigger.fired_ns + self._after_ns for p in self._pictures):
                out.append(self._fail(trigger, "No picture for this trigger, but a later one came: the camera missed the wire's edge."))
        self._give_up(now_ns)
        return out

    def due_s(self, now_ns: int) -> float:
        """In how many seconds `settle` may have something new, if nothing comes before."""
        ends = [t.fired_ns + self._after_ns - now_ns for t in self._waiting]
        return min((e / 1e9 for e in ends if e > 0), default=0.1 if ends or self._pictures else 1.0)

    def _answer(self, trigger: Trigger, mine: list[_Picture]) -> Answer:
        picture = mine[0]
        others = [t for t in (*self._waiting, *(a.trigger for a in self._answered)) if t is not trigger]
        for p in mine:
            p.taken = True
        last_seq = mine[-1].frame.seq
        lost = self._unexplained + sum(p.gap for p in self._pictures if p.frame.seq <= last_seq)
        for p in self._pictures:
            p.gap = 0 if p.frame.seq <= last_seq else p.gap
        explained = sum(a.missing for a in self._answered)
        self._unexplained = 0
        for answered in self._answered:
            answered.missing = False
        if (pictures := len(mine) + sum(self._owns(trigger, t) for t in self._incomplete_ns)) > 1:
            return self._fail(trigger, f"{pictures} pictures for one trigger: which one shows the part is not known.", missing=False)
        if any(self._owns(t, picture.frame.captured_ns) for t in others):
            return self._fail(trigger, "The picture may belong to either of two triggers: they came too close together.", missing=False)
        if lost > explained:
            why = f"The camera counted {lost - explained} pictures more than came: frames and triggers may have lost step."
            return self._fail(trigger, why, missing=False)
        self._waiting.remove(trigger)
        self._close(trigger, missing=False)
        self.problem = None
        return Answer(trigger, picture.frame, picture.arrived_ns)

    def _fail(self, trigger: Trigger, why: str, missing: bool = True) -> Answer:
        self._waiting.remove(trigger)
        self._close(trigger, missing)
        self.problem = why
        return Answer(trigger, SourceError(why) if missing else FrameError(why))

    def _close(self, trigger: Trigger, missing: bool) -> None:
        self._answered = [*self._answered[1 - _KEPT :], _Answered(trigger, missing)]

    def _give_up(self, now_ns: int) -> None:
        kept = []
        for p in self._pictures:
            last_chance_ns = max(p.frame.captured_ns + self._before_ns, p.arrived_ns)
            wanted = any(self._owns(t, p.frame.captured_ns) for t in self._waiting)
            if not wanted and not p.taken and now_ns > last_chance_ns + _ORPHAN_NS:
                self.strays += 1
                self._unexplained += p.gap
                self.problem = (
                    f"{self.strays} pictures came without a trigger of the PLC: does the wire bounce, or is the window too short?"
                )
            elif wanted or now_ns < last_chance_ns + _KEPT_NS:
                kept.append(p)
        self._pictures = kept

    def _in_window(self, trigger: Trigger) -> list[_Picture]:
        return [p for p in self._pictures if self._owns(trigger, p.frame.captured_ns)]

    def _owns(self, trigger: Trigger, captured_ns: int) -> bool:
        return -self._before_ns <= captured_ns - trigger.fired_ns <= self._after_ns

    def _gap(self, seq: int) -> int:
        last, self._last_seq = self._last_seq, seq
        return 0 if last is None else max(seq - last - 1, 0)
