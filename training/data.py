"""Data sets: whether every image of a folder can be used, and what a model needs to know of them."""

import hashlib
import re
import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from edge_runtime import bundle
from edge_runtime.bundle import InputSpec
from edge_runtime.errors import ConfigError, DataError, FrameError
from edge_runtime.preprocess import Preprocessor, read_image, read_mask
from edge_runtime.records import Image
from training.layout import Sample, find, find_bad
from training.methods.base import Progress, silent

_LISTED = 5


@dataclass(frozen=True, slots=True)
class Dataset:
    """A checked folder: every image was decoded once and fits."""

    path: Path
    name: str
    train: tuple[Sample, ...]
    """Good images; of a plain folder, all of it."""
    test: tuple[Sample, ...]
    """MVTec's test split; empty for a plain folder."""
    bad: tuple[Sample, ...]
    """The images of --bad."""
    spec: InputSpec
    ignore: npt.NDArray[np.uint8] | None
    """(H, W) of the frame's size, 255 = ignored."""
    sha256: tuple[str, ...]
    """Of each file of `train`, in its order."""
    notes: tuple[str, ...]
    """Sentences that a user should read."""

    @property
    def record(self) -> bundle.Dataset:
        """For the manifest."""
        digest = hashlib.sha256("".join(sorted(self.sha256)).encode()).hexdigest()
        return bundle.Dataset(name=self.name, fingerprint=digest, n_good=len(self.train))

    @property
    def scored(self) -> tuple[Sample, ...]:
        """What an evaluation scores: the test split (with --bad's images), or the whole of a plain folder."""
        return (*(self.test or self.train), *self.bad)

    def preprocessor(self) -> Preprocessor:
        """From frames to model inputs."""
        return Preprocessor(self.spec, self.ignore)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What one decoded file told."""

    wh: tuple[int, int]
    channels: int
    colourless: bool
    dtype: str
    largest: int
    sha256: str


def load_dataset(
    path: Path,
    *,
    roi: tuple[int, int, int, int] | None = None,
    ignore_mask: Path | None = None,
    bad: Path | None = None,
    masks: Path | None = None,
    image_size: str = "256",
    spec: InputSpec | None = None,
    ignore: npt.NDArray[np.uint8] | None = None,
    progress: Progress = silent,
) -> Dataset:
    """Find and check all images at `path`: MVTec's layout, or a plain folder of good images.

    Gray and colour: the number of channels is the files'. One gray image among colour ones (or the other way round) is refused, with one
    exception: colour files whose three channels are equal everywhere count as gray where other files are gray, because some programs
    save gray pictures so. Depth of 16-bit files: the smallest of 10, 12, 14, 16 bits that holds the brightest pixel of the training images.

    Args:
        path: the folder.
        roi: (x, y, width, height) in frame pixels.
        ignore_mask: image file of the frames' size, non-zero = ignored; all images must then have one size.
        bad: folder of defective images, for calibration or evaluation; subfolders name kinds.
        masks: folder of `<name>_mask.*` or `<name>.*` for the images of `bad`.
        image_size: `N`, `HxW` or `auto`, see `parse_image_size`.
        spec, ignore: of a run or bundle, to check `path` against; training images are then not read where there is a test split,
            and `roi`, `ignore_mask` and `image_size` do not count.
        progress: told of each image.

    Raises:
        DataError: nothing there, or images that cannot be read or do not fit together, up to five named by path.
        ConfigError: an impossible region, mask or size.
    """
    train, test, extra = find(path, bad, masks)
    wanted = test or train if spec is not None else (*train, *test)
    samples = (*wanted, *extra)
    facts = _inspect(samples, progress)
    notes: list[str] = []
    if spec is None:
        learn = facts[: len(train)]
        ignore = None if ignore_mask is None else read_mask(ignore_mask)
        spec, notes = _derive(train, learn, roi, ignore_mask, image_size)
    _check_fit(samples, facts, spec, ignore)
    _check_masks(samples, facts)
    hashes = tuple(f.sha256 for s, f in zip(samples, facts, strict=True) if s.split == "train")
    kept_train = train if len(hashes) == len(train) else ()
    return Dataset(path.resolve(), path.resolve().name, kept_train, test, extra, spec, ignore, hashes, tuple(notes))


def load_bad(
    folder: Path, spec: InputSpec, ignore: npt.NDArray[np.uint8] | None, *, masks: Path | None = None, progress: Progress = silent
) -> tuple[Sample, ...]:
    """Find and check the defective images in `folder` against a run's input. Raises DataError."""
    samples = find_bad(folder, masks)
    facts = _inspect(samples, progress)
    _check_fit(samples, facts, spec, ignore)
    _check_masks(samples, facts)
    return tuple(samples)


