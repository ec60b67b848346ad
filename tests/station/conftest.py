"""Shared by the tests of the loop."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.model.bundle import ModelBundle
from edge_runtime.model.predictor import OpenvinoPredictor


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Iterator[OpenvinoPredictor]:
    with OpenvinoPredictor(ModelBundle.open(tiny_bundle)) as predictor:
        yield predictor
