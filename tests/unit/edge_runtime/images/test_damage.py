"""Pictures that were cut off and still decode are found; sound ones are not."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.errors import DataError
from edge_runtime.images.damage import damage
from edge_runtime.images.read import read_image

CODINGS = {
    "plain": [],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 8],
    "optimised": [cv2.IMWRITE_JPEG_OPTIMIZE, 1],
}


def photograph(channels: int = 3) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (200, 299, channels)).astype(np.uint8)
    return np.squeeze(cv2.GaussianBlur(noise, (0, 0), 3))


def jpeg(image: np.ndarray, coding: str) -> bytes:
    return cv2.imencode(".jpg", image, CODINGS[coding])[1].tobytes()


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_jpeg_that_was_cut_and_ended_again_is_named(tmp_path: Path, coding: str, channels: int, share: float) -> None:
    whole = jpeg(photograph(channels), coding)
    path = tmp_path / "part.jpg"
    path.write_bytes(whole)
    assert read_image(path).shape[0] == 200
    path.write_bytes(whole[: int(len(whole) * share)] + b"\xff\xd9")
    with pytest.raises(DataError, match=r"part\.jpg: is damaged: its (data ends early|last scans are missing)"):
        read_image(path)
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match="truncated"):
        read_image(path)


def test_a_jpeg_that_lacks_its_last_row_is_named(tmp_path: Path) -> None:
    whole = jpeg(photograph(), "plain")
    cut = whole[: int(len(whole) * 0.98)] + b"\xff\xd9"
    said = damage(cut, cv2.imdecode(np.frombuffer(cut, np.uint8), cv2.IMREAD_UNCHANGED))
    assert said is not None and "filled with gray" in said and " 0 of" not in said


@pytest.mark.parametrize("coding", CODINGS)
def test_gray_that_was_photographed_is_no_damage(coding: str) -> None:
    image = photograph()
    image[100:] = 128
    whole = jpeg(image, coding)
    assert damage(whole, cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_UNCHANGED)) is None


def test_what_a_camera_puts_behind_a_jpeg_is_no_damage() -> None:
    whole = jpeg(photograph(), "plain") + bytes(4096) + b"\xff\xd8 preview"
    assert damage(whole, photograph()) is None


@pytest.mark.parametrize(("suffix", "missing"), [(".jpg", "zeros stand"), (".tif", "zeros stand"), (".jp2", "zeros")])
def test_zeros_in_place_of_data_are_named(tmp_path: Path, suffix: str, missing: str) -> None:
    whole = cv2.imencode(suffix, photograph())[1].tobytes()
    path = tmp_path / f"part{suffix}"
    path.write_bytes(whole)
    read_image(path)
    middle, end = len(whole) // 2, len(whole) if suffix == ".jp2" else len(whole) // 2 + 600
    path.write_bytes(whole[:middle] + bytes(end - middle) + whole[end:])
    with pytest.raises(DataError, match=f"is damaged: .*{missing}"):
        read_image(path)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("gray", [0, 128, 255])
def test_blank_pictures_whose_data_is_zeros_are_no_damage(coding: str, gray: int) -> None:
    whole = jpeg(np.full((600, 800), gray, np.uint8), coding)
    assert damage(whole, cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_UNCHANGED)) is None


def test_a_jpeg_that_lacks_intervals_is_named() -> None:
    whole = jpeg(photograph(), "restarts")
    first, third = whole.index(b"\xff\xd0"), whole.index(b"\xff\xd2")
    torn = whole[:first] + whole[third:]
    assert "intervals of its data are missing" in (damage(torn, photograph()) or "")


def test_a_webp_whose_end_was_never_written_is_named(tmp_path: Path) -> None:
    whole = cv2.imencode(".webp", photograph())[1].tobytes()
    path = tmp_path / "part.webp"
    path.write_bytes(whole)
    read_image(path)
    path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    with pytest.raises(DataError, match="holds zeros"):
        read_image(path)


def test_a_webp_that_ends_in_a_blank_part_is_no_damage() -> None:
    image = np.full((2000, 3000), 255, np.uint8)
    cv2.circle(image, (200, 200), 90, 0, -1)
    whole = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 50])[1].tobytes()
    assert whole.endswith(bytes(64)) and damage(whole, cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_UNCHANGED)) is None


def test_more_pixels_than_opencv_reads_are_too_large(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path = tmp_path / "scan.png"
    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b""))
    with pytest.raises(DataError, match=r"scan\.png: is too large"):
        read_image(path)


@pytest.mark.parametrize("length", [0xFC000BF2, 1 << 20, 100])
def test_a_png_that_says_it_is_longer_than_its_file_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """OpenCV takes the memory first: 4 GB for a file of 700 bytes."""
    whole = cv2.imencode(".png", photograph()[:64, :64, 0])[1].tobytes()
    at = whole.index(b"IDAT") - 4
    path = tmp_path / "part.png"
    path.write_bytes(whole[:at] + struct.pack(">I", length) + whole[at + 4 : at + 90])
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(DataError, match="says that it has more bytes than the file"):
        read_image(path)


def test_a_png_with_something_behind_its_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "part.png"
    path.write_bytes(cv2.imencode(".png", photograph())[1].tobytes() + b"\xff" * 40)
    assert read_image(path).shape == (200, 299, 3)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("end", [b"\xff\xda\x00\x0c\x03", b"\xff\xda\x00\x0c", b"\xff\xda\x00\x03\x04\x00", b"\xff\xc4\x00\x14\x10"])
def test_a_jpeg_whose_last_segment_is_cut_off_is_read_or_named(tmp_path: Path, coding: str, end: bytes) -> None:
    path = tmp_path / "part.jpg"
    path.write_bytes(jpeg(photograph(), coding).removesuffix(b"\xff\xd9") + end)
    try:
        assert read_image(path).shape == (200, 299, 3)
    except DataError as e:
        assert any(f"part.jpg: {said}" in str(e) for said in ("is damaged", "expected an image"))  # as far as its decoder comes
