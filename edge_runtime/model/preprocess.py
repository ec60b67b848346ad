"""Frame -> model input: crop, ignore, demosaic, resize, 8 bits. Training, calibration, evaluation and the device all run this very code.

Why: deploy/decisions/0007.
"""

import math
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ConfigError, FrameError
from edge_runtime.images.read import Pixels, is_colourless
from edge_runtime.model.manifest import InputSpec
from edge_runtime.model.shrink import by_area, by_halves, halvings, mosaic_by_halves
from edge_runtime.model.tiles import Box, Tiling
from edge_runtime.records import Affine, Image, ScoreMap

IGNORED_FILL = 127
"""Value of ignored pixels in the model's input: the middle of the range, so that the border of the mask is the only edge."""

GAIN_MAX = 2.0
"""Most by which a picture is made brighter or darker (`InputSpec.brightness`): beyond that no lamp has aged, something is wrong."""
_SAME_GAIN = 1 / 512
"""Gains closer to 1 than this change no pixel but by rounding."""

TRUTH_PX = 1 << 21
"""Most pixels at which the pixels of a tiled product are judged: counting more takes longer than scoring them."""

_DEMOSAIC = {
    "RGGB": cv2.COLOR_BayerRGGB2BGR,
    "BGGR": cv2.COLOR_BayerBGGR2BGR,
    "GRBG": cv2.COLOR_BayerGRBG2BGR,
    "GBRG": cv2.COLOR_BayerGBRG2BGR,
}

_LOOKED_AT_ROWS = 32
"""Rows of a frame that tell whether it is gray: all of them would take longer than the model."""
_MARGIN = 2
"""Pixels of a mosaic around a region that its colours are made of; even, so that the pattern begins with the same colour."""


