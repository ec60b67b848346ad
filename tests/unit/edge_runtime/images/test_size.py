"""A picture's size is read before it is decoded, and what is larger than anybody expects never is."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.config import files as c
from edge_runtime.errors import DataError, SourceError
from edge_runtime.images.read import read_image
from edge_runtime.images.size import size_of
from edge_runtime.sources import open_source

PICTURE = np.random.default_rng(0).integers(0, 255, (37, 61, 3), dtype=np.uint8)


def bomb(side: int = 16_000) -> bytes:
    """A PNG of a few hundred kilobytes in which each pixel is 0: decoded, 16,000² of three channels are 768 MB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"\0" * 64)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff", ".webp", ".jp2", ".ppm", ".pgm"])
def test_the_size_of_each_format_is_that_of_the_decoded_picture(suffix: str) -> None:
    picture = PICTURE if suffix != ".pgm" else PICTURE[:, :, 0]
    data = cv2.imencode(suffix, picture)[1].tobytes()
    assert size_of(data) == (61, 37)


def test_a_lossless_webp_and_a_progressive_jpeg_say_it_too() -> None:
    assert size_of(cv2.imencode(".webp", PICTURE, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()) == (61, 37)
    assert size_of(cv2.imencode(".jpg", PICTURE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()) == (61, 37)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"BM", b"II*\0", b"RIFF\0\0\0\0WEBPVP8 ", b"P5 "]))
def test_whatever_the_bytes_are_nothing_is_raised(data: bytes, begin: bytes) -> None:
    found = size_of(begin + data)
    assert found is None or min(found) >= 0


def test_a_picture_larger_than_was_expected_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb())
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(DataError, match=r"bomb.png: has 16000x16000 pixels, expected at most 4096 .*not decoded"):
        read_image(path, most_px=4096)


def test_a_file_larger_than_any_such_picture_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "long.bmp"
    with path.open("wb") as file:
        file.truncate(1 << 36)
    with pytest.raises(DataError, match=r"long.bmp: has 68719476736 bytes, expected at most"):
        read_image(path, most_px=4096)


def test_a_folder_source_decodes_what_the_bundle_was_taught_on_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(bomb())
    cv2.imwrite(str(tmp_path / "1.png"), PICTURE)
    with open_source(c.FolderSourceConfig(path=tmp_path)) as source:
        source.expect(61 * 37)
        with pytest.raises(SourceError, match=r"0.png: has 16000x16000 pixels, expected at most 2257"):
            source.grab(1)
        assert source.grab(1).image.shape == (37, 61, 3)
