"""What flows through a station: frozen records, from the trigger to the decision.

Times are CLOCK_MONOTONIC nanoseconds (`_ns`); wall time is kept beside them for people only.
"""

import enum
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = [
    "Affine",
    "Cause",
    "Decision",
    "Delivery",
    "DriftState",
    "Frame",
    "Health",
    "Image",
    "Outcome",
    "Picture",
    "Prediction",
    "Region",
    "Release",
    "ReleaseState",
    "ScoreMap",
    "ShadowState",
    "SightState",
    "Stamps",
    "State",
    "Trend",
    "Trigger",
    "Verdict",
    "View",
]

Image = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""(H, W) gray or (H, W, 3) BGR, uint8 or uint16, as the camera gives it."""

ScoreMap = npt.NDArray[np.float32]
"""(h, w) raw anomaly scores on the model's grid; larger is more anomalous; never normalised."""

Affine = npt.NDArray[np.float64]
"""(2, 3): [x_frame, y_frame] = A[:, :2] @ [x_grid, y_grid] + A[:, 2]; a cell (col, row) spans [col, col + 1) x [row, row + 1)."""


class Verdict(enum.StrEnum):
    """What the line does with a part. FAULT is not a verdict on the part and never means accept.

    >>> Verdict("REJECT") is Verdict.REJECT and Verdict.REJECT == "REJECT"
    True
    """

    ACCEPT = "ACCEPT"
    """The part was judged and is within its threshold."""
    REJECT = "REJECT"
    """The part was judged and exceeds its threshold."""
    FAULT = "FAULT"
    """The part could not be judged: the reason says why."""


class Cause(enum.IntEnum):
    """Why a part is a FAULT, in one number: the PLC's `fault_code`. Codes above 100 are the station's own (plc.signals.StationFault)."""

    NONE = 0
    """No FAULT."""
    CAMERA = 1
    """No picture, or not in time."""
    FRAME = 2
    """A picture that cannot be judged: older than its trigger, of another size or type."""
    MODEL = 3
    """The model failed, gave no number, or did not answer in time."""
    LATE = 4
    """Judged after the deadline."""
    REFUSED = 5
    """Triggered while the station was not ready: busy, too many waiting, or the recipe being prepared."""
    RECIPE = 6
    """The station has no recipe of that name."""
    PLC = 7
    """The PLC was lost: the result could not have been acted upon."""
    ENDED = 8
    """The station was killed, or lost its power, while the part was in flight; the next start says so."""
    INTERNAL = 9
    """A bug in Lineside."""
    JOURNAL = 10
    """Its row was not in the journal in time, and this station accepts no part without one."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """The announcement of one part: its number, when it came, and what it is to be judged by."""

    seq: int
    """Counts triggers of this station, 1 upwards, across restarts (the journal knows the last)."""
    fired_ns: int
    """When the edge was seen: no picture from before it is judged."""
    part_id: str
    """The line's own name of the part; empty when the line gives none."""
    recipe: str = ""
    """Key of the recipe that it is to be judged by, as named in the station file's [recipes]; empty for the station's own `recipe`."""
    refused: str = ""
    """Why it cannot be judged: it then gets its FAULT in its turn, with this sentence, and no frame is asked for it."""
    since_ns: int = 0
    """When its signal was last seen low: the part was announced no earlier, and its deadline counts from then. 0: from `fired_ns`."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture, as a camera or a file gave it."""

    seq: int
    """Counts frames of this source, 1 upwards."""
    captured_ns: int
    """When the exposure began, or the best lower bound that the source can give."""
    source: str
    """Its name, where the source's pictures have names: a file's path, VIDEO#NUMBER. Empty: a camera's have none."""
    image: Image
    """Read-only array, (H, W) or (H, W, 3) BGR, uint8 or uint16."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one frame: raw, unbounded, larger = more anomalous."""

    score: float
    """The image's score, never normalised or clipped. May be NaN if the model is broken: the judge refuses it."""
    score_map: ScoreMap
    """(h, w) float32 on the model's grid."""
    grid_to_frame: Affine
    """(2, 3) float64 from grid to frame pixels."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What one camera gave of a part, and what the model said of it: as archive and preview get it."""

    camera: str
    """Its name in the station file; empty at a station with one camera."""
    frame: Frame | None
    prediction: Prediction | None


