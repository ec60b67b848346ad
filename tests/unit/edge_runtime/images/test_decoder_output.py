"""What image libraries write by themselves is kept from the terminal; what Python writes meanwhile is not."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.errors import DataError
from edge_runtime.images.decoder_output import silenced
from edge_runtime.images.read import read_image

NOISE = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)


def spoilt(suffix: str) -> bytes:
    data = cv2.imencode(suffix, NOISE)[1].tobytes()
    half = len(data) // 2
    return {".png": data[:200] + bytes(3) + data[203:], ".tif": data[:half]}.get(suffix, data[:half] + b"\xff\xd3" + data[half + 50 :])


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_a_broken_file_is_told_by_its_error_alone(suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(spoilt(suffix))
    cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    assert capfd.readouterr().err, "the library says something"
    try:
        read_image(path)
    except DataError as e:
        assert str(path) in str(e)
    assert capfd.readouterr().err == ""


def test_what_python_writes_meanwhile_is_seen_and_the_library_speaks_again_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    with silenced(), silenced():
        os.write(2, b"ours\n")
        cv2.imdecode(np.frombuffer(spoilt(".png"), np.uint8), cv2.IMREAD_UNCHANGED)
    assert capfd.readouterr().err == "ours\n"
    cv2.imdecode(np.frombuffer(spoilt(".png"), np.uint8), cv2.IMREAD_UNCHANGED)
    assert "libpng" in capfd.readouterr().err
