"""What libjpeg warns of is damage, but for what a camera fills up with."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.errors import DataError
from training.data.dataset import load_dataset
from training.data.torn import torn
from training.inspect.inspect import UNREADABLE, inspect_data

CODINGS = {"plain": [], "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], "restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 40]}


def jpeg(seed: int, coding: str = "plain") -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (200, 300), dtype=np.uint8)
    return cv2.imencode(".jpg", cv2.GaussianBlur(noise, (0, 0), 2), CODINGS[coding])[1].tobytes()


def without(whole: bytes, count: int) -> bytes:
    middle = len(whole) // 2
    return whole[:middle] + whole[middle + count :]


@pytest.mark.slow
@pytest.mark.parametrize("coding", CODINGS)
def test_a_jpeg_that_lacks_bytes_in_its_middle_is_found_and_sound_ones_are_not(tmp_path: Path, coding: str) -> None:
    for i in range(12):
        (tmp_path / f"{i:02d}.jpg").write_bytes(jpeg(i, coding))
    assert not torn(sorted(tmp_path.iterdir()))
    (tmp_path / "05.jpg").write_bytes(without(jpeg(5, coding), 700))
    found = torn(sorted(tmp_path.iterdir()))
    if coding == "plain":  # its last rows are gray besides
        assert load_message(tmp_path).startswith(f"{tmp_path / '05.jpg'}: is damaged")
    assert [p.name for p in found] == ["05.jpg"] and "a part of its data is missing or wrong" in str(found[tmp_path / "05.jpg"])


def load_message(root: Path) -> str:
    with pytest.raises(DataError) as e:
        load_dataset(root)
    return str(e.value)


@pytest.mark.slow
def test_it_is_named_before_anything_is_taught(tmp_path: Path) -> None:
    for i in range(12):
        (tmp_path / f"{i:02d}.jpg").write_bytes(jpeg(i, "restarts"))
    (tmp_path / "07.jpg").write_bytes(without(jpeg(7, "restarts"), 60))
    assert "07.jpg: is damaged" in load_message(tmp_path)
    finding = next(f for f in inspect_data(tmp_path).summary.findings if f.what == UNREADABLE)
    assert len(finding.items) == 1 and "07.jpg" in finding.items[0]


def test_a_few_bytes_more_are_a_habit_where_many_files_have_them(tmp_path: Path) -> None:
    for i in range(12):
        (tmp_path / f"{i:02d}.jpg").write_bytes(jpeg(i)[:-2] + bytes(6) + b"\xff\xd9")
    assert not torn(sorted(tmp_path.iterdir()))
    for i in range(1, 12):
        (tmp_path / f"{i:02d}.jpg").write_bytes(jpeg(20 + i))
    assert [p.name for p in torn(sorted(tmp_path.iterdir()))] == ["00.jpg"]


def test_what_is_no_picture_or_not_there_is_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"text")
    (tmp_path / "b.jpg").write_bytes(jpeg(0))
    assert not torn([tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "gone.jpg", tmp_path / "c.png"])
