"""A model that looks on: it scores parts after their verdict, and how it would have judged is counted and kept, before it gets the vote.

Why: deploy/decisions/0051.
"""

import threading
import time
from collections.abc import Callable

import msgspec

from edge_runtime.errors import DeviceError, FrameError, SinkError
from edge_runtime.model.predictor import OpenvinoPredictor
from edge_runtime.records import Decision, Picture, ShadowState, Verdict, View
from edge_runtime.sinks.archive import Archive
from edge_runtime.station.judge import Limits, judge
from edge_runtime.station.observers import ShadowSink

NOTE_EVERY_S = 60.0
"""How often it is written down how a shadow has judged so far: what a kill takes of it."""


class Disagreements:
    """The pictures of parts that a shadow judged otherwise, bounded like the archive's; several shadows of a station share it."""

    def __init__(self, archive: Archive) -> None:
        """`archive`: entered by whoever closes it."""
        self._archive = archive
        self._lock = threading.Lock()

    def keep(self, decision: Decision, picture: Picture, also: dict[str, object]) -> None:
        """Keep one. Raises SinkError where the disk takes none."""
        with self._lock:
            self._archive.keep(decision, (picture,), also)
            if (problem := self._archive.problem) is not None:
                raise SinkError(problem)


class Shadow(ShadowSink):
    """Scores one camera's pictures of one recipe. Shown parts in a thread of its own, asked for its state from any."""

    def __init__(
        self,
        camera: str,
        recipe: str,
        predictor: OpenvinoPredictor,
        limits: Limits,
        every: int,
        keep: Callable[[], Disagreements],
        write_down: Callable[[ShadowState], None] = lambda state: None,
    ) -> None:
        """`camera`: its name; `recipe`: the recipe's name. `predictor`: of its own, as no two threads may use one.

        `keep`: where its disagreements go, opened at the first. `write_down`: of how it has judged so far; never waits.
        """
        self.predictor = predictor
        self._camera, self._recipe, self._limits, self._every, self._keep = camera, recipe, limits, every, keep
        self._write_down = write_down
        self._judged = self._accepts = self._rejects = self._skipped = 0
        self._noted: ShadowState | None = None
        self._noted_at = time.monotonic()

    def go_on(self, judged: int, accepts: int, rejects: int, skipped: int) -> None:
        """Count on from what was counted before a restart."""
        self._judged, self._accepts, self._rejects, self._skipped = judged, accepts, rejects, skipped
        self._noted = self.state

    def note(self, after_s: float = 0.0) -> None:
        """Write down how it has judged so far, where that is news and was written so long ago."""
        if time.monotonic() - self._noted_at >= after_s and (state := self.state) != self._noted:
            self._noted, self._noted_at = state, time.monotonic()
            self._write_down(state)

    @property
    def state(self) -> ShadowState:
        """How it would have judged so far."""
        return ShadowState(
            self._camera, self._recipe, self.predictor.bundle.id, self._every, self._judged, self._accepts, self._rejects, self._skipped
        )

    def wants(self, decision: Decision) -> bool:
        """Parts of its recipe that its camera's model judged."""
        return any(self._is_ours(view) for view in decision.views)

    def skip(self) -> None:
        """A part was not looked at."""
        self._skipped += 1

    def begin_anew(self) -> None:
        """Another model judges from now on: what was counted was said of the one before."""
        self._judged = self._accepts = self._rejects = self._skipped = 0

    def put(self, decision: Decision, pictures: tuple[Picture, ...]) -> None:
        """Score one part, and compare. Raises SinkError where that cannot be."""
        self._score(decision, pictures)
        self.note(NOTE_EVERY_S)

    def _score(self, decision: Decision, pictures: tuple[Picture, ...]) -> None:
        for view, picture in zip(decision.views, pictures, strict=True):
            if not self._is_ours(view) or picture.frame is None:
                continue
            try:
                prediction = self.predictor.predict(picture.frame)
            except (DeviceError, FrameError) as e:
                self.skip()
                raise SinkError(f"shadow: bundle {self.predictor.bundle.id[:12]} cannot score the part: {e}") from e
            judgement = judge(prediction, self._limits, view.frame_wh)
            self._judged += 1
            if judgement.verdict is view.verdict:
                continue
            if judgement.verdict is Verdict.ACCEPT:
                self._accepts += 1
            else:  # also one that it could not judge: the line would have stopped the part
                self._rejects += 1
            said = {
                "bundle_id": self.predictor.bundle.id, "verdict": judgement.verdict, "reason": judgement.reason, "score": prediction.score,
                "threshold": self._limits.threshold, "regions": msgspec.to_builtins(judgement.regions),
            }  # fmt: skip
            self._keep().keep(decision, picture, {"shadow": said})

    def _is_ours(self, view: View) -> bool:
        return (view.camera, view.recipe) == (self._camera, self._recipe) and view.verdict is not Verdict.FAULT
