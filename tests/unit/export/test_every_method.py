"""Every method goes through one door: taught, quantized, refitted, gated, packed, and run by the device's own predictor."""

from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from edge_runtime.model.bundle import ModelBundle
from export.build.build import build
from export.build.options import BuildOptions
from tests.support.shared_extractor import SharedExtractor
from tests.unit.export.conftest import draw, draw_mask
from training.data.dataset import load_dataset
from training.fitting.options import FitOptions, learns
from training.fitting.teach import teach
from training.judging.evaluate import evaluate_bundle, evaluate_run
from training.methods.table import METHODS
from training.pictures.augment import Augment
from training.pictures.material import OutlierSource
from training.runs import load_run

pytestmark = [pytest.mark.usefixtures("children_here"), pytest.mark.slow, pytest.mark.timeout(900)]

WIDE = 9.0
"""The gate stands open: a detector that learnt for two seconds from 24 pictures of 64x64 pixels is not about figures."""
SMALL = {"patchcore": {"bank_size": 200}, "efficientad": {"distil_steps": 5, "width": 0.125}}
PRESET = {"stfpm": "fine"}
"""Those with fewer layers to quantize."""

VARIED = Augment(shift_px=2, copies=1)


@pytest.fixture(scope="module")
def bad_parts(tmp_path_factory: pytest.TempPathFactory) -> OutlierSource:
    root = tmp_path_factory.mktemp("bad")
    for seed in range(300, 306):
        for folder, picture in (("images", draw(seed, bad=True)), ("masks", draw_mask(seed))):
            (root / folder / "scratch").mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / folder / "scratch" / f"{seed}.png"), picture)
    return OutlierSource(bad=str(root / "images"), masks=str(root / "masks"), synthetic=6)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_method_becomes_a_bundle_that_scores_as_its_manifest_says(
    method: str, data_dir: Path, bad_parts: OutlierSource, extractor: SharedExtractor, tmp_path: Path
) -> None:
    dataset = load_dataset(data_dir, image_size="64", allow_duplicates=True)
    takes_bad = METHODS[method].outliers != "none"
    fit = FitOptions(
        method, overrides=SMALL.get(method, {}), outliers=bad_parts if takes_bad else None, minutes=0.01 if learns(method) else None,
        augment=VARIED if method == "padim" else None, preset=PRESET.get(method, "fast"),
    )  # fmt: skip
    run = teach(dataset, fit, tmp_path / "run")
    assert load_run(run.directory).info == run.info
    assert (run.info.learning is not None) == learns(method)
    assert len(run.held_out.images) == (5 if learns(method) else 24)

    report = build(
        run, tmp_path / "bundle", None, BuildOptions("int8", band=WIDE, budget=WIDE, envelope=False), extractor=extractor, dataset=dataset
    )
    assert report.score_difference < 1e-3  # torch and its own FP32 graph agree
    bundle = ModelBundle.open(report.out)
    manifest = bundle.manifest
    found = evaluate_bundle(bundle, load_dataset(data_dir, spec=manifest.input, allow_duplicates=True)).metrics
    expected = manifest.metrics["int8"]
    assert manifest.params.get("augment") == (msgspec.to_builtins(VARIED) if method == "padim" else None)
    assert found.image_auroc == pytest.approx(expected.image_auroc, abs=1e-5)
    assert found.aupro == pytest.approx(expected.aupro, abs=1e-4)
    assert np.isfinite([g.score for g in manifest.golden]).all() and min(g.map_peak for g in manifest.golden) >= 0
    if takes_bad:
        assert manifest.dataset.bad_kinds == ("scratch",) and len(manifest.dataset.bad_sha256) == 6
        assert manifest.dataset.n_synthetic == 6
        assert evaluate_run(run, dataset).learnt_auroc is not None
