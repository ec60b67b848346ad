"""What a bundle says of itself: the tables of manifest.json, checked when they are read."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from edge_runtime.values import MOST_PX, MOST_SIDE, Side, check_region

SCHEMA = 2
READABLE = (1, SCHEMA)
"""Bundles of schema 1 do not say how they shrink: by area."""
SHORT_SHA256 = 16
"""Hex digits that are enough to know a training image again."""

_ROOM = 4
"""Times the pixels of a frame: a picture of another size is still decoded, so that its size is told beside the one that is wanted."""
MOST_VIEWS = 1024
"""Pictures that a frame becomes."""
FAR = 10.0
"""No threshold lies further than this factor beyond all that was scored where the bundle was built: it would accept every part."""
MOST_TOLERANCE = 0.05
"""A golden sample that may differ by more than this proves nothing (deploy/decisions/0008)."""

Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
_Offset = Annotated[int, Meta(ge=0, le=MOST_SIDE)]


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Common to all tables of the manifest."""


class TileSpec(_Record, frozen=True, kw_only=True):
    """A large region is cut into equal tiles, each a picture for the model (edge_runtime.model.tiles)."""

    columns: Annotated[int, Meta(ge=1, le=1024)]
    rows: Annotated[int, Meta(ge=1, le=1024)]
    overlap: Annotated[float, Meta(ge=0, le=0.5)] = 0.0
    """Share of a tile that its neighbour sees too, before it is rounded to a step that suits the map."""


class InputSpec(_Record, frozen=True, kw_only=True):
    """What the model takes, and how a frame becomes that (edge_runtime.model.preprocess)."""

    height: Side
    width: Side
    channels: Annotated[int, Meta(ge=1, le=3)]
    """The frames' channels: 1 gray (or a raw mosaic, see `bayer`) or 3 BGR. The model itself always gets three."""
    bits: Annotated[int, Meta(ge=8, le=16)] = 8
    """Significant bits of the frames' pixels: 8 for uint8; 10, 12, 14 or 16 for uint16."""
    frame_wh: tuple[Side, Side] | None = None
    """Size of the frames where all training images had one; None where sizes differ."""
    roi: tuple[_Offset, _Offset, Side, Side] | None = None
    """[x, y, width, height] in frame pixels; None is the whole frame."""
    ignore_mask: Annotated[str, Meta(min_length=1)] | None = None
    """File in the bundle: uint8 PNG of the frame's size, non-zero = ignored."""
    bayer: Literal["RGGB", "BGGR", "GRBG", "GBRG"] | None = None
    """Frames are a raw mosaic of 1 channel, whose first two rows begin with these colours; the model sees them in colour."""
    tiles: TileSpec | None = None
    """None: the whole region is one picture."""
    shrink: Literal["area", "halves"] = "halves"
    """How a picture that is too large becomes smaller (edge_runtime.model.shrink); `area` where nothing was said of it yet."""
    brightness: Annotated[float, Meta(gt=0, lt=256)] | None = None
    """Mean gray level that every picture is brought to by one factor before the model sees it (all tiles of a frame by the same); None:
    pictures are judged as bright as they come."""

    def __post_init__(self) -> None:
        """Raises ValueError, which msgspec reports with the path of the key."""
        if self.bayer is not None and self.channels != 1:
            raise ValueError(f"a Bayer mosaic has 1 channel, found {self.channels}")
        if self.channels == 2:
            raise ValueError("frames have 1 channel or 3, found 2")
        views = 1 if self.tiles is None else self.tiles.columns * self.tiles.rows
        if views > MOST_VIEWS:
            raise ValueError(f"a frame becomes at most {MOST_VIEWS} tiles, found {views:,}")
        if (pixels := views * self.height * self.width) > MOST_PX:
            raise ValueError(f"a frame becomes at most {MOST_PX:,} pixels for the model, found {pixels:,}")
        if self.frame_wh is not None and (pixels := self.frame_wh[0] * self.frame_wh[1]) > MOST_PX:
            raise ValueError(f"a frame has at most {MOST_PX:,} pixels, found {pixels:,}")
        check_region(self.roi)


def most_px_of(inputs: Iterable[InputSpec]) -> int | None:
    """Pixels beyond which no picture need be decoded for any of these; None where one of them takes frames of any size."""
    sizes = [spec.frame_wh for spec in inputs]
    pixels = [wh[0] * wh[1] for wh in sizes if wh is not None]
    return _ROOM * max(pixels) if pixels and len(pixels) == len(sizes) else None


