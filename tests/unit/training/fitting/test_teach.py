"""A fit that learns by steps: what it holds out, what it leaves behind when it is interrupted, and how it goes on."""

import dataclasses
import os
import shutil
import time
from functools import partialmethod
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.errors import DataError
from training.core.checkpoint import Checkpoint
from training.core.learn import hold_out
from training.data.dataset import Dataset, load_dataset
from training.data.layout import Sample
from training.fitting import teach as teach_module
from training.fitting.options import FitOptions, learns
from training.fitting.recalibrate import open_data
from training.fitting.teach import checkpoint_of, teach
from training.methods.table import METHODS
from training.pictures.material import OutlierSource
from training.runs import CHECKPOINT, HEAD, Run, load_run

FEW = {"steps": 6}
"""Steps of a whole fit here."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("parts")
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(120, 40, (64, 64)).astype(np.float32)
        cv2.imwrite(str(root / f"{seed:02d}.png"), cv2.GaussianBlur(noise, (0, 0), 2).clip(0, 255).astype(np.uint8))
    return load_dataset(root, image_size="64")


def options(**changes: object) -> FitOptions:
    """With a time, so that no further heads learn from 20 images, to hold them out in turn."""
    return FitOptions("fastflow", **{"overrides": FEW, "minutes": 5.0, **changes})  # type: ignore[arg-type]


@pytest.mark.slow
def test_only_images_that_were_never_learnt_from_calibrate(dataset: Dataset, tmp_path: Path) -> None:
    run = teach(dataset, options(), tmp_path / "run")
    _, held = hold_out(20, 0)
    assert [i.name for i in run.held_out.images] == [dataset.name_of(dataset.train[int(i)]) for i in held]
    assert run.info.threshold.n_good == len(held) == 4
    assert run.info.learning is not None and run.info.learning.steps == 6 and run.info.learning.ended == "steps"


@pytest.mark.slow
def test_few_images_are_all_scored_by_heads_that_never_learnt_from_them(dataset: Dataset, tmp_path: Path) -> None:
    run = teach(dataset, options(minutes=None), tmp_path / "run")
    alone = teach(dataset, options(), tmp_path / "alone")
    assert [i.name for i in run.held_out.images] == [dataset.name_of(s) for s in dataset.train]
    assert run.info.threshold.n_good == 20 and run.info.head_sha256 == alone.info.head_sha256  # the same detector, a better threshold
    held = {i.name: i.score for i in run.held_out.images}
    assert all(held[i.name] == pytest.approx(i.score, rel=1e-4) for i in alone.held_out.images)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_as_few_images_as_a_method_asks_for_teach_it_whatever_their_sizes(method: str, tmp_path: Path) -> None:
    known, rng = METHODS[method], np.random.default_rng(0)
    for folder, count in (("good", known.least_images), ("bad", 5)):
        (tmp_path / folder).mkdir()
        for i in range(count):
            h, w = (int(v) for v in rng.integers(40, 120, 2))
            picture = cv2.GaussianBlur(rng.normal(120, 40, (h, w)).astype(np.float32), (0, 0), 2)
            if folder == "bad":
                cv2.circle(picture, (w // 2, h // 2), 8, 250.0, -1)
            cv2.imwrite(str(tmp_path / folder / f"{i}.png"), picture.clip(0, 255).astype(np.uint8))
    small = {"patchcore": {"bank_size": 100}, "efficientad": {"width": 0.125, "channels": 8}}
    outliers = OutlierSource(bad=str(tmp_path / "bad"), synthetic=0) if known.outliers == "required" else None
    asked = FitOptions(method, overrides=small.get(method, {}), outliers=outliers, minutes=0.01 if learns(method) else None)
    run = teach(load_dataset(tmp_path / "good", image_size="64"), asked, tmp_path / "run")
    assert run.info.dataset.n_good == known.least_images and np.isfinite(run.info.threshold.value) and run.info.threshold.value > 0
    one_less = dataclasses.replace(load_dataset(tmp_path / "good", image_size="64"), train=run_images(run)[1:])
    with pytest.raises(DataError, match=f"{method}: expected at least {known.least_images} good images, found {known.least_images - 1}"):
        teach(one_less, asked, tmp_path / "other")


def run_images(run: Run) -> tuple[Sample, ...]:
    return open_data(run, None).train


@pytest.mark.slow
def test_the_files_of_a_run_may_be_read_by_whom_the_user_s_mask_lets(dataset: Dataset, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        teach(dataset, options(), tmp_path / "run")
    finally:
        os.umask(before)
    modes = {p.name: oct(p.stat().st_mode & 0o777) for p in (tmp_path / "run").iterdir()}
    assert len(modes) == 5 and set(modes.values()) == {"0o640"}, modes


@pytest.mark.slow
def test_a_teacher_that_knows_little_is_said_to_and_its_time_is_part_of_the_budget(dataset: Dataset, tmp_path: Path) -> None:
    tiny = {"width": 0.05, "channels": 4, "steps": 100_000, "distil_steps": 100_000}
    asked = FitOptions("efficientad", overrides=tiny, minutes=0.05)
    told: list[str] = []
    said: list[str] = []
    began = time.monotonic()
    first = teach(dataset, asked, tmp_path / "run", progress=lambda what, done, total: told.append(what), say=said.append).info.learning
    assert first is not None and first.seconds == pytest.approx(0.6 * 3, abs=0.7) and first.ended == "time"
    assert time.monotonic() - began > 3 and "distilling the teacher" in told
    assert any("misses" in text and "lineside-train distil" in text for text in said)

    told.clear()
    longer = dataclasses.replace(asked, minutes=0.1, resume=True)
    second = teach(dataset, longer, tmp_path / "run", force=True, progress=lambda what, done, total: told.append(what)).info.learning
    assert second is not None and second.steps > first.steps and "distilling the teacher" not in told


@pytest.mark.slow
def test_a_fit_that_ends_while_its_teacher_is_distilled_goes_on_there(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = {"width": 0.05, "channels": 4, "steps": 4, "distil_steps": 40}
    asked = FitOptions("efficientad", overrides=tiny)
    whole = teach(dataset, asked, tmp_path / "whole")
    monkeypatch.setattr(Checkpoint, "__init__", partialmethod(Checkpoint.__init__, every_s=-1.0))
    steps: list[int] = []

    def stop(what: str, done: int, total: int) -> None:
        if what == "distilling the teacher":
            steps.append(done)
            if len(steps) == 20:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach(dataset, asked, tmp_path / "run", progress=stop)
    run = teach(dataset, dataclasses.replace(asked, resume=True), tmp_path / "run", progress=stop)
    assert len(steps) < 20 + 40, "it did not begin anew"
    assert (run.directory / HEAD).read_bytes() == (whole.directory / HEAD).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "whole"]


def test_a_mask_that_does_not_fit_is_told_before_anything_is_computed(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(5):
        for folder, size in (("bad", 64), ("masks", 32)):
            (tmp_path / folder).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / folder / f"{i}.png"), np.full((size, size), 255, np.uint8))
    monkeypatch.setattr(teach_module, "extract_features", lambda *a, **k: pytest.fail("features were computed first"))
    source = OutlierSource(bad=str(tmp_path / "bad"), masks=str(tmp_path / "masks"), synthetic=0)
    with pytest.raises(DataError, match=r"mask.*32.*64|mask.*64.*32"):
        teach(dataset, FitOptions("fcdd", outliers=source), tmp_path / "run")


@pytest.mark.slow
def test_a_run_may_lie_in_a_folder_that_is_not_there_yet(dataset: Dataset, tmp_path: Path) -> None:
    run = teach(dataset, options(), tmp_path / "new" / "deeper" / "run")
    assert run.info.learning is not None and run.info.learning.device == "cpu"  # a head learns there whatever else is in the machine
    assert [p.name for p in (tmp_path / "new" / "deeper").iterdir()] == ["run"]


@pytest.mark.slow
def test_a_finished_fit_goes_on_for_a_longer_time(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "run"
    long = {"overrides": {"steps": 100_000}}
    teach(dataset, options(**long, minutes=0.003), out)
    first = load_run(out).info.learning
    assert (out / CHECKPOINT).is_file() and not checkpoint_of(out).exists()
    longer = teach(dataset, options(**long, minutes=0.03, resume=True), out, force=True).info.learning
    assert first is not None and longer is not None
    assert first.ended == "time" and longer.steps > first.steps and longer.seconds > first.seconds
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_an_interrupted_fit_leaves_a_checkpoint_and_no_run(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"

    def full_disk(*args: object, **more: object) -> None:
        raise DataError("run: cannot be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(teach_module, "save_run", full_disk)
        with pytest.raises(DataError, match="No space left"):
            teach(dataset, options(), out)
    assert not out.exists() and checkpoint_of(out).is_file()
    run = teach(dataset, options(resume=True), out)
    assert run.info.learning is not None and run.info.learning.steps == 6
    assert not checkpoint_of(out).exists()


@pytest.mark.slow
def test_going_on_with_another_fit_is_refused_in_words(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(DataError, match="resume: expected a checkpoint"):
        teach(dataset, options(resume=True), out)
    teach(dataset, options(), out)
    with pytest.raises(DataError, match="expected a fit with seed 1, found one with 0"):
        teach(dataset, options(seed=1, resume=True), out, force=True)
    assert load_run(out).info.seed == 0  # untouched


@pytest.mark.slow
def test_images_under_other_names_do_not_pass_for_held_out_ones(dataset: Dataset, tmp_path: Path) -> None:
    run = teach(dataset, options(), tmp_path / "run")
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for i, sample in enumerate(reversed(dataset.train)):
        shutil.copy(sample.path, renamed / f"{i:02d}.png")
    assert open_data(run, None).train == dataset.train
    with pytest.raises(DataError, match="under other names"):
        open_data(run, renamed)
