"""What counts as the same picture twice, and what only looks like it."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.errors import DataError
from training.data.dataset import load_dataset
from training.data.duplicates import Pair, find_pairs, grain, is_same_picture, perceptual_hash
from training.data.facts import Facts, facts_of, small_of


def part(seed: int = 0, size: tuple[int, int] = (200, 240)) -> np.ndarray:
    """A part without noise: soft shading and a printed grid, float."""
    shading = cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 1, size), (0, 0), 20)
    out = 110 + 40 * shading / np.abs(shading).max()
    out[::40] += 60
    out[:, ::40] += 60
    return np.asarray(cv2.GaussianBlur(out, (0, 0), 1.0))


def photograph(of: np.ndarray, seed: int, sigma: float = 2.0) -> np.ndarray:
    return np.clip(np.round(of + np.random.default_rng(seed).normal(0, sigma, of.shape)), 0, 255).astype(np.uint8)


def pairs_of(folder: Path, images: dict[str, np.ndarray], quality: int = 95) -> list[Pair]:
    for name, image in images.items():
        assert cv2.imwrite(str(folder / name), image, [cv2.IMWRITE_JPEG_QUALITY, quality] if name.endswith("jpg") else [])
    paths = [folder / name for name in images]
    facts = [f for f in facts_of(paths) if isinstance(f, Facts)]
    return find_pairs(paths, facts)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_photographs_of_the_same_spot_are_not_copies(tmp_path: Path, sigma: float) -> None:
    shots = {f"{i}.png": photograph(part(), i, sigma) for i in range(6)}
    a, b = (small_of(s) for s in list(shots.values())[:2])
    assert np.abs(a - b).max() < 2.5 and (perceptual_hash(a) != perceptual_hash(b)).sum() <= 8, "reduced, they cannot be told apart"
    assert pairs_of(tmp_path, shots) == []


def test_equal_outlines_before_a_light_are_not_copies(tmp_path: Path) -> None:
    shots = {}
    for i in range(3):
        image = np.full((200, 200), 255, np.float32)
        cv2.circle(image, (100 * 16 + 3 * i, 100 * 16), 60 * 16, 0, -1, cv2.LINE_AA, 4)  # 3/16 pixel apart
        shots[f"{i}.png"] = photograph(cv2.GaussianBlur(image, (0, 0), 1.0), i, 0.0)
        shots[f"{i}.png"][shots[f"{i}.png"] < 250] = photograph(np.zeros((200, 200)) + 20, i)[shots[f"{i}.png"] < 250]
    assert pairs_of(tmp_path, shots) == []


def test_the_same_photograph_saved_otherwise_is_a_copy(tmp_path: Path) -> None:
    image, other = photograph(part(1), 1, 4), photograph(part(2), 2, 4)
    found = pairs_of(
        tmp_path,
        {
            "a.png": image,
            "other.png": other,
            "same.png": image,
            "packed.bmp": image,
            "colour.png": cv2.cvtColor(image, cv2.COLOR_GRAY2BGR),
            "jpeg.jpg": image,
            "half.png": cv2.resize(other, (120, 100), interpolation=cv2.INTER_AREA),
        },
        quality=75,
    )
    assert [(p.second, p.same_bytes) for p in found] == [(2, True), (3, False), (4, False), (5, False), (6, False)]
    assert found[0].first == 0 and found[-1].first == 1


def test_the_same_photograph_at_16_bits_is_a_copy_and_a_dark_one_is_not(tmp_path: Path) -> None:
    deep = np.round((part() + np.random.default_rng(0).normal(0, 3, (200, 240))) * 16).astype(np.uint16)
    again = np.round((part() + np.random.default_rng(1).normal(0, 3, (200, 240))) * 16).astype(np.uint16)
    assert [(p.first, p.second) for p in pairs_of(tmp_path, {"a.png": deep, "b.tif": deep, "c.png": again})] == [(0, 1)]


def test_a_part_with_a_defect_is_not_a_copy_of_the_photograph_that_it_was_painted_into(tmp_path: Path) -> None:
    image = photograph(part(), 0)
    painted = image.copy()
    painted[90:100, 90:100] = 0
    assert pairs_of(tmp_path, {"a.png": image, "b.png": painted}) == []


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_UNCHANGED)


def test_grain_is_shared_by_copies_and_not_by_two_photographs() -> None:
    first, second = (photograph(part(), i, 4) for i in range(2))
    a, b, packed = (i.astype(np.float32) for i in (first, second, jpeg(first, 75)))
    for x, y, shared in ((a, a, 1.0), (a, b, 0.0), (b, packed, 0.0), (a, packed, 0.7)):
        own_x, own_y, both = grain(x, y)
        assert both / min(own_x, own_y) == pytest.approx(shared, abs=0.2)
        assert is_same_picture(x, y) == (shared > 0.5)


def test_a_drawing_is_told_by_its_edges(tmp_path: Path) -> None:
    def drawn(x: int) -> np.ndarray:
        image = np.full((300, 300), 40, np.uint8)
        cv2.rectangle(image, (60, 80), (x, 220), 200, -1)
        return image

    found = pairs_of(tmp_path, {"a.png": drawn(240), "b.jpg": drawn(240), "c.png": drawn(239)}, quality=80)
    assert [(p.first, p.second) for p in found] == [(0, 1)]
    a, b = (drawn(240).astype(np.float32), jpeg(drawn(240), 80).astype(np.float32))
    assert is_same_picture(a, b, drawn=True) and not is_same_picture(a, b, drawn=False)


def test_where_compression_took_the_grain_away_nothing_is_claimed(tmp_path: Path) -> None:
    shots = {f"{i}.jpg": photograph(part(), i, 1) for i in range(4)}
    assert pairs_of(tmp_path, shots, quality=60) == []


def test_pictures_of_any_shape_can_be_compared(tmp_path: Path) -> None:
    assert find_pairs([], []) == []
    odd = {"dot.png": np.zeros((1, 1), np.uint8), "line.png": np.zeros((1, 300), np.uint8), "flat.png": np.full((50, 60, 3), 9, np.uint8)}
    assert pairs_of(tmp_path, odd) == []


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    for folder, seeds in (("train/good", range(4)), ("test/good", range(10, 12)), ("test/hole", range(20, 22))):
        (tmp_path / "d" / folder).mkdir(parents=True)
        for seed in seeds:
            assert cv2.imwrite(str(tmp_path / "d" / folder / f"{seed}.png"), photograph(part(seed), seed))
    return tmp_path / "d"


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("where", ["test/good", "test/hole"])
def test_a_training_image_in_the_test_split_is_refused_unless_allowed(mvtec: Path, where: str, suffix: str) -> None:
    copy = mvtec / where / f"copy{suffix}"
    spec = load_dataset(mvtec).spec
    cv2.imwrite(str(copy), cv2.imread(str(mvtec / "train/good/2.png"), cv2.IMREAD_UNCHANGED))
    flatters = rf"1 test or bad images.*--allow-duplicates:\n  {copy} is {mvtec}/train/good/2.png"
    contradicts = rf"^{copy} is {mvtec}/train/good/2.png, the same picture called good and bad: move it"
    for against, wrong in (({}, flatters if where == "test/good" else contradicts), ({"spec": spec}, flatters)):  # a fit, an evaluation
        with pytest.raises(DataError, match=wrong):
            load_dataset(mvtec, **against)
    assert any("1 test or bad images are copies" in n for n in load_dataset(mvtec, allow_duplicates=True).notes)
    assert len(load_dataset(mvtec, spec=spec, allow_duplicates=True).test) == 5


def test_an_evaluation_does_not_mind_unusable_training_images(mvtec: Path) -> None:
    spec = load_dataset(mvtec).spec
    (mvtec / "train/good/0.png").write_bytes(b"")
    assert len(load_dataset(mvtec, spec=spec).test) == 4


def test_a_training_image_among_the_bad_ones_is_refused(mvtec: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/x.png").write_bytes((mvtec / "train/good/1.png").read_bytes())
    with pytest.raises(DataError, match=r"x\.png is .*train/good/1\.png"):
        load_dataset(mvtec, bad=tmp_path / "bad")


def test_one_picture_that_is_called_good_and_bad_under_two_names_is_refused_wherever_the_good_one_lies(mvtec: Path) -> None:
    good = min((mvtec / "test/good").glob("*.png"))
    (mvtec / "test/hole/another.png").write_bytes(good.read_bytes())
    with pytest.raises(DataError, match="the same picture called good and bad"):
        load_dataset(mvtec)
    assert load_dataset(mvtec, allow_duplicates=True).train


def test_copies_among_training_images_are_a_note(mvtec: Path) -> None:
    (mvtec / "train/good/9.png").write_bytes((mvtec / "train/good/1.png").read_bytes())
    data = load_dataset(mvtec)
    assert any("1 are copies of others" in n and "9.png of" in n for n in data.notes)
    assert "9.png" not in {s.path.name for s in data.train} and [s.path.name for s in data.copies] == ["9.png"]


def test_of_many_copies_five_are_named(tmp_path: Path) -> None:
    for folder in ("train/good", "test/good"):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(7):
            cv2.imwrite(str(tmp_path / folder / f"{i}.png"), photograph(part(i), i))
    with pytest.raises(DataError) as e:
        load_dataset(tmp_path)
    assert "7 test" in str(e.value) and str(e.value).count("test/good") == 5 and "2 more" in str(e.value)
