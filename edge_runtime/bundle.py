"""Bundles: an immutable directory (or one zip file) with a model, its manifest and golden samples; read and verified here.

Layout: manifest.json, manifest.sha256, model.xml, model.bin, golden/*.png, optionally ignore_mask.png. The manifest lists the sha256 of
every other file; the bundle's id is the sha256 of the manifest's bytes, so that one id names one exact model with one exact calibration.
manifest.sha256 (`sha256sum -c` reads it) holds that id, so that damage to the manifest itself is seen too. A bundle that was released has
manifest.sig as well (edge_runtime.signature).
"""

import errno
import hashlib
import lzma
import shutil
import tempfile
import weakref
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from edge_runtime.errors import BundleError, DeviceError

SCHEMA = 1
MANIFEST = "manifest.json"
SEAL = "manifest.sha256"
SIGNATURE = "manifest.sig"
SHORT_SHA256 = 16
"""Hex digits that are enough to know a training image again."""


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Common to all tables of the manifest."""


class TileSpec(_Record, frozen=True, kw_only=True):
    """A large region is cut into equal tiles, each a picture for the model (edge_runtime.tiles)."""

    columns: Annotated[int, Meta(ge=1, le=1024)]
    rows: Annotated[int, Meta(ge=1, le=1024)]
    overlap: Annotated[float, Meta(ge=0, le=0.5)] = 0.0
    """Share of a tile that its neighbour sees too, before it is rounded to a step that suits the map."""


class InputSpec(_Record, frozen=True, kw_only=True):
    """What the model takes, and how a frame becomes that (edge_runtime.preprocess)."""

    height: Annotated[int, Meta(gt=0)]
    width: Annotated[int, Meta(gt=0)]
    channels: Annotated[int, Meta(ge=1, le=3)]
    """Of the frames: 1 gray (or a raw mosaic, see `bayer`) or 3 BGR. The model itself always gets three."""
    bits: Annotated[int, Meta(ge=8, le=16)] = 8
    """Significant bits of the frames' pixels: 8 for uint8; 10, 12, 14 or 16 for uint16."""
    frame_wh: tuple[int, int] | None = None
    """Size of the frames where all training images had one; None where sizes differ."""
    roi: tuple[int, int, int, int] | None = None
    """[x, y, width, height] in frame pixels; None is the whole frame."""
    ignore_mask: str | None = None
    """File in the bundle: uint8 PNG of the frame's size, non-zero = ignored."""
    bayer: Literal["RGGB", "BGGR", "GRBG", "GBRG"] | None = None
    """Frames are a raw mosaic of 1 channel, whose first two rows begin with these colours; the model sees them in colour."""
    tiles: TileSpec | None = None
    """None: the whole region is one picture."""
    brightness: Annotated[float, Meta(gt=0, lt=256)] | None = None
    """Mean gray level that every picture is brought to by one factor before the model sees it (all tiles of a frame by the same); None:
    pictures are judged as bright as they come."""

    def __post_init__(self) -> None:
        """Raises ValueError, which msgspec reports with the path of the key."""
        if self.bayer is not None and self.channels != 1:
            raise ValueError(f"a Bayer mosaic has 1 channel, found {self.channels}")


class OutputSpec(_Record, frozen=True, kw_only=True):
    """What the model gives for one picture (of a tiled frame, for each tile): `score` (1,) and `map` (1, 1, height, width), raw float32."""

    map_height: Annotated[int, Meta(gt=0)]
    map_width: Annotated[int, Meta(gt=0)]


class Threshold(_Record, frozen=True, kw_only=True):
    """Where good ends, in raw scores."""

    value: Annotated[float, Meta(gt=0)]
    """A part is rejected when its score is larger."""
    map_value: Annotated[float, Meta(gt=0)]
    """A place of the map belongs to a region when its value is larger; the same rule applied to the maps' maxima."""
    rule: str
    """A sentence: how the value came about."""
    false_reject_rate: float | None
    """The stated rate that the rule aims at."""
    false_reject_upper: float | None
    """Upper bound of the true rate at `confidence`, from `n_good` images."""
    confidence: float = 0.95
    n_good: int = 0
    n_bad: int = 0
    n_odd: int = 0
    """Good images that look unlike the others, which were set apart where the rule allows it (training.judging.odd)."""
    n_synthetic: int = 0
    """How many of the bad images were painted, not photographed."""
    recall_lower: float | None = None
    """Lower bound at `confidence` of the share of bad parts rejected, where a recall was asked for."""
    from_test_split: bool = False
    """True when asked to calibrate on the images that it is evaluated on: the figures are then flattering."""


