"""What every head keeps to, whatever its method: the suite that ships, on ours."""

import pytest

from training.methods.table import METHODS
from training.testing import MethodContract

MAPS = {"stfpm": [(1, 8, 8), (1, 4, 4)], "efficientad": [(1, 8, 8)] * 2, "autoencoder": [(1, 8, 8)] * 2}
"""Levels of heads over a network of their own; the others see a backbone's."""
LEVELS = [(12, 8, 8), (16, 4, 4)]


class TestEveryMethod(MethodContract):
    @pytest.fixture(params=METHODS, autouse=True)
    def _one(self, request: pytest.FixtureRequest) -> None:
        self.method = request.param
        self.levels = MAPS.get(self.method, LEVELS)
