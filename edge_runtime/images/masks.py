"""What a mask file marks: pixels that differ from its background, whatever colours, palette or alpha channel it was drawn with."""

from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]
Colour = tuple[float, ...]
BLACK: Colour = (0.0,)
_SOFT = 32.0
"""Differences up to here may be the noise of a lossy codec; labels may be as small as 1, so only a histogram tells."""
_SEVERAL = 6
_LEAST_LOSSY = 40.0


def values_of(image: Values) -> Values:
    """(H, W) or (H, W, 3) of what a mask was drawn in: its alpha channel where that is not the same everywhere, else its colours."""
    if image.ndim == 2:
        return image
    if image.shape[2] in (2, 4):
        alpha = image[:, :, -1]
        if (alpha != alpha.flat[0]).any():
            return alpha
        image = image[:, :, :-1]
    same = image.shape[2] == 1 or bool((image[:, :, :1] == image[:, :, 1:]).all())
    return image[:, :, 0] if same else image


def border_of(values: Values) -> Values:
    """(N,) or (N, 3): the outermost pixels."""
    return np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])


def usual_colour(pixels: Values) -> Colour:
    """The most frequent colour of (N,) or (N, C) pixels; equal channels are one number.

    >>> usual_colour(np.array([[255, 255, 255], [255, 255, 255], [0, 0, 255]], np.uint8))
    (255.0,)
    """
    flat = pixels.reshape(len(pixels), -1)
    colours, counts = np.unique(flat, axis=0, return_counts=True)
    return colour_of(colours[counts.argmax()])


def colour_of(pixel: Values) -> Colour:
    """A pixel as a record; gray is one number."""
    numbers = tuple(float(v) for v in np.atleast_1d(pixel))
    return numbers[:1] if len(set(numbers)) == 1 else numbers


def difference(values: Values, background: Colour) -> npt.NDArray[np.float32]:
    """(H, W): the largest difference of any channel from `background`."""
    apart = np.abs(values.astype(np.float32) - np.asarray(background, dtype=np.float32))
    return np.asarray(apart if values.ndim == 2 else apart.max(axis=2), dtype=np.float32)


def marks(values: Values, background: Colour = BLACK, *, lossy: bool = False) -> npt.NDArray[np.uint8]:
    """(H, W) uint8, 255 where `values` differ from `background`.

    Of a lossy format, or a lossless file that was saved from one, where they differ by more than half of the largest difference:
    black is seldom all 0 there.

    >>> mask = np.array([[0, 0, 2], [0, 2, 2]], np.uint8)  # labels may be as small as 1
    >>> marks(mask).tolist()
    [[0, 0, 255], [0, 255, 255]]
    """
    if len(background) > 1 and values.ndim == 2:  # a gray mask among coloured ones
        values = np.repeat(values[:, :, None], len(background), axis=2)
    apart = difference(values, background)
    most = float(apart.max())
    limit = 0.0
    if lossy:
        limit = max(_LEAST_LOSSY, min(127.0, most / 2))
    elif most >= 128:
        soft = apart[(apart > 0) & (apart <= _SOFT)]
        if len(soft) > 0.25 * (apart > _SOFT).sum() and len(np.unique(soft)) >= _SEVERAL:
            limit = most / 2
    return np.where(apart > limit, 255, 0).astype(np.uint8)
