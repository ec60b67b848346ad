"""A model that another tool exported -> a bundle with the same promise as our own: what it scores here, it scores on the device."""

import datetime
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import openvino as ov

import edge_runtime
from edge_runtime.errors import ConfigError, DataError, ExportError, FrameError, GoldenMismatch
from edge_runtime.images.names import says_good
from edge_runtime.model.bundle import ModelBundle, file_sha256
from edge_runtime.model.manifest import SCHEMA, Dataset, DisplayScale, Golden, InputSpec, Manifest, OutputSpec, Threshold
from edge_runtime.model.preprocess import Preprocessor
from edge_runtime.records import Image
from export import package
from export.adopt.foreign import Foreign, read_foreign
from export.child import golden_in_child, run_in_child
from training.core.memory import array_file
from training.core.places import move_into_place
from training.data.facts import Facts, bits_for, facts_of, load_frame, refuse
from training.data.folders import is_aside
from training.data.layout import are_masks, folders_in, images_in

MOST = 100
"""Photographs a kind that golden samples are chosen from."""
DRAWN = 12
FEWEST_BAD = 4
"""Bad images from which on a model that rejects none of them is refused."""
AT_END = 1e-6
"""A clamped score this near to 0 or 1 says nothing: another model could stand there, too."""
ADVICE = "it must not reach a line: export it again without INT8 (anomalib: compression_type FP16 or none), or another method"
RESIZE_NOTE = (
    "frames are scaled here, by area averaging, to the model's input; the tool that exported it scales them its own way, "
    "so that scores differ a little from its own"
)


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may choose."""

    golden: Path | None = None
    """Folder of frames as the camera gives them: good/ and other subfolders (defects), or images alone. None: pictures are drawn."""
    name: str | None = None
    threshold: float | None = None
    """On the model's own scale; None: as the model says."""
    map_threshold: float | None = None
    image_hw: tuple[int, int] | None = None
    """(height, width), for a model that takes any size and does not say which."""
    mono: bool = False
    """The camera is gray; known from the frames where there are any."""
    force: bool = False


@dataclass(frozen=True, slots=True)
class AdoptReport:
    """What an adoption came to."""

    out: Path
    bundle_id: str
    size_bytes: int
    manifest: Manifest
    latency_ms: float
    """Median, one image, on this machine."""
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Frames:
    """Where golden samples come from."""

    spec: InputSpec
    paths: tuple[Path, ...]
    """Empty where pictures are drawn."""
    good: tuple[bool, ...] | None
    """None where the folder does not tell."""

    def __len__(self) -> int:
        return len(self.paths) or DRAWN

    def name(self, i: int) -> str:
        """What it is called in messages."""
        return str(self.paths[i]) if self.paths else f"drawn picture {i}"

    def load(self, i: int) -> Image:
        """As the camera would give it. Raises DataError."""
        return load_frame(self.paths[i], self.spec) if self.paths else draw(i, self.spec)


def adopt(model: Path, out: Path, options: Options) -> AdoptReport:
    """Wrap the model and pack it. Nothing is at `out` unless everything passed.

    Raises:
        ConfigError: `out` is taken, or an option does not suit the model.
        DataError: golden frames cannot be used.
        ExportError: the model is unreadable, says too little of itself, crashes, or gives no numbers; its golden samples prove nothing.
    """
    began = time.monotonic()
    package.check_out(out, False, options.force)
    foreign = read_foreign(model, options.image_hw)
    threshold = decide_threshold(model, foreign, options.threshold, options.map_threshold)
    frames = _find_frames(options, foreign)
    with package.workplace(out) as place:
        pack, latency_ms, notes = _pack(model, foreign, threshold, frames, options, place)
        bundle = ModelBundle.open(pack)
        move_into_place(pack, out)
        return AdoptReport(out, bundle.id, package.size_bytes(out), bundle.manifest, latency_ms, notes, time.monotonic() - began)


def decide_threshold(model: Path, foreign: Foreign, value: float | None, map_value: float | None) -> Threshold:
    """What was asked for, or what the model says of itself. Raises ConfigError, ExportError."""
    found: list[float] = []
    for option, asked, said in (("--threshold", value, foreign.threshold), ("--map-threshold", map_value, foreign.map_threshold)):
        number = said if asked is None else asked
        if number is None:
            raise ExportError(f"{model}: does not say where good ends (it was exported before it was validated?); give it with {option}")
        high = 1.0 if foreign.clamped else np.inf
        if not 0 < number < high:
            wanted = "between 0 and 1, as the model's scores are clamped to these" if foreign.clamped else "above 0"
            raise ConfigError(f"{option}: expected a number {wanted}, found {number:g}{'' if asked is not None else ' in the model'}")
        found.append(number)
    rule = f"as the model says, which {foreign.exporter} exported" if value is None else "as given by hand"
    return Threshold(value=found[0], map_value=found[1], rule=rule, false_reject_rate=None, false_reject_upper=None)