@dataclass(frozen=True, slots=True)
class Region:
    """One suspicious place, in frame pixels, half open: x0 <= x < x1.

    >>> region = Region(x0=100, y0=50, x1=116, y1=58, area_px=120, peak=31.5)
    >>> (region.x1 - region.x0) * (region.y1 - region.y0)  # pixels of its box
    128
    """

    x0: int
    y0: int
    x1: int
    y1: int
    area_px: int
    """Pixels of the frame above the map threshold (not the box's area)."""
    peak: float
    """Largest value of the raw map inside the region."""


@dataclass(frozen=True, slots=True)
class Stamps:
    """When each stage of one part was reached, in CLOCK_MONOTONIC nanoseconds; 0 where one was never reached.

    >>> stamps = Stamps(fired_ns=1_000_000, captured_ns=1_400_000, decided_ns=9_000_000, told_ns=9_500_000)
    >>> (stamps.told_ns - stamps.fired_ns) / 1e6  # milliseconds from the trigger to the first receiver
    8.5
    """

    fired_ns: int
    captured_ns: int = 0
    grabbed_ns: int = 0
    """When the loop held the frame."""
    predicted_ns: int = 0
    decided_ns: int = 0
    told_ns: int = 0
    """When the first receiver was about to be told."""


_RANK = {Verdict.ACCEPT: 0, Verdict.FAULT: 1, Verdict.REJECT: 2}


@dataclass(frozen=True, slots=True)
class View:
    """What one camera saw of a part, judged by itself."""

    camera: str
    """Its name in the station file; empty at a station with one camera."""
    verdict: Verdict
    """By this camera's picture alone. The part's is `Decision.verdict`: of one judged late a FAULT, whatever its views say."""
    reason: str
    """A sentence for the operator."""
    score: float | None
    """None when there was nothing to score (FAULT)."""
    threshold: float
    """On `score`, after the recipe's override; 0 for a part whose recipe is not known."""
    severity: float | None
    """score / threshold; None for a FAULT."""
    regions: tuple[Region, ...]
    """Places that exceed the map's threshold, the worst first; of a rejected view at least its worst place."""
    frame_wh: tuple[int, int]
    """Width and height in pixels; (0, 0) when no frame was had."""
    bundle_id: str
    """The model that judged it; empty for a part whose recipe is not known."""
    recipe: str
    """The name of the recipe that it was judged by; what was asked for where that is not known."""
    captured_ns: int = 0
    """As in `Stamps`; 0 where a stage was never reached."""
    grabbed_ns: int = 0
    predicted_ns: int = 0
    source: str = ""
    """Which picture it is of, as in `Decision`."""

    @property
    def weight(self) -> tuple[int, float]:
        """How much it counts beside a part's other views: the largest decides, of equal ones the first. Why: deploy/decisions/0016."""
        return _RANK[self.verdict], self.severity or 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """The one answer to one trigger.

    The fields before `views` are the part's. Where several cameras look, its score, threshold, severity, regions, frame_wh, bundle_id and
    recipe are those of the view that decided (`deciding`).

        for view in decision.views:  # one or many: a station with one camera gives one
            print(view.camera, view.verdict, view.severity)
    """

    station: str
    """Its name in the station file."""
    seq: int
    """That of its trigger: counts up by one at each station."""
    part_id: str
    """The line's own name of the part; empty when the line gives none."""
    verdict: Verdict
    """What the line does with the part."""
    reason: str
    """A sentence for the operator."""
    score: float | None
    """None when there was nothing to score (FAULT)."""
    threshold: float
    """The effective threshold on `score`, after the recipe's override; 0 for a part whose recipe is not known."""
    severity: float | None
    """score / threshold: 1.0 is the border on every product. None for a FAULT."""
    regions: tuple[Region, ...]
    """Places that exceed the map's threshold, the worst first; of a rejected part at least its worst place."""
    frame_wh: tuple[int, int]
    """(0, 0) when no frame was had."""
    bundle_id: str
    """Empty for a part whose recipe is not known."""
    recipe: str
    """Its name; what was asked for where that is not known."""
    stamps: Stamps
    wall_time: str
    """ISO 8601, UTC; for people, never for arithmetic."""
    views: tuple[View, ...]
    """One a camera, in the station file's order; never empty, also where no camera was asked."""
    cause: Cause = Cause.NONE
    """Why it is a FAULT; NONE otherwise."""
    source: str = ""
    """Which picture it is of (`Frame.source`); empty where pictures have no names or there was none."""

    def __post_init__(self) -> None:
        if not self.views:
            raise ValueError("a decision holds at least one view, found none")

    @property
    def deciding(self) -> View:
        """The view that decided: the worst REJECT; else a FAULT; else the ACCEPT nearest to its threshold."""
        return max(self.views, key=lambda view: view.weight)


