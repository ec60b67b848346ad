"""The contract suites that ship with Lineside, on what this package brings: `pytest test_example.py` once it is installed."""

import functools

import pytest

from edge_runtime.testing import SinkContract, SourceContract, make_sink, make_source
from training.testing import MethodContract


class TestCard(SourceContract):
    @pytest.fixture
    def source(self):
        return make_source(kind="card", side=64)


class TestCsv(SinkContract):
    @pytest.fixture
    def make(self, tmp_path):
        return functools.partial(make_sink, kind="csv", path=tmp_path / "decisions.csv")


class TestSpread(MethodContract):
    method = "spread"
