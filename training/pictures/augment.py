"""Variations that good parts show anyway: lying a little off, turned, under a lamp that ages. Chosen by the user for the product.

Nothing is varied unless it is asked for: where a part never turns, a turned one is a defect.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ConfigError, DataError

Flip = Literal["none", "horizontal", "vertical", "both"]


class Augment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ranges of the random variations, and how many to make. Stands in the manifest as it is."""

    shift_px: int = 0
    """Up to so many pixels of the model's input, either way, along each axis."""
    rotate_deg: float = 0.0
    """Up to so many degrees, either way, about the middle; 180 for parts that lie in any direction."""
    brightness: float = 0.0
    """Up to this share brighter or darker: a factor, as lamps and exposures are."""
    contrast: float = 0.0
    """Up to this share further from or closer to the picture's mean."""
    lamp: float = 0.0
    """Up to this share darker and brought back to the same brightness: of a lamp that has aged, rounding to whole grey levels is left."""
    blur_px: float = 0.0
    """Half of the variations as a lens would blur them, with a Gaussian of up to this standard deviation."""
    tint: float = 0.0
    """Up to so many levels of colour (Cr and Cb) of the whole, as many that differ softly from place to place, and a quarter of it as
    noise: compression rounds colours and leaves fine ones out, and in another light it does so otherwise."""
    flip: Flip = "none"
    """For parts without sides: "horizontal" mirrors half of the pictures left to right, "vertical" top to bottom, "both" either way."""
    copies: int = 4
    """Variations of each image, beside the image itself."""

    @property
    def words(self) -> str:
        """As `parse_augment` takes it: what is varied, and how many of each image."""
        named = {field: name for name, field in _FIELDS.items()}
        values = {named.get(name, name): value for name, value in msgspec.structs.asdict(self).items()}
        return ",".join(f"{name}={value if name == 'flip' else f'{value:g}'}" for name, value in values.items() if value not in (0, "none"))

    def __call__(self, image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 BGR -> one random variation of the same shape; the picture goes on mirrored beyond its border.

        An ignore mask's fill moves with the picture. Raises DataError for another shape or type.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise DataError(f"augment: expected a picture (H, W, 3) of uint8, found {image.dtype} {image.shape}")
        out = self._move(self._tinted(image, rng), rng)
        if self.flip in ("horizontal", "both") and rng.random() < 0.5:
            out = out[:, ::-1]
        if self.flip in ("vertical", "both") and rng.random() < 0.5:
            out = out[::-1]
        if self.brightness or self.contrast:
            gain = 1 + rng.uniform(-self.brightness, self.brightness)
            spread = 1 + rng.uniform(-self.contrast, self.contrast)
            mean = float(out.mean())
            # One table of 256 values does both: x -> gain (mean + spread (x - mean)).
            table = np.clip(np.rint(gain * (mean + spread * (np.arange(256) - mean))), 0, 255).astype(np.uint8)
            out = table[out]
        if self.blur_px and rng.random() < 0.5:
            sigma = rng.uniform(_LEAST_BLUR, max(_LEAST_BLUR, self.blur_px))
            out = np.asarray(cv2.GaussianBlur(out, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), dtype=np.uint8)
        if self.lamp:
            gain = rng.uniform(1 - self.lamp, 1)
            out = np.clip(np.rint(np.rint(np.arange(256) * gain) / gain), 0, 255).astype(np.uint8)[out]
        return np.ascontiguousarray(out)

    def _tinted(self, image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        if not self.tint:
            return image
        height, width = image.shape[:2]
        cr, cb = (
            rng.uniform(-self.tint, self.tint)
            + cv2.resize(rng.uniform(-self.tint, self.tint, (_TINTS, _TINTS)), (width, height), interpolation=cv2.INTER_CUBIC)
            + rng.normal(0, self.tint / 4, (height, width))
            for _ in range(2)
        )
        # ITU-T T.871: brightness stays as it is.
        change = np.stack([1.772 * cb, -0.714136 * cr - 0.344136 * cb, 1.402 * cr], axis=-1)
        return np.clip(np.rint(image + change), 0, 255).astype(np.uint8)

    def _move(self, image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        if not self.shift_px and not self.rotate_deg:
            return image
        height, width = image.shape[:2]
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), rng.uniform(-self.rotate_deg, self.rotate_deg), 1.0)
        # Whole pixels: a shift by a fraction would smooth the texture, and a smooth texture is not what a good part shows.
        matrix[:, 2] += rng.integers(-self.shift_px, self.shift_px + 1, 2)
        moved = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        return np.asarray(moved, dtype=np.uint8)


_LEAST_BLUR = 0.2
_TINTS = 4
"""Places along each side that have a tint of their own."""
_MOST = {"shift": 64, "rotate": 180, "brightness": 0.5, "contrast": 0.5, "lamp": 0.5, "blur": 3, "tint": 16, "copies": 100}
_FIELDS = {"shift": "shift_px", "rotate": "rotate_deg", "blur": "blur_px"}
_WHOLE = ("shift", "copies")
_FLIPS = ("horizontal", "vertical", "both")


def parse_augment(text: str) -> Augment:
    """`shift=8,rotate=3,brightness=0.1,contrast=0.1,flip=horizontal,copies=4`, any of these, as an Augment.

    Raises ConfigError, in one sentence, for anything else, or if nothing would be varied.
    """
    found: dict[str, Any] = {}
    for item in text.split(","):
        key, _, value = (part.strip() for part in item.partition("="))
        if key not in _MOST and key != "flip":
            raise ConfigError(
                f"augment: expected shift, rotate, brightness, contrast, lamp, blur, tint, flip or copies, as in shift=8,rotate=3,"
                f" found {item!r}"
            )
        if key in found:
            raise ConfigError(f"augment: expected {key} once, found it twice in {text!r}")
        found[key] = _flip(value) if key == "flip" else _number(key, value)
    if not any(value for key, value in found.items() if key != "copies"):
        raise ConfigError(
            f"augment: expected at least one of shift, rotate, brightness, contrast, lamp, blur, tint or flip, found {text!r}"
        )
    return Augment(**{_FIELDS.get(key, key): value for key, value in found.items()})


def _flip(value: str) -> str:
    if value not in _FLIPS:
        raise ConfigError(f"augment: expected flip={'|'.join(_FLIPS)}, found {value!r}")
    return value


def _number(key: str, value: str) -> float:
    kind: Callable[[str], float] = int if key in _WHOLE else float
    least = 1 if key == "copies" else 0
    try:
        number = kind(value)
    except ValueError:
        number = math.nan
    if not least <= number <= _MOST[key]:
        whole = "a whole number" if key in _WHOLE else "a number"
        raise ConfigError(f"augment: expected {key} to be {whole} from {least} to {_MOST[key]}, found {value!r}")
    return number