class Outcome(enum.StrEnum):
    """What became of a decision at one of its receivers."""

    TOLD = "told"
    """It was shown what `Delivery.detail` says."""
    ACKNOWLEDGED = "acknowledged"
    """It said that it has taken it."""
    UNACKNOWLEDGED = "unacknowledged"
    """It has not, within its time."""
    FAILED = "failed"
    """It could not be told; `Delivery.detail` says why."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one decision at one receiver: of the PLC always, of the others where they could not be served."""

    seq: int
    """The decision's."""
    to: str
    """"plc", "publisher", "archives", "previews", or a further sink's name."""
    outcome: Outcome
    at_ns: int
    """CLOCK_MONOTONIC."""
    detail: str = ""
    """The verdict that was told, or why it failed."""


class State(enum.StrEnum):
    """What a station is doing."""

    STARTING = "STARTING"
    """Opening devices, running the golden samples; no part is judged yet."""
    READY = "READY"
    """Every trigger gets its verdict."""
    DEGRADED = "DEGRADED"
    """Triggers are answered, but something is wrong (camera lost, journal late, disk full): `problems` says what."""
    STOPPING = "STOPPING"
    """Finishing the part in flight."""


class Trend(enum.StrEnum):
    """Which way the scores of recent parts drift, against those of the good parts that the line was calibrated on."""

    OK = "ok"
    UP = "drifting up"
    DOWN = "drifting down"


@dataclass(frozen=True, slots=True)
class DriftState:
    """Whether recent scores stray from those of calibration, with the counts that this rests on; the limits are the manifest's."""

    trend: Trend
    above: int
    """How many of the last `accepted` accepted parts score above what nine in ten good parts stay below."""
    below: int
    """How many of the last `judged` parts score below what nine in ten good parts exceed."""
    accepted: int
    judged: int
    median: float | None
    """Median of the last accepted parts' raw scores; None before the first."""
    usual_median: float
    """The median of held-out good parts, as calibrated."""


class Release(enum.StrEnum):
    """Whether what judges was found fit for release when its bundle was built."""

    RELEASED = "released"
    """It met what was asked of it, at the threshold that is in effect."""
    UNKNOWN = "not assessed"
    """Nobody asked, there was nothing to judge it by, or the recipe judges otherwise than the bundle was judged."""
    REFUSED = "not released"
    """It did not, and was built all the same."""


@dataclass(frozen=True, slots=True)
class ReleaseState:
    """Whether what judges was found fit for release, and why."""

    word: Release
    why: str
    """For people."""


