"""Figures against independent ways of computing them."""

from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from scipy.ndimage import label
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from edge_runtime.errors import DataError
from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.manifest import InputSpec
from edge_runtime.model.preprocess import Preprocessor
from edge_runtime.records import Frame, Prediction
from training.data.dataset import load_dataset
from training.data.layout import Sample
from training.judging.evaluate import by_kind, evaluate_bundle, measure, score_dataset
from training.judging.pixels import PixelCounts, bins_of, label_regions


def maps_and_masks(seed: int, n: int = 12, negative: bool = False) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for i in range(n):
        mask = np.zeros((40, 50), bool)
        if i % 2:
            mask[5:12, 5 : 9 + i] = True
            mask[20 + i : 30 + i // 2, 30:33] = True
        values = cv2.GaussianBlur(rng.normal(size=mask.shape).astype(np.float32), (0, 0), 1.5) * 3 + mask * rng.uniform(0.1, 1.2)
        maps.append((values if negative else np.exp(values)).astype(np.float32))
        masks.append(mask)
    return maps, masks


def brute_aupro(maps: list[np.ndarray], masks: list[np.ndarray], limit: float = 0.3) -> float:
    """Every distinct score is a threshold; regions by another library."""
    values, truth = np.stack(maps), np.stack(masks)
    regions = []
    for i, mask in enumerate(masks):
        labels, count = label(mask, structure=np.ones((3, 3)))
        regions += [values[i][labels == r] for r in range(1, count + 1)]
    good = np.sort(values[~truth])
    steps = np.unique(values)[::-1]
    fpr = np.concatenate([[0], 1 - np.searchsorted(good, steps, side="left") / len(good)])
    overlap = np.mean([np.concatenate([[0], 1 - np.searchsorted(np.sort(r), steps, side="left") / len(r)]) for r in regions], axis=0)
    grid = np.unique(np.concatenate([fpr[fpr <= limit], [limit]]))
    # np.interp wants one overlap a rate: the last is the highest.
    last = np.searchsorted(fpr, grid, side="right") - 1
    height = np.where(fpr[last] == grid, overlap[last], np.interp(grid, fpr, overlap))
    first = np.searchsorted(fpr, grid, side="left")
    left = np.where(fpr[np.minimum(first, len(fpr) - 1)] == grid, overlap[np.minimum(first, len(fpr) - 1)], height)
    return float(np.sum(np.diff(grid) * (height[:-1] + left[1:]) / 2) / limit)


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_pixel_figures_agree_with_scikit_learn_and_brute_force(seed: int, negative: bool) -> None:
    maps, masks = maps_and_masks(seed, negative=negative)
    counts = PixelCounts()
    for scores, mask in zip(maps, masks, strict=True):
        counts.add(scores, label_regions(mask), np.ones(mask.shape, bool))
    expected = roc_auc_score(np.stack(masks).ravel(), np.stack(maps).ravel())
    assert counts.auroc() == pytest.approx(expected, abs=1e-4)
    assert counts.aupro() == pytest.approx(brute_aupro(maps, masks), abs=1e-4)
    assert counts.regions == sum(label(m, structure=np.ones((3, 3)))[1] for m in masks)


def test_a_perfect_map_reaches_one_and_a_constant_one_does_not() -> None:
    mask = maps_and_masks(0)[1][1]
    everywhere = np.ones(mask.shape, bool)
    perfect, constant = PixelCounts(), PixelCounts()
    perfect.add(mask.astype(np.float32), label_regions(mask), everywhere)
    constant.add(np.ones(mask.shape, np.float32), label_regions(mask), everywhere)
    assert perfect.auroc() == 1.0 and perfect.aupro() == pytest.approx(1.0)
    assert constant.auroc() == 0.5 and constant.aupro() == pytest.approx(0.15)


def test_bins_keep_the_order_of_floats() -> None:
    values = np.array([-np.inf, -3e30, -1.0, -1e-30, 0.0, 1e-40, 1e-9, 1.0, 1.001, 50.0, 3e38, np.inf], np.float32)
    bins = bins_of(values)
    assert (np.diff(bins) >= 0).all() and len(np.unique(bins)) >= 10
    rng = np.sort(np.random.default_rng(0).normal(size=10000).astype(np.float32))
    assert (np.diff(bins_of(rng)) >= 0).all()


def test_ignored_pixels_do_not_count() -> None:
    maps, masks = maps_and_masks(1)
    counted = np.ones(masks[0].shape, bool)
    counted[:, 40:] = False
    with_noise, without = PixelCounts(), PixelCounts()
    for scores, mask in zip(maps, masks, strict=True):
        spoiled = scores.copy()
        spoiled[:, 40:] = 1e6
        with_noise.add(spoiled, label_regions(mask), counted)
        without.add(scores[:, :40].copy(), label_regions(mask[:, :40]), counted[:, :40])
    assert with_noise.auroc() == without.auroc() and with_noise.aupro() == without.aupro()


@pytest.fixture
def folder(tmp_path: Path) -> list[Sample]:
    """Six images of one brightness each, which is their score: good 10, 20, 40; bad 30 (masked), 50 (empty mask), 60 (no mask)."""
    samples = []
    for value, kind, mask in (
        (10, "good", None),
        (20, "good", None),
        (40, "good", None),
        (30, "dot", 1),
        (50, "dot", 0),
        (60, "line", None),
    ):
        path = tmp_path / f"{value}.png"
        image = np.full((32, 32), value, np.uint8)
        mask_path = None
        if mask is not None:
            mask_path = tmp_path / f"{value}_mask.png"
            spot = np.zeros((32, 32), np.uint8)
            spot[4:8, 4:8] = 255 * mask
            cv2.imwrite(str(mask_path), spot)
        cv2.imwrite(str(path), image)
        samples.append(Sample(path, kind, kind == "good", mask_path, "test"))
    return samples


def brightness(frame: Frame) -> Prediction:
    grid = frame.image[::4, ::4].astype(np.float32) / 100
    if "30.png" in frame.source:
        grid[1, 1] = 5
    return Prediction(float(frame.image.max()), grid, np.array([[4.0, 0, 0], [0, 4.0, 0]]))


def test_image_figures_agree_with_scikit_learn(folder: list[Sample]) -> None:
    scored = score_dataset(brightness, folder, Preprocessor(InputSpec(height=32, width=32, channels=1)), map_threshold=1.0)
    m = measure(scored, 35.0)
    truth, score = [0, 0, 0, 1, 1, 1], [10, 20, 40, 30, 50, 60]
    assert m.image_auroc == pytest.approx(roc_auc_score(truth, score))
    assert m.image_ap == pytest.approx(average_precision_score(truth, score))
    assert m.f1 == pytest.approx(f1_score(truth, np.array(score) > 35))
    assert (m.false_reject_rate, m.false_accept_rate) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert (m.n_good, m.n_bad, m.threshold) == (3, 3, 35.0)


def test_bad_images_with_an_empty_or_no_mask_count_as_images_only(folder: list[Sample]) -> None:
    scored = score_dataset(brightness, folder, Preprocessor(InputSpec(height=32, width=32, channels=1)), map_threshold=1.0)
    assert [s.path.name for s in scored.unmasked] == ["50.png", "60.png"]
    m = measure(scored, 35.0)
    assert m.n_bad == 3 and m.pixel_auroc is not None and m.pixel_auroc > 0.5
    dot, line = by_kind(scored, 35.0)
    assert (dot.kind, dot.n, dot.rejected, dot.regions, dot.hits) == ("dot", 2, 1, 1, 1)
    assert (line.kind, line.n, line.rejected, line.regions, line.auroc) == ("line", 1, 1, 0, 1.0)


def test_a_defect_of_one_pixel_counts_however_much_smaller_the_models_input_is(tmp_path: Path) -> None:
    samples = []
    for i, (x, y) in enumerate(((0, 0), (151, 150), (299, 299), (77, 213))):
        mask = np.zeros((300, 300), np.uint8)
        mask[y, x] = 255
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((300, 300), 10, np.uint8))
        cv2.imwrite(str(tmp_path / f"{i}_mask.png"), mask)
        samples.append(Sample(tmp_path / f"{i}.png", "dot", False, tmp_path / f"{i}_mask.png", "test"))
    for height, width in ((32, 32), (64, 256), (32, 320)):
        scored = score_dataset(brightness, samples, Preprocessor(InputSpec(height=height, width=width, channels=1)))
        assert scored.unmasked == () and scored.regions.tolist() == [1, 1, 1, 1]


