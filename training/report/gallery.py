"""The pictures of a report: which parts are worth a look, with their heat map and boxes in the device's own colours."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.model.manifest import DisplayScale, InputSpec, Threshold
from edge_runtime.model.regions import find_regions, worst_place
from edge_runtime.overlay.picture import as_bgr, heat_table, paint_heat, paint_regions, scale_share
from edge_runtime.records import ScoreMap
from edge_runtime.sinks.preview import encode_small
from training.data.dataset import Dataset
from training.data.facts import frame_of
from training.data.layout import Sample
from training.data.masks import truth
from training.judging.evaluate import Predict, Scored

WORST = 6
"""False rejects shown, and misses."""
KINDS = 18
"""Kinds of defect shown."""
_SIDE_PX = 320
_UNIT = 0.55
"""Size of the boxes' lines and labels: the operator's full screen is 1."""
_QUALITY = 82
_WARM = 0.1
_MASK = (236, 190, 0)  # BGR
_INK = (20, 20, 24)


@dataclass(frozen=True, slots=True)
class Shot:
    """One part, twice: as it is, and as the operator would see it."""

    name: str
    kind: str
    score: float
    severity: float
    """score / threshold."""
    plain: str
    """data: URI; with the marked defect outlined, where there is a mask."""
    painted: str
    """data: URI."""
    wh: tuple[int, int]
    """Width and height of both, in pixels."""
    margin: float | None = None
    """How odd a good image is that looks unlike the others: manifest.Dataset.odd_margins."""


@dataclass(frozen=True, slots=True)
class Picks:
    """Positions of images, the most telling first."""

    false_rejects: list[int]
    false_accepts: list[int]
    typical: list[int]
    """The image in the middle of the scores of each kind of defect, unless it is among those missed."""
    kinds_left_out: int


def pick(scored: Scored, threshold: float) -> Picks:
    """What to look at."""
    good, score = scored.is_good, scored.scores.score
    order = np.argsort(-score, kind="stable")
    false_rejects = [int(i) for i in order if good[i] and score[i] > threshold]
    false_accepts = [int(i) for i in order[::-1] if not good[i] and score[i] <= threshold]
    kinds: dict[str, list[int]] = {}
    for i in order:
        if not good[i]:
            kinds.setdefault(scored.samples[i].kind, []).append(int(i))
    common = sorted(kinds, key=lambda kind: -len(kinds[kind]))[:KINDS]
    shown = false_accepts[:WORST]  # one that is missed is drawn once
    middles = [kinds[kind][len(kinds[kind]) // 2] for kind in sorted(common)]
    typical = [i for i in middles if i not in shown]
    return Picks(false_rejects[:WORST], false_accepts[:WORST], typical, len(kinds) - len(common))


def shoot(
    predict: Predict, scored: Scored, rows: Sequence[int], spec: InputSpec, display: DisplayScale, threshold: Threshold, line: float
) -> list[Shot]:
    """Pictures of some images; boxes and colours are those at `line`, a threshold on the score (the map's follows in proportion).

    Raises DataError.
    """
    scores = scored.scores.score
    return [as_shot(develop(predict, scored.samples[i], spec, display, threshold, line, float(scores[i]))) for i in rows]


@dataclass(frozen=True, slots=True)
class Developed:
    """One part, as pictures (h, w, 3) uint8 BGR of one size."""

    sample: Sample
    score: float
    severity: float
    plain: npt.NDArray[np.uint8]
    painted: npt.NDArray[np.uint8]


def develop(
    predict: Predict, sample: Sample, spec: InputSpec, display: DisplayScale, threshold: Threshold, line: float,
    score: float | None = None, own_scale: bool = False,
) -> Developed:  # fmt: skip
    """A part as it is, and with the heat map and boxes at `line`. Raises DataError.

    `score`: None is what `predict` says. `own_scale`: the heat is on the highest tenth of the part's own map, without boxes:
    where it is least like the others shows, however little that is.
    """
    moved = line / threshold.value
    map_threshold = threshold.map_value * moved
    frame = frame_of(sample.path, spec)
    found = predict(frame)
    score = found.score if score is None else score
    height, width = frame.image.shape[:2]
    regions = find_regions(found.score_map, found.grid_to_frame, (width, height), map_threshold)
    if score > line and not regions:
        regions = worst_place(found.score_map, found.grid_to_frame, (width, height))
    plain = _small(encode_small(frame.image, _SIDE_PX, spec.bits))
    h, w = plain.shape[:2]
    to_picture = (w / width, h / height)
    painted = plain.copy()
    share = _own_share(found.score_map) if own_scale else scale_share(found.score_map, display.low, display.high * moved)
    paint_heat(painted, share, np.diag(to_picture) @ found.grid_to_frame)
    if not own_scale:
        paint_regions(painted, regions, to_picture, map_threshold, _UNIT)
    mask = truth(sample, (width, height))
    if mask is not None and mask.any():
        _outline(plain, mask)
    return Developed(sample, score, score / line, plain, painted)


def as_shot(part: Developed, margin: float | None = None) -> Shot:
    """For a page."""
    h, w = part.plain.shape[:2]
    return Shot(part.sample.path.name, part.sample.kind, part.score, part.severity, _uri(part.plain), _uri(part.painted), (w, h), margin)


def odd_samples(dataset: Dataset, names: Sequence[str], most: int = WORST) -> list[Sample]:
    """Good images by name, as far as they are still there."""
    root = dataset.path.parent if dataset.path.is_file() else dataset.path
    paths = [root / name for name in names]
    return [Sample(path, "good", True, None, "train") for path in paths if path.is_file()][:most]


def _own_share(score_map: ScoreMap) -> ScoreMap:
    """(h, w) in 0..1 as of scale_share: the highest _WARM of this map's cells are warm, and the highest is the hottest."""
    low, high = float(np.quantile(score_map, 1 - _WARM)), float(score_map.max())
    return np.where(score_map > low, 0.5 + 0.5 * (score_map - low) / max(high - low, 1e-12), 0).astype(np.float32)


def heat_css() -> str:
    """The product's colour scale as a CSS gradient over white, from cold to hot."""
    stops = []
    for share in np.linspace(0, 1, 21):
        b, g, r, opacity = heat_table()[int(share * 255)]
        stops.append(f"rgba({r:.0f},{g:.0f},{b:.0f},{opacity:.2f}) {100 * share:.0f}%")
    return f"linear-gradient(90deg,{','.join(stops)})"


def _small(jpeg: bytes) -> npt.NDArray[np.uint8]:
    """(h, w, 3), its longer side _SIDE_PX: small parts are enlarged, so that boxes and labels can be read."""
    image = as_bgr(np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_UNCHANGED), dtype=np.uint8))
    scale = _SIDE_PX / max(image.shape[:2])
    if scale == 1:
        return image
    wh = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    return np.asarray(cv2.resize(image, wh, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def _outline(image: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> None:
    h, w = image.shape[:2]
    small = (cv2.resize((mask > 0).astype(np.float32), (w, h), interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    small = np.asarray(cv2.dilate(small, np.ones((5, 5), np.uint8)), dtype=np.uint8)  # the line lies beside the defect, not on it
    contours, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, contours, -1, _INK, 4, cv2.LINE_AA)
    cv2.drawContours(image, contours, -1, _MASK, 2, cv2.LINE_AA)


def _uri(image: npt.NDArray[np.uint8]) -> str:
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
