"""What other programs may build upon: every public name of the public modules is declared, and nothing else is."""

import ast
import importlib
import inspect

import pytest


def test_what_a_public_package_takes_from_its_modules_is_what_it_declares() -> None:
    module = importlib.import_module("edge_runtime.testing")
    taken = [a.name for n in ast.parse(inspect.getsource(module)).body if isinstance(n, ast.ImportFrom) for a in n.names]
    assert module.__all__ == sorted(taken)


@pytest.mark.parametrize(
    "name", ["edge_runtime.client", "edge_runtime.records", "edge_runtime.errors", "edge_runtime.wire", "edge_runtime.protocols"]
)
def test_what_a_public_module_defines_is_what_it_declares(name: str) -> None:
    module = importlib.import_module(name)
    defined = set()
    for node in ast.parse(inspect.getsource(module)).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
        defined |= {getattr(t, "name", getattr(t, "id", "_")) for t in targets if not isinstance(node, ast.Import | ast.ImportFrom)}
    assert set(module.__all__) == {n for n in defined if not n.startswith("_")}