class Drift(_Record, frozen=True, kw_only=True):
    """Scores that a healthy line shows, from held-out good parts, and how far a window of parts may stray (training.drift)."""

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
    level, so that less light is no blur (edge_runtime.sight)."""
    brightness_spread: Annotated[float, Meta(ge=0)] = 0.0
    """Standard deviation from good part to good part, relative to `brightness`."""
    sharpness_spread: Annotated[float, Meta(ge=0)] = 0.0
    light_low: float | None = None
    """Brightness, relative to `brightness`, below which the promise breaks; None: it held as far down as was tried."""
    light_high: float | None = None
    blur_low: float | None = None
    """Sharpness, relative to `sharpness`, below which the promise breaks."""
    light_low_breaks: Literal["", "rejects", "misses", "both"] = ""
    """What breaks there."""
    light_high_breaks: Literal["", "rejects", "misses", "both"] = ""
    blur_breaks: Literal["", "rejects", "misses", "both"] = ""
    max_rejected: float = 0.0
    """Share of good parts from which on the promise counts as broken."""
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
    """Of their files, so that no evaluation counts them."""
    n_synthetic: int = 0
    """Defects painted into good parts that it learnt from."""
    odd: tuple[str, ...] = ()
    """Names of good images that look unlike the others, the oddest first; up to 50 of them (training.judging.odd)."""


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
    golden_tolerance: Annotated[float, Meta(gt=0)]
    """Relative: |score - expected| <= tolerance * expected (likewise the map's peak)."""
    files: dict[str, str]
    """Relative path -> sha256, of every file but the manifest."""
    tools: dict[str, str]
    """Versions of what built it."""


class ModelBundle:
    """A verified bundle on disk. Opening one checks every byte; what does not match is refused with the file named."""

    def __init__(self, directory: Path, manifest: Manifest, bundle_id: str) -> None:
        """Use `ModelBundle.open`."""
        self.directory = directory
        self.manifest = manifest
        self.id = bundle_id
        self.signature = _signature(directory)
        """As it is in the file, not yet compared with any key; None where there is none."""

    @property
    def model_xml(self) -> Path:
        """The IR's topology; its weights lie beside it."""
        return self.directory / "model.xml"

    @classmethod
    def open(cls, path: Path, private: bool = False) -> "ModelBundle":
        """Verify and open the directory or zip file at `path`. Raises BundleError, and DeviceError where a copy finds no room.

        `private`: a copy that nobody else writes to, as it is of a zip file in any case, so that what was verified is what is run.
        """
        if path.is_dir() and not private:
            return cls._verified(path)
        if not path.exists():
            raise BundleError(f"bundle: expected a directory or a zip file, found nothing at {path}")
        try:
            scratch = Path(tempfile.mkdtemp(prefix="lineside-bundle-"))
        except OSError as e:
            raise _no_room(path, Path(tempfile.gettempdir()), e) from e
        try:
            if path.is_dir():
                _copy(path, scratch)
            else:
                _unzip(path, scratch)
            bundle = cls._verified(scratch)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        weakref.finalize(bundle, shutil.rmtree, scratch, ignore_errors=True)  # lives as long as the bundle's object
        return bundle

    @classmethod
    def _verified(cls, directory: Path) -> "ModelBundle":
        manifest, bundle_id = read_manifest(directory)
        _verify_files(directory, manifest)
        return cls(directory, manifest, bundle_id)


def write_manifest(directory: Path, manifest: Manifest) -> str:
    """Write manifest.json and its seal into a bundle that holds all other files; returns the bundle's id."""
    raw = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    bundle_id = hashlib.sha256(raw).hexdigest()
    (directory / MANIFEST).write_bytes(raw)
    (directory / SEAL).write_text(f"{bundle_id}  {MANIFEST}\n", encoding="ascii")
    return bundle_id


def read_manifest(directory: Path) -> tuple[Manifest, str]:
    """The manifest of an unpacked bundle and the bundle's id, without verifying the files it lists. Raises BundleError."""
    path = directory / MANIFEST
    try:
        raw = path.read_bytes()
    except OSError as e:
        raise BundleError(
            f"bundle {directory}: {MANIFEST} is missing or unreadable ({e.strerror}): this is no bundle, or half of one"
        ) from e
    try:
        schema = msgspec.json.decode(raw, type=dict[str, Any]).get("schema")
        if schema != SCHEMA:
            raise BundleError(f"{path}: expected schema {SCHEMA}, found {schema!r}: built by another version of Lineside; build it again")
        bundle_id = _check_seal(directory, raw)
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.MsgspecError, RecursionError) as e:
        raise BundleError(f"{path}: is not a valid manifest: {e}") from e
    return manifest, bundle_id


