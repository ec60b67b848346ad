"""A JPEG that is torn inside is never judged: the folder source gives an error in its place, and goes on."""

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.config.files import FolderSourceConfig
from edge_runtime.errors import SourceError
from edge_runtime.images.read import read_image
from edge_runtime.images.torn import torn_inside
from edge_runtime.sources.folder import Folder


def jpeg(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (200, 300), dtype=np.uint8)
    return cv2.imencode(".jpg", cv2.GaussianBlur(noise, (0, 0), 2), [cv2.IMWRITE_JPEG_RST_INTERVAL, 40])[1].tobytes()


def test_a_torn_picture_costs_its_own_trigger_and_no_other(tmp_path: Path) -> None:
    whole = jpeg(1)
    (tmp_path / "0.jpg").write_bytes(whole)
    (tmp_path / "1.jpg").write_bytes(whole[: len(whole) // 2] + whole[len(whole) // 2 + 60 :])
    (tmp_path / "2.jpg").write_bytes(whole)
    assert read_image(tmp_path / "1.jpg").shape == (200, 300), "it decodes"
    with Folder(FolderSourceConfig(path=tmp_path)) as source:
        assert source.grab(1.0).seq == 1
        with pytest.raises(SourceError, match=r"1\.jpg: is damaged: a part of its data is missing or wrong"):
            source.grab(1.0)
        assert source.grab(1.0).seq == 3


def test_a_few_bytes_before_the_end_are_what_a_camera_fills_up_with() -> None:
    assert torn_inside(jpeg(1)[:-2] + bytes(6) + b"\xff\xd9") is None
    assert torn_inside(cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].tobytes()) is None


def test_pictures_that_others_decode_meanwhile_are_not_taken_for_it(tmp_path: Path) -> None:
    """With two cameras, the warnings of one never fault the other's part."""
    whole = jpeg(1)
    torn = whole[: len(whole) // 2] + whole[len(whole) // 2 + 60 :]
    (tmp_path / "torn.jpg").write_bytes(torn)
    over = threading.Event()

    def decode() -> None:
        while not over.is_set():
            read_image(tmp_path / "torn.jpg")

    other = threading.Thread(target=decode)
    other.start()
    try:
        found = {(torn_inside(whole), torn_inside(torn) is None) for _ in range(200)}
    finally:
        over.set()
        other.join()
    assert found == {(None, False)}
