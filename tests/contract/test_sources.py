"""What every source promises, tried on real folders, a real video file and a real HTTP camera."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.config import files as c
from edge_runtime.errors import SourceError, SourceExhausted
from edge_runtime.sources import Source, open_source
from edge_runtime.testing import SourceContract
from tests.support.streams import SIZE, MjpegCamera


@pytest.fixture
def camera() -> Iterator[MjpegCamera]:
    server = MjpegCamera()
    yield server
    server.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "parts"
    path.mkdir()
    for i in range(3):
        cv2.imwrite(str(path / f"{i}.png"), np.full(SIZE, 50 + i, np.uint8))
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "parts.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (SIZE[1], SIZE[0]))
    for i in range(3):
        writer.write(np.full((*SIZE, 3), 50 + 40 * i, np.uint8))
    writer.release()
    return path


SIZES = {"genicam": (100, 128)}
"""Where not SIZE: that producer's cameras cannot be smaller."""


@pytest.fixture(params=["folder", "video", "camera", "synthetic", "pylon", "pylon free", "aravis", "genicam"])
def source(request: pytest.FixtureRequest) -> Source:
    roi = [0, 0, *SIZE[::-1]]
    make: dict[str, Callable[[], c.Source]] = {
        "folder": lambda: c.FolderSourceConfig(path=request.getfixturevalue("folder")),
        "video": lambda: c.VideoSourceConfig(path=request.getfixturevalue("video")),
        "camera": lambda: c.LiveSourceConfig(device=request.getfixturevalue("camera").url, open_timeout_ms=2000, read_timeout_ms=300),
        "synthetic": lambda: c.SyntheticSourceConfig(width=SIZE[1], height=SIZE[0]),
        "pylon": lambda: c.PylonSourceConfig(
            serial=request.getfixturevalue("pylon_camera"), trigger="software", pixel_format="Mono8", roi=roi, exposure_us=1000
        ),
        "pylon free": lambda: c.PylonSourceConfig(
            serial=request.getfixturevalue("pylon_camera"), pixel_format="Mono8", roi=roi, exposure_us=1000
        ),
        "aravis": lambda: c.AravisSourceConfig(
            camera=request.getfixturevalue("gige_camera").address, pixel_format="Mono8", roi=roi, trigger="software", exposure_us=1000
        ),
        "genicam": lambda: c.GenicamSourceConfig(
            producer=request.getfixturevalue("producer"), camera="VikyTL_DEV_red", pixel_format="Mono8", roi=[0, 0, 128, 100]
        ),
    }
    return open_source(make[request.param]())


@pytest.fixture
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    return SIZES.get(request.node.callspec.params["source"], SIZE)


class TestEverySource(SourceContract):
    """The suite that ships."""

    def test_frames_are_as_large_as_was_asked_for(self, source: Source, size: tuple[int, int]) -> None:
        with source:
            images = [source.grab(1.0).image for _ in range(3)]
        for image in images:
            assert image.shape[:2] == size and image.dtype == np.uint8
            with pytest.raises(ValueError, match="read-only"):
                image[0, 0] = 0


def test_a_folder_is_read_in_sorted_order_and_ends(folder: Path) -> None:
    source = open_source(c.FolderSourceConfig(path=folder))
    with source:
        assert source.remaining == 3
        assert [Path(source.grab(1).source).name for _ in range(3)] == ["0.png", "1.png", "2.png"]
        assert source.remaining == 0
        with pytest.raises(SourceExhausted, match="no more images"):
            source.grab(1)


def test_a_looping_folder_begins_again(folder: Path) -> None:
    source = open_source(c.FolderSourceConfig(path=folder, loop=True))
    with source:
        assert source.remaining is None
        assert [int(source.grab(1).image[0, 0]) for _ in range(5)] == [50, 51, 52, 50, 51]


def test_a_corrupt_file_costs_its_own_trigger_only(folder: Path) -> None:
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:40])
    (folder / "2.png").write_bytes(b"")
    cv2.imwrite(str(folder / "3.png"), np.full(SIZE, 99, np.uint16))
    with open_source(c.FolderSourceConfig(path=folder)) as source:
        source.grab(1)
        for name in ("1.png", "2.png"):
            with pytest.raises(SourceError, match=name) as caught:
                source.grab(1)
            assert not isinstance(caught.value, SourceExhausted)
        assert source.grab(1).image.dtype == np.uint16