class OutputSpec(_Record, frozen=True, kw_only=True):
    """What the model gives for one picture (of a tiled frame, for each tile): `score` (1,) and `map` (1, 1, height, width), raw float32."""

    map_height: Side
    map_width: Side


class Threshold(_Record, frozen=True, kw_only=True):
    """Where good ends, in raw scores."""

    value: Annotated[float, Meta(ge=1e-12)]
    """A part is rejected when its score is larger."""
    map_value: Annotated[float, Meta(ge=1e-12)]
    """A place of the map belongs to a region when its value is larger; the same rule applied to the maps' maxima."""
    rule: str
    """A sentence: how the value came about."""
    false_reject_rate: Share | None
    """The stated rate that the rule aims at."""
    false_reject_upper: Share | None
    """Upper bound of the true rate at `confidence`, from `n_good` images."""
    confidence: Share = 0.95
    n_good: Count = 0
    n_bad: Count = 0
    n_odd: Count = 0
    """Good images that look unlike the others, which were set apart where the rule allows it (training.fitting.odd)."""
    n_synthetic: Count = 0
    """How many of the bad images were painted, not photographed."""
    recall_lower: Share | None = None
    """Lower bound at `confidence` of the share of bad parts rejected, where a recall was asked for."""
    from_test_split: bool = False
    """True when asked to calibrate on the images that it is evaluated on: the figures are then flattering."""


class Drift(_Record, frozen=True, kw_only=True):
    """Scores that a healthy line shows, from held-out good parts, and how far a window of parts may stray (training.judging.drift)."""

    low: float
    """Raw score that all but `share` of good parts exceed."""
    median: float
    high: float
    """Raw score that all but `share` of good parts stay below."""
    share: Annotated[float, Meta(gt=0, lt=1)]
    window: Annotated[int, Meta(gt=0)]
    """Parts that are looked at together."""
    max_above: int
    """More of the last `window` accepted parts above `high` than this: the line drifts up."""
    max_below: int
    """More of the last `window` judged parts below `low` than this: it drifts down."""
    false_alarm: float
    """Probability, at any part and for each of the two, that a healthy line is over its limit: at most this."""
    n_good: int


class Acceptance(_Record, frozen=True, kw_only=True):
    """Whether what was built met what was asked of it, judged on the very model that ships (training.judging.acceptance)."""

    state: Literal["passed", "failed", "not assessed"]
    sentence: str
    """For people: the verdict, a colon, then what was found, what was asked, on what."""
    basis: Literal["real", "painted", "none"]
    """Which bad parts it rests on: photographed ones, painted ones, or none."""
    max_missed: float
    """Share of bad parts that may be accepted, 0..1."""
    max_rejected: float
    """Share of good parts that may be rejected, 0..1."""
    confidence: float | None = None
    """None: the shares that were seen are compared; else their upper bounds at this confidence."""
    missed: int = 0
    n_bad: int = 0
    rejected: int = 0
    n_good: int = 0
    apart: int = 0
    """Good images that were set apart as unlike the others: not learnt, not counted here, perhaps a variant that would be rejected."""
    forced: bool = False
    """It failed, and was built all the same because its user asked for that by name."""

    @property
    def why(self) -> str:
        """The sentence without the verdict, which then stands beside it."""
        return self.sentence.partition(": ")[2] or self.sentence


class Wander(_Record, frozen=True, kw_only=True):
    """What becomes of the figures when the line strays in one way from what was taught."""

    what: Literal["clean", "light", "gamma", "blur", "shift", "turn", "noise", "jpeg"]
    amount: float
    """light: a factor; gamma: the exponent; blur: sigma in pixels of the model's input; shift: a share of the side; turn: degrees; noise:
    standard deviation in gray levels of 255 of the frame's pixels; jpeg: the quality. clean: 0, nothing strays."""
    image_auroc: float | None
    rejected: float
    """Share of the good parts at the unchanged threshold."""
    missed: float | None
    """Share of the bad parts."""
    holds: bool
    """Whether the promise still holds here."""
    breaks: Literal["", "rejects", "misses", "both"] = ""
    """What breaks it: good parts that are rejected, bad ones that are missed."""


