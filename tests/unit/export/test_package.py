"""Golden samples that tell devices apart, places that are not overwritten, zips that are reproducible."""

import errno
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.errors import ConfigError, DataError, ExportError
from edge_runtime.model.bundle import ModelBundle
from export.package import check_out, choose_golden, workplace, write_golden, write_zip, zip_path
from training.core.places import move_into_place


def test_golden_samples_are_ordinary_ones_and_those_next_to_the_threshold() -> None:
    scores = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 8.9, 9.0, 10.5, 20.0, 30.0])
    good = np.array([True] * 7 + [False] * 3)
    picks = choose_golden(scores, good, threshold=10.0)
    assert set(picks[:2]) == {3, 2} or set(picks[:2]) == {3, 4}  # the median of the good is 4.0
    assert set(picks[2:4]) == {5, 6}
    assert set(picks[4:]) == {8, 7}
    assert len(set(picks)) == 6


def test_four_good_images_are_enough_and_three_are_not() -> None:
    assert sorted(choose_golden(np.arange(4.0), np.ones(4, bool), 3.0)) == [0, 1, 2, 3]
    assert len(choose_golden(np.arange(5.0), np.array([True, False, False, False, False]), 3.0)) >= 4
    with pytest.raises(DataError, match="at least 4"):
        choose_golden(np.arange(3.0), np.ones(3, bool), 3.0)


def test_golden_frames_keep_every_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 65536, (20, 30), dtype=np.uint16), rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)]
    for name, frame in zip(write_golden(tmp_path, frames), frames, strict=True):
        found = cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED)
        assert found.dtype == frame.dtype
        np.testing.assert_array_equal(found, frame)


def test_the_same_bundle_gives_the_same_zip_and_it_opens(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copy)
    for file in copy.rglob("*"):
        os.utime(file, (1, 1))
    write_zip(tiny_bundle, tmp_path / "a.zip")
    write_zip(copy, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert ModelBundle.open(tmp_path / "a.zip").id == ModelBundle.open(tiny_bundle).id
    assert not list(tmp_path.glob(".*"))


def test_a_taken_place_is_refused_before_any_work(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    check_out(out, zipped=True, force=False)
    shutil.copytree(tiny_bundle, out)
    with pytest.raises(ConfigError, match="exists already"):
        check_out(out, zipped=False, force=False)
    check_out(out, zipped=False, force=True)
    zip_path(tmp_path / "other").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"other\.zip exists already"):
        check_out(tmp_path / "other", zipped=True, force=False)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"expected a place that can be written, found .*/file, which is a file"):
        check_out(tmp_path / "file" / "sub" / "bundle", zipped=False, force=False)


def test_folders_above_a_bundle_are_made_and_go_again_where_nothing_came_of_it(tmp_path: Path) -> None:
    out = tmp_path / "line 3" / "bundles" / "widget"
    check_out(out, zipped=True, force=False)
    with pytest.raises(ExportError, match="No space left"), workplace(out):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())
    with workplace(out) as place:
        (place / "bundle").mkdir()
        (place / "bundle").rename(out)
    assert [p.name for p in out.parent.iterdir()] == ["widget"]


def test_force_replaces_a_bundle_but_no_other_folder(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(ConfigError, match="is no bundle"):
        check_out(tmp_path / "photos", zipped=False, force=True)
    for name in ("new", "out"):
        shutil.copytree(tiny_bundle, tmp_path / name)
    (tmp_path / "out" / "old.txt").write_text("old")
    move_into_place(tmp_path / "new", tmp_path / "out")
    ModelBundle.open(tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "photos"]