def test_a_folder_without_images_is_refused_on_entering(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    for path, found in ((tmp_path, "found none"), (tmp_path / "absent", "could not read")):
        with pytest.raises(SourceError, match=found), open_source(c.FolderSourceConfig(path=path)):
            pass


def test_a_video_ends_and_loops(video: Path) -> None:
    with open_source(c.VideoSourceConfig(path=video, mono=True)) as source:
        assert source.remaining == 3
        levels = [float(source.grab(1).image.mean()) for _ in range(3)]
        assert source.remaining == 0
        assert levels == pytest.approx([50, 90, 130], abs=2)
        with pytest.raises(SourceExhausted):
            source.grab(1)
    with open_source(c.VideoSourceConfig(path=video, loop=True)) as source:
        frames = [source.grab(1) for _ in range(7)]
        assert frames[6].image.mean() == pytest.approx(50, abs=2)
        assert [f.seq for f in frames] == list(range(1, 8))


def test_a_missing_or_broken_video_is_refused_on_entering(tmp_path: Path) -> None:
    broken = tmp_path / "broken.avi"
    broken.write_bytes(b"not a video" * 100)
    for path, what in ((broken, "FFmpeg"), (tmp_path / "absent.mp4", "found none")):
        with pytest.raises(SourceError, match=what), open_source(c.VideoSourceConfig(path=path)):
            pass


def noisy_video(path: Path, codec: str) -> bytes:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, (160, 120))
    rng = np.random.default_rng(0)
    for i in range(20):
        part = cv2.circle(np.full((120, 160, 3), 60, np.uint8), (20 + 6 * i, 60), 15, (200, 200, 30), -1)
        writer.write(np.clip(part + rng.normal(0, 8, part.shape), 0, 255).astype(np.uint8))
    writer.release()
    return path.read_bytes()


@pytest.mark.parametrize(("name", "codec"), [("parts.mp4", "mp4v"), ("parts.avi", "MJPG"), ("parts.mkv", "MJPG")])
def test_a_video_that_was_cut_is_told_in_one_sentence_and_decoders_write_nothing(
    name: str, codec: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / name
    whole = noisy_video(path, codec)
    path.write_bytes(whole[: len(whole) * 6 // 10])
    capfd.readouterr()
    if name.endswith(".mp4"):  # its index stands at the end
        with pytest.raises(SourceError, match=r"could not read its first frame \(FFmpeg: moov atom not found\): cut short"):
            open_source(c.VideoSourceConfig(path=path)).__enter__()
    else:
        with open_source(c.VideoSourceConfig(path=path)) as source:
            while source.remaining:
                with contextlib.suppress(SourceError):  # the last one, where the cut went through it
                    source.grab(1)
        assert "the container states 20: the file is damaged or cut short" in caplog.text
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("name", "codec", "again"), [("parts.mp4", "mp4v", 12), ("parts.avi", "MJPG", 6)])
def test_a_damaged_frame_of_a_video_is_never_judged_nor_what_builds_on_it(
    name: str, codec: str, again: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """FFmpeg fills it up with what the picture before had there: that is another part's."""
    path = tmp_path / name
    whole = bytearray(noisy_video(path, codec))
    for at in range(len(whole) // 5, len(whole) // 5 + 900, 300):
        whole[at : at + 40] = np.random.default_rng(at).bytes(40)
    path.write_bytes(whole)
    capfd.readouterr()
    given, errors = [], []
    with open_source(c.VideoSourceConfig(path=path)) as source:
        for i in range(20):
            try:
                given.append((i, source.grab(1).source))
            except SourceError as e:
                errors.append(str(e))
    assert errors and all(str(path) in e and "is damaged, or builds on a picture that is (" in e for e in errors)
    judged = {i for i, _ in given}
    first = min(set(range(20)) - judged)
    assert set(range(again, 20)) <= judged, "those from the next picture on that is whole by itself"
    assert codec == "MJPG" or not judged & set(range(first, again)), "one that builds on others is no better than they"
    assert given[-1][1] == f"{path}#20"
    assert capfd.readouterr().err == ""


def test_synthetic_frames_tell_the_truth_and_repeat() -> None:
    settings = c.SyntheticSourceConfig(width=64, height=48, defect_rate=0.5, seed=7)
    runs = []
    for _ in range(2):
        with open_source(settings) as source:
            runs.append([source.grab(1) for _ in range(20)])
    assert {f.source for f in runs[0]} == {"synthetic:good", "synthetic:scratch", "synthetic:spot", "synthetic:missing"}
    assert all(np.array_equal(a.image, b.image) for a, b in zip(*runs, strict=True))
