"""The examples in docstrings do what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

from deploy.docs.generated import PACKAGES, ROOT

MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "\n    >>> " in path.read_text())


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("module", [name_of(path) for path in MODULES])
def test_the_examples_of_a_module_hold(module: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(module))
    assert tried > 0 and failed == 0, "see what it printed"


@pytest.mark.parametrize("room", ["client", "records", "wire", "images", "model", "calibrate", "judging"])
def test_a_room_that_others_build_upon_has_examples(room: str) -> None:
    assert [m for m in MODULES if room in (m.stem, m.parent.name)]
