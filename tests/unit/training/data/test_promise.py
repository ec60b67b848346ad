"""What too few, too equal or empty pictures cannot promise is said, and what can is let through."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from edge_runtime.errors import CalibrationError, DataError
from training.calibrate.rules import Rule, check_rule
from training.data.dataset import load_dataset, refuse_alike
from training.data.promise import UNMEASURED, say_alike, say_cameras
from training.inspect.inspect import inspect_data, show


def _images(folder: Path, n: int, level: int, noise: float, seed: int = 0) -> None:
    folder.mkdir(parents=True)
    for i in range(n):
        picture = np.random.default_rng(seed + i).normal(level, noise, (64, 64)).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), picture)


def _said(path: Path) -> str:
    written = io.StringIO()
    show(inspect_data(path).summary, Console(file=written, width=300, highlight=False, markup=False))
    return written.getvalue()


def test_copies_of_a_few_pictures_carry_no_threshold() -> None:
    assert say_alike(40, 32) is None and say_alike(3, 0) is None  # too few, which is told elsewhere
    assert "at least 8 good images that differ, found 40 images, 2 different pictures: no false-reject rate" in (say_alike(40, 38) or "")


MANY = (95, 93, 90, 88, 86, 84, 82, 80, 78, 76, 70, 65, 60, 55)


@pytest.mark.parametrize(
    ("content", "qualities"), [("grain", (95,)), ("grain", MANY), ("drawn", (95,)), ("one gray", (95,)), ("one gray", (98, 95, 90, 85))]
)
def test_one_picture_saved_again_and_again_is_one_picture(tmp_path: Path, content: str, qualities: tuple[int, ...]) -> None:
    """40 files of one picture, as JPEG of various qualities, are no 40 parts, to whoever looks and to whoever learns.

    What never had any grain and was saved at other qualities cannot be told from photographs that lost theirs (duplicates.py).
    """
    picture = np.full((120, 160), 120, np.uint8)
    if content != "one gray":
        cv2.circle(picture, (80, 60), 35, 60, 5)
    if content == "grain":
        picture = (picture + np.random.default_rng(0).normal(0, 6, picture.shape)).clip(0, 255).astype(np.uint8)
    (tmp_path / "good").mkdir()
    for i in range(40):
        quality = qualities[i % len(qualities)]
        cv2.imwrite(str(tmp_path / f"good/{i:02d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    data = load_dataset(tmp_path)
    assert (len(data.train), len(data.copies), len(data.sha256)) == (1, 39, 1)
    assert any("40 images, 1 different picture: 39 are copies" in n for n in data.notes)
    with pytest.raises(DataError, match="found 40 images, 1 different picture: no false-reject rate can be promised"):
        refuse_alike(data)
    said = _said(tmp_path)
    assert "padim" not in said, "one picture does not say how parts lie"
    assert "1 × too few different pictures" in said and "good images: 40 images, 1 different picture" in said


def test_a_promise_counts_a_picture_once(tmp_path: Path) -> None:
    """60 files of 20 parts: what may be asked for is what 20 parts can show."""
    _images(tmp_path / "good", 20, 120, 40.0)
    for i in range(20):
        for again in range(2):
            (tmp_path / f"good/{i}_{again}.png").write_bytes((tmp_path / f"good/{i}.png").read_bytes())
    data = load_dataset(tmp_path)
    assert len(data.train) == 20 and any("60 images, 20 different pictures" in n for n in data.notes)
    with pytest.raises(CalibrationError, match="20 good images support"):
        check_rule(Rule(kind="false_reject_rate", target=0.01), len(data.train))
    check_rule(Rule(kind="false_reject_rate", target=0.01), 60)


@pytest.mark.parametrize(("level", "word"), [(0, "black"), (255, "white"), (120, "of one gray")])
def test_pictures_that_show_nothing_are_named(tmp_path: Path, level: int, word: str) -> None:
    _images(tmp_path / "good", 10, level, 1.0)
    notes = load_dataset(tmp_path).notes
    assert any("show next to nothing" in n and f"all {word}:" in n for n in notes)
    assert "show nothing" in _said(tmp_path) and "looked at: " not in _said(tmp_path)


def test_a_fine_texture_shows_something_though_its_mean_is_the_same_everywhere(tmp_path: Path) -> None:
    """A weave of 500x1240 pixels."""
    weave = 120 + 30 * np.sign(np.sin(np.arange(500) / 1.3))[:, None] * np.sign(np.sin(np.arange(1240) / 1.7))
    (tmp_path / "good").mkdir()
    for i in range(10):
        noisy = weave + np.random.default_rng(i).normal(0, 3, weave.shape)
        cv2.imwrite(str(tmp_path / f"good/{i}.png"), noisy.clip(0, 255).astype(np.uint8))
    assert not any("next to nothing" in n for n in load_dataset(tmp_path).notes)


def test_a_test_split_without_one_of_both_is_remarked(tmp_path: Path) -> None:
    _images(tmp_path / "train/good", 10, 120, 40.0)
    _images(tmp_path / "test/good", 3, 120, 40.0, 50)
    assert any("no bad image" in n and UNMEASURED in n for n in load_dataset(tmp_path).notes)
    assert "no bad image" in _said(tmp_path)
    _images(tmp_path / "test/hole", 3, 60, 40.0, 70)
    assert not any(UNMEASURED in n for n in load_dataset(tmp_path).notes) and "no bad image" not in _said(tmp_path)


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ([".png"] * 10, [".jpg"] * 6, "0 of 10 good and 6 of 6 bad images are JPEG"),
        ([".jpg"] * 6 + [".png"] * 6, [".jpg"] * 3 + [".png"] * 3, "6 of 12 good images are JPEG or the like, the others are not"),
        ([".jpg"] * 10, [".jpg"] * 6, None),
        ([".png"] * 20 + [".jpg"], [".png"] * 6, None),
        ([".png"] * 10, [".jpg"] * 2, None),
    ],
)
def test_files_whose_kind_alone_tells_good_from_bad_are_said(tmp_path: Path, good: list[str], bad: list[str], said: str | None) -> None:
    for word, suffixes in (("good", good), ("bad", bad)):
        _images(tmp_path / word, len(suffixes), 90, 30, seed=1000 * len(word))
        for i, suffix in enumerate(suffixes):
            file = tmp_path / word / f"{i}.png"
            if suffix == ".jpg":
                cv2.imwrite(str(file.with_suffix(suffix)), cv2.imread(str(file)))
                file.unlink()
    notes = load_dataset(tmp_path).notes
    assert [(said or "-") in note for note in notes if "are JPEG" in note] == ([True] if said else [])
    assert (said is not None) == ("files of different kinds" in _said(tmp_path))


def _of_two_cameras(folder: Path, n: int, second: tuple[int, int], suffix: str = ".jpg") -> Path:
    (folder / "good").mkdir(parents=True)
    for i in range(n):
        picture = np.random.default_rng(i).normal(120, 30, (64, 64)).clip(0, 255).astype(np.uint8)
        picture = picture if i % 2 else cv2.resize(picture, second)
        cv2.imwrite(str(folder / "good" / f"{i:03d}{suffix}"), picture, [cv2.IMWRITE_JPEG_QUALITY, 92] if suffix == ".jpg" else [])
    return folder


def test_what_was_taught_compressed_is_said_and_stands_in_the_record(tmp_path: Path) -> None:
    """By the files' own quantization tables; a station compares it with what its source delivers."""
    jpeg = load_dataset(_of_two_cameras(tmp_path / "j", 20, (64, 64)))
    assert (jpeg.record.n_lossy, jpeg.record.quality) == (len(jpeg.train), 92)
    assert any("JPEG files (quality about 92): frames of a camera that compresses nothing" in note for note in jpeg.notes)
    assert "JPEG files (quality about 92)" in _said(tmp_path / "j")
    left = jpeg.leave_out([jpeg.name_of(jpeg.train[0])])
    assert left.record.n_lossy == len(jpeg.train) - 1
    png = load_dataset(_of_two_cameras(tmp_path / "p", 20, (64, 64), ".png"))
    assert (png.record.n_lossy, png.record.quality) == (0, 0)
    assert not any("compresses nothing" in note for note in png.notes)


def test_good_images_of_two_sizes_are_said_to_be_of_two_cameras(tmp_path: Path) -> None:
    two = load_dataset(_of_two_cameras(tmp_path / "two", 40, (48, 48), ".png"))
    said = "the pictures come in 2 sizes, "
    (doubt,) = two.doubts
    assert doubt.startswith(said)
    assert "of 64x64" in doubt
    assert "2 cameras?" in doubt
    assert doubt in two.notes
    assert said in _said(tmp_path / "two")
    one = load_dataset(_of_two_cameras(tmp_path / "one", 40, (64, 64), ".png"))
    assert not one.doubts
    # Cut-outs, each of its own size, and a part that lies across are no cameras.
    assert say_cameras([(60 + i, 70 + i) for i in range(40)]) is None
    assert say_cameras([(64, 48)] * 20 + [(48, 64)] * 20) is None
    assert say_cameras([(64, 64)] * 39 + [(48, 48)]) is None
