"""What one image file tells: size, depth, colour, its bytes' hash, and a small picture of it to compare with others."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import DataError
from edge_runtime.images.decoder_output import silenced
from edge_runtime.images.loss import loss_of
from edge_runtime.images.read import is_colourless, read_image
from edge_runtime.images.size import HEAD
from edge_runtime.model.manifest import InputSpec
from edge_runtime.records import Frame, Image
from training.data.layout import first_of
from training.data.left_out import is_picture, pages_in
from training.data.torn import torn

SIDE = 32
_ROUGH = 64
_JPEG_HEAD = 65_536
"""Bytes; EXIF stands in one of a JPEG's first segments, each of which is shorter."""
LEAST_SIDE = 8
DEPTHS = (8, 10, 12, 14, 16)


@dataclass(frozen=True, slots=True)
class Facts:
    """What one decoded file tells of itself."""

    wh: tuple[int, int]
    channels: int
    colourless: bool
    """Three channels that are equal everywhere."""
    dtype: str
    largest: int
    sha256: str
    """sha256 of the file's bytes."""
    small: npt.NDArray[np.float32]
    """(32, 32) gray, 0 to 255, whatever the picture's depth and aspect."""
    turned: bool
    """The file asks whoever shows it to turn or mirror it (EXIF's orientation), as phones do."""
    pages: int = 1
    """Pictures in the file, of which the first is read."""
    spread: float = 0.0
    """Standard deviation of some of its pixels as they are, of 255: fine texture is gone in `small`."""
    values: int = 256
    """How many gray values it shows, of 8 bits; 256 for deeper ones, and in colour."""
    loss: int | None = None
    """See `edge_runtime.images.loss.loss_of`."""


def facts_of(paths: Sequence[Path], told: Callable[[int], None] = lambda done: None) -> list[Facts | DataError]:
    """Decode every file once; what cannot be used is a DataError in its place. `told`: of how many are done."""
    found: list[Facts | DataError] = []
    # Decoding releases the GIL; a handful of threads keeps at most that many frames in memory.
    with ThreadPoolExecutor(4) as pool:
        damaged = pool.submit(torn, paths)
        for i, result in enumerate(pool.map(_facts_of_one, paths)):
            found.append(result)
            told(i + 1)
        bad = damaged.result()
    return [bad.get(p, f) if isinstance(f, Facts) else f for p, f in zip(paths, found, strict=True)]


def say_turned(paths: Sequence[Path], facts: Sequence[Facts]) -> list[str]:
    """Sentences where some files lie across the others, or ask to be turned, which no camera of a line does and nothing here obeys."""
    turned = [p for p, f in zip(paths, facts, strict=True) if f.turned]
    sizes = Counter(f.wh for f in facts)
    (wide, n) = next(iter(sizes.most_common()), ((0, 0), 0))
    said = []
    if wide[0] != wide[1] and (m := sizes[wide[::-1]]) and n + m == len(facts):
        first = next(p for p, f in zip(paths, facts, strict=True) if f.wh == wide[::-1])
        said = [
            f"{m} of {n + m} files are {wide[1]}x{wide[0]} (the first: {first}), the others {wide[0]}x{wide[1]}: were some turned by a"
            " quarter? A part that lies otherwise than taught is rejected; use pictures as the camera that will inspect gives them"
        ]
    if not turned:
        return said
    return [
        *said,
        f"{len(turned)} files (the first: {turned[0]}) ask by EXIF to be shown turned, as phones write it; their pixels are taken as"
        " they are stored. Use pictures of the camera that will inspect, or turn the files themselves",
    ]


def refuse(problems: Sequence[str], what: str = "images cannot be used", inspected: bool = False) -> None:
    """Raise one DataError of all problems, up to five of them in full; nothing where there are none. `inspected`: inspect names all."""
    if len(problems) == 1:
        raise DataError(problems[0])
    if problems:
        shown = first_of(problems)
        left = len(problems) - len(shown)
        all_of = "; `lineside-train inspect DATA --json` names all" if inspected else ""
        more = f"\n  … and {left} more{all_of}" if left > 0 else ""
        raise DataError(f"{len(problems)} {what}:\n  " + "\n  ".join(shown) + more)


def load_frame(path: Path, spec: InputSpec) -> Image:
    """One image file as this product's camera would give it: colour files without colour become gray where `spec` is gray. DataError."""
    image = read_image(path)
    if spec.channels == 1 and image.ndim == 3 and is_colourless(image):
        image = cast(Image, np.ascontiguousarray(image[:, :, 0]))
    return image