class Preprocessor:
    """Turns frames of one product into (height, width, 3) uint8 BGR pictures: one a frame, or one a tile.

    >>> from edge_runtime.model.manifest import InputSpec
    >>> preprocess = Preprocessor(InputSpec(height=64, width=64, channels=1, roi=(100, 50, 512, 512)))
    >>> frame = np.zeros((1024, 1280), np.uint8)
    >>> preprocess(frame).shape
    (64, 64, 3)
    >>> preprocess.grid_to_frame(frame, (8, 8)).tolist()
    [[64.0, 0.0, 100.0], [0.0, 64.0, 50.0]]
    >>> preprocess(frame[:, :, None].repeat(4, axis=2))
    Traceback (most recent call last):
    ...
    edge_runtime.errors.FrameError: frame: this bundle was taught on gray (1 channel) images, found 4-channel
    """

    def __init__(
        self, spec: InputSpec, ignore_mask: npt.NDArray[np.uint8] | None = None, roi: tuple[int, int, int, int] | None = None
    ) -> None:
        """Prepare for frames as `spec` describes them.

        Args:
            spec: from the manifest, or built by training.
            ignore_mask: (H, W) of the frame's size, non-zero = ignored. Needs `spec.frame_wh`.
            roi: (x, y, width, height), replaces the spec's (the recipe's override); must have its aspect within 2 %.

        Raises:
            ConfigError: a region outside of the frame, of another aspect, a mask of another size, or a mask together with tiles.
        """
        self.spec = spec
        self._tiling = None if spec.tiles is None else Tiling(spec.tiles, spec.height, spec.width)
        if roi is not None:
            old = spec.roi or (0, 0, *(spec.frame_wh or (roi[2], roi[3])))
            if roi[2] < 1 or roi[3] < 1 or abs((roi[2] * old[3]) / (roi[3] * max(old[2], 1)) - 1) > 0.02:
                raise ConfigError(f"roi: expected the aspect of the bundle's region {old[2]}x{old[3]}, found {roi[2]}x{roi[3]}")
            if ignore_mask is not None:
                raise ConfigError("roi: this bundle has an ignore mask in frame pixels, so its region cannot be moved; teach it again")
        self.roi = roi or spec.roi
        # With a moved region the frames may be of another size than in training; only the region must fit.
        self._frame_wh = None if roi is not None else spec.frame_wh
        if self.roi is not None and self._frame_wh is not None:
            x, y, w, h = self.roi
            if w < 1 or h < 1 or x + w > self._frame_wh[0] or y + h > self._frame_wh[1]:
                raise ConfigError(f"roi: expected a region inside {self._frame_wh[0]}x{self._frame_wh[1]}, found x={x} y={y} {w}x{h}")
        self._judged: npt.NDArray[np.uint8] | None = None  # of the whole frame: 0 where it is ignored
        self._ignore: npt.NDArray[np.bool_] | None = None  # of the region
        if ignore_mask is not None:
            if self._tiling is not None:
                raise ConfigError(
                    "ignore mask: cannot be used together with tiles, as the model does not know which tile it looks at and would judge "
                    "the ignored places as well; limit the view with a region of interest (roi), or leave the tiles out"
                )
            wanted = self._frame_wh
            if wanted is None or ignore_mask.shape != (wanted[1], wanted[0]):
                found = f"{ignore_mask.shape[1]}x{ignore_mask.shape[0]}"
                raise ConfigError(f"ignore mask: expected {_size(wanted)} as all images have, found {found}")
            self._judged = (ignore_mask == 0).astype(np.uint8)
            self._ignore = cast(npt.NDArray[np.bool_], self._crop(ignore_mask > 0))
        self._seen = None if self._ignore is None else self.valid_cells((spec.height, spec.width)).astype(np.uint8)

    @property
    def views(self) -> int:
        """Pictures that a frame becomes: 1 without tiles."""
        return 1 if self._tiling is None else self._tiling.views

    @property
    def truth_hw(self) -> tuple[int, int]:
        """Rows and columns at which pixels are judged: the model's input; with tiles, all of it that they cover, up to TRUTH_PX."""
        if self._tiling is None:
            return self.spec.height, self.spec.width
        h, w = self._tiling.merged_hw((self.spec.height, self.spec.width))
        scale = min(1.0, math.sqrt(TRUTH_PX / (h * w)))
        return round(h * scale), round(w * scale)

    def __call__(self, image: Image) -> npt.NDArray[np.uint8]:
        """(H, W) or (H, W, 3), uint8 or uint16 -> (height, width, 3) uint8 BGR, contiguous. Raises FrameError.

        Of a product without tiles; `split` does for both. Raises ValueError for one with tiles.
        """
        if self._tiling is not None:
            raise ValueError(f"a frame of this product becomes {self.views} pictures, one a tile: use split")
        self.check(image)
        return cast(npt.NDArray[np.uint8], self._level(self._picture(image, self._region(image))[None])[0])

    def split(self, image: Image) -> npt.NDArray[np.uint8]:
        """(H, W) or (H, W, 3), uint8 or uint16 -> (views, height, width, 3) uint8 BGR, contiguous; tiles row by row. Raises FrameError."""
        if self._tiling is None:
            return self(image)[None]
        self.check(image)
        out = np.empty((self.views, self.spec.height, self.spec.width, 3), dtype=np.uint8)
        for picture, box in zip(out, self._tiling.boxes(self._region(image)), strict=True):
            picture[:] = self._picture(image, box)
        return self._level(out)

    def _level(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """All pictures of a frame by one factor to the product's brightness, where it has one: a lamp that ages changes nothing then.

        One factor for all channels and places, and at most GAIN_MAX either way: a cap on the lens stays dark. What was clipped at white
        stays lost. Ignored places do not count and keep their fill: under a dim lamp, too, it is the one that was taught.
        """
        target = self.spec.brightness
        if target is None:
            return pictures
        mean = self.brightness_of(pictures)
        gain = float(np.clip(target / max(mean, 1e-3), 1 / GAIN_MAX, GAIN_MAX))
        if abs(gain - 1) < _SAME_GAIN:
            return pictures
        scaled = cv2.convertScaleAbs(pictures.reshape(-1, self.spec.width, 3), alpha=gain)
        out = cast(npt.NDArray[np.uint8], scaled).reshape(pictures.shape)
        if self._seen is not None:
            np.copyto(out, pictures, where=(self._seen == 0)[:, :, None])
        return out

    def brightness_of(self, pictures: npt.NDArray[np.uint8]) -> float:
        """Mean gray level of a frame's (views, H, W, 3) pictures, ignored places left out: the mean of the three channels, 0..255."""
        seen = self._seen
        means = [cv2.mean(picture, seen)[:3] for picture in pictures]
        return float(np.mean(means))

    def merge(self, scores: npt.NDArray[np.float32], maps: npt.NDArray[np.float32]) -> tuple[float, ScoreMap]:
        """(views,) raw scores and (views, gh, gw) raw maps of one frame's pictures -> the frame's score, and its map of `map_hw`.

        The score is the largest of the tiles', as a part is as bad as its worst place; NaN stays NaN.
        """
        if self._tiling is None:
            return float(scores[0]), maps[0]
        return float(scores.max()), self._tiling.merge(maps)

    def map_hw(self, grid_hw: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the merged map, from those of the model's."""
        return grid_hw if self._tiling is None else self._tiling.merged_hw(grid_hw)

    def _picture(self, image: Image, box: Box) -> npt.NDArray[np.uint8]:
        out = self._shrunk(image, box)
        if out.ndim == 3 and image.ndim == 3 and self.spec.channels == 1:
            out = out[:, :, 0]
        if out.dtype == np.uint16:
            # Scale by the product's stated depth, never by the picture's own maximum: that would hide a dark part.
            out = cv2.convertScaleAbs(np.minimum(out, (1 << self.spec.bits) - 1), alpha=255.0 / ((1 << self.spec.bits) - 1))
        if out.ndim == 2:
            out = cv2.cvtColor(out, cv2.COLOR_GRAY2BGR)
        return np.ascontiguousarray(out, dtype=np.uint8)

    def grid_to_frame(self, image: Image, map_hw: tuple[int, int]) -> Affine:
        """(2, 3): from the map's grid (with tiles the merged one) to the frame's pixels."""
        x, y, w, h = self._region(image)
        return np.array([[w / map_hw[1], 0.0, x], [0.0, h / map_hw[0], y]], dtype=np.float64)

    def valid_cells(self, map_hw: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """(gh, gw): cells of the map (with tiles the merged one) of which less than half is ignored."""
        if self._ignore is None:
            return np.ones(map_hw, dtype=bool)
        share = cv2.resize(self._ignore.astype(np.float32), (map_hw[1], map_hw[0]), interpolation=cv2.INTER_AREA)
        return np.asarray(share < 0.5, dtype=bool)

    def crop_mask(self, mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """A defect mask of the frame's size -> bool of `truth_hw`; ignored pixels are False.

        A pixel that holds any of a defect is marked, so that no defect is too small to count.
        """
        out = self._crop(mask) > 0
        if self._ignore is not None:
            out = out & ~self._ignore
        small = out.astype(np.float32)
        rows, columns = self.truth_hw
        for width, height in ((small.shape[1], rows), (columns, rows)):
            shrinks = width < small.shape[1] or height < small.shape[0]
            small = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST))
        return np.asarray(small > 0, dtype=bool)

    def _region(self, image: Pixels) -> Box:
        return self.roi or (0, 0, image.shape[1], image.shape[0])

    def _crop(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        x, y, w, h = self._region(image)
        return image[y : y + h, x : x + w]

    def _shrunk(self, image: Image, box: Box) -> Pixels:
        """What the frame shows in a box, at full depth, as large as the model wants it."""
        spec = self.spec
        if spec.shrink == "area":
            return by_area(self._pixels(image, box), spec.width, spec.height)
        if spec.bayer is not None:
            x, y, w, h = box
            mosaic = self._cut(image, (slice(y + y % 2, y + h), slice(x + x % 2, x + w)))  # begins with the pattern's first colour
            if halvings(mosaic, spec.width, spec.height, 0):
                return mosaic_by_halves(mosaic, spec.bayer, spec.width, spec.height)
        return by_halves(self._pixels(image, box), spec.width, spec.height)

    def _pixels(self, image: Image, box: Box) -> Pixels:
        """What the frame shows in a box, at full depth and in colour: a view of the frame where nothing has to be changed."""
        x, y, w, h = box
        margin = _MARGIN if self.spec.bayer else 0
        left, top = (max(0, start - margin) // 2 * 2 if margin else start for start in (x, y))
        out = self._cut(image, (slice(top, y + h + margin), slice(left, x + w + margin)))
        if self.spec.bayer is not None:
            out = np.asarray(cv2.cvtColor(out, _DEMOSAIC[self.spec.bayer]))[y - top : y - top + h, x - left : x - left + w]
        return out

    def _cut(self, image: Image, rows_columns: tuple[slice, slice]) -> Pixels:
        """A view of the frame; where places are ignored, a copy that shows nothing there."""
        out: Pixels = image[rows_columns]
        if self._judged is None:
            return out
        # Before colours are made and pixels averaged, or ignored ones would still tint their neighbours.
        shown = np.full_like(out, IGNORED_FILL << (self.spec.bits - 8))
        return cast(Pixels, cv2.copyTo(out, self._judged[rows_columns], shown))

    def check(self, image: Image) -> None:
        """Raise FrameError for a frame of another size, type or channel count than `spec` states."""
        spec = self.spec
        channels = 1 if image.ndim == 2 else image.shape[2] if image.ndim == 3 else 0
        # Some programs save gray pictures with three equal channels.
        gray_as_colour = (spec.channels, channels) == (1, 3) and spec.bayer is None
        saved_so = gray_as_colour and is_colourless(image[:: -(-image.shape[0] // _LOOKED_AT_ROWS)])
        if channels != spec.channels and not saved_so:
            taught = _kind(spec.channels) if spec.bayer is None else f"raw Bayer {spec.bayer} (1 channel)"
            hint = "set mono = true in [source] if the camera is gray" if spec.bayer is None else "set the camera to its raw Bayer format"
            hint = f"; {hint}" if (spec.channels, channels) == (1, 3) else ""
            raise FrameError(f"frame: this bundle was taught on {taught} images, found {_kind(channels)}{hint}")
        wanted = np.uint8 if spec.bits == 8 else np.uint16
        if image.dtype != wanted:
            raise FrameError(
                f"frame: this bundle was taught on {np.dtype(wanted).name} images of {spec.bits} bits, found {image.dtype.name}"
            )
        found = (image.shape[1], image.shape[0])
        if self._frame_wh is not None and found != tuple(self._frame_wh):
            raise FrameError(f"frame: this bundle was taught on {_size(self._frame_wh)} images, found {_size(found)}")
        if min(found) < 1:
            raise FrameError("frame: expected a picture, found an empty one")
        if spec.bayer is not None and min(found) < 3:
            raise FrameError(f"frame: expected a Bayer mosaic of at least 3x3 pixels, found {_size(found)}: no colour can be made of it")
        if self.roi is not None and (self.roi[0] + self.roi[2] > found[0] or self.roi[1] + self.roi[3] > found[1]):
            raise FrameError(f"frame: the region of interest {list(self.roi)} does not fit into a frame of {_size(found)}")


def _size(wh: tuple[int, int] | None) -> str:
    return "frames of one size" if wh is None else f"{wh[0]}x{wh[1]}"


def _kind(channels: int) -> str:
    return {1: "gray (1 channel)", 3: "colour (3 channels)"}.get(channels, f"{channels}-channel")
