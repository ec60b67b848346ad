"""A picture made smaller: large ones are halved first, then the rest by area. At five megapixels that takes a tenth of the time.

Four pixels become one as long as the picture is large, and twice too large at both sides; only what is left is no whole factor. What no
whole squares cover is left out in equal parts at opposite sides: less than half a pixel of what comes out. A mosaic whose picture shrinks
by two or more needs no colours made of neighbours: each square of its four becomes one pixel.

Why, and how far it lies from the mean over the area: deploy/decisions/0058.
"""

from typing import cast

import cv2

from edge_runtime.images.read import Pixels

LARGE_PX = 1 << 19
"""Up to so many pixels the mean over the area takes about a millisecond, and is exact."""


def by_area(image: Pixels, width: int, height: int) -> Pixels:
    """The mean of what each pixel covers when shrinking (no aliasing), linear when enlarging (opencv#25620)."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] * image.shape[1] > height * width
    return cast(Pixels, cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def halvings(image: Pixels, width: int, height: int, large_px: int | None = None) -> int:
    """How often an (H, W) or (H, W, channels) picture is halved: while it is large, and both sides stay at least as long as wanted."""
    large_px = LARGE_PX if large_px is None else large_px
    h, w = image.shape[:2]
    times = 0
    while w * h > large_px and w >= 2 * width and h >= 2 * height:
        w, h, times = w // 2, h // 2, times + 1
    return times


def by_halves(image: Pixels, width: int, height: int) -> Pixels:
    """(H, W) or (H, W, 3), uint8 or uint16 -> (height, width) or (height, width, 3) of the same type; what is given is not changed.

    >>> import numpy as np
    >>> five_megapixels = np.zeros((2048, 2448), np.uint8)
    >>> halvings(five_megapixels, 256, 256), by_halves(five_megapixels, 256, 256).shape
    (2, (256, 256))
    >>> halvings(five_megapixels[:480, :640], 256, 256)
    0
    """
    times = halvings(image, width, height)
    image = _middle(image, 1 << times)
    for _ in range(times):
        image = _half(image)
    return by_area(image, width, height)


def mosaic_by_halves(mosaic: Pixels, pattern: str, width: int, height: int) -> Pixels:
    """(H, W) raw mosaic, uint8 or uint16 -> (height, width, 3) BGR of the same type. Raises ValueError where it is less than halved.

    `pattern`: the colours that its first two rows begin with, such as RGGB.

    >>> import numpy as np
    >>> red = np.tile(np.array([[200, 30], [30, 10]], np.uint8), (512, 512))
    >>> mosaic_by_halves(red, "RGGB", 256, 256)[0, 0].tolist()
    [10, 30, 200]
    """
    times = halvings(mosaic, width, height, 0)  # in colour, by area, it would take three times as long
    if times == 0:
        raise ValueError(f"a mosaic of {mosaic.shape[1]}x{mosaic.shape[0]} is not halved on its way to {width}x{height}")
    mosaic = _middle(mosaic, 1 << times)
    done, planes = (3, _eighths(mosaic)) if times >= 3 else (1, _quarters(mosaic))
    first, second, third, fourth = planes
    colour = {pattern[0]: first, pattern[3]: fourth} if pattern[0] != "G" else {pattern[1]: second, pattern[2]: third}
    green = _mean(second, third) if pattern[0] != "G" else _mean(first, fourth)
    image = cast(Pixels, cv2.merge((colour["B"], green, colour["R"])))
    for _ in range(times - done):
        image = _half(image)
    return by_area(image, width, height)


def _middle(image: Pixels, side: int) -> Pixels:
    """The middle of a picture that squares of `side` pixels cover; of a mosaic it begins with the same colour."""
    h, w = (length // side * side for length in image.shape[:2])
    top, left = (image.shape[0] - h) // 4 * 2, (image.shape[1] - w) // 4 * 2
    return image[top : top + h, left : left + w]


def _half(image: Pixels) -> Pixels:
    """OpenCV has this in vector instructions for 1, 3 and 4 channels alone, and for no other factor."""
    return cast(Pixels, cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA))


def _mean(one: Pixels, other: Pixels) -> Pixels:
    return cast(Pixels, cv2.addWeighted(one, 0.5, other, 0.5, 0))


def _quarters(mosaic: Pixels) -> list[Pixels]:
    """A mosaic's four colours, each (H / 2, W / 2), row by row."""
    h, w = mosaic.shape
    return [cast(Pixels, plane) for row in (0, 1) for plane in cv2.split(mosaic[row::2].reshape(h // 2, w // 2, 2))]


def _eighths(mosaic: Pixels) -> list[Pixels]:
    """A mosaic's four colours, each the mean over eight rows and columns, (H / 8, W / 8).

    Four pixels beside each other are taken for the channels of one, so that colours are halved without being parted first: that would write
    the whole frame once more.
    """
    h, w = mosaic.shape
    planes = []
    for row in (0, 1):
        here, there, here_too, there_too = cv2.split(_half(mosaic[row::2].reshape(h // 2, w // 4, 4)))
        for one, other in ((here, here_too), (there, there_too)):
            mean = _mean(cast(Pixels, one), cast(Pixels, other))
            planes.append(_mean(mean[0::2], mean[1::2]))
    return planes
