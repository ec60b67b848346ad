"""What is learnt from: tiles, variations and bad parts, the same in a fit and in an export; and what makes no sense is refused at once."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.errors import ConfigError, DataError
from edge_runtime.model.manifest import InputSpec, TileSpec
from edge_runtime.model.preprocess import Preprocessor
from training.core.base import LEAST_BAD, Features
from training.data.dataset import Dataset, load_dataset
from training.data.layout import Sample
from training.fitting.heads import cross_fit, fit_head, score_features
from training.fitting.options import FitOptions, check_enough, outlier_source, resolve
from training.methods.table import METHODS
from training.pictures.augment import Augment
from training.pictures.material import OutlierSource, good_pictures, outlier_pictures

PLAIN = Preprocessor(InputSpec(height=64, width=64, channels=1))
TILED = Preprocessor(InputSpec(height=64, width=64, channels=1, tiles=TileSpec(columns=2, rows=1)))
AUGMENT = Augment(shift_px=3, brightness=0.1, copies=2)


def part(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return cv2.GaussianBlur(rng.normal(120, 60, (64, 128)).astype(np.float32), (0, 0), 2).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("parts")
    for seed in range(10):
        cv2.imwrite(str(root / f"{seed}.png"), part(seed))
    return load_dataset(root, image_size="64")


@pytest.fixture(scope="module")
def bad_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bad")
    for i in range(LEAST_BAD):
        image, mask = part(50 + i), np.zeros((64, 128), np.uint8)
        cv2.circle(image, (96, 30), 8, 255, -1)
        cv2.circle(mask, (96, 30), 8, 255, -1)
        for folder, picture in (("dent", image), ("masks", mask)):
            (root / folder).mkdir(exist_ok=True)
            cv2.imwrite(str(root / folder / f"{i}.png"), picture)
    return root


def test_an_image_comes_with_its_variations_and_always_the_same_ones(dataset: Dataset) -> None:
    pictures = list(good_pictures(dataset.train, PLAIN, AUGMENT, seed=3))
    assert len(pictures) == 10 * 3
    assert np.array_equal(pictures[3], PLAIN(cv2.imread(str(dataset.train[1].path), cv2.IMREAD_UNCHANGED)))
    assert not np.array_equal(pictures[3], pictures[4]) and not np.array_equal(pictures[4], pictures[5])
    alone = list(good_pictures(dataset.train[1:2], PLAIN, AUGMENT, seed=3))
    assert all(np.array_equal(a, b) for a, b in zip(pictures[3:6], alone, strict=True))
    assert not np.array_equal(list(good_pictures(dataset.train[1:2], PLAIN, AUGMENT, seed=4))[1], alone[1])


def test_tiles_of_an_image_lie_before_their_variations(dataset: Dataset) -> None:
    pictures = list(good_pictures(dataset.train[:2], TILED, AUGMENT, seed=0))
    assert len(pictures) == 2 * 2 * 3
    own = TILED.split(cv2.imread(str(dataset.train[1].path), cv2.IMREAD_UNCHANGED))
    assert np.array_equal(np.stack(pictures[6:8]), own)


def test_variations_of_an_image_never_help_to_score_it() -> None:
    """One image and its variation are unlike all others: a head that saw the variation would find the image ordinary."""
    rng = np.random.default_rng(0)
    level = rng.normal(size=(40, 6, 4, 4)).astype(np.float32)
    level[14:16] += 9
    features = Features.of([level], copies=1)
    assert features.n_images == 20
    held_out, _ = cross_fit("padim", {}, [(6, 4, 4)], features, PLAIN, seed=0)
    head = fit_head("padim", {}, [(6, 4, 4)], features, PLAIN, 0)
    own = score_features(head, features.of_images(np.arange(20), varied=False), PLAIN)
    assert len(held_out) == len(own) == 20
    assert held_out.score.argmax() == 7 and held_out.score[7] > 2 * own.score[7]


def test_an_image_is_as_bad_as_its_worst_tile() -> None:
    level = np.random.default_rng(0).normal(size=(20, 6, 4, 4)).astype(np.float32)
    head = fit_head("padim", {}, [(6, 4, 4)], Features.of([level], views=2), TILED, 0)
    level[7, :, 1, 1] += 20
    tiled = score_features(head, Features.of([level], views=2), TILED)
    single = score_features(head, Features.of([level]), PLAIN)
    assert len(tiled) == 10 and tiled.score.argmax() == 3
    assert np.array_equal(tiled.score, single.score.reshape(10, 2).max(1))


def test_bad_parts_come_with_masks_and_kinds_before_painted_ones(dataset: Dataset, bad_folder: Path) -> None:
    source = OutlierSource(bad=str(bad_folder), masks=str(bad_folder / "masks"), synthetic=7)
    found = outlier_pictures(source, dataset, dataset.train[:6], PLAIN, seed=0)
    assert len(found) == LEAST_BAD + 7 and found.images.shape[1:] == (64, 64, 3)
    assert found.kinds[:LEAST_BAD] == ("dent",) * LEAST_BAD and all(k.startswith("synthetic ") for k in found.kinds[LEAST_BAD:])
    assert found.synthetic.sum() == 7 and found.masked.all() and len(found.sha256) == LEAST_BAD
    assert found.masks[0][30, 48] and not found.masks[0][30, 10]
    outliers = found.outliers([np.zeros((len(found), 2, 8, 8), np.float32)], (8, 8))
    assert outliers.masks[0].argmax() == 3 * 8 + 6 and 0 < outliers.masks[0].max() <= 1
    again = outlier_pictures(source, dataset, dataset.train[:6], PLAIN, seed=0)
    assert np.array_equal(again.images, found.images)


def test_bad_parts_without_masks_have_no_shares(dataset: Dataset, bad_folder: Path) -> None:
    found = outlier_pictures(OutlierSource(bad=str(bad_folder / "dent")), dataset, dataset.train, PLAIN, seed=0)
    outliers = found.outliers([np.zeros((len(found), 2, 8, 8), np.float32)], (8, 8))
    assert not found.masked.any() and np.isnan(outliers.masks).all()


def test_of_a_tiled_bad_part_only_the_tiles_that_show_it_are_learnt_from(dataset: Dataset, bad_folder: Path) -> None:
    source = OutlierSource(bad=str(bad_folder), masks=str(bad_folder / "masks"))
    found = outlier_pictures(source, dataset, dataset.train, TILED, seed=0)
    assert len(found) == LEAST_BAD and found.masks.any(axis=(1, 2)).all()  # the right tile of each
    with pytest.raises(ConfigError, match="no mask: of a product that is cut into tiles"):
        outlier_pictures(OutlierSource(bad=str(bad_folder / "dent")), dataset, dataset.train, TILED, seed=0)


def test_too_few_bad_parts_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), part(70))
    with pytest.raises(DataError, match="at least 5 images to learn from, found 1"):
        outlier_pictures(OutlierSource(bad=str(tmp_path)), dataset, dataset.train, PLAIN, seed=0)
    with pytest.raises(DataError, match="expected bad images"):
        outlier_pictures(OutlierSource(), dataset, dataset.train, PLAIN, seed=0)


def test_bad_parts_of_the_training_split_are_learnt_from(dataset: Dataset, bad_folder: Path) -> None:
    import dataclasses

    own = tuple(Sample(p, "dent", False, None, "train") for p in sorted((bad_folder / "dent").iterdir()))
    found = outlier_pictures(OutlierSource(), dataclasses.replace(dataset, bad=own), dataset.train, PLAIN, seed=0)
    assert len(found) == LEAST_BAD and found.kinds == ("dent",) * LEAST_BAD


def test_options_that_make_no_sense_are_refused_before_any_work() -> None:
    with pytest.raises(ConfigError, match="computed, not learnt by steps"):
        resolve(FitOptions("padim", minutes=3))
    with pytest.raises(ConfigError, match="learns from good images only"):
        outlier_source(FitOptions("padim", outliers=OutlierSource(bad="x")))
    with pytest.raises(DataError, match="devnet: needs at least 5 bad images"):
        outlier_source(FitOptions("devnet"))
    assert outlier_source(FitOptions("devnet"), own=6) == OutlierSource()
    assert (outlier_source(FitOptions("fcdd")) or OutlierSource()).synthetic > 0


def test_too_few_good_images_name_a_method_that_does_with_them() -> None:
    demanding = max(METHODS, key=lambda m: METHODS[m].least_images)
    with pytest.raises(DataError, match=rf"{demanding}: expected at least \d+ good images, found 8; .*padim"):
        check_enough(demanding, 8)
    with pytest.raises(DataError, match="padim: expected at least 8 good images, found 7; add images"):
        check_enough("padim", 7)
