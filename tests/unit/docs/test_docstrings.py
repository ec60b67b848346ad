"""What is said of a name stands by itself: whoever reads it in an editor sees no line before it."""

import ast
from collections.abc import Iterator

from deploy.docs import generated

PACKAGES = ("edge_runtime", "training", "export")


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of what is said of modules, classes, functions and attributes: strings that are statements."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def test_no_docstring_begins_in_the_middle_of_a_sentence() -> None:
    begun = [
        f"{path.relative_to(generated.ROOT)}:{line}: {text.splitlines()[0]}"
        for package in PACKAGES
        for path in sorted((generated.ROOT / package).rglob("*.py"))
        for line, text in docstrings(path.read_text())
        if text.startswith(("Of ", "Likewise"))
    ]
    assert begun == []