class Axis(_Record, frozen=True, kw_only=True):
    """One way in which parts lie off, and how well it is seen (training.judging.placed): only where good parts have proved that it is."""

    way: Literal["x", "y", "turn"]
    usual: float
    """Median of good parts, in shares of the side, or degrees: the mean picture need not lie in the middle."""
    spread: Annotated[float, Meta(ge=0)]
    """Standard deviation from good part to good part."""
    gain: Annotated[float, Meta(gt=0)]
    """What is measured of parts that were really moved by 1."""


class Placement(_Record, frozen=True, kw_only=True):
    """By what the device sees that parts lie elsewhere than those taught (edge_runtime.model.placement)."""

    reference: Annotated[str, Meta(min_length=1)]
    """File in the bundle: the mean of good parts, a small gray PNG."""
    axes: Annotated[tuple[Axis, ...], Meta(min_length=1)]


class Envelope(_Record, frozen=True, kw_only=True):
    """How far the line may stray from what was taught before the verdicts' promise breaks (training.judging.envelope)."""

    rows: tuple[Wander, ...]
    """The undistorted pictures first."""
    basis: Literal["real", "painted", "none"]
    """Which bad parts the misses and AUROCs are of."""
    n_good: int
    n_bad: int
    brightness: Annotated[float, Meta(gt=0)]
    """Median over good parts of the frame's mean gray level where it is judged, before any photometric normalisation; 0..255."""
    sharpness: Annotated[float, Meta(gt=0)]
    """Median over good parts of the same places' standard deviation of the Laplacian at the model's scale, relative to their mean gray
    level, so that less light is no blur (edge_runtime.model.sight)."""
    brightness_spread: Annotated[float, Meta(ge=0)] = 0.0
    """Standard deviation from good part to good part, relative to `brightness`."""
    sharpness_spread: Annotated[float, Meta(ge=0)] = 0.0
    noise: Annotated[float, Meta(ge=0)] = 0.0
    """Median over good parts of the noise of the frame's own pixels, in gray levels of 255; 0: not measured."""
    noise_spread: Annotated[float, Meta(ge=0)] = 0.0
    """Standard deviation from good part to good part, relative to `noise`."""
    light_low: float | None = None
    """Brightness, relative to `brightness`, down to which the promise was tried and held; None: it held as far down as was tried."""
    light_high: float | None = None
    blur_low: float | None = None
    """Sharpness, relative to `sharpness`, down to which it held."""
    light_low_breaks: Literal["", "rejects", "misses", "both"] = ""
    """What breaks there."""
    light_high_breaks: Literal["", "rejects", "misses", "both"] = ""
    blur_breaks: Literal["", "rejects", "misses", "both"] = ""
    gamma_low: float | None = None
    """Exponent down to which it held; None: as far as was tried."""
    gamma_high: float | None = None
    shift_limit: float | None = None
    """Share of the side, the worst way, up to which it held."""
    shift_breaks: Literal["", "rejects", "misses", "both"] = ""
    parts_shift: float | None = None
    """Share of the side by which half of the taught parts lie off their usual place, or more; None: pictures do not tell it."""
    turn_limit: float | None = None
    """Degrees, the worse way."""
    turn_breaks: Literal["", "rejects", "misses", "both"] = ""
    noise_limit: float | None = None
    """Standard deviation in gray levels of 255 that was added to the frame's pixels."""
    noise_breaks: Literal["", "rejects", "misses", "both"] = ""
    placement: Placement | None = None
    """None: the pictures do not tell where parts lie, or it does not matter."""
    max_rejected: float = 0.0
    """Share of good parts beyond which the promise counts as broken: what was asked of the release, or what the clean pictures show."""
    max_missed: float | None = None
    """The same of bad parts; None: a bundle of before."""
    held_out: bool = True
    """False: the good parts were taught; what the detector says of them was corrected to their held-out scores."""


class DisplayScale(_Record, frozen=True, kw_only=True):
    """The product's fixed colour scale: raw map values painted as cold and as hot."""

    low: float
    """Median of the maps of good parts."""
    high: Annotated[float, Meta(gt=0)]
    """Twice the map's threshold, so that the threshold itself sits in the middle of the scale's warm half."""


class Golden(_Record, frozen=True, kw_only=True):
    """One sample that must score the same on every device."""

    image: str
    """File in the bundle: a frame as the camera gives it, lossless PNG."""
    score: float
    map_peak: float