@dataclass(frozen=True, slots=True)
class SightState:
    """How the last pictures differ, in the median, from those that the detector was taught (edge_runtime.station.wander)."""

    brightness: float
    """1: as bright as taught."""
    sharpness: float
    """1: as sharp as taught, at the scale of the model's input."""
    parts: int
    """How many parts the medians are of."""
    off: dict[str, float] = field(default_factory=dict)
    """Where parts lie, of the ways in which the pictures tell it: "x" to the right and "y" downwards, in shares of the picture's width and
    height, "turn" in degrees counterclockwise; 0 as taught."""
    noise: float | None = None
    """1: as noisy as taught; None where nothing tells it."""


@dataclass(frozen=True, slots=True)
class ShadowState:
    """How a model that only looks on would have judged, beside the one that judges (edge_runtime.station.shadow)."""

    camera: str
    """Empty for the only one."""
    recipe: str
    """The recipe's name."""
    bundle_id: str
    every: int
    """It is shown every so many-th judged part."""
    judged: int
    """Parts that it has scored, since it or what judges began."""
    accepts: int
    """Rejects among them that it would have accepted."""
    rejects: int
    """Accepts among them that it would have rejected."""
    skipped: int
    """Parts that it was to score and did not: it was busy, or could not."""

    @property
    def sentence(self) -> str:
        """For people."""
        said = f"{self.accepts + self.rejects} of {self.judged} parts judged otherwise"
        ways = [f"{n} {what}" for n, what in ((self.accepts, "rejects that it accepts"), (self.rejects, "accepts that it rejects")) if n]
        told = f" ({', '.join(ways)})" if ways else ""
        skipped = f"; {self.skipped} not looked at" if self.skipped else ""
        every = "each part" if self.every == 1 else f"one part in {self.every}"
        return f"{said}{told}, bundle {self.bundle_id[:12]}, {every}{skipped}"


@dataclass(frozen=True, slots=True)
class Health:
    """How a station is, published once a second."""

    station: str
    state: State
    problems: tuple[str, ...]
    """One sentence each; empty when all is well."""
    bundle_ids: tuple[str, ...]
    """The models that judge now, one a camera in the station file's order."""
    recipes: tuple[str, ...]
    """Names of the recipes that they judge by, in the same order."""
    device: str
    """The inference device that is really used, as read back."""
    uptime_s: float
    counts: dict[str, int]
    """Since start, by verdict (ACCEPT, REJECT, FAULT), and `overruns` (parts announced while the station was not ready for them),
    `dropped_previews`, `dropped_archives`."""
    stages_ms: dict[str, tuple[float, float]]
    """Stage -> (median, p99) over the last 1,000 decisions: grab, predict, overhead, total."""
    last_seq: int
    wall_time: str
    drift: DriftState | None = None
    """None for a bundle without drift limits. With several cameras: of the first one that drifts, else of the first one."""
    inference: str = ""
    """With several cameras: whether their models run "together" or "in turn", whichever was faster at start."""
    connections: dict[str, dict[str, int]] = field(default_factory=dict)
    """Since start, `reconnects` of each camera ("camera NAME", or "camera" for the only one) and of the PLC ("plc"), and the
    `incomplete_frames` of an industrial camera."""
    release: ReleaseState | None = None
    """The state of the recipes and models that judge now, the worst of several cameras; None from a station that does not tell."""
    queues: dict[str, int] = field(default_factory=dict)
    """What waits now: `parts` for their turn, `observers` for archive and preview, `journal` for the disk."""
    sight: SightState | None = None
    """None for a bundle without an envelope, and before the first part. With several cameras: of the first one whose pictures stray, else
    of the first one."""
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Problems that somebody has taken note of, and who; one that goes away and comes again is another one."""
    origins: tuple[str, ...] = ()
    """Where the models and thresholds that judge now come from, one a camera: "recipe file", or who deployed them, when and why."""
    shadows: tuple[ShadowState, ...] = ()
    """Models that look on."""
