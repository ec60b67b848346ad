"""Installed packages that are only for one test: a folder on sys.path with a module and what pip would have written beside it."""

import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest

_NUMBERS = itertools.count(1)


def install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, distribution: str, entries: Mapping[str, Mapping[str, str]], code: str = ""
) -> str:
    """Put a package of version 1.2 there. `entries`: group -> kind -> what it points to, `{m}` standing for the module that holds `code`.

    Returns the module's name.
    """
    module = f"{distribution.replace('-', '_')}_{next(_NUMBERS)}"
    place = folder / module
    info = place / f"{distribution.replace('-', '_')}-1.2.dist-info"
    info.mkdir(parents=True)
    (place / f"{module}.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    groups = {g: "".join(f"{kind} = {target.format(m=module)}\n" for kind, target in its.items()) for g, its in entries.items()}
    (info / "entry_points.txt").write_text("\n".join(f"[lineside.{group}]\n{lines}" for group, lines in groups.items()))
    monkeypatch.syspath_prepend(str(place))
    return module