def test_figures_that_the_data_cannot_tell_are_none(folder: list[Sample]) -> None:
    prepare = Preprocessor(InputSpec(height=32, width=32, channels=1))
    good = measure(score_dataset(brightness, folder[:3], prepare), 35.0)
    assert (good.image_auroc, good.image_ap, good.f1, good.false_accept_rate, good.pixel_auroc, good.aupro) == (None,) * 6
    assert good.false_reject_rate == pytest.approx(1 / 3)
    bad = measure(score_dataset(brightness, folder[3:], prepare), 35.0)
    assert bad.false_reject_rate is None and bad.false_accept_rate == pytest.approx(1 / 3)


def test_a_score_that_is_no_number_names_its_image(folder: list[Sample]) -> None:
    def broken(frame: Frame) -> Prediction:
        return Prediction(float("nan"), np.zeros((8, 8), np.float32), np.eye(2, 3))

    with pytest.raises(DataError, match=r"10\.png.*finite"):
        score_dataset(broken, folder, Preprocessor(InputSpec(height=32, width=32, channels=1)))


def test_a_bundle_is_measured_through_the_devices_own_predictor(tiny_bundle: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(4):
        image = rng.integers(60, 95, (64, 64), dtype=np.uint8)
        kind = "good" if i < 2 else "spot"
        if kind == "spot":
            image[16:32, 32:48] = 200
            (tmp_path / "ground_truth" / kind).mkdir(parents=True, exist_ok=True)
            mask = np.zeros((64, 64), np.uint8)
            mask[16:32, 32:48] = 255
            cv2.imwrite(str(tmp_path / "ground_truth" / kind / f"{i}_mask.png"), mask)
        (tmp_path / "test" / kind).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "test" / kind / f"{i}.png"), image)
    bundle = ModelBundle.open(tiny_bundle)
    report = evaluate_bundle(bundle, load_dataset(tmp_path, spec=bundle.manifest.input))
    m = report.metrics
    assert (m.image_auroc, m.f1, m.false_reject_rate, m.false_accept_rate, m.threshold) == (1.0, 1.0, 0.0, 0.0, 20.0)
    assert m.pixel_auroc is not None and m.pixel_auroc > 0.99
    assert [(k.kind, k.n, k.rejected, k.regions, k.hits) for k in report.kinds] == [("spot", 2, 2, 2, 2)]


def test_good_images_without_a_split_all_test_a_detector_that_was_taught_none_of_them(tmp_path: Path) -> None:
    for i in range(12):
        kind = "good" if i < 10 else "NG"
        (tmp_path / kind).mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / kind / f"{i}.png"), np.random.default_rng(i).integers(60, 95, (64, 64), dtype=np.uint8))
    taught = load_dataset(tmp_path)
    assert len(taught.train) == 8 and sum(s.is_good for s in taught.test) == 2
    again = load_dataset(tmp_path, spec=taught.spec, taught=taught.record)
    assert sum(s.is_good for s in again.test) == 2
    stranger = load_dataset(tmp_path, spec=taught.spec, taught=msgspec.structs.replace(taught.record, good_sha256=("0" * 16,)))
    assert sum(s.is_good for s in stranger.test) == 10 and any("all 10 good images test" in note for note in stranger.notes)
