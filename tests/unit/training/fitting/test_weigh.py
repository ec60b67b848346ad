"""Whether shifted parts are learnt from is measured; dropped, they leave no trace."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.model.preprocess import Preprocessor
from training.core.backbones import DEFAULT_BACKBONE, build_backbone
from training.core.base import Features
from training.data.dataset import Dataset, inputs, load_dataset
from training.data.layout import Sample
from training.fitting import weigh as weighing
from training.fitting.heads import extract_features, torch_backbone_fn
from training.fitting.options import FitOptions, resolve
from training.fitting.teach import teach
from training.fitting.weigh import Seen, Weighed, weigh, without_variations, worth
from training.pictures.augment import Augment
from training.pictures.material import good_pictures


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """26 good parts, a bright square each."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "train" / "good").mkdir(parents=True)
    for i in range(26):
        image = np.random.default_rng(i).normal(90, 4, (64, 64))
        image[20:40, 20:40] += 60
        cv2.imwrite(str(folder / "train" / "good" / f"{i}.png"), np.clip(np.rint(image), 0, 255).astype(np.uint8))
    return load_dataset(folder, image_size="64")


def seen(good: float, painted: float, spread: float, n: int = 60, seed: int = 0, off: float = 0.0) -> Seen:
    """`off`: how much higher varied parts score."""
    rng = np.random.default_rng(seed)
    return Seen(rng.normal(good, spread, n), rng.normal(good + off, spread, n), rng.normal(painted, spread, n))


@pytest.mark.slow
def test_variations_that_cost_more_than_noise_are_left_out() -> None:
    assert not worth(seen(10, 11, 1), seen(10, 14, 1), seed=0)


def test_variations_that_cost_little_or_nothing_are_kept() -> None:
    assert worth(seen(10, 14, 1), seen(10, 14.1, 1, off=1), seed=0)
    assert worth(seen(10, 14, 1), seen(10, 11, 1), seed=0)


def test_variations_that_gain_nothing_are_left_out_and_why_is_said() -> None:
    worse, better = seen(10, 14, 1, off=3), seen(10, 14, 1, off=2)
    assert worse.astray > better.astray and not worth(worse, better, seed=0)
    assert worth(better, worse, seed=0)
    assert not worth(better, better, seed=0)
    assert worth(seen(10, 12, 1, off=3), seen(10, 11.5, 1, off=2), seed=0), "painted defects are told better"
    assert "nothing is gained" in Weighed(worse, better, kept=False).sentence
    assert "costs too much" in Weighed(better, worse, kept=False).sentence


def test_of_equal_shares_the_whole_of_the_scores_decides() -> None:
    far, farther = seen(10, 14, 1, off=8), seen(10, 14, 1, off=8)
    near = Seen(far.good, np.where(np.arange(60) < 30, 0.0, 99.0), far.painted)
    less = Seen(far.good, np.where(np.arange(60) < 30, 10.0, 99.0), far.painted)
    assert near.astray == less.astray and worth(near, less, seed=0) and not worth(less, near, seed=0)
    assert not worth(far, farther, seed=0)


@pytest.mark.slow
def test_a_price_within_the_noise_of_few_images_is_none() -> None:
    assert worth(seen(10, 10.8, 1, n=12, seed=1), seen(10, 11.2, 1, n=12, seed=1, off=1), seed=0)


def test_a_detector_that_tells_painted_defects_badly_is_doubted() -> None:
    assert "That is little" in Weighed(seen(10, 10.3, 1), seen(10, 10.2, 1), kept=True).sentence
    assert "That is little" not in Weighed(seen(10, 14, 1), seen(10, 10.2, 1), kept=True).sentence


@pytest.mark.slow
def test_what_was_measured_is_said_and_the_variations_are_learnt(dataset: Dataset, tmp_path: Path) -> None:
    said: list[str] = []
    run = teach(dataset, FitOptions("padim", augment=Augment(shift_px=2, copies=1), weigh=True), tmp_path / "run", say=said.append)
    assert run.info.augment == Augment(shift_px=2, copies=1)
    assert any("painted defects told from good parts at an AUROC of" in line and "kept apart" in line for line in said)


