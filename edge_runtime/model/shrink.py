"""A picture made smaller: halved as long as it is twice too large, then by area. Where frames are large that takes a tenth of the time.

A square of pixels becomes one as often as both sides stay at least as long as wanted; only what is left is not a whole factor, and small by
then. What no whole squares cover is left out in equal parts at opposite sides: less than half a pixel of what comes out. A mosaic whose
picture shrinks by two or more needs no colours made of neighbours: each square of its four becomes one pixel.

Why, and how far it lies from the mean over the area: deploy/decisions/0058.
"""

from typing import cast

import cv2

from edge_runtime.images.read import Pixels


def by_area(image: Pixels, width: int, height: int) -> Pixels:
    """The mean of what each pixel covers when shrinking (no aliasing), linear when enlarging (opencv#25620)."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] * image.shape[1] > height * width
    return cast(Pixels, cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def halvings(image: Pixels, width: int, height: int) -> int:
    """How often both sides of an (H, W) or (H, W, channels) picture can be halved and stay at least as long as wanted."""
    factor: int = min(image.shape[1] // width, image.shape[0] // height)
    return max(0, factor.bit_length() - 1)


def by_halves(image: Pixels, width: int, height: int) -> Pixels:
    """(H, W) or (H, W, 3), uint8 or uint16 -> (height, width) or (height, width, 3) of the same type; what is given is not changed.

    >>> picture = np.arange(64, dtype=np.uint8).reshape(8, 8)
    >>> by_halves(picture, 4, 4)[0].tolist()  # the mean of 0, 1, 8 and 9, and so on; a half is rounded up
    [5, 7, 9, 11]
    """
    times = halvings(image, width, height)
    image = _middle(image, 1 << times)
    for _ in range(times):
        image = _half(image)
    return by_area(image, width, height)


def mosaic_by_halves(mosaic: Pixels, pattern: str, width: int, height: int) -> Pixels:
    """(H, W) raw mosaic, uint8 or uint16 -> (height, width, 3) BGR of the same type. Raises ValueError where it is less than halved.

    `pattern`: the colours that its first two rows begin with, such as RGGB.

    >>> red = np.tile(np.array([[200, 30], [30, 10]], np.uint8), (4, 4))
    >>> mosaic_by_halves(red, "RGGB", 2, 2)[0, 0].tolist()
    [10, 30, 200]
    """
    times = halvings(mosaic, width, height)
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
