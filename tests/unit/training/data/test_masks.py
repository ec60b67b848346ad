"""Masks are read as they were meant, beside their siblings, or refused by name."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.errors import DataError
from training.data.dataset import Dataset, load_dataset
from training.data.layout import Sample
from training.data.masks import marked, survey, truth
from training.inspect.inspect import inspect_data

SHAPE = (40, 48)
Paint = Callable[[np.ndarray], np.ndarray]


def spot(i: int) -> np.ndarray:
    found = np.zeros(SHAPE, bool)
    found[10 + i : 18 + i, 12 : 24 + i] = True
    return found


def palette_png(index: np.ndarray, colours: list[tuple[int, int, int]], alpha: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.tobytes() for row in index.astype(np.uint8))
    head = struct.pack(">IIBBBBB", index.shape[1], index.shape[0], 8, 3, 0, 0, 0)
    extra = chunk(b"tRNS", alpha) if alpha else b""
    body = chunk(b"IHDR", head) + chunk(b"PLTE", bytes(v for c in colours for v in c)) + extra + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def plain(found: np.ndarray) -> np.ndarray:
    return np.where(found, 255, 0).astype(np.uint8)


def ones(found: np.ndarray) -> np.ndarray:
    return found.astype(np.uint8)


def inverted(found: np.ndarray) -> np.ndarray:
    return plain(~found)


def labels(found: np.ndarray) -> np.ndarray:
    picture = np.zeros((*SHAPE, 3), np.uint8)
    picture[found] = (0, 0, 128)
    return picture


def two_as_the_defect(found: np.ndarray) -> np.ndarray:
    return np.where(found, 2, 1).astype(np.uint8)


def alpha(found: np.ndarray) -> np.ndarray:
    return np.dstack([np.zeros((*SHAPE, 3), np.uint8), plain(found)])


def holes_in_alpha(found: np.ndarray) -> np.ndarray:
    return np.dstack([np.full((*SHAPE, 3), 255, np.uint8), plain(~found)])


def opaque(found: np.ndarray) -> np.ndarray:
    return np.dstack([*[plain(found)] * 3, np.full(SHAPE, 255, np.uint8)])


def deep(found: np.ndarray) -> np.ndarray:
    return np.where(found, 3, 0).astype(np.uint16)


def brown_palette(found: np.ndarray) -> bytes:
    return palette_png(found, [(120, 72, 20), (230, 30, 30)])


def see_through_palette(found: np.ndarray) -> bytes:
    return palette_png(found, [(0, 0, 0), (0, 0, 0)], alpha=b"\0\xff")


def saved_once_as_jpeg(found: np.ndarray) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", plain(found), [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_UNCHANGED)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(3):
        for kind in ("train/good", "test/good", "test/hole"):
            path = tmp_path / "parts" / kind / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), rng.integers(0, 200, SHAPE, dtype=np.uint8))
    return tmp_path / "parts"


def put(data: Path, paint: Callable[[np.ndarray], np.ndarray | bytes], suffix: str = ".png", only: tuple[int, ...] = (0, 1, 2)) -> None:
    folder = data / "ground_truth/hole"
    folder.mkdir(parents=True, exist_ok=True)
    for i in only:
        painted = paint(spot(i))
        path = folder / f"{i}_mask{suffix}"
        if isinstance(painted, bytes):
            path.write_bytes(painted)
        else:
            assert cv2.imwrite(str(path), painted)


def bad_of(loaded: Dataset) -> list[Sample]:
    return [s for s in loaded.test if not s.is_good]


@pytest.mark.parametrize("paint", [plain, ones, labels, deep, opaque])
def test_marks_on_black_need_no_word(data: Path, paint: Paint) -> None:
    put(data, paint)
    loaded = load_dataset(data)
    assert [bool(np.array_equal(truth(s) > 0, spot(i))) for i, s in enumerate(bad_of(loaded))] == [True] * 3
    assert not any("masks" in n for n in loaded.notes) and not inspect_data(data).summary.remarks


@pytest.mark.parametrize(
    ("paint", "said"),
    [
        (inverted, "background is white, not black, in 3 of 3 (they are drawn the other way round)"),
        (two_as_the_defect, "background is gray 1, not black"),
        (brown_palette, "background is RGB 120,72,20, not black"),
        (alpha, "3 of 3 masks are drawn in the alpha channel"),
        (holes_in_alpha, "background is white, not black"),
        (see_through_palette, "3 of 3 masks are drawn in the alpha channel"),
    ],
)
def test_marks_on_another_background_are_read_and_said(data: Path, paint: Paint, said: str) -> None:
    put(data, paint)
    loaded = load_dataset(data)
    assert [bool(np.array_equal(truth(s) > 0, spot(i))) for i, s in enumerate(bad_of(loaded))] == [True] * 3
    assert any(said in n for n in loaded.notes) and any(said in r for r in inspect_data(data).summary.remarks)


@pytest.mark.parametrize(("paint", "suffix"), [(plain, ".jpg"), (inverted, ".jpg"), (saved_once_as_jpeg, ".png")])
def test_the_noise_of_a_lossy_format_marks_nothing(data: Path, paint: Paint, suffix: str) -> None:
    put(data, paint, suffix)
    loaded = load_dataset(data)
    wrong_px = [int(((truth(s) > 0) != spot(i)).sum()) for i, s in enumerate(bad_of(loaded))]
    assert len(wrong_px) == 3 and max(wrong_px) <= 12


def test_one_inverted_mask_among_others_is_named(data: Path) -> None:
    put(data, plain)
    put(data, inverted, only=(1,))
    with pytest.raises(DataError, match=r"1_mask\.png: marks \d+ % .* seems inverted"):
        load_dataset(data)
    assert [(f.what, len(f.items)) for f in inspect_data(data).summary.findings] == [("masks that cannot be meant so", 1)]


def test_a_mask_that_marks_everything_is_named(data: Path) -> None:
    put(data, plain)
    put(data, lambda found: np.full(SHAPE, 255, np.uint8), only=(2,))
    with pytest.raises(DataError, match=r"2_mask\.png: marks 100 % of its picture"):
        load_dataset(data)
    put(data, lambda found: np.full(SHAPE, 255, np.uint8))
    with pytest.raises(DataError, match="3 images cannot be used"):
        load_dataset(data)


def test_an_empty_mask_among_inverted_ones_is_empty(data: Path) -> None:
    put(data, inverted)
    put(data, lambda found: np.full(SHAPE, 255, np.uint8), only=(2,))
    samples = [s for s in load_dataset(data).test if not s.is_good]
    assert [bool(truth(s).any()) for s in samples] == [True, True, False]


def test_masks_of_both_polarities_are_refused(data: Path) -> None:
    put(data, inverted, only=(0, 1))
    put(data, plain, only=(2,))
    found = survey(sorted((data / "ground_truth/hole").iterdir()))
    assert len(found.problems) == 1 and "2_mask.png" in found.problems[0] and "seems inverted" in found.problems[0]
    put(data, plain, only=(1,))
    put(data, two_as_the_defect, only=(2,))
    assert "expected one background" in survey(sorted((data / "ground_truth/hole").iterdir())).problems[0]


def test_large_defects_that_reach_the_border_are_nobodys_guess(data: Path) -> None:
    def most(found: np.ndarray) -> np.ndarray:
        picture = np.full(SHAPE, 255, np.uint8)
        picture[:12] = 0
        return picture

    put(data, most)
    with pytest.raises(DataError, match="nobody can tell defect from background"):
        load_dataset(data)
    put(data, plain, only=(0, 1))
    assert load_dataset(data).test, "beside siblings on black it is a large defect"


def test_a_mask_marks_something_nothing_or_cannot_be_read(tmp_path: Path) -> None:
    paths = [tmp_path / n for n in ("full.png", "empty.png", "broken.png")]
    cv2.imwrite(str(paths[0]), ones(spot(0)))
    cv2.imwrite(str(paths[1]), np.zeros(SHAPE, np.uint8))
    paths[2].write_bytes(b"x")
    full, empty, broken = (marked(paths)[p] for p in paths)
    assert full is True and empty is False and isinstance(broken, DataError)