@pytest.mark.slow
def test_dropped_variations_leave_no_trace(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weighing, "DEAR", -2.0)
    monkeypatch.setattr(weighing, "SIGMAS", -1e6)
    said: list[str] = []
    varied = FitOptions("padim", augment=Augment(shift_px=2, copies=1), weigh=True)
    run = teach(dataset, varied, tmp_path / "run", say=said.append)
    plain = teach(dataset, FitOptions("padim"), tmp_path / "plain")
    assert run.info.augment is None and any("--augment shift" in line for line in said)
    assert run.info.threshold.value == pytest.approx(plain.info.threshold.value)
    assert run.held_out == plain.held_out


@pytest.mark.slow
def test_variations_asked_for_by_name_are_not_weighed(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weighing, "DEAR", -2.0)
    monkeypatch.setattr(weighing, "SIGMAS", -1e6)
    run = teach(dataset, FitOptions("padim", augment=Augment(shift_px=2, copies=1)), tmp_path / "run")
    assert run.info.augment is not None


BRIGHTNESS, FOCUS = Augment(brightness=0.4, copies=1), Augment(blur_px=2, copies=1)


@pytest.mark.slow
@pytest.mark.parametrize(("defect", "costs", "gains"), [("too dark", BRIGHTNESS, FOCUS), ("out of focus", FOCUS, BRIGHTNESS)])
def test_what_makes_the_defect_on_a_product_is_not_learnt_and_what_does_not_is(
    defect: str, costs: Augment, gains: Augment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real heads on real features of a printed texture: the same two variations, and the defect decides which of them is left out."""
    pattern = cv2.GaussianBlur(np.random.default_rng(7).normal(0, 1, (64, 64)), (0, 0), 1.2)
    (tmp_path / "good").mkdir()
    for i in range(40):
        picture = 130 + 35 * pattern / pattern.std() + np.random.default_rng(i).normal(0, 6, pattern.shape)
        cv2.imwrite(str(tmp_path / "good" / f"{i:02d}.png"), np.clip(np.rint(picture), 0, 255).astype(np.uint8))
    data = load_dataset(tmp_path, image_size="64")
    prepare = data.preprocessor()

    def spoil(samples: Sequence[Sample], prepare: Preprocessor, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """The product's own defects in the place of painted ones: all of the part."""
        good = np.stack(list(inputs(samples, prepare)))[:count]
        bad = [np.rint(p * 0.75) if defect == "too dark" else cv2.GaussianBlur(p, (0, 0), 1.5) for p in good]
        return np.stack(bad).astype(np.uint8)[:, None], np.arange(count)

    monkeypatch.setattr(weighing, "painted_pictures", spoil)
    strides, params = resolve(FitOptions("padim"))
    backbone = build_backbone(DEFAULT_BACKBONE, strides)
    run, shapes = torch_backbone_fn(backbone), backbone.level_shapes(64, 64)
    for variation, kept in ((costs, False), (gains, True)):
        pictures = good_pictures(data.train, prepare, variation, 0)
        features = extract_features(run, pictures, len(data.train), shapes, copies=variation.copies)
        found = weigh("padim", params, shapes, features, data.train, prepare, run, 0)
        assert found is not None
        assert found.kept == kept, found.sentence
        assert found.taught.astray < found.plain.astray, "each of them gains something: the price decides"
    assert found.plain.auroc > 0.9, "the defect is told where nothing else is learnt"


def test_features_of_some_images_come_without_their_variations() -> None:
    level = np.arange(2 * 2 * 3, dtype=np.float32).reshape(12, 1, 1, 1)  # three images, two tiles, one variation
    features = Features.of([level], views=2, copies=1).only(np.array([0, 2]))
    assert without_variations(features).levels[0].ravel().tolist() == [0, 1, 8, 9]
    assert features.levels[0][features.first_copies(np.array([1])).rows].ravel().tolist() == [10, 11]