def draw(seed: int, spec: InputSpec) -> Image:
    """A soft gray picture of the model's size: a stand-in for a frame where there is no photograph."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 4.0 * 1.5**seed, (6, 6)).astype(np.float32)
    picture = rng.uniform(90, 170) + cv2.resize(coarse, (spec.width, spec.height), interpolation=cv2.INTER_CUBIC)
    picture += rng.normal(0, 2, picture.shape)
    gray = np.clip(picture, 0, 255).astype(np.uint8)
    return cast(Image, gray if spec.channels == 1 else np.repeat(gray[:, :, None], 3, axis=2))


def parse_hw(text: str) -> tuple[int, int]:
    """`N` or `WxH` -> (height, width). Raises ConfigError."""
    found = re.fullmatch(r"(\d{2,4})(?:[xX](\d{2,4}))?", text)
    if found is None:
        raise ConfigError(f"image size: expected N or WxH (256, 320x192: width x height), found {text!r}")
    return int(found[2] or found[1]), int(found[1])


def _pack(
    model: Path, foreign: Foreign, threshold: Threshold, frames: _Frames, options: Options, place: Path
) -> tuple[Path, float, tuple[str, ...]]:
    """Run the model on the frames, choose golden samples, and seal a bundle in `place`. Returns it, the latency and the notes."""
    work, pack = place / "work", place / "bundle"
    work.mkdir()
    pack.mkdir()
    ir = work / "model.xml"
    package.save_ir(foreign.model, ir)
    found = run_in_child(ir, _write_inputs(frames, work), work, advice=ADVICE)
    scores = np.asarray(found.outputs["score"], dtype=np.float64)
    maps = found.outputs["map"][:, 0]
    bad = [i for i in range(len(scores)) if not (np.isfinite(scores[i]) and np.isfinite(maps[i]).all())]
    if bad:
        raise ExportError(f"{model}: gives values that are no numbers for {len(bad)} of {len(scores)} images, first {frames.name(bad[0])}")
    peaks = np.array([float(m.max()) for m in maps])
    _refuse_blind(model, threshold, frames, scores)
    picks = _choose(model, foreign, threshold, frames, scores, peaks)
    files = package.write_golden(pack, [frames.load(i) for i in picks])
    for suffix in (".xml", ".bin"):
        shutil.move(ir.with_suffix(suffix), pack / f"model{suffix}")
    accepted = np.flatnonzero(scores <= threshold.value)
    low = float(np.median([np.median(maps[i]) for i in accepted])) if len(accepted) else 0.0
    notes = _notes(foreign, frames, scores, threshold)
    precision = "int8" if foreign.quantized else "fp32"
    now = datetime.datetime.now(datetime.UTC)
    manifest = Manifest(
        schema=SCHEMA,
        name=options.name or model.absolute().stem,
        version=now.strftime("%Y%m%dT%H%M%SZ"),
        created=now.isoformat(timespec="seconds"),
        method="adopted",
        backbone="not stated",
        params={"exporter": foreign.exporter, "model": model.name, "model_sha256": file_sha256(model), "notes": list(notes)},
        precision=precision,
        input=frames.spec,
        output=OutputSpec(map_height=foreign.map_hw[0], map_width=foreign.map_hw[1]),
        threshold=threshold,
        display=DisplayScale(low=min(low, 0.9 * threshold.map_value), high=2 * threshold.map_value),
        clamped=foreign.clamped,
        dataset=Dataset(name="not stated", fingerprint="", n_good=0),
        metrics={},
        golden=[Golden(image=f, score=float(scores[i]), map_peak=float(peaks[i])) for f, i in zip(files, picks, strict=True)],
        golden_tolerance=package.GOLDEN_TOLERANCE[precision],
        files={},
        tools={"lineside": edge_runtime.__version__, "openvino": ov.__version__, "numpy": np.__version__, "opencv": cv2.__version__},
    )
    package.seal(pack, manifest)
    wrong = [r for r in golden_in_child(pack) if not r.ok]
    if wrong:
        raise GoldenMismatch(f"golden samples: the device's predictor gives {wrong[0].score:.6g}, not {wrong[0].expected_score:.6g}")
    return pack, found.latency_ms, notes


def _find_frames(options: Options, foreign: Foreign) -> _Frames:
    """Golden frames and what they say of the camera. Raises DataError."""
    spec = InputSpec(height=foreign.height, width=foreign.width, channels=1 if options.mono else 3)
    folder = options.golden
    if folder is None:
        return _Frames(spec, (), None)
    if not folder.is_dir():
        raise DataError(f"golden: expected a folder of images, found {'a file' if folder.exists() else 'nothing'} at {folder}")
    inside = [f for f in folders_in(folder) if not is_aside(f) and not are_masks(images_in(f))]
    kinds = [(bool(says_good(f.name)), _spread(images_in(f))) for f in inside]
    paths = [p for _, found in kinds for p in found]
    good = tuple(is_good for is_good, found in kinds for _ in found) if paths else None
    paths = paths or _spread(images_in(folder))
    if len(paths) < 4:
        raise DataError(f"golden: expected at least 4 images in {folder} (good and bad ones, in good/ and others), found {len(paths)}")
    seen = facts_of(paths)
    refuse([str(f) for f in seen if isinstance(f, DataError)])
    facts = [f for f in seen if isinstance(f, Facts)]
    if len({f.dtype for f in facts}) > 1:
        raise DataError(f"golden: expected frames of one pixel depth in {folder}, found 8 and 16 bits mixed")
    bits = 8 if facts[0].dtype == "uint8" else max(10, bits_for(max(f.largest for f in facts)))
    sizes = {f.wh for f in facts}
    gray = options.mono or any(f.channels == 1 for f in facts)
    found = msgspec.structs.replace(spec, channels=1 if gray else 3, bits=bits, frame_wh=sizes.pop() if len(sizes) == 1 else None)
    return _Frames(found, tuple(paths), good)


def _spread(paths: Sequence[Path]) -> list[Path]:
    return list(paths[:: -(-len(paths) // MOST)]) if paths else []


def _write_inputs(frames: _Frames, work: Path) -> Path:
    """Model inputs as (N, H, W, 3) uint8 in a file. Raises DataError."""
    path, spec, prepare = work / "frames.npy", frames.spec, Preprocessor(frames.spec)
    array = array_file(path, np.uint8, (len(frames), spec.height, spec.width, 3))
    for i in range(len(frames)):
        try:
            array[i] = prepare(frames.load(i))
        except FrameError as e:
            raise DataError(f"{frames.name(i)}: {e}") from e
    array.flush()
    return path


def _refuse_blind(model: Path, threshold: Threshold, frames: _Frames, scores: npt.NDArray[np.float64]) -> None:
    """anomalib 2.7's INT8 export of PaDiM gave every magnetic tile, whole or broken, the same score: such a model ACCEPTs all there is."""
    bad = ~np.array(frames.good) if frames.good is not None else np.zeros(len(scores), dtype=bool)
    if bad.sum() >= FEWEST_BAD and not (scores[bad] > threshold.value).any():
        raise ExportError(
            f"{model}: accepts all {bad.sum()} bad images of the golden folder (scores {scores[bad].min():.3g} to {scores[bad].max():.3g}, "
            f"threshold {threshold.value:.3g}): it must not reach a line. Export it again (without INT8, if it is INT8), or lower its "
            "threshold with --threshold"
        )