def bits_for(largest: int) -> int:
    """The smallest of 8, 10, 12, 14, 16 bits that holds this pixel."""
    return next(b for b in DEPTHS if largest < 1 << b)


def gray_of(image: Image) -> npt.NDArray[np.float32]:
    """(H, W) brightness, 0 to 255 whatever the depth."""
    gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    scale = 255.0 / ((1 << bits_for(int(gray.max()))) - 1) if gray.dtype == np.uint16 else 1.0
    return np.asarray(gray, dtype=np.float32) * np.float32(scale)


def small_of(image: Image) -> npt.NDArray[np.float32]:
    """(32, 32): the whole picture, averaged over areas."""
    # The large step in whole factors on the file's own integers costs a tenth of averaging floats.
    factor = min(image.shape[:2]) // _ROUGH
    if factor > 1:
        size = (image.shape[1] // factor, image.shape[0] // factor)
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))  # type: ignore[assignment]
    return np.asarray(cv2.resize(gray_of(image), (SIDE, SIDE), interpolation=cv2.INTER_AREA), dtype=np.float32)


def _is_turned(path: Path) -> bool:
    if path.suffix.lower() not in (".jpg", ".jpeg"):
        return False
    with path.open("rb") as file:
        if b"Exif\0" not in file.read(_JPEG_HEAD):
            return False
    # Decoded at an eighth of its size, once as it asks to be shown and once as it is.
    with silenced():
        shown, stored = (cv2.imread(str(path), cv2.IMREAD_REDUCED_GRAYSCALE_8 | f) for f in (0, cv2.IMREAD_IGNORE_ORIENTATION))
    return shown is not None and stored is not None and not np.array_equal(shown, stored)


_SEEN: dict[tuple[str, int, int], Facts] = {}
"""By path, time and size: a layout whose split is ours looks at images before they are checked."""


def _facts_of_one(path: Path) -> Facts | DataError:
    try:
        stat = path.stat()
        key = (str(path), stat.st_mtime_ns, stat.st_size)
        if key in _SEEN:
            return _SEEN[key]
        image = read_image(path)
        with path.open("rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
            f.seek(0)
            loss = loss_of(f.read(HEAD))
        turned = _is_turned(path)
        pages = pages_in(path)
    except DataError as e:
        return _with_remedy(path, e)
    except OSError as e:
        return DataError(f"{path}: cannot be read: {e.strerror}; let whoever teaches read it, or move it elsewhere")
    if min(image.shape[:2]) < LEAST_SIDE:
        return DataError(
            f"{path}: expected a photograph, at least {LEAST_SIDE} pixels a side, found {image.shape[1]}x{image.shape[0]}; remove it"
        )
    channels = 1 if image.ndim == 2 else image.shape[2]
    colourless = channels == 3 and is_colourless(image)
    facts = Facts(
        (image.shape[1], image.shape[0]),
        channels,
        colourless,
        image.dtype.name,
        int(image.max()),
        digest,
        small_of(image),
        turned,
        pages,
        _spread(image),
        _values(image) if channels == 1 or colourless else 256,
        loss,
    )
    _SEEN[key] = facts
    return facts


def _with_remedy(path: Path, problem: DataError) -> DataError:
    """The same, and what to do with the file, where that is not said."""
    text = str(problem)
    if "; " in text.removeprefix(str(path)):
        return problem
    try:
        begun = path.stat().st_size == 0 or is_picture(path) or "could not decode" not in text
    except OSError:
        return problem
    if begun:
        return DataError(f"{text}; copy it again from where it came, or move it out of the data's folder")
    return DataError(f"{text}; it begins as no picture does: move it out of the data's folder, or save it as PNG if it is one")


def _spread(image: Image) -> float:
    """The standard deviation of every so many pixels both ways, of 255."""
    h, w = image.shape[:2]
    some = image[:: max(h // 64, 1), :: max(w // 64, 1)]
    return float(some.std()) * (255 / np.iinfo(image.dtype).max if image.dtype == np.uint8 else 255 / max(int(image.max()), 1))


def _values(image: Image) -> int:
    if image.dtype != np.uint8:
        return 256
    return int((cv2.calcHist([np.asarray(image)], [0], None, [256], [0, 256]) > 0).sum())


def frame_of(path: Path, spec: InputSpec, seq: int = 1) -> Frame:
    """An image file as a frame. Raises DataError."""
    image = load_frame(path, spec)
    image.flags.writeable = False
    return Frame(seq, 0, str(path), image)
