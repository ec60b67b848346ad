"""From images to a run directory: held-out scores, the same seed, and nothing half-written."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edge_runtime.errors import CalibrationError, ConfigError, DataError
from edge_runtime.model.manifest import InputSpec
from edge_runtime.model.preprocess import Preprocessor
from training.calibrate.rules import Rule
from training.core.base import Features
from training.core.memory import check_memory
from training.data.dataset import inputs, load_dataset
from training.fitting import heads as fit_module
from training.fitting.heads import Painted, cross_fit, extract_features, fit_head, fit_held_out, score_features
from training.fitting.options import FitOptions
from training.fitting.recalibrate import recalibrate, score_samples
from training.fitting.teach import teach
from training.methods.table import METHODS
from training.runs import BACKBONE, HEAD, HELD_OUT, INFO, Run, load_run

PLAIN = Preprocessor(InputSpec(height=64, width=64, channels=1))


def part(seed: int, bad: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.normal(120, 40, (64, 64)).astype(np.float32), (0, 0), 2)
    image[20:44, 20:44] += 60
    if bad:
        image[28:40, 28:40] = 20
    return image.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    for folder, seeds, bad in (("train/good", range(12), False), ("test/good", range(50, 54), False), ("test/hole", range(60, 64), True)):
        (root / folder).mkdir(parents=True)
        for seed in seeds:
            cv2.imwrite(str(root / folder / f"{seed}.png"), part(seed, bad))
    return root


@pytest.fixture(scope="session")
def taught(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return teach(load_dataset(parts, image_size="64"), FitOptions("padim"), tmp_path_factory.mktemp("runs") / "run")


def copy_of(taught: Run, place: Path) -> Run:
    """One that a test may alter."""
    return load_run(Path(shutil.copytree(taught.directory, place / "run")))


def fake_backbone(batch: np.ndarray) -> list[np.ndarray]:
    x = batch.astype(np.float32)[:, ::8, ::8].transpose(0, 3, 1, 2)
    return [np.concatenate([x, x**2 / 255], axis=1)]


def test_features_are_the_same_in_memory_and_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    images = [np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8) for i in range(5)]
    here = extract_features(fake_backbone, images, 5, [(6, 8, 8)], batch=2)
    monkeypatch.setattr(fit_module, "IN_MEMORY_BYTES", 10)
    there = extract_features(fake_backbone, iter(images), 5, [(6, 8, 8)], scratch=tmp_path)
    assert isinstance(there.levels[0], np.memmap) and not isinstance(here.levels[0], np.memmap)
    assert np.array_equal(here.levels[0], there.levels[0])
    assert np.array_equal(here.levels[0][3], fake_backbone(np.stack(images))[0][3])
    assert not list(tmp_path.iterdir())


def test_an_image_never_helps_to_score_itself() -> None:
    """One image is unlike all others: a head that saw it finds it less odd than one that did not."""
    rng = np.random.default_rng(0)
    level = rng.normal(size=(20, 6, 4, 4)).astype(np.float32)
    level[7] += 9
    features = Features.of([level])
    held_out, _ = cross_fit("padim", {}, [(6, 4, 4)], features, PLAIN, seed=0)
    own = score_features(fit_head("padim", {}, [(6, 4, 4)], features, PLAIN, 0), features, PLAIN)
    assert held_out.score.argmax() == 7
    assert held_out.score[7] > 2 * own.score[7]
    assert (held_out.map_peak >= held_out.map_median).all() and np.isfinite(held_out.score).all()


@pytest.mark.parametrize("method", ["padim", "patchcore", "mvg"])
def test_the_same_seed_gives_the_same_scores(method: str) -> None:
    features = Features.of([np.random.default_rng(0).random((12, 6, 8, 8), dtype=np.float32)])
    params = {"bank_size": 100, "dims": 4} if method == "patchcore" else {}
    first, second = (cross_fit(method, params, [(6, 8, 8)], features, PLAIN, 5)[0] for _ in range(2))
    assert np.array_equal(first.score, second.score) and np.array_equal(first.map_peak, second.map_peak)


@pytest.mark.slow
def test_two_runs_of_one_seed_are_the_same_detector(taught: Run, parts: Path, tmp_path: Path) -> None:
    data = load_dataset(parts, image_size="64")
    again = teach(data, FitOptions("padim"), tmp_path / "again")
    assert again.info.head_sha256 == taught.info.head_sha256
    assert again.held_out == taught.held_out and again.info.threshold == taught.info.threshold
    # So few are left out one by one: there is nothing to deal.
    assert teach(data, FitOptions("padim", seed=1), tmp_path / "other").held_out.scores.score == pytest.approx(taught.held_out.scores.score)


@pytest.mark.slow
def test_a_run_that_cannot_be_written_is_refused_before_the_fit(parts: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file, which is a file"):
        teach(load_dataset(parts, image_size="64"), FitOptions("padim"), tmp_path / "file" / "deeper" / "run")
    assert teach(load_dataset(parts, image_size="64"), FitOptions("padim"), tmp_path / "new" / "deeper" / "run").info.seed == 0


def test_one_image_cannot_be_held_out() -> None:
    with pytest.raises(DataError, match="at least 2"):
        cross_fit("padim", {}, [(6, 4, 4)], Features.of([np.zeros((1, 6, 4, 4), np.float32)]), PLAIN, 0)


def test_a_fit_larger_than_the_machine_is_refused_before_it_begins() -> None:
    check_memory(1000)
    with pytest.raises(DataError, match=r"needs about 1000000\.0 GB"):
        check_memory(10**15)


@pytest.mark.slow
def test_a_run_is_read_back_as_it_was_written(taught: Run, parts: Path) -> None:
    run = load_run(taught.directory)
    assert run.info == taught.info and run.held_out == taught.held_out
    assert run.info.threshold.n_good == 12 and len(run.held_out.images) == 12
    assert run.info.threshold.false_reject_rate == pytest.approx(0.5 / 13)
    assert run.held_out.images[0].name == "train/good/0.png"
    data = load_dataset(parts, image_size="64")
    prepare = run.preprocessor()
    bad = [s for s in data.test if not s.is_good]
    together = score_samples(run.detector(), bad, prepare)
    again = score_samples(taught.detector(), bad, prepare)
    assert np.array_equal(together.score, again.score)
    with torch.inference_mode():
        score, score_map = run.detector()(torch.from_numpy(np.stack(list(inputs(bad, prepare)))))
    assert score.shape == (4,) and score_map.shape == (4, 1, 4, 4)
    assert np.allclose(score.numpy(), together.score, rtol=1e-4)


def test_defects_score_above_held_out_good_parts(taught: Run, parts: Path) -> None:
    bad = score_samples(taught.detector(), [s for s in load_dataset(parts).test if not s.is_good], taught.preprocessor())
    assert bad.score.min() > np.median(taught.held_out.scores.score)


@pytest.mark.slow
def test_a_place_that_is_taken_is_refused_unless_forced(taught: Run, parts: Path, tmp_path: Path) -> None:
    data = load_dataset(parts, image_size="64")
    out = copy_of(taught, tmp_path).directory
    with pytest.raises(ConfigError, match="--force"):
        teach(data, FitOptions("padim"), out)
    assert teach(data, FitOptions("padim", seed=3), out, force=True).info.seed == 3
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="no run"):
        teach(data, FitOptions("padim"), tmp_path / "thesis", force=True)


def test_nothing_stays_behind_when_a_fit_fails(parts: Path, tmp_path: Path) -> None:
    data = load_dataset(parts, image_size="64")
    with pytest.raises(CalibrationError, match="12 good images support"):
        teach(data, FitOptions("padim", rule=Rule(kind="false_reject_rate", target=0.01)), tmp_path / "a")
    (data.train[5].path).rename(tmp_path / "moved.png")
    try:
        with pytest.raises(DataError, match=data.train[5].path.name):
            teach(data, FitOptions("padim"), tmp_path / "b")
    finally:
        (tmp_path / "moved.png").rename(data.train[5].path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (FitOptions("magic"), f"one of {METHODS.names}, found 'magic'"),
        (FitOptions("padim", preset="huge"), "fast, fine"),
        (FitOptions("padim", overrides={"depth": 3}), "no parameter 'depth'"),
        (FitOptions("padim", overrides={"top_k": "many"}), "top_k"),
    ],
)
def test_an_impossible_fit_is_refused(parts: Path, tmp_path: Path, options: FitOptions, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        teach(load_dataset(parts, image_size="64"), options, tmp_path / "run")


def test_recalibrating_changes_the_threshold_and_nothing_else(taught: Run, parts: Path, tmp_path: Path) -> None:
    run = copy_of(taught, tmp_path)
    before = {p.name: p.read_bytes() for p in run.directory.iterdir()}
    changed = recalibrate(run, Rule(kind="max_f1", bad=str(parts / "test" / "hole")))
    assert changed.info.threshold.n_bad == 4 and changed.info.threshold.value != run.info.threshold.value
    assert load_run(run.directory).info == changed.info
    after = {p.name: p.read_bytes() for p in run.directory.iterdir()}
    assert {n for n in after if after[n] != before.get(n)} == {INFO}
    flattering = recalibrate(run, Rule(kind="max_f1", from_test_split=True))
    assert flattering.info.threshold.from_test_split and flattering.info.threshold.n_good == 4
    with pytest.raises(DataError, match="nothing"):
        recalibrate(run, Rule(kind="max_f1", bad=str(tmp_path / "absent")))


@pytest.mark.slow
def test_painted_defects_calibrate_where_no_bad_part_exists_and_say_so(taught: Run, tmp_path: Path) -> None:
    run = copy_of(taught, tmp_path)
    changed = recalibrate(run, Rule(kind="recall", target=0.5, synthetic=20))
    threshold = changed.info.threshold
    assert (threshold.n_bad, threshold.n_synthetic) == (20, 20) and "synthetic" in threshold.rule
    assert threshold.value != run.info.threshold.value
    assert recalibrate(run, Rule(kind="recall", target=0.5, synthetic=20)).info.threshold == threshold


@pytest.mark.parametrize("file", [INFO, HELD_OUT, BACKBONE, HEAD])
def test_a_missing_file_of_a_run_is_named(taught: Run, tmp_path: Path, file: str) -> None:
    copy = tmp_path / "run"
    copy.mkdir()
    for p in taught.directory.iterdir():
        if p.name != file:
            (copy / p.name).write_bytes(p.read_bytes())
    with pytest.raises(DataError, match=file):
        load_run(copy).detector()


def test_altered_weights_and_foreign_schemas_are_refused(taught: Run, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    copy.mkdir()
    for p in taught.directory.iterdir():
        (copy / p.name).write_bytes(p.read_bytes())
    raw = bytearray((copy / HEAD).read_bytes())
    raw[-5] ^= 1
    (copy / HEAD).write_bytes(raw)
    with pytest.raises(DataError, match=f"{HEAD}.*altered"):
        load_run(copy).detector()
    info = json.loads((copy / INFO).read_text())
    (copy / INFO).write_text(json.dumps({**info, "schema": 99}))
    with pytest.raises(DataError, match="expected schema 1 or 2, found 99"):
        load_run(copy)
    (copy / INFO).write_text(json.dumps({**info, "schema": 1, "input": {k: v for k, v in info["input"].items() if k != "shrink"}}))
    assert load_run(copy).info.input.shrink == "area", "as it was taught, before there was a choice"
    (copy / INFO).write_text(json.dumps({**info, "colour": "red"}))
    with pytest.raises(DataError, match="colour"):
        load_run(copy)


@pytest.mark.slow
def test_ignored_places_are_silent_in_map_and_score(parts: Path, tmp_path: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[24:44, 24:44] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    run = teach(load_dataset(parts, image_size="64", ignore_mask=tmp_path / "mask.png"), FitOptions("padim"), tmp_path / "run")
    again = load_run(run.directory)
    assert again.ignore is not None and np.array_equal(again.ignore, mask)
    detector, prepare = again.detector(), again.preprocessor()
    valid = prepare.valid_cells(detector.head.grid_hw)
    assert not valid.all()
    with torch.inference_mode():
        _, grid = detector(torch.from_numpy(prepare(part(60, bad=True))[None]))
        assert (grid[0, 0].numpy()[~valid] == 0).all()
    clean = score_samples(detector, [s for s in load_dataset(parts).test if s.is_good][:1], prepare).score[0]
    assert clean > 0


def test_a_painted_image_is_not_scored_by_a_head_that_saw_it_without_its_defect() -> None:
    """Painted and plain are alike but for a little: a head that learnt from the plain one would find its painted twin ordinary."""
    rng = np.random.default_rng(0)
    level = rng.normal(size=(20, 6, 4, 4)).astype(np.float32)
    level[7] += 9
    sources = np.array([7, 3, 7])
    twins = level[sources] + rng.normal(scale=0.01, size=(3, 6, 4, 4)).astype(np.float32)
    fitted = fit_held_out("padim", {}, [(6, 4, 4)], Features.of([level]), PLAIN, 0, painted=Painted(Features.of([twins]), sources))
    assert fitted.painted is not None
    assert fitted.painted.score == pytest.approx(fitted.held_out.score[sources], rel=0.05)
    assert fitted.painted.score[0] > 2 * score_features(fitted.head, Features.of([twins]), PLAIN).score[0]
