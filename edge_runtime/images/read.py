"""Reading pictures and masks: a file as a camera would have given it, or one sentence why it cannot be read."""

import contextlib
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import DataError
from edge_runtime.files import opened
from edge_runtime.images.damage import damage, says_more
from edge_runtime.images.decoder_output import decoder_messages, silenced
from edge_runtime.images.masks import BLACK, Colour, marks, values_of
from edge_runtime.images.names import LOSSY, suffix_of
from edge_runtime.images.size import HEAD, size_of
from edge_runtime.records import Image

_PIXEL_BYTES = 16
"""Four channels of 32 bits."""
_BESIDE_BYTES = 1 << 26
Pixels = npt.NDArray[np.integer[Any] | np.floating[Any]]


def is_colourless(image: Image) -> bool:
    """Whether the channels of an (H, W, 3) image are equal everywhere."""
    return bool(np.array_equal(image[:, :, 0], image[:, :, 1]) and np.array_equal(image[:, :, 1], image[:, :, 2]))


def read_image(path: Path, most_px: int | None = None) -> Image:
    """An image file as a camera would have given it: (H, W) gray or (H, W, 3) BGR, uint8 or uint16; alpha is dropped.

    `most_px`: a picture of more is not decoded.

    Raises DataError for a file that is empty, unreadable, damaged, too large, or of another pixel type.
    """
    image = decode(path, most_px)
    if image.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path}: expected 8 or 16 bits a pixel, found {image.dtype}")
    if image.ndim == 3:
        if image.shape[2] == 4:
            image = image[:, :, :3]
        elif image.shape[2] in (1, 2):
            image = image[:, :, 0]
    return cast(Image, np.ascontiguousarray(image))


def decode(path: Path, most_px: int | None = None) -> Pixels:
    """What OpenCV makes of a file, as it is stored: (H, W) or (H, W, channels), alpha as the fourth.

    `most_px`: a picture of more is not decoded. Raises DataError.
    """
    try:
        if most_px is not None:
            _bound(path, most_px)
        with opened(path) as file:
            raw = np.fromfile(file, dtype=np.uint8)
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror}") from e
    if raw.size == 0:
        raise DataError(f"{path}: expected an image, found an empty file")
    data = raw.tobytes()
    if says_more(data):
        raise DataError(
            f"{path}: expected an image, could not decode it: truncated: a part of it says that it has more bytes than the file"
        )
    try:
        with silenced():
            image = cv2.imdecode(raw, cv2.IMREAD_UNCHANGED)
    except cv2.error as e:
        if "CV_IO_MAX_IMAGE" in str(e):
            raise DataError(
                f"{path}: is too large: expected up to 2^28 pixels (268 million) and 2^20 a side; cut it into several pictures"
            ) from e
        if e.code == cv2.Error.StsNoMem:
            raise DataError(f"{path}: is too large for this machine's memory ({e.err}); cut it into several pictures") from e
        raise DataError(f"{path}: expected an image, could not decode it: {e.err or e}") from e
    if image is None:
        raise DataError(
            f"{path}: expected an image (PNG, JPEG, BMP, TIFF …), could not decode it: truncated, too large or of another format"
            + _said_of(raw)
        )
    with silenced():
        missing = damage(data, image)
    if missing is not None:
        raise DataError(f"{path}: is damaged: {missing}")
    return cast(Pixels, image)


def _bound(path: Path, most_px: int) -> None:
    """Raises DataError for a file that has more pixels than that, or more bytes than so many pixels can have; OSError."""
    most_bytes = most_px * _PIXEL_BYTES + _BESIDE_BYTES
    if (size := path.stat().st_size) > most_bytes:
        raise DataError(f"{path}: has {size} bytes, expected at most {most_bytes} of a picture of {most_px} pixels; not read")
    with opened(path) as file:
        wh = size_of(file.read(HEAD))
    if wh is not None and wh[0] * wh[1] > most_px:
        raise DataError(f"{path}: has {wh[0]}x{wh[1]} pixels, expected at most {most_px} as the bundle was taught on; not decoded")


def _said_of(raw: npt.NDArray[np.uint8]) -> str:
    """What the library said of a file that it could not decode, in brackets; most say nothing."""
    with decoder_messages() as said, contextlib.suppress(cv2.error):
        cv2.imdecode(raw, cv2.IMREAD_UNCHANGED)
    line = "".join(said).strip().partition("\n")[0]
    return f" ({line[:200]})" if line else ""


def is_lossy(path: Path) -> bool:
    """Whether files of this format may differ a little from what was drawn."""
    return suffix_of(path) in LOSSY


def read_mask(path: Path, background: Colour = BLACK) -> npt.NDArray[np.uint8]:
    """A mask file as (H, W) uint8, 255 where it differs from `background`; of a lossy format, where it does so by far.

    Raises DataError.
    """
    return marks(values_of(decode(path)), background, lossy=is_lossy(path))