def _choose(
    model: Path, foreign: Foreign, threshold: Threshold, frames: _Frames, scores: npt.NDArray[np.float64], peaks: npt.NDArray[np.float64]
) -> list[int]:
    """Which frames become golden samples. Raises ExportError where all of them stand at an end of a clamped scale."""
    good = scores <= threshold.value if frames.good is None else np.array(frames.good)
    telling = np.ones(len(scores), dtype=bool)
    if foreign.clamped:
        telling = ~(_at_end(scores) & _at_end(peaks))
        if not telling.any():
            raise ExportError(
                f"{model}: all {len(scores)} {'frames' if frames.paths else 'drawn pictures'} score 0 or 1, the ends of its clamped scale, "
                "where many another model would put them: golden samples would prove nothing. Give photographs of good and of slightly "
                "bad parts with --golden FOLDER"
            )
    usable = np.flatnonzero(telling) if telling.sum() >= 4 else np.arange(len(scores))
    return [int(usable[i]) for i in package.choose_golden(scores[usable], good[usable], threshold.value)]


def _at_end(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    return (values <= AT_END) | (values >= 1 - AT_END)


def _notes(foreign: Foreign, frames: _Frames, scores: npt.NDArray[np.float64], threshold: Threshold) -> tuple[str, ...]:
    notes = [RESIZE_NOTE]
    if foreign.clamped:
        ends = int(_at_end(scores).sum())
        notes.append(f"scores end at 0 and 1, where the exporter clamped them: {ends} of {len(scores)} images stand at an end")
    if not frames.paths:
        notes.append("golden samples are drawn pictures; photographs (--golden FOLDER) would prove more")
    elif frames.good is not None:
        good = np.array(frames.good)
        rejected = scores > threshold.value
        notes.append(
            f"of the golden folder it rejects {int(rejected[good].sum())} of {int(good.sum())} good and {int(rejected[~good].sum())} of"
            f" {int((~good).sum())} bad images"
        )
    return tuple(notes)