def _check_seal(directory: Path, manifest: bytes) -> str:
    bundle_id = hashlib.sha256(manifest).hexdigest()
    try:
        seal = (directory / SEAL).read_bytes()
    except OSError as e:
        raise BundleError(f"bundle {directory}: {SEAL} is missing or unreadable ({e.strerror}); copy the bundle again") from e
    if seal != f"{bundle_id}  {MANIFEST}\n".encode():
        raise BundleError(f"bundle {directory}: {MANIFEST} or {SEAL} was altered: they do not belong together; copy the bundle again")
    return bundle_id


def _signature(directory: Path) -> bytes | None:
    try:
        return (directory / SIGNATURE).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise BundleError(f"bundle {directory}: {SIGNATURE} is unreadable ({e.strerror}); copy the bundle again") from e


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, as hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _verify_files(directory: Path, manifest: Manifest) -> None:
    needed = {"model.xml", "model.bin", *(g.image for g in manifest.golden)}
    if manifest.input.ignore_mask:
        needed.add(manifest.input.ignore_mask)
    unlisted = sorted(needed - set(manifest.files))
    if unlisted:
        raise BundleError(f"bundle {directory}: the manifest lists no hash for {unlisted[0]}: it cannot be trusted; build it again")
    for name, expected in sorted(manifest.files.items()):
        if not _is_inside(name):
            raise BundleError(f"bundle {directory}: the manifest names {name!r}, which is outside of the bundle; refused")
        path = directory / name
        if not path.is_file():
            raise BundleError(f"bundle {directory}: {name} is missing; copy the bundle again")
        try:
            found = file_sha256(path)
        except OSError as e:
            raise BundleError(f"bundle {directory}: {name} cannot be read ({e.strerror}): let this user read it") from e
        if found != expected:
            raise BundleError(
                f"bundle {directory}: {name} was altered: expected sha256 {expected[:16]}…, found {found[:16]}…; copy the bundle again"
            )
    present = {p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file()}
    extra = sorted(present - set(manifest.files) - {MANIFEST, SEAL, SIGNATURE})
    if extra:
        raise BundleError(f"bundle {directory}: {extra[0]} is not listed in the manifest; a bundle holds nothing else: remove it")


def _is_inside(name: str) -> bool:
    pure = PurePosixPath(name)
    return not pure.is_absolute() and ".." not in pure.parts and "\\" not in name


def _copy(path: Path, directory: Path) -> None:
    try:
        shutil.copytree(path, directory, dirs_exist_ok=True)
    except shutil.Error as e:  # one entry a file: (from, to, why)
        raise _no_room(path, directory.parent, e.args[0][0][2]) from e
    except OSError as e:
        raise _no_room(path, directory.parent, e) from e


def _no_room(path: Path, folder: Path, why: object) -> DeviceError:
    """Not the bundle's fault, and over when the disk has room again."""
    return DeviceError(f"bundle {path}: could not be copied to {folder}, where it is verified: {getattr(why, 'strerror', None) or why}")


def _unzip(path: Path, directory: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            bad = next((n for n in archive.namelist() if not _is_inside(n)), None)
            if bad is not None:
                raise BundleError(f"bundle {path}: holds {bad!r}, which would be unpacked outside of it; refused")
            archive.extractall(directory)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise _no_room(path, directory.parent, e) from e
        raise BundleError(f"bundle {path}: expected a directory or a zip file, could not unpack it: {e}") from e
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError) as e:
        raise BundleError(f"bundle {path}: expected a directory or a zip file, could not unpack it: {e}") from e
