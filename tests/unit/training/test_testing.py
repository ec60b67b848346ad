"""The suite for methods finds a head that breaks its promise."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from training.methods.table import METHODS
from training.testing import MethodContract

EXAMPLE = Path(__file__).parents[3] / "deploy" / "examples" / "plugin" / "lineside_example" / "method.py"


@pytest.fixture(scope="module")
def spread() -> Any:
    """The example's row."""
    found = importlib.util.spec_from_file_location("spread_example", EXAMPLE)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.SPREAD


def suite(row: Any, monkeypatch: pytest.MonkeyPatch) -> MethodContract:
    monkeypatch.setitem(METHODS._brought, "spread", row)
    own = MethodContract()
    own.method = "spread"
    return own


def broken(kind: str, base: Any) -> Any:
    class Broken(base):  # type: ignore[misc]
        def forward(self, levels: Any) -> Any:
            score, grid = super().forward(levels)
            if kind == "the contrary":
                return 1 / (1 + score), grid
            if kind == "of the batch":
                return score * len(score), grid
            if kind == "not finite":
                return score / self.mean.std(), grid
            return score + getattr(self, "beside", 0.0), grid

        def fit(self, features: Any, valid: Any, seed: int, progress: Any = None) -> None:
            super().fit(features, valid, seed)
            if kind == "everywhere":
                self.valid.fill_(1.0)
            if kind == "beside the state":
                self.beside = float(self.mean.mean())
            if kind == "of chance":
                self.mean.add_(torch.rand(()))

    return Broken


@pytest.mark.parametrize(
    ("kind", "test"),
    [
        ("the contrary", "test_what_is_unlike_any_good_image_scores_higher"),
        ("of the batch", "test_an_image_s_score_is_its_own"),
        ("not finite", "test_good_images_without_any_difference_leave_scores_finite"),
        ("everywhere", "test_good_images_without_any_difference_leave_scores_finite"),
        ("beside the state", "test_the_same_seed_fits_the_same_head_which_scores_alike_when_it_is_loaded"),
        ("of chance", "test_the_same_seed_fits_the_same_head_which_scores_alike_when_it_is_loaded"),
    ],
)
def test_a_head_that_breaks_a_promise_is_found(spread: Any, monkeypatch: pytest.MonkeyPatch, kind: str, test: str) -> None:
    with pytest.raises(AssertionError):
        getattr(suite(spread._replace(head=broken(kind, spread.head)), monkeypatch), test)()
    getattr(suite(spread, monkeypatch), test)()


def test_parameters_that_json_does_not_keep_are_found(spread: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    unkept = spread._replace(presets={"fast": ((16,), spread.params(least=torch.tensor(1.0)))})
    with pytest.raises(TypeError):
        suite(unkept, monkeypatch).test_every_preset_makes_a_head_and_can_be_stored()
    suite(spread, monkeypatch).test_every_preset_makes_a_head_and_can_be_stored()
