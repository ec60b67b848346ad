"""Methods side by side on a small product: what the table rests on, and who is taken."""

from dataclasses import replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
import openvino as ov
import pytest

from edge_runtime.errors import ConfigError
from export.child import COMPILE_OPTIONS
from export.choose import candidates
from export.choose.candidates import CandidateBench
from export.choose.compare import Comparison, Request, compare, fast_methods, share_bad
from tests.support.shared_extractor import SharedExtractor
from tests.unit.export.conftest import draw
from training.core.base import silent
from training.data.dataset import Dataset, inputs, load_dataset
from training.data.layout import Sample
from training.fitting.heads import torch_backbone_fn
from training.fitting.options import FitOptions

pytestmark = [pytest.mark.usefixtures("children_here"), pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def dataset(data_dir: Path) -> Dataset:
    return load_dataset(data_dir, image_size="64", allow_duplicates=True)


def with_bad(dataset: Dataset, place: Path, count: int) -> Dataset:
    for seed in range(count):
        cv2.imwrite(str(place / f"{seed}.png"), draw(500 + seed, bad=True))
    return replace(dataset, bad=tuple(Sample(place / f"{seed}.png", "scratch", False, None, "bad") for seed in range(count)))


@pytest.fixture(scope="module")
def given(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """With ten bad images."""
    return with_bad(dataset, tmp_path_factory.mktemp("bad"), 10)


@pytest.fixture(scope="module")
def compared(given: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path, list[str]]:
    out, said = tmp_path_factory.mktemp("compared") / "rings", list[str]()
    return compare(given, Request(["devnet", "padim", "patchcore"], minutes=30), out, say=said.append), out, said


def test_each_method_is_measured_and_one_is_recommended(compared: tuple[Comparison, Path, list[str]]) -> None:
    comparison, out, said = compared
    assert {r.method for r in comparison.rows} == {"padim", "devnet", "patchcore"} and not comparison.failed
    assert comparison.best in {"padim/fast", "devnet/fast", "patchcore/fast"} and comparison.fits and comparison.default == "padim/fast"
    assert msgspec.json.decode((out / "compare.json").read_bytes(), type=Comparison) == comparison
    assert [p.name for p in out.iterdir()] == ["compare.json"]
    assert len(said) == 1 and "3 methods on 19 images: about" in said[0] and "ms a picture" in said[0]
    for row in comparison.rows:
        assert row.latency_p99_ms >= row.latency_ms > 0 and 50 < row.memory_mb < 2000 and row.graph_mb > 1
        assert 0 <= row.error <= 1 and 0 <= row.choosing_auroc <= 1 and row.test_auroc is not None
        assert row.behind == 0 or row.noise > 0 or row.choosing_auroc == 1.0


def test_the_scores_are_those_of_the_graph_that_would_ship(dataset: Dataset, tmp_path: Path) -> None:
    held = dataset.test[:4]
    pictures = np.stack(list(inputs(held, dataset.preprocessor())))[:, None]
    options = FitOptions("padim")
    bench = CandidateBench(dataset, pictures[:2], pictures[2:], [options], None, 0, tmp_path, silent)
    measured = bench.measure(options, None)
    compiled = ov.Core().compile_model(measured.graph, "CPU", COMPILE_OPTIONS)
    graph = [float(np.ravel(compiled({"image": p})["score"])[0]) for p in pictures[:, 0][:, None]]
    assert np.allclose(graph, [*measured.judged.good, *measured.judged.bad], rtol=1e-3)
    assert measured.precision == "int8" and measured.test is not None and len(measured.test.bad) == 6


def test_what_there_is_no_time_for_is_left_out_and_said_to_be(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "quantize_backbone", lambda backbone, *rest: backbone.clone())  # FP32 tells of the time as well
    said: list[str] = []
    comparison = compare(dataset, Request(["patchcore", "padim"], minutes=0.01), tmp_path / "out", say=said.append)
    assert [r.method for r in comparison.rows] == ["padim"] and comparison.best == "padim/fast"  # the default comes first, always
    assert "no time for it" in comparison.failed["patchcore/fast"] and "may be left out" in said[0]


def test_no_image_that_chooses_was_learnt_from(compared: tuple[Comparison, Path, list[str]], given: Dataset) -> None:
    comparison = compared[0]
    assert comparison.n_learnt + comparison.n_held_back == len(given.train)
    assert f"{comparison.n_held_back} good images that were held back and 5 bad images that were given" in comparison.chosen_by
    teach, choose_by = share_bad(given, 0)
    assert len(teach) == len(choose_by) == comparison.n_bad_learnt == 5
    assert {s.path for s in teach}.isdisjoint(s.path for s in choose_by)


def test_too_few_bad_images_only_choose(dataset: Dataset, given: Dataset, tmp_path: Path) -> None:
    few = with_bad(dataset, tmp_path, 9)
    assert share_bad(few, 0) == ([], list(few.bad))
    assert "devnet/fast" not in fast_methods(few) and "devnet/fast" in fast_methods(given)


def test_methods_that_these_images_cannot_teach_are_left_out(dataset: Dataset) -> None:
    methods = fast_methods(dataset)
    assert "padim/fast" in methods and "devnet/fast" not in methods and not any(m.startswith("stfpm") for m in methods)
    with pytest.raises(ConfigError, match="magic"):
        compare(dataset, Request(["magic"]), Path("nowhere"))


def test_shared_features_are_those_of_torch(extractor: SharedExtractor) -> None:
    from training.core.backbones import build_backbone

    backbone = build_backbone("efficientnet_lite0", (16,))
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    run = extractor.backbone_fn(backbone)
    first, again, expected = run(pictures), run(pictures[1:]), torch_backbone_fn(backbone)(pictures)
    assert len(first) == 1 and np.allclose(first[0], expected[0], atol=1e-3)
    assert np.array_equal(again[0][0], first[0][1])