class Metrics(_Record, frozen=True, kw_only=True):
    """Figures of one precision on the named data; None where the data cannot tell."""

    image_auroc: float | None = None
    image_ap: float | None = None
    f1: float | None = None
    false_reject_rate: float | None = None
    false_accept_rate: float | None = None
    pixel_auroc: float | None = None
    aupro: float | None = None
    threshold: float | None = None
    n_good: int = 0
    n_bad: int = 0


class Dataset(_Record, frozen=True, kw_only=True):
    """What the detector was taught on."""

    name: str
    fingerprint: str
    """sha256 over the sorted sha256 of all training images."""
    n_good: int
    good_sha256: tuple[str, ...] = ()
    """The first 16 hex digits of each training image's, so that an evaluation can tell which it was taught on."""
    bad_kinds: tuple[str, ...] = ()
    """Kinds of real bad parts that it learnt from, too."""
    bad_sha256: tuple[str, ...] = ()
    """sha256 of these files, so that no evaluation counts them."""
    n_synthetic: int = 0
    """Defects painted into good parts that it learnt from."""
    odd: tuple[str, ...] = ()
    """Names of good images that look unlike the others, the oddest first; up to 50 of them (training.fitting.odd)."""
    odd_margins: tuple[float, ...] = ()
    """How unlike each of them is, as a multiple of the most unlike of the others: 1.0 is where those end."""
    n_lossy: int | None = None
    """How many of the good images came in files whose compression loses something (edge_runtime.images.loss); None: nobody looked."""
    quality: int = 0
    """Median quality of those that are JPEG, 1 to 100; 0 where none is."""


class Manifest(_Record, frozen=True, kw_only=True):
    """All that the device must know of a model. JSON in `manifest.json`."""

    schema: int
    name: str
    version: str
    created: str
    method: str
    backbone: str
    params: dict[str, Any]
    precision: str
    """"int8" or "fp32": of the backbone; the head's is always float."""
    input: InputSpec
    output: OutputSpec
    threshold: Threshold
    display: DisplayScale
    clamped: bool = False
    """Scores and maps end at 0 and at 1: a model adopted from a tool that clamps them (ours are raw and have no end)."""
    drift: Drift | None = None
    """None where too few good parts were held out to know what is usual."""
    acceptance: Acceptance | None = None
    """None: nobody asked, as with bundles of before and adopted ones."""
    envelope: Envelope | None = None
    """None: not measured."""
    dataset: Dataset
    metrics: dict[str, Metrics]
    """By precision: torch, fp32, int8."""
    golden: Annotated[list[Golden], Meta(min_length=4)]
    golden_tolerance: Annotated[float, Meta(gt=0, le=MOST_TOLERANCE)]
    """Relative: |score - expected| <= tolerance * expected ; the same for the map's peak."""
    files: dict[str, str]
    """Relative path -> sha256, of every file but the manifest."""
    tools: dict[str, str]
    """Versions of what built it."""

    def __post_init__(self) -> None:
        """Raises ValueError for thresholds that accept every part, or none, to judge by what its own samples score."""
        self.check_threshold(self.threshold.value)
        most = FAR * max([1.0 if self.clamped else 0.0, self.display.low, *(g.map_peak for g in self.golden)])
        if 0 < most < self.threshold.map_value:
            raise ValueError(
                f"a map threshold of at most {most:.4g}, {FAR:g} times the largest map peak of its own samples,"
                f" found {self.threshold.map_value:.4g}: no place would ever be marked"
            )

    def check_threshold(self, value: float) -> None:
        """Raises ValueError for a threshold on the score far beyond all that was scored where the bundle was built, or far below.

        A recipe's own is held against the same (deploy/decisions/0009).
        """
        held_out = (self.drift.low, self.drift.high) if self.drift is not None else None
        most = FAR * max([1.0 if self.clamped else 0.0, held_out[1] if held_out else 0.0, *(g.score for g in self.golden)])
        if 0 < most < value:
            raise ValueError(
                f"a threshold of at most {most:.4g}, {FAR:g} times the largest score of its own samples and held-out good parts,"
                f" found {value:.4g}: every part would be accepted"
            )
        if held_out and value < held_out[0] / FAR:
            raise ValueError(
                f"a threshold of at least {held_out[0] / FAR:.4g}, a tenth of what good parts score, found {value:.4g}:"
                " every part would be rejected"
            )
