"""What compression took away is read off a file's first bytes."""

import cv2
import numpy as np
import pytest

from edge_runtime.images.loss import loss_of

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def coded(suffix: str, *flags: int) -> bytes:
    return bytes(cv2.imencode(suffix, PICTURE, flags)[1])


@pytest.mark.parametrize("quality", [1, 10, 40, 50, 70, 75, 90, 92, 98, 100])
def test_a_jpeg_s_quality_is_that_of_its_tables(quality: int) -> None:
    assert loss_of(coded(".jpg", cv2.IMWRITE_JPEG_QUALITY, quality)) == quality
    assert loss_of(coded(".jpg", cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)) == quality


def test_what_else_loses_something_is_told_from_what_loses_nothing() -> None:
    assert loss_of(coded(".webp", cv2.IMWRITE_WEBP_QUALITY, 80)) == 0
    assert loss_of(coded(".webp", cv2.IMWRITE_WEBP_QUALITY, 101)) is None
    assert loss_of(coded(".jp2")) == 0
    assert [loss_of(coded(s)) for s in (".png", ".bmp", ".tif", ".ppm")] == [None] * 4
    jpeg = coded(".jpg")
    assert loss_of(b"") is None
    assert [loss_of(jpeg[:n]) for n in (2, 21, 40)] == [0, None, None], "cut short: no table, or a part of one"
