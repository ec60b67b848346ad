"""Methods side by side on a small product: what the table rests on, and who is taken."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from edge_runtime.bundle import ModelBundle, file_sha256
from edge_runtime.errors import ConfigError
from export.compare import Comparison, Request, Row, _choose, compare, fast_methods, share_bad
from export.workshop import SharedWorkshop
from tests.unit.export.conftest import draw
from training.data import Dataset, load_dataset
from training.fit import torch_backbone_fn
from training.layout import Sample


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
def compared(given: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    out = tmp_path_factory.mktemp("compared") / "rings"
    return compare(given, Request(["padim", "devnet"], minutes=0.05), out), out


def test_each_method_is_measured_as_the_bundle_that_stays(compared: tuple[Comparison, Path]) -> None:
    comparison, out = compared
    assert {r.method for r in comparison.rows} == {"padim", "devnet"} and not comparison.failed
    assert comparison.best in {"padim/fast", "devnet/fast"}
    assert json.loads((out / "compare.json").read_text()) == msgspec.to_builtins(comparison)
    assert sorted(p.name for p in out.iterdir()) == ["bundles", "compare.json"]
    for row in comparison.rows:
        manifest = ModelBundle.open(out / "bundles" / f"{row.method}-fast").manifest
        assert manifest.method == row.method and row.test_auroc == manifest.metrics["int8"].image_auroc
        assert row.latency_p99_ms >= row.latency_ms > 0 and 50 < row.memory_mb < 2000
        assert 0 <= row.choosing_auroc <= 1


def test_no_image_that_chooses_was_learnt_from(compared: tuple[Comparison, Path], given: Dataset) -> None:
    comparison, out = compared
    assert comparison.n_learnt + comparison.n_held_back == len(given.train)
    learnt = [ModelBundle.open(out / "bundles" / f"{method}-fast").manifest.dataset for method in ("padim", "devnet")]
    assert {d.n_good for d in learnt} == {comparison.n_learnt}
    assert f"{comparison.n_held_back} good images that were held back and 5 bad images that were given" in comparison.chosen_by
    teach, choose_by = share_bad(given, 0)
    assert len(teach) == len(choose_by) == comparison.n_bad_learnt == 5
    assert {s.path for s in teach}.isdisjoint(s.path for s in choose_by)
    assert learnt[0].bad_sha256 == () and learnt[1].bad_sha256 == tuple(sorted(file_sha256(s.path) for s in teach))


def test_too_few_bad_images_only_choose(dataset: Dataset, given: Dataset, tmp_path: Path) -> None:
    few = with_bad(dataset, tmp_path, 9)
    assert share_bad(few, 0) == ([], list(few.bad))
    assert "devnet" not in fast_methods(few) and "devnet" in fast_methods(given)


def row(method: str, auroc: float, ms: float) -> Row:
    return Row(
        method=method, preset="fast", precision="int8", choosing_auroc=auroc, test_auroc=0.5, pixel_auroc=None, aupro=None, fp32_auroc=None,
        latency_ms=ms, latency_p99_ms=ms, memory_mb=1, bundle_mb=1, teach_s=1, build_s=1,
    )  # fmt: skip


def choose(rows: list[Row], budget_ms: float | None) -> Comparison:
    return _choose(
        Comparison(
            data="",
            backbone="",
            n_learnt=1,
            n_held_back=1,
            n_bad_learnt=0,
            chosen_by="",
            budget_ms=budget_ms,
            best=None,
            rows=rows,
            failed={},
            seconds=1,
        )
    )


@pytest.mark.parametrize(
    ("budget_ms", "best"),
    [
        (None, "slow/fast"),
        (15.0, "middle/fast"),
        (4.0, "quick/fast"),
        (1.0, None),
    ],
)
def test_the_best_within_the_budget_is_taken(budget_ms: float | None, best: str | None) -> None:
    rows = [row("slow", 0.99, 40), row("middle", 0.95, 10), row("poor", 0.7, 12), row("quick", 0.9, 3)]
    found = choose(rows, budget_ms)
    assert found.best == best
    assert [r.method for r in found.rows if r.on_frontier] == ["quick", "middle", "slow"]


def test_of_two_that_are_as_good_the_faster_is_taken() -> None:
    assert choose([row("slow", 0.951, 40), row("quick", 0.95, 3)], None).best == "quick/fast"


def test_methods_that_these_images_cannot_teach_are_left_out(dataset: Dataset) -> None:
    methods = fast_methods(dataset)
    assert "padim" in methods and "devnet" not in methods
    with pytest.raises(ConfigError, match="magic"):
        compare(dataset, Request(["magic"]), Path("nowhere"))


def test_shared_features_are_those_of_torch(workshop: SharedWorkshop) -> None:
    from training.backbones import build_backbone

    backbone = build_backbone("efficientnet_lite0", (16,))
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    run = workshop.backbone_fn(backbone)
    first, again, expected = run(pictures), run(pictures[1:]), torch_backbone_fn(backbone)(pictures)
    assert len(first) == 1 and np.allclose(first[0], expected[0], atol=1e-3)
    assert np.array_equal(again[0][0], first[0][1])