def load_frame(path: Path, spec: InputSpec) -> Image:
    """One image file as this product's camera would give it: colour files without colour become gray where `spec` is gray. DataError."""
    image = read_image(path)
    if spec.channels == 1 and image.ndim == 3 and _is_colourless(image):
        image = cast(Image, np.ascontiguousarray(image[:, :, 0]))
    return image


def inputs(samples: Sequence[Sample], prepare: Preprocessor) -> Iterator[npt.NDArray[np.uint8]]:
    """(height, width, 3) uint8 BGR model inputs, one image in memory at a time. Raises DataError with the path."""
    for sample in samples:
        try:
            yield prepare(load_frame(sample.path, prepare.spec))
        except FrameError as e:
            raise DataError(f"{sample.path}: {e}") from e


def parse_image_size(text: str, sizes_wh: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """(height, width) of the model's input.

    `N`: a square; `HxW`: as given; `auto`: the median aspect of `sizes_wh` (after cropping) at about the area of 256x256, in
    multiples of 32. Raises ConfigError.
    """
    if text == "auto":
        aspect = statistics.median(w / h for w, h in sizes_wh)
        width, height = (256 * aspect**0.5, 256 / aspect**0.5)
        return max(32, round(height / 32) * 32), max(32, round(width / 32) * 32)
    found = re.fullmatch(r"(\d+)(?:[xX](\d+))?", text)
    if found is None:
        raise ConfigError(f"image size: expected N, HxW or auto (256, 192x320), found {text!r}")
    height, width = int(found[1]), int(found[2] or found[1])
    if not (32 <= height <= 4096 and 32 <= width <= 4096):
        raise ConfigError(f"image size: expected 32 to 4096 pixels a side, found {height}x{width}")
    return height, width


def _is_colourless(image: Image) -> bool:
    return bool(np.array_equal(image[:, :, 0], image[:, :, 1]) and np.array_equal(image[:, :, 1], image[:, :, 2]))


def _inspect(samples: Sequence[Sample], progress: Progress) -> list[_Facts]:
    def look(sample: Sample) -> _Facts | DataError:
        try:
            image = read_image(sample.path)
        except DataError as e:
            return e
        with sample.path.open("rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
        channels = 1 if image.ndim == 2 else image.shape[2]
        colourless = channels == 3 and _is_colourless(image)
        return _Facts((image.shape[1], image.shape[0]), channels, colourless, image.dtype.name, int(image.max()), digest)

    facts: list[_Facts] = []
    problems: list[str] = []
    # Decoding releases the GIL; a handful of threads keeps at most that many frames in memory.
    with ThreadPoolExecutor(4) as pool:
        for i, result in enumerate(pool.map(look, samples)):
            if isinstance(result, DataError):
                problems.append(str(result))
            else:
                facts.append(result)
            progress("check images", i + 1, len(samples))
    _refuse(problems)
    return facts


def _refuse(problems: Sequence[str]) -> None:
    if len(problems) == 1:
        raise DataError(problems[0])
    if problems:
        more = f"\n  … and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise DataError(f"{len(problems)} images cannot be used:\n  " + "\n  ".join(problems[:_LISTED]) + more)


def _derive(
    train: Sequence[Sample], facts: Sequence[_Facts], roi: tuple[int, int, int, int] | None, ignore_mask: Path | None, image_size: str
) -> tuple[InputSpec, list[str]]:
    if not train:
        raise DataError("data: expected good images to learn from in train/good, found none")
    notes: list[str] = []
    dtypes = {f.dtype: s.path for s, f in zip(train, facts, strict=True)}
    if len(dtypes) > 1:
        raise DataError(f"data: expected one pixel depth, found 8 bits ({dtypes['uint8']}) and 16 bits ({dtypes['uint16']}) mixed")
    bits = 8
    if "uint16" in dtypes:
        largest = max(f.largest for f in facts)
        bits = next(b for b in (10, 12, 14, 16) if largest < 1 << b)
        notes.append(f"16-bit images, brightest pixel {largest}: taken as {bits} significant bits")
    gray = [s.path for s, f in zip(train, facts, strict=True) if f.channels == 1]
    colour = [s.path for s, f in zip(train, facts, strict=True) if f.channels == 3 and not f.colourless]
    if gray and colour:
        few, word = (gray, "gray") if len(gray) < len(colour) else (colour, "in colour")
        raise DataError(f"data: expected all images gray or all in colour, found {len(few)} of {len(train)} {word}, the first {few[0]}")
    sizes = sorted({f.wh for f in facts})
    if len(sizes) > 1:
        (w0, h0), (w1, h1) = min(sizes, key=lambda s: s[0] * s[1]), max(sizes, key=lambda s: s[0] * s[1])
        notes.append(f"images are of {len(sizes)} sizes, {w0}x{h0} to {w1}x{h1}: each is scaled to the model's input")
        if ignore_mask is not None:
            odd = next(s.path for s, f in zip(train, facts, strict=True) if f.wh != facts[0].wh)
            raise DataError(f"ignore mask: it counts in frame pixels, so all images must have one size; {odd} differs from {train[0].path}")
    cropped = [f.wh for f in facts] if roi is None else [(roi[2], roi[3])]
    if min(min(wh) for wh in cropped) < 1:
        raise ConfigError(f"roi: expected a width and a height of at least 1, found {cropped[0][0]}x{cropped[0][1]}")
    height, width = parse_image_size(image_size, cropped)
    stretch = statistics.median(w / h for w, h in cropped) / (width / height)
    if not 0.5 <= stretch <= 2:
        auto = parse_image_size("auto", cropped)
        notes.append(
            f"parts are squeezed {max(stretch, 1 / stretch):.1f} : 1 into {height}x{width}; --image-size auto gives {auto[0]}x{auto[1]}"
        )
    spec = InputSpec(
        height=height,
        width=width,
        channels=1 if gray else 3,
        bits=bits,
        frame_wh=sizes[0] if len(sizes) == 1 else None,
        roi=roi,
        ignore_mask=None if ignore_mask is None else "ignore_mask.png",
    )
    return spec, notes


def _check_fit(samples: Sequence[Sample], facts: Sequence[_Facts], spec: InputSpec, ignore: npt.NDArray[np.uint8] | None) -> None:
    """Refuse images that the preprocessor would refuse, all at once and before any work."""
    prepare = Preprocessor(spec, ignore)
    if not prepare.valid_cells((spec.height, spec.width)).any():
        raise ConfigError("ignore mask: covers the whole region of interest; nothing would be left to judge")
    problems: list[str] = []
    for sample, fact in zip(samples, facts, strict=True):
        channels = 1 if spec.channels == 1 and fact.colourless else fact.channels
        shape = fact.wh[::-1] if channels == 1 else (*fact.wh[::-1], channels)
        try:
            prepare.check(cast(Image, np.broadcast_to(np.zeros(1, fact.dtype), shape)))  # a view of one number: only its shape counts
        except FrameError as e:
            problems.append(f"{sample.path}: {e}")
    _refuse(problems)


def _check_masks(samples: Sequence[Sample], facts: Sequence[_Facts]) -> None:
    problems: list[str] = []
    for sample, fact in zip(samples, facts, strict=True):
        if sample.mask_path is None:
            continue
        try:
            mask = read_mask(sample.mask_path)
        except DataError as e:
            problems.append(str(e))
            continue
        if mask.shape != fact.wh[::-1]:
            found = f"{mask.shape[1]}x{mask.shape[0]}"
            problems.append(f"{sample.mask_path}: expected the size of its image, {fact.wh[0]}x{fact.wh[1]}, found {found}")
    _refuse(problems)
